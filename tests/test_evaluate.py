"""The command `evaluate`: its figures beside plain sums over tokens, alone and on several ranks."""

import json
import math
import os
import shutil
import subprocess
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as TF

import tensorgrad as tg
from tensorgrad.__main__ import main
from tensorgrad.commands import evaluate
from tensorgrad.data import BPE, CharVocab, train_bpe, write_shard
from tensorgrad.data.manifest import write_json
from tensorgrad.models import evaluation
from tensorgrad.models.evaluation_data import stands_for
from tensorgrad.models.gpt2 import GPT2Config, GPT2LMHeadModel
from tensorgrad.models.training.token_corpus import TokenVocab
from tests.models.token_folder import token_folder, vocabulary
from tests.terminal import on_a_terminal
from tests.test_cli import TEXT, TINY, fails

MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
SAYING = "Wörter, words: what was will be — and what will be was.\n" * 5
BYTES = BPE({bytes([i]): i for i in range(256)}, "bytes")
WINDOW = 17


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A GPT-2 of bytes in Hugging Face's form, a text, shards, and files of both tasks."""
    path = tmp_path_factory.mktemp("evaluate")
    tg.manual_seed(3)
    config = GPT2Config(vocab_size=257, n_positions=WINDOW, n_embd=20, n_layer=2, n_head=4)
    model = GPT2LMHeadModel(config)
    with tg.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p *= 9  # so that it does not find everything equally likely
    model.save_pretrained(path / "model")
    BYTES.save(path / "model/tokenizer.json")
    (path / "text.txt").write_text(SAYING, encoding="utf-8")
    ids = np.array([*BYTES.encode(SAYING), 256, *BYTES.encode("The end.")])
    (path / "shards").mkdir()
    write_shard(path / "shards" / "x_val_000000.bin", ids[:100])
    write_shard(path / "shards" / "x_val_000001.bin", ids[100:])
    write_shard(path / "shards" / "x_train_000000.bin", ids[:50])
    draws = np.random.default_rng(4)
    word = lambda n: "".join(draws.choice(list("abcdefgh"), n))  # noqa: E731
    tasks = {
        "hellaswag": [
            {"ctx": word(4), "endings": [word(n) for n in draws.permutation([1, 2, 4, 7])],
             "label": int(draws.integers(4))} for _ in range(23)],
        "lambada": [{"text": f"{word(5)} {word(2)} {word(2)}"} for _ in range(13)],
    }  # fmt: skip
    for name, examples in tasks.items():
        lines = "".join(json.dumps(example) + "\n" for example in examples)
        (path / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return path


def evaluated(capsys, *arguments):
    capsys.readouterr()
    assert main(["evaluate", *map(str, arguments)]) == 0
    out = capsys.readouterr()
    assert out.err == ""
    return out.out


def in_json(capsys, *arguments):
    (line,) = evaluated(capsys, *arguments, "--json").splitlines()
    return json.loads(line, parse_constant=pytest.fail)


def plain_losses(model, ids, length, stride):
    """-log p of each token but the first, one window and one token after the other, in float64."""
    losses, lo = [], 0
    while len(losses) < len(ids) - 1:
        logits = model(tg.tensor([ids[lo : lo + length]])).logits[0].detach().numpy()
        logs = torch.log_softmax(torch.tensor(logits, dtype=torch.float64), -1)
        for t in range(len(losses) + 1, min(lo + length, len(ids))):
            losses.append(-logs[t - 1 - lo, ids[t]].item())
        lo += stride
    return losses


def test_a_text(folder, capsys):
    """Perplexity, nats a token, bits a byte, beside a plain loop."""
    model = GPT2LMHeadModel.from_pretrained(folder / "model")
    ids = BYTES.encode(SAYING)
    assert len(ids) > len(SAYING)  # bytes are not characters here
    for options, length, stride in (
        ([], 17, 8), (["--stride=16"], 17, 16), (["--length=5", "--stride", "2"], 5, 2),
    ):  # fmt: skip
        found = in_json(
            capsys, "--model", folder / "model", "--data", folder / "text.txt", *options
        )
        losses = plain_losses(model, ids, length, stride)
        assert found["class"] == "GPT2LMHeadModel" and found["ranks"] == 1
        assert found["parameters"] == model.num_parameters()
        data = found["data"]
        assert (data["tokens"], data["length"], data["stride"]) == (len(ids) - 1, length, stride)
        assert data["nats_per_token"] == pytest.approx(np.mean(losses), rel=1e-6)
        assert data["perplexity"] == pytest.approx(math.exp(np.mean(losses)), rel=1e-5)
        bits = sum(losses) / math.log(2) / (len(SAYING.encode()) - 1)
        assert data["bits_per_byte"] == pytest.approx(bits, rel=1e-6)


def test_what_is_printed(folder, capsys):
    out = evaluated(
        capsys, "--model", folder / "model", "--data", folder / "text.txt", "--hellaswag",
        folder / "hellaswag.jsonl", "--lambada", folder / "lambada.jsonl", "--limit=9",
    )  # fmt: skip
    first, text, hellaswag, lambada = out.splitlines()
    count = GPT2LMHeadModel.from_pretrained(folder / "model").num_parameters()
    assert first == f"GPT2LMHeadModel of {count:,} parameters from {folder / 'model'}, on cpu"
    found = in_json(
        capsys, "--model", folder / "model", "--data", folder / "text.txt", "--limit=9"
    )["data"]
    assert text == (
        f"{folder / 'text.txt'}: 8 tokens, perplexity {found['perplexity']:.4f}, "
        f"{found['nats_per_token']:.4f} nats a token, {found['bits_per_byte']:.4f} bits a byte "
        "(windows of 17, every 8)"
    )
    assert hellaswag.startswith("HellaSwag, 9 examples: accuracy ")
    assert ", accuracy_norm 0." in hellaswag
    assert lambada.startswith("LAMBADA, 9 examples: accuracy ") and ", perplexity " in lambada


def test_tasks(folder, capsys):
    """Both scores from PyTorch's own losses of every ending and word."""
    model = GPT2LMHeadModel.from_pretrained(folder / "model")

    def losses_of(context, rest):
        ids = BYTES.encode(context + rest)
        logits = torch.tensor(model(tg.tensor([ids])).logits[0].detach().numpy()).double()
        every = TF.cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="none")
        start = len(BYTES.encode(context))
        guessed = logits[start - 1 : -1].argmax(-1).tolist() == ids[start:]
        return every[start - 1 :], guessed

    found = in_json(
        capsys, "--model", folder / "model", "--hellaswag", folder / "hellaswag.jsonl",
        "--lambada", folder / "lambada.jsonl",
    )  # fmt: skip
    right = norm = 0
    lines = (folder / "hellaswag.jsonl").read_text().splitlines()
    for example in map(json.loads, lines):
        losses = [losses_of(example["ctx"], " " + ending)[0] for ending in example["endings"]]
        right += int(np.argmin([x.sum() for x in losses])) == example["label"]
        norm += int(np.argmin([x.mean() for x in losses])) == example["label"]
    assert found["hellaswag"]["examples"] == 23 and 0 < right != norm
    assert found["hellaswag"]["accuracy"] == right / 23
    assert found["hellaswag"]["accuracy_norm"] == norm / 23
    nats, right = [], 0
    for line in (folder / "lambada.jsonl").read_text().splitlines():
        start, _, word = json.loads(line)["text"].rpartition(" ")
        losses, guessed = losses_of(start, " " + word)
        nats.append(losses.sum().item())
        right += guessed
    assert found["lambada"]["examples"] == 13
    assert found["lambada"]["accuracy"] == right / 13
    assert found["lambada"]["perplexity"] == pytest.approx(math.exp(np.mean(nats)), rel=1e-4)
    assert "data" not in found


