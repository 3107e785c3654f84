"""What others published for the same tasks: numbers, how far a reproduction may be off, and where.

Facts only.  Losses are in nats per character.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """low <= a good reproduction <= high, where `value` is what the source says."""

    what: str
    value: float
    low: float
    high: float
    source: str

    def met_by(self, measured: float) -> bool:
        return self.low <= measured <= self.high


def exactly(what: str, value: float, source: str, tolerance: float = 0.0) -> Figure:
    """value, give or take the tolerance."""
    return Figure(what, value, value - tolerance, value + tolerance, source)


def at_most(what: str, value: float, limit: float, source: str) -> Figure:
    """A loss: lower is better, and the limit is what counts as reproduced."""
    return Figure(what, value, 0.0, limit, source)


NAMES = "makemore's names.txt"
LECTURE = "nn-zero-to-hero, lectures/makemore"
COMPUTED = f"computed from {NAMES}"

MICROGRAD = (
    exactly("g", 24.7041, "micrograd README", 5e-5),
    exactly("dg/da", 138.8338, "micrograd README", 5e-5),
    exactly("dg/db", 645.5773, "micrograd README", 5e-5),
)

WORDS = exactly("words", 32_033, NAMES)
BIGRAMS = exactly("pairs of characters", 228_146, COMPUTED)
SEEN = exactly("pairs that occur, of 729", 627, COMPUTED)
SPLITS = (
    exactly("training examples", 182_625, f"{LECTURE} part 2, seed 42"),
    exactly("validation examples", 22_655, f"{LECTURE} part 2, seed 42"),
    exactly("test examples", 22_866, f"{LECTURE} part 2, seed 42"),
)

COUNT_BIGRAM = {
    0.0: exactly("counted, no smoothing", 2.4540145, f"{COMPUTED} in float64", 1e-6),
    1.0: exactly("counted, +1", 2.4545768, f"{COMPUTED} in float64", 1e-6),
    5.0: exactly("counted, +5", 2.4576827, f"{COMPUTED} in float64", 1e-6),
}
"""By what is added to each count: the mean loss of the words that were counted."""

COUNT_BIGRAM_SPLIT = (
    exactly("counted +1, training", 2.45484, COMPUTED, 1e-5),
    exactly("counted +1, validation", 2.45326, COMPUTED, 1e-5),
    exactly("counted +1, test", 2.45839, COMPUTED, 1e-5),
)

NEURAL_BIGRAM_SEED = 2147483647
NEURAL_BIGRAM = (
    Figure("neural bigram, 100 steps", 2.4818, 2.46, 2.49, f"{LECTURE} part 1"),
    exactly("the same with the penalty of 0.01", 2.490, f"{COMPUTED}, the lecture's seed", 5e-4),
)

PARAMETERS = {
    "mlp": exactly("parameters of mlp", 11_897, f"{LECTURE} part 2"),
    "mlp-bn": exactly("parameters of mlp-bn", 12_097, f"{LECTURE} part 3"),
    "deep": exactly("parameters of deep", 47_024, f"{LECTURE} part 3"),
    "wavenet": exactly("parameters of wavenet", 76_579, f"{LECTURE} part 5"),
    "char-gpt": exactly("parameters of char-gpt", 10_788_929, "Let's build GPT, gpt.py"),
    "mini-gpt": exactly("parameters of mini-gpt", 4_788_480, "computed: 65 symbols"),
    "gpt2": exactly("parameters of gpt2", 124_439_808, "computed: GPT-2 small"),
    "gpt2-medium": exactly("parameters of gpt2-medium", 354_823_168, "computed: GPT-2 medium"),
    "gpt2-large": exactly("parameters of gpt2-large", 774_030_080, "computed: GPT-2 large"),
    "gpt2-xl": exactly("parameters of gpt2-xl", 1_557_611_200, "computed: GPT-2 XL"),
}

TRAINED = {
    "mlp": at_most("mlp, validation", 2.1701, 2.18, f"{LECTURE} part 2"),
    "mlp-bn": at_most("mlp-bn, validation", 2.1057, 2.11, f"{LECTURE} part 3"),
    "wavenet": at_most("wavenet, validation", 1.9937, 2.00, f"{LECTURE} part 5"),
    "char-gpt": at_most("char-gpt, CPU recipe", 1.88, 1.90, "nanoGPT README"),
}
"""Validation losses after the whole of each recipe."""

SHORT_MLP_STEPS = 2000
SHORT_MLP = (
    exactly("mlp, 2,000 steps, mean of last 100", 2.388497, "PyTorch 2.13, seed 1337", 1e-4),
    exactly("mlp, 2,000 steps, validation", 2.355811, "PyTorch 2.13, seed 1337", 1e-4),
)
"""The same script from the same seed, in float32 at a rate of 0.1, with no weights copied."""

SHAKESPEARE = (
    exactly("characters", 1_115_394, "tinyshakespeare, computed"),
    exactly("symbols", 65, "tinyshakespeare, computed"),
    exactly("training characters", 1_003_854, "nanoGPT, shakespeare_char/prepare.py"),
    exactly("validation characters", 111_540, "nanoGPT, shakespeare_char/prepare.py"),
)

CHAR_GPT_CURVE = {
    0: (4.2833, 4.2869),
    500: (2.0049, 2.0904),
    1000: (1.5985, 1.7810),
    2000: (1.3383, 1.5682),
    3000: (1.2268, 1.5113),
    4500: (1.1090, 1.4761),
}
"""step: (training loss, validation loss) of the full char GPT on tinyshakespeare.

10,788,929 parameters, batch 64, block 256, rate 3e-4, dropout 0.2.  Source: the README of
VincentRacine-UnlikelyAI/nanogpt; other public logs end at 1.475 to 1.50."""

CHAR_GPT_FINAL = at_most("char-gpt, full recipe", 1.4761, 1.50, "VincentRacine-UnlikelyAI/nanogpt")
CHAR_GPT_START = exactly("char-gpt, full size, loss before training", 4.2869,
                         "VincentRacine-UnlikelyAI/nanogpt", 0.1)  # fmt: skip
