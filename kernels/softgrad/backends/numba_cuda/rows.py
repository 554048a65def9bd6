"""A row in memory, and how a team walks over it.

A row is cut into chunks of WIDTH neighbouring classes, 16 bytes of the logits (the row in a short team, one class in a
columns team); chunk c belongs to lane c mod SIZE.  The map depends on C alone: where a row does not start at a 16-byte
boundary, the same chunks are loaded element by element, from lines that the first access brought into the cache.
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
from softgrad.backends.numba_cuda.formats import SIZES, stored
from softgrad.backends.numba_cuda.machine import device, load_16, next_address, select, some, store_16
from softgrad.backends.numba_cuda.sums import add, tree_sum
from softgrad.backends.numba_cuda.teams import team

Place = Literal["registers", "shared", "nowhere"]  # where a team holds its row between walks
# Numbers that a lane takes in a turn, all of them under way before the first is waited for: as many as leave room, of
# 128 registers, for the arithmetic.  Double has half of them, and needs as many again for that.
IN_A_TURN = {"float": 16, "double": 4}


def chunk_width(T: str, regime: Regime) -> int:
    """Classes in a chunk of a row of T."""
    return {"short": regime.width, "columns": 1}.get(regime.kind, 16 // SIZES[T])


def chunks_in_a_turn(T: str, real: str, regime: Regime, place: Place) -> int:
    """Chunks that a lane takes at once."""
    # Of a columns team's accesses each has an address of its own, for which a register is needed too.
    most = IN_A_TURN[real] // (2 if regime.kind == "columns" else chunk_width(T, regime))
    return regime.chunks if place == "registers" else min(most, regime.chunks or most)


class At(NamedTuple):
    """Which row of an array this is."""

    outer: Any
    inner: Any


class Span(NamedTuple):
    """One row of an array: address of its first class, stride of its classes in bytes."""

    data: Any
    stride: Any
    classes: Any  # 0 where a team has no row
    wide: Any  # whole chunks of 16 bytes are aligned words


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


# --- a row ------------------------------------------------------------------------------------------------------------


@cache
def spans(T: str, real: str, width: int, step: int, turn: int, apart: int = 1) -> SimpleNamespace:
    """Rows of an array of T, read and written in turns: `turn` chunks of `width` classes, `step` classes apart.

    In x the numbers, of the computing type, are `apart`.  `span`, `get`, `load`, `store`: device functions.
    """
    numbers = stored(T, real)
    load_number, store_number, unpack, pack, filled, SIZE = (
        numbers.load, numbers.store, numbers.unpack, numbers.pack, numbers.filled, numbers.SIZE
    )  # fmt: skip
    IN_WORDS = width > 1 and (width * SIZE) % 16 == 0
    PER_WORDS, PIECES = 16 // SIZE, width * SIZE // 16
    NUMBERS, Real = turn * width, FORMATS[real].Real

    @device
    def span(array, at, classes):
        data = address(array, at, SIZE)
        return Span(data, array.classes * SIZE, classes, (array.classes == 1) & (data % 16 == 0))

    @device
    def get(span, j, when):
        """Class j, where there is one."""
        return load_number(span.data + j * span.stride, when)

    @device
    def load_words(span, j, pad, x, i):
        """Classes j … j + WIDTH − 1 to x[i] … if they are aligned words, else `pad`."""
        if IN_WORDS:
            whole = span.wide & (j + width <= span.classes)
            for piece in range(PIECES):
                words = load_16(span.data + j * SIZE + 16 * piece, filled(pad), whole)
                unpack(words, x, i + piece * PER_WORDS)
        else:
            for n in range(width):
                x[i + n] = pad

    @device
    def gather(span, j, x, i):
        """The same classes, as far as there are any, if they are not aligned words: element by element."""
        left = j < span.classes
        if IN_WORDS:
            left = left & ((span.wide & (j + width <= span.classes)) == False)  # noqa: E712
        if some(left):
            at = span.data + j * span.stride
            for n in range(width):
                inside = left & (j + n < span.classes)
                x[i + n] = select(inside, load_number(at, inside), x[i + n])
                at = next_address(at, span.stride)

    @device
    def load_turn(span, j, pad, x):
        for c in range(turn):
            load_words(span, j + c * step, pad, x, c * width)
        for c in range(turn):
            gather(span, j + c * step, x, c * width)

    @device
    def load(span, j, pad, x, i):
        """The turn that begins with class j to x[i], x[i + apart], …; `pad` beyond the row's end."""
        if apart == 1:
            load_turn(span, j, pad, x)
        else:
            y = cuda.local.array(NUMBERS, Real)
            load_turn(span, j, pad, y)
            for n in range(NUMBERS):
                x[i + n * apart] = y[n]

    @device
    def scatter(span, j, x, i, left):
        at = span.data + j * span.stride
        for n in range(width):
            store_number(at, x[i + n], left & (j + n < span.classes))
            at = next_address(at, span.stride)

    @device
    def store(span, j, x):
        """The other way, from x[0] on."""
        for c in range(turn):
            at = j + c * step
            left = at < span.classes
            if IN_WORDS:
                whole = span.wide & (at + width <= span.classes)
                left = left & (whole == False)  # noqa: E712
                for piece in range(PIECES):
                    store_16(span.data + at * SIZE + 16 * piece, pack(x, c * width + piece * PER_WORDS), whole)
            if some(left):
                scatter(span, at, x, c * width, left)

    return SimpleNamespace(span=span, get=get, load=load, store=store)


