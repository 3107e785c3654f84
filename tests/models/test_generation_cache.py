"""Reading with a cache beside reading everything at once: every cut, batch, padding and window."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorgrad as tg
from tensorgrad.models.generation import GenerationConfig, Reader, generate
from tensorgrad.models.gpt2 import GPT2Config, GPT2LMHeadModel
from tests.models.gpt2_pair import PAD, SIZES, pair, prompts
from tests.models.test_char_gpt import twins

WINDOW = SIZES["n_positions"]


def theirs_on_row(ids):
    """transformers' logits of one row without padding, (T, V)."""
    with torch.no_grad():
        return pair()[1](torch.from_numpy(ids)[None]).logits[0].numpy()


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 4),
    cuts=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    padded=st.booleans(),
    use_cache=st.booleans(),
)
def test_every_prefix_batch_and_padding(seed, rows, cuts, padded, use_cache):
    """B0.1, B0.2, B0.3, B0.9: pieces of any size, on top of what was read, give the same logits.

    The first piece may be padded on the left; all logits are transformers' for each row alone.
    """
    ids, mask = prompts(seed, rows, sum(cuts))
    first = cuts[0]
    mask[:, first - 1 :] = 1
    if not padded:
        mask[:] = 1
    reader = Reader(
        pair()[0], rows, tg.tensor(mask[:, :first]) if padded else None, use_cache=use_cache
    )
    got, at = [], 0
    with tg.no_grad():
        for n in cuts:
            got.append(np.array(reader.read(tg.tensor(ids[:, at : at + n]), keep=n)))
            at += n
    got = np.concatenate(got, 1)
    for i in range(rows):
        begin = int(np.argmax(mask[i]))
        expected = theirs_on_row(ids[i, begin:])
        np.testing.assert_allclose(got[i, begin:], expected, rtol=1e-9, atol=1e-9)


def test_each_token_is_read_once():
    """B0.2: the prompt in one piece, then one token a step, with all that is known of the past."""
    model, _ = pair()
    seen = []
    hook = model.transformer.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    out = model.generate(tg.tensor(prompts(1, 3, 5)[0]), 6, do_sample=False, eos_token_id=None)
    hook.remove()
    assert [piece.shape for piece in seen] == [(3, 5)] + [(3, 1)] * 5
    np.testing.assert_array_equal(tg.cat(seen, dim=1), out[:, :-1])


def test_several_continuations_share_the_reading_of_the_prompt():
    """B0.11: two prompts are read once for three continuations each, which then differ."""
    model, _ = pair()
    seen = []
    hook = model.transformer.register_forward_hook(
        lambda module, args, out: seen.append(args[0].shape)
    )
    tg.manual_seed(4)
    ids = prompts(2, 2, 5)[0]
    out = model.generate(tg.tensor(ids), 4, num_return_sequences=3, eos_token_id=None)
    hook.remove()
    assert seen == [(2, 5)] + [(6, 1)] * 3
    np.testing.assert_array_equal(out[:, :5], ids.repeat(3, 0))
    assert len({tuple(row) for row in out.tolist()}) == 6


@pytest.mark.parametrize("ways", [{"do_sample": False}, {"num_beams": 3}], ids=str)
def test_a_padded_batch_is_its_rows_alone(ways):
    """B0.9: whatever stands under the padding, and with whomever a row is together."""
    model, _ = pair()
    ids, mask = prompts(6, 7, 9)
    options = {"max_new_tokens": 12, "pad_token_id": PAD, **ways}
    batch = model.generate(tg.tensor(ids), attention_mask=tg.tensor(mask), **options)
    other = np.where(mask == 1, ids, 3)
    again = model.generate(tg.tensor(other), attention_mask=tg.tensor(mask), **options)
    np.testing.assert_array_equal(batch[:, 9:], again[:, 9:])
    for i in range(7):
        begin = int(np.argmax(mask[i]))
        alone = model.generate(tg.tensor(ids[i : i + 1, begin:]), **options)[0, 9 - begin :]
        row = batch[i, 9:]
        np.testing.assert_array_equal(row[: len(alone)], alone)
        assert (row[len(alone) :] == PAD).all()


def test_padding_cannot_be_outbid():
    """B0.8: tokens of enormous keys under the padding change nothing, not by a bit."""
    model, _ = pair(seed=2)
    with tg.no_grad():
        model.transformer.wte.weight[PAD] *= 1e6
    ids, mask = prompts(7, 2, 6)
    mask[1] = [0, 0, 0, 1, 1, 1]
    logits = []
    for under in (PAD, 3):
        reader = Reader(model, 2, tg.tensor(mask))
        with tg.no_grad():
            logits.append(reader.read(tg.tensor(np.where(mask == 1, ids % 7, under))))
    np.testing.assert_array_equal(*logits)


def greedy_by_hand(ids, n):
    """transformers' likeliest tokens, each given the last n_positions, without a cache."""
    for _ in range(n):
        ids = np.append(ids, theirs_on_row(ids[-WINDOW:])[-1].argmax())
    return ids


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("length", [WINDOW - 3, WINDOW, WINDOW + 6])
def test_past_the_window_the_text_is_cropped_and_read_anew(length, use_cache):
    """B0.4: with learned positions a cache cannot slide, so it is dropped."""
    ids = prompts(8, 2, length)[0]
    out = pair()[0].generate(
        tg.tensor(ids), 6, do_sample=False, eos_token_id=None, use_cache=use_cache
    )
    for row, expected in zip(out, ids, strict=True):
        np.testing.assert_array_equal(row, greedy_by_hand(expected, 6))


