"""Diagnostics measure what PyTorch and the lecture's formulas give, and put the model back."""

import json
import math

import numpy as np
import pytest
import torch

import tensorgrad as tg
import tensorgrad.nn.functional as F
from tensorgrad import mode, nn, optim
from tensorgrad.__main__ import main
from tensorgrad.models.deep import Deep, DeepConfig
from tensorgrad.models.diagnostics import (
    diagnose,
    find_learning_rate,
    preserved,
    watch_layers,
    watch_updates,
)
from tensorgrad.models.diagnostics.diagnosis import Finding, on_gradients, on_rates, on_updates
from tensorgrad.models.diagnostics.layers import FLAT, Layer
from tensorgrad.models.diagnostics.rates import RateCurve, curve
from tensorgrad.models.diagnostics.updates import Updates

B, C, H, V = 11, 5, 13, 7


class Net(nn.Module):
    """Tanh as a module, relu as a function: both are seen."""

    def __init__(self):
        super().__init__()
        self.a, self.act = nn.Linear(C, H), nn.Tanh()
        self.b, self.c = nn.Linear(H, H), nn.Linear(H, V)

    def forward(self, x):
        return self.c(self.b(self.act(self.a(x))).relu())


def torch_net():
    net = torch.nn.Module()
    net.a, net.act = torch.nn.Linear(C, H), torch.nn.Tanh()
    net.b, net.c = torch.nn.Linear(H, H), torch.nn.Linear(H, V)
    return net.double()


def numbers(*shape, seed=0, scale=1.0):
    return scale * np.random.default_rng(seed).standard_normal(shape)


def twins(scale=1.5):
    ours, theirs = Net().double(), torch_net()
    state = {
        name: numbers(*p.shape, seed=i, scale=scale)
        for i, (name, p) in enumerate(theirs.named_parameters())
    }
    ours.load_state_dict(state)
    theirs.load_state_dict({name: torch.from_numpy(v) for name, v in state.items()})
    return ours, theirs


def batch(seed=9):
    return numbers(B, C, seed=seed), np.random.default_rng(seed).integers(0, V, B)


def closure(model, seed=9):
    x, y = (tg.tensor(v) for v in batch(seed))
    return lambda: F.cross_entropy(model(x), y)


class Everything(nn.Module):
    """All that a pass can change: running statistics, dropout's stream, modes of its parts."""

    def __init__(self):
        super().__init__()
        self.a, self.bn, self.drop = nn.Linear(C, H), nn.BatchNorm1d(H), nn.Dropout(0.5)
        self.c = nn.Linear(H, V)

    def forward(self, x):
        return self.c(self.drop(F.gelu(self.bn(self.a(x)))))


# ---- nothing is left behind


def facts(model):
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        "values": {name: t.detach().numpy().tobytes() for name, t in tensors.items()},
        "tensors": {name: id(t) for name, t in tensors.items()},
        "grads": {name: None if t.grad is None else id(t.grad) for name, t in tensors.items()},
        "slopes": [t.grad.numpy().tobytes() for t in tensors.values() if t.grad is not None],
        "modes": [module.training for module in model.modules()],
        "hooks": [len(module._hooks) for module in model.modules()],
        "stream": tg.get_rng_state().numpy().tobytes(),
        "engine": (mode.careful, mode.thread.watchers, mode.thread.grad),
    }  # fmt: skip


@pytest.fixture
def used():
    """A model in the middle of its life: one part in evaluation mode, gradients on some weights."""
    tg.manual_seed(3)
    model = Everything()
    x, y = (tg.tensor(v) for v in batch())
    F.cross_entropy(model(x.float()), y).backward()
    model.a.bias.grad = None
    model.drop.eval()
    return model


def loss_of(model):
    x, y = batch()
    x, y = tg.tensor(x).float(), tg.tensor(y)
    return lambda: F.cross_entropy(model(x), y)


