"""The benchmark's timing: turns are taken, inputs rotate, statistics and byte models are what they say."""

from __future__ import annotations

import mmap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bench import gpu, jacobian
from bench.cases import Case, cpu_cases, gpu_cases
from bench.contenders.copy import HostCopy
from bench.gpu import EventStopwatch, HostCostStopwatch
from bench.inputs import cache_state, draw, sets_to_rotate
from bench.operations import OPERATIONS
from bench.race import MINIMUM_ROUNDS, Entrant, race
from bench.run import Run, Settings
from tests.fake_bench import FakeCuda, FakeStopwatch


def recording(name: str, sets: int, log: list) -> Entrant:
    return Entrant(name, [lambda i=i: log.append((name, i)) for i in range(sets)])


def test_contenders_take_turns_and_the_first_place_rotates():
    log: list = []
    entrants = [recording(name, 1, log) for name in "abc"]
    race(entrants, FakeStopwatch(lambda call: 1.0), rounds=3, seconds=60.0)
    timed = [name for name, _ in log[1::2]]  # every other call is the untimed one
    assert timed == [*"abc", *"bca", *"cab"]
    assert [len(entrant.samples) for entrant in entrants] == [3, 3, 3]


def test_an_input_returns_only_after_all_the_others():
    log: list = []
    race([recording(name, 5, log) for name in "ab"], FakeStopwatch(lambda call: 1.0), rounds=6, seconds=60.0)
    assert [i for _, i in log] == [n % 5 for n in range(len(log))]


def test_the_device_settles_before_every_sample():
    log: list = []
    stopwatch = FakeStopwatch(lambda call: 1.0)
    race([recording(name, 1, log) for name in "ab"], stopwatch, rounds=4, seconds=60.0)
    assert stopwatch.settled == 8


def test_a_race_out_of_time_keeps_the_least_number_of_rounds():
    log: list = []
    entrant = recording("a", 1, log)
    race([entrant], FakeStopwatch(lambda call: 1.0), rounds=100, seconds=0.0)
    assert len(entrant.samples) == MINIMUM_ROUNDS


def test_a_case_is_raced_once_for_each_kind(monkeypatch: pytest.MonkeyPatch):
    """What is kept of a case is not given out for the same case of another kind, where caches are in another state."""
    raced: list = []
    monkeypatch.setattr("bench.run.run_field", lambda case, contenders, stopwatch, **how: raced.append(how) or {})
    run, case = Run(Settings(), [], {}), jacobian.case_of(2)
    assert run.race(case) is run.race(case)
    assert run.overhead(case) is run.overhead(case)
    assert run.against_the_jacobian(case) is run.against_the_jacobian(case)
    assert [how.get("repeat", how["sets"] == 2) for how in raced] == [False, 200, True]


@pytest.mark.parametrize(
    ("operation", "bytes_moved"),
    [
        ("softmax", 2 * 4 * 3000),
        ("logsumexp", 4 * 3000 + 4 * 3),
        ("softmax_vjp", 3 * 4 * 3000),
        ("softmax_vjp_from_probs", 3 * 4 * 3000),
        ("cross_entropy_value_and_grad", 2 * 4 * 3000 + 2 * 8 * 3),
        ("cross_entropy_hvp", 3 * 4 * 3000 + 2 * 8 * 3),
    ],
)
def test_byte_models(operation, bytes_moved):
    assert Case(operation, "float32", 3, 1000).bytes == bytes_moved


def test_half_the_width_moves_half_the_bytes():
    assert Case("softmax", "bfloat16", 3, 1000).bytes * 2 == Case("softmax", "float32", 3, 1000).bytes


