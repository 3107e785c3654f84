"""Looking inside: beside transformers, and by itself: nothing changes, nothing is left out."""

import base64
import json
import math
import re
import shutil
import struct
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
import torch.nn.functional as TF

import tensorgrad as tg
import tensorgrad.nn.functional as F
from tensorgrad import nn
from tensorgrad.__main__ import main
from tensorgrad.data import CharVocab, train_bpe
from tensorgrad.models.attention_maps import attention_maps
from tensorgrad.models.char_gpt import CharGPT, CharGPTConfig
from tensorgrad.models.gpt2 import GPT2Config, GPT2LMHeadModel
from tensorgrad.models.inspection import (
    Inspection,
    hidden_states,
    html_page,
    logit_lens,
    opened,
    write_picture,
)
from tensorgrad.models.inspection.labels import label, visible
from tensorgrad.models.inspection.picture import inked, panels
from tensorgrad.models.inspection.script import SCRIPT
from tensorgrad.models.inspection.tables import lens_table, losses_table, position_table
from tensorgrad.models.mini_gpt import GPTConfig, MiniGPT
from tensorgrad.models.variants import create_gpt2_model
from tests.models.torch_gpt2 import CONFIGS, twins

SYMBOLS = '</script>\n &"$' + "abdefghjklmnoquvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123"
TEXT = '<script>\n &"'  # T = 12


def vocab_of(size):
    """A vocabulary of so many characters, those of TEXT among them."""
    return CharVocab(list(dict.fromkeys(SYMBOLS))[:size])


def sizes(kind, **more):
    return kind(vocab_size=31, block_size=13, n_layer=3, n_head=5, n_embd=35, **more)


MODELS = {
    "char GPT": lambda: CharGPT(sizes(CharGPTConfig, dropout=0.3)),
    "mini GPT": lambda: MiniGPT(sizes(GPTConfig, dropout=0.3)),
    "post-norm": lambda: MiniGPT(sizes(GPTConfig, post_norm=True)),
    "GPT-2": lambda: GPT2LMHeadModel(sizes(GPT2Config, vocab_multiple=8)),
}
every_model = pytest.mark.parametrize("name", MODELS)


def model_of(name):
    tg.manual_seed(5)
    model = MODELS[name]()
    with tg.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p *= 9  # away from even attention
    return model


def inspected(name="mini GPT", text=TEXT, top=5):
    return Inspection(model_of(name), vocab_of(31), text, top)


# ---- beside transformers


@pytest.fixture(params=CONFIGS)
def both(request):
    """What ours and transformers' see in the same text with the same weights, in float64."""
    config = CONFIGS[request.param]
    ours, theirs = twins(config)
    theirs.set_attn_implementation("eager")
    look = Inspection(ours, vocab_of(config.vocab_size), TEXT, 7)
    ids = torch.tensor([look.ids])
    with torch.no_grad():
        out = theirs(ids, output_attentions=True, output_hidden_states=True)
        # The lens of the middle, from their own parts; their last state has been through ln_f.
        normed = [*map(theirs.transformer.ln_f, out.hidden_states[:-1]), out.hidden_states[-1]]
        logs = [torch.log_softmax(theirs.lm_head(x[0]), -1) for x in normed]
    return look, ids, out, logs


def test_maps_are_transformers(both):
    """F0.11, B0.23: of every layer and head; what is called attention is attention."""
    look, _, out, _ = both
    expected = torch.stack(out.attentions)[:, 0].numpy()
    assert look.maps.dtype == np.float64 and expected.std() > 0.05
    np.testing.assert_allclose(look.maps, expected, rtol=1e-9, atol=1e-12)


def test_states_are_transformers(both):
    look, _, out, _ = both
    expected = [x[0].numpy() for x in out.hidden_states]
    np.testing.assert_allclose(look.states[:-1], expected[:-1], rtol=1e-9, atol=1e-11)
    norm = look.model.transformer.ln_f
    np.testing.assert_allclose(
        norm(tg.tensor(look.states[-1])).detach().numpy(), expected[-1], rtol=1e-9, atol=1e-11
    )


