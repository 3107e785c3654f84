"""Wrong use: the class of error is PyTorch's, and the sentence names the op and the values."""

from __future__ import annotations

import pytest
import torch

import tensorgrad as tg
from tests.conftest import why_no_gpu


def x(t):
    return t.arange(15.0).reshape(3, 5)


def cut(t):
    return x(t)[:, :2]


def index(t, *values):
    return t.tensor(values)


WRONG = {
    # shapes
    "add": lambda t: x(t) + x(t)[:2],
    "where": lambda t: t.where(x(t) > 0, x(t), x(t)[:2]),
    "matmul": lambda t: x(t) @ x(t),
    "matmul 0-d": lambda t: x(t) @ t.tensor(1.0),
    "mm": lambda t: t.mm(x(t), x(t)),
    "expected rank": lambda t: t.mm(x(t)[None], x(t)),
    "bmm": lambda t: t.bmm(x(t)[None], x(t)[None]),
    "expected batches": lambda t: t.bmm(x(t), x(t)),
    "mv": lambda t: t.mv(x(t), x(t)),
    "dot": lambda t: t.dot(x(t)[0], x(t)[0, :2]),
    "expected vectors": lambda t: t.dot(x(t), x(t)),
    "outer": lambda t: t.outer(x(t), x(t)),
    "addmm": lambda t: t.addmm(x(t), x(t), x(t)),
    "linear": lambda t: t.nn.functional.linear(x(t), x(t).T),
    "linear bias": lambda t: t.nn.functional.linear(x(t), x(t), t.ones(2)),
    "einsum": lambda t: t.einsum("ij,jk->ik", x(t), x(t)),
    "einsum operands": lambda t: t.einsum("ij", x(t), x(t)),
    "einsum rank": lambda t: t.einsum("ijk->i", x(t)),
    "einsum output": lambda t: t.einsum("ij->k", x(t)),
    "einsum output twice": lambda t: t.einsum("ij->ii", x(t)),
    "einsum digit": lambda t: t.einsum("i1->i", x(t)),
    "cat": lambda t: t.cat([x(t), cut(t)]),
    "cat rank": lambda t: t.cat([x(t), x(t)[0]]),
    "cat 0-d": lambda t: t.cat([t.tensor(1.0), t.tensor(2.0)]),
    "cat nothing": lambda t: t.cat([]),
    "cat numbers": lambda t: t.cat((x(t), 1)),
    "stack": lambda t: t.stack([x(t), cut(t)]),
    "stack nothing": lambda t: t.stack([]),
    "reshape": lambda t: x(t).reshape(4, 4),
    "reshape -1": lambda t: x(t).reshape(4, -1),
    "reshape -1 -1": lambda t: x(t).reshape(-1, -1),
    "reshape -2": lambda t: x(t).reshape(-2),
    "reshape 0 -1": lambda t: t.zeros(0, 3).reshape(0, -1),
    "view": lambda t: x(t).T.view(15),
    "expand": lambda t: x(t).expand(4, 5),
    "expand rank": lambda t: x(t).expand(5),
    "unflatten": lambda t: x(t).unflatten(1, (2, 2)),
    "unflatten nothing": lambda t: x(t).unflatten(1, ()),
    "split": lambda t: x(t).split(0),
    "split negative": lambda t: x(t).split(-1),
    "split sizes": lambda t: x(t).split([1, 1]),
    "chunk": lambda t: x(t).chunk(0),
    "roll": lambda t: x(t).roll((1, 2), 0),
    "tril": lambda t: x(t)[0].tril(),
    "t": lambda t: x(t)[None].t(),
    "mT": lambda t: x(t)[0].mT,
    "repeat": lambda t: x(t).repeat(2),
    "repeat negative": lambda t: x(t).repeat(2, -1),
    "repeat_interleave": lambda t: x(t).repeat_interleave(index(t, 1, 2), dim=0),
    "repeat_interleave negative": lambda t: x(t).repeat_interleave(-1),
    "diag": lambda t: x(t)[None].diag(),
    "diagonal": lambda t: x(t).diagonal(0, 1, 1),
    "masked_select": lambda t: x(t).masked_select(t.tensor([True, False])),
    "masked_fill": lambda t: x(t).masked_fill(x(t)[:2] > 0, 1.0),
    "masked_fill vector": lambda t: x(t).masked_fill(x(t) > 0, x(t)[0]),
    # dims
    "sum": lambda t: x(t).sum(5),
    "sum twice": lambda t: x(t).sum((0, 0)),
    "sum twice, signed": lambda t: x(t).sum((0, -2)),
    "cumsum": lambda t: x(t).cumsum(5),
    "transpose": lambda t: x(t).transpose(0, 5),
    "permute": lambda t: x(t).permute(0, 5),
    "permute twice": lambda t: x(t).permute(0, 0),
    "permute few": lambda t: x(t).permute(0),
    "squeeze": lambda t: x(t).squeeze(5),
    "unsqueeze": lambda t: x(t).unsqueeze(5),
    "flatten": lambda t: x(t).flatten(1, 0),
    "flip": lambda t: x(t).flip(5),
    "flip twice": lambda t: x(t).flip(0, 0),
    "unbind": lambda t: x(t).unbind(5),
    "cat dim": lambda t: t.cat([x(t), x(t)], 5),
    "sort": lambda t: x(t).sort(5),
    "gather dim": lambda t: x(t).gather(4, index(t, [0])),
    "size": lambda t: x(t).size(5),
    "diagonal of vector": lambda t: x(t)[0].diagonal(),
    # indices
    "index": lambda t: x(t)[5],
    "index many": lambda t: x(t)[0, 0, 0],
    "index tensor": lambda t: x(t)[index(t, 9)],
    "index mask": lambda t: x(t)[t.tensor([True, False])],
    "index float": lambda t: x(t)[1.5],
    "index backwards": lambda t: x(t)[::-1],
    "index 0-d": lambda t: t.tensor(1.0)[0],
    "setitem": lambda t: x(t).__setitem__(0, t.ones(2)),
    "setitem index": lambda t: x(t).__setitem__(7, 1.0),
    "gather": lambda t: x(t).gather(1, index(t, [7])),
    "gather negative": lambda t: x(t).gather(1, index(t, [-1])),
    "gather rank": lambda t: x(t).gather(1, index(t, 1)),
    "gather float": lambda t: x(t).gather(1, t.zeros(2, 2)),
    "gather size": lambda t: x(t).gather(1, t.zeros(5, 2).long()),
    "select": lambda t: x(t).select(1, 9),
    "narrow": lambda t: x(t).narrow(1, 3, 3),
    "narrow start": lambda t: x(t).narrow(1, 9, 1),
    "narrow negative": lambda t: x(t).narrow(1, 0, -1),
    "index_select": lambda t: x(t).index_select(1, index(t, 7)),
    "index_select rank": lambda t: x(t).index_select(1, index(t, [1])),
    "index_select float": lambda t: x(t).index_select(1, index(t, 1.0)),
    "take_along_dim": lambda t: t.take_along_dim(x(t), index(t, 1), 1),
    "scatter": lambda t: x(t).scatter(1, index(t, [7]), 1.0),
    "scatter rank": lambda t: x(t).scatter(1, index(t, 0), 1.0),
    "scatter size": lambda t: x(t).scatter(1, t.zeros(5, 2).long(), 1.0),
    "scatter src": lambda t: x(t).scatter(1, index(t, [0, 1]), t.ones(1, 1)),
    "scatter dtype": lambda t: x(t).scatter(1, index(t, [0]), t.ones(1, 1).double()),
    "scatter_add": lambda t: x(t).scatter_add(1, index(t, [7]), t.ones(1, 1)),
    "index_add": lambda t: x(t).index_add(1, index(t, 7), t.ones(3, 1)),
    "index_add size": lambda t: x(t).index_add(1, index(t, 0, 1), t.ones(3, 1)),
    "index_add dtype": lambda t: x(t).index_add(1, index(t, 0), t.ones(3, 1).double()),
    "index_copy": lambda t: x(t).index_copy(1, index(t, 7), t.ones(3, 1)),
    "index_fill": lambda t: x(t).index_fill(1, index(t, 7), 1.0),
    "embedding": lambda t: t.nn.functional.embedding(index(t, 7), x(t)),
    "embedding negative": lambda t: t.nn.functional.embedding(index(t, -1), x(t)),
    "embedding float": lambda t: t.nn.functional.embedding(index(t, 0.0), x(t)),
    "embedding weight": lambda t: t.nn.functional.embedding(index(t, 0), x(t)[0]),
    "embedding padding_idx": lambda t: t.nn.functional.embedding(index(t, 0), x(t), padding_idx=9),
    "topk": lambda t: x(t).topk(9),
    "bincount": lambda t: t.bincount(index(t, -1)),
    # nothing to choose from
    "max": lambda t: t.zeros(3, 0).max(),
    "max dim": lambda t: t.zeros(3, 0).max(1),
    "amax": lambda t: t.zeros(3, 0).amax(1),
    "amax all": lambda t: t.zeros(3, 0).amax(),
    "argmax": lambda t: t.zeros(3, 0).argmax(),
    # dtypes
    "mean": lambda t: x(t).long().mean(),
    "var": lambda t: x(t).long().var(),
    "norm": lambda t: x(t).long().norm(),
    "softmax": lambda t: x(t).long().softmax(0),
    "sub": lambda t: (x(t) > 0) - (x(t) > 0),
    "rsub": lambda t: 1 - (x(t) > 0),
    "neg": lambda t: -(x(t) > 0),
    "bitwise_and": lambda t: x(t) & x(t),
    "pow": lambda t: t.tensor([2]) ** -1,
    "floor_divide": lambda t: t.tensor([2]) // 0,
    "mm dtype": lambda t: x(t) @ x(t).T.double(),
    "masked_fill mask": lambda t: x(t).masked_fill(x(t), 1.0),
    "where condition": lambda t: t.where(x(t).long(), 1, 2),
    "isclose": lambda t: x(t).isclose(x(t).double()),
    "requires_grad": lambda t: t.tensor([1, 2], requires_grad=True),
    # arguments
    "add str": lambda t: x(t) + "a",
    "add None": lambda t: x(t) + None,
    "add list": lambda t: x(t) + [1],  # noqa: RUF005
    "matmul list": lambda t: x(t) @ [1],
    "exp str": lambda t: t.exp("a"),
    "exp list": lambda t: t.exp([1.0]),
    "sum str": lambda t: x(t).sum("a"),
    "div": lambda t: t.div(x(t), x(t), rounding_mode="up"),
    "clamp": lambda t: x(t).clamp(),
    # leaving the framework
    "item": lambda t: x(t).item(),
    "bool": lambda t: bool(x(t)),
    "len": lambda t: len(t.tensor(1.0)),
    "iter": lambda t: list(t.tensor(1.0)),
    "index of list": lambda t: [1][t.tensor(1.0)],
    "numpy": lambda t: t.ones(2, requires_grad=True).numpy(),
    "tensor ragged": lambda t: t.tensor([[1], [1, 2]]),
    "tensor str": lambda t: t.tensor("a"),
    "tensor None": lambda t: t.tensor(None),
    "from_numpy": lambda t: t.from_numpy([1]),
    # sizes
    "zeros": lambda t: t.zeros(-1),
    "arange": lambda t: t.arange(0, 5, -1),
    "arange 0": lambda t: t.arange(0, 5, 0),
    "linspace": lambda t: t.linspace(0, 1, -1),
    "eye": lambda t: t.eye(-1),
    "device": lambda t: t.zeros(1, device="gpu"),
}  # fmt: skip


