"""tensorgrad prepare: the plain loop's tokens, whatever the workers, the pieces and the deaths."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorgrad.__main__ import main
from tensorgrad.data import BPE, Shard, ShardError, TokenLoader, get_tokenizer, names_text
from tensorgrad.data.manifest import read_json
from tensorgrad.data.prepare import prepare
from tensorgrad.data.shards import ShardInfo
from tensorgrad.data.workers import tokenised
from tests.data.vocabulary import gpt2_cache, of_blanks, small
from tests.tree import ROOT

COMMAND = [sys.executable, "-m", "tensorgrad", "prepare"]
NO_SOCKETS = """
import sys, os
def refuse(event, args):
    if event.startswith("socket.") and event != "socket.gethostname":
        os.write(2, f"SOCKET {event} {args}\\n".encode())
        os._exit(97)
sys.addaudithook(refuse)
"""


def write_jsonl(path: Path, texts: list[str], key: str = "text") -> Path:
    path.write_text("".join(json.dumps({"n": i, key: t}) + "\n" for i, t in enumerate(texts)))
    return path


def plain_loop(texts: list[str], bpe: BPE) -> list[int]:
    return [i for text in texts for i in [bpe.eot, *bpe.encode(text)]]


def stored(folder: Path) -> list[int]:
    """All tokens of a folder, each shard held against its manifest."""
    found: list[int] = []
    for path in sorted(folder.glob("manifest*.json")):
        shards = read_json(path)["shards"]
        for entry in [*shards[1:], shards[0]]:  # validation is the end of the row
            shard = Shard(folder / entry["file"], ShardInfo(entry["tokens"], entry["crc32"]))
            found += shard.tokens.tolist()
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def some_texts(n: int, seed: int = 0) -> list[str]:
    draw, words = random.Random(seed), names_text().text.split()
    return [" ".join(draw.choices(words, k=draw.randint(1, 90))) + "\n" for _ in range(n)]


@pytest.fixture(autouse=True, scope="module")
def no_waiting_for_the_disk() -> Iterator[None]:
    """A killed process loses nothing that it wrote; only a killed machine does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda file: None)
        yield


@pytest.fixture
def jsonl(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "texts.jsonl", some_texts(97))


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tensorgrad.data.sources.PIECE", 997)
    monkeypatch.setattr("tensorgrad.data.streams.PIECE", 997)


# -- which tokens ---------------------------------------------------------------------------------


def test_one_set_of_shards_for_any_number_of_workers(tmp_path: Path, jsonl: Path, small_pieces):
    """B4.5: several processes, a validation shard, headers that say the count."""
    folders = []
    for workers in (1, 3, 2):
        folders.append(tmp_path / f"out{workers}")
        manifest = prepare(
            str(jsonl), folders[-1], tokenizer=small(), shard_size=1009, workers=workers
        )
    want = plain_loop(some_texts(97), small())
    assert stored(folders[0]) == want
    assert contents(folders[0]) == contents(folders[1]) == contents(folders[2])
    assert manifest["documents"] == 97 and manifest["tokens"] == len(want)
    assert manifest["last_document"] == "whole"
    names = sorted(name for name in contents(folders[0]) if name.endswith(".bin"))
    assert names[:2] == ["texts_train_000001.bin", "texts_train_000002.bin"]
    assert names[-1] == "texts_val_000000.bin"
    sizes = [len(Shard(folders[0] / name)) for name in names]
    assert set(sizes[:-2]) == {1009} and 0 < sizes[-2] <= 1009
    assert sizes[-1] == len(want) // 100
    assert set(contents(folders[0])) == {*names, "manifest.json", "tokenizer.json"}


TEXTS = st.text(st.sampled_from("ab1's. \n\t\r\u00a0\u3000é東🙂<|endoftext|>"), max_size=120)


