"""The tests of the GPU rehearsed, with smaller sizes, on a machine that is not there: they must not fail for reasons of
their own when they meet a device, which may happen far from where they can be mended.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.emulator import build

ROOT = Path(__file__).parent.parent


def rehearse(*options: str) -> tuple[int, str]:
    """Exit status and words of such a run."""
    command = [sys.executable, "-m", "pytest", "-p", "tests.fake_cuda.plugin", "-p", "no:cacheprovider", "-qm", "gpu"]
    # A worker of pytest-xdist would pass for one itself there.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [*command, *options], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(autouse=True)
def _can_be_emulated() -> None:
    pytest.importorskip("numba_cuda", reason="needs numba-cuda: pip install 'softgrad[numba-cuda]'")
    try:
        build.compiler()
    except build.NoCompilerError as error:
        pytest.skip(str(error))


def test_every_promise_can_be_tested() -> None:
    status, said = rehearse("tests/test_gpu_rows.py", "tests/test_gpu_promises.py")
    assert status == 0, said
    (passed,) = re.findall(r"(\d+) passed", said)
    assert int(passed) > 80
    assert "skipped" not in said, said
