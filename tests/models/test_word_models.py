"""The models of words beside PyTorch's: first weights, training steps, sizes; what they know."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional as TF

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.data import WordVocab, contexts, names, split_words, words_of
from tensorgrad.models.count_bigram import CountBigram, CountBigramConfig
from tensorgrad.models.deep import Deep, DeepConfig
from tensorgrad.models.mlp import MLP, MLPBatchNorm, MLPConfig
from tensorgrad.models.neural_bigram import NeuralBigram, NeuralBigramConfig
from tensorgrad.models.training.ladder import JOBS
from tensorgrad.models.training.recipe import WordRecipe
from tensorgrad.models.training.word_lm import WordCorpus, bigram_loss, word_score
from tensorgrad.models.training.word_trainer import WordTrainer, evaluate
from tensorgrad.models.wavenet import WaveNet, WaveNetConfig
from tensorgrad.models.words import draw_words
from tests.tree import ROOT

NAMES = ROOT.parent / "shared/data/names.txt"
on_names = pytest.mark.skipif(not NAMES.exists(), reason="makemore's names are not here")

WORDS = words_of(names())[::7]
VOCAB = WordVocab(WORDS)
V = len(VOCAB)
MODELS = {
    "neural bigram": (NeuralBigram, NeuralBigramConfig, 729),
    "MLP": (MLP, MLPConfig, 11_897),
    "MLP with BatchNorm": (MLPBatchNorm, MLPConfig, 12_097),
    "deep": (Deep, DeepConfig, 47_024),
    "WaveNet": (WaveNet, WaveNetConfig, 76_579),
}
models = pytest.mark.parametrize("name", MODELS)


class Pair(torch.nn.Module):
    def forward(self, x):
        B, T, C = x.shape
        return x.view(B, T // 2, 2 * C)


class BatchTime(torch.nn.BatchNorm1d):
    def forward(self, x):
        return super().forward(x.flatten(0, 1)).view(x.shape)


def torch_model(name):
    """The same net from PyTorch's layers, made and drawn in the same order."""
    N = torch.nn

    def kaiming(layer, nonlinearity):
        N.init.kaiming_normal_(layer.weight, nonlinearity=nonlinearity)

    if name == "neural bigram":
        net = N.Embedding(V, V)
        return net, lambda x: net(x[:, -1])
    if name in ("MLP", "MLP with BatchNorm"):
        plain = name == "MLP"
        layers = [N.Embedding(V, 10), N.Flatten(), N.Linear(30, 200, bias=plain)]
        layers += [] if plain else [N.BatchNorm1d(200, momentum=0.001)]
        layers += [N.Tanh(), N.Linear(200, V)]
        kaiming(layers[2], "tanh")
        if plain:
            N.init.normal_(layers[2].bias, std=0.01)
        N.init.normal_(layers[-1].weight, std=0.01)
        N.init.zeros_(layers[-1].bias)
    elif name == "deep":
        layers, last = [N.Embedding(V, 10), N.Flatten()], [30, *[100] * 5, V]
        for i, (a, b) in enumerate(pairwise(last)):
            layers += [N.Tanh()] if i else []
            layers += [N.Linear(a, b, bias=False), N.BatchNorm1d(b)]
        for layer in layers:
            if isinstance(layer, N.Linear):
                kaiming(layer, "linear")
        layers[-1].weight.data *= 0.1
    else:
        layers = [N.Embedding(V, 24)]
        for n in (24, 128, 128):
            layers += [Pair(), N.Linear(2 * n, 128, bias=False), BatchTime(128), N.Tanh()]
        layers += [N.Flatten(), N.Linear(128, V)]
        for layer in layers:
            if isinstance(layer, N.Linear):
                kaiming(layer, "linear")
        N.init.zeros_(layers[-1].bias)
        layers[-1].weight.data *= 0.1
    net = N.Sequential(*layers)
    return net, net


def made(name, vocab_size=V):
    model, config, _ = MODELS[name]
    return model(config(vocab_size))


