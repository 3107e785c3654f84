"""What the documents say is so: their Python prints what they claim, their links lead somewhere."""

import re
import runpy
from importlib.util import find_spec
from pathlib import Path

import pytest

from tensorgrad.__main__ import COMMANDS, main
from tests.tree import ROOT

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
WITH_PROGRAMS = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in (
    "how_backward_works", "extending", "differences", "lessons"))]  # fmt: skip
every_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
PROMISE = re.compile(r" *print\(.*\)  # (.*)")


def blocks(path: Path, language: str) -> str:
    """The code in a language, each line where it stands in the document, the rest left blank."""
    lines, inside = [], False
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            inside = not inside and line == f"```{language}"
            line = ""
        lines.append(line if inside else "")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("path", WITH_PROGRAMS, ids=lambda path: path.name)
def test_python_runs_and_prints_what_is_said(path, tmp_path, monkeypatch, capsys):
    """`print(...)  # 7` promises 7.  The blocks of a document are one program."""
    program = blocks(path, "python")
    file = tmp_path / f"{path.stem}.py"
    file.write_text(program, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(file))
    promised = [match[1] for line in program.splitlines() if (match := PROMISE.fullmatch(line))]
    assert capsys.readouterr().out.splitlines() == promised


@every_document
def test_links_lead_somewhere(path):
    targets = re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8"))
    local = [target.partition("#")[0] for target in targets if "://" not in target]
    assert [target for target in local if not (path.parent / target).exists()] == []


@every_document
def test_fences_close(path):
    fences = [line for line in path.read_text().splitlines() if line.startswith("```")]
    assert len(fences) % 2 == 0 and set(fences[1::2]) <= {"```"}


def test_the_two_commands():
    commands = blocks(ROOT / "README.md", "bash").splitlines()
    assert "pip install -e . && tensorgrad train" in commands
    assert 'pip install -e ".[test]" && pytest' in commands


@every_document
def test_commands_exist(path, capsys):
    """Modules that are run can be found; options of `tensorgrad` are options of that command."""
    text = path.read_text(encoding="utf-8")
    modules = re.findall(r"python -m ([\w.]+)", text)
    assert [name for name in modules if find_spec(name) is None] == []
    text = re.sub(r".*\| open \|.*", "", text)  # a row of plans
    for words, options in re.findall(r"`tensorgrad ((?:[a-z][a-z0-9-]*\b ?)+)([^`]*)`", text):
        command = words.split()
        assert command[0] in COMMANDS, command
        with pytest.raises(SystemExit):
            main([*command[: 1 + (command[0] in ("train", "diagnose", "inspect"))], "--help"])
        known = set(re.findall(r"--\w+", capsys.readouterr().out))
        given = {name.replace("-", "_") for name in re.findall(r"--(\w[\w-]*)", options)}
        assert {f"--{name}" for name in given} <= known, command
