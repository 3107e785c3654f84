"""Normalisation beside torch.nn's: outputs, gradients and running statistics, both ways, errors."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.func import jvp
from tests.ops.compare import assert_same, to_numpy

F, TF = nn.functional, torch.nn.functional
POINTS, SERIES, IMAGES = (7, 3), (5, 3, 2), (2, 3, 5, 7)

LAYERS = {
    "BatchNorm1d of points": (lambda nn: nn.BatchNorm1d(3), POINTS),
    "BatchNorm1d": (lambda nn: nn.BatchNorm1d(3, eps=1e-3, momentum=0.3), SERIES),
    "BatchNorm1d averaging": (lambda nn: nn.BatchNorm1d(3, momentum=None), SERIES),
    "BatchNorm1d without weights": (lambda nn: nn.BatchNorm1d(3, affine=False), SERIES),
    "BatchNorm1d without bias": (lambda nn: nn.BatchNorm1d(3, bias=False), POINTS),
    "BatchNorm1d untracked": (lambda nn: nn.BatchNorm1d(3, track_running_stats=False), SERIES),
    "BatchNorm2d": (lambda nn: nn.BatchNorm2d(3), IMAGES),
    "BatchNorm2d averaging, plain": (
        lambda nn: nn.BatchNorm2d(3, momentum=None, affine=False, track_running_stats=False),
        IMAGES,
    ),
    "GroupNorm": (lambda nn: nn.GroupNorm(2, 4), (5, 4, 3)),
    "GroupNorm of points": (lambda nn: nn.GroupNorm(2, 6, eps=1e-3), (5, 6)),
    "GroupNorm of all": (lambda nn: nn.GroupNorm(1, 3, affine=False), IMAGES),
    "GroupNorm without bias": (lambda nn: nn.GroupNorm(3, 3, bias=False), IMAGES),
    "InstanceNorm1d": (lambda nn: nn.InstanceNorm1d(3), SERIES),
    "InstanceNorm1d alone": (lambda nn: nn.InstanceNorm1d(3, affine=True), (3, 5)),
    "InstanceNorm1d tracked": (
        lambda nn: nn.InstanceNorm1d(3, 1e-3, 0.3, affine=True, track_running_stats=True),
        (5, 3, 7),
    ),
    "InstanceNorm2d": (lambda nn: nn.InstanceNorm2d(3, affine=True, bias=False), IMAGES),
    "InstanceNorm2d alone": (
        lambda nn: nn.InstanceNorm2d(3, affine=True, track_running_stats=True), (3, 5, 7)
    ),
    "RMSNorm": (lambda nn: nn.RMSNorm(7), (2, 5, 7)),
    "RMSNorm of two dims": (lambda nn: nn.RMSNorm((5, 7), eps=1e-3), (2, 5, 7)),
    "RMSNorm plain": (lambda nn: nn.RMSNorm([7], elementwise_affine=False), (2, 5, 7)),
}  # fmt: skip
layers = pytest.mark.parametrize("name", LAYERS)


def pair(name):
    """The layer of both frameworks in float64, with the same weights, none of them 0 or 1."""
    make, shape = LAYERS[name]
    ours, theirs = make(nn).double(), make(torch.nn).double()
    for p in theirs.parameters():
        torch.nn.init.normal_(p)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs, shape


def numbers(shape, seed=7):
    return np.random.default_rng(seed).standard_normal(shape) * 2 + 1


def step(t, layer, x):
    """The output and all gradients for one batch."""
    y = t.tensor(x, requires_grad=True)
    out = layer(y)
    g = t.tensor(np.random.default_rng(8).uniform(0.5, 1.5, tuple(out.shape)))
    return [out, *t.autograd.grad(out, [y, *layer.parameters()], g)]


def states(layer):
    return list(layer.state_dict().values())


@layers
def test_first_state_and_repr(name):
    ours, theirs = (LAYERS[name][0](x) for x in (nn, torch.nn))
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert_same(states(ours), states(theirs))


@layers
def test_training_then_evaluation(name):
    """Three batches move the running statistics, which then serve."""
    ours, theirs, shape = pair(name)
    for seed in range(3):
        x = numbers(shape, seed)
        assert_same(step(tg, ours, x), step(torch, theirs, x), what="training")
        assert_same(states(ours), states(theirs), what="state")
    ours.eval()
    theirs.eval()
    before = [to_numpy(x).copy() for x in states(ours)]
    x = numbers(shape, 3)
    assert_same(step(tg, ours, x), step(torch, theirs, x), what="evaluation")
    for a, b in zip(before, states(ours), strict=True):
        assert np.array_equal(a, to_numpy(b)), "evaluation changes nothing"


@layers
def test_states_travel_both_ways(name):
    """What one framework trained, the other evaluates."""
    ours, theirs, shape = pair(name)
    step(tg, ours, numbers(shape))
    theirs.load_state_dict({k: torch.tensor(v.numpy()) for k, v in ours.state_dict().items()})
    assert_same(states(ours), states(theirs))
    x = numbers(shape, 9)
    assert_same([ours.eval()(tg.tensor(x))], [theirs.eval()(torch.tensor(x))])
    again = LAYERS[name][0](nn).double()
    again.load_state_dict(theirs.state_dict())
    assert_same(states(again), states(theirs))


@layers
def test_state_in_float32(name):
    ours, theirs = (LAYERS[name][0](x) for x in (nn, torch.nn))
    x = numbers(LAYERS[name][1]).astype(np.float32)
    for _ in range(2):
        mine, other = ours(tg.tensor(x)), theirs(torch.tensor(x))
        assert_same([mine], [other], rtol=3e-6)
    assert_same(states(ours), states(theirs), rtol=3e-6)


sizes = st.integers(1, 5)


@given(st.lists(sizes, min_size=2, max_size=4), st.booleans(), st.booleans(), st.integers(0, 99))
def test_batch_norm_of_any_shape(shape, training, affine, seed):
    draw = np.random.default_rng(seed)
    c = shape[1]
    x, w, b, m = (draw.standard_normal(s) for s in (shape, c, c, c))
    v = draw.uniform(0.5, 2, c)
    results = []
    for t, f in ((tg, F), (torch, TF)):
        xs = [t.tensor(a, requires_grad=True) for a in ((x, w, b) if affine else (x,))]
        running = [t.tensor(a) for a in (m, v)]
        try:
            y = f.batch_norm(xs[0], *running, *xs[1:], training=training, momentum=0.2, eps=0.1)
        except ValueError as error:
            results.append(type(error))
            continue
        results.append([y, *running, *t.autograd.grad((y * y * y).sum(), xs)])
    if isinstance(results[1], type):
        assert results[0] is results[1]
    else:
        assert_same(*results)


@given(st.sampled_from([1, 2, 3, 6]), st.lists(sizes, max_size=2), sizes, st.integers(0, 99))
def test_group_norm_of_any_shape(groups, rest, n, seed):
    x = np.random.default_rng(seed).standard_normal((n, 6, *rest))
    results = []
    for t, f in ((tg, F), (torch, TF)):
        y = t.tensor(x, requires_grad=True)
        try:
            out = f.group_norm(y, groups, eps=0.1)
        except ValueError as error:
            results.append(type(error))
            continue
        results.append([out, *t.autograd.grad((out * out * out).sum(), y)])
    if isinstance(results[1], type):
        assert results[0] is results[1]
    else:
        assert_same(*results)


# ---- running statistics


def test_running_statistics_have_no_history():
    layer = nn.BatchNorm1d(3)
    kept = layer.running_mean
    x = tg.tensor(numbers(POINTS), dtype=tg.float32, requires_grad=True)
    layer(x).sum().backward()
    assert layer.running_mean is kept and kept.node is None and layer.running_var.node is None
    assert layer.num_batches_tracked.item() == 1 and layer.num_batches_tracked.dtype == tg.int64
    layer.reset_running_stats()
    assert kept.tolist() == [0, 0, 0] and layer.running_var.tolist() == [1, 1, 1]
    assert layer.num_batches_tracked.item() == 0


def test_statistics_of_a_traced_batch():
    """Forward mode moves them by the values, and its tangent is that of reverse mode."""
    x, t = (tg.tensor(numbers(POINTS, s)) for s in (1, 2))
    mean, var = tg.zeros(3, dtype=tg.float64), tg.ones(3, dtype=tg.float64)
    y, tangent = jvp(lambda x: F.batch_norm(x, mean, var, training=True), (x,), (t,))
    plain = [tg.zeros(3, dtype=tg.float64), tg.ones(3, dtype=tg.float64)]
    assert_same([y, mean, var], [F.batch_norm(x, *plain, training=True), *plain])
    leaf = x.detach().requires_grad_()
    out = F.batch_norm(leaf, None, None, training=True)
    (pulled,) = tg.autograd.grad(out, leaf, tangent)
    assert (pulled * t).sum().item() == pytest.approx((tangent * tangent).sum().item())


def test_evaluation_kept_for_backward_is_protected():
    """Running statistics that a graph needs must not be moved under it unnoticed."""
    layer = nn.BatchNorm1d(3)
    x = tg.tensor(numbers(POINTS), dtype=tg.float32)
    scaled = layer.running_var.detach() * layer.weight
    layer(x)
    with pytest.raises(RuntimeError, match="changed in place"):
        scaled.sum().backward()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("training", [True, False])
def test_half_types(dtype, training):
    """Squares of 300 overflow float16; statistics and weights may stay in float32."""
    x = numbers((64, 3)) * 300
    results = []
    for t, f in ((tg, F), (torch, TF)):
        running = [t.zeros(3), t.ones(3) * 1e5]
        w, b = t.tensor([0.5, 1.0, 2.0]), t.tensor([0.1, 0.2, 0.3])
        y = f.batch_norm(t.tensor(x).to(getattr(t, dtype)), *running, w, b, training=training)
        results.append([y.float(), *running])
        assert str(y.dtype).endswith(dtype)
    assert_same(*results, rtol=2e-2)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_rms_norm_of_small_numbers(dtype):
    """The default eps is the float's own, float32's for half types."""
    x = np.full((1, 4), 1e-3)
    mine, theirs = (
        f.rms_norm(t.tensor(x).to(getattr(t, dtype)), (4,)) for t, f in ((tg, F), (torch, TF))
    )
    assert_same([mine], [theirs], rtol={"float16": 1e-3, "bfloat16": 1e-2}.get(dtype, 1e-6))


# ---- nothing to normalise, and errors


@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 5), (2, 3, 0)])
def test_no_elements(shape):
    for t, f in ((tg, F), (torch, TF)):
        x, mean, var = t.zeros(shape, requires_grad=True), t.ones(3), t.ones(3) * 2
        for training in (True, False):
            y = f.batch_norm(x, mean, var, training=training)
            y.sum().backward()
            assert tuple(y.shape) == tuple(x.grad.shape) == shape
        assert mean.tolist() == [1, 1, 1] and var.tolist() == [2, 2, 2]
        assert tuple(f.group_norm(x, 3).shape) == shape
        assert tuple(f.rms_norm(x, shape[1:]).shape) == shape
        if len(shape) == 3:
            assert tuple(f.instance_norm(x).shape) == shape


X, LONG = (7, 3), (2, 3, 5)
ERRORS = {
    "one value": (
        ValueError, lambda t, F: F.batch_norm(t.ones(1, 3), None, None, training=True), "only one"
    ),
    "1-d": (IndexError, lambda t, F: F.batch_norm(t.ones(3), None, None, training=True), r"\(N, C"),
    "no statistics": (RuntimeError, lambda t, F: F.batch_norm(t.ones(X), None, None), "training="),
    "one statistic": (
        ValueError, lambda t, F: F.batch_norm(t.ones(X), t.ones(3), None, training=True), "both"
    ),
    "size of mean": (
        RuntimeError, lambda t, F: F.batch_norm(t.ones(X), t.ones(5), t.ones(3)), r"\(3,\)"
    ),
    "size of weight": (
        RuntimeError,
        lambda t, F: F.batch_norm(t.ones(X), t.ones(3), t.ones(3), t.ones(2)), "weight should",
    ),
    "ints": (
        RuntimeError,
        lambda t, F: F.batch_norm(t.ones(X).long(), t.ones(3), t.ones(3)), "expected floats",
    ),
    "group of 1-d": (RuntimeError, lambda t, F: F.group_norm(t.ones(4), 2), r"\(N, C"),
    "groups": (RuntimeError, lambda t, F: F.group_norm(t.ones(2, 4), 3), "not divisible by 3"),
    "group of one": (ValueError, lambda t, F: F.group_norm(t.ones(1, 4), 4), "one value"),
    "group weight": (RuntimeError, lambda t, F: F.group_norm(t.ones(2, 4), 2, t.ones(2)), "weight"),
    "instance of 2-d": (ValueError, lambda t, F: F.instance_norm(t.ones(X)), "one value"),
    "instance of one": (ValueError, lambda t, F: F.instance_norm(t.ones(2, 3, 1)), "one value"),
    "instance unused": (
        RuntimeError, lambda t, F: F.instance_norm(t.ones(LONG), use_input_stats=False), "needs"
    ),
    "rms shape": (RuntimeError, lambda t, F: F.rms_norm(t.ones(X), (7,)), "does not end"),
    "rms nothing": (RuntimeError, lambda t, F: F.rms_norm(t.ones(X), ()), "does not end"),
    "rms weight": (RuntimeError, lambda t, F: F.rms_norm(t.ones(X), (3,), t.ones(2)), "weight has"),
    "rms ints": (RuntimeError, lambda t, F: F.rms_norm(t.ones(X).long(), (3,)), "expected floats"),
    "BatchNorm1d of 4-d": (
        ValueError, lambda t, F: t.nn.BatchNorm1d(3)(t.ones(2, 3, 4, 5)), "2-d or 3-d"
    ),
    "BatchNorm2d of 3-d": (ValueError, lambda t, F: t.nn.BatchNorm2d(3)(t.ones(LONG)), "4-d"),
    "BatchNorm1d channels": (RuntimeError, lambda t, F: t.nn.BatchNorm1d(4)(t.ones(X)), r"\(3,\)"),
    "GroupNorm": (ValueError, lambda t, F: t.nn.GroupNorm(3, 4), "not divisible"),
    "InstanceNorm1d of 4-d": (
        ValueError, lambda t, F: t.nn.InstanceNorm1d(3)(t.ones(2, 3, 4, 5)), "2-d or 3-d"
    ),
    "InstanceNorm1d channels": (
        ValueError, lambda t, F: t.nn.InstanceNorm1d(4, affine=True)(t.ones(LONG)), "num_features"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    kind, call, words = ERRORS[name]
    with pytest.raises(kind, match=words):
        call(tg, F)
    with pytest.raises(kind):
        call(torch, TF)


def test_a_number_of_features_that_plays_no_part():
    for t in (tg, torch):
        with pytest.warns(UserWarning, match="num_features"):
            assert tuple(t.nn.InstanceNorm1d(4)(t.ones(LONG)).shape) == LONG


# ---- distances

PAIRS = {
    "CosineSimilarity": lambda nn: nn.CosineSimilarity(),
    "CosineSimilarity of rows": lambda nn: nn.CosineSimilarity(dim=0, eps=0.5),
    "PairwiseDistance": lambda nn: nn.PairwiseDistance(),
    "PairwiseDistance 1": lambda nn: nn.PairwiseDistance(1.0, eps=0.1, keepdim=True),
    "Bilinear": lambda nn: nn.Bilinear(5, 5, 2),
    "Bilinear without bias": lambda nn: nn.Bilinear(5, 5, 2, bias=False),
}


@pytest.mark.parametrize("name", PAIRS)
def test_layers_of_two_inputs(name):
    tg.manual_seed(1337)
    torch.manual_seed(1337)
    ours, theirs = (PAIRS[name](x) for x in (nn, torch.nn))
    assert repr(ours) == repr(theirs)
    assert_same(states(ours), states(theirs))
    ours, theirs, results = ours.double(), theirs.double(), []
    for t, layer in ((tg, ours), (torch, theirs)):
        xs = [t.tensor(numbers((3, 5), s), requires_grad=True) for s in (1, 2)]
        y = layer(*xs)
        results.append([y, *t.autograd.grad((y * y).sum(), [*xs, *layer.parameters()])])
    assert_same(*results)


@pytest.mark.parametrize("x", [[0.0, 0.0], [1e-9, 2e-9]])
@pytest.mark.parametrize("y", [[0.0, 0.0], [1.0, 2.0]])
def test_cosine_of_nothing(x, y):
    """A norm below eps counts as eps, but its own slope stays."""
    results = []
    for t, f in ((tg, F), (torch, TF)):
        xs = [t.tensor(np.array(v), requires_grad=True) for v in (x, y)]
        cos = f.cosine_similarity(*xs, dim=0)
        results.append([cos, *t.autograd.grad(cos, xs)])
    assert_same(*results)


@pytest.mark.parametrize("p", [1.0, 2.0, float("inf")])
@pytest.mark.parametrize("x", [[0.0, 0.0], [1e-13, 2e-13], [3.0, -4.0]])
def test_normalize_near_zero(p, x):
    results = []
    for t, f in ((tg, F), (torch, TF)):
        leaf = t.tensor(np.array(x), requires_grad=True)
        y = f.normalize(leaf, p, dim=0)
        results.append([y, *t.autograd.grad(y.sum(), leaf)])
    assert_same(*results)


def test_normalize_over_two_dims():
    x = numbers((2, 3, 5))
    mine, theirs = (f.normalize(t.tensor(x), dim=(0, -1)) for t, f in ((tg, F), (torch, TF)))
    assert_same([mine], [theirs])


PAIR_ERRORS = {
    "cosine ints": (RuntimeError, lambda t, F: F.cosine_similarity(t.arange(3), t.arange(3), 0)),
    "cosine shapes": (RuntimeError, lambda t, F: F.cosine_similarity(t.ones(2, 3), t.ones(2))),
    "cosine dim": (IndexError, lambda t, F: F.cosine_similarity(t.ones(3), t.ones(3))),
    "normalize dim": (IndexError, lambda t, F: F.normalize(t.ones(3))),
    "normalize ints": (RuntimeError, lambda t, F: F.normalize(t.ones(2, 3).long())),
    "bilinear batch": (
        RuntimeError, lambda t, F: F.bilinear(t.ones(2, 3), t.ones(4, 5), t.ones(7, 3, 5))
    ),
    "bilinear sizes": (
        RuntimeError, lambda t, F: F.bilinear(t.ones(2, 3), t.ones(2, 4), t.ones(7, 3, 5))
    ),
    "bilinear bias": (
        RuntimeError,
        lambda t, F: F.bilinear(t.ones(2, 3), t.ones(2, 5), t.ones(7, 3, 5), t.ones(3)),
    ),
    "Bilinear": (ValueError, lambda t, F: t.nn.Bilinear(0, 3, 5)),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIR_ERRORS)
def test_errors_of_two_inputs(name):
    kind, call = PAIR_ERRORS[name]
    for t, f in ((tg, F), (torch, TF)):
        with pytest.raises(kind):
            call(t, f)