@given(texts=st.lists(TEXTS, min_size=1, max_size=9), piece=st.integers(1, 90))
@settings(max_examples=60)
def test_lines_are_read_once_wherever_pieces_end(tmp_path_factory, texts: list[str], piece: int):
    folder = tmp_path_factory.mktemp("lines")
    source = write_jsonl(folder / "a.jsonl", [*texts, "the end"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tensorgrad.data.sources.PIECE", piece)
        prepare([str(source)], folder / "out", tokenizer=small(), shard_size=31, workers=1)
    assert stored(folder / "out") == plain_loop([*texts, "the end"], small())


@given(texts=st.lists(TEXTS, min_size=1, max_size=3), piece=st.integers(1, 40))
@settings(max_examples=60)
def test_a_text_is_cut_where_no_token_is(tmp_path_factory, texts: list[str], piece: int):
    """A text file is one document, and its pieces' tokens are those of the whole."""
    bpe = of_blanks()
    folder = tmp_path_factory.mktemp("texts")
    texts = [text + "the end" for text in texts]
    for i, text in enumerate(texts):
        (folder / f"{i}.txt").write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tensorgrad.data.sources.PIECE", piece)
        prepare(str(folder), folder / "out", tokenizer=bpe, shard_size=31, workers=1)
    assert stored(folder / "out") == plain_loop(texts, bpe)


@given(
    texts=st.lists(TEXTS, min_size=1, max_size=12),
    piece=st.integers(1, 90),
    world_size=st.integers(1, 5),
)
@settings(max_examples=25)
def test_ranks_share_the_lines(tmp_path_factory, texts: list[str], piece: int, world_size: int):
    folder = tmp_path_factory.mktemp("ranks")
    texts = [text + "the end" for text in texts]
    source = str(write_jsonl(folder / "a.jsonl", texts))
    out = folder / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tensorgrad.data.sources.PIECE", piece)
        for rank in range(world_size):
            try:
                prepare(
                    source, out, tokenizer=small(), shard_size=31, workers=1,
                    rank=rank, world_size=world_size,
                )  # fmt: skip
            except ValueError as error:  # more machines than documents
                assert "the sources give 0 tokens" in str(error)
    assert stored(out) == plain_loop(texts, small())


def test_ranks_do_not_overwrite_each_other(tmp_path: Path, jsonl: Path, small_pieces):
    out = tmp_path / "out"
    for rank in range(3):
        if rank:
            with pytest.raises(ShardError, match=r"not complete: `tensorgrad prepare --rank \d"):
                TokenLoader(out, 2, 31)
        prepare(
            str(jsonl), out, tokenizer=small(), shard_size=1009, workers=1, rank=rank, world_size=3
        )
    want = plain_loop(some_texts(97), small())
    assert stored(out) == want
    train, val = (TokenLoader(out, 2, 31, split, prefetch=False) for split in ("train", "val"))
    assert train.tokens + val.tokens == len(want)
    assert len(val.shards) == 3


def test_sources_of_several_kinds(tmp_path: Path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "a.txt").write_text("one text\nof two lines\n")
    (tmp_path / "in" / "notes.pdf").write_bytes(b"\xff")
    (tmp_path / "in" / ".hidden.txt").write_bytes(b"\xff")
    write_jsonl(tmp_path / "in" / "deep" / "b.jsonl", ["two", "three"], "body")
    (tmp_path / "poem").write_text("four")
    (tmp_path / "empty.txt").touch()
    names = [str(tmp_path / name) for name in ("in", "poem", "empty.txt")]
    prepare(names, tmp_path / "out", tokenizer=small(), text_key="body", workers=1)
    texts = ["one text\nof two lines\n", "two", "three", "four"]
    assert stored(tmp_path / "out") == plain_loop(texts, small())
    assert (tmp_path / "out" / "in_val_000000.bin").exists()


def test_blank_lines_marks_and_surrogates(tmp_path: Path):
    source = tmp_path / "a.ndjson"
    source.write_bytes(
        b'\xef\xbb\xbf{"text": "one"}\r\n\n   \n{"text": ""}\n{"text": "\\ud800"}\n{"text": "end"}'
    )
    prepare(str(source), tmp_path / "out", tokenizer=small(), workers=1)
    assert stored(tmp_path / "out") == plain_loop(["one", "", "\ufffd", "end"], small())


def test_gpt2_and_a_large_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Several real pieces of one document, real workers, GPT-2's vocabulary."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(gpt2_cache()))
    text = names_text().text * 6
    (tmp_path / "long.txt").write_text(text)
    manifest = prepare(str(tmp_path / "long.txt"), tmp_path / "out", workers=2)
    assert manifest["tokenizer"] == {"name": "gpt2", "n_vocab": 50257, "eot": 50256}
    assert stored(tmp_path / "out") == plain_loop([text], get_tokenizer("gpt2"))


# -- how many tokens ------------------------------------------------------------------------------


@pytest.mark.parametrize("shard_size", [13, 500, 10**8])
@pytest.mark.parametrize("val_tokens", [None, 1, 37, 1200])
def test_sizes(tmp_path: Path, jsonl: Path, shard_size: int, val_tokens: int | None):
    """A validation shard of its own size, at least one token; no token in two places."""
    manifest = prepare(
        str(jsonl), tmp_path / "out", tokenizer=small(), shard_size=shard_size,
        val_tokens=val_tokens, total_tokens=1500, workers=1,
    )  # fmt: skip
    sizes = [shard["tokens"] for shard in manifest["shards"]]
    assert sum(sizes) == manifest["tokens"] == 1500
    assert sizes[0] == (val_tokens or 15) and manifest["shards"][0]["split"] == "val"
    assert all(size == shard_size for size in sizes[1:-1]) and 0 < sizes[-1] <= shard_size
    assert stored(tmp_path / "out") == plain_loop(some_texts(97), small())[:1500]
    assert len(list((tmp_path / "out").glob("*.bin"))) == len(sizes)


def test_a_cut_document_is_marked(tmp_path: Path, jsonl: Path, small_pieces):
    """B4.5: the manifest tells whether the last document is whole."""
    row = plain_loop(some_texts(97), small())
    marks = [i for i, token in enumerate(row) if token == small().eot]
    for at in (marks[5], marks[5] + 1, marks[6] - 1, marks[6], len(row), len(row) + 5):
        out = tmp_path / f"out{at}"
        manifest = prepare(
            str(jsonl), out, tokenizer=small(), total_tokens=at, workers=1, shard_size=marks[5]
        )
        whole = at in (marks[5], marks[6]) or at >= len(row)
        assert manifest["last_document"] == ("whole" if whole else "cut")
        assert manifest["documents"] == sum(mark < at for mark in marks)


def test_too_few_tokens(tmp_path: Path):
    (tmp_path / "a.txt").write_text("a")
    how = {"tokenizer": small(), "workers": 1}
    with pytest.raises(ValueError, match="give 2 tokens, too few for 2 of validation"):
        prepare(str(tmp_path / "a.txt"), tmp_path / "out", val_tokens=2, **how)
    assert not list((tmp_path / "out").glob("*.bin"))
    prepare(str(tmp_path / "a.txt"), tmp_path / "out", val_tokens=1, **how)
    assert len(stored(tmp_path / "out")) == 2


# -- deaths ---------------------------------------------------------------------------------------


class Died(BaseException):
    """What SIGKILL is to a process."""


def dying(patch: pytest.MonkeyPatch, at: int, after: bool) -> None:
    """Let the process die before or after its `at`-th rename or removal of a file."""
    count = 0

    def wrap(real: Any) -> Any:
        def act(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == at and not after:
                raise Died
            out = real(*args, **kwargs)
            if count == at:
                raise Died
            return out

        return act

    patch.setattr("os.replace", wrap(os.replace))
    patch.setattr(Path, "unlink", wrap(Path.unlink))


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("val_tokens", [None, 700])
def test_death_at_every_rename(tmp_path: Path, small_pieces, val_tokens: int | None, after: bool):
    texts = some_texts(13)
    source = str(write_jsonl(tmp_path / "texts.jsonl", texts))
    how = {"tokenizer": small(), "shard_size": 211, "val_tokens": val_tokens, "workers": 1}
    prepare(source, tmp_path / "whole", **how)
    want = contents(tmp_path / "whole")
    assert stored(tmp_path / "whole") == plain_loop(texts, small())
    for at in range(1, 1000):
        out = tmp_path / f"out{at}"
        try:
            with pytest.MonkeyPatch.context() as patch:
                dying(patch, at, after)
                prepare(source, out, **how)
            break
        except Died:
            if not (out / "manifest.json").exists():
                with pytest.raises((ShardError, FileNotFoundError)):
                    TokenLoader(out, 1, 5)
            for path in out.glob(".*.tmp-*"):  # an exception sweeps them; a kill does not
                path.unlink()
            prepare(source, out, **how)
            assert contents(out) == want
    assert at > 15


def killed_and_resumed(folder: Path, kills: int, seed: int, workers: int) -> None:
    """SIGKILL at random times until it has hit so often; then the end, byte for byte."""
    source = write_jsonl(folder / "texts.jsonl", some_texts(1500))
    small().save(folder / "bpe.json")
    command = [*COMMAND, source, "--tokenizer", folder / "bpe.json", "--shard-size", "3k"]

    def start(out: Path) -> subprocess.Popen[bytes]:
        line = [str(word) for word in [*command, "--out", out, "--workers", workers]]
        return subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    begun = time.monotonic()
    with start(folder / "whole") as run:
        assert run.communicate()[0].startswith(b"1,500 documents, ")
    duration = time.monotonic() - begun
    draw, hits = random.Random(seed), 0
    while hits < kills:
        with start(folder / "out") as run:
            try:
                run.wait(draw.uniform(0.3, 1) * duration)
            except subprocess.TimeoutExpired:
                run.kill()
            run.communicate()
        if run.returncode == -signal.SIGKILL:
            hits += 1
        else:
            assert run.returncode == 0
            assert contents(folder / "out") == contents(folder / "whole")
            for path in (folder / "out").iterdir():
                path.unlink()
    with start(folder / "out") as run:
        run.communicate()
    assert run.returncode == 0
    assert contents(folder / "out") == contents(folder / "whole")


def test_two_kills(tmp_path: Path):
    killed_and_resumed(tmp_path, 2, 1, workers=1)


@pytest.mark.slow
def test_twenty_kills(tmp_path: Path):
    killed_and_resumed(tmp_path, 20, 2, workers=2)


def test_workers_end_with_their_parent(tmp_path: Path):
    source = write_jsonl(tmp_path / "texts.jsonl", some_texts(20_000))
    small().save(tmp_path / "bpe.json")
    line = [*COMMAND, source, "--tokenizer", tmp_path / "bpe.json", "--out", tmp_path / "out"]
    with subprocess.Popen(
        [*map(str, line), "--workers=2"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as run:
        children: list[str] = []
        while len(children) < 2 and run.poll() is None:
            tasks = Path(f"/proc/{run.pid}/task").glob("*/children")
            children = [pid for task in tasks for pid in task.read_text().split()]
        run.kill()
        run.communicate()
    assert len(children) == 2
    waited = time.monotonic()
    while any(Path(f"/proc/{pid}").exists() for pid in children):
        assert time.monotonic() - waited < 60, "workers outlive their parent"
        time.sleep(0.02)


def test_a_second_run_does_nothing(tmp_path: Path, jsonl: Path):
    out = tmp_path / "out"
    first = prepare(str(jsonl), out, tokenizer=small(), workers=1)
    stamps = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert prepare(str(jsonl), out, tokenizer=small(), workers=1) == first
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == stamps


def test_a_second_run_misses_what_is_gone(tmp_path: Path, jsonl: Path):
    out = tmp_path / "out"
    prepare(str(jsonl), out, tokenizer=small(), workers=1)
    (out / "texts_val_000000.bin").unlink()
    with pytest.raises(ShardError, match=r"texts_val_000000\.bin' is missing .* prepare it again"):
        prepare(str(jsonl), out, tokenizer=small(), workers=1)


def test_another_preparation_is_refused(tmp_path: Path, jsonl: Path):
    out = tmp_path / "out"
    prepare(str(jsonl), out, tokenizer=small(), workers=1)
    before = contents(out)
    with pytest.raises(ValueError, match=r"shard_size was 100000000 and now is 5000.*--out"):
        prepare(str(jsonl), out, tokenizer=small(), shard_size=5000)
    write_jsonl(jsonl, some_texts(97, seed=1))
    with pytest.raises(ValueError, match="its source files have changed since"):
        prepare(str(jsonl), out, tokenizer=small())
    (out / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"texts_train_000001\.bin' is there, and nothing tells"):
        prepare(str(jsonl), out, tokenizer=small())
    assert contents(out) == {k: v for k, v in before.items() if k != "manifest.json"} | {
        ".prepare-0.lock": b""
    }


def test_a_damaged_shard_is_not_gone_on_from(tmp_path: Path, jsonl: Path, small_pieces):
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Died):
        dying(patch, 9, True)
        prepare(str(jsonl), out, tokenizer=small(), shard_size=307, workers=1)
    shard = out / "texts_train_000001.bin"
    shard.write_bytes(shard.read_bytes()[:-2] + b"\0\0")
    with pytest.raises(ShardError, match=r"texts_train_000001\.bin' is damaged"):
        prepare(str(jsonl), out, tokenizer=small(), shard_size=307, workers=1)


def test_one_preparation_at_a_time(tmp_path: Path, jsonl: Path):
    import fcntl

    (tmp_path / "out").mkdir()
    with open(tmp_path / "out" / ".prepare-0.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(RuntimeError, match="another `tensorgrad prepare` is writing to"):
            prepare(str(jsonl), tmp_path / "out", tokenizer=small())


def test_a_worker_says_what_is_wrong(tmp_path: Path):
    (tmp_path / "a.txt").write_bytes(b"fine until \xff here")
    with pytest.raises(ValueError, match=r"a\.txt' is not UTF-8: .* at byte 11"):
        prepare(str(tmp_path / "a.txt"), tmp_path / "out", tokenizer=small(), workers=2)


def test_a_dead_worker_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, jsonl: Path):
    monkeypatch.setattr("tensorgrad.data.workers.PROGRAM", "import os; os._exit(3)")
    with pytest.raises(RuntimeError, match=r"a worker died \(exit status 3\).*again goes on"):
        prepare(str(jsonl), tmp_path / "out", tokenizer=small(), workers=2)


# -- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "raw", "sentence"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', "the line at byte 14 is not JSON"),
        ("a.jsonl", b'{"body": "a"}\n', "no text under 'text' .it has 'body'.; .*--text_key"),
        ("a.jsonl", b'{"text": 5}\n', "no text under 'text'"),
        ("a.jsonl", b'["text"]\n', "no text under 'text' .it has no keys"),
        ("a.jsonl", b'{"text": "\xff"}\n', "the line at byte 0 is not JSON in UTF-8"),
        ("a.jsonl", b"[" * 100_000 + b"\n", "the line at byte 0 is not JSON"),
        ("a.txt", b"fine until \xff here", "is not UTF-8: .* at byte 11"),
        ("a.txt", b"", "the sources give 0 tokens"),
    ],
)
def test_bad_sources(tmp_path: Path, name: str, raw: bytes, sentence: str):
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(ValueError, match=sentence) as caught:
        prepare(str(tmp_path / name), tmp_path / "out", tokenizer=small(), workers=1)
    assert "\n" not in str(caught.value)
    if raw:
        assert str(tmp_path / name) in str(caught.value)


def test_long_lines_and_texts_without_blanks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tensorgrad.data.sources.LONGEST", 2000)
    monkeypatch.setattr("tensorgrad.data.sources.PIECE", 100)
    write_jsonl(tmp_path / "a.jsonl", ["b" * 3000])
    (tmp_path / "a.txt").write_text("東" * 100_000)
    for name, sentence in (("a.jsonl", "longer than 2,000 bytes"), ("a.txt", "has no blank in")):
        with pytest.raises(ValueError, match=sentence):
            prepare(str(tmp_path / name), tmp_path / name[2:], tokenizer=small(), workers=1)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"shard_size": 0}, "shard_size is 1 to 2,147,483,647 tokens, not 0"),
        ({"shard_size": 2**31}, "not 2147483648"),
        ({"total_tokens": 0}, "total_tokens must be at least 1, it is 0"),
        ({"val_tokens": -1}, "val_tokens must be at least 1"),
        ({"rank": 2, "world_size": 2}, "it is 2 of 2"),
        ({"name": "a/b"}, "'a/b' cannot begin"),
        ({"name": ".a"}, "cannot begin"),
        ({"tokenizer": "gpt7"}, "'gpt7' is neither 'gpt2' nor"),
    ],
)
def test_bad_options(tmp_path: Path, jsonl: Path, options: dict, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        prepare(str(jsonl), tmp_path / "out", **{"tokenizer": small(), **options})


def test_a_vocabulary_beyond_16_bits(tmp_path: Path, jsonl: Path):
    """B4.5: ids are below 2^16, checked before anything is written."""
    pairs = [bytes([a, b]) for a in range(256) for b in range(256)][: 65536 - 256]
    tokens = [*(bytes([b]) for b in range(256)), *pairs]
    large = BPE({token: i for i, token in enumerate(tokens)}, "large")
    with pytest.raises(ValueError, match="'large' has 65,537 ids, and a shard's 16 bits hold 65,5"):
        prepare(str(jsonl), tmp_path / "out", tokenizer=large)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".prepare-0.lock"]


