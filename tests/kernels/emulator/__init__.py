"""CUDA kernels on a CPU, for tests: g++ compiles them, with cuda_emu.h for the device language.

A Runner like CuPy's, but suspicious, lets the launcher's own code call them on NumPy arrays."""

import ctypes
import hashlib
import itertools
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from tensorgrad.kernels.cuda.geometry import Geometry
from tensorgrad.kernels.cuda.runner import C_NAMES, FOLDER, Runner

Array = np.ndarray[Any, Any]

HEADER = Path(__file__).with_name("cuda_emu.h")
COMPILE = ("g++", "-std=c++17", "-O1", "-w", "-U_FORTIFY_SOURCE", "-fPIC", "-shared", f"-I{FOLDER}")
TEMPLATE = re.compile(r"template <([^>]*)>\s*__global__ void (\w+)\(")
CHOICES = {  # what each template parameter stands for
    "T": tuple(C_NAMES.values()),
    "Form": ("Erf", "Tanh"),
    "Kind": ("Softmax", "LogSoftmax"),
}
KINDS = {int: "int64", float: "float64", type(None): "None"}
SCALARS = {"int64": ctypes.c_int64, "float64": ctypes.c_double}
POISON = 0xFF  # a byte: NaN in every float type, -1 in integers
WATCHED = 0xA5  # a byte that no arithmetic on POISON makes
GUARD = 256  # bytes


class EmulatorError(Exception):
    """What a GPU leaves undefined: a divergent barrier, a write out of bounds, a wrong type."""


def why_not() -> str | None:
    """The reason why nothing can be emulated here, or None."""
    return None if shutil.which("g++") else "needs g++ to compile the kernels for the CPU"


def sources() -> list[Path]:
    """All kernel files."""
    return sorted(FOLDER.glob("*.cu"))


def instances(file: Path) -> list[str]:
    """Every kernel of a file with every choice of its parameters: softmax_1<float, Softmax>, ..."""
    found = []
    for parameters, name in TEMPLATE.findall(file.read_text(encoding="utf-8")):
        choices = [CHOICES[parameter.split()[-1]] for parameter in parameters.split(",")]
        found += [f"{name}<{', '.join(chosen)}>" for chosen in itertools.product(*choices)]
    return found


def driver(files: list[Path]) -> str:
    """The files, and C functions run_0, signature_0, run_1, ... for all of their instances."""
    types = {"i64": "int64", "double": "float64"}
    for c, dtype in [*((c, dtype) for dtype, c in C_NAMES.items()), ("i64", "int64")]:
        types |= {f"{c}*": f"{dtype}*", f"const {c}*": f"const {dtype}*"}
    lines = [*(f'#include "{file}"' for file in (HEADER, *files)), "namespace emulator {"]
    for c, name in types.items():
        lines.append(f'template <> const char* name_of_type<{c}>() {{ return "{name},"; }}')
    for number, kernel in enumerate(itertools.chain(*map(instances, files))):
        lines += [
            f'extern "C" const char* signature_{number}() {{',
            f"    return Kernel<&{kernel}>::signature();",
            "}",
            f'extern "C" const char* run_{number}(const Launch* launch, void** args) {{',
            f"    return run(Kernel<&{kernel}>::call, *launch, args);",
            "}",
        ]
    return "\n".join([*lines, "}", ""])


