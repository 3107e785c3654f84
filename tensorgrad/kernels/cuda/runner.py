"""Who runs a kernel: CuPy, which compiles it with NVRTC at first use, where the arrays lie.

A Runner allocates, launches and tells addresses; the tests bring one that runs on the CPU."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from tensorgrad.backend import Array
from tensorgrad.dtypes import DType
from tensorgrad.kernels.cuda.geometry import Geometry

C_NAMES = {"float32": "float", "float64": "double", "bfloat16": "bf16", "float16": "f16"}
FOLDER = Path(__file__).parent
INCLUDE = '#include "common.cuh"\n'


@functools.cache
def source(file: str) -> str:
    """The text of a .cu file with common.cuh in place of the line that includes it."""
    common = (FOLDER / "common.cuh").read_text(encoding="utf-8").replace("#pragma once\n", "")
    text = (FOLDER / file).read_text(encoding="utf-8")
    before, _, after = text.partition(INCLUDE)
    line = before.count("\n") + 2
    return f'{before}#line 1 "common.cuh"\n{common}#line {line} "{file}"\n{after}'


class Runner(ABC):
    """Allocates arrays and launches kernels on one kind of array."""

    @abstractmethod
    def on(self, array: Array) -> AbstractContextManager[Any]:
        """The device of `array` made the current one."""

    @abstractmethod
    def empty(self, shape: tuple[int, ...], dtype: DType) -> Array:
        """A new C-contiguous array, its contents undefined."""

    @abstractmethod
    def address(self, array: Array) -> int:
        """Where the array lies in the device's memory."""

    @abstractmethod
    def run(self, file: str, kernel: str, geometry: Geometry, args: tuple[Any, ...]) -> None:
        """Launch one instance of a template, such as "gelu_forward_1<float, Erf>"."""

    def launch(self, file: str, kernel: str, geometry: Geometry, *args: Any) -> None:
        """Arguments are arrays, None for a null pointer, int for i64 and float for double."""
        if 0 not in geometry.grid:
            self.run(file, kernel, geometry, args)

    def is_ready(self, array: Array) -> bool:
        """C-contiguous, at an address that 16 divides."""
        return bool(array.flags.c_contiguous) and self.address(array) % 16 == 0

    def ready(self, array: Array) -> Array:
        """The array as kernels take it: itself, or a copy."""
        return array if self.is_ready(array) else array.copy(order="C")


class CupyRunner(Runner):
    """Launches on CuPy's current stream; compiled kernels stay in memory and in CuPy's cache."""

    def on(self, array: Array) -> AbstractContextManager[Any]:
        context: AbstractContextManager[Any] = array.device
        return context

    def empty(self, shape: tuple[int, ...], dtype: DType) -> Array:
        import cupy

        return cupy.empty(shape, dtype)

    def address(self, array: Array) -> int:
        return int(array.data.ptr)

    def run(self, file: str, kernel: str, geometry: Geometry, args: tuple[Any, ...]) -> None:
        import cupy

        function = compiled(file, kernel, cupy.cuda.runtime.getDevice())
        args = tuple(0 if a is None else a for a in args)  # eight bytes of zeros: a null pointer
        function(geometry.grid, geometry.block, args, shared_mem=geometry.shared)


@functools.cache
def compiled(file: str, kernel: str, device: int) -> Any:
    """The kernel as machine code for the current device, whose number is `device`."""
    import cupy

    options = ("-std=c++17",)
    module = cupy.RawModule(code=source(file), options=options, name_expressions=(kernel,))
    return module.get_function(kernel)


RUNNERS: dict[type, Runner] = {}  # by the exact type of the arrays


def runner_for(array: Array) -> Runner | None:
    """Who runs kernels on arrays of this type; None where nobody does."""
    kind = type(array)
    if kind not in RUNNERS and kind.__module__.partition(".")[0] == "cupy":
        RUNNERS[kind] = CupyRunner()
    return RUNNERS.get(kind)
