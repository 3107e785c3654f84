"""Shards as a trainer sees them: their vocabulary, text to ids and back, what is not there."""

import hashlib
import json

import pytest

import tensorgrad as tg
from tensorgrad.data import ShardError, train_bpe
from tensorgrad.data.prepare import prepare
from tensorgrad.models.training.folder import RunFolder
from tensorgrad.models.training.job import restored, train
from tensorgrad.models.training.token_corpus import TokenCorpus, TokenVocab
from tensorgrad.models.training.token_lm import GPT2
from tests.data.vocabulary import gpt2_cache
from tests.models.small_gpt2 import TINY, shards
from tests.models.token_folder import language, token_folder, vocabulary, write_bare_shard

TEXT = "what was will be, and what will be was;\n" * 40


def bare(path):
    """Shards as llm.c leaves them, without a word on their vocabulary."""
    path.mkdir()
    write_bare_shard(path / "fineweb_train_000001.bin", language(99))
    write_bare_shard(path / "fineweb_train_000002.bin", language(50))
    write_bare_shard(path / "fineweb_val_000000.bin", language(30))
    return path


def test_of_a_manifest_with_its_own_tokens(tmp_path):
    corpus = TokenCorpus(token_folder(tmp_path / "x", language(99), language(30)))
    assert (corpus.vocab.name, len(corpus.vocab)) == ("made-263", 263)
    assert corpus.vocab.bpe.ranks == vocabulary(263).ranks
    assert corpus.tokens == {"train": 99, "val": 30}


def test_of_shards_without_a_manifest(tmp_path):
    """Then they are GPT-2's, of which the size is known without a file."""
    corpus = TokenCorpus(bare(tmp_path / "x"))
    assert (corpus.vocab.name, len(corpus.vocab), corpus.vocab.eot) == ("gpt2", 50257, 50256)
    assert corpus.tokens == {"train": 149, "val": 30}
    assert corpus.vocab.to_dict() == {"name": "gpt2", "size": 50257, "bpe": None}


def test_of_a_manifest_of_gpt2s(tmp_path):
    """No tokenizer.json stands beside those."""
    folder = token_folder(tmp_path / "x", language(99), language(30))
    (folder / "tokenizer.json").unlink()
    told(folder, {"name": "gpt2", "n_vocab": 50257})
    assert TokenCorpus(folder).vocab == TokenVocab("gpt2", 50257)


def told(folder, tokenizer):
    """Change what the manifest says of the vocabulary."""
    from tensorgrad.data.manifest import read_json, write_json

    content = read_json(folder / "manifest.json")
    write_json(folder / "manifest.json", {**content, "tokenizer": tokenizer})