def examples(model, words=WORDS):
    parts = split_words(words)
    T = model.config.block_size
    return {part: contexts(w, VOCAB, T) for part, w in parts.items()}


@models
def test_sizes(name):
    """G2.c2: the published numbers of parameters, for 27 symbols."""
    assert sum(p.numel() for p in made(name, 27).parameters()) == MODELS[name][2]


@models
def test_first_weights_are_pytorchs(name):
    """G2.d1, G2.d5."""
    tg.manual_seed(1337)
    torch.manual_seed(1337)
    ours, (theirs, _) = made(name), torch_model(name)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(p.detach(), q.detach(), rtol=1e-5, atol=1e-7)


@models
def test_training_steps_are_pytorchs(name):
    """G2.b4, G2.e3, B2.14, B2.18: draws of a seeded generator; every step updates.

    The rate falls where it should, and the running statistics are moved as PyTorch moves them.
    """
    recipe = WordRecipe(
        batch_size=0 if name == "neural bigram" else 32, max_iters=30, learning_rate=0.2,
        min_lr=0.02, lr_decay_at=0.6, log_interval=1, eval_interval=30, seed=11,
    )  # fmt: skip
    tg.manual_seed(recipe.seed)
    ours = made(name)
    trainer = WordTrainer(ours, recipe, examples(ours))
    torch.manual_seed(recipe.seed)
    theirs, forward = torch_model(name)
    generator = torch.Generator().manual_seed(recipe.seed)
    x, y = (torch.from_numpy(a) for a in trainer.examples["train"])
    for i, step in enumerate(trainer.steps()):
        ix = torch.randint(0, len(x), (32,), generator=generator)
        a, b = (x, y) if name == "neural bigram" else (x[ix], y[ix])
        loss = TF.cross_entropy(forward(a), b)
        if name == "neural bigram":
            loss = loss + 0.01 * (theirs.weight**2).mean()
        theirs.zero_grad()
        loss.backward()
        lr = 0.2 if i < 18 else 0.02
        with torch.no_grad():
            for p in theirs.parameters():
                p -= lr * p.grad
        assert step.lr == lr and step.tokens == len(b) and step.grad_norm is None
        assert step.loss == pytest.approx(loss.item(), rel=2e-5)
    theirs.eval()
    x, y = (torch.from_numpy(a) for a in trainer.examples["val"])
    expected = TF.cross_entropy(forward(x), y).item()
    assert step.val_loss == pytest.approx(expected, rel=2e-5)


@models
def test_an_untrained_model_knows_nothing(name):
    """B2.16: the first loss is near ln V; not for the bigram, whose lecture begins with randn."""
    tg.manual_seed(5)
    model = made(name)
    x, y = examples(model)["train"]
    loss = model(tg.tensor(x[:512]), tg.tensor(y[:512]))[1].item()
    assert abs(loss - math.log(V)) < (1.0 if name == "neural bigram" else 0.05)


@models
def test_without_targets_there_is_no_loss(name):
    model = made(name)
    x, y = (tg.tensor(a[:7]) for a in examples(model)["train"])
    model.eval()
    logits, loss = model(x)
    assert loss is None and logits.shape == (7, V)
    np.testing.assert_array_equal(logits.detach(), model(x, y)[0].detach())


def test_evaluation_builds_no_graph_and_is_in_float64():
    """G2.d3, B2.19, B2.10: as one PyTorch forward pass over the split, in float64."""
    tg.manual_seed(3)
    model = made("MLP").double()
    x, y = examples(model)["train"]
    seen = []
    model.head.register_forward_hook(lambda module, _, out: seen.append(out.requires_grad))
    got = evaluate(model, x, y, rows=101)
    assert seen and not any(seen) and model.training
    logits = model(tg.tensor(x))[0].detach().numpy()
    expected = TF.cross_entropy(torch.from_numpy(logits), torch.from_numpy(y)).item()
    assert got == pytest.approx(expected, rel=1e-12)


# ---- bigrams


