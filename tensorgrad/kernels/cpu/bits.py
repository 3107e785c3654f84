"""bfloat16 as its bits: to float32 and back, in a form that LLVM vectorises.

A bfloat16 is the upper half of a float32; the lower is rounded away, ties to even."""

from typing import Any

from llvmlite import ir
from numba import types

from tensorgrad.kernels.cpu.jit import emitted

LONG, SHORT = ir.IntType(32), ir.IntType(16)


@emitted
def widen(typing: Any, bits: Any) -> Any:
    """The float32 of a bfloat16."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        upper = builder.shl(builder.zext(args[0], LONG), ir.Constant(LONG, 16))
        return builder.bitcast(upper, ir.FloatType())

    return types.float32(types.uint16), generate


@emitted
def narrow(typing: Any, x: Any) -> Any:
    """The bfloat16 nearest to a float32, the even one of two; NaN stays NaN."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def number(n: int) -> Any:
            return ir.Constant(LONG, n)

        x = builder.bitcast(args[0], LONG)
        upper = builder.lshr(x, number(16))
        odd = builder.and_(upper, number(1))
        rounded = builder.lshr(builder.add(x, builder.add(odd, number(0x7FFF))), number(16))
        quiet = builder.or_(upper, number(0x40))  # rounding might carry a NaN into infinity
        nan = builder.fcmp_unordered("uno", args[0], args[0])
        return builder.trunc(builder.select(nan, quiet, rounded), SHORT)

    return types.uint16(types.float32), generate


@emitted
def multiply(
    typing: Any, gemm: Any, m: Any, n: Any, k: Any, a: Any, lda: Any, turn_a: Any, b: Any,
    ldb: Any, turn_b: Any, c: Any, ldc: Any, add: Any,
) -> Any:  # fmt: skip
    """c (m, n) = a (m, k) b (k, n), added to c if asked: gemm, a, b and c are addresses.

    lda: elements from row to row of a, or where it is turned of its transpose."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        (gemm, m, n, k, a, lda, turn_a, b, ldb, turn_b, c, ldc, add) = args
        pointer = ir.IntType(8).as_pointer()
        kinds = [LONG] * 6 + [ir.FloatType(), pointer, LONG, pointer, LONG]
        kinds += [ir.FloatType(), pointer, LONG]
        function = ir.FunctionType(ir.VoidType(), kinds).as_pointer()

        def chosen(flag: Any, kind: Any, yes: float, no: float) -> Any:
            return builder.select(flag, ir.Constant(kind, yes), ir.Constant(kind, no))

        sizes = [builder.trunc(size, LONG) for size in (m, n, k)]
        builder.call(
            builder.inttoptr(gemm, function),
            [
                ir.Constant(LONG, 101),  # rows are contiguous
                chosen(turn_a, LONG, 112, 111), chosen(turn_b, LONG, 112, 111), *sizes,
                ir.Constant(ir.FloatType(), 1.0),
                builder.inttoptr(a, pointer), builder.trunc(lda, LONG),
                builder.inttoptr(b, pointer), builder.trunc(ldb, LONG),
                chosen(add, ir.FloatType(), 1.0, 0.0),
                builder.inttoptr(c, pointer), builder.trunc(ldc, LONG),
            ],
        )  # fmt: skip
        return context.get_dummy_value()

    whole, flag = types.int64, types.boolean
    return types.void(
        whole, whole, whole, whole, whole, whole, flag, whole, whole, flag, whole, whole, flag
    ), generate
