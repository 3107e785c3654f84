"""Random numbers: MT19937's against PyTorch's, bit for bit; Philox's against its paper and itself.

After every comparison with PyTorch the bytes of the two states are compared as well.
"""

import copy
import math
import subprocess
import sys
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tensorgrad.rng import Generator, MersenneGenerator, PhiloxGenerator, exact, philox, portable
from tensorgrad.rng.boxmuller import box_muller, scale

BF16 = np.dtype(ml_dtypes.bfloat16)
NAMES = ("float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")
TORCH = {np.dtype(name): getattr(torch, name) for name in NAMES}
TORCH[BF16] = torch.bfloat16
FLOATS = [np.dtype("float32"), np.dtype("float64"), np.dtype("float16"), BF16]
SIZES = [0, 1, 2, 7, 15, 16, 17, 31, 32, 33, 100, 623, 624, 625, 1021, 40009]

seeds = st.one_of(st.integers(0, 9), st.integers(-(2**63), 2**64 - 1))
floats = st.sampled_from(FLOATS)
sizes = st.sampled_from(SIZES)

vector_code = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"),
    reason="PyTorch computes float32 normals with another polynomial on this processor",
)


class Pair:
    """Our generator and PyTorch's, from one seed, used in step."""

    def __init__(self, seed=0):
        self.ours, self.theirs = MersenneGenerator(), torch.Generator()
        self.ours.manual_seed(seed)
        self.theirs.manual_seed(seed)

    def fill(self, op, ours, theirs, *args, **named):
        """Call the in-place sampler `op` on an array and on a tensor."""
        returned = getattr(self.ours, op)(ours, *args, **named)
        assert returned is ours
        getattr(theirs, op)(*args, **named, generator=self.theirs)
        self.same(ours, theirs)

    def same(self, ours, theirs):
        theirs = theirs.float().numpy() if theirs.dtype == torch.bfloat16 else theirs.numpy()
        ours = ours.astype(np.float32) if ours.dtype == BF16 else ours
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs, strict=True)
        np.testing.assert_array_equal(self.ours.get_state(), self.theirs.get_state().numpy())


def tensor(array):
    wide = array.astype(np.float64) if array.dtype in FLOATS else array
    return torch.from_numpy(np.ascontiguousarray(wide)).to(TORCH[array.dtype])


# The same numbers as PyTorch

FILLS = [
    ("uniform_", ()),
    ("uniform_", (-0.037, 0.11)),
    ("uniform_", (0.25, 0.25)),
    ("normal_", ()),
    ("normal_", (0, 0.02)),
    ("normal_", (3, 1)),
    ("normal_", (0.3, 0.02)),
    ("exponential_", (1.7,)),
    ("log_normal_", (0.3, 0.5)),
    ("cauchy_", (0.3, 0.5)),
    ("geometric_", (0.3,)),
    ("bernoulli_", (0.3,)),
    ("bernoulli_", (1.0,)),
    ("random_", (-3, 97)),
    ("random_", ()),
]


@vector_code
@given(seeds, st.lists(st.tuples(st.sampled_from(FILLS), floats, sizes), min_size=1, max_size=9))
def test_any_sequence_of_samplers_gives_pytorchs_numbers(seed, calls):
    pair = Pair(seed)
    for (op, args), dtype, n in calls:
        pair.fill(op, np.empty(n, dtype), torch.empty(n, dtype=TORCH[dtype]), *args)


@vector_code
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("n", SIZES)
def test_every_sampler_at_every_edge_of_its_blocks(n, dtype):
    pair = Pair(n)
    for op, args in FILLS:
        pair.fill(op, np.empty(n, dtype), torch.empty(n, dtype=TORCH[dtype]), *args)
    pair.same(pair.ours.rand(n, dtype), torch.rand(n, dtype=TORCH[dtype], generator=pair.theirs))
    pair.same(pair.ours.randn(n, dtype), torch.randn(n, dtype=TORCH[dtype], generator=pair.theirs))


LAYOUTS = {
    "transposed": lambda x: x.swapaxes(0, 2),
    "cyclic": lambda x: x.swapaxes(0, 1).swapaxes(1, 2),
    "gaps": lambda x: x[:, ::2],
    "gaps, transposed": lambda x: x[:, 1:, ::3].swapaxes(0, 2),
    "row": lambda x: x[1],
    "column": lambda x: x[:, 1, 2],
    "new axis": lambda x: x[:, None, :, 1:],
    "0-d": lambda x: x[1, 2, 3],
}


