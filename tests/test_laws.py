"""Laws that hold whatever the truth is: finite differences, adjointness, row sums, shifts, permutations, layouts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import softgrad
from tests.cases import ADVERSARIAL, DTYPES

EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
FINITE = [case for case in ADVERSARIAL if case.name.split(",")[0] not in ("broken rows", "huge")]

laws = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def problems(draw, dtypes=("float64", "float32", "float16", "bfloat16")):
    """Logits of any shape, axis and layout, with everything that goes with them."""
    dtype = DTYPES[draw(st.sampled_from([name for name in dtypes if name in DTYPES]))]
    shape = draw(st.lists(st.integers(1, 7), min_size=1, max_size=4))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    shape[axis] = draw(st.sampled_from([1, 2, 3, 8, 31, 33, 40, 70]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    z = lay_out(rng.standard_normal(shape) * draw(st.sampled_from([0.5, 5.0, 60.0])), dtype, draw(layouts), axis)
    row_shape = z.shape[: axis % z.ndim] + z.shape[axis % z.ndim + 1 :]
    options = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "label_smoothing": st.sampled_from([0.1, 1.0]),
                "z_loss": st.sampled_from([1e-3, 0.5]),
                "softcap": st.sampled_from([5.0, 30.0]),
                "weight": st.just(rng.random(z.shape[axis]) + 0.25),
                "reduction": st.sampled_from(["none", "sum", "mean"]),
            },
        )
    )
    targets = rng.integers(0, z.shape[axis], row_shape)
    if draw(st.booleans()):
        targets = lay_out(rng.random(z.shape), np.float64, draw(layouts), axis)
    return z, targets, options | {"axis": axis}, rng


layouts = st.sampled_from(["C", "F", "reversed", "every other", "class axis first"])


def lay_out(values: np.ndarray, dtype, layout: str, axis: int) -> np.ndarray:
    """The same values in another memory layout."""
    values = values.astype(dtype)
    if layout == "F":
        return np.asfortranarray(values)
    if layout == "reversed":
        return np.ascontiguousarray(values[::-1])[::-1]
    if layout == "every other":
        wide = np.zeros((*values.shape[:-1], 2 * values.shape[-1]), values.dtype)
        wide[..., ::2] = values
        return wide[..., ::2]
    if layout == "class axis first":
        return np.moveaxis(np.ascontiguousarray(np.moveaxis(values, axis, 0)), 0, axis)
    return values


def derivative(f, z, v, h):
    """Central difference of sixth order."""
    steps = ((1, 45.0), (2, -9.0), (3, 1.0))
    return sum(c * (np.asarray(f(z + k * h * v)) - np.asarray(f(z - k * h * v))) for k, c in steps) / (60.0 * h)


@laws
@given(problems(dtypes=["float64"]))
def test_derivatives_are_limits_of_differences(backend, problem):
    z, targets, options, rng = problem
    axis, v, h = options["axis"], rng.standard_normal(z.shape), 1e-2
    z = z / max(1.0, np.abs(z).max() / 8.0)  # differences of far smaller steps than the logits' curvature
    for f, jvp in ((softgrad.softmax, softgrad.softmax_jvp), (softgrad.log_softmax, softgrad.log_softmax_jvp)):
        expected = derivative(lambda x, f=f: f(x, axis=axis), z, v, h)
        np.testing.assert_allclose(jvp(v, logits=z, axis=axis), expected, rtol=0, atol=1e-9)
    size = 1.0 + abs(options.get("z_loss", 0.0)) * 100 + z.size
    expected = derivative(lambda x: softgrad.cross_entropy(x, targets, **options), z, v, h)
    result = softgrad.cross_entropy_jvp(v, logits=z, targets=targets, **options)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-9 * size)
    expected = derivative(lambda x: softgrad.cross_entropy_grad(x, targets, **options), z, v, h)
    result = softgrad.cross_entropy_hvp(v, logits=z, targets=targets, **options)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-9 * size)


@laws
@given(problems(dtypes=["float64"]))
def test_adjoints(backend, problem):
    """⟨u, J v⟩ = ⟨Jᵀ u, v⟩, and the directional derivative is ⟨gradient, v⟩; the Hessian is its own transpose."""
    z, targets, options, rng = problem
    axis = options["axis"]
    u, v = rng.standard_normal((2, *z.shape))
    for name in ("softmax", "log_softmax"):
        forward = getattr(softgrad, f"{name}_jvp")(v, logits=z, axis=axis)
        back = getattr(softgrad, f"{name}_vjp")(u, logits=z, axis=axis)
        assert_inner_products_agree(u, forward, back, v)
    total = options | ({"reduction": "sum"} if options.get("reduction") == "none" else {})
    slope = softgrad.cross_entropy_jvp(v, logits=z, targets=targets, **total)
    grad = softgrad.cross_entropy_grad(z, targets, **total)
    np.testing.assert_allclose(slope, np.vdot(grad, v), rtol=0, atol=1e-12 * (1 + np.abs(grad * v).sum()))
    point = {"logits": z, "targets": targets, **options}
    assert_inner_products_agree(u, softgrad.cross_entropy_hvp(v, **point), softgrad.cross_entropy_hvp(u, **point), v)


def assert_inner_products_agree(u, forward, back, v):
    size = np.abs(u * forward).sum() + np.abs(back * v).sum() + np.abs(u).sum() * np.abs(v).sum()
    np.testing.assert_allclose(np.vdot(u, forward), np.vdot(back, v), rtol=0, atol=1e-13 * size)


def test_adjoint_with_target_mass_on_masked_classes(backend):
    """The gradient there is −W, so the JVP contains −W v; where W is 0 even a NaN tangent is silent."""
    rng = np.random.default_rng(0)
    z, v = rng.standard_normal((2, 6, 5))
    z[:, 1] = -np.inf
    t = np.array([0, 1, 2, 3, 4, 1])
    T = rng.random((6, 5))
    weight = rng.random(5) + 0.5
    for targets, options in ((t, {}), (t, {"label_smoothing": 0.1}), (T, {}), (T, {"label_smoothing": 0.1})):
        for more in ({}, {"weight": weight}, {"z_loss": 0.1}):
            slope = softgrad.cross_entropy_jvp(v, logits=z, targets=targets, reduction="none", **options, **more)
            grad = softgrad.cross_entropy_grad(z, targets, reduction="none", **options, **more)
            np.testing.assert_allclose(slope, (grad * v).sum(-1), rtol=1e-12)
    v[:, 1] = np.nan
    T[:, 1] = 0.0
    for targets in (np.where(t == 1, 0, t), T):
        assert np.isfinite(softgrad.cross_entropy_jvp(v, logits=z, targets=targets))


@pytest.mark.parametrize("case", FINITE, ids=str)
def test_rows_sum_to_what_they_must(case, dtype, backend):
    z, t = case.logits(dtype), case.targets()
    classes, eps = case.shape[1], EPS[dtype.name]
    tiny = 2.0**-126 if dtype != np.float16 else 2.0**-24
    p = softgrad.softmax(z).astype(np.float64)
    p = p[~np.isnan(p).any(-1)]
    assert len(p) > case.shape[0] // 2
    assert (p >= 0).all()
    assert (p <= 1 + 4 * eps).all()
    np.testing.assert_allclose(p.sum(-1), 1.0, rtol=0, atol=2 * eps + classes * tiny)
    if not np.isneginf(z.astype(np.float64)).any():
        grad = softgrad.cross_entropy_grad(z, t, reduction="sum").astype(np.float64)
        assert (np.abs(grad.sum(-1)) <= classes * eps * np.abs(grad).sum(-1) + classes * tiny).all()
        # With probabilities the entries are differences p − T.
        grad = softgrad.cross_entropy_grad(z, np.eye(classes)[t], reduction="sum").astype(np.float64)
        assert (np.abs(grad.sum(-1)) <= classes * eps * 2.0).all()
    # J · 1 = 0, exactly: u = 1 − 1.
    ones = np.ones_like(z)
    whole = ~np.isneginf(z.astype(np.float64)).all(-1)
    assert (softgrad.softmax_jvp(ones, logits=z)[whole] == 0).all()
    assert (softgrad.log_softmax_jvp(ones, logits=z)[whole] == 0).all()
    total = softgrad.softmax_jacobian(logits=z[whole][:1]).astype(np.float64).sum(-2)
    np.testing.assert_allclose(total, 0.0, rtol=0, atol=2 * classes * eps)


@laws
@given(problems(), st.integers(-64, 64))
def test_shifts_change_nothing(backend, problem, shift):
    """One number added to all logits of a row changes no softmax.  All are integers, so that nothing is rounded."""
    z, targets, options, rng = problem
    axis = options["axis"]
    z = rng.integers(-60, 60, z.shape).astype(z.dtype)
    moved = z + z.dtype.type(shift)
    within = {"rtol": 8 * EPS[z.dtype.name], "atol": 1e-37 if z.dtype != np.float16 else 1e-7}
    pairs = [(f(z, axis=axis), f(moved, axis=axis)) for f in (softgrad.softmax, softgrad.log_softmax)]
    plain = {key: options[key] for key in options if key in ("axis", "weight", "reduction")}
    if targets.ndim < z.ndim:
        pairs.append([softgrad.cross_entropy_grad(x, targets, **plain) for x in (z, moved)])
        pairs.append([np.asarray(softgrad.cross_entropy(x, targets, **plain)) for x in (z, moved)])
    for here, there in pairs:
        np.testing.assert_allclose(here.astype(float), there.astype(float), **within)


@laws
@given(problems())
def test_permutations_of_the_classes_go_through(backend, problem):
    z, targets, options, rng = problem
    axis = options["axis"]
    order = rng.permutation(z.shape[axis])
    permuted = np.take(z, order, axis)
    within = {"rtol": 8 * EPS[z.dtype.name], "atol": 1e-37 if z.dtype != np.float16 else 1e-7}
    for f in (softgrad.softmax, softgrad.log_softmax):
        expected = np.take(f(z, axis=axis), order, axis)
        np.testing.assert_allclose(f(permuted, axis=axis).astype(float), expected.astype(float), **within)
    options = {key: value for key, value in options.items() if key in ("axis", "reduction")}
    if targets.ndim < z.ndim:
        grad = softgrad.cross_entropy_grad(z, targets, **options)
        place = np.argsort(order)
        again = softgrad.cross_entropy_grad(permuted, place[targets], **options)
        np.testing.assert_allclose(again.astype(float), np.take(grad, order, axis).astype(float), **within)


@laws
@given(problems())
def test_axis_and_layout_are_only_a_view(backend, problem):
    """The same numbers, class axis last and contiguous, give the same results."""
    z, targets, options, rng = problem
    axis = options["axis"]
    plain = np.ascontiguousarray(np.moveaxis(z, axis, -1))
    last = options | {"axis": -1}
    v = rng.standard_normal((2, *z.shape))
    plain_v = np.ascontiguousarray(np.moveaxis(v, axis % z.ndim + 1, -1))
    plain_targets = np.ascontiguousarray(np.moveaxis(targets, axis, -1)) if targets.ndim == z.ndim else targets
    within = {"rtol": 16 * EPS[z.dtype.name], "atol": 16 * EPS[z.dtype.name]}

    def same(result, expected, at):
        np.testing.assert_allclose(np.moveaxis(result, at, -1).astype(float), expected.astype(float), **within)

    for f in (softgrad.softmax, softgrad.log_softmax):
        same(f(z, axis=axis), f(plain), axis)
    np.testing.assert_allclose(softgrad.logsumexp(z, axis=axis), softgrad.logsumexp(plain), **within)
    for f in (softgrad.softmax_jvp, softgrad.log_softmax_jvp, softgrad.log_softmax_vjp):
        same(f(v, logits=z, axis=axis), f(plain_v, logits=plain), axis % z.ndim + 1)
    same(
        softgrad.cross_entropy_grad(z, targets, **options),
        softgrad.cross_entropy_grad(plain, plain_targets, **last),
        axis,
    )
    loss = [softgrad.cross_entropy(x, y, **o) for x, y, o in ((z, targets, options), (plain, plain_targets, last))]
    size = np.abs(loss[1]).max(initial=1.0)
    np.testing.assert_allclose(loss[0] / size, loss[1] / size, rtol=0, atol=1e-5 if z.dtype != np.float64 else 1e-13)
