"""docs/seeds.md keeps its word: every id once; what is done names an answer and a real test."""

import ast
import importlib
import re
from collections import Counter
from functools import cache
from typing import NamedTuple

import pytest

from tests.tree import ROOT, parse

# How many ids each family has: features of seeds 0, 1, 3, 4, parts of the notes (seed 2), defects.
FAMILIES = {
    "F0.": 12,
    "F1.": 9,
    "F3.": 7,
    "F4.": 5,
    "G2.a": 4,
    "G2.b": 4,
    "G2.c": 5,
    "G2.d": 8,
    "G2.e": 4,
    "G2.f": 4,
    "G2.g": 4,
    "B0.": 26,
    "B1.": 12,
    "B2.": 36,
    "B3.": 8,
    "B4.": 13,
}
HEADER = ["id", "what is asked", "status", "answered by", "held by"]
DOTTED = re.compile(r"tensorgrad(?:\.\w+)+")


class Row(NamedTuple):
    id: str
    asked: str
    status: str
    answer: str
    test: str

    @property
    def answers(self) -> list[str]:
        return re.findall(r"`([^`]+)`", self.answer)

    @property
    def tests(self) -> list[str]:
        return re.findall(r"`([^`]+)`", self.test)


def read_table(text: str) -> list[Row]:
    cells = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    assert cells[0] == HEADER
    wrong = [row for row in cells if len(row) != len(HEADER)]
    assert not wrong, f"rows without {len(HEADER)} cells: {wrong}"
    return [Row(*row) for row in cells[2:]]


ROWS = read_table((ROOT / "docs/seeds.md").read_text(encoding="utf-8"))


@cache
def defined_tests(file: str) -> frozenset[str]:
    """What a file defines, as `test_x` and `TestClass::test_y`, read without importing it."""
    path = ROOT / file
    if not path.is_file():
        return frozenset()
    found = set()
    for node in parse(path).body:
        inside = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        found |= {prefix + f.name for f in inside if isinstance(f, ast.FunctionDef)}
    return frozenset(name for name in found if name.split("::")[-1].startswith("test_"))


def import_symbol(dotted: str) -> object:
    """The object behind tensorgrad.a.b.C.d: the longest module, then attributes."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        name = ".".join(parts[:end])
        try:
            found = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name and name.startswith(error.name):
                continue
            raise
        for attribute in parts[end:]:
            found = getattr(found, attribute)
        return found
    raise ModuleNotFoundError(f"no module named {dotted}")


def problems(row: Row) -> list[str]:
    """Sentences about what is wrong in one row."""
    found = []
    if row.status not in ("done", "open"):
        found.append(f"status is {row.status!r}, not done or open")
    if not row.asked:
        found.append("says nothing about what is asked")
    if row.status == "done" and not row.tests:
        found.append("is done and names no test")
    if row.status == "done" and not row.answers:
        found.append("is done and names no symbol or command")
    for test in row.tests:
        file, _, name = test.partition("::")
        if name not in defined_tests(file):
            found.append(f"names {test}, which does not exist")
    for answer in row.answers:
        if DOTTED.fullmatch(answer):
            try:
                import_symbol(answer)
            except (ImportError, AttributeError) as error:
                found.append(f"names {answer}, which cannot be imported: {error}")
    return found


def test_every_id_once():
    asked = [f"{family}{n}" for family, count in FAMILIES.items() for n in range(1, count + 1)]
    counted = Counter(row.id for row in ROWS)
    assert [name for name, times in counted.items() if times > 1] == []
    assert sorted(set(asked) - set(counted)) == []
    assert sorted(set(counted) - set(asked)) == []
    assert sum(row.id.startswith("B") for row in ROWS) == 95


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_row_keeps_its_word(row: Row):
    assert problems(row) == []


@pytest.mark.parametrize(
    ("status", "answer", "test", "complaint"),
    [
        ("done", "`tensorgrad.nn`", "", "names no test"),
        ("done", "", "`tests/test_seeds.py::test_every_id_once`", "no symbol or command"),
        ("done", "`tensorgrad train`", "`tests/test_seeds.py::test_nothing`", "does not exist"),
        ("done", "`tensorgrad train`", "`tests/test_none.py::test_x`", "does not exist"),
        ("open", "`tensorgrad.nn.NoSuchThing`", "", "cannot be imported"),
        ("open", "`tensorgrad.no_such_module`", "", "cannot be imported"),
        ("finished", "", "", "not done or open"),
    ],
)
def test_a_broken_row_is_found(status: str, answer: str, test: str, complaint: str):
    (found,) = problems(Row("X1", "something", status, answer, test))
    assert complaint in found
