"""GPT2Trainer: a GPT-2 trained batch by batch from a loop of your own, saved and gone on with."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any, Self

import tensorgrad as tg
from tensorgrad import Tensor, nn, optim
from tensorgrad.data.collate import IGNORED
from tensorgrad.models.gpt2 import GPT2Config, GPT2LMHeadModel
from tensorgrad.models.layers import undrawn
from tensorgrad.models.training.together import kinds
from tensorgrad.models.training.trainer import arrays, decay_groups
from tensorgrad.models.variants import gpt2_config
from tensorgrad.optim import lr_scheduler
from tensorgrad.random import generator_for
from tensorgrad.serialization import CheckpointError, load_tree, save_tree

KIND = "GPT-2 trainer"
PARTS = {"kind", "config", "model", "optimizer", "scheduler", "step", "grad_clip", "generators"}
"""What a file of `save_model` consists of."""


class GPT2Trainer:
    """AdamW with a linear warm-up, then a cosine down to min_lr, where it stays; clipped gradients.

    model(input_ids, attention_mask=, labels=) answers with a .loss; config is the model's own.
    device: where to train, by default the GPU where there is one.  Matrices decay, vectors do not.
    total_steps: where the cosine ends; warmup_steps: fewer in a shorter run.  min_lr: a tenth of lr
    by default.  grad_clip: the largest norm of the gradient, 0 for any.
    """

    def __init__(
        self, model: Any, config: GPT2Config, device: Any = None, *, lr: float = 5e-5,
        weight_decay: float = 0.01, total_steps: int = 1000, warmup_steps: int = 100,
        min_lr: float | None = None, grad_clip: float = 1.0,
    ) -> None:  # fmt: skip
        if config != model.config:
            raise ValueError(
                "GPT2Trainer: config is not the model's own: "
                + ", ".join(differences(model.config, config, "the model", "the config"))
                + "; give model.config"
            )
        if total_steps < 1 or warmup_steps < 0 or not grad_clip >= 0:
            raise ValueError(
                "GPT2Trainer: total_steps must be at least 1, warmup_steps and grad_clip at least "
                f"0; they are {total_steps}, {warmup_steps} and {grad_clip}"
            )
        chosen = ("cuda" if tg.cuda.is_available() else "cpu") if device is None else device
        self.device = tg.device(chosen)
        self.model, self.config, self.grad_clip = model.to(self.device), config, grad_clip
        self.optimizer = optim.AdamW(decay_groups(model, weight_decay), lr=lr)
        self.scheduler = lr_scheduler.WarmupCosineLR(
            self.optimizer, min(warmup_steps, total_steps - 1), total_steps,
            lr / 10 if min_lr is None else min_lr,
        )  # fmt: skip
        self.step = 0

    def train_step(self, batch: Mapping[str, Any]) -> float:
        """One step on `input_ids` (B, T), and `attention_mask` and `labels` if given; its loss.

        Without labels each token is to be predicted from those before it, but for padding, where
        the mask is 0.  ValueError for a batch in which nothing is to be predicted;
        FloatingPointError, and no weight changed, where loss or gradient are not finite.
        """
        self.model.train()
        ids, mask, labels = (self.placed(batch.get(name)) for name in
                             ("input_ids", "attention_mask", "labels"))  # fmt: skip
        if ids is None:
            raise ValueError(f"train_step: the batch has {', '.join(batch)} and no input_ids")
        labels = labels_of(ids, mask) if labels is None else labels
        if not bool((labels[:, 1:] != IGNORED).any()):
            raise ValueError(
                f"train_step: nothing is to be predicted in this batch of {tuple(ids.shape)}: "
                "rows need two tokens that are no padding"
            )
        loss = self.model(input_ids=ids, attention_mask=mask, labels=labels).loss
        self.optimizer.zero_grad()
        loss.backward()
        most = self.grad_clip or math.inf
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), most).item()
        if not math.isfinite(loss.item() + norm):
            raise FloatingPointError(
                f"train_step: at step {self.step + 1} the loss is {loss.item()}, the gradient's "
                f"norm {norm}; take a lower lr, or let autograd.detect_anomaly() name the op"
            )
        self.optimizer.step()
        self.scheduler.step()
        self.step += 1
        return float(loss.item())

    def placed(self, values: Any) -> Tensor | None:
        """An entry of a batch on the trainer's device."""
        return None if values is None else tg.as_tensor(values, device=self.device)

    def save_model(self, path: str | os.PathLike[str]) -> None:
        """Write all that going on exactly needs into one safetensors file, replaced whole.

        Settings, weights, moments, schedule, step, and where the default random generators are.
        """
        state = {
            "kind": KIND,
            "config": self.config.to_dict(),
            "model": arrays(self.model.state_dict()),
            "optimizer": arrays(self.optimizer.state_dict()),
            "scheduler": self.scheduler.state_dict(),
            "step": self.step,
            "grad_clip": self.grad_clip,
            "generators": {kind: generator_for(kind).get_state() for kind in kinds(self.device)},
        }
        save_tree(path, state)

    def load_model(self, path: str | os.PathLike[str]) -> None:
        """Go on, exactly, from a file of `save_model`: its rates and random numbers included.

        CheckpointError for a damaged file or another model's; nothing is changed then.
        """
        saved = read(path)
        theirs = settings_of(saved, path)
        if theirs != self.config:
            told = ", ".join(differences(self.config, theirs, "this model", "the file"))
            raise CheckpointError(
                f"{os.fspath(path)!r} is another model's: {told}; GPT2Trainer.from_file makes the "
                "model that the file is of"
            )
        self.restore(saved, path)

    def restore(self, saved: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
        before = self.optimizer.state_dict()
        try:
            self.optimizer.load_state_dict(saved["optimizer"])
            self.model.load_state_dict(saved["model"])
        except (RuntimeError, ValueError) as error:
            self.optimizer.load_state_dict(before)
            raise CheckpointError(f"{os.fspath(path)!r} is another model's: {error}") from error
        self.scheduler.load_state_dict(saved["scheduler"])
        self.step, self.grad_clip = saved["step"], saved["grad_clip"]
        for kind, state in saved["generators"].items():
            if kind in kinds(self.device):
                generator_for(kind).set_state(state)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], device: Any = None) -> Self:
        """The trainer, and its model, of a file of `save_model`, as they were."""
        saved = read(path)
        with undrawn():
            model = GPT2LMHeadModel(settings_of(saved, path))
        trainer = cls(model, model.config, device)
        trainer.restore(saved, path)
        return trainer


