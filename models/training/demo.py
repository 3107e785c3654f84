"""Five sentences learnt by a GPT-2 and written again: trained, saved, loaded anew, sampled.

The sizes, the batches of 2 and the sampling are seed 0's (docs/seeds.md).  Otherwise than there, a
token is a byte and its window 64 long, rows are padded to the longest sentence and not to the
window, padding is no target, the mark at the end of a sentence is learnt, and a higher rate over
more rounds really learns them; what writes is the model that was trained, read from its file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.data import BPE, DataLoader, TextDataset
from tensorgrad.models.budget import latency
from tensorgrad.models.gpt2 import GPT2Config, GPT2LMHeadModel
from tensorgrad.models.modes import evaluating
from tensorgrad.models.training.folder import RunFolder
from tensorgrad.models.training.gpt2_trainer import GPT2Trainer
from tensorgrad.rng import Generator

SENTENCES = (
    "Hello, what shall we read?",
    "GPT-2 guesses what comes next.",
    "A small model can be read whole.",
    "Attention looks back, never ahead.",
    "Learning is walking downhill.",
)
SIZES = {"n_positions": 64, "n_embd": 256, "n_layer": 6, "n_head": 8}
SAMPLING: dict[str, Any] = {"temperature": 0.8, "top_k": 50, "top_p": 0.95}
FILE, TOKENIZER = "gpt2.safetensors", "tokenizer.json"

Say = Callable[[str], object]


class Sentences:
    """A token for each of the 256 bytes, and `<|endoftext|>`, which begins and ends a sentence."""

    def __init__(self) -> None:
        self.bytes = BPE({bytes([i]): i for i in range(256)}, "bytes")
        self.mark = self.pad_token_id = self.bytes.eot
        self.n_vocab = self.bytes.n_vocab

    def encode(self, text: str) -> list[int]:
        return [*self.start(text), self.mark]

    def start(self, text: str) -> list[int]:
        """The ids of a sentence that goes on."""
        return [self.mark, *self.bytes.encode(text)]

    def decode(self, ids: Sequence[int]) -> str:
        """The first sentence in the ids."""
        inner = list(ids[1:] if len(ids) and ids[0] == self.mark else ids)
        end = inner.index(self.mark) if self.mark in inner else len(inner)
        return self.bytes.decode(inner[:end])


def demo(
    epochs: int = 40, lr: float = 1e-3, seed: int = 1337,
    out_dir: str | os.PathLike[str] = "out/demo-gpt2", device: str = "cpu", start: str = "",
    say: Say = print,
) -> list[str]:  # fmt: skip
    """All of it; returns the samples.  RuntimeError should the file not give the model back."""
    model, _ = create_and_train_gpt2(epochs, lr, seed, out_dir, device, say)
    path = Path(out_dir) / FILE
    again = GPT2Trainer.from_file(path, device).model
    if not equal(model, again):
        raise RuntimeError(f"the model that was read from {str(path)!r} is not the one saved there")
    say(f"read back into a new model: all its logits for the {len(SENTENCES)} sentences are equal")
    say(str(latency(again, tokens=10)))
    texts = generate_text_example(again, start, seed)
    say(f"{len(texts)} samples of the model that was read back (temperature 0.8, top_k 50, top_p "
        f"0.95){f' after {start!r}' if start else ''}:")  # fmt: skip
    for text in texts:
        say(f"  {text!r}")
    say(f"{sum(text in SENTENCES for text in texts)} of {len(texts)} are sentences that it learnt")
    return texts


def create_and_train_gpt2(
    epochs: int = 40, lr: float = 1e-3, seed: int = 1337,
    out_dir: str | os.PathLike[str] = "out/demo-gpt2", device: str = "cpu", say: Say = print,
) -> tuple[GPT2LMHeadModel, GPT2Trainer]:  # fmt: skip
    """A GPT-2 trained on SENTENCES and saved in out_dir; ValueError for settings that cannot be.

    gpt2.safetensors is what GPT2Trainer.from_file goes on from; config.json, model.safetensors and
    tokenizer.json are what `tensorgrad inspect --model` and transformers open.
    """
    if epochs < 1 or not lr > 0:
        raise ValueError(f"epochs must be at least 1 and lr above 0, they are {epochs} and {lr}")
    tg.empty(0, device=device)  # which says at once why there is no such device
    RunFolder(out_dir).make()
    tokens = Sentences()
    tg.manual_seed(seed)
    marks = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), tokens.mark)
    config = GPT2Config(vocab_size=tokens.n_vocab, **SIZES, **marks)
    model = GPT2LMHeadModel(config)
    longest = max(len(tokens.encode(text)) for text in SENTENCES)
    data = TextDataset(SENTENCES, tokens, longest)
    batches = DataLoader(
        data, batch_size=2, shuffle=True, generator=Generator("cpu").manual_seed(seed)
    )
    steps = epochs * len(batches)
    trainer = GPT2Trainer(
        model, config, device, lr=lr, total_steps=steps, warmup_steps=steps // 10
    )
    total, trainable = model.num_parameters(), model.num_parameters(only_trainable=True)
    sizes = ", ".join(f"{name} {size}" for name, size in SIZES.items())
    say(f"GPT-2 ({sizes}): {total:,} parameters, {trainable:,} of them trainable, on {device}")
    say(f"{len(SENTENCES)} sentences in batches of 2, {epochs} epochs at lr {lr:g}, seed {seed}")
    for epoch in range(1, epochs + 1):
        losses = [trainer.train_step(batch) for batch in batches]
        say(f"epoch {epoch}/{epochs} | loss {sum(losses) / len(losses):.4f}")
    out = Path(out_dir)
    trainer.save_model(out / FILE)
    model.save_pretrained(out)
    tokens.bytes.save(out / TOKENIZER)
    say(f"wrote {out / FILE}, from which training can go on, and in Hugging Face's form "
        f"config.json, model.safetensors and {TOKENIZER} beside it")  # fmt: skip
    return model, trainer


def generate_text_example(
    model: GPT2LMHeadModel, start: str = "", seed: int = 1337, count: int = len(SENTENCES)
) -> list[str]:
    """`count` sentences that begin with `start`, of at most 50 bytes more."""
    tokens, where = Sentences(), next(model.parameters()).device
    idx = tg.tensor([tokens.start(start)], device=where)  # (1, T)
    out = model.generate(
        idx, max_new_tokens=50, num_return_sequences=count,
        generator=Generator(where.type).manual_seed(seed), **SAMPLING,
    )  # fmt: skip
    return [tokens.decode(row) for row in out.tolist()]


@tg.no_grad()
def equal(a: GPT2LMHeadModel, b: GPT2LMHeadModel) -> bool:
    """Whether two models give the same logits, bit for bit, for each sentence."""
    tokens, where = Sentences(), next(a.parameters()).device
    with evaluating(a), evaluating(b):
        for text in SENTENCES:
            ids = tg.tensor([tokens.encode(text)], device=where)
            x, y = (as_array(model(ids).logits) for model in (a, b))
            if not np.array_equal(x, y):
                return False
    return True


def as_array(x: Tensor) -> Any:
    return x.detach().cpu().numpy()
