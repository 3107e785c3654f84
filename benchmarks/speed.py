"""The forty most used ops at 1k, 100k and 10M elements, forward and backward, beside PyTorch eager,
interleaved; every value and gradient is checked before it is timed.
"""

import operator
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Block, Pair, Side, check, geometric_mean, interleave, settle
from benchmarks.report import at_least_one, environment, heading, options, row, verdict, write_json
from benchmarks.rivals import pytorch

SIZES = {"1k": (32, 32), "100k": (320, 320), "10M": (3200, 3200)}
MEANS = {"1k": 0.75, "100k": 1.0, "10M": 1.2}  # targets: geometric means, each mode by itself
WORST = 3.0  # what is slower needs a reason
ROUNDS = {"1k": 31, "100k": 21, "10M": 5}
BLOCK = {"1k": 0.001, "100k": 0.01, "10M": 0.01}
"""Seconds of a block: what the other side's threads do after theirs must not count for much."""
MODES = ("forward", "forward + backward")
WIDTHS = (14, *(8, 8, 7) * len(MODES))

Shape = tuple[int, ...]
Key = tuple[str, str, str]  # op, size, mode


def main(argv: Sequence[str] | None = None) -> None:
    parser = options("speed", __doc__)
    parser.add_argument("names", nargs="*", metavar="OP", help="only these, all forty if none")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, help="all, or 1k and 100k if --quick")
    parser.add_argument("--rounds", type=at_least_one, help="blocks per side and figure")
    args = parser.parse_args(argv)

    rival = pytorch()
    from benchmarks.ours import SIDE as ours

    every = list(ops(ours, (4, 4)))
    if unknown := set(args.names) - set(every):
        parser.error(f"{', '.join(sorted(unknown))}: choose from {', '.join(every)}")
    sizes = args.sizes or list(SIZES)[: 2 if args.quick else 3]
    facts = environment(ours, rival)
    print(heading(facts))
    print("us per call, medians of interleaved rounds; ratio: median of the rounds'; PyTorch has")
    print(f"the fastest number of threads of {rival.threads} for each figure, at 10M all\n")
    pairs: dict[Key, Pair] = {}
    unequal: list[str] = []
    for size in sizes:
        rounds = args.rounds or (5 if args.quick else ROUNDS[size])
        pairs |= timed(ours, rival, size, args.names or every, rounds, unequal)
    means = judge(pairs)
    write_json(
        args.json,
        "speed",
        facts,
        rows=[
            {"op": op, "size": size, "mode": mode, **pair.figures()}
            for (op, size, mode), pair in pairs.items()
        ],
        means=means,
        unequal=unequal,
        targets={"means": MEANS, "worst": WORST, "shapes": {n: SIZES[n] for n in sizes}},
    )
    if unequal:
        raise SystemExit("\n".join(["", *unequal]))


# -- the ops --------------------------------------------------------------------------------------


class Op(NamedTuple):
    """f(*operands), the operands being float32 leaves of these shapes."""

    f: Callable[..., Any]
    shapes: list[Shape]


