"""What happens to files: seeded damage to bytes, JSON, safetensors' headers and int32 headers.

Each maker takes the bytes of a sound file and a generator, and returns the bytes of a damaged one.
"""

import json
import random
import struct
from collections.abc import Callable
from typing import Any

Maker = Callable[[bytes, random.Random], bytes]

HUGE = (0, 1, 7, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1)


# ---- bytes


def flip(raw: bytes, rng: random.Random) -> bytes:
    data = bytearray(raw)
    for _ in range(rng.choice([1, 1, 1, 2, 9])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def flip_early(raw: bytes, rng: random.Random) -> bytes:
    """In the first 64 bytes, where magic, version and lengths are."""
    data = bytearray(raw)
    data[rng.randrange(min(64, len(data)))] ^= 1 << rng.randrange(8)
    return bytes(data)


def other_bytes(raw: bytes, rng: random.Random) -> bytes:
    data = bytearray(raw)
    for _ in range(rng.choice([1, 1, 2, 5])):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def letters(raw: bytes, rng: random.Random) -> bytes:
    """A digit, letter or mark in the place of another, so that text stays text."""
    data = bytearray(raw)
    places = [i for i, byte in enumerate(raw[:4000]) if 32 < byte < 127]
    for i in rng.sample(places, min(len(places), rng.choice([1, 1, 2]))):
        data[i] = rng.choice(b'0123456789ABFIUhinx_-+.,:"{}[]')
    return bytes(data)


def exchanged(raw: bytes, rng: random.Random) -> bytes:
    """Two bytes, or two blocks, change places."""
    size = rng.choice([1, 1, 2, 8, 60])
    if len(raw) <= 2 * size:
        return raw[::-1]
    a = rng.randrange(len(raw) - 2 * size)
    b = rng.randrange(a + size, len(raw) - size)
    return raw[:a] + raw[b : b + size] + raw[a + size : b] + raw[a : a + size] + raw[b + size :]


def cut(raw: bytes, rng: random.Random) -> bytes:
    return raw[: rng.choice([rng.randrange(len(raw)), len(raw) - rng.randrange(1, 9)])]


def beheaded(raw: bytes, rng: random.Random) -> bytes:
    return raw[rng.randrange(1, len(raw)) :]


def spliced(raw: bytes, rng: random.Random) -> bytes:
    """A piece is written over another."""
    data, size = bytearray(raw), rng.randrange(1, min(64, len(raw) // 2))
    start, to = (rng.randrange(len(data) - size) for _ in range(2))
    data[to : to + size] = data[start : start + size]
    return bytes(data)


def lost(raw: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(raw))
    return raw[:start] + raw[start + rng.choice([1, 2, 4, rng.randrange(1, 300)]) :]


def doubled(raw: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(raw))
    end = start + rng.choice([1, 2, 4, rng.randrange(1, 300)])
    return raw[:end] + raw[start:end] + raw[end:]


def blanked(raw: bytes, rng: random.Random) -> bytes:
    """A block of one byte, as after a crash of the machine."""
    start = rng.randrange(len(raw))
    block = raw[start : start + rng.choice([1, 4, 16, 64, 512, 4096])]
    byte = rng.choice([b"\0", b"\0", b"\xff", b" "])
    return raw[:start] + byte * len(block) + raw[start + len(block) :]


def longer(raw: bytes, rng: random.Random) -> bytes:
    more = rng.choice([b"\0", b"\n", b" ", b"}", rng.randbytes(2), bytes(4096), raw])
    return rng.choice([raw + more, raw + more, more + raw])


def inserted(raw: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(raw))
    return raw[:at] + rng.randbytes(rng.randrange(1, 30)) + raw[at:]


def transcoded(raw: bytes, rng: random.Random) -> bytes:
    """What well-meant programs do to files: line ends, seven bits, another encoding, a mark."""
    return rng.choice(
        [
            raw.replace(b"\n", b"\r\n"),
            bytes(byte & 0x7F for byte in raw),
            raw.decode("latin-1").encode("utf-8"),
            raw.decode("latin-1").encode("utf-16"),
            b"\xef\xbb\xbf" + raw,
            raw.upper(),
            raw.strip(),
        ]
    )


def nothing(raw: bytes, rng: random.Random) -> bytes:
    return rng.choice([b"", b"", b"\0" * len(raw), b"\n", b"null", rng.randbytes(len(raw))])


def huge_length(raw: bytes, rng: random.Random) -> bytes:
    """The first eight bytes, which are a length in safetensors."""
    near = int.from_bytes(raw[:8], "little") + rng.choice([-8, -1, 1, 8])
    return struct.pack("<Q", rng.choice([*HUGE, near, len(raw) - 8, len(raw)]) % 2**64) + raw[8:]


BYTES: tuple[Maker, ...] = (
    flip, flip, flip, flip_early, other_bytes, letters, letters, exchanged, cut, cut, beheaded,
    spliced, spliced, lost, doubled, blanked, longer, inserted, transcoded, nothing, huge_length,
)  # fmt: skip


# ---- int32 headers, of shards and of llm.c's models


def int_changed(raw: bytes, rng: random.Random) -> bytes:
    """One of the header's 256 numbers is another, mostly one of those that mean something."""
    at = rng.choice([*range(9), rng.randrange(256)])
    old = struct.unpack_from("<i", raw, 4 * at)[0]
    values = [0, 1, -1, 2, 3, 5, 2**31 - 1, -(2**31), old + 1, old - 1, old * 2, old // 2, old ^ 9]
    new = rng.choice([v for v in values if v != old]) & 0xFFFFFFFF
    return raw[: 4 * at] + struct.pack("<I", new) + raw[4 * at + 4 :]


def ints_exchanged(raw: bytes, rng: random.Random) -> bytes:
    header = list(struct.unpack_from("<9i", raw))
    a, b = rng.sample(range(9), 2)
    header[a], header[b] = header[b], header[a]
    return struct.pack("<9i", *header) + raw[36:]


def big_endian(raw: bytes, rng: random.Random) -> bytes:
    return struct.pack(">256i", *struct.unpack_from("<256i", raw)) + raw[1024:]


INTS: tuple[Maker, ...] = (int_changed, int_changed, int_changed, ints_exchanged, big_endian)


# ---- JSON


class Raw(str):
    """Text that goes into the JSON as it is."""


class Table(list):  # type: ignore[type-arg]
    """The pairs of a JSON object, which may repeat a name."""


DEEP = 20_000
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 0.5, -0.5, 1e308, 2**31, 2**53 + 1, 2**63, 2**64, 10**30,
    10**400, "", "x", "0", "gpt2", "\ud800", "\0", "a\nb", "x" * 5000, [], [1], ["x"], [[]],
    Table(), Table([["a", 1]]), Raw("NaN"), Raw("Infinity"), Raw("-Infinity"), Raw("1e999"),
    Raw("-0"), Raw("1" * 5000), Raw("[" * DEEP + "]" * DEEP), Raw("[" * DEEP),
    Raw('{"a":' * DEEP + "1" + "}" * DEEP), Raw("undefined"), Raw("01"), Raw("'x'"), Raw(""),
)  # fmt: skip


def parsed(text: str | bytes) -> Any:
    return json.loads(text, object_pairs_hook=lambda pairs: Table([k, v] for k, v in pairs))


def dumped(node: Any) -> str:
    if isinstance(node, Raw):
        return str(node)
    if isinstance(node, Table):
        return "{" + ", ".join(f"{json.dumps(k)}: {dumped(v)}" for k, v in node) + "}"
    if isinstance(node, list):
        return "[" + ", ".join(map(dumped, node)) + "]"
    return json.dumps(node)


def places(node: Any) -> list[tuple[list[Any], int]]:
    """Every value inside, as the list that holds it and its index there."""
    found: list[tuple[list[Any], int]] = []
    if isinstance(node, Table):
        for pair in node:
            found += [(pair, 1), *places(pair[1])]
    elif isinstance(node, list):
        for i, part in enumerate(node):
            found += [(node, i), *places(part)]
    return found


def tables(node: Any) -> list[Table]:
    own = [node] if isinstance(node, Table) and node else []
    inner = [pair[1] for pair in node] if isinstance(node, Table) else node
    return own + [t for part in inner for t in tables(part)] if isinstance(node, list) else own


def another(value: Any, rng: random.Random) -> Any:
    """A value of the same kind, so that the JSON stays what its reader expects."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + rng.choice([-value, 1, -1, 10, value, 2**31, 10**12])
    if isinstance(value, float):
        return value * rng.choice([0.0, -1.0, 1.5, 1e300])
    if isinstance(value, str) and value:
        i = rng.randrange(len(value))
        return value[:i] + rng.choice(["", "x", value[i] * 2, "0"]) + value[i + 1 :]
    if isinstance(value, Table) and value:
        return Table(value[1:])
    return value[::-1] if isinstance(value, list) and value else 1


def edit(tree: Any, rng: random.Random) -> Any:
    """One change of a tree, in place or as a new one."""
    home, at = rng.choice(places(tree) or [([tree], 0)])
    table = rng.choice(tables(tree) or [Table([["a", 1]])])
    pair = rng.choice(table)
    match rng.randrange(9):
        case 0:
            home[at] = rng.choice(VALUES)
        case 1 | 2:
            home[at] = another(home[at], rng)
        case 3:
            table.remove(pair)
        case 4:  # a name twice, with the same value or another
            twin = [pair[0], rng.choice([pair[1], another(pair[1], rng), rng.choice(VALUES)])]
            table.insert(rng.randrange(len(table) + 1), twin)
        case 5:
            pair[0] = another(pair[0], rng)
        case 6:  # two values, or names, change places
            other, i = rng.choice(table), rng.randrange(2)
            pair[i], other[i] = other[i], pair[i]
        case 7:
            table.insert(0, [rng.choice(["", "__metadata__", "$array", "new", "x" * 3000]),
                             rng.choice(VALUES)])  # fmt: skip
        case 8:
            tree = rng.choice([[tree], Table([["a", tree]]), rng.choice(VALUES), pair[1]])
    return tree


def json_edited(raw: bytes, rng: random.Random) -> bytes:
    return dumped(edit(parsed(raw), rng)).encode("utf-8", "surrogatepass")


JSONS: tuple[Maker, ...] = (json_edited,)


# ---- safetensors


def parts(raw: bytes) -> tuple[Table, bytes]:
    """The header's table and the bytes behind it."""
    length = 8 + int.from_bytes(raw[:8], "little")
    return parsed(raw[8:length]), raw[length:]


def joined(header: Any, body: bytes, rng: random.Random) -> bytes:
    text = dumped(header).encode("utf-8", "surrogatepass") + b" " * rng.choice([0, 0, 1, 8])
    return struct.pack("<Q", len(text)) + text + body


def header_edited(raw: bytes, rng: random.Random) -> bytes:
    header, body = parts(raw)
    return joined(edit(header, rng), body, rng)


TYPES = (
    "BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "F16", "BF16", "F32", "F64",
    "C64", "F8_E4M3", "F4", "f32", "F31",
)  # fmt: skip


def entry_edited(raw: bytes, rng: random.Random) -> bytes:
    """The type, shape or place of a tensor is another, or exchanged with that of a second one."""
    header, body = parts(raw)
    entries = [dict(pair[1]) for pair in header if pair[0] != "__metadata__"]
    a, b = rng.sample(entries, 2)
    begin, end = a["data_offsets"]
    match rng.randrange(9):
        case 0:
            a["dtype"] = rng.choice(TYPES)
        case 1:
            a["shape"] = rng.choice(
                [a["shape"][::-1], [*a["shape"], 1], [1, *a["shape"]], [], [0], [-1], [2**63, 2],
                 [2**62, 4], [2**32, 2**32], [1] * 99, [end - begin], [(end - begin) // 4],
                 [2**62, 0], [2.0], ["2"], b["shape"]]
            )  # fmt: skip
        case 2:  # overlaps, holes, backwards, out of the file
            d = rng.choice([-4, 4, 1, -1, 1000])
            a["data_offsets"] = rng.choice(
                [[begin + d, end + d], [begin, end + d], [begin + d, end], [end, begin], [0, 0],
                 [begin, 2**63], [2**63 - 4, 2**63], [-4, end], [begin], [begin, end, end],
                 [float(begin), end], [0, len(body)], b["data_offsets"]]
            )  # fmt: skip
        case 3:
            a["data_offsets"], b["data_offsets"] = b["data_offsets"], a["data_offsets"]
        case 4:
            a["shape"], b["shape"] = b["shape"], a["shape"]
        case 5:
            for key in rng.sample(sorted(a), rng.randrange(1, 4)):
                a[key], b[key] = b[key], a[key]
        case 6:
            del a[rng.choice(sorted(a))]
        case 7:  # wider items, fewer of them
            size, shape = end - begin, a["shape"]
            a["dtype"], a["shape"] = rng.choice(
                [("F64", [size // 8]), ("U8", [size]), ("BF16", [size // 2]), ("I32", shape),
                 ("F16", [*shape, 2])]
            )  # fmt: skip
        case 8:  # all that is told, but for the metadata
            header[:] = [pair for pair in header if pair[0] != "__metadata__"]
            return joined(header, body, rng)
    told = iter(entries)
    for pair in header:
        if pair[0] != "__metadata__":
            pair[1] = Table([k, v] for k, v in next(told).items())
    return joined(header, body, rng)


def arrays_exchanged(raw: bytes, rng: random.Random) -> bytes:
    """Two arrays of one size change places, in the bytes or by their names."""
    header, body = parts(raw)
    entries = [pair for pair in header if pair[0] != "__metadata__"]
    first = rng.choice(entries)
    size = dict(first[1])["data_offsets"]
    alike = [
        pair
        for pair in entries
        if pair is not first
        and dict(pair[1])["data_offsets"][1] - dict(pair[1])["data_offsets"][0] == size[1] - size[0]
    ]
    second = rng.choice(alike or entries)
    if not alike or rng.random() < 0.5:
        first[0], second[0] = second[0], first[0]
        return joined(header, body, rng)
    (a, b), (c, d) = sorted([size, dict(second[1])["data_offsets"]])
    body = body[:a] + body[c:d] + body[b:c] + body[a:b] + body[d:]
    return joined(header, body, rng)


TENSORS: tuple[Maker, ...] = (
    header_edited, header_edited, entry_edited, entry_edited, arrays_exchanged, huge_length
)  # fmt: skip


def damaged(raw: bytes, makers: tuple[Maker, ...], seed: int) -> bytes:
    """Bytes that differ from `raw`: the damage of this number."""
    rng = random.Random(seed)
    chosen = makers if makers and rng.random() < 0.5 else BYTES
    while (data := rng.choice(chosen)(raw, rng)) == raw:
        pass
    return data
