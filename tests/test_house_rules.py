"""House rules a parser can check: no rivals, no pickle, no short names, no import circles."""

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.tree import MAPPED, ROOT, files, module_name, parse, product

PRODUCT = product()
BENCHMARKS = list(files("benchmarks"))
RIVALS = {"torch", "transformers"}
PICKLES = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b")


def where(path: Path, node: ast.AST | int) -> str:
    line = node if isinstance(node, int) else getattr(node, "lineno", 0)
    return f"{path.relative_to(ROOT)}:{line}"


def imported(path: Path, node: ast.AST) -> list[str]:
    """Full names that one import statement asks for; for `from a import b` both a and a.b."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        package = module_name(path).split(".")
        package = package if path.name == "__init__.py" else package[:-1]
        package = package[: len(package) - node.level + 1]
        base = ".".join([*package, base] if base else package)
    return [base, *(f"{base}.{alias.name}" for alias in node.names)]


def roots(path: Path, node: ast.AST) -> set[str]:
    return {name.split(".")[0] for name in imported(path, node)}


def statements_run_by_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """What runs when a module is imported: not the insides of functions, nor of TYPE_CHECKING."""
    for node in body:
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            yield from statements_run_by_import(node.orelse)
            continue
        for field in ("body", "orelse", "finalbody"):
            yield from statements_run_by_import(getattr(node, field, []))
        for handler in getattr(node, "handlers", []):
            yield from statements_run_by_import(handler.body)


def import_graph(paths: list[Path]) -> dict[str, set[str]]:
    """Each module and the modules that it names in imports which run at once.

    `import a.b` runs a/__init__.py too; with that edge every package would be a circle, so it
    is left out."""
    modules = {module_name(path): path for path in paths}
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        graph[name] = set()
        for node in statements_run_by_import(parse(path).body):
            if isinstance(node, ast.Import):
                graph[name].update(set(imported(path, node)) & set(modules))
            elif isinstance(node, ast.ImportFrom):
                base, *members = imported(path, node)
                inner = {member for member in members if member in modules}
                graph[name].update(inner)
                if base in modules and len(inner) < len(members):
                    graph[name].add(base)
    return graph


def test_rivals_stay_outside():
    allowed = ROOT / "benchmarks" / "rivals"
    found = [
        f"{where(path, node)} imports {rival}"
        for path in PRODUCT + [path for path in BENCHMARKS if allowed not in path.parents]
        for node in ast.walk(parse(path))
        for rival in roots(path, node) & RIVALS
    ]
    assert found == []


def test_no_pickle_and_nothing_evaluated():
    found = []
    for path in PRODUCT + BENCHMARKS:
        for node in ast.walk(parse(path)):
            found += [f"{where(path, node)} imports {name}" for name in roots(path, node) & PICKLES]
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called in ("eval", "exec", "builtins.eval", "builtins.exec", "__import__"):
                    found.append(f"{where(path, node)} calls {called}")
                if any(word.arg == "allow_pickle" for word in node.keywords):
                    found.append(f"{where(path, node)} mentions allow_pickle")
    assert found == []


def test_mapped_folders_go_by_their_long_names():
    """Never `from nn import`; no relative import out of nn/, models/ or data/, nor into them."""
    found = []
    for path in [*PRODUCT, *BENCHMARKS, *files("tests")]:
        home = path.relative_to(ROOT).parts[0]
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.ImportFrom) and node.level:
                target = imported(path, node)[0].split(".")
                folder = target[1] if len(target) > 1 and target[1] in MAPPED else "tensorgrad"
                named = {alias.name for alias in node.names} if target == ["tensorgrad"] else set()
                if home in ("tensorgrad", *MAPPED) and (folder != home or named & set(MAPPED)):
                    found.append(f"{where(path, node)} reaches {folder} by dots")
            else:
                short = roots(path, node) & set(MAPPED)
                found += [f"{where(path, node)} imports {name}" for name in short]
    assert found == []


def test_imports_form_no_circle():
    try:
        list(TopologicalSorter(import_graph(PRODUCT)).static_order())
    except CycleError as error:
        pytest.fail("imports form a circle: " + " -> ".join(reversed(error.args[1])))


def test_the_engine_stands_alone():
    """Importing the engine runs none of nn, models, data; nn and data run only the engine."""
    may = {"tensorgrad": set(), "nn": {"nn"}, "data": {"data"}, "models": set(MAPPED)}
    found = []
    for module, targets in import_graph(PRODUCT).items():
        if module in ("tensorgrad", "tensorgrad.__main__"):
            continue
        home = next((f for f in MAPPED if module.split(".")[1] == f), "tensorgrad")
        for target in targets:
            folder = target.split(".")[1] if "." in target else ""
            if folder in MAPPED and folder not in may[home]:
                found.append(f"{module} imports {target}")
    assert found == []


def test_nothing_is_left_unfinished():
    paths = [*PRODUCT, *BENCHMARKS, *files("tensorgrad", *MAPPED, suffixes=(".cu", ".cuh", ".h"))]
    found = [
        f"{where(path, number)} says {match[0]}"
        for path in paths
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if (match := UNFINISHED.search(line))
    ]
    assert found == []


def test_every_file_says_what_it_is():
    """A module opens with a docstring whose first paragraph takes at most three lines."""
    found = []
    for path in PRODUCT + BENCHMARKS:
        first = (ast.get_docstring(parse(path)) or "").split("\n\n")[0].splitlines()
        if not 1 <= len(first) <= 3:
            found.append(f"{path.relative_to(ROOT)}: {len(first)} lines")
    assert found == []


def test_the_graph_reader_sees_a_circle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    package = tmp_path / "tensorgrad"
    package.mkdir()
    sources = {
        "__init__": "",
        "a": "from tensorgrad.b import x",
        "b": "try:\n    from . import c\nexcept ImportError:\n    pass",
        "c": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import tensorgrad.a\n",
    }
    monkeypatch.setattr("tests.tree.ROOT", tmp_path)
    for name, source in sources.items():
        (package / f"{name}.py").write_text(source)
    paths = sorted(package.glob("*.py"))
    straight = {"a": {"b"}, "b": {"c"}, "c": set()}
    graph = import_graph(paths)
    assert graph["tensorgrad.a"] == {"tensorgrad.b"}
    assert {n: graph[f"tensorgrad.{n}"] for n in straight} == {
        n: {f"tensorgrad.{m}" for m in targets} for n, targets in straight.items()
    }
    (package / "c.py").write_text("class C:\n    import tensorgrad.a\n")
    with pytest.raises(CycleError):
        list(TopologicalSorter(import_graph(paths)).static_order())
