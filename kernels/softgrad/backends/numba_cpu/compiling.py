"""How this backend's functions are compiled: without the GIL, on first use, and kept on disk for the next process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numba
import numba.extending
from numba.core.runtime.nrt import rtsys

from softgrad.garbage import uncollected

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
        _apart(compiled.compile, signature)
        compiled.disable_compile()
    else:
        compiled._compile_for_args = partial(_apart, compiled._compile_for_args)  # what a first call ends up in
    return compiled


def entry_point(compiled: Any) -> Callable[..., Any]:
    """The compiled function itself, of a kernel with one signature, which must be kept as long as it is called.

    It believes that arguments are of the types of the signature: to have numba look at each of them takes longer than
    what a small call computes.
    """
    [only] = compiled.overloads.values()
    return only.entry_point


def _apart(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Compile in a thread of its own: numba must not be interrupted, for it would keep its lock for ever.

    An interrupt ends the wait; the thread goes on, and the next call finds what it has compiled.
    """
    outcome: list[Any] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(function(*arguments, **options))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="softgrad compiling")
    with uncollected():
        try:
            thread.start()
        except RuntimeError:  # no thread to be had, or the interpreter is going
            run()
        else:
            thread.join()
    if errors:
        raise errors[0]
    return outcome[0]


def _cached(function: Callable[..., Any]) -> Any:
    compiled = numba.njit(function, cache=True, **_OPTIONS)
    with suppress(AttributeError):
        # numba asks only whether the kernel's own file has changed, not those of the helpers compiled into it.
        file = compiled._cache._cache_file
        file._source_stamp = (file._source_stamp, _SOURCES)
        compiled._cache.save_overload = partial(_if_possible, compiled._cache.save_overload)
        compiled._cache.load_overload = partial(_at_once, compiled._cache, compiled._cache.load_overload)
    return compiled


def _if_possible(save: Callable[..., None], *arguments: Any) -> None:
    """What cannot be kept (the disk is full, the folder has become read-only) is compiled again by the next process."""
    with suppress(OSError):
        save(*arguments)


def _at_once(cache: Any, load: Callable[..., Any], signature: Any, context: Any) -> Any:
    """What the cache keeps, if it does, with the memory manager that compiled code asks for and no more.

    numba's own way first gathers everything it can compile, SciPy's linear algebra among it: that takes ten times as
    long as to load a kernel, and only who compiles something needs it.
    """
    found = None
    with suppress(Exception):  # numba may one day arrange this otherwise; there is its own way still
        rtsys.initialize(context)
        found = cache._load_overload(signature, context)
    return load(signature, context) if found is None else found


_SOURCES = tuple(
    (path.name, status.st_mtime, status.st_size)
    for path in sorted(Path(__file__).parent.rglob("*.py"))
    for status in [path.stat()]
)
