"""Damaged files: one clear exception that names the file, or the very values that were written.

A process of its own reads them, with 64 MB of room: a crash, a hang or a large allocation is seen.
Values in foreign files, which have no checksums, cannot be guarded: bits of a weight or a token,
two weights of one shape with their names exchanged, another n_head, a missing optional setting.
"""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tensorgrad.data.shards import ShardError
from tensorgrad.models.gpt2 import GPT2LMHeadModel
from tensorgrad.models.weights.hugging_face import CONFIG_CRC, MODEL_CRC
from tensorgrad.serialization import CheckpointError, load_tree, save_tree
from tests.damage import sweep
from tests.damage.damages import BYTES, INTS, JSONS, TENSORS, damaged
from tests.damage.foreign import FOREIGN, write_theirs
from tests.damage.formats import FORMATS
from tests.damage.ours import (
    CONFIG,
    INDEX,
    OURS,
    SECOND,
    SHARDS,
    WEIGHTS,
    Format,
    model_of,
    plain,
    read_folder,
    write_folder,
    write_parts,
)
from tests.tree import ROOT

FEW, MANY = 200, 10_000
HIDING = {"checkpoints of arrays"}  # of ours: a file without its metadata is one of the library's


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound folder of every format."""
    home = tmp_path_factory.mktemp("damage")
    for name, form in FORMATS.items():
        (home / name).mkdir()
        form.write(home / name)
    return home


def swept(home: Path, count: int, formats: list[str], first: int = 0) -> dict[str, dict[str, Any]]:
    """What a process of its own finds; an error with the case in hand where it dies."""
    command = [sys.executable, "-m", "tests.damage.sweep", str(home), "--count", str(count),
               "--first", str(first), "--formats", *formats]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    last = [line for line in done.stderr.splitlines() if line.startswith(("format", "seed"))][-2:]
    assert done.returncode == 0, f"status {done.returncode} at {last}: {done.stderr[-2000:]}"
    return {found["format"]: found for found in map(json.loads, done.stdout.splitlines())}


@pytest.fixture(scope="module")
def few(home: Path) -> dict[str, dict[str, Any]]:
    return swept(home, FEW, list(FORMATS))


def judged(found: dict[str, Any], name: str, count: int) -> None:
    assert not found["failures"] and "failure" not in found, found["failures"]
    assert sum(found.get(kind, 0) for kind in ("error", "unchanged", "unseen")) == count
    assert found["error"] > 0.6 * count
    if name in OURS and name not in HIDING:
        assert "unseen" not in found


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files(few: dict[str, dict[str, Any]], name: str):
    judged(few[name], name, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_ten_thousand_damaged_files(home: Path, name: str):
    found = swept(home, MANY, [name], first=FEW)[name]
    print(found)
    judged(found, name, MANY)


# ---- the sweep itself: that it would see what it looks for


def naive_tensors(folder: Path) -> Any:
    return plain(load_file(folder / WEIGHTS))


def naive_json(folder: Path) -> Any:
    return plain(json.loads((folder / CONFIG).read_bytes()))


def naive_shards(folder: Path) -> Any:
    return plain([np.fromfile(folder / name, np.uint16, offset=1024) for name in SHARDS])


@pytest.mark.parametrize(
    ("name", "read"),
    [("weights", naive_tensors), ("configs", naive_json), ("shards", naive_shards)],
)
def test_a_reader_that_does_not_check_fails(home: Path, tmp_path: Path, name: str, read: Any):
    form = Format(FORMATS[name].write, FORMATS[name].files, read)
    shutil.copytree(home / name, tmp_path / name)
    raw = (home / name / form.files[0]).read_bytes()
    right = read(home / name)
    results = [
        sweep.outcome(
            form, tmp_path / name, form.files[0], raw,
            damaged(raw, form.makers_of(form.files[0]), seed), right,
        )
        for seed in range(100)
    ]  # fmt: skip
    assert sum(result == "failure: other values were loaded" for result in results) > 10
    assert len({result for result in results if result.startswith("failure")}) > 1


def child(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)


def test_memory_beyond_the_room_is_refused():
    begin = "import numpy as np\nfrom tests.damage.sweep import limit\nlimit(0)\n"
    assert child(begin + "np.ones(32 << 20, np.uint8)").returncode == 0
    assert "MemoryError" in child(begin + "np.ones(80 << 20, np.uint8)").stderr


def test_a_crash_and_a_hang_are_seen(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    code = (
        "import sys\nfrom tests.damage import sweep\nfrom tests.damage.formats import FORMATS\n"
        "import os, time, dataclasses\nreads = []\n"
        "def read(folder):\n"
        "    reads.append(1)\n"
        "    if len(reads) == 5: {}\n"
        "FORMATS['shards'] = dataclasses.replace(FORMATS['shards'], read=read)\n"
        "sweep.PATIENCE = 1\n"
        f"sys.argv = ['sweep', {str(home)!r}, '--formats', 'shards', '--count', '9']\n"
        "sweep.main()\n"
    )
    crashed = child(code.format("os.abort()"))
    assert crashed.returncode < 0 and "seed 3" in crashed.stderr and "seed 4" not in crashed.stderr
    hung = json.loads(child(code.format("time.sleep(99)")).stdout)
    assert hung["failures"] == [f"seed 3, {SHARDS[1]}: failure: Hanging: "]


def test_every_maker_makes_a_difference(home: Path):
    """Each kind of damage happens, and is the same for the same seed."""
    raw = (home / "weights" / WEIGHTS).read_bytes()
    rng = np.random.default_rng(0)
    assert damaged(raw, TENSORS, 3) == damaged(raw, TENSORS, 3) != raw
    shard = (home / "shards" / SHARDS[0]).read_bytes()
    config = (home / "configs" / CONFIG).read_bytes()
    for maker in {*BYTES, *INTS, *JSONS, *TENSORS}:
        source = config if maker in JSONS else shard if maker in INTS else raw
        results = {maker(source, random.Random(int(rng.integers(1 << 30)))) for _ in range(20)}
        assert results - {source}, maker


# ---- files that are gone, and folders in their place


@pytest.mark.parametrize(
    ("name", "file"), [(name, file) for name in FORMATS for file in FORMATS[name].files]
)
def test_gone_and_a_folder_in_its_place(home: Path, tmp_path: Path, name: str, file: str):
    form, folder = FORMATS[name], tmp_path / "sound"
    shutil.copytree(home / name, folder)
    right = form.read(folder)
    (folder / file).unlink()
    if name == "manifests":  # shards without one are llm.c's
        assert right != form.read(folder)
    elif name != "llm.c's shards" and file not in ("tokenizer.json", "vocab.json"):
        with pytest.raises((OSError, ValueError)) as caught:
            form.read(folder)
        assert file in str(caught.value) or (file == INDEX and WEIGHTS in str(caught.value))
    else:  # shards that nobody counted; GPT-2's vocabulary would do
        assert name in FOREIGN or name == "tokenizers"
    (folder / file).mkdir()
    with pytest.raises((OSError, ValueError)) as caught:
        form.read(folder)
    assert type(caught.value).__name__ in (*form.errors, "IsADirectoryError", "OSError")
    assert file in str(caught.value)


# ---- what belongs together


def test_config_json_is_held_against_the_weights(tmp_path: Path):
    """A setting that is as valid as the one that was written: found in ours."""
    write_folder(tmp_path)
    told = json.loads((tmp_path / CONFIG).read_text())
    for change in ({"n_head": 4}, {"attn_pdrop": 0.2}, {"layer_norm_epsilon": 1e-6}, {"new": 1}):
        (tmp_path / CONFIG).write_text(json.dumps(told | change))
        with pytest.raises(CheckpointError, match=r"config\.json' is damaged, or was changed"):
            GPT2LMHeadModel.from_pretrained(tmp_path)
    (tmp_path / CONFIG).write_text(json.dumps(dict(reversed(told.items()))))  # the same settings
    assert GPT2LMHeadModel.from_pretrained(tmp_path, n_head=4).config.n_head == 4


def test_a_config_json_of_another_model(tmp_path: Path):
    """Also what an interrupted save over an older model leaves."""
    write_folder(tmp_path / "a")
    model_of(eos_token_id=4).save_pretrained(tmp_path / "b")
    shutil.copy(tmp_path / "b" / CONFIG, tmp_path / "a" / CONFIG)
    with pytest.raises(CheckpointError, match=r"config\.json' is damaged, or was changed"):
        GPT2LMHeadModel.from_pretrained(tmp_path / "a")


def test_parts_of_two_models(tmp_path: Path):
    """Equal settings, names and shapes; the second file is of an earlier save."""
    write_parts(tmp_path / "a")
    model = model_of()
    model.transformer.h[1].ln_1.weight.data += 1
    model.save_pretrained(tmp_path / "b", max_shard_size=1000)
    shutil.copy(tmp_path / "b" / SECOND, tmp_path / "a" / SECOND)
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002.* are of two models"):
        GPT2LMHeadModel.from_pretrained(tmp_path / "a")


def test_an_index_and_its_files_agree(tmp_path: Path):
    write_parts(tmp_path)
    index = json.loads((tmp_path / INDEX).read_text())
    for name, message in (
        ("gone.safetensors", "names 'gone.safetensors', and there is no such file beside it"),
        ("../x.safetensors", "a file outside of its folder"),
        ("a\0b", "a file outside of its folder"),
        (SECOND, "do not agree: only one of them has 'transformer.wte.weight'"),
    ):
        places = index["weight_map"] | {"transformer.wte.weight": name}
        (tmp_path / INDEX).write_text(json.dumps(index | {"weight_map": places}))
        with pytest.raises(CheckpointError, match=rf"index\.json.*{message}"):
            GPT2LMHeadModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("write", [write_folder, write_parts])
def test_what_transformers_makes_of_ours(tmp_path: Path, write: Any):
    """It reads our files, and what it saves of them is free of our checksums."""
    from transformers import GPT2LMHeadModel as Theirs

    write(tmp_path / "ours")
    theirs = Theirs.from_pretrained(tmp_path / "ours")
    theirs.config.attn_pdrop = 0.3
    theirs.save_pretrained(tmp_path / "theirs")
    again = GPT2LMHeadModel.from_pretrained(tmp_path / "theirs")
    assert again.config.attn_pdrop == 0.3
    ours = GPT2LMHeadModel.from_pretrained(tmp_path / "ours")
    for a, b in zip(ours.parameters(), again.parameters()):
        np.testing.assert_array_equal(a.detach(), b.detach())
    for path in (tmp_path / "ours").glob("*.safetensors"):
        assert CONFIG_CRC.encode() in path.read_bytes()
        assert (MODEL_CRC.encode() in path.read_bytes()) is (write is write_parts)
    for path in (tmp_path / "theirs").iterdir():
        assert b"crc32" not in path.read_bytes()


def test_a_nested_state_has_checksums(tmp_path: Path):
    from safetensors.numpy import save_file

    save_tree(tmp_path / "a", {"w": np.ones(3), "step": 1})
    save_file({"w": np.ones(3)}, tmp_path / "b", {"tree": '{"w":{"$array":"w"},"step":2}'})
    assert load_tree(tmp_path / "a")["step"] == 1
    with pytest.raises(CheckpointError, match=r"b' is damaged, or not by save_tree: it has no"):
        load_tree(tmp_path / "b")


def test_bfloat16_is_read_in_a_process_that_has_not_met_it(tmp_path: Path):
    import ml_dtypes

    from tensorgrad.serialization import save_arrays

    save_arrays(tmp_path / "w", {"w": np.ones(3, ml_dtypes.bfloat16)})
    read = f"print(load_arrays({str(tmp_path / 'w')!r}))"
    done = child(f"from tensorgrad.serialization import load_arrays; {read}")
    assert "dtype=bfloat16" in done.stdout, done.stderr


# ---- sizes that a damaged file asks for


@pytest.mark.parametrize(
    "change",
    [
        {"n_layer": 10**9}, {"n_embd": 2 * 10**9}, {"n_positions": 10**12}, {"vocab_size": 10**15},
        {"n_inner": 10**12}, {"n_layer": 200, "n_inner": 10**9}, {"n_head": 2**63},
    ],
)  # fmt: skip
def test_a_config_that_asks_for_more_than_the_weights(tmp_path: Path, change: dict[str, int]):
    write_theirs(tmp_path)
    told = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps(told | change))
    with pytest.raises(CheckpointError, match=r"config\.json"):
        GPT2LMHeadModel.from_pretrained(tmp_path)


def test_a_table_that_asks_for_more_than_its_file(tmp_path: Path):
    """nanoGPT's sizes are read off the tensors: a flattened table would make C x C matrices."""
    from safetensors.numpy import save_file

    from tensorgrad.models.weights import load_nanogpt

    wide = np.zeros((1, 2_000_000), np.float16)
    names = {"transformer.wte.weight": wide, "transformer.wpe.weight": wide.copy()}
    save_file(names | {"transformer.h.0.ln_1.weight": wide[0, :3]}, tmp_path / "nano.safetensors")
    with pytest.raises(CheckpointError, match=r"nano\.safetensors' does not fit: a model of 1 lay"):
        load_nanogpt(tmp_path / "nano.safetensors", n_head=2)


