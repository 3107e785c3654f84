"""Generation beside a loop of PyTorch's: greedy, drawn, cropped; and that it leaves no trace."""

import threading

import numpy as np
import pytest
import torch

import tensorgrad as tg
from tensorgrad.models.generation import GenerationConfig, draw, generate, stream
from tests.models.gpt2_pair import PAD, pair, prompts
from tests.models.test_char_gpt import CONFIG, ids, twins

PROMPT = (3, 5)


def continued(model, idx, n, choose):
    """PyTorch's model, run on the last block_size tokens n times."""
    idx = torch.from_numpy(idx)
    for _ in range(n):
        last = idx[:, -model.block_size :]
        logits, _ = model(last, last)
        idx = torch.cat([idx, choose(logits[:, -1])], 1)
    return idx.numpy()


def test_greedy():
    """B1.12: temperature 0 takes the likeliest."""
    ours, theirs = twins()
    x = ids(shape=PROMPT)[0]
    expected = continued(theirs, x, 13, lambda logits: logits.argmax(-1, keepdim=True))
    out = ours.generate(tg.tensor(x), 13, temperature=0)
    np.testing.assert_array_equal(out, expected, strict=True)
    np.testing.assert_array_equal(ours.generate(tg.tensor(x), 13, top_k=1), expected)


@pytest.mark.parametrize("top_k", [None, 4, 23, 1000])
def test_drawn_with_a_seed(top_k):
    """Longer than the block, and each draw is torch.multinomial's."""
    ours, theirs = twins()
    x = ids(shape=PROMPT)[0]
    generator = torch.Generator().manual_seed(1337)

    def choose(logits):
        logits = logits / 0.7
        k = min(top_k or logits.shape[-1], logits.shape[-1])
        rest = logits < logits.topk(k).values[:, -1:]
        p = logits.masked_fill(rest, -torch.inf).softmax(-1)
        return torch.multinomial(p, 1, generator=generator)

    expected = continued(theirs, x, 17, choose)
    for seeded in (tg.Generator().manual_seed(1337), None):
        tg.manual_seed(1337)  # without a generator of its own it is the default one
        out = ours.generate(tg.tensor(x), 17, 0.7, top_k, seeded)
        np.testing.assert_array_equal(out, expected)


def test_only_the_last_block_counts():
    model, _ = twins()
    x = ids(shape=(2, 19))[0]
    long = model.generate(tg.tensor(x), 7, temperature=0)
    short = model.generate(tg.tensor(x[:, -CONFIG.block_size :]), 7, temperature=0)
    np.testing.assert_array_equal(long[:, :19], x)
    np.testing.assert_array_equal(long[:, -7:], short[:, -7:])


def test_nothing_asked_nothing_added():
    model, _ = twins()
    x = ids(shape=PROMPT)[0]
    np.testing.assert_array_equal(model.generate(tg.tensor(x), 0), x)


def test_modes_are_left_as_they_were_and_nothing_is_recorded():
    """B0.15, B2.32: it runs in evaluation mode, and afterwards each module is in its own."""
    model, _ = twins()
    model.train()
    model.blocks[1].eval()
    before = [module.training for module in model.modules()]
    seen = []
    model.ln_f.register_forward_hook(lambda module, *_: seen.append(module.training))
    out = model.generate(tg.tensor(ids(shape=PROMPT)[0]), 3)
    assert [module.training for module in model.modules()] == before
    assert seen == [False] * 3
    assert not out.requires_grad and all(p.grad is None for p in model.parameters())


def test_modes_come_back_after_an_error():
    """B0.15."""
    model, _ = twins()
    with pytest.raises(IndexError):
        model.train().generate(tg.full((1, 3), 99), 3)
    assert all(module.training for module in model.modules())


def test_what_ties_with_the_kth_is_kept():
    """B1.11: more than k may be drawn."""
    logits = tg.tensor([[2.0, 5.0, 2.0, 1.0]])
    generator = tg.Generator().manual_seed(7)
    drawn = {draw(logits, top_k=2, generator=generator).item() for _ in range(200)}
    assert drawn == {0, 1, 2}


