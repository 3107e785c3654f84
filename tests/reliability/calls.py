"""The calls by which a run changes its folder: counted, and at one of them something happens."""

import builtins
import io
import os
import signal
from pathlib import Path


class Raw(io.FileIO):
    """A file whose writes are watched, below the buffers of Python."""

    def __init__(self, calls, path, mode):
        super().__init__(path, mode)
        self.calls, self.path = calls, path

    def write(self, data):
        def part(size=None):
            return io.FileIO.write(self, memoryview(data)[:size])

        return self.calls.happens("write", self.path, part, lambda: part(-(-len(data) // 2)))


class Calls:
    """Inside the with-block: `made` grows by the kind and the file of every call for `folder`.

    act(do, half, path) takes the place of call number `at` (of every call, where that is None): do
    is the call, half its first half.
    """

    def __init__(self, folder, act=None, at=None):
        self.folder, self.act, self.at = os.path.realpath(folder), act, at
        self.made = []

    def happens(self, kind, path, do, half=None):
        self.made.append((kind, Path(path).name))
        if self.act is None or self.at not in (None, len(self.made) - 1):
            return do()
        return self.act(do, half or do, path)

    def ours(self, path):
        return isinstance(path, str | os.PathLike) and os.path.realpath(path).startswith(
            self.folder
        )

    def __enter__(self):
        self.before = [
            (module, name, getattr(module, name))
            for module, names in (
                (os, ("open", "fsync", "replace", "link", "unlink", "rename", "mkdir")),
                (builtins, ("open",)),
                (io, ("open",)),
            )
            for name in names
        ]
        plain_open, plain_fsync = builtins.open, os.fsync

        def watched_open(file, mode="r", *args, **options):
            if not self.ours(file):
                return plain_open(file, mode, *args, **options)

            def do():
                if "r" in mode:
                    return plain_open(file, mode, *args, **options)
                raw = Raw(self, os.fspath(file), mode.replace("b", ""))
                buffered = io.BufferedWriter(raw)
                return buffered if "b" in mode else io.TextIOWrapper(buffered, "utf-8")

            return self.happens("open", file, do)

        def watched_fsync(number):
            path = os.readlink(f"/proc/self/fd/{number}")
            if not self.ours(path):
                return plain_fsync(number)
            return self.happens("fsync", path, lambda: plain_fsync(number))

        def watched(kind, plain):
            def call(path, *args, **options):
                paths = [path, *(a for a in args if isinstance(a, str | os.PathLike))]
                if not self.ours(paths[-1]):
                    return plain(path, *args, **options)
                return self.happens(kind, paths[-1], lambda: plain(path, *args, **options))

            return call

        for module, name, plain in self.before:
            mine = watched(name, plain)
            if module is not os:
                mine = watched_open
            elif name == "fsync":
                mine = watched_fsync
            setattr(module, name, mine)
        return self

    def __exit__(self, *error):
        for module, name, plain in self.before:
            setattr(module, name, plain)


def fails(number):
    """An act: the call fails with this error of the system; of a write, half was written."""

    def act(do, half, path):
        if half is not do:
            half()
        raise OSError(number, os.strerror(number), path)

    return act


def short(do, half, path):
    """An act: a write takes half of what it is given, and says so."""
    return half()


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def dies(when):
    """An act: the process is killed before the call, after it, or where half is written."""

    def act(do, half, path):
        {"before": lambda: None, "after": do, "half": half}[when]()
        die()

    return act
