"""The only folder outside the tests that imports rivals, and only when a benchmark asks for one."""

from benchmarks.harness import Side


def pytorch() -> Side:
    """PyTorch eager, or SystemExit with a sentence that says what to install."""
    try:
        from benchmarks.rivals.torch_ops import SIDE
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise SystemExit(
            "this benchmark runs beside PyTorch, which is not installed: "
            "pip install torch==2.13.0, or pip install -e '.[bench]'"
        ) from None
    return SIDE
