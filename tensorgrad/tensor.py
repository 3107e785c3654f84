"""A Tensor is an array, how it was made (`node`), and after backward its gradient (`grad`).

Operators and methods are put here by the files that define them: see `method`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from tensorgrad import memory, mode
from tensorgrad import node as nodes
from tensorgrad.backend import device_of
from tensorgrad.dtypes import DType, category, is_differentiable
from tensorgrad.node import Node

F = TypeVar("F", bound=Callable[..., Any])


class Operable:
    """What Tensors and tracers share: every operator and method of the table of ops."""

    __slots__ = ()
    __array_priority__ = 1000  # numpy_array * tensor is ours to answer
    __hash__ = object.__hash__

    if TYPE_CHECKING:  # methods arrive from the table at import

        def __getattr__(self, name: str) -> Any: ...
        def __add__(self, other: Any) -> Any: ...
        def __radd__(self, other: Any) -> Any: ...
        def __sub__(self, other: Any) -> Any: ...
        def __rsub__(self, other: Any) -> Any: ...
        def __mul__(self, other: Any) -> Any: ...
        def __rmul__(self, other: Any) -> Any: ...
        def __truediv__(self, other: Any) -> Any: ...
        def __rtruediv__(self, other: Any) -> Any: ...
        def __floordiv__(self, other: Any) -> Any: ...
        def __mod__(self, other: Any) -> Any: ...
        def __pow__(self, other: Any) -> Any: ...
        def __rpow__(self, other: Any) -> Any: ...
        def __matmul__(self, other: Any) -> Any: ...
        def __rmatmul__(self, other: Any) -> Any: ...
        def __neg__(self) -> Any: ...
        def __abs__(self) -> Any: ...
        def __invert__(self) -> Any: ...
        def __and__(self, other: Any) -> Any: ...
        def __or__(self, other: Any) -> Any: ...
        def __xor__(self, other: Any) -> Any: ...
        def __lshift__(self, other: Any) -> Any: ...
        def __rshift__(self, other: Any) -> Any: ...
        def __lt__(self, other: Any) -> Any: ...
        def __le__(self, other: Any) -> Any: ...
        def __gt__(self, other: Any) -> Any: ...
        def __ge__(self, other: Any) -> Any: ...
        def __getitem__(self, index: Any) -> Any: ...
        def __setitem__(self, index: Any, value: Any) -> None: ...

    @property
    def shape(self) -> tuple[int, ...]:
        raise AttributeError("shape")

    @property
    def dtype(self) -> DType:
        raise AttributeError("dtype")

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def dim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the size of one dimension."""
        if dim is None:
            return self.shape
        if not -self.ndim <= dim < self.ndim:
            raise IndexError(f"size: dim {dim} is out of range for a tensor of shape {self.shape}")
        return self.shape[dim]

    def numel(self) -> int:
        """The number of elements."""
        count = 1
        for n in self.shape:
            count *= n
        return count

    nelement = numel

    def element_size(self) -> int:
        """The bytes of one element."""
        return self.dtype.itemsize

    itemsize = property(element_size)

    @property
    def nbytes(self) -> int:
        """The bytes of all elements."""
        return self.numel() * self.dtype.itemsize

    def __pos__(self) -> Self:
        if category(self.dtype) == 0:
            raise RuntimeError("+x: not for bools; use x.int() to count them")
        return self

    def __reversed__(self) -> Any:
        """The layers in the opposite order, as a tensor: reversed(x) is x.flip(0)."""
        return self.flip(0) if self.shape else self

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a 0-d tensor")
        return self.shape[0]

    def is_floating_point(self) -> bool:
        return category(self.dtype) == 2

    def is_complex(self) -> bool:
        return category(self.dtype) == 3


def method(function: F, *names: str) -> F:
    """Make `function` a method of Tensors and tracers, under its own name or the given ones.

    A plain function is the cheapest method there is: `Tensor.__mul__` is `mul` itself.
    """
    for name in names or (function.__name__,):
        setattr(Operable, name, function)
    return function