@pytest.mark.parametrize(
    "examine",
    [
        watch_layers,
        lambda model, loss: watch_updates(model, loss, 5),
        lambda model, loss: find_learning_rate(model, loss, steps=7),
        lambda model, loss: diagnose(model, loss, steps=5, classes=V, optimizer=optim.AdamW),
    ],
    ids=["layers", "updates", "rates", "all"],
)
def test_the_model_is_put_back(examine, used):
    before = facts(used)
    examine(used, loss_of(used))
    assert facts(used) == before


def test_the_model_is_put_back_after_an_error(used):
    before, loss = facts(used), loss_of(used)
    calls = []

    def fails():
        calls.append(loss())
        used.c.weight.data.zero_()
        used.c(tg.zeros(2, H + 1))  # inside a module, whose hooks must not stay

    for examine in (watch_layers, watch_updates, find_learning_rate):
        with pytest.raises(RuntimeError):
            examine(used, fails)
        assert facts(used) == before
    assert len(calls) == 3


def test_a_model_without_gradients_starts_without(used):
    with preserved(used):
        assert all(p.grad is None for p in used.parameters())


# ---- layers


def test_layers_are_what_pytorch_sees():
    """G2.d4: mean, spread of each output and its gradient, the share that is level, dead units."""
    ours, theirs = twins()
    x, y = (torch.from_numpy(v) for v in batch())
    outs = {}
    outs["a"] = theirs.a(x)
    outs["act"] = theirs.act(outs["a"])
    outs["b"] = theirs.b(outs["act"])
    outs["relu"] = torch.relu(outs["b"])
    outs["c"] = theirs.c(outs["relu"])
    for out in outs.values():
        out.retain_grad()
    torch.nn.functional.cross_entropy(outs["c"], y).backward()

    layers = watch_layers(ours, closure(ours))
    assert [(layer.name, layer.kind) for layer in layers] == [
        ("a", "Linear"), ("act", "tanh"), ("b", "Linear"), ("relu", "relu"), ("c", "Linear"),
    ]  # fmt: skip
    for layer in layers:
        out = outs[layer.name]
        expected = [out.mean(), out.std(correction=0), out.grad.mean(), out.grad.std(correction=0)]
        found = [layer.mean, layer.std, layer.grad_mean, layer.grad_std]
        np.testing.assert_allclose(found, [e.item() for e in expected], rtol=1e-9, atol=1e-15)
        assert layer.shape == tuple(out.shape)
        for edges, density in (layer.histogram, layer.grad_histogram):
            widths = np.diff(edges)
            assert (widths * density).sum() == pytest.approx(1)
    tanh, relu = layers[1], layers[3]
    saturated = outs["act"].abs() > 0.97
    assert tanh.flat == pytest.approx(saturated.double().mean().item()) and 0 < tanh.flat < 1
    assert tanh.dead == saturated.all(0).sum()
    assert relu.flat == pytest.approx((outs["relu"] == 0).double().mean().item())
    assert relu.dead == (outs["relu"] == 0).all(0).sum()
    assert tanh.units == relu.units == H


def test_dead_units_are_found():
    model, loss = Net().double(), None
    with tg.no_grad():
        model.b.bias.zero_()
        model.b.bias[2] = model.b.bias[7] = -100
    loss = closure(model)
    layer = next(layer for layer in watch_layers(model, loss) if layer.kind == "relu")
    assert layer.frozen[[2, 7]].all()
    assert layer.dead == layer.frozen.sum() >= 2
    text = [str(f) for f in diagnose(model, loss, steps=3).findings]
    assert any(f"relu: {layer.dead} of 13 units pass no gradient" in line for line in text)


def test_units_of_images_are_channels():
    class Images(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 5, 3)

        def forward(self, x):
            return self.conv(x).relu().mean()

    model = Images()
    with tg.no_grad():
        model.conv.bias[3] = -1000
    x = tg.randn(3, 2, 11, 7)
    relu = watch_layers(model, lambda: model(x))[-1]
    assert (relu.name, relu.shape, relu.units) == ("relu", (3, 5, 9, 5), 5)
    assert relu.frozen[3]


