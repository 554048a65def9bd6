"""Sixteen short rows, transposed on their way from memory to columns and back.

A function for each number of columns, none of them inlined: their shuffles take up to fifty constant vectors, all of
which the compiler would load before the loop around the functions and keep on the stack.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core.typing.templates import signature

from softgrad.backends.numba_cpu.compiling import helper, inlined, intrinsic
from softgrad.backends.numba_cpu.lanes.formats import FORMATS, size_of
from softgrad.backends.numba_cpu.lanes.shuffles import columns_of, picked, rows_of
from softgrad.backends.numba_cpu.lanes.vectors import F32, I32, I64, f32, first_lanes, llvm_call, pointer_to


def _name(of: str, stored: ir.Type, width: int) -> str:
    return f"llvm.masked.{of}.v{width}{'f32' if stored is F32 else 'i16'}.p0"


def _keep_apart(function: Any) -> None:
    function.attributes.discard("alwaysinline")  # as callers may be compiled
    function.attributes.add("noinline")


def _named(function: Any, name: str) -> Any:
    """A helper whose symbol has a name of its own: one process may load kernels that several have compiled and cached,
    and takes functions of the same name and types for the same.
    """
    function.__name__ = function.__qualname__ = name
    return helper(function)


def _after(builder: Any, address: Any, step: Any, i: int) -> Any:
    return builder.add(address, builder.mul(step, I64(i)))


def _store_all(builder: Any, columns: list[Any], target: Any) -> None:
    for i, column in enumerate(columns):
        builder.store(column, pointer_to(builder, _after(builder, target, I64(64), i), f32.llvm), align=4)


def _load_all(builder: Any, source: Any, count: int) -> list[Any]:
    return [
        builder.load(pointer_to(builder, _after(builder, source, I64(64), i), f32.llvm), align=4) for i in range(count)
    ]


def _loader(count: int) -> Any:
    """Of rows that may lie apart, `count` columns, a multiple of four: each row a vector, of which n are read."""
    width = 16 if count == 12 else count

    @intrinsic
    def load_columns(typing_context, address, step, n, target, fmt):
        chosen = FORMATS[fmt]
        memory = ir.VectorType(chosen.stored, width)

        def codegen(context, builder, sig, args):
            _keep_apart(builder.function)
            address, step, n, target, _ = args
            mask, padding = first_lanes(builder, n, width), ir.Constant(memory, None)
            rows = []
            for i in range(16):
                pointer = pointer_to(builder, _after(builder, address, step, i), memory)
                row = llvm_call(
                    builder, _name("load", chosen.stored, width), memory, [pointer, I32(chosen.size), mask, padding]
                )
                rows.append(chosen.widen(builder, row))
            _store_all(builder, columns_of(builder, rows, count), target)
            return context.get_dummy_value()

        return signature(types.none, types.int64, types.int64, types.int64, types.int64, fmt), codegen

    def apart(address, step, n, target, fmt):
        load_columns(address, step, n, target, fmt)

    return _named(apart, f"load_{count}")


def _storer(count: int) -> Any:
    @intrinsic
    def store_columns(typing_context, source, address, step, n, fmt):
        chosen = FORMATS[fmt]

        def codegen(context, builder, sig, args):
            _keep_apart(builder.function)
            source, address, step, n, _ = args
            rows = rows_of(builder, _load_all(builder, source, count))
            mask = first_lanes(builder, n, rows[0].type.count)
            for i, row in enumerate(rows):
                value = chosen.narrow(builder, row)
                pointer = pointer_to(builder, _after(builder, address, step, i), value.type)
                name = _name("store", chosen.stored, value.type.count)
                llvm_call(builder, name, ir.VoidType(), [value, pointer, I32(chosen.size), mask])
            return context.get_dummy_value()

        return signature(types.none, types.int64, types.int64, types.int64, types.int64, fmt), codegen

    def apart(source, address, step, n, fmt):
        store_columns(source, address, step, n, fmt)

    return _named(apart, f"store_{count}")


def _dense_loader(count: int) -> Any:
    """Of rows of `count` numbers one behind the other, which are so many vectors: each column is picked from these."""

    @intrinsic
    def load_columns(typing_context, address, target, fmt):
        chosen = FORMATS[fmt]
        memory = ir.VectorType(chosen.stored, 16)

        def codegen(context, builder, sig, args):
            _keep_apart(builder.function)
            address, target, _ = args
            parts = []
            for i in range(count):
                pointer = pointer_to(builder, _after(builder, address, I64(16 * chosen.size), i), memory)
                parts.append(chosen.widen(builder, builder.load(pointer, align=chosen.size)))
            columns = [picked(builder, parts, [count * i + c for i in range(16)]) for c in range(count)]
            _store_all(builder, columns, target)
            return context.get_dummy_value()

        return signature(types.none, types.int64, types.int64, fmt), codegen

    def apart(address, target, fmt):
        load_columns(address, target, fmt)

    return _named(apart, f"load_dense_{count}")


def _dense_storer(count: int) -> Any:
    @intrinsic
    def store_columns(typing_context, source, address, fmt):
        chosen = FORMATS[fmt]

        def codegen(context, builder, sig, args):
            _keep_apart(builder.function)
            source, address, _ = args
            columns = _load_all(builder, source, count)
            for i in range(count):
                flat = range(16 * i, 16 * i + 16)
                part = picked(builder, columns, [16 * (j % count) + j // count for j in flat])
                value = chosen.narrow(builder, part)
                pointer = pointer_to(builder, _after(builder, address, I64(16 * chosen.size), i), value.type)
                builder.store(value, pointer, align=chosen.size)
            return context.get_dummy_value()

        return signature(types.none, types.int64, types.int64, fmt), codegen

    def apart(source, address, fmt):
        store_columns(source, address, fmt)

    return _named(apart, f"store_dense_{count}")


_load_4, _load_8, _load_12, _load_16 = map(_loader, (4, 8, 12, 16))
_store_4, _store_8, _store_12, _store_16 = map(_storer, (4, 8, 12, 16))
_load_dense_2, _load_dense_3, _load_dense_4, _load_dense_5, _load_dense_6 = map(_dense_loader, range(2, 7))
_store_dense_2, _store_dense_3, _store_dense_4, _store_dense_5, _store_dense_6 = map(_dense_storer, range(2, 7))


@inlined
def load_columns(address, step, n, target, fmt):
    """The first n ≤ 16 numbers of sixteen rows, `step` bytes apart, as n columns (or some more) at target."""
    if 2 <= n <= 6 and step == n * size_of(fmt):
        if n == 2:
            _load_dense_2(address, target, fmt)
        elif n == 3:
            _load_dense_3(address, target, fmt)
        elif n == 4:
            _load_dense_4(address, target, fmt)
        elif n == 5:
            _load_dense_5(address, target, fmt)
        else:
            _load_dense_6(address, target, fmt)
    elif n <= 4:
        _load_4(address, step, n, target, fmt)
    elif n <= 8:
        _load_8(address, step, n, target, fmt)
    elif n <= 12:
        _load_12(address, step, n, target, fmt)
    else:
        _load_16(address, step, n, target, fmt)


@inlined
def store_columns(source, address, step, n, fmt):
    """n ≤ 16 columns as the first n numbers of sixteen rows."""
    if 2 <= n <= 6 and step == n * size_of(fmt):
        if n == 2:
            _store_dense_2(source, address, fmt)
        elif n == 3:
            _store_dense_3(source, address, fmt)
        elif n == 4:
            _store_dense_4(source, address, fmt)
        elif n == 5:
            _store_dense_5(source, address, fmt)
        else:
            _store_dense_6(source, address, fmt)
    elif n <= 4:
        _store_4(source, address, step, n, fmt)
    elif n <= 8:
        _store_8(source, address, step, n, fmt)
    elif n <= 12:
        _store_12(source, address, step, n, fmt)
    else:
        _store_16(source, address, step, n, fmt)
