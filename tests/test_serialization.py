"""Arrays on disk: what is saved comes back or an error names the file; the old file survives."""

import errno
import json
import os
import random
import resource
import signal
import stat
import struct
import subprocess
import sys
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from tensorgrad import atomic
from tensorgrad.atomic import replacing
from tensorgrad.serialization import (
    CODES,
    CheckpointError,
    flatten,
    load_arrays,
    load_tree,
    save_arrays,
    save_tree,
    unflatten,
)
from tests.tree import ROOT

BF16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [np.dtype(name) for name in CODES if name != "bfloat16"]
NAMES = st.text(st.characters(codec="utf-8"), max_size=9).filter(lambda s: s != "__metadata__")


@st.composite
def layouts(draw: st.DrawFn) -> np.ndarray:
    """An array of any type of the format, in any layout: strided, reversed, turned, big-endian."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))
    array = draw(hnp.arrays(dtype, shape))
    for axis in range(array.ndim):
        array = array[
            (slice(None),) * axis + (slice(None, None, draw(st.sampled_from([1, 2, -1]))),)
        ]
    if draw(st.booleans()):
        array = array.T
    if draw(st.booleans()):
        array = array.astype(array.dtype.newbyteorder(">"))
    if array.dtype.kind == "f" and draw(st.booleans()):
        with np.errstate(over="ignore"):
            array = array.astype(BF16, order="K")
    return array


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal to the last bit, nan and negative zero too."""
    a, b = (
        np.asarray(x, x.dtype if x.dtype.isnative else x.dtype.newbyteorder("<")) for x in (a, b)
    )
    return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("arrays")


@given(arrays=st.dictionaries(NAMES, layouts(), max_size=4), metadata=st.dictionaries(NAMES, NAMES))
def test_arrays_come_back(folder: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str]):
    path = folder / "any.safetensors"
    save_arrays(path, arrays, metadata)
    loaded, said = load_arrays(path)
    assert said == metadata
    assert set(loaded) == set(arrays)
    for name, array in arrays.items():
        assert same(loaded[name], array), name
        assert loaded[name].flags.writeable and loaded[name].dtype.isnative


@given(arrays=st.dictionaries(NAMES, layouts(), max_size=4), metadata=st.dictionaries(NAMES, NAMES))
def test_the_library_reads_what_we_write(
    folder: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str]
):
    path = folder / "ours.safetensors"
    save_arrays(path, arrays, metadata)
    loaded = load_file(path)
    assert set(loaded) == set(arrays)
    assert all(same(loaded[name], arrays[name]) for name in arrays)
    with safe_open(path, framework="np") as file:
        said = file.metadata()
    assert said.items() >= metadata.items()
    assert set(said) - set(metadata) == {"crc32.header", "crc32.body"}


@given(
    arrays=st.dictionaries(NAMES, layouts(), max_size=4), metadata=st.none() | st.just({"q": "1"})
)
def test_we_read_what_the_library_writes(
    folder: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str] | None
):
    path = folder / "theirs.safetensors"
    plain = {name: np.array(array, order="C") for name, array in arrays.items()}
    save_file(plain, path, metadata)
    loaded, said = load_arrays(path)
    assert said == (metadata or {})
    assert set(loaded) == set(arrays)
    assert all(same(loaded[name], arrays[name]) for name in arrays)


