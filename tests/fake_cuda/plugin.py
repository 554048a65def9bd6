"""`pytest -p tests.fake_cuda.plugin -m gpu`: the tests of the GPU, with smaller sizes, on a machine that is not there.

What it is for: tests that meet a device for the first time do not fail for reasons of their own.
"""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests import cases, gpu
from tests.fake_cuda import Machine
from tests.fake_cuda.backends import available

_open = ExitStack()


def pytest_configure(config: pytest.Config) -> None:
    """Before any test is imported."""
    gpu.HUGE_ROW, gpu.MANY_ELEMENTS, gpu.BATCH, gpu.MANY_ROWS, gpu.REPEATS = 270_001, (70, 1030), (8, 100), 9000, 2
    gpu.CASES = cases.ADVERSARIAL[:2] + cases.TAILS[:1]
    gpu.LONG_CASES = cases.MODELS[:1]
    gpu.CLASSES = (3, 100, 1000)  # type: ignore[assignment]
    _open.enter_context(available(Machine()))


def pytest_unconfigure(config: pytest.Config) -> None:
    """The real libraries, if any, are themselves again."""
    _open.close()
