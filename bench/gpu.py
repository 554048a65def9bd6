"""Time and memory on a GPU, through CuPy or torch, whichever is there: CUDA events, L2 flushed before each sample."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable
from typing import Any

from bench.race import Wait

FLUSH_BYTES = 1 << 30


class CupyRuntime:
    """The little of the CUDA runtime that the benchmark needs; everything on the default stream."""

    def __init__(self) -> None:
        import cupy

        self._cupy, self._cuda = cupy, cupy.cuda.runtime
        self._cuda.memGetInfo()  # raises where there is no device

    def buffer(self, size: int) -> Any:
        """`size` bytes of device memory."""
        return self._cupy.ones(size, "u1")

    def fill(self, buffer: Any) -> None:
        """Write all of a buffer."""
        buffer.data.memset_async(0, buffer.nbytes, self._cupy.cuda.Stream.null)

    def copy(self, target: Any, source: Any) -> None:
        """Copy from device memory to device memory."""
        target.data.copy_from_device_async(source.data, source.nbytes, self._cupy.cuda.Stream.null)

    def event(self) -> Any:
        """A recorded event."""
        event = self._cupy.cuda.Event()
        event.record(self._cupy.cuda.Stream.null)
        return event

    def seconds(self, before: Any, after: Any) -> float:
        """Seconds between two events, once both have come."""
        after.synchronize()
        return float(self._cupy.cuda.get_elapsed_time(before, after)) * 1e-3

    def synchronize(self) -> None:
        """Wait for the device."""
        self._cuda.deviceSynchronize()

    def free_bytes(self) -> int:
        """Free memory, the pools' own given back first."""
        self.release()
        return int(self._cuda.memGetInfo()[0])

    def release(self) -> None:
        """Give back what the libraries' pools keep for later."""
        self._cupy.get_default_memory_pool().free_all_blocks()
        if "torch" in sys.modules:
            sys.modules["torch"].cuda.empty_cache()

    def peak(self, call: Callable[[], Any]) -> int:
        """Bytes that CuPy's pool had to ask the device for during a call."""
        pool = self._cupy.get_default_memory_pool()
        pool.free_all_blocks()
        before = pool.total_bytes()
        kept = call()
        self.synchronize()
        peak = pool.total_bytes() - before
        del kept
        return int(peak)

    def name(self) -> str:
        """The device's name."""
        return self._cuda.getDeviceProperties(self._cupy.cuda.Device().id)["name"].decode()

    def version(self) -> str:
        """The versions of CUDA's driver and runtime."""
        return f"driver {self._cuda.driverGetVersion()}, runtime {self._cuda.runtimeGetVersion()}"


class TorchRuntime:
    """The same part of the CUDA runtime, through torch."""

    def __init__(self) -> None:
        import torch

        self._cuda = torch.cuda
        self._torch = torch
        self._cuda.mem_get_info()  # raises where there is no device

    def buffer(self, size: int) -> Any:
        """`size` bytes of device memory."""
        return self._torch.ones(size, dtype=self._torch.uint8, device="cuda")

    def fill(self, buffer: Any) -> None:
        """Write all of a buffer."""
        buffer.zero_()

    def copy(self, target: Any, source: Any) -> None:
        """Copy from device memory to device memory."""
        target.copy_(source)

    def event(self) -> Any:
        """A recorded event."""
        event = self._cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, before: Any, after: Any) -> float:
        """Seconds between two events, once both have come."""
        after.synchronize()
        return float(before.elapsed_time(after)) * 1e-3

    def synchronize(self) -> None:
        """Wait for the device."""
        self._cuda.synchronize()

    def free_bytes(self) -> int:
        """Free memory, the allocator's own given back first."""
        self.release()
        return int(self._cuda.mem_get_info()[0])

    def release(self) -> None:
        """Give back what the allocator keeps for later."""
        self._cuda.empty_cache()

    def peak(self, call: Callable[[], Any]) -> None:
        """Without CuPy no allocator serves all contenders, so none is asked."""

    def name(self) -> str:
        """The device's name."""
        return str(self._cuda.get_device_name())

    def version(self) -> str:
        """The version of CUDA that torch was built for."""
        return f"runtime {self._torch.version.cuda}"


def runtime() -> Any:
    """CuPy's or torch's view of the current device; RuntimeError with both reasons where neither has one."""
    reasons = []
    for package, kind in (("cupy", CupyRuntime), ("torch", TorchRuntime)):
        if importlib.util.find_spec(package) is None:
            reasons.append(f"{package} is not installed")
            continue
        try:
            return kind()
        except Exception as error:  # no driver, no device, a broken wheel: all the same here
            reasons.append(f"{package}: {type(error).__name__}: {str(error).strip().splitlines()[0]}")
    raise RuntimeError("no NVIDIA GPU can be used: " + "; ".join(reasons))


class EventStopwatch:
    """CUDA events around one call on the default stream, on which CuPy, Numba and torch all work.

    Before the first event a buffer larger than any L2 is written.  That empties the cache, and keeps the device busy
    while the host enqueues the call, so that the events measure the device and not the launch.
    """

    MORE = 4  # calls

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        self._flush = cuda.buffer(FLUSH_BYTES)

    def settle(self) -> None:
        """Wait for the device."""
        self._cuda.synchronize()

    def time(self, call: Callable[[], Any], wait: Wait = None) -> float:
        """Device seconds of one call; where a library runs on streams of its own (JAX), what one more call adds.

        That is the device's time, too, if the calls are enqueued faster than they run and leave no L2 to the next.
        """
        self._cuda.fill(self._flush)
        if wait is not None:
            self._cuda.synchronize()
            once, more = (_wall(call, wait, times) for times in (1, 1 + self.MORE))
            return (more - once) / self.MORE if more > once else once
        before = self._cuda.event()
        call()
        return self._cuda.seconds(before, self._cuda.event())


def _wall(call: Callable[[], Any], wait: Callable[[Any], Any], times: int) -> float:
    """Wall-clock seconds of so many calls, enqueued at once."""
    start = time.perf_counter()
    wait([call() for _ in range(times)])
    return time.perf_counter() - start


class HostCostStopwatch:
    """What a call costs the host: the device is idle before it and is not waited for inside the timed part."""

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda

    def settle(self) -> None:
        """Wait for the device."""
        self._cuda.synchronize()

    def time(self, call: Callable[[], Any], wait: Wait = None) -> float:
        """Wall-clock seconds until `call` returns."""
        self._cuda.synchronize()
        start = time.perf_counter()
        call()
        seconds = time.perf_counter() - start
        self._cuda.synchronize()
        return seconds
