"""What is measured, written once over PyTorch's names, so that both sides run the same lines: ten
ops (and a gather beside them), makemore's MLP step, one GPT-2 block of plain tensor functions.
"""

import math
import operator
from collections.abc import Callable
from itertools import cycle, islice, repeat
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Block, Side

Arrays = dict[str, NDArray[np.float32]]


# -- small ops ------------------------------------------------------------------------------------


class Op(NamedTuple):
    """f(*operands, *extra)"""

    f: Callable[..., Any]
    operands: int
    extra: tuple[object, ...] = ()


def ops(lib: Any) -> dict[str, Op]:
    """The ten: operators as they are typed, functions as the library exports them."""
    return {
        "add": Op(operator.add, 2),
        "mul": Op(operator.mul, 2),
        "div": Op(operator.truediv, 2),
        "exp": Op(lib.exp, 1),
        "tanh": Op(lib.tanh, 1),
        "matmul": Op(operator.matmul, 2),
        "sum": Op(lib.sum, 1),
        "reshape": Op(lib.reshape, 1, ((1, -1),)),
        "index": Op(operator.getitem, 1, (0,)),
        "softmax": Op(lib.softmax, 1, (-1,)),
    }


def gather(lib: Any, n: int) -> Op:
    """x[i] with a tensor of integers, as in an embedding: reported beside the ten, not of them."""
    return Op(operator.getitem, 1, (lib.tensor(np.random.default_rng(2).integers(0, n, n)),))


SHAPES = {"1": (1,), "4x4": (4, 4), "64": (64,), "4096": (4096,)}
MATMUL_SHAPES = {"4x4": (4, 4), "64": (8, 8), "4096": (64, 64)}


class Case:
    """One op on operands of one shape: its values, and the three blocks that are timed."""

    def __init__(self, side: Side, op: Op, shape: tuple[int, ...]) -> None:
        lib, rng = side.lib, np.random.default_rng(1)

        def draw(shape: tuple[int, ...]) -> NDArray[np.float32]:
            return rng.uniform(0.5, 1.5, shape).astype(np.float32)

        arrays = [draw(shape) for _ in range(op.operands)]
        self.f, self.backward = op.f, side.backward
        self.plain = (*map(lib.tensor, arrays), *op.extra)
        self.leaves = [lib.tensor(a, requires_grad=True) for a in arrays]
        self.args = (*self.leaves, *op.extra)
        self.g = lib.tensor(draw(tuple(self.f(*self.plain).shape)))  # softmax sends ones to zero

    def values(self) -> list[NDArray[np.float32]]:
        """The result, and the gradient of each operand."""
        out = self.f(*self.args)
        self.backward(out, self.g)
        found = [out.detach().numpy(), *(leaf.grad.numpy() for leaf in self.leaves)]
        for leaf in self.leaves:
            leaf.grad = None
        return found

    def forward(self, n: int) -> None:
        """Operands that need no gradient."""
        f, args = self.f, self.plain
        for _ in repeat(None, n):
            f(*args)

    def recorded(self, n: int) -> None:
        """Operands that need one: the op is recorded, and forgotten with its result."""
        f, args = self.f, self.args
        for _ in repeat(None, n):
            f(*args)

    def both(self, n: int) -> None:
        """Forward, backward from a gradient made beforehand, and the leaves' gradients cleared."""
        f, args, g, backward = self.f, self.args, self.g, self.backward
        x, y = self.leaves[0], self.leaves[-1]
        for _ in repeat(None, n):
            backward(f(*args), g)
            x.grad = y.grad = None

    def blocks(self) -> dict[str, Block]:
        return {
            "forward": self.forward,
            "recorded": self.recorded,
            "forward + backward": self.both,
        }


# -- makemore -------------------------------------------------------------------------------------


