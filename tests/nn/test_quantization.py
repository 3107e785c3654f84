"""int8 weights beside PyTorch's products with the same numbers; what is shared stays so."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tensorgrad as tg
from tensorgrad import nn, twins
from tensorgrad.kernels.cpu import int8, threads
from tensorgrad.models.gpt2 import GPT2Config, GPT2LMHeadModel
from tensorgrad.models.mini_gpt import GPTConfig, MiniGPT
from tensorgrad.nn import Int8Embedding, Int8Linear
from tensorgrad.nn.quantization import quantize, quantize_rows
from tensorgrad.optim import AdamW
from tensorgrad.serialization import load_arrays, save_arrays
from tests.ops.compare import few

N, K = 67, 41


def numbers(*shape, seed=3, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def layer(bias=True):
    linear = nn.Linear(K, N, bias=bias)
    return linear, Int8Linear.of(linear)


@few
@given(
    hnp.arrays(
        np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
        elements=st.floats(-1e6, 1e6, width=32),
    )
)  # fmt: skip
def test_no_weight_is_wrong_by_more_than_half_a_step(w):
    q, s = quantize_rows(tg.tensor(w))
    q, s = q.array.astype(np.float64), s.array.astype(np.float64)[:, None]
    tiny = np.abs(w).max(1) < 127 * np.finfo(np.float32).tiny
    assert (np.abs(w - q * s)[~tiny] <= (s * (0.5 + 1e-4))[~tiny]).all()  # w / s is rounded too
    assert (np.abs(q).max(1) == np.where(tiny, 0, 127)).all(), "the whole range is used"


def test_rows_do_not_disturb_each_other():
    w = numbers(3, 7)
    alone = quantize_rows(tg.tensor(w[:1]))[0].array
    w[1] *= 1e6
    assert np.array_equal(quantize_rows(tg.tensor(w))[0].array[:1], alone)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(wrong):
    with pytest.raises(ValueError, match="not all finite"):
        quantize_rows(tg.tensor([[1.0, wrong]]))


@pytest.mark.parametrize("shape", [(K,), (1, K), (2, 3, K), (0, K), (53, K)])
@pytest.mark.parametrize("bias", [True, False])
def test_the_layer_is_a_linear_with_rounded_weights(shape, bias):
    linear, ours = layer(bias)
    x, weight = numbers(*shape, dtype=np.float64), ours.dequantize().array.astype(np.float64)
    b = None if linear.bias is None else torch.tensor(linear.bias.detach().numpy()).double()
    theirs = torch.nn.functional.linear(torch.tensor(x), torch.tensor(weight), b)
    assert np.allclose(ours(tg.tensor(x)).detach().array, theirs.numpy(), rtol=1e-6, atol=1e-6)
    assert ours(tg.tensor(x)).dtype == tg.float64, "activations keep their dtype"
    near = linear(tg.tensor(x.astype(np.float32))).detach().array
    far = np.abs(near - theirs.numpy()).max(initial=0)
    bound = 0.5 * (ours.scale.array * np.abs(x).sum(-1, keepdims=True)).max(initial=0)
    assert 0 < far <= bound or not x.size


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("m", [1, 2, 5, int8.FEW, int8.FEW + 1, 71])
@pytest.mark.parametrize("rows, columns", [(59, 53), (2, 1361), (int8.BLOCK + 13, 3)])
def test_the_kernel_beside_the_formula(m, rows, columns, dtype, monkeypatch):
    rng = np.random.default_rng(m)
    x, s = numbers(m, columns, dtype=dtype), rng.uniform(0.5, 1.5, rows).astype(dtype)
    w = rng.integers(-127, 128, (rows, columns)).astype(np.int8)
    ours = int8.int8_linear(x, w, s)
    wanted = x.astype(np.float64) @ w.T.astype(np.float64) * s
    tiny = np.finfo(dtype).eps * columns
    assert ours.dtype == dtype
    bound = tiny * (np.abs(x) @ np.abs(w.T.astype(dtype)) * s)
    assert (np.abs(ours - wanted) <= bound).all()
    strided = int8.int8_linear(np.asfortranarray(x), np.asfortranarray(w), np.repeat(s, 2)[::2])
    if m <= int8.FEW:
        assert np.array_equal(strided, ours)
    assert (np.abs(strided - wanted) <= bound).all()
    monkeypatch.setattr(threads, "WORTH", 1e-9)
    monkeypatch.setattr(threads._pool, "size", 3)
    assert np.array_equal(int8.int8_linear(x, w, s), ours), "threads change no bit"


def test_the_kernel_declines_what_it_does_not_know():
    x, w, s = numbers(2, 3), np.ones((5, 3), np.int8), np.ones(5, np.float32)
    assert int8.int8_linear(x.astype(np.float16), w, s.astype(np.float16)) is None
    assert int8.int8_linear(x, w.astype(np.int16), s) is None
    assert int8.int8_linear(x, w, s.astype(np.float64)) is None


@pytest.mark.parametrize("enabled", [True, False])
def test_gradients_pass_through_to_x(enabled, monkeypatch):
    monkeypatch.setattr(twins, "enabled", enabled)
    _, ours = layer()
    x = tg.tensor(numbers(5, K, dtype=np.float64), requires_grad=True)
    ours.bias.requires_grad_(False)
    f = lambda x: ours(x).square()  # noqa: E731
    assert tg.autograd.gradcheck(f, (x,), check_forward_ad=True)
    assert tg.autograd.gradgradcheck(f, (x,))


class Shared(nn.Module):
    """A table tied to a head, a layer used twice, two layers on one weight."""

    def __init__(self):
        super().__init__()
        self.table, self.places = nn.Embedding(19, 7), nn.Embedding(5, 7)
        self.a = self.b = nn.Linear(7, 7)
        self.c = nn.Linear(7, 7)
        self.c.weight = self.a.weight
        self.head = nn.Linear(7, 19, bias=False)
        self.head.weight = self.table.weight

    def forward(self, idx):
        x = self.table(idx) + self.places(tg.arange(idx.shape[1]))
        return self.head(self.c(self.b(self.a(x))))


def test_what_is_shared_stays_shared():
    model = Shared()
    idx = tg.tensor(np.random.default_rng(1).integers(0, 19, (2, 5)))
    before = model(idx).detach().array
    assert quantize(model) is model
    assert model.a is model.b and model.a is not model.c
    assert model.a.weight is model.c.weight and model.a.bias is not model.c.bias
    assert isinstance(model.table, Int8Embedding) and model.table.weight is model.head.weight
    assert type(model.places) is nn.Embedding
    after = model(idx).detach().array
    assert 0 < np.abs(after - before).max() < 0.05 * np.abs(before).max()
    assert np.array_equal(model.table(idx).array, model.head.dequantize().array[idx.array]), (
        "the table reads what the head multiplies with"
    )
    assert {name for name, _ in model.named_parameters()} == {"places.weight", "a.bias", "c.bias"}


def test_only_the_layers_that_are_chosen():
    model = quantize(Shared(), where=lambda name, module: name == "c")
    kinds = [type(x) for x in (model.a, model.c, model.head, model.table)]
    assert kinds == [nn.Linear, Int8Linear, nn.Linear, nn.Embedding]


def test_a_linear_with_a_forward_of_its_own_is_left_alone():
    class Louder(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    model = quantize(nn.Sequential(Louder(2, 3), nn.Linear(3, 2)))
    assert [type(x) for x in model] == [Louder, Int8Linear]
    assert type(quantize(nn.Linear(2, 3))) is Int8Linear


def test_a_model_saved_and_loaded(tmp_path):
    config = GPTConfig(vocab_size=31, block_size=11, n_embd=24, n_head=3, n_layer=2, dropout=0.0)
    model, idx = quantize(MiniGPT(config).eval()), tg.tensor([[3, 1, 4, 1, 5]])
    arrays = {name: x.array for name, x in model.state_dict().items()}
    save_arrays(tmp_path / "model.safetensors", arrays, {})
    other = quantize(MiniGPT(config).eval())
    assert not np.array_equal(other(idx)[0].array, model(idx)[0].array)
    other.load_state_dict(load_arrays(tmp_path / "model.safetensors")[0])
    assert np.array_equal(other(idx)[0].array, model(idx)[0].array)
    assert other.lm_head.weight is other.wte.weight and not other.training
    floats = sum(p.array.nbytes for p in MiniGPT(config).parameters())
    bytes_ = {id(x.array): x.array.nbytes for x in [*model.parameters(), *model.buffers()]}
    assert sum(bytes_.values()) < 0.4 * floats  # biases, norms and positions stay floats


@pytest.mark.parametrize("multiple", [1, 8])
def test_gpt2_writes_what_the_rounded_weights_say(multiple):
    """A float32 twin with the weights that the bytes stand for answers and writes the same."""
    config = GPT2Config(
        vocab_size=61, n_positions=24, n_embd=24, n_head=3, n_layer=2, vocab_multiple=multiple
    )
    tg.manual_seed(4)
    model = GPT2LMHeadModel(config).eval()
    for p in model.parameters():
        p.requires_grad_(False).mul_(5)  # far from a uniform guess
    state = {name: x.array.copy() for name, x in model.state_dict().items()}
    quantize(model)
    for name, layer in model.named_modules():
        if isinstance(layer, Int8Linear | Int8Embedding):
            q, s = layer.weight.array, layer.scale.array
            assert f"{name}.weight" in state and not np.array_equal(state[f"{name}.weight"], q)
            state[f"{name}.weight"] = q * s[:, None]
    twin = GPT2LMHeadModel(config).eval()
    twin.load_state_dict(state)
    ids = tg.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
    with tg.no_grad():
        ours, theirs = model(ids).logits.array, twin(ids).logits.array
    assert ours.shape == (2, 5, 61) and np.allclose(ours, theirs, rtol=1e-3, atol=1e-4)
    ours, theirs = (m.generate(ids, 15, do_sample=False).array for m in (model, twin))
    assert np.array_equal(ours, theirs) and ours.shape == (2, 20)


def test_a_trained_model_guesses_as_well():
    """The perplexity of a model that has learned a text moves by less than half a percent."""
    text = np.frombuffer(b"she sells sea shells by the sea shore, " * 9, np.uint8) % 32
    tg.manual_seed(2)
    model = MiniGPT(GPTConfig(vocab_size=32, block_size=24, n_embd=32, n_head=4, n_layer=2))
    optimizer, rng = AdamW(model.parameters(), lr=5e-3), np.random.default_rng(0)
    for _ in range(60):
        rows = text[rng.integers(0, len(text) - 25, (8, 1)) + np.arange(25)].astype(np.int64)
        model(tg.tensor(rows[:, :-1]), tg.tensor(rows[:, 1:]))[1].backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    rows = text[np.arange(0, 300, 7)[:, None] + np.arange(25)].astype(np.int64)
    x, y = tg.tensor(rows[:, :-1]), tg.tensor(rows[:, 1:])
    with tg.no_grad():
        before, after = model(x, y)[1].item(), quantize(model)(x, y)[1].item()
    assert before < 1.5, "it has learned"
    assert before != after and np.exp(after - before) < 1.005


def test_the_model_moves_and_keeps_its_bytes():
    model = quantize(Shared()).double()
    assert model.head.weight.dtype == tg.int8 and model.head.scale.dtype == tg.float64
    assert model(tg.tensor([[1, 2]])).dtype == tg.float64


def test_errors_say_what_is_wrong():
    with pytest.raises(ValueError, match="4 bits are not known; bits must be 8"):
        quantize(Shared(), bits=4)
    with pytest.raises(RuntimeError, match=r"Int8Linear: an input of shape \(2, 5\)"):
        layer()[1](tg.ones(2, 5))


def test_repr():
    assert repr(layer()[1]) == f"Int8Linear(in_features={K}, out_features={N}, bias=True)"
    assert repr(Int8Embedding(5, 3)) == "Int8Embedding(5, 3)"
