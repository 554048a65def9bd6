"""Any function may be called from several threads at once: each gets its own answer."""

from __future__ import annotations

import ast
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
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


def advance(counter: int) -> None:
    """Take a share, as a kernel does: the caller has begun."""
    ctypes.c_int64.from_address(counter).value += 1


def helped(help_it: Callable[[int], None]) -> Callable[[int], None]:
    """What the calling thread and a helper run: the caller takes a share, then waits until the helper has joined."""
    caller, joined = threading.get_ident(), threading.Event()

    def run(counter: int) -> None:
        if threading.get_ident() == caller:
            advance(counter)
            assert joined.wait(60)
        else:
            joined.set()
            help_it(counter)

    return run


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="this system cannot send a signal to a thread")
def test_an_interrupt_is_put_off_while_others_work_on_the_callers_arrays() -> None:
    threads = numba_threads()
    caller, left = threading.get_ident(), []

    def interrupt_the_caller(counter: int) -> None:
        time.sleep(0.1)  # until the caller has done its part and waits
        signal.pthread_kill(caller, signal.SIGINT)
        time.sleep(0.1)
        left.append(True)
        threads.end(counter)

    # Python's own handler, which a process started in the background does not get.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            threads._pool.run(helped(interrupt_the_caller), 2)
    finally:
        signal.signal(signal.SIGINT, before)
    assert left
    threads._pool.run(threads.end, 2)


def test_a_fault_while_waiting_for_others_is_raised_once_they_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = numba_threads()
    left = []

    def take_long(counter: int) -> None:
        time.sleep(0.1)
        left.append(True)
        threads.end(counter)

    def fault(at: int, number: int, looks: int) -> None:
        raise ZeroDivisionError

    threads._pool.run(threads.end, 2)  # its helper is there
    monkeypatch.setattr(threads, "await_number", fault)
    with pytest.raises(ZeroDivisionError):
        threads._pool.run(helped(take_long), 2)
    assert left


def test_a_fault_that_comes_again_and_again_ends_the_wait() -> None:
    threads = numba_threads()
    job = threads.Job(lambda _counter: None, threads.Counter(0, 0))

    class Broken:
        def __enter__(self) -> None:
            raise ZeroDivisionError

        def __exit__(self, *_: object) -> None:
            pass

    job._lock = Broken()
    with pytest.raises(ZeroDivisionError):
        job.work(0)


def test_helpers_wait_until_the_caller_has_begun() -> None:
    """So what is to be compiled is compiled by the caller."""
    threads = numba_threads()
    caller = threading.get_ident()
    begun, left = [], []

    def run(counter: int) -> None:
        if threading.get_ident() == caller:
            time.sleep(0.1)  # as if compiling
            begun.append(True)
            advance(counter)
            time.sleep(0.1)
        else:
            left.append(bool(begun))
            threads.end(counter)

    threads._pool.run(run, 3)
    assert left
    assert all(left)


def test_a_helpers_fault_is_the_callers() -> None:
    threads = numba_threads()

    def fault(_counter: int) -> None:
        raise ZeroDivisionError

    for _ in range(3):  # and the helper is still there
        with pytest.raises(ZeroDivisionError):
            threads._pool.run(helped(fault), 2)


def test_helpers_join_the_next_call_from_where_they_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = numba_threads()
    monkeypatch.setattr(threads, "LINGER", 600.0)  # nobody will have waited so long
    pool = threads.Pool()
    for _ in range(5):
        pool.run(helped(threads.end), 2)
    pool._latest[0] += 1  # ends the wait: its counter is not 0


def test_every_kernel_that_shares_work_ends_by_leaving() -> None:
    """A caller would wait for a helper that does not."""
    folder = Path(numba_threads().__file__).parent
    found = []
    for file in folder.glob("*.py"):
        for function in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(function, ast.FunctionDef) and [a.arg for a in function.args.args][:1] == ["counter"]:
                decorators = [ast.unparse(decorator) for decorator in function.decorator_list]
                if decorators == ["kernel"] and function.name != "advance":
                    found.append(function.name)
                    assert "leave(counter)" in ast.unparse(function), function.name
    assert len(found) > 20


def test_helpers_that_have_left_keep_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """They stay awake for a while: long after a call its arrays must be the caller's alone."""
    threads = numba_threads()
    monkeypatch.setattr(threads, "LINGER", 2.0)
    monkeypatch.setattr(threads, "_pool", threads.Pool())
    monkeypatch.setattr(threads.processors, "allowed", lambda: 2)
    rng = np.random.default_rng(0)
    for rows, classes in ((70_000, 10), (20_000, 50), (5_000, 200), (1_000, 1_000), (3, 200_000), (3, 2**20)):
        logits = rng.normal(size=(rows, classes)).astype(np.float32)
        tangent, out = logits.copy(), np.empty_like(logits)
        targets = rng.integers(0, classes, rows)
        arrays = logits, tangent, out, targets
        before = [sys.getrefcount(array) for array in arrays]
        for _ in range(3):
            with softgrad.use_backend("numba"):
                softgrad.softmax(logits, out=out)
                softgrad.softmax_vjp(tangent, logits=logits, out=out)
                softgrad.cross_entropy_value_and_grad(logits, targets, out=out)
                softgrad.cross_entropy_value_and_grad(logits, targets, out=out, label_smoothing=0.1)
                softgrad.cross_entropy_hvp(tangent, logits=logits, targets=targets, out=out)
            assert [sys.getrefcount(array) for array in arrays] == before


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no sets of processors for a thread")
def test_helpers_keep_off_the_callers_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = numba_threads()
    usable = os.sched_getaffinity(0)
    pool = threads.Pool()
    for processor in sorted(usable):
        monkeypatch.setattr(threads.processors, "current", lambda processor=processor: processor)
        for helper in pool._helpers:
            helper._likely = processor  # it last ran there
        pool.run(helped(threads.end), 2)
        [helper] = pool._helpers
        assert os.sched_getaffinity(helper.native_id) == (usable - {processor} or usable)
