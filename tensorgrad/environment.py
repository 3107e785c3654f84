"""What this machine offers: versions, BLAS, the GPU, and why there is none where there is none.

Nothing here raises; CuPy is imported only once the driver has shown a GPU.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib import import_module, metadata
from typing import Any, NamedTuple

LIBRARIES = ("numpy", "scipy", "numba", "ml_dtypes", "safetensors", "tiktoken", "matplotlib")
CUPY = ("cupy-cuda12x", "cupy-cuda13x", "cupy")  # the names CuPy is distributed under
MISSING = "not installed"


def report() -> str:
    """What `tensorgrad env` prints: one `name: value` a line."""
    lines = [(name, attempt(value)) for name, value in facts()]
    width = max(len(name) for name, _ in lines) + 1
    return "\n".join(f"{name + ':':<{width}} {value}" for name, value in lines)


def facts() -> Iterator[tuple[str, Callable[[], str]]]:
    yield "tensorgrad", own_version
    yield "python", lambda: f"{platform.python_version()} ({sys.executable})"
    yield "system", platform.platform
    yield "processor", processor
    yield "memory", memory
    for name in LIBRARIES:
        yield name, partial(version, name)
    yield "BLAS", blas
    yield "CuPy", lambda: ", ".join(f"{version(n)} ({n})" for n in installed_cupy()) or MISSING
    yield "CUDA", cuda
    driver = attempt(nvidia_driver)
    for i, gpu in enumerate(driver.gpus if isinstance(driver, Driver) else []):
        yield f"GPU {i}", partial(str, gpu)
    yield "device='cuda'", lambda: cuda_problem() or "works"


def attempt(what: Callable[[], Any]) -> Any:
    """The value, or the reason why there is none."""
    try:
        return what()
    except Exception as error:  # a report that fails helps nobody
        return f"unknown ({type(error).__name__}: {error})"


def version(distribution: str) -> str:
    """The installed version, read from its metadata: nothing is imported."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return MISSING


def installed_cupy() -> list[str]:
    return [name for name in CUPY if version(name) != MISSING]


def own_version() -> str:
    import tensorgrad

    number = getattr(tensorgrad, "__version__", "of no number")
    return f"{number} ({os.path.dirname(tensorgrad.__file__)})"


def processor() -> str:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{processor_name()}, {usable} of {os.cpu_count()} cores usable"


def processor_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def memory() -> str:
    return f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB"


def blas() -> str:
    """The library behind NumPy's products and its threads: as loaded, or else as built."""
    import numpy as np

    try:
        loaded = import_module("threadpoolctl").threadpool_info()
    except ImportError:
        built = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        names = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
        asked = [f"{name}={os.environ[name]}" for name in names if name in os.environ]
        return f"{built['name']} {built['version']}, {' '.join(asked) or 'one thread a core'}"
    pools = [pool for pool in loaded if pool["user_api"] == "blas"]
    return "; ".join(
        f"{pool['internal_api']} {pool['version']} ({pool.get('architecture') or 'any CPU'}), "
        f"{pool['num_threads']} threads"
        for pool in pools
    )


def cuda() -> str:
    driver = nvidia_driver()
    if isinstance(driver, str):
        return "no driver"
    served = f"driver for CUDA {dotted(driver.cuda)}"
    if cuda_problem() is not None:
        return served
    runtime = import_module("cupy").cuda.runtime.runtimeGetVersion()
    return f"{served}, CuPy's runtime {dotted(runtime)}"


# Why there is no GPU


class Driver(NamedTuple):
    """NVIDIA's driver as it answers: the CUDA version it serves (12040 is 12.4) and its GPUs."""

    cuda: int
    gpus: list[str]


@cache
def cuda_problem() -> str | None:
    """Why `device="cuda"` cannot work here, as a sentence with the way out; None where it works.

    Asked once in a process, from the bottom up: the driver, its GPUs, CuPy, the versions of both,
    and last whether CuPy can compile a kernel and multiply matrices there.
    """
    try:
        return find_problem()
    except Exception as error:  # whatever it is, it is the answer
        return f"CUDA does not answer: {type(error).__name__}: {error}"


