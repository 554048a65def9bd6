"""Vectors and single numbers read from memory and written to it, each function for one format."""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import signature

from softgrad.backends.numba_cpu.compiling import intrinsic
from softgrad.backends.numba_cpu.lanes.sixteen_bit import round_bfloat, round_half, same, widen_bfloat, widen_half
from softgrad.backends.numba_cpu.lanes.vectors import (
    ALIGN,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    Vector,
    f32,
    f64,
    first_lanes,
    i32,
    i64,
    llvm_call,
    pointer_to,
    zeros,
)


def _loader(result: Vector, stored: ir.Type, convert: Callable[[Any, Any], Any]) -> tuple[Any, Any]:
    """`load(address)`, and `load_part(address, n)`: the first n elements, the others 0, no byte beyond touched."""
    memory = ir.VectorType(stored, result.count)
    align = ALIGN[stored]
    name = f"v{result.count}{'i' if isinstance(stored, ir.IntType) else 'f'}{align * 8}"

    @intrinsic
    def load(typing_context, address):
        def codegen(context, builder, sig, args):
            value = builder.load(pointer_to(builder, args[0], memory), align=align)
            return convert(builder, value)

        return signature(result, types.int64), codegen

    @intrinsic
    def load_part(typing_context, address, n):
        def codegen(context, builder, sig, args):
            value = llvm_call(
                builder,
                f"llvm.masked.load.{name}.p0",
                memory,
                [
                    pointer_to(builder, args[0], memory),
                    I32(align),
                    first_lanes(builder, args[1], result.count),
                    zeros(memory),
                ],
            )
            return convert(builder, value)

        return signature(result, types.int64, types.int64), codegen

    return load, load_part


def _storer(source: Vector, stored: ir.Type, convert: Callable[[Any, Any], Any]) -> tuple[Any, Any, Any]:
    """`store(address, v)`, `store_part(address, v, n)`, and `stream(address, v)`.

    `stream`, to addresses that are multiples of the vector's size, writes past the caches: a result larger than they
    are would otherwise be read from memory before it is written, half as much traffic again.
    """
    memory = ir.VectorType(stored, source.count)
    align = ALIGN[stored]
    name = f"v{source.count}{'i' if isinstance(stored, ir.IntType) else 'f'}{align * 8}"

    @intrinsic
    def store(typing_context, address, v):
        def codegen(context, builder, sig, args):
            value = convert(builder, args[1])
            builder.store(value, pointer_to(builder, args[0], memory), align=align)
            return context.get_dummy_value()

        return signature(types.none, types.int64, source), codegen

    @intrinsic
    def store_part(typing_context, address, v, n):
        def codegen(context, builder, sig, args):
            value = convert(builder, args[1])
            mask = first_lanes(builder, args[2], source.count)
            llvm_call(
                builder,
                f"llvm.masked.store.{name}.p0",
                ir.VoidType(),
                [value, pointer_to(builder, args[0], memory), I32(align), mask],
            )
            return context.get_dummy_value()

        return signature(types.none, types.int64, source, types.int64), codegen

    @intrinsic
    def stream(typing_context, address, v):
        def codegen(context, builder, sig, args):
            value = convert(builder, args[1])
            instruction = builder.store(value, pointer_to(builder, args[0], memory), align=align * source.count)
            instruction.set_metadata("nontemporal", builder.module.add_metadata([I32(1)]))
            return context.get_dummy_value()

        return signature(types.none, types.int64, source), codegen

    return store, store_part, stream


