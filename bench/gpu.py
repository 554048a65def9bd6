"""Time on a GPU: CUDA events on the default stream, L2 flushed before each sample."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

FLUSH_BYTES = 1 << 30


class EventStopwatch:
    """CUDA events around one call on the default stream, on which CuPy, Numba and torch all work.

    Before the first event a buffer larger than any L2 is written.  That empties the cache, and keeps the device busy
    while the host enqueues the call, so that the events measure the device and not the launch.
    """

    def __init__(self, cupy: Any = None) -> None:
        if cupy is None:
            import cupy  # type: ignore[no-redef]
        self._cupy = cupy
        self._stream = cupy.cuda.Stream.null
        self._flush = cupy.zeros(FLUSH_BYTES, "u1")

    def settle(self) -> None:
        """Wait for the device."""
        self._cupy.cuda.runtime.deviceSynchronize()

    def time(self, call: Callable[[], Any], own_stream: bool = False) -> float:
        """Device seconds of one call; wall-clock seconds where the library runs on a stream of its own (JAX)."""
        self._flush.data.memset_async(0, FLUSH_BYTES, self._stream)
        if own_stream:
            self.settle()
            start = time.perf_counter()
            call()
            return time.perf_counter() - start
        before, after = self._cupy.cuda.Event(), self._cupy.cuda.Event()
        before.record(self._stream)
        call()
        after.record(self._stream)
        after.synchronize()
        return self._cupy.cuda.get_elapsed_time(before, after) * 1e-3


class HostCostStopwatch(EventStopwatch):
    """What a call costs the host: the device is idle before it and is not waited for inside the timed part."""

    def time(self, call: Callable[[], Any], own_stream: bool = False) -> float:
        """Wall-clock seconds until `call` returns."""
        self.settle()
        start = time.perf_counter()
        call()
        seconds = time.perf_counter() - start
        self.settle()
        return seconds


def memory() -> int:
    """Free bytes on the current device."""
    import cupy

    return int(cupy.cuda.runtime.memGetInfo()[0])


def name() -> str:
    """The current device, in words."""
    import cupy

    properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    found = properties["name"]
    return found.decode() if isinstance(found, bytes) else str(found)


def driver() -> str:
    """The CUDA versions of the driver and of the runtime."""
    import cupy

    runtime = cupy.cuda.runtime
    return f"driver {runtime.driverGetVersion()}, runtime {runtime.runtimeGetVersion()}"
