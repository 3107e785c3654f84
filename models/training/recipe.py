"""The recipes of training runs, under nanoGPT's names."""

from __future__ import annotations

from dataclasses import dataclass

from tensorgrad.models.settings import Settings, setting
from tensorgrad.models.training.guard import ACTIONS
from tensorgrad.models.training.logs import named_loggers


@dataclass(frozen=True)
class Recipe(Settings):
    """How a model of text is trained: batches, steps, learning rate, what is told and when.

    The defaults train the default char GPT in about two minutes on two cores.
    """

    batch_size: int = setting(12, "windows of text in a batch of one process", least=1)
    gradient_accumulation_steps: int = setting(1, "batches of each process in a step", least=1)
    total_batch_size: int = setting(
        0, "tokens in a step of all processes, which sets gradient_accumulation_steps; 0: as these "
        "make it", least=0,
    )  # fmt: skip
    max_iters: int = setting(2000, "steps", least=1)
    learning_rate: float = setting(1e-3, "AdamW's rate after the warm-up", least=0)
    min_lr: float = setting(1e-4, "the rate at the end", least=0)
    warmup_iters: int = setting(100, "steps of linear warm-up, fewer in a shorter run", least=0)
    decay_lr: bool = setting(True, "warm up, then lower the rate along a cosine")
    weight_decay: float = setting(0.1, "AdamW's decay, of matrices only", least=0)
    beta1: float = setting(0.9, "AdamW's memory of gradients", least=0, below=1)
    beta2: float = setting(0.99, "AdamW's memory of their squares", least=0, below=1)
    grad_clip: float = setting(1.0, "largest norm of the gradient; 0 for any", least=0)
    label_smoothing: float = setting(
        0.0, "share of each target that is spread over all symbols", least=0, below=1
    )
    ema_decay: float = setting(
        0.0, "memory of an average of the weights, which is evaluated and sampled; 0 for none",
        least=0, below=1,
    )  # fmt: skip
    dtype: str = setting(
        "float32", "what products are computed in, on float32 weights: float32, bfloat16, or auto: "
        "bfloat16 where it is faster", choices=("float32", "bfloat16", "auto"),
    )  # fmt: skip
    zero_stage: int = setting(
        0, "1: processes share out the optimiser's memory (ZeRO-1)", least=0, below=2
    )
    on_nonfinite: str = setting(
        "stop", "where loss or gradient is not finite: stop, skip the step, or rollback to the "
        "checkpoint, past the batches since", choices=ACTIONS,
    )  # fmt: skip
    on_spike: str = setting(
        "none", "where they are outliers among the last 128 steps: none, stop, skip, rollback",
        choices=("none", *ACTIONS),
    )  # fmt: skip
    spike_z: float = setting(
        6.0, "standard deviations above the mean that make a spike; none is ever 11.3 above",
        least=0, below=11,
    )  # fmt: skip
    eval_interval: int = setting(250, "steps between evaluations, each with a checkpoint", least=1)
    eval_iters: int = setting(20, "batches of either split in an evaluation", least=1)
    save_interval: int = setting(0, "steps between checkpoints beside those; 0 for none", least=0)
    keep_last: int = setting(1, "checkpoints to keep, ckpt.safetensors the newest", least=1)
    keep_best: bool = setting(False, "keep the one of the least validation loss, best.safetensors")
    log: str = setting("", "also write for tensorboard, wandb, or both: tensorboard,wandb")
    log_interval: int = setting(1, "steps between lines where there is no terminal", least=1)
    sample_length: int = setting(500, "characters of the sample at the end", least=0)
    eval_sample: int = setting(0, "characters of a sample at each evaluation before it", least=0)
    seed: int = setting(1337, "seed of weights, batches and dropout")
    device: str = setting("cpu", "cpu or cuda")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decay_lr and self.min_lr > self.learning_rate:
            raise ValueError(
                f"min_lr is where the learning rate ends, so it is at most learning_rate; they are "
                f"{self.min_lr} and {self.learning_rate}"
            )
        if self.total_batch_size and self.gradient_accumulation_steps > 1:
            raise ValueError(
                "total_batch_size sets gradient_accumulation_steps; give one of the two"
            )
        named_loggers(self.log)

    def accumulation(self, tokens: int, processes: int) -> int:
        """How many batches of so many tokens each process takes in a step.

        ValueError where total_batch_size is no multiple of what all take at once.
        """
        at_once = tokens * processes
        if not self.total_batch_size:
            return self.gradient_accumulation_steps
        if self.total_batch_size % at_once:
            raise ValueError(
                f"total_batch_size must be a multiple of the {at_once:,} tokens that {processes} "
                f"processes take at once ({tokens:,} each); it is {self.total_batch_size:,}"
            )
        return self.total_batch_size // at_once