def test_shards(folder, capsys):
    """Over the end of a shard as over a row; bits a byte with the vocabulary of the shards."""
    model = GPT2LMHeadModel.from_pretrained(folder / "model")
    ids = [*BYTES.encode(SAYING), 256, *BYTES.encode("The end.")]
    same = ["--model", folder / "model", "--data", folder / "shards"]
    found = in_json(capsys, *same)["data"]
    losses = plain_losses(model, ids, 17, 8)
    assert found["tokens"] == len(ids) - 1
    assert found["nats_per_token"] == pytest.approx(np.mean(losses), rel=1e-6)
    size = len((SAYING + "The end.").encode()) - 1  # the mark between them is no text
    assert found["bits_per_byte"] == pytest.approx(sum(losses) / math.log(2) / size, rel=1e-6)
    assert in_json(capsys, *same, "--split=train")["data"]["tokens"] == 49
    assert in_json(capsys, *same, "--limit=130")["data"]["tokens"] == 129
    write_shard(folder / "shards" / "y_val.bin", np.array(ids[:23]))
    try:
        assert "holds x, y: say which one" in fails(capsys, "evaluate", *same)
        assert in_json(capsys, *same, "--name=y")["data"]["tokens"] == 22
    finally:
        (folder / "shards" / "y_val.bin").unlink()