def test_pytorch_and_transformers_read_it(tmp_path: Path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file as torch_load

    weights = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    save_arrays(tmp_path / "w", {"w": weights.T, "b": weights[0].astype(BF16)}, {"format": "pt"})
    loaded = torch_load(tmp_path / "w")
    assert torch.equal(loaded["w"], torch.from_numpy(weights).T)
    assert torch.equal(loaded["b"], torch.from_numpy(weights[0]).bfloat16())


def test_equal_contents_give_equal_bytes(tmp_path: Path):
    arrays = {name: np.arange(i, dtype=np.float32) for i, name in enumerate("zebra")}
    metadata = {str(i): "x" for i in range(9)}
    save_arrays(tmp_path / "one", arrays, metadata)
    turned = dict(reversed(arrays.items())), dict(reversed(metadata.items()))
    save_arrays(tmp_path / "two", *turned)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_arrays_begin_at_multiples_of_their_items(tmp_path: Path):
    arrays = {name: np.ones(3, name) for name in CODES if name != "bfloat16"}
    save_arrays(tmp_path / "all", arrays | {"bf16": np.ones(3, BF16)})
    raw = (tmp_path / "all").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    assert length % 8 == 0
    header = json.loads(raw[8 : 8 + length])
    assert {entry["dtype"] for name, entry in header.items() if name != "__metadata__"} == set(
        CODES.values()
    )
    for name, array in arrays.items():
        assert header[name]["data_offsets"][0] % array.itemsize == 0


@pytest.mark.parametrize(
    ("arrays", "metadata", "error", "sentence"),
    [
        ({"z": np.ones(2, complex)}, {}, TypeError, "'z' has dtype complex128.*imaginary parts"),
        (
            {"o": np.array([None])},
            {},
            TypeError,
            "'o' has dtype object, and safetensors files hold",
        ),
        ({"s": np.array(["a"])}, {}, TypeError, "'s' has dtype <U1"),
        ({"l": [1, 2]}, {}, TypeError, "'l' is a list, not an array; save_tree takes"),
        ({3: np.ones(2)}, {}, TypeError, "strings, not 3"),
        ({}, {"n": 3}, TypeError, "strings, not 3"),
        ({"\ud800": np.ones(2)}, {}, ValueError, "cannot be written in UTF-8"),
        ({"__metadata__": np.ones(2)}, {}, ValueError, "the format's own word"),
        ({}, {"crc32.body": "0"}, ValueError, "own to write"),
        ({}, {"x": "x" * 100_000_000}, ValueError, "the format allows 100,000,000"),
    ],
)
def test_what_cannot_be_saved(
    tmp_path: Path, arrays: dict, metadata: dict, error: type[Exception], sentence: str
):
    path = tmp_path / "old"
    save_arrays(path, {"old": np.ones(2)})
    before = path.read_bytes()
    with pytest.raises(error, match=sentence):
        save_arrays(path, arrays, metadata)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["old"]


# Damage


def write(path: Path, header: object, body: bytes = b"", length: int | None = None) -> None:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + body)


def entry(begin: int, end: int, dtype: str = "U8", shape: object = None) -> dict[str, object]:
    shape = [end - begin] if shape is None else shape
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


