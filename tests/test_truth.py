"""Is the truth true?  Checked against mpmath, from the definitions alone: derivatives by differences of 600 digits."""

from __future__ import annotations

import subprocess
import sys
from itertools import product
from pathlib import Path

import mpmath as mp
import numpy as np
import pytest

from tests import real, truth
from tests.real import Real

H = mp.mpf(10) ** -500
# The truth must be far better than what it judges: float64's 2⁻⁵².
TOLERANCE = 2.0**-80


@pytest.fixture(autouse=True)
def _digits():
    with mp.workdps(1700):
        yield


def to_mp(x: Real) -> list:
    flat = (part.ravel() for part in (x.hi, x.lo, x.e))
    return [
        (mp.mpf(float(hi)) + mp.mpf(float(lo))) * mp.mpf(2) ** int(e) if hi else mp.mpf(0)
        for hi, lo, e in zip(*flat, strict=True)
    ]


def assert_true(x: truth.Truth, expected: list) -> None:
    for value, size, exact in zip(to_mp(x.value), to_mp(x.budget), expected, strict=True):
        assert abs(value - exact) <= TOLERANCE * size, (mp.nstr(value, 30), mp.nstr(exact, 30))


FUNCTIONS = {
    "exp": (real.exp, mp.exp),
    "expm1": (real.expm1, mp.expm1),
    "log1p": (lambda x: real.log1p(abs(x)), lambda x: mp.log1p(abs(x))),
    "tanh": (real.tanh, mp.tanh),
    "square": (lambda x: x * x, lambda x: x * x),
    "third": (lambda x: x / 3.0, lambda x: x / 3),
    "reciprocal": (lambda x: 1.0 / x, lambda x: 1 / x),
    "one more": (lambda x: x + 1.0, lambda x: x + 1),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_a_real_number(name):
    ours, exact = FUNCTIONS[name]
    rng = np.random.default_rng(0)
    x = Real(rng.standard_normal(200) * 10.0 ** rng.uniform(-25, 4, 200)) / 7.0  # more digits than a float64
    for value, argument in zip(to_mp(ours(x)), to_mp(x), strict=True):
        assert abs(value / exact(argument) - 1) < TOLERANCE


def test_numbers_below_and_beyond_every_float():
    faint = real.exp(Real(np.array([-5000.0])))
    assert abs(to_mp(faint)[0] / mp.exp(-5000) - 1) < TOLERANCE
    assert abs(to_mp(real.log1p(faint))[0] / mp.exp(-5000) - 1) < TOLERANCE
    assert abs(to_mp(faint * 1e300 / 1e-300)[0] / (mp.exp(-5000) * mp.mpf(1e300) / mp.mpf(1e-300)) - 1) < TOLERANCE
    assert to_mp(real.exp(Real(np.array([-30_000.0]))))[0] == 0


def test_infinities_and_nan():
    x = Real(np.array([np.inf, -np.inf, np.nan]))
    np.testing.assert_array_equal((x + 1.0).float(), [np.inf, -np.inf, np.nan])
    np.testing.assert_array_equal((x * -2.0).float(), [-np.inf, np.inf, np.nan])
    np.testing.assert_array_equal(real.exp(x).float(), [np.inf, 0.0, np.nan])


# --- the functions, from their definitions -----------------------------------------------------------------------

LOGITS = {
    "ordinary": [[0.5, -1.25, 3.0, 0.125], [2.0, 2.0, -7.5, 2.0]],
    "sure": [[60.0, 0.0, 1.0, -3.0], [0.0, 61.5, 61.5, -640.0]],
    "wide": [[700.0, -700.0, 1.0, 690.0], [-1e5, -1e5 - 50.0, -1e5 + 0.125, -1e5 - 700.0]],
}


def softmax(z):
    m = max(z)
    e = [mp.exp(x - m) for x in z]
    return [x / mp.fsum(e) for x in e]


def lse(z):
    return max(z) + mp.log(mp.fsum(mp.exp(x - max(z)) for x in z))


def mp_rows(array):
    return [[mp.mpf(float(x)) for x in row] for row in array]


def flat(rows):
    return [x for row in rows for x in row]


@pytest.mark.parametrize("name", LOGITS)
def test_softmax_family(name):
    z = np.array(LOGITS[name])
    rows = mp_rows(z)
    assert_true(truth.softmax(z), flat(softmax(row) for row in rows))
    assert_true(truth.log_softmax(z), flat([x - lse(row) for x in row] for row in rows))
    assert_true(truth.logsumexp(z), [lse(row) for row in rows])


@pytest.mark.parametrize("name", LOGITS)
def test_products(name):
    z = np.array(LOGITS[name])
    v = np.random.default_rng(1).standard_normal(z.shape)
    moved = [[x + H * d for x, d in zip(row, t, strict=True)] for row, t in zip(mp_rows(z), mp_rows(v), strict=True)]
    difference = [(b - a) / H for a, b in zip(flat(map(softmax, mp_rows(z))), flat(map(softmax, moved)), strict=True)]
    assert_true(truth.softmax_jvp(v, logits=z), difference)
    log_rows = [[[x - lse(row) for x in row] for row in rows] for rows in (mp_rows(z), moved)]
    difference = [(b - a) / H for a, b in zip(*map(flat, log_rows), strict=True)]
    assert_true(truth.log_softmax_jvp(v, logits=z), difference)
    pulled = [
        [g - p * mp.fsum(t) for g, p in zip(t, softmax(row), strict=True)]
        for row, t in zip(mp_rows(z), mp_rows(v), strict=True)
    ]
    assert_true(truth.log_softmax_vjp(v, logits=z), flat(pulled))
    # Column j is the product with the unit vector j.
    jacobian = truth.softmax_jacobian(logits=z)
    for j in range(z.shape[1]):
        column = truth.softmax_jvp(np.broadcast_to(np.eye(z.shape[1])[j], z.shape), logits=z)
        assert to_mp(jacobian.value[..., j]) == to_mp(column.value)


def row_loss(z, W, z_loss, softcap):
    if softcap is not None:
        z = [softcap * mp.tanh(x / softcap) for x in z]
    total = lse(z)
    return mp.fsum(w * (total - x) for w, x in zip(W, z, strict=True)) + z_loss * total**2


WEIGHT = np.array([0.5, 2.0, 0.25, 3.0])
OPTIONS = [
    {"reduction": "none"},
    {"weight": WEIGHT, "reduction": "mean"},
    {"weight": WEIGHT, "label_smoothing": 0.1, "z_loss": 0.25, "softcap": 5.0, "reduction": "mean"},
    {"label_smoothing": 0.1, "softcap": 5.0, "reduction": "none"},
]


@pytest.mark.parametrize("name", LOGITS)
@pytest.mark.parametrize("dense", [False, True], ids=["class indices", "probabilities"])
@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_cross_entropy(name, dense, options):
    z, t = np.array(LOGITS[name]), np.array([2, 0])
    T = np.array([[0.5, 0.0, 0.75, 0.125], [0.0, 1.0, 0.0, 0.5]]) if dense else np.eye(4)[t]
    targets = T if dense else t
    weight, softcap = options.get("weight", np.ones(4)), options.get("softcap")
    epsilon, z_loss = mp.mpf(options.get("label_smoothing", 0.0)), options.get("z_loss", 0.0)
    W = [
        [w * (x * (1 - epsilon) + epsilon / 4) for x, w in zip(row, mp_rows([weight])[0], strict=True)]
        for row in mp_rows(T)
    ]
    divisor = mp.mpf(2 if dense else float(weight[t].sum()))
    mean = options["reduction"] == "mean"
    by, n = (divisor, 2) if mean else (1, 1)

    def losses(rows, scale=(1, 1)):
        return [
            g
            * (
                row_loss(row, w, 0, softcap) / by
                + (row_loss(row, w, z_loss, softcap) - row_loss(row, w, 0, softcap)) / n
            )
            for row, w, g in zip(rows, W, scale, strict=True)
        ]

    def reduced(values):
        return [mp.fsum(values)] if mean else values

    rows = mp_rows(z)
    assert_true(truth.cross_entropy(z, targets, **options), reduced(losses(rows)))

    v = np.random.default_rng(2).standard_normal(z.shape)
    along = mp_rows(v)

    def shifted(rows, direction, h):
        return [[x + h * d for x, d in zip(row, t, strict=True)] for row, t in zip(rows, direction, strict=True)]

    difference = [
        (b - a) / H for a, b in zip(reduced(losses(rows)), reduced(losses(shifted(rows, along, H))), strict=True)
    ]
    assert_true(truth.cross_entropy_jvp(v, logits=z, targets=targets, **options), difference)

    scale = mp_rows([[0.75, 0.75] if mean else [0.75, -2.0]])[0]
    grad_output = 0.75 if mean else np.array([0.75, -2.0])
    units = [[[mp.mpf(i == j) for j in range(4)]] * 2 for i in range(4)]
    base = losses(rows, scale)

    def gradient(at, h):
        steps = [losses(shifted(at, unit, h), scale) for unit in units]
        start = losses(at, scale)
        return [(steps[i][row] - start[row]) / h for row in range(2) for i in range(4)]

    assert base
    assert_true(truth.cross_entropy_grad(z, targets, grad_output=grad_output, **options), gradient(rows, H))
    # A coarser step for the outer difference: its error is of the order of the step.
    coarse = mp.mpf(10) ** -200
    second = [
        (b - a) / coarse for a, b in zip(gradient(rows, H), gradient(shifted(rows, along, coarse), H), strict=True)
    ]
    assert_true(truth.cross_entropy_hvp(v, logits=z, targets=targets, grad_output=grad_output, **options), second)


# --- judging ---------------------------------------------------------------------------------------------------------


def test_ulp_counts_in_units_of_the_dtype():
    one = Real(np.ones(1))
    assert truth.worst_ulp(np.array([1.0 + 3 * 2.0**-52]), one) == 3.0
    assert truth.worst_ulp(np.array([1.0 + 3 * 2.0**-23], np.float32), one) == 3.0
    assert truth.worst_ulp(np.array([1.0 + 2.0**-52]), one, Real(np.array([4.0]))) == 0.25


def test_16_bit_results_count_as_the_nearest_float32_that_rounds_to_them(dtype):
    if dtype.itemsize != 2:
        return
    spacing = float(np.spacing(dtype.type(1.0))) if dtype == np.float16 else 2.0**-7
    value = 1.0 + 0.5 * spacing  # a tie, which either neighbour may be the rounding of
    for neighbour in (1.0, 1.0 + spacing):
        assert truth.worst_ulp(np.array([neighbour], dtype), Real(np.array([value]))) == 0.0
    beyond = Real(np.array([value + 6 * 2.0**-23]))
    assert truth.worst_ulp(np.array([1.0 + spacing], dtype), beyond) == 0.0
    assert 5.0 < truth.worst_ulp(np.array([1.0], dtype), beyond) < 7.0


def test_specials_must_match():
    x = np.array([np.nan, np.inf, -np.inf, 1.0])
    assert truth.worst_ulp(x, Real(x)) == 0.0
    for at, wrong in product(range(4), (np.nan, np.inf, -np.inf, 2.0)):
        y = x.copy()
        y[at] = wrong
        if not (wrong == x[at] or (np.isnan(wrong) and np.isnan(x[at]))):
            assert truth.worst_ulp(y, Real(x)) > 1e10


def test_numbers_below_the_smallest_normal_one_may_be_0_or_off_by_it():
    faint = Real(np.array([1e-39]))
    assert truth.worst_ulp(np.array([0.0], np.float32), faint) == 0.0
    assert truth.worst_ulp(np.array([1.1e-38], np.float32), faint) == 0.0
    assert truth.worst_ulp(np.array([2e-38], np.float32), faint) > 4.0
    assert truth.worst_ulp(np.array([0.0], np.float64), faint) > 4.0
    assert truth.worst_ulp(np.array([0.0], np.float32), Real(np.array([1.2e-38]))) > 4.0


def test_assert_right_judges_kind_dtype_and_shape():
    true = truth.softmax(np.zeros((2, 2)))
    truth.assert_right(np.full((2, 2), 0.5), true, np.float64)
    for wrong in (np.full((2, 2), 0.5, np.float32), np.full(4, 0.5), [[0.5, 0.5]] * 2, np.full((2, 2), 0.5 + 1e-14)):
        with pytest.raises(AssertionError):
            truth.assert_right(wrong, true, np.float64)


def test_the_reference_imports_nothing_of_softgrad():
    """What judges softgrad must not call it."""
    program = "import sys, tests.truth; sys.exit(any(name.partition('.')[0] == 'softgrad' for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parent.parent, timeout=60, check=False)
    assert done.returncode == 0
