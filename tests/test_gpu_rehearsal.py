"""The tests of the GPU rehearsed, with smaller sizes, on a machine that is not there: they must not fail for reasons of
their own when they meet a device, which may happen far from where they can be mended.
"""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests import sanitize_gpu
from tests.emulator import build
from tests.fake_cuda import Machine
from tests.fake_cuda.backends import available

ROOT = Path(__file__).parent.parent


def rehearse(*options: str) -> tuple[int, str]:
    """Exit status and words of such a run."""
    command = [sys.executable, "-m", "pytest", "-p", "tests.fake_cuda.plugin", "-p", "no:cacheprovider", "-qm", "gpu"]
    # A worker of pytest-xdist would pass for one itself there.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [*command, *options], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def emulators() -> None:
    """Both are there."""
    pytest.importorskip("numba_cuda", reason="needs numba-cuda: pip install 'softgrad[numba-cuda]'")
    try:
        build.compiler()
    except build.NoCompilerError as error:
        pytest.skip(str(error))


@pytest.mark.usefixtures("emulators")
def test_every_promise_can_be_tested() -> None:
    files = ("tests/test_gpu_rows.py", "tests/test_gpu_promises.py", "tests/test_gpu_peers.py")
    # All but what asks torch and JAX themselves.
    status, said = rehearse(*files, "-k", "not tensors and not jax")
    assert status == 0, said
    (passed,) = re.findall(r"(\d+) passed", said)
    assert int(passed) > 80
    assert "skipped" not in said, said


@pytest.mark.usefixtures("emulators")
def test_the_sanitizer_is_shown_every_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = list(sanitize_gpu.every_kind_of_rows())
    assert len(kinds) > 200
    assert sum(z.__array_interface__["data"][0] % 16 != 0 for z in kinds) > 80
    monkeypatch.setattr(sanitize_gpu, "every_kind_of_rows", lambda: [z for z in kinds if z.shape[1] in (2, 65)][:4])
    machine = Machine()
    with available(machine):
        assert sanitize_gpu.calls() == 0
    kernels = ["softmax", "products", "cross_entropy", "cross_entropy_options", "derivatives", "divisor", "total"]
    assert {function for function, *_ in machine.launches} == set(kernels)


@pytest.mark.skipif(sys.platform == "win32", reason="the sanitizer is played by a shell script")
@pytest.mark.parametrize("finds", ["", "racecheck"])
def test_every_tool_of_the_sanitizer_runs(
    finds: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    tool = tmp_path / "compute-sanitizer"
    tool.write_text(f'#!/bin/sh\necho "$@"\n[ "$2" != "{finds}" ]\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert sanitize_gpu.main([]) == (1 if finds else 0)
    said = capfd.readouterr().out
    assert (
        f"--tool memcheck --report-api-errors no --error-exitcode 1 {sys.executable} -m tests.sanitize_gpu calls"
        in said
    )
    assert re.findall(r"^(\w+): (\w+)$", said, re.MULTILINE) == (
        [("memcheck", "clean"), ("racecheck", "FAILED")]
        if finds
        else [(name, "clean") for name in ("memcheck", "racecheck", "initcheck", "synccheck")]
    )


@pytest.mark.parametrize(
    ("options", "status", "ran"),
    [
        ([], [0, 0, 0], ["pytest", "tests.sanitize_gpu", "bench"]),
        ([], [0, 2, 0], ["pytest", "tests.sanitize_gpu", "bench"]),  # no compute-sanitizer: said, no more
        ([], [1], ["pytest"]),
        ([], [0, 1], ["pytest", "tests.sanitize_gpu"]),
        (["--only", "bench", "--quick"], [0], ["bench"]),
        (["--only", "sanitizer"], [2], ["tests.sanitize_gpu"]),
    ],
)
def test_the_command_s_parts(
    options: list[str], status: list[int], ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "ci"))
    command = runpy.run_path(str(ROOT / "ci" / "__main__.py"))
    given: list[list[str]] = []

    class Python:
        def run(self, arguments: list[str]) -> int:
            given.append(arguments)
            return status[len(given) - 1]

    monkeypatch.setattr(command["environment"], "running", Python)
    assert command["gpu"](["--here", *options]) == (status[-1] if len(given) < 3 or status[1] != 2 else 0)
    assert [arguments[1] for arguments in given] == ran
    for arguments in given:
        if arguments[1] == "pytest":
            files = [argument for argument in arguments if argument.startswith("tests/")]
            assert sorted(files) == sorted(marked_files())
        if arguments[1] == "bench":
            assert arguments[2:] == ["--device", "gpu", *options[2:]]


def marked_files() -> list[str]:
    """Test files of which everything is marked `gpu`."""
    return [
        f"tests/{path.name}"
        for path in (ROOT / "tests").glob("test_*.py")
        if "\npytestmark = pytest.mark.gpu\n" in path.read_text(encoding="utf-8")
    ]
