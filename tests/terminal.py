"""A command on a terminal: what it shows there."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest


def on_a_terminal(
    command: Sequence[object], cwd: Path | None = None
) -> tuple[subprocess.CompletedProcess[str], str]:
    """The command run with stdin and stderr on a terminal, stdout piped; and what that showed."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs,
        text=True,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
    return done, shown.decode()
