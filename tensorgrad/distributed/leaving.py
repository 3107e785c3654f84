"""The end of a rank.  One that leaves while another waits for it ends the job; MPI would hang.

Whatever ends a script, an exit status or a loop that is a step shorter, comes by here."""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np


class Attendance:
    """Counts the collective calls that this rank began, where the others can read the count.

    end(why) ends the job.
    """

    def __init__(self, mpi: Any, comm: Any, end: Callable[[str], Any]) -> None:
        self.comm = comm.Dup()  # its barrier is not one of the user's
        self.rank, self.size = comm.Get_rank(), comm.Get_size()
        self.window = mpi.Win.Allocate(8, 8, comm=self.comm)
        self.count = np.frombuffer(self.window.tomemory(), np.int64)
        self.count[0] = 0
        self.window.Lock_all()
        self.comm.Barrier()
        self.end, self.process = end, os.getpid()
        atexit.register(self.leave)

    def begin(self) -> None:
        """One more collective call."""
        self.count[0] += 1

    def begun_by(self, rank: int) -> int:
        found = np.zeros(1, np.int64)
        self.window.Get(found, rank)
        self.window.Flush(rank)
        return int(found[0])

    def leave(self) -> None:
        """Wait for all to leave, as MPI's own end would; end the job where that cannot be."""
        if os.getpid() != self.process:
            return  # a forked child is no rank
        everyone = self.comm.Ibarrier()
        pause = 0.01
        while not everyone.Test():
            for rank in range(self.size):
                if rank != self.rank and self.begun_by(rank) > self.count[0]:
                    self.end(
                        f"it came to its end while rank {rank} waits for it in a collective call; "
                        "all ranks must take the same steps"
                    )
            time.sleep(pause)
            pause = min(1.5 * pause, 1.0)
        self.close()

    def close(self) -> None:
        """Count no more."""
        atexit.unregister(self.leave)
        self.window.Unlock_all()
        self.window.Free()
        self.comm.Free()