@vector_code
@given(
    seeds,
    st.sampled_from(sorted(LAYOUTS)),
    st.sampled_from([(2, 3, 5), (5, 3, 7), (13, 11, 17), (2, 7, 4)]),
    floats,
    st.sampled_from(FILLS),
)
def test_arrays_that_are_not_contiguous_are_filled_as_pytorch_fills_them(
    seed, layout, shape, dtype, fill
):
    ours, theirs = np.zeros(shape, dtype), torch.zeros(shape, dtype=TORCH[dtype])
    view = LAYOUTS[layout](ours) if layout != "0-d" else ours[1, 2, 3, ...]
    pair = Pair(seed)
    op, args = fill
    pair.fill(op, view, LAYOUTS[layout](theirs), *args)
    pair.same(ours, theirs)  # and nothing else is touched


@given(
    seeds,
    sizes,
    st.sampled_from(list(TORCH)),
    st.integers(-(2**63), 2**63 - 1) | st.integers(-300, 300),
    st.integers(1, 2**64 - 1) | st.integers(1, 300) | st.sampled_from([2**28 - 1, 2**28, 2**32]),
)
@example(0, 100, np.dtype("int64"), -(2**63), 2**64 - 1)
@example(0, 100, np.dtype("bool"), 0, 2)
@example(0, 100, np.dtype("float16"), 0, 65504)
@example(0, 1021, BF16, -(2**63), 2**64 - 1)
@pytest.mark.filterwarnings("ignore:random_", "ignore:from is out", "ignore:to - 1 is out")
def test_integers(seed, n, dtype, low, count):
    high = min(low + count, 2**63 - 1)
    pair = Pair(seed)
    theirs = torch.empty(n, dtype=TORCH[dtype])
    try:
        theirs.random_(low, high, generator=pair.theirs)
    except RuntimeError:
        with pytest.raises(RuntimeError, match="random_"):
            pair.ours.random_(np.empty(n, dtype), low, high)
        return
    pair.same(pair.ours.random_(np.empty(n, dtype), low, high), theirs)


@pytest.mark.parametrize("dtype", list(TORCH), ids=str)
@pytest.mark.parametrize("low", [None, 0, 1, -3, -(2**63)])
def test_integers_without_an_upper_bound(dtype, low):
    pair = Pair(3)
    theirs = torch.empty(101, dtype=TORCH[dtype])
    try:
        if low is None:
            theirs.random_(generator=pair.theirs)
        else:
            theirs.random_(low, None, generator=pair.theirs)
    except RuntimeError:
        with pytest.raises(RuntimeError, match="random_"):
            pair.ours.random_(np.empty(101, dtype), low)
        return
    pair.same(pair.ours.random_(np.empty(101, dtype), low), theirs)


def test_randint_is_the_same_by_its_other_name():
    pair = Pair(7)
    for dtype in ("int64", "int32", "uint8", "float32"):
        pair.same(
            pair.ours.randint(3, 101, (5, 7), dtype),
            torch.randint(3, 101, (5, 7), dtype=getattr(torch, dtype), generator=pair.theirs),
        )


@given(seeds, floats, floats, st.booleans())
def test_bernoulli_of_an_array_of_probabilities(seed, dtype, p_dtype, transpose):
    pair = Pair(seed)
    p = np.linspace(0, 1, 91).reshape(7, 13).astype(p_dtype)
    pair.same(pair.ours.bernoulli(p), torch.bernoulli(tensor(p), generator=pair.theirs))
    ours, theirs = np.empty((7, 13), dtype), torch.empty(7, 13, dtype=TORCH[dtype])
    row = p[3]
    if transpose:
        ours, theirs, row = ours.T, theirs.T, p[:, 5]
    pair.ours.bernoulli_(ours, row)
    theirs.bernoulli_(tensor(row), generator=pair.theirs)
    pair.same(ours, theirs)


@given(seeds, st.sampled_from([(), (5,), (7, 3), (2, 5, 3)]), st.floats(0, 1))
@example(0, (5, 7), 0.0)
@example(0, (5, 7), 1.0)
@example(0, (257, 67), 0.1)
def test_dropout_masks(seed, shape, p):
    pair = Pair(seed)
    turn = tuple(reversed(range(len(shape))))
    with torch.random.fork_rng():
        torch.set_rng_state(pair.theirs.get_state())
        kept, kept_turned = (
            torch.nn.functional.dropout(x, p) != 0
            for x in (torch.ones(shape), torch.ones(shape).permute(turn))
        )
        pair.theirs.set_state(torch.get_rng_state())
    mask = pair.ours.dropout_mask(shape, p)
    turned = pair.ours.dropout_mask(shape[::-1], p, like=np.ones(shape).T)
    pair.same(mask, kept)
    pair.same(turned, kept_turned)


@given(seeds, st.integers(0, 1021), st.sampled_from(["int64", "int32", "int16", "float64"]))
def test_permutations(seed, n, dtype):
    pair = Pair(seed)
    theirs = torch.randperm(n, dtype=getattr(torch, dtype), generator=pair.theirs)
    pair.same(pair.ours.randperm(n, dtype), theirs)


