"""What both GPU backends must know of the libraries whose arrays they take.

Nothing is imported here: a library whose array has arrived is in `sys.modules`.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any


def library_of(array: Any) -> str:
    """The package that an array is of."""
    return _package(type(array).__module__)


@cache
def _package(module: str) -> str:
    package = module.partition(".")[0]
    return "jax" if package == "jaxlib" else package


def is_plain_tensor(tensor: Any) -> bool:
    """Whether a torch tensor is its memory on a GPU and no more.

    Not one that autograd watches, whose changes it would not see; nor one whose conjugation or negation has yet to be
    carried out, of which DLPack says nothing.
    """
    torch = sys.modules["torch"]
    return bool(
        type(tensor) in (torch.Tensor, torch.nn.Parameter)  # a subclass may mean something else
        and tensor.is_cuda
        and not tensor.requires_grad
        and tensor.layout == torch.strided
        and not tensor.is_conj()
        and not tensor.is_neg()
    )


def stream_of_tensor(tensor: Any) -> int:
    """Handle of torch's current stream of the tensor's device."""
    return int(sys.modules["torch"].cuda.current_stream(tensor.device).cuda_stream)


def stream_of_numba(array: Any) -> int:
    """Handle of the stream that a Numba device array is bound to, else of the default one: Numba has no current one."""
    handle = getattr(array.stream, "handle", array.stream)
    return int(getattr(handle, "value", handle) or 0)
