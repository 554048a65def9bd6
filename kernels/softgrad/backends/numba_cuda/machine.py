"""What the kernels ask of the machine, each under a name of its own: bits of numbers, fused steps, memory, lanes.

To run the kernels elsewhere, replace the functions of this one file.  Memory is addressed by integers, so that a kernel
is handed numbers alone; an access of more than one word is one instruction, which Numba does not emit by itself.

Threads of a warp may differ in their data, never in the course of a kernel, but for one form: `if some(condition):`
around accesses that each take the condition for themselves.
"""

# mypy: ignore-errors
# Numba types these functions, from their arguments.

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba import cuda, types
from numba.cuda.extending import intrinsic

device = cuda.jit(device=True, forceinline=True)

_BITS = {types.float32: types.uint32, types.float64: types.uint64}
_FLOATS = {bits: real for real, bits in _BITS.items()}
_WORD, _HALF, _ADDRESS = ir.IntType(32), ir.IntType(16), ir.IntType(64)
_ALL_LANES = 0xFFFFFFFF


# --- numbers ----------------------------------------------------------------------------------------------------------


@intrinsic
def float_bits(typing_context, x):
    """The bits of a number, as an unsigned integer of its size."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(signature.return_type))

    return _BITS[x](x), generate


@intrinsic
def bits_float(typing_context, bits):
    """The number that has these bits."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(signature.return_type))

    return _FLOATS[bits](bits), generate


@intrinsic
def fused(typing_context, a, b, c):
    """Return a · b + c, rounded once."""

    def generate(context, builder, signature, arguments):
        return builder.fma(*arguments)

    return a(a, b, c), generate


def _assembly(text, result, operands, constraints):
    """One instruction as an intrinsic's code; ordered among all others of its kind."""

    def generate(context, builder, signature, arguments):
        function = ir.FunctionType(result, operands)
        value = builder.asm(function, text, constraints, arguments, True)
        if isinstance(result, ir.VoidType):
            return context.get_dummy_value()
        if isinstance(result, ir.LiteralStructType):
            parts = [builder.extract_value(value, i) for i in range(len(result.elements))]
            return context.make_tuple(builder, signature.return_type, parts)
        if result == _HALF:
            return builder.zext(value, _WORD)
        return value

    return generate


@intrinsic
def _widen_float16(typing_context, bits):
    def generate(context, builder, signature, arguments):
        half = builder.trunc(arguments[0], _HALF)
        function = ir.FunctionType(ir.FloatType(), [_HALF])
        return builder.asm(function, "cvt.f32.f16 $0, $1;", "=f,h", [half], False)

    return types.float32(types.uint32), generate


@intrinsic
def _narrow_float16(typing_context, x):
    def generate(context, builder, signature, arguments):
        function = ir.FunctionType(_HALF, [ir.FloatType()])
        return builder.zext(builder.asm(function, "cvt.rn.f16.f32 $0, $1;", "=h,f", arguments, False), _WORD)

    return types.uint32(types.float32), generate


@intrinsic
def next_address(typing_context, address, step):
    """Return address + step, computed here and now.

    The compiler would work out the addresses of a whole chunk before a loop, and keep them in registers.
    """
    generate = _assembly("add.s64 $0, $1, $2;", _ADDRESS, [_ADDRESS, _ADDRESS], "=l,l,l")
    return types.int64(types.int64, types.int64), generate


@device
def select(condition, a, b):
    """Return a where the condition holds, else b."""
    return a if condition else b


@device
def nan_max(a, b):
    """The larger of the two; NaN where one is: the machine's own maximum drops it."""
    return select((a >= b) | (a != a), a, b)


@device
def widen_float16(bits):
    """The number whose float16 bits are the low half of a word."""
    return _widen_float16(np.uint32(bits))


@device
def narrow_float16(x):
    """The bits of a float32 number rounded to float16."""
    return _narrow_float16(x)


@device
def narrow_bfloat16(x):
    """The bits of a float32 number rounded to bfloat16: to nearest, ties to even.  Every architecture has this."""
    bits = float_bits(x)
    rounded = np.uint32(np.uint32(bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))
    return select(x == x, rounded, np.uint32(0x7FFF))


@device
def log1p(x):
    """log(1 + x)."""
    return math.log1p(x)


@device
def log(x):
    """log x."""
    return math.log(x)


@device
def exp(x):
    """exp x, for factors that are not lifted."""
    return math.exp(x)


@device
def tanh(x):
    """tanh x."""
    return math.tanh(x)


# --- threads ----------------------------------------------------------------------------------------------------------


@device
def some(condition):
    """Guards accesses that take the condition for themselves: whether a thread needs to look at them at all."""
    return condition


@device
def agreed(condition):
    """A condition that is the same in all threads of a block, as one to branch upon."""
    return condition


@device
def exchange(x, distance):
    """Return x of the lane whose number differs in the bits of `distance`; every lane of the warp takes part."""
    return cuda.shfl_xor_sync(_ALL_LANES, x, distance)


@intrinsic
def _take_ticket(typing_context, address):
    generate = _assembly("atom.global.add.u32 $0, [$1], 1;", _WORD, [_ADDRESS], "=r,l,~{memory}")
    return types.uint32(types.int64), generate


@device
def take_ticket(address, when):
    """The count at an address, which goes up by one."""
    return _take_ticket(address) if when else np.uint32(0)


