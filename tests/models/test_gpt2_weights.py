"""GPT-2's weights in and out, held against transformers, safetensors and files written by hand."""

import json
import os
import shutil
import tempfile
import tracemalloc
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from transformers import GPT2LMHeadModel as TheirModel

import tensorgrad as tg
from tensorgrad.models.gpt2 import GPT2Config, GPT2LMHeadModel
from tensorgrad.models.weights import (
    load_hugging_face,
    load_llmc,
    load_nanogpt,
    save_llmc,
    save_nanogpt,
)
from tensorgrad.serialization import CheckpointError
from tests.models.torch_gpt2 import CONFIGS, PLAIN, batch, their_model, turned, twins

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def logits(model, config=PLAIN):
    """Of a batch, whichever framework the model is of."""
    ids = batch(config)[0]
    if isinstance(model, torch.nn.Module):
        with torch.no_grad():
            return model(torch.from_numpy(ids)).logits.float().numpy()
    with tg.no_grad():
        return model(tg.tensor(ids)).logits.float().numpy()


def same(a, b, config=PLAIN):
    np.testing.assert_allclose(logits(a, config), logits(b, config), rtol=1e-5, atol=1e-5)


@pytest.fixture
def folder(tmp_path):
    """A folder that transformers wrote, and the model in it."""
    theirs = their_model(PLAIN, torch.float32).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs", theirs


# ---- Hugging Face's folders


@pytest.mark.parametrize("name", CONFIGS)
def test_what_transformers_writes(name, tmp_path):
    config = CONFIGS[name]
    theirs = their_model(config, torch.float32).eval()
    theirs.save_pretrained(tmp_path)
    ours = GPT2LMHeadModel.from_pretrained(tmp_path)
    assert ours.config == GPT2Config(**config.to_dict() | {"vocab_multiple": 1})
    assert not ours.training and ours.transformer.wte.weight.dtype == tg.float32
    assert (ours.lm_head.weight is ours.transformer.wte.weight) is config.tie_word_embeddings
    same(ours, theirs, config)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_transformers_reads(name, tmp_path):
    ours = twins(CONFIGS[name], "float32")[0]
    ours.save_pretrained(str(tmp_path))
    theirs, info = TheirModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    same(ours, theirs.eval(), CONFIGS[name])
    again = GPT2LMHeadModel.from_pretrained(tmp_path)
    assert again.config == ours.config
    np.testing.assert_array_equal(logits(again, ours.config), logits(ours, ours.config))


def test_tied_weights_are_written_once_b0_16(tmp_path):
    twins(PLAIN, "float32")[0].save_pretrained(tmp_path)
    names = load_file(tmp_path / WEIGHTS)
    assert "lm_head.weight" not in names and "transformer.wte.weight" in names
    assert not any(name.endswith(".attn.bias") for name in names)  # B0.21


def test_names_without_prefix_and_old_masks(folder):
    """The hub's own file: `h.0...`, causal masks as buffers, of which nothing is needed."""
    path, theirs = folder
    state = {k.removeprefix("transformer."): v for k, v in load_file(path / WEIGHTS).items()}
    for i in range(PLAIN.n_layer):
        state[f"h.{i}.attn.bias"] = np.tril(np.ones((1, 1, 17, 17), np.uint8))
        state[f"h.{i}.attn.masked_bias"] = np.array(-1e4, np.float32)
    save_file(state, path / WEIGHTS)
    same(GPT2LMHeadModel.from_pretrained(path), theirs)


def test_several_files_and_an_index(folder, tmp_path):
    path, theirs = folder
    theirs.save_pretrained(tmp_path / "parts", max_shard_size="20KB")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 2
    ours = GPT2LMHeadModel.from_pretrained(tmp_path / "parts")
    same(ours, theirs)
    ours.save_pretrained(path, max_shard_size=20_000)  # over a whole file, which must not survive
    assert not (path / WEIGHTS).exists() and (path / INDEX).exists()
    same(GPT2LMHeadModel.from_pretrained(path), theirs)
    same(TheirModel.from_pretrained(path).eval(), theirs)
    ours.save_pretrained(path)
    assert not (path / INDEX).exists()
    same(GPT2LMHeadModel.from_pretrained(path), theirs)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_become_float32_or_what_is_asked(dtype, tmp_path):
    theirs = their_model(PLAIN, torch.float32, scale=0.05).eval().to(getattr(torch, dtype))
    theirs.save_pretrained(tmp_path)
    exact = theirs.float()
    same(GPT2LMHeadModel.from_pretrained(tmp_path), exact)
    wide = GPT2LMHeadModel.from_pretrained(tmp_path, dtype="float64")
    assert wide.transformer.wpe.weight.dtype == tg.float64
    same(wide, exact)
    wide.save_pretrained(tmp_path / "again", dtype=dtype)
    assert json.loads((tmp_path / "again" / "config.json").read_text())["dtype"] == dtype
    again = TheirModel.from_pretrained(tmp_path / "again")
    assert again.dtype == getattr(torch, dtype)
    same(again.float().eval(), exact)


