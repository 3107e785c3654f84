"""What a run tells: lines, times, shares of the peak, and the loggers beside the JSON lines."""

import importlib.util
import json
import re
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tensorgrad.__main__ import main
from tensorgrad.models.budget import budget
from tensorgrad.models.training import progress, token_lm, trainer
from tensorgrad.models.training.folder import RunFolder
from tensorgrad.models.training.job import train
from tensorgrad.models.training.logs import named_loggers
from tensorgrad.models.training.progress import Progress, duration, line
from tensorgrad.models.training.recipe import Recipe
from tensorgrad.models.training.run import throughput
from tensorgrad.models.training.token_lm import GPT2
from tensorgrad.models.training.trainer import Step
from tests.models.small_gpt2 import TINY, T, shards, small_trainer
from tests.tree import ROOT


def step(number, seconds=0.25, **more):
    return Step(number, 10.97811, 15.123, 8.57e-7, seconds, 524_288, **more)


# ---- lines


def test_a_line_is_llm_cs():
    """B4.11: step, loss, norm, rate, milliseconds, tokens a second; a share of the peak."""
    assert line(step(2, mfu=0.5537), 19560, 3 * 3600 + 2) == (
        "step 2/19560 | loss 10.9781 | norm 15.12 | lr 8.6e-07 | 250 ms | 2097.2k tok/s | "
        "MFU 55.4 % | ETA 3 h"
    )
    told = line(step(250, train_loss=3.5, val_loss=3.75, skipped="the loss is 9"), 19560)
    assert told.endswith("k tok/s | train 3.5000 | val 3.7500 | skipped: the loss is 9")
    assert "MFU" not in told and "ETA" not in told


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"), (0.4, "0 s"), (12, "12 s"), (59.6, "1 min"), (60, "1 min"), (61, "1 min 1 s"),
        (200, "3 min 20 s"), (3600, "1 h"), (3659, "1 h"), (3660, "1 h 1 min"),
        (18_180, "5 h 3 min"), (86_399, "23 h 59 min"), (86_400, "1 d"), (525_600, "6 d 2 h"),
        (86_400 + 59 * 60, "1 d"),
    ],
)  # fmt: skip
def test_durations(seconds, said):
    assert duration(seconds) == said


def shown(capsys, recipe, steps, done=0):
    with Progress(recipe, done) as shower:
        for told in steps:
            shower.show(told)
    return capsys.readouterr().out.splitlines()


def test_the_time_left_leaves_the_first_step_out(capsys):
    """B4.11: it compiles kernels; the median of the others is what is left, times the steps."""
    recipe = Recipe(max_iters=100)
    lines = shown(capsys, recipe, [step(1, 99.0), step(2, 2.0), step(3, 4.0), step(4, 300.0)])
    assert "ETA" not in lines[0]
    assert lines[1].endswith("| ETA 3 min 16 s")  # 98 x 2
    assert lines[2].endswith("| ETA 4 min 51 s")  # 97 x 3
    assert lines[3].endswith("| ETA 6 min 24 s")  # 96 x 4: one slow step does not matter
    assert "ETA" not in shown(capsys, recipe, [step(99), step(100)], 98)[-1]


def test_a_resumed_run_leaves_its_own_first_step_out(capsys):
    lines = shown(capsys, Recipe(max_iters=100), [step(51, 99.0), step(52, 2.0)], 50)
    assert "ETA" not in lines[0] and lines[1].endswith("| ETA 1 min 36 s")


def test_lines_at_intervals_and_evaluations_always(capsys):
    recipe = Recipe(max_iters=100, log_interval=5)
    steps = [step(i, val_loss=3.0, train_loss=2.0) if i == 7 else step(i) for i in range(1, 12)]
    steps[8] = step(9, skipped="a spike")
    lines = shown(capsys, recipe, steps)
    assert [int(re.match(r"step (\d+)/", text)[1]) for text in lines] == [1, 5, 7, 9, 10]


