"""What agrees with PyTorch, op by op: value, first and second derivative, forward mode, dtype, edge
cases, for every row of the tests' tables; and which of PyTorch's names there are.
"""

import inspect
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from inspect import Parameter as Kind
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness import Side
from benchmarks.names import FORMS, called
from benchmarks.report import environment, options, row, writable, write_json
from benchmarks.rivals import pytorch

COLUMNS = ("value", "first", "second", "forward", "dtype", "edges")
QUICK = ("value", "first")
YES, NO, NONE = "yes", "NO", "-"
LEGEND = f"{YES}: as in PyTorch; {NO}: otherwise; {NONE}: has no meaning here"

Row = Any  # tests.ops.table.Row
Checks = dict[str, list[Callable[[Row], object]]]
Outcome = dict[str, tuple[str, str]]  # column -> mark, and why


def main(argv: Sequence[str] | None = None) -> None:
    parser = options("coverage", __doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="only rows that begin so")
    parser.add_argument("--markdown", type=writable, metavar="FILE", help="write the tables there")
    parser.add_argument("--gaps", action="store_true", help="print only what differs or is missing")
    args = parser.parse_args(argv)

    rival = pytorch()
    from benchmarks.ours import SIDE as ours

    rows = [r for r in table() if not args.rows or r.name.startswith(tuple(args.rows))]
    if not rows:
        parser.error(f"no row begins with {' or '.join(args.rows)}")
    columns = checks(ours, rival)
    if args.quick:
        columns = {name: columns[name] for name in QUICK}
    widths = (max(len(r.name) for r in rows), *(8 for _ in columns))
    print(f"tensorgrad {ours.about} beside PyTorch {rival.lib.__version__}\n{LEGEND}\n")
    print(row(("row", *columns), widths))
    found: dict[str, Outcome] = {}
    for r in rows:
        found[r.name] = outcome = agreement(r, columns)
        marks = [mark for mark, _ in outcome.values()]
        if NO in marks or not args.gaps:
            print(row((r.name, *marks), widths), flush=True)
    names = list(look_up(ours, rival, rows))
    print("\n".join([*gaps(found, names), "", summary(found, names)]))
    if args.markdown:
        args.markdown.write_text(markdown(rival, found, names, list(columns)))
    facts = environment(ours, rival) if args.json else {}
    write_json(args.json, "coverage", facts, rows=found, names=[n._asdict() for n in names])


# -- rows -----------------------------------------------------------------------------------------


def table() -> list[Row]:
    """The rows of every tests/ops/table*.py, in the order of the files' names."""
    folder = Path(__file__).resolve().parents[1] / "tests" / "ops"
    files = sorted(folder.glob("table*.py"))
    if not files:
        raise SystemExit(f"coverage reads the tests' tables, and {folder} has none: use a checkout")
    try:
        return [r for file in files for r in import_module(f"tests.ops.{file.stem}").ROWS]
    except ModuleNotFoundError as error:
        if error.name not in ("pytest", "hypothesis"):
            raise
        raise SystemExit(f"{error.name} is not installed: pip install -e '.[test]'") from None


def checks(ours: Side, rival: Side) -> Checks:
    """Column -> what must hold of a row, as in tests/ops/test_properties.py."""
    from pytest import skip

    from tests.ops import test_properties as held
    from tests.ops.compare import assert_same, floats, run

    def both(r: Row) -> Iterator[tuple[list[Any], list[Any]]]:
        return (run(side.lib, r.call, r.inputs()) for side in (ours, rival))

    def value(r: Row) -> None:
        (mine, _), (theirs, _) = both(r)
        assert_same(mine, theirs)

    def first(r: Row) -> None:
        (out, mine), (_, theirs) = both(r)
        differentiable(out)
        assert_same(mine, theirs)

    def second(r: Row) -> None:
        differentiable(run(ours.lib, r.call, r.inputs())[0])
        held.test_second_derivative_equals_pytorch(r)

    def differentiable(out: list[Any]) -> None:
        if not floats(out):
            skip("no derivative")

    forward = [held.test_forward_mode_is_the_transpose_of_reverse, held.test_forward_mode_nests]
    edges = [held.test_empty_and_0d_inputs, held.test_stretched_inputs, held.test_strided_inputs]
    return {
        "value": [value], "first": [first], "second": [second], "forward": forward,
        "dtype": [held.test_dtypes_stay], "edges": edges,
    }  # fmt: skip


def agreement(r: Row, columns: Checks) -> Outcome:
    return {column: judged(r, tests) for column, tests in columns.items()}


def judged(r: Row, tests: list[Callable[[Row], object]]) -> tuple[str, str]:
    """YES if all tests pass that have a meaning for the row; otherwise why not."""
    from pytest import skip

    reasons: list[str] = []
    for test in tests:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                test(r)
        except skip.Exception as reason:
            reasons.append(str(reason))
        except Exception as error:  # whatever goes wrong is a finding
            return NO, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    why = "; ".join(dict.fromkeys(reasons))
    return (NONE if len(reasons) == len(tests) else YES), why