E = json.dumps(entry(0, 4))
FOREIGN = {
    "empty": (b"", b"", None),
    "header of 2^63 bytes": ({"a": entry(0, 4)}, b"1234", 2**63),
    "header of 2^64 - 1 bytes": ({"a": entry(0, 4)}, b"1234", 2**64 - 1),
    "header longer than the file": ({"a": entry(0, 4)}, b"1234", 4096),
    "not JSON": (b"never", b"", None),
    "not UTF-8": (b'{"\xff": 3}', b"", None),
    "a list": ([], b"", None),
    "deep lists": (b"[" * 100_000, b"", None),
    "deep dicts": (b'{"a":' * 100_000, b"", None),
    "deep inside": (b'{"a":' + b"[" * 100_000, b"", None),
    "same name twice": (f'{{"a":{E},"a":{E}}}'.encode(), b"1234", None),
    "two names swapped": (
        f'{{"a":{E},"b":{json.dumps(entry(4, 8))},"a":{json.dumps(entry(0, 4, "I8"))}}}'.encode(),
        b"12345678",
        None,
    ),
    "metadata twice": (f'{{"__metadata__":{{"x":"1","x":"2"}},"a":{E}}}'.encode(), b"1234", None),
    "metadata of numbers": ({"__metadata__": {"x": 1}, "a": entry(0, 4)}, b"1234", None),
    "overlap": ({"a": entry(0, 4), "b": entry(2, 6)}, b"123456", None),
    "hole": ({"a": entry(0, 4), "b": entry(5, 6)}, b"123456", None),
    "surplus": ({"a": entry(0, 4)}, b"12345", None),
    "shortage": ({"a": entry(0, 4)}, b"123", None),
    "backwards": ({"a": entry(4, 0, shape=[4])}, b"1234", None),
    "negative": ({"a": entry(-4, 0)}, b"1234", None),
    "shape and size differ": ({"a": entry(0, 4, shape=[5])}, b"1234", None),
    "shape of 2^126": ({"a": entry(0, 4, shape=[2**63, 2**63])}, b"1234", None),
    "shape of 2^64 times none": ({"a": entry(0, 0, shape=[2**63, 2, 0])}, b"", None),
    "shape of 2^40 times none": ({"a": entry(0, 0, "F64", [2**62, 0])}, b"", None),
    "shape of 99 ones": ({"a": entry(0, 1, shape=[1] * 99)}, b"1", None),
    "unknown type": ({"a": entry(0, 4, "F99")}, b"1234", None),
    "type that NumPy lacks": ({"a": entry(0, 4, "F8_E4M3")}, b"1234", None),
    "half bytes": ({"a": entry(0, 4, "F4", [8])}, b"1234", None),
    "booleans of 2": ({"a": entry(0, 4, "BOOL")}, b"\0\1\2\1", None),
    "half a checksum": (
        {"__metadata__": {"crc32.body": "crc32 00000000"}, "a": entry(0, 0)},
        b"",
        None,
    ),
    "checksums under other names": (
        {"__metadata__": {"crc23.body": "crc32 0", "c32rc.header": "c3c32 0"}, "a": entry(0, 0)},
        b"",
        None,
    ),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_foreign_files(tmp_path: Path, what: str):
    path = tmp_path / "foreign.safetensors"
    write(path, *FOREIGN[what])
    with pytest.raises(CheckpointError, match=r"foreign\.safetensors'"):
        load_arrays(path)


def test_a_shape_with_a_zero_is_no_damage(tmp_path: Path):
    write(tmp_path / "zero", {"a": entry(0, 0, "F32", [3, 0, 5])})
    assert load_arrays(tmp_path / "zero")[0]["a"].shape == (3, 0, 5)


@pytest.mark.parametrize("size", [0, 1, 7])
def test_files_too_short_for_a_length(tmp_path: Path, size: int):
    (tmp_path / "short").write_bytes(b"x" * size)
    with pytest.raises(CheckpointError, match=f"short' is cut off.* it has {size} bytes$"):
        load_arrays(tmp_path / "short")


SAMPLE = {
    "h.0.weight": np.arange(35, dtype=np.float32).reshape(7, 5),
    "h.1.weight": np.arange(35, dtype=np.float32).reshape(5, 7)[::-1],
    "h.0.half": np.arange(11, dtype=np.float32).astype(BF16),
    "mask": np.arange(13) % 3 == 0,
    "step": np.array(17),
    "none": np.zeros((0, 3)),
}


def damaged(raw: bytes, rng: random.Random) -> bytes:
    """The file after an accident: flipped bits, cut off, bytes moved or lost, an edited header."""
    data = bytearray(raw)
    length = 8 + int.from_bytes(raw[:8], "little")
    match rng.randrange(8):
        case 0:  # bits flip anywhere
            for _ in range(rng.choice([1, 1, 1, 2, 9])):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case 1:  # bits flip in the header
            for _ in range(rng.choice([1, 1, 2])):
                data[rng.randrange(length)] ^= 1 << rng.randrange(8)
        case 2:
            del data[rng.randrange(len(data)) :]
        case 3:  # a piece is written over another
            size = rng.randrange(1, 64)
            start, to = (rng.randrange(len(data) - size) for _ in range(2))
            data[to : to + size] = data[start : start + size]
        case 4:  # a piece is lost or doubled
            start = rng.randrange(len(data))
            piece = data[start : start + rng.randrange(1, 64)]
            data[start : start + len(piece)] = rng.choice([b"", piece + piece])
        case 5:  # a block of zeros, as after a crash of the machine
            start = rng.randrange(len(data))
            size = min(rng.randrange(1, 512), len(data) - start)
            data[start : start + size] = bytes(size)
        case 6:  # two digits or letters of the header change places
            places = [i for i in range(8, length) if chr(data[i]).isalnum()]
            a, b = rng.sample(places, 2)
            data[a], data[b] = data[b], data[a]
        case 7:  # arrays change names, types, shapes or places in a header that stays sound
            header = json.loads(raw[8:length])
            words = header.pop("__metadata__")
            a, b = rng.sample(sorted(header), 2)
            field = rng.choice(["name", "dtype", "shape", "metadata"])
            if field == "name":
                header[a], header[b] = header[b], header[a]
            elif field == "metadata":
                words[rng.choice(sorted(words))] = rng.choice(["", "0", "00000000"])
            elif field == "dtype":
                header[a]["dtype"] = rng.choice(sorted(CODES.values()))
            else:
                header[a]["shape"] = header[a]["shape"][::-1]
            text = json.dumps({"__metadata__": words} | header).encode()
            data = bytearray(struct.pack("<Q", len(text)) + text + raw[length:])
    return bytes(data)


def try_damaged(folder: Path, seeds: range) -> int:
    """How many damaged files were refused; every other one has to give the very same values."""
    path = folder / "damaged.safetensors"
    save_arrays(path, SAMPLE, {"step": "17", "note": 'a \n\t"word" é'})
    raw = path.read_bytes()
    refused = 0
    for seed in seeds:
        data = damaged(raw, random.Random(seed))
        path.write_bytes(data)
        try:
            arrays, metadata = load_arrays(path)
        except CheckpointError as error:
            assert repr(str(path)) in str(error)
            refused += 1
            continue
        assert set(arrays) == set(SAMPLE), seed
        assert all(same(arrays[name], SAMPLE[name]) for name in SAMPLE), seed
        assert metadata == {"step": "17", "note": 'a \n\t"word" é'}, seed
    return refused


def test_no_damaged_file_loads_other_values(folder: Path):
    assert try_damaged(folder, range(1500)) > 1200


@pytest.mark.slow
def test_no_damaged_file_loads_other_values_at_length(folder: Path):
    assert try_damaged(folder, range(1500, 60_000)) > 45_000


def test_every_single_bit_is_guarded(tmp_path: Path):
    """One flipped bit anywhere: refused, or (blanks, the spelling of a word) the same values."""
    path = tmp_path / "bits"
    arrays = {"w": np.arange(3, dtype=np.int16)}
    save_arrays(path, arrays, {"a": "b"})
    raw = path.read_bytes()
    for at in range(len(raw)):
        for bit in range(8):
            path.write_bytes(raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :])
            try:
                loaded, metadata = load_arrays(path)
            except CheckpointError:
                continue
            assert metadata == {"a": "b"} and set(loaded) == {"w"}, (at, bit)
            assert same(loaded["w"], arrays["w"]), (at, bit)


