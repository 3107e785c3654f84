"""TokenLoader: every target once an epoch, over shards, ranks, batches and resumes."""

import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorgrad.data import Shard, ShardError, TokenLoader, all_windows, write_shard
from tensorgrad.data.manifest import write_json
from tensorgrad.data.permutation import permuted

SHARDS = st.lists(st.integers(0, 23), min_size=1, max_size=6)


def folder_of(folder: Path, sizes: list[int], split: str = "train") -> tuple[Path, np.ndarray]:
    """Shards of these sizes, whose tokens are all different, and their row."""
    row = np.arange(sum(sizes)) * 7 % 65521
    at = 0
    for i, size in enumerate(sizes):
        write_shard(folder / f"x_{split}_{i:06d}.bin", row[at : at + size])
        at += size
    return folder, row


def targets(batches: list[tuple[np.ndarray, np.ndarray]]) -> Counter:
    return Counter(int(i) for _, y in batches for i in y.ravel() if i != -100)


@given(
    sizes=SHARDS,
    T=st.integers(1, 11),
    B=st.integers(1, 4),
    world_size=st.integers(1, 4),
    shuffle=st.booleans(),
    epochs=st.integers(1, 3),
)
@settings(max_examples=150)
def test_every_target_once_an_epoch(
    tmp_path_factory, sizes: list[int], T: int, B: int, world_size: int, shuffle: bool, epochs: int
):
    """B4.3, B4.4: over all ranks together; shards shorter than a window are no exception."""
    folder, row = folder_of(tmp_path_factory.mktemp("shards"), sizes)
    if len(row) <= T:
        with pytest.raises(ValueError, match=f"{len(row)} tokens are too few for one window"):
            TokenLoader(folder, B, T)
        return
    ranks = [
        TokenLoader(folder, B, T, shuffle=shuffle, rank=r, world_size=world_size, prefetch=False)
        for r in range(world_size)
    ]
    windows = []
    steps = -(-epochs * ranks[0].windows // (world_size * B))
    for _ in range(steps):
        for loader in ranks:
            x, y = loader.next_batch()
            assert x.shape == y.shape == (B, T) and x.dtype == y.dtype == np.int64
            assert x.flags.c_contiguous and y.flags.c_contiguous
            known = y != -100
            assert np.array_equal(y[known], (x[known] + 7) % 65521)
            assert np.array_equal(x[:, 1:][known[:, :-1]], y[:, :-1][known[:, :-1]])
            windows += [(x[i : i + 1], y[i : i + 1]) for i in range(B)]
    for epoch in range(epochs):
        n = ranks[0].windows
        assert targets(windows[epoch * n : (epoch + 1) * n]) == Counter(row[1:].tolist())
    once = [batch for loader in ranks for batch in loader.epoch()]
    assert targets(once) == Counter(row[1:].tolist())


@given(sizes=SHARDS, T=st.integers(1, 11), B=st.integers(1, 4))
def test_in_order_it_is_all_windows(tmp_path_factory, sizes: list[int], T: int, B: int):
    folder, row = folder_of(tmp_path_factory.mktemp("shards"), sizes)
    if len(row) <= T:
        return
    loader = TokenLoader(folder, B, T, prefetch=False)
    ours = [y[y != -100] for _, y in loader.epoch()]
    theirs = [y.ravel() for _, y in all_windows(row, T, B)]
    assert np.array_equal(np.concatenate(ours), np.concatenate(theirs))
    x, y = loader.next_batch()
    wx, wy = next(all_windows(row, T, B))
    assert np.array_equal(x[: len(wx)], wx) and np.array_equal(y[: len(wy)], wy)


@given(
    sizes=SHARDS,
    T=st.integers(1, 5),
    B=st.integers(1, 4),
    shuffle=st.booleans(),
    before=st.integers(0, 9),
    prefetch=st.booleans(),
)
def test_it_goes_on_from_any_position(
    tmp_path_factory, sizes: list[int], T: int, B: int, shuffle: bool, before: int, prefetch: bool
):
    """F4.4, B4.4: a position of a few integers; what was read ahead does not count as used."""
    folder, _row = folder_of(tmp_path_factory.mktemp("shards"), [*sizes, 7])
    with (
        TokenLoader(folder, B, T, shuffle=shuffle, seed=3, prefetch=prefetch) as whole,
        TokenLoader(folder, B, T, shuffle=shuffle, seed=3, prefetch=prefetch) as resumed,
    ):
        for _ in range(before):
            whole.next_batch()
        state = whole.state_dict()
        assert all(type(value) is int for value in state.values())
        assert state["position"] == before * B
        resumed.next_batch()  # a batch too many, which the state undoes
        resumed.load_state_dict(state)
        for _ in range(4):
            for ours, theirs in zip(whole.next_batch(), resumed.next_batch()):
                assert np.array_equal(ours, theirs)
        whole.reset()
        with TokenLoader(folder, B, T, shuffle=shuffle, seed=3) as fresh:
            assert np.array_equal(whole.next_batch()[0], fresh.next_batch()[0])


@given(st.integers(1, 4), st.integers(1, 3), st.booleans())
def test_ranks_together_are_one_process(tmp_path_factory, world_size: int, B: int, shuffle: bool):
    """The joint batch is the single process's, and a run goes on with other ranks."""
    folder, _ = folder_of(tmp_path_factory.mktemp("shards"), [31, 11])
    one = TokenLoader(folder, world_size * B, 3, shuffle=shuffle, prefetch=False)
    ranks = [
        TokenLoader(folder, B, 3, shuffle=shuffle, rank=r, world_size=world_size, prefetch=False)
        for r in range(world_size)
    ]
    for _ in range(5):
        x, y = one.next_batch()
        parts = [loader.next_batch() for loader in ranks]
        assert np.array_equal(x, np.concatenate([p[0] for p in parts]))
        assert np.array_equal(y, np.concatenate([p[1] for p in parts]))
        assert {loader.state_dict()["position"] for loader in ranks} == {one.position}


def test_an_evaluation_leaves_the_stream_alone(tmp_path: Path):
    folder, _ = folder_of(tmp_path, [31, 11])
    loader, other = (TokenLoader(folder, 2, 3, shuffle=True) for _ in range(2))
    for _ in range(3):
        assert len(list(loader.epoch())) == 7
        assert np.array_equal(loader.next_batch()[0], other.next_batch()[0])
    loader.close()
    other.close()


@given(st.integers(1, 400), st.integers(0, 2**64), st.integers(0, 5))
def test_the_order_is_a_permutation(n: int, seed: int, epoch: int):
    order = permuted(np.arange(n), n, seed, epoch)
    assert sorted(order.tolist()) == list(range(n))
    some = np.arange(n)[:: max(n // 5, 1)]
    assert np.array_equal(permuted(some, n, seed, epoch), order[some])


def test_the_order_looks_random():
    """Each place receives each number about equally often, over seeds and over epochs."""
    n, draws = 13, 2000
    for orders in (
        np.array([permuted(np.arange(n), n, seed, 0) for seed in range(draws)]),
        np.array([permuted(np.arange(n), n, 5, epoch) for epoch in range(draws)]),
    ):
        counts = np.stack([(orders == i).sum(0) for i in range(n)])
        expected = draws / n
        chi2 = ((counts - expected) ** 2 / expected).sum()
        freedom = (n - 1) ** 2  # a chi-square of this mean, and standard deviation 17
        assert abs(chi2 - freedom) < 6 * np.sqrt(2 * freedom)
        assert len({tuple(order) for order in orders.tolist()}) == draws
    steps = np.diff(permuted(np.arange(10_007), 10_007, 1, 0))
    assert abs(np.mean(steps > 0) - 0.5) < 0.03  # neighbours are no neighbours


def test_seeds_and_epochs_differ(tmp_path: Path):
    folder, _ = folder_of(tmp_path, [500])
    first, again, other = (
        TokenLoader(folder, 100, 5, shuffle=True, seed=s, prefetch=False) for s in (1, 1, 2)
    )
    epoch1 = first.next_batch()[0]
    assert np.array_equal(epoch1, again.next_batch()[0])
    assert not np.array_equal(epoch1, other.next_batch()[0])
    assert first.epoch_number == 1
    epoch2 = first.next_batch()[0]
    assert not np.array_equal(epoch1, epoch2)
    assert sorted(epoch1[:, 0]) == sorted(epoch2[:, 0])


def test_a_shard_is_cast_batch_by_batch(tmp_path: Path):
    """B4.2: 10 MB of tokens are not turned into 80 MB of int64."""
    import tracemalloc

    write_shard(tmp_path / "x_train_000001.bin", np.zeros(5_000_000, np.uint16))
    tracemalloc.start()
    loader = TokenLoader(tmp_path, 4, 64, shuffle=True, prefetch=False)
    for _ in range(300):
        loader.next_batch()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 300_000


def test_pages_are_handed_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """B4.2: resident memory does not grow with the pages touched."""
    released = []
    monkeypatch.setattr(Shard, "release", lambda shard: released.append(shard.path))
    folder, _ = folder_of(tmp_path, [101, 103])
    loader = TokenLoader(folder, 40, 5, prefetch=False)
    for _ in range(256):
        loader.next_batch()
    assert sorted(released) == [str(folder / f"x_train_00000{i}.bin") for i in (0, 1)]


def test_few_maps_are_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tensorgrad.data.loader.OPEN", 3)
    folder, row = folder_of(tmp_path, [5] * 20)
    loader = TokenLoader(folder, 2, 7, shuffle=True, prefetch=False)
    for _ in range(20):
        loader.next_batch()
        assert len(loader._row._open) <= 3
    assert targets(list(loader.epoch())) == Counter(row[1:].tolist())


def test_only_shards_of_the_split(tmp_path: Path):
    """B4.4: other files are no shards, and val is not train."""
    folder, _row = folder_of(tmp_path, [31, 11])
    write_shard(tmp_path / "x_val_000000.bin", np.full(17, 5))
    for name in ("x_train_000009.bin.old", ".x_train_000003.bin.tmp-1-2", "notes.txt", "x.bin"):
        (tmp_path / name).write_bytes(b"no shard")
    loader = TokenLoader(folder, 2, 3)
    assert [path.name for path, _ in loader.shards] == ["x_train_000000.bin", "x_train_000001.bin"]
    assert loader.tokens == 42 and TokenLoader(folder, 2, 3, "val").tokens == 17
    assert "42 tokens in 2 shards, 14 windows of 3" in repr(loader)


def test_shards_in_the_order_of_their_numbers(tmp_path: Path):
    for number in (1_000_000, 999_999, 7):
        write_shard(tmp_path / f"x_train_{number:06d}.bin", np.full(3, number % 97))
    x, _ = TokenLoader(tmp_path, 1, 8, prefetch=False).next_batch()
    assert x[0].tolist() == [7] * 3 + [999_999 % 97] * 3 + [1_000_000 % 97] * 2


def test_names_of_llm_c(tmp_path: Path):
    """A single file per split has no number; a name may have underscores."""
    write_shard(tmp_path / "tiny_shakespeare_train.bin", np.arange(9))
    write_shard(tmp_path / "tiny_shakespeare_val.bin", np.arange(7))
    assert TokenLoader(tmp_path, 2, 3).tokens == 9
    assert TokenLoader(tmp_path, 2, 3, "val", name="tiny_shakespeare").tokens == 7


def test_a_list_of_files(tmp_path: Path):
    folder, row = folder_of(tmp_path, [31, 11])
    paths = sorted(folder.glob("*.bin"))
    assert TokenLoader(paths[::-1], 2, 3, prefetch=False).next_batch()[0][0, 0] == row[31]
    with pytest.raises(ValueError, match="the list of shards is empty"):
        TokenLoader([], 2, 3)


def test_missing_things_are_errors(tmp_path: Path):
    """B4.4: a missing folder is an error, not a warning."""
    with pytest.raises(FileNotFoundError, match=r"there is no folder '.*none' of token shards"):
        TokenLoader(tmp_path / "none", 2, 3)
    with pytest.raises(FileNotFoundError, match=r"has no shards named \*_train_\*\.bin"):
        TokenLoader(tmp_path, 2, 3)
    folder_of(tmp_path, [31])
    write_shard(tmp_path / "y_train_000000.bin", np.arange(11))
    with pytest.raises(ValueError, match="holds x, y: say which one by name="):
        TokenLoader(tmp_path, 2, 3)
    assert TokenLoader(tmp_path, 2, 3, name="y").tokens == 11
    with pytest.raises(FileNotFoundError, match=r"no shards named z_train"):
        TokenLoader(tmp_path, 2, 3, name="z")


def test_manifest_and_folder_agree(tmp_path: Path):
    folder, _ = folder_of(tmp_path, [31, 11])
    shards = [
        {"split": "train", "file": path.name, **write_shard(path, np.arange(9))._asdict()}
        for path in sorted(folder.glob("*.bin"))
    ]
    write_json(folder / "manifest.json", {"rank": 0, "world_size": 1, "shards": shards})
    assert TokenLoader(folder, 2, 3).tokens == 18
    write_shard(folder / "x_train_000002.bin", np.arange(9))
    with pytest.raises(ShardError, match=r"x_train_000002\.bin' is in no manifest"):
        TokenLoader(folder, 2, 3)
    (folder / "x_train_000002.bin").unlink()
    (folder / "x_train_000001.bin").unlink()
    with pytest.raises(ShardError, match=r"x_train_000001\.bin' is missing"):
        TokenLoader(folder, 2, 3)
    write_shard(folder / "x_train_000001.bin", np.arange(8))
    with pytest.raises(ShardError, match=r"x_train_000001\.bin' is damaged: it says that it holds"):
        TokenLoader(folder, 2, 3)
    write_shard(folder / "x_train_000001.bin", np.arange(9)[::-1])
    loader = TokenLoader(folder, 1, 3, prefetch=True)
    loader.next_batch()
    with pytest.raises(ShardError, match=r"x_train_000001\.bin' is damaged: its tokens have"):
        [loader.next_batch() for _ in range(3)]
    assert TokenLoader(folder, 6, 3, verify=False).next_batch()[0].shape == (6, 3)
    with pytest.raises(ShardError, match=r"x_train_000001\.bin' is damaged"):
        TokenLoader([folder / "x_train_000001.bin"], 1, 3, prefetch=False).next_batch()


def test_a_preparation_that_is_under_way(tmp_path: Path):
    folder, _ = folder_of(tmp_path, [31])
    (folder / ".progress-0.json").touch()
    with pytest.raises(ShardError, match="is not complete: the same `tensorgrad prepare` again"):
        TokenLoader(folder, 2, 3)


def test_another_state_is_refused(tmp_path: Path):
    folder, _ = folder_of(tmp_path, [31])
    loader = TokenLoader(folder, 2, 3, shuffle=True, seed=5)
    state = loader.state_dict()
    for key, value in {"block_size": 4, "tokens": 32, "seed": 6, "shuffle": 0}.items():
        with pytest.raises(ValueError, match=rf"saved with {key} {value}, and here it is"):
            loader.load_state_dict({**state, key: value})
    with pytest.raises(ValueError, match="-1 is no position"):
        loader.load_state_dict({**state, "position": -1})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batch_size": 0}, "at least 1, not 0 and 3"),
        ({"block_size": 0}, "at least 1, not 2 and 0"),
        ({"rank": 2, "world_size": 2}, "rank 2 is not 0 to 1"),
        ({"block_size": 31}, "31 tokens are too few for one window of 31 .* at most 30"),
    ],
)
def test_bad_options(tmp_path: Path, options: dict, sentence: str):
    folder, _ = folder_of(tmp_path, [31])
    with pytest.raises(ValueError, match=sentence):
        TokenLoader(folder, **{"batch_size": 2, "block_size": 3, **options})


def test_the_thread_ends(tmp_path: Path):
    folder, _ = folder_of(tmp_path, [31])
    before = threading.active_count()
    with TokenLoader(folder, 2, 3) as loader:
        for (x, _), _ in zip(loader, range(3)):
            assert x.shape == (2, 3)
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
    assert loader.next_batch()[0].shape == (2, 3)