def test_without_biases_they_are_zeros_to_transformers(tmp_path):
    config = GPT2Config(**PLAIN.to_dict() | {"bias": False})
    tg.manual_seed(0)
    ours = GPT2LMHeadModel(config).eval()
    ours.save_pretrained(tmp_path)
    same(ours, TheirModel.from_pretrained(tmp_path).eval())
    again = GPT2LMHeadModel.from_pretrained(tmp_path)
    assert again.config == config and again.transformer.ln_f.bias is None
    same(ours, again)
    state = load_file(tmp_path / WEIGHTS)
    state["transformer.h.1.mlp.c_fc.bias"][3] = 1
    save_file(state, tmp_path / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"c_fc\.bias, and the model is without biases"):
        GPT2LMHeadModel.from_pretrained(tmp_path)


def test_norms_after_the_layers_are_not_passed_off_as_gpt2(tmp_path):
    config = GPT2Config(**PLAIN.to_dict() | {"norm_position": "post", "bias": False})
    ours = GPT2LMHeadModel(config).eval()
    ours.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "tensorgrad-gpt2"
    again = GPT2LMHeadModel.from_pretrained(tmp_path)
    assert again.config == config
    np.testing.assert_array_equal(logits(again), logits(ours))


def test_settings_given_take_the_place_of_the_files(folder):
    model = GPT2LMHeadModel.from_pretrained(folder[0], dropout=0.3, vocab_multiple=16)
    assert model.config.attn_pdrop == 0.3 and model.config.vocab_multiple == 16
    same(model, folder[1])


def test_a_head_of_its_own_next_to_tied_weights(folder):
    """Equal values are fine; others are not dropped in silence."""
    path, theirs = folder
    state = load_file(path / WEIGHTS)
    save_file(state | {"lm_head.weight": state["transformer.wte.weight"]}, path / WEIGHTS)
    same(GPT2LMHeadModel.from_pretrained(path), theirs)
    save_file(state | {"lm_head.weight": state["transformer.wte.weight"] + 1}, path / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"an lm_head\.weight of its own.*tie_word_emb"):
        GPT2LMHeadModel.from_pretrained(path)
    free = GPT2LMHeadModel.from_pretrained(path, tie_word_embeddings=False)
    np.testing.assert_array_equal(free.lm_head.weight.detach(), state["transformer.wte.weight"] + 1)


def test_a_special_token_out_of_the_vocabulary_b0_13(folder):
    change(folder[0], eos_token_id=50256)
    with pytest.warns(UserWarning, match="eos_token_id 50256 is not among the 53 tokens"):
        assert GPT2LMHeadModel.from_pretrained(folder[0]).config.eos_token_id is None


def test_loading_takes_little_more_memory_than_the_file(tmp_path):
    """Within 1.3 times the file: each tensor goes where it belongs as it leaves the disk."""
    config = GPT2Config(vocab_size=5003, n_positions=101, n_embd=264, n_layer=5, n_head=6)
    ours = GPT2LMHeadModel(config)
    ours.save_pretrained(tmp_path)
    size = os.path.getsize(tmp_path / WEIGHTS)
    tracemalloc.start()
    again = load_hugging_face(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size > 20e6 and peak < 1.15 * size
    for a, b in zip(again.parameters(), ours.parameters()):
        np.testing.assert_array_equal(a.detach(), b.detach())


# ---- the hub


def test_a_name_on_the_hub(folder, tmp_path, monkeypatch):
    path, theirs = folder
    theirs.save_pretrained(tmp_path / "parts", max_shard_size="20KB")
    asked = []

    def download(repo, file, revision=None):
        from huggingface_hub.errors import EntryNotFoundError

        asked.append((repo, file, revision))
        if not (place / file).exists():
            raise EntryNotFoundError(f"{file} is not there")
        return str(place / file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    place = path
    same(GPT2LMHeadModel.from_pretrained("openai-community/gpt2", revision="main"), theirs)
    assert asked == [("openai-community/gpt2", f, "main") for f in ("config.json", WEIGHTS)]
    place = tmp_path / "parts"
    same(GPT2LMHeadModel.from_pretrained("gpt2"), theirs)
    assert INDEX in {file for _, file, _ in asked}


def test_no_hub(monkeypatch, tmp_path):
    def download(*args, **kwargs):
        raise OSError("no route to host\nand more")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(OSError, match=r"no folder 'gpt2', .* could not be fetched .*: no route"):
        GPT2LMHeadModel.from_pretrained("gpt2")
    with pytest.raises(FileNotFoundError, match="there is no such folder; from_pretrained takes"):
        GPT2LMHeadModel.from_pretrained(tmp_path / "nowhere")


# ---- damage


def change(path, **values):
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | values))


