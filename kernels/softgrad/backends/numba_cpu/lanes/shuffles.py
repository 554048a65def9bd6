"""Single elements, sums and maxima across a vector and of sixteen vectors at once, a transposition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.typing.templates import signature

from softgrad.backends.numba_cpu.compiling import intrinsic
from softgrad.backends.numba_cpu.lanes.features import has
from softgrad.backends.numba_cpu.lanes.vectors import F32, F64, I1, I16, I32, I64, f32, f64, i32, llvm_call, pointer_to


@intrinsic
def lane(typing_context, a, i):
    """Element i."""
    scalar = {"f32": types.float32, "f64": types.float64, "i32": types.int32, "i64": types.int64}[a.name]

    def codegen(context, builder, sig, args):
        return builder.extract_element(args[0], args[1])

    return signature(scalar, a, types.int64), codegen


@intrinsic
def with_lane(typing_context, a, i, x):
    """A copy of vector a with element i replaced by x."""
    scalar = {"f32": types.float32, "f64": types.float64, "i32": types.int32, "i64": types.int64}[a.name]

    def codegen(context, builder, sig, args):
        return builder.insert_element(args[0], args[2], args[1])

    return signature(a, a, types.int64, scalar), codegen


@intrinsic
def anywhere(typing_context, mask):
    """Whether any element of a mask is set."""

    def codegen(context, builder, sig, args):
        word = builder.bitcast(args[0], ir.IntType(mask.count))
        return builder.icmp_unsigned("!=", word, ir.Constant(word.type, 0))

    return signature(types.boolean, mask), codegen


@intrinsic
def chosen(typing_context, a, which):
    """Element which[i] of sixteen, for each lane i: two of x86's shuffles or fewer, one by one elsewhere."""

    def codegen(context, builder, sig, args):
        value, picks = args
        if has("avx512f"):
            return llvm_call(builder, "llvm.x86.avx512.permvar.sf.512", f32.llvm, [value, picks])
        if has("avx2"):
            return _chosen_of_halves(builder, value, picks)
        found = value
        for i in range(16):
            one = builder.extract_element(value, builder.extract_element(picks, I32(i)))
            found = builder.insert_element(found, one, I32(i))
        return found

    return signature(f32, f32, i32), codegen


def _chosen_of_halves(builder: Any, value: Any, picks: Any) -> Any:
    def half(x, start):
        return builder.shuffle_vector(x, x, ir.Constant(ir.VectorType(I32, 8), list(range(start, start + 8))))

    low, high, parts = half(value, 0), half(value, 8), []
    for part in (half(picks, 0), half(picks, 8)):
        first, second = (llvm_call(builder, "llvm.x86.avx2.permps", low.type, [source, part]) for source in (low, high))
        is_second = builder.icmp_signed(">", part, ir.Constant(part.type, [7] * 8))
        parts.append(builder.select(is_second, second, first))
    return _joined(builder, *parts)


def _halving(emit: Callable[[Any, Any, Any], Any]) -> Any:
    @intrinsic
    def across(typing_context, a):
        scalar = {"f32": types.float32, "f64": types.float64, "i32": types.int32, "i64": types.int64}[a.name]

        def codegen(context, builder, sig, args):
            value, n = args[0], a.count
            while n > 1:
                n //= 2
                low, high = (
                    builder.shuffle_vector(
                        value, value, ir.Constant(ir.VectorType(I32, n), list(range(start, start + n)))
                    )
                    for start in (0, n)
                )
                value = emit(builder, low, high)
            return builder.extract_element(value, I32(0))

        return signature(scalar, a), codegen

    return across


def _add(builder: Any, a: Any, b: Any) -> Any:
    return builder.fadd(a, b) if a.type.element in (F32, F64) else builder.add(a, b)


def _max(builder: Any, a: Any, b: Any) -> Any:
    if a.type.element in (F32, F64):
        return builder.select(builder.fcmp_ordered(">", a, b), a, b)
    return builder.select(builder.icmp_signed(">", a, b), a, b)


# The second half onto the first, until one is left.
sum_across, max_across = _halving(_add), _halving(_max)


def _sixteen(builder: Any, address: Any) -> list[Any]:
    return [builder.load(pointer_to(builder, builder.add(address, I64(64 * i)), f32.llvm), align=4) for i in range(16)]