def counted(words, smoothing=1.0):
    """N[a, b], by the lectures' loop."""
    N = np.full((V, V), smoothing)
    for w in words:
        ids = [0, *VOCAB.encode(w).tolist(), 0]
        for a, b in pairwise(ids):
            N[a, b] += 1
    return N


@pytest.mark.parametrize("smoothing", [0.0, 0.5, 1.0])
def test_counts(smoothing):
    """G2.b1."""
    model = CountBigram(CountBigramConfig(V, smoothing))
    half = len(WORDS) // 2
    for part in (WORDS[:half], WORDS[half:]):
        model.count(*contexts(part, VOCAB, 1))
    N = counted(WORDS, smoothing)
    np.testing.assert_array_equal(model.counts, counted(WORDS, 0))
    P = model.probabilities().numpy()
    np.testing.assert_allclose(P, N / N.sum(1, keepdims=True), rtol=1e-14)
    np.testing.assert_allclose(P.sum(1), 1, rtol=1e-12)
    x, y = contexts(WORDS, VOCAB, 1)
    expected = -np.log(P[x[:, 0], y]).mean()
    assert evaluate(model, x, y, rows=1009) == pytest.approx(expected, rel=1e-12)


def test_what_was_never_counted_is_impossible_without_smoothing():
    model = CountBigram(CountBigramConfig(V, 0.0))
    model.count(*contexts(["rune"], VOCAB, 1))
    assert word_score(model, VOCAB, "rune")[0] == 0.0
    assert word_score(model, VOCAB, "enur")[0] == math.inf
    assert (model.probabilities().sum(1) == tg.tensor(counted(["rune"], 0).sum(1) > 0)).all()


@on_names
def test_the_published_losses_of_counting():
    """G2.b3, B2.10: 2.4540145; with one added, 2.4545768, where float32 sums print 2.4543562."""
    corpus = WordCorpus(names(NAMES))
    for smoothing, loss in ((0.0, 2.4540145), (1.0, 2.4545768), (5.0, 2.4576827)):
        found = bigram_loss(corpus.words, corpus.words, corpus.vocab, smoothing)
        assert found == pytest.approx(loss, abs=1e-6)


@on_names
def test_counting_is_judged_on_other_words():
    """B2.13: train 2.45484, validation 2.45326, test 2.45839."""
    corpus = WordCorpus(names(NAMES))
    losses = [bigram_loss(corpus.parts["train"], w, corpus.vocab) for w in corpus.parts.values()]
    assert losses == pytest.approx([2.45484, 2.45326, 2.45839], abs=1e-5)


def test_the_neural_bigram_learns_what_counting_finds():
    """B2.12: gradient descent goes all the way: without regularisation, to the counts."""
    model = NeuralBigram(NeuralBigramConfig(V, regularization=0.0))
    x, y = contexts(WORDS, VOCAB, 1)
    recipe = WordRecipe(batch_size=0, max_iters=800, learning_rate=80.0, min_lr=80.0)
    trainer = WordTrainer(model, recipe, {"train": (x, y)})
    trainer.take_steps(800)
    least = bigram_loss(WORDS, WORDS, VOCAB, 0.0)
    assert least < evaluate(model, x, y) < least + 0.01


def test_regularisation_is_a_part_of_the_training_loss_alone():
    model = NeuralBigram(NeuralBigramConfig(V, regularization=0.5))
    x, y = (tg.tensor(a) for a in contexts(WORDS[:9], VOCAB, 1))
    penalty = 0.5 * (model.W**2).mean().item()
    trained, judged = model(x, y)[1].item(), model.eval()(x, y)[1].item()
    assert trained - judged == pytest.approx(penalty, rel=1e-5)
    one_hot = nn.functional.one_hot(x[:, 0], V).float() @ model.W
    np.testing.assert_allclose(model(x)[0].detach(), one_hot.detach(), rtol=1e-6)