def test_tokens_that_do_not_fit_the_shards(tmp_path):
    folder = token_folder(tmp_path / "x", language(99), language(30))
    told(folder, {"name": "made-263", "n_vocab": 264})
    sentence = r"tokenizer\.json' has 263 ids, and the shards are of made-263 with 264; prepare"
    with pytest.raises(ShardError, match=sentence):
        TokenCorpus(folder).vocab
    (folder / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json"):
        TokenCorpus(folder).vocab


def test_a_folder_that_is_not_there_or_empty(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder '.*none' of token shards"):
        TokenCorpus(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"no shards named \*_train_\*\.bin; `tensorgrad p"):
        TokenCorpus(tmp_path)


def test_what_identifies_the_data(tmp_path):
    """Names and checksums, or sizes where there is no manifest; another count is other data."""
    one = TokenCorpus(token_folder(tmp_path / "a", language(99), language(30))).text
    same = TokenCorpus(token_folder(tmp_path / "b", language(99), language(30))).text
    other = TokenCorpus(token_folder(tmp_path / "c", language(99, seed=9), language(30))).text
    assert one.sha256 == same.sha256 != other.sha256 and one.name == "a"
    names = ["fineweb_train_000001.bin", "fineweb_train_000002.bin", "fineweb_val_000000.bin"]
    entries = [[name, 1024 + 2 * n] for name, n in zip(names, (99, 50, 30), strict=True)]
    expected = hashlib.sha256(json.dumps(entries).encode()).hexdigest()
    assert TokenCorpus(bare(tmp_path / "d")).text.sha256 == expected


def test_text_to_ids_and_back():
    """`<|endoftext|>` is the token where a text begins with it, elsewhere thirteen letters."""
    bpe = train_bpe([TEXT], 300)
    vocab = TokenVocab("own", len(bpe.ranks) + 1, bpe)
    plain = bpe.encoding.encode_ordinary("what was")
    assert vocab.encode("what was") == plain
    assert vocab.encode("<|endoftext|>what was") == [vocab.eot, *plain]
    assert vocab.encode("<|endoftext|>") == [vocab.eot] == [len(bpe.ranks)]
    inside = vocab.encode("was <|endoftext|>")
    assert vocab.eot not in inside and vocab.decode(inside) == "was <|endoftext|>"
    twice = vocab.encode("<|endoftext|><|endoftext|>")
    assert twice[0] == vocab.eot and vocab.eot not in twice[1:]
    assert vocab.decode([vocab.eot, *plain]) == "<|endoftext|>what was"


def test_a_vocabulary_goes_there_and_back():
    """Of another BPE all tokens, of GPT-2's the name alone; equal where those are."""
    own = TokenVocab("own", 300, train_bpe([TEXT], 300))
    data = json.loads(json.dumps(own.to_dict()))
    again = TokenVocab.from_dict(data)
    assert again == own and hash(again) == hash(own) and again.encode("was") == own.encode("was")
    assert own != TokenVocab("own", 300, train_bpe([TEXT[::-1]], 300))
    assert own != TokenVocab("other", 300, train_bpe([TEXT], 300))
    assert TokenVocab.from_dict({"name": "gpt2", "size": 50257, "bpe": None}) == TokenVocab(
        "gpt2", 50257
    )


def test_gpt2s_vocabulary_where_it_is(monkeypatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(gpt2_cache()))
    vocab = TokenVocab("gpt2", 50257)
    assert vocab.encode("<|endoftext|>Hello, I'm a language model,") == [
        50256, 15496, 11, 314, 1101, 257, 3303, 2746, 11,
    ]  # fmt: skip
    assert vocab.decode([50256, 15496, 11]) == "<|endoftext|>Hello,"


def test_without_gpt2s_vocabulary_it_still_trains(tmp_path, monkeypatch, capsys):
    """And says why there is no sample; the losses, checkpoint and picture are all there."""
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "empty"))
    sizes = {"n_layer": 1, "n_embd": 6, "max_iters": 2, "eval_interval": 2, "eval_iters": 1}
    history = train(GPT2, {**TINY, **sizes}, bare(tmp_path / "x"), tmp_path / "out")
    assert [s["step"] for s in history] == [1, 2] and history[0]["loss"] > 10
    said = capsys.readouterr().out
    assert "of gpt2 (50,257 ids)" in said and "knowing nothing: 10.8249 nats" in said
    assert "a sample:\n\n(none: " in said and "--download" in said
    model, vocab = restored(GPT2, RunFolder(tmp_path / "out").load())
    assert model.config.vocab_size == 50257 and vocab.name == "gpt2"
    with pytest.raises(FileNotFoundError):
        vocab.encode("Hello")


def test_what_was_prepared_is_what_is_trained_on(tmp_path, capsys):
    """From a text to a sample of its own BPE, whose end of text begins and ends samples."""
    (tmp_path / "saying.txt").write_text(TEXT)
    bpe = train_bpe([TEXT], 270)
    text = str(tmp_path / "saying.txt")
    prepare(text, tmp_path / "x", tokenizer=bpe, workers=1, val_tokens=59)
    corpus = TokenCorpus(tmp_path / "x")
    assert corpus.vocab.bpe.ranks == bpe.ranks
    train(GPT2, {**TINY, "eval_sample": 3}, tmp_path / "x", tmp_path / "out")
    model, vocab = restored(GPT2, RunFolder(tmp_path / "out").load())
    assert vocab == corpus.vocab
    assert model.config.eos_token_id == model.config.bos_token_id == vocab.eot == 269
    generator = tg.Generator().manual_seed(5)
    text = GPT2.write(model, vocab, generator, start="what", count=2, length=5)
    first, second = text.split("\n" + "-" * 40 + "\n")
    assert first.startswith("what") and second.startswith("what") and first != second
    assert GPT2.write(model, vocab, generator, length=3)


def test_other_data_of_the_same_vocabulary_may_follow(tmp_path, capsys):
    """With a note; of another vocabulary it is refused."""
    folder = shards(tmp_path)
    train(GPT2, TINY, folder, tmp_path / "out")
    other = token_folder(tmp_path / "other", language(173, seed=4), language(59))
    train(GPT2, {"max_iters": 7}, other, tmp_path / "out", resume=True)
    assert "not the text that the checkpoint was trained on until now" in capsys.readouterr().out
    wrong = token_folder(tmp_path / "wrong", language(173), language(59), 264)
    with pytest.raises(ValueError, match="resume with the same --data, or train anew"):
        train(GPT2, {"max_iters": 9}, wrong, tmp_path / "out", resume=True)


def test_ids_beyond_the_vocabulary_are_no_silent_nonsense(tmp_path):
    """A manifest that lies about its tokens ends the run with a sentence."""
    ids = language(173)
    ids[3] = 300
    folder = token_folder(tmp_path / "x", ids, language(59))
    with pytest.raises((IndexError, ValueError), match="300"):
        train(GPT2, TINY, folder, tmp_path / "out")
