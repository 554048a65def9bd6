"""Rows shared out over threads of our own.

Not numba's parallel loops: their `workqueue` layer aborts the process when two Python threads meet in it, their GNU
OpenMP layer kills a forked child, and which layer it will be is the user's choice.  Threads of our own are safe in
both, and beside other users of numba's pool.

The caller always works itself, taking one share after the other from a counter that all threads advance; helpers join
when they wake.  So a busy machine or a late helper costs balance, never correctness, and nobody waits for a thread
that has not begun.  A kernel releases the GIL, and a row's bits do not depend on who computes it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numba
import numpy as np

# A share for a thread that must be woken should be worth more than waking it, some ten microseconds.
WORTH = 200_000  # elements of exponentials, one or two tenths of a millisecond


class Job:
    """One parallel call: `run` is called by every thread that joins before the work is gone."""

    def __init__(self, run: Callable[[], None]) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._open = True
        self._inside = 0
        self._left = threading.Lock()  # held while a helper is inside
        self._error: BaseException | None = None

    def help(self) -> None:
        """A helper's part: nothing, if the work is gone."""
        with self._lock:
            if not self._open:
                return
            self._inside += 1
            if self._inside == 1:
                self._left.acquire()
        try:
            self._run()
        except BaseException as error:
            self._error = error
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    self._left.release()

    def work(self) -> None:
        """The caller's part: until all is done."""
        try:
            self._run()
        finally:
            self._close()
        if self._error is not None:
            raise self._error

    def _close(self) -> None:
        """Let nobody in any more and wait for those inside, who use the caller's arrays: an interrupt is put off."""
        interrupt: BaseException | None = None
        while True:
            try:
                with self._lock:
                    self._open = False
                with self._left:
                    break
            except BaseException as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt


class Pool:
    """Threads that wait for jobs; started when first needed, and anew in a forked child, which inherits none."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Job] = SimpleQueue()
        self._lock = threading.Lock()
        self._helpers = 0

    def run(self, function: Callable[[], None], threads: int) -> None:
        """Call `function` here and in up to threads − 1 others at once; it must share out the work itself."""
        if threads <= 1:
            function()
            return
        if self._helpers < threads - 1:
            self._start(threads - 1)
        job = Job(function)
        for _ in range(threads - 1):
            self._jobs.put(job)
        job.work()

    def _start(self, helpers: int) -> None:
        with self._lock:
            while self._helpers < helpers:
                thread = threading.Thread(target=self._serve, args=(self._jobs,), name="softgrad", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # no thread to be had (or the interpreter is going): the caller does it all
                    return
                self._helpers += 1

    @staticmethod
    def _serve(jobs: SimpleQueue[Job]) -> None:
        while True:
            jobs.get().help()


_pool = Pool()


def _forget() -> None:
    global _pool
    _pool = Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def share(elements: int, tasks: int, run: Callable[[int], None]) -> None:
    """Call ``run(counter)`` in as many threads as the work is worth; it takes tasks from the int64 at that address."""
    counter = np.zeros(1, np.int64)
    address = counter.ctypes.data
    threads = min(tasks, elements // WORTH)
    if threads > 1:
        threads = min(threads, allowed())
    if threads > 1:
        # With no task left, this compiles: were helpers to do that, they would wait for numba's lock, which a caller
        # who is interrupted while compiling may keep.
        counter[0] = tasks
        run(address)
        counter[0] = 0
        _pool.run(lambda: run(address), threads)
    else:
        run(address)


def allowed() -> int:
    """How many threads may be used: what numba was told, and no more than this process has processors."""
    parallel: Any = numba.np.ufunc.parallel
    config: Any = numba.config
    # get_num_threads() starts numba's own pool; before that nobody can have called set_num_threads().
    if getattr(parallel, "_is_initialized", False):
        return int(numba.get_num_threads())
    if "NUMBA_NUM_THREADS" in os.environ:
        return int(config.NUMBA_NUM_THREADS)
    return min(int(config.NUMBA_NUM_THREADS), _QUOTA)


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
