"""Same seed, same curve: a script prints the same losses under PyTorch and under tensorgrad.

The scripts are the lectures', given the module to use; nothing is copied from one to the other.
"""

import numpy as np
import pytest
import torch

import tensorgrad as tg
from tensorgrad.data import CharVocab, WordVocab, contexts, names, names_text, split_words, words_of

STEPS, SEED = 100, 2147483647
WORDS = words_of(names())
VOCAB = WordVocab(WORDS)
V = len(VOCAB)
TEXT = names_text().text[:20_000]


def examples(t, block_size):
    """The training set as the lectures build it."""
    x, y = contexts(split_words(WORDS)["train"], VOCAB, block_size)
    return t.tensor(x), t.tensor(y)


def neural_bigram(t):
    F = t.nn.functional
    x, y = examples(t, 1)
    x = F.one_hot(x[:2000, 0], num_classes=V).to(t.get_default_dtype())
    y = y[:2000]
    g = t.Generator().manual_seed(SEED)
    W = t.randn((V, V), generator=g, requires_grad=True)
    for _ in range(STEPS):
        loss = F.cross_entropy(x @ W, y) + 0.01 * (W**2).mean()
        W.grad = None
        loss.backward()
        W.data += -50 * W.grad
        yield loss.item()


def mlp(t):
    F = t.nn.functional
    x, y = examples(t, 3)
    g = t.Generator().manual_seed(SEED)
    C = t.randn((V, 10), generator=g)
    W1 = t.randn((30, 200), generator=g) * (5 / 3) / 30**0.5
    b1 = t.randn(200, generator=g) * 0.01
    W2 = t.randn((200, V), generator=g) * 0.01
    b2 = t.randn(V, generator=g) * 0
    parameters = [C, W1, b1, W2, b2]
    for p in parameters:
        p.requires_grad = True
    for _ in range(STEPS):
        ix = t.randint(0, x.shape[0], (32,), generator=g)
        emb = C[x[ix]]
        h = t.tanh(emb.view(-1, 30) @ W1 + b1)
        loss = F.cross_entropy(h @ W2 + b2, y[ix])
        for p in parameters:
            p.grad = None
        loss.backward()
        for p in parameters:
            p.data += -0.1 * p.grad
        yield loss.item()


def mlp_bn(t):
    F = t.nn.functional
    x, y = examples(t, 3)
    t.manual_seed(SEED)
    model = t.nn.Sequential(
        t.nn.Embedding(V, 10), t.nn.Flatten(), t.nn.Linear(30, 200, bias=False),
        t.nn.BatchNorm1d(200), t.nn.Tanh(), t.nn.Linear(200, V),
    )  # fmt: skip
    optimizer = t.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(STEPS):
        ix = t.randint(0, x.shape[0], (32,))
        loss = F.cross_entropy(model(x[ix]), y[ix])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()
    model.eval()  # whose running statistics must agree, too
    yield F.cross_entropy(model(x[:500]), y[:500]).item()


