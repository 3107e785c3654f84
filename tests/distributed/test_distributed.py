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

import tensorgrad as tg
from tensorgrad import distributed as dist
from tensorgrad import nn, optim

pytest.importorskip("mpi4py")
MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
JOB = Path(__file__).with_name("job.py")
pytestmark = pytest.mark.skipif(MPIEXEC is None, reason="no mpiexec")

sys.path.insert(0, str(JOB.parent))
import job  # noqa: E402


def start(ranks, task):
    env = {
        **os.environ, "OMP_NUM_THREADS": "1",
        "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PYTHONPATH": str(Path(tg.__file__).parent.parent),
    }  # fmt: skip
    return subprocess.run(
        [MPIEXEC, "-n", str(ranks), sys.executable, str(JOB), task],
        capture_output=True, text=True, timeout=120, env=env, check=False,
    )  # fmt: skip


@functools.cache
def answer(ranks, task):
    done = start(ranks, task)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


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


def test_a_failing_rank_ends_the_job_with_its_message():
    done = start(2, "failing")
    assert done.returncode != 0
    assert "rank 1 of 2 ended the job: ValueError: the disk of rank 1 is full" in done.stderr


def test_a_killed_rank_ends_the_job():
    assert start(2, "killed").returncode != 0


def test_alone_everything_is_trivial():
    assert dist.get_world_size() == 1 and dist.get_rank() == dist.get_local_rank() == 0
    x = tg.ones(3)
    dist.all_reduce(x)
    dist.broadcast(x)
    assert x.tolist() == [1, 1, 1] and dist.share_json([1]) == [1]
    assert [t.tolist() for t in dist.all_gather(x)] == [[1, 1, 1]]


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
