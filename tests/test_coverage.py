"""benchmarks.coverage finds what differs and what is missing; its names are PyTorch's."""

import json
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import tensorgrad as tg
from benchmarks import coverage
from benchmarks.coverage import NO, NONE, YES, agreement, forms_of, has, look_up
from benchmarks.names import FORMS, called, expand
from benchmarks.ours import SIDE as OURS
from benchmarks.rivals import pytorch
from tests.ops.table import Row

TORCH = pytorch()
CHECKS = coverage.checks(OURS, TORCH)


def outcome(call, *shapes, **options):
    found = agreement(Row("one", call, list(shapes), **options), CHECKS)
    return {column: mark for column, (mark, _) in found.items()}, found


def test_a_right_row_agrees_in_every_column():
    assert set(outcome(lambda t, x: t.exp(x) * x, (3, 5))[0].values()) == {YES}


def test_a_wrong_value_a_wrong_gradient_a_wrong_dtype():
    """Each column notices what it is there for."""

    def off(t, x):
        return t.exp(x) * (1 + 1e-6 if t is tg else 1)

    marks, found = outcome(off, (3, 5))
    assert marks["value"] == marks["first"] == marks["second"] == NO
    assert found["value"][1].startswith("AssertionError:") and "\n" not in found["value"][1]

    marks, _ = outcome(lambda t, x: x * x.detach() if t is tg else x * x, (3, 5))
    assert marks["value"] == YES and marks["first"] == marks["second"] == NO

    marks, _ = outcome(lambda t, x: x.double() if t is tg else x * 1, (3, 5))
    assert marks["value"] == YES and marks["dtype"] == NO

    def few(t, x):
        return x * 1 if t is torch or x.numel() else x.unsqueeze(0)

    assert outcome(few, (3, 5))[0]["edges"] == NO


def test_what_has_no_meaning_is_no_gap():
    marks, found = outcome(lambda t, x: x > 0, (3, 5))
    assert marks == dict.fromkeys(marks, YES) | dict.fromkeys(("first", "second", "forward"), NONE)
    assert found["first"][1] == "no derivative"
    marks, found = outcome(lambda t, x: x.sum(), (3, 5), lacks={"empty": "a reason"})
    assert marks["edges"] == YES and found["edges"][1] == "a reason"


def test_an_error_is_a_finding():
    def missing(t, x):
        return t.exp(x) if t is torch else t.no_such_op(x)

    marks, found = outcome(missing, (3, 5))
    assert marks["value"] == NO and "no_such_op" in found["value"][1]


# -- names ----------------------------------------------------------------------------------------


def test_words_with_choices():
    assert expand("a conv{1,2}d _{,x}\n b{p,\n q}") == [
        "a",
        "conv1d",
        "conv2d",
        "_",
        "_x",
        "bp",
        "bq",
    ]


def test_every_name_is_pytorchs_and_stands_once():
    for group, (prefix, names) in FORMS.items():
        assert len(set(names)) == len(names), group
        if group != "ours":
            lost = [n for n in names if not any(has(torch, f) for f in forms_of(torch, prefix, n))]
            assert lost == [], group


def test_forms_are_functions_methods_and_methods_in_place():
    assert list(forms_of(torch, "", "exp")) == ["exp", "Tensor.exp", "Tensor.exp_"]
    assert list(forms_of(torch, "", "stack")) == ["stack"]
    assert list(forms_of(torch, "", "expand")) == ["Tensor.expand"]
    assert list(forms_of(torch, "Tensor.", "float")) == ["Tensor.float"]
    assert has(tg, "Tensor.__eq__") and not has(tg, "Tensor.__setattr__")
    assert not has(tg, "no.such.name")


def one_more(x, y, out=None):
    return x, y, out


def test_what_we_lack_is_told():
    names = {n.name: n for n in look_up(OURS, TORCH, [Row("exp", lambda t, x: x.exp(), [(3,)])])}
    assert names["exp"].missing == [] and names["exp"].rows == 1 and names["tanh"].rows == 0
    assert names["SGD"].parameters == [] and names["__rsub__"].parameters == []
    assert coverage.lacking(OURS.lib, TORCH.lib, "optim.lr_scheduler.StepLR") == []
    lacks = coverage.lacking(torch.nn, torch.optim, "lr_scheduler")
    assert lacks == []  # no function, or not there
    assert coverage.lacking(SimpleNamespace(f=lambda x: x), SimpleNamespace(f=one_more), "f") == [
        "y"
    ]
    for name in names.values():
        for form in set(name.forms) - set(name.missing):
            attrgetter(form)(tg)


def helper(x):
    return x.cumsum(0)


def test_names_that_a_row_calls():
    def outer(inner):
        return lambda t, *xs: inner(t.nn.functional, *xs)

    found = called(outer(lambda F, x: F.gelu(-x) + [y // 2 for y in helper(x) if y <= 3]))
    assert {"gelu", "neg", "add", "floor_divide", "le", "cumsum"} <= found
    assert not {"div", "lt", "exp"} & found

    def in_place(t, x):
        x += 1
        x **= 2
        return ~x

    assert {"add", "pow", "bitwise_not"} <= called(in_place)


# -- the command ----------------------------------------------------------------------------------


def test_the_table_has_every_row_of_every_file():
    names = [r.name for r in coverage.table()]
    assert len(set(names)) == len(names)
    files = list((Path(__file__).parent / "ops").glob("table*.py"))
    assert len(files) > 1 and {"add", "huber_loss"} <= set(names)


def test_the_report(tmp_path, capsys, monkeypatch):
    rows = [
        Row("exp", lambda t, x: t.exp(x), [(3, 5)]),
        Row("expm1 off", lambda t, x: t.exp(x) - (1 if t is tg else 0), [(3, 5)]),
        Row("sum", lambda t, x: x.sum(), [(3, 5)]),
    ]
    monkeypatch.setattr(coverage, "table", lambda: rows)
    file, page = tmp_path / "found.json", tmp_path / "page.md"
    coverage.main(["exp", "--quick", "--json", str(file), "--markdown", str(page)])
    printed = capsys.readouterr().out
    lines = [line.split() for line in printed.splitlines()]
    assert ["exp", YES, YES] in lines and ["expm1", "off", NO, YES] in lines
    assert "expm1 off, value: AssertionError" in printed
    assert not any(line[:1] == ["sum"] for line in lines)
    assert "names present, 1 rows agree in every column (of 2 rows;" in printed
    found = json.loads(file.read_text())
    assert found["rows"]["exp"] == {"value": [YES, ""], "first": [YES, ""]}
    assert {"sides", "cpu"} <= found["environment"].keys()
    exp = next(n for n in found["names"] if n["name"] == "exp")
    assert exp["group"] == "operations" and exp["rows"] == 2
    text = page.read_text()
    assert f"| expm1 off | {NO} | {YES} |" in text and "| exp | exp, Tensor.exp" in text
    coverage.main(["exp", "--quick", "--gaps"])
    assert ["exp", YES, YES] not in [line.split() for line in capsys.readouterr().out.splitlines()]


def test_errors_in_sentences(capsys, monkeypatch):
    with pytest.raises(SystemExit):
        coverage.main(["no such row"])
    assert "no row begins with no such row" in capsys.readouterr().err
    monkeypatch.setattr(coverage, "__file__", "/nowhere/benchmarks/coverage.py")
    with pytest.raises(SystemExit, match="use a checkout"):
        coverage.table()