def test_weights_of_a_type_that_weights_do_not_have(tmp_path: Path):
    """The bytes of a float32 would pass for an int32, those of a float16 for a bfloat16."""
    write_theirs(tmp_path)
    raw = (tmp_path / WEIGHTS).read_bytes()
    for name in ("I32", "U32"):
        (tmp_path / WEIGHTS).write_bytes(raw.replace(b'"F32"', f'"{name}"'.encode(), 1))
        with pytest.raises(CheckpointError, match=r"model\.safetensors' has .* in u?int32, and"):
            GPT2LMHeadModel.from_pretrained(tmp_path)
    FORMATS["transformers' weights in float16"].write(tmp_path)
    raw = (tmp_path / WEIGHTS).read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = raw[8 : 8 + length].replace(b'"F16"', b'"BF16"', 1)
    (tmp_path / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header + raw[8 + length :])
    with pytest.raises(CheckpointError, match=r"in float16, and .* in bfloat16; no model"):
        GPT2LMHeadModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", FOREIGN)
def test_values_in_foreign_files_cannot_be_guarded(few: dict[str, dict[str, Any]], name: str):
    """That the sweep counts them shows which: files without a checksum, but for an index."""
    assert few[name].get("unseen", 0) > 0 or name == "transformers' indices"


def test_a_shard_of_llmc_with_more_in_its_header(home: Path, tmp_path: Path):
    raw = bytearray((home / "llm.c's shards" / SHARDS[0]).read_bytes())
    raw[200] = 1
    (tmp_path / SHARDS[0]).write_bytes(raw)
    from tensorgrad.data import Shard

    with pytest.raises(ShardError, match="its header holds more than the count"):
        Shard(tmp_path / SHARDS[0])


def test_a_damaged_vocabulary_is_not_taken_for_none(home: Path, tmp_path: Path):
    """One letter of "kind", and GPT-2's own would have been read in its place."""
    from tensorgrad.models.inspection.opening import vocabulary

    raw = (home / "tokenizers" / "tokenizer.json").read_bytes()
    (tmp_path / "tokenizer.json").write_bytes(raw.replace(b'"kind"', b'"kine"'))
    with pytest.raises(ShardError, match=r"tokenizer\.json' is damaged"):
        vocabulary(os.fspath(tmp_path), None)


def test_the_folder_as_it_was_written(home: Path):
    assert read_folder(home / "configs") == read_folder(home / "weights")