@pytest.mark.parametrize(
    "module", [nn.Tanh(), nn.ReLU(), nn.GELU(), nn.SiLU(), nn.Sigmoid(), nn.LeakyReLU(), nn.ELU()]
)
def test_a_nonlinear_module_is_one_layer(module):
    """Alone or inside, under its own name, with the share that is level."""
    x = tg.tensor(numbers(B, C), requires_grad=True)
    (alone,) = watch_layers(module, lambda: module(x).sum())
    assert alone.name == type(module).__name__ and alone.flat is not None
    net = nn.Sequential(nn.Linear(C, C).double(), module)
    first, inside = watch_layers(net, lambda: net(x).sum())
    assert (first.name, inside.name) == ("0", "1") and inside.nonlinear and not first.nonlinear


def test_a_module_that_runs_twice_is_two_layers():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.act = nn.Linear(C, C), nn.Tanh()

        def forward(self, x):
            return self.act(self.a(self.act(self.a(x)))).sum()

    model, x = Twice(), tg.randn(B, C)
    names = [layer.name for layer in watch_layers(model, lambda: model(x))]
    assert names == ["a", "act", "a (2)", "act (2)"]


@pytest.mark.parametrize("kind", [kind for kind in FLAT if kind != "leaky_relu"])
def test_where_a_nonlinearity_is_level_its_slope_is_small(kind):
    x = torch.linspace(-60, 60, 20001, dtype=torch.float64, requires_grad=True)
    out = getattr(torch.nn.functional, kind)(x)
    out.sum().backward()
    level = FLAT[kind](x.detach().numpy(), out.detach().numpy())
    slope = x.grad.abs().numpy()
    assert level.any() and not level.all()
    assert slope[level].max() < 0.06
    assert slope[~level].max() > 0.2
    if kind not in ("gelu", "silu", "mish"):  # whose slopes cross zero on the way
        assert slope[~level & (np.abs(x.detach().numpy()) < 1)].min() > (
            0 if "relu" in kind else 0.1
        )


def test_leaky_relu_has_no_level_part():
    assert not FLAT["leaky_relu"](np.array([-9.0, 9.0]), np.array([-0.09, 9.0])).any()


# ---- updates


def test_updates_are_the_lectures():
    """G2.d6: log10((lr * grad).std() / data.std()) of each matrix, after each step of descent."""
    ours, theirs = twins(0.5)
    lr, losses = 0.3, []
    expected = {name: [] for name, p in theirs.named_parameters() if p.dim() == 2}
    x, y = (torch.from_numpy(v) for v in batch())
    for _ in range(5):
        hidden = theirs.b(theirs.act(theirs.a(x))).relu()
        loss = torch.nn.functional.cross_entropy(theirs.c(hidden), y)
        theirs.zero_grad()
        loss.backward()
        losses.append(loss.item())
        with torch.no_grad():
            for name, p in theirs.named_parameters():
                p -= lr * p.grad
                if name in expected:
                    ratio = ((lr * p.grad).std() / p.std()).log10()
                    expected[name].append(ratio.item())
    updates = watch_updates(ours, closure(ours), 5, lambda ps: optim.SGD(ps, lr=lr))
    np.testing.assert_allclose(updates.losses, losses, rtol=1e-10)
    assert list(updates.ratios) == list(expected)
    for name, ratios in expected.items():
        np.testing.assert_allclose(updates.ratios[name], ratios, rtol=1e-8)


def test_a_weight_that_does_not_move_is_told():
    model = Net().double()
    model.b.weight.requires_grad_(False)
    x, y = (tg.tensor(v) for v in batch())
    updates = watch_updates(model, lambda: F.cross_entropy(model(x), y), 4)
    assert list(updates.ratios) == ["a.weight", "c.weight"]
    alone = nn.Linear(C, V).double()  # whose weight the loss does not ask for
    stuck = watch_updates(alone, lambda: (alone.bias**2).sum(), 3)
    assert stuck.ratios["weight"] == [-math.inf] * 3
    assert [f.sentence for f in on_updates(stuck)] == ["weight does not move"]
    assert stuck.figures()["ratios"]["weight"] == [None] * 3


