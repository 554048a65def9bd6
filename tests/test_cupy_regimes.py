"""Which kernel serves which row; that each is right at both its ends; and that a row's bits are its own."""

import numpy as np
import pytest

import softgrad
from softgrad.backends.cuda import regimes
from tests import truth
from tests.cases import DTYPES
from tests.emulator import variants
from tests.emulator.fixtures import device


def rows_of(classes, dtype, count=2):
    rng = np.random.default_rng(classes)
    return (rng.standard_normal((count, classes)) * 10).astype(dtype)


# (C, what serves float32, what serves it two arrays at a time)
TABLE = [
    (1, "short1_keep1", "short1_keep1"),
    (2, "short2_keep1", "short2_keep1"),
    (4, "short4_keep1", "short4_keep1"),
    (5, "lanes1_keep4", "lanes1_keep4"),
    (16, "lanes1_keep4", "lanes1_keep4"),
    (17, "lanes2_keep4", "lanes2_keep4"),
    (512, "lanes32_keep4", "lanes32_keep4"),
    (513, "block64_keep4", "block64_keep4"),
    (4096, "block256_keep4", "block256_keep4"),
    (4097, "block512_keep4", "cluster2x256_keep4"),
    (16384, "block512_keep8", "cluster4x256_keep4"),
    (16385, "cluster2x512_keep8", "cluster8x256_keep4"),
    (65537, "cluster8x512_keep8", "cluster8x256_held14"),
    (114689, "cluster8x512_keep8", "cluster8x512_held14"),
    (262144, "cluster8x1024_keep8", "cluster8x512_walk"),
    (10_000_000, "cluster8x512_walk", "cluster8x512_walk"),
]


@pytest.mark.parametrize(("classes", "one", "two"), TABLE)
def test_the_table(classes, one, two):
    assert regimes.keeping(classes, 4, contiguous=True, clusters=True).name == one
    assert regimes.keeping(classes, 4, contiguous=True, clusters=True, arrays=2).name == two


def test_long_rows_of_two_arrays_are_held_in_shared_memory():
    classes = 65536 + 7
    memory, v = rows_of(classes + 5, np.float32, 1), rows_of(classes, np.float32, 2)[1:]
    z = memory[:, 5:]  # between two words
    right = truth.softmax_vjp(v, logits=z)
    with device() as ran:
        wide = softgrad.softmax_vjp(v.astype(np.float64), logits=z)  # a tangent that is not held
        again, _ = softgrad.softmax_vjp(np.stack([z, v]), logits=z)[::-1]
        softgrad.softmax_vjp(v, logits=z, out=v)
        assert all(kernel.endswith("cluster8x256_held14") for kernel in ran.ran)
    assert truth.worst_ulp(v, right) <= 4.0
    assert wide.tobytes() == again.tobytes() == v.tobytes()


def test_without_clusters_long_rows_are_read_again():
    assert regimes.keeping(50_257, 4, contiguous=True, clusters=False).name == "block512_walk"
    assert regimes.keeping(50_257, 4, contiguous=False, clusters=True).name == "columns16_walk"


@pytest.mark.parametrize("itemsize", [2, 4, 8])
def test_no_regime_keeps_fewer_classes_than_it_serves(itemsize):
    for classes in variants.thresholds(itemsize):
        for contiguous in (True, False):
            regime = regimes.keeping(classes, itemsize, contiguous=contiguous, clusters=True)
            width = regime.width if regime.kind == "short" else 16 // itemsize if contiguous else 1
            assert not regime.chunks or abs(regime.chunks) * regime.size * regime.blocks * width >= classes