# -- names ----------------------------------------------------------------------------------------


class Name(NamedTuple):
    """One name of the list: its forms in PyTorch, those we lack, the parameters we lack, and how
    many rows call it.
    """

    group: str
    name: str
    forms: list[str]
    missing: list[str]
    parameters: list[str]
    rows: int


APART = {
    "size_average", "reduce", "_stacklevel", "foreach", "capturable", "differentiable", "fused",
    "out", "args", "kwargs", "self", "input", "other",
}  # fmt: skip
"""Parameters of old programs and of PyTorch's own kernels, and those that nobody gives by name."""


def look_up(ours: Side, rival: Side, rows: list[Row]) -> Iterator[Name]:
    """Every name of benchmarks/names.py."""
    calls = [called(r.call) | set(re.split(r"[ ,]+", r.name)) for r in rows]
    for group, (prefix, names) in FORMS.items():
        for name in names:
            forms = list(forms_of(rival.lib, prefix, name)) or [prefix + name]
            missing = [form for form in forms if not has(ours.lib, form)]
            lacks = [f"{form}({p})" for form in forms for p in lacking(ours.lib, rival.lib, form)]
            last = name.rpartition(".")[2]
            yield Name(group, name, forms, missing, lacks, sum(last in names for names in calls))


def forms_of(lib: Any, prefix: str, name: str) -> Iterator[str]:
    """A function, a method, a method that changes its tensor: those that the library has."""
    if prefix:
        yield prefix + name
        return
    for form in (name, f"Tensor.{name}", f"Tensor.{name}_"):
        if has(lib, form) and callable(attrgetter(form)(lib)):
            yield form


def has(lib: Any, form: str) -> bool:
    """Whether the name exists, and is more than what every object has."""
    try:
        found = attrgetter(form)(lib)
    except (AttributeError, ImportError):
        return False
    return found is not getattr(object, form.rpartition(".")[2], None)


def lacking(ours: Any, rival: Any, form: str) -> list[str]:
    """Parameters of the rival's function or class that ours does not take."""
    try:
        mine, theirs = (inspect.signature(attrgetter(form)(lib)) for lib in (ours, rival))
    except (AttributeError, ImportError, TypeError, ValueError):
        return []  # missing, or written in C
    kinds = {p.kind for p in mine.parameters.values()}
    if "__" in form or kinds & {Kind.VAR_KEYWORD, Kind.VAR_POSITIONAL}:
        return []
    return [p for p in theirs.parameters if p not in {*mine.parameters, *APART}]


# -- reports --------------------------------------------------------------------------------------


def agrees(outcome: Outcome) -> bool:
    return all(mark != NO for mark, _ in outcome.values())


def summary(found: dict[str, Outcome], names: list[Name]) -> str:
    present, forms = sum(not n.missing for n in names), sum(len(n.forms) for n in names)
    there = forms - sum(len(n.missing) for n in names)
    agreeing = sum(map(agrees, found.values()))
    return (
        f"{present} of {len(names)} names present, {agreeing} rows agree in every column "
        f"(of {len(found)} rows; names in all their forms, of which {there} of {forms} are there)"
    )


def gaps(found: dict[str, Outcome], names: list[Name]) -> Iterator[str]:
    """What is missing or differs, in lines."""
    for name, outcome in found.items():
        for column, (mark, why) in outcome.items():
            if mark == NO:
                yield f"{name}, {column}: {why}"
    for group in FORMS:
        of_group = [n for n in names if n.group == group]
        missing = [form for n in of_group for form in n.missing]
        yield f"\n{group}: {sum(not n.missing for n in of_group)} of {len(of_group)} names present"
        if missing:
            yield f"  missing: {' '.join(missing)}"
        lacks = [p for n in of_group for p in n.parameters]
        if lacks:
            yield f"  without parameters: {' '.join(lacks)}"
        if group in ("operations", "nn.functional"):
            bare = [n.name for n in of_group if not n.rows and not n.missing]
            if bare:
                yield f"  in no row: {' '.join(bare)}"


def markdown(
    rival: Side, found: dict[str, Outcome], names: list[Name], columns: Sequence[str]
) -> str:
    """The tables as a page."""
    lines = [
        "# What agrees with PyTorch", "",
        f"Beside PyTorch {rival.lib.__version__}, as `python -m benchmarks.coverage` found it: "
        f"{summary(found, names)}.", "",
        f"## Rows of the tests\n\n{LEGEND}.  Values and gradients in float64, rtol 1e-9.", "",
        table_line(["row", *columns]), table_line(["---", *(":-:" for _ in columns)]),
        *(table_line([name, *(mark for mark, _ in o.values())]) for name, o in found.items()),
        "", "## Names", "",
        "Forms: a function, a method, a method that changes its tensor, as PyTorch has them.", "",
        table_line(["name", "forms", "missing", "rows"]), table_line(["---"] * 3 + ["--:"]),
        *(
            table_line([n.name, ", ".join(n.forms), ", ".join(n.missing), str(n.rows)])
            for n in names
        ),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def table_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
