"""GPT-2 on token shards: from fresh weights or others', whole or by adapters; presets."""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad import distributed as dist
from tensorgrad.data import block_diagonal_mask, document_ids, position_ids
from tensorgrad.models.aliases import canonical
from tensorgrad.models.budget import budget
from tensorgrad.models.generation.text import write
from tensorgrad.models.gpt2 import GPT2Config, GPT2LMHeadModel
from tensorgrad.models.layers import undrawn
from tensorgrad.models.settings import Option
from tensorgrad.models.training.batches import ShardBatches
from tensorgrad.models.training.folder import RunFolder
from tensorgrad.models.training.job import Job, restored
from tensorgrad.models.training.objective import loss_of
from tensorgrad.models.training.peak import measured_peak
from tensorgrad.models.training.recipe import TokenRecipe
from tensorgrad.models.training.token_corpus import TokenCorpus, TokenVocab
from tensorgrad.models.training.trainer import Trainer
from tensorgrad.nn import lora

SIZES = ("n_layer", "n_head", "n_embd", "n_positions", "n_inner", "bias", "norm_position",
         "activation_function", "vocab_multiple")  # fmt: skip
"""Settings that weights bring along."""


class DocumentTrainer(Trainer):
    """Trains on each document of a window as if it were alone: its own attention and positions.

    A document ends with the prediction of the `<|endoftext|>` that begins the next.
    """

    def loss(self, x: Any, y: Any, label_smoothing: float = 0.0) -> Tensor:
        model: Any = self.model
        documents = document_ids(x, model.config.eos_token_id)  # (B, T)
        return loss_of(
            model, self.placed(x), self.placed(y), label_smoothing,
            attention_mask=block_diagonal_mask(documents).to(self.recipe.device),
            position_ids=self.placed(position_ids(documents)),
        )  # fmt: skip


