"""Graphs as pictures in micrograd's look: records for values, ovals for operations, left to right.

A Graph is DOT text; Graphviz, where it is installed, lays it out as .svg, .png or .pdf."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from tensorgrad.autograd.saved import kept_by

STYLES = {
    "value": "shape=record",
    "leaf": "shape=record style=filled fillcolor=lightblue",
    "result": "shape=record style=filled fillcolor=darkolivegreen1",
    "op": "shape=oval",
}
"""How a vertex of each kind looks: DOT attributes."""

PICTURES = (".svg", ".png", ".pdf")


@dataclass(frozen=True)
class Vertex:
    """A box (the fields side by side) or, for an op, an oval (one above the other)."""

    id: str
    kind: str
    fields: tuple[str, ...]
    tooltip: str = ""


@dataclass(frozen=True)
class Graph:
    """Vertices, and edges as pairs of ids.  str() is DOT text; a notebook shows the picture."""

    vertices: Sequence[Vertex]
    edges: Sequence[tuple[str, str]]

    def __str__(self) -> str:
        return dot(self)

    def _repr_svg_(self) -> str | None:
        try:
            return _lay_out(dot(self), "svg").decode()
        except ImportError:
            return None  # the notebook falls back to the text


def draw(
    x: Any, path: str | PathLike[str] | None = None, params: Mapping[str, Any] | None = None
) -> Graph:
    """The graph that made a Value or a Tensor, drawn into the file `path` if one is given.

    params: names for Tensors, for instance dict(model.named_parameters()).
    """
    if hasattr(x, "node"):
        graph = tensor_graph(x, params)
    elif hasattr(x, "slopes"):
        graph = value_graph(x)
    else:
        raise TypeError(f"draw: expected a Value or a Tensor, not {type(x).__name__}")
    if path is not None:
        render(dot(graph), path)
    return graph


def value_graph(value: Any) -> Graph:
    """The graph of a scalar Value: label, data and grad of each, and the operations between."""

    def fields(v: Any) -> tuple[str, ...]:
        numbers = (f"data {_short(v.data)}", f"grad {_short(v.grad)}")
        return (v.label, *numbers) if v.label else numbers

    return _graph(
        _ancestry(value, lambda v: v.parents),
        parents=lambda v: v.parents,
        result=lambda v, name: Vertex(name, "value", fields(v), f"data {v.data}, grad {v.grad}"),
        op=lambda v, name: Vertex(name, "op", (v.op,)) if v.op else None,
    )


def tensor_graph(tensor: Any, params: Mapping[str, Any] | None = None) -> Graph:
    """The graph of a Tensor: shapes, operations, and the bytes that each keeps for backward.

    Leaves (blue) are the tensors that require grad; `params` names them.  The tooltip of an
    operation lists what it keeps, by the name under which its rules ask for it.
    """
    names = {id(t.node): name for name, t in (params or {}).items() if t.node is not None}
    about = f"{tuple(tensor.shape)} {tensor.dtype}"
    if tensor.node is None:
        return Graph([Vertex("v0", "result", (about, "no history"))], [])

    def result(node: Any, name: str) -> Vertex:
        kind, field = "value", str(tuple(node.shape))
        if node.op is None:
            leaf = node.kept() if callable(node.kept) else None  # a weak reference to the tensor
            kind, field = "leaf", f"{field} {'gone' if leaf is None else leaf.dtype}"
        if node is tensor.node:
            kind, field = "result", about
        title = names.get(id(node))
        return Vertex(name, kind, (title, field) if title else (field,))

    def op(node: Any, name: str) -> Vertex | None:
        if node.op is None:
            return None
        kept = kept_by(node)
        size = sum(a.nbytes for *_, a in kept)
        tips = [f"{ask}: {tuple(a.shape)} {a.dtype}, {a.nbytes} bytes" for ask, _, a in kept]
        title = f"pick {node.kept}" if isinstance(node.kept, int) else str(node.op.name)
        fields = (title, f"keeps {_bytes(size)}") if size else (title,)
        return Vertex(name, "op", fields, "\n".join(tips) or "keeps nothing")

    return _graph(_ancestry(tensor.node, _parents), parents=_parents, result=result, op=op)


def dot(graph: Graph) -> str:
    """The graph in Graphviz's language.  Equal graphs give equal text."""
    known = {vertex.id for vertex in graph.vertices}
    strangers = sorted({end for edge in graph.edges for end in edge} - known)
    if strangers:
        raise ValueError(f"dot: an edge names {strangers[0]!r}, which is none of the vertices")
    lines = ["digraph {", "  rankdir=LR", "  node [height=0.4]"]
    for v in graph.vertices:
        if v.kind not in STYLES:
            raise ValueError(f"dot: no vertex of kind {v.kind!r}; there are {', '.join(STYLES)}")
        if v.kind == "op":
            label = _text("\n".join(v.fields))
        else:
            label = "{ " + " | ".join(map(_field, v.fields)) + " }"
        tooltip = v.tooltip or ", ".join(v.fields)
        tooltip = _text(tooltip.replace("\\", r"\\"))  # Graphviz unescapes tooltips twice
        lines.append(f'  "{_text(v.id)}" [label="{label}" tooltip="{tooltip}" {STYLES[v.kind]}]')
    lines += [f'  "{_text(a)}" -> "{_text(b)}"' for a, b in graph.edges]
    return "\n".join([*lines, "}\n"])