def test_temperature_sharpens():
    """The share of the likelier of two approaches softmax(logits / temperature)."""
    logits = tg.tensor([[0.0, 1.0]]).expand(20_011, 2)
    for temperature in (0.5, 1.0, 3.0):
        generator = tg.Generator().manual_seed(13)
        share = draw(logits, temperature, generator=generator).double().mean().item()
        assert abs(share - 1 / (1 + np.exp(-1 / temperature))) < 0.01


@pytest.mark.parametrize(
    ("shape", "options", "sentence"),
    [
        ((1, 0), {}, r"at least one token, it is \(1, 0\)"),
        ((3,), {}, r"idx must be \(B, T\).*it is \(3,\)"),
        ((1, 3), {"max_new_tokens": -1}, "max_new_tokens must be at least 0, it is -1"),
        ((1, 3), {"temperature": -0.5}, "temperature must be at least 0, it is -0.5"),
        ((1, 3), {"temperature": float("nan")}, "temperature must be at least 0, it is nan"),
        ((1, 3), {"top_k": 0}, "top_k must be at least 1, it is 0"),
    ],
)
def test_what_cannot_be_generated(shape, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        twins()[0].generate(tg.zeros(*shape, dtype=tg.int64), **{"max_new_tokens": 2, **options})


# ---- where a text ends


def greedy(**options):
    """A greedy continuation by the tiny GPT-2 of three prompts, which end at different lengths."""
    model, _ = pair()
    ids = prompts(4, 3, 5)[0]
    options = {"max_new_tokens": 20, "do_sample": False, "pad_token_id": PAD, **options}
    return model.generate(tg.tensor(ids), **options)


def test_each_row_ends_by_itself_and_is_padded():
    """B0.12: rows end at 4 and at 9 tokens, are filled with pad, and the longest ends the batch."""
    free = greedy(eos_token_id=None)[:, 5:].tolist()
    ends = [free[0][3], free[1][8]]
    out = greedy(eos_token_id=ends, return_dict_in_generate=True)
    lengths = [min([row.index(e) + 1 for e in ends if e in row], default=20) for row in free]
    assert len(set(lengths)) > 1
    assert out.sequences.shape == (3, 5 + max(lengths))
    for row, expected, n in zip(out.sequences[:, 5:].tolist(), free, lengths, strict=True):
        assert row[:n] == expected[:n]
        assert row[n:] == [PAD] * (max(lengths) - n)
    assert out.finish_reasons == ["eos" if n < 20 else "length" for n in lengths]
    assert (np.asarray(out.logprobs) == 0).sum() == sum(max(lengths) - n for n in lengths)


def test_rows_are_filled_with_the_first_end_where_there_is_no_padding():
    free = greedy(eos_token_id=None)[:, 5:].tolist()
    ends = [free[0][3], free[1][8]]
    out = greedy(eos_token_id=ends, pad_token_id=None)[:, 5:].tolist()
    assert all(set(row[row.index(ends[0]) :]) == {ends[0]} for row in out if ends[0] in row)


def test_lengths():
    """B0.26: new tokens, or tokens in all; twenty where nothing is said."""
    assert greedy(eos_token_id=None).shape == (3, 25)
    assert greedy(eos_token_id=None, max_new_tokens=None).shape == (3, 25)
    assert greedy(eos_token_id=None, max_new_tokens=None, max_length=11).shape == (3, 11)
    assert greedy(eos_token_id=None, max_new_tokens=None, max_length=5).shape == (3, 5)


@pytest.mark.parametrize("least", [{"min_new_tokens": 6}, {"min_length": 11}], ids=str)
def test_least_lengths(least):
    """B0.26: eos cannot be chosen before the sixth token, but may be the next."""
    end = greedy(eos_token_id=None)[0, 8].item()  # which would be chosen at once
    out = greedy(eos_token_id=end, **least)[0, 5:].tolist()
    assert end not in out[:6]
    assert greedy(eos_token_id=end)[0, 5:].tolist().index(end) < 6


def spelt(ids):
    """Tokens as text: three letters for each."""
    return "".join(f"<{i}>" for i in ids)


class Tokenizer:
    decode = staticmethod(spelt)


@pytest.mark.parametrize("tokenizer", [spelt, Tokenizer()])
def test_stop_strings(tokenizer):
    """B0.26: a row ends with the token that completes one of them, wherever tokens meet."""
    free = greedy(eos_token_id=None)[:, 5:].tolist()
    pieces = f"{free[0][2]}><{free[0][3]}", f"<{free[1][6]}>"
    out = greedy(
        eos_token_id=None, stop_strings=pieces, tokenizer=tokenizer, return_dict_in_generate=True
    )
    for row, expected, reason in zip(
        out.sequences[:, 5:].tolist(), free, out.finish_reasons, strict=True
    ):
        ends = [n for n in range(1, 21) if any(p in spelt(expected[:n]) for p in pieces)]
        n = min(ends, default=20)
        assert row == expected[:n] + [PAD] * (len(row) - n)
        assert reason == ("stop" if ends else "length")
    assert "stop" in out.finish_reasons
    alone = greedy(eos_token_id=None, stop_strings=pieces[1], tokenizer=tokenizer, num_beams=1)
    assert alone.shape[1] > 6


def test_stop_strings_end_beams():
    options = {"num_beams": 2, "eos_token_id": None, "early_stopping": True}
    pieces = [f"<{token}>" for token in greedy(**options)[:, 8].tolist()]
    out = greedy(stop_strings=pieces, tokenizer=spelt, return_dict_in_generate=True, **options)
    assert "stop" in out.finish_reasons
    for row, reason in zip(out.sequences[:, 5:].tolist(), out.finish_reasons, strict=True):
        text = [i for i in row if i != PAD]
        assert any(piece in spelt(text) for piece in pieces) == (reason == "stop")
        assert not any(piece in spelt(text[:-1]) for piece in pieces)


# ---- as it is written


def test_a_stream_is_the_text():
    model, _ = pair()
    idx = tg.tensor(prompts(4, 3, 5)[0])
    tg.manual_seed(3)
    whole = model.generate(idx, 9, top_k=7, pad_token_id=PAD)
    tg.manual_seed(3)
    tokens = list(stream(model, idx, 9, top_k=7, pad_token_id=PAD))
    assert [token.shape for token in tokens] == [(3,)] * len(tokens)
    np.testing.assert_array_equal(tg.stack(tokens, 1), whole[:, 5:])


def test_between_two_tokens_the_model_is_as_it_was():
    model, _ = twins()
    model.train()
    model.blocks[0].eval()
    before = [module.training for module in model.modules()]
    seen = []
    model.ln_f.register_forward_hook(lambda module, *_: seen.append(module.training))
    for token in stream(model, tg.tensor(ids(shape=PROMPT)[0]), 4):
        assert [module.training for module in model.modules()] == before
        assert tg.is_grad_enabled() and not token.requires_grad
    assert seen == [False] * 4


def test_parameters_ask_for_gradients_again():
    """After a text, between two tokens of a stream, and after an error; a recorded graph lives."""
    model, _ = twins()
    model.wpe.weight.requires_grad = False
    x = tg.tensor(ids(shape=PROMPT)[0])
    before = [p.requires_grad for p in model.parameters()]
    _, loss = model(x, x)
    for _ in stream(model, x, 3):
        assert [p.requires_grad for p in model.parameters()] == before
    with pytest.raises(IndexError):
        model.generate(tg.full((1, 3), 99), 3)
    assert [p.requires_grad for p in model.parameters()] == before
    with tg.no_grad():
        model.generate(x, 2)
        assert not tg.is_grad_enabled()
    loss.backward()
    assert model.lm_head.weight.grad is not None and model.wpe.weight.grad is None


def test_two_readers_of_one_model():
    """Streams that overlap, each on its own thread, give the model back as it was."""
    model, _ = twins()
    model.train()
    x = tg.tensor(ids(shape=PROMPT)[0])
    expected = model.generate(x, 5, temperature=0)
    begun, done, texts = threading.Barrier(2, timeout=60), threading.Barrier(2, timeout=60), []

    def read():
        parts = []

        def together(tokens):
            if not parts:
                begun.wait()  # both are inside
            parts.append(tokens)

        texts.append(model.generate(x, 5, temperature=0, streamer=together))
        done.wait()

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for text in texts:
        np.testing.assert_array_equal(text, expected)
    assert len(texts) == 2
    assert model.training and all(m.training for m in model.modules())
    assert all(p.requires_grad for p in model.parameters())


def test_a_model_that_records_something_else():
    """Gradients that come from no parameter of the model do not come out either."""
    weight = tg.ones(3, requires_grad=True)

    class Own(tg.nn.Module):
        config = type("Config", (), {"vocab_size": 3, "block_size": 8})

        def forward(self, idx):
            return weight.expand(*idx.shape, 3), None

    out = generate(Own(), tg.zeros(1, 2, dtype=tg.int64), 3, return_dict_in_generate=True)
    assert not out.logprobs.requires_grad and not out.sequences.requires_grad


def test_a_streamer_is_called_for_each_step():
    model, _ = twins()
    x, seen = tg.tensor(ids(shape=PROMPT)[0]), []
    out = model.generate(x, 6, temperature=0, streamer=lambda tokens: seen.append(tokens))
    np.testing.assert_array_equal(tg.stack(seen, 1), out[:, 5:])


def test_a_streamer_of_transformers_kind():
    class Streamer:
        def __init__(self):
            self.parts, self.ended = [], 0

        def put(self, value):
            assert not self.ended
            self.parts.append(value)

        def end(self):
            self.ended += 1

    model, _ = twins()
    x, streamer = tg.tensor(ids(shape=(1, 5))[0]), Streamer()
    out = model.generate(x, 6, temperature=0, streamer=streamer)
    assert streamer.ended == 1
    np.testing.assert_array_equal(streamer.parts[0], x)
    np.testing.assert_array_equal(tg.stack(streamer.parts[1:], 1), out[:, 5:])


# ---- the rest


def test_a_processor_of_ones_own():
    """It sees what the text is so far, and its word counts before the temperature."""
    model, _ = twins()
    seen = []

    def even(ids, logits):
        seen.append(ids.shape)
        odd = tg.arange(logits.shape[-1]) % 2 == 1
        return logits.masked_fill(odd, -np.inf)

    out = model.generate(tg.tensor(ids(shape=PROMPT)[0]), 4, 2.0, logits_processor=even)
    assert (np.asarray(out[:, 5:]) % 2 == 0).all()
    assert seen == [(3, 5), (3, 6), (3, 7), (3, 8)]


def test_suppressed_tokens():
    model, _ = twins()
    x = tg.tensor(ids(shape=PROMPT)[0])
    out = model.generate(x, 30, 9.0, suppress_tokens=range(20))
    assert set(out[:, 5:].flatten().tolist()) <= {20, 21, 22}


def test_presence_and_frequency_penalties_count_what_was_written():
    """With a penalty that nothing outbids, no token comes twice, though the prompt's may come."""
    model, _ = twins()
    x = tg.zeros(2, 5, dtype=tg.int64)
    for name in ("presence_penalty", "frequency_penalty"):
        out = model.generate(x, 23, temperature=0, **{name: 1e6})[:, 5:].tolist()
        assert [sorted(row) for row in out] == [list(range(23))] * 2


def test_a_configuration_and_what_is_said_beside_it():
    config = GenerationConfig(max_new_tokens=3, top_k=1)
    model, _ = twins()
    x = tg.tensor(ids(shape=PROMPT)[0])
    assert model.generate(x, generation_config=config).shape == (3, 8)
    assert model.generate(x, 4, generation_config=config).shape == (3, 9)
    greedy = model.generate(x, 3, temperature=0)
    np.testing.assert_array_equal(model.generate(x, generation_config=config), greedy)
    np.testing.assert_array_equal(model.generate(input_ids=x, max_new_tokens=3, top_k=1), greedy)


def test_temperature_zero_is_greedy_whatever_else_is_said():
    """B0.14, B1.12: nothing is divided by it, and nothing is drawn."""
    model, _ = pair()
    x = tg.tensor(prompts(4, 3, 5)[0])
    expected = model.generate(x, 7, do_sample=False)
    state = tg.get_rng_state()
    for options in ({}, {"do_sample": True}, {"top_k": 3, "top_p": 0.1}):
        out = model.generate(x, 7, temperature=0, **options)
        np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(tg.get_rng_state(), state)


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"top_p": 0.0}, ValueError, r"top_p must be in \(0, 1\], it is 0.0"),
        ({"top_p": 1.1}, ValueError, r"top_p must be in \(0, 1\], it is 1.1"),
        ({"typical_p": -1}, ValueError, r"typical_p must be in \(0, 1\], it is -1"),
        ({"min_p": 1.5}, ValueError, "min_p must be at most 1, it is 1.5"),
        ({"min_p": -0.1}, ValueError, "min_p must be at least 0, it is -0.1"),
        ({"temperature": float("inf")}, ValueError, "temperature must be finite, it is inf"),
        ({"repetition_penalty": 0}, ValueError, "repetition_penalty must be greater than 0"),
        ({"no_repeat_ngram_size": -1}, ValueError, "no_repeat_ngram_size must be at least 0"),
        ({"num_beams": 0}, ValueError, "num_beams must be at least 1, it is 0"),
        ({"eos_token_id": 53}, ValueError, "eos_token_id 53 is no id of .* vocabulary of 53"),
        ({"eos_token_id": [7, -1]}, ValueError, "eos_token_id -1 is no id"),
        ({"pad_token_id": 50256}, ValueError, "pad_token_id 50256 is no id"),
        ({"past_window": "slide"}, ValueError, "past_window must be 'stop' or 'crop', .* 'slide'"),
        ({"early_stopping": "soon"}, ValueError, "early_stopping must be True or False or 'never'"),
        ({"max_length": 9}, ValueError, "max_new_tokens=2 and max_length=9 say the same"),
        ({"max_new_tokens": None, "max_length": 2}, ValueError, "3 tokens, more than max_length=2"),
        ({"num_beams": 2, "num_return_sequences": 3}, ValueError, "more than the 2 hypotheses"),
        ({"do_sample": False, "num_return_sequences": 3}, ValueError, "greedy search knows one"),
        ({"stop_strings": "x"}, ValueError, "stop_strings need a tokenizer"),
        ({"stop_strings": ["a", ""], "tokenizer": spelt}, ValueError, "at least one character"),
        ({"num_beams": 2, "streamer": print}, ValueError, "nothing to stream"),
        ({"top_q": 0.5}, TypeError, "no option 'top_q'; did you mean 'top_p'"),
        ({"xyz": 0.5}, TypeError, "no option 'xyz'; there are max_new_tokens, max_length"),
        ({"max_new_tokens": 2.0}, TypeError, "max_new_tokens must be a whole number, it is 2.0"),
        ({"top_k": tg.tensor(3)}, TypeError, "top_k must be a plain number, not a Tensor"),
    ],
    ids=str,
)
def test_settings_that_cannot_be(options, error, sentence):
    """B0.13, B0.14: ids outside the vocabulary and shares outside (0, 1] are refused."""
    with pytest.raises(error, match=sentence):
        pair()[0].generate(tg.zeros(1, 3, dtype=tg.int64), **{"max_new_tokens": 2, **options})


def test_beams_cannot_be_streamed():
    with pytest.raises(ValueError, match="nothing to stream"):
        stream(pair()[0], tg.zeros(1, 3, dtype=tg.int64), 3, num_beams=2)


def test_float16_logits_are_chosen_from_in_float32():
    class Half(tg.nn.Module):
        config = type("Config", (), {"vocab_size": 3, "block_size": 8})

        def forward(self, idx):
            return tg.zeros(*idx.shape, 3, dtype=tg.bfloat16), None

    out = generate(Half(), tg.zeros(1, 2, dtype=tg.int64), 3, return_dict_in_generate=True)
    assert out.logprobs.dtype == tg.float32
    np.testing.assert_allclose(out.logprobs, -np.log(3), rtol=1e-6)
