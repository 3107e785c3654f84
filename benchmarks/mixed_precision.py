"""A training step of GPT-2 124M, forward and backward, with products in bfloat16 beside the same in
float32, on this CPU.  The losses are compared before the clock.
"""

from collections.abc import Sequence

import tensorgrad as tg
from benchmarks.harness import Pair, check, elapsed
from benchmarks.report import at_least_one, environment, heading, options, row, write_json
from tensorgrad.models.gpt2 import GPT2LMHeadModel
from tensorgrad.models.training.precision import autocast_for, preferred_dtype

TARGET = 1.5  # times as many tokens a second
SHAPES, QUICK = ((2, 256), (4, 256), (4, 512), (2, 1024)), ((2, 256),)
WIDTHS = (12, 12, 12, 12, 8)


def main(argv: Sequence[str] | None = None) -> None:
    parser = options("mixed_precision", __doc__)
    parser.add_argument("--model", default="gpt2", help="gpt2 (default), gpt2-medium, ...")
    parser.add_argument("--rounds", type=at_least_one, help="steps in either precision (5)")
    args = parser.parse_args(argv)
    rounds = args.rounds or (2 if args.quick else 5)
    from benchmarks.ours import SIDE

    facts = environment(SIDE)
    print(heading(facts))
    if preferred_dtype("cpu") != "bfloat16":
        print("no products of bfloat16 here (pip install mkl, on a processor that has them): "
              "float32's are used, at a loss")  # fmt: skip
    tg.manual_seed(1337)
    model = GPT2LMHeadModel.from_config(args.model, dropout=0.0)
    print(f"forward and backward, {rounds} interleaved rounds, medians in ms\n")
    print(row(("B x T", "bfloat16", "float32", "times faster", "target"), WIDTHS))
    rows = []
    for B, T in QUICK if args.quick else SHAPES:
        pair = race(model, B, T, rounds)
        faster = 1 / pair.ratio
        times = pair.ours_us / 1e3, pair.rival_us / 1e3
        print(row((f"{B} x {T}", *times, faster, f">= {TARGET}"), WIDTHS), flush=True)
        rows.append({"B": B, "T": T, "times_faster": faster, **pair.figures()})
    write_json(args.json, "mixed_precision", facts, rows=rows, target=TARGET)


def race(model: GPT2LMHeadModel, B: int, T: int, rounds: int) -> Pair:
    """Seconds for a step in bfloat16 and in float32, by turns; who goes first changes by round."""
    ids = tg.randint(0, model.config.vocab_size, (B, T + 1))

    def step(dtype: str) -> float:
        with autocast_for("cpu", dtype):
            _, loss = model(ids[:, :-1], ids[:, 1:], return_logits=False)
        model.zero_grad()
        loss.backward()
        return float(loss.item())

    dtypes = "bfloat16", "float32"
    losses = [step(dtype) for dtype in dtypes]
    check(losses[0], losses[1], 1e-3, f"the loss of {B} x {T} tokens")
    times: tuple[list[float], list[float]] = [], []
    for i in range(rounds):
        for side in (0, 1) if i % 2 == 0 else (1, 0):
            times[side].append(elapsed(lambda n, dtype=dtypes[side]: step(dtype), 1))
    return Pair(tuple(times[0]), tuple(times[1]), (1, 1))


if __name__ == "__main__":
    main()
