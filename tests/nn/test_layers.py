"""Layers and losses beside torch.nn's: first weights, state_dict, outputs, gradients, repr."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tensorgrad as tg
from tensorgrad import func, nn

X, ROWS, IMAGE = (7, 3), (2, 5, 3), (2, 3, 5, 7)

LAYERS = {
    "Linear": (lambda nn: nn.Linear(3, 5), ROWS),
    "Linear, 1-d": (lambda nn: nn.Linear(3, 5), (3,)),
    "Linear without bias": (lambda nn: nn.Linear(3, 5, bias=False), X),
    "LayerNorm": (lambda nn: nn.LayerNorm(3), ROWS),
    "LayerNorm, two dims": (lambda nn: nn.LayerNorm((5, 3), eps=1e-3), ROWS),
    "LayerNorm without bias": (lambda nn: nn.LayerNorm(3, bias=False), ROWS),
    "LayerNorm, plain": (lambda nn: nn.LayerNorm([3], elementwise_affine=False), ROWS),
    "GELU": (lambda nn: nn.GELU(), ROWS),
    "GELU, tanh": (lambda nn: nn.GELU(approximate="tanh"), ROWS),
    "ReLU": (lambda nn: nn.ReLU(), ROWS),
    "Tanh": (lambda nn: nn.Tanh(), ROWS),
    "Sigmoid": (lambda nn: nn.Sigmoid(), ROWS),
    "Identity": (lambda nn: nn.Identity(3, unused=True), ROWS),
    "Flatten": (lambda nn: nn.Flatten(), IMAGE),
    "Flatten, some": (lambda nn: nn.Flatten(0, 2), IMAGE),
    "Softmax": (lambda nn: nn.Softmax(dim=1), ROWS),
    "LogSoftmax": (lambda nn: nn.LogSoftmax(dim=-1), ROWS),
    "Dropout, evaluation": (lambda nn: nn.Dropout(0.3).eval(), ROWS),
    "MLP": (lambda nn: nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)), ROWS),
}
table = pytest.mark.parametrize("name", LAYERS)


def pair(make):
    """The layer of both frameworks from one seed."""
    tg.manual_seed(1337)
    torch.manual_seed(1337)
    return make(nn), make(torch.nn)


def numbers(*shape):
    return np.random.default_rng(7).standard_normal(shape)


def same(ours, theirs, rtol=1e-11):
    np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol, 1e-13)


@table
def test_first_weights_and_repr(name):
    ours, theirs = pair(LAYERS[name][0])
    assert repr(ours) == repr(theirs)
    mine, other = ours.state_dict(), theirs.state_dict()
    assert list(mine) == list(other)
    for key in mine:
        assert mine[key].dtype == np.float32
        assert np.array_equal(mine[key].numpy(), other[key].numpy()), key


@table
def test_outputs_and_gradients(name):
    make, shape = LAYERS[name]
    ours, theirs = pair(make)
    ours, theirs = ours.double(), theirs.double()
    for p in theirs.parameters():  # LayerNorm's ones and zeros would hide mistakes
        torch.nn.init.normal_(p)
    ours.load_state_dict(theirs.state_dict())
    x = tg.tensor(numbers(*shape), requires_grad=True)
    y = torch.tensor(numbers(*shape), requires_grad=True)
    mine, other = ours(x), theirs(y)
    same(mine, other)
    g = np.random.default_rng(8).standard_normal(other.shape)
    mine.backward(tg.tensor(g))
    other.backward(torch.tensor(g))
    same(x.grad, y.grad)
    for (key, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        same(p.grad, q.grad), key


@table
def test_states_travel_both_ways(name):
    make, _ = LAYERS[name]
    ours, theirs = pair(make)
    theirs.load_state_dict({k: torch.tensor(v.numpy() + 1) for k, v in ours.state_dict().items()})
    ours.load_state_dict(theirs.state_dict())
    for key, tensor in theirs.state_dict().items():
        assert np.array_equal(ours.state_dict()[key].numpy(), tensor.numpy())


# ---- embedding

EMBEDDINGS = {
    "plain": lambda nn: nn.Embedding(11, 3),
    "padded": lambda nn: nn.Embedding(11, 3, padding_idx=2),
    "padded from the end": lambda nn: nn.Embedding(11, 3, padding_idx=-1),
    "given": lambda nn: nn.Embedding.from_pretrained(
        (tg if nn is not torch.nn else torch).ones(11, 3), freeze=False
    ),
    "short rows": lambda nn: nn.Embedding(11, 3, max_norm=1.0),
    "short rows by sums": lambda nn: nn.Embedding(11, 3, max_norm=0.7, norm_type=1.0),
    "by frequency": lambda nn: nn.Embedding(11, 3, padding_idx=1, scale_grad_by_freq=True),
    "given with options": lambda nn: nn.Embedding.from_pretrained(
        (tg if nn is not torch.nn else torch).ones(11, 3), False, -2, 0.5, float("inf"), True
    ),
}


@pytest.mark.parametrize("kind", EMBEDDINGS)
def test_embedding(kind):
    ours, theirs = pair(EMBEDDINGS[kind])
    assert repr(ours) == repr(theirs)
    assert np.array_equal(ours.weight.detach().numpy(), theirs.weight.detach().numpy())
    ours, theirs = ours.double(), theirs.double()
    index = np.random.default_rng(3).integers(0, 11, (5, 7))
    mine, other = ours(tg.tensor(index)), theirs(torch.tensor(index))
    same(mine, other)
    g = numbers(5, 7, 3)
    mine.backward(tg.tensor(g))
    other.backward(torch.tensor(g))
    same(ours.weight.grad, theirs.weight.grad)
    same(ours.weight, theirs.weight)


def test_embedding_of_one_index():
    """0-d: the gradient of a row asked for once is not divided."""
    weight = tg.ones(5, 3, requires_grad=True)
    nn.functional.embedding(tg.tensor(2), weight, scale_grad_by_freq=True).sum().backward()
    assert weight.grad.sum(1).tolist() == [0, 0, 3, 0, 0]


def test_embedding_errors():
    with pytest.raises(RuntimeError, match="no sparse gradients"):
        nn.Embedding(7, 3, sparse=True)
    with pytest.raises(RuntimeError, match="no sparse gradients"):
        nn.functional.embedding(tg.tensor([1]), tg.ones(7, 3), sparse=True)
    with pytest.raises(AssertionError, match="_weight has shape"):
        nn.Embedding(7, 3, _weight=tg.ones(3, 7))
    with pytest.raises(RuntimeError, match="traced"):
        func.jvp(
            lambda w: nn.functional.embedding(tg.tensor([1]), w, max_norm=1.0),
            (tg.ones(7, 3),), (tg.ones(7, 3),),
        )  # fmt: skip
    with pytest.raises(AssertionError, match="padding_idx 7 is out of range for 7 rows"):
        nn.Embedding(7, 3, padding_idx=7)
    with pytest.raises(AssertionError, match="must be 2-d"):
        nn.Embedding.from_pretrained(tg.ones(3))
    frozen = nn.Embedding.from_pretrained(tg.ones(5, 3), padding_idx=1)
    assert not frozen.weight.requires_grad and repr(frozen) == "Embedding(5, 3, padding_idx=1)"


# ---- dropout, in place, devices and dtypes


@given(st.floats(0, 1), st.booleans())
def test_dropout_draws_as_torch_does(p, inplace):
    ours, theirs = pair(lambda nn: nn.Dropout(p, inplace))
    x = numbers(13, 17)
    same(ours(tg.tensor(x)), theirs(torch.tensor(x)))
    same(ours(tg.tensor(x)), theirs(torch.tensor(x)))


def test_layers_in_place():
    x = tg.tensor([-1.0, 2.0])
    assert nn.ReLU(inplace=True)(x) is x and x.tolist() == [0, 2]
    assert repr(nn.ReLU(inplace=True)) == "ReLU(inplace=True)"
    x = tg.tensor([-1.0, 2.0])
    assert nn.Dropout(1.0, inplace=True)(x) is x and x.tolist() == [0, 0]


def test_dtype_and_device():
    for make in (nn.Linear, nn.Embedding):
        assert make(3, 2, dtype=tg.float64, device="cpu").weight.dtype == tg.float64
    assert nn.LayerNorm(3, dtype=tg.float16).bias.dtype == tg.float16
    tg.set_default_dtype(tg.float64)
    try:
        assert nn.Linear(3, 2).bias.dtype == tg.float64
    finally:
        tg.set_default_dtype(tg.float32)


@pytest.mark.gpu
def test_layers_on_the_gpu():
    layer = nn.Linear(3, 5, device="cuda")
    x = tg.randn(7, 3)
    there = layer(x.cuda())
    layer.cpu()
    np.testing.assert_allclose(there.detach().cpu().numpy(), layer(x).detach().numpy(), 1e-5, 1e-6)


@pytest.mark.parametrize("make", [lambda: nn.Dropout(1.5), lambda: nn.Dropout(-0.1)])
def test_dropout_probability(make):
    with pytest.raises(ValueError, match="must lie between 0 and 1"):
        make()


def test_linear_of_nothing():
    with pytest.warns(UserWarning, match="without elements"):
        ours = nn.Linear(3, 0)
    with pytest.warns(UserWarning, match="zero-element"):
        theirs = torch.nn.Linear(3, 0)
    assert ours(tg.ones(7, 3)).shape == theirs(torch.ones(7, 3)).shape == (7, 0)


# ---- losses

CLASSES, WEIGHT = np.array([[0, 4, 2], [1, -100, 3]]), np.array([0.5, 2.0, 1.0, 0.25, 3.0])
LOSSES = {
    "cross-entropy": (lambda nn, w: nn.CrossEntropyLoss(), CLASSES),
    "weighted": (lambda nn, w: nn.CrossEntropyLoss(w), CLASSES),
    "smoothed": (lambda nn, w: nn.CrossEntropyLoss(label_smoothing=0.1), CLASSES),
    "summed": (lambda nn, w: nn.CrossEntropyLoss(w, reduction="sum", ignore_index=1), CLASSES % 5),
    "unreduced": (lambda nn, w: nn.CrossEntropyLoss(w, reduction="none"), CLASSES),
    "nll": (lambda nn, w: nn.NLLLoss(w), CLASSES),
    "squares": (lambda nn, w: nn.MSELoss(), numbers(2, 5, 3)),
    "summed squares": (lambda nn, w: nn.MSELoss(reduction="sum"), numbers(2, 5, 3)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name):
    make, target = LOSSES[name]
    ours, theirs = make(nn, tg.tensor(WEIGHT)), make(torch.nn, torch.tensor(WEIGHT))
    assert repr(ours) == repr(theirs) and list(ours.state_dict()) == list(theirs.state_dict())
    x = tg.tensor(numbers(2, 5, 3), requires_grad=True)
    y = torch.tensor(numbers(2, 5, 3), requires_grad=True)
    mine, other = ours(x, tg.tensor(target)), theirs(y, torch.tensor(target))
    same(mine, other)
    mine.sum().backward()
    other.sum().backward()
    same(x.grad, y.grad)


def test_unknown_reduction():
    with pytest.raises(
        ValueError, match="MSELoss: reduction must be 'none', 'mean' or 'sum', not 'max'"
    ):
        nn.MSELoss(reduction="max")


# ---- clipping, vectors


@st.composite
def gradients(draw):
    """Arrays of a few shapes and dtypes, and which of them are there."""
    shapes = draw(st.lists(st.sampled_from([(), (7,), (3, 5), (2, 0)]), min_size=1, max_size=4))
    scale = draw(st.sampled_from([1e-3, 1.0, 1e4]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    return [rng.standard_normal(shape) * scale if draw(st.booleans()) else None for shape in shapes]


def with_grads(framework, arrays):
    params = []
    for array in arrays:
        shape = () if array is None else array.shape
        p = framework.zeros(shape, dtype=framework.float64, requires_grad=True)
        p.grad = None if array is None else framework.tensor(array)
        params.append(p)
    return params


@given(gradients(), st.sampled_from([2.0, 1.0, 3.0, float("inf"), 2]), st.sampled_from([0.5, 1e9]))
def test_clip_grad_norm(arrays, order, limit):
    if order == float("inf") and any(a is not None and not a.size for a in arrays):
        arrays = [a for a in arrays if a is None or a.size] or [
            None
        ]  # torch has no maximum of nothing
    ours, theirs = with_grads(tg, arrays), with_grads(torch, arrays)
    same(
        nn.utils.clip_grad_norm_(ours, limit, order),
        torch.nn.utils.clip_grad_norm_(theirs, limit, order).double(),
    )
    for p, q in zip(ours, theirs, strict=True):
        assert (p.grad is None) == (q.grad is None)
        if p.grad is not None:
            same(p.grad, q.grad)


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_norms_that_are_not_finite(bad):
    arrays = [np.array([1.0, bad]), np.array([2.0])]
    ours, theirs = with_grads(tg, arrays), with_grads(torch, arrays)
    with pytest.raises(RuntimeError, match="non-finite"):
        nn.utils.clip_grad_norm_(ours, 1.0, error_if_nonfinite=True)
    assert np.array_equal(ours[0].grad.numpy(), arrays[0], equal_nan=True)
    nn.utils.clip_grad_norm_(ours, 1.0)
    torch.nn.utils.clip_grad_norm_(theirs, 1.0)
    for p, q in zip(ours, theirs, strict=True):
        assert np.array_equal(p.grad.numpy(), q.grad.numpy(), equal_nan=True)


def test_clipping_one_gradient_leaves_the_others():
    a, b = (tg.ones(3, requires_grad=True) for _ in range(2))
    (a + b).sum().backward()
    nn.utils.clip_grad_norm_(a, 0.1)
    assert b.grad.tolist() == [1, 1, 1] and a.grad.tolist() != [1, 1, 1]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_clipping_half_precision(dtype):
    """The sum of squares, 3e6, is beyond float16."""
    dtype = getattr(tg, dtype)
    p = tg.zeros(300, dtype=dtype, requires_grad=True)
    p.grad = tg.full((300,), 100.0, dtype=dtype)
    norm = nn.utils.clip_grad_norm_([p], 1.0)
    assert norm.dtype == p.grad.dtype == dtype
    assert abs(norm.item() - 100 * 300**0.5) < 5
    assert abs(float((p.grad.double() ** 2).sum()) - 1) < 0.01


def test_clip_grad_value():
    arrays = [np.array([-3.0, 0.5, 3.0]), None]
    ours, theirs = with_grads(tg, arrays), with_grads(torch, arrays)
    nn.utils.clip_grad_value_(ours, 1.5)
    torch.nn.utils.clip_grad_value_(theirs, 1.5)
    assert ours[0].grad.tolist() == theirs[0].grad.tolist() == [-1.5, 0.5, 1.5]


def test_an_iterator_that_is_used_up_is_told():
    with pytest.warns(UserWarning, match="used up"):
        nn.utils.clip_grad_norm_(iter([]), 1.0)
    assert nn.utils.clip_grad_norm_([], 1.0).item() == 0


def test_parameters_as_a_vector():
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))
    vector = nn.utils.parameters_to_vector(model.parameters())
    assert vector.shape == (32,)
    (vector * tg.arange(32.0)).sum().backward()
    assert model[0].bias.grad.tolist() == [15, 16, 17, 18, 19]
    before = list(model.parameters())
    nn.utils.vector_to_parameters(tg.arange(32.0), model.parameters())
    assert model[1].bias.tolist() == [30, 31] and model[1].bias is before[3]
    with pytest.raises(RuntimeError, match=r"a vector of shape \(31,\) for 32 elements"):
        nn.utils.vector_to_parameters(tg.arange(31.0), model.parameters())
    with pytest.raises(TypeError, match="expected a Tensor, not list"):
        nn.utils.vector_to_parameters([1.0], model.parameters())
