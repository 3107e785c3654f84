"""What the picture of a run draws: read off the figure that is saved."""

import math

import numpy as np
import pytest
from matplotlib.figure import Figure

from tensorgrad.models.training.ladder import JOBS
from tensorgrad.models.training.picture import plot_losses
from tests.models.test_word_run import TINY as WORDS

HISTORY = [{"step": s, "loss": 3.0 * 0.99**s} for s in range(10, 410, 10)]
HISTORY[19] |= {"train_loss": 1.5, "val_loss": 1.7}
HISTORY[-1] |= {"train_loss": 0.06, "val_loss": 0.08}


@pytest.fixture
def figures(monkeypatch):
    """Every figure that is saved, whole."""
    kept, real = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda f, *a, **o: (kept.append(f), real(f, *a, **o)))
    return kept


def test_the_logarithm_of_the_loss(tmp_path, figures):
    """G2.c4: the height of each point is log10 of its loss, to be read on the right."""
    plot_losses(HISTORY, {"bigrams": 2.5}, tmp_path / "x.png", "MLP", "character", True)
    left, right = figures[0].axes
    curve, validation, mark = left.get_lines()
    heights = [left.transData.transform((0, y))[1] for y in curve.get_ydata()]
    logs = [right.transData.transform((0, math.log10(s["loss"])))[1] for s in HISTORY]
    np.testing.assert_allclose(heights, logs, rtol=1e-9)
    slopes = np.diff(heights)
    np.testing.assert_allclose(slopes, slopes[0], rtol=1e-9)  # an exponential is a straight line
    assert right.get_ylabel() == "log10 of the loss" and left.get_ylabel() == "nats per character"
    assert list(validation.get_ydata()) == [1.7, 0.08] and mark.get_ydata()[0] == 2.5
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_without_it_the_height_is_the_loss(tmp_path, figures):
    plot_losses(HISTORY, {}, tmp_path / "x.png")
    [axes] = figures[0].axes
    assert axes.get_yscale() == "linear"


def test_runs_of_words_draw_it(tmp_path, figures):
    """As the lectures do; those of texts draw nats."""
    from tensorgrad.models.training.job import train

    assert {word for word, job in JOBS.items() if job.log10} == {
        "bigram", "neural-bigram", "mlp", "mlp-bn", "deep", "wavenet",
    }  # fmt: skip
    train(JOBS["mlp"], WORDS["mlp"], out_dir=tmp_path / "out")
    assert [axes.get_ylabel() for axes in figures[0].axes] == [
        "nats per character", "log10 of the loss",
    ]  # fmt: skip
