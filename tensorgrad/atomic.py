"""Files that are replaced whole or not at all, whenever the process or the machine dies."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` when the block ends, and only if it ends well.

    Written beside it as `.NAME.tmp-PID-...`, flushed to the disk, renamed, the folder flushed:
    after a crash at any moment `path` is the old file or the new one.  What killed processes left
    over is removed.  Raises OSError with a sentence.
    """
    target = Path(os.path.realpath(path))  # through a symbolic link, not in its place
    temporary = target.with_name(f".{target.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")
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
    flush_folder(target)
    sweep(target)


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
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise OSError(
                f"wrote {str(target)!r}, but its folder could not be flushed to the disk: {error}"
            ) from error
    finally:
        os.close(folder)


def sweep(target: Path) -> None:
    """Remove temporary files of this target that are older than it and whose process is gone."""
    prefix = f".{target.name}.tmp-"
    with suppress(OSError):
        newest = target.stat().st_mtime
        for path in target.parent.iterdir():
            if path.name.startswith(prefix) and path.stat().st_mtime <= newest:
                pid = path.name.removeprefix(prefix).split("-")[0]
                if pid.isdecimal() and not alive(int(pid)):
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
    temporary = target.with_name(f".{target.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")
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
