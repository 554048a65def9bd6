"""Rows cut into segments that blocks all over the device share: right, in place, and with bits of their own."""

import numpy as np
import pytest

import softgrad
from softgrad.backends.cuda import regimes
from softgrad.backends.cuda.scratch import NUMBERS, RECORDS, SCRATCH_BYTES
from softgrad.backends.cuda.segments import CLASSES_TOGETHER, MOST_SEGMENTS, Cutting, Walks, launches
from tests import truth
from tests.cases import DTYPES
from tests.emulator.fixtures import device

# Few classes, cut as many are: at least two segments of 1024 from 1025 on.
SOON = Cutting(beyond=1000, shortest=1)
OPTIONS = {"label_smoothing": 0.3, "z_loss": 0.1, "softcap": 5.0}


def numbers(shape, dtype=np.float32, size=10.0):
    return (np.random.default_rng(shape[-1]).standard_normal(shape) * size).astype(dtype)


def judge(result, true, within=4.0):
    worst = truth.worst_ulp(result, true)
    assert worst <= within, f"{worst:.3g} ulp"


# --- how rows are cut ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("itemsize", [2, 4, 8])
@pytest.mark.parametrize("contiguous", [True, False])
def test_segments_cover_the_row_and_begin_at_a_first_lane(itemsize, contiguous):
    regime = regimes.walking(1, contiguous=contiguous, cut=True)
    step = regime.size * (16 // itemsize if contiguous else 1)
    for classes in (2**18 + 1, 2**20, 10**7, 10**7 + 1, 2**31 + 5):
        segments, length = Cutting().segments(classes, itemsize, regime)
        assert length % step == 0
        assert (segments - 1) * length < classes <= segments * length
        assert segments * regime.width <= RECORDS
        assert segments <= MOST_SEGMENTS


def test_the_table():
    cut = Cutting()
    block = regimes.keeping(1, 4, contiguous=True, clusters=True, cut=True)
    columns = regimes.walking(1, contiguous=False, cut=True)
    assert block.name == "segments_block256_walk"
    assert columns.name == "segments_columns8_walk"
    assert cut.segments(2**18 + 1, 4, block) == (65, 4096)
    assert cut.segments(10**7, 4, block) == (489, 20480)
    assert cut.segments(10**7, 4, columns) == (64, 156256)


@pytest.mark.parametrize("rows", [1, 3, 70])
def test_rows_follow_each_other_as_far_as_records_and_cache_reach(rows):
    regime = regimes.walking(1, contiguous=True, cut=True)
    classes = 10**6
    segments, length = Cutting().segments(classes, 4, regime)
    made = list(launches(segments, length, (rows, classes), regime, Walks(2, 3), [b"a", b"b"], 0))
    groups = -(-rows // (CLASSES_TOGETHER // classes))
    assert len(made) == groups * (5 + 3)
    assert sum(blocks for blocks, _ in made) == rows * segments * 8
    assert max(blocks for blocks, _ in made) <= RECORDS
    assert [arguments[:1] for _, arguments in made[:8]] == [b"a"] * 5 + [b"b"] * 3


# --- that they are right ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["float32", "bfloat16", pytest.param("float64", marks=pytest.mark.slow)])
@pytest.mark.parametrize("classes", [1025, 4097])
def test_every_primitive_within_its_budget(name, classes):
    if name not in DTYPES:
        pytest.skip("bfloat16 needs ml_dtypes")
    z, v, t = numbers((2, classes), DTYPES[name]), numbers((2, 2, classes), DTYPES[name]), np.array([classes - 1, 7])
    with device(cutting=SOON) as ran:
        for function in ("softmax", "log_softmax", "logsumexp"):
            judge(getattr(softgrad, function)(z), getattr(truth, function)(z), 3.0)
        loss, grad = softgrad.cross_entropy_value_and_grad(z, t, reduction="none")
        judge(loss, truth.cross_entropy(z, t, reduction="none"))
        judge(grad, truth.cross_entropy_grad(z, t, reduction="none"))
        for function in ("softmax_jvp", "log_softmax_jvp", "log_softmax_vjp"):
            judge(getattr(softgrad, function)(v, logits=z), getattr(truth, function)(v, logits=z))
        p, log_p = softgrad.softmax(z), softgrad.log_softmax(z)
        judge(softgrad.softmax_vjp(v, probs=p, check_probs=True), truth.softmax_vjp(v, probs=p))
        judge(softgrad.log_softmax_vjp(v, log_probs=log_p), truth.log_softmax_vjp(v, log_probs=log_p))
    mathematics = [kernel for kernel in ran.ran if "check_targets" not in kernel]
    assert mathematics
    assert all("segments" in kernel for kernel in mathematics)


@pytest.mark.parametrize("dense", [False, True])
def test_losses_with_every_option(dense):
    z, v = numbers((2, 2100)), numbers((2, 2, 2100))
    t = np.abs(numbers((2, 2100), size=1.0)) if dense else np.array([2099, -100])
    options = OPTIONS | {"weight": np.abs(numbers((2100,), size=1.0))}
    with device(cutting=SOON):
        loss, grad = softgrad.cross_entropy_value_and_grad(z, t, **options)
        judge(loss, truth.cross_entropy(z, t, **options))
        judge(softgrad.cross_entropy(z, t, **options), truth.cross_entropy(z, t, **options))
        judge(grad, truth.cross_entropy_grad(z, t, **options), 9.0)
        assert softgrad.cross_entropy_grad(z, t, **options).tobytes() == grad.tobytes()
        for function in ("cross_entropy_jvp", "cross_entropy_hvp"):
            got = getattr(softgrad, function)(v, logits=z, targets=t, **options)
            judge(got, getattr(truth, function)(v, logits=z, targets=t, **options), 9.0)


def test_special_values_and_targets_out_of_range():
    z = numbers((6, 3000))
    z[0], z[1, 5], z[2, 2000], z[3, 10:] = -np.inf, np.inf, np.nan, -np.inf
    t = np.array([0, 1, 2, 2999, 3000, 5])
    with device(cutting=SOON):
        p, lse = softgrad.softmax(z), softgrad.logsumexp(z)
        loss, grad = softgrad.cross_entropy_value_and_grad(z, t, reduction="none", check_targets=False)
    assert np.isnan(p).all(axis=1).tolist() == [True, True, True, False, False, False]
    judge(p[3:], truth.softmax(z[3:]))
    np.testing.assert_array_equal(lse[:2], [-np.inf, np.inf])
    assert np.isnan(lse).tolist() == [False, False, True, False, False, False]
    assert np.isnan(loss).tolist() == [True, True, True, False, True, False]
    assert np.isnan(grad).all(axis=1).tolist() == [True, True, True, False, True, False]
    assert loss[3] == np.inf
    judge(grad[5:], truth.cross_entropy_grad(z[5:], t[5:], reduction="none"))


def test_a_class_axis_with_neighbours_is_cut_too():
    z = numbers((2, 3, 300)).transpose(0, 2, 1).copy()
    v, t = z[::-1].copy(), np.array([[0, 1, 299], [5, 6, 7]])
    with device(cutting=Cutting(beyond=100, shortest=64)) as ran:
        judge(softgrad.softmax(z, axis=1), truth.softmax(z, axis=1), 3.0)
        judge(softgrad.softmax_vjp(v, logits=z, axis=1), truth.softmax_vjp(v, logits=z, axis=1))
        loss, grad = softgrad.cross_entropy_value_and_grad(z, t, axis=1, label_smoothing=0.1)
        judge(loss, truth.cross_entropy(z, t, axis=1, label_smoothing=0.1))
        judge(grad, truth.cross_entropy_grad(z, t, axis=1, label_smoothing=0.1))
    assert sum(n for kernel, n in ran.ran.items() if "segments_columns8" in kernel) >= 3 + 5 + 4


# --- same bits -------------------------------------------------------------------------------------------------------


def test_bits_depend_on_neither_rows_nor_layout_nor_order_nor_place():
    classes = 2500
    z, t = numbers((5, classes)), np.array([0, classes - 1, 1024, 7, 1023])
    v = z[::-1].copy()

    def everything(z, v, t):
        loss, grad = softgrad.cross_entropy_value_and_grad(z, t, reduction="none")
        y, h = softgrad.softmax_vjp(v, logits=z), softgrad.cross_entropy_hvp(v, logits=z, targets=t, reduction="none")
        return [softgrad.softmax(z), loss, grad, y, h]

    with device(cutting=SOON, order=5):
        shuffled = [x.tobytes() for x in everything(z, v, t)]
    with device(cutting=SOON):
        all_at_once = everything(z, v, t)
        assert [x.tobytes() for x in all_at_once] == shuffled
        for row in range(5):
            alone = everything(z[row : row + 1], v[row : row + 1], t[row : row + 1])
            assert [x[0].tobytes() for x in alone] == [x[row].tobytes() for x in all_at_once]
        memory = np.zeros((2, 5, classes + 3), z.dtype)
        moved, moved_v = memory[:, :, 1 : 1 + classes]
        moved[...], moved_v[...] = z, v
        assert [x.tobytes() for x in everything(moved, moved_v, t)] == [x.tobytes() for x in all_at_once]
        p, _, grad, y, h = all_at_once
        several = softgrad.softmax_vjp(np.stack([z, v]), logits=z)
        assert several[1].tobytes() == y.tobytes()
        for function, arrays, expected in (
            (lambda out: softgrad.softmax(out, out=out), z, p),
            (lambda out: softgrad.cross_entropy_grad(out, t, reduction="none", out=out), z, grad),
            (lambda out: softgrad.softmax_vjp(v, logits=out, out=out), z, y),
            (lambda out: softgrad.softmax_vjp(out, logits=z, out=out), v, y),
            (
                lambda out: softgrad.cross_entropy_hvp(out, logits=z, targets=t, reduction="none", out=out),
                v,
                h,
            ),
        ):
            out = arrays.copy()
            assert function(out) is out
            assert out.tobytes() == expected.tobytes()


def test_the_scratch_holds_the_records_and_is_small():
    assert NUMBERS * RECORDS * regimes.SLOT < SCRATCH_BYTES < 2**19


@pytest.mark.slow
def test_a_row_of_ten_million_classes():
    z = numbers((10**7,), size=3.0)
    with device() as ran:
        p = softgrad.softmax(z)
    assert list(ran.ran.values()) == [3]
    e = np.exp(z.astype(np.longdouble) - z.max())
    assert np.abs(p / (e / e.sum()) - 1.0).max() < 3 * 2.0**-23


def test_a_target_read_after_it_was_overwritten_would_be_seen():
    z, t = numbers((2, 2500)), np.array([3, 4])
    z[:, 3:5] = 50.0  # so that the target counts
    expected = truth.cross_entropy_grad(z, t, reduction="none")
    late = ("segments.cuh", "    if (walk + 1 < a.launch) return *at;\n", "")
    with device(cutting=SOON, edits=(late,)):
        softgrad.cross_entropy_grad(z, t, reduction="none", out=z)
    assert truth.worst_ulp(z, expected) > 4.0
