"""The files of this repository, as the tests about the repository itself see them."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MAPPED = ("nn", "models", "data")  # top-level folders imported as tensorgrad.nn and so on


def files(*folders: str, suffixes: tuple[str, ...] = (".py",)) -> Iterator[Path]:
    """Files under the folders, each once: the links tensorgrad/nn -> ../nn are not followed."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in suffixes and path.is_file() and "__pycache__" not in path.parts:
                yield path


def product() -> list[Path]:
    return list(files("tensorgrad", *MAPPED))


def installed_path(path: Path) -> str:
    """Where a product file lies in the wheel: nn/linear.py -> tensorgrad/nn/linear.py."""
    relative = path.relative_to(ROOT).as_posix()
    return relative if relative.startswith("tensorgrad/") else f"tensorgrad/{relative}"


def module_name(path: Path) -> str:
    """nn/linear.py -> tensorgrad.nn.linear, tensorgrad/ops/__init__.py -> tensorgrad.ops."""
    return installed_path(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
