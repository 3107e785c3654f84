"""Gradients averaged over all ranks while backward still runs: flat buckets, last layers first.

Li et al. 2020, PyTorch Distributed.  A bucket travels as soon as its gradients are complete."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tensorgrad import backward
from tensorgrad.backend import xp_of
from tensorgrad.distributed.world import share_json, world
from tensorgrad.tensor import Tensor


class Bucket:
    """Gradients side by side in one flat array, and behind them a one for each that there is.

    A gradient that moved in is held here alone: `.grad` is a view, the next pass writes into it.
    """

    def __init__(self, params: list[Tensor]) -> None:
        self.params = params
        sizes = [p.array.size for p in params]
        self.offsets = [sum(sizes[:i]) for i in range(len(sizes))]
        first = params[0].array
        xp = xp_of(first)
        half = first.dtype.itemsize == 2  # added up in float32
        self.flat = xp.zeros(sum(sizes) + len(params), np.float32 if half else first.dtype)
        self.views = [
            self.flat[at : at + p.array.size].reshape(p.array.shape)
            for at, p in zip(self.offsets, params)
        ]
        self.flags = self.flat[sum(sizes) :]
        self.same_dtype = not half
        self.restart()

    def restart(self) -> None:
        self.missing = set(range(len(self.params)))
        self.request: Any = None

    def take(self, i: int) -> None:
        """Gradient i is complete: it moves into the bucket, where `.grad` will see the average."""
        param, view = self.params[i], self.views[i]
        grad = param.grad
        if grad is not None and grad.array is not view:
            if type(grad.array) is not type(view) or (
                self.same_dtype and grad.array.dtype != view.dtype
            ):
                raise RuntimeError(
                    f"GradientBuckets: a parameter of shape {param.shape} changed its dtype or "
                    "device; move the model first, then make DistributedDataParallel"
                )
            view[...] = grad.array
            if self.same_dtype:
                param.grad = Tensor(view)  # and the array that backward made is free
        self.missing.discard(i)

    def start(self) -> None:
        """Fill in zeros for what has no gradient here, and let the bucket travel."""
        self.flags[...] = 1
        for i in list(self.missing):
            if self.params[i].grad is None:
                self.views[i][...] = 0
                self.flags[i] = 0
            else:  # accumulated by an earlier pass
                self.take(i)
        w = world()
        if isinstance(self.flat, np.ndarray):
            self.request = w.together().Iallreduce(w.mpi.IN_PLACE, self.flat)
        else:
            self.request = w.nccl.start(self.flat)

    def push(self) -> None:
        """Lend MPI a moment: most of them move data only while they are called."""
        if isinstance(self.flat, np.ndarray):
            self.request.Test()

    def finish(self) -> None:
        """The averages, as `.grad` of each parameter that some rank has a gradient for."""
        w = world()
        if isinstance(self.flat, np.ndarray):
            self.request.Wait()
        else:
            w.nccl.wait(self.request)
        used = [bool(flag) for flag in self.flags.tolist()]
        self.flat *= self.flat.dtype.type(1 / w.size)
        for p, view, there in zip(self.params, self.views, used):
            if there:
                p.grad = Tensor(view if self.same_dtype else view.astype(p.array.dtype))
        self.restart()


class GradientBuckets:
    """Averages the gradients of `parameters` over all ranks, whenever a backward pass ends.

    bucket_cap_mb: megabytes that travel at a time, as in PyTorch.  A parameter without a gradient
    on any rank keeps None.  RuntimeError where the ranks' parameters differ, and where one that
    was frozen when this was made receives a gradient.
    """

    def __init__(self, parameters: Iterable[Tensor], bucket_cap_mb: float = 25) -> None:
        given = list(parameters)
        params = [p for p in given if p.requires_grad]
        self.frozen = [p for p in given if not p.requires_grad]
        if not params:
            raise RuntimeError("GradientBuckets: none of the parameters requires a gradient")
        self.buckets: list[Bucket] = []
        self.place: dict[int, tuple[Bucket, int]] = {}
        self.enabled, self.launched = True, 0
        self.hooks: list[Any] = []
        if world().size == 1:
            return
        _check_alike(params)
        for group in _groups(reversed(params), bucket_cap_mb * 2**20):
            bucket = Bucket(group)
            self.buckets.append(bucket)
            for i, p in enumerate(group):
                self.place[id(p)] = bucket, i
                self.hooks.append(p.register_post_accumulate_grad_hook(self._arrived))

    def _arrived(self, param: Tensor) -> None:
        if not self.enabled:
            return
        if self._finish not in backward.after:  # the first gradient of this pass
            if self.launched:
                raise RuntimeError(
                    "GradientBuckets: the backward pass before this one failed half-way, and the "
                    "ranks no longer agree on what was sent; start again from a checkpoint"
                )
            for bucket in self.buckets:
                bucket.restart()
            backward.after.append(self._finish)
        bucket, i = self.place[id(param)]
        bucket.take(i)
        while self.launched < len(self.buckets) and not self.buckets[self.launched].missing:
            self.buckets[self.launched].start()  # in one order on all ranks
            self.launched += 1
        for bucket in self.buckets[: self.launched]:
            bucket.push()

    def _finish(self) -> None:
        for bucket in self.buckets[self.launched :]:
            bucket.start()
        self.launched = len(self.buckets)
        for bucket in self.buckets:
            bucket.finish()
        self.launched = 0
        for p in self.frozen:
            if p.requires_grad and p.grad is not None:
                raise RuntimeError(
                    f"GradientBuckets: a parameter of shape {p.shape}, frozen when this was made, "
                    "has a gradient now; make DistributedDataParallel after requires_grad_(True)"
                )

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Passes in here only accumulate: of several micro-batches the last pass averages all."""
        before, self.enabled = self.enabled, False
        try:
            yield
        finally:
            self.enabled = before

    def remove(self) -> None:
        """Average no more."""
        for hook in self.hooks:
            hook.remove()


def _check_alike(params: list[Tensor]) -> None:
    """RuntimeError where this rank's parameters are not those of rank 0."""
    mine = [[list(p.shape), str(p.dtype)] for p in params]
    first = share_json(mine)
    if mine != first:
        unlike = [i for i, (a, b) in enumerate(zip(mine, first)) if a != b]
        i = unlike[0] if unlike else min(len(mine), len(first))
        raise RuntimeError(
            f"GradientBuckets: {len(mine)} parameters to train on rank {world().rank}, "
            f"{len(first)} on rank 0, and number {i} differs; every rank must build the same model "
            "and freeze the same parameters"
        )


def _groups(params: Iterable[Tensor], most: float) -> Iterator[list[Tensor]]:
    """Parameters in a row of one dtype, up to `most` bytes; a larger one is by itself."""
    group: list[Tensor] = []
    size = 0
    for p in params:
        if group and (size + p.array.nbytes > most or p.array.dtype != group[0].array.dtype):
            yield group
            group, size = [], 0
        group.append(p)
        size += p.array.nbytes
    if group:
        yield group