def test_the_sentence_says_what_is_damaged(tmp_path: Path):
    path = tmp_path / "w"
    save_arrays(path, {"weight": np.ones(3, np.float32)})
    raw = path.read_bytes()
    path.write_bytes(raw[:-1] + b"\0")
    with pytest.raises(
        CheckpointError,
        match=r"w' is damaged: its values have crc32 [0-9a-f]{8}, where the file says crc32 ",
    ):
        load_arrays(path)
    path.write_bytes(raw.replace(b"weight", b"waight"))
    with pytest.raises(
        CheckpointError, match=r"its names and shapes have crc32 .* earlier checkpoint"
    ):
        load_arrays(path)
    path.write_bytes(raw[:-2])
    with pytest.raises(CheckpointError, match="w' is no sound safetensors file: "):
        load_arrays(path)


# Reading and writing where one cannot


def test_missing_file(tmp_path: Path):
    with pytest.raises(
        FileNotFoundError, match=r"cannot read '.*none': there is no such file"
    ) as e:
        load_arrays(tmp_path / "none")
    assert e.value.errno == errno.ENOENT


def test_reading_a_folder(tmp_path: Path):
    with pytest.raises(IsADirectoryError, match="it is a folder"):
        load_arrays(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read and write everything")
def test_without_permission(tmp_path: Path):
    path = tmp_path / "w"
    save_arrays(path, {})
    path.chmod(0)
    with pytest.raises(PermissionError, match="this user may not read it"):
        load_arrays(path)
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match=r"may not write in .* is unchanged"):
        save_arrays(path, {})


