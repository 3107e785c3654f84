"""Module beside torch.nn.Module: parameters, walking, containers, states, hooks."""

import copy
import operator
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.tensor import Tensor


class Block(nn.Module):
    """A bit of everything: an absent parameter, both kinds of buffers, children, a number."""

    def __init__(self, width: int = 3):
        super().__init__()
        self.width = width
        self.scale = nn.Parameter(tg.ones(width))
        self.register_parameter("shift", None)
        self.register_buffer("count", tg.zeros(2))
        self.register_buffer("cache", tg.ones(5), persistent=False)
        self.inner = nn.Linear(width, width)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(self.inner(x) * self.scale)


class TorchBlock(torch.nn.Module):
    def __init__(self, width: int = 3):
        super().__init__()
        self.width = width
        self.scale = torch.nn.Parameter(torch.ones(width))
        self.register_parameter("shift", None)
        self.register_buffer("count", torch.zeros(2))
        self.register_buffer("cache", torch.ones(5), persistent=False)
        self.inner = torch.nn.Linear(width, width)
        self.drop = torch.nn.Dropout(0.5)


# ---- parameters and buffers


def test_a_parameter_is_an_exact_tensor():
    p = nn.Parameter(tg.ones(2, 3))
    assert type(p) is Tensor
    assert isinstance(p, nn.Parameter) and isinstance(p, Tensor)
    assert not isinstance(tg.ones(2), nn.Parameter) and not isinstance(p, nn.Buffer)
    assert not isinstance(3, nn.Parameter)
    assert p.requires_grad and p.is_leaf
    assert not nn.Parameter(tg.ones(2), requires_grad=False).requires_grad
    assert issubclass(nn.Parameter, Tensor)


def test_a_parameter_shares_memory_and_drops_history():
    x = tg.ones(3, requires_grad=True) * 2
    p = nn.Parameter(x)
    assert p.is_leaf and p.array is x.array
    assert not isinstance(p.detach(), nn.Parameter)
    assert not isinstance(p * 1, nn.Parameter)


def test_a_parameter_of_integers_is_refused():
    with pytest.raises(RuntimeError, match="floating-point"):
        nn.Parameter(tg.arange(3))
    assert not nn.Parameter(tg.arange(3), requires_grad=False).requires_grad


def test_deepcopy_keeps_flags_and_ties():
    model = nn.Sequential(nn.Embedding(7, 5), nn.Linear(5, 7, bias=False))
    model[1].weight = model[0].weight
    twin = copy.deepcopy(model)
    assert twin[0].weight is twin[1].weight
    assert twin[0].weight is not model[0].weight
    assert isinstance(twin[0].weight, nn.Parameter)
    assert np.array_equal(twin[0].weight.detach().numpy(), model[0].weight.detach().numpy())
    twin[0].weight.array[...] = 0
    assert model[0].weight.array.any()
    assert [n for n, _ in twin.named_parameters()] == ["0.weight"]


def test_buffers_by_assignment():
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.kept = nn.Buffer(tg.zeros(2))
            self.passing = nn.Buffer(tg.zeros(3), persistent=False)

    module = Counter()
    assert [n for n, _ in module.named_buffers()] == ["kept", "passing"]
    assert list(module.state_dict()) == ["kept"]
    module.kept = tg.ones(2)  # a plain tensor takes a buffer's place
    assert module.state_dict()["kept"].tolist() == [1, 1]
    assert list(module.parameters()) == []


# ---- attributes


