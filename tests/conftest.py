"""What all tests share: no network, no window, no deadlines, GPU tests where a GPU is."""

import importlib
import os

import pytest
from hypothesis import HealthCheck, settings

# Read when the libraries are imported, so set before any test imports them.
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# No deadline: no test asserts a time.  In CI the draws are the same in every run.
settings.register_profile("local", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("local"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def why_no_gpu() -> str | None:
    """The reason why tests marked gpu cannot run here, or None."""
    try:
        cupy = importlib.import_module("cupy")
    except ImportError as error:
        return f"needs CuPy, as in pip install -e '.[cuda12]' ({error})"
    return None if cupy.cuda.is_available() else "CuPy finds no CUDA device or no driver"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    reason = why_no_gpu() if on_gpu else None
    if reason:
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason=reason))
