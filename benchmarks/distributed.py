"""One training of a small GPT-2 on 1, 2 and 4 ranks: the same gradients, loss curves and weights,
and the bytes of the optimiser's state per rank, with AdamW and with ZeRO-1 around it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import tensorgrad as tg
from benchmarks.report import environment, heading, options, row, verdict, writable, write_json
from tensorgrad import distributed as dist
from tensorgrad import nn, optim
from tensorgrad.models.gpt2 import GPT2Config, GPT2LMHeadModel
from tensorgrad.nn.parallel import DistributedDataParallel

ROOT = Path(__file__).parents[1]
TARGET = 1e-6
DTYPES = ("float32", "float64")


class Size(NamedTuple):
    """Of the model and of its joint batch, which every number of ranks divides."""

    n_layer: int
    n_embd: int
    T: int
    B: int
    steps: int


SIZE, QUICK = Size(3, 64, 64, 8, 30), Size(1, 16, 8, 4, 4)
VOCABULARY = 257


def main(argv: Sequence[str] | None = None) -> None:
    parser = options("distributed", __doc__)
    parser.add_argument("--picture", type=writable, metavar="FILE", help="loss curves and memory")
    parser.add_argument("--rank", type=Path, metavar="FILE", help="be a rank; rank 0 writes there")
    args = parser.parse_args(argv)
    size = QUICK if args.quick else SIZE
    if args.rank:
        rank(size, args.rank)
        return
    ranks = (1, 2) if args.quick else (1, 2, 4)
    with tempfile.TemporaryDirectory() as folder:
        found = {n: job(n, args.quick, Path(folder, f"{n}.npz")) for n in ranks}
    report(size, found, args.json, args.picture)


# -- one rank -------------------------------------------------------------------------------------


def rank(size: Size, file: Path) -> None:
    """Gradients of the first batch, then two trainings, in each dtype."""
    dist.init_process_group()
    results: dict[str, Any] = {}
    for dtype in DTYPES:
        net = model(size, dtype)
        loss_of(net, size, 0).backward()
        for name, p in net.module.named_parameters():
            assert p.grad is not None
            results[f"{dtype}/gradient/{name}"] = p.grad.numpy().copy()
        for kind in ("AdamW", "ZeRO"):
            losses, held, weights = train(size, dtype, kind == "ZeRO")
            results[f"{dtype}/{kind}/losses"] = losses
            results[f"{dtype}/{kind}/bytes"] = held
            results.update({f"{dtype}/{kind}/weight/{k}": v for k, v in weights.items()})
    if dist.get_rank() == 0:
        np.savez(file, **results)


def model(size: Size, dtype: str) -> Any:
    """Each rank draws other weights; the wrapper hands out those of rank 0, of seed 0."""
    tg.manual_seed(dist.get_rank())
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=size.T, n_embd=size.n_embd, n_layer=size.n_layer,
        n_head=4, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return DistributedDataParallel(GPT2LMHeadModel(config).to(dtype), bucket_cap_mb=0.1)


def loss_of(net: Any, size: Size, step: int) -> Any:
    """Of this rank's rows of the joint batch: counts modulo 257 with strides and some noise."""
    draw = np.random.default_rng(step)
    start, stride = draw.integers(0, VOCABULARY, (2, size.B, 1))
    tokens = start + (1 + stride % 5) * np.arange(size.T + 1)
    tokens = (tokens + (draw.random(tokens.shape) < 0.1)) % VOCABULARY
    n = size.B // dist.get_world_size()
    mine = tokens[dist.get_rank() * n :][:n]
    logits = net(tg.tensor(mine[:, :-1])).logits
    return nn.functional.cross_entropy(logits.flatten(0, 1), tg.tensor(mine[:, 1:]).flatten())


def train(size: Size, dtype: str, zero: bool) -> tuple[Any, Any, dict[str, Any]]:
    """The losses of the joint batches, every rank's bytes of moments, and the last weights."""
    net = model(size, dtype)
    if zero:
        opt: Any = dist.ZeroRedundancyOptimizer(net.parameters(), optim.AdamW, lr=3e-3)
    else:
        opt = optim.AdamW(net.parameters(), lr=3e-3)
    losses = []
    for step in range(size.steps):
        opt.zero_grad()
        loss = loss_of(net, size, step)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        opt.step()
        mean = loss.detach().clone()
        dist.all_reduce(mean, dist.ReduceOp.AVG)
        losses.append(mean.item())
    state = opt.local.state if zero else opt.state
    moments = [v for entries in state.values() for k, v in entries.items() if k != "step"]
    mine = tg.tensor(sum(v.array.nbytes for v in moments))
    held = [int(t.item()) for t in dist.all_gather(mine)]
    weights = {name: p.detach().numpy() for name, p in net.module.named_parameters()}
    return np.array(losses), np.array(held), weights


# -- all jobs -------------------------------------------------------------------------------------


def mpiexec() -> str:
    """The launcher beside this Python, else on PATH."""
    where = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which("mpiexec", path=where)
    if found is None:
        raise SystemExit("mpiexec is not there: pip install mpi4py mpich, or install an MPI")
    return found


def launch(n: int, *command: object) -> str:
    """`mpiexec -n N python -m COMMAND ...`; what it printed."""
    env = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    words = [mpiexec(), "-n", str(n), sys.executable, "-m", *map(str, command)]
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr.strip()}")
    return done.stdout


