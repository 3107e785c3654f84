"""Jobs of two and four ranks under mpiexec, against one process on the joint batch."""

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import tensorgrad as tg
from tensorgrad import distributed as dist
from tensorgrad import nn, optim
from tensorgrad.distributed.cores import fair_share
from tensorgrad.utils.checkpoint import checkpoint

pytest.importorskip("mpi4py")
MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
JOB = Path(__file__).with_name("job.py")
pytestmark = pytest.mark.skipif(MPIEXEC is None, reason="no mpiexec")

sys.path.insert(0, str(JOB.parent))
import job  # noqa: E402

TASKS = {  # what jobs of so many ranks are asked for, all at one go
    1: ["plain", "zero"],
    2: ["collectives", "gradients", "accumulated", "plain", "zero", "agree", "overlap", "half_way"],
    3: ["agree", "late"],
    4: ["collectives", "gradients", "plain", "zero"],
}


def start(ranks, *tasks, threads="1"):
    env = {
        **os.environ, "OMP_NUM_THREADS": threads,
        "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PYTHONPATH": str(Path(tg.__file__).parent.parent),
    }  # fmt: skip
    return subprocess.run(
        [MPIEXEC, "-n", str(ranks), sys.executable, str(JOB), *tasks],
        capture_output=True, text=True, timeout=120, env=env, check=False,
    )  # fmt: skip


@functools.cache
def answers(ranks, *tasks, threads="1"):
    done = start(ranks, *tasks, threads=threads)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def answer(ranks, task):
    return answers(ranks, *TASKS[ranks])[task]


@pytest.mark.parametrize("ranks", [2, 4])
def test_collectives(ranks):
    found = answer(ranks, "collectives")
    total = ranks * (ranks + 1) / 2
    assert found["sum"] == found["half"] == [total] * 3
    assert found["avg"] == [total / ranks] * 3
    assert found["min"] == [1] * 3 and found["max"] == [ranks] * 3
    assert found["broadcast"] == [ranks] * 3
    assert found["gather"] == [[rank, 7] for rank in range(ranks)]
    assert found["json"] == {"rank": ranks - 1, "word": "ä"}
    assert found["odd"] and found["bool"] == [True, False] and found["int16"] == [total]
    assert found["0-d"] == [2 * rank for rank in range(ranks)]