@intrinsic
def _lower_to(typing_context, address, x):
    generate = _assembly("red.global.min.u64 [$0], $1;", ir.VoidType(), [_ADDRESS, _ADDRESS], "l,l,~{memory}")
    return types.void(types.int64, types.int64), generate


@device
def lower_to(address, x, when):
    """The unsigned integer at an address becomes the smaller of itself and x."""
    if when:
        _lower_to(address, x)


@device
def publish():
    """What was written becomes visible to other blocks before what is written after."""
    cuda.threadfence()


@device
def put(array, i, x, when):
    """One element of an array in shared memory."""
    if when:
        array[i] = x


# --- memory -----------------------------------------------------------------------------------------------------------
# Each access takes place where `when` holds, and reads 0 elsewhere.


def _at(builder, address, kind):
    return builder.inttoptr(address, ir.PointerType(kind, addrspace=1))


def _load(bits, count):
    """Code that loads `count` neighbouring integers of `bits` bits, widened to words, in one instruction."""
    integer = ir.IntType(bits)
    kind = integer if count == 1 else ir.VectorType(integer, count)

    def generate(context, builder, signature, arguments):
        value = builder.load(_at(builder, arguments[0], kind), align=bits * count // 8)
        if count > 1:
            parts = [builder.extract_element(value, ir.Constant(_WORD, i)) for i in range(count)]
            return context.make_tuple(builder, signature.return_type, parts)
        return value if bits == 32 else builder.zext(value, _WORD)

    return generate


def _store(bits, count):
    """Code that stores the low `bits` bits of `count` words next to each other, in one instruction."""
    integer = ir.IntType(bits)
    kind = integer if count == 1 else ir.VectorType(integer, count)

    def generate(context, builder, signature, arguments):
        address, *words = arguments
        if count > 1:
            value = ir.Constant(kind, ir.Undefined)
            for i, word in enumerate(words):
                value = builder.insert_element(value, word, ir.Constant(_WORD, i))
        else:
            value = words[0] if bits == 32 else builder.trunc(words[0], integer)
        builder.store(value, _at(builder, address, kind), align=bits * count // 8)
        return context.get_dummy_value()

    return generate


_PAIR, _QUAD = types.UniTuple(types.uint32, 2), types.UniTuple(types.uint32, 4)


@intrinsic
def _load_16(typing_context, address):
    return _QUAD(types.int64), _load(32, 4)


@intrinsic
def _load_8(typing_context, address):
    return _PAIR(types.int64), _load(32, 2)


@intrinsic
def _load_4(typing_context, address):
    return types.uint32(types.int64), _load(32, 1)


@intrinsic
def _load_2(typing_context, address):
    return types.uint32(types.int64), _load(16, 1)


@intrinsic
def _load_1(typing_context, address):
    return types.uint32(types.int64), _load(8, 1)


@intrinsic
def _load_fresh(typing_context, address):
    words = ir.LiteralStructType([_WORD] * 2)
    generate = _assembly("ld.global.cg.v2.b32 {$0, $1}, [$2];", words, [_ADDRESS], "=r,=r,l,~{memory}")
    return _PAIR(types.int64), generate


@intrinsic
def _store_16(typing_context, address, a, b, c, d):
    return types.void(types.int64, *[types.uint32] * 4), _store(32, 4)


@intrinsic
def _store_8(typing_context, address, low, high):
    return types.void(types.int64, types.uint32, types.uint32), _store(32, 2)


@intrinsic
def _store_4(typing_context, address, word):
    return types.void(types.int64, types.uint32), _store(32, 1)


@intrinsic
def _store_2(typing_context, address, word):
    return types.void(types.int64, types.uint32), _store(16, 1)


@intrinsic
def _store_1(typing_context, address, word):
    return types.void(types.int64, types.uint32), _store(8, 1)


@device
def load_16(address, otherwise, when):
    """Four words at an address that is a multiple of 16; `otherwise` where there is no access."""
    if when:
        return _load_16(address)
    return otherwise


@device
def load_8(address, when):
    """Two words at an address that is a multiple of 8."""
    if when:
        return _load_8(address)
    return np.uint32(0), np.uint32(0)


@device
def load_4(address, when):
    """A word at an address that is a multiple of 4."""
    return _load_4(address) if when else np.uint32(0)


@device
def load_2(address, when):
    """Half a word at an even address, in the low half of a word."""
    return _load_2(address) if when else np.uint32(0)


@device
def load_1(address, when):
    """A byte, in the lowest of a word."""
    return _load_1(address) if when else np.uint32(0)


@device
def load_fresh(address, when):
    """Two words as other blocks published them, past this multiprocessor's own cache."""
    if when:
        return _load_fresh(address)
    return np.uint32(0), np.uint32(0)


@device
def store_16(address, words, when):
    """Four words to an address that is a multiple of 16."""
    if when:
        _store_16(address, words[0], words[1], words[2], words[3])


@device
def store_8(address, low, high, when):
    """Two words to an address that is a multiple of 8."""
    if when:
        _store_8(address, low, high)


@device
def store_4(address, word, when):
    """A word to an address that is a multiple of 4."""
    if when:
        _store_4(address, np.uint32(word))


@device
def store_2(address, word, when):
    """The low half of a word to an even address."""
    if when:
        _store_2(address, np.uint32(word))


@device
def store_1(address, word, when):
    """The lowest byte of a word."""
    if when:
        _store_1(address, np.uint32(word))
