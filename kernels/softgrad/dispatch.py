"""Which backend serves an array.

Backends are imported the first time one of their arrays arrives, never at `import softgrad`, for three reasons: the
library behind one may be absent (numba on a plain machine), heavy (tenths of a second to import, a GPU context), or
broken (a CUDA wheel without a driver).  After the first call dispatch is one dictionary look-up on the array's type.

Nothing falls back in silence: a backend that was asked for by name and cannot serve raises, and says why.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

from softgrad.host import is_host
from softgrad.protocol import Backend
from softgrad.registry import BACKENDS, unserved

_forced: ContextVar[str | None] = ContextVar("softgrad_backend", default=None)
_loaded: dict[str, Backend] = {}  # name -> imported module
_default: dict[type, Backend] = {}  # type of an array -> the backend that serves it unforced
_environment: str | None = None  # SOFTGRAD_BACKEND as the first call found it; "" when unset


def available_backends() -> dict[str, str]:
    """Every backend this version has, with "available" or the reason why it cannot be used here.

    Returns
    -------
    dict of str to str
        In order of preference.

    Examples
    --------
    >>> import softgrad
    >>> softgrad.available_backends()["numpy"]
    'available'
    """
    return {name: _obstacle(name) or "available" for name in BACKENDS}


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Force a backend for the calls inside a ``with`` block, in this thread or async task only.

    Parameters
    ----------
    name : str
        One of the names of `available_backends`.  For a whole process, set the environment variable
        ``SOFTGRAD_BACKEND`` instead; it is read at the first call.

    Raises
    ------
    ValueError
        If no backend has that name.
    RuntimeError
        If the backend cannot be used on this machine; the message says why.

    Examples
    --------
    >>> import softgrad
    >>> with softgrad.use_backend("numpy"):
    ...     print(softgrad.softmax([0.0, 0.0]))
    [0.5 0.5]
    """
    _load(name, "use_backend")
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


def backend_for(name: str, array: Any) -> Backend:
    """The backend that serves `array`, the argument `name`; TypeError if there is none."""
    forced = _forced.get()
    if forced is None:
        backend = _default.get(type(array))
        if backend is not None:
            return backend
        forced = _from_environment()
    if forced:
        return _load(forced, "SOFTGRAD_BACKEND" if _forced.get() is None else "use_backend")
    if not is_host(array):
        raise TypeError(unserved(name, array))
    for candidate, entry in BACKENDS.items():
        if entry.host and _obstacle(candidate) is None:
            backend = _load(candidate, "softgrad")
            _default[type(array)] = backend
            return backend
    raise AssertionError("the numpy backend is always there")


def _from_environment() -> str:
    global _environment
    if _environment is None:
        _environment = os.environ.get("SOFTGRAD_BACKEND", "")
    return _environment


def _obstacle(name: str) -> str | None:
    """Why backend `name` cannot be used here; None if it can."""
    if name in _loaded:
        return None
    entry = BACKENDS[name]
    for package in entry.needs:
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed: pip install 'softgrad[{entry.extra}]'"
    try:
        _loaded[name] = cast("Backend", importlib.import_module(entry.module))
    except Exception as error:  # a broken installation can raise anything; it is reported, not swallowed
        return f"importing it failed: {type(error).__name__}: {error}"
    return None


def _load(name: str, asked_by: str) -> Backend:
    if name not in BACKENDS:
        raise ValueError(f"{asked_by}: unknown backend {name!r}; there are {', '.join(map(repr, BACKENDS))}")
    reason = _obstacle(name)
    if reason is not None:
        raise RuntimeError(f"{asked_by}: backend {name!r} is not available: {reason}")
    return _loaded[name]