def without(path, name):
    state = load_file(path / WEIGHTS)
    del state[name]
    save_file(state, path / WEIGHTS)


def cut_off(path, count):
    data = (path / WEIGHTS).read_bytes()
    (path / WEIGHTS).write_bytes(data[:count])


def flipped(path, where):
    data = bytearray((path / WEIGHTS).read_bytes())
    data[where] ^= 4
    (path / WEIGHTS).write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: (p / "config.json").write_text("{"), r"config\.json' is no sound JSON"),
        (lambda p: (p / "config.json").write_text("[]"), "is no table of names"),
        (lambda p: change(p, model_type="llama"), "is of a model of type 'llama'"),
        (lambda p: change(p, add_cross_attention=True), "asks for cross-attention"),
        (lambda p: change(p, n_head=3), r"config\.json': n_embd must be a multiple"),
        (lambda p: change(p, activation_function="mish"), "no activation_function 'mish'"),
        (lambda p: change(p, n_embd=40), r"'transformer\.h\.0\.attn\.c_attn\.bias' is \(60,\)"),
        (lambda p: change(p, n_layer=4), r"'transformer\.h\.3\.ln_1\.weight' is missing.*more"),
        (lambda p: change(p, n_layer=2), r"'transformer\.h\.2\.attn\.c_attn\.bias' is unknown"),
        (lambda p: without(p, "transformer.ln_f.weight"), r"'transformer\.ln_f\.weight' is miss"),
        (lambda p: cut_off(p, 5), "is cut off, or no safetensors file"),
        (lambda p: cut_off(p, 900), "is cut off, or no safetensors file"),
        (lambda p: cut_off(p, -1), r"safetensors' is no sound .*: its tensors take"),
        (lambda p: flipped(p, 40), "safetensors"),
    ],
)
def test_damaged_folders(damage, message, folder):
    damage(folder[0])
    with pytest.raises(CheckpointError, match=message):
        GPT2LMHeadModel.from_pretrained(folder[0])


@pytest.mark.parametrize("where", [20, 1500, -1, -30_000])
def test_a_bit_flipped_in_a_file_of_ours(where, tmp_path):
    twins(PLAIN, "float32")[0].save_pretrained(tmp_path)
    flipped(tmp_path, where)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        GPT2LMHeadModel.from_pretrained(tmp_path)


def test_headers_that_lie(folder):
    """Duplicates, overlaps, holes, sizes that are no numbers, types that do not exist."""
    path = folder[0] / WEIGHTS
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    name = "transformer.ln_f.bias"

    def lies(**said):
        entry = header[name] | said
        return json.dumps(header | {name: entry})

    begin, end = header[name]["data_offsets"]
    for text in (
        lies(dtype="F99"),
        lies(shape=[-20]),
        lies(shape=[2**62, 4]),
        lies(shape="20"),
        lies(data_offsets=[begin + 4, end + 4]),
        lies(data_offsets=[begin]),
        json.dumps(header).replace(name, "transformer.ln_f.weight"),
        json.dumps([1]),
        json.dumps({name: 3}),
        "[" * 100_000,
    ):
        path.write_bytes(len(text).to_bytes(8, "little") + text.encode() + body)
        with pytest.raises(CheckpointError, match=r"model\.safetensors"):
            GPT2LMHeadModel.from_pretrained(folder[0])


