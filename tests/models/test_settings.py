"""Settings refuse what cannot be, and come back from a dict as they were."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorgrad.models.char_gpt import CharGPTConfig
from tensorgrad.models.settings import Settings, divided, options, setting
from tensorgrad.models.training.recipe import Recipe


@dataclass(frozen=True)
class Example(Settings):
    hidden: int
    count: int = setting(3, "how many", least=1)
    share: float = setting(0.5, "how much", least=0, below=1)
    quick: bool = setting(False, "whether at once")
    name: str = setting("x", "what it is called")


@given(st.integers(), st.integers(1), st.floats(0, 1, exclude_max=True), st.booleans(), st.text())
def test_there_and_back(hidden, count, share, quick, name):
    example = Example(hidden, count, share, quick, name)
    assert Example.from_dict(example.to_dict()) == example


@pytest.mark.parametrize(
    ("values", "error", "sentence"),
    [
        ({"count": 0}, ValueError, "count must be at least 1, it is 0"),
        ({"count": 2.0}, TypeError, "count must be of type int, it is 2.0"),
        ({"count": True}, TypeError, "count must be of type int, it is True"),
        ({"share": 1}, ValueError, "share must be less than 1, it is 1"),
        ({"share": -0.1}, ValueError, "share must be at least 0, it is -0.1"),
        ({"share": float("inf")}, ValueError, "share must be finite, it is inf"),
        ({"share": "0.5"}, TypeError, "share must be of type float, it is '0.5'"),
        ({"quick": 1}, TypeError, "quick must be of type bool, it is 1"),
        ({"name": None}, TypeError, "name must be of type str, it is None"),
        ({"cuont": 5}, ValueError, "there is no setting 'cuont'; did you mean 'count'?"),
        ({"zzzzz": 5}, ValueError, "there is no setting 'zzzzz'; there are hidden, count"),
    ],
)
def test_what_is_refused(values, error, sentence):
    with pytest.raises(error, match=sentence):
        Example.from_dict({"hidden": 1, **values})


def test_divided_by_kind():
    sizes, rates = divided({"n_embd": 15, "seed": 7}, CharGPTConfig, Recipe)
    assert (sizes, rates) == ({"n_embd": 15}, {"seed": 7})
    with pytest.raises(ValueError, match="did you mean 'n_embd'"):
        divided({"n_embed": 15}, CharGPTConfig, Recipe)


def test_options_are_what_has_a_meaning():
    names = [option.name for option in options(CharGPTConfig, Recipe)]
    assert "vocab_size" not in names
    assert {"block_size", "learning_rate", "device"} <= set(names)
    assert len(names) == len(set(names))


def test_a_recipe_ends_no_higher_than_it_begins():
    with pytest.raises(
        ValueError, match=r"min_lr .* at most learning_rate; they are 0.0001 and 1e-05"
    ):
        Recipe(learning_rate=1e-5)
    assert replace(Recipe(), learning_rate=1e-5, decay_lr=False).min_lr == 1e-4