def ops(side: Side, shape: tuple[int, int]) -> dict[str, Op]:
    """The forty, on an (r, c) operand; constants are made here, before any clock runs."""
    lib, F, (r, c) = side.lib, side.F, shape
    x, narrow = (r, c), (c, min(c, 256))
    rng = np.random.default_rng(7)
    classes, rows = (lib.tensor(rng.integers(0, n, r)) for n in (c, r))
    places = lib.tensor(rng.integers(0, c, shape))
    mask = lib.tensor(rng.integers(0, 2, shape).astype(bool))
    heads = attention(r * c)
    return {
        "add": Op(operator.add, [x, x]),
        "add row": Op(operator.add, [x, (c,)]),
        "sub": Op(operator.sub, [x, x]),
        "mul": Op(operator.mul, [x, x]),
        "mul number": Op(lambda x: x * 0.5, [x]),
        "div": Op(operator.truediv, [x, x]),
        "pow": Op(lambda x: x**2, [x]),
        "abs": Op(lib.abs, [x]),
        "sqrt": Op(lib.sqrt, [x]),
        "exp": Op(lib.exp, [x]),
        "log": Op(lib.log, [x]),
        "tanh": Op(lib.tanh, [x]),
        "sigmoid": Op(lib.sigmoid, [x]),
        "relu": Op(F.relu, [x]),
        "gelu": Op(F.gelu, [x]),
        "silu": Op(F.silu, [x]),
        "clamp": Op(lambda x: lib.clamp(x, 0.7, 1.3), [x]),
        "where": Op(lambda x, y: lib.where(mask, x, y), [x, x]),
        "maximum": Op(lib.maximum, [x, x]),
        "sum": Op(lib.sum, [x]),
        "sum dim": Op(lambda x: x.sum(-1), [x]),
        "mean": Op(lambda x: x.mean(0), [x]),
        "var": Op(lambda x: x.var(-1), [x]),
        "amax": Op(lambda x: lib.amax(x, -1), [x]),
        "max dim": Op(lambda x: x.max(-1)[0], [x]),
        "cumsum": Op(lambda x: lib.cumsum(x, -1), [x]),
        "softmax": Op(lambda x: lib.softmax(x, -1), [x]),
        "log_softmax": Op(lambda x: lib.log_softmax(x, -1), [x]),
        "reshape": Op(lambda x: x.reshape(c, r), [x]),
        "transpose": Op(lambda x: x.transpose(0, 1).contiguous(), [x]),
        "cat": Op(lambda x, y: lib.cat([x, y], -1), [x, x]),
        "slice": Op(lambda x: x[:, : c // 2], [x]),
        "gather": Op(lambda x: lib.gather(x, 1, places), [x]),
        "embedding": Op(lambda w: F.embedding(rows, w), [x]),
        "matmul": Op(operator.matmul, [x, narrow]),
        "linear": Op(F.linear, [x, narrow[::-1], narrow[1:]]),
        "layer_norm": Op(lambda x, w, b: F.layer_norm(x, (c,), w, b), [x, (c,), (c,)]),
        "cross_entropy": Op(lambda x: F.cross_entropy(x, classes), [x]),
        "dropout": Op(lambda x: F.dropout(x, 0.1), [x]),
        "attention": Op(
            lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), [heads] * 3
        ),
    }


def attention(n: int) -> Shape:
    """(B, H, T, D) of about n elements, in GPT-2's proportions as far as n goes."""
    D = 64 if n > 10_000 else 16
    T = min(256, max(8, n // (8 * D)))
    return (max(1, n // (8 * T * D)), 8, T, D)


class Case:
    """One op on drawn operands: its values, and the blocks that are timed."""

    def __init__(self, side: Side, op: Op) -> None:
        lib, rng = side.lib, np.random.default_rng(1)
        arrays = [rng.uniform(0.5, 1.5, shape).astype(np.float32) for shape in op.shapes]
        self.f, self.backward, self.seed = op.f, side.backward, lib.manual_seed
        self.leaves = [lib.tensor(a, requires_grad=True) for a in arrays]
        self.plain = [leaf.detach() for leaf in self.leaves]
        shape = tuple(self.f(*self.plain).shape)
        self.g = lib.tensor(rng.uniform(0.5, 1.5, shape).astype(np.float32))

    def values(self) -> list[NDArray[np.float32]]:
        """The result, and the gradient of each operand; of dropout, the same draw on both sides."""
        self.seed(3)
        out = self.f(*self.leaves)
        self.backward(out, self.g)
        found = [out.detach().numpy(), *(leaf.grad.numpy() for leaf in self.leaves)]
        for leaf in self.leaves:
            leaf.grad = None
        return found

    def forward(self, n: int) -> None:
        """Operands that need no gradient."""
        f, args = self.f, self.plain
        for _ in repeat(None, n):
            f(*args)

    def both(self, n: int) -> None:
        """Forward, backward from a gradient made beforehand, and the leaves' gradients cleared."""
        f, leaves, g, backward = self.f, self.leaves, self.g, self.backward
        for _ in repeat(None, n):
            backward(f(*leaves), g)
            for leaf in leaves:
                leaf.grad = None

    def blocks(self) -> dict[str, Block]:
        return {"forward": self.forward, "forward + backward": self.both}


# -- the clock ------------------------------------------------------------------------------------


def timed(
    ours: Side, rival: Side, size: str, names: Sequence[str], rounds: int, unequal: list[str]
) -> dict[Key, Pair]:
    """Every (op, size, mode) of one size, checked, then timed, and printed one row per op.

    What is not equal is not timed: the sentence that says so goes into `unequal`.
    """
    shape = SIZES[size]
    print(row((f"{size} elements", *(f"{mode:^23}" for mode in MODES)), (14, *(25,) * len(MODES))))
    print(row(("op", *("ours", "PyTorch", "ratio") * len(MODES)), WIDTHS))
    sides = [(side, ops(side, shape)) for side in (ours, rival)]
    pairs: dict[Key, Pair] = {}
    for name in names:
        a, b = (Case(side, table[name]) for side, table in sides)
        rtol = 1e-5 if size == "1k" else 1e-4  # float32 sums of many, each in its own order
        try:
            check(a.values(), b.values(), rtol, what=f"{name} at {size}, result and gradients")
        except ValueError as error:
            unequal.append(str(error))
            print(row((name, "not equal, not timed"), (14, 8)), flush=True)
            continue
        cells: list[float] = []
        for mode in MODES:
            if size == "10M":
                rival.set_threads(max(rival.threads))
            else:
                settle(rival, b.blocks()[mode], BLOCK[size])
            pair = interleave(a.blocks()[mode], b.blocks()[mode], rounds, BLOCK[size])
            pairs[name, size, mode] = pair
            cells += [pair.ours_us, pair.rival_us, pair.ratio]
        print(row((name, *cells), WIDTHS), flush=True)
    print()
    return pairs


def judge(pairs: dict[Key, Pair]) -> dict[str, float]:
    """Geometric means of the ratios by size and mode, held against the targets; the slow ones."""
    means: dict[str, float] = {}
    for size in [size for size in SIZES if any(key[1] == size for key in pairs)]:
        for mode in MODES:
            ratios = [pair.ratio for key, pair in pairs.items() if key[1:] == (size, mode)]
            if not ratios:
                continue
            means[f"{size}, {mode}"] = geometric_mean(ratios)
            what = f"{size:4} {mode:18} geometric mean of {len(ratios)} ratios"
            print(verdict(what, means[f"{size}, {mode}"], MEANS[size]))
    slow = {" ".join(key): pair.ratio for key, pair in pairs.items() if pair.ratio > WORST}
    listed = "; ".join(f"{key} {ratio:.1f}" for key, ratio in sorted(slow.items())) or "none"
    print(f"slower than {WORST:.0f} times: {listed}")
    return means


if __name__ == "__main__":
    main()