@dataclass(frozen=True)
class TokenJob(Job):
    """GPT-2 on the shards of a folder."""

    reads = (
        "a folder of token shards, NAME_train_*.bin and NAME_val_*.bin, as `tensorgrad prepare` "
        "and llm.c make them"
    )
    unit = "token"
    unasked = ("vocab_size",)
    aliases = (
        Option("block_size", "int", 1024, "the same as n_positions"),
        Option("dropout", "float", 0.0, "all three of the pdrops"),
    )
    writes_text = True

    def named(self, given: Mapping[str, Any]) -> dict[str, Any]:
        names = {f for kind in (self.config, self.recipe) for f in kind.__dataclass_fields__}
        return canonical(dict(given), names)

    def settings(
        self, given: Mapping[str, Any], preset: str | None = None, fresh: bool = True
    ) -> dict[str, Any]:
        """As of every job, under whichever names; weights that are given bring their sizes."""
        own = self.named(given)
        values = super().settings(own, preset, fresh)
        if fresh and values.get("init_from"):
            for name in SIZES:
                if name in own:
                    raise ValueError(
                        f"the weights of {values['init_from']!r} bring their {name} along; leave "
                        "the option out (sequence_length shortens what is read)"
                    )
                values.pop(name, None)
        return values

    def corpus(self, data: Any, recipe: Any) -> TokenCorpus:
        if data is None:
            raise ValueError(
                "gpt2 is trained on token shards: `tensorgrad prepare FILE --out DIR` makes them "
                "of a text, and --data DIR says where they are"
            )
        if os.path.isfile(data):
            raise ValueError(
                f"gpt2 is trained on a folder of token shards, and {os.fspath(data)!r} is a file: "
                f"`tensorgrad prepare {os.fspath(data)} --out DIR` makes them of a text"
            )
        return TokenCorpus(data)

    def configured(self, sizes: Mapping[str, Any], corpus: Any) -> Any:
        vocab = corpus.vocab
        ends = {"bos_token_id": vocab.eot, "eos_token_id": vocab.eot}
        return GPT2Config(**{**ends, **sizes, "vocab_size": len(vocab)})

    def begun(self, sizes: Mapping[str, Any], corpus: Any, recipe: Any) -> Any:
        if not recipe.init_from:
            return super().begun(sizes, corpus, recipe)
        model, vocab = self.initial(recipe.init_from, sizes), corpus.vocab
        if model.config.vocab_size != len(vocab):
            raise ValueError(
                f"the weights of {recipe.init_from!r} are for {model.config.vocab_size:,} tokens, "
                f"and the shards are of {vocab.name} with {len(vocab):,}; prepare them with the "
                "tokenizer of those weights"
            )
        return adapted(model.train(), recipe)

    def initial(self, path: str, settings: Mapping[str, Any]) -> GPT2LMHeadModel:
        """The weights to begin with: those of a run, or in Hugging Face's form."""
        if RunFolder(path).checkpoint.exists():
            saved = RunFolder(path).load(self.kind)
            saved["config"] |= settings
            model: GPT2LMHeadModel = restored(self, saved)[0]
            model.gradient_checkpointing_disable()
        else:
            model = GPT2LMHeadModel.from_pretrained(path, **settings)
        lora.fuse(model).requires_grad_(True)
        return model

    def made(self, config: Any, recipe: Any, fresh: bool) -> Any:
        with nullcontext() if fresh else undrawn():
            return adapted(GPT2LMHeadModel(config), recipe)

    def trainer(self, model: Any, recipe: Any, corpus: Any) -> Trainer:
        T = length_of(model.config, recipe)
        batches = ShardBatches(corpus.path, T, recipe.batch_size, recipe.seed, recipe.shuffle)
        kind = DocumentTrainer if recipe.document_mask else Trainer
        trainer = kind(model, recipe, batches)
        trainer.peak = measured_peak(recipe.device, trainer.dtype)
        trainer.flops = budget(model, T).training_flops
        return trainer

    def introduction(self, corpus: Any, model: Any, recipe: Any) -> Iterator[str]:
        c, vocab, tokens = model.config, corpus.vocab, corpus.tokens
        yield (
            f"tokens: {corpus.path}, {tokens['train']:,} to train on in "
            f"{len(corpus.shards['train'])} shards, {tokens['val']:,} to validate, of {vocab.name} "
            f"({len(vocab):,} ids)"
        )
        count = model.num_parameters()
        trained = model.num_parameters(only_trainable=True)
        yield (
            f"model: {self.kind} of {count:,} parameters (n_layer {c.n_layer}, n_head {c.n_head}, "
            f"n_embd {c.n_embd}, n_positions {c.n_positions})"
            + (f", {trained:,} of them trained" if trained < count else "")
        )
        if recipe.init_from:
            yield f"first weights: those of {recipe.init_from}"
        else:
            yield f"knowing nothing: {math.log(c.vocab_size):.4f} nats per token"

    def plan(self, trainer: Any, recipe: Any) -> Iterator[str]:
        T, size = length_of(trainer.model.config, recipe), dist.get_world_size()
        total = trainer.accumulation * trainer.batches.tokens * size
        yield (
            f"training: {recipe.max_iters:,} steps of {total:,} tokens, {recipe.batch_size} x "
            f"{T:,} at a time, {trainer.accumulation} times a step, in "
            f"{size} process{'es' * (size > 1)}; on {recipe.device}, products in {trainer.dtype}, "
            f"whose peak measured here is {trainer.peak / 1e12:.3f} TFLOP/s"
        )

    def conclusion(self, last: dict[str, Any], corpus: Any, seconds: float) -> Iterator[str]:
        if last.get("val_loss") is not None:
            yield (
                f"validation loss {last['val_loss']:.4f} nats per token (perplexity "
                f"{math.exp(min(last['val_loss'], 700)):.2f}), training {last['train_loss']:.4f}; "
                f"{seconds:.0f} s of training"
            )
        yield f"peak memory: {peak_memory()}"

    def marks(self, corpus: Any) -> dict[str, float]:
        return {}

    def vocabulary(self, saved: Mapping[str, Any]) -> TokenVocab:
        return TokenVocab.from_dict(saved["vocab"])

    def write(
        self, model: Any, vocab: Any, generator: Any, start: str | None = None,
        count: int | None = None, length: int | None = None, temperature: float | None = None,
        top_k: int | None = None,
    ) -> str:  # fmt: skip
        options = {
            "temperature": 0.8 if temperature is None else temperature,
            "top_k": top_k, "generator": generator,
        }  # fmt: skip
        n = 100 if length is None else length
        begin = vocab.opening if start is None else start
        texts = (
            (start or "") + "".join(write(model, vocab, begin, n, **options))
            for _ in range(1 if count is None else count)
        )
        return ("\n" + "-" * 40 + "\n").join(texts)

    def sample(self, model: Any, vocab: Any, recipe: Any, generator: Any) -> str:
        try:
            return self.write(model, vocab, generator, length=recipe.sample_length).strip()
        except FileNotFoundError as error:  # GPT-2's vocabulary is not needed for training
            return f"(none: {error})"


