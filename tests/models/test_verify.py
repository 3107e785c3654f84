"""The verification can fail, its references are right, and on real data every rung passes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import tensorgrad as tg
import tensorgrad.nn.functional as F
from tensorgrad import nn
from tensorgrad.__main__ import main
from tensorgrad.data import Text, names, read_text
from tensorgrad.models import model_checks, published, verify
from tensorgrad.models.model_checks import MODELS, check_model
from tensorgrad.models.published import Figure, at_most, exactly
from tensorgrad.models.training.ladder import JOBS
from tensorgrad.models.training.word_lm import WordCorpus
from tensorgrad.models.training.word_trainer import evaluate
from tensorgrad.models.verify import Rung, allowed, ladder, number, trained
from tests.tree import ROOT


def shared(name: str) -> Path:
    """A file that is not in the repository; tests that need it are skipped without it."""
    for folder in (ROOT / "shared", ROOT.parent / "shared"):
        if (folder / "data" / name).is_file():
            return folder / "data" / name
    pytest.skip(f"needs shared/data/{name}")


def figures() -> list[Figure]:
    found: list[Figure] = []
    for value in vars(published).values():
        values = value.values() if isinstance(value, dict) else value
        if isinstance(value, Figure):
            found.append(value)
        elif isinstance(value, dict | tuple):
            found += [v for v in values if isinstance(v, Figure)]
    return found


# ---- the reference data


def test_every_figure_allows_itself():
    found = figures()
    assert len(found) > 35
    for figure in found:
        assert figure.met_by(figure.value), figure.what
        assert figure.source, figure.what
        assert not figure.met_by(figure.high + 1)


@pytest.fixture
def one_torch_thread():
    """On a busy machine two threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_short_mlp_is_pytorchs(one_torch_thread):
    """Recomputed here: the same draws from the same seed, nothing copied."""
    corpus = WordCorpus(read_text(shared("names.txt")))
    examples = corpus.examples(3)
    x, y = (torch.from_numpy(a) for a in examples["train"])
    torch.manual_seed(1337)
    wte, fc, head = torch.nn.Embedding(27, 10), torch.nn.Linear(30, 200), torch.nn.Linear(200, 27)
    torch.nn.init.kaiming_normal_(fc.weight, nonlinearity="tanh")
    torch.nn.init.normal_(fc.bias, std=0.01)
    torch.nn.init.normal_(head.weight, std=0.01)
    torch.nn.init.zeros_(head.bias)
    parameters = [*wte.parameters(), *fc.parameters(), *head.parameters()]
    generator = torch.Generator().manual_seed(1337)

    def loss(x, y):
        return torch.nn.functional.cross_entropy(head(fc(wte(x).flatten(1)).tanh()), y)

    losses = []
    for _ in range(published.SHORT_MLP_STEPS):
        at = torch.randint(0, len(x), (32,), generator=generator)
        now = loss(x[at], y[at])
        for p in parameters:
            p.grad = None
        now.backward()
        with torch.no_grad():
            for p in parameters:
                p -= 0.1 * p.grad
        losses.append(now.item())
    with torch.no_grad():
        validation = loss(*(torch.from_numpy(a) for a in examples["val"])).item()
    last, judged = published.SHORT_MLP
    assert np.mean(losses[-100:]) == pytest.approx(last.value, abs=2e-6)
    assert validation == pytest.approx(judged.value, abs=2e-6)


def test_the_curve_of_the_full_char_gpt_is_stored():
    curve = published.CHAR_GPT_CURVE
    assert curve[0] == (4.2833, 4.2869) and curve[4500] == (1.1090, 1.4761)
    train, val = np.array(list(curve.values())).T
    assert (np.diff(list(curve)) > 0).all() and (np.diff(train) < 0).all()
    assert (np.diff(val) < 0).all() and (val > train).all()
    assert published.CHAR_GPT_FINAL.value == curve[4500][1]


# ---- rungs


def test_micrograds_expression_by_scalars_and_tensors():
    rungs = list(verify.engine())
    assert len(rungs) == 6 and all(rung.passed for rung in rungs)
    scalars, tensors = ([r.measured for r in rungs[i : i + 3]] for i in (0, 3))
    assert scalars == pytest.approx(tensors, rel=1e-14)


