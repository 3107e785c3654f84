"""Shards: llm.c's bytes, checked reading, and a clear error for every damage."""

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorgrad.data import Shard, ShardError, TokenLoader, write_shard
from tensorgrad.data.manifest import read_json, read_manifests, write_json
from tensorgrad.data.shards import HEADER_BYTES, ShardInfo, ShardWriter, header_of

IDS = st.lists(st.integers(0, 65535), max_size=40)


def llm_c_write(path: Path, tokens: np.ndarray) -> None:
    """llm.c's write_datafile (dev/data/data_common.py), from its description."""
    header = np.zeros(256, dtype=np.int32)
    header[0], header[1], header[2] = 20240520, 1, len(tokens)
    path.write_bytes(header.tobytes() + tokens.astype(np.uint16).tobytes())


@given(IDS, st.sampled_from([np.uint16, np.int32, np.int64]))
def test_the_bytes_are_llm_cs(tmp_path_factory: pytest.TempPathFactory, ids: list, dtype: type):
    """B4.1: the header is 1,024 bytes, and the first token read is the first written."""
    folder = tmp_path_factory.mktemp("shards")
    row = np.array(ids, dtype)
    info = write_shard(folder / "ours.bin", row)
    llm_c_write(folder / "theirs.bin", row)
    assert (folder / "ours.bin").read_bytes() == (folder / "theirs.bin").read_bytes()
    assert Shard(folder / "ours.bin", info).tokens.tolist() == ids
    assert Shard(folder / "theirs.bin").tokens.tolist() == ids
    assert info.tokens == len(Shard(folder / "ours.bin")) == len(ids)


def test_a_shard_is_a_map_and_stays_16_bits(tmp_path: Path):
    """B4.2: opening reads no tokens into memory; they are uint16 and cannot be written to."""
    write_shard(tmp_path / "a.bin", np.zeros(5_000_000, np.uint16))
    tracemalloc.start()
    shard = Shard(tmp_path / "a.bin")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000
    assert shard.tokens.dtype == np.uint16 and not shard.tokens.flags.writeable
    assert not shard.tokens.flags.owndata


def test_written_in_parts(tmp_path: Path):
    with ShardWriter(tmp_path / "a.bin") as writer:
        writer.write(np.arange(7))
        writer.write(np.arange(0))
        writer.write(np.arange(11))
    assert writer.info == write_shard(tmp_path / "b.bin", np.r_[np.arange(7), np.arange(11)])
    assert (tmp_path / "a.bin").read_bytes() == (tmp_path / "b.bin").read_bytes()


@pytest.mark.parametrize("ids", [[3, 65536], [-1, 5]])
def test_ids_beyond_16_bits(tmp_path: Path, ids: list[int]):
    """B4.5: an id that would wrap is refused, and the old file stays."""
    write_shard(tmp_path / "a.bin", np.arange(5))
    before = (tmp_path / "a.bin").read_bytes()
    with pytest.raises(ValueError, match=r"holds ids from 0 to 65535, and id (65536|-1) is none"):
        write_shard(tmp_path / "a.bin", np.array(ids))
    assert (tmp_path / "a.bin").read_bytes() == before
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("row", [np.zeros((3, 5), np.int64), np.zeros(3), np.zeros(3, bool)])
def test_rows_of_integers_only(tmp_path: Path, row: np.ndarray):
    with pytest.raises(ValueError, match="a row of integers, not"):
        write_shard(tmp_path / "a.bin", row)


def test_more_tokens_than_the_header_can_count(tmp_path: Path):
    """B4.5: the count is an int32; a count that would overflow is refused."""
    with (
        pytest.raises(ValueError, match=r"a\.bin.*counts to 2,147,483,647"),
        ShardWriter(tmp_path / "a.bin") as writer,
    ):
        writer.tokens = 2**31 - 3
        writer.write(np.arange(5))
    assert os.listdir(tmp_path) == []


