"""The CUDA kernels are clean under AddressSanitizer, UBSan and ThreadSanitizer, which find what is planted in them."""

import pytest

from tests.emulator import build, sanitized

TAIL = (
    "rows.cuh",
    "return classes - j < N ? (int)(classes - j) : N;",
    "return classes - j < N ? (int)(classes - j) + 1 : N;",
)
NARROW = (
    "rows.cuh",
    "inner = shape.inner == 1 ? 0 : row % shape.inner;",
    "inner = (signed char)(shape.inner == 1 ? 0 : row % shape.inner);",
)
BARRIER = ("teams.cuh", "    __syncthreads();\n    return join_lanes<WARPS>", "    return join_lanes<WARPS>")
TURNS = ("teams.cuh", "    turn ^= 1;\n    if (threadIdx.x % 32 == 0)", "    if (threadIdx.x % 32 == 0)")
CLUSTER = ("teams.cuh", "    cluster_barrier();\n    return join_lanes<N_>", "    return join_lanes<N_>")
LANES = ("teams.cuh", "    if constexpr (W_ > 1) warp_barrier();\n", "")
LATE = ("segments.cuh", "    if (walk + 1 < a.launch) return *at;\n", "")


@pytest.fixture(autouse=True, scope="module")
def _compiler():
    try:
        build.compiler()
    except build.NoCompilerError as error:
        pytest.skip(str(error))


def judge(done):
    assert done.returncode == 0, done.stderr[-3000:]
    assert "clean" in done.stdout


def test_no_access_is_out_of_bounds_or_undefined():
    judge(sanitized.run("address", "some"))


def test_no_access_races_with_another():
    judge(sanitized.run("thread", "some"))


@pytest.mark.parametrize("fault", [TAIL, NARROW], ids=["tail", "narrow index"])
def test_an_overrun_is_found(fault):
    done = sanitized.run("address", "softmax", fault)
    assert done.returncode != 0
    assert "AddressSanitizer" in done.stderr


@pytest.mark.parametrize(
    ("fault", "calls"),
    [
        pytest.param(BARRIER, "softmax", id="no barrier"),
        pytest.param(TURNS, "softmax", id="slots taken twice", marks=pytest.mark.slow),
        pytest.param(CLUSTER, "clusters", id="no cluster barrier", marks=pytest.mark.slow),
        pytest.param(LANES, "some", id="no order between lanes", marks=pytest.mark.slow),
        pytest.param(LATE, "some", id="read after another block wrote", marks=pytest.mark.slow),
    ],
)
def test_a_race_is_found(fault, calls):
    done = sanitized.run("thread", calls, fault)
    assert done.returncode != 0
    assert "data race" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_every_regime_is_clean(sanitizer):
    judge(sanitized.run(sanitizer, "everything"))
