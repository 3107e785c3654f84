"""Models of words: their corpus, what is told of them, and the words they make up."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.data import Text, WordVocab, contexts, names, split_words, words_of
from tensorgrad.distributed import get_world_size
from tensorgrad.models.count_bigram import CountBigram, CountBigramConfig
from tensorgrad.models.training.job import Job
from tensorgrad.models.training.source import located
from tensorgrad.models.training.trainer import arrays
from tensorgrad.models.training.word_trainer import (
    ROWS,
    CountTrainer,
    Examples,
    WordTrainer,
    evaluate,
)
from tensorgrad.models.words import WordModel, draw_words


class WordCorpus:
    """Words in three parts: 80 % to train on, 10 % to validate on, and 10 % to test on once."""

    def __init__(self, text: Text, seed: int = 42, path: Any = None) -> None:
        self.text, self.path = text, path
        self.words = words_of(text)
        self.vocab = WordVocab(self.words)
        self.parts = split_words(self.words, seed)

    def examples(self, block_size: int) -> Examples:
        """Contexts (N, T) and what follows (N), part by part."""
        return {part: contexts(words, self.vocab, block_size) for part, words in self.parts.items()}

    @cached_property
    def bigram(self) -> float:
        """The validation loss of bigrams counted in training, one more of each, in nats."""
        return bigram_loss(self.parts["train"], self.parts["val"], self.vocab)


def bigram_loss(train: Any, judged: Any, vocab: WordVocab, smoothing: float = 1.0) -> float:
    """The mean loss on the words `judged` of the bigrams counted in `train`, nats per character."""
    model = CountBigram(CountBigramConfig(len(vocab), smoothing))
    model.count(*contexts(train, vocab, 1))
    return evaluate(model, *contexts(judged, vocab, 1))


def word_score(model: WordModel, vocab: WordVocab, word: str) -> tuple[float, int]:
    """-ln p(word), its end included, and the characters that it sums over.

    ValueError names a character that the vocabulary has not.
    """
    x, y = contexts([word], vocab, model.config.block_size)
    return evaluate(model, x, y) * len(y), len(y)


@dataclass(frozen=True)
class WordJob(Job):
    """A model that is given the last few characters of a word and learns the next."""

    reads = (
        "words in UTF-8, one a line, or `names`, which are downloaded (default: words of the "
        "names of Unicode 3.2)"
    )
    log10 = True

    def corpus(self, data: Any, recipe: Any) -> WordCorpus:
        path = located(data)
        return WordCorpus(names(path), recipe.split_seed, path)

    def trainer(self, model: Any, recipe: Any, corpus: Any) -> Any:
        if get_world_size() > 1:
            raise ValueError(
                f"a {self.kind} is so small that one process trains it; start it without mpirun"
            )
        return WordTrainer(model, recipe, corpus.examples(model.config.block_size))

    def introduction(self, corpus: Any, model: Any, recipe: Any) -> Iterator[str]:
        text, parts = corpus.text, corpus.parts
        sizes = ", ".join(
            f"{sum(map(len, words)) + len(words):,} ({part})" for part, words in parts.items()
        )
        yield f"words: {text.name}, {len(corpus.words):,} of them, {len(corpus.vocab)} symbols"
        yield f"sha256: {text.sha256}"
        yield f"characters to predict: {sizes}"
        count = sum(p.numel() for p in model.parameters())
        shape = ", ".join(f"{k} {v}" for k, v in model.config.to_dict().items())
        yield f"model: {self.kind} of {count:,} parameters ({shape})"
        yield (
            f"to beat: {corpus.bigram:.4f} nats per character, the validation loss of counted "
            f"bigrams (knowing nothing: {math.log(len(corpus.vocab)):.4f})"
        )

    def plan(self, trainer: Any, recipe: Any) -> Iterator[str]:
        size = f"{recipe.batch_size} examples" if recipe.batch_size else "all examples"
        yield f"training: {recipe.max_iters:,} steps of {size} on {recipe.device}"

    def finish(self, trainer: Any) -> tuple[dict[str, float], dict[str, Any]]:
        """All of every part; a BatchNorm's statistics are first measured over the training set."""
        model, buffers = trainer.model, {}
        if any(isinstance(module, nn.BatchNorm1d) for module in model.modules()):
            before = {k: v.clone() for k, v in model.named_buffers()}
            x = trainer.examples["train"][0]
            batches = [tg.from_numpy(x[i : i + ROWS]) for i in range(0, len(x), ROWS)]
            nn.calibrate(model, [batch.to(trainer.recipe.device) for batch in batches])
            buffers = arrays({k: v.clone() for k, v in model.named_buffers()})
            losses = self.losses(trainer)
            for name, buffer in model.named_buffers():
                buffer.copy_(before[name])  # what the checkpoint goes on with
            return losses, buffers
        return self.losses(trainer), buffers

    def losses(self, trainer: Any) -> dict[str, float]:
        return {f"{k}_loss": evaluate(trainer.model, *v) for k, v in trainer.examples.items()}

    def conclusion(self, last: dict[str, Any], corpus: Any, seconds: float) -> Iterator[str]:
        yield (
            f"validation loss {last['val_loss']:.4f} nats per character, training "
            f"{last['train_loss']:.4f}, test {last['test_loss']:.4f}, counted bigrams "
            f"{corpus.bigram:.4f}; {seconds:.0f} s of training"
        )

    def marks(self, corpus: Any) -> dict[str, float]:
        return {"counted bigrams": corpus.bigram}

    def vocabulary(self, saved: Mapping[str, Any]) -> WordVocab:
        return WordVocab.from_dict(saved["vocab"])

    def write(
        self, model: Any, vocab: Any, generator: Any, start: str | None = None,
        count: int | None = None, length: int | None = None, temperature: float | None = None,
        top_k: int | None = None,
    ) -> str:  # fmt: skip
        words = draw_words(
            model,
            20 if count is None else count,
            generator,
            1.0 if temperature is None else temperature,
            top_k,
            vocab.encode(start or ""),
            length,
        )
        return "\n".join(map(vocab.decode, words))

    def scored(self, model: Any, vocab: Any, word: str) -> str:
        total, steps = word_score(model, vocab, word)
        return (
            f"ln p({word}) = {-total:.4f}, over {steps} characters with the one that ends it: "
            f"{total / steps:.4f} nats a character, a perplexity of {math.exp(total / steps):.2f}"
        )

    def sample(self, model: Any, vocab: Any, recipe: Any, generator: Any) -> str:
        return self.write(model, vocab, generator, count=recipe.sample_words)


class CountJob(WordJob):
    """Counting: one step, nothing random."""

    def trainer(self, model: Any, recipe: Any, corpus: Any) -> CountTrainer:
        return CountTrainer(model, recipe, corpus.examples(1))

    def plan(self, trainer: Any, recipe: Any) -> Iterator[str]:
        yield "training: counting, once"

    def conclusion(self, last: dict[str, Any], corpus: Any, seconds: float) -> Iterator[str]:
        yield from super().conclusion(last, corpus, seconds)
        words, vocab = corpus.words, corpus.vocab
        plain, smooth = (bigram_loss(words, words, vocab, s) for s in (0.0, 1.0))
        yield (
            f"counted and judged on all words, as the lecture does: {plain:.7f}, "
            f"and with one added to every count {smooth:.7f}"
        )
