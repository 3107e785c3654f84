"""The exercises on MiniGPT are worked: their blocks are one program, which prints what it says."""

import re
import runpy

import pytest

from tests.test_readme import PROMISE, blocks
from tests.tree import ROOT

PATH = ROOT / "docs" / "exercises.md"


@pytest.fixture(scope="module")
def program():
    return blocks(PATH, "python")


def test_the_answers_pass_their_checks(program, tmp_path, capsys):
    """F1.9."""
    file = tmp_path / "exercises.py"
    file.write_text(program, encoding="utf-8")
    runpy.run_path(str(file))
    promised = [m[1] for line in program.splitlines() if (m := PROMISE.fullmatch(line))]
    assert capsys.readouterr().out.splitlines() == promised
    assert len(promised) == 13


def test_each_of_the_four_has_a_question_an_answer_and_a_check():
    text = PATH.read_text(encoding="utf-8")
    parts = re.split(r"^## \d\. ", text, flags=re.MULTILINE)[1:]
    assert len(parts) == 4
    for part in parts:
        question, answer, check = (part.find(x) for x in ("**Exercise:**", "*Answer", "*Check"))
        assert -1 < question < answer < check
