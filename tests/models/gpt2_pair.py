"""A tiny GPT-2, ours and transformers', with the same weights in float64: for tests of generation.

The weights are large, so that the text decides which token is likeliest, and by a margin."""

import warnings
from functools import cache

import numpy as np
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import transformers

from tensorgrad.models.gpt2 import GPT2Config, GPT2LMHeadModel

transformers.logging.set_verbosity_error()

SIZES = {"vocab_size": 53, "n_positions": 41, "n_embd": 24, "n_layer": 2, "n_head": 3}
EOS, PAD = 7, 11
TURNED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")  # Conv1D keeps them the other way


@cache
def pair(seed=0, **sizes):
    """Ours and transformers', in evaluation mode."""
    torch.manual_seed(seed)
    sizes = {**SIZES, **sizes}
    config = transformers.GPT2Config(
        **sizes, eos_token_id=EOS, bos_token_id=EOS, initializer_range=0.6
    )
    theirs = transformers.GPT2LMHeadModel(config).double().eval()
    ours = GPT2LMHeadModel(GPT2Config(**sizes, eos_token_id=EOS)).double()
    state = {name: w.numpy() for name, w in theirs.state_dict().items()}
    ours.load_state_dict(
        {name: w.T.copy() if name.endswith(TURNED) else w for name, w in state.items()}
    )
    return ours.eval(), theirs


def prompts(seed, rows, longest):
    """ids (rows, longest) and their mask: rows are padded on the left, each by its own amount."""
    draws = np.random.default_rng(seed)
    ids = draws.integers(0, SIZES["vocab_size"], (rows, longest))
    lengths = draws.integers(1, longest + 1, rows)
    lengths[0] = longest
    mask = (np.arange(longest) >= longest - lengths[:, None]).astype(np.int64)
    return np.where(mask == 1, ids, PAD), mask
