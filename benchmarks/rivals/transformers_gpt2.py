"""GPT-2 of transformers with given weights: greedy generation with its own cache, and training."""

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
Step = Callable[[Any, Any, str], float]

THREADS = tuple(sorted({1, torch.get_num_threads()}))
set_threads = torch.set_num_threads


def about() -> str:
    return f"{transformers.__version__} on PyTorch {torch.__version__}"


def made(weights: Mapping[str, Any], sizes: Mapping[str, Any]) -> Any:
    """The model, its memory its own."""
    transformers.logging.set_verbosity_error()
    config = transformers.GPT2Config(**sizes, bos_token_id=None, eos_token_id=None)
    model = transformers.GPT2LMHeadModel(config)
    state = {
        name: torch.from_numpy(np.ascontiguousarray(w.T) if name.endswith(TURNED) else w)
        for name, w in weights.items()
    }
    model.load_state_dict(state)
    return model


def training(
    weights: Mapping[str, Any], sizes: Mapping[str, Any], lr: float, weight_decay: float,
    betas: tuple[float, float], grad_clip: float,
) -> Step:  # fmt: skip
    """step(x, y, dtype) -> loss: PyTorch's fused kernels throughout, AdamW that decays matrices."""
    drops = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    model = made(weights, {**sizes, **drops, "attn_implementation": "sdpa"}).train()
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": weight_decay},
         {"params": vectors, "weight_decay": 0.0}],
        lr=lr, betas=betas, fused=True,
    )  # fmt: skip

    def step(x: Any, y: Any, dtype: str) -> float:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            logits = model(torch.from_numpy(x)).logits.flatten(0, 1)
            loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(y).flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip)
        optimizer.step()
        return float(loss.item())

    return step


def greedy(weights: Mapping[str, Any], sizes: Mapping[str, int]) -> Generate:
    """generate(ids (1, T), n) -> ids (1, T + n), arrays, by a GPT-2 of these weights.

    weights: NumPy arrays by Hugging Face's names, linear layers (out, in).
    """
    model = made(weights, sizes).eval()

    def generate(ids: Any, n: int) -> Any:
        given = torch.from_numpy(ids)
        with torch.inference_mode():
            out = model.generate(
                given, attention_mask=torch.ones_like(given), max_new_tokens=n, min_new_tokens=n,
                do_sample=False, pad_token_id=0,
            )  # fmt: skip
        return out.numpy()

    return generate