def test_missing_folder(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder '.*gone'; make it first") as e:
        save_arrays(tmp_path / "gone" / "w", {})
    assert e.value.errno == errno.ENOENT
    assert os.listdir(tmp_path) == []


def test_a_folder_in_the_way(tmp_path: Path):
    (tmp_path / "w").mkdir()
    with pytest.raises(IsADirectoryError, match=r"cannot write '.*w': it is a folder"):
        save_arrays(tmp_path / "w", {})
    assert os.listdir(tmp_path) == ["w"]


class Faulty:
    """A file whose n-th call fails, as on a full or broken disk."""

    def __init__(self, opened: tuple[str, str], calls: int, error: OSError) -> None:
        self.opened, self.calls, self.error = opened, calls, error

    def call(self, method: str, *args):
        self.calls -= 1
        if self.calls < 0:
            raise self.error
        return getattr(self.file, method)(*args)

    def write(self, data):
        return self.call("write", data)

    def flush(self):
        return self.call("flush")

    def fileno(self):
        return self.call("fileno")

    def __enter__(self):
        self.file = open(*self.opened)
        return self

    def __exit__(self, *error):
        self.file.close()


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no space is left on the disk; make"),
        (OSError(errno.EIO, "Input/output error"), r"input/output error \(the file that was there"),
        (PermissionError(errno.EACCES, "Permission denied"), "this user may not write in"),
    ],
)
def test_a_disk_that_fails_at_any_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, sentence: str
):
    path = tmp_path / "w"
    save_arrays(path, SAMPLE)
    before = path.read_bytes()
    arrays = {name: array[..., ::-1] if array.ndim else array for name, array in SAMPLE.items()}
    for calls in range(100):
        monkeypatch.setattr(atomic, "open", lambda *a, n=calls: Faulty(a, n, error), raising=False)
        try:
            save_arrays(path, arrays)
        except OSError as told:
            assert type(told) is type(error) and told.errno == error.errno
            assert told.__cause__ is error
            with pytest.raises(OSError, match=f"^cannot write '.*w': {sentence}"):
                raise
            assert path.read_bytes() == before
            assert os.listdir(tmp_path) == ["w"]
        else:
            break
    assert calls == 2 + len(SAMPLE) + 2  # length and header, arrays, flush and fsync
    assert path.read_bytes() != before


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_system_that_fails_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str):
    path = tmp_path / "w"
    save_arrays(path, {})
    before = path.read_bytes()

    def fail(*args):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="input/output error"):
        save_arrays(path, SAMPLE)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["w"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_a_folder_that_cannot_be_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
):
    real = os.fsync

    def fsync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    if number == errno.EINVAL:  # a file system that has no such call
        save_arrays(tmp_path / "w", SAMPLE)
    else:
        with pytest.raises(OSError, match=r"wrote '.*w', but its folder could not be flushed"):
            save_arrays(tmp_path / "w", SAMPLE)
    load_arrays(tmp_path / "w")


