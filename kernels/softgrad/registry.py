"""The table of backends, and what to say of an array that none of them serves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the table of backends."""

    module: str
    serves: str  # the arrays, in words, for error messages
    needs: tuple[str, ...]  # packages that must be importable; the first is named in the advice
    extra: str  # pip install softgrad[extra]
    host: bool  # takes NumPy arrays, numbers and sequences


# In order of preference for the arrays they share.
BACKENDS = {
    "numba": Entry("softgrad.backends.numba_cpu", "NumPy arrays", ("numba",), "cpu", host=True),
    "numpy": Entry("softgrad.backends.numpy_cpu", "NumPy arrays", (), "", host=True),
}


def unserved(name: str, array: Any) -> str:
    """The message for an argument that no backend serves on its device: nothing is converted unasked."""
    kind = f"{type(array).__module__}.{type(array).__qualname__}"
    if isinstance(array, np.ma.MaskedArray):
        advice = f"`{name}.filled(-np.inf)`, which masks those classes"
    elif hasattr(array, "detach"):
        advice = f"`{name}.detach().cpu().numpy()`"
    elif hasattr(array, "to_numpy"):
        advice = f"`{name}.to_numpy()`"
    elif hasattr(array, "__cuda_array_interface__"):
        advice = f"`cupy.asnumpy({name})`, a copy on the CPU"
    else:
        advice = f"`np.asarray({name})`"
    served = sorted({entry.serves for entry in BACKENDS.values()})
    return (
        f"`{name}` is a {kind}; softgrad serves {', '.join(served)}, numbers and (nested) sequences of them here, "
        f"and converts nothing unasked. Convert it yourself: {advice}"
    )
