"""Small runs of two jobs with everything that has a state, and what is the same at their ends."""

import shutil
from pathlib import Path

from tensorgrad.models.training.folder import RunFolder
from tensorgrad.models.training.job import train
from tensorgrad.models.training.ladder import JOBS
from tests.models.token_folder import language, token_folder

STEPS = 20
BOTH = {
    "n_layer": 1, "n_head": 2, "n_embd": 8, "dropout": 0.2, "batch_size": 2,
    "gradient_accumulation_steps": 2, "max_iters": STEPS, "warmup_iters": 3, "eval_interval": 4,
    "eval_iters": 2, "save_interval": 2, "keep_last": 3, "keep_best": True,
    "ema_decay": 0.9, "sample_length": 5, "dtype": "float32",
}  # fmt: skip
# At these rates the least validation loss is not that of the last step.
SETTINGS = {
    "gpt2": {**BOTH, "n_positions": 16, "shuffle": True, "learning_rate": 0.2, "min_lr": 0.1},
    "char-gpt": {
        **BOTH, "block_size": 7, "save_interval": 3, "keep_last": 1, "learning_rate": 0.3,
        "min_lr": 0.1,
    },
}  # fmt: skip
CALM = {"learning_rate": 1e-2, "min_lr": 1e-4}
PRESETS = {"gpt2": "tiny", "char-gpt": None}


def data_of(word, folder):
    """What the job trains on, made in a folder where it is not there yet."""
    if word == "gpt2":
        path = Path(folder) / "shards"
        return path if path.exists() else token_folder(path, language(2003), language(401, seed=1))
    path = Path(folder) / "saying.txt"
    if not path.exists():
        path.write_text("what was will be, and what will be was;\n" * 23, encoding="utf-8")
    return path


def run(word, data, out, resume=False, **more):
    return train(JOBS[word], {**SETTINGS[word], **more}, data, out, resume, PRESETS[word])


def recorded(word, data, out, states, **more):
    """A run from its beginning to its end, of whose checkpoints `states` keeps a copy by step."""
    states.mkdir()
    save = RunFolder.save

    def watched(self, state, *args):
        save(self, state, *args)
        shutil.copy(self.checkpoint, states / f"{state['trainer']['step']}")

    RunFolder.save = watched
    try:
        return run(word, data, out, **more)
    finally:
        RunFolder.save = save


def endings(out):
    """The files in which weights, moments, averages, generators, places and losses are."""
    names = ("ckpt.safetensors", "best.safetensors", "losses.jsonl")
    return {name: (Path(out) / name).read_bytes() for name in names}


def temporary(out):
    """The temporary files in a folder."""
    return [path.name for path in Path(out).iterdir() if ".tmp-" in path.name]


def options(word, **more):
    """The settings as the command line takes them."""
    settings = {**SETTINGS[word], **more}
    words = [f"--{name}={value}" for name, value in settings.items()]
    preset = PRESETS[word]
    return [word, *words, *([f"--preset={preset}"] if preset else [])]
