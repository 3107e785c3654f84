"""Files that are replaced whole or not at all, whenever the process or the machine dies."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

TEMPORARY = re.compile(r"\.(?P<name>.+)\.tmp-(?P<pid>\d+)-[0-9a-f]+", re.DOTALL)
WRITING: set[str] = set()
"""Names of this process's temporary files; another that bears its number is a dead process's."""


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` when the block ends, and only if it ends well.

    Written beside it as `.NAME.tmp-PID-...`, flushed to the disk, renamed, the folder flushed:
    after a crash at any moment `path` is the old file or the new one.  What killed processes left
    over is removed.  Raises OSError with a sentence.
    """
    target = Path(os.path.realpath(path))  # through a symbolic link, not in its place
    temporary = beside(target)
    WRITING.add(temporary.name)
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise explained(error, target) from error
        raise
    finally:
        WRITING.discard(temporary.name)
    flush_folder(target)
    sweep(target)


def beside(target: Path) -> Path:
    """A name that is nobody's, in the same folder."""
    return target.with_name(f".{target.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")


def explained(error: OSError, target: Path) -> OSError:
    """The same error, of the same class and number, with what to do about it."""
    if not target.parent.is_dir():
        reason = f"there is no folder {str(target.parent)!r}; make it first"
    elif error.errno == errno.ENOSPC:
        reason = "no space is left on the disk; make room or choose another folder"
    elif error.errno == errno.EACCES:
        reason = f"this user may not write in {str(target.parent)!r}"
    else:
        reason = (error.strerror or str(error)).lower()
    before = "the file that was there is unchanged" if target.is_file() else "nothing was written"
    told = type(error)(f"cannot write {str(target)!r}: {reason} ({before})")
    told.errno = error.errno
    return told


def flush_folder(target: Path) -> None:
    """Make the rename last; some network and user-space file systems have no such thing."""
    try:
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            told = type(error)(
                f"wrote {str(target)!r}, but its folder could not be flushed to the disk: "
                f"{(error.strerror or str(error)).lower()}"
            )
            told.errno = error.errno
            raise told from error


def sweep(target: Path, belongs: Callable[[str], bool] | None = None) -> None:
    """Remove temporary files that are older than the target and whose process is gone.

    Those of the target, or of the files of its folder whose names belong.
    """
    belongs = belongs or (lambda name: name == target.name)
    with suppress(OSError):
        newest = target.stat().st_mtime
        for path in target.parent.iterdir():
            match = TEMPORARY.fullmatch(path.name)
            if match and belongs(match["name"]) and path.stat().st_mtime <= newest:
                pid = int(match["pid"])
                if path.name not in WRITING if pid == os.getpid() else not alive(pid):
                    path.unlink()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # another user's, but it lives
    return True


def replacing_by_link(source: Path, target: Path) -> None:
    """Let `target` be another name of the file `source`, in one step; a copy where links are not.

    Raises OSError with a sentence.
    """
    source, target = Path(os.path.realpath(source)), Path(os.path.realpath(target))
    temporary = beside(target)
    try:
        os.link(source, temporary)
    except OSError:  # a file system without hard links
        with replacing(target) as file, open(source, "rb") as content:
            shutil.copyfileobj(content, file)
        return
    try:
        os.replace(temporary, target)
    except OSError as error:
        raise explained(error, target) from error
    finally:  # a rename of one file onto itself does nothing, and leaves both names
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    flush_folder(target)
    sweep(target)
