"""Tokens of many tasks, in order: in this process, or in workers that are fed over pipes.

A worker is `python -c "from tensorgrad.data.workers import serve; serve()"`: it needs no guard in
the user's script, opens no socket, and ends when its pipe does, however the parent died.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
from array import array
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from tensorgrad.data.shards import Tokens
from tensorgrad.data.sources import Task, texts_of
from tensorgrad.data.tokens import BPE

PROGRAM = "from tensorgrad.data.workers import serve; serve()"
AHEAD = 4  # tasks for each worker that may be done before the one whose turn it is
REFUSALS = {kind.__name__: kind for kind in (ValueError, OSError, MemoryError)}


def tokens_of(task: Task, bpe: BPE, text_key: str) -> Tokens:
    """The ids of a task's documents, `eot` before each."""
    encode, eot = bpe.encode, bpe.eot
    ids = array("H")
    for begins, text in texts_of(task, text_key):
        if begins:
            ids.append(eot)
        ids.extend(encode(text))
    return np.frombuffer(ids, np.uint16) if ids else np.empty(0, np.uint16)


def tokenised(
    tasks: Iterable[tuple[Task, Any]], bpe: BPE, text_key: str, workers: int
) -> Generator[tuple[Tokens, Any], None, None]:
    """(ids, the companion that came with the task), in the tasks' order whatever `workers` is.

    Raises what a worker raised, as ValueError or OSError, and RuntimeError for one that died.
    """
    if workers <= 1:
        for task, companion in tasks:
            yield tokens_of(task, bpe, text_key), companion
        return
    team: list[Worker] = []
    try:
        for _ in range(workers):
            team.append(Worker())  # all start before the first is waited for
        for worker in team:
            worker.set_up(bpe, text_key)
        yield from in_order(tasks, team)
    finally:
        for worker in team:
            worker.close()


def in_order(tasks: Iterable[tuple[Task, Any]], team: list[Worker]) -> Iterator[tuple[Tokens, Any]]:
    """Each worker has one task at a time, so that neither side ever waits to be read."""
    rest = iter(tasks)
    idle, done = list(team), {}  # done: number of the task -> its tokens
    companions: dict[int, Any] = {}
    given = taken = 0
    with selectors.DefaultSelector() as waiting:
        while True:
            while idle and given - taken < AHEAD * len(team):
                try:
                    task, companions[given] = next(rest)
                except StopIteration:
                    rest = iter(())
                    break
                worker = idle.pop()
                worker.give(task)
                waiting.register(worker.pipe, selectors.EVENT_READ, (worker, given))
                given += 1
            ready = taken in done
            if not ready and not waiting.get_map():
                return
            for key, _ in waiting.select(0 if ready else None):
                worker, number = key.data
                waiting.unregister(worker.pipe)
                done[number] = worker.take()
                idle.append(worker)
            if taken in done:
                yield done.pop(taken), companions.pop(taken)
                taken += 1


class Worker:
    """One process that turns tasks into tokens."""

    def __init__(self) -> None:
        home = str(Path(__file__).absolute().parents[2])  # the folder that holds tensorgrad
        path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._in, self.pipe = self._process.stdin, self._process.stdout

    def set_up(self, bpe: BPE, text_key: str) -> None:
        self._send({"bpe": bpe.to_dict(), "text_key": text_key}, b"")

    def give(self, task: Task) -> None:
        lengths = [len(text) for text in task.texts]
        self._send({**task._asdict(), "texts": lengths}, b"".join(task.texts))

    def _send(self, header: dict[str, Any], body: bytes) -> None:
        try:
            send(self._in, header, body)
        except OSError:
            raise self._died() from None

    def take(self) -> Tokens:
        try:
            header, body = receive(self.pipe)
        except EOFError:
            raise self._died() from None
        if "error" in header:
            raise REFUSALS[header["error"]](header["message"])
        return np.frombuffer(body, np.uint16)

    def _died(self) -> RuntimeError:
        status = self._process.wait()
        return RuntimeError(
            f"a worker died (exit status {status}), perhaps for lack of memory; the same command "
            "again goes on where it stopped, with fewer --workers if need be"
        )

    def close(self) -> None:
        self._process.kill()
        for pipe in (self._in, self.pipe):
            with suppress(OSError):
                pipe.close()
        self._process.wait()


def serve() -> None:
    """A worker's life: the vocabulary, then task after task until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that prints may disturb the pipe
    setup, _ = receive(sys.stdin.buffer)
    bpe = BPE.from_dict(setup["bpe"])
    while True:
        try:
            header, body = receive(sys.stdin.buffer)
        except EOFError:
            return
        try:
            task = unpacked(header, body)
            send(out, {}, tokens_of(task, bpe, setup["text_key"]).tobytes())
        except BrokenPipeError:  # the parent is gone
            return
        except tuple(REFUSALS.values()) as error:
            kind = next(name for name, kind in REFUSALS.items() if isinstance(error, kind))
            send(out, {"error": kind, "message": str(error)}, b"")


def unpacked(header: dict[str, Any], body: bytes) -> Task:
    texts, at = [], 0
    for length in header["texts"]:
        texts.append(body[at : at + length])
        at += length
    return Task(**{**header, "texts": tuple(texts)})


def send(file: IO[bytes], header: dict[str, Any], body: bytes) -> None:
    words = json.dumps(header).encode()
    file.write(len(words).to_bytes(8, "little") + len(body).to_bytes(8, "little") + words)
    file.write(body)
    file.flush()


def receive(file: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    """The next message; EOFError where the other side is gone."""
    sizes = exactly(file, 16)
    words = exactly(file, int.from_bytes(sizes[:8], "little"))
    return json.loads(words), exactly(file, int.from_bytes(sizes[8:], "little"))


def exactly(file: IO[bytes], count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise EOFError
    return data
