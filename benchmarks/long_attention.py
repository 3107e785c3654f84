"""What attention costs as a text grows: a window of 256 computed by blocks, all tokens by blocks,
and the dense ways, a window as a mask on the T x T scores, and the causal kernel.
"""

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np

import tensorgrad as tg
import tensorgrad.nn.functional as F
from benchmarks.harness import check, elapsed, looped
from benchmarks.ours import SIDE
from benchmarks.report import at_least_one, environment, heading, options, row, verdict, write_json
from tensorgrad.nn import Local, flash_attention

TOKENS, QUICK = (1024, 2048, 4096, 8192), (512, 1024)
HEADS, SIZE, WINDOW = 4, 64, 256
MASKED = 4096  # tokens above which the T x T scores of the masked way are left out
GROWTH = 2.2  # at most so many times as much for twice the tokens
MIB = 2**20

Attention = Callable[..., Any]


def ways(T: int, window: int) -> dict[str, Attention]:
    """Each way to compute attention; the first and the last two have equal results."""
    local = Local(window)
    found: dict[str, Attention] = {
        "window, by blocks": lambda q, k, v: flash_attention(q, k, v, local),
        "all, by blocks": flash_attention,
        "all, causal kernel": lambda q, k, v: F.scaled_dot_product_attention(
            q, k, v, is_causal=True
        ),
    }
    if T <= MASKED:
        mask = tg.tensor(local.mask(T, T))
        found["window, masked"] = lambda q, k, v: F.scaled_dot_product_attention(q, k, v, mask)
    return found


def step(attention: Attention, leaves: list[Any], g: Any) -> Any:
    """Forward and backward; the gradients are forgotten again."""
    out = attention(*leaves)
    out.backward(g)
    for x in leaves:
        x.grad = None
    return out.detach().array


def measure(T: int, window: int, rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds (median of interleaved rounds) and MiB at the peak, of each way."""
    rng = np.random.default_rng(T)
    q, k, v, g = (
        tg.tensor(rng.standard_normal((1, HEADS, T, SIZE)).astype(np.float32)) for _ in range(4)
    )
    leaves = [x.requires_grad_() for x in (q, k, v)]
    found = ways(T, window)
    outs = {name: step(attention, leaves, g) for name, attention in found.items()}
    check(outs["all, by blocks"], outs["all, causal kernel"], 1e-4, "all tokens")
    if "window, masked" in outs:
        check(outs["window, by blocks"], outs["window, masked"], 1e-4, "the window")
    del outs
    blocks = {name: looped(step, attention, leaves, g) for name, attention in found.items()}
    spent: dict[str, list[float]] = {name: [] for name in blocks}
    for _ in range(rounds):
        for name, block in blocks.items():
            spent[name].append(elapsed(block, 1))
    return {
        name: {
            "ms": 1e3 * median(spent[name]),
            "mib": SIDE.allocator_peak(lambda name=name: blocks[name](1)) / MIB,  # type: ignore[misc]
        }
        for name in blocks
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = options("long_attention", __doc__)
    parser.add_argument("--rounds", type=at_least_one, help="passes timed of each way (5)")
    parser.add_argument("--window", type=at_least_one, default=WINDOW, help="tokens (256)")
    args = parser.parse_args(argv)
    rounds = args.rounds or (2 if args.quick else 5)
    tokens = QUICK if args.quick else TOKENS
    facts = environment(SIDE)
    print(heading(facts))
    print(
        f"forward and backward of attention, {HEADS} heads of {SIZE}, float32, window "
        f"{args.window}; median of {rounds} interleaved passes; MiB beyond q, k, v and g"
    )
    results: dict[int, dict[str, dict[str, float]]] = {}
    widths = (20, *(10 for _ in tokens))
    for T in tokens:
        results[T] = measure(T, args.window, rounds)
    for unit in ("ms", "mib"):
        print("\n" + row(({"ms": "milliseconds", "mib": "MiB"}[unit], *tokens), widths))
        for name in results[tokens[0]]:
            cells = [results[T][name][unit] if name in results[T] else "-" for T in tokens]
            print(row((name, *cells), widths))
    print()
    last, before = (results[T]["window, by blocks"] for T in (tokens[-1], tokens[-2]))
    growth = {unit: last[unit] / before[unit] for unit in ("ms", "mib")}
    for unit, what in (("ms", "time"), ("mib", "memory")):
        print(verdict(f"window: {what} for twice the tokens, times", growth[unit], GROWTH))
    square = 4 * tokens[-1] ** 2 * HEADS / MIB
    share = results[tokens[-1]]["all, by blocks"]["mib"] / square
    print(verdict(f"all, by blocks: memory over that of the T x T scores ({square:.0f} MiB)",
                  share, 0.5))  # fmt: skip
    write_json(
        args.json, "long_attention", facts, heads=HEADS, head_size=SIZE, window=args.window,
        rounds=rounds, tokens={str(T): found for T, found in results.items()}, growth=growth,
        targets={"growth": GROWTH, "share_of_the_square": 0.5}, share_of_the_square=share,
    )  # fmt: skip


if __name__ == "__main__":
    main()