def test_files_that_are_not_there(folder):
    path = folder[0]
    os.rename(path / WEIGHTS, path / "pytorch_model.bin")
    with pytest.raises(
        FileNotFoundError, match=r"has no model\.safetensors; pytorch_model\.bin is"
    ):
        GPT2LMHeadModel.from_pretrained(path)
    (path / INDEX).write_text(json.dumps({"weight_map": {"a": "../../secret"}}))
    with pytest.raises(CheckpointError, match="a file outside of its folder"):
        GPT2LMHeadModel.from_pretrained(path)
    (path / INDEX).write_text(json.dumps({"weight_map": [1]}))
    with pytest.raises(CheckpointError, match="no sound weight_map"):
        GPT2LMHeadModel.from_pretrained(path)
    os.remove(path / "config.json")
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        GPT2LMHeadModel.from_pretrained(path)


# ---- llm.c

LLMC = GPT2Config(
    vocab_size=131, n_positions=17, n_embd=20, n_layer=3, n_head=5, bos_token_id=None,
    eos_token_id=None,
)  # fmt: skip


def llmc_bytes(state, version):
    """The file as llm.c's own script lays it out, from a state in Linear orientation."""
    header = np.zeros(256, np.int32)
    header[:8] = 20240326, version, 17, 131, 3, 5, 20, 256
    dtype = {3: np.float32, 5: ml_dtypes.bfloat16}[version]
    parts = [np.pad(state["transformer.wte.weight"], ((0, 125), (0, 0)))]
    parts.append(state["transformer.wpe.weight"])
    for name in (
        "ln_1.weight", "ln_1.bias", "attn.c_attn.weight", "attn.c_attn.bias", "attn.c_proj.weight",
        "attn.c_proj.bias", "ln_2.weight", "ln_2.bias", "mlp.c_fc.weight", "mlp.c_fc.bias",
        "mlp.c_proj.weight", "mlp.c_proj.bias",
    ):  # fmt: skip
        parts += [state[f"transformer.h.{i}.{name}"] for i in range(3)]
    parts += [state["transformer.ln_f.weight"], state["transformer.ln_f.bias"]]
    return header.tobytes() + b"".join(part.astype(dtype).tobytes() for part in parts)


@pytest.mark.parametrize("version", [3, 5])
def test_llmc(version, tmp_path):
    """Read what a script wrote, write the same bytes."""
    theirs = their_model(LLMC, torch.float32, scale=0.1).eval()
    if version == 5:
        theirs = theirs.bfloat16().float()
    state = {k: turned(k, v.numpy()) for k, v in theirs.state_dict().items()}
    data = llmc_bytes(state, version)
    (tmp_path / "model.bin").write_bytes(data)
    ours = load_llmc(tmp_path / "model.bin")
    assert ours.config == GPT2Config(**LLMC.to_dict() | {"dropout": 0.1})
    same(ours, theirs, LLMC)
    save_llmc(tmp_path / "again.bin", ours, {3: "float32", 5: "bfloat16"}[version])
    assert (tmp_path / "again.bin").read_bytes() == data


def test_llmc_damaged(tmp_path):
    path = tmp_path / "model.bin"
    save_llmc(path, GPT2LMHeadModel(LLMC))
    data = path.read_bytes()
    for wrong, message in (
        (b"", "does not begin with 20240326"),
        (b"\1" + data[1:], "does not begin with 20240326"),
        (data[:4] + b"\2" + data[5:], "of version 2"),
        (data[:-1], "is cut off or damaged"),
        (data + b"\0", "is cut off or damaged"),
        (data[:20] + b"\3" + data[21:], "n_embd must be a multiple of n_head"),
        (data[:16] + b"\0" + data[17:], "sizes cannot be"),
        (data[:31] + b"\x80" + data[32:], "sizes cannot be"),
    ):
        path.write_bytes(wrong)
        with pytest.raises(CheckpointError, match=rf"model\.bin.*{message}"):
            load_llmc(path)


def test_llmc_knows_the_plain_gpt2_only(tmp_path):
    odd = GPT2LMHeadModel(GPT2Config(**LLMC.to_dict() | {"activation_function": "relu"}))
    with pytest.raises(ValueError, match="differs in activation_function"):
        save_llmc(tmp_path / "model.bin", odd)
    with pytest.raises(ValueError, match="float32 or bfloat16, not float16"):
        save_llmc(tmp_path / "model.bin", GPT2LMHeadModel(LLMC), "float16")


# ---- nanoGPT


