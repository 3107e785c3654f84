"""What training GPT-2 on 1 to 1,024 GPUs would take: memory, step time and what limits it, reckoned
from bytes and times measured here and from published speeds of GPUs.  No GPU is used.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import scaling_measured as here
from benchmarks.distributed import launch
from benchmarks.report import environment, heading, options, row, write_json
from tensorgrad import distributed as dist
from tensorgrad.models.budget import budget
from tensorgrad.models.gpt2 import SIZES

# -- published, not measured here -----------------------------------------------------------------

CARD_TOKENS = 202_600  # tokens/s of GPT-2 124M in bf16 on one A100-class card: seed 4's own log
LLM_C_STEP = 0.300  # s for 524,288 tokens on 8 A100: llm.c, discussion 481
HBM = 80e9  # bytes, and
HBM_SPEED = 2.039e12  # bytes/s: NVIDIA's data sheet of the A100 80 GB SXM
NVLINK = 300e9  # bytes/s each way: the same
NIC = 25e9  # bytes/s, one 200 Gb/s InfiniBand card for each of the 8 GPUs: DGX A100's data sheet

# -- assumed --------------------------------------------------------------------------------------

REACHED = 0.8  # of a data sheet's bytes/s
HOP = 5e-6  # s for a message to the next GPU
USABLE = 0.9  # of HBM: the rest is workspaces and fragments
BACKWARD = 2 / 3  # of a micro-batch's time

NODE, T, BATCH, MOST = 8, 1024, 524_288, 32  # GPUs, tokens a row, tokens a step, rows at a time
VOCABULARY, GPUS = 50257, (1, 8, 64, 256, 1024)


@dataclass(frozen=True)
class Measured:
    """What scaling_measured finds, in bytes and seconds."""

    weights: float  # bytes a parameter
    gradients: float
    moments: float
    activations: dict[str, list[float]]  # bytes a token for each of scaling_measured.FEATURES
    dispatch: float  # s a micro-batch of twelve layers


@dataclass(frozen=True)
class Plan:
    """One size on so many GPUs: how its step is cut, and the seconds of its parts."""

    size: str
    gpus: int
    zero: bool
    checkpointed: bool
    batch: int  # tokens a step
    rows: int  # of a micro-batch
    micro: int  # micro-batches a step
    memory: float  # bytes a GPU
    arithmetic: float
    dispatch: float
    network: float
    optimiser: float

    @property
    def fits(self) -> bool:
        return self.memory <= USABLE * HBM

    @property
    def seconds(self) -> float:
        return self.arithmetic + self.dispatch + self.network + self.optimiser

    @property
    def tokens_per_second(self) -> float:
        return self.batch / self.seconds

    @property
    def efficiency(self) -> float:
        """Of so many cards that only multiply."""
        return self.tokens_per_second / (self.gpus * speed(self.size))

    @property
    def limit(self) -> str:
        parts = {"network": self.network, "dispatch": self.dispatch, "optimiser": self.optimiser}
        most = max(parts, key=lambda name: parts[name])
        if not self.fits:
            return "memory"
        if parts[most] > 0.1 * self.seconds:
            return most
        return "recomputation" if self.checkpointed else "arithmetic"


# -- the model ------------------------------------------------------------------------------------


def parameters(size: str) -> int:
    return budget(size).parameters


def late_parameters(size: str) -> int:
    """Both embeddings: tied to the head, their gradients are complete at the very end."""
    return (VOCABULARY + T) * SIZES[size]["n_embd"]


def speed(size: str) -> float:
    """Tokens/s of one card, if every size reaches the share of its peak that 124M does."""
    return CARD_TOKENS * budget("gpt2").training_flops / budget(size).training_flops


def activation_bytes(size: str, measured: Measured, checkpointed: bool) -> float:
    """Bytes a token: what is kept, the logits' gradient, and one block that is run again."""
    s = SIZES[size]
    mode = "bf16, checkpointed" if checkpointed else "bf16"

    def kept(mode: str, layers: int) -> float:
        of = here.features(layers, s["n_embd"], s["n_head"], VOCABULARY)
        return sum(a * b for a, b in zip(of, measured.activations[mode], strict=True))

    again = kept("bf16", 1) - kept("bf16", 0) if checkpointed else 0.0
    return kept(mode, s["n_layer"]) + 2 * VOCABULARY + again


