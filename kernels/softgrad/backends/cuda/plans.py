"""What calls of the same dtypes, shapes, strides and options have in common, found once: a call fills in addresses.

A plan is a pure function of the layouts of its arrays, so the plans of the shapes in use are kept by `lru_cache`, and
the tenth of a microsecond of a look-up is all that choosing a kernel, its grid and its arguments costs.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from softgrad.backends.cuda import kernels, regimes
from softgrad.backends.cuda.kernels import ITEMSIZE, Kernel
from softgrad.backends.cuda.regimes import Regime
from softgrad.backends.cuda.segments import Walks

Layout = tuple[Any, tuple[int, ...], tuple[int, ...]]
"""dtype, shape, strides in bytes."""

KEPT = 4096  # plans of each kind
OPEN = None  # a field that every call fills in
Fields = tuple[int | None, int, int, int]
ABSENT: Fields = (OPEN, 0, 0, 0)  # its address is 0

# A kernel's arguments, a letter of `struct` for each: every field has 8 bytes.
SOFTMAX_ARGS = "qqq" + 2 * "qqqq"
PRODUCT_ARGS = "qqq" + 3 * "qqqq" + "qqq"

# Largest, sum, result; for each tangent its size, sum, result.
SOFTMAX_WALKS, PRODUCT_WALKS = Walks(3), Walks(2, 3)


class Arguments:
    """The bytes of a kernel's arguments, with some fields left open."""

    __slots__ = ("filled",)

    filled: Callable[..., bytes]
    """The arguments with these values in the open fields, in order."""

    def __init__(self, letters: str, fields: Sequence[float | None]) -> None:
        closed = struct.pack(f"={letters}", *(0 if field is OPEN else field for field in fields))
        at = [i for i, field in enumerate(fields) if field is OPEN]
        # Closed stretches and open fields in turn, each stretch packed already.
        pieces = [closed[8 * a : 8 * b] for a, b in zip([0, *(i + 1 for i in at)], [*at, len(fields)], strict=True)]
        opened = [*(letters[i] for i in at), ""]
        form = "".join(f"{len(piece)}s{letter}" for piece, letter in zip(pieces, opened, strict=True))
        # Made for their number, as a named tuple is: to put a list together would take longer than to pack it.
        names = [f"value{i}" for i in range(len(at))]
        packed = [name for i, value in enumerate([*names, ""]) for name in (f"piece{i}", value) if name]
        known = {f"piece{i}": piece for i, piece in enumerate(pieces)} | {"pack": struct.Struct(f"={form}").pack}
        self.filled = eval(f"lambda {', '.join(names)}: pack({', '.join(packed)})", known)


class Launch(NamedTuple):
    """A kernel over the rows."""

    kernel: Kernel
    grid: int
    walks: Walks


class Plan(NamedTuple):
    """One launch; `arguments` are open at the addresses of its arrays."""

    is_taken: bool  # whether kernels take the arrays as they are
    launch: Launch
    arguments: Arguments


@lru_cache(KEPT)
def softmax(mode: str, z: Layout, out: Layout, clusters: bool, beyond: int) -> Plan:
    """`mode`: PROBABILITIES, LOG_PROBABILITIES or LOG_SUM_EXP; rows of more classes than `beyond` are cut.

    Open: z, out.
    """
    z, out = rows(z), per_row(out) if mode == "LOG_SUM_EXP" else rows(out)
    dtype, _, strides = z
    kernel = kernels.softmax(mode, dtype.name, keeping(z, clusters, beyond))
    arguments = Arguments(SOFTMAX_ARGS, (*shape(z), *read(z), *written(out)))
    return Plan(is_whole(dtype.itemsize, strides), Launch(kernel, grid(kernel, z), SOFTMAX_WALKS), arguments)


@lru_cache(KEPT)
def products(mode: str, is_logits: bool, v: Layout, point: Layout, out: Layout, clusters: bool, beyond: int) -> Plan:
    """`mode`: SOFTMAX_PRODUCT, LOG_JVP or LOG_VJP.  Open: point, v, out."""
    v, point, out = tangents(v), rows(point), tangents(out)
    is_taken = all(is_whole(dtype.itemsize, strides) for dtype, _, strides in (v, point)) and is_built_for(v[0])
    tangent = v[0] if is_taken else point[0]
    regime = keeping(point, clusters, beyond, arrays=2)
    kernel = kernels.products(mode, is_logits, point[0].name, tangent.name, regime)
    fields = (*shape(point), *read(point), *read(v, 1), *written(out, 1), together(v, regime), step(v), step(out))
    return Plan(is_taken, Launch(kernel, grid(kernel, point), PRODUCT_WALKS), Arguments(PRODUCT_ARGS, fields))


