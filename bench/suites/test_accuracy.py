"""Accuracy: the worst error of every contender on adversarial rows; softgrad's own must keep its promise."""

from __future__ import annotations

from typing import Any

import pytest

from bench import accuracy
from bench.cases import Case
from bench.check import PROMISED_ULP
from bench.plugin import RUN
from bench.truths import truths


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    run = metafunc.config.stash[RUN]
    listed = [
        pytest.param(operation, dtype, contender, id=f"{operation}-{dtype}-{contender.name}")
        for operation, dtype in run.accuracy_cases()
        for contender in run.entrants(Case(operation, dtype, 64, 100))
    ]
    metafunc.parametrize(("operation", "dtype", "contender"), listed)


@pytest.fixture(scope="module")
def known() -> dict[Any, Any]:
    """Cases and truths, computed once for all contenders."""
    return {}


def test_accuracy(run_in_progress: Any, known: Any, operation: str, dtype: str, contender: Any) -> None:
    if dtype not in known:
        known[dtype] = accuracy.adversarial(dtype)
    if (operation, dtype) not in known:
        known[operation, dtype] = [truths(operation, given) for _, given, _ in known[dtype]]
    errors = {}
    for (name, given, rows), true in zip(known[dtype], known[operation, dtype], strict=True):
        case = Case(operation, dtype, *rows.shape)
        if contender.obstacle(case) is None:
            try:
                errors[name] = accuracy.worst(contender, case, given, true)
            except Exception as error:  # whatever a peer's library raises, the others go on
                if contender.ours:
                    raise
                run_in_progress.refuse(f"accuracy {operation} {dtype}", contender, error)
    if not errors:
        pytest.skip(f"{contender.name} gave no result")
    entry = accuracy.record(operation, dtype, contender, errors)
    run_in_progress.accuracy.append(entry)
    if contender.ours:
        assert entry["worst_ulp"] <= PROMISED_ULP, (
            f"{contender.name}: {entry['worst_ulp']:.3g} ulp in {entry['worst_case']!r}, {PROMISED_ULP:g} promised"
        )
