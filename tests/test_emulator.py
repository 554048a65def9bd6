"""The emulator finds what it is there to find: each fault planted in a kernel is caught."""

import numpy as np
import pytest

import softgrad
from tests import truth
from tests.emulator.fixtures import device

# name -> (file, what stands there, what is planted, C that shows it)
BARRIER = ("teams.cuh", "    __syncthreads();\n    return join_lanes<WARPS>", "    return join_lanes<WARPS>")
SHORT_TAIL = (
    "rows.cuh",
    "return classes - j < N ? (int)(classes - j) : N;",
    "return classes - j < N ? (int)(classes - j) - 1 : N;",
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
