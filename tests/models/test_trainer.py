"""The trainer beside a loop of PyTorch's; exact resuming; evaluations that leave no trace."""

import math

import numpy as np
import pytest
import torch

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.data import Text, random_windows
from tensorgrad.models.char_gpt import CharGPT, CharGPTConfig
from tensorgrad.models.training.corpus import Corpus
from tensorgrad.models.training.recipe import Recipe
from tensorgrad.models.training.trainer import Trainer, decay_groups
from tensorgrad.serialization import load_tree, save_tree
from tests.models.torch_char_gpt import TorchCharGPT

TEXT = "what was will be, and what will be was; " * 23
CORPUS = Corpus(Text("a saying", TEXT))
CONFIG = CharGPTConfig(len(CORPUS.vocab), block_size=7, n_layer=1, n_head=3, n_embd=15)
RECIPE = Recipe(
    batch_size=5, max_iters=7, warmup_iters=2, learning_rate=1e-2, min_lr=1e-3,
    eval_interval=3, eval_iters=2, seed=11,
)  # fmt: skip


def trainer(recipe=RECIPE, **sizes):
    tg.manual_seed(recipe.seed)
    model = CharGPT(CharGPTConfig(**{**CONFIG.to_dict(), **sizes}))
    return Trainer(model, recipe, CORPUS.windows(CONFIG.block_size, recipe.batch_size, recipe.seed))


def rates(recipe):
    """nanoGPT's schedule, written once more."""
    for step in range(recipe.max_iters):
        if step < recipe.warmup_iters:
            yield recipe.learning_rate * (step + 1) / (recipe.warmup_iters + 1)
        else:
            t = (step - recipe.warmup_iters) / (recipe.max_iters - recipe.warmup_iters)
            yield recipe.min_lr + (recipe.learning_rate - recipe.min_lr) * (
                0.5 + 0.5 * math.cos(math.pi * t)
            )


def test_the_steps_are_pytorchs():
    """B4.10: from the seed alone: the same weights, batches, rates and losses."""
    ours = list(trainer().steps())
    torch.manual_seed(RECIPE.seed)
    model, generator = TorchCharGPT(CONFIG), torch.Generator().manual_seed(RECIPE.seed)
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.1},
            {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.99),
    )  # fmt: skip
    ids = torch.from_numpy(CORPUS.vocab.encode(TEXT))[: int(0.9 * len(TEXT))]
    T = CONFIG.block_size
    for step, lr in zip(ours, rates(RECIPE), strict=True):
        starts = torch.randint(len(ids) - T, (RECIPE.batch_size,), generator=generator)
        x, y = (torch.stack([ids[i + d : i + d + T] for i in starts]) for d in (0, 1))
        loss = model(x, y)[1]
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        assert step.lr == pytest.approx(lr, rel=1e-12)
        assert step.loss == pytest.approx(loss.item(), rel=1e-4)
        assert step.grad_norm == pytest.approx(norm.item(), rel=1e-3)


def test_the_loss_falls():
    recipe = Recipe(batch_size=5, max_iters=150, learning_rate=1e-2, min_lr=1e-3, warmup_iters=5)
    steps = list(trainer(recipe).steps())
    assert steps[0].loss > 2 > 1 > steps[-1].val_loss
    assert steps[-1].val_loss < CORPUS.bigram


def test_evaluations_come_at_intervals_and_last():
    """B1.7."""
    steps = list(trainer().steps())
    assert [s.step for s in steps] == [1, 2, 3, 4, 5, 6, 7]
    assert [s.step for s in steps if s.val_loss is not None] == [3, 6, 7]
    assert all((s.train_loss is None) == (s.val_loss is None) for s in steps)
    assert {s.tokens for s in steps} == {5 * 7}


def test_an_evaluation_leaves_no_trace():
    """B2.35: same losses before and after; the stream of batches, dropout and modes untouched."""
    plain, watched = trainer(dropout=0.2), trainer(dropout=0.2)
    expected = [plain.take_step().loss for _ in range(5)]
    tg.manual_seed(RECIPE.seed)
    watched = trainer(dropout=0.2)
    seen = []
    for _ in range(5):
        first = watched.estimate_loss()
        assert first == watched.estimate_loss()
        assert all(module.training for module in watched.model.modules())
        seen.append(watched.take_step().loss)
    assert seen == expected
    assert not any(p.grad.requires_grad for p in watched.model.parameters())


def test_an_evaluation_is_the_mean_of_its_batches():
    trained = trainer()
    generator = tg.Generator().manual_seed(RECIPE.seed + 1)
    losses = []
    for _ in range(RECIPE.eval_iters):
        ids = random_windows(CORPUS.ids["val"], CONFIG.block_size, RECIPE.batch_size, generator)
        x, y = map(tg.from_numpy, ids)
        losses.append(trained.model.eval()(x, y)[1].item())
    assert trained.estimate_loss()["val"] == pytest.approx(sum(losses) / len(losses), rel=1e-12)


