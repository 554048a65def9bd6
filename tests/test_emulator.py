"""The emulator finds what it is there to find: each fault planted in a kernel is caught."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import softgrad
from tests import truth
from tests.emulator import build
from tests.emulator.fixtures import device

ROOT = Path(__file__).resolve().parent.parent

# name -> (file, what stands there, what is planted, C that shows it)
BARRIER = ("teams.cuh", "    __syncthreads();\n    return join_lanes<WARPS>", "    return join_lanes<WARPS>")
TAIL = (
    "rows.cuh",
    "return classes - j < N ? (int)(classes - j) : N;",
    "return classes - j < N ? (int)(classes - j) + 1 : N;",
)
SHORT_TAIL = (
    "rows.cuh",
    "return classes - j < N ? (int)(classes - j) : N;",
    "return classes - j < N ? (int)(classes - j) - 1 : N;",
)
NARROW = (
    "rows.cuh",
    "inner = shape.inner == 1 ? 0 : row % shape.inner;",
    "inner = (signed char)(shape.inner == 1 ? 0 : row % shape.inner);",
)
TARGET = ("cross_entropy.cu", "at_target(j, x, -rest_t);", "at_target(j, x, shift.exp(z_t) - s.value());")


def softmax_of(classes, **options):
    z = (np.random.default_rng(1).standard_normal((2, classes)) * 5).astype(np.float32)
    with device(**options):
        return softgrad.softmax(z), truth.softmax(z)


def test_without_a_fault_all_is_well():
    for order in (0, 1, 9):
        assert truth.worst_ulp(*softmax_of(1030, order=order)) < 3.0


def test_a_missing_barrier_is_caught_by_poison_and_order():
    worst = [truth.worst_ulp(*softmax_of(1030, order=order, edits=(BARRIER,))) for order in (0, 1, 9)]
    assert max(worst) > 1e3


@pytest.mark.parametrize(
    "fault", [SHORT_TAIL, pytest.param(("exponential.cuh", "FLOOR = -212", "FLOOR = -12"), id="floor")]
)
def test_a_wrong_number_is_caught_by_the_truth(fault):
    assert truth.worst_ulp(*softmax_of(1030, edits=(fault,))) > 4.0


def test_a_gradient_that_cancels_is_caught():
    z = np.zeros((4, 600), np.float32)
    z[:, 5] = 25.0
    t = np.full(4, 5)
    with device(edits=(TARGET,)):
        got = softgrad.cross_entropy_grad(z, t, reduction="none")
    assert truth.worst_ulp(got, truth.cross_entropy_grad(z, t, reduction="none")) > 100.0


# --- under sanitizers, in processes of their own ---------------------------------------------------------------------

SCRIPT = """
import sys, numpy as np
import softgrad
from tests.emulator import emulated
edits = eval(sys.argv[1])
rng = np.random.default_rng(1)
with emulated("cupy", edits=edits, sanitizer="address", order=3) as device:
    for classes in (3, 37, 1030):
        z = rng.standard_normal((3, classes)).astype(np.float32)
        softgrad.softmax(z)
    softgrad.softmax(rng.standard_normal((2, 3, 300)).astype(np.float32), axis=1)
    if not edits:
        t = np.array([0, 1, 2])
        for classes in (37, 1030):
            z = rng.standard_normal((3, classes)).astype(np.float32)
            softgrad.cross_entropy_value_and_grad(z, t, weight=np.ones(classes))
            softgrad.softmax_vjp(z, logits=z[::-1].copy())
            memory = np.zeros(3 * classes + 1, np.float32)
            softgrad.softmax(memory[1:].reshape(3, classes))
print("clean")
"""


def sanitized(*edits):
    libraries = ("libasan.so", "libubsan.so")
    found = []
    for library in libraries:
        path = subprocess.run([*build.compiler(), f"-print-file-name={library}"], capture_output=True, text=True).stdout
        if not os.path.isabs(path.strip()):
            pytest.skip("the sanitized run needs g++ and its libasan")
        found.append(path.strip())
    environment = os.environ | {
        "LD_PRELOAD": " ".join(found),
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONPATH": f"{ROOT / 'kernels'}{os.pathsep}{ROOT}",
    }
    command = [sys.executable, "-c", SCRIPT, repr(edits)]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(autouse=True, scope="module")
def _compiler():
    try:
        build.compiler()
    except build.NoCompilerError as error:
        pytest.skip(str(error))


def test_the_kernels_are_clean_under_address_and_undefined_behaviour_sanitizers():
    done = sanitized()
    assert done.returncode == 0, done.stderr[-3000:]
    assert "clean" in done.stdout


@pytest.mark.parametrize("fault", [TAIL, NARROW], ids=["tail", "narrow index"])
def test_an_overrun_is_caught_by_the_sanitizer(fault):
    done = sanitized(fault)
    assert done.returncode != 0
    assert "AddressSanitizer" in done.stderr
