"""`tensorgrad train gpt2` as a command: help, presets, other names, what is refused and how."""

import subprocess
import sys

import pytest

from tensorgrad.models.training.folder import RunFolder
from tensorgrad.models.training.token_lm import GPT2
from tests.models.small_gpt2 import TINY, shards
from tests.test_cli import fails, misread
from tests.tree import ROOT

HEAVY = ("numba", "scipy", "matplotlib", "tiktoken", "datasets", "tqdm", "mpi4py", "wandb",
         "tensorboardX", "torch", "cupy", "safetensors", "huggingface_hub")  # fmt: skip


def run(*arguments, **options):
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, **options
    )


def command(folder, **changes):
    """The arguments of a small run."""
    values = {**TINY, "data": folder, **changes}
    return ["train", "gpt2", *(f"--{name}={value}" for name, value in values.items())]


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from tensorgrad.__main__ import main\n"
        "try: main(['train', 'gpt2', '--help'])\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        f"print('LOADED', [n for n in {HEAVY} if n in sys.modules])"
    )
    done = run("-c", code)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert done.stdout.splitlines()[-1] == "LOADED []"
    told = " ".join(done.stdout.split())
    for part in ("--preset {llm.c,plain,tiny}", "(default: llm.c)", "--init_from STR",
                 "--block_size INT the same as n_positions", "--on_spike STR",
                 "--data FILE a folder of token shards, NAME_train_*.bin"):  # fmt: skip
        assert part in told, part
    assert "--vocab_size" not in told  # the shards decide


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        (None, {"batch_size": 16, "total_batch_size": 524_288, "max_iters": 19_560,
                "learning_rate": 6e-4, "warmup_iters": 700, "min_lr": 0.0, "weight_decay": 0.1,
                "beta2": 0.95, "grad_clip": 1.0, "resid_pdrop": 0.0, "dtype": "auto"}),
        ("plain", {"batch_size": 32, "total_batch_size": 524_288, "max_iters": 38,
                   "learning_rate": 3e-4, "decay_lr": False, "weight_decay": 0.01,
                   "beta2": 0.999, "grad_clip": 0.0}),
        ("tiny", {"n_layer": 4, "n_embd": 128, "n_positions": 128, "total_batch_size": 0,
                  "attn_pdrop": 0.0}),
    ],
)  # fmt: skip
def test_presets(preset, expected):
    """F4.5: llm.c's by default; each is on top of it, and what is given is on top of both."""
    values = GPT2.settings({}, preset)
    assert {name: values[name] for name in expected} == expected
    sizes, rates = {}, {}
    for name, value in values.items():
        (sizes if name in GPT2.config.__dataclass_fields__ else rates)[name] = value
    recipe, config = GPT2.recipe(**rates), GPT2.config(**sizes)
    if preset != "tiny":
        assert (config.n_layer, config.n_embd, config.n_positions) == (12, 768, 1024)
        times = {None: 32, "plain": 16}[preset]
        assert recipe.accumulation(recipe.batch_size * 1024, 1) == times
    given = GPT2.settings({"learning_rate": 0.5, "n_layer": 1}, preset)
    assert (given["learning_rate"], given["n_layer"]) == (0.5, 1)