def _folded(builder: Any, emit: Callable[[Any, Any, Any], Any], a: Any, b: Any, low: tuple[int, ...], step: int) -> Any:
    """emit(one half of a and b, the other half): `low` picks the one from a then b, the other lies `step` further."""

    def mix(*picks):
        return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(picks)), list(picks)))

    return emit(builder, mix(*low), mix(*(i + step for i in low)))


def _quarters(builder: Any, emit: Callable[[Any, Any, Any], Any], rows: list[Any]) -> list[Any]:
    """Of sixteen vectors, four: the i-th holds four partial results each of rows i, i + 4, i + 8, i + 12."""
    halves = (*range(8), *range(16, 24))
    rows = [_folded(builder, emit, rows[i], rows[i + 4], halves, 8) for i in (0, 1, 2, 3, 8, 9, 10, 11)]
    quarters = tuple(8 * q + i for q in range(4) for i in range(4))
    return [_folded(builder, emit, rows[i], rows[i + 4], quarters, 4) for i in range(4)]


@intrinsic
def max_of_each(typing_context, address):
    """The largest element of each of sixteen vectors in memory: a third of the shuffles of a transposition."""

    def codegen(context, builder, sig, args):
        rows = _quarters(builder, _max, _sixteen(builder, args[0]))
        pairs = tuple(q + i for q in range(0, 16, 4) for i in (0, 1, 16, 17))
        rows = [_folded(builder, _max, rows[i], rows[i + 1], pairs, 2) for i in (0, 2)]
        return _folded(builder, _max, *rows, tuple(q + i for q in range(0, 16, 4) for i in (0, 2, 16, 18)), 1)

    return signature(f32, types.int64), codegen


@intrinsic
def sum_of_each(typing_context, address):
    """The sums of sixteen vectors in memory, float64, of the first eight and of the others.

    Of a vector's elements four are added in float32, (x₀ + x₈) + (x₄ + x₁₂) and so on, and the four sums in float64.
    """

    def codegen(context, builder, sig, args):
        rows = _quarters(builder, _add, _sixteen(builder, args[0]))
        sums = []
        for start in (0, 8):
            picks = ir.Constant(ir.VectorType(I32, 8), list(range(start, start + 8)))
            wide = [builder.fpext(builder.shuffle_vector(row, row, picks), f64.llvm) for row in rows]
            wide = [_folded(builder, _add, wide[i], wide[i + 1], (0, 8, 2, 10, 4, 12, 6, 14), 1) for i in (0, 2)]
            sums.append(_folded(builder, _add, *wide, (0, 1, 8, 9, 4, 5, 12, 13), 2))
        return context.make_tuple(builder, sig.return_type, sums)

    return signature(types.UniTuple(f64, 2), types.int64), codegen


@intrinsic
def mask_bits(typing_context, mask):
    """Sixteen lanes of a mask as the lowest bits of an int64."""

    def codegen(context, builder, sig, args):
        return builder.zext(builder.bitcast(args[0], I16), I64)

    return signature(types.int64, mask), codegen


@intrinsic
def first_bit(typing_context, word):
    """The lowest bit that is set in an int64; 64 if none is."""

    def codegen(context, builder, sig, args):
        return llvm_call(builder, "llvm.cttz.i64", I64, [args[0], I1(0)])

    return signature(types.int64, types.int64), codegen


def _mixed(builder: Any, a: Any, b: Any, picks: Any) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, 16), list(picks)))


def _quarters_transposed(builder: Any, a: Any, b: Any, c: Any, d: Any) -> list[Any]:
    """Four vectors as 4 × 4 quarters, transposed: eight shuffles."""

    def mix(x, y, *quarters):
        return _mixed(builder, x, y, (4 * q + i for q in quarters for i in range(4)))

    pairs = [(mix(a, b, *picks), mix(c, d, *picks)) for picks in ((0, 1, 4, 5), (2, 3, 6, 7))]
    return [mix(*pair, *picks) for pair in pairs for picks in ((0, 2, 4, 6), (1, 3, 5, 7))]


def _transposed_in_quarters(builder: Any, a: Any, b: Any, c: Any, d: Any) -> list[Any]:
    """In each quarter of four vectors 4 × 4 elements, transposed: eight shuffles."""

    def mix(x, y, *picks):
        return _mixed(builder, x, y, (4 * q + p if p < 4 else 12 + 4 * q + p for q in range(4) for p in picks))

    pairs = [(mix(a, b, *picks), mix(c, d, *picks)) for picks in ((0, 4, 1, 5), (2, 6, 3, 7))]
    return [mix(*pair, *picks) for pair in pairs for picks in ((0, 1, 4, 5), (2, 3, 6, 7))]