def test_padding_is_cropped_with_the_text():
    """B0.4, B0.9: a padded row past the window is that row alone until its own window is full."""
    ids, mask = prompts(9, 2, WINDOW - 3)
    mask[1, :10], mask[1, 10:] = 0, 1
    out = pair()[0].generate(
        tg.tensor(ids), 8, do_sample=False, eos_token_id=None, attention_mask=tg.tensor(mask)
    )
    np.testing.assert_array_equal(out[0], greedy_by_hand(ids[0], 8))
    np.testing.assert_array_equal(out[1, 10:], greedy_by_hand(ids[1, 10:], 8))


@pytest.mark.parametrize("ways", [{"do_sample": False}, {"num_beams": 2}], ids=str)
def test_stop_at_the_window(ways):
    """B0.4: the last token is chosen from a full window, and the answer says why."""
    ids = prompts(10, 2, WINDOW - 4)[0]
    options = {"eos_token_id": None, "return_dict_in_generate": True, **ways}
    model, _ = pair()
    out = model.generate(tg.tensor(ids), 20, past_window="stop", **options)
    assert out.sequences.shape == (2, WINDOW + 1)
    assert out.finish_reasons == ["window"] * 2
    five = model.generate(tg.tensor(ids), 5, past_window="stop", **options)
    np.testing.assert_array_equal(out.sequences, five.sequences)
    assert five.finish_reasons == ["length"] * 2


def test_a_prompt_longer_than_the_window_that_shall_be_the_end():
    with pytest.raises(ValueError, match=f"prompt of 42 tokens .* window of {WINDOW}"):
        pair()[0].generate(tg.zeros(1, 42, dtype=tg.int64), 3, past_window="stop")


def test_the_cache_has_room_for_the_text_and_no_more():
    reader = Reader(pair()[0], 2, length=13)
    assert reader.cache is not None and reader.cache.capacity == 13
    assert Reader(pair()[0], 2, length=999).cache.capacity == WINDOW
    assert Reader(pair()[0], 2, use_cache=False).cache is None


def test_a_model_that_calls_its_cache_a_cache():
    """logits and loss, with an argument `cache`: read once, then one token a step."""
    model, seen = pair()[0], []

    class Own(tg.nn.Module):
        config = model.config

        def new_cache(self, rows, capacity):
            return model.transformer.new_cache(rows, capacity)

        def forward(self, idx, targets=None, cache=None):
            seen.append((idx.shape, cache.length))
            return model(idx, past_key_values=cache).logits, None

    idx = tg.tensor(prompts(3, 2, 5)[0])
    out = generate(Own(), idx, 4, do_sample=False, eos_token_id=None)
    assert seen == [((2, 5), 0), ((2, 1), 5), ((2, 1), 6), ((2, 1), 7)]
    np.testing.assert_array_equal(out, model.generate(idx, 4, do_sample=False, eos_token_id=None))


def test_padding_of_a_model_that_knows_none():
    with pytest.raises(ValueError, match="CharGPT does not know an attention_mask"):
        twins()[0].generate(
            tg.zeros(2, 3, dtype=tg.int64), 2, attention_mask=tg.tensor([[0, 1, 1], [1, 1, 1]])
        )
    full = tg.ones(2, 3, dtype=tg.int64)  # which hides nothing
    assert twins()[0].generate(full, 2, attention_mask=full).shape == (2, 5)


def test_rows_of_padding_in_the_vocabulary_are_never_drawn():
    """B3.4: a model whose logits are wider than its vocabulary."""

    class Wide(tg.nn.Module):
        config = type("Config", (), {"vocab_size": 5, "block_size": 8})

        def forward(self, idx):
            return tg.arange(7).float().expand(*idx.shape, 7) * 10, None

    out = tg.no_grad()(Reader(Wide(), 1).read)(tg.zeros(1, 3, dtype=tg.int64))
    assert out.shape == (1, 1, 5)
    assert generate(Wide(), tg.zeros(1, 3, dtype=tg.int64), 4, top_k=1)[0, 3:].tolist() == [4] * 4


def test_padded_vocabulary_of_gpt2():
    """B3.4: rows of padding inside GPT-2 have no column, and no draw is one of them."""
    tg.manual_seed(1)
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=13, n_positions=9, n_embd=6, n_layer=1, n_head=2, vocab_multiple=32)
    )
    out = model.generate(tg.zeros(50, 2, dtype=tg.int64), 6, temperature=50.0)
    assert set(range(13)) == set(out[:, 2:].flatten().tolist())


def test_mask_of_another_shape():
    with pytest.raises(ValueError, match=r"attention_mask .* shape \(2, 3\).*\(2, 4\)"):
        pair()[0].generate(
            tg.zeros(2, 3, dtype=tg.int64), 2, attention_mask=tg.ones(2, 4, dtype=tg.int64)
        )


def test_padding_on_the_right():
    with pytest.raises(ValueError, match="row 1 is padded on its right"):
        pair()[0].generate(
            tg.zeros(2, 3, dtype=tg.int64), 2, attention_mask=tg.tensor([[1, 1, 1], [1, 1, 0]])
        )


def test_the_default_is_to_crop():
    assert GenerationConfig().past_window == "crop"
