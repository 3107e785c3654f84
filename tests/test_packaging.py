"""What is installed is what lies in the tree, nothing more, and importing it stays light."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from tests.tree import MAPPED, ROOT, files, installed_path, parse, product

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
HEAVY = {
    *("cupy", "datasets", "huggingface_hub", "matplotlib", "ml_dtypes", "mpi4py", "numba"),
    *("pygraphviz", "safetensors", "scipy", "tensorboardX", "tiktoken", "tokenizers", "torch"),
    *("tqdm", "transformers", "wandb"),
}
# Where the name that is imported is not the name that is installed.
DISTRIBUTIONS = {
    "tiktoken_ext": "tiktoken",
    "cudnn": "nvidia-cudnn-frontend",
    "cupy": "cupy-cuda12x",
    "cupy_backends": "cupy-cuda12x",
    "cupyx": "cupy-cuda12x",
    "llvmlite": "numba",  # Numba's own half
}


def python(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True)


def setuptools_is_too_old() -> bool:
    try:
        return int(metadata.version("setuptools").split(".")[0]) < 77
    except metadata.PackageNotFoundError:
        return True


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of a copy of the tree, for a build writes beside its sources; no network."""
    if setuptools_is_too_old():
        pytest.skip("needs setuptools 77 or newer in this environment (the extra `test` has it)")
    copy = tmp_path_factory.mktemp("source")
    for folder in ("tensorgrad", *MAPPED, "tests", "benchmarks"):
        if (ROOT / folder).is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / folder, copy / folder, symlinks=True, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    built = python(
        "-c", "import setuptools.build_meta as b; print(b.build_wheel('dist'))", cwd=copy
    )
    assert built.returncode == 0, built.stderr
    return zipfile.ZipFile(copy / "dist" / built.stdout.split()[-1])


def test_wheel_holds_the_tree_and_nothing_else(wheel: zipfile.ZipFile):
    suffixes = (".py", ".cu", ".cuh", ".h", ".typed")
    expected = {installed_path(path) for path in files("tensorgrad", *MAPPED, suffixes=suffixes)}
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert sorted(expected - packed) == []
    assert sorted(packed - expected) == []
    assert "tensorgrad/py.typed" in packed


def test_wheel_describes_itself(wheel: zipfile.ZipFile):
    texts = {Path(n).name: wheel.read(n).decode() for n in wheel.namelist() if ".dist-info/" in n}
    assert "tensorgrad = tensorgrad.__main__:main" in texts["entry_points.txt"]
    assert "License-Expression: MIT" in texts["METADATA"]
    assert "The tensorgrad authors" in texts["LICENSE"]
    assert texts["top_level.txt"].split() == ["tensorgrad"]


def test_links_lead_to_the_folders():
    for folder in MAPPED:
        link = ROOT / "tensorgrad" / folder
        assert link.is_symlink() and link.readlink() == Path("..") / folder


@pytest.mark.parametrize("folder", MAPPED)
def test_short_name_is_refused(folder: str):
    refused = python("-c", f"import {folder}")
    assert refused.returncode == 1
    message = refused.stderr.strip().splitlines()[-1]
    assert message.startswith("ImportError: ")
    assert re.search(rf"write `from tensorgrad(\.{folder} import|\simport {folder}\b)", message)
    assert python("-c", f"import tensorgrad.{folder}").returncode == 0


@pytest.mark.parametrize(
    "statement",
    ["import tensorgrad", "from tensorgrad import nn", "from tensorgrad import optim"],
)
def test_import_is_light(statement: str):
    show = f"{statement}; import sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    loaded = python("-c", show)
    assert loaded.returncode == 0, loaded.stderr
    assert set(loaded.stdout.split()) & HEAVY == set()


def test_help_is_light():
    """`tensorgrad --help` answers before anything heavy is imported."""
    loaded = python("-X", "importtime", "-m", "tensorgrad", "--help")
    assert loaded.returncode == 0, loaded.stderr.splitlines()[-1]
    modules = re.findall(r"^import time:.*\|\s*([\w.]+)$", loaded.stderr, flags=re.MULTILINE)
    assert "argparse" in modules
    assert {name.split(".")[0] for name in modules} & HEAVY == set()


def test_every_import_is_declared():
    """What the product imports, even lazily, is the standard library's or in pyproject.toml."""
    listed = list(PROJECT["dependencies"])
    for extra, requirements in PROJECT["optional-dependencies"].items():
        if extra not in ("test", "bench"):
            listed += requirements
    declared = {canonical(re.split(r"[^\w.-]", requirement)[0]) for requirement in listed}
    undeclared = {
        f"{path.relative_to(ROOT)}:{node.lineno} imports {name}"
        for path in product()
        for node in ast.walk(parse(path))
        for name in third_parties(node)
        if canonical(DISTRIBUTIONS.get(name, name)) not in declared
    }
    assert sorted(undeclared) == []


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def third_parties(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        names = {alias.name.split(".")[0] for alias in node.names}
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        names = {node.module.split(".")[0]}
    else:
        return set()
    return names - set(sys.stdlib_module_names) - {"tensorgrad"}