def test_a_bar_on_a_terminal(monkeypatch, capsys):
    """And evaluations as lines above it, on stderr, whose last column is not passed."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress(Recipe(max_iters=3)) as shower:
        for i in (1, 2):
            shower.show(step(i, val_loss=3.0 if i == 2 else None, train_loss=2.0))
        shower.back(1)
        assert shower.bar.n == 1
        shower.say("a text")
    told = capsys.readouterr()
    assert told.out == "" and "loss 10.978" in told.err
    assert "| val 3.0000" in told.err and "a text" in told.err


# ---- speed


def test_throughput_leaves_the_first_step_out():
    """B4.11: and says so."""
    history = [
        {"step": i, "seconds": s, "tokens": 1000, "mfu": 0.01 * i}
        for i, s in enumerate([50.0, 1.0, 0.5, 2.0], 1)
    ]
    assert throughput(history) == (
        "speed: 1,000 tokens a second, the median of 3 steps; the first, which compiles kernels, "
        "took 50.0 s and is left out; 3.0 % of the products' peak measured here; in "
        "all 4,000 tokens in 54 s"
    )
    assert throughput(history[:1]) == (
        "speed: 20 tokens a second in the only step, compiling included"
    )
    assert throughput([{"step": 1, "loss": 2.0}]) == "no step was timed"
    assert "characters a second" in throughput([{"seconds": 1, "tokens": 3}] * 2, "character")


def test_mfu_is_operations_over_time_and_peak(tmp_path, monkeypatch):
    """With a clock and a peak of our own: 6 N + 12 L C T operations a token."""
    folder = shards(tmp_path)
    monkeypatch.setattr(token_lm, "measured_peak", lambda device, dtype: 5e9)
    recipe = GPT2.recipe(batch_size=2, gradient_accumulation_steps=3, max_iters=4)
    config = GPT2.config(vocab_size=263, n_positions=T, n_layer=2, n_head=3, n_embd=15)
    made = GPT2.trainer(GPT2.made(config, recipe, True), recipe, GPT2.corpus(folder, recipe))
    N = 2 * 12 * 15 * 15 + 263 * 15  # matrices of the blocks, and the head
    assert made.flops == 6 * N + 12 * 2 * 15 * T == budget(made.model, T).training_flops
    ticks = iter([100.0, 100.5, 100.0, 100.5])
    clock = SimpleNamespace(perf_counter=lambda: next(ticks))
    monkeypatch.setattr(trainer, "time", clock)
    told = made.take_step()
    assert told.seconds == 0.5 and told.tokens == 2 * 3 * T
    assert told.mfu == pytest.approx(made.flops * 42 / 0.5 / 5e9, rel=1e-12)
    made.peak = 0.0
    assert made.take_step().mfu is None


def test_a_run_tells_and_keeps_it(tmp_path, monkeypatch, capsys):
    """Times and shares stand apart from the losses, which are the same bytes in every run."""
    monkeypatch.setattr(token_lm, "measured_peak", lambda device, dtype: 5e9)
    history = train(GPT2, TINY, shards(tmp_path), tmp_path / "out")
    told = capsys.readouterr().out
    assert "whose peak measured here is 0.005 TFLOP/s" in told and " | MFU " in told
    assert throughput(history, "token") in told and "of 5 steps; the first, which comp" in told
    assert re.search(r"peak memory: \d+\.\d\d GiB\n", told)
    times = [json.loads(text) for text in (tmp_path / "out/times.jsonl").read_text().splitlines()]
    assert all(entry.keys() == {"step", "seconds", "mfu"} for entry in times)
    flops = budget(GPT2.config(vocab_size=263, n_positions=T, n_layer=2, n_head=3, n_embd=15), T)
    for entry in times:
        expected = flops.training_flops * 14 / entry["seconds"] / 5e9
        assert entry["mfu"] == pytest.approx(expected, rel=1e-9)


# ---- loggers


def test_loggers_are_named():
    assert named_loggers("") == [] and named_loggers(" wandb , tensorboard") == [
        "wandb", "tensorboard",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="log must name tensorboard or wandb, it is 'tensorbord'"):
        Recipe(log="tensorbord")


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_library_is_a_sentence_before_any_file(name, tmp_path, monkeypatch, capsys):
    library = {"tensorboard": "tensorboardX", "wandb": "wandb"}[name]
    monkeypatch.setitem(sys.modules, library, None)
    arguments = ["--data", shards(tmp_path), "--out_dir", tmp_path / "out", f"--log={name}"]
    assert main(["train", "gpt2", "--preset=tiny", *map(str, arguments)]) == 1
    assert capsys.readouterr().err == f"tensorgrad train: --log={name}: pip install {library}\n"
    assert not (tmp_path / "out").exists()


def test_an_import_that_fails_by_itself_is_not_hidden(tmp_path, monkeypatch):
    """Of such a fault the trace is wanted."""
    monkeypatch.setitem(sys.modules, "tensorgrad.models.training.ladder", None)
    with pytest.raises(ImportError, match="ladder"):
        main(["train", "gpt2", "--data", str(tmp_path)])


def scalars(path):
    """(tag, step, value) of each scalar in an event file: its frames, protobuf by hand."""
    data, at = path.read_bytes(), 0
    while at < len(data):
        (size,) = struct.unpack("<Q", data[at : at + 8])
        event = dict(fields(data[at + 12 : at + 12 + size]))
        at += size + 16
        if 5 in event:  # Event.summary -> Summary.value -> tag, simple_value
            for number, value in fields(event[5]):
                inside = dict(fields(value)) if number == 1 else {}
                if 2 in inside:
                    yield inside[1].decode(), event.get(2, 0), struct.unpack("<f", inside[2])[0]


def fields(data):
    """(number, bytes or integer) of a protobuf message."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        number, kind = divmod(varint(), 8)
        if kind == 0:
            yield number, varint()
            continue
        size = {1: 8, 5: 4}.get(kind) or varint()
        yield number, data[at : at + size]
        at += size