def test_the_lens_is_their_norm_and_head_at_every_layer(both):
    look, ids, _, logs = both
    for i, expected in enumerate(logs):
        best, tokens = expected.topk(7, -1)
        np.testing.assert_array_equal(look.lens.tokens[i], tokens.numpy())
        np.testing.assert_allclose(look.lens.probabilities[i], best.exp().numpy(), rtol=1e-8)
        true = expected[:-1].gather(1, ids[0, 1:, None])
        np.testing.assert_allclose(look.lens.true[i], true[:, 0].exp().numpy(), rtol=1e-8)
        better = (expected[:-1] > true).sum(1).numpy()
        np.testing.assert_array_equal(look.lens.ranks[i], 1 + better)


def test_losses_are_theirs(both):
    look, ids, out, _ = both
    expected = TF.cross_entropy(out.logits[0, :-1], ids[0, 1:], reduction="none").numpy()
    np.testing.assert_allclose(look.losses, expected, rtol=1e-5)


# ---- every model


@every_model
def test_the_last_row_of_the_lens_is_the_models_own(name):
    look = inspected(name)
    model = look.model.eval()
    with tg.no_grad():
        out = model(look.input)
    own = (out[0] if isinstance(out, tuple) else out.logits).numpy()
    *_, last = logit_lens(model, hidden_states(model, look.input))
    np.testing.assert_array_equal(last.numpy(), own)
    np.testing.assert_array_equal(look.lens.tokens[-1, :, 0], own[0].argmax(-1))
    np.testing.assert_allclose(-np.log(look.lens.true[-1]), look.losses, rtol=1e-4, atol=1e-5)
    assert look.lens.true.shape == look.lens.ranks.shape == (4, 11)


@every_model
def test_each_state_becomes_the_next(name):
    """State 0 is the embeddings; block i makes state i + 1 of state i."""
    look = inspected(name)
    model = look.model.eval()
    body = getattr(model, "transformer", model)
    blocks = list(body.h if name == "GPT-2" else body.blocks)
    assert look.states.shape == (4, 12, 35)
    with tg.no_grad():
        embedded = (body.wte(look.input) + body.wpe(tg.arange(12)))[0].numpy()
        np.testing.assert_allclose(look.states[0], embedded, rtol=1e-6, atol=1e-7)
        for block, before, after in zip(blocks, look.states, look.states[1:]):
            x = block(tg.tensor(before[None]))[0].numpy()
            np.testing.assert_allclose(after, x, rtol=1e-4, atol=1e-5)


@every_model
def test_maps_are_those_of_the_calls(name):
    look = inspected(name)
    expected = attention_maps(look.model, look.input)
    assert look.maps.shape == (3, 5, 12, 12)
    np.testing.assert_allclose(look.maps, np.stack([*expected.values()])[:, 0], atol=1e-6)


@pytest.mark.parametrize(
    "parts",
    [
        {"attention": "local", "attention_window": 3},
        {"attention": "longformer", "attention_window": 3, "attention_tokens": 2},
        {"positions": "alibi", "n_kv_head": 1, "norm": "rmsnorm", "mlp": "swiglu"},
        {"positions": "rope", "moe_num_experts": 3},
        {"norm_position": "post"},
    ],
    ids=str,
)
def test_variants(parts):
    """No token sees a later one, which the page relies on; a window shows in the map."""
    model = create_gpt2_model(vocab_size=31, n_positions=13, n_embd=20, n_layer=2, n_head=5,
                              **parts)  # fmt: skip
    look = Inspection(model, vocab_of(31), TEXT)
    assert look.maps.shape == (2, 5, 12, 12)
    np.testing.assert_allclose(look.maps.sum(-1), 1, rtol=1e-5)
    assert not np.triu(look.maps, 1).any()
    if parts.get("attention") == "local":
        assert not np.tril(look.maps, -3).any() and look.maps[..., 7, 5].all()
    np.testing.assert_allclose(-np.log(look.lens.true[-1]), look.losses, rtol=1e-4, atol=1e-5)


