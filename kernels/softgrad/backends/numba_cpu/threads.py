"""Rows shared out over threads of our own.

Not numba's parallel loops: their `workqueue` layer aborts the process when two Python threads meet in it, their GNU
OpenMP layer kills a forked child, and which layer it will be is the user's choice.  Threads of our own are safe in
both, and beside other users of numba's pool.

The caller always works itself, taking one share after the other from a counter that all threads advance; helpers join
when they wake.  So a busy machine or a late helper costs balance, never correctness, and nobody waits for a thread
that has not begun.  A kernel releases the GIL, and a row's bits do not depend on who computes it.

To be woken takes a thread some ten microseconds, on a virtual machine some fifty, be it by work or by the GIL that
another lets go of.  So helpers stay awake for a while, and away from the GIL: see `taking.leave`.
"""

from __future__ import annotations

import itertools
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
from softgrad.backends.numba_cpu.memory import Scratch
from softgrad.backends.numba_cpu.taking import HELPER, LATEST, LEFT, LOOKS, NUMBER, leave

# A share for a thread that must be woken should be worth more than waking it, some ten microseconds.
WORTH = 200_000  # elements of exponentials, one or two tenths of a millisecond

# For how long a helper waits awake for the next call, and a caller for helpers to leave; in seconds.
LINGER, AWAIT = 250e-6, 50e-6

# Interrupts that are put off while others work on the caller's arrays; more than a person will send.
PATIENCE = 1000


@kernel
def await_number(at, number, looks):
    """Look so many times for a number to be what it should, without going to sleep: to be woken would take longer.

    It would often also take the caller to the processor of the helper that wakes it.
    """
    for _ in range(looks):
        if peek(at) == number:
            return
        relax()


@kernel
def end(counter):
    """What a function that shares work ends by, if it does not by a kernel of its own that leaves."""
    leave(counter)