def test_attributes_without_super_init():
    class Bare(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(3, 2)

    assert [n for n, _ in Bare().named_parameters()] == ["layer.weight", "layer.bias"]


def test_registered_names_refuse_other_values():
    block = Block()
    with pytest.raises(TypeError, match="cannot assign Tensor as parameter 'scale'"):
        block.scale = tg.ones(3)
    with pytest.raises(TypeError, match="cannot assign Tensor as parameter 'shift'"):
        block.shift = tg.ones(3)
    with pytest.raises(TypeError, match="cannot assign int as module 'inner'"):
        block.inner = 3
    with pytest.raises(TypeError, match="cannot assign list as buffer 'count'"):
        block.count = [1.0]
    block.shift = nn.Parameter(tg.zeros(3))
    assert [n for n, _ in block.named_parameters()] == [
        "scale", "shift", "inner.weight", "inner.bias",
    ]  # fmt: skip
    block.scale = None
    assert next(block.named_parameters())[0] == "shift"


def test_names_are_checked():
    block = Block()
    for name, error, message in [
        ("a.b", KeyError, "must not be empty or contain a dot"),
        ("", KeyError, "must not be empty or contain a dot"),
        ("width", KeyError, "already exists"),
        ("forward", KeyError, "already exists"),
        (3, TypeError, "should be a string"),
    ]:
        with pytest.raises(error, match=message):
            block.register_parameter(name, nn.Parameter(tg.ones(1)))
        with pytest.raises(error, match=message):
            block.register_buffer(name, tg.ones(1))
        with pytest.raises(error, match=message):
            block.add_module(name, nn.Identity())
    with pytest.raises(TypeError, match=r"nn\.Parameter or None"):
        block.register_parameter("extra", tg.ones(2))
    with pytest.raises(TypeError, match="Tensor or None"):
        block.register_buffer("extra", 2)
    with pytest.raises(TypeError, match="int is not a Module"):
        block.add_module("extra", 2)


def test_delete_and_dir():
    block = Block()
    del block.inner, block.scale, block.count
    assert list(block.parameters()) == [] and list(block.children()) == [block.drop]
    with pytest.raises(AttributeError, match="'Block' object has no attribute 'inner'"):
        block.inner
    with pytest.raises(AttributeError):
        del block.nothing
    assert "drop" in dir(block) and "0" not in dir(nn.Sequential(nn.ReLU()))


def test_a_module_without_forward_says_so():
    with pytest.raises(TypeError, match="ModuleList cannot be called: it has no forward"):
        nn.ModuleList()(1)


def test_lookup_by_path():
    model = nn.Sequential(Block(), nn.ModuleList([Block()]))
    assert model.get_submodule("1.0.inner") is model[1][0].inner
    assert model.get_submodule("") is model
    assert model.get_parameter("0.scale") is model[0].scale
    assert model.get_buffer("1.0.cache") is model[1][0].cache
    with pytest.raises(
        AttributeError, match=r"Block has no module 'iner' \(looked for '0.iner.x'\)"
    ):
        model.get_submodule("0.iner.x")
    with pytest.raises(AttributeError, match="Block has no parameter 'count'"):
        model.get_parameter("0.count")
    with pytest.raises(AttributeError, match="Block has no buffer 'scale'"):
        model.get_buffer("0.scale")


# ---- trees of modules, built in both frameworks

LEAVES = {
    "linear": lambda nn: nn.Linear(3, 2),
    "plain": lambda nn: nn.Linear(3, 2, bias=False),
    "norm": lambda nn: nn.LayerNorm(5),
    "relu": lambda nn: nn.ReLU(),
    "block": lambda nn: TorchBlock() if nn is torch.nn else Block(),
}
trees = st.recursive(
    st.sampled_from(sorted(LEAVES)),
    lambda inner: st.one_of(
        st.tuples(st.just("Sequential"), st.lists(inner, max_size=3)),
        st.tuples(st.just("ModuleList"), st.lists(inner, max_size=3)),
        st.tuples(
            st.just("ModuleDict"), st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
        ),
        st.tuples(st.just("again"), inner),
    ),
    max_leaves=7,
)


def build(tree, nn):
    if isinstance(tree, str):
        return LEAVES[tree](nn)
    kind, inside = tree
    if kind == "again":  # the same module twice
        module = build(inside, nn)
        return nn.ModuleList([module, module])
    if kind == "ModuleDict":
        return nn.ModuleDict({key: build(value, nn) for key, value in inside.items()})
    parts = [build(part, nn) for part in inside]
    return nn.Sequential(*parts) if kind == "Sequential" else nn.ModuleList(parts)


def described(module):
    """Names and shapes of everything, as both frameworks tell them."""

    def shapes(pairs):
        return [(name, tuple(tensor.shape)) for name, tensor in pairs]

    return {
        "parameters": shapes(module.named_parameters()),
        "all": shapes(module.named_parameters(remove_duplicate=False)),
        "own": shapes(module.named_parameters("p", recurse=False)),
        "buffers": shapes(module.named_buffers()),
        "modules": [(n, type(m).__name__) for n, m in module.named_modules()],
        "all modules": [n for n, _ in module.named_modules(remove_duplicate=False)],
        "children": [n for n, _ in module.named_children()],
        "state": shapes(module.state_dict().items()),
        "prefixed": list(module.state_dict(prefix="x.")),
    }


@given(trees)
def test_walking_equals_torch(tree):
    """B2.24."""
    ours, theirs = build(tree, nn), build(tree, torch.nn)
    expected = described(theirs)
    expected["modules"] = [(n, k.removeprefix("Torch")) for n, k in expected["modules"]]
    assert described(ours) == expected
    assert repr(ours) == repr(theirs).replace("TorchBlock", "Block")


@given(trees)
def test_states_travel_both_ways(tree):
    ours, theirs = build(tree, nn), build(tree, torch.nn)
    for p in theirs.parameters():
        torch.nn.init.normal_(p)
    assert str(ours.load_state_dict(theirs.state_dict())) == "<All keys matched successfully>"
    there = build(tree, torch.nn)
    there.load_state_dict({k: torch.tensor(v.numpy()) for k, v in ours.state_dict().items()})
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(there.state_dict()[name], tensor)
        assert np.array_equal(ours.state_dict()[name].numpy(), tensor.numpy())


@given(trees)
def test_apply_and_modes(tree):
    """B2.29."""
    ours, theirs = build(tree, nn), build(tree, torch.nn)
    seen, expected = [], []
    assert ours.apply(lambda m: seen.append(type(m).__name__)) is ours
    theirs.apply(lambda m: expected.append(type(m).__name__.removeprefix("Torch")))
    assert seen == expected
    assert not any(m.training for m in ours.eval().modules())
    assert all(m.training for m in ours.train().modules())
    ours.requires_grad_(False)
    assert not any(p.requires_grad for p in ours.parameters())
    ours.requires_grad_()
    assert all(p.requires_grad for p in ours.parameters())


def test_mode_must_be_a_bool():
    with pytest.raises(ValueError, match="True or False"):
        nn.ReLU().train(3)


# ---- containers


ENTRIES = [nn.Identity() for _ in range(5)]
commands = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.sampled_from(ENTRIES)),
        st.tuples(st.just("extend"), st.lists(st.sampled_from(ENTRIES), max_size=3)),
        st.tuples(st.just("insert"), st.integers(-4, 4), st.sampled_from(ENTRIES)),
        st.tuples(st.just("pop"), st.integers(-4, 4)),
        st.tuples(st.just("__setitem__"), st.integers(-4, 4), st.sampled_from(ENTRIES)),
        st.tuples(st.just("__delitem__"), st.integers(-4, 4)),
        st.tuples(st.just("__delitem__"), st.slices(5)),
    ),
    max_size=8,
)