# ---- the learning-rate finder


class Parabola(nn.Module):
    """a w^2 / 2, a bowl steeper in each of 7 directions: descent diverges from lr = 2 / a on."""

    def __init__(self, a):
        super().__init__()
        self.a = a * tg.arange(1, 8, dtype=tg.float64) / 7
        self.w = nn.Parameter(tg.ones(7, dtype=tg.float64))

    def forward(self):
        return (self.a * self.w**2).sum() / 2


@pytest.mark.parametrize("a", [0.1, 1.0, 17.0])
def test_the_finder_sees_where_descent_diverges(a):
    """Beyond 2 / a the steepest direction grows; so it does whatever the unit of the loss is."""
    model = Parabola(a)
    found = find_learning_rate(model, model, 1e-3 / a, 100 / a, 80)
    assert 0.05 < a * found.steepest < 1 < a * found.lowest < 10
    assert found.rates[-1] < 100 / a  # it stopped when the loss had exploded
    one = Parabola(1.0)
    expected = find_learning_rate(one, one, 1e-3, 100, 80)
    assert a * found.steepest == pytest.approx(expected.steepest)
    assert a * found.lowest == pytest.approx(expected.lowest)


@pytest.mark.parametrize("steps", [2, 3, 211])
def test_the_finder_has_a_loop_of_its_own(steps):
    """B2.17: as many batches as rates, evenly spaced by their logarithm, whatever training does."""
    model, calls = Net().double(), []
    loss = closure(model)

    def counted():
        calls.append(1)
        return loss()

    found = find_learning_rate(model, counted, 1e-5, 1e-3, steps)
    assert len(calls) == len(found.rates) == len(found.losses) == len(found.smooth) == steps
    np.testing.assert_allclose(found.rates, np.logspace(-5, -3, steps), rtol=1e-12)
    first = loss().item()
    assert found.losses[0] == pytest.approx(first, rel=1e-12)  # before any step


def test_the_finder_trains_at_the_rates_it_names():
    """G2.c3."""
    model = Parabola(1.0)
    found = find_learning_rate(model, model, 1e-2, 0.5, 9)
    w, a, losses = np.ones(7), np.arange(1, 8) / 7, []
    for rate in np.geomspace(1e-2, 0.5, 9):
        losses.append((a * w**2).sum() / 2)
        w = w - rate * a * w
    np.testing.assert_allclose(found.losses, losses, rtol=1e-12)


def test_steepest_and_lowest_of_a_known_curve():
    """A loss that falls as a logistic curve around 1e-2 and turns at 1."""
    x = np.linspace(-4, 1, 251)
    losses = 3 - 1 / (1 + np.exp(-4 * (x + 2))) + np.where(x > 0, x**2, 0)
    found = curve((10**x).tolist(), losses.tolist())
    assert found.steepest == pytest.approx(1e-2, rel=0.3)
    assert 0.2 < found.lowest < 1.5


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"low": 0.0}, "wants 0 < low < high"),
        ({"low": 1.0, "high": 0.1}, "wants 0 < low < high and at least 2 steps, not 1.0, 0.1"),
        ({"steps": 1}, "at least 2 steps"),
        ({"high": math.inf}, "wants 0 < low < high"),
        ({"low": 1e9, "high": 1e10}, "grew at once, at the rate 1000000000.0; take a lower `low`"),
    ],
)
def test_ranges_that_make_no_curve(options, sentence):
    model = Parabola(1.0)
    with pytest.raises(ValueError, match=sentence):
        find_learning_rate(model, model, **options)
    np.testing.assert_array_equal(model.w.detach(), np.ones(7))


# ---- verdicts


def words(n=200, T=3):
    draws = np.random.default_rng(1)
    return tg.tensor(draws.integers(0, 27, (n, T))), tg.tensor(draws.integers(0, 27, n))


