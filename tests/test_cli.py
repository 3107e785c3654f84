"""The command line as users meet it: real processes, exit statuses, a sentence for each mistake."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import pytest

from tensorgrad.__main__ import main
from tests.terminal import on_a_terminal
from tests.tree import ROOT

TEXT = "what was will be, and what will be was;\n" * 23
TINY = [
    *("--block_size=7", "--n-layer=1", "--n_head=3", "--n-embd=15", "--batch-size=5"),
    *("--warmup_iters", "2", "--eval-iters", "2", "--sample_length=9"),
]
COMMAND = [sys.executable, "-m", "tensorgrad"]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "saying.txt"
    file.write_text(TEXT, encoding="utf-8")
    return file


def tensorgrad(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True
    )


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one sentence on stderr of a command that fails, run in this process."""
    assert main([str(a) for a in arguments]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith(f"tensorgrad {arguments[0]}: ")
    return error


def misread(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The last line on stderr of a command line that is none."""
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    assert stop.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_train_then_sample_then_resume(tmp_path, text):
    out = tmp_path / "out"
    trained = tensorgrad("train", *TINY, "--max_iters", 3, "--data", text, "--out-dir", out)
    assert trained.returncode == 0, trained.stderr
    assert trained.stderr == ""
    lines = trained.stdout.splitlines()
    pattern = (
        r"step \d/3 \| loss \d\.\d{4} \| norm \S+ \| lr \S+ \| \d+ ms \| \S+k tok/s"
        r"( \| train \S+ \| val \S+)?( \| ETA \d+ s)?"
    )
    assert [bool(re.fullmatch(pattern, line)) for line in lines].count(True) == 3
    assert f"more of it: tensorgrad sample --out_dir {out}" in lines
    sampled = tensorgrad("sample", "--out_dir", out, "--start", "what ", "--max_new_tokens=31")
    assert sampled.returncode == 0, sampled.stderr
    assert sampled.stdout.startswith("what ") and len(sampled.stdout) == 5 + 31 + 1
    resumed = tensorgrad("train", "--resume", "--max-iters=5", "--out_dir", out)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming after step 3" in resumed.stdout and "step 5/5" in resumed.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_stops(number, tmp_path, text):
    out = tmp_path / "out"
    options = ["--max_iters=1000000", "--eval_interval=1000000", "--data", text, "--out_dir", out]
    command = [*COMMAND, "train", *TINY, *map(str, options)]
    with subprocess.Popen(command, cwd=ROOT, stdout=PIPE, stderr=PIPE, text=True) as run:
        assert run.stdout is not None
        for line in run.stdout:
            if line.startswith("step 3/"):
                break
        run.send_signal(number)
        _, error = run.communicate()
    assert run.returncode == 128 + number
    assert "Traceback" not in error
    stopped = re.search(r"stopped after step (\d+) of 1000000, and saved", error)
    assert stopped, error
    assert f"go on with: tensorgrad train --resume --out_dir {out}" in error
    step = int(stopped[1])
    assert len((out / "losses.jsonl").read_text().splitlines()) == step
    resumed = tensorgrad("train", "--resume", f"--max_iters={step + 2}", "--out_dir", out)
    assert f"resuming after step {step}\n" in resumed.stdout, resumed.stderr
    assert resumed.returncode == 0


def test_a_terminal_gets_a_bar(tmp_path, text):
    options = ["--max_iters=7", "--eval_interval=5", "--data", text, "--out_dir", tmp_path / "out"]
    run, bar = on_a_terminal([*COMMAND, "train", *TINY, *options], ROOT)
    assert run.returncode == 0
    assert "7/7" in bar and "100%" in bar and "step/s" in bar and "loss " in bar
    assert bar.count("val ") == 2 and "step 1/7" not in run.stdout


def test_nobody_reads_on(tmp_path, text):
    assert main(["train", *TINY, "--max_iters=1", f"--data={text}", f"--out_dir={tmp_path}/o"]) == 0
    sample = [*COMMAND, "sample", f"--out_dir={tmp_path}/o", "--max_new_tokens=5"]
    with subprocess.Popen(sample, cwd=ROOT, stdout=PIPE, stderr=PIPE) as run:
        assert run.stdout is not None and run.stderr is not None
        run.stdout.close()
        assert run.stderr.read() == b""
    assert run.returncode == 1


def test_env_reports():
    told = tensorgrad("env")
    assert told.returncode == 0 and "numpy:" in told.stdout and "device='cuda'" in told.stdout


def test_help_of_every_command():
    assert main([]) == 0
    for command in ("train", "sample", "env"):
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["trian"], "there is no command 'trian'; did you mean train?"),
        (["train", "--max-itres=5"], "there is no option '--max_itres'; did you mean --max_iters?"),
        (["train", "--temperature", "1"], "there is no option '--temperature'"),
        (["sample", "--temprature", "1"], "no option '--temprature'; did you mean --temperature?"),
        (["sample", "--max_iters=5"], "there is no option '--max_iters'"),
        (["train", "--max_iters", "many"], "argument --max_iters: invalid int value: 'many'"),
        (["train", "--max_iters=2.5"], "argument --max_iters: invalid int value: '2.5'"),
        (["train", "--decay_lr=maybe"], "--decay_lr: expected True or False, not 'maybe'"),
        (["train", "--batch=5"], "there is no option '--batch'"),
        (["train", "--seed"], "argument --seed: expected one argument"),
    ],
)
def test_command_lines_that_are_none(arguments, sentence, capsys):
    assert sentence in misread(capsys, *arguments)


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--n_embd=16", "n_embd must be a multiple of n_head"),
        ("--n-head=-4", "n_head must be at least 1, it is -4"),
        ("--batch-size=0", "batch_size must be at least 1, it is 0"),
        ("--max_iters=-1", "max_iters must be at least 1, it is -1"),
        ("--learning_rate=-0.1", "learning_rate must be at least 0, it is -0.1"),
        ("--learning_rate=nan", "learning_rate must be finite, it is nan"),
        ("--learning_rate=1e-5", "min_lr is where the learning rate ends"),
        ("--dropout=1.5", "dropout must be less than 1, it is 1.5"),
        ("--block_size=92", "'.*saying.txt' is too short: of 920 characters a tenth, 92,"),
        ("--device=tpu", "device must be 'cpu', 'cuda' or 'cuda:N', not 'tpu'"),
        ("--seed=99999999999999999999", "lies outside"),
        ("--n_embd=30000000000", "."),
    ],
)
def test_settings_that_cannot_be(option, sentence, tmp_path, text, capsys):
    told = fails(capsys, "train", *TINY, "--data", text, f"--out_dir={tmp_path / 'o'}", option)
    assert re.search(sentence, told)
    assert not (tmp_path / "o").exists()


def test_no_cuda_is_a_sentence(tmp_path, text, capsys, monkeypatch):
    monkeypatch.setattr("tensorgrad.environment.cuda_problem", lambda: "there is no NVIDIA driver")
    folder = f"--out_dir={tmp_path / 'o'}"
    told = fails(capsys, "train", *TINY, "--data", text, folder, "--device=cuda")
    assert "device 'cuda': there is no NVIDIA driver" in told
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda file: file.unlink(), "there is no file"),
        (lambda file: file.write_bytes(b""), "is empty"),
        (lambda file: file.write_bytes(b"\xff\xfe\x00"), "is not UTF-8"),
        (lambda file: file.write_text("short"), "is too short"),
        (lambda file: (file.unlink(), file.mkdir()), "is a folder"),
    ],
)
def test_texts_that_cannot_be(make, sentence, tmp_path, text, capsys):
    make(text)
    out = tmp_path / "o"
    assert sentence in fails(capsys, "train", "--data", text, "--out_dir", out)
    assert not out.exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_text_that_may_not_be_read(text, tmp_path, capsys):
    text.chmod(0)
    assert "may not be read" in fails(capsys, "train", "--data", text, "--out_dir", tmp_path / "o")


def test_checkpoints_that_cannot_be(tmp_path, text, capsys):
    out = tmp_path / "o"
    told = fails(capsys, "sample", "--out_dir", out)
    assert f"there is no checkpoint '{out / 'ckpt.safetensors'}'" in told
    assert "there is no checkpoint" in fails(capsys, "train", "--resume", "--out_dir", out)
    assert main(["train", *TINY, "--max_iters=2", f"--data={text}", f"--out_dir={out}"]) == 0
    capsys.readouterr()
    for arguments, sentence in (
        (["--start", "wa€"], r"'€' \(U\+20AC\) at position 2 is not among the 15 characters"),
        (["--start="], "at least one token"),
        (["--temperature=-1"], "temperature must be at least 0, it is -1.0"),
        (["--top_k=0"], "top_k must be at least 1, it is 0"),
        (["--max_new_tokens=-5"], "max_new_tokens must be at least 0, it is -5"),
        (["--num_samples=0"], "num_samples must be at least 1, it is 0"),
        (["--device=tpu"], "'tpu'"),
    ):
        assert re.search(sentence, fails(capsys, "sample", "--out_dir", out, *arguments))
    other = tmp_path / "other.txt"
    other.write_text("xyz" * 99)
    again = ["train", "--resume", "--max_iters=9", "--out_dir", out]
    assert "learnt the characters of" in fails(capsys, *again, "--data", other)
    assert "model has n_embd 15" in fails(capsys, *again, "--n_embd=30")
    file = out / "ckpt.safetensors"
    file.write_bytes(file.read_bytes()[:-7])
    assert "ckpt.safetensors" in fails(capsys, "sample", "--out_dir", out)
    assert "ckpt.safetensors" in fails(capsys, *again)
