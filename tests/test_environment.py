"""The report never fails, and each reason for having no GPU is a sentence of its own."""

import builtins
import ctypes
import subprocess
import sys
import types
from collections.abc import Iterator
from importlib import metadata

import numpy as np
import pytest

from tensorgrad import environment
from tensorgrad.environment import cuda_problem, nvidia_driver, report
from tests.tree import ROOT


@pytest.fixture(autouse=True)
def ask_again(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Both answers are kept for the process; here every test asks anew."""

    def forget() -> None:
        for answer in (cuda_problem, nvidia_driver):
            answer.cache_clear()

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    forget()
    yield
    forget()


class FakeDriver:
    """libcuda as ctypes shows it: writes through pointers, returns numbers."""

    def __init__(self, cuda: int, gpus: int, status: int = 0) -> None:
        self.cuda, self.gpus, self.status = cuda, gpus, status

    def cuDriverGetVersion(self, number) -> int:
        number._obj.value = self.cuda
        return 0

    def cuInit(self, flags: int) -> int:
        return self.status

    def cuDeviceGetCount(self, count) -> int:
        count._obj.value = self.gpus
        return 0

    def cuDeviceGet(self, device, i: int) -> int:
        device._obj.value = 10 + i
        return 0

    def cuDeviceGetName(self, name, size: int, device) -> int:
        name.value = f"Fake H{device.value}0".encode()
        return 0

    def cuDeviceTotalMem_v2(self, size, device) -> int:
        size._obj.value = 24 * 2**30
        return 0


def pretend(
    monkeypatch: pytest.MonkeyPatch,
    driver: FakeDriver | None,
    cupy: dict[str, str] | None = None,
    module: object = None,
) -> None:
    """A machine with this driver, these CuPy distributions and this module."""

    def load(name: str) -> FakeDriver:
        assert name == "libcuda.so.1"
        if driver is None:
            raise OSError(f"{name}: cannot open shared object file")
        return driver

    real = metadata.version

    def version(name: str) -> str:
        if name not in environment.CUPY:
            return real(name)
        if name not in (cupy or {}):
            raise metadata.PackageNotFoundError(name)
        return (cupy or {})[name]

    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setitem(sys.modules, "cupy", module)


CUPY12, CUPY13 = {"cupy-cuda12x": "14.2.0"}, {"cupy-cuda13x": "14.2.0"}


@pytest.mark.parametrize(
    ("driver", "cupy", "sentence"),
    [
        (None, None, "there is no NVIDIA driver here (libcuda.so.1 is missing): CUDA needs an"),
        (None, CUPY12, "there is no NVIDIA driver here"),
        (FakeDriver(12040, 0, 100), CUPY12, "the NVIDIA driver is installed but finds no GPU: see"),
        (FakeDriver(12040, 0), CUPY12, "the NVIDIA driver is installed but finds no GPU"),
        (
            FakeDriver(12040, 1, 803),
            CUPY12,
            "the NVIDIA driver refuses with error 803: the driver's",
        ),
        (
            FakeDriver(12040, 1, 7),
            CUPY12,
            "the NVIDIA driver refuses with error 7: see CUDA's list",
        ),
        (
            FakeDriver(12040, 1),
            None,
            "there is a GPU (Fake H100, 24.0 GiB) but CuPy is not installed: "
            "pip install -e '.[cuda12]'",
        ),
        (FakeDriver(13000, 1), None, "pip install -e '.[cuda13]'"),
        (FakeDriver(11080, 1), None, "pip install -e '.[cuda12]'"),
        (FakeDriver(15010, 1), None, "pip install -e '.[cuda13]'"),
        (
            FakeDriver(12080, 1),
            CUPY13,
            "the NVIDIA driver is too old: it serves CUDA 12.8, and cupy-cuda13x needs 13.0; "
            "update the driver or install cupy-cuda12x",
        ),
        (
            FakeDriver(11080, 1),
            CUPY12,
            "serves CUDA 11.8, and cupy-cuda12x needs 12.0; update the d",
        ),
        (
            FakeDriver(12080, 1),
            CUPY12 | CUPY13,
            "cupy-cuda12x and cupy-cuda13x get in each other's",
        ),
        (
            FakeDriver(12080, 1),
            CUPY12,
            "CuPy is installed but does not compute (import of cupy halt",
        ),
    ],
)
def test_each_reason_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
    driver: FakeDriver | None,
    cupy: dict[str, str] | None,
    sentence: str,
):
    pretend(monkeypatch, driver, cupy)
    problem = cuda_problem()
    assert problem is not None and sentence in problem
    assert "\n" not in problem and not problem.endswith(".")
    assert problem in report()


def test_hidden_gpus(monkeypatch: pytest.MonkeyPatch):
    pretend(monkeypatch, FakeDriver(12040, 0, 100), CUPY12)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert "shows no GPU, and CUDA_VISIBLE_DEVICES is '-1': unset it" in (cuda_problem() or "")


def test_macos(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cuda_problem() == "macOS has no NVIDIA driver, so there is no CUDA here"


def working_cupy() -> types.SimpleNamespace:
    """As much of CuPy as is asked for: NumPy's arrays with get()."""

    class Fake(np.ndarray):
        def get(self) -> np.ndarray:
            return np.asarray(self)

    runtime = types.SimpleNamespace(runtimeGetVersion=lambda: 12090)
    return types.SimpleNamespace(
        ones=lambda shape: np.ones(shape).view(Fake), cuda=types.SimpleNamespace(runtime=runtime)
    )


def test_a_gpu_that_works(monkeypatch: pytest.MonkeyPatch):
    pretend(monkeypatch, FakeDriver(13010, 2), CUPY12, working_cupy())
    assert cuda_problem() is None
    lines = dict(line.split(": ", 1) for line in report().splitlines())
    told = {name: value.strip() for name, value in lines.items()}
    assert told["CUDA"] == "driver for CUDA 13.1, CuPy's runtime 12.9"
    assert (told["GPU 0"], told["GPU 1"]) == ("Fake H100, 24.0 GiB", "Fake H110, 24.0 GiB")
    assert told["CuPy"] == "14.2.0 (cupy-cuda12x)"
    assert told["device='cuda'"] == "works"


def test_cupy_that_fails_on_the_gpu(monkeypatch: pytest.MonkeyPatch):
    def ones(shape: tuple[int, ...]) -> None:
        raise ImportError("libcublas.so.12: cannot open\n  shared object file")

    pretend(monkeypatch, FakeDriver(12080, 1), CUPY12, types.SimpleNamespace(ones=ones))
    assert cuda_problem() == (
        "CuPy is installed but does not compute (libcublas.so.12: cannot open shared object file); "
        "pip install -e '.[cuda12]' or '.[cuda13]' brings all that it needs"
    )


def test_a_driver_unlike_any_other(monkeypatch: pytest.MonkeyPatch):
    pretend(monkeypatch, object(), CUPY12)  # type: ignore[arg-type]
    assert (cuda_problem() or "").startswith("CUDA does not answer: AttributeError: ")
    report()


def test_asked_once(monkeypatch: pytest.MonkeyPatch):
    pretend(monkeypatch, None)
    first = cuda_problem()
    pretend(monkeypatch, FakeDriver(12040, 1), CUPY12, working_cupy())
    assert cuda_problem() is first


def test_the_report_names_what_it_is_asked_for():
    names = [line.split(":")[0] for line in report().splitlines()]
    assert names[:5] == ["tensorgrad", "python", "system", "processor", "memory"]
    assert {*environment.LIBRARIES, "BLAS", "CuPy", "CUDA", "device='cuda'"} <= set(names)
    assert f"numpy:         {np.__version__}" in report()


def test_blas_without_threadpoolctl(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    built = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    assert environment.blas().startswith(f"{built['name']} {built['version']}, ")
    assert "OPENBLAS_NUM_THREADS=3" in environment.blas()


@pytest.mark.parametrize(
    "part", ["own_version", "processor", "memory", "blas", "version", "cuda", "find_problem"]
)
def test_a_part_that_fails_is_unknown(monkeypatch: pytest.MonkeyPatch, part: str):
    def fail(*args: object) -> str:
        raise RuntimeError("for a test")

    monkeypatch.setattr(environment, part, fail)
    assert "RuntimeError: for a test" in report()


def test_without_proc(monkeypatch: pytest.MonkeyPatch):
    real = builtins.open

    def refuse(name, *args, **kwargs):
        if str(name).startswith("/proc"):
            raise FileNotFoundError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", refuse)
    assert environment.processor_name()


def test_the_report_imports_nothing_heavy():
    code = (
        "import sys; from tensorgrad.environment import report; report(); "
        "heavy = {'numba', 'scipy', 'matplotlib', 'tiktoken', 'safetensors', 'torch'}; "
        "print(heavy & set(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "set()"


@pytest.mark.gpu
def test_the_gpu_of_this_machine():
    assert cuda_problem() is None
    assert "GPU 0:" in report()
