"""What the ranks of a test job do: `mpiexec -n N python job.py TASK`; rank 0 prints JSON."""

import json
import os
import sys
import time

import numpy as np

import tensorgrad as tg
from tensorgrad import distributed as dist
from tensorgrad import nn, optim
from tensorgrad.nn.parallel import DistributedDataParallel

B, CLASSES = 12, 7


class Net(nn.Module):
    """Two layers, a shared one, one that is never used and one that only rank 0 uses."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(11, 13), nn.Linear(13, 13)
        self.head = nn.Linear(13, CLASSES)
        self.unused, self.some = nn.Linear(3, 2), nn.Linear(13, 13)

    def forward(self, x):
        x = self.a(x).tanh()
        x = self.b(self.b(x).tanh())
        if dist.get_rank() == 0:
            x = x + 0.1 * self.some(x)
        return self.head(x)


def batch(step):
    rng = np.random.default_rng(step)
    return rng.standard_normal((B, 11)).astype(np.float32), rng.integers(0, CLASSES, B)


def share(array):
    """This rank's rows: the joint batch, cut evenly."""
    rank, size = dist.get_rank(), dist.get_world_size()
    return tg.tensor(array[len(array) * rank // size : len(array) * (rank + 1) // size])


def model(kind=Net):
    tg.manual_seed(dist.get_rank())  # other weights on every rank: the wrapper must mend that
    net = kind()
    return DistributedDataParallel(net, bucket_cap_mb=0.001)


def loss_of(net, step):
    x, y = batch(step)
    return nn.functional.cross_entropy(net(share(x)), share(y))


def gradients():
    net = model()
    loss_of(net, 0).backward()
    return {name: None if p.grad is None else p.grad.tolist() for name, p in net.named_parameters()}


def accumulated():
    net = model()
    with net.no_sync():
        loss_of(net, 0).backward()
        local = net.module.head.bias.grad.clone()
    everyone = np.stack([t.numpy() for t in dist.all_gather(local)])
    loss_of(net, 1).backward()
    apart = len(np.unique(everyone.round(6), axis=0)) == dist.get_world_size()
    return {"head": net.module.head.weight.grad.tolist(), "apart": bool(apart)}


def plain():
    return nn.Sequential(nn.Linear(11, 29), nn.Tanh(), nn.Linear(29, CLASSES))


def curve(zero):
    net = model(plain)
    groups = [
        {"params": [p for p in net.parameters() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in net.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    make = dist.ZeroRedundancyOptimizer if zero else lambda g, kind, **o: kind(g, **o)
    opt = make(groups, optim.AdamW, lr=1e-2)
    schedule = optim.lr_scheduler.StepLR(opt, 5, 0.5)
    losses = []
    for step in range(20):
        opt.zero_grad()
        loss = loss_of(net, step)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        opt.step()
        schedule.step()
        mean = loss.detach().clone()
        dist.all_reduce(mean, dist.ReduceOp.AVG)
        losses.append(mean.item())
        if step == 9 and zero:  # through a state that knows nothing of ranks
            state = opt.state_dict()
            opt = make(groups, optim.AdamW, lr=1.0)
            opt.load_state_dict(state)
            schedule.optimizer = opt
    held = opt.local.state if zero else opt.state
    mine = sum(
        v.array.nbytes for entries in held.values() for v in entries.values() if v.array.ndim
    )
    return {"losses": losses, "bytes": [int(t.item()) for t in dist.all_gather(tg.tensor(mine))]}


def collectives():
    rank, size = dist.get_rank(), dist.get_world_size()
    x = tg.full((3,), float(rank + 1))
    found = {}
    for op in ("sum", "avg", "min", "max"):
        y = x.clone()
        dist.all_reduce(y, op)
        found[op] = y.tolist()
    half = x.bfloat16()
    dist.all_reduce(half)
    found["half"] = half.float().tolist()
    dist.broadcast(x, size - 1)
    found["broadcast"] = x.tolist()
    found["gather"] = [t.tolist() for t in dist.all_gather(tg.tensor([rank, 7]))]
    found["json"] = dist.share_json({"rank": rank, "word": "ä"}, size - 1)
    dist.barrier()
    return found


def failing():
    if dist.get_rank() == 1:
        raise ValueError("the disk of rank 1 is full")
    dist.barrier()
    time.sleep(60)


def killed():
    if dist.get_rank() == 1:
        os.kill(os.getpid(), 9)
    dist.barrier()
    time.sleep(60)


if __name__ == "__main__":
    tasks = {
        "gradients": gradients, "accumulated": accumulated, "collectives": collectives,
        "plain": lambda: curve(False), "zero": lambda: curve(True),
        "failing": failing, "killed": killed,
    }  # fmt: skip
    dist.init_process_group()
    answer = tasks[sys.argv[1]]()
    if dist.get_rank() == 0:
        print(json.dumps(answer))
