"""A row in memory, and how a team walks over it.

A row is cut into chunks of WIDTH neighbouring classes, 16 bytes of the logits (one class in a columns team); chunk c
belongs to lane c mod SIZE.  The map depends on C alone: where rows do not start at 16-byte boundaries, the same chunks
are loaded by narrower accesses.
"""

# mypy: ignore-errors
# Numba types these functions, from their arguments.

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

import numpy as np
from numba import cuda

from softgrad.backends.cuda.regimes import Regime
from softgrad.backends.numba_cuda.exponential import FORMATS
from softgrad.backends.numba_cuda.machine import (
    bits_float,
    device,
    float_bits,
    load_2,
    load_4,
    load_8,
    load_16,
    narrow_bfloat16,
    narrow_float16,
    next_address,
    select,
    some,
    store_2,
    store_4,
    store_8,
    store_16,
    widen_float16,
)

Place = Literal["registers", "shared", "nowhere"]  # where a team holds its row between walks
# Chunks of one class, for kernels that have so much to remember of a class, in double, that several do not fit a lane's
# registers.
ONE_BY_ONE = 1
SIZES = {"double": 8, "float": 4, "float16": 2, "bfloat16": 2}


def chunk_width(T: str, regime: Regime) -> int:
    """Classes in a chunk of a row of T."""
    return 1 if regime.kind == "columns" else 16 // SIZES[T]


class At(NamedTuple):
    """Which row of an array this is."""

    outer: Any
    inner: Any


class Span(NamedTuple):
    """One row of an array: address of its first class, stride of its classes in bytes.

    `width` is the widest access that every chunk of every row allows: 16, 8, 4 or 2 bytes; 0 where classes are apart.
    """

    data: Any
    stride: Any
    classes: Any
    width: Any


