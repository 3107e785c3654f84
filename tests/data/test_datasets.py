"""Data sets and loaders against PyTorch's own; padding, masks and packed documents."""

import itertools
import threading
from collections import Counter, namedtuple
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.utils.data as theirs
from hypothesis import given
from hypothesis import strategies as st

import tensorgrad as tg
import tensorgrad.data as ours
import tensorgrad.nn.functional as F
from tensorgrad.data import (
    CharVocab,
    DataLoader,
    PackedDataset,
    PadCollate,
    TensorDataset,
    TextDataset,
    block_diagonal_mask,
    default_collate,
    document_ids,
    position_ids,
)
from tests.data.vocabulary import small

SEEDS = st.integers(0, 2**31)


def plain(batch: Any) -> Any:
    """Tensors of both libraries as (dtype, values)."""
    if isinstance(batch, tg.Tensor | torch.Tensor):
        return str(batch.dtype).removeprefix("torch."), batch.tolist()
    if isinstance(batch, dict):
        return {key: plain(value) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        return [plain(value) for value in batch]
    return batch


# -- order ----------------------------------------------------------------------------------------


@given(n=st.integers(1, 40), B=st.integers(1, 9), drop_last=st.booleans(), seed=SEEDS)
def test_shuffle_is_pytorchs(n: int, B: int, drop_last: bool, seed: int):
    """The same generator, the same batches, epoch after epoch, and the same draws after them."""
    g, h = tg.Generator().manual_seed(seed), torch.Generator().manual_seed(seed)
    a = DataLoader(range(n), B, shuffle=True, drop_last=drop_last, generator=g)
    b = theirs.DataLoader(range(n), B, shuffle=True, drop_last=drop_last, generator=h)
    assert len(a) == len(b)
    for _ in range(2):
        assert plain(list(a)) == plain(list(b))
    assert g.randperm(7).tolist() == torch.randperm(7, generator=h).tolist()


@pytest.mark.parametrize("num_workers", [0, 3])
@pytest.mark.parametrize("shuffle", [False, True])
def test_the_default_generator_is_used_as_in_pytorch(shuffle: bool, num_workers: int):
    tg.manual_seed(5)
    torch.manual_seed(5)
    a = DataLoader(range(37), 5, shuffle=shuffle, num_workers=num_workers)
    b = theirs.DataLoader(range(37), 5, shuffle=shuffle)
    for _ in range(2):
        assert plain(list(a)) == plain(list(b))
    assert tg.rand(3).tolist() == torch.rand(3).tolist()


@given(n=st.integers(1, 40), samples=st.integers(1, 99), replacement=st.booleans(), seed=SEEDS)
def test_random_sampler(n: int, samples: int, replacement: bool, seed: int):
    a = ours.RandomSampler(range(n), replacement, samples, tg.Generator().manual_seed(seed))
    b = theirs.RandomSampler(range(n), replacement, samples, torch.Generator().manual_seed(seed))
    assert list(a) == list(b) and len(a) == len(b)


def test_other_samplers():
    g, h = tg.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    indices = [5, 3, 9, 11]
    assert list(ours.SubsetRandomSampler(indices, g)) == list(
        theirs.SubsetRandomSampler(indices, h)
    )
    assert list(ours.SequentialSampler("abc")) == [0, 1, 2]
    for drop_last in (False, True):
        batches = ours.BatchSampler(range(7), 3, drop_last)
        assert list(batches) == list(theirs.BatchSampler(range(7), 3, drop_last))
        assert len(batches) == len(list(batches))
    assert len(ours.RandomSampler(range(3), True, 10**10)) == 10**10  # minGPT's way of no end
    loader = DataLoader(range(3), 2, sampler=ours.RandomSampler(range(3), True, 10**10))
    assert next(iter(loader)).shape == (2,)


@given(lengths=st.lists(st.integers(0, 9), min_size=1, max_size=4), seed=SEEDS)
@pytest.mark.filterwarnings("ignore:Length of split")
def test_random_split(lengths: list[int], seed: int):
    n = sum(lengths)
    g, h = tg.Generator().manual_seed(seed), torch.Generator().manual_seed(seed)
    a = ours.random_split(range(n), lengths, g)
    b = theirs.random_split(range(n), lengths, h)
    assert [list(part) for part in a] == [list(part) for part in b]


def test_random_split_by_fractions():
    a = ours.random_split(range(11), [0.5, 0.3, 0.2], tg.Generator().manual_seed(1))
    b = theirs.random_split(range(11), [0.5, 0.3, 0.2], torch.Generator().manual_seed(1))
    assert [list(part) for part in a] == [list(part) for part in b]
    with pytest.raises(ValueError, match="sum to 9, not to 11"):
        ours.random_split(range(11), [4, 5])
    with pytest.raises(ValueError, match="fractions lie between"):
        ours.random_split(range(11), [1.5, -0.5])


# -- batches --------------------------------------------------------------------------------------


Point = namedtuple("Point", "x y")
ITEMS = {
    "floats": [0.5, 1.5, 2.5],
    "integers": [1, 2, 3],
    "booleans": [True, False, True],
    "strings": ["a", "bc", ""],
    "dicts": [{"a": i, "b": [float(i), "c"]} for i in range(3)],
    "tuples": [(i, float(i)) for i in range(3)],
    "points": [Point(i, 0.5) for i in range(3)],
    "arrays": [np.full((2, 3), i, np.float32) for i in range(3)],
    "scalars": [np.float64(i) for i in range(3)],
    "deep": [{"a": (np.arange(2), {"b": i})} for i in range(3)],
}


@pytest.mark.parametrize("items", ITEMS.values(), ids=ITEMS)
def test_default_collate_is_pytorchs(items: list):
    a, b = default_collate(items), theirs.default_collate(items)
    assert plain(a) == plain(b)
    assert type(a).__name__ == type(b).__name__


def test_default_collate_of_tensors():
    items = [(tg.randn(2, 3), i) for i in range(5)]
    x, y = default_collate(items)
    assert x.shape == (5, 2, 3) and x.dtype == tg.float32 and y.dtype == tg.int64
    assert all(x[i].tolist() == items[i][0].tolist() for i in range(5))


def test_default_collate_refuses():
    with pytest.raises(RuntimeError, match=r"the items have 2, 1 elements.*PadCollate"):
        default_collate([[1, 2], [3]])
    with pytest.raises(TypeError, match="not object; give the DataLoader a collate_fn"):
        default_collate([object()])
    with pytest.raises(TypeError, match="arrays of <U1 cannot"):
        default_collate([np.array(["a"])])


@given(n=st.integers(1, 20), B=st.integers(1, 6), workers=st.integers(0, 3), seed=SEEDS)
def test_threads_give_the_same(n: int, B: int, workers: int, seed: int):
    data = TensorDataset(tg.arange(n), tg.arange(n) * 2.0)
    loaders = [
        DataLoader(data, B, shuffle=True, num_workers=w, generator=tg.Generator().manual_seed(seed))
        for w in (0, workers)
    ]
    assert plain(list(loaders[0])) == plain(list(loaders[1]))


def test_no_batches_batch_samplers_and_whole_batches():
    assert plain(list(DataLoader([np.ones(2), 3, "a"], batch_size=None))) == plain(
        list(theirs.DataLoader([np.ones(2), 3, "a"], batch_size=None))
    )
    own = [[2, 0], [1]]
    assert plain(list(DataLoader("abc", batch_sampler=own))) == [["c", "a"], ["b"]]
    assert len(DataLoader("abc", batch_sampler=own)) == 2

    class Whole(ours.Dataset):
        def __getitems__(self, indices: list[int]) -> list[int]:
            return [i * 10 for i in indices]

        def __len__(self) -> int:
            return 5

    assert [b.tolist() for b in DataLoader(Whole(), 2)] == [[0, 10], [20, 30], [40]]


class Stream(ours.IterableDataset):
    def __iter__(self) -> Iterator[int]:
        return iter(range(11))


class TheirStream(theirs.IterableDataset):
    def __iter__(self) -> Iterator[int]:
        return iter(range(11))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(("B", "drop_last"), [(3, False), (3, True), (None, False)])
def test_streams(B: int | None, drop_last: bool, num_workers: int):
    a = DataLoader(Stream(), B, drop_last=drop_last, num_workers=num_workers)
    b = theirs.DataLoader(TheirStream(), B, drop_last=drop_last)
    assert plain(list(a)) == plain(list(b))


def test_leaving_early_ends_the_threads():
    before = threading.active_count()
    batches = iter(DataLoader(range(1000), 2, num_workers=3))
    assert next(batches).tolist() == [0, 1]
    batches.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_an_error_in_a_thread_is_raised():
    class Broken(ours.Dataset):
        def __getitem__(self, i: int) -> int:
            return 1 // (3 - i)

        def __len__(self) -> int:
            return 5

    with pytest.raises(ZeroDivisionError):
        list(DataLoader(Broken(), 1, num_workers=2))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"shuffle": True, "sampler": [0]}, "sampler and shuffle exclude"),
        ({"batch_sampler": [[0]], "drop_last": True}, "batch_sampler excludes"),
        ({"batch_size": None, "drop_last": True}, "makes no batches"),
        ({"batch_size": 0}, "positive integer, not 0"),
        ({"drop_last": 1}, "must be a bool, not 1"),
        ({"num_workers": -1}, "must not be negative"),
        ({"prefetch_factor": 2}, "wants num_workers > 0"),
        ({"dataset": [], "shuffle": True}, "is the data set empty"),
        ({"dataset": Stream(), "shuffle": True}, "comes in its own order"),
    ],
)
def test_options_that_exclude_each_other(options: dict, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        DataLoader(**{"dataset": range(3), **options})
    with pytest.raises(ValueError):
        stream = {"dataset": TheirStream()} if isinstance(options.get("dataset"), Stream) else {}
        theirs.DataLoader(**{"dataset": range(3), **options, **stream})


def test_datasets_of_datasets():
    a, b = TensorDataset(tg.arange(3)), TensorDataset(tg.arange(4) + 10)
    both = a + b
    assert len(both) == 7
    assert [both[i][0].item() for i in (0, 2, 3, -1)] == [0, 2, 10, 13]
    assert [item[0].item() for item in ours.Subset(both, [6, 0])] == [13, 0]
    with pytest.raises(IndexError, match="index 7 is outside 7 items"):
        both[7]
    with pytest.raises(ValueError, match=r"first sizes differ: \[3, 4\]"):
        TensorDataset(tg.arange(3), tg.arange(4))
    with pytest.raises(ValueError, match="at least one data set"):
        ours.ConcatDataset([])


# -- padding --------------------------------------------------------------------------------------

ROWS = st.lists(st.lists(st.integers(0, 9), min_size=0, max_size=7), min_size=1, max_size=5)


@given(rows=ROWS, side=st.sampled_from(["right", "left"]), multiple=st.integers(1, 4))
def test_masks_know_the_length_before_padding(rows: list, side: str, multiple: int):
    """B0.5, B0.6, B0.7: whatever the pad id, also one that the rows contain."""
    batch = PadCollate(3, side=side, multiple_of=multiple)(rows)
    T = batch["input_ids"].shape[1]
    assert T % multiple == 0 and max(map(len, rows)) <= T < max(map(len, rows)) + multiple
    assert all(t.dtype == tg.int64 and t.shape == (len(rows), T) for t in batch.values())
    for row, ids, mask, labels in zip(rows, *(t.tolist() for t in batch.values())):
        gap = T - len(row)
        want = {
            "right": (row + [3] * gap, [1] * len(row) + [0] * gap, row + [-100] * gap),
            "left": ([3] * gap + row, [0] * gap + [1] * len(row), [-100] * gap + row),
        }
        assert (ids, mask, labels) == want[side]


def test_padding_takes_dicts_arrays_and_tensors():
    rows = [{"input_ids": np.arange(3), "labels": [-100, 7, 8]}, {"input_ids": tg.arange(2)}]
    batch = PadCollate(0)(rows)
    assert batch["labels"].tolist() == [[-100, 7, 8], [0, 1, -100]]
    with pytest.raises(ValueError, match="3 ids have 2 labels"):
        PadCollate(0)([{"input_ids": [1, 2, 3], "labels": [1, 2]}])
    with pytest.raises(ValueError, match="an empty batch"):
        PadCollate(0)([])
    with pytest.raises(ValueError, match="side is 'right' or 'left'"):
        PadCollate(0, side="up")
    with pytest.raises(ValueError, match="pad_token_id is an id, not None"):
        PadCollate(None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a row of ids is wanted"):
        PadCollate(0)([[0.5]])


SENTENCES = [
    "The quick brown fox.",
    "Attention is all you need, and more of it.",
    "Hi",
]


def test_text_dataset():
    """F0.9, B0.5, B0.6: the mask is taken before padding, and no loss on padding."""
    bpe = small()
    data = TextDataset(SENTENCES, bpe, max_length=13)
    assert len(data) == 3 and data.pad_token_id == bpe.eot
    for i, text in enumerate(SENTENCES):
        ids = bpe.encode(text)[:13]
        gap = 13 - len(ids)
        item = data[i]
        assert item["input_ids"].tolist() == ids + [bpe.eot] * gap
        assert item["attention_mask"].tolist() == [1] * len(ids) + [0] * gap
        assert item["labels"].tolist() == ids + [-100] * gap
    assert sum(data[2]["attention_mask"].tolist()) == len(bpe.encode("Hi")) < 13
    batch = next(iter(DataLoader(data, 2, shuffle=False)))
    assert batch["input_ids"].shape == (2, 13)


def test_text_dataset_uses_its_tokenizer():
    """B0.20: no `ord(c) % 50000`; one that cannot encode is refused."""
    vocab = CharVocab.from_text("".join(SENTENCES))
    row = TextDataset(SENTENCES[:1], vocab, max_length=9)[0]["input_ids"]
    assert vocab.decode(row.numpy()) == SENTENCES[0][:9]
    assert TextDataset(["日"], small(), 5)[0]["input_ids"].tolist()[:3] == small().encode("日")
    assert TextDataset(SENTENCES, small().encoding, 13).pad_token_id == small().eot
    with pytest.raises(TypeError, match="None has no encode; take gpt2"):
        TextDataset(SENTENCES, None, 9)


def test_a_pad_id_is_said_and_real_ids_are_not_masked():
    """B0.7: the pad id is explicit, and where a text has the same id it still counts."""
    vocab = CharVocab("abc")
    with pytest.raises(
        ValueError, match=r"the tokenizer names no pad id; say which .* pad_token_id"
    ):
        TextDataset(["abc", "a"], vocab, 3)
    assert TextDataset(["abc", "cba"], vocab, 3)[0]["labels"].tolist() == [0, 1, 2]
    item = TextDataset(["aba"], vocab, 5, pad_token_id=0)[0]
    assert item["input_ids"].tolist() == [0, 1, 0, 0, 0]
    assert item["attention_mask"].tolist() == [1, 1, 1, 0, 0]
    assert item["labels"].tolist() == [0, 1, 0, -100, -100]
    with pytest.raises(ValueError, match="the text '' has no ids"):
        TextDataset([""], vocab, 3)
    with pytest.raises(ValueError, match="max_length must be at least 1, not 0"):
        TextDataset(["a"], vocab, 0)


def test_the_loss_takes_nothing_of_padding():
    """B0.6: the loss of a padded batch is the mean over the true targets, in PyTorch too."""
    vocab = CharVocab("abcdef")
    data = TextDataset(["abcdef", "fa", "cab"], vocab, 7, pad_token_id=0)
    batch = next(iter(DataLoader(data, 3)))
    logits = np.random.RandomState(0).randn(3, 7, 6)
    labels = batch["labels"].numpy()
    loss = F.cross_entropy(tg.tensor(logits).flatten(0, 1), tg.tensor(labels.reshape(-1)))
    rows = [torch.tensor(logits[i, :n]) for i, n in enumerate((6, 2, 3))]
    wanted = torch.nn.functional.cross_entropy(
        torch.cat(rows), torch.cat([torch.tensor(labels[i, :n]) for i, n in enumerate((6, 2, 3))])
    )
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-12)


# -- packing --------------------------------------------------------------------------------------

DOCUMENTS = st.lists(st.lists(st.integers(0, 90), max_size=9), min_size=1, max_size=6)


@given(documents=DOCUMENTS, T=st.integers(1, 8))
def test_packed_documents_keep_to_themselves(documents: list[list[int]], T: int):
    """Every pair of neighbours within a document once, and no other pair."""
    pairs = [(d, a, b) for d, ids in enumerate(documents) for a, b in itertools.pairwise(ids)]
    if not pairs:
        with pytest.raises(ValueError, match="no document has two ids"):
            PackedDataset(documents, T, 91)
        return
    data = PackedDataset(documents, T, 91)
    found = []
    for i in range(len(data)):
        item = {key: value.tolist() for key, value in data[i].items()}
        for x, y, d in zip(item["input_ids"], item["targets"], item["document_ids"]):
            if d == -1:
                assert (x, y) == (91, -100)
            else:
                found.append((d, x, y))
        place = 0
        for t, p in enumerate(item["position_ids"]):
            new = t == 0 or item["document_ids"][t] != item["document_ids"][t - 1]
            place = 0 if new else place + 1
            assert p == place
    assert Counter(found) == Counter(pairs) and len(data) == -(-len(pairs) // T)


def attention_model(ids: Any, positions: Any, mask: tg.Tensor | None) -> tg.Tensor:
    """One layer of attention with learned positions, in float64: (B, T) -> logits (B, T, 31)."""
    draw = np.random.RandomState(0)
    wte, wpe, head = (tg.tensor(draw.randn(*shape)) for shape in ((31, 8), (16, 8), (8, 31)))
    x = wte[tg.tensor(ids)] + wpe[tg.tensor(positions)]  # (B, T, C)
    q = k = v = x.unsqueeze(1)  # (B, 1, T, C)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
    return y.squeeze(1) @ head


def test_a_packed_window_is_its_documents_alone():
    """Logits and loss of packed documents are those of each document by itself."""
    documents = [[1, 5, 7, 2], [9, 3], [4, 4, 30, 2, 8, 6]]
    (item,) = PackedDataset(documents, 11, 0)
    ids, targets, positions, numbers = (value.numpy()[None] for value in item.values())
    packed = attention_model(ids, positions, block_diagonal_mask(numbers)).numpy()
    losses, at = [], 0
    for document in documents:
        n = len(document) - 1
        alone = attention_model([document[:-1]], [list(range(n))], None)
        assert np.allclose(packed[0, at : at + n], alone.numpy()[0], rtol=1e-12, atol=1e-12)
        losses += F.cross_entropy(alone[0], tg.tensor(document[1:]), reduction="none").tolist()
        at += n
    assert at == 9 and targets[0, at:].tolist() == [-100, -100]
    loss = F.cross_entropy(tg.tensor(packed[0]), tg.tensor(targets[0]))
    assert loss.item() == pytest.approx(np.mean(losses), rel=1e-12)
    leaking = attention_model(ids, positions, None).numpy()
    assert not np.allclose(packed[0, 3:9], leaking[0, 3:9])


def test_documents_of_a_window_of_tokens():
    """Marks begin documents: numbers, positions and who sees whom."""
    ids = np.array([[5, 9, 1, 2, 9, 9, 3], [9, 1, 1, 1, 1, 1, 9]])
    numbers = document_ids(ids, eot=9)
    assert numbers.tolist() == [[0, 1, 1, 1, 2, 3, 3], [1, 1, 1, 1, 1, 1, 2]]
    assert position_ids(numbers).tolist() == [[0, 0, 1, 2, 0, 0, 1], [0, 1, 2, 3, 4, 5, 0]]
    mask = block_diagonal_mask(numbers)
    assert mask.shape == (2, 1, 7, 7) and mask.dtype == tg.bool
    for b in range(2):
        for i in range(7):
            for j in range(7):
                seen = j <= i and numbers[b, i] == numbers[b, j]
                assert mask[b, 0, i, j].item() == seen
    assert block_diagonal_mask(tg.tensor(numbers)).tolist() == mask.tolist()