def wavenet(t):
    F = t.nn.functional

    class FlattenConsecutive(t.nn.Module):
        def forward(self, x):
            B, T, C = x.shape
            return x.view(B, T // 2, C * 2)

    class BatchNorm(t.nn.BatchNorm1d):
        def forward(self, x):  # (B, T, C), where BatchNorm1d wants (N, C)
            return super().forward(x.flatten(0, 1)).view(x.shape)

    def join(n):
        return (
            FlattenConsecutive(), t.nn.Linear(2 * n, 128, bias=False), BatchNorm(128), t.nn.Tanh()
        )  # fmt: skip

    x, y = examples(t, 8)
    t.manual_seed(SEED)
    model = t.nn.Sequential(
        t.nn.Embedding(V, 24), *join(24), *join(128), *join(128), t.nn.Flatten(),
        t.nn.Linear(128, V),
    )  # fmt: skip
    with t.no_grad():
        model[-1].weight *= 0.1
    optimizer = t.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(STEPS):
        ix = t.randint(0, x.shape[0], (32,))
        loss = F.cross_entropy(model(x[ix]), y[ix])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


def char_gpt(t, dropout, n_layer=2, n_head=2, block_size=16, batch_size=5):
    nn, F = t.nn, t.nn.functional
    n_embd = 64
    # The lecture's ReLU, in float64.  Among millions of float32 sums some round to the other side
    # of its kink, which switches a unit; Adam makes a visible difference of the smallest gradient.
    activation = nn.ReLU if t.get_default_dtype() == t.float64 else nn.GELU
    vocab = CharVocab(TEXT)
    data = t.tensor(vocab.encode(TEXT))

    class Head(nn.Module):
        def __init__(self, head_size):
            super().__init__()
            self.key = nn.Linear(n_embd, head_size, bias=False)
            self.query = nn.Linear(n_embd, head_size, bias=False)
            self.value = nn.Linear(n_embd, head_size, bias=False)
            self.register_buffer("tril", t.tril(t.ones(block_size, block_size)))
            self.dropout = nn.Dropout(dropout)

        def forward(self, x):
            T = x.shape[1]
            k, q, v = self.key(x), self.query(x), self.value(x)
            wei = q @ k.transpose(-2, -1) * k.shape[-1] ** -0.5
            wei = wei.masked_fill(self.tril[:T, :T] == 0, float("-inf"))
            return self.dropout(F.softmax(wei, dim=-1)) @ v

    class MultiHeadAttention(nn.Module):
        def __init__(self, num_heads, head_size):
            super().__init__()
            self.heads = nn.ModuleList([Head(head_size) for _ in range(num_heads)])
            self.proj = nn.Linear(head_size * num_heads, n_embd)
            self.dropout = nn.Dropout(dropout)

        def forward(self, x):
            return self.dropout(self.proj(t.cat([h(x) for h in self.heads], dim=-1)))

    class FeedForward(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(
                nn.Linear(n_embd, 4 * n_embd), activation(), nn.Linear(4 * n_embd, n_embd),
                nn.Dropout(dropout),
            )  # fmt: skip

        def forward(self, x):
            return self.net(x)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.sa, self.ffwd = MultiHeadAttention(n_head, n_embd // n_head), FeedForward()
            self.ln1, self.ln2 = nn.LayerNorm(n_embd), nn.LayerNorm(n_embd)

        def forward(self, x):
            x = x + self.sa(self.ln1(x))
            return x + self.ffwd(self.ln2(x))

    class GPT(nn.Module):
        def __init__(self):
            super().__init__()
            self.token = nn.Embedding(len(vocab), n_embd)
            self.position = nn.Embedding(block_size, n_embd)
            self.blocks = nn.Sequential(*[Block() for _ in range(n_layer)])
            self.ln_f = nn.LayerNorm(n_embd)
            self.lm_head = nn.Linear(n_embd, len(vocab))
            self.apply(self.init)

        def init(self, module):
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, mean=0.0, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

        def forward(self, idx, targets):
            B, T = idx.shape
            x = self.token(idx) + self.position(t.arange(T))
            logits = self.lm_head(self.ln_f(self.blocks(x)))
            return F.cross_entropy(logits.view(B * T, -1), targets.view(B * T))

    t.manual_seed(SEED)
    model = GPT()
    optimizer = t.optim.AdamW(model.parameters(), lr=3e-4)
    for _ in range(STEPS):
        ix = t.randint(len(data) - block_size, (batch_size,))
        x = t.stack([data[i : i + block_size] for i in ix])
        y = t.stack([data[i + 1 : i + block_size + 1] for i in ix])
        loss = model(x, y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        yield loss.item()


SCRIPTS = {
    "neural bigram": neural_bigram,
    "MLP": mlp,
    "MLP with BatchNorm": mlp_bn,
    "WaveNet": wavenet,
    "char GPT": lambda t: char_gpt(t, 0.0),
    "char GPT with dropout": lambda t: char_gpt(t, 0.2),
}


def curve(t, script, dtype):
    before = t.get_default_dtype()
    t.set_default_dtype(getattr(t, dtype))
    try:
        return list(script(t))
    finally:
        t.set_default_dtype(before)


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize(("dtype", "within"), [("float32", 1e-4), ("float64", 1e-9)])
def test_same_seed_same_curve(name, dtype, within):
    ours, theirs = (curve(t, SCRIPTS[name], dtype) for t in (tg, torch))
    assert len(ours) >= STEPS
    assert np.abs(np.subtract(ours, theirs)).max() < within
    assert ours[-1] < ours[0]