@every_model
def test_the_model_is_left_as_it_was(name, tmp_path):
    look = inspected(name)
    model = look.model.train()
    parts = list(model.modules())
    parts[3].eval()
    before = {key: t.numpy().tobytes() for key, t in model.state_dict().items()}
    modes, attention = [m.training for m in parts], F.scaled_dot_product_attention
    stream = tg.get_rng_state().numpy().tobytes()
    html_page(look)
    write_picture(look, tmp_path / "a.png")
    with pytest.raises(IndexError):
        hidden_states(model, look.input + 31)
    with pytest.raises(RuntimeError):
        list(logit_lens(model, [tg.zeros(1, 2, 3)]))
    assert [m.training for m in parts] == modes
    assert not any(m._hooks for m in parts)
    assert F.scaled_dot_product_attention is attention
    assert {key: t.numpy().tobytes() for key, t in model.state_dict().items()} == before
    assert tg.get_rng_state().numpy().tobytes() == stream
    assert all(p.grad is None for p in model.parameters())
    assert all(x.node is None for x in look._states)


def test_half_precision():
    look = Inspection(model_of("GPT-2").to(tg.bfloat16), vocab_of(31), TEXT)
    assert look.maps.dtype == look.states.dtype == look.lens.true.dtype == np.float32
    np.testing.assert_allclose(look.lens.probabilities.sum(-1) <= 1.0001, True)
    full = inspected("GPT-2")
    np.testing.assert_allclose(look.losses, full.losses, rtol=0.2, atol=0.3)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "the text is empty"),
        ("a" * 14, "the text has 14 tokens, and the model sees 13 at once"),
        ("ab!", r"'!' \(U\+0021\) at position 2 is not among the 31 characters"),
    ],
)
def test_texts_that_cannot_be_read(text, sentence):
    with pytest.raises(ValueError, match=sentence):
        inspected(text=text)


def test_what_cannot_be_looked_into():
    with pytest.raises(ValueError, match="a Linear has no blocks with a norm and a head"):
        Inspection(nn.Linear(3, 5), vocab_of(31), TEXT)
    with pytest.raises(ValueError, match="a token 41 of the text, and the model has only 0 to 30"):
        Inspection(model_of("mini GPT"), CharVocab(map(chr, range(48, 99))), "Y")
    with pytest.raises(ValueError, match="top must be at least 1, it is 0"):
        inspected(top=0)


# ---- labels


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" be\n", "·be↵"),
        ("\t", "⇥"),
        ("\x00\x7f", r"\x00\x7f"),
        ("\u200b\u202e", r"\u200b\u202e"),  # of no width; from right to left
        ("\xa0", r"\xa0"),
        ("\ud800", r"\ud800"),
        ("\u0301", "\u25cc\u0301"),  # an accent needs something below it
        ("e\u0301中🙂<&", "e\u0301中🙂<&"),
        ("", "∅"),
    ],
)
def test_what_leaves_no_ink_is_shown(text, shown):
    assert visible(text) == shown


def test_labels_of_tokens():
    bpe = train_bpe(["to be or not to be"], 261)
    assert [label(bpe, i) for i in bpe.encode("中")] == [r"\xe4", r"\xb8", r"\xad"]
    assert "".join(label(bpe, i) for i in bpe.encode("or not\nto")) == "or·not↵to"
    assert label(bpe, bpe.eot) == "<|endoftext|>"
    assert label(bpe, 50300) == "#50300" and label(vocab_of(31), 31) == "#31"


# ---- the page


class Parsed(HTMLParser):
    """Tags, text of elements by name, and attributes of a page; each tag must be closed."""

    VOID = ("meta", "link", "br", "img")

    def __init__(self, content):
        super().__init__()
        self.open, self.tags, self.attributes, self.inside = [], [], [], {}
        self.feed(content)
        self.close()
        assert not self.open and not self.rawdata

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attributes]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.inside.setdefault(self.open[-1], []).append(data)


