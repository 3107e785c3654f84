"""Windows: y is x one step later, the draws are PyTorch's, every target once."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tensorgrad.data import CharVocab, all_windows, bigram_loss, random_windows, split
from tensorgrad.random import manual_seed
from tensorgrad.rng import Generator

SIZES = st.tuples(st.integers(1, 50), st.integers(1, 13), st.integers(1, 7))  # surplus, T, B


class TorchDraws:
    """PyTorch's own generator, as the independent source of the same draws."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def randint(self, low: int, high: int, shape: tuple[int, ...]) -> np.ndarray:
        return torch.randint(low, high, shape, generator=self.generator).numpy()


@given(SIZES, st.integers(0, 2**32 - 1), st.sampled_from([np.uint16, np.int32, np.int64]))
def test_batches_of_nanogpt(sizes: tuple[int, int, int], seed: int, dtype: type):
    """B1.8."""
    surplus, T, B = sizes
    ids = (np.arange(T + surplus) * 7 % 65).astype(dtype)
    data = torch.from_numpy(ids.astype(np.int64))
    x, y = random_windows(ids, T, B, TorchDraws(seed))
    starts = torch.randint(len(data) - T, (B,), generator=torch.Generator().manual_seed(seed))
    assert np.array_equal(x, torch.stack([data[i : i + T] for i in starts]).numpy())
    assert np.array_equal(y, torch.stack([data[i + 1 : i + 1 + T] for i in starts]).numpy())
    for part in (x, y):
        assert part.dtype == np.int64 and part.shape == (B, T) and part.flags.c_contiguous


@pytest.mark.parametrize("seed", [0, 1337, 2**63])
def test_our_generator_draws_nanogpts_batches(seed: int):
    ids = np.arange(1009)
    ours, theirs = Generator().manual_seed(seed), TorchDraws(seed)
    for _ in range(3):
        x, y = random_windows(ids, 13, 7, ours)
        want, _ = random_windows(ids, 13, 7, theirs)
        assert np.array_equal(x, want) and np.array_equal(y, want + 1)


def test_the_default_generator_is_the_seeded_one():
    ids = np.arange(1009)
    manual_seed(5)
    x, _ = random_windows(ids, 13, 7)
    assert np.array_equal(x, random_windows(ids, 13, 7, TorchDraws(5))[0])


def test_windows_of_a_memory_map(tmp_path):
    np.arange(101, dtype=np.uint16).tofile(tmp_path / "ids.bin")
    ids = np.memmap(tmp_path / "ids.bin", np.uint16, "r")
    x, y = random_windows(ids, 11, 3, TorchDraws(5))
    assert type(x) is np.ndarray and np.array_equal(x + 1, y)


def test_large_ids_do_not_wrap():
    ids = np.array([65535, 0, 65535], np.uint16)
    x, y = random_windows(ids, 2, 2, TorchDraws(0))
    assert x.tolist() == [[65535, 0]] * 2 and y.tolist() == [[0, 65535]] * 2


@given(SIZES)
def test_all_windows_have_every_target_once(sizes: tuple[int, int, int]):
    surplus, T, B = sizes
    ids = np.arange(T + surplus) * 3
    seen = []
    for x, y in all_windows(ids, T, B):
        assert x.shape == y.shape and x.shape[0] <= B and x.shape[1] <= T
        assert x.dtype == y.dtype == np.int64
        assert np.array_equal(x + 3, y)
        seen += y.ravel().tolist()
    assert seen == ids[1:].tolist()


@given(st.integers(0, 50), st.integers(1, 13), st.integers(1, 7))
def test_too_short_a_text(n: int, extra: int, B: int):
    ids = np.zeros(n, np.int64)
    T = n - 1 + extra if n else extra
    sentence = rf"{n} ids are too few for one block of {T} .*at most {max(n - 1, 0)}$"
    with pytest.raises(ValueError, match=f"^random_windows: {sentence}"):
        random_windows(ids, T, B, TorchDraws(0))
    with pytest.raises(ValueError, match=f"^all_windows: {sentence}"):
        list(all_windows(ids, T, B))