def _widened(widen: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda builder, value: builder.fpext(widen(builder, value), f64.llvm)


def _narrowed(narrow: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda builder, value: narrow(builder, builder.fptrunc(value, ir.VectorType(F32, f64.count)))


load_f32, load_part_f32 = _loader(f32, F32, same)
store_f32, store_part_f32, stream_f32 = _storer(f32, F32, same)
load_f64, load_part_f64 = _loader(f64, F64, same)
store_f64, store_part_f64, stream_f64 = _storer(f64, F64, same)
load_i64, load_part_i64 = _loader(i64, I64, same)
store_i64, store_part_i64, _ = _storer(i64, I64, same)
load_i32, _ = _loader(i32, I32, same)
store_i32, _, _ = _storer(i32, I32, same)
load_i32_of_i64, load_part_i32_of_i64 = _loader(i32, I64, lambda builder, value: builder.trunc(value, i32.llvm))
# Eight float64 of narrower numbers; 16-bit ones are rounded from float32, as everywhere.
load_f64_of_f32, load_part_f64_of_f32 = _loader(f64, F32, _widened(same))
load_f64_of_half, load_part_f64_of_half = _loader(f64, I16, _widened(widen_half))
load_f64_of_bfloat, load_part_f64_of_bfloat = _loader(f64, I16, _widened(widen_bfloat))
store_f64_to_f32, store_part_f64_to_f32, _ = _storer(f64, F32, _narrowed(same))
store_f64_to_half, store_part_f64_to_half, _ = _storer(f64, I16, _narrowed(round_half))
store_f64_to_bfloat, store_part_f64_to_bfloat, _ = _storer(f64, I16, _narrowed(round_bfloat))


def _reader(result: Any, stored: ir.Type, convert: Callable[[Any, Any], Any]) -> Any:
    """`read(address)`: a vector of one, so that the conversions above serve."""

    @intrinsic
    def read(typing_context, address):
        def codegen(context, builder, sig, args):
            memory = ir.VectorType(stored, 1)
            value = builder.load(pointer_to(builder, args[0], memory), align=ALIGN[stored])
            return builder.extract_element(convert(builder, value), I32(0))

        return signature(result, types.int64), codegen

    return read


def _writer(source: Any, stored: ir.Type, convert: Callable[[Any, Any], Any]) -> Any:
    """`write(address, x)`."""

    @intrinsic
    def write(typing_context, address, x):
        def codegen(context, builder, sig, args):
            vector = ir.VectorType(args[1].type, 1)
            one = builder.insert_element(ir.Constant(vector, ir.Undefined), args[1], I32(0))
            value = convert(builder, one)
            builder.store(value, pointer_to(builder, args[0], value.type), align=ALIGN[stored])
            return context.get_dummy_value()

        return signature(types.none, types.int64, source), codegen

    return write


def _widened_one(widen: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda builder, value: builder.fpext(widen(builder, value), ir.VectorType(F64, 1))


def _narrowed_one(narrow: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda builder, value: narrow(builder, builder.fptrunc(value, ir.VectorType(F32, 1)))


read_f32, write_f32 = _reader(types.float32, F32, same), _writer(types.float32, F32, same)
read_f64, write_f64 = _reader(types.float64, F64, same), _writer(types.float64, F64, same)
read_i64, write_i64 = _reader(types.int64, I64, same), _writer(types.int64, I64, same)
read_f64_of_f32 = _reader(types.float64, F32, _widened_one(same))
read_f64_of_half = _reader(types.float64, I16, _widened_one(widen_half))
read_f64_of_bfloat = _reader(types.float64, I16, _widened_one(widen_bfloat))
write_f64_to_f32 = _writer(types.float64, F32, _narrowed_one(same))
write_f64_to_half = _writer(types.float64, I16, _narrowed_one(round_half))
write_f64_to_bfloat = _writer(types.float64, I16, _narrowed_one(round_bfloat))


@intrinsic
def take(typing_context, address):
    """The int64 at an address, and one added to it, as one indivisible step among threads.

    Who finds it changed finds what this thread has written before.
    """

    def codegen(context, builder, sig, args):
        return builder.atomic_rmw("add", pointer_to(builder, args[0], I64), I64(1), "acq_rel")

    return signature(types.int64, types.int64), codegen


@intrinsic
def peek(typing_context, address):
    """The int64 at an address, which another thread may change at any time."""

    def codegen(context, builder, sig, args):
        return builder.load_atomic(pointer_to(builder, args[0], I64), "acquire", 8)

    return signature(types.int64, types.int64), codegen


@intrinsic
def relax(typing_context):
    """Tell the processor that this thread waits in a loop; nothing on processors that are not told so."""

    def codegen(context, builder, sig, args):
        if platform.machine().lower() in ("x86_64", "amd64"):
            nothing = ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(builder.module, nothing, "llvm.x86.sse2.pause"), [])
        return context.get_dummy_value()

    return signature(types.none), codegen


@intrinsic
def prefetch(typing_context, address):
    """Ask for a cache line, which will be read soon; any address will do."""

    def codegen(context, builder, sig, args):
        pointer = pointer_to(builder, args[0], I8)
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [pointer.type, I32, I32, I32]),
            "llvm.prefetch.p0",
        )
        builder.call(function, [pointer, I32(0), I32(3), I32(1)])
        return context.get_dummy_value()

    return signature(types.none, types.int64), codegen