@pytest.mark.parametrize("name", ["none.txt", "data/none", "none", "/none/none"])
def test_missing_sources_never_become_hub_names(tmp_path: Path, monkeypatch, name: str):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    with pytest.raises(FileNotFoundError, match=rf"there is no file or folder '{name}'"):
        prepare(name, "out", tokenizer=small())
    with pytest.raises(ValueError, match="name at least one source"):
        prepare([], "out")
    with pytest.raises(ValueError, match=r"'data' has no \.txt"):
        prepare("data", "out")


# -- datasets -------------------------------------------------------------------------------------


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    pytest.importorskip("datasets")
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"id": list(range(41)), "text": some_texts(41)})
    pyarrow.parquet.write_table(table, tmp_path / "texts.parquet", row_group_size=7)
    return tmp_path / "texts.parquet"


def test_parquet_is_streamed(tmp_path: Path, parquet: Path, small_pieces):
    how = {"tokenizer": small(), "shard_size": 307}
    for workers in (1, 2):
        prepare(str(parquet), tmp_path / f"out{workers}", workers=workers, **how)
    assert stored(tmp_path / "out1") == plain_loop(some_texts(41), small())
    assert contents(tmp_path / "out1") == contents(tmp_path / "out2")


def test_parquet_goes_on_after_a_death(tmp_path: Path, parquet: Path, small_pieces):
    how = {"tokenizer": small(), "shard_size": 307, "workers": 1}
    prepare(str(parquet), tmp_path / "whole", **how)
    for at in (3, 8, 13, 19):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Died):
            dying(patch, at, True)
            prepare(str(parquet), tmp_path / f"out{at}", **how)
        prepare(str(parquet), tmp_path / f"out{at}", **how)
        assert contents(tmp_path / f"out{at}") == contents(tmp_path / "whole")


