"""The memory of this process as Linux counts it: resident now, resident at most, and given back."""

import ctypes
import gc
from pathlib import Path

STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident() -> int:
    """VmRSS in bytes."""
    return status("VmRSS")


def resident_peak() -> int:
    """VmHWM in bytes: the largest VmRSS since the process began, or since it was last forgotten."""
    return status("VmHWM")


def forget_peak() -> None:
    try:
        CLEAR_REFS.write_text("5")
    except OSError as error:
        raise OSError(f"measuring peak memory must write {CLEAR_REFS} (Linux): {error}") from error


def status(field: str) -> int:
    try:
        lines = STATUS.read_text().splitlines()
    except OSError as error:
        raise OSError(f"measuring memory must read {STATUS} (Linux): {error}") from error
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


def trim() -> None:
    """Hands freed memory back to the system where the C library can, so RSS is what is held."""
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # glibc's; others keep little
        libc.malloc_trim(0)
