"""Products of few rows with many weights: the kernel against PyTorch, and what is left to BLAS."""

import numpy as np
import pytest
import torch

import tensorgrad as tg
import tensorgrad.nn.functional as F
from tensorgrad.kernels.cpu import few, threads

rng = np.random.default_rng(0)


@pytest.mark.parametrize("n", range(1, few.MOST + 1))
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (3, 5), (4, 1), (5, 67), (6, 7), (131, 17)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products(n, shape, dtype):
    x, w = rng.normal(size=(n, shape[1])).astype(dtype), rng.normal(size=shape).astype(dtype)
    out = few.few_rows(x, w)
    expected = torch.from_numpy(x).double() @ torch.from_numpy(w).double().T
    assert out.dtype == dtype
    rtol = 1e-5 if dtype == np.float32 else 1e-13
    np.testing.assert_allclose(out, expected, rtol, atol=rtol * 10)
    given = np.empty_like(out)
    assert few.few_rows(x, w, given) is given
    np.testing.assert_array_equal(given, out)


def test_rows_and_threads_change_no_bit(monkeypatch):
    """A row alone is that row among others: a batch writes what its rows write alone."""
    x, w = rng.normal(size=(4, 31)).astype(np.float32), rng.normal(size=(997, 31)).astype("f4")
    expected = few.few_rows(x, w)
    monkeypatch.setattr(few, "LARGE", 1)
    monkeypatch.setattr(threads, "WORTH", 1)
    for count in (2, 3, 7):
        monkeypatch.setattr(threads._pool, "size", count)
        np.testing.assert_array_equal(few.few_rows(x, w), expected)
        np.testing.assert_array_equal(few.few_rows(x[2:3], w), expected[2:3])


def test_what_is_left_to_blas():
    x, w = rng.normal(size=(2, 5)), rng.normal(size=(7, 5))
    assert few.few_rows(np.zeros((few.MOST + 1, 5)), w) is None
    assert few.few_rows(x, np.asfortranarray(w)) is None
    assert few.few_rows(x, w, np.empty((7, 2)).T) is None
    assert few.few_rows(x.astype(np.float32), w) is None
    assert few.few_rows(x.astype(np.int64), w.astype(np.int64)) is None
    assert few.few_rows(x[:0], w) is None
    assert few.few_rows(x, w) is not None


def test_linear_layers_use_it():
    """In float64, where it may differ from the general product by rounding alone."""
    x, w = rng.normal(size=(3, 613)), rng.normal(size=(577, 613))
    expected = torch.from_numpy(x) @ torch.from_numpy(w).T
    np.testing.assert_allclose(F.linear(tg.tensor(x), tg.tensor(w)), expected, 1e-10, 1e-10)
    assert x.size * len(w) > 262_144
