"""Modules as functions of their parameters, beside torch.func.functional_call."""

import numpy as np
import pytest
import torch

import tensorgrad as tg
from tensorgrad import func, nn
from tensorgrad.func import functional_call

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")

X = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)


def net(lib):
    lib.manual_seed(1)
    n = nn if lib is tg else torch.nn
    return n.Sequential(n.Linear(3, 5), n.Tanh(), n.Sequential(n.Linear(5, 2)))


def close(a, b, rtol=2e-5):
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=rtol, atol=1e-6)


def params(module):
    return {name: p.detach() for name, p in module.named_parameters()}


def test_other_values_for_one_call():
    mine, theirs = net(tg), net(torch)
    before = params(mine)
    identity = [id(p) for p in mine.parameters()]
    new = {name: p * 2.0 for name, p in before.items()}
    other = {name: p.detach() * 2.0 for name, p in theirs.named_parameters()}
    close(functional_call(mine, new, tg.tensor(X)),
          torch.func.functional_call(theirs, other, torch.tensor(X)))  # fmt: skip
    some = {"2.0.bias": other["2.0.bias"]}
    close(functional_call(mine, {"2.0.bias": new["2.0.bias"]}, (tg.tensor(X),)),
          torch.func.functional_call(theirs, some, torch.tensor(X)))  # fmt: skip
    assert identity == [id(p) for p in mine.parameters()]
    for name, p in mine.named_parameters():
        assert p.tolist() == before[name].tolist() and isinstance(p, nn.Parameter)


def test_gradients_as_a_function_of_the_parameters():
    mine, theirs = net(tg), net(torch)

    def loss(lib, module, call):
        return lambda p: (call(module, p, lib.tensor(X)) ** 2).mean()

    a = func.grad(loss(tg, mine, functional_call))(params(mine))
    b = torch.func.grad(loss(torch, theirs, torch.func.functional_call))(params(theirs))
    assert a.keys() == b.keys()
    for name in a:
        close(a[name], b[name])
    assert all(p.grad is None for p in mine.parameters())


def test_hessian_vector_products_and_forward_mode_of_a_model():
    mine, theirs = net(tg), net(torch)
    p, q = params(mine), params(theirs)
    t = {name: tg.ones_like(v) for name, v in p.items()}
    s = {name: torch.ones_like(v) for name, v in q.items()}

    def f(p):
        return (functional_call(mine, p, tg.tensor(X)) ** 2).mean()

    def g(q):
        return (torch.func.functional_call(theirs, q, torch.tensor(X)) ** 2).mean()

    _, one = func.jvp(f, (p,), (t,))
    _, two = torch.func.jvp(g, (q,), (s,))
    close(one, two)
    one = func.hvp(f, (p,), (t,))
    _, two = torch.func.jvp(torch.func.grad(g), (q,), (s,))
    for name in two:
        close(one[name], two[name], 1e-4)


def test_recorded_parameters_keep_their_history():
    """A step of an optimiser differentiated through: the meta-gradient."""
    mine, x = net(tg), tg.tensor(X)
    rate = tg.tensor(0.1, requires_grad=True)

    def loss(p):
        return (functional_call(mine, p, x) ** 2).mean()

    p = params(mine)
    stepped = {
        name: v - rate * g
        for (name, v), g in zip(p.items(), func.grad(loss)(p).values(), strict=True)
    }
    loss(stepped).backward()
    eps = 1e-3

    def after(r):
        grads = func.grad(loss)(p)
        return loss({name: v - r * grads[name] for name, v in p.items()}).item()

    assert rate.grad.item() == pytest.approx(
        (after(0.1 + eps) - after(0.1 - eps)) / (2 * eps), rel=0.02
    )


def test_errors_leave_the_module_as_it_was():
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(tg.ones(3))

        def forward(self, x):
            raise KeyError("inside")

    module = Fails()
    w = module.w
    with pytest.raises(KeyError, match="inside"):
        functional_call(module, {"w": tg.zeros(3)}, tg.ones(3))
    assert module.w is w


def test_names():
    module = net(tg)
    p = params(module)
    with pytest.raises(
        RuntimeError, match=r"Sequential has no parameter or buffer named 'foo'; it has 0\."
    ):
        functional_call(module, {**p, "foo": tg.ones(1)}, tg.tensor(X))
    with pytest.raises(RuntimeError, match=r"these are missing: 0.bias, 2.0.weight, 2.0.bias"):
        functional_call(module, {"0.weight": p["0.weight"]}, tg.tensor(X), strict=True)
    with pytest.raises(ValueError, match=r"0.weight stand in several dictionaries"):
        functional_call(module, ({"0.weight": p["0.weight"]}, p), tg.tensor(X))
    with pytest.raises(TypeError, match=r"'0.bias' is a ndarray, not a tensor"):
        functional_call(module, {"0.bias": np.ones(5)}, tg.tensor(X))
    split = (
        {k: v for k, v in p.items() if "weight" in k},
        {k: v for k, v in p.items() if "bias" in k},
    )
    close(functional_call(module, split, tg.tensor(X), strict=True), module(tg.tensor(X)))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte = nn.Embedding(7, 3)
        self.head = nn.Linear(3, 7, bias=False)
        self.head.weight = self.wte.weight
        self.register_buffer("scale", tg.tensor(2.0))

    def forward(self, ids, *, shift=0.0):
        return self.head(self.wte(ids)) * self.scale + shift


def test_tied_weights_buffers_and_keywords():
    module, ids = Tied(), tg.tensor([1, 4])
    new = tg.ones(7, 3)
    both = functional_call(module, {"wte.weight": new}, ids)
    assert both.tolist() == [[6.0] * 7] * 2
    other = functional_call(module, {"head.weight": new}, ids)
    assert other.tolist() == both.tolist()
    assert functional_call(module, {"wte.weight": new}, ids, strict=False).tolist() == both.tolist()
    functional_call(module, {"wte.weight": new, "scale": tg.tensor(3.0)}, ids, strict=True)
    one = functional_call(module, {"wte.weight": new}, ids, tie_weights=False)
    np.testing.assert_allclose(
        one.detach().numpy()[0], 2 * module.head.weight.detach().numpy().sum(1), rtol=1e-5
    )
    scaled = functional_call(
        module, {"wte.weight": new, "scale": tg.tensor(5.0)}, ids, {"shift": 1.0}
    )
    assert scaled.tolist() == [[16.0] * 7] * 2
    assert module.scale.item() == 2.0 and module.head.weight is module.wte.weight


def test_in_a_compiled_loop_of_models():
    """An ensemble: one module, several sets of parameters, their average differentiated."""
    module, x = net(tg), tg.tensor(X)
    sets = [{k: v + 0.01 * i for k, v in params(module).items()} for i in range(3)]

    def average(sets):
        return sum(functional_call(module, p, x).mean() for p in sets) / 3

    grads = func.grad(average)(sets)
    for p, g in zip(sets, grads, strict=True):
        alone = func.grad(lambda p: functional_call(module, p, x).mean() / 3)(p)
        for name in g:
            close(g[name], alone[name])