PDROPS = ("resid_pdrop", "embd_pdrop", "attn_pdrop")


def adapted(model: Any, recipe: Any) -> Any:
    """With the recipe's adapters, and running again what it says."""
    if recipe.lora_rank:
        names = [name.strip() for name in recipe.lora_modules.split(",")]
        lora.inject(model, names, recipe.lora_rank, recipe.lora_alpha, recipe.lora_dropout)
    if recipe.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    return model


def length_of(config: Any, recipe: Any) -> int:
    """Tokens of a window.  ValueError for more than the model sees."""
    T: int = recipe.sequence_length or config.n_positions
    if config.n_positions < T:
        raise ValueError(
            f"sequence_length can be at most the model's n_positions, {config.n_positions}; it "
            f"is {T}"
        )
    return T


def peak_memory() -> str:
    """The most that this process had in memory so far, and on its GPU."""
    text = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:,.2f} GiB"
    if tg.cuda.memory_reserved():  # CuPy's pool, which does not shrink
        text += f", {tg.cuda.memory_reserved() / 2**30:,.2f} GiB on the GPU"
    return text


NO_DROPOUT = dict.fromkeys(PDROPS, 0.0)

LLMC = {
    **NO_DROPOUT, "batch_size": 16, "total_batch_size": 524_288, "max_iters": 19_560,
    "learning_rate": 6e-4, "min_lr": 0.0, "warmup_iters": 700, "weight_decay": 0.1, "beta2": 0.95,
    "grad_clip": 1.0, "shuffle": True, "eval_interval": 250, "dtype": "auto", "keep_last": 2,
    "keep_best": True,
}  # fmt: skip
"""llm.c's for 124 million parameters and ten thousand million tokens of FineWeb."""

PLAIN = {
    **NO_DROPOUT, "batch_size": 32, "total_batch_size": 524_288, "max_iters": 38,
    "learning_rate": 3e-4, "decay_lr": False, "weight_decay": 0.01, "beta2": 0.999,
    "grad_clip": 0.0, "shuffle": False, "eval_interval": 38, "dtype": "auto",
}  # fmt: skip
"""AdamW at a constant rate, 38 steps: a first look at 20 million tokens."""

TINY = {
    **NO_DROPOUT, "n_layer": 4, "n_head": 4, "n_embd": 128, "n_positions": 128, "batch_size": 8,
    "max_iters": 1000, "learning_rate": 1e-3, "min_lr": 1e-4, "warmup_iters": 50,
    "weight_decay": 0.1, "beta2": 0.99, "eval_interval": 100, "eval_iters": 10,
    "total_batch_size": 0,
}  # fmt: skip
"""Small enough for two cores and a few minutes."""

GPT2 = TokenJob(
    "gpt2",
    "GPT-2",
    "GPT-2 on token shards, as llm.c trains it; --preset=tiny for a first try on a CPU",
    GPT2LMHeadModel,
    GPT2Config,
    TokenRecipe,
    LLMC,
    {"llm.c": {}, "plain": PLAIN, "tiny": TINY},
)