def test_parquet_by_ranks_and_mixed_with_text(tmp_path: Path, parquet: Path, small_pieces):
    (tmp_path / "more.txt").write_text("some more of it " * 50)
    sources = [str(parquet), str(tmp_path / "more.txt")]
    for rank in range(2):
        prepare(
            sources, tmp_path / "out", tokenizer=small(), workers=1, rank=rank, world_size=2,
            shard_size=307,
        )  # fmt: skip
    texts = [*some_texts(41), "some more of it " * 50]
    mark = small().eot
    documents = sorted(split_at(stored(tmp_path / "out"), mark))
    whole = sorted(split_at(plain_loop(texts[:-1], small()), mark))
    assert [d for d in documents if d in whole] == whole
    # The text file is cut between the machines, and each part begins like a document.
    parts = [d for d in documents if d not in whole]
    assert len(parts) == 2
    assert small().encode(texts[-1]) in (parts[0] + parts[1], parts[1] + parts[0])


def split_at(row: list[int], mark: int) -> Iterator[list[int]]:
    document: list[int] = []
    for token in row[1:]:
        if token == mark:
            yield document
            document = []
        else:
            document.append(token)
    yield document


def test_parquet_without_the_column(tmp_path: Path, parquet: Path):
    with pytest.raises(ValueError, match=r"no column 'body' \(it has id, text\).*--text_key"):
        prepare(str(parquet), tmp_path / "out", tokenizer=small(), text_key="body")


