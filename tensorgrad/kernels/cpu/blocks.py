"""Rows of a matrix as vectors, and products of blocks: a tile of sums in registers, and its loops.

A BLAS call inside a kernel costs more than so small a product, and starts threads of its own."""

from typing import Any

import numba.core.cgutils
import numba.np.arrayobj
from llvmlite import ir
from numba import types

from tensorgrad.kernels.cpu.jit import emitted, helper

cgutils: Any = numba.core.cgutils  # they carry no annotations
arrayobj: Any = numba.np.arrayobj

# Of a tile: eight sums of 256 bits hide the latency of two multiply-adds a cycle.
ROWS, WIDTH = 4, 16


@emitted
def row(typing: Any, x: Any, i: Any) -> Any:
    """x[i] of a matrix whose rows have unit stride, typed as contiguous, so that loops vectorise.

    Nothing is checked, and no reference is counted: x must outlive it."""
    line = types.Array(x.dtype, 1, "C", readonly=not x.mutable)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        matrix = context.make_array(x)(context, builder, args[0])
        step, _ = cgutils.unpack_tuple(builder, matrix.strides)
        _, columns = cgutils.unpack_tuple(builder, matrix.shape)
        result = context.make_array(line)(context, builder)
        arrayobj.populate_array(
            result,
            data=cgutils.pointer_add(builder, matrix.data, builder.mul(args[1], step)),
            shape=[columns],
            strides=[matrix.itemsize],
            itemsize=matrix.itemsize,
            meminfo=None,
        )
        return result._getvalue()

    return line(x, types.intp), generate


def _tile(rows: int) -> Any:
    @emitted
    def tile(typing: Any, c: Any, a: Any, b: Any, i: Any, j: Any, add: Any) -> Any:
        """c[i : i + rows, j : j + WIDTH] = a[i : i + rows] @ b[:, j : j + WIDTH], or +=."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            number = context.get_value_type(c.dtype)
            vector = ir.VectorType(number, WIDTH)
            first = ir.Constant(ir.IntType(32), 0)
            everywhere = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH)
            align = context.get_abi_alignment(number)
            target, left, right = (
                context.make_array(kind)(context, builder, value)
                for kind, value in zip((c, a, b), args[:3], strict=True)
            )
            top, column, added = args[3:]

            def at(x: Any, i: Any, j: Any, kind: Any) -> Any:
                steps = cgutils.unpack_tuple(builder, x.strides)
                offset = builder.add(builder.mul(i, steps[0]), builder.mul(j, steps[1]))
                return cgutils.pointer_add(builder, x.data, offset, kind.as_pointer())

            lines = [builder.add(top, ir.Constant(top.type, r)) for r in range(rows)]
            places = [at(target, line, column, vector) for line in lines]
            sums = [cgutils.alloca_once(builder, vector) for _ in lines]
            for total, place in zip(sums, places, strict=True):
                old = builder.load(place, align=align)
                start = builder.select(added, old, ir.Constant(vector, [0.0] * WIDTH))
                builder.store(start, total)
            with cgutils.for_range(builder, cgutils.unpack_tuple(builder, right.shape)[0]) as loop:
                y = builder.load(at(right, loop.index, column, vector), align=align)
                for total, line in zip(sums, lines, strict=True):
                    x = builder.load(at(left, line, loop.index, number))
                    x = builder.insert_element(ir.Constant(vector, ir.Undefined), x, first)
                    x = builder.shuffle_vector(x, x, everywhere)
                    x = builder.fmul(x, y, flags=["contract"])
                    x = builder.fadd(builder.load(total), x, flags=["contract"])
                    builder.store(x, total)
            for total, place in zip(sums, places, strict=True):
                builder.store(builder.load(total), place, align=align)
            return context.get_dummy_value()

        return types.void(c, a, b, types.intp, types.intp, types.boolean), generate

    return tile


_tall, _flat = _tile(ROWS), _tile(1)


@helper
def product(c: Any, a: Any, b: Any, add: bool) -> None:
    """c (M, N) = a (M, K) @ b (K, N), added to c if asked.

    N is a multiple of WIDTH, along which b and c have unit stride; a has any strides."""
    whole = c.shape[0] // ROWS * ROWS
    for j in range(0, c.shape[1], WIDTH):
        for i in range(0, whole, ROWS):
            _tall(c, a, b, i, j, add)
        for i in range(whole, c.shape[0]):
            _flat(c, a, b, i, j, add)
