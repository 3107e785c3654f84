"""Exactly the tokens that transformers writes for fifty prompts: greedy, beams, penalties."""

import numpy as np
import pytest
import torch

import tensorgrad as tg
from tests.models.gpt2_pair import EOS, PAD, pair, prompts

GREEDY = {"do_sample": False}
WAYS = {
    "greedy": GREEDY,
    "repetition penalty": {**GREEDY, "repetition_penalty": 1.7},
    "reward for repetition": {**GREEDY, "repetition_penalty": 0.6},
    "n-grams": {**GREEDY, "no_repeat_ngram_size": 2},
    "several ends": {**GREEDY, "eos_token_id": [EOS, 3, 5], "min_new_tokens": 4},
    "least length": {**GREEDY, "eos_token_id": [EOS, 3, 5, 20], "min_length": 11},
    "beams": {"num_beams": 3},
    "beams, long": {"num_beams": 4, "length_penalty": 2.0, "num_return_sequences": 3},
    "beams, short": {"num_beams": 3, "length_penalty": -1.0, "early_stopping": True},
    "beams, never": {"num_beams": 3, "length_penalty": 0.3, "early_stopping": "never"},
    "beams, penalised": {
        "num_beams": 4,
        "repetition_penalty": 1.3,
        "no_repeat_ngram_size": 3,
        "min_new_tokens": 3,
        "num_return_sequences": 2,
    },
    "beams, several ends": {"num_beams": 2, "eos_token_id": [EOS, 3, 5, 20, 31], "max_length": 17},
}


def both(seed, rows, longest, **options):
    """The ids that ours and transformers' write for the same padded prompts."""
    ours, theirs = pair()
    ids, mask = prompts(seed, rows, longest)
    options = {"pad_token_id": PAD, "do_sample": False, **options}
    if "max_length" not in options:
        options = {"max_new_tokens": 11, **options}
    expected = theirs.generate(
        torch.from_numpy(ids), attention_mask=torch.from_numpy(mask), **options
    )
    got = ours.generate(tg.tensor(ids), attention_mask=tg.tensor(mask), **options)
    return got, expected


@pytest.mark.parametrize("way", WAYS)
def test_fifty_prompts(way):
    """F0.7, B0.10, B0.11, B0.12: batches of ten left-padded prompts; rows end where they end."""
    for seed in range(5):
        got, expected = both(seed, 10, 8, **WAYS[way])
        np.testing.assert_array_equal(got, expected.numpy(), strict=True)


def test_scores_of_beams():
    got, expected = both(
        1, 7, 5, num_beams=3, num_return_sequences=2, length_penalty=0.7, output_scores=True,
        return_dict_in_generate=True,
    )  # fmt: skip
    np.testing.assert_allclose(
        got.sequences_scores, expected.sequences_scores.numpy(), rtol=1e-5, atol=1e-6
    )
    ended = (expected.sequences[:, 5:] == EOS).any(1).tolist()
    assert [reason == "eos" for reason in got.finish_reasons] == ended
    assert 0 < sum(ended) < 14  # or the comparison would say little


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.7},
        {"top_k": 5},
        {"top_p": 0.8, "repetition_penalty": 1.2},
        {"min_p": 0.1, "temperature": 1.4},
        {"typical_p": 0.6},
        {"top_k": 20, "num_return_sequences": 3},
        {"num_beams": 3, "temperature": 1.3},
    ],
    ids=str,
)
def test_drawn_with_pytorchs_seed(options):
    """One manual_seed, the same draws: numbers from the generator are used as transformers does.

    Its probabilities are float32's, so both models are.
    """
    ours, theirs = pair(seed=1)  # which no other test uses: here they become float32
    ids, mask = prompts(3, 4, 6)
    options = {
        "do_sample": True,
        "max_new_tokens": 9,
        "pad_token_id": PAD,
        "top_k": None,
        **options,
    }
    torch.manual_seed(5)
    expected = theirs.float().generate(
        torch.from_numpy(ids), attention_mask=torch.from_numpy(mask),
        **{"top_k": 0, **options},
    )  # fmt: skip
    tg.manual_seed(5)
    got = ours.float().generate(tg.tensor(ids), attention_mask=tg.tensor(mask), **options)
    np.testing.assert_array_equal(got, expected.numpy())


def test_log_probabilities():
    """log p of each token under the model, which transformers gives from its raw logits."""
    ours, theirs = pair()
    ids, mask = prompts(2, 6, 5)
    options = {
        "do_sample": False, "repetition_penalty": 1.4, "max_new_tokens": 12,
        "pad_token_id": PAD, "return_dict_in_generate": True, "output_scores": True,
    }  # fmt: skip
    expected = theirs.generate(
        torch.from_numpy(ids), attention_mask=torch.from_numpy(mask), output_logits=True, **options
    )
    got = ours.generate(tg.tensor(ids), attention_mask=tg.tensor(mask), **options)
    np.testing.assert_array_equal(got.sequences, expected.sequences.numpy())
    new = expected.sequences[:, 5:]
    logp = torch.stack(expected.logits, 1).log_softmax(-1).gather(-1, new[..., None])[..., 0]
    after = (new == EOS).int().cumsum(1) - (new == EOS).int() > 0
    assert after.any()
    np.testing.assert_allclose(got.logprobs, logp.masked_fill(after, 0), rtol=1e-5, atol=1e-6)
    for ours_step, theirs_step in zip(got.scores, expected.scores, strict=True):
        np.testing.assert_allclose(ours_step, theirs_step, rtol=1e-5, atol=1e-5)
