"""transformers' GPT-2 beside ours: the same random weights in both, no network."""

import numpy as np
import torch
import torch.nn.functional as TF
from transformers import GPT2Config as TheirConfig
from transformers import GPT2LMHeadModel as TheirModel

from tensorgrad.models.gpt2 import GPT2Config, GPT2LMHeadModel

NONE = {"bos_token_id": None, "eos_token_id": None, "dropout": 0.0}
PLAIN = GPT2Config(vocab_size=53, n_positions=17, n_embd=20, n_layer=3, n_head=5, **NONE)
ODD = GPT2Config(
    vocab_size=31, n_positions=19, n_embd=14, n_layer=2, n_head=7, n_inner=23, **NONE,
    activation_function="relu", scale_attn_by_inverse_layer_idx=True, tie_word_embeddings=False,
)  # fmt: skip
PADDED = GPT2Config(
    vocab_size=43, n_positions=13, n_embd=12, n_layer=1, n_head=3, **NONE,
    activation_function="gelu", layer_norm_epsilon=1e-3, vocab_multiple=8,
    scale_attn_weights=False,
)  # fmt: skip
CONFIGS = {"plain": PLAIN, "odd": ODD, "padded": PADDED}

TURNED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")


def turned(name, array):
    """Conv1D's weight as a Linear's, or the other way round."""
    return array.T if name.endswith(TURNED) else array


def their_config(config, **more):
    names = (
        "vocab_size n_positions n_embd n_layer n_head n_inner activation_function resid_pdrop "
        "embd_pdrop attn_pdrop layer_norm_epsilon initializer_range scale_attn_weights "
        "scale_attn_by_inverse_layer_idx tie_word_embeddings bos_token_id eos_token_id"
    )
    return TheirConfig(**{name: getattr(config, name) for name in names.split()}, **more)


def their_model(config, dtype=torch.float64, seed=3, scale=0.25):
    """Weights away from their first values, so that biases and norms count."""
    model = TheirModel(their_config(config)).to(dtype)
    draws = np.random.default_rng(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            around = 1.0 if "ln_" in name and name.endswith("weight") else 0.0
            p.copy_(torch.from_numpy(draws.normal(around, scale, p.shape)))
    return model


def twins(config=PLAIN, dtype="float64", seed=3):
    """Ours and theirs in evaluation mode."""
    theirs = their_model(config, getattr(torch, dtype), seed)
    ours = GPT2LMHeadModel(config).to(dtype)
    ours.load_state_dict({k: turned(k, v.numpy()) for k, v in theirs.state_dict().items()})
    return ours.eval(), theirs.eval()


def their_loss(logits, labels):
    """The mean loss of each label given what stands before it, in the logits' own precision."""
    return TF.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


def batch(config, padding=None, B=3, T=11, seed=5):
    """ids, attention mask, position_ids as transformers takes them, labels: four arrays (B, T)."""
    draws = np.random.default_rng(seed)
    ids = draws.integers(0, config.vocab_size, (B, T))
    mask = np.ones((B, T), np.int64)
    for row, short in enumerate((0, 3, 5)[:B]):
        if padding == "left":
            mask[row, :short] = 0
        elif padding == "right":
            mask[row, T - short :] = 0
    positions = np.maximum(mask.cumsum(1) - 1, 0)
    before = np.pad(mask[:, :-1], ((0, 0), (1, 0)))  # a label counts where a token predicts it
    return ids, mask, positions, np.where(mask & before, ids, -100)
