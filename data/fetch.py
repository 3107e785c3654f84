"""Files from the network, with a progress bar, kept only if size and SHA-256 are right."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError
from urllib.request import urlopen

from tensorgrad.atomic import replacing


class Source(NamedTuple):
    """A file of the network as it must arrive; `size` in bytes."""

    url: str
    size: int
    sha256: str


def fetch(source: Source, path: str | os.PathLike[str], timeout: float = 30) -> Path:
    """The file at `path`, downloaded if it is not there, and in either case checked.

    ConnectionError, with how to fetch it elsewhere, where the network does not answer; ValueError
    for a file that is another one.  A download is written beside `path` and renamed: `path` is
    never half of it, and a file that is there is never overwritten.
    """
    target = Path(path)
    if target.exists():
        check(source, target.read_bytes(), str(target), "move it away to download it anew")
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    data = download(source, timeout)
    check(source, data, source.url, "nothing was written")
    with replacing(target) as file:
        file.write(data)
    return target


def download(source: Source, timeout: float) -> bytes:
    from tqdm import tqdm

    data = bytearray()
    name = source.url.rpartition("/")[2]
    try:
        with (
            urlopen(source.url, timeout=timeout) as answer,
            tqdm(total=source.size, unit="B", unit_scale=True, desc=name, leave=False) as bar,
        ):
            while len(data) <= source.size and (part := answer.read(1 << 16)):
                data += part
                bar.update(len(part))
    except (URLError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise ConnectionError(
            f"cannot download {source.url}: {str(reason).lower()}; fetch it where there is a "
            f"network, as in `curl -o {name} {source.url}`, and name it with --data {name}"
        ) from error
    return bytes(data)


def check(source: Source, data: bytes, name: str, advice: str) -> None:
    """ValueError unless the data is the source's."""
    if len(data) != source.size:
        raise ValueError(
            f"{name!r} has {len(data):,} bytes where {source.size:,} are expected; {advice}"
        )
    if (found := sha256(data).hexdigest()) != source.sha256:
        raise ValueError(
            f"{name!r} has the SHA-256 {found[:16]}... where {source.sha256[:16]}... is expected; "
            f"{advice}"
        )


def cache_folder() -> Path:
    """Where downloads are kept: $XDG_CACHE_HOME/tensorgrad, by default ~/.cache/tensorgrad."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tensorgrad"
