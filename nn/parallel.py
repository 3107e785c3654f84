"""DistributedDataParallel: one model on many ranks, each with its own batch, the same gradients."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from tensorgrad.distributed import GradientBuckets, broadcast
from tensorgrad.nn.module import Module


class DistributedDataParallel(Module):
    """module(...), its weights those of rank 0, its gradients averaged over the ranks in backward.

    Under `no_sync()` gradients only accumulate; the next pass outside averages them all.  Each
    `.grad` is then a view of memory that the next pass writes into.
    """

    def __init__(self, module: Module, bucket_cap_mb: float = 25) -> None:
        super().__init__()
        self.module = module
        self.__dict__["buckets"] = GradientBuckets(module.parameters(), bucket_cap_mb)
        for tensor in (*module.parameters(), *module.buffers()):
            broadcast(tensor.detach())

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def no_sync(self) -> AbstractContextManager[None]:
        """A `with` block whose backward passes accumulate without averaging."""
        buckets: GradientBuckets = self.__dict__["buckets"]
        return buckets.no_sync()