def data_of(content):
    return json.loads(Parsed(content).inside["script"][0])


@every_model
def test_the_page_holds_what_was_seen(name):
    look = inspected(name)
    found = data_of(html_page(look, -1, 2))
    assert found["tokens"] == [*'<script>↵·&"']
    assert found["breaks"] == [int(c == "\n") for c in TEXT]
    assert (found["layers"], found["heads"], found["layer"], found["head"]) == (3, 5, 2, 2)
    packed = np.frombuffer(base64.b64decode(found["maps"]), "<u2").reshape(3, 5, -1) / 65535
    maps = np.zeros((3, 5, 12, 12))
    maps[..., *np.tril_indices(12)] = packed
    np.testing.assert_allclose(maps, look.maps, atol=1e-5)
    np.testing.assert_allclose(found["losses"], look.losses, rtol=1e-4)
    np.testing.assert_allclose(found["true"], look.lens.true, rtol=1e-4)
    np.testing.assert_allclose(found["chances"], look.lens.probabilities, rtol=1e-4)
    assert found["ranks"] == look.lens.ranks.tolist()
    assert found["names"] == ["embed", "0", "1", "2"]
    top = [[[found["words"][k] for k in best] for best in row] for row in found["top"]]
    assert top == [[[look.label(k) for k in best] for best in row] for row in look.lens.tokens]
    assert math.isclose(found["ignorance"], math.log(31))


def test_no_text_is_read_as_html():
    """A text of tags stays text, in the title and in the data; nothing ends the script early."""
    for text in ("</script>", "<!--<b>&amp;", '"&lt;<img>'):
        symbols = CharVocab(text)
        model = MiniGPT(GPTConfig(vocab_size=len(symbols), block_size=17, n_layer=1, n_head=1,
                                  n_embd=3))  # fmt: skip
        content = html_page(Inspection(model, symbols, text))
        parsed = Parsed(content)
        assert data_of(content)["tokens"] == list(text)
        assert "".join(parsed.inside["title"]) == f"Inside: {text}"
        assert parsed.tags.count("script") == 2
        assert not {"img", "b"} & set(parsed.tags)
        assert not re.search(r"innerHTML|insertAdjacent|document\.write|\beval\b", content)


def test_the_page_is_alone():
    """Nothing is fetched from elsewhere, and the browser is told to fetch nothing."""
    content = html_page(inspected())
    parsed = Parsed(content)
    named = {(tag, key) for tag, key, _ in parsed.attributes}
    assert not any(key in ("src", "href", "srcset", "data") for _, key in named)
    assert not re.search(r"https?:|url\(|@import|fetch\(|XMLHttp|import\(", content)
    policy = dict(a[1:] for a in parsed.attributes if a[0] == "meta" and a[1] == "content")
    assert policy["content"].startswith("default-src 'none'")
    ids = [value for _, key, value in parsed.attributes if key == "id"]
    asked = set(re.findall(r'\$\("(\w+)"\)', SCRIPT)) - {"row", "cell"}  # which the script makes
    assert len(ids) == len(set(ids)) and asked <= set(ids)


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node to read JavaScript")
def test_the_script_is_javascript(tmp_path):
    file = tmp_path / "page.js"
    file.write_text(SCRIPT, encoding="utf-8")
    read = subprocess.run(["node", "--check", file], capture_output=True, text=True)
    assert read.returncode == 0, read.stderr


