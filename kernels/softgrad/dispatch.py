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

from softgrad.garbage import uncollected
from softgrad.host import is_host
from softgrad.protocol import Backend
from softgrad.registry import BACKENDS, unserved

_forced: ContextVar[str | None] = ContextVar("softgrad_backend", default=None)
_loaded: dict[str, Backend] = {}  # name -> imported module
_default: dict[type, Backend] = {}  # type of an array -> the backend that serves it unforced
_DLPACK_CUDA = (2, 13)  # kDLCUDA, kDLCUDAManaged
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
    if forced is not None:
        return _load(forced, "use_backend")
    backend = _default.get(type(array))
    if backend is not None:
        return backend
    forced = _from_environment()
    if forced:
        return _load(forced, "SOFTGRAD_BACKEND")
    backend = _default[type(array)] = _first_that_serves(name, array)
    return backend


def _first_that_serves(name: str, array: Any) -> Backend:
    """The preferred backend of the array's device.

    The answer is kept for every array of the type; one on another device is for the backend to refuse.
    """
    device = "cpu" if is_host(array) else "cuda" if _is_on_cuda(array) else None
    library = type(array).__module__.partition(".")[0]
    candidates = [candidate for candidate, entry in BACKENDS.items() if entry.device == device]
    candidates.sort(key=lambda candidate: BACKENDS[candidate].home != library)
    reasons = []
    for candidate in candidates:
        reason = _obstacle(candidate)
        if reason is None:
            return _loaded[candidate]
        reasons.append(f"the backend {candidate!r} is not available here: {reason}")
    raise TypeError(unserved(name, array, reasons=reasons))


def _is_on_cuda(array: Any) -> bool:
    try:
        if hasattr(array, "__dlpack_device__"):
            return int(array.__dlpack_device__()[0]) in _DLPACK_CUDA
        return hasattr(array, "__cuda_array_interface__")
    except Exception:  # tracers and the like have no device; they are refused like any other object
        return False


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
        with uncollected():
            _loaded[name] = cast("Backend", importlib.import_module(entry.module))
    except ImportError as error:
        return str(error)
    except Exception as error:  # a broken installation can raise anything; it is reported, not swallowed
        return f"importing it failed: {type(error).__name__}: {error}"
    return None


def _load(name: str, asked_by: str) -> Backend:
    backend = _loaded.get(name) if isinstance(name, str) else None
    if backend is not None:
        return backend
    if not isinstance(name, str) or name not in BACKENDS:
        raise ValueError(f"{asked_by}: unknown backend {name!r}; there are {', '.join(map(repr, BACKENDS))}")
    reason = _obstacle(name)
    if reason is not None:
        raise RuntimeError(f"{asked_by}: backend {name!r} is not available: {reason}")
    return _loaded[name]