def memory(size: str, gpus: int, zero: bool, tokens: int, checkpointed: bool, m: Measured) -> float:
    """Weights, gradients, moments, the weights' bf16 copies of a pass, and activations."""
    moments = m.moments / gpus if zero else m.moments
    return parameters(size) * (m.weights + m.gradients + moments + 2) + tokens * activation_bytes(
        size, m, checkpointed
    )


def all_reduce(size: float, gpus: int) -> float:
    """Seconds: a ring, 2 (n - 1) / n bytes / bandwidth + 2 (n - 1) hops, or a tree's 2 log n hops.

    Between nodes all 8 cards of a node send at once."""
    if gpus == 1:
        return 0.0
    hops = min(gpus - 1, math.ceil(math.log2(gpus)))
    return 2 * (gpus - 1) / gpus * size / bandwidth(gpus) + 2 * hops * HOP


def bandwidth(gpus: int) -> float:
    return REACHED * (NVLINK if gpus <= NODE else min(NVLINK, NODE * NIC))


def plan(size: str, gpus: int, zero: bool, m: Measured) -> Plan:
    """The step of BATCH tokens, or of one row a GPU where that is more, in the largest micro-batch
    that fits; recomputation only where a single row does not fit without."""
    batch = max(BATCH, gpus * T)
    rows_each = batch // gpus // T
    rows, again = 1, False
    for again in (False, True):
        rows = min(MOST, rows_each)
        while rows > 1 and memory(size, gpus, zero, rows * T, again, m) > USABLE * HBM:
            rows //= 2
        if memory(size, gpus, zero, rows * T, again, m) <= USABLE * HBM:
            break
    micro = rows_each // rows
    compute = rows * T / speed(size) * (4 / 3 if again else 1)
    layers, count = SIZES[size]["n_layer"], parameters(size)
    idle = max(m.dispatch * layers / 12 - compute, 0.0)
    late = m.gradients * late_parameters(size)
    window = BACKWARD * (compute + idle)  # of the last micro-batch, while the others' sums wait
    early = all_reduce(m.gradients * count - late, gpus)
    network = all_reduce(late, gpus) + max(early - window, 0.0)
    share = 1 / gpus if zero else 1.0
    traffic = 2 * m.weights + 2 * m.moments + m.gradients  # AdamW reads all and writes all but g
    optimiser = count * traffic * share / (REACHED * HBM_SPEED)
    if zero and gpus > 1:  # new weights go round
        network += (gpus - 1) / gpus * m.weights * count / bandwidth(gpus) + gpus * HOP
    return Plan(size, gpus, zero, again, batch, rows, micro,
                memory(size, gpus, zero, rows * T, again, m), micro * compute, micro * idle,
                network, optimiser)  # fmt: skip


# -- report ---------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> None:
    parser = options("scaling", __doc__)
    parser.add_argument("--rank", action="store_true", help="be one of the ranks that are measured")
    args = parser.parse_args(argv)
    if args.rank:
        found = here.between_ranks(5 if args.quick else 30)
        if dist.get_rank() == 0:
            print(json.dumps(found))
        return
    report(args.quick, args.json)


