"""Vectors for compiled code: sixteen float32 or eight float64 side by side, written as if they were one number.

LLVM would vectorise a plain loop too, but on its own terms: it versions loops on overlap tests (other bits in place,
5.7 times slower), peels and reorders, keeps to 256 bits on machines with 512, and never vectorises a sum whose order
matters.  Explicit vectors leave it no such choice: the order of every addition is the one written, and a vector wider
than the machine's is split without changing a bit.

    f32, f64     sixteen float32; eight float64
    i32, i64     integers of the same widths and counts
    m32, m64     masks: what comparisons give, for `where`, `&`, `|`, `~`

Operators work on vectors of one kind; a number beside a vector becomes a vector.  Memory is reached by address, an
integer: the kernels serve arrays of any strides, and dtypes that numba does not know.
"""

from __future__ import annotations

import operator
import platform
from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features as host_features
from numba import types
from numba.core import cgutils
from numba.core.typeconv.castgraph import Conversion
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import lower_builtin, lower_cast, models, register_model

from softgrad.backends.numba_cpu.compiling import intrinsic

I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
F32, F64 = ir.FloatType(), ir.DoubleType()
_ALIGN = {F32: 4, F64: 8, I16: 2, I64: 8}


class Vector(types.Type):
    """`count` elements of an LLVM type; kind "f", "i" or "m"."""

    def __init__(self, name: str, kind: str, element: ir.Type, count: int) -> None:
        self.kind, self.count = kind, count
        self.bits = {"float": 32, "double": 64}.get(str(element)) or element.width
        super().__init__(name)

    @property
    def llvm(self) -> ir.VectorType:
        """Its LLVM type."""
        element = {"f32": F32, "f64": F64}.get(f"{self.kind}{self.bits}") or ir.IntType(self.bits)
        return ir.VectorType(element, self.count)

    def can_convert_from(self, typing_context: Any, other: Any) -> Any:
        """Numbers become vectors."""
        return Conversion.safe if isinstance(other, types.Number) and self.kind != "m" else None


f32, f64 = Vector("f32", "f", F32, 16), Vector("f64", "f", F64, 8)
i32, i64 = Vector("i32", "i", I32, 16), Vector("i64", "i", I64, 8)
m32, m64 = Vector("m32", "m", I1, 16), Vector("m64", "m", I1, 8)
_MASK = {16: m32, 8: m64}
_INTEGERS = {16: i32, 8: i64}


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Vector) -> None:
        super().__init__(manager, fe_type, fe_type.llvm)


def _splat(builder: Any, scalar: Any, vector: Vector) -> Any:
    one = builder.insert_element(ir.Constant(vector.llvm, ir.Undefined), scalar, I32(0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(I32, vector.count), [0] * vector.count))


@lower_cast(types.Number, Vector)
def _cast(context: Any, builder: Any, source: Any, target: Vector, value: Any) -> Any:
    scalar = {"f32": types.float32, "f64": types.float64, "i32": types.int32, "i64": types.int64}[target.name]
    return _splat(builder, context.cast(builder, value, source, scalar), target)


# --- operators ---


def _operator(op: Any, arity: int, emit: Callable[[Any, Vector, list[Any]], Any], *, compares: bool = False) -> None:
    """Teach numba `op` on vectors; `emit(builder, vector type, values)` writes the LLVM instruction."""

    @infer_global(op)
    class Typing(AbstractTemplate):
        key = op

        def generic(self, args: Any, kws: Any) -> Any:
            vectors = {a for a in args if isinstance(a, Vector)}
            if len(args) != arity or len(vectors) != 1:
                return None
            (vector,) = vectors
            if not all(a is vector or isinstance(a, types.Number) for a in args):
                return None
            return signature(_MASK[vector.count] if compares else vector, *[vector] * arity)

    @lower_builtin(op, *[Vector] * arity)
    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return emit(builder, sig.args[0], list(args))


def _arithmetic(floating: str, integer: str) -> Callable[[Any, Vector, list[Any]], Any]:
    return lambda builder, vector, args: getattr(builder, floating if vector.kind == "f" else integer)(*args)


