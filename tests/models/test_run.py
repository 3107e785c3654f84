"""A whole run in a folder: what it writes, that it goes on bit for bit, and what it refuses."""

import hashlib
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from tensorgrad.data import CharVocab
from tensorgrad.models.training import char_lm
from tensorgrad.models.training.char_lm import continuation, restored, train
from tensorgrad.models.training.folder import RunFolder
from tensorgrad.models.training.picture import smoothed
from tensorgrad.models.training.progress import Progress
from tensorgrad.models.training.stopping import Stopped, stop_requests
from tensorgrad.rng import Generator
from tensorgrad.serialization import CheckpointError, load_tree, save_arrays, save_tree

TEXT = "what was will be, and what will be was;\n" * 23
TINY = {
    "block_size": 7, "n_layer": 1, "n_head": 3, "n_embd": 15, "dropout": 0.2, "batch_size": 5,
    "max_iters": 6, "warmup_iters": 2, "eval_interval": 3, "eval_iters": 2, "sample_length": 9,
}  # fmt: skip


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "saying.txt"
    file.write_text(TEXT, encoding="utf-8")
    return file


@pytest.fixture
def done(tmp_path: Path, text: Path) -> Path:
    """The folder of a finished run."""
    train(TINY, text, tmp_path / "out")
    return tmp_path / "out"


def without_times(folder: Path) -> list[dict]:
    return [{**entry, "seconds": 0} for entry in RunFolder(folder).history()]


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, act) -> None:
    """Let something happen when a step is shown, which is between two steps."""
    show = Progress.show

    def watched(self: Progress, shown) -> None:
        show(self, shown)
        if shown.step == step:
            act()

    monkeypatch.setattr(Progress, "show", watched)


def test_what_is_written_and_told(tmp_path, text, capsys):
    history = train(TINY, text, tmp_path / "out")
    out = tmp_path / "out"
    assert sorted(file.name for file in out.iterdir()) == [
        "ckpt.safetensors", "loss.png", "losses.jsonl", "times.jsonl",
    ]  # fmt: skip
    assert [entry["step"] for entry in history] == [1, 2, 3, 4, 5, 6]
    assert [entry["step"] for entry in history if "val_loss" in entry] == [3, 6]
    losses, times = (
        [json.loads(line) for line in (out / name).read_text().splitlines()]
        for name in ("losses.jsonl", "times.jsonl")
    )
    assert [loss | time for loss, time in zip(losses, times, strict=True)] == history
    assert all(loss.keys() & time.keys() == {"step"} for loss, time in zip(losses, times))
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")
    told = capsys.readouterr().out
    assert "920 characters, 15 of them different" in told
    assert f"sha256: {hashlib.sha256(TEXT.encode()).hexdigest()}\n" in told
    for part in ("bigram model", "step 1/6 | loss", "step 6/6 | loss", "a sample:"):
        assert part in told
    assert f"validation loss {history[-1]['val_loss']:.4f}" in told


def test_the_loss_that_is_told_is_the_checkpoints(done):
    """The model that comes back has the validation loss that was written down."""
    model, vocab = restored(done)
    state = RunFolder(done).load("char GPT")
    assert state["trainer"]["step"] == 6 and CharVocab.from_dict(state["vocab"]) == vocab
    assert not model.training
    assert {**TINY}.items() <= {**state["config"], **state["recipe"]}.items()
    again = RunFolder(done).history()[-1]["val_loss"]
    corpus = char_lm.Corpus(char_lm.read_text(state["text"]["path"]))
    recipe = char_lm.Recipe.from_dict(state["recipe"])
    trainer = char_lm.Trainer(model, recipe, corpus.windows(7, 5, recipe.seed))
    assert trainer.estimate_loss()["val"] == again


