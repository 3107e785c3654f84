"""Whole runs of the ladder in a folder: what they write and tell, resuming, samples, bad input."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest

from tensorgrad.__main__ import main
from tensorgrad.data import names, words_of
from tensorgrad.models.training.folder import RunFolder
from tensorgrad.models.training.job import train
from tensorgrad.models.training.ladder import JOBS, revived
from tensorgrad.models.training.stopping import Stopped
from tensorgrad.rng import Generator
from tensorgrad.serialization import CheckpointError, load_tree
from tests.models.test_run import stop_at, without_times

WORDS = words_of(names())[::19]
STEPS = {"batch_size": 7, "max_iters": 6, "log_interval": 2, "eval_interval": 3, "sample_words": 3}
SMALL = {"n_embd": 3, "n_hidden": 5}
TINY = {
    "bigram": {"sample_words": 3},
    "neural-bigram": {**STEPS, "batch_size": 0},
    "mlp": {**STEPS, **SMALL},
    "mlp-bn": {**STEPS, **SMALL},
    "deep": {**STEPS, **SMALL, "n_layer": 3},
    "wavenet": {**STEPS, **SMALL, "block_size": 4},
}
jobs = pytest.mark.parametrize("word", TINY)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "words.txt"
    path.write_text("\n".join(WORDS), encoding="utf-8")
    return path


@jobs
def test_what_is_written_and_told(word, tmp_path, file, capsys):
    out = tmp_path / "out"
    history = train(JOBS[word], TINY[word], file, out)
    told = capsys.readouterr().out
    assert sorted(f.name for f in out.iterdir()) == [
        "ckpt.safetensors", "loss.png", "losses.jsonl", "times.jsonl",
    ]  # fmt: skip
    steps = [entry["step"] for entry in history]
    assert steps == ([1] if word == "bigram" else [2, 3, 4, 6])
    assert [e["step"] for e in history if "val_loss" in e] == ([1] if word == "bigram" else [3, 6])
    lines = [json.loads(line) for line in (out / "losses.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines] == [entry["loss"] for entry in history]
    assert all("grad_norm" not in line for line in lines)
    last = history[-1]
    for part in ("validation", "training", "test"):
        name = {"validation": "val", "training": "train"}.get(part, part)
        assert f"{part} {last[f'{name}_loss']:.4f}" in told or (
            f"{part} loss {last[f'{name}_loss']:.4f}" in told
        )
    assert "characters to predict: " in told and "a sample:" in told
    assert told.rstrip().endswith(f"more of it: tensorgrad sample --out_dir {out}")


@jobs
def test_the_model_comes_back_as_it_was_judged(word, tmp_path, file):
    """G2.d7, B2.21: with the calibrated statistics, whose losses are the ones that were told."""
    from tensorgrad.models.training.word_lm import WordCorpus
    from tensorgrad.models.training.word_trainer import evaluate

    out = tmp_path / "out"
    history = train(JOBS[word], TINY[word], file, out)
    job, model, vocab = revived(out)
    assert job is JOBS[word] and not model.training
    corpus = WordCorpus(names(file))
    assert vocab == corpus.vocab
    examples = corpus.examples(model.config.block_size)
    for part in ("train", "val", "test"):
        assert evaluate(model, *examples[part]) == history[-1][f"{part}_loss"]
    first, second = (job.write(model, vocab, Generator().manual_seed(7), "om") for _ in range(2))
    assert first == second and len(first.splitlines()) == 20
    assert all(line.startswith("om") for line in first.splitlines())


@pytest.mark.parametrize("word", [word for word in TINY if word != "bigram"])
def test_interrupted_and_resumed_byte_for_byte(word, tmp_path, file, monkeypatch):
    """6 steps = 2 steps, Ctrl-C, 4 steps."""
    whole, other = tmp_path / "whole", tmp_path / "other"
    train(JOBS[word], TINY[word], file, whole)
    with monkeypatch.context() as patched:
        stop_at(patched, 2, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(Stopped, match=rf"after step 2 of 6.*tensorgrad train {word} --resume"):
            train(JOBS[word], TINY[word], file, other)
    assert load_tree(other / "ckpt.safetensors")["trainer"]["step"] == 2
    train(JOBS[word], {}, out_dir=other, resume=True)  # which remembers words and settings
    assert (other / "ckpt.safetensors").read_bytes() == (whole / "ckpt.safetensors").read_bytes()
    assert without_times(other) == without_times(whole)


def test_calibration_does_not_disturb_what_resumes(tmp_path, file):
    """9 steps = 6 steps to the end, calibrated, and 3 more."""
    whole, other = tmp_path / "whole", tmp_path / "other"
    given = {**TINY["mlp-bn"], "lr_decay_at": 1.0}
    train(JOBS["mlp-bn"], {**given, "max_iters": 9}, file, whole)
    train(JOBS["mlp-bn"], given, file, other)
    train(JOBS["mlp-bn"], {"max_iters": 9}, out_dir=other, resume=True)
    assert (other / "ckpt.safetensors").read_bytes() == (whole / "ckpt.safetensors").read_bytes()


def test_a_checkpoint_of_another_model_is_refused(tmp_path, file):
    """And nothing is overwritten."""
    out = tmp_path / "out"
    train(JOBS["mlp"], TINY["mlp"], file, out)
    before = {f.name: f.read_bytes() for f in out.iterdir()}
    for word in ("wavenet", "mlp-bn", "char-gpt", "bigram"):
        with pytest.raises(CheckpointError, match=f"not the checkpoint of a {JOBS[word].kind} but"):
            train(JOBS[word], {}, out_dir=out, resume=True)
    with pytest.raises(ValueError, match="model has n_hidden 5, so it cannot go on with 6"):
        train(JOBS["mlp"], {"n_hidden": 6, "max_iters": 9}, out_dir=out, resume=True)
    with pytest.raises(ValueError, match="nothing to do: the checkpoint is at step 6"):
        train(JOBS["mlp"], {}, out_dir=out, resume=True)
    file.write_text("\n".join([*WORDS, "zoë"]), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"learnt the characters of .*same --data"):
        train(JOBS["mlp"], {"max_iters": 9}, out_dir=out, resume=True)
    assert {f.name: f.read_bytes() for f in out.iterdir()} == before


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"\n\n", "has no words"),
        (b"emma", "1 words, one a line, are too few"),
        (b"caf\xe9\n" * 99, "is not UTF-8"),
        (b"St. Ives\n" * 99, "which marks where words begin and end"),
    ],
)
def test_words_that_cannot_be_read_write_nothing(content, sentence, tmp_path, file, capsys):
    file.write_bytes(content)
    out = tmp_path / "out"
    assert main(["train", "mlp", f"--data={file}", f"--out_dir={out}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("tensorgrad train: ") and error.count("\n") == 1 and sentence in error
    assert not out.exists()


def test_the_command_line(tmp_path, file, capsys):
    """One command for each model; --help names every setting with the model's own default."""
    out = tmp_path / "out"
    options = [f"--{k.replace('_', '-')}={v}" for k, v in TINY["wavenet"].items()]
    assert main(["train", "wavenet", *options, f"--data={file}", f"--out_dir={out}"]) == 0
    config = RunFolder(out).load("WaveNet")["config"]
    assert (config["block_size"], config["n_embd"], config["n_hidden"]) == (4, 3, 5)
    capsys.readouterr()
    assert main(["sample", f"--out_dir={out}", "--num_samples=4", "--start=om"]) == 0
    assert [line[:2] for line in capsys.readouterr().out.splitlines()] == ["om"] * 4
    assert main(["sample", f"--out_dir={out}", "--score=omega"]) == 0
    assert "ln p(omega) = -" in capsys.readouterr().out
    assert main(["sample", f"--out_dir={out}", "--score=€"]) == 1
    assert "'€' (U+20AC) at position 0 is not among" in capsys.readouterr().err
    assert main(["train", "wavenet", "--resume", f"--out_dir={out}", "--max-iters=8"]) == 0
    assert "resuming after step 6" in capsys.readouterr().out
    assert main(["train", "mlp", "--resume", f"--out_dir={out}"]) == 1
    assert "is not the checkpoint of a plain MLP but of a WaveNet" in capsys.readouterr().err