def _comparison(symbol: str) -> Callable[[Any, Vector, list[Any]], Any]:
    def emit(builder: Any, vector: Vector, args: list[Any]) -> Any:
        if vector.kind != "f":
            return builder.icmp_signed(symbol, *args)
        return builder.fcmp_unordered(symbol, *args) if symbol == "!=" else builder.fcmp_ordered(symbol, *args)

    return emit


_operator(operator.add, 2, _arithmetic("fadd", "add"))
_operator(operator.sub, 2, _arithmetic("fsub", "sub"))
_operator(operator.mul, 2, _arithmetic("fmul", "mul"))
_operator(operator.truediv, 2, lambda builder, _, args: builder.fdiv(*args))
_operator(operator.neg, 1, lambda builder, vector, args: _arithmetic("fneg", "neg")(builder, vector, args))
_operator(operator.and_, 2, lambda builder, _, args: builder.and_(*args))
_operator(operator.or_, 2, lambda builder, _, args: builder.or_(*args))
_operator(operator.invert, 1, lambda builder, _, args: builder.not_(*args))
_operator(operator.lshift, 2, lambda builder, _, args: builder.shl(*args))
_operator(operator.rshift, 2, lambda builder, _, args: builder.ashr(*args))
for _op, _symbol in {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}.items():
    _operator(getattr(operator, _op), 2, _comparison(_symbol), compares=True)
# In-place forms are the same functions: a vector has no identity.
_operator(operator.iadd, 2, _arithmetic("fadd", "add"))
_operator(operator.isub, 2, _arithmetic("fsub", "sub"))
_operator(operator.imul, 2, _arithmetic("fmul", "mul"))


# --- functions ---


def _call(builder: Any, name: str, result: Any, args: list[Any]) -> Any:
    """A call of an LLVM intrinsic."""
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, [a.type for a in args]), name)
    return builder.call(function, args)


def _suffix(vector: Vector) -> str:
    return f"v{vector.count}{'f' if vector.kind == 'f' else 'i'}{vector.bits}"


@intrinsic
def fma(typing_context, a, b, c):
    """a · b + c, rounded once where the machine can do so at no cost (else twice: nothing here depends on it)."""
    vector = next(x for x in (a, b, c) if isinstance(x, Vector))

    def codegen(context, builder, sig, args):
        return _call(builder, f"llvm.fmuladd.{_suffix(vector)}", vector.llvm, list(args))

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
def absolute(typing_context, a):
    """|a|."""

    def codegen(context, builder, sig, args):
        return _call(builder, f"llvm.fabs.{_suffix(a)}", a.llvm, list(args))

    return signature(a, a), codegen


@intrinsic
def bits(typing_context, a):
    """The bits of floats as integers."""
    integers = _INTEGERS[a.count]

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


# --- conversions ---


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
    integers = _INTEGERS[a.count]

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


# --- memory ---


def _at(builder: Any, address: Any, element: Any) -> Any:
    return builder.inttoptr(address, element.as_pointer())


