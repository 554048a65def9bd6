"""Fixtures, and the one table of reasons why a test may be skipped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import softgrad
from softgrad.registry import BACKENDS
from tests import gpu as gpu_places
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
    yield from _forced(request.param)


@pytest.fixture(params=[name for name, entry in BACKENDS.items() if entry.device == "cuda"])
def gpu_backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test under every GPU backend that is installed."""
    yield from _forced(request.param)


@pytest.fixture(params=gpu_places.PLACES)
def gpu(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The GPU under every backend that is installed, given arrays of each library."""
    yield from _gpu(request.param)


@pytest.fixture(params=[place for place, (_, library) in gpu_places.PLACES.items() if library == "cupy"])
def gpu_streams(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The same where the library has a current stream, and graphs."""
    yield from _gpu(request.param)


@pytest.fixture
def gpu_numba() -> Iterator[Any]:
    """Numba's backend given Numba's arrays."""
    yield from _gpu("numba_cuda")


def _gpu(place: str) -> Iterator[Any]:
    backend, library = gpu_places.PLACES[place]
    arrays = gpu_places.LIBRARIES[library]()
    arrays.backend = backend
    for _ in _forced(backend):
        yield arrays
        arrays.free()


def _forced(name: str) -> Iterator[str]:
    """Force the backend `name`: the test is skipped where a package it needs is not installed, and there alone."""
    state = softgrad.available_backends()[name]
    if "is not installed" in state:
        pytest.skip(f"{name}: {state}")
    assert state == "available", f"{name}: {state}"
    with softgrad.use_backend(name):
        yield name


@pytest.fixture(params=["float64", "float32", "float16", "bfloat16"])
def dtype(request: pytest.FixtureRequest):
    """Every dtype served."""
    if request.param not in DTYPES:
        pytest.skip("bfloat16 needs ml_dtypes")
    return DTYPES[request.param]