def test_large_logits_do_not_overflow():
    """B2.11: exp(1000) is inf; log-softmax is not."""
    model = NeuralBigram(NeuralBigramConfig(V)).eval()
    with tg.no_grad():
        model.W.fill_(0)
        model.W[:, 3] = 1000.0
    x, y = tg.zeros(2, 1, dtype=tg.int64), tg.tensor([3, 4])
    assert model(x, y)[1].item() == pytest.approx(500.0)


# ---- WaveNet's two forms


def test_dilated_is_every_window():
    """A row of characters at once, as convolutions: the logits of each window of eight."""
    tg.manual_seed(3)
    model = made("WaveNet").double()
    x, _ = examples(model)["train"]
    nn.calibrate(model, [tg.tensor(x[:300])])
    model.eval()
    row = tg.tensor(np.random.default_rng(5).integers(0, V, (3, 29)))
    out = model.dilated(row)
    assert out.shape == (3, 29 - 7, V)
    for t in range(29 - 7):
        window = model(row[:, t : t + 8])[0]
        np.testing.assert_allclose(out[:, t].detach(), window.detach(), rtol=1e-9, atol=1e-12)


def test_the_joins_are_convolutions():
    """What `dilated` computes is conv1d with two taps, 1, 2 and 4 apart."""
    tg.manual_seed(4)
    model = made("WaveNet").double().eval()
    row = np.random.default_rng(5).integers(0, V, (2, 17))
    h = torch.from_numpy(model.wte.weight.detach().numpy()[row]).transpose(1, 2)  # (B, C, L)
    for i, join in enumerate(model.joins):
        w = torch.from_numpy(join.fc.weight.detach().numpy())
        taps = torch.stack(w.chunk(2, 1), -1)  # (H, C, 2)
        h = torch.conv1d(h, taps, dilation=2**i) / (1 + 1e-5) ** 0.5
        h = torch.tanh(h)
    logits = model.head(tg.tensor(h.transpose(1, 2).contiguous().numpy()))
    np.testing.assert_allclose(model.dilated(tg.tensor(row)).detach(), logits.detach(), rtol=1e-9)


def test_dilated_refuses_training_and_short_rows():
    model = made("WaveNet")
    with pytest.raises(RuntimeError, match=r"in training the statistics differ; call eval\(\)"):
        model.dilated(tg.zeros(2, 9, dtype=tg.int64))
    with pytest.raises(ValueError, match="7 characters are fewer than block_size 8"):
        model.eval().dilated(tg.zeros(2, 7, dtype=tg.int64))


def test_a_tree_has_a_power_of_two_leaves():
    with pytest.raises(ValueError, match=r"block_size must be a power of 2.*it is 6"):
        WaveNetConfig(27, block_size=6)
    model = WaveNet(WaveNetConfig(27, block_size=4, n_embd=3, n_hidden=5))
    assert len(model.joins) == 2 and model(tg.zeros(7, 4, dtype=tg.int64))[0].shape == (7, 27)


# ---- sampling


def lecture_words(probabilities, T, count, generator):
    """The lectures' loop, one word after another."""
    words = []
    for _ in range(count):
        out, context = [], [0] * T
        while True:
            p = probabilities(torch.tensor([context]))
            ix = torch.multinomial(p, num_samples=1, replacement=True, generator=generator).item()
            context = [*context[1:], ix]
            if ix == 0:
                break
            out.append(ix)
        words.append(out)
    return words


def test_words_of_counts_are_the_lectures():
    """G2.b2."""
    model = CountBigram(CountBigramConfig(V))
    model.count(*contexts(WORDS, VOCAB, 1))
    P = torch.from_numpy(model.probabilities().numpy())
    expected = lecture_words(
        lambda x: P[x[:, -1]], 1, 12, torch.Generator().manual_seed(2147483647)
    )
    got = draw_words(model, 12, tg.Generator().manual_seed(2147483647))
    assert got == expected and max(map(len, got)) < 100


