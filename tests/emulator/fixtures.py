"""What the tests of emulated backends share."""

from __future__ import annotations

import pytest

from tests.emulator import build, emulated


def device(**options):
    """`emulated("cupy", ...)`; the test is skipped, with advice, where there is no C++ compiler."""
    try:
        build.compiler()
    except build.NoCompilerError as error:
        pytest.skip(str(error))
    return emulated("cupy", **options)
