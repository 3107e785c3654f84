"""Ctrl-C and SIGTERM: the first asks a run to stop after its step, the second ends it at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """A run was asked to stop, and has saved; `signal` is who asked."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """A list that receives the number of the signal when one arrives.

    A step is never torn, so what is saved afterwards is sound.  Only the main thread hears signals;
    elsewhere the list stays empty.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def hear(number: int, frame: Any) -> None:
        asked.append(number)
        restore()
        os.write(2, b"\nstopping after this step; once more to stop at once\n")

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    before = {number: signal.signal(number, hear) for number in SIGNALS}
    try:
        yield asked
    finally:
        restore()
