"""Byte-level BPE: equal to the libraries' own, back and forth, and never a socket unasked."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorgrad.data import BPE, CharVocab, ShardError, get_tokenizer, names_text, train_bpe
from tensorgrad.data.tokens import byte_letters
from tests.data.vocabulary import gpt2_cache, of_blanks, small

TEXT = names_text().text[:40_000]


@pytest.fixture
def gpt2(monkeypatch: pytest.MonkeyPatch) -> BPE:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(gpt2_cache()))
    return get_tokenizer("gpt2")


def test_gpt2s_vocabulary(gpt2: BPE):
    import tiktoken

    assert (gpt2.n_vocab, gpt2.eot, len(gpt2)) == (50257, 50256, 50257)
    # The ids that OpenAI's README and every tutorial print.
    assert gpt2.encode("hello world") == [31373, 995]
    assert gpt2.encode("Hello, I'm a language model,") == [
        15496,
        11,
        314,
        1101,
        257,
        3303,
        2746,
        11,
    ]
    theirs = tiktoken.get_encoding("gpt2")
    text = TEXT[:3000] + "naïve 東京 🙂\r\n\t  don't  \n\n<|endoftext|>"
    assert gpt2.encode(text) == theirs.encode_ordinary(text)
    assert gpt2.decode(gpt2.encode(text)) == text


def test_a_text_cannot_forge_the_mark(gpt2: BPE):
    assert gpt2.eot not in gpt2.encode("<|endoftext|>") != [gpt2.eot]
    assert gpt2.decode([gpt2.eot]) == "<|endoftext|>"


@given(st.text(max_size=60))
@settings(max_examples=200)
def test_every_text_comes_back(text: str):
    """B0.20: no two texts share their ids, and no id of a text is outside the vocabulary."""
    bpe = small()
    ids = bpe.encode(text)
    assert bpe.decode(ids) == text
    assert all(0 <= i < bpe.eot for i in ids)


def test_characters_that_seed_000_confused():
    """B0.20: `ord(c) % 50000` made these the same id."""
    one, other = chr(97), chr(50097)
    assert ord(one) % 50000 == ord(other) % 50000
    assert small().encode(one) != small().encode(other)
    vocab = CharVocab(one + other)
    assert vocab.encode(one).tolist() != vocab.encode(other).tolist()


@given(st.text(st.sampled_from("ab1'. \n\t\r\x1c\u00a0\u3000"), max_size=40), st.integers(1, 4))
@settings(max_examples=300)
def test_long_runs_of_blanks_are_cut_without_a_trace(text: str, long: int):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tensorgrad.data.tokens.LONG", long)
        assert of_blanks().encode(text) == of_blanks().encoding.encode_ordinary(text)


def test_a_million_blanks():
    """tiktoken by itself overflows its stack."""
    ids = small().encode("a" + " " * 1_000_000 + "b")
    assert small().decode(ids) == "a" + " " * 1_000_000 + "b"


def test_lone_surrogates_are_replaced():
    assert small().decode(small().encode("a\ud800b")) == "a\ufffdb"


def test_training_equals_the_library_that_trained():
    """The ids that tiktoken gives with the exported ranks are those of tokenizers' own BPE."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    theirs = Tokenizer(models.BPE())
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    theirs.train_from_iterator(
        [TEXT], trainers.BpeTrainer(vocab_size=498, initial_alphabet=alphabet, show_progress=False)
    )
    ours = small()
    assert ours.n_vocab == 499 and ours.eot == 498
    assert ours.encode(TEXT) == theirs.encode(TEXT).ids
    assert len(ours.encode(TEXT)) < 0.6 * len(TEXT)
    assert set(byte_letters()) == set(alphabet)


def test_training_twice_gives_the_same():
    again = train_bpe(iter([TEXT]), 499)
    assert again.ranks == small().ranks and again.crc32 == small().crc32
    assert again.name == small().name == f"bpe-499-{again.crc32}"
    assert train_bpe(["other words"], 270).crc32 != again.crc32


