"""Module: a forward, and parameters, buffers and other Modules as attributes.

They stay ordinary attributes, so reading one costs nothing; `_registered` has the kind of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

from tensorgrad.backend import device as Device
from tensorgrad.backend import move
from tensorgrad.dtypes import as_dtype, is_differentiable
from tensorgrad.nn import hooks
from tensorgrad.nn.parameter import Buffer, Parameter
from tensorgrad.nn.state import IncompatibleKeys, load
from tensorgrad.tensor import Hook, Tensor

PARAMETER, BUFFER, TRANSIENT, MODULE = "parameter", "buffer", "transient buffer", "module"


class Module:
    """A part of a model: parameters, buffers and other modules as attributes, and `forward`.

    class MLP(Module):
        def __init__(self, C):
            super().__init__()
            self.c_fc, self.c_proj = Linear(C, 4 * C), Linear(4 * C, C)

        def forward(self, x):                                    # (B, T, C) -> (B, T, C)
            return self.c_proj(F.gelu(self.c_fc(x)))
    """

    training: bool
    _registered: dict[str, str]
    _hooks: dict[int, hooks.Hooked]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        # here and not in __init__, so that a subclass may forget super().__init__()
        self = super().__new__(cls)
        self.__dict__.update(training=True, _registered={}, _hooks={})
        return self

    def __init__(self) -> None:
        pass

    # ---- calling

    def _no_forward(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            f"{type(self).__name__} cannot be called: it has no forward; define forward(self, ...)"
        )

    forward: Callable[..., Any] = _no_forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._hooks:
            return hooks.call(self, args, kwargs)
        return self.forward(*args, **kwargs)

    # ---- attributes

    def __setattr__(self, name: str, value: Any) -> None:
        kind = _kind_of(value)
        was = self._registered.get(name)
        wrong = was is not None and kind is None and value is not None
        if wrong and not (was in (BUFFER, TRANSIENT) and isinstance(value, Tensor)):
            raise _misfit(value, str(was), name)
        object.__setattr__(self, name, value)
        if kind is not None and name in self.__dict__:
            self._registered[name] = kind

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        self._registered.pop(name, None)

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if not name[:1].isdigit()]

    def _register(self, kind: str, name: str, value: Any) -> None:
        if not isinstance(name, str):
            raise TypeError(f"{kind} name should be a string, not {type(name).__name__}")
        if "." in name or not name:
            raise KeyError(f"{kind} name must not be empty or contain a dot, this is {name!r}")
        if hasattr(self, name) and self._registered.get(name, "") not in (kind, _TWIN.get(kind)):
            raise KeyError(f"attribute '{name}' already exists in {type(self).__name__}")
        object.__setattr__(self, name, value)
        self._registered[name] = kind

    def register_parameter(self, name: str, param: Tensor | None) -> None:
        """Add a parameter by name; None holds its place."""
        if param is not None and not isinstance(param, Parameter):
            raise _misfit(param, PARAMETER, name)
        self._register(PARAMETER, name, param)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add state that is no parameter; it is saved in state_dict if persistent."""
        if tensor is not None and not isinstance(tensor, Tensor):
            raise _misfit(tensor, BUFFER, name)
        self._register(BUFFER if persistent else TRANSIENT, name, tensor)

    def register_module(self, name: str, module: Module | None) -> None:
        """Add a module by name; None holds its place."""
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"{type(module).__name__} is not a Module")
        self._register(MODULE, name, module)

    add_module = register_module

    # ---- walking

    def _own(self, *kinds: str) -> Iterator[tuple[str, Any]]:
        """Names and values of what is registered here under these kinds, None left out."""
        for name, kind in list(self._registered.items()):
            if kind in kinds and self.__dict__.get(name) is not None:
                yield name, self.__dict__[name]

    def _named(
        self, prefix: str, recurse: bool, remove_duplicate: bool, *kinds: str
    ) -> Iterator[tuple[str, Tensor]]:
        seen: set[Tensor] = set()
        inside = self.named_modules(None, prefix, remove_duplicate) if recurse else [(prefix, self)]
        for path, module in inside:
            for name, tensor in module._own(*kinds):
                if tensor not in seen:
                    if remove_duplicate:
                        seen.add(tensor)
                    yield _join(path, name), tensor

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """("h.0.attn.weight", parameter), ...; a tied parameter once, under its first name."""
        return self._named(prefix, recurse, remove_duplicate, PARAMETER)

    def parameters(self, recurse: bool = True) -> Iterator[Tensor]:
        """The parameters of this module and of all inside, each once."""
        for _, parameter in self.named_parameters("", recurse):
            yield parameter

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """("bn.running_mean", buffer), ..."""
        return self._named(prefix, recurse, remove_duplicate, BUFFER, TRANSIENT)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """The buffers of this module and of all inside, each once."""
        for _, buffer in self.named_buffers("", recurse):
            yield buffer

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """("", self), ("h", ...), ("h.0", ...), ...: this module and all inside, each once."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, child in self._own(MODULE):
            yield from child.named_modules(memo, _join(prefix, name), remove_duplicate)

    def modules(self, remove_duplicate: bool = True) -> Iterator[Module]:
        """This module and all inside, each once, or as often as they are registered."""
        for _, module in self.named_modules(remove_duplicate=remove_duplicate):
            yield module

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Names and modules one level down, each module once."""
        seen: set[Module] = set()
        for name, child in self._own(MODULE):
            if child not in seen:
                seen.add(child)
                yield name, child

    def children(self) -> Iterator[Module]:
        """The modules one level down, each once."""
        for _, child in self.named_children():
            yield child

    def get_submodule(self, target: str) -> Module:
        """The module at a path such as "h.0.attn"; AttributeError if there is none."""
        module = self
        for name in target.split(".") if target else ():
            module = module._get(name, target, MODULE)
        return module

    def get_parameter(self, target: str) -> Tensor:
        """The parameter at a path such as "h.0.ln_1.weight"; AttributeError if there is none."""
        path, _, name = target.rpartition(".")
        parameter: Tensor = self.get_submodule(path)._get(name, target, PARAMETER)
        return parameter

    def get_buffer(self, target: str) -> Tensor:
        """The buffer at a path; AttributeError if there is none."""
        path, _, name = target.rpartition(".")
        buffer: Tensor = self.get_submodule(path)._get(name, target, BUFFER, TRANSIENT)
        return buffer

    def _get(self, name: str, target: str, *kinds: str) -> Any:
        own = dict(self._own(*kinds))
        if name not in own:
            raise AttributeError(
                f"{type(self).__name__} has no {kinds[0]} '{name}' (looked for '{target}'); "
                f"it has {', '.join(own) or 'none'}"
            )
        return own[name]

    # ---- changing all

    def apply(self, fn: Callable[[Module], Any]) -> Self:
        """fn(module) for every module inside, the innermost first, and for this one."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def train(self, mode: bool = True) -> Self:
        """Training mode (dropout draws) or, with False, evaluation mode, here and inside."""
        if not isinstance(mode, bool):
            raise ValueError(f"train: mode is True or False, not {mode!r}")
        self.training = mode
        for child in self.children():
            child.train(mode)
        return self

    def eval(self) -> Self:
        """Evaluation mode: train(False)."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Ask for gradients of all parameters, or freeze them."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or fill them with zeros."""
        for parameter in self.parameters():
            grad = parameter.grad
            parameter.grad = None if set_to_none or grad is None else grad.detach().zero_()

    def _apply(self, fn: Callable[[Any], Any]) -> Self:
        """fn(array) in the place of the array of every parameter, gradient and buffer."""
        for _, tensor in self._named("", True, True, PARAMETER, BUFFER, TRANSIENT):
            tensor.data = Tensor(fn(tensor.array))
            if tensor.grad is not None:
                tensor.grad = Tensor(fn(tensor.grad.array))
        return self

    def to(
        self, *args: Any, dtype: Any = None, device: Any = None, non_blocking: bool = False
    ) -> Self:
        """to(device), to(dtype), to(device, dtype), to(tensor): in place; dtype is for floats only.

        The parameters stay the same Tensors, so that optimisers keep their hold of them; what an
        optimiser remembers stays where it was: move first.
        """
        for arg in args:
            if isinstance(arg, Tensor):
                dtype, device = arg.dtype, arg.device
            elif isinstance(arg, Device) or str(arg).partition(":")[0] in ("cpu", "cuda"):
                device = arg
            elif arg is not None and not isinstance(arg, bool):
                dtype = arg
        dtype = None if dtype is None else as_dtype(dtype)
        if dtype is not None and not is_differentiable(dtype):
            raise TypeError(f"Module.to: only floating-point dtypes are accepted, not {dtype}")

        def converted(array: Any) -> Any:
            if dtype is not None and is_differentiable(array.dtype):
                array = array.astype(dtype, copy=False)
            return array if device is None else move(array, device)

        return self._apply(converted)

    def type(self, dst_type: Any) -> Self:
        """Every parameter and buffer in this dtype."""
        return self._apply(lambda array: array.astype(as_dtype(dst_type), copy=False))

    def cpu(self) -> Self:
        """All to the CPU."""
        return self.to("cpu")

    def cuda(self, device: Any = None) -> Self:
        """All to the GPU; RuntimeError says why where there is none."""
        return self.to(
            Device("cuda", device) if device is None or isinstance(device, int) else Device(device)
        )

    def float(self) -> Self:
        """Floats to float32."""
        return self.to("float32")

    def double(self) -> Self:
        """Floats to float64."""
        return self.to("float64")

    def half(self) -> Self:
        """Floats to float16."""
        return self.to("float16")

    def bfloat16(self) -> Self:
        """Floats to bfloat16."""
        return self.to("bfloat16")

    # ---- states

    def state_dict(
        self,
        *,
        destination: dict[str, Tensor] | None = None,
        prefix: str = "",
        keep_vars: bool = False,
    ) -> dict[str, Tensor]:
        """All parameters and persistent buffers by name, on the same memory.

        Detached, or with keep_vars the Tensors themselves.
        """
        state: dict[str, Tensor] = {} if destination is None else destination
        for kind in (PARAMETER, BUFFER):
            for name, tensor in self._own(kind):
                state[prefix + name] = tensor if keep_vars else tensor.detach()
        for name, child in self._own(MODULE):
            child.state_dict(destination=state, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
        return state

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
        """Copy values in by name; Tensors, arrays and whatever NumPy can read are taken.

        strict: names must match exactly.  assign: the arrays given replace the module's own.
        RuntimeError tells all that does not fit; nothing has been changed then.
        """
        own = self.state_dict(keep_vars=True)
        return load(type(self).__name__, own, state_dict, strict, assign)

    # ---- hooks

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> Hook:
        """hook(module, args) before forward; what it returns, if not None, takes the place of args.

        with_kwargs: hook(module, args, kwargs), which returns None or (args, kwargs).
        """
        return hooks.register(self._hooks, hooks.Hooked(hooks.BEFORE, hook, with_kwargs), prepend)

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False,
        always_call: bool = False,
    ) -> Hook:  # fmt: skip
        """hook(module, args, output) after forward; what it returns, if not None, is the output.

        with_kwargs: hook(module, args, kwargs, output).  always_call: also when forward fails,
        with None for the output.
        """
        hooked = hooks.Hooked(hooks.AFTER, hook, with_kwargs, always_call)
        return hooks.register(self._hooks, hooked, prepend)

    def register_full_backward_pre_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> Hook:
        """hook(module, grad_output) when backward arrives; what it returns replaces grad_output."""
        return hooks.register(self._hooks, hooks.Hooked(hooks.BACKWARD_BEFORE, hook), prepend)

    def register_full_backward_hook(self, hook: Callable[..., Any], prepend: bool = False) -> Hook:
        """hook(module, grad_input, grad_output) when backward leaves.

        Tuples with an entry per positional argument, or output; None where there is no gradient.
        What it returns, if not None, replaces grad_input.
        """
        return hooks.register(self._hooks, hooks.Hooked(hooks.BACKWARD, hook), prepend)

    # ---- showing

    def extra_repr(self) -> str:
        """What stands in the brackets of repr, such as sizes."""
        return ""

    def _get_name(self) -> str:
        return type(self).__name__

    def __repr__(self) -> str:
        extra = self.extra_repr()
        children = [f"({name}): {child!r}" for name, child in self._own(MODULE)]
        if not children and "\n" not in extra:
            return f"{self._get_name()}({extra})"
        return block(self._get_name(), [extra, *children] if extra else children)


_TWIN = {BUFFER: TRANSIENT, TRANSIENT: BUFFER}
_WANTED = {
    PARAMETER: "nn.Parameter or None expected; wrap it in nn.Parameter, or assign to its .data",
    BUFFER: "Tensor or None expected",
    TRANSIENT: "Tensor or None expected",
    MODULE: "nn.Module or None expected",
}


def _misfit(value: Any, kind: str, name: str) -> TypeError:
    given = type(value).__name__
    return TypeError(f"cannot assign {given} as {kind} '{name}' ({_WANTED[kind]})")


def _kind_of(value: Any) -> str | None:
    if type(value) is Tensor:
        if isinstance(value, Parameter):
            return PARAMETER
        if isinstance(value, Buffer):
            return BUFFER if value.__dict__[Buffer.flag] else TRANSIENT
        return None
    return MODULE if isinstance(value, Module) else None


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def block(name: str, lines: list[str]) -> str:
    """name(lines), indented, as in repr."""
    if not lines:
        return f"{name}()"
    inside = "\n".join(lines).replace("\n", "\n  ")
    return f"{name}(\n  {inside}\n)"
