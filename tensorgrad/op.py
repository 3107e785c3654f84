"""An Op is one entry of the table: an implementation per array type, a rule per input, a kind.

A rule is a formula that asks by name for what it needs: an input, a parameter, `out`, `x_shape`.
The signature is read once, when the op is defined; what no rule asks for is not kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from types import NoneType
from typing import Any

import numpy as np

from tensorgrad import memory, mode
from tensorgrad.backend import device_of, is_array, module_for
from tensorgrad.dtypes import bool_, category, get_default_dtype, is_differentiable, result_type
from tensorgrad.node import Node, tick
from tensorgrad.tensor import Tensor
from tensorgrad.tracer import innermost

Rule = Callable[..., Any]
Reader = Callable[[Any, Any, Any], Any]

table: dict[str, Op] = {}


class Op:
    """One operation.  Calling it is the readable form of what the flattened callers of flat.py do.

    source: the name of a ufunc, or a function (xp, inputs..., /, parameters...) of arrays.
    kind: "elementwise", "linear", "bilinear", "fused", "general" or "discrete"; gives forward mode.
    rules: dx, dy, ... one per differentiable input; or `joint`, which returns a part per input.
    outputs: names of what the source returns, the first `visible` the result, the rest residuals.
    many: the source returns a tuple of any length (split), and rules receive a list of gradients.
    floats: integers become floats first (exp), as in PyTorch.
    view: the result may share the input's memory.
    formula: the readable function a fused op stands for.
    reuse: the rule of a unary op, free to overwrite its g.
    """

    def __init__(
        self,
        name: str,
        source: str | Callable[..., Any],
        kind: str,
        rules: dict[str, Rule],
        *,
        joint: Rule | None = None,
        outputs: tuple[str, ...] = ("out",),
        visible: int = 1,
        floats: bool = False,
        variadic: bool = False,
        many: bool = False,
        view: bool = False,
        formula: Callable[..., Any] | None = None,
        reuse: Rule | None = None,
    ) -> None:
        self.name, self.source, self.kind = name, source, kind
        self.outputs, self.visible = outputs, visible
        self.floats, self.view, self.formula, self.reuse = floats, view, formula, reuse
        self.variadic, self.many = variadic, many
        self.inputs, self.params = _signature(source)
        self.joint = joint
        unknown = [rule for rule in rules if rule[0] != "d" or rule[1:] not in self.inputs]
        if unknown:
            raise TypeError(f"{name}: rule {unknown[0]} fits none of the inputs {self.inputs}")
        self.rules: tuple[Rule | None, ...] = tuple(rules.get("d" + x) for x in self.inputs)
        self.moves = tuple(joint is not None or rule is not None for rule in self.rules)
        """moves[i]: whether the output depends differentiably on input i"""
        self.plain = self.rules
        """plain: the rules of a backward pass that records nothing, kernels among them"""
        self.asks = tuple(_asks(rule) for rule in ((joint,) if joint else self.rules))
        self.readers = tuple(tuple(self._reader(ask) for ask in asks) for asks in self.asks)
        asked = {ask for asks in self.asks for ask in asks}
        self.keeps_arrays = not asked.isdisjoint(self.inputs + outputs)
        self.alike = kind == "bilinear"
        """alike: its operands must have one dtype, as in PyTorch's products; other ops promote"""
        self.bools = True
        """bools: whether bool operands make sense"""
        self.complexes = kind in ("linear", "bilinear")
        """complexes: whether complex operands make sense"""
        self.pure = True
        """pure: rules return new arrays or g; what a Function returns may be held elsewhere"""
        self.replays = not asked.isdisjoint(outputs[visible:])
        """replays: create_graph records the formula anew, since residuals carry no history"""
        if self.replays and formula is None:
            raise TypeError(f"{name}: rules that ask for residuals need a formula for higher order")
        self.element: Callable[..., Any] | None = None
        """element(x, ...): what to return in place of a NumPy scalar, for a view of one element"""
        self.impls: dict[type, Callable[..., Any]] = {}
        table[name] = self

    # ---- reading signatures

    def _reader(self, ask: str) -> Reader:
        """How to find what a rule asks for among (inputs, parameters, outputs)."""
        if ask in self.inputs:
            i = self.inputs.index(ask)
            return (lambda x, p, o: x) if self.variadic else (lambda x, p, o: x[i])
        if ask in self.params:
            i = self.params.index(ask)
            return lambda x, p, o: p[i]
        if ask in self.outputs:
            i = self.outputs.index(ask)
            return lambda x, p, o: o[i]
        if ask == "needs":
            return lambda x, p, o: None  # filled in by `record`, which knows the parents
        base, _, what = ask.rpartition("_")
        if base in self.inputs and what in _FACTS:
            i, get = self.inputs.index(base), _FACTS[what]
            if self.variadic:
                return lambda x, p, o: tuple(get(one) for one in x)
            return lambda x, p, o: get(x[i])
        raise TypeError(
            f"{self.name}: a rule asks for '{ask}', which is no input {self.inputs}, "
            f"parameter {self.params} or output {self.outputs}"
        )

    # ---- implementations

    def register(self, array_type: type, function: Callable[..., Any]) -> None:
        """Use `function(inputs..., parameters...)`, a faster twin, for arrays of this type."""
        self.impls[array_type] = function

    def implementation(self, array_type: type) -> Callable[..., Any]:
        """The function for arrays of this type, found once."""
        try:
            return self.impls[array_type]
        except KeyError:
            xp = module_for(array_type)
            if xp is None:
                raise TypeError(
                    f"{self.name}: expected Tensors or arrays, not {array_type.__name__}"
                ) from None
            source = self.source
            found = getattr(xp, source) if isinstance(source, str) else partial(source, xp)
            self.impls[array_type] = found
            return found

    def run(self, values: Any, params: tuple[Any, ...]) -> tuple[Any, ...]:
        """Arrays in, a tuple of arrays out; 0-d results are arrays, too."""
        like = next((type(v) for v in values if is_array(v)), np.ndarray)
        function = self.implementation(like)
        try:
            out = function(values, *params) if self.variadic else function(*values, *params)
        except (ValueError, TypeError, IndexError, OverflowError) as error:
            raise explain(self, values, params, error) from error
        outs = out if isinstance(out, (tuple, list)) else (out,)
        xp = module_for(like)
        if self.element is not None:
            return tuple(o if type(o) is like else self.element(*values, *params) for o in outs)
        return tuple(o if type(o) is like else xp.asarray(o) for o in outs)

    def takes(self, dtype: Any) -> bool:
        """Whether operands of this dtype, if bool or complex, make sense."""
        return (self.bools or dtype.kind != "b") and (self.complexes or dtype.kind != "c")

    # ---- calling

    def __call__(self, *args: Any) -> Any:
        """Tensors in, Tensors out; arrays in, arrays out; a tracer among the inputs takes over."""
        inputs, params = self.split(args)
        tracer = innermost(inputs)
        if tracer is not None:
            return tracer.process(self, inputs, params)
        if not any(type(x) is Tensor for x in inputs):
            return self.visible_part(self.run(self.raw(inputs), params))
        if mode.careful:
            inputs = tuple(memory.renew(x) if type(x) is Tensor else x for x in inputs)
            if mode.thread.autocast is not None:
                inputs = mode.thread.autocast.operands(self, inputs)
        ready = self.prepare(inputs)
        values = [x.array if type(x) is Tensor else x for x in ready]
        outs = self.run(values, params)
        nodes: Iterable[Node | None] = ()
        if mode.thread.grad:
            nodes = [
                x.node if m and type(x) is Tensor else None
                for x, m in zip(ready, self.spread(ready))
            ]
        results = self.record(values, params, outs, nodes, Tensor)
        if mode.careful:
            if self.view and memory.notes:
                for result in results:
                    if result.node is None:  # by now without history, whatever its memory has
                        result.__dict__["as_of"] = tick()
            for watch in mode.thread.watchers:
                watch(self, values, params, outs, results)
        return self.visible_part(results)

    def split(self, args: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Inputs and parameters of a call."""
        if self.variadic:
            return tuple(args[0]), args[1:]
        n = len(self.inputs)
        if len(args) != n + len(self.params):
            raise TypeError(
                f"{self.name}: takes {self.inputs + self.params}, {len(args)} arguments were given"
            )
        return args[:n], args[n:]

    def spread(self, inputs: Any) -> tuple[bool, ...]:
        """`moves`, one entry per input of this call."""
        return self.moves * len(inputs) if self.variadic else self.moves

    def visible_part(self, results: tuple[Any, ...]) -> Any:
        if self.many:
            return tuple(results)
        return results[0] if self.visible == 1 else tuple(results[: self.visible])

    def raw(self, inputs: Any) -> list[Any]:
        """Raw operands: lists of numbers are refused, NumPy scalars are 0-d arrays."""
        for x in inputs:
            if not is_array(x) and not isinstance(x, (int, float, complex, np.generic, NoneType)):
                raise TypeError(
                    f"{self.name}: expected Tensors, arrays or numbers, not {type(x).__name__}"
                )
        return [np.asarray(x) if isinstance(x, np.generic) else x for x in inputs]

    def prepare(self, inputs: Any) -> list[Any]:
        """Operands alike: arrays as Tensors, one device, PyTorch's promotion by recorded casts."""
        ready = [
            x.item() if isinstance(x, np.generic) else Tensor(x) if is_array(x) else x
            for x in inputs
        ]
        for x in ready:
            if type(x) is not Tensor and x is not None and not isinstance(x, (int, float, complex)):
                raise TypeError(
                    f"{self.name}: expected Tensors, arrays or numbers, not {type(x).__name__}"
                )
        _same_device(self, ready)
        joined = [
            i
            for i, m in enumerate(self.spread(inputs))
            if (m or self.kind == "discrete") and inputs[i] is not None
        ]
        if not joined:
            return ready
        dtypes = {ready[i].dtype if hasattr(ready[i], "dtype") else type(ready[i]) for i in joined}
        if self.alike and len(dtypes) > 1:
            raise RuntimeError(
                f"{self.name}: the operands' dtypes differ, {' and '.join(map(str, dtypes))}; "
                "convert one with x.to(dtype)"
            )
        if not self.bools and not dtypes.isdisjoint((bool_, bool)):
            raise RuntimeError(
                f"{self.name}: not for bools; use x.int() to count, ~ for a mask's opposite, "
                "^ for where two masks differ"
            )
        if not self.complexes and any(getattr(d, "kind", d) in ("c", complex) for d in dtypes):
            raise RuntimeError(
                f"{self.name}: not for complex numbers; take x.real, x.imag or abs(x) of them"
            )
        dtype = result_type(
            *(ready[i].array if type(ready[i]) is Tensor else ready[i] for i in joined)
        )
        if self.floats and category(dtype) < 2:
            dtype = get_default_dtype()
        for i in joined:
            x = ready[i]
            if type(x) is Tensor:
                if x.array.dtype != dtype:
                    ready[i] = table["cast"](x, dtype)
            elif dtype.kind == "V":  # Python numbers are not weak beside bfloat16
                ready[i] = Tensor(np.asarray(x, dtype))
        return ready

    def record(
        self,
        values: Any,
        params: Any,
        outs: tuple[Any, ...],
        nodes: Iterable[Node | None],
        wrap: Any,
    ) -> tuple[Any, ...]:
        """The outputs wrapped; with a node where an input has one and the output is a float."""
        parents = tuple(nodes)
        shown = outs if self.many else outs[: self.visible]
        if not any(p is not None for p in parents):
            return tuple(wrap(o, None) for o in shown)
        if any(o.dtype.kind == "c" for o in shown):
            raise RuntimeError(
                f"{self.name}: a complex result has no gradients; detach() what requires grad"
            )
        needs = tuple(p is not None for p in parents)
        kept = tuple(
            tuple(
                needs if ask == "needs" else read(values, params, outs)
                for ask, read in zip(asks, readers)
            )
            if self.joint is not None or parents[i] is not None
            else None
            for i, (asks, readers) in enumerate(zip(self.asks, self.readers))
        )
        if self.replays:
            kept += ((values, params),)
        if self.visible == 1 and not self.many:
            node = (
                Node(self, parents, kept, shown[0].shape)
                if is_differentiable(shown[0].dtype)
                else None
            )
            return (wrap(shown[0], node),)
        trunk = Node(self, parents, kept, tuple(o.shape for o in shown))
        return tuple(
            wrap(o, Node(PICK, (trunk,), i, o.shape) if is_differentiable(o.dtype) else None)
            for i, o in enumerate(shown)
        )

    def __repr__(self) -> str:
        rules = ", ".join(f"d{x}({', '.join(asks)})" for x, asks in zip(self.inputs, self.asks))
        return f"<{self.kind} op {self.name}({', '.join(self.inputs + self.params)}): {rules}>"


class _Pick:
    """The op of a node that stands for one output of a node with several; backward knows it."""

    name, joint, rules, view, kind, reuse = "pick", None, (), True, "linear", None


PICK = _Pick()


def explain(op: Op, values: Any, params: tuple[Any, ...], error: Exception) -> Exception:
    """The error of an implementation as a sentence, in the class that PyTorch raises."""
    shapes = (
        " and ".join(str(tuple(np.shape(v))) for v in values if hasattr(v, "shape")) or "numbers"
    )
    given = "".join(f", {p}={v!r}" for p, v in zip(op.params, params) if not hasattr(v, "shape"))
    if isinstance(error, (IndexError, np.exceptions.AxisError)):
        return IndexError(f"{op.name}: {shapes}{given}: {error}")
    if isinstance(error, TypeError):  # NumPy's word for dtypes that a ufunc does not know
        kind = (
            RuntimeError
            if all(hasattr(v, "dtype") or isinstance(v, (int, float)) for v in values)
            else TypeError
        )
        return kind(f"{op.name}: {shapes}{given}: {error}")
    if isinstance(error, (ValueError, OverflowError)):
        if op.kind in ("elementwise", "discrete") and "broadcast" in str(error):
            return RuntimeError(f"{op.name}: shapes {shapes} do not broadcast together")
        if op.kind == "bilinear" and values[0].ndim == values[1].ndim == 2:
            a, b = (np.shape(v) for v in values)
            return RuntimeError(f"matmul: {a} @ {b}: inner sizes {a[-1]} and {b[-2]} differ")
        return RuntimeError(f"{op.name}: {shapes}{given}: {error}")
    return error


def _same_device(op: Op, inputs: list[Any]) -> None:
    first = None
    for x in inputs:
        if type(x) is not Tensor:
            continue
        if x.array.ndim == 0 and x.node is None and op.kind == "elementwise":
            continue
        if first is None:
            first = x
        elif type(x.array) is not type(first.array):
            raise RuntimeError(
                f"{op.name}: operands are on {first.device} and {x.device}; "
                "move one with x.to(device)"
            )
    if first is not None and not isinstance(first.array, np.ndarray):
        for i, x in enumerate(inputs):  # a 0-d CPU tensor beside CUDA tensors counts as a number
            if type(x) is Tensor and isinstance(x.array, np.ndarray):
                inputs[i] = x.array.item()


_FACTS: dict[str, Callable[[Any], Any]] = {
    "shape": lambda value: getattr(value, "shape", ()),
    "dtype": lambda value: getattr(value, "dtype", None),
    "device": lambda value: device_of(value) if is_array(value) else value.device,
}
"""What a rule may ask of an input without keeping it: `x_shape`, `x_dtype`, `x_device`."""


def _signature(source: str | Callable[..., Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of a source's inputs (positional only, behind xp) and of its parameters."""
    if isinstance(source, str):
        return ("x", "y", "z")[: getattr(np, source).nin], ()
    code = source.__code__  # inspect.signature would take most of the time of `import tensorgrad`
    names = code.co_varnames[: code.co_argcount]
    return names[1 : code.co_posonlyargcount], names[code.co_posonlyargcount :]


def _asks(rule: Rule | None) -> tuple[str, ...]:
    """What a rule asks for: the names of its arguments behind g."""
    return () if rule is None else rule.__code__.co_varnames[1 : rule.__code__.co_argcount]
