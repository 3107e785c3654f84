"""Arrays on disk: safetensors files with checksums, replaced whole or not at all, never pickled."""

from __future__ import annotations

import errno
import json
import os
import struct
from collections.abc import Mapping
from typing import Any
from zlib import crc32

import numpy as np

from tensorgrad.atomic import replacing
from tensorgrad.dtypes import bfloat16
from tensorgrad.packing import Array, Tree, flatten, unflatten

__all__ = [
    "CheckpointError",
    "flatten",
    "load_arrays",
    "load_tree",
    "save_arrays",
    "save_tree",
    "unflatten",
]

CODES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "uint16": "U16",
    "int16": "I16",
    "uint32": "U32",
    "int32": "I32",
    "uint64": "U64",
    "int64": "I64",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
    "complex64": "C64",
}
# The word stands in both keys and both values, so that no small damage hides that a file is ours.
HEADER_CRC, BODY_CRC, MARK = "crc32.header", "crc32.body", "crc32"
LARGEST_HEADER = 100_000_000  # bytes, by the format's definition


class CheckpointError(ValueError):
    """A file that is damaged or not what it should be; the sentence names it and says why."""


def save_tree(path: str | os.PathLike[str], tree: Tree) -> None:
    """Write a nested state of dicts, lists, tuples, numbers, strings and arrays (see `flatten`)."""
    arrays, rest = flatten(tree)
    save_arrays(path, arrays, {"tree": json.dumps(rest)})


def load_tree(path: str | os.PathLike[str]) -> Tree:
    """The state that `save_tree` wrote.  Raises CheckpointError as `load_arrays` does."""
    arrays, metadata, sealed = read_arrays(path)
    if "tree" not in metadata:
        raise CheckpointError(
            f"{os.fspath(path)!r} holds arrays and no nested state; load_arrays reads it"
        )
    if not sealed:
        raise CheckpointError(
            f"{os.fspath(path)!r} is damaged, or not by save_tree: it has no checksums"
        )
    try:
        return unflatten(arrays, json.loads(metadata["tree"]))
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{os.fspath(path)!r} has no sound tree: {error}") from error


