"""How well a language model reads: losses token by token, perplexity, HellaSwag, LAMBADA.

HellaSwag: Zellers et al. 2019, scored as llm.c does.  LAMBADA: Paperno et al. 2016.  The ranks of a
job (`tensorgrad.distributed`) share the work, if all of them call, and all get the figures."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

import tensorgrad as tg
import tensorgrad.nn.functional as F
from tensorgrad import distributed
from tensorgrad.models.generation.reader import window
from tensorgrad.models.modes import evaluating
from tensorgrad.models.training.together import summed

Ids = NDArray[np.integer[Any]]
Encode = Callable[[str], Sequence[int]]
Item = TypeVar("Item")
Progress = Callable[[list[Any]], Iterable[Any]]
"""What goes over a list of windows or examples, one by one, and may show how far it is."""


def logits_of(model: Any, ids: tg.Tensor) -> tg.Tensor:
    """(B, T) -> (B, T, V), whether the model answers (logits, loss) or fields."""
    out = model(ids)
    logits: tg.Tensor = out[0] if isinstance(out, tuple) else out.logits
    return logits


def window_of(model: Any) -> int:
    """How many tokens the model sees at once; a great many where its config does not say."""
    return window(model) or 2**31


@tg.no_grad()
def token_losses(model: Any, ids: Any) -> NDArray[np.float32]:
    """-log p(ids[t + 1] | ids[: t + 1]) in nats: (B, T) -> (B, T - 1).

    In evaluation mode; the model is left as it was.  ValueError where T exceeds its window, and for
    ids that the model does not have.
    """
    array = np.asarray(ids, np.int64)
    if array.ndim != 2 or array.shape[1] < 2:
        raise ValueError(
            f"token_losses: expected ids (B, T) with T of 2 or more, not {array.shape}"
        )
    device = next(model.parameters()).device
    check_ids(model, array)
    x = tg.from_numpy(array).to(device)
    with evaluating(model):
        logits = logits_of(model, x)[:, :-1]  # (B, T - 1, V)
    losses = F.cross_entropy(logits.flatten(0, 1).float(), x[:, 1:].flatten(), reduction="none")
    found: NDArray[np.float32] = losses.reshape(len(array), -1).cpu().numpy()
    return found


def check_ids(model: Any, ids: Ids) -> None:
    """ValueError for an id outside of the model's vocabulary."""
    V = getattr(model.config, "vocab_size", math.inf)
    if ids.size and not 0 <= ids.min() <= ids.max() < V:
        wrong = ids.min() if ids.min() < 0 else ids.max()
        raise ValueError(
            f"id {wrong} is none of the {V:,} of the model: the text was encoded with another "
            "vocabulary; give the one that the model was trained with"
        )


# ---- among the ranks of a job


def striped(items: Iterable[Item]) -> list[Item]:
    """Every item in a process alone; of N ranks, the k-th has the items k, k + N, k + 2 N, ..."""
    return list(islice(items, distributed.get_rank(), None, distributed.get_world_size()))


def exponential(mean: float) -> float:
    """exp(mean), and infinity where that is no float."""
    return math.exp(mean) if mean < 700 else math.inf


# ---- perplexity


class Perplexity(NamedTuple):
    """exp(loss), the mean loss in nats a token, and how many tokens were predicted."""

    perplexity: float
    loss: float
    tokens: int


def perplexity(
    model: Any, ids: Any, stride: int | None = None, length: int | None = None,
    progress: Progress = iter,
) -> Perplexity:  # fmt: skip
    """exp of the mean loss over ids (T,), each token predicted once, by sliding windows.

    Every window starts `stride` (default: half its length) behind the last.  What they have in
    common is context only: no token but the first few has less of it than length - stride.
    """
    array = np.asarray(ids)
    if array.ndim != 1 or array.size < 2:
        raise ValueError(f"perplexity: expected a vector of 2 tokens or more, not {array.shape}")
    length, stride = window_sizes(model, length, stride)
    sums = []
    for lo, hi, new in progress(striped(_windows(array.size, length, stride))):
        found = token_losses(model, array[None, lo:hi])[0]
        sums.append(math.fsum(found[len(found) - new :].tolist()))
    mean = summed(math.fsum(sums)) / (array.size - 1)
    return Perplexity(exponential(mean), mean, array.size - 1)