def test_every_published_count_of_parameters():
    found = {rung.figure.what: rung for rung in verify.parameters()}
    assert all(rung.passed for rung in found.values())
    for name in ("mlp", "mlp-bn", "deep", "wavenet", "char-gpt", "mini-gpt"):
        assert f"parameters of {name}" in found


@pytest.mark.slow
def test_the_quick_ladder_on_real_data(capsys):
    """What `tensorgrad verify --quick` promises, and its exit status."""
    files = [f"--names={shared('names.txt')}", f"--shakespeare={shared('tinyshakespeare.txt')}"]
    assert main(["verify", "--quick", *files]) == 0
    told = capsys.readouterr().out
    assert "FAIL" not in told and "all 33 rungs passed" in told
    for figure in ("2.4540145", "2.4545768", "182,625", "22,655", "22,866", "1,115,394"):
        assert figure in told


def test_other_words_fail(tmp_path, capsys):
    """The same code on other words: counts and losses are others, and the exit status is 1."""
    file = tmp_path / "words.txt"
    file.write_text("\n".join(names().text.split()[:400]))
    assert main(["verify", "--quick", "--names", str(file)]) == 1
    told = capsys.readouterr()
    failed = [line for line in told.out.splitlines() if "FAIL" in line]
    assert failed[0].split()[:3] == ["words", "400", "32,033"]
    assert any(line.startswith("mlp, 2,000 steps, validation") for line in failed)
    assert "pass" in next(line for line in told.out.splitlines() if line.startswith("dg/da"))
    assert "left out, without --shakespeare FILE" in told.out
    assert f"tensorgrad verify: {len(failed)} of 29 rungs failed" in told.err


def test_another_text_fails():
    text = Text("other", "abcdefg hijk\n" * 700)
    found = [rung.passed for rung in verify.of_shakespeare(text)]
    assert found == [False] * 4  # no model of 65 symbols is asked about 13


def test_a_training_is_judged_by_its_validation_loss(monkeypatch, capsys):
    """All of a recipe, here a short one: the rung has the loss of the model that came out."""
    job = replace(JOBS["mlp"], defaults={"max_iters": 30, "eval_interval": 10, "log_interval": 10})
    corpus = WordCorpus(names())
    rung = trained(job, corpus)
    sizes, rates = verify.divided(job.settings({}), job.config, job.recipe)
    tg.manual_seed(1337)
    model = job.model(job.config(**sizes, vocab_size=27))
    trainer = job.trainer(model, job.recipe(**rates), corpus)
    trainer.take_steps(30)
    assert rung.measured == evaluate(model, *corpus.examples(3)["val"])
    assert rung.figure is published.TRAINED["mlp"] and not rung.passed
    assert "training mlp: 30 steps" in capsys.readouterr().out


def test_the_long_trainings_follow(monkeypatch):
    """Without --quick: mlp, mlp-bn, wavenet on words, nanoGPT's recipe for a CPU on the text."""
    asked = []
    monkeypatch.setattr(verify, "of_names", lambda corpus: [])
    monkeypatch.setattr(verify, "short_mlp", lambda corpus: [])
    monkeypatch.setattr(verify, "of_shakespeare", lambda text: [])
    monkeypatch.setattr(verify, "parameters", list)
    monkeypatch.setattr(
        verify, "trained", lambda job, corpus, preset=None: asked.append((job.word, preset))
    )
    files = [ROOT / "README.md"] * 2
    monkeypatch.setattr(verify, "WordCorpus", lambda text, path: "words")
    list(ladder(*files, quick=True))
    assert asked == []
    list(ladder(*files))
    assert asked == [
        ("mlp", None),
        ("mlp-bn", None),
        ("wavenet", None),
        ("char-gpt", "nanogpt-cpu"),
    ]
    presets = JOBS["char-gpt"].presets["nanogpt-cpu"]
    assert (presets["n_layer"], presets["n_embd"], presets["max_iters"]) == (4, 128, 2000)


