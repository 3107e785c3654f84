"""What the framework itself costs: small ops, forward and backward, and makemore's MLP step, beside
PyTorch eager, interleaved; every value and gradient is checked before it is timed.
"""

from collections.abc import Sequence

from benchmarks.harness import Pair, Side, check, geometric_mean, interleave, settle
from benchmarks.programs import MATMUL_SHAPES, SHAPES, Case, Makemore, Op, gather, ops
from benchmarks.report import at_least_one, environment, heading, options, row, verdict, write_json
from benchmarks.rivals import pytorch

MEAN, WORST = 0.75, 1.0  # targets: the geometric mean over the judged sizes, and each of its rows
JUDGED = ("4x4", "64")
MODES = ("forward", "recorded", "forward + backward")
TEN = ("add", "mul", "div", "exp", "tanh", "matmul", "sum", "reshape", "index", "softmax")
NAMES = (*TEN, "gather", "makemore")
WIDTHS = (8, 4, *(7, 7, 6) * len(MODES))

Key = tuple[str, str, str]  # op, size, mode


def main(argv: Sequence[str] | None = None) -> None:
    parser = options("overhead", __doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these: {', '.join(NAMES)}")
    parser.add_argument("--rounds", type=at_least_one, help="blocks per side and figure (51)")
    args = parser.parse_args(argv)
    if unknown := set(args.names) - set(NAMES):
        parser.error(f"{', '.join(sorted(unknown))}: choose from {', '.join(NAMES)}")
    names = args.names or NAMES
    rounds = args.rounds or (11 if args.quick else 51)

    rival = pytorch()
    from benchmarks.ours import SIDE as ours

    facts = environment(ours, rival)
    print(heading(facts))
    print(f"us per call, medians of {rounds} interleaved rounds; ratio: median of the rounds'")
    print("PyTorch has the fastest number of threads of", rival.threads, "for each figure, and its")
    print("backward is the C++ engine itself, without the Python of Tensor.backward above it\n")
    pairs = small_ops(ours, rival, [n for n in names if n != "makemore"], rounds)
    means = judge(pairs)
    step = makemore(ours, rival, 2 * rounds) if "makemore" in names else None
    write_json(
        args.json,
        "overhead",
        facts,
        rows=[
            {"op": op, "size": size, "mode": mode, **pair.figures()}
            for (op, size, mode), pair in pairs.items()
        ],
        means=means,
        makemore=step.figures() if step else None,
        targets={"mean": MEAN, "worst": WORST, "makemore": MEAN, "sizes": list(JUDGED)},
    )


def small_ops(ours: Side, rival: Side, names: Sequence[str], rounds: int) -> dict[Key, Pair]:
    """Every (op, size, mode), checked, then timed, and printed one row per op and size."""
    if names:
        print(row(("", "", *(f"{mode:^20}" for mode in MODES)), (8, 4, *(24,) * len(MODES))))
        print(row(("op", "size", *("ours", "PyTorch", "ratio") * len(MODES)), WIDTHS))
    pairs: dict[Key, Pair] = {}
    for name in names:
        for size, shape in (MATMUL_SHAPES if name == "matmul" else SHAPES).items():
            a, b = (Case(side, named(name, side, shape), shape) for side in (ours, rival))
            check(a.values(), b.values(), what=f"{name} {size}, result and gradients")
            cells: list[float] = []
            for mode in MODES:
                settle(rival, b.blocks()[mode])
                pair = interleave(a.blocks()[mode], b.blocks()[mode], rounds)
                pairs[name, size, mode] = pair
                cells += [pair.ours_us, pair.rival_us, pair.ratio]
            print(row((name, size, *cells), WIDTHS), flush=True)
    return pairs


def named(name: str, side: Side, shape: tuple[int, ...]) -> Op:
    return gather(side.lib, shape[0]) if name == "gather" else ops(side.lib)[name]


def judge(pairs: dict[Key, Pair]) -> dict[str, float]:
    """Geometric means of the ten at the judged sizes, by mode, held against the target; the worst.

    Mode by mode, so that a fast backward hides no slow forward.
    """
    ratios = {key: p.ratio for key, p in pairs.items() if key[0] in TEN and key[1] in JUDGED}
    if not ratios:
        return {}
    means: dict[str, float] = {}
    print(f"\ngeometric mean of the ratios of {len({op for op, _, _ in ratios})} ops:")
    for mode in MODES:
        of_mode = {key: ratio for key, ratio in ratios.items() if key[2] == mode}
        for size in JUDGED:
            of_size = [ratio for (_, s, _), ratio in of_mode.items() if s == size]
            means[f"{mode}, {size}"] = geometric_mean(of_size)
        means[mode] = geometric_mean(of_mode.values())
        sizes = ", ".join(f"{size} {means[f'{mode}, {size}']:.3f}" for size in JUDGED)
        print(" ", verdict(f"{mode:18} ({sizes})", means[mode], MEAN))
    worst = max(ratios, key=lambda key: ratios[key])
    means["worst"] = ratios[worst]
    print(" ", verdict(f"the worst, {' '.join(worst)}", means["worst"], WORST))
    return means


def makemore(ours: Side, rival: Side, rounds: int) -> Pair:
    """A training step against a training step, after twenty equal losses."""
    a, b = Makemore(ours), Makemore(rival)
    losses, expected = a.losses(20), b.losses(20)
    check(losses, expected, 1e-4, "makemore's losses over 20 steps")
    apart = max(abs(x / y - 1) for x, y in zip(losses, expected, strict=True))
    threads = settle(rival, b.block, 0.003)
    pair = interleave(a.block, b.block, rounds, 0.003)
    print("\nmakemore's step: 32 x (3 characters x 10) -> 200 tanh -> 27, cross-entropy, SGD")
    print(f"  20 losses equal within {apart:.0e}, from {losses[0]:.4f} to {losses[-1]:.4f}")
    print(f"  ours {pair.ours_us:.1f} us, PyTorch {pair.rival_us:.1f} us (threads: {threads})")
    print(" ", verdict("ratio", pair.ratio, MEAN))
    return pair


if __name__ == "__main__":
    main()
