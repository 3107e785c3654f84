"""How many blocks of how many threads, with how much shared memory: from shapes alone.

The same on every device, so that the order of every sum, and with it every bit, is the same."""

from typing import NamedTuple

WARP = 32
SHARED_LIMIT = 48 * 1024  # bytes a block has on every device without asking


class Geometry(NamedTuple):
    """One launch: blocks in the grid, threads in a block, bytes of dynamic shared memory."""

    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared: int = 0


def divide_up(n: int, d: int) -> int:
    return -(-n // d)


def threads(n: int, block: int = 256) -> Geometry:
    """At least n threads in a row."""
    return Geometry((divide_up(n, block), 1, 1), (block, 1, 1))


def packs(n: int, itemsize: int) -> Geometry:
    """One thread per 16 bytes of n numbers."""
    return threads(divide_up(n, 16 // itemsize))


def rows(n: int, columns: int, itemsize: int) -> Geometry:
    """One block per row: a warp for each 32 columns, at most 8; 32 numbers of shared memory."""
    warps = min(8, max(1, divide_up(columns, WARP)))
    return Geometry((n, 1, 1), (warps * WARP, 1, 1), WARP * itemsize)


def slabs(n: int, columns: int, itemsize: int) -> tuple[Geometry, int]:
    """Blocks of 32 columns by 8 rows, each for a slab of rows; and how many rows are in a slab."""
    size = max(64, divide_up(n, 128))
    grid = (divide_up(columns, WARP), divide_up(n, size), 1)
    return Geometry(grid, (WARP, 8, 1), 2 * 8 * WARP * itemsize), size


def tiles(heads: int, n: int, width: int, rows_kept: int, itemsize: int) -> Geometry | None:
    """Attention: two tiles of 32 rows of `width` numbers, up to 8 warps with a row to make each.

    A warp keeps `rows_kept` rows of its own and 32 numbers for every two of them.  None where even
    one warp needs more shared memory than there is."""
    tile = 2 * WARP * (width + 1)
    own = rows_kept * width + WARP * (rows_kept // 2)
    for warps in (8, 4, 2, 1):
        shared = (tile + warps * own) * itemsize
        if shared <= SHARED_LIMIT:
            return Geometry((heads * divide_up(n, warps), 1, 1), (WARP, warps, 1), shared)
    return None
