"""Numbers as they are stored (double, float, float16, bfloat16), and as they are computed with (double, float)."""

# mypy: ignore-errors
# Numba types these functions, from their arguments.

from __future__ import annotations

from functools import cache
from types import SimpleNamespace

import numpy as np

from softgrad.backends.numba_cuda.exponential import FORMATS
from softgrad.backends.numba_cuda.machine import (
    bits_float,
    device,
    float_bits,
    load_2,
    load_4,
    load_8,
    narrow_bfloat16,
    narrow_float16,
    store_2,
    store_4,
    store_8,
    widen_float16,
)

SIZES = {"double": 8, "float": 4, "float16": 2, "bfloat16": 2}


@device
def joined_words(low, high):
    """The 64 bits of two words."""
    return np.uint64((np.uint64(high) << np.uint64(32)) | np.uint64(low))


@device
def load_integer(address, when):
    """64 bits."""
    low, high = load_8(address, when)
    return np.int64(joined_words(low, high))


@device
def store_integer(address, x, when):
    """64 bits."""
    bits = np.uint64(x)
    store_8(address, np.uint32(bits & np.uint64(0xFFFFFFFF)), np.uint32(bits >> np.uint64(32)), when)


@device
def _join_words(low, high):
    return bits_float(joined_words(low, high))


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


@cache
def stored(T: str, real: str) -> SimpleNamespace:
    """Numbers of type T in memory, as numbers of the computing type: SIZE, `load`, `store`, `unpack`, `pack`, `filled`.

    `unpack`: four words to x[i], x[i + 1], …; `pack`: back; `filled`: those of one number.
    """
    Real = FORMATS[real].Real
    build = {"double": _doubles, "float": _floats, "float16": _halves, "bfloat16": _halves}[T]
    halves = (widen_float16, narrow_float16) if T == "float16" else (_widen_bfloat16, narrow_bfloat16)
    load, store, unpack, pack, filled = build(Real, *halves)
    return SimpleNamespace(SIZE=SIZES[T], load=load, store=store, unpack=unpack, pack=pack, filled=filled)


def _doubles(Real, _widen, _narrow):
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
        x[i + 1] = Real(_join_words(words[2], words[3]))

    @device
    def pack(x, i):
        a, b = np.float64(x[i]), np.float64(x[i + 1])
        return _low_word(a), _high_word(a), _low_word(b), _high_word(b)

    @device
    def filled(pad):
        y = np.float64(pad)
        return _low_word(y), _high_word(y), _low_word(y), _high_word(y)

    return load, store, unpack, pack, filled


def _floats(Real, _widen, _narrow):
    @device
    def load(address, when):
        return Real(bits_float(load_4(address, when)))

    @device
    def store(address, x, when):
        store_4(address, float_bits(np.float32(x)), when)

    @device
    def unpack(words, x, i):
        for n in range(4):
            x[i + n] = Real(bits_float(words[n]))

    @device
    def pack(x, i):
        return (
            float_bits(np.float32(x[i])),
            float_bits(np.float32(x[i + 1])),
            float_bits(np.float32(x[i + 2])),
            float_bits(np.float32(x[i + 3])),
        )

    @device
    def filled(pad):
        word = float_bits(np.float32(pad))
        return word, word, word, word

    return load, store, unpack, pack, filled


def _halves(Real, widen, narrow):
    @device
    def load(address, when):
        return Real(widen(load_2(address, when)))

    @device
    def store(address, x, when):
        store_2(address, narrow(np.float32(x)), when)

    @device
    def unpack(words, x, i):
        for n in range(4):
            x[i + 2 * n] = Real(widen(_low_half(words[n])))
            x[i + 2 * n + 1] = Real(widen(_high_half(words[n])))

    @device
    def pair(x, i):
        return _both_halves(narrow(np.float32(x[i])), narrow(np.float32(x[i + 1])))

    @device
    def pack(x, i):
        return pair(x, i), pair(x, i + 2), pair(x, i + 4), pair(x, i + 6)

    @device
    def filled(pad):
        half = narrow(np.float32(pad))
        word = _both_halves(half, half)
        return word, word, word, word

    return load, store, unpack, pack, filled