def test_interrupted_and_resumed_byte_for_byte(tmp_path, text, done, monkeypatch, capsys):
    """6 steps = 2 steps, Ctrl-C, 4 steps: checkpoint and losses are the same bytes."""
    other = tmp_path / "other"
    with monkeypatch.context() as patched:
        stop_at(patched, 2, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(Stopped, match=r"after step 2 of 6.*--resume --out_dir") as stopped:
            train(TINY, text, other)
    assert stopped.value.signal == signal.SIGINT
    assert load_tree(other / "ckpt.safetensors")["trainer"]["step"] == 2
    train({}, out_dir=other, resume=True)  # which remembers text and settings
    assert "resuming after step 2" in capsys.readouterr().out
    assert (other / "ckpt.safetensors").read_bytes() == (done / "ckpt.safetensors").read_bytes()
    assert without_times(other) == without_times(done)


def test_killed_and_resumed_byte_for_byte(tmp_path, text, done, monkeypatch):
    """A crash loses what came after the last checkpoint, and it comes again."""
    other = tmp_path / "other"

    def crash() -> None:
        with open(other / "losses.jsonl", "a") as file:
            file.write('{"step": 6, "loss": 2.')  # a line that was being written
        raise SystemError

    with monkeypatch.context() as patched:
        stop_at(patched, 5, crash)
        with pytest.raises(SystemError):
            train(TINY, text, other)
    assert load_tree(other / "ckpt.safetensors")["trainer"]["step"] == 3
    assert [entry["step"] for entry in RunFolder(other).history()] == [1, 2, 3, 4, 5]
    train({}, out_dir=other, resume=True)
    assert (other / "ckpt.safetensors").read_bytes() == (done / "ckpt.safetensors").read_bytes()
    assert without_times(other) == without_times(done)


def test_a_disk_that_is_full_leaves_the_last_checkpoint(done, text, monkeypatch):
    before = (done / "ckpt.safetensors").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match=r"no space is left.*the file that was there is unchanged"):
        train({"max_iters": 9}, out_dir=done, resume=True)
    assert (done / "ckpt.safetensors").read_bytes() == before


def test_more_steps_can_be_asked_for(done):
    history = train({"max_iters": 8}, out_dir=done, resume=True)
    assert [entry["step"] for entry in history] == [1, 2, 3, 4, 5, 6, 7, 8]
    with pytest.raises(ValueError, match="nothing to do: the checkpoint is at step 8"):
        train({}, out_dir=done, resume=True)


def test_an_earlier_run_is_moved_aside_with_nothing_else(done, text, capsys):
    (done / "notes.txt").write_text("mine")
    first = {f.name: f.read_bytes() for f in done.iterdir()}
    train({**TINY, "seed": 5}, text, done)
    assert f"an earlier run is kept in {done / 'earlier-1'}" in capsys.readouterr().out
    train({**TINY, "seed": 7}, text, done)
    kept = {f.name: f.read_bytes() for f in (done / "earlier-1").iterdir()}
    assert kept == {name: first[name] for name in kept} and len(kept) == 4
    assert (done / "notes.txt").read_text() == "mine"
    assert (done / "earlier-2" / "ckpt.safetensors").read_bytes() != kept["ckpt.safetensors"]
    assert restored(done / "earlier-1")[0].config == restored(done)[0].config


def test_the_default_text_needs_nothing(tmp_path, capsys):
    train({**TINY, "max_iters": 1, "eval_iters": 1}, out_dir=tmp_path / "out")
    assert "characters" in capsys.readouterr().out
    assert load_tree(tmp_path / "out" / "ckpt.safetensors")["text"]["path"] is None


