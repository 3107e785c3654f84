"""Training steps of GPT-2 124M on this CPU beside transformers' GPT-2 in PyTorch: the same weights,
tokens and recipe; forward, backward, clipping and AdamW.  First equal losses, then the clock.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

import tensorgrad as tg
from benchmarks.harness import Pair, check, elapsed
from benchmarks.report import at_least_one, environment, heading, options, row, write_json
from tensorgrad.models.budget import budget
from tensorgrad.models.gpt2 import SIZES, GPT2Config, GPT2LMHeadModel
from tensorgrad.models.training.batches import Batch
from tensorgrad.models.training.precision import preferred_dtype
from tensorgrad.models.training.recipe import TokenRecipe
from tensorgrad.models.training.trainer import Trainer

TARGET = 1.0
SHAPES, QUICK = ((4, 256), (2, 512), (4, 1024)), ((2, 256),)
WIDTHS = (22, 12, 12, 10, 14, 14)
CHECKED = 3  # steps whose losses are compared
PAUSE = 0.2  # seconds in which the other side's threads go to sleep


class Given:
    """The same batch at every step."""

    def __init__(self, x: Any, y: Any) -> None:
        self.x, self.y, self.tokens = x, y, x.size

    def next(self) -> Batch:
        return self.x, self.y

    def fixed(self, split: str, count: int) -> Iterator[tuple[int, Batch]]:
        return iter(())

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        pass


def main(argv: Sequence[str] | None = None) -> None:
    parser = options("train_gpt2", __doc__)
    parser.add_argument("--model", default="gpt2", choices=list(SIZES), help="(default: gpt2)")
    parser.add_argument("--rounds", type=at_least_one, help="steps of either side (5)")
    args = parser.parse_args(argv)
    rounds = args.rounds or (2 if args.quick else 5)
    from benchmarks.ours import SIDE
    from benchmarks.rivals import transformers_gpt2

    facts = environment(SIDE)
    print(heading(facts))
    print(f"beside transformers {transformers_gpt2.about()}")
    print(f"{args.model}, {rounds} interleaved steps, medians\n")
    print(row(("", "ours ms", "rival ms", "ratio", "ours tok/s", "rival tok/s"), WIDTHS))
    dtypes = ["float32", *(["bfloat16"] if preferred_dtype("cpu") == "bfloat16" else [])]
    rows = []
    for dtype in dtypes:
        for B, T in QUICK if args.quick else SHAPES:
            config = GPT2Config(**SIZES[args.model], dropout=0.0)
            pair = race(config, dtype, B, T, rounds)
            ours, rival = pair.ours_us / 1e6, pair.rival_us / 1e6
            speeds = f"{B * T / ours:,.0f}", f"{B * T / rival:,.0f}"
            cells = (f"{dtype}, {B} x {T}", 1e3 * ours, 1e3 * rival, pair.ratio, *speeds)
            print(row(cells, WIDTHS), flush=True)
            rows.append({"dtype": dtype, "B": B, "T": T, **pair.figures()})
    worst = max(r["ratio"] for r in rows)
    print(f"\nlargest ratio {worst:.3f}, target at most {TARGET}, "
          f"{'met' if worst <= TARGET else 'MISSED'}; "
          f"{budget(args.model).training_flops / 1e6:,.0f} MFLOP a token at 1,024")  # fmt: skip
    write_json(args.json, "train_gpt2", facts, rows=rows, target=TARGET)


def race(config: GPT2Config, dtype: str, B: int, T: int, rounds: int) -> Pair:
    """Seconds of a step of either side, by turns, after some whose losses are compared."""
    from benchmarks.rivals import transformers_gpt2

    tg.manual_seed(1337)
    model = GPT2LMHeadModel(config)
    ids = np.random.default_rng(0).integers(0, config.vocab_size, (B, T + 1))
    x, y = np.ascontiguousarray(ids[:, :-1]), np.ascontiguousarray(ids[:, 1:])
    recipe = TokenRecipe(
        dtype=dtype, learning_rate=3e-4, decay_lr=False, batch_size=B, max_iters=10**6
    )
    weights = {name: w.array.copy() for name, w in model.state_dict().items()}
    names = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
    rival = transformers_gpt2.training(
        weights, {name: getattr(config, name) for name in names}, recipe.learning_rate,
        recipe.weight_decay, (recipe.beta1, recipe.beta2), recipe.grad_clip,
    )  # fmt: skip
    trainer = Trainer(model, recipe, Given(x, y))
    near = 1e-4 if dtype == "float32" else 5e-3
    for i in range(CHECKED):
        what = f"the loss of step {i + 1}, {dtype}, {B} x {T}"
        check(trainer.take_step().loss, rival(x, y, dtype), near, what)
    steps = (lambda n: trainer.take_step()), (lambda n: rival(x, y, dtype))
    times: tuple[list[float], list[float]] = [], []
    for i in range(rounds):
        for side in (0, 1) if i % 2 == 0 else (1, 0):
            settle()
            times[side].append(elapsed(steps[side], 1))
    return Pair(tuple(times[0]), tuple(times[1]), (1, 1))


def settle() -> None:
    """Let OpenMP's threads, which wait awake for a while, leave the cores to the other side."""
    from time import sleep

    sleep(PAUSE)


if __name__ == "__main__":
    main()