class Launch(ctypes.Structure):
    """emulator::Launch."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_uint64),
        ("seed", ctypes.c_uint64),
    )


def compiled(files: list[Path], folder: Path) -> ctypes.CDLL:
    """The files as one shared library in `folder`, compiled if it is not there yet."""
    code = driver(files)
    read = [path.read_text(encoding="utf-8") for path in (HEADER, *FOLDER.glob("*.cuh"), *files)]
    key = hashlib.sha256("\n".join([*COMPILE, code, *read]).encode()).hexdigest()[:16]
    library = folder / f"{key}.so"
    if not library.exists():
        unit, partial = library.with_suffix(".cpp"), library.with_suffix(".partial")
        unit.write_text(code, encoding="utf-8")
        command = [*COMPILE, "-o", str(partial), str(unit)]
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        if built.returncode:
            raise EmulatorError(f"g++ refuses the kernels:\n{built.stderr}")
        partial.replace(library)  # whole or not at all
    return ctypes.CDLL(str(library))


def poisoned(size: int, poison: int = POISON) -> Array:
    """So many bytes of poison, at an address that 64 divides."""
    block = np.full(size + 64, poison, np.uint8)
    start = -block.ctypes.data % 64
    return block[start : start + size]


class Guarded:
    """A copy of an array between two guards: POISON for who reads them, WATCHED for who writes."""

    def __init__(self, array: Array, guard: int) -> None:
        self.array, self.guard = array, guard
        self.bytes = poisoned(GUARD + array.nbytes + GUARD, guard)
        self.inside = self.bytes[GUARD : GUARD + array.nbytes]
        self.inside[:] = array.reshape(-1).view(np.uint8)
        self.pointer = ctypes.c_void_p(self.inside.ctypes.data)

    def check(self) -> None:
        if (self.bytes[:GUARD] != self.guard).any() or (self.bytes[-GUARD:] != self.guard).any():
            raise EmulatorError("a write outside of an array")

    def copy_back(self) -> None:
        self.array.reshape(-1).view(np.uint8)[:] = self.inside


class Kernels:
    """The kernels of some files; `launch` refuses arguments of types that are not the kernel's."""

    def __init__(self, files: list[Path], folder: Path) -> None:
        names = itertools.chain(*map(instances, files))
        self.numbers = {kernel: number for number, kernel in enumerate(names)}
        self.library = compiled(files, folder)

    def function(self, kind: str, kernel: str) -> Callable[..., bytes]:
        function = self.library[f"{kind}_{self.numbers[kernel]}"]
        function.restype = ctypes.c_char_p
        return function

    def launch(self, kernel: str, geometry: Geometry, args: tuple[Any, ...], seed: int = 0) -> None:
        parameters = self.function("signature", kernel)().decode().split(",")[:-1]
        if len(args) != len(parameters):
            raise EmulatorError(f"{kernel}: {len(args)} arguments, not {len(parameters)}")
        values: list[Any] = []
        arrays: list[Guarded] = []
        for number, (arg, parameter) in enumerate(zip(args, parameters, strict=True)):
            kind = KINDS.get(type(arg)) or f"{arg.dtype}*"
            if arg is None and parameter.endswith("*"):
                values.append(ctypes.c_void_p(0))
            elif kind != parameter.removeprefix("const "):
                raise EmulatorError(f"{kernel}: argument {number} is {kind}, not {parameter}")
            elif kind in SCALARS:
                values.append(SCALARS[kind](arg))
            elif not arg.flags.c_contiguous or arg.ctypes.data % 16:
                raise EmulatorError(f"{kernel}: argument {number} is not contiguous or not aligned")
            else:
                arrays.append(Guarded(arg, POISON if parameter.startswith("const ") else WATCHED))
                values.append(arrays[-1].pointer)
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(v) for v in values))
        how = Launch(geometry.grid, geometry.block, geometry.shared, seed)
        error = self.function("run", kernel)(ctypes.byref(how), pointers)
        if error:
            raise EmulatorError(f"{kernel}: {error.decode()}")
        for guarded in arrays:
            guarded.check()
            if guarded.guard == WATCHED:
                guarded.copy_back()


class EmulatedRunner(Runner):
    """Runs kernels on NumPy arrays; a `seed` other than 0 shuffles the order of the threads."""

    def __init__(self, folder: Path) -> None:
        self.kernels = Kernels(sources(), folder)
        self.seed = 0

    def on(self, array: Any) -> AbstractContextManager[Any]:
        return nullcontext()

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        return poisoned(math.prod(shape) * dtype.itemsize).view(dtype).reshape(shape)

    def address(self, array: Array) -> int:
        return array.ctypes.data

    def run(self, file: str, kernel: str, geometry: Geometry, args: tuple[Any, ...]) -> None:
        self.kernels.launch(kernel, geometry, args, self.seed)
