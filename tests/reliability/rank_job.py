"""`tensorgrad train`, alone or a rank of several, to which something happens.

ACT RANK STEP OPTIONS...: before that step of that rank, or in all steps of all."""

import errno
import os
import signal
import sys
import time

from tensorgrad import distributed as dist
from tensorgrad.__main__ import main
from tensorgrad.models.training.folder import RunFolder
from tensorgrad.models.training.trainer import Trainer
from tests.reliability.calls import Calls, fails


def happens(act):
    if act == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif act == "raises":
        raise RuntimeError("the shard of this rank is gone")
    elif act == "bug":
        raise TypeError("a mistake")
    elif act == "twice":
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    elif act == "stuck":
        print("a long step", flush=True)
        time.sleep(999)
    elif act in ("SIGTERM", "SIGINT"):
        signal.raise_signal(getattr(signal, act))


def watched(act, rank, number):
    """Let it happen to this rank in that step; `full`: in the saving after it."""
    take_step, save = Trainer.take_step, RunFolder.save

    def step(trainer):
        if act == "slow":
            time.sleep(0.05)
        if dist.get_rank() == rank and trainer.step + 1 == number:
            happens(act)
        return take_step(trainer)

    def saved(folder, state, *args):
        if act == "full" and state["trainer"]["step"] >= number:
            with Calls(folder.path, fails(errno.ENOSPC), 6):
                save(folder, state, *args)
        else:
            save(folder, state, *args)

    Trainer.take_step, RunFolder.save = step, saved


if __name__ == "__main__":
    act, rank, number, *words = sys.argv[1:]
    watched(act, int(rank), int(number))
    sys.exit(main(["train", *words]))