def test_words_of_a_net_are_drawn_in_evaluation_mode():
    """B2.25, B2.32: one context at a time would have no variance in training mode."""
    tg.manual_seed(3)
    model = made("MLP with BatchNorm").double()
    model.bn.running_var.fill_(2.0)
    state = {k: v.numpy().copy() for k, v in model.state_dict().items()}

    def probabilities(x):
        logits = model.eval()(tg.tensor(x.numpy()))[0].detach().numpy()
        model.train()
        return TF.softmax(torch.from_numpy(logits), -1)

    expected = lecture_words(probabilities, 3, 5, torch.Generator().manual_seed(7))
    assert draw_words(model, 5, tg.Generator().manual_seed(7)) == expected
    assert model.training and model.bn.training
    assert all(np.array_equal(state[k], v.numpy()) for k, v in model.state_dict().items())


def test_words_begun_cut_and_greedy():
    model = CountBigram(CountBigramConfig(V))
    model.count(*contexts(["aaaa"], VOCAB, 1))
    start = VOCAB.encode("ga")
    drawn = draw_words(model, 1, temperature=0, start=start, longest=5)
    assert VOCAB.decode(drawn[0]) == "gaaaaaa"
    assert draw_words(model, 1, top_k=1, start=start, longest=5) == drawn
    assert draw_words(model, 2, start=start, longest=0) == [start.tolist()] * 2
    assert draw_words(model, 0) == []
    for wrong in ({"temperature": -1.0}, {"top_k": 0}, {"longest": -1}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be at least"):
            draw_words(model, 1, **wrong)


def test_any_word_can_be_scored():
    """ln p of its characters and of its end, summed."""
    tg.manual_seed(3)
    model = made("MLP").eval()
    x, y = contexts(["dagaz"], VOCAB, 3)
    logits = torch.from_numpy(model(tg.tensor(x))[0].detach().numpy())
    total, count = word_score(model, VOCAB, "dagaz")
    assert count == 6
    assert total == pytest.approx(TF.cross_entropy(logits, torch.from_numpy(y)).item() * 6)
    with pytest.raises(ValueError, match=r"'€' \(U\+20AC\) at position 1"):
        word_score(model, VOCAB, "a€")


# ---- recipes


def test_the_lectures_hyper_parameters():
    """B2.26: the deep net takes all 200,000 of its steps, as the others do."""
    for word, steps, batch, at in (
        ("neural-bigram", 100, 0, 0.5), ("mlp", 200_000, 32, 0.5), ("mlp-bn", 200_000, 32, None),
        ("deep", 200_000, 32, 0.75), ("wavenet", 200_000, 32, 0.5),
    ):  # fmt: skip
        job = JOBS[word]
        recipe = job.recipe(**job.settings({}))
        assert (recipe.max_iters, recipe.batch_size) == (steps, batch), word
        if word == "neural-bigram":
            assert {recipe.rate(i) for i in range(steps)} == {50.0}
        elif at is not None:
            drop = int(at * steps)
            assert {recipe.rate(i) for i in (0, drop - 1)} == {0.1}
            assert {recipe.rate(i) for i in (drop, steps - 1)} == {0.01}


def test_rates_fall_along_an_exponential():
    recipe = WordRecipe(max_iters=100, min_lr=0.001, lr_decay_at=0.4, decay_at_once=False)
    assert [recipe.rate(i) for i in (0, 40, 70)] == pytest.approx([0.1, 0.1, 0.01])
    assert recipe.rate(99) == pytest.approx(0.001 * 100 ** (1 / 60))
    assert WordRecipe(lr_decay_at=1.0).rate(199_999) == 0.1
    with pytest.raises(ValueError, match="an exponential never reaches 0"):
        WordRecipe(min_lr=0.0, decay_at_once=False)
    with pytest.raises(ValueError, match=r"lr_decay_at is a share, at most 1; it is 1\.5"):
        WordRecipe(lr_decay_at=1.5)


def test_a_loss_that_is_not_finite_stops():
    model = made("MLP")
    with tg.no_grad():
        list(model.parameters())[-1][3] = float("inf")
    trainer = WordTrainer(model, WordRecipe(max_iters=50), examples(model))
    with pytest.raises(FloatingPointError, match=r"between steps 1 and 50 the loss ceased to be"):
        list(trainer.steps())
