"""Where the arguments of a launch lie when the driver reads them."""

from __future__ import annotations

import ctypes
import threading

LONGEST = 1024  # bytes of a kernel's arguments


class Parcel:
    """Memory for the arguments of a launch, and what `cuLaunchKernel` must know of it.

    A kernel takes one struct by value.  It is handed over by the address of an array of pointers, one for each
    parameter; or by that of a list that means all of them as one block of bytes, however the compiler has cut them.
    The driver has read either when it returns.
    """

    __slots__ = ("_block", "_bytes", "_extra", "_extra_at", "_parameters", "_parameters_at", "_size")

    def __init__(self) -> None:
        self._bytes = bytearray(LONGEST)
        self._block = (ctypes.c_char * LONGEST).from_buffer(self._bytes)
        self._size = ctypes.c_size_t()
        self._parameters = (ctypes.c_void_p * 1)(ctypes.addressof(self._block))
        # CU_LAUNCH_PARAM_BUFFER_POINTER, _BUFFER_SIZE, _END
        self._extra = (ctypes.c_void_p * 5)(1, ctypes.addressof(self._block), 2, ctypes.addressof(self._size), 0)
        self._parameters_at, self._extra_at = ctypes.addressof(self._parameters), ctypes.addressof(self._extra)

    def parameters(self, arguments: bytes) -> int:
        """The address of the array, with these arguments put in."""
        self._bytes[: len(arguments)] = arguments
        return self._parameters_at

    def extra(self, arguments: bytes) -> int:
        """The address of the list."""
        self._size.value = size = len(arguments)
        self._bytes[:size] = arguments
        return self._extra_at


class Parcels(threading.local):
    """A parcel for each thread: another may be launching meanwhile."""

    def __init__(self) -> None:
        self.mine = Parcel()