class Tensor(Operable):
    """A multi-dimensional array that remembers how it was made.

    `Tensor(data)` wraps or converts (Python floats to float32); `tensorgrad.tensor(data)` copies.
    Attributes: `array` (always a np.ndarray or cupy.ndarray), `node`, `grad` (a Tensor or None).
    """

    __slots__ = ("__dict__", "__weakref__", "array", "grad", "node")

    array: Any
    node: Node | None
    grad: Tensor | None

    def __init__(self, data: Any = (), node: Node | None = None) -> None:
        if isinstance(data, Tensor):
            data = data.array
        self.array = data if isinstance(data, np.ndarray) or hasattr(data, "get") else _floats(data)
        self.node = node
        self.grad = None
        if mode.careful and mode.thread.inference:
            self.__dict__["inference"] = True

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape  # type: ignore[no-any-return]

    @property
    def dtype(self) -> DType:
        return self.array.dtype  # type: ignore[no-any-return]

    @property
    def ndim(self) -> int:
        return self.array.ndim  # type: ignore[no-any-return]

    @property
    def device(self) -> Any:
        return device_of(self.array)

    @property
    def is_cuda(self) -> bool:
        return bool(self.device.type == "cuda")

    # ---- being part of a graph

    def history(self) -> Node | None:
        """The node, up to date with what was written to this memory through other tensors."""
        if mode.careful:
            memory.renew(self)
        return self.node

    @property
    def requires_grad(self) -> bool:
        return self.history() is not None

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Ask for gradients (or no longer) of this leaf; returns the tensor itself."""
        if not requires_grad:
            if self.node is not None and not self.is_leaf:
                raise RuntimeError(
                    "requires_grad_(False): only leaves can change; use x.detach() for a tensor "
                    f"made by {self.node.name()}"
                )
            self.node = None
        elif self.history() is None:
            if not is_differentiable(self.dtype):
                raise RuntimeError(
                    "requires_grad_: only floating-point tensors have gradients, "
                    f"this one is {self.dtype}"
                )
            if self.is_inference() and not mode.thread.inference:
                raise RuntimeError(
                    "requires_grad_: this tensor was made under inference_mode; "
                    "clone() it outside first"
                )
            self.node = Node(None, (), weakref.ref(self), self.shape)
        return self

    @property
    def is_leaf(self) -> bool:
        node = self.history()
        return node is None or node.op is None

    @property
    def grad_fn(self) -> Node | None:
        """The node that made this tensor; None for leaves."""
        return None if self.is_leaf else self.node

    def is_inference(self) -> bool:
        """Whether it was made under inference_mode: it can never require grad outside."""
        return "inference" in self.__dict__

    def detach(self) -> Tensor:
        """The same memory without history.  Backward's checks see in-place changes through it."""
        twin = Tensor(self.array)
        twin.__dict__["detached"] = True
        return twin

    def detach_(self) -> Tensor:
        """Forget the history, in this tensor itself; not for views, which share their base's."""
        node = self.history()
        if node is not None and node.op is not None and node.op.view:
            raise RuntimeError("detach_: this is a view; use detach(), or detach its base")
        self.node = None
        self.__dict__["detached"] = True
        return self

    @property
    def data(self) -> Tensor:
        """The same memory, detached; changes through it escape backward's checks, as in PyTorch."""
        twin = Tensor(self.array)
        twin.__dict__.update(detached=True, unchecked=True)
        return twin

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, Tensor):
            raise TypeError(f"data: a Tensor can be assigned here, not {type(value).__name__}")
        self.array = value.array
        if self.node is not None and self.node.op is None:
            self.node.shape = value.shape

    def retain_grad(self) -> None:
        """Let this tensor, too, receive `.grad` in backward, though it is no leaf."""
        if self.history() is None:
            raise RuntimeError("retain_grad: this tensor does not require grad")
        if self.node is not None and self.node.op is not None:
            self.node.extras()["retain"] = weakref.ref(self)

    @property
    def retains_grad(self) -> bool:
        return (
            self.node is not None
            and self.node.op is not None
            and self.node.peek("retain") is not None
        )

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> Hook:
        """Call `hook(grad)` when the gradient is complete; what it returns takes its place."""
        node = self.history()
        if node is None:
            raise RuntimeError("register_hook: this tensor does not require grad")
        return Hook(node.extras().setdefault("hooks", {}), hook)

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], None]) -> Hook:
        """Call `hook(tensor)` when a backward pass has put this leaf's gradient into `.grad`."""
        node = self.history()
        if node is None or node.op is not None:
            raise RuntimeError(
                "register_post_accumulate_grad_hook: only for leaves that require grad"
            )
        nodes.awaited = True
        return Hook(node.extras().setdefault("after", {}), hook)

    # ---- the memory

    def stride(self, dim: int | None = None) -> Any:
        """How many elements apart neighbours along each dim lie in memory, or along one dim."""
        steps = tuple(s // self.array.itemsize for s in self.array.strides)
        if self.array.flags.c_contiguous:  # NumPy leaves open those of dims of size one and zero
            step, found = 1, []
            for n in reversed(self.shape):
                found.append(step)
                step *= n or 1
            steps = tuple(reversed(found))
        if dim is None:
            return steps
        self.size(dim)  # an IndexError where there is no such dim
        return steps[dim]

    def data_ptr(self) -> int:
        """The address of the first element."""
        array = self.array
        if not isinstance(array, np.ndarray):
            return int(array.data.ptr)
        return int(array.__array_interface__["data"][0]) if array.size else 0

    # ---- leaving the library

    def numpy(self) -> Any:
        """The np.ndarray itself, without a copy; only for CPU tensors that require no grad."""
        if self.node is not None and not mode.thread.inference:
            raise RuntimeError("numpy(): this tensor requires grad; use x.detach().numpy()")
        if not isinstance(self.array, np.ndarray):
            raise TypeError(f"numpy(): this tensor is on {self.device}; use x.cpu().numpy()")
        return self.array

    def item(self) -> Any:
        """The only element, as a Python number."""
        if self.array.size != 1:
            raise RuntimeError(
                f"item(): a tensor of shape {self.shape} has {self.array.size} elements, not one"
            )
        return self.array.item()

    def tolist(self) -> Any:
        """Nested Python lists of numbers; a number for a 0-d tensor."""
        return self.array.tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            return array.astype(dtype)
        return array.copy() if copy else array

    def __dlpack__(self, **kwargs: Any) -> Any:
        if self.node is not None:
            raise BufferError("DLPack: this tensor requires grad; use x.detach()")
        return self.array.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __complex__(self) -> complex:
        return complex(self.item())

    def __index__(self) -> int:
        if category(self.dtype) > 1:
            raise TypeError(
                f"only integer tensors of one element are indices, this one is {self.dtype}"
            )
        return int(self.item())

    def __bool__(self) -> bool:
        if self.array.size != 1:
            raise RuntimeError(
                f"bool(): a tensor of shape {self.shape} has no single truth value; "
                "use any() or all()"
            )
        return bool(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec and not self.shape else repr(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if not self.is_leaf:
            raise RuntimeError("deepcopy: only leaves can be copied; detach() this tensor first")
        twin = Tensor(self.array.copy())
        twin.__dict__.update(self.__dict__)
        memo[id(self)] = twin
        if self.node is not None:
            twin.requires_grad_()
        if self.grad is not None:
            twin.grad = Tensor(self.grad.array.copy())
        return twin

    def __repr__(self) -> str:
        from tensorgrad.show import show

        return show(self)


class Hook:
    """A registered hook; `remove()` takes it back, and so does the end of a with-block."""

    _next = 0

    def __init__(self, hooks: dict[int, Callable[..., Any]], hook: Callable[..., Any]) -> None:
        Hook._next += 1
        self.hooks, self.id = hooks, Hook._next
        hooks[self.id] = hook

    def remove(self) -> None:
        self.hooks.pop(self.id, None)

    def __enter__(self) -> Hook:
        return self

    def __exit__(self, *error: Any) -> None:
        self.remove()


def _floats(data: Any) -> Any:
    """Python data as an array: floats take the default dtype, as in PyTorch."""
    from tensorgrad.convert import as_array

    return as_array(data)