@given(commands, st.sampled_from([nn.ModuleList, nn.Sequential]), st.slices(5))
def test_lists_behave_like_lists(commands, kind, part):
    ours, plain = kind(), []
    for name, *args in commands:
        try:
            getattr(plain, name)(*args)
        except IndexError:
            with pytest.raises(IndexError, match="out of range"):
                getattr(ours, name)(*args)
        else:
            getattr(ours, name)(*args)
        assert list(ours) == plain and len(ours) == len(plain)
        assert list(ours.state_dict()) == []
        assert [n for n, _ in ours.named_modules(remove_duplicate=False)][1:] == [
            str(i) for i in range(len(plain))
        ]
    assert list(ours[part]) == plain[part] and type(ours[part]) is kind
    assert list(ours + ENTRIES) == plain + ENTRIES
    ours += ENTRIES
    assert [ours[i] for i in range(-len(ours), 0)] == plain + ENTRIES


def test_sequential_by_name():
    parts = {"first": nn.Linear(3, 5), "act": nn.ReLU(), "last": nn.Linear(5, 2)}
    model = nn.Sequential(parts)
    assert model.first is parts["first"] and model[-1] is parts["last"]
    assert list(model[1:].state_dict()) == ["last.weight", "last.bias"]
    assert model(tg.ones(7, 3)).shape == (7, 2)
    with pytest.raises(TypeError, match="Sequential: int is not a Module"):
        nn.Sequential(nn.ReLU(), 3)
    with pytest.raises(IndexError, match="index 3 is out of range, it has 3 entries"):
        model[3]