# --- of layouts -------------------------------------------------------------------------------------------------------


def rows(z: Layout) -> Layout:
    """As (outer, C, inner): `inner` may have been left out."""
    return _longer(z, 3)


def per_row(numbers: Layout) -> Layout:
    """As (outer, inner), likewise."""
    return _longer(numbers, 2)


def tangents(v: Layout) -> Layout:
    """As (K, outer, C, inner): (outer, C) is one of them."""
    dtype, shape, strides = rows(v)
    return (dtype, (1, *shape), (0, *strides)) if len(shape) == 3 else v


def _longer(array: Layout, axes: int) -> Layout:
    dtype, shape, strides = array
    return (dtype, (*shape, 1), (*strides, dtype.itemsize)) if len(shape) == axes - 1 else array


def shape(z: Layout) -> tuple[int, int, int]:
    """(rows, inner, classes)."""
    outer, classes, inner = z[1]
    return outer * inner, inner, classes


def read(array: Layout | None, leading: int = 0) -> Fields:
    """Address, left open, and strides in elements of an (outer, C, inner), (outer, inner), (C,) or () array, after so
    many leading axes.
    """
    if array is None:
        return ABSENT
    size, strides = array[0].itemsize, array[2][leading:]
    if len(strides) == 3:
        return OPEN, strides[0] // size, strides[1] // size, strides[2] // size
    if len(strides) == 2:
        return OPEN, strides[0] // size, 0, strides[1] // size
    return OPEN, 0, strides[0] // size if strides else 0, 0


def written(out: Layout | None, leading: int = 0) -> Fields:
    """The same of an array that is written; ValueError where its elements are not whole elements apart."""
    if out is not None and not is_whole(out[0].itemsize, out[2]):
        raise unaligned_out(out[0])
    return read(out, leading)


def unaligned_out(dtype: Any) -> ValueError:
    """What to raise for an `out` that a GPU cannot write to."""
    return ValueError(
        f"`out` has elements that do not start at multiples of their {dtype.itemsize} bytes; expected an array whose do"
    )


def step(v: Layout) -> int:
    """The stride of the K axis, in elements."""
    return v[2][0] // v[0].itemsize


def together(v: Layout, regime: Regime) -> int:
    """How many tangents go into a launch: all, or one where rows are cut."""
    return 1 if regime.cut else v[1][0]


def is_contiguous(z: Layout) -> bool:
    """Whether neighbouring classes are neighbours in memory."""
    dtype, (_, classes, _), strides = z
    return bool(classes == 1 or strides[1] == dtype.itemsize)


def keeping(z: Layout, clusters: bool, beyond: int, arrays: int = 1) -> Regime:
    """The regime of a kernel that can keep rows of z (and of another array) in registers."""
    classes = z[1][1]
    return regimes.keeping(
        classes,
        z[0].itemsize,
        contiguous=is_contiguous(z),
        clusters=clusters,
        arrays=arrays,
        cut=classes > beyond,
    )


def walking(z: Layout, beyond: int) -> Regime:
    """The regime of a kernel that reads rows of z again at each walk."""
    return regimes.walking(z[1][1], contiguous=is_contiguous(z), cut=z[1][1] > beyond)


def grid(kernel: Kernel, z: Layout) -> int:
    """Blocks for the rows of z."""
    return kernel.regime.grid(shape(z)[0])


# --- of what kernels take ---------------------------------------------------------------------------------------------


@lru_cache(KEPT)
def is_whole(itemsize: int, strides: tuple[int, ...]) -> bool:
    """Whether elements are whole elements apart: those of a field of records may not be."""
    return not any(stride % itemsize for stride in strides)


@lru_cache(KEPT)
def is_built_for(dtype: Any) -> bool:
    """Whether there are kernels for numbers of a dtype."""
    return dtype.name in ITEMSIZE
