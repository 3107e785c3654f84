"""A disk that is full, breaks or refuses, at every call by which a run changes its folder."""

import errno
import re
import shutil

import pytest

from tensorgrad.atomic import replacing
from tensorgrad.models.training import job
from tensorgrad.models.training.folder import RunFolder
from tensorgrad.serialization import load_tree
from tests.reliability.calls import Calls, fails, short
from tests.reliability.runs import data_of, endings, recorded, run, temporary

FEW = {"max_iters": 5, "save_interval": 1, "eval_interval": 2, "sample_length": 1}
ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES)


@pytest.fixture(scope="module", autouse=True)
def quick_picture():
    """Matplotlib would take longer than all the rest; what it writes is written alike."""

    def sketch(history, marks, path, *names):
        with replacing(path) as file:
            file.write(b"a picture")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(job, "plot_losses", sketch)
        yield


class Right:
    """An undisturbed run: its end, its checkpoints, and the calls that it makes.

    fresh: from the beginning; else from the checkpoint in `begun`, of step 3.
    """

    def __init__(self, word, folder, fresh):
        self.word, self.fresh, self.begun = word, fresh, folder / "begun"
        self.data = data_of(word, folder)
        recorded(word, self.data, folder / "right", folder / "states", **FEW)
        self.end = endings(folder / "right")
        self.states = {path.read_bytes() for path in (folder / "states").iterdir()}
        if not fresh:
            run(word, self.data, self.begun, **FEW)
            state = load_tree(folder / "states" / "3")
            RunFolder(self.begun).save(state, FEW.get("keep_last", 3))
            for path in self.begun.glob("ckpt-0000000[45]*"):
                path.unlink()
        self.start(folder / "counted")
        with Calls(folder / "counted") as calls:
            self.go(folder / "counted")
        self.calls = calls.made

    def start(self, out):
        if not self.fresh:
            shutil.copytree(self.begun, out)

    def go(self, out):
        run(self.word, self.data, out, "auto", **FEW)


@pytest.fixture(scope="module", params=["gpt2", "char-gpt"])
def word(request):
    return request.param


@pytest.fixture(scope="module", params=[True, False], ids=["fresh", "resumed"])
def right(request, word, tmp_path_factory):
    return Right(word, tmp_path_factory.mktemp(word), request.param)


def kind_of(call):
    """Calls of a kind, for a kind of file."""
    return call[0], re.sub(r"\d|tmp-.*", "", call[1])


def strikes(right, out, k, number):
    """One fault at call k; what is left is sound; the next start comes to the same end."""
    right.start(out)
    at = f"call {k}, {right.calls[k]}"
    try:
        with Calls(out, fails(number), k):
            right.go(out)
    except OSError as error:
        told = str(error)
        assert str(out) in told and "\n" not in told and "[Errno" not in told, (at, told)
        assert error.errno == number, (at, told)
        failed = True
    else:
        failed = False
    checkpoint = out / "ckpt.safetensors"
    if checkpoint.exists():
        load_tree(checkpoint)
        assert checkpoint.read_bytes() in right.states, at
    else:
        assert not (out / "losses.jsonl").exists(), at
    if failed:
        right.go(out)
    assert endings(out) == right.end, at
    assert not temporary(out), (at, temporary(out))
    assert not [p for p in out.glob("earlier-*") if list(p.glob("losses*"))], at
    shutil.rmtree(out)
    return failed


def test_each_kind_of_call(right, tmp_path):
    """The first call of a kind after a checkpoint; a fault is told in a sentence, or harmless."""
    linked = [k for k, call in enumerate(right.calls) if call[1] == "ckpt.safetensors"]
    first = {kind_of(call): k for k, call in reversed([*enumerate(right.calls)]) if k > linked[0]}
    chosen = sorted(first.values())
    if right.fresh != (right.word == "gpt2"):  # the slow test below has them all
        chosen = chosen[::4]
    told = [strikes(right, tmp_path / "out", k, ERRORS[k % 3]) for k in chosen]
    assert sum(told) > len(told) // 2
    kinds = {call[0] for call in right.calls}
    assert kinds >= {"open", "write", "fsync", "replace", "link"}


@pytest.mark.slow
@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
def test_every_call(right, number, tmp_path):
    told = [strikes(right, tmp_path / "out", k, number) for k in range(len(right.calls))]
    print(right.word, right.fresh, len(told), "calls,", sum(told), "told")


def test_short_writes_change_nothing(right, tmp_path):
    """The system may take less than it is given; every write here is taken by halves."""
    right.start(tmp_path / "out")
    with Calls(tmp_path / "out", short) as calls:
        right.go(tmp_path / "out")
    assert endings(tmp_path / "out") == right.end
    assert len(calls.made) > len(right.calls)


def test_a_full_disk_while_the_run_is_moved_aside(word, tmp_path):
    """Each file is in the one folder or the other; what is left goes on, or is moved later."""
    data = data_of(word, tmp_path)
    run(word, data, tmp_path / "whole", **FEW)
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    for k in range(1, len(names) + 2):  # 0 is the folder, which is there
        out = tmp_path / f"out-{k}"
        shutil.copytree(tmp_path / "whole", out)
        with Calls(out, fails(errno.ENOSPC), k), pytest.raises(OSError, match=str(out)) as told:
            run(word, data, out, **FEW)
        assert "[Errno" not in str(told.value)
        found = sorted(p.name for p in out.rglob("*") if p.is_file() and ".tmp-" not in p.name)
        assert found == names
        kept = out / "ckpt.safetensors"
        assert kept.exists() or not (out / "losses.jsonl").exists()
