"""The table of backends, and what to say of an array that none of them serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the table of backends."""

    module: str
    device: Literal["cpu", "cuda"]  # where the arrays it takes are
    serves: str  # those arrays, in words, for error messages
    home: str = ""  # the package whose arrays prefer it to the other backends of its device
    needs: tuple[str, ...] = ()  # packages that must be importable
    extra: str = ""  # pip install softgrad[extra]


# In order of preference for the arrays they share.
BACKENDS = {
    "numba": Entry("softgrad.backends.numba_cpu", "cpu", "NumPy arrays", needs=("numba",), extra="cpu"),
    "numpy": Entry("softgrad.backends.numpy_cpu", "cpu", "NumPy arrays"),
    "cupy": Entry("softgrad.backends.cupy_cuda", "cuda", "CUDA arrays", home="cupy", needs=("cupy",), extra="cuda13"),
    "numba_cuda": Entry(
        "softgrad.backends.numba_cuda.backend",
        "cuda",
        "CUDA arrays",
        home="numba",
        needs=("numba_cuda",),
        extra="numba-cuda",
    ),
}


def unserved(name: str, array: Any, like: Any = None, reasons: Sequence[str] = ()) -> str:
    """The message for an argument that is not served where it is: nothing is converted unasked.

    `like` is the main input if it is another argument, which has been accepted; `reasons` say why backends that
    could have served the array are not available.
    """
    if like is None or isinstance(like, np.ndarray):
        served = dict.fromkeys(entry.serves for entry in BACKENDS.values())
        wanted = f"softgrad serves {', '.join(served)}, numbers and (nested) sequences of them"
        if like is not None:
            wanted = (
                "every array of a call must be of the main input's library and device, which is NumPy "
                "(numbers and nested sequences of them will do)"
            )
        conversion = _to_numpy(name, array)
    else:
        library = type(like).__module__.partition(".")[0]
        wanted = f"every array of a call must be of the library and device of the main input, a {_kind(like)}"
        conversion = f"`{library}.asarray({name})`"
    unavailable = "".join(f" ({reason})" for reason in reasons)
    advice = f"; softgrad converts nothing unasked. Convert it yourself: {conversion}" if conversion else ""
    return f"`{name}` is a {_kind(array)}; {wanted}{unavailable}{advice}"


def _kind(array: Any) -> str:
    return f"{type(array).__module__}.{type(array).__qualname__}".removeprefix("builtins.")


def _to_numpy(name: str, array: Any) -> str:
    """The expression that makes a NumPy array of it, if there is one."""
    if isinstance(array, np.ma.MaskedArray):
        if name == "out":
            return "`out.data`"  # a filled copy would take the result away from the caller
        return f"`{name}.filled(-np.inf)`, which masks those classes" if name == "logits" else f"`{name}.filled(...)`"
    # Looked up on the type: an attribute of the object itself may be computed, and raise.
    kind = type(array)
    if hasattr(kind, "detach"):
        return f"`{name}.detach().cpu().numpy()`"
    if hasattr(kind, "to_numpy"):
        return f"`{name}.to_numpy()`"
    if hasattr(kind, "copy_to_host"):  # Numba's device arrays
        return f"`{name}.copy_to_host()`"
    if kind.__module__.partition(".")[0] == "cupy":
        return f"`cupy.asnumpy({name})`"
    if kind in (dict, set, frozenset, str, bytes):  # of which NumPy makes something else than numbers
        return ""
    if any(hasattr(kind, speaks) for speaks in ("__array__", "__dlpack__", "__buffer__", "__len__")):
        return f"`np.asarray({name})`"
    return ""
