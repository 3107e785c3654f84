"""No command opens a socket: an audit hook in every Python process ends it at the first one.

The hook sees what Python does, in the command and in the processes that it starts.  MPI's own
library is C: mpiexec and its ranks meet through sockets and shared memory of their own, on this
machine alone, which Python's audit does not see; what a rank does in Python, it does.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tensorgrad.data import names_text, train_bpe
from tests.tree import ROOT

MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
CAUGHT = 97
HOOK = f"""
import os, sys
def refuse(event, args):
    if event.startswith("socket.") and event != "socket.gethostname":
        os.write(2, f"SOCKET {{event}} {{args}}\\n".encode())
        os._exit({CAUGHT})
sys.addaudithook(refuse)
"""
SIZES = ["--n_layer=1", "--n_head=2", "--n_embd=12", "--batch_size=2", "--warmup_iters=1",
         "--eval_iters=1", "--sample_length=5"]  # fmt: skip
GPT2 = ["train", "gpt2", "--preset=tiny", *SIZES, "--n_positions=16", "--max_iters=2"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the hook, texts, and an environment that leaves no way around it."""
    folder = tmp_path_factory.mktemp("offline")
    (folder / "hook").mkdir()
    (folder / "hook" / "sitecustomize.py").write_text(HOOK)
    lines = names_text().text.splitlines()[:400]
    with open(folder / "texts.jsonl", "w") as file:
        for i in range(0, 400, 8):
            file.write(json.dumps({"text": " ".join(lines[i : i + 8])}) + "\n")
    (folder / "text.txt").write_text("\n".join(lines))
    train_bpe(["\n".join(lines)], 300).save(folder / "bpe.json")
    return folder


def environment(place):
    theirs = ("HF_", "WANDB", "TIKTOKEN")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(theirs)}
    path = os.pathsep.join([str(place / "hook"), str(ROOT)])
    return kept | {
        "PYTHONPATH": path, "HF_HOME": str(place / "hf"), "HOME": str(place), "MPLBACKEND": "Agg",
        "OMP_NUM_THREADS": "1", "TIKTOKEN_CACHE_DIR": str(place / "tiktoken"),
        "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }  # fmt: skip


def run(place, *line):
    return subprocess.run(
        list(map(str, line)), cwd=place, env=environment(place), capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip


def tensorgrad(place, *arguments):
    """What a command says, which must succeed."""
    done = run(place, sys.executable, "-m", "tensorgrad", *arguments)
    assert "SOCKET" not in done.stderr and done.returncode != CAUGHT, done.stderr
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def shards(place):
    """By the command itself, with two workers, of JSON lines."""
    told = tensorgrad(
        place, "prepare", "texts.jsonl", "--out=shards", "--tokenizer=bpe.json", "--workers=2"
    )
    assert "50 documents" in told
    return place / "shards"


@pytest.fixture(scope="module")
def gpt2(place, shards):
    """A run, and the same resumed."""
    assert "step 2/2" in tensorgrad(place, *GPT2, "--data=shards", "--out_dir=gpt2")
    told = tensorgrad(place, "train", "gpt2", "--resume", "--out_dir=gpt2", "--max_iters=3")
    assert "resuming after step 2" in told and "a sample:" in told
    return place / "gpt2"


@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.socket()",
        "import socket; socket.getaddrinfo('localhost', 80)",
        "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')",
        "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', "
        "'import socket; socket.socketpair()']))",
        "import multiprocessing as m; p = m.get_context('spawn').Process(target=__import__("
        "'socket').socket); p.start(); p.join(); raise SystemExit(p.exitcode)",
    ],
    ids=["a socket", "a name", "a page", "a child", "a worker"],
)
def test_the_hook_works(place, code):
    """It ends whatever opens a socket, in a child too, before a packet is sent."""
    done = run(place, sys.executable, "-c", code)
    assert done.returncode == CAUGHT and "SOCKET socket." in done.stderr


def test_the_hook_leaves_the_machines_name_alone(place):
    done = run(place, sys.executable, "-c", "import socket; print(socket.gethostname())")
    assert done.returncode == 0 and done.stdout.strip()


def test_a_command_that_fetches_is_caught(place):
    """The control among the commands: the one that does ask for the network."""
    done = run(place, sys.executable, "-m", "tensorgrad", "prepare", "text.txt", "--out=fetched",
               "--tokenizer=gpt2", "--download")  # fmt: skip
    assert done.returncode == CAUGHT, done.stderr


def test_prepare(shards):
    assert sorted(path.suffix for path in shards.iterdir()) == [".bin", ".bin", ".json", ".json"]


def test_train_gpt2_and_resume(gpt2):
    assert (gpt2 / "ckpt.safetensors").is_file() and (gpt2 / "loss.png").is_file()


def test_train_on_text_and_resume(place):
    line = ["train", "char-gpt", *SIZES, "--block_size=8", "--max_iters=2"]
    tensorgrad(place, *line, "--data=text.txt", "--out_dir=char")
    tensorgrad(place, "train", "char-gpt", "--resume", "--out_dir=char", "--max_iters=3")
    assert tensorgrad(place, "sample", "--out_dir=char", "--max_new_tokens=9")


def test_train_on_what_python_brings_along(place):
    line = ["train", *SIZES, "--block_size=8", "--max_iters=1", "--out_dir=plain"]
    assert "a sample:" in tensorgrad(place, *line)
    assert tensorgrad(place, "train", "mlp", "--max_iters=2", "--out_dir=words")


def test_sample(place, gpt2):
    assert tensorgrad(place, "sample", "--out_dir=gpt2", "--max_new_tokens=5", "--start=LATIN")


def test_evaluate(place, gpt2):
    told = tensorgrad(place, "evaluate", "--out_dir=gpt2", "--data=text.txt", "--limit=40")
    assert "perplexity" in told
    assert "perplexity" in tensorgrad(place, "evaluate", "--out_dir=gpt2", "--data=shards")


def test_demo(place):
    told = tensorgrad(place, "demo", "gpt2", "--epochs=1", "--out_dir=demo")
    assert "epoch 1/1" in told


def test_looking_inside(place, gpt2):
    assert tensorgrad(place, "inspect", "budget", "--model=gpt2-xl")
    for aspect in ("losses", "lens", "attention"):
        assert tensorgrad(place, "inspect", aspect, "LATIN A", "--out_dir=gpt2")
    assert tensorgrad(place, "env") and tensorgrad(place, "verify", "--model=mlp")


@pytest.mark.skipif(MPIEXEC is None, reason="no mpiexec")
def test_two_ranks(place, shards):
    """Each rank's Python is watched; MPI's library is not."""
    pytest.importorskip("mpi4py")
    line = [MPIEXEC, "-n", "2", sys.executable, "-m", "tensorgrad", *GPT2, "--data=shards"]
    done = run(place, *line, "--out_dir=two")
    assert done.returncode == 0 and "SOCKET" not in done.stderr, done.stderr
    assert "in 2 processes" in done.stdout and "step 2/2" in done.stdout
    code = "import socket; from mpi4py import MPI; socket.socket()"
    caught = run(place, MPIEXEC, "-n", "2", sys.executable, "-c", code)
    assert caught.returncode != 0 and "SOCKET socket." in caught.stderr