def render(text: str, path: str | PathLike[str]) -> None:
    """Lay DOT text out as a .svg, .png or .pdf, as `path` ends; .dot and .gv take the text itself.

    Raises ValueError for another ending, ImportError where no Graphviz is to be found.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind in (".dot", ".gv"):
        path.write_text(text, encoding="utf-8")
    elif kind in PICTURES:
        path.write_bytes(_lay_out(text, kind[1:]))
    else:
        raise ValueError(f"render: {path.name!r} must end in {', '.join(PICTURES)}, .dot or .gv")


def _lay_out(text: str, format: str) -> bytes:
    """By pygraphviz, or else by the program dot."""
    try:
        import pygraphviz
    except ImportError:
        program = shutil.which("dot")
        if program is None:
            raise ImportError(
                "render: a picture needs Graphviz: pip install 'tensorgrad[viz]' (pygraphviz), "
                "or the program dot; a file name ending in .dot needs neither"
            ) from None
        run = subprocess.run([program, f"-T{format}"], input=text.encode(), capture_output=True)
        if run.returncode:
            raise RuntimeError(f"render: dot failed: {run.stderr.decode().strip()}") from None
        return run.stdout
    picture: bytes = pygraphviz.AGraph(string=text).draw(format=format, prog="dot")
    return picture


# ---- from objects with parents to vertices and edges


def _ancestry(root: Any, parents: Callable[[Any], Iterable[Any]]) -> list[Any]:
    """The root and all it was made from, parents first, in an order that only the shape decides."""
    order: dict[int, Any] = {}
    stack = [(root, False)]
    while stack:
        one, ready = stack.pop()
        if ready:
            order.setdefault(id(one), one)
        elif id(one) not in order:
            stack.append((one, True))
            stack += [(parent, False) for parent in reversed(list(parents(one)))]
    return list(order.values())


def _graph(
    things: list[Any],
    parents: Callable[[Any], Iterable[Any]],
    result: Callable[[Any, str], Vertex],
    op: Callable[[Any, str], Vertex | None],
) -> Graph:
    """A vertex for each thing, one for the operation that made it, and the edges through it."""
    ids = {id(thing): f"v{i}" for i, thing in enumerate(things)}
    vertices, edges = [], []
    for thing in things:
        name = ids[id(thing)]
        vertices.append(result(thing, name))
        maker = op(thing, name + "op")
        if maker is not None:
            vertices.append(maker)
            edges += [(ids[id(parent)], maker.id) for parent in parents(thing)]
            edges.append((maker.id, name))
    return Graph(vertices, edges)


def _parents(node: Any) -> list[Any]:
    return [parent for parent in node.parents if parent is not None]


# ---- text


def _short(x: float) -> str:
    return f"{x + 0.0:.4f}" if x == 0 or 1e-4 <= abs(x) < 1e6 else f"{x:.4g}"


def _bytes(n: int) -> str:
    size, units = float(n), ["B", "KiB", "MiB", "GiB"]
    while size >= 1024 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f"{size:.4g} {units[0]}"


def _text(s: str) -> str:
    """s inside a quoted DOT string, where it means itself: no escapes, no entities, no controls."""
    s = s.encode("utf-8", "backslashreplace").decode()  # lone surrogates
    s = re.sub("[\0-\x09\x0b-\x1f\x7f-\x9f\ufffe\uffff]", lambda m: f"\\x{ord(m[0]):02x}", s)
    for plain, written in (("\\", r"\\"), ('"', r"\""), ("&", "&amp;"), ("\n", r"\n")):
        s = s.replace(plain, written)
    return s


def _field(s: str) -> str:
    """s as one field of a record: braces and bars would structure it, spare spaces be dropped."""
    return re.sub(r"[{}|<>]", r"\\\g<0>", re.sub(r"^ | $|(?<= ) ", "\N{NO-BREAK SPACE}", _text(s)))
