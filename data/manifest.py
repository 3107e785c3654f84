"""manifest.json: what a folder of shards holds, and JSON files that carry their own checksum."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from zlib import crc32

from tensorgrad.atomic import replacing
from tensorgrad.data.shards import ShardError, ShardInfo
from tensorgrad.serialization import unreadable

Path_ = str | os.PathLike[str]


def write_json(path: Path_, content: dict[str, Any]) -> None:
    """The content and its CRC-32, whole or not at all."""
    data = json.dumps({**content, "crc32": checksum(content)}, indent=1)
    with replacing(path) as file:
        file.write(data.encode() + b"\n")


def read_json(path: Path_) -> dict[str, Any]:
    """What `write_json` wrote.  Raises ShardError for anything else, OSError if unreadable."""
    name = os.fspath(path)
    try:
        content = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise unreadable(name, error) from error
    except (ValueError, RecursionError) as error:
        raise ShardError(f"{name!r} is damaged: it is not JSON in UTF-8 ({error})") from None
    said = content.pop("crc32", None) if isinstance(content, dict) else None
    try:
        right = said is not None and said == checksum(content)
    except (ValueError, RecursionError):
        right = False
    if not right:
        raise ShardError(f"{name!r} is damaged, or changed by hand: its checksum does not fit it")
    return content  # type: ignore[no-any-return]


def checksum(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return f"{crc32(text.encode()):08x}"


def manifest_name(rank: int = 0, world_size: int = 1) -> str:
    """manifest.json; of one of several machines, manifest_00001_of_00004.json."""
    return "manifest.json" if world_size == 1 else f"manifest_{rank:05d}_of_{world_size:05d}.json"


def read_manifests(folder: Path_) -> dict[str, ShardInfo] | None:
    """File name -> count and checksum, from every manifest of a folder; None where there is none.

    Raises ShardError for a damaged manifest, or where one of several machines has not finished.
    """
    paths = sorted(Path(folder).glob("manifest*.json"))
    found: dict[str, ShardInfo] = {}
    ranks: set[int] = set()
    world_size = 1
    for path in paths:
        content = read_json(path)
        try:
            ranks.add(content["rank"])
            world_size = content["world_size"]
            for entry in content["shards"]:
                found[entry["file"]] = ShardInfo(entry["tokens"], entry["crc32"])
        except (KeyError, TypeError) as error:
            raise ShardError(f"{str(path)!r} is no manifest of shards: {error!r}") from None
    missing = sorted(set(range(world_size)) - ranks)
    if paths and missing:
        raise ShardError(
            f"{os.fspath(folder)!r} is not complete: `tensorgrad prepare --rank {missing[0]} "
            f"--world_size {world_size}` has not finished there"
        )
    return found if paths else None