def test_a_limit_of_the_system(tmp_path: Path):
    """A real failure in the middle of a write: the limit on a file's size."""
    path = tmp_path / "w"
    save_arrays(path, {"old": np.ones(2)})
    before = path.read_bytes()
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, old[1]))
    try:
        with pytest.raises(OSError, match=r"cannot write '.*w': file too large") as caught:
            save_arrays(path, {"new": np.ones(9999)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert caught.value.errno == errno.EFBIG
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["w"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_block_that_is_left_early(tmp_path: Path, error: type[BaseException]):
    path = tmp_path / "w"
    path.write_bytes(b"old")
    with pytest.raises(error), replacing(path) as file:
        file.write(b"new")
        raise error
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["w"]


def test_through_a_link_and_with_the_usual_mode(tmp_path: Path):
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "far" / "w")
    save_arrays(tmp_path / "link", {"a": np.ones(2)})
    assert (tmp_path / "link").is_symlink()
    assert same(load_arrays(tmp_path / "far" / "w")[0]["a"], np.ones(2))
    (tmp_path / "usual").touch()
    assert (tmp_path / "far" / "w").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_leftovers_of_the_dead_are_swept(tmp_path: Path):
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    dead, old = process.pid, time.time() - 99
    names = {
        f".w.tmp-{dead}-0011": False,
        f".w.tmp-{os.getppid()}-0011": True,  # of a process that lives
        f".w.tmp-{os.getpid()}-0011": False,  # of a dead one that had this one's number
        f".x.tmp-{dead}-0011": True,  # of another file
        ".w.tmp-mine": True,
        "w.tmp-1": True,
    }
    for name in names:
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (old, old))
    young = tmp_path / f".w.tmp-{dead}-0022"
    young.touch()
    os.utime(young, (time.time() + 99, time.time() + 99))
    save_arrays(tmp_path / "w", {})
    left = {name for name, stays in names.items() if stays} | {young.name, "w"}
    assert set(os.listdir(tmp_path)) == left


SAVER = """
import sys
import numpy as np
from tensorgrad.serialization import save_arrays
print("ready", flush=True)
n = int(sys.argv[2])
while True:
    n += 1
    save_arrays(sys.argv[1], {"n": np.array(n), "w": np.full(200_000, n)})
"""


def kill_savers(folder: Path, kills: int) -> None:
    """At any moment there is a sound checkpoint, never older than the last one seen."""
    path = folder / "w"
    last = 0
    rng = random.Random(kills)
    for _ in range(kills):
        command = [sys.executable, "-c", SAVER, str(path), str(last)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
            assert process.stdout and process.stdout.readline() == b"ready\n"
            time.sleep(rng.uniform(0, 0.1))
            process.send_signal(signal.SIGKILL)
        if not path.exists():
            continue
        arrays, _ = load_arrays(path)
        assert arrays["n"] >= last and (arrays["w"] == arrays["n"]).all()
        last = int(arrays["n"])
    save_arrays(path, {})
    assert [name for name in os.listdir(folder) if name != "w"] == []


def test_killed_while_saving(tmp_path: Path):
    kill_savers(tmp_path, 5)


@pytest.mark.slow
def test_killed_while_saving_at_length(tmp_path: Path):
    kill_savers(tmp_path, 200)


# Trees

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**200), 2**200)
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=5)
    | st.sampled_from(["$array", "$float", "nan", "$"])
)
KEYS = (
    st.none()
    | st.integers()
    | st.floats(allow_nan=False)
    | SCALARS.filter(lambda k: isinstance(k, str))
)
ARRAYS = hnp.arrays(st.sampled_from([np.float32, np.int64]), st.sampled_from([(), (3,), (2, 0)]))
TREES = st.recursive(
    SCALARS
    | ARRAYS
    | st.builds(np.float16, st.floats(width=16))
    | st.builds(np.bool_, st.booleans()),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=4)
    ),
    max_leaves=12,
)


