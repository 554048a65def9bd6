"""The machine that Numba CUDA kernels run on, played by NumPy: all threads of many blocks at once, as vectors.

A kernel's Python source runs unchanged, once: where a thread has a number, here is a vector with a number for every
thread, of the very dtype.  So float32 arithmetic is float32's, and one step costs the same for one thread as for a
thousand.  What every thread shares (loops, options, C) are plain numbers, so control flow is Python's; a kernel that
branched on what differs between threads would ask for the truth of a vector, which is an error.

What is found out beside the result:

  * shared memory is NaN (all ones) at first, and an access beyond what the launch asked for is an error;
  * an access to global memory that is not within an array of the call, or not aligned to its size, is an error;
  * two threads that access one place, one of them writing, with no barrier in between (of their block; of their warp,
    if they are in one), are a race, and an error, whatever the result.

Not modelled: performance, and blocks that wait for each other.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from numba import types, vectorize
from numba.extending import intrinsic

try:
    from numpy.lib.array_utils import byte_bounds
except ImportError:  # NumPy 1
    from numpy import byte_bounds

WARP = 32


class EmulatorError(AssertionError):
    """The kernel did what a device would not forgive."""


# --- the state of a launch --------------------------------------------------------------------------------------------


class Shadow:
    """Who accessed each place of a memory last, and when: what races are found by."""

    def __init__(self, places: int) -> None:
        self.writer = np.full(places, -1, np.int32)
        self.written = np.full(places, -1, np.int32)
        self.reader = np.full(places, -1, np.int32)
        self.read = np.full(places, -1, np.int32)
        self.spread = np.zeros(places, np.int8)  # of several readers: 1 in a warp, 2 in a block, 3 in several


class Region:
    """The memory of the array that owns it: from `low` to `high`.  K tangents are addressed from the first one's."""

    def __init__(self, array: np.ndarray) -> None:
        self.pointer = array.__array_interface__["data"][0]
        while isinstance(array.base, np.ndarray):
            array = array.base
        self.array = array
        self.low, self.high = byte_bounds(array) if array.size else (self.pointer, self.pointer)
        self.base = self.low & ~15
        size = (self.high - self.base + 15) & ~15
        self._bytes = _memory(self.base, size)
        self._views: dict[int, np.ndarray] = {}
        self.shadow: Shadow | None = None

    def view(self, size: int) -> np.ndarray:
        """The memory in units of `size` bytes; of 16 as four words."""
        if size not in self._views:
            dtype = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint32, 16: np.uint32}[size]
            view = self._bytes.view(dtype)
            self._views[size] = view.reshape(-1, size // 4) if size > 4 else view
        return self._views[size]


def _memory(address: int, size: int) -> np.ndarray:
    import ctypes

    return np.frombuffer((ctypes.c_char * size).from_address(address), np.uint8) if size else np.empty(0, np.uint8)


class State:
    """The blocks that run now."""

    def __init__(
        self, blocks: np.ndarray, grid: int, threads: int, shared_bytes: int, regions: list[Region], races: bool
    ) -> None:
        self.blocks, self.grid, self.threads, self.regions, self.races = blocks, grid, threads, regions, races
        self.count = len(blocks) * threads
        self.thread_index = np.tile(np.arange(threads, dtype=np.int32), len(blocks))
        self.block_index = np.repeat(blocks.astype(np.int32), threads)
        self.block = np.repeat(np.arange(len(blocks)), threads)
        self.me = self.block_index * np.int32(threads) + self.thread_index
        self.shared = np.full((len(blocks), (shared_bytes + 15) // 16 * 16), 0xFF, np.uint8)
        self.shared_shadow = Shadow(self.shared.size // 4)
        self.now, self.clock = 0, np.array([-1, -1, -1, -1], np.int32)  # last sync of: itself, warp, block, grid

    def spread(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """How far apart two threads are: 0 the same, 1 in a warp, 2 in a block, 3 in two."""
        far = np.where(a // self.threads == b // self.threads, 2, 3)
        return np.where(a == b, 0, np.where(a // WARP == b // WARP, 1, far))

    def vector(self, x: Any) -> np.ndarray:
        """A number for every thread."""
        x = np.asarray(x)
        return x if x.shape == (self.count,) else np.broadcast_to(x, (self.count,))

    def note(self, shadow: Shadow, places: np.ndarray, who: np.ndarray, writes: bool, what: str) -> None:
        """An access by threads `who`, judged against those before it."""
        if not self.races:
            return
        self.now += 1
        clock = self.clock
        writer = shadow.writer[places]
        apart = self.spread(writer, who)
        bad = (writer >= 0) & (apart > 0) & (shadow.written[places] >= clock[apart])
        if writes:
            reader = shadow.reader[places]
            apart = np.maximum(self.spread(reader, who), shadow.spread[places])
            bad |= (reader >= 0) & (apart > 0) & (shadow.read[places] >= clock[apart])
            shadow.writer[places], shadow.written[places] = who, self.now
            bad |= shadow.writer[places] != who
        else:
            reader = shadow.reader[places]
            apart = np.maximum(self.spread(reader, who), shadow.spread[places])
            # Readers that have met this one since are forgotten.
            met = (reader < 0) | (shadow.read[places] < clock[apart])
            apart = np.where(met, 0, apart)
            shadow.spread[places[met]] = 0
            # Several threads may read one place in this very step.
            shadow.reader[places] = who
            apart = np.maximum(apart, self.spread(shadow.reader[places], who))
            np.maximum.at(shadow.spread, places, apart.astype(np.int8))
            shadow.read[places] = self.now
        if bad.any():
            at = int(bad.argmax())
            raise EmulatorError(
                f"race on {what}: thread {int(who[at]) % self.threads} of block {int(who[at]) // self.threads} "
                f"{'writes' if writes else 'reads'} what another thread has accessed since they last met"
            )


state: Any = None  # a `State` while a kernel runs


def start(*arguments: Any) -> None:
    """Blocks begin."""
    global state
    state = State(*arguments)


# --- numbers ----------------------------------------------------------------------------------------------------------


def float_bits(x):
    x = np.asarray(x)
    return x.view(np.uint32 if x.dtype == np.float32 else np.uint64)


def bits_float(bits):
    bits = np.asarray(bits)
    return bits.view(np.float32 if bits.dtype == np.uint32 else np.float64)


@intrinsic
def _fma(typing_context, a, b, c):
    return a(a, b, c), lambda context, builder, signature, arguments: builder.fma(*arguments)


@vectorize([types.float32(types.float32, types.float32, types.float32), types.float64(*[types.float64] * 3)])
def fused(a, b, c):
    return _fma(a, b, c)


def next_address(address, step):
    return address + step


def select(condition, a, b):
    return np.where(condition, a, b)


def widen_float16(bits):
    return np.asarray(bits).astype(np.uint16).view(np.float16).astype(np.float32)


def narrow_float16(x):
    return x.astype(np.float16).view(np.uint16).astype(np.uint32)


# --- threads ----------------------------------------------------------------------------------------------------------


def some(condition):
    return bool(np.any(condition))


def agreed(condition):
    values = np.unique(condition)
    if len(values) > 1:
        raise EmulatorError("threads of a block branch apart")
    return bool(values[0])


def exchange(x, distance):
    x = state.vector(x)
    return x.reshape(-1, WARP)[:, np.arange(WARP) ^ distance].reshape(-1)


def syncthreads():
    state.clock[1] = state.clock[2] = state.now = state.now + 1


def syncwarp():
    state.clock[1] = state.now = state.now + 1


def publish():
    pass


def take_ticket(address, when):
    region, index, who = _find(address, 4, when)
    tickets = np.zeros(state.count, np.uint32)
    for place, thread in zip(index, who, strict=True):
        tickets[thread] = region.view(4)[place]
        region.view(4)[place] += np.uint32(1)
    return tickets


def lower_to(address, x, when):
    region, index, who = _find(address, 8, when)
    if not who.size:
        return
    np.minimum.at(region.view(8).reshape(-1).view(np.uint64), index, state.vector(x)[who].astype(np.uint64))


# --- memory -----------------------------------------------------------------------------------------------------------


class SharedArray:
    """A block's dynamic shared memory as an array of one dtype."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self.words = self.dtype.itemsize // 4

    def _places(self, i: Any, who: Any) -> tuple[np.ndarray, np.ndarray]:
        i = state.vector(i)[who]
        size = state.shared.shape[1] // self.dtype.itemsize
        if i.size and (i.min() < 0 or i.max() >= size):
            raise EmulatorError(
                f"shared memory of {state.shared.shape[1]} bytes has no element {int(i.max())} of {self.dtype}"
            )
        flat = state.block[who] * size + i
        return flat, (flat[:, None] * self.words + np.arange(self.words)).reshape(-1)

    def __getitem__(self, i: Any) -> np.ndarray:
        flat, places = self._places(i, slice(None))
        state.note(state.shared_shadow, places, np.repeat(state.me, self.words), False, "shared memory")
        return state.shared.reshape(-1).view(self.dtype)[flat]

    def __setitem__(self, i: Any, x: Any) -> None:
        self.put(i, x, True)

    def put(self, i: Any, x: Any, when: Any) -> None:
        who = np.flatnonzero(state.vector(when))
        flat, places = self._places(i, who)
        state.note(state.shared_shadow, places, np.repeat(state.me[who], self.words), True, "shared memory")
        state.shared.reshape(-1).view(self.dtype)[flat] = state.vector(x)[who]


def put(array, i, x, when):
    array.put(i, x, when)


class LocalArray:
    """An array of a thread's own: an element is a vector, replaced as a whole."""

    def __init__(self, size: int, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self._elements: list[Any] = [np.array(np.nan).astype(self.dtype)] * size

    def __getitem__(self, i: int) -> Any:
        return self._elements[i]

    def __setitem__(self, i: int, x: Any) -> None:
        x = np.asarray(x)
        if x.dtype != self.dtype:
            raise EmulatorError(f"a {x.dtype} number where the array holds {self.dtype}")
        if i < 0:
            raise EmulatorError("negative index")
        self._elements[i] = x


def _find(address: Any, size: int, when: Any) -> tuple[Any, np.ndarray, np.ndarray]:
    """The region, the indices in units of `size`, and the threads concerned."""
    if when is True or np.all(when):
        who = np.arange(state.count)
        addresses = state.vector(address)
    else:
        who = np.flatnonzero(when)
        addresses = state.vector(address)[who]
    if not addresses.size:
        return None, np.zeros(0, np.intp), who
    low, high = int(addresses.min()), int(addresses.max()) + size
    for region in state.regions:
        if region.low <= low and high <= region.high:
            break
    else:
        raise EmulatorError(f"access of {size} bytes outside the call's arrays: {low:#x} … {high:#x}")
    if (addresses % size).any():
        raise EmulatorError(f"access of {size} bytes at an address that is no multiple of it")
    return region, (addresses - region.base) // size, who


def _note(region: Region, index: np.ndarray, size: int, who: np.ndarray, writes: bool) -> None:
    if not state.races or (writes and size == 1):  # places are two bytes: neighbours that copy bytes share one
        return
    if region.shadow is None:
        region.shadow = Shadow(len(region.view(2)))
    halves = max(size // 2, 1)
    places = (index[:, None] * halves + np.arange(halves)).reshape(-1) if size > 1 else index // 2
    state.note(region.shadow, places, np.repeat(state.me[who], halves), writes, "global memory")


def _load(address: Any, size: int, when: Any, *, fresh: bool = False) -> Any:
    region, index, who = _find(address, size, when)
    shape = (state.count, size // 4) if size > 4 else (state.count,)
    if not who.size:
        return np.zeros(shape, np.uint32)
    if not fresh:
        _note(region, index, size, who, writes=False)
    values = region.view(size)[index]
    if who.size == state.count:
        return values.astype(np.uint32, copy=False)
    result = np.zeros(shape, np.uint32)
    result[who] = values
    return result


def _store(address: Any, size: int, words: Any, when: Any) -> None:
    region, index, who = _find(address, size, when)
    if not who.size:
        return
    _note(region, index, size, who, writes=True)
    view = region.view(size)
    if size > 4:
        for i, word in enumerate(words):
            view[index, i] = state.vector(word)[who]
    else:
        view[index] = state.vector(words)[who].astype(view.dtype)


def load_16(address, otherwise, when):
    words = _load(address, 16, when).T
    return tuple(np.where(when, word, other) for word, other in zip(words, otherwise, strict=True))


def load_8(address, when):
    return tuple(_load(address, 8, when).T)


def load_4(address, when):
    return _load(address, 4, when)


def load_2(address, when):
    return _load(address, 2, when)


def load_1(address, when):
    return _load(address, 1, when)


def load_fresh(address, when):
    return tuple(_load(address, 8, when, fresh=True).T)


def store_16(address, words, when):
    _store(address, 16, words, when)


def store_8(address, low, high, when):
    _store(address, 8, (low, high), when)


def store_4(address, word, when):
    _store(address, 4, word, when)


def store_2(address, word, when):
    _store(address, 2, word, when)


def store_1(address, word, when):
    _store(address, 1, word, when)


class _Index:
    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def x(self) -> np.ndarray:
        return getattr(state, self._name)


# What stands for the module `numba.cuda`, and for each function of `machine` that is not plain Python.
CUDA = SimpleNamespace(
    threadIdx=_Index("thread_index"),
    blockIdx=_Index("block_index"),
    syncthreads=syncthreads,
    syncwarp=syncwarp,
    shared=SimpleNamespace(array=lambda size, dtype: SharedArray(dtype)),
    local=SimpleNamespace(array=LocalArray),
)
FUNCTIONS: dict[str, Any] = {
    "float_bits": float_bits,
    "bits_float": bits_float,
    "fused": fused,
    "next_address": next_address,
    "select": select,
    "widen_float16": widen_float16,
    "narrow_float16": narrow_float16,
    "log1p": np.log1p,
    "log": np.log,
    "exp": np.exp,
    "tanh": np.tanh,
    "some": some,
    "agreed": agreed,
    "exchange": exchange,
    "take_ticket": take_ticket,
    "lower_to": lower_to,
    "publish": publish,
    "put": put,
    "load_16": load_16,
    "load_8": load_8,
    "load_4": load_4,
    "load_2": load_2,
    "load_1": load_1,
    "load_fresh": load_fresh,
    "store_16": store_16,
    "store_8": store_8,
    "store_4": store_4,
    "store_2": store_2,
    "store_1": store_1,
}
