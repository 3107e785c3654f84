"""Weights to begin with, whole or by adapters: a run's folder, Hugging Face's form, LoRA."""

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.models.gpt2 import GPT2Config, GPT2LMHeadModel
from tensorgrad.models.training.folder import RunFolder
from tensorgrad.models.training.job import restored, train
from tensorgrad.models.training.token_lm import GPT2
from tensorgrad.models.weights import llmc
from tests.models.small_gpt2 import TINY, V, equal, shards, weights

SIZES = ("n_layer", "n_head", "n_embd", "n_positions")
RATES = {name: value for name, value in TINY.items() if name not in SIZES}
FROZEN = {**RATES, "learning_rate": 0.0, "min_lr": 0.0, "weight_decay": 0.0, "max_iters": 1}


@pytest.fixture
def folder(tmp_path):
    return shards(tmp_path)


@pytest.fixture
def run(tmp_path, folder):
    """The folder of a finished run."""
    train(GPT2, {**TINY, "ema_decay": 0.5, "dropout": 0.1}, folder, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def hugging_face(tmp_path):
    tg.manual_seed(8)
    config = GPT2Config(vocab_size=V, n_positions=11, n_embd=12, n_layer=1, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "hf")
    return tmp_path / "hf"


def model_of(out):
    return restored(GPT2, RunFolder(out).load())[0]


# ---- init_from


def test_from_a_run_begins_with_its_average(tmp_path, folder, run):
    """Its sizes come along; at a rate of 0 the weights are what the run would sample with."""
    train(GPT2, {**FROZEN, "init_from": str(run)}, folder, tmp_path / "next")
    assert equal(weights(model_of(tmp_path / "next")), weights(model_of(run)))
    first = RunFolder(tmp_path / "next").history()[0]
    assert first["val_loss"] == RunFolder(run).history()[-1]["val_loss"]


def test_from_hugging_faces_form(tmp_path, folder, hugging_face, capsys):
    """Sizes are config.json's; sequence_length shortens the window."""
    given = {**FROZEN, "init_from": str(hugging_face), "sequence_length": 7}
    train(GPT2, given, folder, tmp_path / "out")
    model = model_of(tmp_path / "out")
    expected = GPT2LMHeadModel.from_pretrained(hugging_face)
    assert equal(weights(model), weights(expected))
    assert (model.config.n_positions, model.config.n_layer) == (11, 1)
    told = capsys.readouterr().out
    assert f"first weights: those of {hugging_face}" in told and "2 x 7 at a time" in told
    assert "knowing nothing" not in told


def test_of_llm_cs_file_by_way_of_a_folder(tmp_path, folder, hugging_face):
    """Its model file becomes the form that init_from reads, bit for bit."""
    llmc.save(tmp_path / "model.bin", GPT2LMHeadModel.from_pretrained(hugging_face))
    llmc.load(tmp_path / "model.bin").save_pretrained(tmp_path / "read")
    train(GPT2, {**FROZEN, "init_from": str(tmp_path / "read")}, folder, tmp_path / "out")
    assert equal(weights(model_of(tmp_path / "out")),
                 weights(GPT2LMHeadModel.from_pretrained(hugging_face)))  # fmt: skip


@pytest.mark.parametrize("kind", ["run", "hugging_face"])
def test_dropout_is_the_new_runs(tmp_path, folder, kind, request):
    """The source had 0.1; what is given here holds, and the preset's 0 where nothing is."""
    source = request.getfixturevalue(kind)
    for given, p in (({}, 0.0), ({"dropout": 0.3}, 0.3), ({"attn_pdrop": 0.2}, 0.0)):
        out = tmp_path / f"{len(given)}{p}"
        train(GPT2, {**FROZEN, "init_from": str(source), **given}, folder, out)
        config = RunFolder(out).load()["config"]
        assert config["resid_pdrop"] == config["embd_pdrop"] == p
        assert config["attn_pdrop"] == given.get("attn_pdrop", p)


def test_it_goes_on_without_its_source(tmp_path, folder, hugging_face, capsys):
    """A resumed run has its weights in the checkpoint; what it began with may be gone."""
    given = {**RATES, "init_from": str(hugging_face), "max_iters": 4, "dropout": 0.2}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(GPT2, {**given, "max_iters": 8}, folder, whole)
    train(GPT2, {**given, "max_iters": 8, "eval_interval": 4}, folder, cut)
    for file in (hugging_face / "config.json", hugging_face / "model.safetensors"):
        file.unlink()
    train(GPT2, {"max_iters": 9}, out_dir=cut, resume=True)
    assert "resuming after step 8" in capsys.readouterr().out
    assert [s["step"] for s in RunFolder(cut).history()] == list(range(1, 10))
    ours, other = ([s["loss"] for s in RunFolder(out).history()][:8] for out in (cut, whole))
    assert ours == other


@pytest.mark.parametrize("name", ["n_layer", "n_embd", "block_size", "bias"])
def test_sizes_beside_weights_are_refused(tmp_path, folder, hugging_face, name):
    given = {"init_from": str(hugging_face), name: False if name == "bias" else 7}
    own = {"block_size": "n_positions"}.get(name, name)
    with pytest.raises(ValueError, match=rf"bring their {own} along; leave the option out"):
        train(GPT2, given, folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_vocabulary_is_refused(tmp_path, hugging_face):
    from tests.models.token_folder import language, token_folder

    other = token_folder(tmp_path / "other", language(99, 307), language(50, 307), 307)
    sentence = r"are for 263 tokens, and the shards are of made-307 with 307; prepare them with"
    with pytest.raises(ValueError, match=sentence):
        train(GPT2, {**RATES, "init_from": str(hugging_face)}, other, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_not_there_or_too_long(tmp_path, folder, hugging_face):
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        train(GPT2, {**RATES, "init_from": str(tmp_path / "none")}, folder, tmp_path / "out")
    with pytest.raises(ValueError, match="at most the model's n_positions, 11; it is 12"):
        given = {**RATES, "init_from": str(hugging_face), "sequence_length": 12}
        train(GPT2, given, folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ---- LoRA


def lora(**changes):
    return {**RATES, "lora_rank": 3, "lora_modules": "c_attn, c_fc", "max_iters": 5, **changes}


@pytest.fixture
def adapted(tmp_path, folder, run):
    """A run that trains adapters of the other run's weights."""
    train(GPT2, lora(init_from=str(run)), folder, tmp_path / "adapted")
    return tmp_path / "adapted"


def test_only_the_adapters_learn(run, adapted, capsys):
    before, state = weights(model_of(run)), RunFolder(adapted).load()["trainer"]["model"]
    plain = {name.replace(".base.", "."): w for name, w in state.items() if "lora" not in name}
    for name, w in before.items():
        np.testing.assert_array_equal(plain[name], w, err_msg=name)
    learnt = {name: w for name, w in state.items() if "lora_B" in name}
    assert len(learnt) == 4  # two layers, two kinds of Linear
    assert all(np.abs(w).max() > 0 for w in learnt.values())  # which begin at zero
    assert state["transformer.h.0.attn.c_attn.lora_A"].shape == (3, 15)


def test_the_moments_are_of_the_adapters_alone(adapted):
    """Which is what makes it cheap: eight small matrices."""
    state = RunFolder(adapted).load()["trainer"]
    sizes = sorted(m["exp_avg"].shape for m in state["moments"].values())
    own = sorted(w.shape for name, w in state["model"].items() if "lora" in name)
    assert sizes == own and len(own) == 8


def test_it_tells_how_many_it_trains(tmp_path, folder, capsys):
    train(GPT2, {**TINY, "lora_rank": 3}, folder, tmp_path / "out")
    per_layer = 3 * 15 + 45 * 3
    plain = sum(w.size for w in weights(GPT2.model(GPT2.config(vocab_size=V, **{
        name: TINY[name] for name in SIZES}))).values())  # fmt: skip
    told = capsys.readouterr().out
    assert f"{plain + 2 * per_layer:,} parameters" in told
    assert f", {2 * per_layer:,} of them trained" in told


def test_the_checkpoint_restores(adapted, tmp_path):
    """Adapters and all; the loss that was told is the restored model's."""
    from tests.models.small_gpt2 import small_trainer

    model = model_of(adapted)
    assert type(model.transformer.h[0].attn.c_attn).__name__ == "LoRALinear"
    assert type(model.transformer.h[0].attn.c_proj).__name__ == "Linear"
    judge = small_trainer(shards(tmp_path / "judge"))
    judge.model = model
    assert judge.estimate_loss()["val"] == RunFolder(adapted).history()[-1]["val_loss"]


def test_a_resumed_adapter_goes_on_bit_for_bit(tmp_path, folder, run):
    runs = []
    for stop in (None, 3):
        out = tmp_path / f"stop{stop}"
        given = lora(init_from=str(run), lora_dropout=0.2, max_iters=6)
        if stop:
            train(GPT2, {**given, "decay_lr": False, "max_iters": stop}, folder, out)
            train(GPT2, {"max_iters": 6}, out_dir=out, resume=True)
        else:
            train(GPT2, {**given, "decay_lr": False}, folder, out)
        runs.append(RunFolder(out).load()["trainer"])
    assert equal(runs[0]["model"], runs[1]["model"])


def test_a_run_of_adapters_can_be_begun_with(tmp_path, folder, adapted):
    """They are merged into the weights, whole or under new adapters."""
    train(GPT2, {**FROZEN, "init_from": str(adapted)}, folder, tmp_path / "whole")
    whole, source = model_of(tmp_path / "whole"), model_of(adapted)
    x = tg.tensor([[5, 1, 200, 40, 7]])
    with tg.no_grad():
        a, b = whole(x).logits.numpy(), source(x).logits.numpy()
    np.testing.assert_allclose(a, b, atol=1e-6)
    assert not any("lora" in name for name in whole.state_dict())
    train(GPT2, lora(init_from=str(adapted), max_iters=1), folder, tmp_path / "again")
    state = RunFolder(tmp_path / "again").load()["trainer"]["model"]
    name = "transformer.h.1.mlp.c_fc"
    np.testing.assert_array_equal(state[f"{name}.base.weight"], whole.state_dict()[
        f"{name}.weight"].array)  # fmt: skip


def test_adapters_in_hugging_faces_form_too(tmp_path, folder, adapted):
    model_of(adapted).save_pretrained(tmp_path / "saved")
    train(GPT2, {**FROZEN, "init_from": str(tmp_path / "saved")}, folder, tmp_path / "a")
    train(GPT2, {**FROZEN, "init_from": str(adapted)}, folder, tmp_path / "b")
    assert equal(weights(model_of(tmp_path / "a")), weights(model_of(tmp_path / "b")))


def test_layers_that_do_not_exist_are_refused(tmp_path, folder):
    with pytest.raises(ValueError, match="no Linear is named 'q_proj'; there are c_attn, c_fc"):
        train(GPT2, {**TINY, "lora_rank": 2, "lora_modules": "q_proj"}, folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