def picked(builder: Any, sources: list[Any], picks: list[int]) -> Any:
    """As many elements of vectors, numbered through, as each has: one shuffle less than there are vectors."""
    n = sources[0].type.count
    value = sources[0]
    for k in range(1, max(len(sources), 2)):
        picked_before = [p if k == 1 and p < n else i for i, p in enumerate(picks)]
        here = [n + p % n if p // n == k else q for p, q in zip(picks, picked_before, strict=True)]
        value = builder.shuffle_vector(value, sources[k % len(sources)], ir.Constant(ir.VectorType(I32, n), here))
    return value


def columns_of(builder: Any, rows: list[Any], count: int = 16) -> list[Any]:
    """Sixteen rows of 4, 8 or 16 elements as columns of sixteen: the first `count`, a multiple of four."""
    # blocks[i]: elements 4p … 4p + 3 of rows i, i + 4, i + 8 and i + 12, a vector for each p.
    blocks = [_gathered(builder, rows[i::4]) for i in range(4)]
    return [
        column
        for p in range(count // 4)
        for column in _transposed_in_quarters(builder, *(block[p] for block in blocks))
    ]


def rows_of(builder: Any, columns: list[Any]) -> list[Any]:
    """The inverse: rows of 16 elements where there are more than eight columns."""
    width = len(columns)
    parts = [_transposed_in_quarters(builder, *columns[p : p + 4]) for p in range(0, width, 4)]
    blocks = [_scattered(builder, [part[i] for part in parts]) for i in range(4)]
    return [blocks[i % 4][i // 4] for i in range(16)]


def _gathered(builder: Any, rows: list[Any]) -> list[Any]:
    width = rows[0].type.count
    if width == 16:
        return _quarters_transposed(builder, *rows)
    first, second = (_joined(builder, *rows[i : i + 2]) for i in (0, 2))
    if width == 4:
        return [_joined(builder, first, second)]
    return [_mixed(builder, first, second, (8 * r + 4 * p + i for r in range(4) for i in range(4))) for p in (0, 1)]


def _scattered(builder: Any, parts: list[Any]) -> list[Any]:
    if len(parts) > 2:
        return _quarters_transposed(builder, *parts, *(parts[-1:] * (4 - len(parts))))
    width = 4 * len(parts)
    picks = ([4 * r + i + 16 * p for p in range(len(parts)) for i in range(4)] for r in range(4))
    return [builder.shuffle_vector(parts[0], parts[-1], ir.Constant(ir.VectorType(I32, width), pick)) for pick in picks]


def _joined(builder: Any, a: Any, b: Any) -> Any:
    n = 2 * a.type.count
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, n), list(range(n))))


@intrinsic
def transpose(typing_context, source, target):
    """Sixteen vectors in memory, transposed into sixteen others: 64 shuffles of two vectors each."""

    def codegen(context, builder, sig, args):
        for i, column in enumerate(columns_of(builder, _sixteen(builder, args[0]))):
            builder.store(column, pointer_to(builder, builder.add(args[1], I64(64 * i)), f32.llvm), align=4)
        return context.get_dummy_value()

    return signature(types.none, types.int64, types.int64), codegen


@intrinsic
def transposed(typing_context, a, b, c, d, e, f, g, h):
    """Eight vectors of float64, transposed: 24 shuffles of two vectors each."""

    def codegen(context, builder, sig, args):
        rows = list(args)
        for step in (4, 2, 1):
            low = [
                i + (8 if j else 0)
                for start in range(0, 8, 2 * step)
                for j in (0, 1)
                for i in range(start, start + step)
            ]
            for i in (i for i in range(8) if not i & step):
                rows[i], rows[i + step] = (
                    builder.shuffle_vector(
                        rows[i], rows[i + step], ir.Constant(ir.VectorType(I32, 8), [pick + further for pick in low])
                    )
                    for further in (0, step)
                )
        return context.make_tuple(builder, sig.return_type, rows)

    return signature(types.UniTuple(f64, 8), *(f64,) * 8), codegen