def test_tensorboards_files_can_be_read_back(tmp_path):
    """All numbers of all steps under their names; a resumed run goes on in the same folder."""
    pytest.importorskip("tensorboardX")
    folder, out = shards(tmp_path), tmp_path / "out"
    train(GPT2, {**TINY, "log": "tensorboard", "max_iters": 4}, folder, out)
    train(GPT2, {"max_iters": 6}, out_dir=out, resume=True)
    found = {}
    for file in sorted((out / "tensorboard").iterdir()):
        for tag, number, value in scalars(file):
            found[tag, number] = value
    history = RunFolder(out).history()
    assert [s["step"] for s in history] == [1, 2, 3, 4, 5, 6]
    for told in history:
        for tag in ("loss", "grad_norm", "lr", "seconds", "tokens", "mfu"):
            assert found[tag, told["step"]] == pytest.approx(told[tag], rel=1e-6), tag
        speed = told["tokens"] / told["seconds"]
        assert found["tokens_per_second", told["step"]] == pytest.approx(speed, rel=1e-6)
        assert (("val_loss", told["step"]) in found) == ("val_loss" in told)


OFFLINE = """
import sys
from tensorgrad.__main__ import main
raise SystemExit(main(sys.argv[1:]))
"""


def test_wandb_writes_a_run_without_a_network(tmp_path):
    """In a process of its own, without WANDB_MODE: a file to be sent by `wandb sync`."""
    if importlib.util.find_spec("wandb") is None:
        pytest.skip("needs wandb")
    out = tmp_path / "out"
    given = {**TINY, "log": "wandb", "data": shards(tmp_path), "out_dir": out}
    arguments = [f"--{name}={value}" for name, value in given.items()]
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, "train", "gpt2", *arguments],
        cwd=ROOT, capture_output=True, text=True, env=without_wandb(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [run] = (out / "wandb").glob("offline-run-*")
    [file] = run.glob("run-*.wandb")
    data = file.read_bytes()
    for name in (b"grad_norm", b"tokens_per_second", b"val_loss", b"n_embd", b"learning_rate"):
        assert name in data, name
    # LevelDB's log: 7 bytes of header, then blocks of records with a checksum each
    assert data[:4] == b":W&B" and len(data) > 2000


def without_wandb(home: Path):
    import os

    kept = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    return kept | {"HOME": str(home), "WANDB_SILENT": "true"}


def test_without_loggers_nothing_is_written_for_them(tmp_path):
    train(GPT2, TINY, shards(tmp_path), tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"ckpt.safetensors", "loss.png", "losses.jsonl", "times.jsonl"}
    assert small_trainer(tmp_path / "shards").take_step().mfu is None
    assert progress.line(step(1), 5).startswith("step 1/5")
