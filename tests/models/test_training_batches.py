"""Which tokens a step takes: the same for any number of processes, and what evaluations leave."""

import numpy as np
import pytest

from tensorgrad import distributed as dist
from tensorgrad.data import TokenLoader
from tensorgrad.models.training.batches import RandomWindows, ShardBatches
from tests.models.small_gpt2 import T, shards, small_trainer
from tests.models.token_folder import language, token_folder

IDS = {"train": language(211), "val": language(83, seed=1)}


@pytest.fixture
def folder(tmp_path):
    """24 windows of 7 and one of 4 targets to train on; 8 and one of 2 to validate."""
    return shards(tmp_path)


def on(rank, size, monkeypatch, make):
    """What `make` makes as this rank of so many."""
    with monkeypatch.context() as patch:
        patch.setattr(dist, "get_rank", lambda: rank)
        patch.setattr(dist, "get_world_size", lambda: size)
        return make()


KINDS = {
    "random windows": lambda folder, B: RandomWindows(IDS, T, B, 5),
    "shards": lambda folder, B: ShardBatches(folder, T, B, 5),
    "shuffled shards": lambda folder, B: ShardBatches(folder, T, B, 5, shuffle=True),
}


def rows(batch):
    return [(*x, *y) for x, y in zip(*(part.tolist() for part in batch))]


def step_windows(kind, folder, monkeypatch, size, B, times, steps):
    """For each step, the windows of all ranks, sorted."""
    ranks = [on(r, size, monkeypatch, lambda: KINDS[kind](folder, B)) for r in range(size)]
    return [
        sorted(row for batches in ranks for _ in range(times) for row in rows(batches.next()))
        for _ in range(steps)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_takes_the_same_windows_on_any_number_of_ranks(kind, folder, monkeypatch):
    """Eight batches of two a step, over the end of the second epoch."""
    alone = step_windows(kind, folder, monkeypatch, 1, 2, 8, 4)
    assert len({tuple(step) for step in alone}) == 4 and len(alone[0]) == 16
    for size in (2, 4):
        assert step_windows(kind, folder, monkeypatch, size, 2, 8 // size, 4) == alone
    if kind != "random windows":  # rows of the same tokens as one batch of sixteen
        assert step_windows(kind, folder, monkeypatch, 1, 16, 1, 4) == alone


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("count", [1, 3, 99])
def test_shares_of_an_evaluation_are_the_whole(kind, split, count, folder, monkeypatch):
    """Each numbered batch on one rank, the same as one process sees; the same every time."""
    [alone] = [on(0, 1, monkeypatch, lambda: KINDS[kind](folder, 2))]
    whole = {i: rows(batch) for i, batch in alone.fixed(split, count)}
    assert whole == {i: rows(batch) for i, batch in alone.fixed(split, count)}
    most = {"train": 13, "val": 5}[split] if kind != "random windows" else 99
    assert list(whole) == list(range(min(count, most)))
    for size in (2, 4):
        found = [
            (i, rows(batch)) for rank in range(size) for i, batch in
            on(rank, size, monkeypatch, lambda: KINDS[kind](folder, 2)).fixed(split, count)
        ]  # fmt: skip
        assert len(found) == len(whole) and dict(found) == whole


@pytest.mark.parametrize("kind", KINDS)
def test_an_evaluation_does_not_move_the_stream(kind, folder):
    """B2.35: of either split, in part or whole, in the midst of the batches."""
    plain, watched = KINDS[kind](folder, 2), KINDS[kind](folder, 2)
    expected = [rows(plain.next()) for _ in range(30)]
    found = []
    for i in range(30):
        before = watched.state()
        for split in ("train", "val"):
            list(watched.fixed(split, 4))
            next(watched.fixed(split, 4))
        assert str(watched.state()) == str(before)
        found.append(rows(watched.next()))
        if i == 7:
            list(watched.fixed("train", 99))
    assert found == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_goes_on_at_another_number_of_ranks(kind, folder, monkeypatch):
    """Five batches of one process, then two ranks take what the one would have taken."""
    alone = KINDS[kind](folder, 2)
    for _ in range(5):
        alone.next()
    state = alone.state()
    following = sorted(row for _ in range(4) for row in rows(alone.next()))
    found = []
    for rank in range(2):
        batches = on(rank, 2, monkeypatch, lambda: KINDS[kind](folder, 2))
        batches.load_state(state)
        found += [row for _ in range(2) for row in rows(batches.next())]
    assert sorted(found) == following


def test_evaluations_take_the_first_windows_whatever_the_order(folder):
    """Shuffled or not: an evaluation is comparable with that of another run."""
    plain, shuffled = (KINDS[kind](folder, 2) for kind in ("shards", "shuffled shards"))
    assert rows(plain.next()) != rows(shuffled.next())
    for split in ("train", "val"):
        a, b = (dict(x.fixed(split, 3)) for x in (plain, shuffled))
        assert [rows(a[i]) for i in range(3)] == [rows(b[i]) for i in range(3)]
    ids = language(173)
    first = dict(plain.fixed("train", 1))[0]
    np.testing.assert_array_equal(first[0].ravel(), ids[:14])
    np.testing.assert_array_equal(first[1].ravel(), ids[1:15])


def test_epoch_batch_is_a_batch_of_the_epoch(folder):
    """By number and in any order; every target once."""
    with TokenLoader(folder, 4, T) as loader:
        assert loader.batches == 7
        loader.next_batch()
        inside = [rows(batch) for batch in loader.epoch()]
        assert [rows(loader.epoch_batch(i)) for i in reversed(range(7))] == inside[::-1]
        assert loader.position == 4
        assert [len(batch) for batch in inside] == [4, 4, 4, 4, 4, 4, 1]
        targets = [y for batch in inside for row in batch for y in row[T:] if y != -100]
        assert targets == language(173)[1:].tolist()
        for i in (-1, 7):
            with pytest.raises(IndexError, match=rf"epoch_batch: {i} is not among the 7 of an"):
                loader.epoch_batch(i)
    with TokenLoader(folder, 4, T, rank=1, world_size=3) as loader:
        assert loader.batches == 2
        own = [row for i in range(2) for row in rows(loader.epoch_batch(i))]
        assert own == [row for batch in inside for row in batch][1::3]


def test_an_evaluation_weighs_every_target_once(tmp_path):
    """The last window has 2 targets; the mean is over targets and not over batches."""
    import tensorgrad as tg

    trainer = small_trainer(shards(tmp_path), eval_iters=99)
    row = tg.tensor(language(59, seed=1))
    trainer.model.eval()
    losses = []
    with tg.no_grad():
        for start in range(0, 58, T):
            begin = min(start, 58 - T)
            x, y = row[begin : begin + T], row[begin + 1 : begin + T + 1]
            logits = trainer.model(x.reshape(1, T)).logits[0]
            each = tg.nn.functional.cross_entropy(logits, y, reduction="none").numpy()
            losses += each[start - begin :].tolist()
    assert len(losses) == 58
    assert trainer.estimate_loss()["val"] == pytest.approx(np.mean(losses), rel=1e-6)


def test_the_splits_are_files_of_one_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no shards named \*_val_"):
        folder = token_folder(tmp_path / "x", language(99), language(9))
        (folder / "made_val_000000.bin").unlink()
        (folder / "manifest.json").unlink()
        ShardBatches(folder, T, 2, 0)
    with pytest.raises(ValueError, match=r"9 tokens are too few .* 8 with the val shards of"):
        ShardBatches(token_folder(tmp_path / "y", language(99), language(9)), 11, 2, 0)
