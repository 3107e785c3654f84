"""A draft model changes how fast a text is written, and nothing about the text."""

import numpy as np
import pytest
import scipy.stats

import tensorgrad as tg
from tensorgrad.models.generation import GenerationConfig, filters, generate, stream
from tests.models.gpt2_pair import SIZES, pair, prompts
from tests.models.test_char_gpt import twins


def models():
    """A model, and smaller ones of its vocabulary: a stranger, and one that often guesses right."""
    large = pair()[0]
    stranger = pair(seed=3, n_layer=1, n_embd=12)[0]
    return large, {"a stranger": stranger, "itself": large}


@pytest.mark.parametrize("draft", ["a stranger", "itself"])
@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize(
    "options",
    [{}, {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2}, {"min_new_tokens": 8}],
    ids=str,
)
def test_greedy_gives_the_same_ids(draft, count, options):
    large, drafts = models()
    for seed in range(4):
        idx = tg.tensor(prompts(seed, 1, 6)[0])
        options = {"do_sample": False, "max_new_tokens": 15, **options}
        expected = large.generate(idx, **options)
        got = large.generate(
            idx, assistant_model=drafts[draft], num_assistant_tokens=count, **options
        )
        np.testing.assert_array_equal(got, expected, strict=True)


def test_it_needs_fewer_passes_of_the_large_model():
    """With a draft that is always right, five tokens in each pass after the first."""
    large, _ = models()
    shapes = []
    hook = large.register_forward_hook(lambda module, args, out: shapes.append(args[0].shape[1]))
    draft = pair(seed=0)[0]
    idx = tg.tensor(prompts(1, 1, 6)[0])
    generate(
        large, idx, 15, do_sample=False, eos_token_id=None, assistant_model=Copy(draft),
        num_assistant_tokens=4,
    )  # fmt: skip
    hook.remove()
    assert shapes == [6 + 4, 1 + 4, 1 + 4]


class Copy(tg.nn.Module):
    """The same model behind another name, so that its passes are not counted."""

    def __init__(self, model):
        super().__init__()
        self.model, self.config = model, model.config

    def forward(self, idx):
        return self.model.lm_head(self.model.transformer(idx).last_hidden_state), None


@pytest.mark.parametrize("past_window", ["crop", "stop"])
def test_past_the_window(past_window):
    large, drafts = models()
    idx = tg.tensor(prompts(2, 1, SIZES["n_positions"] - 7)[0])
    options = {"do_sample": False, "eos_token_id": None, "past_window": past_window}
    expected = large.generate(idx, 12, **options)
    got = large.generate(idx, 12, assistant_model=drafts["a stranger"], **options)
    np.testing.assert_array_equal(got, expected, strict=True)


def test_the_end_is_the_end():
    """What was drafted after eos is not written; the reason is told."""
    large, _ = models()
    idx = tg.tensor(prompts(1, 1, 6)[0])
    free = large.generate(idx, 15, do_sample=False, eos_token_id=None)[0, 6:].tolist()
    end = free[7]
    out = large.generate(
        idx, 15, do_sample=False, eos_token_id=end, assistant_model=large,
        return_dict_in_generate=True,
    )  # fmt: skip
    assert out.sequences[0, 6:].tolist() == free[: free.index(end) + 1]
    assert out.finish_reasons == ["eos"]


def test_log_probabilities_are_the_large_models():
    large, drafts = models()
    idx = tg.tensor(prompts(3, 1, 6)[0])
    options = {"do_sample": False, "eos_token_id": None, "return_dict_in_generate": True}
    expected = large.generate(idx, 9, **options)
    got = large.generate(idx, 9, assistant_model=drafts["a stranger"], **options)
    np.testing.assert_allclose(got.logprobs, expected.logprobs, rtol=1e-9)


class Table(tg.nn.Module):
    """p(next | last) from a table of logits (4, 4): a model whose distribution is known."""

    def __init__(self, seed):
        super().__init__()
        self.logits = tg.tensor(np.random.default_rng(seed).normal(0, 1, (4, 4)))
        self.config = type("Config", (), {"vocab_size": 4})

    def forward(self, idx):
        return self.logits[idx], None


@pytest.mark.parametrize("options", [{}, {"temperature": 0.7, "top_k": 3}], ids=str)
def test_draws_are_distributed_as_without_a_draft(options):
    """Chi-square of 1,200 continuations by three tokens, against products of the table's rows."""
    model, draft = Table(1), Table(2)
    logits = filters.filtered(model.logits, GenerationConfig(**options)).array
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = np.einsum("a,ab,bc->abc", p[0], p, p).ravel()
    generator = tg.Generator().manual_seed(11)
    idx, n = tg.zeros(1, 1, dtype=tg.int64), 1_200
    counts = np.zeros(64)
    for _ in range(n):
        out = generate(
            model, idx, 3, generator=generator, assistant_model=draft, num_assistant_tokens=2,
            **options,
        )  # fmt: skip
        a, b, c = out[0, 1:].tolist()
        counts[16 * a + 4 * b + c] += 1
    assert (counts[expected == 0] == 0).all()
    common = expected * n >= 5
    observed = np.append(counts[common], counts[~common & (expected > 0)].sum())
    sure = np.append(expected[common], expected[~common].sum()) * n
    keep = sure > 0
    assert scipy.stats.chisquare(observed[keep], sure[keep]).pvalue > 1e-3


def test_it_streams():
    large, drafts = models()
    idx = tg.tensor(prompts(1, 1, 6)[0])
    expected = large.generate(idx, 9, do_sample=False)[0, 6:].tolist()
    coming = stream(large, idx, 9, do_sample=False, assistant_model=drafts["a stranger"])
    assert [token.item() for token in coming] == expected


def test_both_models_are_left_as_they_were():
    large, draft = twins()[0].train(), twins()[0].train()
    seen = []
    draft.ln_f.register_forward_hook(lambda module, *_: seen.append(module.training))
    large.generate(tg.zeros(1, 3, dtype=tg.int64), 5, assistant_model=draft)
    assert seen and not any(seen)
    assert large.training and draft.training and draft.ln_f.training


@pytest.mark.parametrize(
    ("rows", "options", "sentence"),
    [
        (2, {}, "one text, not 2 rows"),
        (1, {"num_beams": 2}, "num_beams=2"),
        (1, {"num_return_sequences": 2}, "num_return_sequences=2"),
    ],
)
def test_what_a_draft_cannot_help(rows, options, sentence):
    large, drafts = models()
    with pytest.raises(ValueError, match=sentence):
        large.generate(
            tg.zeros(rows, 3, dtype=tg.int64), 2, assistant_model=drafts["a stranger"], **options
        )


def test_vocabularies_must_be_one():
    with pytest.raises(ValueError, match="draft model's vocabulary of 23 is not the model's of 53"):
        models()[0].generate(tg.zeros(1, 3, dtype=tg.int64), 2, assistant_model=twins()[0])