def test_a_damaged_parquet(tmp_path: Path):
    pytest.importorskip("datasets")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(OSError, match=r"a\.parquet' cannot be streamed"):
        prepare(str(tmp_path / "a.parquet"), tmp_path / "out", tokenizer=small())


def test_without_datasets_a_sentence(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "datasets", None)
    (tmp_path / "a.parquet").touch()
    with pytest.raises(ImportError, match="pip install datasets, or give JSONL or text"):
        prepare(str(tmp_path / "a.parquet"), tmp_path / "out", tokenizer=small())
    small().save(tmp_path / "bpe.json")
    words = ["prepare", tmp_path / "a.parquet", "--out", tmp_path / "out", "--tokenizer"]
    assert main([*map(str, words), str(tmp_path / "bpe.json")]) == 1
    assert capsys.readouterr().err.endswith("pip install datasets, or give JSONL or text\n")


class Hub:
    """Stands for the library datasets, as far as a hub name asks for it."""

    asked: dict[str, Any]

    def load_dataset(self, **how: Any) -> "Hub":
        self.asked = how
        return self

    column_names = None

    def select_columns(self, columns: list[str]) -> "Hub":
        return self

    def __iter__(self) -> Iterator[dict[str, str]]:
        return ({"text": text} for text in some_texts(5))

    def state_dict(self) -> dict[str, int]:
        return {}


