"""Pictures of graphs: the text is exact, every string survives, Graphviz accepts it."""

import builtins
import os
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorgrad as tg
from tensorgrad import scalar
from tensorgrad.draw import Graph, Vertex, dot, draw, render
from tensorgrad.scalar import Value

QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
NASTY = 'a"b\\ {c}|<d> &lt; \\N \\'


def needs_pygraphviz() -> Any:
    return pytest.importorskip("pygraphviz", reason="needs pygraphviz, as in pip install '.[viz]'")


def leaf(*shape: int) -> tg.Tensor:
    return tg.Tensor(np.ones(shape, np.float32)).requires_grad_()


def labels(graph: Graph) -> list[str]:
    return [" | ".join(v.fields) for v in graph.vertices]


def test_a_value_graph_word_for_word():
    a, b = Value(2, "a"), Value(-3, "b")
    y = a * b + 10
    y.label = "y"
    y.backward()
    assert str(draw(y)) == "\n".join(
        [
            "digraph {",
            "  rankdir=LR",
            "  node [height=0.4]",
            '  "v0" [label="{ a | data 2.0000 | grad -3.0000 }" '
            'tooltip="data 2.0, grad -3.0" shape=record]',
            '  "v1" [label="{ b | data -3.0000 | grad 2.0000 }" '
            'tooltip="data -3.0, grad 2.0" shape=record]',
            '  "v2" [label="{ data -6.0000 | grad 1.0000 }" '
            'tooltip="data -6.0, grad 1.0" shape=record]',
            '  "v2op" [label="*" tooltip="*" shape=oval]',
            '  "v3" [label="{ data 10.0000 | grad 1.0000 }" '
            'tooltip="data 10.0, grad 1.0" shape=record]',
            '  "v4" [label="{ y | data 4.0000 | grad 1.0000 }" '
            'tooltip="data 4.0, grad 1.0" shape=record]',
            '  "v4op" [label="+" tooltip="+" shape=oval]',
            '  "v0" -> "v2op"',
            '  "v1" -> "v2op"',
            '  "v2op" -> "v2"',
            '  "v2" -> "v4op"',
            '  "v3" -> "v4op"',
            '  "v4op" -> "v4"',
            "}\n",
        ]
    )


def test_an_operand_used_twice_has_two_arrows():  # seeds: B2.5
    a = Value(2)
    assert draw(a + a).edges == [("v0", "v1op"), ("v0", "v1op"), ("v1op", "v1")]


def test_equal_graphs_give_equal_text():
    def graph(first: str) -> str:
        made = {name: Value(i + 1, name) for i, name in enumerate("ab")}
        if first == "b":
            made["b"] = Value(2, "b")
            made["a"] = Value(1, "a")
        left, right = made["a"].exp(), made["b"].tanh()
        return str(draw(left * right + made["a"]))

    assert graph("a") == graph("b")


def test_the_neuron_of_the_notes():
    y = scalar.Neuron(3)([1.0, 2.0, 3.0])
    y.backward()
    shown = labels(draw(y))
    assert sum(text.startswith(("w", "b")) for text in shown) == 4
    assert [text for text in shown if "data" not in text] == ["*", "+", "*", "+", "*", "+", "tanh"]


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (0.0, "0.0000"),
        (-0.0, "0.0000"),
        (1.23456789, "1.2346"),
        (-1.5e-7, "-1.5e-07"),
        (123456.0, "123456.0000"),
        (1e300, "1e+300"),
        (float("inf"), "inf"),
        (float("nan"), "nan"),
    ],
)
def test_numbers_are_short_but_not_hidden(x: float, text: str):
    (vertex,) = draw(Value(x)).vertices
    assert vertex.fields[0] == f"data {text}"


def test_a_long_chain():
    y = Value(1.0)
    for _ in range(20_000):
        y = y + 1
    assert len(draw(y).vertices) == 60_001


# ---- tensors


def test_a_tensor_graph():
    w, b = leaf(3, 5), leaf(5)
    x = tg.Tensor(np.ones((3, 5), np.float32))
    y = tg.exp(w * x + b)
    graph = draw(y, params={"weight": w, "bias": b, "x": x})
    assert labels(graph) == [
        "weight | (3, 5) float32",
        "(3, 5)",
        "mul | keeps 60 B",
        "bias | (5,) float32",
        "(3, 5)",
        "add",
        "(3, 5) float32",
        "exp | keeps 60 B",
    ]
    assert [v.kind for v in graph.vertices if v.kind != "op"] == [
        "leaf", "value", "leaf", "value", "result",
    ]  # fmt: skip
    kept = {v.fields[0]: v.tooltip for v in graph.vertices if v.kind == "op"}
    assert kept == {
        "mul": "y: (3, 5) float32, 60 bytes",
        "add": "keeps nothing",
        "exp": "out: (3, 5) float32, 60 bytes",
    }
    assert '"v0" -> "v1op"' in str(graph)


def test_what_is_kept_twice_counts_once():
    w = leaf(7, 11)
    (op,) = (v for v in draw(w * w).vertices if v.kind == "op")
    assert op.fields == ("mul", "keeps 308 B")
    (op,) = (v for v in draw(tg.exp(leaf(1024, 1536))).vertices if v.kind == "op")
    assert op.fields == ("exp", "keeps 6 MiB")


def test_one_of_several_outputs():
    x = leaf(6, 5)
    first, _, third = tg.split(x, 2)
    graph = draw(tg.cat([first, third]))
    assert [v.fields for v in graph.vertices if v.kind == "op"] == [
        ("split",), ("pick 0",), ("pick 2",), ("cat",),
    ]  # fmt: skip