def _loader(result: Vector, stored: ir.Type, convert: Callable[[Any, Any], Any]) -> tuple[Any, Any]:
    """`load(address)`, and `load_part(address, n)`: the first n elements, the others 0, no byte beyond touched."""
    memory = ir.VectorType(stored, result.count)
    align = _ALIGN[stored]
    name = f"v{result.count}{'i' if isinstance(stored, ir.IntType) else 'f'}{align * 8}"

    @intrinsic
    def load(typing_context, address):
        def codegen(context, builder, sig, args):
            value = builder.load(_at(builder, args[0], memory), align=align)
            return convert(builder, value)

        return signature(result, types.int64), codegen

    @intrinsic
    def load_part(typing_context, address, n):
        def codegen(context, builder, sig, args):
            value = _call(
                builder,
                f"llvm.masked.load.{name}.p0",
                memory,
                [_at(builder, args[0], memory), I32(align), _first(builder, args[1], result.count), _zero(memory)],
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
    align = _ALIGN[stored]
    name = f"v{source.count}{'i' if isinstance(stored, ir.IntType) else 'f'}{align * 8}"

    @intrinsic
    def store(typing_context, address, v):
        def codegen(context, builder, sig, args):
            value = convert(builder, args[1])
            builder.store(value, _at(builder, args[0], memory), align=align)
            return context.get_dummy_value()

        return signature(types.none, types.int64, source), codegen

    @intrinsic
    def store_part(typing_context, address, v, n):
        def codegen(context, builder, sig, args):
            value = convert(builder, args[1])
            mask = _first(builder, args[2], source.count)
            _call(
                builder,
                f"llvm.masked.store.{name}.p0",
                ir.VoidType(),
                [value, _at(builder, args[0], memory), I32(align), mask],
            )
            return context.get_dummy_value()

        return signature(types.none, types.int64, source, types.int64), codegen

    @intrinsic
    def stream(typing_context, address, v):
        def codegen(context, builder, sig, args):
            value = convert(builder, args[1])
            instruction = builder.store(value, _at(builder, args[0], memory), align=align * source.count)
            instruction.set_metadata("nontemporal", builder.module.add_metadata([I32(1)]))
            return context.get_dummy_value()

        return signature(types.none, types.int64, source), codegen

    return store, store_part, stream


def _first(builder: Any, n: Any, count: int) -> Any:
    """A mask of the first n lanes."""
    lanes = ir.VectorType(I32, count)
    one = builder.insert_element(ir.Constant(lanes, ir.Undefined), builder.trunc(n, I32), I32(0))
    limit = builder.shuffle_vector(one, one, ir.Constant(lanes, [0] * count))
    return builder.icmp_signed("<", ir.Constant(lanes, list(range(count))), limit)


def _zero(vector: ir.VectorType) -> Any:
    return ir.Constant(vector, None)


# --- 16-bit formats, widened and rounded in registers ---
# By integer arithmetic, which every machine has, except where the machine converts float16 itself.

_CONVERTS_HALF = platform.machine() in ("arm64", "aarch64") or bool(host_features().get("f16c"))


def _whole(count: int, number: int) -> Any:
    return ir.Constant(ir.VectorType(I32, count), [number] * count)


def _widen_bfloat(builder: Any, value: Any) -> Any:
    n = value.type.count
    word = builder.shl(builder.zext(value, ir.VectorType(I32, n)), _whole(n, 16))
    return builder.bitcast(word, ir.VectorType(F32, n))


def _round_bfloat(builder: Any, value: Any) -> Any:
    n = value.type.count
    word = builder.bitcast(value, ir.VectorType(I32, n))
    odd = builder.and_(builder.lshr(word, _whole(n, 16)), _whole(n, 1))
    rounded = builder.lshr(builder.add(word, builder.add(odd, _whole(n, 0x7FFF))), _whole(n, 16))
    rounded = builder.select(builder.fcmp_unordered("uno", value, value), _whole(n, 0x7FC0), rounded)
    return builder.trunc(rounded, ir.VectorType(I16, n))


def _widen_half(builder: Any, value: Any) -> Any:
    n = value.type.count
    floats = ir.VectorType(F32, n)
    if _CONVERTS_HALF:
        return builder.fpext(builder.bitcast(value, ir.VectorType(ir.HalfType(), n)), floats)
    word = builder.zext(value, ir.VectorType(I32, n))
    sign = builder.shl(builder.and_(word, _whole(n, 0x8000)), _whole(n, 16))
    magnitude = builder.shl(builder.and_(word, _whole(n, 0x7FFF)), _whole(n, 13))
    # The exponent's bias differs by 112; a product puts subnormal numbers right too.
    scaled = builder.fmul(builder.bitcast(magnitude, floats), ir.Constant(floats, [2.0**112] * n))
    finite = builder.bitcast(scaled, ir.VectorType(I32, n))
    special = builder.or_(magnitude, _whole(n, 0x7F800000))
    is_special = builder.icmp_unsigned(">=", magnitude, _whole(n, 0x7C00 << 13))
    return builder.bitcast(builder.or_(builder.select(is_special, special, finite), sign), floats)


def _round_half(builder: Any, value: Any) -> Any:
    n = value.type.count
    shorts = ir.VectorType(I16, n)
    if _CONVERTS_HALF:
        return builder.bitcast(builder.fptrunc(value, ir.VectorType(ir.HalfType(), n)), shorts)
    floats, words = ir.VectorType(F32, n), ir.VectorType(I32, n)
    word = builder.bitcast(value, words)
    sign = builder.and_(builder.lshr(word, _whole(n, 16)), _whole(n, 0x8000))
    magnitude = builder.and_(word, _whole(n, 0x7FFFFFFF))
    odd = builder.and_(builder.lshr(magnitude, _whole(n, 13)), _whole(n, 1))
    normal = builder.lshr(builder.add(magnitude, builder.add(odd, _whole(n, 0xFFF))), _whole(n, 13))
    normal = builder.sub(normal, _whole(n, 112 << 10))
    # Added to ½, whose last bit is the smallest float16, a number below the normal ones is rounded as it should be.
    half = ir.Constant(floats, [0.5] * n)
    small = builder.bitcast(builder.fadd(builder.bitcast(magnitude, floats), half), words)
    small = builder.sub(small, builder.bitcast(half, words))
    rounded = builder.select(builder.icmp_signed("<", magnitude, _whole(n, 113 << 23)), small, normal)
    overflows = builder.icmp_signed(">=", magnitude, _whole(n, 0x477FF000))
    rounded = builder.select(overflows, _whole(n, 0x7C00), rounded)
    rounded = builder.select(builder.icmp_signed(">", magnitude, _whole(n, 0x7F800000)), _whole(n, 0x7E00), rounded)
    return builder.trunc(builder.or_(rounded, sign), shorts)


def _widened(widen: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda builder, value: builder.fpext(widen(builder, value), f64.llvm)


def _narrowed(narrow: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda builder, value: narrow(builder, builder.fptrunc(value, ir.VectorType(F32, f64.count)))


def _same(builder: Any, value: Any) -> Any:
    return value


load_f32, load_part_f32 = _loader(f32, F32, _same)
store_f32, store_part_f32, stream_f32 = _storer(f32, F32, _same)
load_f64, load_part_f64 = _loader(f64, F64, _same)
store_f64, store_part_f64, stream_f64 = _storer(f64, F64, _same)
load_i64, load_part_i64 = _loader(i64, I64, _same)
store_i64, store_part_i64, _ = _storer(i64, I64, _same)
load_i32_of_i64, load_part_i32_of_i64 = _loader(i32, I64, lambda builder, value: builder.trunc(value, i32.llvm))
# Eight float64 of narrower numbers; 16-bit ones are rounded from float32, as everywhere.
load_f64_of_f32, load_part_f64_of_f32 = _loader(f64, F32, _widened(_same))
load_f64_of_half, load_part_f64_of_half = _loader(f64, I16, _widened(_widen_half))
load_f64_of_bfloat, load_part_f64_of_bfloat = _loader(f64, I16, _widened(_widen_bfloat))
store_f64_to_f32, store_part_f64_to_f32, _ = _storer(f64, F32, _narrowed(_same))
store_f64_to_half, store_part_f64_to_half, _ = _storer(f64, I16, _narrowed(_round_half))
store_f64_to_bfloat, store_part_f64_to_bfloat, _ = _storer(f64, I16, _narrowed(_round_bfloat))


# --- one number ---


def _reader(result: Any, stored: ir.Type, convert: Callable[[Any, Any], Any]) -> Any:
    """`read(address)`: a vector of one, so that the conversions above serve."""

    @intrinsic
    def read(typing_context, address):
        def codegen(context, builder, sig, args):
            memory = ir.VectorType(stored, 1)
            value = builder.load(_at(builder, args[0], memory), align=_ALIGN[stored])
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
            builder.store(value, _at(builder, args[0], value.type), align=_ALIGN[stored])
            return context.get_dummy_value()

        return signature(types.none, types.int64, source), codegen

    return write


def _widened_one(widen: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda builder, value: builder.fpext(widen(builder, value), ir.VectorType(F64, 1))


def _narrowed_one(narrow: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda builder, value: narrow(builder, builder.fptrunc(value, ir.VectorType(F32, 1)))


read_f32, write_f32 = _reader(types.float32, F32, _same), _writer(types.float32, F32, _same)
read_f64, write_f64 = _reader(types.float64, F64, _same), _writer(types.float64, F64, _same)
read_i64, write_i64 = _reader(types.int64, I64, _same), _writer(types.int64, I64, _same)
read_f64_of_f32 = _reader(types.float64, F32, _widened_one(_same))
read_f64_of_half = _reader(types.float64, I16, _widened_one(_widen_half))
read_f64_of_bfloat = _reader(types.float64, I16, _widened_one(_widen_bfloat))
write_f64_to_f32 = _writer(types.float64, F32, _narrowed_one(_same))
write_f64_to_half = _writer(types.float64, I16, _narrowed_one(_round_half))
write_f64_to_bfloat = _writer(types.float64, I16, _narrowed_one(_round_bfloat))


# --- shared work ---


@intrinsic
def take(typing_context, address):
    """The int64 at an address, and one added to it, as one indivisible step among threads."""

    def codegen(context, builder, sig, args):
        return builder.atomic_rmw("add", _at(builder, args[0], I64), I64(1), "monotonic")

    return signature(types.int64, types.int64), codegen


@intrinsic
def prefetch(typing_context, address):
    """Ask for a cache line, which will be read soon; any address will do."""

    def codegen(context, builder, sig, args):
        pointer = _at(builder, args[0], I8)
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [pointer.type, I32, I32, I32]),
            "llvm.prefetch.p0",
        )
        builder.call(function, [pointer, I32(0), I32(3), I32(1)])
        return context.get_dummy_value()

    return signature(types.none, types.int64), codegen


# --- sixteen float32 of memory in one of three formats, named by the type of a number passed along ---
# np.float32(0): float32; np.int16(0): float16; np.uint16(0): bfloat16.  A kernel is compiled once for each.


class _Format(NamedTuple):
    stored: ir.Type
    size: int
    widen: Callable[[Any, Any], Any]
    narrow: Callable[[Any, Any], Any]
    minus_infinity: Any


_FORMATS = {
    types.float32: _Format(F32, 4, _same, _same, float("-inf")),
    types.int16: _Format(I16, 2, _widen_half, _round_half, 0xFC00),
    types.uint16: _Format(I16, 2, _widen_bfloat, _round_bfloat, 0xFF80),
}


@intrinsic
def size_of(typing_context, fmt):
    """Bytes of one number."""

    def codegen(context, builder, sig, args):
        return I64(_FORMATS[fmt].size)

    return signature(types.int64, fmt), codegen


@intrinsic
def load(typing_context, address, fmt):
    """Sixteen numbers as float32."""
    chosen = _FORMATS[fmt]

    def codegen(context, builder, sig, args):
        pointer = _at(builder, args[0], ir.VectorType(chosen.stored, 16))
        return chosen.widen(builder, builder.load(pointer, align=chosen.size))

    return signature(f32, types.int64, fmt), codegen


@intrinsic
def read(typing_context, address, fmt):
    """One number as float32."""
    chosen = _FORMATS[fmt]

    def codegen(context, builder, sig, args):
        value = builder.load(_at(builder, args[0], ir.VectorType(chosen.stored, 1)), align=chosen.size)
        return builder.extract_element(chosen.widen(builder, value), I32(0))

    return signature(types.float32, types.int64, fmt), codegen


@intrinsic
def write(typing_context, address, x, fmt):
    """One float32, rounded once."""
    chosen = _FORMATS[fmt]

    def codegen(context, builder, sig, args):
        one = builder.insert_element(ir.Constant(ir.VectorType(F32, 1), ir.Undefined), args[1], I32(0))
        value = chosen.narrow(builder, one)
        builder.store(value, _at(builder, args[0], value.type), align=chosen.size)
        return context.get_dummy_value()

    return signature(types.none, types.int64, types.float32, fmt), codegen


@intrinsic
def load_first(typing_context, address, n, fmt):
    """The first n of sixteen numbers as float32, the others −inf, no byte beyond touched."""
    chosen = _FORMATS[fmt]
    memory = ir.VectorType(chosen.stored, 16)

    def codegen(context, builder, sig, args):
        name = f"llvm.masked.load.v16{'f' if chosen.stored is F32 else 'i'}{8 * chosen.size}.p0"
        padding = ir.Constant(memory, [chosen.minus_infinity] * 16)
        pointer = _at(builder, args[0], memory)
        value = _call(builder, name, memory, [pointer, I32(chosen.size), _first(builder, args[1], 16), padding])
        return chosen.widen(builder, value)

    return signature(f32, types.int64, types.int64, fmt), codegen


@intrinsic
def store(typing_context, address, v, fmt):
    """Sixteen float32, each rounded once."""
    chosen = _FORMATS[fmt]

    def codegen(context, builder, sig, args):
        value = chosen.narrow(builder, args[1])
        builder.store(value, _at(builder, args[0], value.type), align=chosen.size)
        return context.get_dummy_value()

    return signature(types.none, types.int64, f32, fmt), codegen


@intrinsic
def store_first(typing_context, address, v, n, fmt):
    """The first n of them."""
    chosen = _FORMATS[fmt]

    def codegen(context, builder, sig, args):
        value = chosen.narrow(builder, args[1])
        name = f"llvm.masked.store.v16{'f' if chosen.stored is F32 else 'i'}{8 * chosen.size}.p0"
        pointer = _at(builder, args[0], value.type)
        _call(builder, name, ir.VoidType(), [value, pointer, I32(chosen.size), _first(builder, args[2], 16)])
        return context.get_dummy_value()

    return signature(types.none, types.int64, f32, types.int64, fmt), codegen


@intrinsic
def stream(typing_context, address, v, fmt):
    """The same past the caches, to an address that is a multiple of the sixteen's size.

    A result larger than the caches would otherwise be read from memory before it is written, half as much traffic
    again.
    """
    chosen = _FORMATS[fmt]

    def codegen(context, builder, sig, args):
        value = chosen.narrow(builder, args[1])
        instruction = builder.store(value, _at(builder, args[0], value.type), align=16 * chosen.size)
        instruction.set_metadata("nontemporal", builder.module.add_metadata([I32(1)]))
        return context.get_dummy_value()

    return signature(types.none, types.int64, f32, fmt), codegen


# --- sixteen rows of sixteen ---


@intrinsic
def transpose(typing_context, source, target):
    """Sixteen vectors in memory, transposed into sixteen others: 64 shuffles of two vectors each."""

    def codegen(context, builder, sig, args):
        def mix(a, b, *picks):
            return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, 16), list(picks)))

        def in_each_quarter(a, b, *picks):
            return mix(a, b, *(4 * q + p if p < 4 else 12 + 4 * q + p for q in range(4) for p in picks))

        def quarters(a, b, *picks):
            return mix(a, b, *(4 * p + i for p in picks for i in range(4)))

        rows = [builder.load(_at(builder, builder.add(args[0], I64(64 * i)), f32.llvm), align=4) for i in range(16)]
        columns = [None] * 16
        blocks = []  # [g][c]: rows 4g … 4g + 3 of columns c, 4 + c, 8 + c, 12 + c, a quarter for each column
        for g in range(0, 16, 4):
            low = [in_each_quarter(rows[g + i], rows[g + i + 1], 0, 4, 1, 5) for i in (0, 2)]
            high = [in_each_quarter(rows[g + i], rows[g + i + 1], 2, 6, 3, 7) for i in (0, 2)]
            halves = [(*low, 0, 1, 4, 5), (*low, 2, 3, 6, 7), (*high, 0, 1, 4, 5), (*high, 2, 3, 6, 7)]
            blocks.append([in_each_quarter(*half) for half in halves])
        for c in range(4):
            for q, picks in ((0, (0, 2, 4, 6)), (1, (1, 3, 5, 7))):
                first, second = (quarters(blocks[g][c], blocks[g + 1][c], *picks) for g in (0, 2))
                columns[4 * q + c] = quarters(first, second, 0, 2, 4, 6)
                columns[4 * q + 8 + c] = quarters(first, second, 1, 3, 5, 7)
        for i, column in enumerate(columns):
            builder.store(column, _at(builder, builder.add(args[1], I64(64 * i)), f32.llvm), align=4)
        return context.get_dummy_value()

    return signature(types.none, types.int64, types.int64), codegen
