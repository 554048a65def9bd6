"""The kernels by name: which Python function, specialised to which types on which team, and its machine code."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any, get_origin

from numba import types
from numba.cuda import compiler

from softgrad.backends.cuda.kernels import TOTALS, Kernel
from softgrad.backends.numba_cuda.arguments import (
    CheckArgs,
    CopyArgs,
    LossArgs,
    ProductArgs,
    SoftmaxArgs,
    TotalArgs,
    fields,
    in_segments,
)
from softgrad.backends.numba_cuda.checks import check_rows, check_targets
from softgrad.backends.numba_cuda.copies import copy
from softgrad.backends.numba_cuda.cross_entropy import cross_entropy
from softgrad.backends.numba_cuda.cross_entropy_options import cross_entropy_options
from softgrad.backends.numba_cuda.derivatives import derivatives
from softgrad.backends.numba_cuda.formats import SIZES
from softgrad.backends.numba_cuda.products import products
from softgrad.backends.numba_cuda.rows import Place, chunk_width, chunks_in_a_turn
from softgrad.backends.numba_cuda.softmax import softmax
from softgrad.backends.numba_cuda.totals import divisor, total

# Function of the CUDA C++ template -> its twin, and what it takes.
FUNCTIONS: dict[str, tuple[Any, type]] = {
    "softmax": (softmax, SoftmaxArgs),
    "products": (products, ProductArgs),
    "cross_entropy": (cross_entropy, LossArgs),
    "cross_entropy_options": (cross_entropy_options, LossArgs),
    "derivatives": (derivatives, LossArgs),
    "total": (total, TotalArgs),
    "divisor": (divisor, TotalArgs),
    "check_targets": (check_targets, CheckArgs),
    "check_rows": (check_rows, CheckArgs),
    "copy": (copy, CopyArgs),
}


@cache
def copying(source: str, target: str) -> Kernel:
    """The kernel that copies numbers of one format to another; or, of both alike, so many bytes each."""
    return Kernel("", "copy", (source, target), TOTALS, "CopyArgs")


# Those that can hold their row between walks.
HOLDING = ("softmax", "products", "cross_entropy")
# Of a lane's share of a row: what registers hold beside the arithmetic.
HELD_BYTES = 64


CLASSES = slice(16, 24)  # of the bytes of arguments


def classes(kernel: Kernel, arguments: bytes) -> int:
    """Classes of the rows that a kernel is to hold; 0 if it holds none."""
    holds = kernel.function in HOLDING and not kernel.regime.cut
    return int.from_bytes(arguments[CLASSES], "little") if holds else 0


def place(kernel: Kernel, classes: int, shared_limit: int) -> tuple[Place, int]:
    """Where a kernel holds its row between walks, and the shared memory of a block, of which a device has so much.

    It makes no difference to the sums.  Short rows are held in registers, longer ones, up to 49,152 numbers of float in
    the 227 KB of an H100, in shared memory, the longest nowhere.  Products need their registers for the tangents.
    """
    regime = kernel.regime
    slots = regime.shared_bytes
    if kernel.function not in HOLDING or regime.cut:
        return "nowhere", slots
    T, real = (kernel.arguments[-3], kernel.arguments[-1]) if kernel.function == "products" else kernel.arguments[-2:]
    bytes_of_chunk = chunk_width(T, regime) * SIZES[real]
    if kernel.function != "products" and 0 < regime.chunks * bytes_of_chunk <= HELD_BYTES:
        return "registers", slots
    chunks = chunks_in_a_turn(T, real, regime, "shared")
    turns = -(-classes // (chunks * chunk_width(T, regime) * regime.size))
    held = turns * chunks * bytes_of_chunk * regime.threads
    return ("shared", slots + held) if slots + held <= shared_limit else ("nowhere", slots)


@cache
def function(kernel: Kernel, place: Place) -> tuple[Any, type]:
    """The Python function of a kernel that holds its row there, and the named tuple it takes."""
    build, takes = FUNCTIONS[kernel.function]
    held = (place,) if kernel.function in HOLDING else ()
    body = build(*kernel.arguments, kernel.regime, *held)
    if kernel.regime.cut:

        def of_segments(arguments: Any) -> None:
            body(arguments.kernel, arguments.segments)

        return of_segments, in_segments(takes)

    def of_rows(arguments: Any) -> None:
        body(arguments, ())

    turns = kernel.regime.turns

    def of_rows_in_turn(arguments: Any) -> None:
        for turn in range(turns):
            body(arguments, turn)

    return of_rows if turns == 1 else of_rows_in_turn, takes


@cache
def argument_type(kind: Any) -> Any:
    """Numba's type of a (named) tuple of integers, floats, and such tuples."""
    if kind in (int, float):
        return types.int64 if kind is int else types.float64
    parts = tuple(map(argument_type, fields(kind)))
    alike = all(part == parts[0] for part in parts)
    numba: Any = types  # which has no annotations
    if get_origin(kind) is tuple:
        return numba.UniTuple(parts[0], len(parts)) if alike else numba.Tuple(parts)
    return numba.NamedUniTuple(parts[0], len(parts), kind) if alike else numba.NamedTuple(parts, kind)


# What PTX is made for: it serves every later device as well, assembled for that.  For capabilities from 10.0 on, NVVM
# has another code generator, which does not keep Numba's local arrays in registers.
NEWEST_TARGET = (8, 0)


def ptx(kernel: Kernel, place: Place, capability: tuple[int, int]) -> str:
    """The kernel in PTX that a device of a compute capability can run."""
    return _ptx_for(kernel, place, min(capability, NEWEST_TARGET))


@lru_cache(maxsize=16)
def _ptx_for(kernel: Kernel, place: Place, capability: tuple[int, int]) -> str:
    body, takes = function(kernel, place)
    regime = kernel.regime
    numba: Any = compiler
    library, _ = numba._compile_pyfunc_with_fixup(
        body,
        types.void(argument_type(takes)),
        device=False,
        abi="numba",
        cc=capability,
        # Up to 128 registers a thread, and a few more where rows are cut: what Numba makes of the kernels needs more of
        # them than what NVRTC does.
        launch_bounds=(regime.threads, 1 if regime.cut else max(1, regime.resident // 2)),
    )
    # Multiplications and additions are fused where the source says so, the same in every variant of a kernel.
    library._nvvm_options["fma"] = False
    (text,) = library.get_asm_strs(cc=capability)
    return str(text)
