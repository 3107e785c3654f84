"""The command `sample`: what a trained model writes, its options, files and conversations."""

import re
from pathlib import Path

import pytest

from tensorgrad.__main__ import main
from tests.test_cli import TEXT, TINY, fails, misread


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model, trained so far that it has learnt something."""
    out = tmp_path_factory.mktemp("trained") / "out"
    file = out.parent / "saying.txt"
    file.write_text(TEXT, encoding="utf-8")
    steps = ["--max_iters=150", "--eval_interval=150", "--learning_rate=0.01", "--min_lr=0.001"]
    assert main(["train", *TINY, *steps, f"--data={file}", f"--out_dir={out}"]) == 0
    return out


def sampled(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert main(["sample", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_a_sample_is_of_the_model_that_was_trained(trained, capsys):
    """B0.24: what it writes are the words of its text, which random weights do not know."""
    text = sampled(capsys, f"--out_dir={trained}", "--temperature=0", "--max_new_tokens=60")
    words = re.findall(r"\w+", text)[1:-1]
    assert len(words) > 5
    known = sum(word in ("what", "was", "will", "be", "and") for word in words)
    assert known > len(words) / 2


def test_a_prompt_from_a_file(trained, tmp_path, capsys):
    file = tmp_path / "prompt.txt"
    file.write_text("what was will", encoding="utf-8")
    same = ["--out_dir", trained, "--max_new_tokens=9"]
    text = sampled(capsys, *same, "--prompt_file", file)
    assert text == sampled(capsys, *same, "--start", "what was will")
    assert text.startswith("what was will") and len(text) == 13 + 9 + 1
    assert "No such file" in fails(capsys, "sample", *same, "--prompt_file", tmp_path / "none")
    both = ["sample", "--start=a", f"--prompt_file={file}"]
    assert "not allowed with argument" in misread(capsys, *both)


def test_options_of_sampling(trained, capsys):
    same = ["--out_dir", trained, "--max_new_tokens=40", "--start", "what "]
    greedy = sampled(capsys, *same, "--temperature=0")
    for options in (["--top_p=1e-9"], ["--min_p=1"], ["--top_k=1"], ["--temperature=0"]):
        assert sampled(capsys, *same, *options) == greedy
    text = sampled(capsys, *same, "--no_repeat_ngram_size=3", "--temperature=0")[:-1]
    runs = [text[i : i + 3] for i in range(len(text) - 2)]
    assert len(set(runs)) == len(runs)
    stopped = sampled(capsys, *same, "--temperature=0", "--stop", greedy[12:15])
    assert stopped[:-1] == greedy[: greedy.index(greedy[12:15], 3) + 3]
    assert "top_p must be in (0, 1]" in fails(capsys, "sample", *same, "--top_p=2")


def test_a_conversation(trained, capsys, monkeypatch):
    """Each line continues the text; one with an unknown character is told and left out."""
    lines = iter(["what was", "w€", "and"])

    def typed(prompt: str) -> str:
        print(prompt, end="")
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", typed)
    out = sampled(
        capsys, "--out_dir", trained, "--interactive", "--max_new_tokens=11", "--temperature=0"
    )
    first, second, third, last = out.split("> ")[1:]
    assert len(first) == 11 + 1 and len(third) == 11 + 1 and last == "\n"
    assert "'€' (U+20AC)" in second
    whole = sampled(
        capsys, "--out_dir", trained, "--max_new_tokens=11", "--temperature=0",
        "--start", "what was\n" + first[:-1] + "and\n",
    )  # fmt: skip
    assert whole.endswith(third)


def test_models_of_words_have_fewer_options(tmp_path, capsys):
    words = tmp_path / "words.txt"
    words.write_text("\n".join(["anna", "hanna", "nan", "ann", "hannah"] * 9), encoding="utf-8")
    out = tmp_path / "out"
    assert main(["train", "bigram", f"--data={words}", f"--out_dir={out}"]) == 0
    for option in ("--top_p=0.5", "--stop=x", "--interactive"):
        told = fails(capsys, "sample", "--out_dir", out, option)
        assert "writes words" in told and option.split("=")[0] in told