def test_pages_that_cannot_be(monkeypatch):
    look = inspected()
    for choice, sentence in (
        ({"layer": 3}, "there is no layer 3; the model has 3: 0 to 2"),
        ({"layer": 0, "head": 5}, "there is no head 5; the model has 5: 0 to 4"),
        ({"layer": -4}, "there is no layer -4"),
    ):
        for draw in (html_page, panels):
            with pytest.raises(ValueError, match=sentence):
                draw(look, **{"layer": None, "head": None, **choice})
    monkeypatch.setattr("tensorgrad.models.inspection.page.LARGEST", 15 * 11 * 12 * 4 // 3)
    with pytest.raises(ValueError, match=r"of 12 tokens would make .* up to 11 tokens go on one"):
        html_page(look)
    assert html_page(inspected(text=TEXT[:11]))


def test_a_single_token_and_no_layer():
    alone = inspected(text="a")
    found = data_of(html_page(alone))
    assert found["losses"] == [] and len(found["top"]) == 4
    with pytest.raises(ValueError, match="a single token has no loss"):
        list(losses_table(alone))
    assert len(list(lens_table(alone))) == 4
    empty = Inspection(GPT2LMHeadModel(GPT2Config(vocab_size=31, n_layer=0, n_embd=12)),
                       vocab_of(31), TEXT)  # fmt: skip
    assert empty.states.shape == (1, 12, 12) and len(empty.lens.tokens) == 1
    for draw in (html_page, panels):
        with pytest.raises(ValueError, match=r"there is no layer -?[01]; the model has 0: none"):
            draw(empty, None, None)


# ---- the picture


def test_what_is_drawn():
    """F1.8, B1.9: a layer's heads, one head, or each layer's mean: the maps themselves."""
    look = inspected()
    means, heads = panels(look, None, None), panels(look, 1, None)
    assert list(means) == [f"layer {i}, mean of 5 heads" for i in range(3)]
    np.testing.assert_array_equal(means["layer 2, mean of 5 heads"], look.maps[2].mean(0))
    assert list(heads) == [f"layer 1, head {h}" for h in range(5)]
    np.testing.assert_array_equal(panels(look, -2, 4)["layer 1, head 4"], look.maps[1, 4])
    assert list(panels(look, None, 4)) == [f"layer {i}, head 4" for i in range(3)]


def test_a_png_of_a_text(tmp_path):
    """More tokens take more room; letters that the font lacks warn nobody; $ is no formula."""
    symbols = CharVocab(r"中\$🙂abc")
    model = CharGPT(CharGPTConfig(len(symbols), block_size=113, n_layer=1, n_head=2, n_embd=6))
    wide = []
    for text in ("a", r"$a\b$中🙂$", "abc" * 37):
        file = tmp_path / "a.png"
        write_picture(Inspection(model, symbols, text), file, 0, 1)
        head = file.read_bytes()[:24]
        assert head.startswith(b"\x89PNG")
        wide.append(struct.unpack(">I", head[16:20])[0])
    assert wide[0] < wide[2] < 2400
    assert inked(["中", "a" * 20, "$x$"]) == [r"\u4e2d", "a" * 13 + "…", r"\$x\$"]


# ---- tables


def test_the_table_of_losses():
    look = inspected("GPT-2")
    lines = list(losses_table(look))
    assert len(lines) == 1 + 12 + 2
    for t in range(11):
        row = lines[t + 2].split()
        assert row[:3] == [str(t + 1), look.tokens[t + 1], f"{look.losses[t]:.3f}"]
    mean = float(look.losses.mean())
    assert lines[-1].startswith(f"mean {mean:.4f} nats a token ({mean / math.log(2):.3f} bits)")
    assert f"perplexity {math.exp(mean):,.2f}" in lines[-1]


def test_the_tables_of_the_lens():
    look = inspected("GPT-2", top=3)
    lines = list(lens_table(look))[2:]
    assert lines[0].split() == ["token", "next", "embed", "0", "1", "2", "expected"]
    row = lines[4].split()
    assert row[:3] == ["3", *"ri"] and row[-1] == look.label(look.lens.tokens[-1, 3, 0])
    assert row[3:7] == [f"{100 * p:.1f}%" for p in look.lens.true[:, 3]]
    title, _, _, *rows = position_table(look, -9)
    assert title == "after token 3, r, follows: i"
    for i, line in enumerate(rows):
        expected = [look.label(k) for k in look.lens.tokens[i, 3]]
        assert line.split()[2] == str(look.lens.ranks[i, 3]) and line.split()[3::2] == expected
    with pytest.raises(ValueError, match="there is no token 12; the text has 12: 0 to 11"):
        list(position_table(look, 12))


def test_columns_of_a_terminal_hold_wide_letters():
    symbols = CharVocab("中é\u0301ab")
    model = CharGPT(CharGPTConfig(len(symbols), block_size=7, n_layer=1, n_head=1, n_embd=2))
    table = list(losses_table(Inspection(model, symbols, "a中b")))
    assert table[2].index("中") == table[3].index("b") == table[0].index("token")
    ends = [line.index(".") for line in table[2:4]]
    assert ends[1] - ends[0] == 1  # 中 is one letter, and two columns


# ---- the command


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder, trained for two steps."""
    place = tmp_path_factory.mktemp("run")
    (place / "saying.txt").write_text("what <will> be,\nand what was\n" * 23)
    tiny = {"block_size": 31, "n_layer": 2, "n_head": 3, "n_embd": 15, "batch_size": 5,
            "max_iters": 2, "eval_iters": 1, "sample_length": 3, "warmup_iters": 1}  # fmt: skip
    given = [f"--{name}={value}" for name, value in tiny.items()]
    arguments = [f"--data={place / 'saying.txt'}", f"--out_dir={place / 'out'}", *given]
    assert main(["train", "mini-gpt", *arguments]) == 0
    return place / "out"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A GPT-2 in Hugging Face's form with its own vocabulary."""
    place = tmp_path_factory.mktemp("gpt2")
    bpe = train_bpe(["what was will be, and what will be was;\n" * 23], 277)
    tg.manual_seed(3)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(bpe), n_positions=19, n_layer=2, n_head=3,
                                       n_embd=15))  # fmt: skip
    model.save_pretrained(place)
    bpe.save(place / "tokenizer.json")
    return place