@pytest.mark.parametrize("word", JOBS)
def test_help_explains_each_setting(word, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", word, "--help"])
    assert stop.value.code == 0
    told = " ".join(capsys.readouterr().out.split())
    job = JOBS[word]
    for name, value in job.settings({}).items():
        assert f"--{name} " in told and f"(default: {value})" in told
    assert "--resume" in told and "--data FILE" in told


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "wavnet"], "invalid choice: 'wavnet'"),
        (["train", "mlp", "--n_head=3"], "there is no option '--n_head'"),
        (["train", "mlp", "--n_hiden=3"], "no option '--n_hiden'; did you mean --n_hidden?"),
        (["train", "mlp", "--preset=nanogpt-cpu"], "there is no option '--preset'"),
        (["train", "char-gpt", "--preset=large"], "invalid choice: 'large'"),
    ],
)
def test_command_lines_that_are_none(arguments, sentence, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2 and sentence in capsys.readouterr().err


def test_presets():
    """G2.g1: nanoGPT's recipe for a CPU, and the lecture's for a GPU, of 10,788,929 parameters."""
    job = JOBS["char-gpt"]
    small, large = job.settings({}, "nanogpt-cpu"), job.settings({"seed": 5})
    sizes = ("n_layer", "n_head", "n_embd", "block_size", "batch_size", "max_iters", "dropout")
    assert [small[k] for k in sizes] == [4, 4, 128, 64, 12, 2000, 0.0]
    assert [large[k] for k in sizes] == [6, 6, 384, 256, 64, 5000, 0.2]
    assert large["learning_rate"] == 3e-4 and not large["decay_lr"] and large["seed"] == 5
    assert job.settings({}, "lecture") == job.settings({})
    with pytest.raises(ValueError, match="char-gpt has no preset 'x'; there is lecture and nanogp"):
        job.settings({}, "x")
    config = {k: v for k, v in large.items() if k in job.config.__dataclass_fields__}
    model = job.model(job.config(vocab_size=65, **config))
    assert sum(p.numel() for p in model.parameters()) == 10_788_929


def test_scores_are_of_words(tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("what was will be, and what will be was;\n" * 23)
    tiny = ["--n_embd=6", "--n_head=2", "--n_layer=1", "--block_size=7", "--batch_size=3"]
    assert main(["train", *tiny, "--max_iters=1", f"--data={text}", f"--out_dir={tmp_path}/o"]) == 0
    assert main(["sample", f"--out_dir={tmp_path}/o", "--score=was"]) == 1
    assert "a char GPT writes text and scores no words" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["mlp", "bigram"])
def test_the_default_words_need_nothing(word, tmp_path, capsys):
    train(JOBS[word], TINY[word], None, tmp_path / "out")
    assert "3,854 of them, 27 symbols" in capsys.readouterr().out
    assert RunFolder(tmp_path / "out").load()["text"]["path"] is None


def test_other_checkpoints_are_no_models(tmp_path):
    from tensorgrad.models.training.folder import FORMAT
    from tensorgrad.serialization import save_tree

    names = ("config", "recipe", "vocab", "text", "trainer")
    parts = {name: {"x": np.zeros(1)} for name in names}
    file = tmp_path / "ckpt.safetensors"
    save_tree(file, {"kind": "poem", "format": FORMAT, **parts})
    with pytest.raises(ValueError, match="is of a 'poem', which is no model of the ladder"):
        revived(tmp_path)
    save_tree(file, {"kind": "MLP", **parts})
    with pytest.raises(ValueError, match=r"ckpt\.safetensors' was written by another version"):
        revived(tmp_path)


def test_a_mini_gpt_writes_as_it_learns(tmp_path, capsys):
    """F1.5, G2.g4: a sample at each evaluation, which moves nothing; a longer one when asked."""
    text = tmp_path / "text.txt"
    text.write_text("what was will be, and what will be was;\n" * 23)
    sizes = {"n_embd": 6, "n_head": 2, "n_layer": 1, "block_size": 7, "batch_size": 3}
    given = {**sizes, "max_iters": 4, "eval_interval": 2, "eval_iters": 1, "sample_length": 5}
    runs = []
    for eval_sample in (11, 0):
        out = tmp_path / f"out-{eval_sample}"
        history = train(JOBS["mini-gpt"], {**given, "eval_sample": eval_sample}, text, out)
        runs.append(([entry["loss"] for entry in history], capsys.readouterr().out))
    assert runs[0][0] == runs[1][0]
    assert len(runs[0][1]) > len(runs[1][1])
    assert main(["sample", f"--out_dir={out}", "--max_new_tokens=1000"]) == 0
    assert len(capsys.readouterr().out) == 1 + 1000 + 1