def test_enough_sets_rotate_to_leave_the_caches():
    case = Case("softmax", "float32", 1000, 1000)  # 8 MB
    sets = sets_to_rotate(case, cache=32 << 20, memory=8 << 30)
    assert (sets - 1) * case.bytes > 32 << 20
    assert cache_state(case, sets, cache=32 << 20) == "cold"
    assert sets_to_rotate(case, cache=32 << 20, memory=1) == 2
    assert cache_state(case, 2, cache=32 << 20) == "partly warm"


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * mmap.PAGESIZE


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system does not say what is in memory")
def test_what_calls_write_to_is_in_memory_before_the_first():
    """Else the first call of each set is timed with what the system takes to find the memory: ten times a copy."""
    case = Case("softmax", "float32", 8000, 1000)  # 32 MB to be read, 32 MB to be written
    call = HostCopy(2).prepare(case, {})
    before = resident()
    call()
    assert resident() - before < case.bytes // 8
    given = draw(case, 1)
    before = resident()
    given["out"][...] = 1.0
    assert resident() - before < case.bytes // 8


def test_default_cases_cover_the_promised_shapes():
    classes = {case.classes for case in cpu_cases(quick=False) if case.operation == "cross_entropy_value_and_grad"}
    assert {10, 1000, 32_000, 50_257, 128_256, 262_144} <= classes
    assert {case.operation for case in cpu_cases(quick=False)} == set(OPERATIONS)
    assert {case.dtype for case in cpu_cases(quick=False)} == {"float64", "float32", "float16", "bfloat16"}
    assert all(case.rows * case.classes * 4 >= 500 << 20 for case in gpu_cases(quick=False) if case.dtype == "float32")


def test_filters_reach_what_a_quick_run_leaves_out():
    cases = cpu_cases(quick=True, operations=("cross_entropy_hvp",), dtypes=("bfloat16",))
    assert cases
    assert {(case.operation, case.dtype) for case in cases} == {("cross_entropy_hvp", "bfloat16")}


def test_fitted_slopes():
    classes = [2**n for n in range(1, 18)]
    assert jacobian.slope(classes, [3e-9 * c**2 for c in classes]) == pytest.approx(2.0)
    call = 1e-5  # outweighs the work of small C
    assert jacobian.slope(classes, [call + 5e-9 * c for c in classes]) == pytest.approx(1.0, abs=0.15)
    assert jacobian.slope([2, 4], [1.0, 2.0]) is None
    assert jacobian.slope([2, 4], [0, 0]) is None  # memory that nobody could tell


def test_the_full_jacobian_stops_where_memory_does():
    assert jacobian.does_not_fit(1024, memory=8 << 30) is None
    assert "C = 8,192 needs about 12.0 GiB, where 4.0 GiB are allowed" in jacobian.does_not_fit(8192, memory=8 << 30)


def test_host_peak_counts_results_and_temporaries():
    def call() -> np.ndarray:
        temporary = np.zeros(1 << 20)
        return np.add(temporary, temporary)

    assert 2 * 8 << 20 <= jacobian.host_peak(call) < (2 * 8 << 20) + (1 << 16)


def test_events_surround_the_call_after_a_flush():
    cuda = FakeCuda()

    def call() -> None:
        cuda.log.append("call")
        cuda.now += 0.25

    assert EventStopwatch(cuda).time(call) == 0.25  # the flush, one second long, is not in it
    assert cuda.log == ["fill", "event", "call", "event"]


def test_a_library_on_its_own_stream_is_timed_by_what_one_more_call_adds(monkeypatch):
    cuda = FakeCuda()
    monkeypatch.setattr(gpu, "time", SimpleNamespace(perf_counter=lambda: cuda.now))

    def wait(results: list) -> None:
        cuda.log.append(f"wait for {len(results)}")
        cuda.now += 0.125 + 0.25 * len(results)  # to be woken, and the device's time

    def call() -> None:
        cuda.log.append("call")
        cuda.now += 1e-3  # what the host does meanwhile, here in addition

    assert EventStopwatch(cuda).time(call, wait) == pytest.approx(0.251)
    assert cuda.log == ["fill", "synchronize", "call", "wait for 1", *["call"] * 5, "wait for 5"]


def test_host_cost_waits_outside_the_timed_part():
    cuda = FakeCuda()
    HostCostStopwatch(cuda).time(lambda: cuda.log.append("call"))
    assert cuda.log == ["synchronize", "call", "synchronize"]
