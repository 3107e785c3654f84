"""The command `tensorgrad train`: text in; losses, a picture, a checkpoint and a sample out."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import tensorgrad as tg
from tensorgrad.data import CharVocab, Text, bigram_loss, default_text, read_text, split
from tensorgrad.models.char_gpt import CharGPT, CharGPTConfig
from tensorgrad.models.training.recipe import Recipe
from tensorgrad.models.training.trainer import Step, Trainer
from tensorgrad.serialization import CheckpointError, load_tree, save_tree
from tensorgrad.tensor import Tensor

CHECKPOINT = "ckpt.safetensors"


def train(recipe: Recipe, data: str | None, out_dir: str, resume: bool = False) -> Step:
    """Train a CharGPT by the recipe on a text file (or Python's own help), and write everything to out_dir."""
    text = default_text() if data is None else read_text(data)
    print(f"text: {text}")
    vocab = CharVocab.from_text(text.text)
    train_ids, val_ids = split(vocab.encode(text.text))
    for name, ids in (("training", train_ids), ("validation", val_ids)):
        if len(ids) <= recipe.block_size:
            raise ValueError(
                f"the {name} part of the text has {len(ids):,} characters, a block needs {recipe.block_size + 1:,}; "
                "take a longer text, or a smaller --block_size"
            )
    floor = bigram_loss(train_ids, val_ids, len(vocab))
    tg.manual_seed(recipe.seed)
    sizes = {k: getattr(recipe, k) for k in ("block_size", "n_layer", "n_head", "n_embd", "dropout")}
    model = CharGPT(CharGPTConfig(vocab_size=len(vocab), **sizes)).to(recipe.device)
    count = sum(p.numel() for p in model.parameters())
    print(
        f"model: char GPT with {count:,} parameters ({recipe.n_layer} layers, {recipe.n_head} heads, "
        f"{recipe.n_embd} wide, {recipe.block_size} characters at once)"
    )
    print(f"bigram model of the same split: {floor:.4f} nats per character; even guessing: {math.log(len(vocab)):.4f}")
    trainer = Trainer(model, recipe, train_ids, val_ids)
    folder = Path(out_dir)
    if resume:
        trainer.load_state(_resumed(folder, vocab, text))
        print(f"resuming from step {trainer.step} of {recipe.max_iters}")
    else:
        _make_room(folder)
    folder.mkdir(parents=True, exist_ok=True)

    def save() -> None:
        save_tree(
            folder / CHECKPOINT,
            {
                "kind": "char-gpt",
                "config": model.config.to_dict(),
                "recipe": recipe.to_dict(),
                "vocab": vocab.to_dict(),
                "text": {"name": text.name, "sha256": text.sha256},
                "trainer": trainer.state(),
            },
        )

    last = None
    with open(folder / "losses.jsonl", "a", encoding="utf-8") as log:
        try:
            for last in _shown(trainer, lambda step: save()):
                _write(log, last)
        except KeyboardInterrupt:
            save()
            print(f"\nstopped at step {trainer.step}; go on with: tensorgrad train --resume --out_dir {out_dir}")
            raise
    if last is None:
        raise ValueError(f"nothing to do: step {trainer.step} of --max_iters {recipe.max_iters} is reached")
    steps = read_losses(folder / "losses.jsonl")
    plot_losses(steps, floor, folder / "loss.png")
    print(
        f"validation loss {last.val_loss:.4f} nats per character (training {last.train_loss:.4f}, bigram {floor:.4f}) "
        f"after {sum(s['seconds'] for s in steps):.0f} s of training"
    )
    print(f"wrote {folder / CHECKPOINT}, {folder / 'losses.jsonl'} and {folder / 'loss.png'}; a sample:\n")
    print(continuation(model, vocab, "\n" if "\n" in vocab.symbols else vocab.symbols[0], 400, 0.8, None).strip())
    print(f"\nmore of it: tensorgrad sample --out_dir {out_dir}")
    return last


def _resumed(folder: Path, vocab: CharVocab, text: Text) -> dict[str, Any]:
    state = load(folder)
    if state["vocab"] != vocab.to_dict():
        raise CheckpointError(
            f"{folder / CHECKPOINT} was trained on {state['text']['name']!r}, whose characters are not those of "
            f"{text.name!r}; name the same --data"
        )
    trainer: dict[str, Any] = state["trainer"]
    return trainer


def load(folder: Path) -> dict[str, Any]:
    """The checkpoint in a folder; FileNotFoundError says how to make one."""
    path = folder / CHECKPOINT
    if not path.exists():
        raise FileNotFoundError(f"there is no checkpoint {path}; make one with: tensorgrad train --out_dir {folder}")
    state: Any = load_tree(path)
    if not isinstance(state, dict) or state.get("kind") != "char-gpt":
        raise CheckpointError(f"{path} is not a checkpoint of a char GPT")
    return state


def _make_room(folder: Path) -> None:
    """An earlier run in this folder is kept under another name."""
    if (folder / CHECKPOINT).exists() or (folder / "losses.jsonl").exists():
        n = 1
        while (kept := folder.with_name(f"{folder.name}.{n}")).exists():
            n += 1
        folder.rename(kept)
        print(f"the earlier run in {folder} is kept as {kept}")


# ---- what a run shows and writes


def _shown(trainer: Trainer, on_eval: Any) -> Iterator[Step]:
    """The steps, with a progress bar on a terminal and a plain line now and then elsewhere."""
    total, recipe = trainer.recipe.max_iters, trainer.recipe
    bar: Any = None
    if sys.stderr.isatty():
        from tqdm import tqdm

        bar = tqdm(total=total, initial=trainer.step, unit="step", dynamic_ncols=True)
    try:
        for step in trainer.run(on_eval):
            tokens = recipe.batch_size * recipe.block_size / step.seconds
            line = (
                f"step {step.step}/{total} | loss {step.loss:.4f} | norm {step.grad_norm:.2f} | lr {step.lr:.1e} | "
                f"{1e3 * step.seconds:.0f} ms | {tokens / 1e3:.1f}k tok/s"
            )
            evaluated = step.val_loss is not None
            if evaluated:
                line += f" | train {step.train_loss:.4f} | val {step.val_loss:.4f}"
            if bar is not None:
                bar.set_postfix(loss=f"{step.loss:.3f}", refresh=False)
                bar.update()
                if evaluated:
                    bar.write(line, file=sys.stderr)
            elif evaluated or step.step % recipe.log_interval == 0 or step.step == 1:
                print(line, flush=True)
            yield step
    finally:
        if bar is not None:
            bar.close()


def _write(log: IO[str], step: Step) -> None:
    log.write(json.dumps({k: v for k, v in asdict(step).items() if v is not None}) + "\n")
    log.flush()


def read_losses(path: Path) -> list[dict[str, Any]]:
    """The steps of a run; after a resume, the later line of a step counts."""
    steps: dict[int, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        steps[entry["step"]] = entry
    return [steps[n] for n in sorted(steps)]


def plot_losses(steps: list[dict[str, Any]], floor: float, path: Path) -> None:
    """The loss curve: every step, a running mean, the evaluations, and the bigram model's loss."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    x, y = [s["step"] for s in steps], [s["loss"] for s in steps]
    smooth, mean = [], y[0]
    for loss in y:
        mean += 0.03 * (loss - mean)
        smooth.append(mean)
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    axes.plot(x, y, color="#9ecae1", linewidth=0.6, label="batch")
    axes.plot(x, smooth, color="#08519c", linewidth=1.4, label="batches, running mean")
    evaluated = [s for s in steps if "val_loss" in s]
    axes.plot([s["step"] for s in evaluated], [s["val_loss"] for s in evaluated], "o-", color="#d94801", label="validation")
    axes.axhline(floor, color="grey", linestyle="--", linewidth=1, label=f"bigram model {floor:.2f}")
    axes.set(xlabel="step", ylabel="loss, nats per character", ylim=(0.9 * min(y), 1.05 * max(y)))
    if evaluated:
        axes.set_title(f"validation loss {evaluated[-1]['val_loss']:.3f} after {x[-1]:,} steps")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


# ---- sampling


def restored(folder: Path, device: str = "cpu") -> tuple[CharGPT, CharVocab]:
    """The model and the vocabulary of a checkpoint."""
    state = load(folder)
    model = CharGPT(CharGPTConfig(**state["config"]))
    model.load_state_dict({k: Tensor(v) for k, v in state["trainer"]["model"].items()})
    return model.to(device).eval(), CharVocab.from_dict(state["vocab"])


def continuation(
    model: CharGPT, vocab: CharVocab, start: str, length: int, temperature: float, top_k: int | None, generator: Any = None
) -> str:
    """`start` and `length` characters more."""
    device = next(iter(model.parameters())).device
    idx = tg.tensor(vocab.encode(start).astype("int64")[None]).to(device)
    return vocab.decode(model.generate(idx, length, temperature, top_k, generator)[0].cpu().numpy())
