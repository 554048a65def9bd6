"""The benchmark's check: nobody who is wrong gets a timing."""

from __future__ import annotations

import numpy as np
import pytest

from bench import inputs
from bench.cases import Case
from bench.check import judge
from bench.field import run_field
from bench.operations import OPERATIONS
from bench.truths import truths_of_distinct_rows
from tests.fake_bench import Fake, FakeStopwatch, Raising, double_softmax

CASE = Case("softmax", "float32", 300, 2000)  # more rows than are distinct


def field(*contenders: Fake) -> dict:
    return run_field(
        CASE, contenders, FakeStopwatch(lambda call: 1e-3), rounds=4, seconds=60.0, sets=2, caches="cold"
    )  # fmt: skip


def with_entry(p: np.ndarray, at: tuple[int, int], value: float) -> np.ndarray:
    p = p.copy()
    p[at] = value
    return p


def other_bits_in_a_repeat(p: np.ndarray) -> np.ndarray:
    return with_entry(p, (-1, 0), np.nextafter(p[-1, 0], np.float32(1.0)))


def test_a_right_contender_is_timed():
    right = Fake("right", ours=True)
    outcome = field(right)["right"]
    assert outcome.refusal is None
    assert outcome.samples == [1e-3] * 4
    assert outcome.verdict.worst_ulp < 1.0
    assert right.calls == 1 + 2 * 4  # the check; then an untimed and a timed call per round


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda p: p * np.float32(1.000002), "ulp, where 4 are promised"),
        (lambda p: with_entry(p, (3, 5), np.nan), "ulp"),
        (lambda p: with_entry(p, (3, 5), 0.0), "ulp"),
        (other_bits_in_a_repeat, "different bits for the same row"),
        (lambda p: p[:-1], "gave shape (299, 2000), expected (300, 2000)"),
        (lambda p: (p, p), "gave 2 results, expected 1"),
    ],
)
def test_a_backend_that_breaks_its_promise_is_refused(spoil, reason):
    outcome = field(Fake("ours", ours=True, spoil=spoil))["ours"]
    assert reason in outcome.refusal
    assert outcome.samples == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda p: p * np.float32(1.01),
        lambda p: p[:, ::-1],
        lambda p: np.zeros_like(p),
        lambda p: with_entry(p, (3, 5), np.nan),
        lambda p: with_entry(p, (-1, 5), 0.9),  # in a row that is a repeat
    ],
)
def test_a_peer_that_is_plainly_wrong_is_refused(spoil):
    outcome = field(Fake("peer", spoil=spoil))["peer"]
    assert "of the largest value" in outcome.refusal
    assert outcome.samples == []


def test_a_peer_may_be_as_inaccurate_as_peers_are():
    assert field(Fake("peer", spoil=lambda p: p * np.float32(1.00001)))["peer"].refusal is None


def test_a_contender_that_raises_is_refused_and_the_others_go_on():
    outcomes = field(Raising("raising"), Fake("right"))
    assert outcomes["raising"].refusal == "raised NotImplementedError: not for this dtype"
    assert len(outcomes["right"].samples) == 4


def test_interruption_is_not_taken_for_a_failure():
    def interrupt(p: np.ndarray) -> np.ndarray:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        field(Fake("interrupted", spoil=interrupt))


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_reference_passes_every_operation(operation, dtype):
    """And with it the truth of repeated rows: 10 distinct ones, one of them counted more often."""
    from bench.contenders.softgrad_backends import Backend

    case, numpy = Case(operation, dtype, 2031, 650), Backend("numpy")
    given = inputs.draw(case, 0)
    assert inputs.known_rows(case) == 100
    results = numpy.results(case, numpy.prepare(case, given))
    verdict = judge(case, results, truths_of_distinct_rows(case, given), ours=True)
    assert verdict.refusal is None


def test_the_mean_counts_repeated_rows():
    """Otherwise a loss averaged over the distinct rows alone would pass."""
    case = Case("cross_entropy_value_and_grad", "float64", 150, 650)
    given = inputs.draw(case, 0)
    loss, _ = truths_of_distinct_rows(case, given)
    log_p = np.log(double_softmax(given["logits"]))[np.arange(150), given["targets"]]
    assert float(loss.value.float()) == pytest.approx(-log_p.mean(), rel=1e-12)
    assert float(loss.value.float()) != pytest.approx(-log_p[:100].mean(), rel=1e-6)


def test_sets_differ_and_repeat_themselves():
    first, again, second = (inputs.draw(CASE, number)["logits"] for number in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)