def test_the_initial_loss_is_held_against_ln_v():
    """B2.16: scaled first weights begin near ln 27; unscaled ones far above, which is told."""
    x, y = words()
    tg.manual_seed(1)
    deep = Deep(DeepConfig(vocab_size=27))
    good = diagnose(deep, lambda: deep(x, y)[1], steps=3, classes=27)
    assert good.initial_loss == pytest.approx(math.log(27), abs=0.05)
    first = good.findings[0]
    assert first.about == "initial loss" and first.well and "ln 27 = 3.2958" in first.sentence

    net = nn.Sequential(nn.Embedding(27, 10), nn.Flatten(), nn.Linear(30, 200), nn.Tanh(),
                        nn.Linear(200, 27))  # fmt: skip
    with tg.no_grad():
        for p in net.parameters():
            p.copy_(tg.randn(*p.shape))
    bad = diagnose(net, lambda: F.cross_entropy(net(x), y), steps=3, classes=27)
    assert bad.initial_loss > 10
    told = {f.about: f for f in bad.findings}
    assert not told["initial loss"].well and "confident and wrong" in told["initial loss"].sentence
    assert not told["saturation"].well
    share = 100 * next(layer.flat for layer in bad.layers if layer.kind == "tanh")
    assert f"3 (tanh): {share:.0f} % of its values are saturated" in told["saturation"].sentence
    assert str(told["saturation"]).startswith("look  saturation: ")


def layer_with(name, grad_std):
    return Layer(name, "tanh", (2, 3), 0.0, 1.0, ([], []), flat=0.0, dead=0, units=3,
                 grad_std=grad_std)  # fmt: skip


@pytest.mark.parametrize(
    ("first", "last", "verdict"),
    [(1e-7, 1e-3, "vanish on the way down"), (1.0, 1e-3, "grow on the way down"), (2.0, 1.0, None)],
)
def test_gradients_that_vanish_or_grow(first, last, verdict):
    (finding,) = on_gradients([layer_with("one", first), layer_with("two", last)])
    assert finding.well == (verdict is None)
    assert verdict is None or verdict in finding.sentence


@pytest.mark.parametrize(
    ("rate", "well", "part"), [(0.1, True, "at 1.0e-01"), (3.0, False, "too much"),
                               (1e-3, False, "timid")],
)  # fmt: skip
def test_rates_too_high_and_too_low(rate, well, part):
    (finding,) = on_rates(RateCurve([], [], [], steepest=0.05, lowest=0.5), rate)
    assert finding.well == well and part in finding.sentence


def test_updates_too_slow_and_too_fast():
    ratios = {"slow": [-5.0] * 9, "fast": [-1.0] * 9, "fine": [-1.0] * 4 + [-3.0] * 5}
    told = [(f.well, f.sentence) for f in on_updates(Updates(ratios, []))]
    assert [well for well, _ in told] == [False, False, True]
    assert "slow moves by 10^-5.0 of itself per step, which is slow: a higher rate" in told[0][1]
    assert "fast: a lower rate" in told[1][1]
    assert "1 of 3 matrices move by 10^-3.0 of themselves" in told[2][1]
    quick = on_updates(Updates({"a": [-1.0] * 3, "b": [-1.5] * 3, "c": [-1.2] * 3}, []))
    assert [
        "a (and 2 more) moves by 10^-1.5 to 10^-1.0 of itself" in f.sentence for f in quick
    ] == [True]


def test_findings_read_as_sentences():
    assert str(Finding("updates", True, "fine")) == "ok    updates: fine"


def test_pictures_and_numbers_are_written(tmp_path):
    ours, _ = twins()
    found = diagnose(ours, closure(ours), steps=8, classes=V)
    files = found.save(tmp_path / "new" / "folder")
    assert sorted(f.name for f in files) == sorted(
        f.name for f in (tmp_path / "new/folder").iterdir()
    )
    for file in files[:3]:
        assert file.read_bytes().startswith(b"\x89PNG")
    numbers = json.loads(files[3].read_text())
    assert numbers["uniform_loss"] == pytest.approx(math.log(V))
    assert [layer["name"] for layer in numbers["layers"]] == ["a", "act", "b", "relu", "c"]
    assert numbers["layers"][1]["flat"] == found.layers[1].flat
    assert len(numbers["updates"]["ratios"]["a.weight"]) == 8
    assert numbers["rates"]["lowest"] == found.rates.lowest
    assert [f["sentence"] for f in numbers["findings"]] == [f.sentence for f in found.findings]