@pytest.mark.parametrize("ranks", [2, 4])
def test_gradients_are_those_of_the_joint_batch(ranks):
    tg.manual_seed(0)
    net = job.Net()
    x, y = (tg.tensor(a) for a in job.batch(0))
    hidden = net.b(net.b(net.a(x).tanh()).tanh())
    first = tg.tensor((np.arange(job.B) < job.B // ranks)[:, None])  # rank 0's rows
    hidden = hidden + tg.where(first, 0.1 * net.some(hidden), tg.zeros_like(hidden))
    nn.functional.cross_entropy(net.head(hidden), y).backward()
    found = answer(ranks, "gradients")
    for name, p in net.named_parameters():
        if p.grad is None:
            assert found[f"module.{name}"] is None, name
        else:
            np.testing.assert_allclose(found[f"module.{name}"], p.grad.numpy(), 1e-5, 1e-6, name)
    assert found["module.unused.weight"] is None


def test_accumulation_averages_once():
    tg.manual_seed(0)
    net = job.Net()
    for step in (0, 1):
        for rank in range(2):
            x, y = (a[rank * 6 : rank * 6 + 6] for a in job.batch(step))
            hidden = net.b(net.b(net.a(tg.tensor(x)).tanh()).tanh())
            if rank == 0:
                hidden = hidden + 0.1 * net.some(hidden)
            (nn.functional.cross_entropy(net.head(hidden), tg.tensor(y)) / 2).backward()
    found = answer(2, "accumulated")
    assert found["apart"], "under no_sync the ranks' gradients must differ"
    np.testing.assert_allclose(found["head"], net.head.weight.grad.numpy(), 1e-5, 1e-6)


@pytest.mark.parametrize("ranks", [2, 4])
def test_curves_overlay_and_zero_equals_plain_adamw(ranks):
    alone = answer(1, "plain")
    for task in ("plain", "zero"):
        np.testing.assert_allclose(answer(ranks, task)["losses"], alone["losses"], 2e-6)


@pytest.mark.parametrize("ranks", [2, 4])
def test_moments_are_shared_out(ranks):
    whole = answer(1, "zero")["bytes"][0]
    shares = answer(ranks, "zero")["bytes"]
    assert sum(shares) == whole == answer(1, "plain")["bytes"][0]
    assert max(shares) <= whole / ranks + 16


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_agree_bit_for_bit(ranks):
    found = answer(ranks, "agree")
    assert found["same"], "weights or norms differ between ranks"
    assert found["moved"] and found["frozen"] and found["copy"]
    assert found["views"], "a gradient has memory beside its bucket's"
    assert found["dtypes"] == ["float32", "float64"]


def test_buckets_travel_while_backward_runs():
    found = answer(2, "overlap")
    assert found["buckets"] == 12
    assert found["under_way"] == 10  # all but the first layer's weight and bias


def test_a_pass_that_failed_half_way_is_not_averaged():
    assert "the ranks no longer agree on what was sent" in answer(2, "half_way")


def test_ranks_must_train_the_same_parameters():
    done = start(2, "other_model")
    assert done.returncode != 0
    assert "every rank must build the same model and freeze the same parameters" in done.stderr
    done = start(2, "thawed")
    assert done.returncode != 0
    assert "make DistributedDataParallel after requires_grad_" in done.stderr


def test_a_failing_rank_ends_the_job_with_its_message():
    done = start(2, "failing")
    assert done.returncode != 0
    assert "rank 1 of 2 ended the job: ValueError: the disk of rank 1 is full" in done.stderr


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "task", ["system_exit", pytest.param("exit", marks=SLOW), pytest.param("early", marks=SLOW)]
)
def test_a_rank_that_ends_while_others_wait_ends_the_job(task):
    done = start(3, task)
    assert done.returncode != 0
    assert "rank 1 of 3 ended the job: it came to its end while rank" in done.stderr
    assert ("no such file" in done.stderr) == (task == "system_exit")


@pytest.mark.parametrize(
    "task, says",
    [("killed", "signal 9"), pytest.param("terminated", "signal 15", marks=SLOW)],
)
def test_a_killed_rank_ends_the_job(task, says):
    done = start(3, task)
    assert done.returncode != 0 and says in done.stderr + done.stdout


def test_ranks_may_end_at_different_times():
    assert answer(3, "late") == "well"


def test_ranks_share_the_cores():
    here = len(os.sched_getaffinity(0))
    found = answers(2, "cores", threads="")["cores"]
    assert found["kernels"] == int(found["said"]) == max(1, here // 2)
    assert found["blas"] is None or found["blas"] <= max(1, here // 2)
    assert answers(2, "cores", threads="3")["cores"]["kernels"] == 3  # as the user said


@pytest.mark.parametrize(
    "ranks_on, mine, threads",
    [
        ([2, 2, 2, 2], [0, 1, 2, 3], 2),  # bound to nothing: the machine is divided
        ([1, 1, 1, 1], [2, 3], 2),  # bound to cores of its own
        ([3, 3, 3, 3, 1], [0, 1, 2, 3], 1),  # one core and a third
        ([7, 7, 7], [0, 1, 2], 1),  # more ranks than cores
        ([3] * 6 + [0, 2], [0, 1, 2, 3, 4, 5, 7], 2),
    ],
)
def test_a_ranks_share_of_the_cores(ranks_on, mine, threads):
    assert fair_share(mine, ranks_on) == threads


def test_alone_everything_is_trivial():
    assert dist.get_world_size() == 1 and dist.get_rank() == dist.get_local_rank() == 0
    x = tg.ones(3)
    dist.all_reduce(x)
    dist.broadcast(x)
    assert x.tolist() == [1, 1, 1] and dist.share_json([1]) == [1]
    assert [t.tolist() for t in dist.all_gather(x)] == [[1, 1, 1]]
    assert dist.share_json({1: (2, 3)}) == {"1": [2, 3]}  # as with many ranks


def test_what_cannot_be():
    with pytest.raises(ValueError, match=r"op must be one of ReduceOp's, not 'product'"):
        dist.all_reduce(tg.ones(1), "product")
    with pytest.raises(ValueError, match=r"backend must be 'mpi' or 'nccl', not 'gloo'"):
        dist.init_process_group("gloo")
    with pytest.raises(RuntimeError, match=r"none of the parameters requires a gradient"):
        dist.GradientBuckets([tg.ones(3)])
    weight = nn.Parameter(tg.ones(3, 3))
    with pytest.raises(TypeError, match=r"Muon works on whole matrices"):
        dist.ZeroRedundancyOptimizer([weight], optim.Muon)
    zero = dist.ZeroRedundancyOptimizer([weight], optim.AdamW)
    with pytest.raises(RuntimeError, match=r"give all groups then"):
        zero.add_param_group({"params": [nn.Parameter(tg.ones(2))]})
    with pytest.raises(TypeError, match=r"share_json: Object of type Tensor is not JSON"):
        dist.share_json(weight)


def test_zero_steps_the_arrays_that_the_parameters_have_now():
    net, plain = nn.Linear(5, 3), nn.Linear(5, 3)
    plain.load_state_dict(net.state_dict())
    zero = dist.ZeroRedundancyOptimizer(net.parameters(), optim.AdamW, lr=0.1)
    opt = optim.AdamW(plain.parameters(), lr=0.1)
    net.load_state_dict({k: v.clone() for k, v in net.state_dict().items()}, assign=True)
    for model, optimizer in ((net, zero), (plain, opt)):
        model(tg.ones(2, 5)).sum().backward()
        optimizer.step()
    assert net.weight.tolist() == plain.weight.tolist()


def test_a_leafs_hook_comes_when_its_gradient_is_complete():
    """Before older layers run: also for a shared leaf, one in a checkpoint, one that is unused."""
    log = []
    leaves = {n: tg.full((3,), 1.0 + i, requires_grad=True) for i, n in enumerate("abcde")}
    for name, leaf in leaves.items():
        leaf.register_post_accumulate_grad_hook(lambda t, n=name: log.append((n, t.grad.tolist())))

    def layer(x, name, *leaves):
        for leaf in leaves:
            x = x * leaf
        x.register_hook(lambda g: log.append(name))
        return x

    a, b, c, d, e = leaves.values()
    x = layer(tg.ones(3), "first", a)
    side = layer(x, "side", e)
    x = layer(x, "second", b, c)
    x = checkpoint(lambda x: (x * d).tanh() + x, x)
    x = layer(x, "last", c)
    (x.sum() + (side * 0).sum()).backward()
    order = [entry if isinstance(entry, str) else entry[0] for entry in log]
    assert order == ["last", "d", "second", "c", "b", "side", "e", "first", "a"]
    for name, grad in (entry for entry in log if not isinstance(entry, str)):
        assert leaves[name].grad.tolist() == grad, f"the hook of {name} saw a part"
    theirs = [torch.full((3,), 1.0 + i, requires_grad=True) for i in range(5)]
    a, b, c, d, e = theirs
    x = a * b * c
    ((((x * d).tanh() + x) * c).sum() + (a * e * 0).sum()).backward()
    for leaf, other in zip(leaves.values(), theirs):
        np.testing.assert_allclose(leaf.grad.numpy(), other.grad.numpy(), 1e-6)


def test_hooks_see_the_gradient_that_was_accumulated():
    x = tg.ones(3, requires_grad=True)
    seen = []
    hook = x.register_post_accumulate_grad_hook(lambda t: seen.append(t.grad.tolist()))
    for _ in range(2):
        (x * 2 + x).sum().backward()
    hook.remove()
    (x * 2).sum().backward()
    assert seen == [[3, 3, 3], [6, 6, 6]] and x.grad.tolist() == [8, 8, 8]
    with pytest.raises(RuntimeError, match=r"only for leaves that require grad"):
        (x * 2).register_post_accumulate_grad_hook(print)
