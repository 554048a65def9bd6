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
import time
from collections.abc import Callable
from queue import SimpleQueue

import numpy as np

from softgrad.backends.numba_cpu import processors
from softgrad.backends.numba_cpu.addresses import address
from softgrad.backends.numba_cpu.compiling import kernel
from softgrad.backends.numba_cpu.lanes import peek, relax

# A share for a thread that must be woken should be worth more than waking it, some ten microseconds.
WORTH = 200_000  # elements of exponentials, one or two tenths of a millisecond

# Interrupts that are put off while others work on the caller's arrays; more than a person will send.
PATIENCE = 1000


@kernel
def await_change(at, value):
    """Wait some microseconds for a number to change, without going to sleep: to be woken would take longer.

    It would often also take the caller to the processor of the helper that wakes it.
    """
    for _ in range(2000):
        if peek(at) != value:
            return
        relax()


class Job:
    """One parallel call: `run` is called by every thread that joins before the work is gone.

    Helpers wait until the caller has `begun`, and so compiled what had to be: were a helper to do that, it would wait
    for numba's lock, which a caller who is interrupted while compiling may keep.
    """

    def __init__(self, run: Callable[[], None], begun: Callable[[], bool]) -> None:
        self._run = run
        self._begun = begun
        self._lock = threading.Lock()
        self._open = True
        self._inside = np.zeros(1, np.int64)  # helpers at work
        self._left = threading.Lock()  # held while a helper is inside
        self._error: BaseException | None = None

    def help(self) -> None:
        """A helper's part: nothing, if the work is gone."""
        pause = 1e-4
        while self._open and not self._begun():
            time.sleep(pause)
            pause = min(2 * pause, 0.005)
        with self._lock:
            if not self._open:
                return
            self._inside[0] += 1
            if self._inside[0] == 1:
                self._left.acquire()
        try:
            self._run()
        except BaseException as error:
            self._error = error
        finally:
            with self._lock:
                self._inside[0] -= 1
                if self._inside[0] == 0:
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
        """Let nobody in any more and wait for those inside, who use the caller's arrays.

        An interrupt, whatever it raises, is put off meanwhile.  So is a fault of this function's own, which would
        come again: nothing is tried for ever.
        """
        put_off: BaseException | None = None
        for attempt in range(PATIENCE):
            try:
                with self._lock:
                    self._open = False
                    inside = int(self._inside[0])
                if inside and attempt == 0:
                    await_change(address(self._inside), inside)
                with self._left:
                    break
            except BaseException as error:
                put_off = error
        if put_off is not None:
            raise put_off


class Pool:
    """Threads that wait for jobs; started when first needed, and anew in a forked child, which inherits none."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Job] = SimpleQueue()
        self._lock = threading.Lock()
        self._helpers: list[Helper] = []

    def run(self, function: Callable[[], None], threads: int, begun: Callable[[], bool] = lambda: True) -> None:
        """Call `function`, which shares out the work, here and, once that has `begun`, in up to threads − 1 others."""
        if threads <= 1:
            function()
            return
        if len(self._helpers) < threads - 1:
            self._start(threads - 1)
        here = processors.current()
        for helper in self._helpers:
            helper.keep_off(here)
        job = Job(function, begun)
        for _ in range(threads - 1):
            self._jobs.put(job)
        job.work()

    def _start(self, helpers: int) -> None:
        number = np.zeros(1, np.int64)
        await_change(address(number), 1)  # compiled before there is anybody to wait for
        with self._lock:
            while len(self._helpers) < helpers:
                helper = Helper(self._jobs)
                try:
                    helper.start()
                except RuntimeError:  # no thread to be had (or the interpreter is going): the caller does it all
                    return
                self._helpers.append(helper)


class Helper(threading.Thread):
    """A thread that takes part in one job after the other."""

    def __init__(self, jobs: SimpleQueue[Job]) -> None:
        super().__init__(name="softgrad", daemon=True)
        self._jobs = jobs
        self._likely: int | None = None  # the processor it would be woken on; None: any

    def run(self) -> None:
        """Until the process ends."""
        while True:
            self._jobs.get().help()
            self._likely = processors.current()

    def keep_off(self, busy: int) -> None:
        """Be woken anywhere but on the caller's own processor.

        Linux wakes a thread where it last ran or where its waker runs, and may take milliseconds to notice that another
        processor has nothing to do: by then the caller has done all the work.
        """
        if self._likely in (busy, None) and busy != processors.UNKNOWN and self.native_id is not None:
            processors.keep_off(self.native_id, busy)
            self._likely = processors.UNKNOWN


_pool = Pool()


def _forget() -> None:
    global _pool
    _pool = Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def threads_for(elements: int, tasks: int) -> int:
    """How many threads so much work is worth."""
    threads = min(tasks, elements // WORTH)
    return min(threads, processors.allowed()) if threads > 1 else 1


def share(elements: int, tasks: int, run: Callable[[int], None]) -> None:
    """Call ``run(counter)`` in as many threads as the work is worth; it takes tasks from the int64 at that address."""
    counter = np.zeros(1, np.int64)
    at = address(counter)
    threads = threads_for(elements, tasks)
    if threads > 1:
        _pool.run(lambda: run(at), threads, lambda: counter[0] != 0)
    else:
        run(at)