def told(capsys, *arguments):
    capsys.readouterr()
    assert main(["inspect", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_attention_of_a_run(run, tmp_path, capsys):
    out = told(capsys, "attention", "what <will>\n", "--layer=1", "--head=2", "--out_dir", run,
               "--out", tmp_path / "seen.png")  # fmt: skip
    assert f"wrote {tmp_path / 'seen.png'} and {tmp_path / 'seen.html'}" in out
    assert (tmp_path / "seen.png").read_bytes().startswith(b"\x89PNG")
    found = data_of((tmp_path / "seen.html").read_text(encoding="utf-8"))
    assert found["tokens"] == [*"what·<will>↵"] and (found["layer"], found["head"]) == (1, 2)
    assert found["model"].startswith("MiniGPT, ") and "2 layers of 3 heads" in found["model"]


def test_lens_and_losses_of_a_folder(folder, capsys):
    model, vocab = opened(str(folder))
    look = Inspection(model, vocab, "what will be, was")
    assert len(look.tokens) < 17 and "".join(look.tokens) == "what·will·be,·was"
    assert told(capsys, "losses", look.text, "--model", folder).splitlines() == [
        *losses_table(look)
    ]
    assert told(capsys, "lens", look.text, "--model", folder).splitlines() == [*lens_table(look)]
    one = told(capsys, "lens", look.text, "--model", folder, "--position=-2", "--top=5")
    assert one.splitlines() == [*position_table(look, -2)]


def test_transformers_vocabulary(folder, tmp_path):
    """vocab.json, letters for bytes, gives the ids that the library tokenizers gives."""
    from tokenizers import ByteLevelBPETokenizer

    theirs = ByteLevelBPETokenizer()
    theirs.train_from_iterator(["what was wïll be, 中 and\n\twhat"] * 9, vocab_size=300,
                               special_tokens=[], show_progress=False)  # fmt: skip
    ids = theirs.get_vocab() | {"<|endoftext|>": theirs.get_vocab_size()}
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0", "model": {}}')
    (tmp_path / "vocab.json").write_text(json.dumps(ids))
    # tokenizers gives bytes and merges consecutive ids, as GPT-2's file does
    _, vocab = opened(str(tmp_path))
    for text in ("what wïll\n\tbe?", "中中 and", "  two"):
        assert vocab.encode(text) == theirs.encode(text).ids
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    with pytest.raises(ValueError, match=r"vocab.json' is no vocabulary of GPT-2's kind: .* lacks"):
        opened(str(tmp_path))


def test_budget_and_latency(run, folder, capsys):
    """F0.12, B0.22: parameters, all and trainable; passes on one device, warmed up."""
    out = told(capsys, "budget")
    assert "GPT2LMHeadModel" in out and "124,439,808" in out
    assert "1,557,611,200" in told(capsys, "budget", "--model=gpt2-xl", "--tokens=64")
    small = sum(p.numel() for p in GPT2LMHeadModel.from_pretrained(folder).parameters())
    assert f"{small:,}" in told(capsys, "budget", "--model", folder)
    out = told(capsys, "latency", "--model", folder, "--tokens=11", "--repeats=3", "--warmup=1")
    assert f"{small:,} parameters, {small:,} of them trainable, on cpu" in out
    assert re.search(r"forward, 1 x 11 tokens: median \d+\.\d\d ms of 3 ", out)
    out = told(capsys, "latency", "--out_dir", run, "--repeats=2", "--batch_size=2")
    assert out.startswith("MiniGPT, ") and "forward, 2 x 31 tokens" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["attention", "be", "--layer=2"], "there is no layer 2; the model has 2: 0 to 1"),
        (["attention", "be", "--layer=0", "--head=3"], "there is no head 3; the model has 3"),
        (["attention", "be", "--out=nowhere/at/all"], "there is no folder"),
        (["losses", "be!"], "'!' (U+0021) at position 2 is not among"),
        (["losses", "b"], "a single token has no loss"),
        (["losses", ""], "the text is empty"),
        (["lens", "b" * 32], "the text has 32 tokens, and the model sees 31 at once"),
        (["lens", "be", "--position=2"], "there is no token 2; the text has 2: 0 to 1"),
        (["lens", "be", "--top=0"], "top must be at least 1, it is 0"),
        (["lens", "be", "--model=./nowhere"], "there is no folder './nowhere' with a model"),
        (["lens", "be", "--model=nowhere"], "there is no folder 'nowhere', and the model"),
        (["lens", "be", "--tokenizer=nowhere"], "is neither 'gpt2' nor a file of a vocabulary"),
        (["lens", "be", "--out_dir=nowhere"], "there is no checkpoint"),
        (["budget", "--model=/nowhere"], "there is no folder '/nowhere' with a model"),
        (["budget", "--tokens=0"], "tokens must be at least 1, it is 0"),
        (["latency", "--repeats=0"], "repeats must be at least 1 and warmup at least 0"),
        (["latency", "--batch_size=0"], "batch_size must be at least 1, it is 0"),
        (["latency", "--tokens=32"], "32 characters are more than block_size 31"),
    ],
)
def test_mistakes_are_sentences(arguments, sentence, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    takes = arguments[0] != "budget" and not any("--out_dir" in a for a in arguments)
    capsys.readouterr()
    assert main(["inspect", *arguments, *([f"--out_dir={run}"] if takes else [])]) == 1
    error = capsys.readouterr().err
    assert error.startswith("tensorgrad inspect: ") and error.count("\n") == 1
    assert sentence in error
    assert not list(tmp_path.iterdir())


def test_a_model_of_words_is_no_gpt(tmp_path, capsys):
    (tmp_path / "names.txt").write_text("ada\nbob\ncleo\n" * 9)
    given = [f"--data={tmp_path / 'names.txt'}", f"--out_dir={tmp_path / 'out'}", "--max_iters=1"]
    assert main(["train", "mlp", *given]) == 0
    assert main(["inspect", "losses", "ada", f"--out_dir={tmp_path / 'out'}"]) == 1
    assert "a MLP has no blocks with a norm and a head" in capsys.readouterr().err
