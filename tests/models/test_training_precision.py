"""Training with products in bfloat16 on float32 weights; what `auto` chooses; B4.9."""

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.models.training import precision
from tensorgrad.models.training.folder import RunFolder
from tensorgrad.models.training.job import train
from tensorgrad.models.training.token_lm import GPT2
from tests.models.small_gpt2 import TINY, gradients, shards, small_trainer


def rounded(array):
    """To the eight bits of bfloat16, to even: the arithmetic of its definition."""
    bits = np.asarray(array, np.float32).view(np.uint32).astype(np.uint64)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return bits.astype(np.uint32).view(np.float32)


def test_it_trains_near_float32(tmp_path):
    """Losses apart by what eight bits cost, and not equal; weights and moments stay float32."""
    losses = []
    for dtype in ("float32", "bfloat16"):
        trainer = small_trainer(shards(tmp_path / dtype), dtype=dtype, max_iters=40)
        assert trainer.dtype == dtype
        steps = list(trainer.steps())
        losses.append([s.loss for s in steps])
        assert {p.array.dtype for p in trainer.model.parameters()} == {np.dtype("float32")}
        assert {g.dtype for g in gradients(trainer.model).values()} == {np.dtype("float32")}
        moments = trainer.optimizer.state_dict()["state"].values()
        assert {m["exp_avg"].array.dtype for m in moments} == {np.dtype("float32")}
    exact, half = np.array(losses)
    assert not np.array_equal(exact, half)
    np.testing.assert_allclose(half, exact, rtol=0.01)
    assert half[-10:].mean() < half[:10].mean() - 0.3


def test_products_are_of_rounded_numbers(tmp_path):
    """The logits are the product of the rounded hidden state and the rounded head."""
    trainer = small_trainer(shards(tmp_path), dtype="bfloat16")
    model, hidden = trainer.model, []
    model.transformer.ln_f.register_forward_hook(lambda m, given, out: hidden.append(out))
    x, _ = trainer.batches.next()
    with tg.no_grad(), precision.autocast_for("cpu", "bfloat16"):
        logits = model(trainer.placed(x)).logits
    expected = rounded(hidden[0].float().numpy()) @ rounded(model.lm_head.weight.detach().numpy()).T
    np.testing.assert_allclose(logits.float().numpy(), expected, rtol=2**-7, atol=1e-6)


def test_outside_of_the_loss_nothing_is_cast(tmp_path):
    """Backward and optimiser run outside; the block ends with the forward pass."""
    trainer = small_trainer(shards(tmp_path), dtype="bfloat16")
    inside = []
    real = trainer.loss

    def loss(*args, **options):
        inside.append(tg.is_autocast_enabled("cpu"))
        return real(*args, **options)

    trainer.loss = loss
    trainer.take_step()
    trainer.estimate_loss()
    assert inside == [True] * 5 and not tg.is_autocast_enabled("cpu")


def test_auto_is_what_the_device_multiplies_faster(monkeypatch, tmp_path):
    """B4.9: the choice follows the device, and autocast is entered for that device."""
    assert precision.preferred_dtype("cuda") == precision.preferred_dtype("cuda:1") == "bfloat16"
    on_cpu = precision.preferred_dtype("cpu")
    assert on_cpu in ("float32", "bfloat16")
    assert small_trainer(shards(tmp_path / "auto"), dtype="auto").dtype == on_cpu
    entered = []
    monkeypatch.setattr(tg, "autocast", lambda kind, dtype: entered.append((kind, dtype)))
    precision.autocast_for("cuda:1", "bfloat16")
    precision.autocast_for("cpu", "bfloat16")
    precision.autocast_for("cpu", "float32")
    precision.autocast_for("cuda", "float32")
    assert entered == [("cuda", tg.bfloat16), ("cpu", tg.bfloat16)]


def test_the_choice_is_told_and_kept(tmp_path, capsys):
    """The recipe keeps what was asked, so that a run resumed elsewhere chooses anew."""
    folder = shards(tmp_path)
    train(GPT2, {**TINY, "dtype": "bfloat16", "max_iters": 1}, folder, tmp_path / "half")
    assert "on cpu, products in bfloat16, whose peak measured here is" in capsys.readouterr().out
    train(GPT2, {**TINY, "dtype": "auto", "max_iters": 1}, folder, tmp_path / "auto")
    chosen = precision.preferred_dtype("cpu")
    assert f"on cpu, products in {chosen}, whose" in capsys.readouterr().out
    assert RunFolder(tmp_path / "auto").load()["recipe"]["dtype"] == "auto"


def test_other_precisions_are_refused():
    with pytest.raises(ValueError, match="dtype must be one of float32, bfloat16, auto; it is"):
        GPT2.recipe(dtype="float16")


@pytest.mark.gpu
def test_auto_on_a_gpu(tmp_path):
    trainer = small_trainer(shards(tmp_path), dtype="auto", device="cuda")
    trainer.model.to("cuda")
    assert trainer.dtype == "bfloat16"
    assert np.isfinite(trainer.take_step().loss)
