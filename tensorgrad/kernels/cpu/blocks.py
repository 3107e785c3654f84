"""Rows of a matrix as vectors, and products of blocks: a register tile in LLVM's vectors and the loops around it.

Inside a kernel a BLAS call would cost more than such a small product, and would start threads of its own."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from tensorgrad.kernels.cpu.jit import helper

ROWS, WIDTH = 4, 16  # of a tile: eight 256-bit sums hide the latency of two multiply-adds a cycle


def _tile(rows: int) -> Any:
    @intrinsic  # type: ignore[untyped-decorator]
    def tile(typing: Any, c: Any, a: Any, b: Any, i: Any, j: Any, add: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            number = context.get_value_type(c.dtype)
            vector = ir.VectorType(number, WIDTH)
            align = context.get_abi_alignment(number)
            c_, a_, b_ = (
                context.make_array(kind)(context, builder, value)
                for kind, value in zip(signature.args[:3], args[:3], strict=True)
            )
            i_, j_, add_ = args[3:]

            def at(array: Any, row: Any, column: Any, kind: Any) -> Any:
                strides = cgutils.unpack_tuple(builder, array.strides)
                offset = builder.add(builder.mul(row, strides[0]), builder.mul(column, strides[1]))
                return cgutils.pointer_add(builder, array.data, offset, kind.as_pointer())

            lanes = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH)
            lines = [builder.add(i_, ir.Constant(i_.type, r)) for r in range(rows)]
            places = [at(c_, r, j_, vector) for r in lines]
            zero, sums = ir.Constant(vector, [0.0] * WIDTH), []
            for place in places:
                sums.append(cgutils.alloca_once(builder, vector))
                start = builder.select(add_, builder.load(place, align=align), zero)
                builder.store(start, sums[-1])
            depth = cgutils.unpack_tuple(builder, b_.shape)[0]
            with cgutils.for_range(builder, depth) as loop:
                right = builder.load(at(b_, loop.index, j_, vector), align=align)
                for r, total in zip(lines, sums, strict=True):
                    x = builder.load(at(a_, r, loop.index, number))
                    one = builder.insert_element(
                        ir.Constant(vector, ir.Undefined), x, ir.Constant(ir.IntType(32), 0)
                    )
                    x = builder.shuffle_vector(one, one, lanes)
                    term = builder.fmul(x, right, flags=["contract"])
                    builder.store(builder.fadd(builder.load(total), term, flags=["contract"]), total)
            for place, total in zip(places, sums, strict=True):
                builder.store(builder.load(total), place, align=align)
            return context.get_dummy_value()

        return types.void(c, a, b, types.intp, types.intp, types.boolean), generate

    return tile


@intrinsic  # type: ignore[untyped-decorator]
def row(typing: Any, x: Any, i: Any) -> Any:
    """x[i] of (M, N) whose rows have unit stride, typed as contiguous (loops over it vectorise) and not counted."""
    line = types.Array(x.dtype, 1, "C", readonly=not x.mutable)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        matrix = context.make_array(x)(context, builder, args[0])
        step, _ = cgutils.unpack_tuple(builder, matrix.strides)
        _, columns = cgutils.unpack_tuple(builder, matrix.shape)
        result = context.make_array(line)(context, builder)
        populate_array(
            result,
            data=cgutils.pointer_add(builder, matrix.data, builder.mul(args[1], step)),
            shape=[columns],
            strides=[matrix.itemsize],
            itemsize=matrix.itemsize,
            meminfo=None,
        )
        return result._getvalue()

    return line(x, types.intp), generate


_tall, _flat = _tile(ROWS), _tile(1)


@helper
def product(c, a, b, add):
    """c (M, N) = a (M, K) @ b (K, N), added to c if asked; b and c have unit stride along N, a multiple of WIDTH."""
    whole = c.shape[0] // ROWS * ROWS
    for j in range(0, c.shape[1], WIDTH):
        for i in range(0, whole, ROWS):
            _tall(c, a, b, i, j, add)
        for i in range(whole, c.shape[0]):
            _flat(c, a, b, i, j, add)