class Counter:
    """A counter, and behind it what `taking.leave` looks at.  A pool keeps it for ever.

    So a helper that looks at it late, when it has become another job's, is misled, but not about memory.
    """

    __slots__ = ("at", "numbers")

    def __init__(self, latest: int, looks: int) -> None:
        memory = Scratch(64)  # a line of the caches for itself
        self.at, self.numbers = memory.address, memory.numbers[:8].view(np.int64)
        self.numbers[LATEST // 8], self.numbers[LOOKS // 8] = latest, looks
        self.begin(0)

    def begin(self, job: int) -> None:
        """Be the counter of a job of this number."""
        self.numbers[0] = self.numbers[LEFT // 8] = 0
        self.numbers[NUMBER // 8] = job

    def has_begun(self) -> bool:
        """Whether a share has been taken."""
        return bool(self.numbers[0])

    def left(self) -> int:
        """How many helpers have left."""
        return int(self.numbers[LEFT // 8])


class Job:
    """One parallel call: `run` is called with a counter's address by every thread that joins before the work is gone.

    Helpers wait until the caller has begun, and so compiled what had to be: were a helper to do that, it would wait
    for numba's lock, which a caller who is interrupted while compiling may keep.
    """

    def __init__(self, run: Callable[[int], None], counter: Counter) -> None:
        self._run = run
        self._counter = counter
        self._lock = threading.Lock()
        self._open = True
        self._joined = 0
        self._error: BaseException | None = None

    def help(self) -> None:
        """A helper's part: nothing, if the work is gone."""
        pause = 1e-4
        while self._open and not self._counter.has_begun():
            time.sleep(pause)
            pause = min(2 * pause, 0.005)
        with self._lock:
            if not self._open:
                return
            self._joined += 1
        # From when `run` leaves on, this function knows nothing of the counter.
        try:
            self._run(self._counter.at + HELPER)
        except BaseException as error:
            self._error = error
            end(self._counter.at + HELPER)

    def is_left(self) -> bool:
        """Whether nobody is inside any more."""
        return self._counter.left() >= self._joined

    def work(self, looks: int) -> None:
        """The caller's part: until all is done."""
        try:
            self._run(self._counter.at)
        finally:
            self._close(looks)
        if self._error is not None:
            raise self._error

    def _close(self, looks: int) -> None:
        """Let nobody in any more and wait for those inside, who use the caller's arrays.

        An interrupt, whatever it raises, is put off meanwhile.  So is a fault of this function's own, which would
        come again: nothing is tried for ever.
        """
        put_off: BaseException | None = None
        for attempt in range(PATIENCE):
            try:
                with self._lock:
                    self._open = False
                if self._joined and attempt == 0:
                    await_number(self._counter.at + LEFT, self._joined, looks)
                pause = 5e-5
                while not self.is_left():
                    time.sleep(pause)
                    pause = min(2 * pause, 0.005)
                break
            except BaseException as error:
                put_off = error
        if put_off is not None:
            raise put_off


class Pool:
    """Threads that wait for jobs; started when first needed, and anew in a forked child, which inherits none."""

    def __init__(self) -> None:
        self.jobs: SimpleQueue[Job] = SimpleQueue()
        self._lock = threading.Lock()
        self._helpers: list[Helper] = []
        self._latest = np.zeros(2, np.int64)  # the latest job's number, and the address of its counter
        self._numbers = itertools.count(1)
        self._counters: list[Counter] = []
        self._spare: list[Counter] = []  # those that no job has
        self._looks_a_second = 0.0

    def run(self, function: Callable[[int], None], threads: int) -> None:
        """Call `function`, which shares out the work, here and, once that has begun, in up to threads − 1 others.

        It is given a counter's address, and ends by a kernel that leaves, as `taking` has it.
        """
        if len(self._helpers) < threads - 1:
            self._start(threads - 1)
        here = processors.current()
        for helper in self._helpers:
            helper.keep_off(here)
        counter = self._spare.pop() if self._spare else self._new_counter()
        number = next(self._numbers)
        counter.begin(number)
        self._latest[1] = counter.at
        self._latest[0] = number
        job = Job(function, counter)
        for _ in range(threads - 1):
            self.jobs.put(job)
        try:
            job.work(int(AWAIT * self._looks_a_second))
        finally:
            if job.is_left():
                self._spare.append(counter)

    def _new_counter(self) -> Counter:
        counter = Counter(address(self._latest), int(LINGER * self._looks_a_second))
        self._counters.append(counter)
        return counter

    def _start(self, helpers: int) -> None:
        with self._lock:
            if not self._helpers:
                self._measure()
            while len(self._helpers) < helpers:
                helper = Helper(self)
                try:
                    helper.start()
                except RuntimeError:  # no thread to be had (or the interpreter is going): the caller does it all
                    return
                self._helpers.append(helper)

    def _measure(self) -> None:
        """Compile what is used while waiting, before there is anybody to wait for, and see how fast it looks."""
        counter = self._new_counter()
        end(counter.at)
        await_number(counter.at, 1, 1)
        for _ in range(5):
            start = time.perf_counter()
            await_number(counter.at, 1, 1000)
            self._looks_a_second = max(1000 / (time.perf_counter() - start), self._looks_a_second)


class Helper(threading.Thread):
    """A thread that takes part in one job after the other."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(name="softgrad", daemon=True)
        self._pool = pool  # kept as long as there is somebody who looks at its memory
        self._likely: int | None = None  # the processor it would be woken on; None: any

    def run(self) -> None:
        """Until the process ends."""
        while True:
            self._pool.jobs.get().help()
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
    """Call ``run(counter)`` in as many threads as the work is worth; it ends by a kernel that takes `tasks` shares.

    It should hold addresses, and no array: some helper may keep it for a while after the call.
    """
    threads = threads_for(elements, tasks)
    if threads > 1:
        _pool.run(run, threads)
    else:
        counter = np.zeros(1, np.int64)
        run(address(counter))
