"""Any function may be called from several threads at once: each gets its own answer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np

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