@dataclass(frozen=True)
class TokenRecipe(Recipe):
    """How GPT-2 is trained on token shards: all of the above, and where its weights begin."""

    sequence_length: int = setting(0, "tokens of a window; 0: n_positions", least=0)
    shuffle: bool = setting(False, "take the windows in an order that seed and epoch decide")
    document_mask: bool = setting(
        False, "tokens see their own document only, from <|endoftext|> on, and count from there"
    )
    gradient_checkpointing: bool = setting(
        False, "forget the inside of each block and compute it again in backward: less memory"
    )
    init_from: str = setting(
        "", "weights to begin with: a folder in Hugging Face's form, a name on its hub, or the "
        "folder of a run"
    )
    lora_rank: int = setting(0, "train adapters of this rank instead of the weights", least=0)
    lora_alpha: float = setting(16.0, "scale of the adapters: alpha / rank", least=0)
    lora_dropout: float = setting(0.0, "dropout before the adapters", least=0, below=1)
    lora_modules: str = setting("c_attn", "layers that get one, by name: c_attn,c_proj,c_fc")


@dataclass(frozen=True)
class WordRecipe(Settings):
    """How a model of words is trained: plain gradient descent, p <- p - learning_rate p.grad."""

    batch_size: int = setting(32, "examples in a step; 0 for the whole training set", least=0)
    max_iters: int = setting(200_000, "steps", least=1)
    learning_rate: float = setting(0.1, "the rate at first", least=0)
    min_lr: float = setting(0.01, "the rate at the end", least=0)
    lr_decay_at: float = setting(0.5, "share of the steps before the rate falls to min_lr", least=0)
    decay_at_once: bool = setting(True, "it falls in one step; else along an exponential")
    eval_interval: int = setting(10_000, "steps between evaluations, with a checkpoint", least=1)
    log_interval: int = setting(1000, "steps between lines, each with their mean loss", least=1)
    sample_words: int = setting(20, "words of the sample at the end", least=0)
    seed: int = setting(1337, "seed of weights, batches and sample")
    split_seed: int = setting(42, "seed of the split into 80 % training, 10 % and 10 %")
    device: str = setting("cpu", "cpu or cuda")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lr_decay_at > 1:
            raise ValueError(f"lr_decay_at is a share, at most 1; it is {self.lr_decay_at}")
        if not self.decay_at_once and not (self.learning_rate > 0 and self.min_lr > 0):
            raise ValueError(
                "an exponential never reaches 0; take a learning_rate and min_lr above it, or "
                "decay_at_once"
            )

    def rate(self, step: int) -> float:
        """The learning rate of a step, the first being 0."""
        begin = self.lr_decay_at * self.max_iters
        if step < begin:
            return self.learning_rate
        if self.decay_at_once:
            return self.min_lr
        share = (step - begin) / (self.max_iters - begin)
        return float(self.learning_rate * (self.min_lr / self.learning_rate) ** share)


@dataclass(frozen=True)
class CountRecipe(Settings):
    """How words are counted: all in one step."""

    sample_words: int = setting(20, "words of the sample at the end", least=0)
    seed: int = setting(1337, "seed of the sample")
    split_seed: int = setting(42, "seed of the split into 80 % training, 10 % and 10 %")
    device: str = setting("cpu", "cpu or cuda")
    max_iters: int = 1
    log_interval: int = 1