def test_without_a_vocabulary_bytes_are_unknown(folder, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    shutil.copytree(folder / "model", tmp_path / "bare")
    (tmp_path / "bare" / "tokenizer.json").unlink()
    same = ["--model", tmp_path / "bare", "--data"]
    found = in_json(capsys, *same, folder / "shards")["data"]
    assert found["bits_per_byte"] is None and found["perplexity"] > 1
    assert "bits a byte" not in evaluated(capsys, *same, folder / "shards")
    told = fails(capsys, "evaluate", *same, folder / "text.txt")
    assert "gpt2's vocabulary is not on this machine" in told
    named = ["--tokenizer", folder / "model/tokenizer.json"]
    assert in_json(capsys, *same, folder / "text.txt", *named)["data"]["bits_per_byte"] > 0


def test_bytes_of_ids():
    vocab = CharVocab("aé—")
    assert stands_for(vocab.encode("aé—aa"), vocab) == len("aé—aa".encode()) == 8
    bpe = train_bpe(["what was will be, and what will be was; "] * 3, 280)
    ids = np.array(bpe.encode("what wäs"))
    assert stands_for(np.array([*ids, bpe.eot]), bpe) == 9 > len(ids)
    assert stands_for(ids, None) is None
    with pytest.raises(ValueError, match=r"id 9 is none of the 3 of CharVocab"):
        stands_for(np.array([1, 9]), vocab)


def test_a_run(tmp_path, capsys):
    """A checkpoint of `tensorgrad train`, whose last validation loss is of the same size."""
    file, out = tmp_path / "saying.txt", tmp_path / "out"
    file.write_text(TEXT, encoding="utf-8")
    rates = ["--max_iters=100", "--eval_interval=100", "--learning_rate=0.01", "--min_lr=0.001"]
    assert main(["train", *TINY, *rates, f"--data={file}", f"--out_dir={out}"]) == 0
    found = in_json(capsys, "--out_dir", out, "--data", file)
    assert found["class"] == "CharGPT" and found["data"]["tokens"] == len(TEXT) - 1
    assert found["data"]["length"] == 7
    assert found["data"]["bits_per_byte"] == pytest.approx(
        found["data"]["nats_per_token"] / math.log(2), rel=1e-12
    )  # one byte a character
    last = json.loads((out / "losses.jsonl").read_text().splitlines()[-1])
    assert 0 < found["data"]["nats_per_token"] < 1.2 * last["val_loss"] < 2
    other = tmp_path / "other.txt"
    other.write_text("what€", encoding="utf-8")
    assert "'€' (U+20AC)" in fails(capsys, "evaluate", "--out_dir", out, "--data", other)
    shards = tmp_path / "shards"
    shards.mkdir()
    write_shard(shards / "x_val.bin", np.arange(5))
    told = fails(capsys, "evaluate", "--out_dir", out, "--data", shards)
    assert "made with another vocabulary, and the model reads characters" in told


def test_models_of_words_are_refused(tmp_path, capsys):
    words, out = tmp_path / "words.txt", tmp_path / "out"
    words.write_text("\n".join(["anna", "hanna", "nan", "ann", "hannah"] * 9), encoding="utf-8")
    assert main(["train", "bigram", f"--data={words}", f"--out_dir={out}"]) == 0
    told = fails(capsys, "evaluate", "--out_dir", out, "--data", words)
    assert "reads words" in told and "models of text" in told


def test_what_cannot_be_is_a_sentence(folder, capsys, tmp_path):
    model = ["--model", folder / "model"]
    data = ["--data", folder / "text.txt"]
    for options, told in (
        (model, "nothing to evaluate; give --data, --hellaswag or --lambada"),
        ([*model, "--data", tmp_path / "none"], "there is no file"),
        ([*model, "--data", folder / "shards", "--split=test"], "no shards named"),
        ([*model, *data, "--stride=17"], "stride 17 must be from 1 to length - 1, 16"),
        ([*model, *data, "--stride=0"], "stride 0 must be from 1"),
        ([*model, *data, "--length=1"], "length must be at least 2, it is 1"),
        ([*model, *data, "--limit=1"], "limit must be at least 2 tokens"),
        ([*model, "--hellaswag", folder / "lambada.jsonl"], "line 1: without ctx, endings, label"),
        ([*model, "--lambada", folder / "lambada.jsonl", "--limit=0"], "limit must be at least 1"),
        (["--model", tmp_path / "none", *data], "there is no folder"),
        (["--out_dir", tmp_path / "none", *data], "there is no checkpoint"),
    ):
        assert told in fails(capsys, "evaluate", *options), told


def test_another_vocabulary_is_refused(folder, capsys, tmp_path):
    bpe = train_bpe([SAYING * 9], 300)
    bpe.save(tmp_path / "tokenizer.json")
    model = ["--model", folder / "model"]
    shutil.copy(folder / "lambada.jsonl", tmp_path / "words.jsonl")
    (tmp_path / "words.jsonl").write_text(json.dumps({"text": f"so it{SAYING}"}) + "\n", "utf-8")
    for source in (["--data", folder / "text.txt"], ["--lambada", tmp_path / "words.jsonl"]):
        named = ["--tokenizer", tmp_path / "tokenizer.json"]
        told = fails(capsys, "evaluate", *model, *source, *named)
        assert "is none of the 257 of the model" in told and "another vocabulary" in told
    write_shard(tmp_path / "x_val.bin", np.array(bpe.encode(SAYING)))
    told = fails(capsys, "evaluate", *model, "--data", tmp_path)
    assert f"were made with {bpe.name}, and the model reads bytes; prepare them" in told


def prepared(folder, tokenizer="gpt2", size=50257):
    """Shards of the saying's bytes, said to be of a vocabulary that is not there."""
    folder.mkdir()
    info = write_shard(folder / "x_val_000000.bin", np.array(BYTES.encode(SAYING)))
    write_json(folder / "manifest.json", {
        "tokenizer": {"name": tokenizer, "n_vocab": size}, "rank": 0, "world_size": 1,
        "shards": [{"file": "x_val_000000.bin", "tokens": info.tokens, "crc32": info.crc32}],
    })  # fmt: skip
    return folder


def test_shards_of_gpt2s_vocabulary(folder, capsys, tmp_path, monkeypatch):
    """They have its name only: a model of another is refused even where its file is missing."""
    shards = prepared(tmp_path / "shards")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    told = fails(capsys, "evaluate", "--model", folder / "model", "--data", shards)
    assert "were made with gpt2, and the model reads bytes" in told
    shutil.copytree(folder / "model", tmp_path / "bare")
    (tmp_path / "bare" / "tokenizer.json").unlink()
    same = ["--model", tmp_path / "bare", "--data", shards]
    assert in_json(capsys, *same)["data"]["bits_per_byte"] is None
    monkeypatch.setattr(TokenVocab, "bpe", BYTES)  # as if it were on this machine, and these bytes
    data = in_json(capsys, *same)["data"]
    assert data["bits_per_byte"] == pytest.approx(data["nats_per_token"] / math.log(2), rel=1e-12)


def test_a_run_of_train_gpt2(capsys, tmp_path):
    """A checkpoint of tokens, on its own shards, on others', and on a text."""
    ids = np.array(vocabulary(263).encode("what was will be, and what will be was; " * 20))
    data, out = token_folder(tmp_path / "made", ids, ids[:90]), tmp_path / "out"
    small = ["--n_layer=1", "--n_head=2", "--n_embd=16", "--n_positions=13", "--max_iters=2",
             "--batch_size=2", "--total_batch_size=0", "--sample_length=3"]  # fmt: skip
    assert main(["train", "gpt2", *small, f"--data={data}", f"--out_dir={out}"]) == 0
    found = in_json(capsys, "--out_dir", out, "--data", data)
    assert found["class"] == "GPT2LMHeadModel" and found["data"]["tokens"] == 89
    assert 4 < found["data"]["nats_per_token"] < 7
    bits = found["data"]["nats_per_token"] / math.log(2)  # each of its tokens is a byte
    assert found["data"]["bits_per_byte"] == pytest.approx(bits, rel=1e-12)
    file = tmp_path / "text.txt"
    file.write_text("what was", encoding="utf-8")
    assert in_json(capsys, "--out_dir", out, "--data", file)["data"]["tokens"] == 7
    other = prepared(tmp_path / "other")
    told = fails(capsys, "evaluate", "--out_dir", out, "--data", other)
    assert "were made with gpt2, and the model reads made-263" in told


def test_an_infinite_perplexity_is_null_in_json(capsys):
    report = {"model": "m", "data": {"perplexity": math.inf, "tokens": 3}}
    assert json.loads(evaluate.as_json(report)) == {
        "model": "m", "data": {"perplexity": None, "tokens": 3}
    }  # fmt: skip
    assert evaluation.exponential(1e4) == math.inf


def test_a_bar_on_a_terminal_only(folder):
    command = [sys.executable, "-m", "tensorgrad", "evaluate", "--model", folder / "model",
               "--data", folder / "text.txt"]  # fmt: skip
    done, shown = on_a_terminal(command)
    assert done.returncode == 0 and done.stdout.count("\n") == 2
    assert "100%" in shown and "text.txt" in shown


# ---- on several ranks


def ranks(count, *arguments):
    env = {
        **os.environ, "OMP_NUM_THREADS": "1",
        "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PYTHONPATH": str(Path(tg.__file__).parent.parent),
    }  # fmt: skip
    launcher = [MPIEXEC, "-n", count] if count > 1 else []
    command = [*launcher, sys.executable, "-m", "tensorgrad", "evaluate", *arguments]
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=120, env=env, check=False
    )


