"""GPT-2 of transformers with given weights: greedy generation with its own cache."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import transformers

TURNED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")  # Conv1D keeps them the other way

Generate = Callable[[Any, int], Any]


THREADS = tuple(sorted({1, torch.get_num_threads()}))
set_threads = torch.set_num_threads


def about() -> str:
    return f"{transformers.__version__} on PyTorch {torch.__version__}"


def greedy(weights: Mapping[str, Any], sizes: Mapping[str, int]) -> Generate:
    """generate(ids (1, T), n) -> ids (1, T + n), arrays, by a GPT-2 of these weights.

    weights: NumPy arrays by Hugging Face's names, linear layers (out, in).
    """
    transformers.logging.set_verbosity_error()
    config = transformers.GPT2Config(**sizes, bos_token_id=None, eos_token_id=None)
    model = transformers.GPT2LMHeadModel(config).eval()
    state = {
        name: torch.from_numpy(np.ascontiguousarray(w.T) if name.endswith(TURNED) else w)
        for name, w in weights.items()
    }
    model.load_state_dict(state)

    def generate(ids: Any, n: int) -> Any:
        given = torch.from_numpy(ids)
        with torch.inference_mode():
            out = model.generate(
                given, attention_mask=torch.ones_like(given), max_new_tokens=n, min_new_tokens=n,
                do_sample=False, pad_token_id=0,
            )  # fmt: skip
        return out.numpy()

    return generate