@pytest.mark.parametrize(
    ("figure", "measured", "told"),
    [
        (exactly("n", 11_897, "here"), 11_897, ["11,897", "11,897", "exactly", "pass", "here"]),
        (exactly("n", 11_897, "here"), 11_898, ["11,898", "11,897", "exactly", "FAIL", "here"]),
        (exactly("x", 2.4540145, "here", 1e-6), 2.4540152,
         ["2.4540152", "2.4540145", "+-", "1e-06", "pass", "here"]),
        (exactly("x", 2.4540145, "here", 1e-6), 2.454016,
         ["2.454016", "2.4540145", "+-", "1e-06", "FAIL", "here"]),
        (at_most("x", 1.9937, 2.0, "here"), 2.01,
         ["2.01", "1.9937", "at", "most", "2", "FAIL", "here"]),
        (Figure("x", 2.48, 2.46, 2.49, "here"), float("nan"),
         ["nan", "2.48", "2.46", "to", "2.49", "FAIL", "here"]),
    ],
)  # fmt: skip
def test_a_rung_as_a_line(figure, measured, told):
    assert str(Rung(figure, measured)).split()[1:] == told


def test_numbers_and_intervals():
    assert [number(x) for x in (32033, 32033.0, 2.5, 2.45401449)] == [
        "32,033", "32,033", "2.5", "2.4540145",
    ]  # fmt: skip
    assert allowed(Figure("x", 2.0, 1.5, 2.5, "")) == "+- 5e-01"


# ---- one model


@pytest.mark.parametrize("name", MODELS)
def test_every_model_passes_its_checks(name):
    """F3.6, B3.7: settings, shapes, tying, counts, cache and factories are compared as numbers."""
    checks = list(check_model(name))
    assert [str(c) for c in checks if not c.passed] == []
    claims = {c.claim for c in checks}
    assert {"settings", "parameters", "logits", "first loss"} <= claims
    if name.endswith("gpt") or name.startswith("gpt2"):
        assert {"tying", "generation", "the past does not see the future"} <= claims
    if name.startswith("gpt2"):
        assert {"cache", "create_gpt2_small()", "create_gpt2_xl()"} <= claims


def failing(name):
    return {c.claim for c in check_model(name) if not c.passed}


def test_a_model_that_sees_the_future_fails(monkeypatch):
    attention = F.scaled_dot_product_attention
    monkeypatch.setattr(
        F, "scaled_dot_product_attention",
        lambda q, k, v, dropout_p=0.0, is_causal=False: attention(q, k, v, dropout_p=dropout_p),
    )  # fmt: skip
    assert failing("mini-gpt") == {"the past does not see the future"}


def test_a_model_with_two_tables_fails(monkeypatch):
    job = JOBS["mini-gpt"]

    def untied(config):
        model = job.model(config)
        model.lm_head.weight = nn.Parameter(model.wte.weight.detach().clone())
        return model

    monkeypatch.setitem(JOBS, "mini-gpt", replace(job, model=untied))
    assert {"tying", "parameters"} <= failing("mini-gpt")


def test_a_model_that_is_too_sure_fails(monkeypatch):
    """B2.16: a first loss far from ln 27 is no pass."""
    job = JOBS["mlp"]

    def confident(config):
        model = job.model(config)
        with tg.no_grad():
            model.head.weight *= 300
        return model

    monkeypatch.setitem(JOBS, "mlp", replace(job, model=confident))
    assert failing("mlp") == {"first loss"}


def test_a_cache_that_forgets_fails(monkeypatch):
    monkeypatch.setattr("tensorgrad.nn.cache.LayerCache.append", lambda self, k, v: (k, v))
    assert "cache" in failing("gpt2")


def test_the_command_for_one_model(capsys):
    assert main(["verify", "--model", "mlp"]) == 0
    told = capsys.readouterr().out
    assert "pass  parameters: 11,897, published 11,897" in told and "checks passed" in told
    assert main(["verify", "--model", "mpl"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("tensorgrad verify: there is no model 'mpl'; there are bigram")


def test_one_failed_check_is_the_exit_status(monkeypatch, capsys):
    wrong = exactly("parameters of mlp", 11_898, "nowhere")
    monkeypatch.setitem(model_checks.PARAMETERS, "mlp", wrong)
    assert main(["verify", "--model", "mlp"]) == 1
    told = capsys.readouterr()
    assert "FAIL  parameters: 11,897, published 11,898" in told.out
    assert told.err == "tensorgrad verify: 1 of 7 checks failed\n"


@pytest.mark.parametrize("command", ["verify", "diagnose"])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0 and f"usage: tensorgrad {command}" in capsys.readouterr().out