def shard_bytes(count: int = 11, said: int | None = None, first: int = 20240520) -> bytes:
    header = np.frombuffer(header_of(count if said is None else said), "<i4").copy()
    header[0] = first
    return header.tobytes() + np.arange(count, dtype=np.uint16).tobytes()


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (b"", "is cut off, or no token shard: it has 0 bytes"),
        (shard_bytes()[:1000], "it has 1,000 bytes, and a shard's header alone takes 1,024"),
        (shard_bytes()[:-1], "its header says 11 tokens, which make 1,046 bytes, and it has 1,045"),
        (shard_bytes() + b"\0", "which make 1,046 bytes, and it has 1,047"),
        (shard_bytes(said=-11), "its header says -11 tokens"),
        (shard_bytes(said=2**31 - 1), "its header says 2,147,483,647 tokens"),
        (shard_bytes(first=20240520 + 1), "begins with 20240521, and a shard with 20240520"),
        (shard_bytes(first=20240801), "32-bit tokens of Llama 3"),
        (np.arange(999, dtype=np.uint16).tobytes(), "is no token shard: it begins with 65536"),
        (shard_bytes()[:4] + b"\2\0\0\0" + shard_bytes()[8:], "version 2, and only version 1"),
    ],
)
def test_structural_damage_is_told_without_a_manifest(tmp_path: Path, raw: bytes, sentence: str):
    """B4.1: magic, version, count and file size are verified."""
    path = tmp_path / "shard.bin"
    path.write_bytes(raw)
    with pytest.raises(ShardError, match=sentence) as caught:
        Shard(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_missing_and_folder(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"none\.bin': there is no such file"):
        Shard(tmp_path / "none.bin")
    with pytest.raises(IsADirectoryError, match="it is a folder"):
        Shard(tmp_path)


def damage(draw: st.DrawFn, raw: bytes) -> bytes:
    """Flipped bits, a cut, bytes put in, taken out or moved."""
    kind = draw(st.sampled_from(["flip", "cut", "insert", "remove", "swap", "zero"]))
    at = draw(st.integers(0, len(raw) - 1))
    length = draw(st.integers(1, 9))
    if kind == "flip":
        bad = bytearray(raw)
        for _ in range(draw(st.integers(1, 3))):
            bad[draw(st.integers(0, len(raw) - 1))] ^= 1 << draw(st.integers(0, 7))
        return bytes(bad)
    if kind == "cut":
        return raw[:at]
    if kind == "insert":
        return raw[:at] + draw(st.binary(min_size=1, max_size=length)) + raw[at:]
    if kind == "remove":
        return raw[:at] + raw[at + length :]
    if kind == "zero":
        return raw[:at] + bytes(len(raw[at : at + length])) + raw[at + length :]
    other = draw(st.integers(0, len(raw) - 1))
    a, b = min(at, other), max(at, other)
    return raw[:a] + raw[b : b + length] + raw[a + length : b] + raw[a : a + length] + raw[b:]


@st.composite
def damaged_folders(draw: st.DrawFn) -> tuple[str, bytes]:
    """Which file of a prepared folder is replaced, and by what."""
    name = draw(st.sampled_from(["x_train_000001.bin", "x_train_000002.bin", "manifest.json"]))
    return name, damage(draw, FILES[name])


TRAIN = [np.arange(1, 600, 7), np.arange(50000, 50100)]
FILES: dict[str, bytes] = {}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards and their manifest."""
    folder = tmp_path_factory.mktemp("damaged")
    shards = []
    for i, ids in enumerate(TRAIN, 1):
        name = f"x_train_{i:06d}.bin"
        info = write_shard(folder / name, ids)
        shards.append({"split": "train", "file": name, **info._asdict()})
    write_json(folder / "manifest.json", {"rank": 0, "world_size": 1, "shards": shards})
    FILES.update((path.name, path.read_bytes()) for path in folder.iterdir())
    return folder


def loads_right_or_says_why(folder: Path, name: str, raw: bytes) -> None:
    """One ShardError that names the file, or the values that were written."""
    try:
        (folder / name).write_bytes(raw)
        with TokenLoader(folder, 1, 185, prefetch=False) as loader:
            x, y = loader.next_batch()
        whole = np.concatenate(TRAIN)
        assert np.array_equal(x[0], whole[:-1]) and np.array_equal(y[0], whole[1:])
        if name == "manifest.json":
            assert read_manifests(folder) is not None
        else:
            assert raw == FILES[name]
    except ShardError as error:
        assert name in str(error) and "\n" not in str(error)
        assert raw != FILES[name]
    finally:
        (folder / name).write_bytes(FILES[name])


@given(data=st.data())
@settings(max_examples=200)
def test_damaged_files_name_themselves(folder: Path, data: st.DataObject):
    loads_right_or_says_why(folder, *data.draw(damaged_folders()))


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=10_000)
def test_ten_thousand_damaged_files(folder: Path, data: st.DataObject):
    loads_right_or_says_why(folder, *data.draw(damaged_folders()))


def test_every_single_flipped_bit_of_a_token_is_found(tmp_path: Path):
    info = write_shard(tmp_path / "a.bin", np.arange(13))
    raw = (tmp_path / "a.bin").read_bytes()
    for bit in range(8 * HEADER_BYTES, 8 * len(raw)):
        bad = bytearray(raw)
        bad[bit // 8] ^= 1 << bit % 8
        (tmp_path / "a.bin").write_bytes(bad)
        with pytest.raises(ShardError, match=r"a\.bin' is damaged: its tokens have CRC-32"):
            Shard(tmp_path / "a.bin", info)


def test_another_shard_of_the_same_length(tmp_path: Path):
    info = write_shard(tmp_path / "a.bin", np.arange(13))
    write_shard(tmp_path / "a.bin", np.arange(13)[::-1])
    with pytest.raises(ShardError, match="the manifest says"):
        Shard(tmp_path / "a.bin", info)
    with pytest.raises(ShardError, match="holds 13 tokens, and the manifest 12"):
        Shard(tmp_path / "a.bin", ShardInfo(12, info.crc32))


def test_json_changed_by_hand(tmp_path: Path):
    path = tmp_path / "manifest.json"
    write_json(path, {"rank": 0, "world_size": 1, "shards": []})
    assert read_json(path) == {"rank": 0, "world_size": 1, "shards": []}
    for raw in (
        path.read_bytes().replace(b"1", b"2", 1),
        b"[]",
        b"{}",
        b"[" * 100_000,
        b"\xff",
        b"",
    ):
        path.write_bytes(raw)
        with pytest.raises(ShardError, match=r"manifest\.json' is damaged"):
            read_json(path)
    write_json(path, {"some": "thing"})
    with pytest.raises(ShardError, match=r"manifest\.json' is no manifest"):
        read_manifests(tmp_path)