def test_the_defaults_of_the_help_are_the_presets(capsys):
    from tensorgrad.__main__ import main

    with pytest.raises(SystemExit):
        main(["train", "gpt2", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "AdamW's rate after the warm-up (default: 0.0006)" in told
    assert "dropout of the embeddings (default: 0.0)" in told


def test_there_is_no_other_preset(capsys):
    assert "invalid choice: 'huge'" in misread(capsys, "train", "gpt2", "--preset=huge")
    with pytest.raises(ValueError, match=r"gpt2 has no preset 'huge'; there is llm\.c and plain"):
        GPT2.settings({}, "huge")


def test_other_names_of_settings(tmp_path):
    """--block_size and --dropout, as nanoGPT has them; dashes for underscores."""
    from tensorgrad.__main__ import main

    line = command(shards(tmp_path), out_dir=tmp_path / "out", max_iters=1)
    line = [a.replace("--n_positions", "--block-size") for a in line]
    assert main([*line, "--dropout", "0.25"]) == 0
    config = RunFolder(tmp_path / "out").load()["config"]
    assert config["n_positions"] == 7
    assert config["resid_pdrop"] == config["embd_pdrop"] == config["attn_pdrop"] == 0.25


def test_two_values_for_one_thing(tmp_path, capsys):
    line = command(shards(tmp_path), out_dir=tmp_path / "out", block_size=5)
    assert "n_positions is given twice: 7 and 5" in fails(capsys, *line)
    assert "there is no option '--blocksize'; did you mean --block_size?" in misread(
        capsys, "train", "gpt2", "--blocksize=5"
    )


def test_a_text_has_to_be_prepared_first(tmp_path, capsys):
    text = tmp_path / "saying.txt"
    text.write_text("what was will be")
    error = fails(capsys, "train", "gpt2", f"--data={text}", f"--out_dir={tmp_path / 'out'}")
    assert f"`tensorgrad prepare {text} --out DIR` makes them of a text" in error
    assert not (tmp_path / "out").exists()


def test_without_data_it_says_what_to_do(tmp_path, capsys):
    error = fails(capsys, "train", "gpt2", "--preset=tiny", "--out_dir", tmp_path / "out")
    assert "`tensorgrad prepare FILE --out DIR` makes them" in error and "--data DIR" in error
    error = fails(capsys, "train", "gpt2", "--data", tmp_path / "none", "--out_dir", tmp_path / "o")
    assert f"there is no folder {str(tmp_path / 'none')!r} of token shards" in error
    assert not (tmp_path / "out").exists() and not (tmp_path / "o").exists()


def test_checkpoint_is_for_resume(tmp_path, capsys):
    """Which then goes on from the one that is named."""
    from tensorgrad.__main__ import main

    folder, out = shards(tmp_path), tmp_path / "out"
    assert main(command(folder, out_dir=out, keep_last=3)) == 0
    capsys.readouterr()
    name = "--checkpoint=ckpt-00000003.safetensors"
    error = fails(capsys, "train", "gpt2", "--out_dir", out, name)
    assert "--checkpoint says what --resume goes on from; give both" in error
    error = fails(capsys, "train", "gpt2", "--out_dir", out, "--resume", "--checkpoint=best")
    assert "there is no checkpoint" in error and "ckpt-00000003.safetensors" in error
    losses = (out / "losses.jsonl").read_bytes()
    assert main(["train", "gpt2", "--out_dir", str(out), "--resume", name]) == 0
    assert "resuming after step 3" in capsys.readouterr().out
    assert (out / "losses.jsonl").read_bytes() == losses
    assert "give --resume or --auto_resume, not both" in fails(
        capsys, "train", "gpt2", "--out_dir", out, "--resume", "--auto_resume"
    )


def test_auto_resume_begins_and_goes_on(tmp_path, capsys):
    """The same line every time: for a job that may be killed at any moment."""
    from tensorgrad.__main__ import main

    line = [*command(shards(tmp_path), out_dir=tmp_path / "out"), "--auto_resume"]
    assert main(line) == 0
    assert "resuming" not in capsys.readouterr().out
    assert main([*line, "--max_iters=8"]) == 0
    assert "resuming after step 6" in capsys.readouterr().out
    kept = (tmp_path / "out" / "ckpt.safetensors").read_bytes()
    assert main([*line, "--max_iters=8"]) == 0  # started once more when all is done
    assert (tmp_path / "out" / "ckpt.safetensors").read_bytes() == kept


def test_a_resumed_model_keeps_its_sizes(tmp_path, capsys):
    from tensorgrad.__main__ import main

    out = tmp_path / "out"
    assert main(command(shards(tmp_path), out_dir=out)) == 0
    capsys.readouterr()
    error = fails(capsys, "train", "gpt2", "--out_dir", out, "--resume", "--n_layer=3")
    assert "the checkpoint's model has n_layer 2, so it cannot go on with 3" in error
    error = fails(capsys, "train", "gpt2", "--out_dir", out, "--resume", "--dropout=0.5")
    assert "pdrop" in error and "0.5" in error
