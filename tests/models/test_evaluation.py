"""Losses, perplexity, HellaSwag and LAMBADA against a count of every token by itself."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.models.evaluation import _windows, hellaswag, lambada, perplexity, token_losses

V, WINDOW = 29, 11


class Tiny(nn.Module):
    """p(next | the mean of all embeddings so far): as causal as a GPT."""

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(n_positions=WINDOW, vocab_size=V)
        self.wte, self.head, self.drop = nn.Embedding(V, 7), nn.Linear(7, V), nn.Dropout(0.5)

    def forward(self, idx):
        assert idx.shape[1] <= WINDOW
        x = tg.cumsum(self.wte(idx), 1) / tg.arange(1, idx.shape[1] + 1)[:, None]
        return SimpleNamespace(logits=self.head(self.drop(x)) * 3)


@pytest.fixture
def model():
    tg.manual_seed(5)
    return Tiny().train()


def encode(text):
    return [ord(c) % V for c in text]


def slow_loss(model, context, token):
    """-log p(token | context), by PyTorch, from the last logits alone."""
    model.eval()
    logits = model(tg.tensor([context])).logits[0, -1].detach().numpy()
    model.train()
    return -torch.log_softmax(torch.tensor(logits, dtype=torch.float64), -1)[token].item()


def test_token_losses(model):
    ids = np.random.default_rng(0).integers(0, V, (3, WINDOW))
    losses = token_losses(model, ids)
    expected = [
        [slow_loss(model, row[:t].tolist(), row[t]) for t in range(1, WINDOW)] for row in ids
    ]
    np.testing.assert_allclose(losses, expected, 1e-5)
    assert model.training and model.drop.training
    with pytest.raises(ValueError, match=r"with T of 2 or more, not \(3, 1\)"):
        token_losses(model, ids[:, :1])


@given(st.integers(2, 60), st.integers(2, 13), st.data())
def test_windows_predict_every_token_once(total, length, data):
    stride = data.draw(st.integers(1, length - 1))
    done = 1
    for lo, hi, new in _windows(total, length, stride):
        assert 0 <= lo < hi <= total and hi - lo <= length
        assert hi - new == done and new >= 1
        assert done - lo >= min(done, length - stride)  # context of the first new token
        done = hi
    assert done == total


@pytest.mark.parametrize("stride", [1, 5, 10])
def test_perplexity(model, stride):
    ids = np.random.default_rng(1).integers(0, V, 37)
    found = perplexity(model, ids, stride)
    expected, done, lo = [], 1, 0
    while done < len(ids):
        hi = min(lo + WINDOW, len(ids))
        expected += [slow_loss(model, ids[lo:t].tolist(), ids[t]) for t in range(done, hi)]
        done, lo = hi, lo + stride
    assert found.tokens == 36 == len(expected)
    assert found.loss == pytest.approx(np.mean(expected), rel=1e-5)
    assert found.perplexity == pytest.approx(math.exp(found.loss))
    with pytest.raises(ValueError, match=r"stride 11 must be from 1 to length - 1, 10"):
        perplexity(model, ids, 11)
    with pytest.raises(ValueError, match=r"2 tokens or more, not \(1,\)"):
        perplexity(model, ids[:1])


def write(path, examples):
    path.write_text("".join(json.dumps(e) + "\n" for e in examples), "utf-8")
    return path


def test_hellaswag(model, tmp_path):
    rng = np.random.default_rng(2)
    word = lambda n: "".join(rng.choice(list("abcdefghij"), n))  # noqa: E731
    examples = [
        {
            "ctx": word(4),
            "endings": [word(n) for n in rng.permutation([1, 2, 3, 5])],
            "label": int(rng.integers(4)),
        }
        for _ in range(40)
    ]
    right = right_norm = 0
    for e in examples:
        sums, means = [], []
        for ending in e["endings"]:
            context, rest = encode(e["ctx"]), encode(" " + ending)
            losses = [slow_loss(model, context + rest[:i], token) for i, token in enumerate(rest)]
            sums.append(sum(losses))
            means.append(np.mean(losses))
        right += np.argmin(sums) == e["label"]
        right_norm += np.argmin(means) == e["label"]
    found = hellaswag(model, write(tmp_path / "h.jsonl", examples), encode)
    assert found.examples == 40 and right != right_norm
    assert found.figures == {"accuracy": right / 40, "accuracy_norm": right_norm / 40}
    assert hellaswag(model, tmp_path / "h.jsonl", encode, limit=7).examples == 7


def test_lambada(model, tmp_path):
    rng = np.random.default_rng(3)
    examples = []
    for _ in range(30):
        start = "".join(rng.choice(list("abcdefghij"), 5))
        model.eval()
        first = int(model(tg.tensor([[*encode(start), ord(" ") % V]])).logits[0, -1].argmax())
        letter = chr(next(c for c in range(97, 97 + V) if c % V == first))
        examples.append({"text": f"{start} {letter if rng.random() < 0.5 else 'q'}\n"})
    model.train()
    right, nats = 0, []
    for e in examples:
        start, _, word = e["text"].rstrip().rpartition(" ")
        context, target = encode(start), encode(" " + word)
        nats.append(sum(slow_loss(model, context + target[:i], t) for i, t in enumerate(target)))
        model.eval()
        guesses = model(tg.tensor([context + target])).logits[0].argmax(-1).tolist()
        model.train()
        right += guesses[len(context) - 1 : -1] == target
    found = lambada(model, write(tmp_path / "l.jsonl", examples), encode)
    assert found.figures["accuracy"] == right / 30
    assert found.figures["perplexity"] == pytest.approx(math.exp(np.mean(nats)), rel=1e-5)


def test_files_that_cannot_be(model, tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"ctx": "a", "endings": ["b"], "label": 0}\n{"ctx": "a"}\n', "utf-8")
    with pytest.raises(ValueError, match=r"bad.jsonl, line 2: without endings, label"):
        hellaswag(model, path, encode)
    path.write_text("not JSON\n", "utf-8")
    with pytest.raises(ValueError, match=r"bad.jsonl, line 1: no JSON"):
        lambada(model, path, encode)
    path.write_text("\n", "utf-8")
    with pytest.raises(ValueError, match=r"bad.jsonl: no examples in it"):
        lambada(model, path, encode)
    path.write_text('{"text": "single"}\n', "utf-8")
    with pytest.raises(ValueError, match=r"single word has nothing to go by"):
        lambada(model, path, encode)
