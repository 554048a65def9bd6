"""What the fake libraries share: memory, devices, contexts, streams, captures."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

try:
    from numpy.lib.array_utils import byte_bounds
except ImportError:  # NumPy 1
    from numpy import byte_bounds

DEVICES = 2
LEGACY = 0  # the default stream


class CudaError(RuntimeError):
    """What a device answers to what it cannot do; nothing can be done with it afterwards."""


class Block:
    """An allocation: bytes on a device, filled with what no test expects."""

    def __init__(self, size: int, device: int) -> None:
        self.bytes = np.full(size + 256, 0xFB, np.uint8)
        self.pointer = -(-self.bytes.__array_interface__["data"][0] // 256) * 256
        self.size, self.device = size, device


class _Thread(threading.local):
    """Of each thread: its current device, and whether it has a context yet."""

    device = 0
    has_context = False

    def __init__(self) -> None:
        self.streams: dict[int, list[Any]] = {number: [] for number in range(DEVICES)}


class Machine:
    """The state of everything; `launches` and `host_copies` say what was asked of it."""

    def __init__(self) -> None:
        self.thread = _Thread()
        self.blocks: list[Block] = []
        self.copies: dict[int, tuple[np.ndarray, Block]] = {}  # what was copied here, by its identity
        self.launches: list[tuple[str, int, int]] = []  # function, stream, device
        self.computed: list[int] = []  # streams of what the libraries computed themselves
        self.allocated = 0  # times that memory was asked for
        self.host_copies = 0  # times that the host waited for the device to read or write
        self.capturing: dict[int, list[Callable[[], None]]] = {}
        self._captures: dict[int, int] = {}  # the number of the latest of each stream
        self._handles = 0x5EED00

    def alloc(self, size: int, device: int | None = None) -> Block:
        """New memory; on the current device unless another is named."""
        self.thread.has_context = True
        self.allocated += size > 0
        block = Block(size, self.thread.device if device is None else device)
        self.blocks.append(block)
        return block

    def handle(self) -> int:
        """Of a new stream."""
        self._handles += 16
        return self._handles

    def begin_capture(self, stream: int) -> None:
        """What the stream is given is kept from now on."""
        self.capturing[stream] = []
        self._captures[stream] = 1 + max(self._captures.values(), default=0)

    def cuStreamGetCaptureInfo_v2(self, stream: int, status: Any, number: Any, *unwanted: None) -> int:  # noqa: N802
        """The driver's: in which capture a stream is."""
        assert stream > 1, "the driver objects to being asked of the legacy stream while another one captures"
        assert unwanted == (None, None, None)
        status._obj.value = stream in self.capturing  # what `byref` refers to
        number._obj.value = self._captures.get(stream, 0xBAD)
        return 0

    def do(self, work: Callable[[], None], stream: int, device: int, function: str = "") -> None:
        """Work in a stream's order: at once, or kept for later while the stream captures."""
        if function:
            self.launches.append((function, stream, device))
        if stream in self.capturing:
            self.capturing[stream].append(work)
        else:
            work()


def placed(machine: Machine, array: np.ndarray, device: int) -> tuple[Block, np.ndarray]:
    """A copy on a device, strides and all: its block, and the values there."""
    low, high = byte_bounds(array) if array.size else (0, 0)
    block = machine.alloc(high - low, device)
    offset = address_of(array) - low if array.size else 0
    host = array_at(block.pointer + offset, array.shape, array.strides, array.dtype, block)
    host[...] = array
    return block, host


def array_at(pointer: int, shape: Any, strides: Any, dtype: np.dtype[Any], owner: Any) -> np.ndarray:
    """The memory at an address as a NumPy array."""

    if 0 in shape:
        return np.empty(shape, dtype)
    return np.asarray(_Interface(pointer, shape, strides, dtype, owner)).view(dtype)


class _Interface:
    def __init__(self, pointer: int, shape: Any, strides: Any, dtype: np.dtype[Any], owner: Any) -> None:
        self.owner = owner
        self.__array_interface__ = {
            "shape": tuple(shape), "strides": tuple(strides), "data": (pointer, False),
            "typestr": f"|V{dtype.itemsize}", "version": 3,
        }  # fmt: skip


def address_of(array: np.ndarray) -> int:
    """Of its first element."""
    return int(array.__array_interface__["data"][0])


class Capsule:
    """What `__dlpack__` hands over, once."""

    def __init__(self, pointer: int, host: np.ndarray, device: int, owner: Any) -> None:
        self.pointer, self.host, self.device, self.owner = pointer, host, device, owner
        self.is_consumed = False

    def consume(self) -> Capsule:
        """What is in it."""
        if self.is_consumed:
            raise ValueError("A DLPack tensor object cannot be consumed multiple times")
        self.is_consumed = True
        return self