@pytest.mark.parametrize(
    ("given", "error", "sentence"),
    [
        ({"n_embd": 16}, ValueError, "n_embd must be a multiple of n_head"),
        ({"block_size": 92}, ValueError, r"too short: of 920 .* block_size of 91 at most"),
        ({"device": "tpu"}, RuntimeError, "device must be 'cpu', 'cuda' or 'cuda:N', not 'tpu'"),
        ({"max_itres": 5}, ValueError, "there is no setting 'max_itres'; did you mean 'max_iters'"),
        ({"max_iters": 2.5}, TypeError, "max_iters must be of type int, it is 2.5"),
    ],
)
def test_what_cannot_be_trained_writes_nothing(given, error, sentence, tmp_path, text):
    with pytest.raises(error, match=sentence):
        train({**TINY, **given}, text, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "there is no file"),
        (b"", "is empty"),
        (b"caf\xe9" * 99, "not UTF-8.*iconv"),
        (b"abc", "'.*saying.txt' is too short: of 3 characters"),
    ],
)
def test_a_text_that_cannot_be_read_writes_nothing(content, sentence, tmp_path, text):
    text.unlink() if content is None else text.write_bytes(content)
    with pytest.raises((OSError, ValueError), match=sentence):
        train(TINY, text, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_resuming_with_something_else_is_refused(done, text):
    before = (done / "ckpt.safetensors").read_bytes()
    with pytest.raises(ValueError, match="model has n_layer 1, so it cannot go on with 2"):
        train({"n_layer": 2, "max_iters": 9}, out_dir=done, resume=True)
    text.write_text(TEXT + "€", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"learnt the characters of .*same --data"):
        train({"max_iters": 9}, out_dir=done, resume=True)
    assert (done / "ckpt.safetensors").read_bytes() == before
    text.write_text(TEXT + TEXT, encoding="utf-8")
    train({"max_iters": 7}, out_dir=done, resume=True)  # other words, the same characters


def test_no_checkpoint_and_bad_ones(tmp_path, done):
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint .*train --out_dir"):
        restored(tmp_path / "nowhere")
    file = done / "ckpt.safetensors"
    whole = file.read_bytes()
    for at in (0, 100, len(whole) // 2, len(whole) - 1):
        damaged = bytearray(whole)
        damaged[at] ^= 0x40
        file.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"ckpt\.safetensors"):
            restored(done)
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"ckpt\.safetensors"):
        train({}, out_dir=done, resume=True)
    save_tree(file, {"kind": "wavenet"})
    with pytest.raises(CheckpointError, match="is not the checkpoint of a char GPT"):
        restored(done)
    save_arrays(file, {"x": np.zeros(3)})
    with pytest.raises(CheckpointError, match="holds arrays and no nested state"):
        restored(done)


def test_a_folder_that_cannot_be(tmp_path, text):
    with pytest.raises(OSError, match=r"cannot make the folder .*saying\.txt'"):
        train(TINY, text, text)
    with pytest.raises(OSError, match=r"cannot make the folder .*inside'"):
        train(TINY, text, text / "inside")


def test_samples(done):
    model, vocab = restored(done)

    def write(start, seed=7, **options):
        return continuation(
            model, vocab, start, 19, generator=Generator().manual_seed(seed), **options
        )

    assert write("what ").startswith("what ") and len(write("what ")) == 24
    assert write("what ") == write("what ") != write("what ", seed=8)
    assert write("what ", temperature=0) == write("what ", seed=8, top_k=1)
    assert write(None).startswith("\n")
    with pytest.raises(ValueError, match=r"'€' \(U\+20AC\) at position 2"):
        write("wa€")
    with pytest.raises(ValueError, match="at least one token"):
        write("")


def test_a_vocabulary_without_lines_starts_with_its_first_character(tmp_path, text):
    text.write_text("xyz" * 99, encoding="utf-8")
    train({**TINY, "max_iters": 1}, text, tmp_path / "out")
    assert continuation(*restored(tmp_path / "out"), None, 3).startswith("x")


def test_a_signal_is_a_wish_and_the_second_a_command():
    """The handlers are those of before after the first signal, and after the block."""
    with stop_requests() as asked:
        signal.raise_signal(signal.SIGTERM)
        assert asked == [signal.SIGTERM]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with stop_requests() as asked:
        pass
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert asked == []


def test_the_moving_mean():
    """Symmetric but at the end; of a constant the constant."""
    losses = [7.0, 5.0, 3.0, 2.0, 1.0]
    assert smoothed(losses, reach=2) == pytest.approx([7, 5, 18 / 5, 11 / 4, 2])
    assert smoothed([3.0] * 99) == pytest.approx([3.0] * 99)
    assert smoothed([4.0]) == [4.0]
