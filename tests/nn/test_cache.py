"""The cache beside concatenation: what it gives, that it copies nothing, and what it refuses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tensorgrad as tg
from tensorgrad.nn import KVCache

LAYERS, B, H, CAPACITY, D = 3, 2, 5, 13, 7


def made(dtype=tg.float64):
    return KVCache(LAYERS, B, H, CAPACITY, D, dtype=dtype)


def parts(draws, T, rows=B):
    return [tg.tensor(draws.normal(size=(rows, H, T, D))) for _ in range(2)]


@given(steps=st.lists(st.integers(0, 5), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_append_is_concatenation(steps, seed):
    draws, cache = np.random.default_rng(seed), made()
    steps = [T for i, T in enumerate(steps) if sum(steps[: i + 1]) <= CAPACITY]
    past = [([], []) for _ in range(LAYERS)]
    for n, T in enumerate(steps):
        for layer, before in zip(cache, past, strict=True):
            new = parts(draws, T)
            for kept, x in zip(before, new, strict=True):
                kept.append(x)
            for got, kept in zip(layer.append(*new), before, strict=True):
                np.testing.assert_array_equal(got, tg.cat(kept, dim=2), strict=True)
        assert cache.length == sum(steps[: n + 1])


def test_what_it_gives_are_views():
    """A second token costs a second token's work: the past lies where it lay."""
    cache, draws = made(), np.random.default_rng(1)
    first, _ = cache[0].append(*parts(draws, 4))
    second, values = cache[0].append(*parts(draws, 1))
    assert np.shares_memory(first.array, second.array)
    assert not np.shares_memory(second.array, values.array)
    assert second.array.ctypes.data == first.array.ctypes.data
    assert second.shape == (B, H, 5, D)


@given(rows=st.lists(st.integers(0, B - 1), min_size=1, max_size=6))
def test_reorder(rows):
    """Rows change places, repeat and vanish; as many as are named remain."""
    cache, draws = made(), np.random.default_rng(2)
    before = [layer.append(*parts(draws, 3)) for layer in cache]
    before = [[np.array(x) for x in both] for both in before]
    cache.reorder(rows)
    assert (cache.batch_size, cache.length, cache.capacity) == (len(rows), 3, CAPACITY)
    for layer, both in zip(cache, before, strict=True):
        new = parts(draws, 2, rows=len(rows))
        for got, old, x in zip(layer.append(*new), both, new, strict=True):
            np.testing.assert_array_equal(got, np.concatenate([old[rows], x], 2), strict=True)


def test_reorder_by_a_tensor():
    cache = made()
    for layer in cache:
        layer.append(*parts(np.random.default_rng(3), 2))
    last = np.array(cache[2].values[1, :, :2])
    cache.reorder(tg.tensor([1, 1]))
    np.testing.assert_array_equal(cache[2].values[0, :, :2], last)


def test_crop_forgets_the_end():
    cache, draws = made(), np.random.default_rng(4)
    first = [layer.append(*parts(draws, 6)) for layer in cache]
    first = [[np.array(x) for x in both] for both in first]
    cache.crop(2)
    assert cache.length == 2
    for layer, both in zip(cache, first, strict=True):
        new = parts(draws, 3)
        for got, old, x in zip(layer.append(*new), both, new, strict=True):
            np.testing.assert_array_equal(got, np.concatenate([old[:, :, :2], x], 2))
    cache.crop(0)
    assert cache.length == 0


def test_no_room_left():
    cache, draws = made(), np.random.default_rng(5)
    cache[0].append(*parts(draws, CAPACITY - 1))
    with pytest.raises(ValueError, match="12 tokens and 2 more exceed the capacity of 13"):
        cache[0].append(*parts(draws, 2))
    cache[0].append(*parts(draws, 1))
    assert cache[0].length == CAPACITY


@pytest.mark.parametrize("length", [-1, 4])
def test_crop_to_a_length_that_is_not_there(length):
    cache = made()
    for layer in cache:
        layer.append(*parts(np.random.default_rng(6), 3))
    with pytest.raises(ValueError, match=rf"crop\({length}\) of a cache of 3 tokens"):
        cache.crop(length)
    assert cache.length == 3


def test_gradients_are_refused():
    """Keys that carry gradients would lose them in the cache; under no_grad there are none."""
    cache, (k, v) = made(), parts(np.random.default_rng(7), 2)
    weight = tg.ones(D, dtype=tg.float64, requires_grad=True)
    with pytest.raises(RuntimeError, match=r"carry gradients.*no_grad"):
        cache[0].append(k * weight, v)
    assert cache[0].length == 0
    with tg.no_grad():
        keys, values = cache[0].append(k * weight, v * weight)
    assert not keys.requires_grad and not values.requires_grad


@pytest.mark.parametrize("shape", [(B, H, D), (B + 1, H, 2, D), (B, 1, 2, D), (B, H, 2, D + 1)])
def test_shapes_that_do_not_fit(shape):
    x = tg.zeros(*shape, dtype=tg.float64)
    with pytest.raises(ValueError, match=r"do not fit a cache for \(B, H, T, D\) = \(2, 5, T, 7\)"):
        made()[0].append(x, x)


def test_keys_and_values_of_other_lengths():
    with pytest.raises(ValueError, match="do not fit a cache"):
        made()[0].append(tg.zeros(B, H, 2, D), tg.zeros(B, H, 3, D))


def test_another_dtype():
    x = tg.zeros(B, H, 2, D)
    with pytest.raises(ValueError, match=r"float32.*cache of float64; make it with dtype=float32"):
        made()[0].append(x, x)


def test_sizes_that_cannot_be():
    with pytest.raises(ValueError, match="must be at least 0"):
        KVCache(2, 3, -1, 5, 7)


def test_it_tells_what_it_is():
    cache = made()
    assert len(cache) == LAYERS
    assert repr(cache) == "KVCache(3 layers, 2 rows, 0 of 13 tokens)"
    empty = KVCache(0, B, H, CAPACITY, D)
    assert (empty.length, empty.batch_size, list(empty)) == (0, 0, [])