@pytest.mark.parametrize("itemsize", [2, 4, 8])
def test_rows_of_up_to_16_bytes_are_never_padded(itemsize):
    for arrays in (1, 2):
        for classes in range(1, 16 // itemsize + 1):
            regime = regimes.keeping(classes, itemsize, contiguous=True, clusters=True, arrays=arrays)
            assert regime.name == f"short{classes}_keep1"
            assert 16 < regime.turns * classes * itemsize <= 32
            assert regime.grid(128 * regime.turns * 7 + 1) == 8
        longer = regimes.keeping(16 // itemsize + 1, itemsize, contiguous=True, clusters=True, arrays=arrays)
        assert longer.kind == "lanes"


AFFORDABLE = 40_000  # classes; longer rows take their time on a CPU


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float64"])
def test_both_sides_of_every_threshold(name):
    if name not in DTYPES:
        pytest.skip("bfloat16 needs ml_dtypes")
    dtype, served = DTYPES[name], set()
    with device() as ran:
        for classes in variants.thresholds(dtype.itemsize):
            if classes > AFFORDABLE:
                break
            z = rows_of(classes, dtype)
            t = np.array([0, classes - 1])
            assert truth.worst_ulp(softgrad.softmax(z), truth.softmax(z)) <= 3.0, classes
            loss, grad = softgrad.cross_entropy_value_and_grad(z, t, reduction="none")
            assert truth.worst_ulp(loss, truth.cross_entropy(z, t, reduction="none")) <= 3.0, classes
            assert truth.worst_ulp(grad, truth.cross_entropy_grad(z, t, reduction="none")) <= 3.0, classes
            regime = regimes.keeping(classes, dtype.itemsize, contiguous=True, clusters=True)
            served.add(regime.name)
            assert any("cross_entropy" in kernel and kernel.endswith(regime.name) for kernel in ran.ran), classes
    assert len(served) >= 13


@pytest.mark.parametrize("classes", [3, 100, 300, 600])
def test_strided_class_axes(classes):
    z = rows_of(classes * 6, np.float32).reshape(2, classes, 6)
    v, t = z[::-1].copy(), np.array([[0, 1, 2, 0, 1, 2], [0] * 6])
    with device() as ran:
        got = softgrad.softmax(z, axis=1), softgrad.softmax_vjp(v, logits=z, axis=1)
        loss, grad = softgrad.cross_entropy_value_and_grad(z, t, axis=1, label_smoothing=0.1)
        mathematics = [
            kernel for kernel in ran.ran if any(f in kernel for f in ("softmax", "products", "cross_entropy"))
        ]
        assert mathematics
        assert all("columns" in kernel for kernel in mathematics)
    assert truth.worst_ulp(got[0], truth.softmax(z, axis=1)) <= 3.0
    assert truth.worst_ulp(got[1], truth.softmax_vjp(v, logits=z, axis=1)) <= 4.0
    assert truth.worst_ulp(loss, truth.cross_entropy(z, t, axis=1, label_smoothing=0.1)) <= 4.0
    assert truth.worst_ulp(grad, truth.cross_entropy_grad(z, t, axis=1, label_smoothing=0.1)) <= 4.0


@pytest.mark.parametrize("order", [1, 5])
def test_the_order_in_which_threads_run_changes_no_bit(order):
    z, t = rows_of(3000, np.float32), np.array([7, 2999])

    def results(order):
        with device(order=order):
            loss, grad = softgrad.cross_entropy_value_and_grad(z, t)
            more = softgrad.softmax_vjp(z[::-1].copy(), logits=z), softgrad.softmax(z.reshape(2, 3, 1000), axis=1)
        return [x.tobytes() for x in (loss, grad, *more)]

    assert results(order) == results(0)


@pytest.mark.parametrize("classes", [3, 37, 129, 1000, 2050])
@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_a_rows_bits_are_its_own(classes, name):
    """Not its neighbours', address's or stride's; in place or not; alone or among tangents; loss alone or not."""
    if name not in DTYPES:
        pytest.skip("bfloat16 needs ml_dtypes")
    z = rows_of(classes, DTYPES[name], 3)
    v, t = z[::-1].copy(), np.array([0, classes - 1, classes // 2])
    with device():
        p, y = softgrad.softmax(z), softgrad.softmax_vjp(v, logits=z)
        loss, grad = softgrad.cross_entropy_value_and_grad(z, t, reduction="none")
        for shift in (1, 3):
            memory = np.zeros((3, classes + 5), z.dtype)
            moved, moved_v = memory[:, shift : shift + classes], memory.copy()[:, 1 : 1 + classes]
            moved[...], moved_v[...] = z, v
            out = np.zeros((3, 2 * classes), z.dtype)[:, ::2]
            assert softgrad.softmax(moved, out=out).tobytes() == p.tobytes()
            assert softgrad.softmax_vjp(moved_v, logits=moved).tobytes() == y.tobytes()
            assert softgrad.cross_entropy_grad(moved, t, reduction="none").tobytes() == grad.tobytes()
            assert softgrad.softmax(moved, out=moved).tobytes() == p.tobytes()
        for row in range(3):
            assert softgrad.softmax(z[row]).tobytes() == p[row].tobytes()
            assert softgrad.cross_entropy(z[row], t[row], reduction="none").tobytes() == loss[row].tobytes()
        several = softgrad.softmax_vjp(np.stack([z, v, v]), logits=z)
        assert several[1].tobytes() == several[2].tobytes() == y.tobytes()


@pytest.mark.parametrize("classes", [2, 3, 4, 8, 10, 16, 17, 100, 101])
@pytest.mark.parametrize("name", ["float32", "float16"])
def test_short_rows_keep_their_bits_at_every_address(classes, name):
    """Through shared memory, in words, and one by one: aligned or not, adjacent or with gaps, whole blocks or not."""
    per_block = 128 * regimes.keeping(classes, DTYPES[name].itemsize, contiguous=True, clusters=True).turns
    rows = per_block + 5  # a block's rows, and some of another's
    z = rows_of(classes, DTYPES[name], rows)
    v, t = np.stack([z[::-1], z]), np.arange(rows) % classes
    with device():
        p, y = softgrad.softmax(z), softgrad.log_softmax_vjp(v, logits=z)
        grad = softgrad.cross_entropy_grad(z, t, reduction="none")
        assert truth.worst_ulp(p, truth.softmax(z)) <= 3.0
        assert truth.worst_ulp(y, truth.log_softmax_vjp(v, logits=z)) <= 4.0
        for gap, shift in ((0, 1), (0, 5), (3, 2), (classes, 0)):
            memory = np.full((rows + 2) * (classes + gap) + 16, -7.0, z.dtype)
            steps = ((classes + gap) * z.itemsize, z.itemsize)
            moved = np.lib.stride_tricks.as_strided(memory[shift:], z.shape, steps)
            moved[...] = z
            untouched = memory.copy()
            assert softgrad.log_softmax_vjp(v, logits=moved).tobytes() == y.tobytes()
            out = np.full(z.size + 3, -7.0, z.dtype)
            softgrad.softmax(moved, out=out[1 : 1 + z.size].reshape(z.shape))
            assert out[1 : 1 + z.size].tobytes() == p.tobytes()
            assert (out[[0, -2, -1]] == -7.0).all()
            softgrad.cross_entropy_grad(moved, t, reduction="none", out=moved)
            assert moved.tobytes() == grad.tobytes()
            moved[...] = z
            assert memory.tobytes() == untouched.tobytes()


def test_means_depend_on_the_number_of_rows_alone():
    rng = np.random.default_rng(0)
    z, t = rng.standard_normal((9000, 3)).astype(np.float32), rng.integers(0, 3, 9000)
    with device():
        mean = softgrad.cross_entropy(z, t)
        per_row = softgrad.cross_entropy(z, t, reduction="none")
    assert abs(float(mean) - per_row.astype(np.float64).mean()) <= 2.0**-23 * float(mean)
    assert truth.worst_ulp(mean, truth.cross_entropy(z, t)) <= 2.0


def test_targets_out_of_range_poison_their_own_row_and_touch_nothing_else():
    z = rows_of(40, np.float32, 6)
    for dtype in (np.int8, np.uint8, np.int32, np.uint64, np.int64):
        far = np.iinfo(dtype).max
        t = np.array([0, far, 39, 40, 5, 1], dtype)
        with device():
            loss, grad = softgrad.cross_entropy_value_and_grad(z, t, reduction="none", check_targets=False)
            mean = softgrad.cross_entropy(z, t, check_targets=False)
        bad = np.array([1, 3])
        assert np.isnan(loss[bad]).all()
        assert np.isnan(grad[bad]).all()
        assert np.isnan(mean)
        good = np.array([0, 2, 4, 5])
        assert (
            truth.worst_ulp(grad[good], truth.cross_entropy_grad(z[good], t[good].astype(int), reduction="none")) <= 3
        )


def test_a_kernel_for_every_mixture_of_dtypes():
    z = rows_of(50, np.float32, 4)
    v, p = rows_of(50, np.float64, 4), np.abs(rows_of(50, np.float16, 4))
    with device():
        y = softgrad.softmax_jvp(v, logits=z)
        grad = softgrad.cross_entropy_grad(z, p)
        integers = softgrad.softmax_jvp((v * 10).astype(np.int16), logits=z)
        hot = softgrad.cross_entropy_grad(z, np.eye(50, dtype=np.uint8)[:4])
    assert truth.worst_ulp(y, truth.softmax_jvp(v.astype(np.float32), logits=z)) <= 4.0
    assert truth.worst_ulp(grad, truth.cross_entropy_grad(z, p)) <= 4.0
    assert truth.worst_ulp(integers, truth.softmax_jvp((v * 10).astype(np.int16), logits=z)) <= 4.0
    assert truth.worst_ulp(hot, truth.cross_entropy_grad(z, np.eye(50)[:4])) <= 4.0
