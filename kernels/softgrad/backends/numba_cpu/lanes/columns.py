"""Sixteen short rows, transposed on their way from memory to columns and back."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core.typing.templates import signature

from softgrad.backends.numba_cpu.compiling import inlined, intrinsic
from softgrad.backends.numba_cpu.lanes.formats import FORMATS
from softgrad.backends.numba_cpu.lanes.shuffles import columns_of, rows_of
from softgrad.backends.numba_cpu.lanes.vectors import F32, I32, I64, f32, first_lanes, llvm_call, pointer_to


def _name(of: str, stored: ir.Type, width: int) -> str:
    return f"llvm.masked.{of}.v{width}{'f32' if stored is F32 else 'i16'}.p0"


def _loader(width: int) -> Any:
    @intrinsic
    def load_columns(typing_context, address, step, n, target, fmt):
        chosen = FORMATS[fmt]
        memory = ir.VectorType(chosen.stored, width)

        def codegen(context, builder, sig, args):
            address, step, n, target, _ = args
            mask, padding = first_lanes(builder, n, width), ir.Constant(memory, None)
            rows = []
            for i in range(16):
                pointer = pointer_to(builder, builder.add(address, builder.mul(step, I64(i))), memory)
                row = llvm_call(
                    builder, _name("load", chosen.stored, width), memory, [pointer, I32(chosen.size), mask, padding]
                )
                rows.append(chosen.widen(builder, row))
            for i, column in enumerate(columns_of(builder, rows)):
                builder.store(column, pointer_to(builder, builder.add(target, I64(64 * i)), f32.llvm), align=4)
            return context.get_dummy_value()

        return signature(types.none, types.int64, types.int64, types.int64, types.int64, fmt), codegen

    return load_columns


def _storer(width: int) -> Any:
    @intrinsic
    def store_columns(typing_context, source, address, step, n, fmt):
        chosen = FORMATS[fmt]

        def codegen(context, builder, sig, args):
            source, address, step, n, _ = args
            mask = first_lanes(builder, n, width)
            columns = [
                builder.load(pointer_to(builder, builder.add(source, I64(64 * i)), f32.llvm), align=4)
                for i in range(width)
            ]
            for i, row in enumerate(rows_of(builder, columns)):
                value = chosen.narrow(builder, row)
                pointer = pointer_to(builder, builder.add(address, builder.mul(step, I64(i))), value.type)
                name = _name("store", chosen.stored, width)
                llvm_call(builder, name, ir.VoidType(), [value, pointer, I32(chosen.size), mask])
            return context.get_dummy_value()

        return signature(types.none, types.int64, types.int64, types.int64, types.int64, fmt), codegen

    return store_columns


_load_4, _load_8, _load_16 = map(_loader, (4, 8, 16))
_store_4, _store_8, _store_16 = map(_storer, (4, 8, 16))


@inlined
def load_columns(address, step, n, target, fmt):
    """The first n ≤ 16 numbers of sixteen rows, `step` bytes apart, as n columns (or some more) at target."""
    if n <= 4:
        _load_4(address, step, n, target, fmt)
    elif n <= 8:
        _load_8(address, step, n, target, fmt)
    else:
        _load_16(address, step, n, target, fmt)


@inlined
def store_columns(source, address, step, n, fmt):
    """n ≤ 16 columns as the first n numbers of sixteen rows."""
    if n <= 4:
        _store_4(source, address, step, n, fmt)
    elif n <= 8:
        _store_8(source, address, step, n, fmt)
    else:
        _store_16(source, address, step, n, fmt)