def window_sizes(model: Any, length: int | None, stride: int | None) -> tuple[int, int]:
    """The length of perplexity's windows, at most the model's, and their stride; ValueError."""
    most = window_of(model)
    length = most if length is None else length
    if length < 2:
        raise ValueError(f"perplexity: length must be at least 2, it is {length}")
    length = min(length, most)
    stride = max(1, length // 2) if stride is None else stride
    if not 1 <= stride < length:
        raise ValueError(f"perplexity: stride {stride} must be from 1 to length - 1, {length - 1}")
    return length, stride


def _windows(total: int, window: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """(start, end, how many of its predictions are new) of each window over `total` tokens."""
    done = 1  # the first token is predicted by nobody
    lo = 0
    while done < total:
        hi = min(lo + window, total)
        yield lo, hi, hi - done
        done, lo = hi, lo + stride


# ---- tasks


class Score(NamedTuple):
    """What a task measured: figures by name, and the number of examples."""

    figures: dict[str, float]
    examples: int


def hellaswag(
    model: Any, path: str | os.PathLike[str], encode: Encode, limit: int | None = None,
    progress: Progress = iter,
) -> Score:  # fmt: skip
    """Which ending does the model find likeliest?  A file of JSON lines: ctx, endings, label.

    accuracy: the least summed loss of the ending's tokens; accuracy_norm: the least mean.
    """
    right = right_norm = 0
    examples = list(_examples(path, ("ctx", "endings", "label"), limit))
    for example in progress(striped(examples)):
        context = list(encode(example["ctx"]))
        rows = [context + list(encode(" " + ending)) for ending in example["endings"]]
        sums, means = [], []
        for losses in _of_continuations(model, rows, [len(context)] * len(rows)):
            sums.append(float(losses.sum()))
            means.append(float(losses.mean()))
        label = int(example["label"])
        right += int(np.argmin(sums)) == label
        right_norm += int(np.argmin(means)) == label
    count = len(examples)
    accuracy, accuracy_norm = (float(n) / count for n in summed([right, right_norm]))
    return Score({"accuracy": accuracy, "accuracy_norm": accuracy_norm}, count)


def lambada(
    model: Any, path: str | os.PathLike[str], encode: Encode, limit: int | None = None,
    progress: Progress = iter,
) -> Score:  # fmt: skip
    """Does the model guess the last word?  A file of JSON lines, each with a text.

    accuracy: every token of the word is the likeliest; perplexity: exp of the mean loss a word.
    """
    right, nats = 0, []
    examples = list(_examples(path, ("text",), limit))
    for example in progress(striped(examples)):
        start, _, word = example["text"].rstrip().rpartition(" ")
        if not start or not word:
            raise ValueError(f"{os.fspath(path)}: a text of a single word has nothing to go by")
        context, target = list(encode(start)), list(encode(" " + word))
        losses, likeliest = _greedy(model, context, target)
        right += likeliest == target
        nats.append(float(losses.sum()))
    count = len(examples)
    accuracy, mean = (float(n) / count for n in summed([right, math.fsum(nats)]))
    return Score({"accuracy": accuracy, "perplexity": exponential(mean)}, count)


def _of_continuations(
    model: Any, rows: list[list[int]], starts: list[int]
) -> list[NDArray[np.float32]]:
    """The losses of each row from its start on, all rows in one batch, padded on the right.

    A row longer than the window loses its beginning.
    """
    most = window_of(model)
    cut = [row[-most:] for row in rows]
    width = max(map(len, cut))
    ids = np.zeros((len(cut), width), np.int64)
    for i, row in enumerate(cut):
        ids[i, : len(row)] = row  # what is padded comes later, and nobody looks ahead
    losses = token_losses(model, ids)
    parts = []
    for i, row in enumerate(cut):
        new = min(len(rows[i]) - starts[i], len(row) - 1)
        parts.append(losses[i, len(row) - 1 - new : len(row) - 1])
    return parts


@tg.no_grad()
def _greedy(
    model: Any, context: list[int], target: list[int]
) -> tuple[NDArray[np.float32], list[int]]:
    """The losses of the target's tokens after the context, and the likeliest tokens there."""
    row = np.array([(context + target)[-window_of(model) :]], np.int64)
    check_ids(model, row)
    device = next(model.parameters()).device
    with evaluating(model):
        ids = tg.from_numpy(row).to(device)
        logits = logits_of(model, ids)[0, -len(target) - 1 : -1].float()  # (len(target), V)
    wanted = tg.from_numpy(np.array(target, np.int64)).to(device)
    losses: NDArray[np.float32] = F.cross_entropy(logits, wanted, reduction="none").cpu().numpy()
    return losses, logits.argmax(-1).tolist()


def _examples(
    path: str | os.PathLike[str], names: tuple[str, ...], limit: int | None
) -> Iterator[dict[str, Any]]:
    """The lines of a file, each checked.  ValueError names the file, the line and what is wrong."""
    where, count = os.fspath(path), 0
    if limit is not None and limit < 1:
        raise ValueError(f"{where}: limit must be at least 1, it is {limit}")
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            if limit is not None and count >= limit:
                return
            try:
                example = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{where}, line {number}: no JSON ({error})") from None
            missing = [n for n in names if not isinstance(example, dict) or n not in example]
            if missing:
                raise ValueError(f"{where}, line {number}: without {', '.join(missing)}")
            count += 1
            yield example
    if not count:
        raise ValueError(f"{where}: no examples in it")
