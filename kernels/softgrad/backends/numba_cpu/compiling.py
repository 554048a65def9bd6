"""How this backend's functions are compiled: without the GIL, on first use, and kept on disk for the next process."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numba
import numba.extending

# "numpy": a division by zero is an infinity, not an exception.
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}


def intrinsic(function: Callable[..., Any]) -> Any:
    """A function that writes its own LLVM code."""
    return numba.extending.intrinsic(function)


def inlined(function: Callable[..., Any]) -> Any:
    """A few lines used inside kernels: no call remains, so vectors stay in registers."""
    return numba.njit(function, forceinline=True, **_OPTIONS)


def helper(function: Callable[..., Any]) -> Any:
    """A part of kernels."""
    return numba.njit(function, **_OPTIONS)


def kernel(function: Callable[..., Any], *signature: Any) -> Any:
    """What the host code calls; compiled code is cached on disk where there is a folder for it.

    With a signature it is compiled at once, and for that one alone: arrays of any strides share it.
    """
    try:
        compiled = _cached(function)
    except RuntimeError:  # numba's word for: no cache folder can be written to
        compiled = numba.njit(function, **_OPTIONS)
    if signature:
        compiled.compile(signature)
        compiled.disable_compile()
    return compiled


def _cached(function: Callable[..., Any]) -> Any:
    compiled = numba.njit(function, cache=True, **_OPTIONS)
    # numba asks only whether the kernel's own file has changed, not those of the helpers compiled into it.
    with suppress(AttributeError):
        file = compiled._cache._cache_file
        file._source_stamp = (file._source_stamp, _SOURCES)
    return compiled


_SOURCES = tuple(
    (path.name, status.st_mtime, status.st_size)
    for path in sorted(Path(__file__).parent.rglob("*.py"))
    for status in [path.stat()]
)
