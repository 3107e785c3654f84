"""What benchmarks/scaling.py reckons with and this machine can tell: bytes that the engine keeps,
when gradients are complete, and how fast it dispatches, talks, reads and writes.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

import tensorgrad as tg
from tensorgrad import distributed as dist
from tensorgrad import nn, optim
from tensorgrad.backend import is_array
from tensorgrad.data import TokenLoader, write_shard
from tensorgrad.memory import root_of
from tensorgrad.models.gpt2 import GPT2Config, GPT2LMHeadModel
from tensorgrad.nn.parallel import DistributedDataParallel
from tensorgrad.serialization import save_arrays

Clock = Callable[[], float]

FEATURES = ("layer x width", "layer x head", "layer", "width", "vocabulary", "one")
SHAPES = [  # layers, width, heads, vocabulary: enough to tell the features apart
    (1, 64, 2, 211), (2, 64, 2, 211), (3, 96, 3, 307), (2, 128, 4, 307), (1, 128, 8, 401),
    (4, 64, 4, 503), (2, 96, 6, 211),
]  # fmt: skip
CHECKED = (4, 256, 4, 5003)  # larger, and not among them
MODES = {"float32": (False, False), "bf16": (True, False), "bf16, checkpointed": (True, True)}


# -- bytes ----------------------------------------------------------------------------------------


def gpt2(layers: int, width: int, heads: int, vocabulary: int, T: int) -> Any:
    tg.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(
        vocab_size=vocabulary, n_positions=T, n_embd=width, n_layer=layers, n_head=heads,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    ))  # fmt: skip


def loss_of(model: Any, ids: Any, bf16: bool = False) -> Any:
    with tg.autocast("cpu", dtype=tg.bfloat16) if bf16 else nullcontext():
        logits = model(ids).logits  # each token is to name itself: only sizes and times count
        return nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten())


def kept_bytes(out: Any, beside: Iterable[Any]) -> int:
    """The bytes of all arrays that the graph of `out` keeps for backward, those of `beside` not."""
    seen = {id(root_of(tensor.array)) for tensor in beside}
    reached, stack, total = {out.node}, [out.node], 0
    while stack:
        node = stack.pop()
        for array in arrays_in(node.kept):
            root = root_of(array)
            if id(root) not in seen:
                seen.add(id(root))
                total += root.nbytes
        for parent in node.parents:
            if parent is not None and parent not in reached and parent.op is not None:
                reached.add(parent)
                stack.append(parent)
    return total


def arrays_in(kept: Any) -> Iterator[Any]:
    if is_array(kept):
        yield kept
    elif isinstance(kept, tuple | list):
        for one in kept:
            yield from arrays_in(one)


def bytes_per_token(shape: tuple[int, int, int, int], mode: str, T: int = 64) -> float:
    """What one more token keeps: two rows against one, for what is kept once divides out."""
    bf16, again = MODES[mode]
    model = gpt2(*shape, T)
    if again:
        model.train().gradient_checkpointing_enable()
    found = []
    for rows in (1, 2):
        ids = tg.randint(0, shape[3], (rows, T))
        found.append(kept_bytes(loss_of(model, ids, bf16), [ids, *model.parameters()]))
    return (found[1] - found[0]) / T


def features(layers: int, width: int, heads: int, vocabulary: int) -> list[float]:
    return [layers * width, layers * heads, layers, width, vocabulary, 1]


def activations() -> dict[str, dict[str, Any]]:
    """By mode the bytes a token for each feature, and how far they miss a larger model."""
    table = np.array([features(*shape) for shape in SHAPES], float)
    found: dict[str, dict[str, Any]] = {}
    for mode in MODES:
        y = np.array([bytes_per_token(shape, mode) for shape in SHAPES])
        weights = np.linalg.lstsq(table, y, rcond=None)[0]
        measured = bytes_per_token(CHECKED, mode)
        predicted = float(np.dot(features(*CHECKED), weights))
        found[mode] = {
            "bytes": [round(w, 6) + 0.0 for w in weights.tolist()],
            "checked": measured, "missed_by": predicted / measured - 1,
        }  # fmt: skip
    return found


def bytes_per_parameter() -> dict[str, float]:
    """Of weights, gradients and AdamW's moments, from the arrays of a model that took a step."""
    model = gpt2(2, 32, 2, 101, 16)
    opt = optim.AdamW(model.parameters())
    loss_of(model, tg.randint(0, 101, (2, 16))).backward()
    opt.step()
    params = list(model.parameters())
    count = sum(p.numel() for p in params)
    moments = [v for of in opt.state.values() for k, v in of.items() if k != "step"]
    return {
        "weights": sum(p.array.nbytes for p in params) / count,
        "gradients": sum(p.grad.array.nbytes for p in params) / count,
        "moments": sum(v.array.nbytes for v in moments) / count,
    }