@cache
def walk(T: str, real: str, regime: Regime, place: Place, chunks: int | None = None) -> SimpleNamespace:
    """How a team walks over a row of T, and where it holds the row.

    A lane takes some of its chunks in a turn (so many, or as many as seem good); a row in registers is one turn.  A
    walk is `for turn in range(turns(classes, cut, step))`.  The NUMBERS of a turn, those of the classes j + offset(n),
    j = class_of(turn, cut), are x[i + n · APART], i = held(turn): in an array of each lane's own, or (IN_SHARED) in
    dynamic shared memory behind the team's slots.  Where the row is held nowhere (not KEEPS), each walk reads it again.

    `spans_of(T)`: the functions of `spans` for rows of T.  `add_turn(s, x, i)`: s + Σ of a turn; `add_own`: of one in
    an array of the lane's own.
    """
    group = team(regime, real)
    lane, begin, makes = group.lane, group.begin, group.makes
    WIDTH, KEEPS, IN_SHARED = chunk_width(T, regime), place != "nowhere", place == "shared"
    STEP, TURN = WIDTH * regime.size, chunks or chunks_in_a_turn(T, real, regime, place)
    NUMBERS, CLASSES, APART = TURN * WIDTH, TURN * STEP, regime.threads if IN_SHARED else 1
    BEHIND_SLOTS = regime.shared_bytes // np.dtype(FORMATS[real].Real).itemsize
    CUT = regime.cut

    @device
    def turns(classes, cut, step):
        if place == "registers":
            return 1
        if CUT:
            return (cut.length + (CLASSES - 1)) // CLASSES if makes(cut, step) else 0
        return (classes + (CLASSES - 1)) // CLASSES

    @device
    def class_of(turn, cut):
        return begin(cut) + lane() * WIDTH + turn * CLASSES

    @device
    def offset(n):
        return n // WIDTH * STEP + n % WIDTH

    @device
    def held(turn):
        if IN_SHARED:
            return BEHIND_SLOTS + turn * (NUMBERS * APART) + np.int64(cuda.threadIdx.x)
        return 0

    return SimpleNamespace(
        KEEPS=KEEPS,
        IN_SHARED=IN_SHARED,
        APART=APART,
        NUMBERS=NUMBERS,
        turns=turns,
        class_of=class_of,
        offset=offset,
        held=held,
        add_turn=_add_turn(WIDTH, TURN, APART),
        add_own=_add_turn(WIDTH, TURN, 1),
        spans_of=lambda T, apart=1, real=real: spans(T, real, WIDTH, STEP, TURN, apart),
    )


def _add_turn(width: int, turn: int, apart: int) -> Any:
    """The device function that adds each chunk of a turn, as a tree, to a sum."""
    tree = tree_sum(width, apart)

    @device
    def add_turn(s, x, i):
        for c in range(turn):
            s = add(s, tree(x, i + c * (width * apart)))
        return s

    return add_turn
