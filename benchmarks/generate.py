"""How fast GPT-2 124M writes 128 tokens after a prompt of 128, greedy, one row, beside transformers
with its own cache.  Both have the same random weights; the tokens are compared before the clock.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import tensorgrad as tg
from benchmarks.harness import Pair, differ, elapsed
from benchmarks.report import at_least_one, environment, heading, options, row, write_json
from tensorgrad.models.gpt2 import GPT2LMHeadModel
from tensorgrad.nn.quantization import quantize

TARGET, TARGET_INT8 = 1.2, 2.0  # times transformers' tokens a second
WIDTHS = (9, 12, 12, 12, 8)

Generate = Callable[[Any, int], Any]


def main(argv: Sequence[str] | None = None) -> None:
    parser = options("generate", __doc__)
    parser.add_argument("--model", default="gpt2", help="gpt2 (default), gpt2-medium, ...")
    parser.add_argument("--prompt", type=at_least_one, default=128, help="its tokens (128)")
    parser.add_argument("--new", type=at_least_one, default=128, help="tokens to write (128)")
    parser.add_argument("--rounds", type=at_least_one, help="texts written by each side (7)")
    args = parser.parse_args(argv)
    rounds = args.rounds or (2 if args.quick else 7)
    try:
        from benchmarks.rivals import transformers_gpt2 as rival
    except ModuleNotFoundError as error:
        raise SystemExit(f"this benchmark needs {error.name}: pip install -e '.[bench]'") from None
    from benchmarks.ours import SIDE

    facts = environment(SIDE)
    facts["sides"]["transformers"] = rival.about()
    print(heading(facts))
    tg.manual_seed(1337)
    model = GPT2LMHeadModel.from_config(args.model).eval()
    c = model.config
    weights = {name: np.asarray(w) for name, w in model.state_dict().items()}
    sizes = {
        name: getattr(c, name)
        for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
    }
    theirs = rival.greedy(weights, sizes)
    idx = np.random.default_rng(0).integers(0, c.vocab_size, (1, args.prompt))
    threads = settle(rival, theirs, idx)
    compare(ours(model), theirs, idx, args.new)
    print(f"{args.new} tokens after {args.prompt}, {rounds} interleaved rounds, medians;")
    print(f"transformers has the faster number of threads of {rival.THREADS}: {threads}\n")
    print(row(("weights", "tokens/s", "transformers", "times faster", "target"), WIDTHS))
    rows = []
    for name, target in (("float32", TARGET), ("int8", TARGET_INT8)):
        if name == "int8":
            before = ours(model)(idx, args.new)
            model = quantize(model)
            same = float((ours(model)(idx, args.new) == before).mean())
            print(f"int8 weights write {same:.1%} of the same tokens at the same places")
        pair = race(ours(model), theirs, idx, args.new, rounds)
        faster = 1 / pair.ratio
        speeds = [args.new / (us / 1e6) for us in (pair.ours_us, pair.rival_us)]
        print(row((name, *speeds, faster, f">= {target}"), WIDTHS), flush=True)
        rows.append({"weights": name, "tokens_per_second": speeds[0], "target": target,
                     "rival_tokens_per_second": speeds[1], "times_faster": faster,
                     **pair.figures()})  # fmt: skip
    write_json(args.json, "generate", facts, rows=rows, rival_threads=threads)


def ours(model: Any) -> Generate:
    def generate(ids: Any, n: int) -> Any:
        return np.asarray(model.generate(tg.tensor(ids), n, do_sample=False, eos_token_id=None))

    return generate


def settle(rival: Any, theirs: Generate, idx: Any) -> int:
    """Set, and answer, the rival's number of threads that writes a few tokens fastest.

    On a busy machine its threads wait for each other through whole slices of the scheduler.
    """

    def seconds(threads: int) -> float:
        rival.set_threads(threads)
        theirs(idx, 2)
        return min(elapsed(lambda n: theirs(idx, 4), 1) for _ in range(3))

    best = min(rival.THREADS, key=seconds)
    rival.set_threads(best)
    return int(best)


def compare(a: Generate, b: Generate, idx: Any, new: int) -> None:
    """ValueError unless both write the same tokens."""
    got, expected = a(idx, new)[0], b(idx, new)[0]
    if not np.array_equal(got, expected):
        at = int(np.argmax(got != expected))
        raise differ(f"token {at}", str(got[at]), str(expected[at]))


def race(a: Generate, b: Generate, idx: Any, new: int, rounds: int) -> Pair:
    """Seconds for a whole text, by turns; who goes first changes by round."""
    times: tuple[list[float], list[float]] = [], []
    for i in range(rounds):
        for side in (0, 1) if i % 2 == 0 else (1, 0):
            times[side].append(elapsed(lambda n, write=(a, b)[side]: write(idx, new), 1))
    return Pair(tuple(times[0]), tuple(times[1]), (1, 1))


if __name__ == "__main__":
    main()
