"""Fixtures, and the one table of reasons why a test may be skipped."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import softgrad
from softgrad.registry import BACKENDS
from tests.cases import DTYPES

CPU_BACKENDS = [name for name, entry in BACKENDS.items() if entry.device == "cpu"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests that take minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    reasons = {
        "slow": None if config.getoption("--slow") else "takes minutes: run with --slow",
        "gpu": None if _has_gpu() else "needs an NVIDIA GPU and CuPy or numba-cuda",
    }
    for item in items:
        for marker, reason in reasons.items():
            if reason and marker in item.keywords:
                item.add_marker(pytest.mark.skip(reason=reason))


def _has_gpu() -> bool:
    gpu = (name for name, entry in BACKENDS.items() if entry.device == "cuda")
    available = softgrad.available_backends()
    return any(available[name] == "available" for name in gpu)


@pytest.fixture(params=CPU_BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test under every CPU backend; skipped where what it needs is not installed.

    One that is installed and does not work is a failure: skipped, it would pass for tested.
    """
    state = softgrad.available_backends()[request.param]
    if "is not installed" in state:
        pytest.skip(f"{request.param}: {state}")
    assert state == "available", f"{request.param}: {state}"
    with softgrad.use_backend(request.param):
        yield request.param


@pytest.fixture(params=["float64", "float32", "float16", "bfloat16"])
def dtype(request: pytest.FixtureRequest):
    """Every dtype served."""
    if request.param not in DTYPES:
        pytest.skip("bfloat16 needs ml_dtypes")
    return DTYPES[request.param]