@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("turn", [False, True])
def test_nanogpt(prefix, bias, turn, tmp_path):
    """B4.13: its state_dict as it comes out of a compiled model, with or without biases."""
    config = GPT2Config(**PLAIN.to_dict() | {"activation_function": "gelu"})
    theirs = their_model(config, torch.float32).eval()
    if not bias:
        for name, p in theirs.named_parameters():
            if name.endswith("bias"):
                p.data.zero_()
    state = {}
    for name, value in theirs.state_dict().items():
        if bias or not name.endswith("bias"):
            array = value.numpy() if turn else turned(name, value.numpy())
            state[prefix + name] = np.ascontiguousarray(array)
    state[f"{prefix}transformer.h.0.attn.bias"] = np.ones((1, 1, 17, 17), np.float32)
    save_file(state, tmp_path / "nano.safetensors")
    ours = load_nanogpt(tmp_path / "nano.safetensors", n_head=5)
    assert ours.config.bias is bias and ours.config.n_positions == 17
    same(ours, theirs)
    save_nanogpt(tmp_path / "again.safetensors", ours)
    again = load_nanogpt(tmp_path / "again.safetensors")
    assert again.config == ours.config
    np.testing.assert_array_equal(logits(again), logits(ours))
    written = load_file(tmp_path / "again.safetensors")
    for name, array in written.items():
        expected = state[prefix + name]
        np.testing.assert_array_equal(array, turned(name, expected) if turn else expected)
    assert "lm_head.weight" not in written


def test_nanogpts_padded_vocabulary_b3_4(tmp_path):
    """Of 50,304 rows those of GPT-2's tokens are kept; all of them where that is asked for."""
    config = GPT2Config(vocab_size=50304, n_positions=3, n_embd=2, n_layer=1, n_head=1)
    path = tmp_path / "nano.safetensors"
    full = GPT2LMHeadModel(config)
    save_nanogpt(path, full)
    kept = load_nanogpt(path)
    assert kept.config.vocab_size == 50257 == kept(tg.zeros(1, 1, dtype=tg.int64)).logits.shape[2]
    np.testing.assert_array_equal(
        kept.lm_head.weight.detach(), full.lm_head.weight.detach()[:50257]
    )
    assert kept.lm_head.weight is kept.transformer.wte.weight
    assert load_nanogpt(path, vocab_size=50304).config.vocab_size == 50304


def test_nanogpt_that_does_not_fit(tmp_path):
    path = tmp_path / "nano.safetensors"
    save_file({"a": np.zeros(3, np.float32)}, path)
    with pytest.raises(CheckpointError, match=r"nano\.safetensors' is no model of nanoGPT"):
        load_nanogpt(path)
    model = GPT2LMHeadModel(PLAIN)
    save_file({k: np.array(v) for k, v in model.state_dict().items()}, path)
    with pytest.raises(CheckpointError, match="does not tell the number of heads; give n_head="):
        load_nanogpt(path)
    with pytest.raises(ValueError, match="differs in layer_norm_epsilon"):
        odd = GPT2Config(**PLAIN.to_dict() | {"layer_norm_epsilon": 0.1})
        save_nanogpt(path, GPT2LMHeadModel(odd))


def test_a_copied_folder_is_a_folder(folder, tmp_path):
    shutil.copytree(folder[0], tmp_path / "copy")
    same(GPT2LMHeadModel.from_pretrained(os.fspath(tmp_path / "copy")), folder[1])


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_whatever_happens_to_a_file_of_ours_is_noticed(data):
    """Bits flipped, bytes cut out or put in: an error with the file's name, or the same weights."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        model = TINY.setdefault("model", GPT2LMHeadModel(GPT2Config(**TINY_SIZES)))
        model.save_pretrained(path)
        whole = bytearray((path / WEIGHTS).read_bytes())
        where = data.draw(st.integers(0, len(whole) - 1))
        how = data.draw(st.sampled_from(["flip", "cut", "more", "swap"]))
        if how == "flip":
            whole[where] ^= 1 << data.draw(st.integers(0, 7))
        elif how == "cut":
            del whole[where : where + data.draw(st.integers(1, 300))]
        elif how == "more":
            whole[where:where] = data.draw(st.binary(min_size=1, max_size=30))
        else:
            other = data.draw(st.integers(0, len(whole) - 1))
            whole[where], whole[other] = whole[other], whole[where]
        (path / WEIGHTS).write_bytes(bytes(whole))
        try:
            again = GPT2LMHeadModel.from_pretrained(path)
        except CheckpointError as error:
            assert "model.safetensors" in str(error) or folder in str(error)
        else:
            for a, b in zip(again.parameters(), model.parameters()):
                np.testing.assert_array_equal(a.detach(), b.detach())


TINY: dict = {}
TINY_SIZES = {"vocab_size": 7, "n_positions": 3, "n_embd": 4, "n_layer": 1, "n_head": 2}