def alike(a: object, b: object) -> bool:
    """Equal in type and value all the way down; nan equals nan."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray | np.generic):
        return same(np.asarray(a), np.asarray(b))
    if isinstance(a, dict):
        return len(a) == len(b) and all(
            alike(k, m) and alike(v, w) for (k, v), (m, w) in zip(a.items(), b.items(), strict=True)
        )
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(alike, a, b))
    return repr(a) == repr(b)


@given(TREES)
def test_trees_come_back(tree: object):
    arrays, rest = flatten(tree)
    text = json.dumps(rest, allow_nan=False)
    assert alike(unflatten(arrays, json.loads(text)), tree)


def readable(tree: object) -> bool:
    """Names and strings in UTF-8, as files want them."""
    return all(name.encode(errors="ignore").decode() == name for name in flatten(tree)[0])


@given(tree=TREES.filter(readable))
def test_trees_go_through_files(folder: Path, tree: object):
    save_tree(folder / "tree", tree)
    assert alike(load_tree(folder / "tree"), tree)


def test_names_are_paths():
    w = np.ones(2)
    arrays, rest = flatten({"model": {"h.0.w": w}, "state": {0: [w, (np.zeros(3), 5)]}})
    assert list(arrays) == ["model.h.0.w", "state.0.1.0"]
    assert rest == {
        "model": {"h.0.w": {"$array": "model.h.0.w"}},
        "state": {
            "$dict": [
                [0, [{"$array": "model.h.0.w"}, {"$tuple": [{"$array": "state.0.1.0"}, 5]}]],
            ]
        },
    }
    assert list(flatten(w)[0]) == ["array"]


def test_a_tied_weight_stays_tied(tmp_path: Path):
    w, v = np.ones((3, 2)), np.ones((3, 2))
    save_tree(tmp_path / "tied", {"wte": w, "lm_head": w, "other": v})
    back = load_tree(tmp_path / "tied")
    assert back["wte"] is back["lm_head"] is not back["other"]


def test_names_that_meet():
    tree = {"a.b": np.ones(1), "a": {"b": np.ones(2), "b'": np.ones(3)}, "": np.ones(4)}
    tree["__metadata__"] = np.ones(5)
    arrays, rest = flatten(tree)
    assert sorted(len(array) for array in arrays.values()) == [1, 2, 3, 4, 5]
    assert "__metadata__" not in arrays
    assert alike(unflatten(arrays, rest), tree)


@pytest.mark.parametrize(
    ("tree", "error", "sentence"),
    [
        ({"a": [1, {2, 3}]}, TypeError, "^flatten: a.1 is a set; a checkpoint holds"),
        ({"a": {"b": b"x"}}, TypeError, "^flatten: a.b is a bytes"),
        (1j, TypeError, "^flatten: the tree is a complex"),
        ({"a": {(1, 2): 3}}, TypeError, r"^flatten: a has the key \(1, 2\)"),
        ({np.int64(3): 3}, TypeError, "^flatten: the tree has the key"),
    ],
)
def test_what_no_tree_can_hold(tree: object, error: type[Exception], sentence: str):
    with pytest.raises(error, match=sentence):
        flatten(tree)


def test_a_tree_in_itself():
    tree: dict[str, object] = {"a": [1]}
    tree["a"].append(tree)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"^flatten: a\.1 contains itself"):
        flatten(tree)
    shared = [1]
    assert flatten([shared, shared])[1] == [[1], [1]]


@pytest.mark.parametrize(
    "text",
    [
        '{"$array": "gone"}',
        '{"$scalar": "gone"}',
        '{"$array": ["w"]}',
        '{"$float": "1"}',
        '{"$new": 1}',
        '{"$tuple": 3}',
        '{"$dict": [1]}',
        '{"$dict": [[1, 2, 3]]}',
        '{"$dict": [[[1], 2]]}',
        "[" * 100_000,
        "nonsense",
        "",
    ],
)
def test_files_whose_tree_is_not_sound(tmp_path: Path, text: str):
    save_arrays(tmp_path / "bad", {"w": np.ones(2)}, {"tree": text})
    with pytest.raises(CheckpointError, match="bad' has no sound tree: "):
        load_tree(tmp_path / "bad")


def test_files_without_a_tree(tmp_path: Path):
    save_arrays(tmp_path / "flat", {"w": np.ones(2)})
    with pytest.raises(
        CheckpointError, match="flat' holds arrays and no nested state; load_arrays"
    ):
        load_tree(tmp_path / "flat")
