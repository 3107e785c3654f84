"""What the ranks of a test job do: `mpiexec -n N python job.py TASK ...`; rank 0 prints JSON."""

import contextlib
import copy
import json
import os
import sys
import time

import numpy as np

import tensorgrad as tg
import tensorgrad.kernels.cpu.blas
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
    odd = dist.share_json([float("nan"), float("inf"), 0.1 + 0.2, 1e300])
    found["odd"] = odd[0] != odd[0] and odd[1:] == [float("inf"), 0.1 + 0.2, 1e300]
    any_ = tg.tensor([rank == 0, False])
    dist.all_reduce(any_, dist.ReduceOp.MAX)
    found["bool"] = any_.tolist()
    int16 = tg.tensor([rank + 1], dtype=tg.int16)
    dist.all_reduce(int16)
    found["int16"] = int16.tolist()
    found["0-d"] = [(t * 2).item() for t in dist.all_gather(tg.tensor(float(rank)))]
    dist.barrier()
    return found


def agree():
    """Micro-batches, a frozen weight, clipping, float64: weights stay the same bit for bit."""
    tg.manual_seed(dist.get_rank())
    net = nn.Sequential(nn.Linear(11, 29), nn.Tanh(), nn.Linear(29, CLASSES))
    net[0].weight.requires_grad_(False)
    double = nn.Linear(CLASSES, CLASSES).double()
    whole = DistributedDataParallel(nn.ModuleList([net, double]), bucket_cap_mb=0.0005)
    frozen = net[0].weight.detach().clone()
    opt = optim.AdamW([p for p in whole.parameters() if p.requires_grad], lr=1e-2)
    norms, views = [], set()
    for step in range(12):
        opt.zero_grad(set_to_none=step % 2 == 0)
        for micro in range(3):
            x, y = batch(3 * step + micro)
            with whole.no_sync() if micro < 2 else contextlib.nullcontext():
                out = double(net(share(x)).double())
                (nn.functional.cross_entropy(out, share(y)) / 3).backward()
        views |= {p.grad.array.base is None for p in whole.parameters() if p.grad is not None}
        norms.append(nn.utils.clip_grad_norm_(whole.parameters(), 0.1).item())
        opt.step()
    flat = tg.cat([p.detach().reshape(-1).double() for p in whole.parameters()])
    everyone = dist.all_gather(tg.cat([flat, tg.tensor(norms, dtype=tg.float64)]))
    return {
        "same": all(bool((t == everyone[0]).all()) for t in everyone),
        "moved": bool((net[2].weight != 0).any()) and len(set(norms)) == 12,
        "frozen": bool((net[0].weight == frozen).all()) and net[0].weight.grad is None,
        "dtypes": sorted({str(p.grad.dtype) for p in whole.parameters() if p.grad is not None}),
        "views": views == {False},  # no gradient is held twice
        "copy": copied(whole),
    }


def copied(whole):
    """A deep copy, such as a mean of weights, has weights of its own and averages nothing."""
    twin = copy.deepcopy(whole.module)
    if dist.get_rank() == 0:
        twin[1](tg.ones(2, CLASSES, dtype=tg.float64)).sum().backward()
    return twin[1].weight is not whole.module[1].weight


def overlap():
    """How many buckets were on their way before backward reached the first layer."""
    net = DistributedDataParallel(nn.Sequential(*[nn.Linear(31, 31) for _ in range(6)]), 0.001)
    buckets, seen = net.__dict__["buckets"], []
    x = tg.ones(3, 31)
    for i, layer in enumerate(net.module):
        x = layer(x)
        if i == 0:
            x.register_hook(lambda g: seen.append(buckets.launched))
    x.sum().backward()
    return {"under_way": seen[0], "buckets": len(buckets.buckets)}


def half_way():
    """A pass that fails on every rank; the next one must not average what was sent before."""
    net = DistributedDataParallel(nn.Sequential(*[nn.Linear(31, 31) for _ in range(3)]), 0.001)

    def out_of_memory(g):
        raise MemoryError

    x = net.module[0](tg.ones(3, 31))
    hook = x.register_hook(out_of_memory)
    y = net.module[2](net.module[1](x))
    with contextlib.suppress(MemoryError):
        y.sum().backward()
    hook.remove()
    try:
        net(tg.ones(3, 31)).sum().backward()
    except RuntimeError as error:
        message = str(error)
    for bucket in net.__dict__["buckets"].buckets:
        if bucket.request is not None:
            bucket.request.Wait()
    return message


def other_model():
    DistributedDataParallel(nn.Linear(3, 2 + dist.get_rank()))


def thawed():
    net = nn.Linear(3, 2)
    net.weight.requires_grad_(False)
    wrapped = DistributedDataParallel(net)
    net.weight.requires_grad_(True)
    wrapped(tg.ones(1, 3)).sum().backward()


def cores():
    own, blas = tg.kernels.cpu.threads.get_num_threads(), tg.kernels.cpu.blas._openblas()
    return {"kernels": own, "blas": blas and blas[1], "said": os.environ["OMP_NUM_THREADS"]}


def failing():
    if dist.get_rank() == 1:
        raise ValueError("the disk of rank 1 is full")
    dist.barrier()
    time.sleep(60)


def ending(how):
    """Rank 1 ends by `how`; the others wait for it, some in a reduction and some at the barrier."""
    net = model(plain)
    loss_of(net, 0).backward()
    if dist.get_rank() == 1:
        how()
        return
    if dist.get_rank() == 0:
        loss_of(net, 1).backward()
    dist.barrier()
    time.sleep(60)


def system_exit():
    raise SystemExit("no such file")


def late():
    """Rank 0 still works when the others have ended: nobody waits, all is well."""
    if dist.get_rank() == 0:
        time.sleep(1)
    return "well"


if __name__ == "__main__":
    tasks = {
        "gradients": gradients, "accumulated": accumulated, "collectives": collectives,
        "plain": lambda: curve(False), "zero": lambda: curve(True),
        "agree": agree, "overlap": overlap, "half_way": half_way, "other_model": other_model,
        "thawed": thawed, "cores": cores, "late": late, "failing": failing,
        "killed": lambda: ending(lambda: os.kill(os.getpid(), 9)),
        "terminated": lambda: ending(lambda: os.kill(os.getpid(), 15)),
        "exit": lambda: ending(lambda: sys.exit(1)),
        "system_exit": lambda: ending(system_exit),
        "early": lambda: ending(lambda: None),
    }  # fmt: skip
    dist.init_process_group()
    answers = {task: tasks[task]() for task in sys.argv[1:]}
    if dist.get_rank() == 0:
        print(json.dumps(answers))