def test_module_dict():
    d = nn.ModuleDict({"a": nn.ReLU(), "b": nn.Tanh()})
    d["c"] = nn.Linear(2, 3)
    assert list(d) == list(d.keys()) == ["a", "b", "c"] and len(d) == 3 and "b" in d
    assert [type(m).__name__ for m in d.values()] == ["ReLU", "Tanh", "Linear"]
    assert d.pop("a").__class__ is nn.ReLU and dict(d.items()) == {"b": d["b"], "c": d["c"]}
    with pytest.raises(KeyError, match="ModuleDict has no 'a'; it has b, c"):
        d["a"]
    with pytest.raises(KeyError, match="already exists"):
        d["keys"] = nn.ReLU()
    with pytest.raises(TypeError, match="float is not a Module"):
        d["d"] = 1.0
    d.clear()
    assert len(d) == 0


def test_parameters_in_lists_and_dicts():
    a, b = tg.ones(2), nn.Parameter(tg.zeros(3))
    model = nn.Module()
    model.list, model.dict = nn.ParameterList([a, b]), nn.ParameterDict({"u": a, "v": b})
    assert isinstance(model.list[0], nn.Parameter) and model.list[1] is b is model.dict["v"]
    assert [n for n, _ in model.named_parameters()] == ["list.0", "list.1", "dict.u"]
    assert "(1): Parameter containing: [float32 of size 3]" in repr(model.list)
    with pytest.raises(TypeError, match="ParameterList: int is not a Tensor"):
        model.list.append(3)


# ---- states


def test_state_dict_is_a_view():
    block = Block()
    state = block.state_dict()
    assert list(state) == ["scale", "count", "inner.weight", "inner.bias"]
    assert not any(t.requires_grad for t in state.values())
    state["scale"].array[0] = 7
    assert block.scale.array[0] == 7
    assert block.state_dict(keep_vars=True)["scale"] is block.scale


def bad_state():
    state = {k: v.clone() for k, v in Block(5).state_dict().items()}
    state["inner.wieght"] = state.pop("inner.weight")
    state["scale"] = tg.ones(7)
    return state


def test_what_does_not_fit_is_told_at_once_and_nothing_is_changed():
    block = Block(5)
    before = {k: v.clone() for k, v in block.state_dict().items()}
    with pytest.raises(RuntimeError) as caught:
        block.load_state_dict(bad_state())
    text = str(caught.value)
    assert text.startswith("Error(s) in loading state_dict for Block:\n\tMissing key(s)")
    assert 'Missing key(s) in state_dict: "inner.weight". ' in text
    assert 'Unexpected key(s) in state_dict: "inner.wieght". ' in text
    assert '"inner.wieght" resembles the missing "inner.weight"' in text
    assert "size mismatch for scale: copying a param with shape (7,) from checkpoint" in text
    assert "the shape in current model is (5,)." in text
    with pytest.raises(RuntimeError, match="size mismatch for scale"):
        block.load_state_dict(bad_state(), strict=False)
    for name, tensor in block.state_dict().items():
        assert np.array_equal(tensor.numpy(), before[name].numpy())


