"""Any function may be called from several threads at once: each gets its own answer."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
import pytest

import softgrad
from tests import calls

THREADS = 4
ROUNDS = 8


def test_every_function_from_several_threads_at_once(backend: str) -> None:
    shapes = [(257, 10), (64, 100), (9, 1000), (2, 30_000)]  # short rows, long rows, more and fewer than one block
    problems: list[dict[str, dict[str, Any]]] = []
    for number in range(THREADS):
        rng = np.random.default_rng(number)
        of_shape = {}
        for rows, classes in shapes:
            logits = (rng.normal(size=(rows, classes)) * 5).astype(np.float32)
            of_shape[str((rows, classes))] = {
                "logits": logits,
                "axis": 1,
                "tangent": rng.normal(size=logits.shape),
                "targets": rng.integers(0, classes, rows),
            }
        problems.append(of_shape)

    def results(number: int) -> list[Any]:
        found = []
        for problem in problems[number].values():
            for name in calls.EVERY:
                if name == "softmax_jacobian":
                    continue  # C² numbers per row
                tangent = {calls.tangent_name(name): problem["tangent"]} if name in calls.WITH_TANGENT else {}
                targets = {"targets": problem["targets"]} if name in calls.LOSSES else {}
                point = {"logits": problem["logits"], "axis": 1}
                found.append(calls.full_size(name, getattr(softgrad, name)(**point, **tangent, **targets)))
        return found

    expected = [results(number) for number in range(THREADS)]
    start = Barrier(THREADS)

    def repeat(number: int) -> None:
        with softgrad.use_backend(backend):
            start.wait(60)
            for _ in range(ROUNDS):
                for mine, alone in zip(results(number), expected[number], strict=True):
                    np.testing.assert_array_equal(mine, alone)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(repeat, range(THREADS)))


def numba_threads() -> Any:
    pytest.importorskip("numba")
    from softgrad.backends.numba_cpu import threads

    return threads


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="this system cannot send a signal to a thread")
def test_an_interrupt_is_put_off_while_others_work_on_the_callers_arrays() -> None:
    caller = threading.get_ident()
    joined, left = threading.Event(), []

    def run() -> None:
        if threading.get_ident() == caller:
            assert joined.wait(60)
            return
        joined.set()
        time.sleep(0.1)  # until the caller has done its part and waits
        signal.pthread_kill(caller, signal.SIGINT)
        time.sleep(0.1)
        left.append(True)

    # Python's own handler, which a process started in the background does not get.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            numba_threads()._pool.run(run, 2)
    finally:
        signal.signal(signal.SIGINT, before)
    assert left
    numba_threads()._pool.run(lambda: None, 2)


def test_a_fault_while_waiting_for_others_is_raised_once_they_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = numba_threads()
    caller, joined, left = threading.get_ident(), threading.Event(), []

    def run() -> None:
        if threading.get_ident() == caller:
            assert joined.wait(60)
            return
        joined.set()
        time.sleep(0.1)
        left.append(True)

    def fault(at: int, value: int) -> None:
        raise ZeroDivisionError

    threads._pool.run(lambda: None, 2)  # its helper is there
    monkeypatch.setattr(threads, "await_change", fault)
    with pytest.raises(ZeroDivisionError):
        threads._pool.run(run, 2)
    assert left


def test_a_fault_that_comes_again_and_again_ends_the_wait() -> None:
    job = numba_threads().Job(lambda: None, lambda: True)

    class Broken:
        def __enter__(self) -> None:
            raise ZeroDivisionError

        def __exit__(self, *_: object) -> None:
            pass

    job._lock = Broken()
    with pytest.raises(ZeroDivisionError):
        job.work()


def test_helpers_wait_until_the_caller_has_begun() -> None:
    """So what is to be compiled is compiled by the caller."""
    caller = threading.get_ident()
    begun, left = threading.Event(), []

    def run() -> None:
        if threading.get_ident() == caller:
            time.sleep(0.1)  # as if compiling
            assert not left
            begun.set()
            time.sleep(0.1)
        else:
            left.append(threading.get_ident())

    numba_threads()._pool.run(run, 3, begun.is_set)
    assert left


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no sets of processors for a thread")
def test_helpers_keep_off_the_callers_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = numba_threads()
    usable = os.sched_getaffinity(0)
    pool, joined = threads.Pool(), threading.Barrier(2, timeout=60)
    for processor in sorted(usable):
        monkeypatch.setattr(threads.processors, "current", lambda processor=processor: processor)
        for helper in pool._helpers:
            helper._likely = processor  # it last ran there
        pool.run(joined.wait, 2)
        [helper] = pool._helpers
        assert os.sched_getaffinity(helper.native_id) == (usable - {processor} or usable)