def labels_of(ids: Tensor, mask: Tensor | None) -> Tensor:
    """The ids, and -100 where the mask is 0 at the token or at the one that would predict it."""
    if mask is None:
        return ids
    real = mask.bool()
    real = real & tg.cat([real[:, :1], real[:, :-1]], dim=1)
    labels: Tensor = ids.masked_fill(~real, IGNORED)
    return labels


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The contents of a file of `save_model`; CheckpointError for any other."""
    saved: Any = load_tree(path)
    if not isinstance(saved, dict) or saved.get("kind") != KIND or PARTS - saved.keys():
        raise CheckpointError(f"{os.fspath(path)!r} is no file of GPT2Trainer.save_model")
    return saved


def settings_of(saved: Mapping[str, Any], path: str | os.PathLike[str]) -> GPT2Config:
    try:
        return gpt2_config(**saved["config"])
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{os.fspath(path)!r}: its config cannot be: {error}") from error


def differences(ours: Any, theirs: Any, us: str, them: str) -> list[str]:
    """In words, each setting that two configurations have differently."""
    a, b = ours.to_dict(), theirs.to_dict()
    return [
        f"{name} is {a.get(name)!r} in {us} and {b.get(name)!r} in {them}"
        for name in dict.fromkeys([*a, *b])
        if a.get(name) != b.get(name)
    ]