@pytest.mark.parametrize(
    ("source", "path", "subset", "name"),
    [
        ("HuggingFaceFW/fineweb", "HuggingFaceFW/fineweb", "sample-10BT", "fineweb"),
        ("HuggingFaceFW/fineweb:CC", "HuggingFaceFW/fineweb", "CC", "fineweb"),
        ("some-one/texts", "some-one/texts", None, "texts"),
    ],
)
def test_hub_names(tmp_path, monkeypatch, source: str, path: str, subset: str | None, name: str):
    hub = Hub()
    monkeypatch.setitem(sys.modules, "datasets", hub)
    monkeypatch.chdir(tmp_path)
    prepare(source, "out", tokenizer=small(), workers=1)
    assert hub.asked == {"path": path, "name": subset, "split": "train", "streaming": True}
    assert sorted(p.name for p in Path("out").glob("*.bin")) == [
        f"{name}_train_000001.bin",
        f"{name}_val_000000.bin",
    ]
    assert stored(tmp_path / "out") == plain_loop(some_texts(5), small())


# -- the command ----------------------------------------------------------------------------------


def test_the_command(tmp_path: Path, jsonl: Path, capsys: pytest.CaptureFixture[str]):
    """F4.3."""
    out = tmp_path / "out"
    words = ["prepare", jsonl, "--out", out, "--tokenizer=bpe", "--vocab-size=300", "--workers=1"]
    words += ["--shard-size", "2_000", "--total-tokens=5k", "--val_tokens", "1e2", "--name=mine"]
    assert main([str(word) for word in words]) == 0
    told = capsys.readouterr().out
    assert told.startswith("42 documents, 5,000 tokens of bpe-300-") or ", 5,000 tokens of" in told
    assert "4,900 to train on in 3 shards, 100 to validate" in told
    bpe = BPE.load(out / "tokenizer.json")
    assert bpe.n_vocab == 300
    assert stored(out) == plain_loop(some_texts(97), bpe)[:5000]
    assert main([str(word) for word in words]) == 0  # the vocabulary of the first time
    assert main([str(word).replace("300", "301") for word in words]) == 1
    assert "vocab_size was 300 and now is 301" in capsys.readouterr().err