def save_arrays(
    path: str | os.PathLike[str],
    arrays: Mapping[str, Array],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write named arrays and strings to a safetensors file; equal contents give equal bytes.

    The file is replaced whole: when anything fails, what was there is still there.  Takes arrays of
    any layout and byte order, 0-d and empty ones, ml_dtypes' bfloat16.  Raises TypeError for types
    that the format lacks (complex128, object, text) and OSError where it cannot write.

    The library safetensors reads and checks these files.  It does not write them: it saves wrong
    values for arrays that are not contiguous (its issue 825), orders metadata differently in every
    run, and when it is killed leaves temporary files that nobody can tell from others.
    """
    metadata = dict(metadata or {})
    tensors = {name: portable(name, array) for name, array in arrays.items()}
    check_words(tensors, metadata)
    metadata |= checksums(tensors, metadata)

    # Wide types first, so that each array begins at a multiple of its item's size.
    order = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
    entries: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    for name in order:
        array = tensors[name]
        begin, end = end, end + array.nbytes
        entries[name] = {
            "dtype": CODES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [begin, end],
        }
    header = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)
    if len(header) > LARGEST_HEADER:
        raise ValueError(
            f"save_arrays: the names and metadata take {len(header):,} bytes; the format allows "
            f"{LARGEST_HEADER:,}"
        )
    with replacing(path) as file:
        file.write(struct.pack("<Q", len(header)))
        file.write(header)
        for name in order:
            file.write(as_bytes(tensors[name]).data)


def portable(name: str, array: Any) -> Array:
    """The array as the format stores it: in C order, little-endian, of a type it knows."""
    if not isinstance(array, np.ndarray | np.generic):
        raise TypeError(
            f"save_arrays: {name!r} is a {type(array).__name__}, not an array; save_tree takes "
            "nested states"
        )
    if array.dtype.name not in CODES:
        hint = "; save its real and imaginary parts" if array.dtype.kind == "c" else ""
        raise TypeError(
            f"save_arrays: {name!r} has dtype {array.dtype}, and safetensors files hold "
            f"{', '.join(CODES)}{hint}"
        )
    little = array.dtype if array.dtype.isnative else array.dtype.newbyteorder("<")
    return np.asarray(array, little, order="C")


def check_words(tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
    for word in (*tensors, *metadata, *metadata.values()):
        if not isinstance(word, str):
            raise TypeError(f"save_arrays: names and metadata are strings, not {word!r}")
        try:
            word.encode()
        except UnicodeEncodeError:
            raise ValueError(f"save_arrays: {word!r} cannot be written in UTF-8") from None
    if "__metadata__" in tensors:
        raise ValueError("save_arrays: no array can be named '__metadata__', the format's own word")
    for key in (HEADER_CRC, BODY_CRC):
        if key in metadata:
            raise ValueError(f"save_arrays: the metadata key {key!r} is its own to write")


def as_bytes(array: Array) -> Array:
    """A C-ordered array's memory as uint8 (bfloat16 has no buffer of its own)."""
    return array.reshape(-1).view(np.uint8)


def checksums(tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> dict[str, str]:
    """CRC-32 of what the header means, and of all values in the order of their names.

    Neither asks for the file's layout, so both hold what is loaded against what was saved: values
    that moved to another name, type or shape are found, a header with other blanks is let through.
    """
    names = sorted(tensors)
    shapes = {name: [tensors[name].dtype.name, *tensors[name].shape] for name in names}
    header = json.dumps([shapes, dict(metadata)], sort_keys=True)
    body = 0
    for name in names:
        body = crc32(as_bytes(tensors[name]).data, body)
    return {HEADER_CRC: f"{MARK} {crc32(header.encode()):08x}", BODY_CRC: f"{MARK} {body:08x}"}


def load_arrays(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, str]]:
    """The arrays and the metadata of a safetensors file, checked; the arrays are new and writable.

    Files of `save_arrays` are held against their checksums; files without (Hugging Face's) are
    taken as they are.  Raises CheckpointError for a damaged or foreign file, FileNotFoundError and
    other OSErrors where it cannot be read.
    """
    arrays, metadata, _ = read_arrays(path)
    return arrays, metadata


def read_arrays(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, str], bool]:
    """What `load_arrays` gives, and whether the file had checksums, which it was held against."""
    from safetensors import SafetensorError, safe_open

    name = os.fspath(path)
    header = read_header(name)
    try:
        with safe_open(name, framework="np") as file:  # which finds all sizes and offsets sound
            check_header(name, header)
            metadata = dict(file.metadata() or {})
            tensors = {key: np.asarray(file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118
    except CheckpointError:
        raise
    except (SafetensorError, ValueError, OverflowError, RecursionError) as error:
        reason = str(error).removeprefix("Error while deserializing header: ")
        raise CheckpointError(f"{name!r} is no sound safetensors file: {brief(reason)}") from error
    except OSError as error:
        raise unreadable(name, error) from error
    for key, array in tensors.items():
        if array.dtype == np.bool_ and array.view(np.uint8).max(initial=0) > 1:
            raise CheckpointError(
                f"{name!r} is damaged: {brief(key)!r} has booleans other than 0 and 1"
            )
    sealed = any(MARK in word for item in metadata.items() for word in item)
    if sealed:
        compare_checksums(name, tensors, metadata)
    return tensors, metadata, sealed


def read_header(name: str) -> bytes:
    """The JSON at the start of the file, if the file can be read and is long enough for it."""
    try:
        with open(name, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if len(start) < 8 or length > size - 8:
                raise CheckpointError(
                    f"{name!r} is cut off, or no safetensors file: it has {size:,} bytes"
                    + (f", and its header alone would take {length:,}" if len(start) == 8 else "")
                )
            return file.read(length)
    except OSError as error:
        raise unreadable(name, error) from error


def check_header(name: str, header: bytes) -> None:
    """Refuse what the library lets through: a name given twice, a type that NumPy does not have."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise CheckpointError(f"{name!r} is damaged: its header says something twice")
        return dict(pairs)

    entries = json.loads(header, object_pairs_hook=once)
    entries.pop("__metadata__", None)
    for key, entry in entries.items():
        if entry["dtype"] == CODES["bfloat16"]:
            bfloat16()  # the library asks NumPy for it by name, which knows it from now on
        if entry["dtype"] not in CODES.values():
            raise CheckpointError(
                f"{name!r}: {brief(key)!r} has type {entry['dtype']}, and tensorgrad reads "
                f"{', '.join(CODES.values())}"
            )


def compare_checksums(name: str, tensors: Mapping[str, Array], metadata: dict[str, str]) -> None:
    """Take the checksums out of the metadata and hold them against what was read."""
    said = {key: metadata.pop(key, None) for key in (HEADER_CRC, BODY_CRC)}
    found = checksums(tensors, metadata)
    for key, part in ((HEADER_CRC, "names and shapes"), (BODY_CRC, "values")):
        if said[key] != found[key]:
            raise CheckpointError(
                f"{name!r} is damaged: its {part} have {found[key]}, where the file says "
                f"{brief(str(said[key]))}; use an earlier checkpoint"
            )


def brief(text: str, most: int = 200) -> str:
    """The text in one line, without its middle where it is long: damage may be anything."""
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 2 :]}"


def unreadable(name: str, error: OSError) -> OSError:
    reasons = {
        errno.ENOENT: "there is no such file",
        errno.EISDIR: "it is a folder",
        errno.EACCES: "this user may not read it",
    }
    reason = reasons.get(error.errno or 0, error.strerror or str(error))
    told = type(error)(f"cannot read {name!r}: {reason}")
    told.errno = error.errno
    return told
