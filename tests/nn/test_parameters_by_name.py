"""Parameters that PyTorch's functions and layers take by name, and what they do there."""

from __future__ import annotations

import inspect
from operator import attrgetter

import pytest
import torch

import tensorgrad as tg
from tensorgrad import nn
from tests.ops.compare import both, numbers

OLD = {"size_average", "reduce", "input", "other", "self", "non_blocking"}
NAMES = [
    "split", "Tensor.split", "nn.functional.embedding", "nn.functional.mse_loss",
    "nn.functional.relu", "nn.ModuleList", "nn.ModuleDict", "nn.ParameterList", "nn.ParameterDict",
    "nn.Embedding", "nn.Embedding.from_pretrained", "nn.Hardtanh", "nn.Module.modules",
    "nn.ReLU",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_has_pytorchs_name(name):
    theirs = inspect.signature(attrgetter(name)(torch))
    mine = inspect.signature(attrgetter(name)(tg)).parameters
    assert [p for p in theirs.parameters if p not in mine and p not in OLD] == []


def test_relu_in_place():
    for t in (tg, torch):
        x = t.tensor([-1.0, 2.0])
        assert t.nn.functional.relu(x, inplace=True) is x and x.tolist() == [0, 2]
        assert t.nn.functional.relu(x) is not x


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_mse_loss_weighted(reduction):
    x, y, w = numbers((3, 5)), numbers((3, 5), 1), numbers((3, 5), 2, low=0.5)

    def call(t, x, y, w):
        return t.nn.functional.mse_loss(x, y, reduction=reduction, weight=w)

    both(call, x, y, w)
    with pytest.raises(ValueError, match="weights of shape"):
        call(tg, *(tg.from_numpy(a) for a in (x, y, w[0])))


@pytest.mark.parametrize("t", [tg, torch])
def test_shapes_that_differ_are_told(t):
    with pytest.warns(UserWarning, match=r"broadcast"):
        t.nn.functional.mse_loss(t.ones(3, 1), t.ones(3))


def test_hardtanh_by_its_old_names():
    for t in (tg, torch):
        with pytest.warns(FutureWarning, match="max_val"):
            layer = t.nn.Hardtanh(min_val=-2.0, max_value=0.5)
        assert (layer.min_val, layer.max_val) == (-2.0, 0.5)
        assert layer(t.tensor([-3.0, 0.0, 1.0])).tolist() == [-2, 0, 0.5]


def test_modules_as_often_as_they_are_registered():
    for t in (tg, torch):
        layer = t.nn.ReLU()
        twice = t.nn.ModuleList(modules=[layer, layer])
        assert len(list(twice.modules())) == 2
        assert len(list(twice.modules(remove_duplicate=False))) == 3
    assert list(nn.ModuleDict(modules={"a": nn.Identity()}).keys()) == ["a"]


def test_split_by_name():
    for t in (tg, torch):
        x = t.arange(5)
        assert [p.tolist() for p in x.split(split_size=2)] == [[0, 1], [2, 3], [4]]
        parts = t.split(tensor=x, split_size_or_sections=[4, 1], dim=0)
        assert [p.tolist() for p in parts] == [[0, 1, 2, 3], [4]]
