"""Sixteen rows of up to sixteen classes, one behind the other, as columns in registers: a vector for each class.

`like`, a tuple of as many numbers as a row has classes, whose type names their format, tells the compiler how many
vectors there are.  So what follows has no loop, no call and no memory between a load and a store.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core.typing.templates import signature

from softgrad.backends.numba_cpu.compiling import intrinsic
from softgrad.backends.numba_cpu.lanes.formats import FORMATS
from softgrad.backends.numba_cpu.lanes.shuffles import columns_of, picked, rows_of
from softgrad.backends.numba_cpu.lanes.vectors import I32, I64, f32, pointer_to

PICKED = 6  # up to so many columns each is picked from all registers; of more, rows are transposed


@intrinsic
def load_dense(typing_context, address, like):
    """The numbers of sixteen rows, as columns."""
    chosen, classes = FORMATS[like.dtype], like.count
    result = types.UniTuple(f32, classes)
    find = _picked_columns if classes <= PICKED else _transposed_columns

    def codegen(context, builder, sig, args):
        return context.make_tuple(builder, result, find(builder, args[0], chosen, classes))

    return signature(result, types.int64, like), codegen


@intrinsic
def store_dense(typing_context, columns, address, like):
    """The reverse; each number rounded once."""
    chosen, classes = FORMATS[like.dtype], like.count
    write = _write_picked if classes <= PICKED else _write_transposed

    def codegen(context, builder, sig, args):
        write(builder, [builder.extract_value(args[0], c) for c in range(classes)], args[1], chosen)
        return context.get_dummy_value()

    return signature(types.none, columns, types.int64, like), codegen


def _picked_columns(builder: Any, address: Any, chosen: Any, classes: int) -> list[Any]:
    width = 64 // chosen.size
    parts = []
    for start in range(0, 16 * classes, width):
        n = min(width, 16 * classes - start)
        part = builder.load(_at(builder, address, start, chosen, n), align=chosen.size)
        parts.append(part if n == width else _part(builder, part, 0, width))
    columns = []
    for start in range(0, 16 * classes, width):  # a register may hold two columns of 16-bit numbers
        places = [(i % 16, min(i // 16, classes - 1)) for i in range(start, start + width)]
        found = picked(builder, parts, [classes * row + c for row, c in places])
        columns += [found] if width == 16 else [_part(builder, found, first, 16) for first in (0, 16)]
    return [chosen.widen(builder, column) for column in columns[:classes]]


def _write_picked(builder: Any, columns: list[Any], address: Any, chosen: Any) -> None:
    classes, width = len(columns), 64 // chosen.size
    narrow = [chosen.narrow(builder, column) for column in columns]
    sources = narrow if width == 16 else [_joined(builder, narrow[c : c + 2]) for c in range(0, classes, 2)]
    for start in range(0, 16 * classes, width):
        n = min(width, 16 * classes - start)
        flat = [min(i, 16 * classes - 1) for i in range(start, start + width)]
        part = picked(builder, sources, [16 * (i % classes) + i // classes for i in flat])
        part = part if n == width else _part(builder, part, 0, n)
        builder.store(part, _at(builder, address, start, chosen, n), align=chosen.size)


def _transposed_columns(builder: Any, address: Any, chosen: Any, classes: int) -> list[Any]:
    width = _width(classes)
    rows = []
    for i in range(16):
        start = classes * i
        n = min(width, 16 * classes - start)  # the next row's first numbers do no harm, those beyond the last might
        part = builder.load(_at(builder, address, start, chosen, n), align=chosen.size)
        rows.append(chosen.widen(builder, part if n == width else _part(builder, part, 0, width)))
    return columns_of(builder, rows, -(-classes // 4) * 4)[:classes]


def _write_transposed(builder: Any, columns: list[Any], address: Any, chosen: Any) -> None:
    classes = len(columns)
    rows = rows_of(builder, columns + columns[-1:] * (-classes % 4))
    for i in range(16):  # in this order: what a register holds beyond its row is overwritten by the next row
        start = classes * i
        value = chosen.narrow(builder, rows[i])
        n = min(value.type.count, 16 * classes - start)
        value = value if n == value.type.count else _part(builder, value, 0, n)
        builder.store(value, _at(builder, address, start, chosen, n), align=chosen.size)


def _width(count: int) -> int:
    return 4 if count <= 4 else 8 if count <= 8 else 16


def _at(builder: Any, address: Any, number: int, chosen: Any, count: int) -> Any:
    """A pointer to so many numbers from one on."""
    at = builder.add(address, I64(chosen.size * number))
    return pointer_to(builder, at, ir.VectorType(chosen.stored, count))


def _part(builder: Any, value: Any, first: int, count: int) -> Any:
    """So many elements from one on; beyond the last there may be anything."""
    picks = [i % value.type.count for i in range(first, first + count)]
    return builder.shuffle_vector(value, value, ir.Constant(ir.VectorType(I32, count), picks))


def _joined(builder: Any, pair: list[Any]) -> Any:
    return builder.shuffle_vector(pair[0], pair[-1], ir.Constant(ir.VectorType(I32, 32), list(range(32))))


def _called(context: Any, builder: Any, function: Any, inner: Any, args: list[Any]) -> Any:
    found = context.get_function(function, inner)
    context.add_linking_libs(getattr(found, "libs", ()))
    return found(builder, args)


@intrinsic
def each(typing_context, function, of, sets):
    """function(c, of, x, …) of every class c, x its vector in each of a tuple of sets of columns."""
    vectors = (f32,) * len(sets)
    inner = function.get_call_type(typing_context, (types.int64, of, *vectors), {})

    def codegen(context, builder, sig, args):
        found = [
            _called(context, builder, function, inner, [I64(c), args[1], *_of_class(builder, args[2], sets, c)])
            for c in range(sets[0].count)
        ]
        return context.make_tuple(builder, sets[0], found)

    return signature(sets[0], function, of, sets), codegen


@intrinsic
def fold(typing_context, function, state, of, sets):
    """state = function(c, state, of, x, …) for every class in turn; the last of them."""
    vectors = (f32,) * len(sets)
    inner = function.get_call_type(typing_context, (types.int64, state, of, *vectors), {})

    def codegen(context, builder, sig, args):
        found = args[1]
        for c in range(sets[0].count):
            inputs = [I64(c), found, args[2], *_of_class(builder, args[3], sets, c)]
            found = _called(context, builder, function, inner, inputs)
        return found

    return signature(state, function, state, of, sets), codegen


def _of_class(builder: Any, values: Any, sets: Any, c: int) -> list[Any]:
    return [builder.extract_value(values, (i, c)) for i in range(len(sets))]