def test_few_texts_give_few_ids():
    assert train_bpe(["ab"], 1000).n_vocab == 256 + 1 + 1  # the pair "ab", and the mark


def test_saved_and_loaded(tmp_path: Path):
    path = tmp_path / "tokenizer.json"
    small().save(path)
    loaded = get_tokenizer(path)
    assert (loaded.ranks, loaded.name, loaded.pattern) == (
        small().ranks,
        small().name,
        small().pattern,
    )
    assert loaded.encode(TEXT) == small().encode(TEXT)
    assert loaded.crc32 == small().crc32
    raw = path.read_bytes()
    for at in range(7, len(raw), len(raw) // 41):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        try:
            assert BPE.load(path).ranks == small().ranks  # a blank between two words
        except ShardError as error:
            assert "tokenizer.json" in str(error)
    path.write_bytes(raw[:-50])
    with pytest.raises(ShardError, match=r"tokenizer\.json"):
        BPE.load(path)


def test_it_is_tiktokens(gpt2: BPE):
    import tiktoken

    assert isinstance(gpt2.encoding, tiktoken.Encoding)
    assert gpt2.encoding.encode("a<|endoftext|>", allowed_special="all") == [64, 50256]


@pytest.mark.parametrize(
    ("ranks", "sentence"),
    [
        ({b"a": 0}, "lacks the byte 0"),
        ({**{bytes([b]): b for b in range(256)}, b"ab": 300}, "are not 0 to 256"),
    ],
)
def test_ranks_that_are_no_vocabulary(ranks: dict[bytes, int], sentence: str):
    with pytest.raises(ValueError, match=sentence):
        BPE(ranks, "mine")


def test_errors_are_sentences(tmp_path: Path):
    with pytest.raises(IndexError, match="id 499 is outside the vocabulary 'bpe-499"):
        small().decode(np.array([3, 499]))
    with pytest.raises(ValueError, match="256 bytes and one mark take 257 ids, not 256"):
        train_bpe([TEXT], 256)
    with pytest.raises(ValueError, match="'gpt3' is neither 'gpt2' nor a file of a vocabulary"):
        get_tokenizer("gpt3")
    with pytest.raises(ValueError, match="this is no vocabulary"):
        BPE.from_dict({"kind": "characters"})


@pytest.mark.parametrize("how", ["empty", "damaged", "no folder", "caching off"])
def test_gpt2_is_not_fetched_unasked(tmp_path: Path, monkeypatch, how: str):
    """A sentence that says what to do, and no socket; a damaged file is left as it is."""
    folder = tmp_path / "cache"
    if how == "damaged":
        shutil.copytree(gpt2_cache(), folder)
        bad = folder / "6d1cbeee0f20b3d9449abfede4726ed8212e3aee"
        bad.chmod(0o644)
        bad.write_bytes(b"!" + bad.read_bytes()[1:])
    elif how == "empty":
        folder.mkdir()
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "" if how == "caching off" else str(folder))
    monkeypatch.setattr("socket.socket.connect", lambda *args: pytest.fail("a socket"))
    with pytest.raises(FileNotFoundError, match=r"gpt2's vocabulary is .*--download.*bpe$"):
        get_tokenizer("gpt2")
    if how == "damaged":
        assert bad.exists()


def test_download_asks_tiktoken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    asked = []

    def fetch(path: str) -> bytes:
        asked.append(path)
        raise ConnectionError("no network here")

    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("tiktoken.load.read_file", fetch)
    with pytest.raises(OSError, match=r"could not be fetched .*: no network here"):
        get_tokenizer("gpt2", download=True)
    assert asked and asked[0].endswith("gpt-2/encodings/main/vocab.bpe")


def test_without_tokenizers_a_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match="pip install tokenizers"):
        train_bpe([TEXT], 300)