ALSO_CALLED = {"mm": "m", "bmm": "matmul", "dot": "matmul", "addmm": "matmul", "rsub": "sub"}


@pytest.mark.parametrize("case", WRONG)
def test_the_class_is_pytorchs_and_the_sentence_names_the_op(case):
    with pytest.raises(Exception) as theirs:
        WRONG[case](torch)
    with pytest.raises(Exception) as mine:
        WRONG[case](tg)
    assert issubclass(theirs.type, mine.type), f"{mine.value!r}, in PyTorch {theirs.value!r}"
    text = str(mine.value)
    named = text.partition(":")[0]
    name = case.split()[0]
    if name not in ("device", "len", "iter", "bool", "index"):
        assert ALSO_CALLED.get(name, name) in text, text
    assert name == "index" or (len(named) < 40 and len(text.split()) > 3), text


SHAPES = [
    "add",
    "matmul",
    "mm",
    "bmm",
    "linear",
    "cat",
    "stack",
    "reshape",
    "expand",
    "index",
    "dot",
    "mv",
    "where",
]


@pytest.mark.parametrize("case", SHAPES)
def test_the_sentence_names_the_shapes(case):
    with pytest.raises((RuntimeError, IndexError)) as error:
        WRONG[case](tg)
    assert "(" in str(error.value) and "5" in str(error.value), str(error.value)


@pytest.mark.skipif(why_no_gpu() is None, reason="there is a GPU")
def test_a_device_that_is_not_there():
    for call in (
        lambda: tg.zeros(3, device="cuda"),
        lambda: tg.tensor([1.0], device="cuda:0"),
        lambda: tg.ones(3).to("cuda"),
        lambda: tg.ones(3).cuda(),
        lambda: tg.arange(3, device=tg.device("cuda")),
    ):
        with pytest.raises(RuntimeError, match=r"device 'cuda': .+"):
            call()
    assert tg.zeros(3, device="cpu").to("cpu").cpu().device == tg.device("cpu")
