"""Sixteen short rows that lie one behind the other, as columns in registers: a tuple of vectors, one for each class.

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
from softgrad.backends.numba_cpu.lanes.shuffles import picked
from softgrad.backends.numba_cpu.lanes.vectors import I32, I64, f32, pointer_to


def _part(builder: Any, value: Any, first: int, count: int) -> Any:
    """So many elements from one on; beyond the last there may be anything."""
    picks = [i % value.type.count for i in range(first, first + count)]
    return builder.shuffle_vector(value, value, ir.Constant(ir.VectorType(I32, count), picks))


def _places(classes: int, width: int) -> list[list[tuple[int, int]]]:
    """What each place of registers of `width` numbers holds, in which columns lie in sequence: (row, class)."""
    return [
        [(i % 16, min(i // 16, classes - 1)) for i in range(start, start + width)]
        for start in range(0, 16 * classes, width)
    ]


@intrinsic
def load_dense(typing_context, address, like):
    """The numbers of sixteen rows, as columns."""
    chosen, classes = FORMATS[like.dtype], like.count
    result = types.UniTuple(f32, classes)
    width = 64 // chosen.size

    def codegen(context, builder, sig, args):
        parts = []
        for start in range(0, 16 * classes, width):
            n = min(width, 16 * classes - start)
            at = builder.add(args[0], I64(chosen.size * start))
            part = builder.load(pointer_to(builder, at, ir.VectorType(chosen.stored, n)), align=chosen.size)
            parts.append(part if n == width else _part(builder, part, 0, width))
        columns = []
        for places in _places(classes, width):
            found = picked(builder, parts, [classes * row + c for row, c in places])
            columns += [found] if width == 16 else [_part(builder, found, first, 16) for first in (0, 16)]
        columns = [chosen.widen(builder, column) for column in columns[:classes]]
        return context.make_tuple(builder, result, columns)

    return signature(result, types.int64, like), codegen


@intrinsic
def store_dense(typing_context, columns, address, like):
    """The reverse; each number rounded once."""
    chosen, classes = FORMATS[like.dtype], like.count
    width = 64 // chosen.size

    def codegen(context, builder, sig, args):
        narrow = [chosen.narrow(builder, builder.extract_value(args[0], c)) for c in range(classes)]
        sources = narrow if width == 16 else [_joined(builder, narrow[c : c + 2]) for c in range(0, classes, 2)]
        for start in range(0, 16 * classes, width):
            n = min(width, 16 * classes - start)
            flat = [min(i, 16 * classes - 1) for i in range(start, start + width)]
            part = picked(builder, sources, [16 * (i % classes) + i // classes for i in flat])
            part = part if n == width else _part(builder, part, 0, n)
            at = builder.add(args[1], I64(chosen.size * start))
            builder.store(part, pointer_to(builder, at, part.type), align=chosen.size)
        return context.get_dummy_value()

    return signature(types.none, columns, types.int64, like), codegen


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