@pytest.mark.parametrize(("T", "B"), [(0, 1), (1, 0), (-3, 5)])
def test_sizes_below_one(T: int, B: int):
    with pytest.raises(ValueError, match=f"at least 1, not {T} and {B}"):
        random_windows(np.zeros(99, np.int64), T, B, TorchDraws(0))


@pytest.mark.parametrize("ids", [np.zeros((7, 5), np.int64), np.zeros(7), np.zeros(7, bool)])
def test_rows_of_integers_only(ids: np.ndarray):
    for call in (
        lambda: split(ids),
        lambda: random_windows(ids, 2, 2, TorchDraws(0)),
        lambda: bigram_loss(ids, ids, 3),
    ):
        with pytest.raises(ValueError, match="integers, not"):
            call()


@given(st.integers(0, 1000), st.floats(0.01, 0.99))
def test_split_is_the_lectures(n: int, fraction: float):
    ids = np.arange(n)
    train, val = split(ids, fraction)
    cut = int(fraction * n)
    assert train.tolist() == ids[:cut].tolist() and val.tolist() == ids[cut:].tolist()
    assert train.base is ids and val.base is ids


def test_split_of_tinyshakespeare_in_size():
    train, val = split(np.zeros(1_115_394, np.uint16))
    assert (len(train), len(val)) == (1_003_854, 111_540)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, 90, float("nan")])
def test_split_fractions(fraction: float):
    with pytest.raises(ValueError, match="fraction must lie between 0 and 1"):
        split(np.arange(7), fraction)


@given(
    st.integers(1, 11).flatmap(
        lambda V: st.tuples(
            st.just(V),
            st.lists(st.integers(0, V - 1), min_size=2, max_size=40),
            st.lists(st.integers(0, V - 1), min_size=2, max_size=40),
        )
    ),
    st.sampled_from([np.uint8, np.uint16, np.int64, np.uint64]),
)
def test_bigram_loss_is_the_counted_one(draw: tuple[int, list[int], list[int]], dtype: type):
    """makemore's bigram: a table of counts plus one, rows normalised, the mean of minus logs."""
    V, train, val = draw
    N = torch.ones(V, V, dtype=torch.float64)
    for a, b in pairwise(train):
        N[a, b] += 1
    P = N / N.sum(1, keepdim=True)
    want = torch.nn.functional.nll_loss(P.log()[val[:-1]], torch.tensor(val[1:])).item()
    got = bigram_loss(np.array(train, dtype), np.array(val, dtype), V)
    assert got == pytest.approx(want, rel=1e-13)


def test_bigram_loss_of_a_large_vocabulary():
    ids = np.array([50256, 3, 50256, 3], np.uint16)  # a table of pairs would take 20 GB
    want = np.mean([np.log(50259 / 3), np.log(50258 / 2), np.log(50259 / 3)])
    assert bigram_loss(ids, ids, 50257) == pytest.approx(want, rel=1e-13)


@pytest.mark.parametrize(
    ("train", "val", "sentence"),
    [
        ([0], [0, 1], "train is a row of at least two"),
        ([0, 1], [1], "val is a row of at least two"),
        ([0, 3], [0, 1], "train has ids from 0 to 3, outside a vocabulary of 3"),
        ([0, 1], [-1, 1], "val has ids from -1 to 1"),
    ],
)
def test_bigram_loss_of_bad_rows(train: list[int], val: list[int], sentence: str):
    with pytest.raises(ValueError, match=sentence):
        bigram_loss(np.array(train), np.array(val), 3)


def test_bigram_loss_uses_the_text():
    text = "abab" * 50
    ids = CharVocab(text).encode(text)
    assert bigram_loss(*split(ids), 2) < 0.02
