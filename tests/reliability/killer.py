"""Runs that are killed and started again: python -m tests.reliability.killer JOB FOLDER KILLS SEED

Everything is imported and compiled once, here; each run is a fork of this process, which has one
thread.  Prints where the kills fell, as JSON."""

import gc
import json
import mmap
import os
import random
import shutil
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

from tensorgrad.atomic import replacing
from tensorgrad.models.training import job
from tensorgrad.models.training.folder import RunFolder
from tensorgrad.models.training.run import Run
from tensorgrad.models.training.trainer import Trainer
from tensorgrad.serialization import load_tree
from tests.reliability.calls import Calls, dies
from tests.reliability.runs import data_of, endings, recorded, run, temporary

PHASES = ("start", "step", "save", "between", "end")


class Phase:
    """What a run is doing, where its parent can see it."""

    def __init__(self):
        self.memory = mmap.mmap(-1, 1)

    def __str__(self):
        return PHASES[self.memory[0]]

    def set(self, name):
        self.memory[0] = PHASES.index(name)

    def during(self, owner, method, name, then):
        plain = getattr(owner, method)

        def told(*args):
            self.set(name)
            answer = plain(*args)
            self.set(then)
            return answer

        setattr(owner, method, told)

    def watch(self):
        """In the child: note what it does."""
        self.during(Trainer, "take_step", "step", "between")
        self.during(RunFolder, "save", "save", "between")
        self.during(Run, "go", "start", "end")


class Killer:
    def __init__(self, word, folder, seed):
        self.word, self.folder = word, Path(folder)
        self.data = data_of(word, folder)
        self.draws = random.Random(seed)
        self.phase = Phase()
        self.where, self.kinds = Counter(), Counter()
        self.kills = self.finished = 0

    def forked(self, act):
        """A child that does this and ends; its number."""
        pid = os.fork()
        if pid:
            return pid
        with open(self.folder / "told.txt", "a") as told:
            os.dup2(told.fileno(), 1)
            os.dup2(told.fileno(), 2)
        status = 1
        try:
            act()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def undisturbed(self):
        """The run that the others are held against, its length, and how many calls it makes."""
        run(self.word, self.data, self.folder / "warm")  # kernels are compiled here
        for _ in range(200):  # the thread that read ahead ends
            gc.collect()
            threads = len(os.listdir("/proc/self/task"))
            if threads == 1:
                break
            time.sleep(0.05)
        assert threads == 1, f"{threads} threads, and a process with several cannot be forked"
        right, states = self.folder / "right", self.folder / "states"

        def act():
            with Calls(right) as calls:
                recorded(self.word, self.data, right, states)
            (self.folder / "calls").write_text(str(len(calls.made)))

        began = time.monotonic()
        assert os.waitpid(self.forked(act), 0)[1] == 0, (self.folder / "told.txt").read_text()
        self.seconds = time.monotonic() - began
        self.calls = int((self.folder / "calls").read_text())
        self.right = endings(right)
        self.lines = self.right["losses.jsonl"].splitlines(keepends=True)
        self.states = {int(path.name): path.read_bytes() for path in states.iterdir()}

    def one_life(self, out):
        """Start the run again and kill it, at a moment or at a call; whether it came to its end."""
        self.phase.set("start")
        at_call = self.draws.random() < 0.5
        call, when = self.draws.randrange(self.calls // 3), self.draws.choice(
            ("before", "after", "half")
        )
        moment = self.draws.uniform(0, 0.7 * self.seconds)

        def act():
            self.phase.watch()
            if at_call:
                with Calls(out, dies(when), call):
                    run(self.word, self.data, out, "auto")
            else:
                run(self.word, self.data, out, "auto")

        pid = self.forked(act)
        if not at_call:
            time.sleep(moment)
            os.kill(pid, 9)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status == 0:
            return True
        assert status == -9, (self.folder / "told.txt").read_text()[-3000:]
        self.kills += 1
        self.where[str(self.phase)] += 1
        self.kinds[f"{when} a call" if at_call else "a moment"] += 1
        return False

    def look(self, out, least):
        """Hold a folder that a dead run left against what can be; the step of its checkpoint."""
        losses, checkpoint = out / "losses.jsonl", out / "ckpt.safetensors"
        text = losses.read_bytes() if losses.exists() else b""
        lines = text[: text.rfind(b"\n") + 1].splitlines(keepends=True)
        assert lines == self.lines[: len(lines)], "losses that are not those of the run"
        if not checkpoint.exists():
            assert not text and least is None, "something noted, and no checkpoint"
            return None
        for path in out.glob("*.safetensors"):
            step = load_tree(path)["trainer"]["step"]
            assert path.read_bytes() == self.states[step], f"{path.name} of step {step} is another"
        step = load_tree(checkpoint)["trainer"]["step"]
        assert least is None or step >= least, f"from step {least} back to {step}"
        assert len(lines) >= step, "a checkpoint that is ahead of the losses"
        return step

    def go(self, kills):
        """So many kills; every run that reaches its end is compared with the undisturbed one."""
        out = self.folder / "out"
        least = None
        while True:
            done = self.kills >= kills
            if done:
                pid = self.forked(lambda: run(self.word, self.data, out, "auto"))
                status = os.waitpid(pid, 0)[1]
                assert status == 0, (self.folder / "told.txt").read_text()[-3000:]
            if done or self.one_life(out):
                assert endings(out) == self.right, "the end is another"
                assert not temporary(out) and not list(out.glob("earlier-*")), os.listdir(out)
                self.finished += 1
                shutil.rmtree(out)
                least = None
                if done:
                    return
            elif out.exists():
                least = self.look(out, least)


def sketch(history, marks, path, *names):
    with replacing(path) as file:
        file.write(b"a picture")


def main(word, folder, kills, seed):
    began = time.monotonic()
    killer = Killer(word, folder, int(seed))
    killer.undisturbed()
    plain = job.plot_losses  # the picture takes longer than the run: most make a quicker one
    job.plot_losses = lambda *args: (plain if killer.draws.random() < 0.2 else sketch)(*args)
    killer.go(int(kills))
    report = {
        "kills": killer.kills, "where": killer.where, "how": killer.kinds,
        "finished": killer.finished, "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
