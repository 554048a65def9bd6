"""The emulator finds what it is there to find: each fault planted in a kernel is caught."""

import mmap
import re
import sys

import numpy as np
import pytest

import softgrad
from softgrad.backends.cuda.sources import amalgamated
from tests import truth
from tests.emulator.fixtures import device

# name -> (file, what stands there, what is planted, C that shows it)
BARRIER = ("teams.cuh", "    __syncthreads();\n    return join_lanes<WARPS>", "    return join_lanes<WARPS>")
SHORT_TAIL = (
    "rows.cuh",
    "return classes - j < N ? (int)(classes - j) : N;",
    "return classes - j < N ? (int)(classes - j) - 1 : N;",
)
# The lanes that exchange are all but a half; what stands for the classes beyond a row's end is no mask.
LANES = ("teams.cuh", "for (int distance = W / 2; distance > 0;", "for (int distance = W / 2; distance > 1;")
PADDING = (
    "softmax.cu",
    "load_row(a.z, a.shape, z, -infinity<Real>(), row);",
    "load_row(a.z, a.shape, z, Real(0), row);",
)
OFFSET = (
    "rows.cuh",
    "return (T*)array.data + outer * array.outer",
    "return (T*)array.data + (int)(outer * array.outer)",
)
CLASS_OFFSET = ("rows.cuh", "data[j * stride])); }", "data[(int)(j * stride)])); }")
TARGET = ("cross_entropy.cu", "at_target(j, x, -rest_t);", "at_target(j, x, shift.exp(z_t) - s.value());")


def softmax_of(classes, **options):
    z = (np.random.default_rng(1).standard_normal((2, classes)) * 5 - 20).astype(np.float32)
    with device(**options):
        return softgrad.softmax(z), truth.softmax(z)


def test_without_a_fault_all_is_well():
    for order in (0, 1, 9):
        assert truth.worst_ulp(*softmax_of(1030, order=order)) < 3.0


def test_a_missing_barrier_is_caught_by_poison_and_order():
    worst = [truth.worst_ulp(*softmax_of(1030, order=order, edits=(BARRIER,))) for order in (0, 1, 9)]
    assert max(worst) > 1e3


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(SHORT_TAIL, id="tail"),
        pytest.param(LANES, id="lanes"),
        pytest.param(PADDING, id="padding"),
        pytest.param(("exponential.cuh", "FLOOR = -212", "FLOOR = -12"), id="floor"),
    ],
)
def test_a_wrong_number_is_caught_by_the_truth(fault):
    assert truth.worst_ulp(*softmax_of(1030, edits=(fault,))) > 4.0


def test_every_exchange_between_lanes_names_all_of_them():
    """In the one file that emulation replaces."""
    masks = re.findall(r"\w+_sync\((\w+)", amalgamated("machine.cuh"))
    assert masks
    assert set(masks) == {"0xffffffffu"}


@pytest.fixture
def far():
    """2^32 + 1000 numbers of float16, which take no memory until they are written."""
    if sys.platform != "linux":
        pytest.skip("needs address space without memory behind it, as Linux gives it")
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000  # MAP_NORESERVE, which mmap has no name for before 3.13
    return np.frombuffer(mmap.mmap(-1, 2 * (2**32 + 1000), flags=flags), np.float16)


def far_apart(memory, axis):
    """Two rows of 9 classes, or two classes of 9 rows, 2^32 elements apart: an offset of 32 bits would be 0."""
    z = np.lib.stride_tricks.as_strided(memory, (2, 9), (2**33, 2))
    z[...] = np.random.default_rng(5).standard_normal((2, 9))
    return softgrad.softmax(z, axis=axis), truth.softmax(z, axis=axis)


@pytest.mark.parametrize("axis", [0, 1])
def test_elements_far_apart_are_found(far, axis):
    with device():
        assert truth.worst_ulp(*far_apart(far, axis)) < 3.0


@pytest.mark.parametrize(("axis", "fault"), [(1, OFFSET), (0, CLASS_OFFSET)], ids=["rows", "classes"])
def test_an_offset_of_32_bits_is_caught(far, axis, fault):
    with device(edits=(fault,)):
        assert truth.worst_ulp(*far_apart(far, axis)) > 4.0


def test_a_gradient_that_cancels_is_caught():
    z = np.zeros((4, 600), np.float32)
    z[:, 5] = 25.0
    t = np.full(4, 5)
    with device(edits=(TARGET,)):
        got = softgrad.cross_entropy_grad(z, t, reduction="none")
    assert truth.worst_ulp(got, truth.cross_entropy_grad(z, t, reduction="none")) > 100.0