def find_problem() -> str | None:
    driver = nvidia_driver()
    if isinstance(driver, str):
        return driver
    if not driver.gpus:
        return no_gpu()
    major = driver.cuda // 1000
    installed = installed_cupy()
    if not installed:
        return (
            f"there is a GPU ({driver.gpus[0]}) but CuPy is not installed: "
            f"pip install -e '.[cuda{min(max(major, 12), 13)}]'"
        )
    if len(installed) > 1:
        return f"{' and '.join(installed)} get in each other's way: pip uninstall one of them"
    wants = {"cupy-cuda12x": 12, "cupy-cuda13x": 13}.get(installed[0], 0)
    if major < wants:
        way_out = "update the driver" + (" or install cupy-cuda12x" if major == 12 else "")
        return (
            f"the NVIDIA driver is too old: it serves CUDA {dotted(driver.cuda)}, and "
            f"{installed[0]} needs {wants}.0; {way_out}"
        )
    return try_cupy()


def try_cupy() -> str | None:
    """One product on the GPU: it takes memory, a kernel from NVRTC, and cuBLAS."""
    try:
        import cupy

        ones = cupy.ones((2, 2))
        (ones @ ones).get()
    except Exception as error:
        return (
            f"CuPy is installed but does not compute ({' '.join(str(error).split())}); "
            "pip install -e '.[cuda12]' or '.[cuda13]' brings all that it needs"
        )
    return None


def no_gpu() -> str:
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None:
        return (
            f"the NVIDIA driver shows no GPU, and CUDA_VISIBLE_DEVICES is {hidden!r}: "
            "unset it, or name a GPU that `nvidia-smi -L` lists"
        )
    return "the NVIDIA driver is installed but finds no GPU: see `nvidia-smi`"


# What cuInit answers where the driver is there and the rest is not.
REFUSALS = {
    34: "it is the toolkit's stub, not the driver: take cuda/lib64/stubs off LD_LIBRARY_PATH",
    802: "the GPUs' system (Fabric Manager) has not started yet",
    803: "the driver's library and kernel module are of different versions: restart the machine",
    804: "the driver is too old for its CUDA compatibility library: update it",
    999: "the driver does not start: see `nvidia-smi` and `dmesg`",
}
NO_DEVICE = 100


@cache
def nvidia_driver() -> Driver | str:
    """The driver asked directly, without CuPy; or why it does not answer."""
    if sys.platform == "darwin":
        return "macOS has no NVIDIA driver, so there is no CUDA here"
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        library = ctypes.CDLL(name)
    except OSError:
        return (
            f"there is no NVIDIA driver here ({name} is missing): CUDA needs an NVIDIA GPU and its "
            "driver, and a container needs to be given both (docker run --gpus all)"
        )
    number = ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(number))
    status = library.cuInit(0)
    if status == NO_DEVICE:
        return Driver(number.value, [])
    if status:
        reason = REFUSALS.get(status, "see CUDA's list of error numbers")
        return f"the NVIDIA driver refuses with error {status}: {reason}"
    return Driver(number.value, gpus(library))


def gpus(library: Any) -> list[str]:
    """The names and memory of the GPUs that the driver shows."""
    count, device, size = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(256)
    library.cuDeviceGetCount(ctypes.byref(count))
    found = []
    for i in range(count.value):
        library.cuDeviceGet(ctypes.byref(device), i)
        library.cuDeviceGetName(name, len(name), device)
        library.cuDeviceTotalMem_v2(ctypes.byref(size), device)
        found.append(f"{name.value.decode(errors='replace')}, {size.value / 2**30:.1f} GiB")
    return found


def dotted(cuda_version: int) -> str:
    """12040 -> "12.4"."""
    return f"{cuda_version // 1000}.{cuda_version % 1000 // 10}"
