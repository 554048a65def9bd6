"""Functions of each element, constants, and conversions between kinds."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core.typing.templates import signature

from softgrad.backends.numba_cpu.compiling import intrinsic
from softgrad.backends.numba_cpu.lanes.features import has
from softgrad.backends.numba_cpu.lanes.vectors import F32, I32, INTEGERS, Vector, f32, f64, i32, i64, llvm_call

_HAS_REGISTERS_OF_512_BITS = has("avx512f")


def _suffix(vector: Vector) -> str:
    return f"v{vector.count}{'f' if vector.kind == 'f' else 'i'}{vector.bits}"


@intrinsic
def fma(typing_context, a, b, c):
    """a · b + c, rounded once where the machine can do so at no cost (else twice: nothing here depends on it)."""
    vector = next(x for x in (a, b, c) if isinstance(x, Vector))

    def codegen(context, builder, sig, args):
        return llvm_call(builder, f"llvm.fmuladd.{_suffix(vector)}", vector.llvm, list(args))

    return signature(vector, vector, vector, vector), codegen


@intrinsic
def where(typing_context, mask, a, b):
    """a where the mask is set, else b."""
    vector = a if isinstance(a, Vector) else b

    def codegen(context, builder, sig, args):
        return builder.select(*args)

    return signature(vector, mask, vector, vector), codegen


@intrinsic
def larger(typing_context, a, b):
    """a where a > b, else b: the machine's own maximum; a NaN in a is passed over, one in b kept."""

    def codegen(context, builder, sig, args):
        return builder.select(builder.fcmp_ordered(">", *args), *args)

    return signature(b, b, b), codegen


@intrinsic
def together(typing_context, a, b, c, d):
    """The same four vectors, but what uses one of them comes after what makes any.

    Compilers would arrange four equal chains of operations one after the other, to spare registers.
    """

    def codegen(context, builder, sig, args):
        if not _HAS_REGISTERS_OF_512_BITS:
            return context.make_tuple(builder, sig.return_type, list(args))
        four = ir.LiteralStructType([f32.llvm] * 4)
        nothing = ir.InlineAsm(ir.FunctionType(four, [f32.llvm] * 4), "", "=v,=v,=v,=v,0,1,2,3", side_effect=False)
        results = builder.call(nothing, args)
        return context.make_tuple(builder, sig.return_type, [builder.extract_value(results, i) for i in range(4)])

    return signature(types.UniTuple(f32, 4), f32, f32, f32, f32), codegen


@intrinsic
def absolute(typing_context, a):
    """|a|."""

    def codegen(context, builder, sig, args):
        return llvm_call(builder, f"llvm.fabs.{_suffix(a)}", a.llvm, list(args))

    return signature(a, a), codegen


@intrinsic
def bits(typing_context, a):
    """The bits of floats as integers."""
    integers = INTEGERS[a.count]

    def codegen(context, builder, sig, args):
        return builder.bitcast(args[0], integers.llvm)

    return signature(integers, a), codegen


@intrinsic
def floats(typing_context, a):
    """Integers taken as the bits of floats."""
    vector = {16: f32, 8: f64}[a.count]

    def codegen(context, builder, sig, args):
        return builder.bitcast(args[0], vector.llvm)

    return signature(vector, a), codegen


def _splatter(vector: Vector) -> Any:
    @intrinsic
    def splat(typing_context, x):
        def codegen(context, builder, sig, args):
            return args[0]

        return signature(vector, vector), codegen

    return splat


f32s, f64s, i32s, i64s = map(_splatter, (f32, f64, i32, i64))


def _counter(vector: Vector) -> Any:
    @intrinsic
    def lane_numbers(typing_context):
        def codegen(context, builder, sig, args):
            return ir.Constant(vector.llvm, list(range(vector.count)))

        return signature(vector), codegen

    return lane_numbers


lane_numbers32, lane_numbers64 = _counter(i32), _counter(i64)


@intrinsic
def halves(typing_context, a):
    """Sixteen float32 as twice eight float64."""

    def codegen(context, builder, sig, args):
        parts = []
        for start in (0, 8):
            picks = ir.Constant(ir.VectorType(I32, 8), list(range(start, start + 8)))
            parts.append(builder.fpext(builder.shuffle_vector(args[0], args[0], picks), f64.llvm))
        return context.make_tuple(builder, sig.return_type, parts)

    return signature(types.UniTuple(f64, 2), f32), codegen


@intrinsic
def joined(typing_context, a, b):
    """Twice eight float64 as sixteen float32, each rounded."""

    def codegen(context, builder, sig, args):
        narrow = ir.VectorType(F32, 8)
        a, b = (builder.fptrunc(x, narrow) for x in args)
        return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, 16), list(range(16))))

    return signature(f32, f64, f64), codegen


@intrinsic
def to_integers(typing_context, a):
    """Small whole numbers as integers."""
    integers = INTEGERS[a.count]

    def codegen(context, builder, sig, args):
        return builder.fptosi(args[0], integers.llvm)

    return signature(integers, a), codegen


@intrinsic
def to_floats(typing_context, a):
    """Integers as floats."""
    vector = {16: f32, 8: f64}[a.count]

    def codegen(context, builder, sig, args):
        return builder.sitofp(args[0], vector.llvm)

    return signature(vector, a), codegen