@device
def at_row(row, shape):
    """The place of a row."""
    if shape.inner == 1:
        return At(row, np.int64(0) * row)
    return At(row // shape.inner, row % shape.inner)


@device
def address(array, at, size):
    """Of a row's first element."""
    return array.data + (at.outer * array.outer + at.inner * array.inner) * size


# --- numbers as they are stored ---------------------------------------------------------------------------------------


@device
def _join_words(low, high):
    return bits_float(np.uint64((np.uint64(high) << np.uint64(32)) | np.uint64(low)))


@device
def _low_word(x):
    return np.uint32(float_bits(x) & np.uint64(0xFFFFFFFF))


@device
def _high_word(x):
    return np.uint32(float_bits(x) >> np.uint64(32))


@device
def _low_half(word):
    return np.uint32(word & np.uint32(0xFFFF))


@device
def _high_half(word):
    return np.uint32(word >> np.uint32(16))


@device
def _both_halves(low, high):
    return np.uint32(low | np.uint32(high << np.uint32(16)))


@device
def _widen_bfloat16(bits):
    return bits_float(np.uint32(bits << np.uint32(16)))


@device
def load_words(address, width, when):
    """Four neighbouring words, by accesses of `width` bytes."""
    if width == 16:
        return load_16(address, when)
    if width == 8:
        a, b = load_8(address, when)
        c, d = load_8(address + 8, when)
        return a, b, c, d
    if width == 4:
        return load_4(address, when), load_4(address + 4, when), load_4(address + 8, when), load_4(address + 12, when)
    return (
        _both_halves(load_2(address, when), load_2(address + 2, when)),
        _both_halves(load_2(address + 4, when), load_2(address + 6, when)),
        _both_halves(load_2(address + 8, when), load_2(address + 10, when)),
        _both_halves(load_2(address + 12, when), load_2(address + 14, when)),
    )


@device
def store_words(address, width, words, when):
    """Four neighbouring words, by accesses of `width` bytes."""
    if width == 16:
        store_16(address, words, when)
    elif width == 8:
        store_8(address, words[0], words[1], when)
        store_8(address + 8, words[2], words[3], when)
    elif width == 4:
        store_4(address, words[0], when)
        store_4(address + 4, words[1], when)
        store_4(address + 8, words[2], when)
        store_4(address + 12, words[3], when)
    else:
        for i in range(4):
            store_2(address + 4 * i, words[i], when)
            store_2(address + 4 * i + 2, _high_half(words[i]), when)


@cache
def stored(T: str, real: str, apart: int = 1) -> SimpleNamespace:
    """Numbers of type T in memory, as numbers of the computing type: SIZE, `load`, `store`, `unpack`, `pack`.

    Unpacked, they stand `apart` elements from each other.
    """
    Real = FORMATS[real].Real
    build = {"double": _doubles, "float": _floats, "float16": _halves, "bfloat16": _halves}[T]
    halves = (widen_float16, narrow_float16) if T == "float16" else (_widen_bfloat16, narrow_bfloat16)
    load, store, unpack, pack = build(Real, apart, *halves)
    return SimpleNamespace(SIZE=SIZES[T], load=load, store=store, unpack=unpack, pack=pack)


def _doubles(Real, apart, _widen, _narrow):
    @device
    def load(address, when):
        low, high = load_8(address, when)
        return Real(_join_words(low, high))

    @device
    def store(address, x, when):
        y = np.float64(x)
        store_8(address, _low_word(y), _high_word(y), when)

    @device
    def unpack(words, x, i):
        x[i] = Real(_join_words(words[0], words[1]))
        x[i + apart] = Real(_join_words(words[2], words[3]))

    @device
    def pack(x, i):
        a, b = np.float64(x[i]), np.float64(x[i + apart])
        return _low_word(a), _high_word(a), _low_word(b), _high_word(b)

    return load, store, unpack, pack


def _floats(Real, apart, _widen, _narrow):
    @device
    def load(address, when):
        return Real(bits_float(load_4(address, when)))

    @device
    def store(address, x, when):
        store_4(address, float_bits(np.float32(x)), when)

    @device
    def unpack(words, x, i):
        for n in range(4):
            x[i + n * apart] = Real(bits_float(words[n]))

    @device
    def pack(x, i):
        return (
            float_bits(np.float32(x[i])),
            float_bits(np.float32(x[i + apart])),
            float_bits(np.float32(x[i + 2 * apart])),
            float_bits(np.float32(x[i + 3 * apart])),
        )

    return load, store, unpack, pack


def _halves(Real, apart, widen, narrow):
    @device
    def load(address, when):
        return Real(widen(load_2(address, when)))

    @device
    def store(address, x, when):
        store_2(address, narrow(np.float32(x)), when)

    @device
    def unpack(words, x, i):
        for n in range(4):
            x[i + 2 * n * apart] = Real(widen(_low_half(words[n])))
            x[i + (2 * n + 1) * apart] = Real(widen(_high_half(words[n])))

    @device
    def pair(x, i):
        return _both_halves(narrow(np.float32(x[i])), narrow(np.float32(x[i + apart])))

    @device
    def pack(x, i):
        return pair(x, i), pair(x, i + 2 * apart), pair(x, i + 4 * apart), pair(x, i + 6 * apart)

    return load, store, unpack, pack


# --- a row ------------------------------------------------------------------------------------------------------------


@cache
def spans(T: str, real: str, width: int, apart: int = 1) -> SimpleNamespace:
    """Rows of an array of T, read and written in chunks of `width` numbers of the computing type, `apart` in x.

    `span`, `get`, `load`, `store`: device functions.
    """
    numbers = stored(T, real, apart)
    load_number, store_number, unpack, pack, SIZE = (
        numbers.load,
        numbers.store,
        numbers.unpack,
        numbers.pack,
        numbers.SIZE,
    )
    IN_WORDS = width > 1 and (width * SIZE) % 16 == 0
    PER_16, PIECES = 16 // SIZE, width * SIZE // 16

    @device
    def span(array, at, shape, present):
        access = 0
        if IN_WORDS and array.classes == 1:
            apart = array.data
            if shape.rows > shape.inner:
                apart |= array.outer * SIZE
            if shape.inner > 1:
                apart |= array.inner * SIZE
            access = 16 if apart % 16 == 0 else 8 if apart % 8 == 0 else 4 if apart % 4 == 0 else 2
        # A team without a row has no classes either: what it would read is another's.
        return Span(address(array, at, SIZE), array.classes * SIZE, select(present, shape.classes, 0), access)

    @device
    def get(span, j, when):
        """Class j, where there is one."""
        return load_number(span.data + j * span.stride, when)

    @device
    def load(span, j, pad, x, i):
        """Classes j … j + WIDTH − 1 to x[i], x[i + apart], …; `pad` beyond the row's end."""
        if IN_WORDS and span.width != 0:
            whole = j + width <= span.classes
            if some(whole):
                for piece in range(PIECES):
                    at = span.data + j * SIZE + 16 * piece
                    unpack(load_words(at, span.width, whole), x, i + piece * PER_16 * apart)
            cut = j + width > span.classes
            if some(cut):
                for n in range(width):
                    inside = cut & (j + n < span.classes)
                    number = load_number(span.data + (j + n) * SIZE, inside)
                    x[i + n * apart] = select(inside, number, select(cut, pad, x[i + n * apart]))
        else:
            at = span.data + j * span.stride
            for n in range(width):
                inside = j + n < span.classes
                x[i + n * apart] = select(inside, load_number(at, inside), pad)
                at = next_address(at, span.stride)

    @device
    def store(span, j, x, i, present):
        """The other way, where there is a row and a class."""
        if IN_WORDS and span.width != 0:
            whole = present & (j + width <= span.classes)
            if some(whole):
                for piece in range(PIECES):
                    at = span.data + j * SIZE + 16 * piece
                    store_words(at, span.width, pack(x, i + piece * PER_16 * apart), whole)
            cut = present & (j + width > span.classes)
            if some(cut):
                for n in range(width):
                    store_number(span.data + (j + n) * SIZE, x[i + n * apart], cut & (j + n < span.classes))
        else:
            at = span.data + j * span.stride
            for n in range(width):
                store_number(at, x[i + n * apart], present & (j + n < span.classes))
                at = next_address(at, span.stride)

    return SimpleNamespace(span=span, get=get, load=load, store=store)


@cache
def walk(T: str, real: str, regime: Regime, place: Place, width: int | None = None) -> SimpleNamespace:
    """How a team walks over a row of T: WIDTH, STEP and the device function `chunks`; and where it holds the row.

    A walk is `for c in range(chunks(classes))`: chunk c of this lane starts at class lane · WIDTH + c · STEP.  Its
    numbers are x[i], x[i + APART], …, i = held(c), in an array of HELD numbers of each lane's own, or (IN_SHARED) in
    dynamic shared memory behind the team's slots.  Where the row is held nowhere (not KEEPS), each walk reads it again.
    `width` is that of the chunks where it is not to be 16 bytes.
    """
    WIDTH = chunk_width(T, regime) if width is None else width
    STEP = WIDTH * regime.size
    CHUNKS, KEEPS, IN_SHARED = regime.chunks, place != "nowhere", place == "shared"
    APART = regime.threads if IN_SHARED else 1
    BEHIND_SLOTS = regime.shared_bytes // np.dtype(FORMATS[real].Real).itemsize

    @device
    def chunks(classes):
        if KEEPS and not IN_SHARED:
            return CHUNKS
        return (classes + (STEP - 1)) // STEP

    @device
    def held(c):
        if IN_SHARED:
            return BEHIND_SLOTS + c * (WIDTH * APART) + np.int64(cuda.threadIdx.x)
        if KEEPS:
            return c * WIDTH
        return 0

    return SimpleNamespace(
        WIDTH=WIDTH,
        STEP=STEP,
        KEEPS=KEEPS,
        IN_SHARED=IN_SHARED,
        APART=APART,
        HELD=WIDTH * (CHUNKS if place == "registers" else 1),
        chunks=chunks,
        held=held,
    )