def report(quick: bool, file: Path | None) -> None:
    facts = environment()
    print(heading(facts))
    kept = here.activations()
    each = here.bytes_per_parameter()
    times = 5 if quick else 30
    dispatch = round(here.dispatch_seconds(times), 4)  # as it is printed
    m = Measured(**each, activations={k: v["bytes"] for k, v in kept.items()}, dispatch=dispatch)
    other = {
        "early_share": here.early_share(),
        "loader": here.loader_tokens_per_second(times),
        "checkpoint": here.checkpoint_seconds_per_gigabyte(32 if quick else 512),
        **json.loads(launch(2, "benchmarks.scaling", "--rank", *["--quick"] * quick)),
    }
    print("\n".join(["", "measured here", *measured_lines(m, kept, other), ""]))
    plans = [plan(size, n, zero, m) for size in SIZES for zero in (False, True) for n in GPUS]
    for size in SIZES:
        print(table([p for p in plans if p.size == size]))
    eight = plan("gpt2", 8, False, m)
    print(f"124M on 8 cards: {1e3 * eight.seconds:.0f} ms a step here; llm.c published "
          f"{1e3 * LLM_C_STEP:.0f} ms")  # fmt: skip
    write_json(file, "scaling", facts, measured=asdict(m), other=other, plans=[
        asdict(p) | {"seconds": p.seconds, "efficiency": p.efficiency, "limit": p.limit}
        for p in plans
    ])  # fmt: skip


def measured_lines(m: Measured, kept: dict[str, Any], other: dict[str, Any]) -> list[str]:
    lines = [
        f"bytes a parameter: weights {m.weights:g}, gradients {m.gradients:g}, "
        f"AdamW's moments {m.moments:g} (by ZeRO-1 / n)"
    ]
    for mode, of in kept.items():
        terms = " + ".join(
            f"{b:.0f} {name}".removesuffix(" one")
            for b, name in zip(of["bytes"], here.FEATURES, strict=True)
            if round(b)
        )
        lines.append(f"bytes a token, {mode}: {terms}; misses a larger model by "
                     f"{100 * abs(of['missed_by']):.2f} %")  # fmt: skip
    (small, latency), (large, seconds) = other["all_reduce"][0], other["all_reduce"][-1]
    back = {k: f"{1e3 * v:.1f}" for k, v in other["backward"].items()}
    return [
        *lines,
        f"dispatch of 12 layers, forward and backward: {1e3 * m.dispatch:.1f} ms a micro-batch",
        f"gradients complete when backward leaves the blocks: {100 * other['early_share']:.1f} % "
        "of the bytes of a small model; the embeddings' come last",
        f"all-reduce of {other['ranks']} ranks of this machine: {1e6 * latency:.0f} us for "
        f"{small / 1000:.0f} kB, {large / seconds / 1e9:.2f} GB/s at {large / 1e6:.0f} MB",
        f"backward {back['alone']} ms alone, {back['averaging']} ms averaging, the all-reduce by "
        f"itself {back['reduce']} ms: {100 * max(other['hidden'], 0):.0f} % of it hidden",
        f"loader {other['loader'] / 1e6:,.1f} M tokens/s; checkpoint {other['checkpoint']:.1f} s "
        "a GB",
    ]


def table(plans: list[Plan]) -> str:
    widths = (14, 5, 7, 9, 9, 9, 12, 11, 8, 14)
    size = plans[0].size
    lines = [
        f"{size}: {parameters(size) / 1e6:,.0f} M parameters, {speed(size):,.0f} tokens/s a card",
        row(("", "GPUs", "rows", "batch M", "step ms", "M tok/s", "efficiency", "GB a GPU",
             "network", "limit"), widths),
    ]  # fmt: skip
    for p in plans:
        name = ("ZeRO-1" if p.zero else "AdamW") + ", again" * p.checkpointed
        cells = (name, p.gpus, f"{p.micro} x {p.rows}", f"{p.batch / 1e6:.2f}",
                 f"{1e3 * p.seconds:,.1f}", f"{p.tokens_per_second / 1e6:.2f}",
                 f"{100 * p.efficiency:.0f} %", f"{p.memory / 1e9:.1f}",
                 f"{1e3 * p.network:.1f}", p.limit)  # fmt: skip
        lines.append(row(cells, widths))
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