def test_a_tensor_without_history_and_a_leaf_that_is_gone():
    x = tg.Tensor(np.ones((3, 5), np.float32))
    assert labels(draw(x)) == ["(3, 5) float32 | no history"]
    assert labels(draw(leaf(2, 3))) == ["(2, 3) float32"]
    assert labels(draw(tg.exp(leaf(2, 3))))[0] == "(2, 3) gone"


def test_only_values_and_tensors_are_drawn():
    with pytest.raises(TypeError, match="draw: expected a Value or a Tensor, not ndarray"):
        draw(np.ones(3))


# ---- text


@given(text=st.text(), kind=st.sampled_from(["value", "op"]))
def test_no_string_breaks_out_of_its_quotes(text: str, kind: str):
    line = dot(Graph([Vertex(text, kind, (text, "z"), text)], [(text, text)]))
    assert not any("\n" in inside for inside in QUOTED.findall(line))
    bare = QUOTED.sub("", line)
    style = {"value": "record", "op": "oval"}[kind]
    assert bare == (
        "digraph {\n  rankdir=LR\n  node [height=0.4]\n"
        f"   [label= tooltip= shape={style}]\n   -> \n}}\n"
    )
    line.encode()
    if kind == "value":  # one bar between the fields, all others escaped
        assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", QUOTED.findall(line)[1])) == 1


@settings(max_examples=30)
@given(text=st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "), min_size=1))
def test_graphviz_shows_what_was_written(text: str):
    pygraphviz = needs_pygraphviz()
    for kind in ("value", "op"):
        source = dot(Graph([Vertex("v", kind, ("(" + text + ")",), text)], []))
        picture = pygraphviz.AGraph(string=source).draw(format="svg", prog="dot")
        elements = list(ElementTree.fromstring(picture).iter())
        shown = [e.text for e in elements if e.tag.endswith("}text")]
        assert "".join(shown).replace("\xa0", " ") == f"({text})"
        tips = [e.attrib[key] for e in elements for key in e.attrib if key.endswith("}title")]
        assert [tip.replace("\xa0", " ") for tip in tips] == [text]


def test_control_characters_and_surrogates_are_spelt_out():
    (vertex_line,) = (
        line for line in dot(Graph([Vertex("v", "op", ("\0\x1b\ud800\ufffe\n",))], [])).split("\n")
        if "label" in line
    )  # fmt: skip
    assert r'[label="\\x00\\x1b\\ud800\\xfffe\n"' in vertex_line


def test_a_graph_must_make_sense():
    with pytest.raises(ValueError, match="an edge names 'w', which is none of the vertices"):
        dot(Graph([Vertex("v", "op", ("+",))], [("v", "w")]))
    with pytest.raises(ValueError, match="no vertex of kind 'box'; there are value, leaf"):
        dot(Graph([Vertex("v", "box", ("+",))], []))


# ---- pictures


@pytest.mark.parametrize(
    ("name", "start"), [("y.svg", b"<?xml"), ("y.PNG", b"\x89PNG"), ("y.pdf", b"%PDF")]
)
def test_pictures(name: str, start: bytes, tmp_path: Path):
    needs_pygraphviz()
    y = (Value(2, NASTY) * 3).tanh()
    draw(y, tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(start)
    draw(y, str(tmp_path / name))


def test_a_notebook_shows_the_picture(monkeypatch: pytest.MonkeyPatch):
    needs_pygraphviz()
    picture = draw(Value(2, NASTY) * 3)._repr_svg_()
    assert picture is not None
    root = ElementTree.fromstring(picture.encode())
    assert NASTY in [e.text for e in root.iter()]


@pytest.mark.parametrize("name", ["y.dot", "y.gv"])
def test_the_text_needs_no_graphviz(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    without_pygraphviz(monkeypatch, path="")
    graph = draw(Value(2, "一"), tmp_path / name)
    assert (tmp_path / name).read_text(encoding="utf-8") == str(graph)


@pytest.mark.parametrize("name", ["y.jpg", "y", "svg"])
def test_unknown_endings(name: str, tmp_path: Path):
    with pytest.raises(ValueError, match=rf"'{name}' must end in \.svg, \.png, \.pdf, \.dot or"):
        draw(Value(2), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def without_pygraphviz(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setitem(sys.modules, "pygraphviz", None)
    monkeypatch.setenv("PATH", path)


def test_without_graphviz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    without_pygraphviz(monkeypatch, path="")
    with pytest.raises(ImportError, match=r"pip install 'tensorgrad\[viz\]' .*program dot"):
        draw(Value(2), tmp_path / "y.svg")
    assert list(tmp_path.iterdir()) == []
    assert draw(Value(2))._repr_svg_() is None


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for dot is a shell script")
def test_the_program_dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    program = tmp_path / "dot"
    program.write_text('#!/bin/sh\necho "$1"\ncat\n')
    program.chmod(0o755)
    without_pygraphviz(monkeypatch, path=f"{tmp_path}:/bin:/usr/bin")
    graph = draw(Value(2, "一"), tmp_path / "y.svg")
    assert (tmp_path / "y.svg").read_text(encoding="utf-8") == f"-Tsvg\n{graph}"
    program.write_text('#!/bin/sh\necho "no such font" >&2\nexit 3\n')
    with pytest.raises(RuntimeError, match="render: dot failed: no such font"):
        render(str(graph), tmp_path / "z.svg")
    assert not (tmp_path / "z.svg").exists()


def test_importing_draw_imports_no_graphviz(monkeypatch: pytest.MonkeyPatch):
    seen = []
    real = builtins.__import__

    def watch(name: str, *args: Any, **kwargs: Any) -> Any:
        seen.append(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", watch)
    str(draw(Value(2) * 3))
    assert "pygraphviz" not in seen