@pytest.mark.parametrize("words", ["Missing key", "Unexpected key", "size mismatch for scale"])
def test_the_same_sentences_as_torch(words):
    theirs = {k: torch.tensor(v.numpy()) for k, v in bad_state().items()}
    with pytest.raises(RuntimeError, match=re.escape(words)):
        TorchBlock(5).load_state_dict(theirs)


def test_loading_without_strict():
    block = Block()
    result = block.load_state_dict({"scale": np.full(3, 2.0), "other": 1}, strict=False)
    assert result.missing_keys == ["count", "inner.weight", "inner.bias"]
    assert result.unexpected_keys == ["other"]
    assert block.scale.tolist() == [2, 2, 2] and block.scale.dtype == tg.float32
    assert repr(result).startswith("IncompatibleKeys(missing=['count'")
    with pytest.raises(TypeError, match="dict-like, got list"):
        block.load_state_dict([])
    with pytest.raises(RuntimeError, match="scale is no tensor"):
        block.load_state_dict({"scale": "three"}, strict=False)


def test_loading_by_assignment_keeps_the_parameter():
    layer = nn.Linear(3, 2, bias=False)
    before, given = layer.weight, tg.ones(2, 3, dtype=tg.float64)
    layer.load_state_dict({"weight": given}, assign=True)
    assert layer.weight is before and before.array is given.array and before.requires_grad


def test_loading_is_seen_by_backward():
    layer = nn.Linear(3, 3, bias=False)
    x = tg.ones(2, 3, requires_grad=True)
    y = layer(x)
    layer.load_state_dict({"weight": tg.ones(3, 3)})
    with pytest.raises(RuntimeError, match="changed in place"):
        y.sum().backward()


def test_conversion_keeps_the_tensors():
    block = Block()
    block.register_buffer("steps", tg.arange(3))
    before = list(block.parameters())
    block(tg.ones(2, 3)).sum().backward()
    assert block.double() is block
    assert all(a is b for a, b in zip(block.parameters(), before, strict=True))
    assert {p.dtype for p in block.parameters()} == {np.dtype("float64")}
    assert {p.grad.dtype for p in block.parameters()} == {np.dtype("float64")}
    assert block.count.dtype == tg.float64 and block.steps.dtype == tg.int64
    block(tg.ones(2, 3, dtype=tg.float64)).sum().backward()
    assert block.to("cpu", tg.float32).scale.dtype == tg.float32
    assert block.to(tg.ones(1, dtype=tg.float64)).scale.dtype == tg.float64
    assert block.half().scale.dtype == tg.float16 and block.bfloat16().scale.dtype == tg.bfloat16
    assert block.float().scale.dtype == tg.float32 and block.cpu() is block
    assert block.type(tg.float64).steps.dtype == tg.float64
    with pytest.raises(TypeError, match="only floating-point dtypes"):
        block.to(tg.int32)


def test_zero_grad():
    block = Block()
    block(tg.ones(2, 3)).sum().backward()
    kept = block.scale.grad.array
    block.zero_grad(set_to_none=False)
    assert block.scale.grad.array is kept and not kept.any()
    block.zero_grad()
    assert all(p.grad is None for p in block.parameters())


# ---- hooks


def test_forward_hooks():
    layer, log = nn.Linear(3, 2), []
    x = tg.ones(5, 3)
    plain = layer(x)
    first = layer.register_forward_pre_hook(lambda m, args: log.append("pre") or (args[0] * 2,))
    layer.register_forward_pre_hook(lambda m, args: log.append("before"), prepend=True)
    second = layer.register_forward_hook(
        lambda m, args, out: log.append("post") or out - layer.bias
    )
    y = layer(x)
    assert log == ["before", "pre", "post"]
    assert np.allclose(y.detach().numpy(), 2 * (plain - layer.bias).detach().numpy())
    first.remove(), second.remove()
    assert np.array_equal(layer(x).detach().numpy(), plain.detach().numpy())
    with layer.register_forward_hook(lambda m, args, out: out * 0):
        assert not layer(x).detach().numpy().any()
    assert layer(x).detach().numpy().any()


