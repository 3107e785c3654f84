"""ZeRO, stage 1: each rank keeps the optimiser's state of its share of the numbers, and steps it.

Rajbhandari et al. 2020.  The memory of the moments falls as 1 / ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any

import numpy as np

from tensorgrad import memory
from tensorgrad.backend import xp_of
from tensorgrad.distributed.world import share_json, world
from tensorgrad.mode import enable_grad
from tensorgrad.optim.optimizer import Optimizer
from tensorgrad.tensor import Tensor


class ZeroRedundancyOptimizer(Optimizer):
    """optimizer_class over all parameters, of which each rank steps one stretch of equal length.

    params and defaults are those of optimizer_class, which must treat every number by itself: SGD,
    Adam, AdamW, RMSprop, Adagrad, Lion.  TypeError for one that does not (Muon).  Gradients must
    be the same on all ranks (GradientBuckets); after `step` the parameters are, too.
    `state_dict` is that of the plain optimiser, whatever the number of ranks; all ranks call it.
    """

    def __init__(
        self, params: Iterable[Any], optimizer_class: type[Optimizer], **defaults: Any
    ) -> None:
        if not optimizer_class.elementwise:
            raise TypeError(
                f"ZeroRedundancyOptimizer: {optimizer_class.__name__} works on whole matrices, "
                "which cannot be cut among ranks"
            )
        whole = optimizer_class(params, **defaults)
        self.whole = whole
        self.defaults, self.param_groups, self.state = (
            whole.defaults,
            whole.param_groups,
            whole.state,
        )
        self.every: list[Tensor] = list(chain(*(group["params"] for group in whole.param_groups)))
        w = world()
        total = sum(p.array.size for p in self.every)
        self.ends = [total * (rank + 1) // w.size for rank in range(w.size)]
        lo, hi = ([0, *self.ends][w.rank], self.ends[w.rank])
        self.shares: dict[int, tuple[Tensor, int, int]] = {}  # parameter -> its part of this rank
        at = 0
        for i, p in enumerate(self.every):
            a, b = max(lo - at, 0), min(hi - at, p.array.size)
            at += p.array.size
            if a < b:
                part = Tensor(_stretch(p, a, b))
                part.requires_grad_()
                self.shares[i] = part, a, b
        numbers = iter(range(len(self.every)))
        groups = []
        for group in whole.param_groups:
            own = [next(numbers) for _ in group["params"]]
            rest = {k: v for k, v in group.items() if k not in ("params", "param_names")}
            mine = [self.shares[i][0] for i in own if i in self.shares]
            groups.append({**rest, "params": mine})
        self.local: Optimizer | None = None
        self.group_of_local = [i for i, group in enumerate(groups) if group["params"]]
        if self.group_of_local:
            self.local = optimizer_class([groups[i] for i in self.group_of_local], **defaults)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step this rank's share, then hand the new numbers round."""
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        if self.local is not None:
            for at, i in enumerate(self.group_of_local):  # schedules change the whole's groups
                new = {k: v for k, v in self.param_groups[i].items() if k != "params"}
                self.local.param_groups[at].update(new)
            for i, (part, a, b) in self.shares.items():
                part.data = Tensor(_stretch(self.every[i], a, b))  # which .to() may have replaced
                grad = self.every[i].grad
                part.grad = None if grad is None else Tensor(grad.array.reshape(-1)[a:b])
            self.local.step()
            for part, _, _ in self.shares.values():
                part.grad = None
        self._hand_round()
        return loss

    def _hand_round(self) -> None:
        """Every rank's stretch to all, rank by rank."""
        w = world()
        if w.size == 1:
            return
        starts, far = [0, *self.ends], []
        for rank in range(w.size):
            at = 0
            for p in self.every:
                a = max(starts[rank] - at, 0)
                b = min(starts[rank + 1] - at, p.array.size)
                at += p.array.size
                if a < b:
                    part = _stretch(p, a, b)
                    if isinstance(part, np.ndarray):
                        w.together().Bcast(part.view(np.uint8), rank)
                    else:
                        far.append((part, rank))
        if far:
            w.nccl.broadcast_all(far)
        for p in self.every:
            memory.stamp(p.array)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Not here: the stretches are cut once.  RuntimeError."""
        raise RuntimeError(
            "ZeroRedundancyOptimizer: the numbers are shared out when it is made; give all groups "
            "then, or make a new one and load this one's state_dict"
        )

    # ---- states, whole

    def state_dict(self) -> dict[str, Any]:
        """The plain optimiser's state, put together from all ranks, on all ranks."""
        w = world()
        own = {} if self.local is None else self.local.state
        state: dict[int, dict[str, Any]] = {}
        names = self._names()
        for i, p in enumerate(self.every):
            entries: dict[str, Any] = {}
            share = self.shares.get(i)
            have = own.get(share[0], {}) if share is not None else {}
            for name, scalar in names:
                xp = xp_of(p.array)
                if scalar:
                    value: Any = np.array(
                        float(have[name].array) if name in have else -1.0, np.float64
                    )
                    if w.size > 1:
                        w.together().Allreduce(w.mpi.IN_PLACE, value, w.mpi.MAX)
                    if value >= 0:
                        entries[name] = Tensor(value.astype(np.float32))
                    continue
                moments = np.zeros(p.array.size, p.array.dtype)
                if name in have and share is not None:
                    part = have[name].array
                    moments[share[1] : share[2]] = part if xp is np else part.get()
                if w.size > 1:
                    wide = moments.astype(np.float32) if moments.dtype.itemsize == 2 else moments
                    w.together().Allreduce(w.mpi.IN_PLACE, wide)
                    moments = wide.astype(moments.dtype, copy=False)
                entries[name] = Tensor(xp.asarray(moments.reshape(p.array.shape)))
            if "step" in entries or (entries and not any(scalar for _, scalar in names)):
                state[i] = entries
        groups, first = [], 0
        for group in self.param_groups:
            count = len(group["params"])
            groups.append({**group, "params": list(range(first, first + count))})
            first += count
        return {"state": state, "param_groups": groups}

    def _names(self) -> list[tuple[str, bool]]:
        """The entries that some rank has: (name, whether it is one number), the same everywhere."""
        mine = sorted(
            {
                (name, value.array.ndim == 0)
                for entries in ({} if self.local is None else self.local.state).values()
                for name, value in entries.items()
                if isinstance(value, Tensor)
            }
        )
        w = world()
        if w.size == 1:
            return mine
        every = {tuple(entry) for rank in range(w.size) for entry in share_json(mine, rank)}
        return sorted((str(name), bool(scalar)) for name, scalar in every)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take this rank's share of a plain optimiser's state.  ValueError where it doesn't fit."""
        self.whole.load_state_dict(state_dict)  # checks all, and reads the groups
        if self.local is not None:
            local: dict[int, dict[str, Any]] = {}
            order = list(chain(*(group["params"] for group in self.local.param_groups)))
            number = {id(p): i for i, p in enumerate(order)}
            for i, (part, a, b) in self.shares.items():
                entries = self.whole.state.get(self.every[i], {})
                if entries:
                    local[number[id(part)]] = {
                        name: v
                        if not isinstance(v, Tensor) or v.array.ndim == 0
                        else Tensor(v.array.reshape(-1)[a:b].copy())
                        for name, v in entries.items()
                    }
            groups = self.local.state_dict()["param_groups"]
            self.local.load_state_dict({"state": local, "param_groups": groups})
        self.whole.state.clear()

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.whole.zero_grad(set_to_none)


def _stretch(param: Tensor, a: int, b: int) -> Any:
    """The numbers a ... b - 1 of a parameter, in its own memory."""
    if not param.array.flags.c_contiguous:
        raise RuntimeError(
            f"ZeroRedundancyOptimizer: a parameter of shape {param.shape} is not contiguous in "
            "memory; give it its .contiguous() copy as .data"
        )
    return param.array.reshape(-1)[a:b]