def early_share(shape: tuple[int, int, int, int] = (4, 64, 4, 503), T: int = 64) -> float:
    """The share of the gradients' bytes that is complete when backward leaves the lowest block."""
    model = gpt2(*shape, T)
    ready = [0]
    for p in model.parameters():
        p.register_post_accumulate_grad_hook(lambda t: ready.append(ready[-1] + t.array.nbytes))
    at: list[int] = []

    def enter(module: Any, args: Any) -> None:
        args[0].register_hook(lambda g: at.append(ready[-1]))

    model.transformer.h[0].register_forward_pre_hook(enter)
    loss_of(model, tg.randint(0, shape[3], (1, T))).backward()
    return at[0] / ready[-1]


# -- times ----------------------------------------------------------------------------------------


def least(call: Callable[[], object], times: int, clock: Clock = time.perf_counter) -> float:
    """Seconds of the quickest of several calls: what the others take is other people's work."""
    found: list[float] = []
    for _ in range(times):
        start = clock()
        call()
        found.append(clock() - start)
    return min(found)


def dispatch_seconds(times: int) -> float:
    """Forward and backward of twelve layers of almost nothing: what Python takes for a batch."""
    model = gpt2(12, 24, 12, 53, 4)
    ids = tg.randint(0, 53, (1, 4))
    return least(lambda: loss_of(model, ids).backward(), times, time.thread_time)


def loader_tokens_per_second(times: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        shard = Path(folder, "tokens_train_000000.bin")
        write_shard(shard, np.random.default_rng(0).integers(0, 50257, 4_000_000))
        with TokenLoader(folder, 32, 1024) as loader:
            loader.next_batch()
            start = time.perf_counter()  # all of them: some are ready before they are asked for
            for _ in range(10 * times):
                loader.next_batch()
            return 10 * times * 32 * 1024 / (time.perf_counter() - start)


def checkpoint_seconds_per_gigabyte(megabytes: int, times: int = 2) -> float:
    """save_arrays, with its checksums and fsync."""
    arrays = {"x": np.random.default_rng(0).random(megabytes * 125_000)}
    with tempfile.TemporaryDirectory() as folder:
        return 1000 / megabytes * least(lambda: save_arrays(Path(folder, "x"), arrays), times)


def between_ranks(rounds: int) -> dict[str, Any]:
    """In each of several ranks: all-reduces by size, and a backward with and without its own."""
    dist.init_process_group()
    reduces = []
    for size in (1_000, 10_000, 100_000, 1_000_000, 8_000_000, 64_000_000):
        x = tg.zeros(size // 4)

        def reduce(x: Any = x) -> None:
            dist.barrier()
            dist.all_reduce(x)

        reduces.append([size, least(reduce, rounds)])
    net = DistributedDataParallel(gpt2(4, 256, 4, 997, 64), bucket_cap_mb=2)
    ids = tg.randint(0, 997, (2, 64))
    flat = tg.zeros(sum(p.numel() for p in net.parameters()))

    def backward(context: Any) -> float:
        net.zero_grad()
        with context:
            loss = loss_of(net, ids)
            dist.barrier()
            start = time.perf_counter()
            loss.backward()
            dist.barrier()  # until the slower rank is done, which averaging waits for, too
            return time.perf_counter() - start

    backward(nullcontext())
    kinds: dict[str, list[float]] = {"alone": [], "averaging": [], "reduce": []}
    for _ in range(rounds):  # in turns
        kinds["alone"].append(backward(net.no_sync()))
        kinds["averaging"].append(backward(nullcontext()))
        kinds["reduce"].append(least(lambda: dist.all_reduce(flat), 1))
    medians = {kind: statistics.median(of) for kind, of in kinds.items()}
    hidden = 1 - (medians["averaging"] - medians["alone"]) / medians["reduce"]
    return {"ranks": dist.get_world_size(), "all_reduce": reduces, "backward": medians,
            "hidden": hidden}  # fmt: skip