def test_forward_hooks_with_kwargs():
    class Scale(nn.Module):
        def forward(self, x, *, by=1):
            return x * by

    module, seen = Scale(), []
    module.register_forward_pre_hook(lambda m, a, k: (a, {"by": k["by"] + 1}), with_kwargs=True)
    module.register_forward_hook(lambda m, a, k, out: seen.append(k), with_kwargs=True)
    assert module(tg.ones(1), by=2).tolist() == [3] and seen == [{"by": 3}]
    module.register_forward_pre_hook(lambda m, a, k: 3, with_kwargs=True)
    with pytest.raises(RuntimeError, match=r"returns None or \(args, kwargs\), not int"):
        module(tg.ones(1), by=2)


def test_always_called_hooks():
    layer, log = nn.Linear(3, 2), []
    layer.register_forward_hook(lambda m, a, out: log.append(out), always_call=True)
    layer.register_forward_hook(lambda m, a, out: log.append("never"))
    with pytest.raises(RuntimeError):
        layer(tg.ones(5, 7))
    assert log == [None]
    layer.register_forward_hook(lambda m, a, out: operator.truediv(1, 0), always_call=True)
    with pytest.warns(UserWarning, match="failed, too"), pytest.raises(RuntimeError):
        layer(tg.ones(5, 7))


class TwoInTwoOut:
    """(x w, number, x + y) of (x, number, y)"""

    def __init__(self, ones):
        super().__init__()
        self.w = self.wrap(ones)

    def forward(self, x, number, y):
        return x * self.w, number, x + y


class OurTwo(TwoInTwoOut, nn.Module):
    wrap = nn.Parameter


class TheirTwo(TwoInTwoOut, torch.nn.Module):
    wrap = torch.nn.Parameter


def run_two(framework, module_class, moving, hooks):
    """What the hooks saw, and the gradients."""
    ones = framework.ones(3, dtype=framework.float64)
    module, log = module_class(ones.clone()), []
    for name, hook in hooks:
        getattr(module, name)(hook(framework, log))
    x = framework.tensor([1.0, 2.0, 3.0], dtype=framework.float64, requires_grad="x" in moving)
    y = framework.tensor([4.0, 5.0, 6.0], dtype=framework.float64, requires_grad="y" in moving)
    a, _, b = module(x * 1, 7, y * 1)
    (a * framework.tensor([1.0, 10.0, 100.0], dtype=framework.float64) + b).sum().backward()
    return log, [None if t.grad is None else t.grad.tolist() for t in (x, y, module.w)]


def listed(gradients):
    return tuple(None if g is None else g.tolist() for g in gradients)


def watch(framework, log):
    return lambda m, gi, go: log.append((listed(gi), listed(go)))


def watch_before(framework, log):
    return lambda m, go: log.append(listed(go))


def double_inputs(framework, log):
    return lambda m, gi, go: tuple(None if g is None else g * 2 for g in gi)


def double_outputs(framework, log):
    return lambda m, go: tuple(None if g is None else g * 2 for g in go)


BEFORE, AFTER = "register_full_backward_pre_hook", "register_full_backward_hook"


def without_zeros(log, moving):
    """Beside a tensor that needs a gradient, PyTorch gives zeros for one that needs none."""
    fixed = []
    for entry in log:
        if len(entry) == 2:  # (grad_input, grad_output)
            x, number, y = entry[0]
            entry = ((x if "x" in moving else None, number, y if "y" in moving else None), entry[1])
        fixed.append(entry)
    return fixed


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("moving", ["x", "y", "xy", ""])
@pytest.mark.parametrize(
    "hooks",
    [
        [(AFTER, watch)],
        [(BEFORE, watch_before), (AFTER, watch)],
        [(BEFORE, double_outputs), (BEFORE, watch_before), (AFTER, watch)],
        [(AFTER, double_inputs), (AFTER, watch)],
        [(BEFORE, watch_before)],
    ],
)
def test_backward_hooks_equal_torch(moving, hooks):
    if not moving and (AFTER, double_inputs) in hooks:
        pytest.skip("nothing to replace")
    ours = run_two(tg, OurTwo, moving, hooks)
    log, expected = run_two(torch, TheirTwo, moving, hooks)
    assert ours == (without_zeros(log, moving), expected)


