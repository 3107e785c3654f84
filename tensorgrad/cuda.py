"""torch.cuda's questions, answered by CuPy: is there a GPU, which, how much memory is in use."""

from __future__ import annotations

from typing import Any

from tensorgrad import backend
from tensorgrad.random import generator_for


def is_available() -> bool:
    """Whether `device="cuda"` works here."""
    return backend.is_available()


def device_count() -> int:
    """The number of GPUs; 0 where none can be used."""
    return int(backend.cupy().cuda.runtime.getDeviceCount()) if is_available() else 0


def current_device() -> int:
    """The index of the GPU that new arrays go to.  RuntimeError where there is none."""
    return int(backend.cupy().cuda.runtime.getDevice())


def get_device_name(device: Any = None) -> str:
    """The GPU's name.  RuntimeError where there is none."""
    properties = backend.cupy().cuda.runtime.getDeviceProperties(_index(device))
    return str(properties["name"].decode())


def synchronize(device: Any = None) -> None:
    """Wait until the GPU has done all that was asked of it.  RuntimeError where there is none."""
    cupy = backend.cupy()
    with cupy.cuda.Device(_index(device)):
        cupy.cuda.runtime.deviceSynchronize()


def memory_allocated() -> int:
    """Bytes that arrays hold on the current GPU; 0 where there is none."""
    return int(backend.cupy().get_default_memory_pool().used_bytes()) if is_available() else 0


def memory_reserved() -> int:
    """Bytes that CuPy's pool holds on the current GPU, in use or not; 0 where there is none."""
    return int(backend.cupy().get_default_memory_pool().total_bytes()) if is_available() else 0


def empty_cache() -> None:
    """Give memory that no array uses back to the driver."""
    if is_available():
        backend.cupy().get_default_memory_pool().free_all_blocks()


def manual_seed(seed: int) -> None:
    """Seed the GPU's generator; nothing happens where there is none."""
    if is_available():
        generator_for("cuda").manual_seed(seed)


manual_seed_all = manual_seed


def _index(device: Any) -> int:
    if device is None:
        return current_device()
    if isinstance(device, int):
        return device
    return backend.device(device).index or 0