@pytest.mark.parametrize("n", [1, 2, 4099, 2**18 + 3])
@pytest.mark.parametrize("twin", [True, False])
def test_permutations_with_and_without_numba(n, twin, monkeypatch):
    monkeypatch.setattr("tensorgrad.rng.mersenne._worth_a_twin", lambda n, here, absent: twin)
    pair = Pair(n)
    pair.same(pair.ours.randperm(n), torch.randperm(n, generator=pair.theirs))


def test_permutations_of_hundreds_of_millions_go_inside_out():
    """From (2^32 - 1) / 20 elements on, PyTorch's loop is this one; compared at 2^20 + 3."""
    n = 2**20 + 3
    ours = MersenneGenerator().manual_seed(3)._large_permutation(n)
    draws = MersenneGenerator().manual_seed(3)._wide_words(n).tolist()
    order = list(range(n))
    for i, draw in enumerate(draws):
        place = draw % (i + 1)
        order[i], order[place] = order[place], i
    np.testing.assert_array_equal(ours, order)


@st.composite
def categorical(draw):
    """Weights (V) or (B, V), some of them zero, perhaps transposed in memory."""
    dtype = draw(floats)
    v, b = draw(st.sampled_from([1, 2, 5, 67, 1021])), draw(st.sampled_from([None, 1, 3]))
    weights = np.random.RandomState(draw(st.integers(0, 99))).uniform(0, 1, (b or 1, v))
    weights[:, 1 : 1 + v // 3] = 0
    weights = weights.astype(dtype)
    if b is None:
        return weights[0]
    return np.asfortranarray(weights) if draw(st.booleans()) else weights


@given(seeds, categorical(), st.sampled_from([1, 2, 7, 40]), st.booleans())
def test_multinomial(seed, weights, k, replacement):
    above = int((weights > 0).sum(-1).min())
    if not replacement:
        # Halves have ties, and which comes first is a matter of the sorting algorithm.
        k = 1 if weights.dtype.itemsize == 2 else min(k, above)
    theirs = tensor(weights)
    if weights.ndim == 2 and not weights.flags.c_contiguous:
        theirs = tensor(weights.T).T
    pair = Pair(seed)
    expected = torch.multinomial(theirs, k, replacement, generator=pair.theirs)
    pair.same(pair.ours.multinomial(weights, k, replacement), expected)


def test_multinomial_without_replacement_never_repeats():
    sample = MersenneGenerator().multinomial(np.ones((5, 11), BF16), 11)
    np.testing.assert_array_equal(np.sort(sample, -1), np.tile(np.arange(11), (5, 1)))
    assert MersenneGenerator().multinomial(np.ones((0, 3)), 2).shape == (0, 2)


@vector_code
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(
    "args", [(0, 1, -2, 2), (0, 0.02, -0.04, 0.04), (0, 1, 1.5, 2), (0, 1, -0.1, 0.1), (1, 2, 0, 5)]
)
def test_truncated_normals(args, dtype):
    pair = Pair(11)
    for shape in [(0,), (7,), (1021,), (31, 37)]:
        ours, theirs = np.empty(shape, dtype).T, torch.empty(shape, dtype=TORCH[dtype])
        theirs = theirs if theirs.ndim == 1 else theirs.T
        pair.ours.trunc_normal_(ours, *args)
        torch.nn.init.trunc_normal_(theirs, *args, generator=pair.theirs)
        pair.same(ours, theirs)


@vector_code
@pytest.mark.parametrize("twin", [True, False])
@pytest.mark.parametrize("mean, std", [(0, 1), (0.3, 0.02)])
def test_a_million_normals_with_and_without_numba(twin, mean, std, monkeypatch):
    monkeypatch.setattr("tensorgrad.rng.mersenne._worth_a_twin", lambda n, here, absent: twin)
    n = 2**20 + 5
    pair = Pair(5)
    pair.fill("normal_", np.empty(n, np.float32), torch.empty(n), mean, std)


def test_the_initial_weights_of_a_linear_layer():
    with torch.random.fork_rng():
        torch.manual_seed(1337)
        layer = torch.nn.Linear(67, 31)
    generator, bound = MersenneGenerator().manual_seed(1337), 1 / math.sqrt(67)
    weight = generator.uniform_(np.empty((31, 67), np.float32), -bound, bound)
    bias = generator.uniform_(np.empty(31, np.float32), -bound, bound)
    np.testing.assert_array_equal(weight, layer.weight.detach().numpy())
    np.testing.assert_array_equal(bias, layer.bias.detach().numpy())


def test_the_c_library_one_number_at_a_time_gives_the_same(monkeypatch):
    """What machines do on which NumPy's vector functions differ in the last place."""
    monkeypatch.setattr("tensorgrad.rng.mersenne.libm", exact.one_by_one)
    monkeypatch.setattr("tensorgrad.rng.boxmuller.libm", exact.one_by_one)
    pair = Pair(2)
    for op, args in FILLS:
        pair.fill(op, np.empty(103), torch.empty(103, dtype=torch.float64), *args)
    with np.errstate(over="ignore"):
        edges = np.array([0.0, 800.0, -800.0])
        np.testing.assert_array_equal(exact.one_by_one("exp")(edges), np.exp(edges))
    assert exact.one_by_one("log")(np.zeros((1, 1))).tolist() == [[-math.inf]]


# Seeds and states


@pytest.mark.parametrize("seed", [0, 5489, 2**32 - 1, 2**32 + 3, 2**64 - 1, -1, -(2**63)])
def test_seeds(seed):
    pair = Pair(seed)
    assert pair.ours.initial_seed() == pair.theirs.initial_seed()
    pair.same(pair.ours.rand(7), torch.rand(7, generator=pair.theirs))


def test_a_generator_that_was_never_seeded_has_pytorchs_default_seed():
    np.testing.assert_array_equal(Generator().get_state(), torch.Generator().get_state().numpy())
    assert PhiloxGenerator("cpu").initial_seed() == torch.Generator().initial_seed()


def test_seed_draws_a_new_one():
    generator = MersenneGenerator()
    first = generator.seed()
    assert first == generator.initial_seed() != generator.seed()


@vector_code
@pytest.mark.parametrize("drawn", [0, 1, 5, 623, 624, 625, 1248, 1249])
@pytest.mark.parametrize("waiting", [0, 1])
def test_states_travel_both_ways(drawn, waiting):
    pair = Pair(9)
    pair.same(pair.ours.rand(drawn), torch.rand(drawn, generator=pair.theirs))
    pair.same(pair.ours.randn(waiting), torch.randn(waiting, generator=pair.theirs))
    other = Pair(1)
    other.ours.set_state(pair.theirs.get_state().numpy())
    other.theirs.set_state(torch.from_numpy(pair.ours.get_state()))
    for n in (3, 2, 17, 1000):
        other.same(other.ours.randn(n), torch.randn(n, generator=other.theirs))
    assert other.ours.initial_seed() == 9


@pytest.mark.parametrize("make", [MersenneGenerator, lambda: PhiloxGenerator("cpu")])
def test_a_clone_goes_its_own_way(make):
    generator = make().manual_seed(5)
    generator.randn(3)
    twins = [generator.clone_state(), copy.deepcopy(generator)]
    expected = generator.randn(5)
    for twin in twins:
        assert type(twin) is type(generator) and twin.initial_seed() == 5
        np.testing.assert_array_equal(twin.randn(5), expected)


def test_generators_are_chosen_by_device():
    assert type(Generator()) is type(Generator("cpu")) is MersenneGenerator
    assert type(Generator("cuda:1")) is PhiloxGenerator and Generator("cuda:1").device == "cuda:1"
    assert isinstance(Generator("cuda"), Generator)
    assert repr(PhiloxGenerator("cpu").manual_seed(3)) == "<PhiloxGenerator device='cpu' seed=3>"
    with pytest.raises(RuntimeError, match="'tpu'"):
        Generator("tpu")
    with pytest.raises(RuntimeError, match="'cuda'"):
        MersenneGenerator("cuda")


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, tensorgrad.rng as rng; rng.Generator().randn(1000);"
        "print([m for m in ('numba', 'scipy', 'cupy', 'ml_dtypes', 'torch') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


# Bad input

F32 = np.dtype("float32")
I64 = np.dtype("int64")


def fills(op, *args, dtype=F32):
    """The same call on an array of ours and on a tensor."""
    return (
        lambda g: getattr(g, op)(np.empty(3, dtype), *args),
        lambda: getattr(torch.empty(3, dtype=TORCH[dtype]), op)(*args),
    )


def draws(name, *args):
    """`name` of a generator and of torch, with arrays turned into tensors."""
    theirs = [torch.from_numpy(a) if isinstance(a, np.ndarray) else a for a in args]
    return lambda g: getattr(g, name)(*args), lambda: getattr(torch, name)(*theirs)


REFUSED = {
    "seed of another type": (
        lambda g: g.manual_seed(1.5),
        lambda: torch.Generator().manual_seed(1.5),
    ),
    "seed out of range": (
        lambda g: g.manual_seed(2**64),
        lambda: torch.Generator().manual_seed(2**64),
    ),
    "state of another size": (
        lambda g: g.set_state(np.zeros(5, np.uint8)),
        lambda: torch.Generator().set_state(torch.zeros(5, dtype=torch.uint8)),
    ),
    "state of another type": (
        lambda g: g.set_state(np.zeros(5056)),
        lambda: torch.Generator().set_state(torch.zeros(5056)),
    ),
    "uniform, empty": fills("uniform_", 2, 1),
    "uniform, wider than the dtype": fills("uniform_", -3e38, 3e38),
    "uniform, beyond the dtype": fills("uniform_", 0, 1e39),
    "uniform, nan": fills("uniform_", math.nan, 1),
    "uniform of integers": fills("uniform_", dtype=I64),
    "normal, std < 0": fills("normal_", 0, -1),
    "normal, std nan": fills("normal_", 0, math.nan),
    "normal of integers": fills("normal_", dtype=I64),
    "bernoulli, p > 1": fills("bernoulli_", 1.5),
    "bernoulli, p nan": fills("bernoulli_", math.nan),
    "bernoulli, p[1] > 1": draws("bernoulli", np.array([0.1, 2.0])),
    "bernoulli of integers": draws("bernoulli", np.array([1, 0])),
    "bernoulli, p of another shape": (
        lambda g: g.bernoulli_(np.empty(3), np.ones(2)),
        lambda: torch.empty(3).bernoulli_(torch.ones(2)),
    ),
    "dropout, p > 1": (
        lambda g: g.dropout_mask(3, 1.5),
        lambda: torch.nn.functional.dropout(torch.ones(3), 1.5),
    ),
    "exponential, 0": fills("exponential_", 0),
    "exponential of integers": fills("exponential_", dtype=I64),
    "cauchy, 0": fills("cauchy_", 0, 0),
    "cauchy of integers": fills("cauchy_", dtype=I64),
    "log-normal, 0": fills("log_normal_", 0, 0),
    "log-normal of integers": fills("log_normal_", dtype=I64),
    "geometric, 0": fills("geometric_", 0.0),
    "geometric, 1": fills("geometric_", 1.0),
    "geometric of bools": fills("geometric_", 0.5, dtype=np.dtype("bool")),
    "integers, none": draws("randint", 3, 3, (2,)),
    "integers, beyond the dtype": fills("random_", 0, 300, dtype=np.dtype("uint8")),
    "integers, below the dtype": fills("random_", -1, 2, dtype=np.dtype("uint8")),
    "integers, beyond a half": fills("random_", 0, 70000, dtype=np.dtype("float16")),
    "integers of size < 0": draws("randint", 0, 5, (-2,)),
    "permutation, n < 0": draws("randperm", -1),
    "permutation, n too large": (
        lambda g: g.randperm(257 + 1, np.uint8),
        lambda: torch.randperm(257 + 1, dtype=torch.uint8),
    ),
    "permutation of a half, n too large": (
        lambda g: g.randperm(2050, np.float16),
        lambda: torch.randperm(2050, dtype=torch.float16),
    ),
    "permutation of bools": (
        lambda g: g.randperm(2, np.bool_),
        lambda: torch.randperm(2, dtype=torch.bool),
    ),
    "multinomial, p < 0": draws("multinomial", np.array([1.0, -1.0]), 1),
    "multinomial, p < 0, replaced": draws("multinomial", np.array([1.0, -1.0]), 2, True),
    "multinomial, p nan": draws("multinomial", np.array([1.0, math.nan]), 1),
    "multinomial, p inf": draws("multinomial", np.array([1.0, math.inf]), 2, True),
    "multinomial, all 0": draws("multinomial", np.zeros(3), 1),
    "multinomial, a row of 0": draws("multinomial", np.array([[1.0, 1.0], [0.0, 0.0]]), 1),
    "multinomial, more than categories": draws("multinomial", np.ones(3), 4),
    "multinomial, no sample": draws("multinomial", np.ones(3), 0),
    "multinomial of integers": draws("multinomial", np.ones(3, np.int64), 1),
    "multinomial, 0-d": draws("multinomial", np.ones(()), 1),
    "multinomial, 3-d": draws("multinomial", np.ones((2, 2, 2)), 1),
    "multinomial, no categories": draws("multinomial", np.ones((3, 0)), 1, True),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("make", [MersenneGenerator, lambda: PhiloxGenerator("cpu")])
def test_bad_input_raises_what_pytorch_raises(name, make):
    ours, theirs = REFUSED[name]
    with pytest.raises(Exception) as expected:
        theirs()
    # PyTorch has a subclass of RuntimeError for dtypes that it does not implement.
    kind = RuntimeError if issubclass(expected.type, RuntimeError) else expected.type
    generator = make()
    before = generator.get_state()
    with pytest.raises(kind, match=r"^\w+: ") as found:
        ours(generator)
    assert type(found.value) is kind
    np.testing.assert_array_equal(generator.get_state(), before)


def test_multinomial_wants_enough_categories_above_zero():
    """PyTorch gives categories of probability 0 here."""
    with pytest.raises(RuntimeError, match=r"only 1 probabilities .* num_samples=2"):
        MersenneGenerator().multinomial(np.array([[1, 1, 1], [0, 1, 0.0]]), 2)


def test_a_state_of_other_bytes_is_refused_and_changes_nothing():
    generator = MersenneGenerator().manual_seed(4)
    before = generator.get_state()
    with pytest.raises(RuntimeError, match="MT19937"):
        generator.set_state(np.zeros(5056, np.uint8))
    np.testing.assert_array_equal(generator.get_state(), before)


def test_offsets_belong_to_counters():
    with pytest.raises(RuntimeError, match="MersenneGenerator has no offset"):
        MersenneGenerator().get_offset()
    with pytest.raises(RuntimeError, match="MersenneGenerator has no offset"):
        MersenneGenerator().set_offset(4)
    with pytest.raises(RuntimeError, match="-1"):
        PhiloxGenerator("cpu").set_offset(-1)


def test_expanded_arrays_and_arrays_of_another_device_are_refused():
    expanded = np.lib.stride_tricks.as_strided(np.zeros(3), (2, 3), (0, 8))
    with pytest.raises(RuntimeError, match="copy it first"):
        MersenneGenerator().uniform_(expanded)
    with pytest.raises(RuntimeError, match="'cuda' cannot fill a numpy array"):
        PhiloxGenerator("cuda").uniform_(np.zeros(3))


def test_bounds_that_a_float_cannot_count_to_warn():
    with pytest.warns(UserWarning, match="2\\^24"):
        MersenneGenerator().randint(0, 2**25, 3, np.float32)
    with pytest.warns(UserWarning, match="more than two std"):
        MersenneGenerator().trunc_normal_(np.empty(3), 5, 1, -2, 2)


# Exact arithmetic

ordinary = st.floats(-1e3, 1e3).filter(lambda x: x == 0 or abs(x) > 1e-3)


def rounded(value, dtype):
    """A rational rounded once, to nearest and even."""
    nearest = dtype(float(value))  # float() of a Fraction rounds once, to float64
    if dtype is np.float64:
        return nearest
    around = [nearest, *(np.nextafter(nearest, dtype(side)) for side in (-np.inf, np.inf))]
    return min(around, key=lambda x: (abs(Fraction(float(x)) - value), int(x.view(np.int32)) & 1))


@settings(max_examples=300)
@given(ordinary, ordinary, ordinary, st.sampled_from([np.float32, np.float64]))
def test_fma_rounds_once(x, y, z, dtype):
    x, y, z = dtype(x), dtype(y), dtype(z)
    exactly = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
    assert exact.fma(x, y, z) == rounded(exactly, dtype)


@pytest.mark.parametrize("dtype, digits", [(np.float32, 24), (np.float64, 53)])
def test_fma_where_rounding_twice_would_err(dtype, digits):
    """Numbers of two bits each, far apart: their sums lie next to half-way points."""
    random = np.random.RandomState(0)

    def two_bits():
        apart = random.choice([digits - 1, digits - 2, digits // 2], 20011)
        first = 2.0 ** random.randint(-3, 4, 20011)
        second = random.choice([-1, 0, 1], 20011) * first / 2.0**apart
        return random.choice([-1, 1], 20011) * (first + second)

    x, y = two_bits().astype(dtype), two_bits().astype(dtype)
    z = (two_bits() * 2.0 ** random.choice([digits - 1, digits, digits + 1], 20011)).astype(dtype)
    expected = [
        rounded(Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c)), dtype)
        for a, b, c in zip(x, y, z, strict=True)
    ]
    np.testing.assert_array_equal(exact.fma(x, y, z), expected)
    twice = (x.astype(np.longdouble) * y + z).astype(np.float64).astype(dtype)
    assert (twice != expected).any()


def test_the_box_muller_twin_equals_its_formula():
    from tensorgrad.rng import twins

    u, v = (MersenneGenerator().manual_seed(seed).rand(2**17 + 3) for seed in (1, 2))
    u[0] = v[0] = 0
    u[1] = v[1] = 1 - 2.0**-24
    for mean, std in [(0, 1), (0, 0.02), (1e-3, 1), (0.3, 0.02)]:
        expected = [scale(z, mean, std) for z in box_muller(u, v)]
        radii, angles = u.copy(), v.copy()
        twins.box_muller(radii, angles, np.float32(mean), np.float32(std))
        np.testing.assert_array_equal(radii.view(np.int32), expected[0].view(np.int32))
        np.testing.assert_array_equal(angles.view(np.int32), expected[1].view(np.int32))


def test_the_float32_polynomials_are_close_to_the_functions():
    u, v = (MersenneGenerator().manual_seed(seed).rand(10007) for seed in (1, 2))
    x, y = box_muller(u, v)
    wide = box_muller(u.astype(np.float64), v.astype(np.float64))
    np.testing.assert_allclose(x, wide[0], atol=2e-6)
    np.testing.assert_allclose(y, wide[1], atol=2e-6)


# Philox


@pytest.mark.parametrize(
    "counter, key, block",
    [
        ([0] * 4, [0] * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ([2**32 - 1] * 4, [2**32 - 1] * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_known_answers_of_random123(counter, key, block):
    out = philox.philox4x32(tuple(np.array([word], np.uint64) for word in counter), tuple(key))
    assert " ".join(f"{int(word[0]):08x}" for word in out) == block


def philox_by_hand(seed, place):
    """The definition, on Python's integers."""
    a, b, c, d = place % 2**32, place >> 32, 0, 0
    k, m = seed % 2**32, seed >> 32
    for _ in range(10):
        p, q = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = q >> 32 ^ b ^ k, q % 2**32, p >> 32 ^ d ^ m, p % 2**32
        k, m = (k + 0x9E3779B9) % 2**32, (m + 0xBB67AE85) % 2**32
    return [a, b, c, d]


@given(
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 100) | st.just(2**32 - 3),
    st.integers(0, 60),
)
def test_words_are_a_function_of_seed_and_place(seed, offset, n):
    out = philox.words(seed, offset, n)
    blocks = [word for i in range(-(-n // 4)) for word in philox_by_hand(seed, offset + i)]
    assert out.dtype == np.uint32 and out.tolist() == blocks[:n]


def test_words_do_not_depend_on_the_parts_they_are_made_in():
    whole = philox.words(7, 5, 4 * 10007)
    np.testing.assert_array_equal(whole[4 * 6007 :], philox.words(7, 5 + 6007, 4 * 4000))


@given(seeds, st.integers(0, 2**40), st.sampled_from([(), (0,), (7,), (3, 5)]))
def test_a_philox_generator_draws_what_the_functions_give(seed, offset, shape):
    generator = PhiloxGenerator("cpu").manual_seed(seed)
    seed %= 2**64

    def at():
        generator.set_offset(offset)
        return generator

    for dtype in ("float32", "float64"):
        expected = philox.uniform(seed, offset, shape, dtype)
        np.testing.assert_array_equal(at().rand(shape, dtype), expected, strict=True)
        expected = philox.normal(seed, offset, shape, dtype)
        np.testing.assert_array_equal(at().randn(shape, dtype), expected, strict=True)
    expected = philox.integers(seed, offset, shape, -3, 2**40)
    np.testing.assert_array_equal(at().randint(-3, 2**40, shape), expected, strict=True)
    expected = philox.dropout_mask(seed, offset, shape, 0.1)
    np.testing.assert_array_equal(at().dropout_mask(shape, 0.1), expected, strict=True)
    used = -(-math.prod(shape) // 4)
    assert generator.get_offset() == offset + used
    state = generator.get_state()
    assert state.dtype == np.uint8 and state.size == 16
    following = generator.rand(5)
    np.testing.assert_array_equal(generator.set_state(state).rand(5), following)


def follows(sample, cdf):
    """Kolmogorov and Smirnov see nothing odd."""
    return scipy.stats.kstest(np.asarray(sample, np.float64), cdf).pvalue > 1e-3


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_philox_follows_its_distributions(dtype):
    generator, n = PhiloxGenerator("cpu").manual_seed(1), 50021
    normal = generator.randn(n, dtype)
    assert follows(generator.rand(n, dtype), "uniform") and follows(normal, "norm")
    assert abs(np.corrcoef(normal[:-1:2], normal[1::2])[0, 1]) < 0.02
    out = np.empty(n, dtype)
    assert follows(generator.uniform_(out, -3, 4), scipy.stats.uniform(-3, 7).cdf)
    assert follows(generator.normal_(out, 3, 0.5), scipy.stats.norm(3, 0.5).cdf)
    assert follows(generator.exponential_(out, 1.7), scipy.stats.expon(scale=1 / 1.7).cdf)
    assert follows(generator.cauchy_(out, 2, 0.5), scipy.stats.cauchy(2, 0.5).cdf)
    assert follows(np.log(generator.log_normal_(out, 0.3, 0.5)), scipy.stats.norm(0.3, 0.5).cdf)
    assert follows(generator.trunc_normal_(out, 0, 1, -1, 2), scipy.stats.truncnorm(-1, 2).cdf)
    assert follows(generator.trunc_normal_(out, 0, 1, 2, 4), scipy.stats.truncnorm(2, 4).cdf)
    trials = np.bincount(generator.geometric_(np.empty(n, np.int64), 0.4), minlength=5)[1:5] / n
    np.testing.assert_allclose(trials, 0.4 * 0.6 ** np.arange(4), atol=0.01)


def test_philox_counts_right():
    generator, n = PhiloxGenerator("cpu").manual_seed(1), 40009
    counts = np.bincount(generator.randint(-2, 5, n) + 2, minlength=7)
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
    assert abs(generator.dropout_mask(n, 0.1).mean() - 0.9) < 0.01
    assert abs(generator.bernoulli(np.full(n, 0.3)).mean() - 0.3) < 0.01
    assert philox.bernoulli(0, 0, 3, 1.0).all() and not philox.bernoulli(0, 0, 3, 0.0).any()
    weights = np.array([[1, 2, 0, 3.0], [4, 0, 1, 1]])
    for replacement in (True, False):
        samples = generator.multinomial(np.repeat(weights, 9973, 0), 2, replacement)[:, 0]
        for row, chosen in zip(weights, samples.reshape(2, -1), strict=True):
            share = np.bincount(chosen, minlength=4) / 9973
            np.testing.assert_allclose(share, row / row.sum(), atol=0.02)
    orders = np.stack([generator.randperm(3) for _ in range(3001)])
    np.testing.assert_array_equal(np.sort(orders, 1), np.tile(np.arange(3), (3001, 1)))
    codes = np.unique(orders @ [9, 3, 1], return_counts=True)[1]
    assert len(codes) == 6 and scipy.stats.chisquare(codes).pvalue > 1e-3


def test_philox_fills_every_dtype_and_layout():
    generator = PhiloxGenerator("cpu").manual_seed(1)
    for dtype in FLOATS:
        for op, args in FILLS:
            out = np.full((13, 17), -7, dtype)
            getattr(generator, op)(out.T[::2], *args)
            assert (out[:, 1::2] == -7).all() and np.isfinite(out.astype(np.float64)).all()
    assert generator.rand(5, BF16).dtype == BF16
    assert (generator.rand(20011, np.float16) < 1).all()


def test_philox_functions_refuse_what_they_cannot_do():
    for call, kind in [
        (lambda: philox.bernoulli(0, 0, 3, 1.5), RuntimeError),
        (lambda: philox.dropout_mask(0, 0, 3, -0.5), ValueError),
        (lambda: philox.integers(0, 0, 3, 5, 5), RuntimeError),
        (lambda: philox.uniform(0, 0, 3, np.int64), RuntimeError),
        (lambda: philox.normal(0, 0, -3), RuntimeError),
    ]:
        with pytest.raises(kind, match=r"^\w+: "):
            call()


@pytest.mark.parametrize("dtype, ulps", [(np.float32, 3), (np.float64, 3)])
def test_portable_logarithm(dtype, ulps):
    x = np.concatenate([philox.uniform(1, 0, 20011), [1, 1 - 2.0**-24, 2.0**-32, 1e-12, 1e6]])
    x = x[x > 0].astype(dtype)
    expected = np.log(x.astype(np.float64))
    np.testing.assert_allclose(portable.log(x), expected, rtol=ulps * np.finfo(dtype).eps)
    assert portable.log(np.zeros(1, dtype))[0] < np.log(np.finfo(dtype).tiny)


@pytest.mark.parametrize("word, eps", [(np.uint32, 3e-7), (np.uint64, 1e-15)])
def test_portable_circle(word, eps):
    bits = 8 * np.dtype(word).itemsize
    edges = [i * 2 ** (bits - 3) + j for i in range(8) for j in (-1, 0, 1)]
    turn = np.array([edge % 2**bits for edge in edges], word)
    turn = np.concatenate([turn, philox.words(1, 0, 20011).astype(word) << word(bits - 32)])
    cosine, sine = portable.circle(turn)
    angle = 2 * np.pi * (turn.astype(np.longdouble) / 2.0**bits)
    np.testing.assert_allclose(cosine, np.cos(angle).astype(np.float64), rtol=0, atol=eps)
    np.testing.assert_allclose(sine, np.sin(angle).astype(np.float64), rtol=0, atol=eps)


def test_portable_exponential_and_tangent():
    x = np.concatenate([np.linspace(-700, 700, 20011), [-1e9, 0.0]])
    np.testing.assert_allclose(portable.exp(x), np.exp(x), rtol=5e-16)
    x = np.linspace(-1.57, 1.57, 20011)
    np.testing.assert_allclose(portable.tan(x), np.tan(x), rtol=1e-12)


@pytest.mark.gpu
def test_philox_is_the_same_on_the_gpu():
    cpu, gpu = (PhiloxGenerator(device).manual_seed(2**40 + 7) for device in ("cpu", "cuda"))

    def same(draw):
        np.testing.assert_array_equal(draw(gpu).get(), draw(cpu), strict=True)
        assert gpu.get_offset() == cpu.get_offset()

    for n in (0, 1, 3, 4, 5, 1021, 200003):
        for dtype in ("float32", "float64", "float16"):
            for op, args in FILLS:
                same(lambda g, n=n, d=dtype, op=op, a=args: getattr(g, op)(g.xp.empty(n, d), *a))
        same(lambda g, n=n: g.dropout_mask(n, 0.1))
        same(lambda g, n=n: g.randperm(n))
        same(lambda g, n=n: g.randint(-3, 2**40, n))
        same(lambda g, n=n: g.bernoulli(g.xp.linspace(0, 1, n)))
    same(lambda g: g.normal_(g.xp.zeros((31, 37)).T[::2]))
    same(lambda g: g.trunc_normal_(g.xp.empty((31, 37)), 0, 1, -1, 2))
    weights = np.random.RandomState(0).uniform(0, 1, (5, 101))
    same(lambda g: g.multinomial(g.xp.asarray(weights), 1))
    same(lambda g: g.multinomial(g.xp.asarray(weights), 7))
