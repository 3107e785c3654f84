"""Mixed precision follows the device (B4.9): what is chosen, and that it acts where it should."""

import pytest

import tensorgrad as tg
import tensorgrad.nn.functional as F
from tensorgrad import kernels
from tensorgrad.kernels.cpu import bf16
from tensorgrad.models.training.precision import autocast_for, preferred_dtype


def product_dtype():
    return F.linear(tg.ones(2, 3), tg.ones(5, 3)).dtype


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_gpu_prefers_bfloat16(device):
    assert preferred_dtype(device) == "bfloat16"


def test_a_cpu_prefers_it_where_there_are_products_of_it(monkeypatch):
    monkeypatch.setattr(kernels, "available", lambda: True)
    monkeypatch.setattr(bf16, "available", lambda: True)
    assert preferred_dtype("cpu") == "bfloat16"
    monkeypatch.setattr(bf16, "available", lambda: False)
    assert preferred_dtype("cpu") == "float32"
    monkeypatch.setattr(bf16, "available", lambda: pytest.fail("without Numba it cannot be asked"))
    monkeypatch.setattr(kernels, "available", lambda: False)
    assert preferred_dtype("cpu") == "float32"


def test_on_the_cpu_the_cpus_products_change():
    with autocast_for("cpu", "bfloat16"):
        assert product_dtype() == tg.bfloat16
        assert tg.is_autocast_enabled("cpu") and not tg.is_autocast_enabled("cuda")
    assert product_dtype() == tg.float32


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_on_a_gpu_the_cpus_do_not(device):
    with autocast_for(device, "bfloat16"):
        assert tg.is_autocast_enabled("cuda") and not tg.is_autocast_enabled("cpu")
        assert product_dtype() == tg.float32


def test_float32_leaves_things_as_they_are():
    with autocast_for("cpu", "float32"):
        assert product_dtype() == tg.float32
    with tg.autocast("cpu"), autocast_for("cpu", "float32"):
        assert tg.is_autocast_enabled("cpu")


def test_other_dtypes_are_refused():
    with pytest.raises(ValueError, match="float32 or bfloat16, not 'float16'"):
        autocast_for("cpu", "float16")
    with pytest.raises(RuntimeError, match="not 'tpu'"):
        autocast_for("tpu", "bfloat16")
    with pytest.raises(RuntimeError, match="not 'tpu'"):
        preferred_dtype("tpu")