def test_backward_hooks_that_return_nonsense():
    def two(hook, moving="xy"):
        run_two(tg, OurTwo, moving, [(AFTER, lambda framework, log: hook)])

    with pytest.raises(RuntimeError, match="returned 1 gradients, 3 were given"):
        two(lambda m, gi, go: gi[0])
    with pytest.raises(RuntimeError, match="no input requires grad"):
        two(lambda m, gi, go: go, moving="")
    run_two(tg, OurTwo, "", [(AFTER, lambda framework, log: lambda m, gi, go: gi)])


@pytest.mark.parametrize("power", [1, 2])
def test_backward_hooks_and_second_derivatives(power):
    """With power 1 the second pass does not go through the layer's output: no hook is called."""

    def run(framework, nn):
        layer, seen = nn.Linear(3, 1, bias=False, dtype=framework.float64), []
        with framework.no_grad():
            layer.weight[...] = framework.tensor([[2.0, -3.0, 5.0]])
        layer.register_full_backward_hook(lambda m, gi, go: seen.append((gi[0], listed(go))))
        x = framework.ones(2, 3, dtype=framework.float64, requires_grad=True)
        loss = layer(x * x).sum() if power == 1 else layer(x * x).square().sum()
        (g,) = framework.autograd.grad(loss, x, create_graph=True)
        assert seen[0][0].requires_grad
        (g**2).sum().backward()
        return [(gi.tolist(), go) for gi, go in seen], x.grad.tolist(), layer.weight.grad.tolist()

    ours, theirs = run(tg, nn), run(torch, torch.nn)
    assert ours == theirs
    assert len(ours[0]) == power


def test_backward_hooks_do_nothing_without_grad():
    layer = nn.Linear(3, 2)
    layer.register_full_backward_hook(lambda m, gi, go: pytest.fail("called"))
    with tg.no_grad():
        assert layer(tg.ones(1, 3)).node is None


# ---- summary


def test_summary():
    model = nn.Sequential(nn.Embedding(7, 5), nn.Sequential(nn.Linear(5, 3), nn.Dropout(0.5)))
    model[1][0].bias.requires_grad_(False)
    model[1][1].eval()
    text = nn.summary(model, tg.zeros(2, 11, dtype=tg.int64))
    assert [line.split() for line in text.splitlines()] == [
        ["module", "output", "parameters"],
        ["Sequential", "(2,", "11,", "3)", "53"],
        ["0:", "Embedding", "(2,", "11,", "5)", "35"],
        ["1:", "Sequential", "(2,", "11,", "3)", "18"],
        ["0:", "Linear", "(2,", "11,", "3)", "18"],
        ["1:", "Dropout", "(2,", "11,", "3)", "0"],
        ["total:", "53", "parameters,", "3", "of", "them", "frozen,", "212", "bytes"],
    ]
    assert model.training and not model[1][1].training and not model._hooks
    assert nn.summary(model).splitlines()[1].split() == ["Sequential", "53"]


def test_summary_counts_tied_parameters_once_and_puts_the_modes_back():
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    assert nn.summary(model).endswith("total: 9 parameters, 36 bytes")
    with pytest.raises(RuntimeError):
        nn.summary(model, tg.ones(2, 7))
    assert model.training and not model._hooks


def test_the_short_name_is_refused(monkeypatch):
    with pytest.raises(ImportError, match="from tensorgrad import nn"):
        __import__("nn")