class Makemore:
    """logits = tanh(C[X] W1 + b1) W2 + b2, cross-entropy, p -= lr dp: 32 contexts of 3 characters.

    Bengio et al. 2003, "A Neural Probabilistic Language Model", in the form makemore teaches.
    """

    def __init__(self, side: Side, lr: float = 0.1) -> None:
        lib, rng = side.lib, np.random.default_rng(5)

        def leaf(scale: float, *shape: int) -> Any:
            array = (scale * rng.standard_normal(shape)).astype(np.float32)
            return lib.tensor(array, requires_grad=True)

        self.tanh, self.cross_entropy, self.lr = lib.tanh, side.F.cross_entropy, lr
        self.C = leaf(1, 27, 10)
        self.W1, self.b1 = leaf(5 / 3 / math.sqrt(30), 30, 200), leaf(0.01, 200)
        self.W2, self.b2 = leaf(0.01, 200, 27), leaf(0, 27)
        self.parameters = [self.C, self.W1, self.b1, self.W2, self.b2]
        draws = [(rng.integers(0, 27, (32, 3)), rng.integers(0, 27, 32)) for _ in range(20)]
        self.batches = cycle([(lib.tensor(X), lib.tensor(Y)) for X, Y in draws])

    def step(self, X: Any, Y: Any) -> Any:
        emb = self.C[X]  # (32, 3) -> (32, 3, 10)
        h = self.tanh(emb.view(-1, 30) @ self.W1 + self.b1)  # (32, 30) -> (32, 200)
        logits = h @ self.W2 + self.b2  # (32, 200) -> (32, 27)
        loss = self.cross_entropy(logits, Y)
        for p in self.parameters:
            p.grad = None
        loss.backward()
        for p in self.parameters:
            p.data += -self.lr * p.grad
        return loss

    def block(self, n: int) -> None:
        for X, Y in islice(self.batches, n):
            self.step(X, Y)

    def losses(self, steps: int) -> list[float]:
        return [self.step(X, Y).item() for X, Y in islice(self.batches, steps)]


# -- a GPT-2 block --------------------------------------------------------------------------------


class BlockSize(NamedTuple):
    """Batch, positions, channels, heads."""

    B: int
    T: int
    C: int
    heads: int


def block_arrays(size: BlockSize) -> Arrays:
    """The weights of a block under GPT-2's names, its input x, and the gradient g of its output."""
    B, T, C, _ = size
    rng = np.random.default_rng(3)

    def draw(*shape: int, scale: float = 1.0) -> NDArray[np.float32]:
        return np.float32(scale) * rng.standard_normal(shape, dtype=np.float32)

    arrays = {"x": draw(B, T, C), "g": draw(B, T, C)}
    for name in ("ln_1", "ln_2"):
        arrays[f"{name}.weight"] = 1 + draw(C, scale=0.02)
        arrays[f"{name}.bias"] = draw(C, scale=0.02)
    for name, out, of in (
        ("attn.c_attn", 3 * C, C),
        ("attn.c_proj", C, C),
        ("mlp.c_fc", 4 * C, C),
        ("mlp.c_proj", C, 4 * C),
    ):
        arrays[f"{name}.weight"] = draw(out, of, scale=0.02)
        arrays[f"{name}.bias"] = draw(out, scale=0.02)
    return arrays


class GPT2Block:
    """x + attention(norm(x)), then x + mlp(norm(x)), causal, tanh GELU.  Radford et al. 2019."""

    def __init__(self, side: Side, size: BlockSize) -> None:
        self.F, self.heads = side.F, size.heads
        arrays = block_arrays(size)
        self.g = side.lib.tensor(arrays.pop("g"))
        self.leaves = {
            name: side.lib.tensor(array, requires_grad=True) for name, array in arrays.items()
        }

    def weights(self, name: str) -> tuple[Any, Any]:
        return self.leaves[f"{name}.weight"], self.leaves[f"{name}.bias"]

    def norm(self, name: str, x: Any) -> Any:
        return self.F.layer_norm(x, (x.shape[-1],), *self.weights(name))

    def linear(self, name: str, x: Any) -> Any:
        return self.F.linear(x, *self.weights(name))

    def attention(self, x: Any) -> Any:
        B, T, C = x.shape
        q, k, v = (
            a.view(B, T, self.heads, C // self.heads).transpose(1, 2)  # (B, T, C) -> (B, H, T, D)
            for a in self.linear("attn.c_attn", x).split(C, dim=-1)
        )
        y = self.F.scaled_dot_product_attention(q, k, v, is_causal=True)
        y = y.transpose(1, 2).reshape(B, T, C)  # (B, H, T, D) -> (B, T, C)
        return self.linear("attn.c_proj", y)

    def mlp(self, x: Any) -> Any:
        h = self.F.gelu(self.linear("mlp.c_fc", x), approximate="tanh")  # (B, T, C) -> (B, T, 4C)
        return self.linear("mlp.c_proj", h)

    def step(self) -> Any:
        """Forward and backward; the gradients of the weights and of x stay, as in training."""
        x = self.leaves["x"]
        x = x + self.attention(self.norm("ln_1", x))
        out = x + self.mlp(self.norm("ln_2", x))
        out.backward(self.g)
        return out

    def clear(self) -> None:
        for leaf in self.leaves.values():
            leaf.grad = None

    def values(self) -> Arrays:
        """The output and every gradient, by name."""
        self.clear()
        found = {"out": self.step().detach().numpy()}
        return found | {name: leaf.grad.numpy() for name, leaf in self.leaves.items()}