def test_ranks_from_the_environment(tmp_path: Path, jsonl: Path, monkeypatch, capsys):
    small().save(tmp_path / "bpe.json")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        words = ["prepare", jsonl, "--out", tmp_path / "out", "--tokenizer", tmp_path / "bpe.json"]
        assert main([*map(str, words), "--workers=1"]) == 0
    assert len(list((tmp_path / "out").glob("manifest_0000?_of_00002.json"))) == 2


@pytest.mark.parametrize("kind", ["jsonl", pytest.param("parquet", marks=pytest.mark.slow)])
def test_no_socket_is_opened(tmp_path: Path, kind: str, request: pytest.FixtureRequest):
    """An audit hook in every Python process of the command ends it at the first socket."""
    source = request.getfixturevalue(kind)
    small().save(tmp_path / "bpe.json")
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(NO_SOCKETS)
    path = os.pathsep.join([str(tmp_path / "hook"), os.environ.get("PYTHONPATH", "")])
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    environment |= {"PYTHONPATH": path.rstrip(os.pathsep), "HF_HOME": str(tmp_path / "hf")}
    line = [*COMMAND, source, "--out", tmp_path / "out", "--tokenizer", tmp_path / "bpe.json"]
    run = subprocess.run(
        [*map(str, line), "--workers=2"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert len(stored(tmp_path / "out")) > 1000
    probe = subprocess.run(
        [sys.executable, "-c", "import socket; socket.socket()"], env=environment, check=False
    )
    assert probe.returncode == 97  # the hook works


@pytest.mark.slow
def test_the_benchmark(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """It checks that the tokens are the plain loop's, and says what it measured."""
    from benchmarks import prepare as benchmark

    file = tmp_path / "found.json"
    benchmark.main(["--megabytes=1", "--runs=1", "--json", str(file)])
    found = json.loads(file.read_text())
    assert "2 workers: " in capsys.readouterr().out
    assert found["tokens"] > 100_000
    assert all(found[s]["peak"] > 1e7 for s in ("plain loop", "1 worker", "2 workers"))


def test_tokens_come_in_order_from_uneven_workers(tmp_path: Path):
    from tensorgrad.data.sources import Task

    texts = [("word " * (4000 if i % 5 == 0 else 3)).encode() for i in range(40)]
    tasks = [(Task("texts", texts=(text,)), i) for i, text in enumerate(texts)]
    found = list(tokenised(tasks, small(), "text", 3))
    assert [companion for _, companion in found] == list(range(40))
    for (ids, _), text in zip(found, texts):
        assert ids.tolist() == [small().eot, *small().encode(text.decode())]
        assert ids.dtype == np.uint16