def test_a_net_without_nonlinearities_can_be_drawn(tmp_path):
    model = nn.Linear(C, V).double()
    x, y = (tg.tensor(v) for v in batch())
    found = diagnose(model, lambda: F.cross_entropy(model(x), y), steps=4)
    assert [f.about for f in found.findings] == ["updates", "learning rate"]
    assert len(found.save(tmp_path)) == 4


# ---- the command


@pytest.fixture
def words_file(tmp_path):
    file = tmp_path / "words.txt"
    file.write_text("\n".join(["ann", "bob", "eve", "zoe", "amy", "dan", "sue", "tim"] * 5))
    return file


def test_the_command_on_a_model_of_words(words_file, tmp_path, capsys):
    out = tmp_path / "out"
    options = [f"--data={words_file}", f"--out_dir={out}", "--steps=6", "--n-hidden=11"]
    assert main(["diagnose", "mlp", *options]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("plain MLP, ") and told[0].endswith(f"untrained, on {words_file}")
    assert any(line.startswith("ok    initial loss: ") for line in told)
    assert any("learning rate: the loss falls fastest at" in line for line in told)
    assert sorted(f.name for f in out.iterdir()) == [
        "diagnosis.json", "layers.png", "learning_rate.png", "updates.png",
    ]  # fmt: skip
    found = json.loads((out / "diagnosis.json").read_text())
    layer = next(layer for layer in found["layers"] if layer["name"] == "act")
    assert (layer["units"], layer["shape"]) == (11, [32, 11])
    assert found["learning_rate"] == 0.1 and len(found["updates"]["losses"]) == 6


TINY = {"block_size": 7, "n_layer": 1, "n_head": 3, "n_embd": 15, "batch_size": 5}


def test_the_command_on_a_trained_gpt(tmp_path, capsys):
    """The checkpoint's model, settings and data; its attention is drawn; no file of it moves."""
    text = tmp_path / "saying.txt"
    text.write_text("what was will be, and what will be was;\n" * 23)
    run = tmp_path / "run"
    training = {**TINY, "max_iters": 3, "eval_iters": 1, "warmup_iters": 1, "sample_length": 3}
    given = [f"--{name}={value}" for name, value in training.items()]
    assert main(["train", "char-gpt", *given, f"--data={text}", f"--out_dir={run}"]) == 0
    before = {file.name: file.read_bytes() for file in run.iterdir()}
    capsys.readouterr()
    out = tmp_path / "out"
    assert main(["diagnose", "char-gpt", f"--trained={run}", f"--out_dir={out}", "--steps=4"]) == 0
    told = capsys.readouterr().out
    assert "char GPT, " in told and f"trained for 3 steps, on {text}" in told
    assert f"{out / 'attention.png'}" in told and (out / "attention.png").exists()
    assert {file.name: file.read_bytes() for file in run.iterdir()} == before
    found = json.loads((out / "diagnosis.json").read_text())
    assert [layer["name"] for layer in found["layers"]][:2] == ["wte", "wpe"]
    assert any(layer["name"] == "blocks.0.mlp.relu" for layer in found["layers"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["mlp", "--steps=1"], "steps must be at least 2, it is 1"),
        (["mlp", "--trained=nowhere"], "there is no checkpoint"),
        (["mlp", "--n_hidden=0"], "n_hidden must be at least 1, it is 0"),
        (["mlp", "--data=nowhere.txt"], "there is no file"),
    ],
)
def test_diagnoses_that_cannot_be(arguments, sentence, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["diagnose", *arguments, f"--out_dir={out}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("tensorgrad diagnose: ") and sentence in error
    assert not out.exists()


def test_what_is_counted_is_not_diagnosed(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["diagnose", "bigram"])
    assert stop.value.code == 2 and "bigram" in capsys.readouterr().err
