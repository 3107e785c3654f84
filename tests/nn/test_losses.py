"""Losses beside torch.nn's: values, gradients, reductions, saturation, warnings, errors."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tensorgrad as tg
from tensorgrad import nn
from tests.ops.compare import assert_same

F, TF = nn.functional, torch.nn.functional
SHAPE = (3, 5)


def numbers(low=-3.0, high=3.0, seed=7, shape=SHAPE):
    return np.random.default_rng(seed).uniform(low, high, shape)


def signs(shape=SHAPE):
    return np.where(np.arange(int(np.prod(shape))) % 3 == 0, -1.0, 1.0).reshape(shape)


X, Y, Z = numbers(), numbers(seed=8), numbers(seed=9)
CHANCE, RATE = numbers(0.1, 0.9), numbers(0.2, 5)
WEIGHTS = numbers(0.5, 2.0, 3, (5,))

# the module, the inputs, and how many of them a gradient is asked for
LOSSES = {
    "L1Loss": (lambda nn, w, r: nn.L1Loss(reduction=r), (X, Y), 2),
    "SmoothL1Loss": (lambda nn, w, r: nn.SmoothL1Loss(reduction=r, beta=0.7), (X, Y), 2),
    "HuberLoss": (lambda nn, w, r: nn.HuberLoss(r, 0.7), (X, Y), 2),
    "BCELoss": (lambda nn, w, r: nn.BCELoss(reduction=r), (CHANCE, numbers(0, 1, 3)), 2),
    "BCELoss weighted": (lambda nn, w, r: nn.BCELoss(w, reduction=r), (CHANCE, signs() > 0), 1),
    "BCEWithLogitsLoss": (lambda nn, w, r: nn.BCEWithLogitsLoss(reduction=r), (X, CHANCE), 2),
    "BCEWithLogitsLoss weighted": (
        lambda nn, w, r: nn.BCEWithLogitsLoss(w, reduction=r, pos_weight=w * 2), (X, CHANCE), 2
    ),
    "KLDivLoss": (lambda nn, w, r: nn.KLDivLoss(reduction=r), (np.log(CHANCE), RATE / 9), 2),
    "KLDivLoss of logarithms": (
        lambda nn, w, r: nn.KLDivLoss(reduction=r, log_target=True), (np.log(CHANCE), -RATE), 2
    ),
    "PoissonNLLLoss": (lambda nn, w, r: nn.PoissonNLLLoss(reduction=r), (X, RATE), 2),
    "PoissonNLLLoss full": (
        lambda nn, w, r: nn.PoissonNLLLoss(False, True, reduction=r, eps=1e-3),
        (RATE, RATE[::-1]), 2,
    ),
    "GaussianNLLLoss": (
        lambda nn, w, r: nn.GaussianNLLLoss(full=True, reduction=r), (X, Y, RATE), 3
    ),
    "SoftMarginLoss": (lambda nn, w, r: nn.SoftMarginLoss(reduction=r), (X, signs()), 1),
    "HingeEmbeddingLoss": (
        lambda nn, w, r: nn.HingeEmbeddingLoss(0.5, reduction=r), (X, signs()), 1
    ),
    "MarginRankingLoss": (
        lambda nn, w, r: nn.MarginRankingLoss(0.3, reduction=r), (X, Y, signs()), 2
    ),
    "CosineEmbeddingLoss": (
        lambda nn, w, r: nn.CosineEmbeddingLoss(0.1, reduction=r), (X, Y, signs((3,))), 2
    ),
    "TripletMarginLoss": (lambda nn, w, r: nn.TripletMarginLoss(reduction=r), (X, Y, Z), 3),
    "TripletMarginLoss swapped": (
        lambda nn, w, r: nn.TripletMarginLoss(2.0, p=1.0, swap=True, reduction=r), (X, Y, Z), 3
    ),
}  # fmt: skip


def run(t, loss, inputs, moving):
    """The value, and the gradients of the first `moving` inputs."""
    xs = [t.tensor(np.array(a, dtype=float)) for a in inputs]
    for x in xs[:moving]:
        x.requires_grad_()
    out = loss(*xs)
    parts = t.autograd.grad(out.sum(), xs[:moving], allow_unused=True, materialize_grads=True)
    return [out, *parts]


@pytest.mark.filterwarnings("ignore:.*'mean'")
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", LOSSES)
def test_modules(name, reduction):
    make, inputs, moving = LOSSES[name]
    ours = make(nn, tg.tensor(WEIGHTS), reduction)
    theirs = make(torch.nn, torch.tensor(WEIGHTS), reduction)
    assert repr(ours) == repr(theirs)
    assert_same(list(ours.state_dict().values()), list(theirs.state_dict().values()))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for mode in (True, False):
        mine = run(tg, ours.train(mode), inputs, moving)
        assert_same(mine, run(torch, theirs.train(mode), inputs, moving))
    assert_same(mine, run(tg, function_of(name, ours), inputs, moving), what="function")


def function_of(name, module):
    """The function of a module, given its options by name."""
    words = {
        "BCELoss": "binary_cross_entropy", "KLDivLoss": "kl_div", "L1Loss": "l1_loss",
        "BCEWithLogitsLoss": "binary_cross_entropy_with_logits", "SmoothL1Loss": "smooth_l1_loss",
        "PoissonNLLLoss": "poisson_nll_loss", "GaussianNLLLoss": "gaussian_nll_loss",
    }  # fmt: skip
    plain = name.split()[0]
    snake = "".join("_" + c.lower() if c.isupper() else c for c in plain).lstrip("_")
    function = getattr(F, words.get(plain, snake))
    kept = vars(module) | dict(module.state_dict())
    names = ("reduction", "weight", "pos_weight", "beta", "delta", "margin", "log_target", "p",
             "log_input", "full", "eps", "swap")  # fmt: skip
    return lambda *xs: function(*xs, **{k: kept[k] for k in names if k in kept})


@given(st.sampled_from(sorted(LOSSES)), st.integers(0, 99))
@pytest.mark.filterwarnings("ignore:.*'mean'")
def test_float32(name, seed):
    """Within a few roundings of float64, in float32 throughout."""
    make, inputs, _ = LOSSES[name]
    order = np.random.default_rng(seed).permutation(len(inputs[0]))
    arrays = [np.asarray(a, dtype=np.float32)[order] for a in inputs]
    loss = make(nn, tg.tensor(WEIGHTS.astype(np.float32)), "mean")
    out = loss(*map(tg.tensor, arrays))
    exact = make(nn, tg.tensor(WEIGHTS), "mean")(*(tg.tensor(a.astype(float)) for a in arrays))
    assert out.dtype == tg.float32 and out.item() == pytest.approx(exact.item(), rel=2e-5, abs=2e-6)


def test_batchmean():
    for x, y in ((np.log(CHANCE), RATE / 9), (np.log(0.5), np.float64(0.3))):
        for log_target in (False, True):
            results = [
                run(t, t.nn.KLDivLoss(reduction="batchmean", log_target=log_target), (x, y), 2)
                for t in (tg, torch)
            ]
            assert_same(*results)
    for t in (tg, torch):
        with pytest.warns(UserWarning, match="batchmean"):
            t.nn.functional.kl_div(t.zeros(3), t.ones(3))


# ---- kinks and saturation


@pytest.mark.parametrize("x", [0.0, 1e-13, 0.3, 1.0 - 1e-13, 1.0])
@pytest.mark.parametrize("y", [0.0, 0.3, 1.0])
def test_certain_and_wrong(x, y):
    """The loss of a certain wrong answer is 100, and its slope finite."""
    mine, theirs = (run(t, t.nn.BCELoss(), ([x], [y]), 2) for t in (tg, torch))
    assert_same(mine, theirs, rtol=1e-8)  # PyTorch's 1e-12 is a float32
    assert np.isfinite(mine[1].item()) and mine[0].item() <= 100


FAR = np.array([-1e4, -50.0, -1.0, 0.0, 1.0, 50.0, 1e4])


@pytest.mark.parametrize("y", [0.0, 0.5, 1.0])
def test_logits_of_any_size(y):
    inputs = (FAR, FAR * 0 + y)
    mine, theirs = (
        run(t, t.nn.BCEWithLogitsLoss(reduction="none"), inputs, 2) for t in (tg, torch)
    )
    assert_same(mine, theirs)


def test_soft_margin_of_any_size():
    """PyTorch overflows from 710 on; the loss is -y x there, its slope -y."""
    for y in (-1.0, 1.0):
        loss, slope = run(tg, nn.SoftMarginLoss(reduction="none"), (FAR, FAR * 0 + y), 1)
        far = -y * FAR > 40
        np.testing.assert_allclose(loss.detach().numpy()[far], (-y * FAR)[far], rtol=1e-15)
        np.testing.assert_allclose(slope.numpy()[far], -y, rtol=1e-15)
        near = (FAR[1:-1], FAR[1:-1] * 0 + y)
        assert_same(*(run(t, t.nn.SoftMarginLoss(reduction="none"), near, 1) for t in (tg, torch)))


AT_KINKS = {
    "l1": (lambda nn: nn.L1Loss(reduction="none"), ([-1.0, 0.0, 2.0], [0.0, 0.0, 0.0]), 2),
    "smooth l1": (
        lambda nn: nn.SmoothL1Loss(reduction="none", beta=0.5),
        ([-0.5, 0.5, 0.0, 3.0], [0.0, 0.0, 0.0, 0.0]), 2,
    ),
    "huber": (
        lambda nn: nn.HuberLoss("none", 0.5), ([-0.5, 0.5, 0.0, 3.0], [0.0, 0.0, 0.0, 0.0]), 2
    ),
    "hinge": (
        lambda nn: nn.HingeEmbeddingLoss(1.0, reduction="none"),
        ([1.0, 1.0, 2.0, 0.5, 3.0], [-1.0, 1.0, 0.0, 0.0, 2.0]), 1,
    ),
    "ranking": (
        lambda nn: nn.MarginRankingLoss(1.0, reduction="none"),
        ([1.0, 2.0], [0.0, 0.0], [1.0, 1.0]), 2,
    ),
    "triplet": (
        lambda nn: nn.TripletMarginLoss(1.0, eps=0.0, reduction="none"),
        ([[0.0, 0.0], [0.0, 0.0]], [[3.0, 4.0], [0.0, 0.0]], [[0.0, 6.0], [9.0, 0.0]]), 3,
    ),
    "triplet swap, a tie": (
        lambda nn: nn.TripletMarginLoss(1.0, swap=True, eps=0.0, reduction="none"),
        ([0.0, 0.0], [2.0, 0.0], [1.0, 1.0]), 3,
    ),
    "cosine": (
        lambda nn: nn.CosineEmbeddingLoss(0.0, reduction="none"),
        (
            [[0.0, 0.0], [1.0, 0.0], [1.0, 2.0]], [[1.0, 2.0], [0.0, 1.0], [3.0, 4.0]],
            [1.0, -1.0, 0.0],
        ), 2,
    ),
    "poisson": (
        lambda nn: nn.PoissonNLLLoss(full=True, reduction="none"), ([0.5, 0.5], [1.0, 2.0]), 1
    ),
    "gaussian": (
        lambda nn: nn.GaussianNLLLoss(eps=0.1, reduction="none"),
        ([1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [0.0, 0.1, 0.2]), 3,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", AT_KINKS)
def test_at_kinks(name):
    make, inputs, moving = AT_KINKS[name]
    mine, theirs = (run(t, make(t.nn), inputs, moving) for t in (tg, torch))
    assert_same(mine, theirs, rtol=1e-8 if name == "cosine" else 1e-12)  # its eps is a float32


def test_a_target_of_zero_leaks_no_nan():
    """Logarithms of zero stand in branches not taken."""
    x, y, _ = run(tg, nn.PoissonNLLLoss(full=True, reduction="none"), ([0.5, 0.5], [0.0, -1.0]), 2)
    assert np.isfinite(y.numpy()).all() and np.isfinite(x.detach().numpy()).all()
    loss, slope = run(tg, nn.KLDivLoss(reduction="sum"), ([-0.5, -0.5], [0.0, 1.0]), 1)
    assert loss.item() == 0.5 and slope.tolist() == [0, -1]


# ---- shapes, warnings, errors


@pytest.mark.parametrize("shape", [(3, 5), (3, 1), (1, 5), (3,), ()])
def test_shapes_of_a_variance(shape):
    var = 0.3 if shape == () else numbers(0.1, 2, 3, shape)
    results = []
    for t, f in ((tg, F), (torch, TF)):
        v = var if shape == () else t.tensor(var)
        results.append([f.gaussian_nll_loss(t.tensor(X), t.tensor(Y), v)])
    assert_same(*results)


@pytest.mark.parametrize("name", ["l1_loss", "smooth_l1_loss", "huber_loss"])
@pytest.mark.parametrize("shape", [(1, 5), (5,), ()])
def test_broadcasting_is_told(name, shape):
    target, results = numbers(shape=shape), []
    for t, f in ((tg, F), (torch, TF)):
        with pytest.warns(UserWarning, match="the same s"):
            results.append([getattr(f, name)(t.tensor(X), t.tensor(target))])
    assert_same(*results)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_weights_of_elements(reduction):
    w = numbers(0.5, 2, 3)
    for name in ("l1_loss", "huber_loss"):
        results = [
            [getattr(f, name)(t.tensor(X), t.tensor(Y), reduction=reduction, weight=t.tensor(w))]
            for t, f in ((tg, F), (torch, TF))
        ]
        assert_same(*results)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.filterwarnings("ignore:.*'mean'")
def test_of_nothing(name):
    """No elements: the sum is 0, the mean NaN."""
    make, inputs, moving = LOSSES[name]
    for reduction in ("mean", "sum", "none"):
        results = [
            run(t, make(t.nn, t.tensor(WEIGHTS), reduction), [a[:0] for a in inputs], moving)
            for t in (tg, torch)
        ]
        assert_same(*results)


ERRORS = {
    "l1 reduction": (
        ValueError, lambda t, F: F.l1_loss(t.ones(3), t.ones(3), reduction="max"), "'max'"
    ),
    "l1 weights": (
        ValueError, lambda t, F: F.l1_loss(t.ones(2, 3), t.ones(2, 3), weight=t.ones(3)), "weights"
    ),
    "huber delta": (
        RuntimeError, lambda t, F: F.huber_loss(t.ones(3), t.ones(3), delta=0.0), "delta"
    ),
    "huber ints": (
        RuntimeError, lambda t, F: F.huber_loss(t.arange(3), t.arange(3)), "expected floats"
    ),
    "smooth beta": (
        RuntimeError, lambda t, F: F.smooth_l1_loss(t.ones(3), t.ones(3), beta=-1.0), "beta"
    ),
    "bce range": (
        RuntimeError, lambda t, F: F.binary_cross_entropy(t.ones(3) * 1.5, t.ones(3)), "every input"
    ),
    "bce nan": (
        RuntimeError, lambda t, F: F.binary_cross_entropy(t.ones(3) * t.nan, t.ones(3)), "between"
    ),
    "bce target": (
        RuntimeError, lambda t, F: F.binary_cross_entropy(t.ones(3), t.ones(3) * 3), "every target"
    ),
    "bce shape": (ValueError, lambda t, F: F.binary_cross_entropy(t.ones(3), t.ones(1)), "shape"),
    "bce dtype": (
        RuntimeError, lambda t, F: F.binary_cross_entropy(t.ones(3), t.ones(3).double()), "float64"
    ),
    "bce weight": (
        RuntimeError,
        lambda t, F: F.binary_cross_entropy(t.ones(3), t.ones(3), t.ones(2, 3)), "weights of shape",
    ),
    "logits shape": (
        ValueError, lambda t, F: F.binary_cross_entropy_with_logits(t.ones(3), t.ones(1)), "shape"
    ),
    "logits weight": (
        RuntimeError,
        lambda t, F: F.binary_cross_entropy_with_logits(t.ones(3), t.ones(3), t.ones(2, 3)),
        "weights of shape",
    ),
    "kl ints": (
        RuntimeError, lambda t, F: F.kl_div(t.ones(3), t.arange(3), reduction="sum"), "floats"
    ),
    "kl reduction": (
        ValueError, lambda t, F: F.kl_div(t.ones(3), t.ones(3), reduction="max"), "'max'"
    ),
    "poisson reduction": (
        ValueError, lambda t, F: F.poisson_nll_loss(t.ones(3), t.ones(3), reduction="max"), "'max'"
    ),
    "gaussian var": (
        ValueError, lambda t, F: F.gaussian_nll_loss(t.ones(3), t.ones(3), -t.ones(3)), "negative"
    ),
    "gaussian number": (
        ValueError, lambda t, F: F.gaussian_nll_loss(t.ones(3), t.ones(3), -1.0), "negative"
    ),
    "gaussian shape": (
        ValueError,
        lambda t, F: F.gaussian_nll_loss(t.ones(2, 3), t.ones(2, 3), t.ones(3)), "var has",
    ),
    "ranking dims": (
        RuntimeError,
        lambda t, F: F.margin_ranking_loss(t.ones(2, 3), t.ones(2, 3), t.ones(3)), "equally many",
    ),
    "cosine target": (
        RuntimeError, lambda t, F: F.cosine_embedding_loss(t.ones(2, 3), t.ones(2, 3), t.ones(())),
        "expected inputs",
    ),
    "cosine matrix": (
        RuntimeError, lambda t, F: F.cosine_embedding_loss(*[t.ones(2, 3)] * 3), "expected inputs"
    ),
    "triplet margin": (
        ValueError, lambda t, F: F.triplet_margin_loss(*[t.ones(2, 3)] * 3, margin=0.0), "margin"
    ),
    "triplet dims": (
        RuntimeError,
        lambda t, F: F.triplet_margin_loss(t.ones(2, 3), t.ones(3), t.ones(2, 3)), "positive",
    ),
    "TripletMarginLoss": (ValueError, lambda t, F: t.nn.TripletMarginLoss(-1.0), "margin"),
    "shapes": (RuntimeError, lambda t, F: F.soft_margin_loss(t.ones(3), t.ones(2)), "broadcast"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    kind, call, words = ERRORS[name]
    with pytest.raises(kind, match=words):
        call(tg, F)
    with pytest.raises(kind):
        call(torch, TF)


def test_the_old_arguments_are_refused():
    """What stood behind size_average and reduce must be named, so none is taken for another."""
    with pytest.raises(TypeError, match="positional"):
        F.l1_loss(tg.ones(3), tg.ones(3), False)
    with pytest.raises(TypeError, match="positional"):
        nn.L1Loss("sum")
    with pytest.raises(ValueError, match="L1Loss: reduction"):
        nn.L1Loss(reduction="batchmean")