def job(n: int, quick: bool, file: Path) -> dict[str, Any]:
    launch(n, "benchmarks.distributed", "--rank", file, *["--quick"] * quick)
    with np.load(file) as saved:
        return dict(saved)


def apart(found: dict[str, Any], base: dict[str, Any], part: str) -> tuple[float, float]:
    """max |a - b| / max |b| over all arrays of this part together, and of the worst by itself."""
    names = [name for name in base if name.startswith(part)]
    gaps = [float(np.abs(found[name] - base[name]).max()) for name in names]
    sizes = [float(np.abs(base[name]).max()) for name in names]
    return max(gaps) / max(sizes), max(gap / s for gap, s in zip(gaps, sizes, strict=True))


def compare(found: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per number of ranks and dtype, each against the single process."""
    rows = []
    for dtype in DTYPES:
        for n, of in found.items():
            gradient, worst = apart(of, found[1], f"{dtype}/gradient/")
            plain = {k.replace("/AdamW/", "/ZeRO/"): v for k, v in of.items() if "/AdamW/" in k}
            most = {kind: int(of[f"{dtype}/{kind}/bytes"].max()) for kind in ("AdamW", "ZeRO")}
            whole = int(found[1][f"{dtype}/AdamW/bytes"].max())
            rows.append({
                "ranks": n, "dtype": dtype, "gradient": gradient, "gradient_worst_tensor": worst,
                "curve": apart(of, found[1], f"{dtype}/AdamW/losses")[1],
                "zero_curve": apart(of, found[1], f"{dtype}/ZeRO/losses")[1],
                "zero_weights": apart(of, plain, f"{dtype}/ZeRO/weight/")[0],
                "adamw_bytes": most["AdamW"], "zero_bytes": most["ZeRO"],
                "zero_of_one_nth": most["ZeRO"] * n / whole,
            })  # fmt: skip
    return rows


def report(
    size: Size, found: dict[int, dict[str, Any]], file: Path | None, picture: Path | None
) -> None:
    facts = environment()
    rows = compare(found)
    print(heading(facts))
    print(
        f"GPT-2 of {size.n_layer} layers, width {size.n_embd}; joint batch {size.B} x {size.T}; "
        f"{size.steps} steps of AdamW, clipped; against one process\n"
    )
    widths = (6, 9, 9, 13, 10, 12, 13, 12, 10)
    print(row(("ranks", "dtype", "gradient", "worst tensor", "losses", "ZeRO losses",
               "ZeRO weights", "AdamW bytes", "ZeRO bytes"), widths))  # fmt: skip
    for r in rows:
        gaps = (r["gradient"], r["gradient_worst_tensor"], r["curve"], r["zero_curve"],
                r["zero_weights"])  # fmt: skip
        bytes_ = (f"{r['adamw_bytes']:,}", f"{r['zero_bytes']:,}")
        print(row((r["ranks"], r["dtype"], *(f"{gap:.1e}" for gap in gaps), *bytes_), widths))
    print(
        "\ngradient, losses: max |a - b| / max |b|; worst tensor: the same for each parameter by "
        "itself;\nZeRO weights: after the last step, against AdamW on as many ranks\n"
    )
    scale = 1e6
    for dtype in DTYPES:
        of = [r for r in rows if r["dtype"] == dtype]
        for what in ("gradient", "curve", "zero_weights"):
            most = max(r[what] for r in of) * scale
            print(verdict(f"{dtype}, {what}, in millionths", most, TARGET * scale))
    most = max(r["zero_of_one_nth"] for r in rows)
    print(verdict("ZeRO's bytes per rank x ranks / AdamW's", most, 1.01))
    curves = {
        f"{n} rank{'s' * (n > 1)}, {kind}": of[f"float32/{kind}/losses"].tolist()
        for n, of in found.items()
        for kind in ("AdamW", "ZeRO")
    }
    write_json(file, "distributed", facts, size=size._asdict(), rows=rows, curves=curves)
    if picture is not None:
        draw(picture, curves, [r for r in rows if r["dtype"] == "float32"])


def draw(file: Path, curves: dict[str, list[float]], rows: list[dict[str, Any]]) -> None:
    """Loss curves one over the other, and the optimiser's bytes against the number of ranks."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for i, (name, losses) in enumerate(curves.items()):
        width = 1 + 1.6 * (len(curves) - i)  # each inside the one before
        left.plot(range(1, len(losses) + 1), losses, linewidth=width, label=name)
    left.set(xlabel="step", ylabel="loss, nats a token", title="Loss of the joint batch, float32")
    left.legend()
    ns = [r["ranks"] for r in rows]
    whole = rows[0]["adamw_bytes"]
    right.plot(ns, [r["adamw_bytes"] / 1024 for r in rows], "s-", label="AdamW")
    right.plot(ns, [r["zero_bytes"] / 1024 for r in rows], "o-", label="ZeRO-1")
    right.plot(ns, [whole / n / 1024 for n in ns], "k:", label="1 / ranks")
    right.set(xlabel="ranks", ylabel="KiB of moments per rank", title="Memory of the optimiser")
    right.set_xticks(ns)
    right.set_ylim(0)
    right.legend()
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    main()
