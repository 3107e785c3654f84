"""The loss that training makes small, beside PyTorch's cross_entropy."""

import numpy as np
import pytest
import torch
import torch.nn.functional as TF

import tensorgrad as tg
from tensorgrad.models.training.objective import IGNORED, loss_of
from tensorgrad.models.variants import create_gpt2_model
from tests.models.small_gpt2 import V, shards, small_model, small_trainer

DRAWS = np.random.default_rng(2)
X = DRAWS.integers(0, V, (3, 7))
Y = np.where(DRAWS.random((3, 7)) < 0.3, IGNORED, DRAWS.integers(0, V, (3, 7)))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
@pytest.mark.parametrize("multiple", [1, 16])
def test_label_smoothing_is_pytorchs(smoothing, multiple):
    """Loss and the gradient of every weight, -100 left out, a padded vocabulary not smoothed over.

    The gradient of the logits is PyTorch's, and goes on through a second pass of the same model.
    """
    model = small_model("float64", vocab_multiple=multiple)
    loss = loss_of(model, tg.tensor(X), tg.tensor(Y), smoothing)
    loss.backward()
    ours = {name: p.grad.array.copy() for name, p in model.named_parameters()}
    model.zero_grad()
    logits = model(tg.tensor(X)).logits
    theirs = torch.tensor(logits.detach().numpy(), requires_grad=True)
    expected = TF.cross_entropy(
        theirs.view(-1, V), torch.from_numpy(Y).view(-1), label_smoothing=smoothing
    )
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    logits.backward(tg.from_numpy(theirs.grad.numpy()))
    for name, p in model.named_parameters():
        np.testing.assert_allclose(ours[name], p.grad.array, rtol=1e-9, atol=1e-15, err_msg=name)


def test_evaluations_smooth_nothing(tmp_path):
    """What is told of a split is the plain loss, to compare with other runs."""
    plain = small_trainer(shards(tmp_path / "a"))
    smoothed = small_trainer(shards(tmp_path / "b"), label_smoothing=0.3)
    assert smoothed.estimate_loss() == plain.estimate_loss()
    assert smoothed.take_step().loss != plain.take_step().loss


def test_what_a_mixture_adds_stays():
    """Beside smoothed labels as beside plain ones, in training only."""
    tg.manual_seed(3)
    model = create_gpt2_model(
        vocab_size=V, n_positions=7, n_layer=1, n_head=3, n_embd=15, dropout=0.0, moe_num_experts=3
    ).to("float64")
    x, y = tg.tensor(X), tg.tensor(Y)

    def both():
        logits = model(x).logits.detach().numpy()
        plain = TF.cross_entropy(
            torch.tensor(logits).view(-1, V), torch.from_numpy(Y).view(-1), label_smoothing=0.1
        )
        return loss_of(model, x, y, 0.1).item(), plain.item()

    smoothed, alone = both()
    assert smoothed - alone == pytest.approx(model.config.extra_loss(model).item(), rel=1e-9)
    model.eval()
    smoothed, alone = both()
    assert smoothed == pytest.approx(alone, rel=1e-12)