@pytest.mark.parametrize("stop", range(RECIPE.max_iters))
def test_resumed_anywhere_it_goes_on_bit_for_bit(stop, tmp_path):
    """B1.10: 7 steps = k steps, a checkpoint on disk, all objects made anew, 7 - k steps."""
    whole = trainer(dropout=0.2)
    expected = [step.loss for step in whole.steps()]
    first = trainer(dropout=0.2)
    losses = [first.take_step().loss for _ in range(stop)]
    save_tree(tmp_path / "state", first.state())
    tg.manual_seed(99)  # a new process knows nothing of the old one's generators
    second = trainer(Recipe(**{**RECIPE.to_dict(), "seed": 12}), dropout=0.2)
    second.load_state(load_tree(tmp_path / "state"))
    losses += [step.loss for step in second.steps()]
    assert losses == expected
    for name, weight in whole.model.state_dict().items():
        assert second.model.state_dict()[name].array.tobytes() == weight.array.tobytes(), name
    assert equal(second.state(), whole.state())


def equal(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return np.array_equal(a, b)


def test_a_resumed_run_obeys_its_own_recipe():
    first = trainer()
    first.take_step()
    recipe = Recipe(**{**RECIPE.to_dict(), "learning_rate": 5e-3, "weight_decay": 0.3})
    second = trainer(recipe)
    second.load_state(first.state())
    assert second.take_step().lr == pytest.approx(list(rates(recipe))[1], rel=1e-12)
    assert [g["weight_decay"] for g in second.optimizer.param_groups] == [0.3, 0.0]


def test_another_models_state_is_refused_and_changes_nothing():
    small, large = trainer(), trainer(n_embd=21)
    before = {k: v.array.copy() for k, v in small.model.state_dict().items()}
    with pytest.raises(RuntimeError, match=r"size mismatch for wte.weight"):
        small.load_state(large.state())
    for name, weight in small.model.state_dict().items():
        np.testing.assert_array_equal(weight.array, before[name])


def test_only_matrices_decay():
    """B0.19."""
    model = CharGPT(CONFIG)
    decayed, kept = decay_groups(model, 0.1)
    names = {id(p): name for name, p in model.named_parameters()}
    assert decayed["weight_decay"] == 0.1 and kept["weight_decay"] == 0.0
    assert {names[id(p)].rpartition(".")[2] for p in decayed["params"]} == {"weight"}
    vectors = {names[id(p)] for p in kept["params"]}
    assert {"ln_f.weight", "ln_f.bias", "lm_head.bias", "blocks.0.ln_1.weight"} <= vectors
    assert len(decayed["params"]) + len(kept["params"]) == len(names)
    assert len(decay_groups(nn.LayerNorm(3), 0.1)) == 1


def test_a_loss_that_is_not_finite_stops_before_the_weights_do():
    broken = trainer()
    with tg.no_grad():
        broken.model.lm_head.bias[2] = float("inf")
    before = broken.model.wte.weight.array.copy()
    with pytest.raises(FloatingPointError, match=r"at step 1 the loss is nan.*lower learning_rate"):
        broken.take_step()
    np.testing.assert_array_equal(broken.model.wte.weight.array, before)
    assert broken.step == 0


def test_without_decay_the_rate_is_constant_and_without_clip_the_gradient_whole():
    recipe = Recipe(**{**RECIPE.to_dict(), "decay_lr": False, "grad_clip": 0.0})
    whole = trainer(recipe)
    steps = list(whole.steps())
    assert {step.lr for step in steps} == {1e-2}
    total = math.sqrt(sum(float((p.grad.array**2).sum()) for p in whole.model.parameters()))
    assert steps[-1].grad_norm == pytest.approx(total, rel=1e-5)


def test_a_short_run_warms_up_in_fewer_steps():
    recipe = Recipe(**{**RECIPE.to_dict(), "max_iters": 3, "warmup_iters": 100})
    assert len([step.lr for step in trainer(recipe).steps()]) == 3


def test_a_short_text_is_refused():
    with pytest.raises(ValueError, match=r"'tiny' is too short: of 41 characters a tenth, 5, is"):
        Corpus(Text("tiny", TEXT[:41])).windows(7, 3)
    with pytest.raises(ValueError, match="a block_size of 4 at most"):
        Corpus(Text("tiny", TEXT[:41])).windows(7, 3)
    with pytest.raises(ValueError, match="'x' is too short"):
        Corpus(Text("x", "x")).windows(1, 1)
