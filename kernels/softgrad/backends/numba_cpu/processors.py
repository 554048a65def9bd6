"""How many processors this process may use, and which one a thread should leave alone."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numba

UNKNOWN = -1


def allowed() -> int:
    """How many threads may be used: what numba was told, and no more than this process has processors."""
    # get_num_threads() starts numba's own pool; before that nobody can have called set_num_threads().
    if getattr(_parallel, "_is_initialized", False):
        return int(numba.get_num_threads())
    number = int(_config.NUMBA_NUM_THREADS)
    return number if _TOLD else min(number, _QUOTA)


_parallel: Any = numba.np.ufunc.parallel
_config: Any = numba.config
_TOLD = "NUMBA_NUM_THREADS" in os.environ  # which numba, too, reads when it is imported


def _processors_by_quota() -> int:
    """The processors a container's limit on processor time amounts to; many where there is none."""
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        if quota != "max":
            return max(1, -(-int(quota) // int(period)))
    with suppress(OSError, ValueError):
        folder = Path("/sys/fs/cgroup/cpu")
        quota_v1 = int((folder / "cpu.cfs_quota_us").read_text(encoding="ascii"))
        period_v1 = int((folder / "cpu.cfs_period_us").read_text(encoding="ascii"))
        if quota_v1 > 0 and period_v1 > 0:
            return max(1, -(-quota_v1 // period_v1))
    return 1 << 20


_QUOTA = _processors_by_quota()


def _find_current() -> Callable[[], int]:
    if hasattr(os, "sched_setaffinity"):  # else there would be nothing to do with it
        with suppress(AttributeError, OSError, TypeError):
            function = ctypes.PyDLL(None).sched_getcpu  # PyDLL: no need to let go of the GIL
            function.argtypes, function.restype = (), ctypes.c_int
            return function
    return lambda: UNKNOWN


# The number of the processor that the calling thread runs on; UNKNOWN where the system does not say.
current = _find_current()


def keep_off(thread: int, processor: int) -> None:
    """Let a thread, by its native id, run on all processors that the caller may use but this one, if there are any."""
    others = os.sched_getaffinity(0) - {processor}
    if others:
        with suppress(OSError):  # the thread, or a processor, is gone
            os.sched_setaffinity(thread, others)
