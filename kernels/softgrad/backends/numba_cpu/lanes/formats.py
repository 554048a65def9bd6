"""Sixteen float32 of memory in one of three formats, named by the type of a number passed along.

np.float32(0): float32; np.int16(0): float16; np.uint16(0): bfloat16.  A kernel is compiled once for each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core.typing.templates import signature

from softgrad.backends.numba_cpu.compiling import intrinsic
from softgrad.backends.numba_cpu.lanes.sixteen_bit import round_bfloat, round_half, same, widen_bfloat, widen_half
from softgrad.backends.numba_cpu.lanes.vectors import F32, I16, I32, I64, f32, first_lanes, llvm_call, pointer_to


class _Format(NamedTuple):
    stored: ir.Type
    size: int
    widen: Callable[[Any, Any], Any]
    narrow: Callable[[Any, Any], Any]
    minus_infinity: Any

    def masked(self, access: str) -> str:
        """LLVM's name of a masked load or store of sixteen."""
        return f"llvm.masked.{access}.v16{'f' if self.stored is F32 else 'i'}{8 * self.size}.p0"


FORMATS = {
    types.float32: _Format(F32, 4, same, same, float("-inf")),
    types.int16: _Format(I16, 2, widen_half, round_half, 0xFC00),
    types.uint16: _Format(I16, 2, widen_bfloat, round_bfloat, 0xFF80),
}


@intrinsic
def size_of(typing_context, fmt):
    """Bytes of one number."""

    def codegen(context, builder, sig, args):
        return I64(FORMATS[fmt].size)

    return signature(types.int64, fmt), codegen


@intrinsic
def load(typing_context, address, fmt):
    """Sixteen numbers as float32."""
    chosen = FORMATS[fmt]

    def codegen(context, builder, sig, args):
        pointer = pointer_to(builder, args[0], ir.VectorType(chosen.stored, 16))
        return chosen.widen(builder, builder.load(pointer, align=chosen.size))

    return signature(f32, types.int64, fmt), codegen


@intrinsic
def read(typing_context, address, fmt):
    """One number as float32."""
    chosen = FORMATS[fmt]

    def codegen(context, builder, sig, args):
        value = builder.load(pointer_to(builder, args[0], ir.VectorType(chosen.stored, 1)), align=chosen.size)
        return builder.extract_element(chosen.widen(builder, value), I32(0))

    return signature(types.float32, types.int64, fmt), codegen


@intrinsic
def write(typing_context, address, x, fmt):
    """One float32, rounded once."""
    chosen = FORMATS[fmt]

    def codegen(context, builder, sig, args):
        one = builder.insert_element(ir.Constant(ir.VectorType(F32, 1), ir.Undefined), args[1], I32(0))
        value = chosen.narrow(builder, one)
        builder.store(value, pointer_to(builder, args[0], value.type), align=chosen.size)
        return context.get_dummy_value()

    return signature(types.none, types.int64, types.float32, fmt), codegen


@intrinsic
def load_first(typing_context, address, n, fmt):
    """The first n of sixteen numbers as float32, the others −inf, no byte beyond touched."""
    chosen = FORMATS[fmt]
    memory = ir.VectorType(chosen.stored, 16)

    def codegen(context, builder, sig, args):
        name = chosen.masked("load")
        padding = ir.Constant(memory, [chosen.minus_infinity] * 16)
        pointer = pointer_to(builder, args[0], memory)
        value = llvm_call(
            builder, name, memory, [pointer, I32(chosen.size), first_lanes(builder, args[1], 16), padding]
        )
        return chosen.widen(builder, value)

    return signature(f32, types.int64, types.int64, fmt), codegen


@intrinsic
def load_last(typing_context, address, n, fmt):
    """All but the first n of sixteen numbers as float32, those 0, no byte before touched."""
    chosen = FORMATS[fmt]
    memory = ir.VectorType(chosen.stored, 16)

    def codegen(context, builder, sig, args):
        name = chosen.masked("load")
        mask = builder.not_(first_lanes(builder, args[1], 16))
        pointer = pointer_to(builder, args[0], memory)
        value = llvm_call(builder, name, memory, [pointer, I32(chosen.size), mask, ir.Constant(memory, None)])
        return chosen.widen(builder, value)

    return signature(f32, types.int64, types.int64, fmt), codegen


@intrinsic
def store(typing_context, address, v, fmt):
    """Sixteen float32, each rounded once."""
    chosen = FORMATS[fmt]

    def codegen(context, builder, sig, args):
        value = chosen.narrow(builder, args[1])
        builder.store(value, pointer_to(builder, args[0], value.type), align=chosen.size)
        return context.get_dummy_value()

    return signature(types.none, types.int64, f32, fmt), codegen


@intrinsic
def store_first(typing_context, address, v, n, fmt):
    """The first n of them."""
    chosen = FORMATS[fmt]

    def codegen(context, builder, sig, args):
        value = chosen.narrow(builder, args[1])
        name = chosen.masked("store")
        pointer = pointer_to(builder, args[0], value.type)
        llvm_call(builder, name, ir.VoidType(), [value, pointer, I32(chosen.size), first_lanes(builder, args[2], 16)])
        return context.get_dummy_value()

    return signature(types.none, types.int64, f32, types.int64, fmt), codegen


@intrinsic
def stream(typing_context, address, v, fmt):
    """The same past the caches, to an address that is a multiple of the sixteen's size.

    A result larger than the caches would otherwise be read from memory before it is written, half as much traffic
    again.
    """
    chosen = FORMATS[fmt]

    def codegen(context, builder, sig, args):
        value = chosen.narrow(builder, args[1])
        instruction = builder.store(value, pointer_to(builder, args[0], value.type), align=16 * chosen.size)
        instruction.set_metadata("nontemporal", builder.module.add_metadata([I32(1)]))
        return context.get_dummy_value()

    return signature(types.none, types.int64, f32, fmt), codegen