@pytest.mark.skipif(MPIEXEC is None, reason="no mpiexec")
def test_ranks_share_the_work_and_find_the_same(folder):
    """And so do more ranks than there are windows."""
    pytest.importorskip("mpi4py")
    every = [
        "--model", folder / "model", "--data", folder / "text.txt", "--json",
        "--hellaswag", folder / "hellaswag.jsonl", "--lambada", folder / "lambada.jsonl",
    ]  # fmt: skip
    few = ["--model", folder / "model", "--data", folder / "text.txt", "--limit=9", "--json"]
    for arguments, counts in ((every, (1, 3)), (few, (1, 2))):
        reports = []
        for count in counts:
            done = ranks(count, *arguments)
            assert done.returncode == 0, done.stderr
            (line,) = done.stdout.splitlines()  # of rank 0 alone
            reports.append(json.loads(line))
        alone, shared = reports
        assert alone.pop("ranks") == 1 and shared.pop("ranks") == counts[1]
        assert alone.keys() == shared.keys()
        for key, value in alone.items():
            if isinstance(value, dict):
                assert value.pop("source") == shared[key].pop("source")
                assert shared[key] == pytest.approx(value, rel=1e-12), key
            else:
                assert shared[key] == value


@pytest.mark.skipif(MPIEXEC is None, reason="no mpiexec")
def test_an_error_on_one_rank_ends_the_job(folder, tmp_path):
    """The second example is rank 1's, and rank 0 would wait for its sums."""
    pytest.importorskip("mpi4py")
    file = tmp_path / "words.jsonl"
    file.write_text('{"text": "two words"}\n{"text": "single"}\n', encoding="utf-8")
    done = ranks(2, "--model", folder / "model", "--lambada", file)
    assert done.returncode != 0 and done.stdout == ""
    assert "tensorgrad evaluate: " in done.stderr and "rank 1 of 2 ended the job" in done.stderr
    assert "a text of a single word has nothing to go by" in done.stderr


def test_shares_are_all_of_it(monkeypatch):
    items = list(range(11))
    shares = []
    for rank in range(4):
        monkeypatch.setattr("tensorgrad.distributed.get_rank", lambda rank=rank: rank)
        monkeypatch.setattr("tensorgrad.distributed.get_world_size", lambda: 4)
        shares.append(evaluation.striped(iter(items)))
    assert shares[1] == [1, 5, 9] and sorted(chain(*shares)) == items
