"""The command `demo`: what it trains is what it saves, reads back and samples."""

import inspect
import re
import subprocess
import sys

import pytest

import tensorgrad as tg
from tensorgrad.__main__ import Parser, main
from tensorgrad.commands import demo as command
from tensorgrad.models.gpt2 import GPT2LMHeadModel
from tensorgrad.models.inspection import opened
from tensorgrad.models.training import demo
from tensorgrad.models.training.gpt2_trainer import GPT2Trainer
from tests.test_cli import fails, misread
from tests.tree import ROOT


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """What the demo says by default, and its folder."""
    out = tmp_path_factory.mktemp("demo") / "new" / "folder"
    done = subprocess.run(
        [sys.executable, "-m", "tensorgrad", "demo", "gpt2", f"--out_dir={out}"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout.splitlines(), out


def test_it_learns_and_writes_the_sentences(learnt):
    """F0.10, B0.24: random weights know no sentence; what was trained and read back does."""
    lines, _ = learnt
    losses = [float(m[2]) for line in lines
              if (m := re.fullmatch(r"epoch (\d+)/40 \| loss (\d+\.\d{4})", line))]  # fmt: skip
    assert len(losses) == 40 and losses[0] > 4.5 and losses[-1] < 0.2
    assert lines[0].endswith("4,821,248 parameters, 4,821,248 of them trainable, on cpu")
    assert "read back into a new model: all its logits for the 5 sentences are equal" in lines
    assert any(re.match(r"forward, 1 x 10 tokens: median \S+ ms", line) for line in lines)
    samples = [line.strip()[1:-1] for line in lines if line.startswith("  ")]
    known = sum(text in demo.SENTENCES for text in samples)
    assert len(samples) == 5 and known >= 4
    assert lines[-1] == f"{known} of 5 are sentences that it learnt"


def test_both_forms_of_the_file_are_the_model(learnt):
    """B0.13, B0.24: and the special ids are ids of the vocabulary."""
    _, out = learnt
    model = GPT2Trainer.from_file(out / demo.FILE, "cpu").model
    pretrained, vocab = opened(str(out))
    assert demo.equal(model, pretrained)
    assert vocab.n_vocab == 257 == model.config.vocab_size
    ids = {model.config.bos_token_id, model.config.eos_token_id, model.config.pad_token_id}
    assert ids == {256} == {vocab.eot}
    other = GPT2LMHeadModel(model.config)
    assert not demo.equal(model, other)
    for text in demo.SENTENCES:
        start = text[:7]
        found = demo.generate_text_example(model, start, count=3)
        assert all(written.startswith(start) for written in found) and text in found


def test_padding_and_ends():
    """B0.5, B0.6: the mark that ends a sentence is learnt, the same mark as padding is not."""
    tokens = demo.Sentences()
    ids = tokens.encode("aé")
    assert ids == [256, 97, 0xC3, 0xA9, 256] and tokens.decode(ids) == "aé"
    assert tokens.decode([256, 97, 256, 98, 256]) == tokens.decode([97, 256]) == "a"
    assert tokens.decode([256, 97]) == "a" and tokens.decode([256, 256]) == tokens.decode([]) == ""
    row = demo.TextDataset(["aé"], tokens, 8)[0]
    assert row["input_ids"].tolist() == [*ids, 256, 256, 256]
    assert row["labels"].tolist() == [*ids, -100, -100, -100]


def test_a_file_that_is_not_the_model_is_told(tmp_path, monkeypatch, capsys):
    save = GPT2Trainer.save_model

    def other(trainer, path):
        with tg.no_grad():
            trainer.model.transformer.ln_f.bias[0] += 1e-3
        save(trainer, path)
        with tg.no_grad():
            trainer.model.transformer.ln_f.bias[0] -= 1e-3

    monkeypatch.setattr(GPT2Trainer, "save_model", other)
    monkeypatch.setitem(demo.SIZES, "n_layer", 1)
    told = fails(capsys, "demo", "gpt2", "--epochs=1", f"--out_dir={tmp_path}")
    assert "is not the one saved there" in told


def test_one_seed_one_demo(tmp_path, monkeypatch):
    monkeypatch.setitem(demo.SIZES, "n_layer", 1)
    told = [[], [], []]
    for lines, seed in zip(told, (3, 3, 4)):
        out = tmp_path / str(len(lines))
        demo.demo(epochs=2, seed=seed, out_dir=out, start="GPT", say=lines.append)
    first, again, other = (
        [line for line in lines if not line.startswith("forward")] for lines in told
    )
    assert first == again
    assert [line for line in first if "loss" in line] != [line for line in other if "loss" in line]
    assert any("after 'GPT'" in line for line in first)


def test_the_command_line(capsys, tmp_path):
    parser = Parser()
    command.add_options(parser)
    chosen = vars(parser.parse_args(["gpt2"]))
    for function in (demo.demo, demo.create_and_train_gpt2):
        parameters = inspect.signature(function).parameters
        for name in ("epochs", "lr", "seed", "out_dir", "device"):
            assert parameters[name].default == chosen[name]
    assert "MODEL" in misread(capsys, "demo")
    for wrong in ("--epochs=0", "--lr=0", "--lr=nan"):
        told = fails(capsys, "demo", "gpt2", wrong, f"--out_dir={tmp_path}/none")
        assert "epochs must be at least 1 and lr above 0" in told
    file = tmp_path / "file"
    file.write_text("x")
    assert "cannot make the folder" in fails(capsys, "demo", "gpt2", f"--out_dir={file}")
    assert "cuda" in fails(capsys, "demo", "gpt2", "--device=cuda:99", f"--out_dir={tmp_path}/none")
    assert list(tmp_path.iterdir()) == [file]


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom tensorgrad.__main__ import main\n"
        "for word in (['demo', 'gpt2'], ['evaluate']):\n"
        "    try:\n        main([*word, '--help'])\n    except SystemExit:\n        pass\n"
        "print(sorted({'numba', 'tiktoken', 'tqdm', 'scipy', 'tensorgrad.models.gpt2', "
        "'mpi4py'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("seed", [7, 8, 9])
def test_any_seed_learns_every_sentence(seed, tmp_path, capsys):
    assert main(["demo", "gpt2", f"--seed={seed}", f"--out_dir={tmp_path}"]) == 0
    assert re.search(r"[45] of 5 are sentences that it learnt", capsys.readouterr().out)
    model = GPT2Trainer.from_file(tmp_path / demo.FILE, "cpu").model
    for text in demo.SENTENCES:
        tokens = demo.Sentences()
        idx = tg.tensor([tokens.start(text[:2])])
        greedy = model.generate(idx, max_new_tokens=50, temperature=0)
        assert tokens.decode(greedy[0].tolist()) == text
