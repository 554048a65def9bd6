"""The numba backend gives a row the same bits whoever computes it: threads, forked children, neighbours, layouts."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import softgrad

pytest.importorskip("numba", reason="the numba backend needs numba")

from softgrad.backends.numba_cpu import huge, huge_rows, memory, processors, single_rows, threads
from softgrad.backends.numba_cpu.lanes import columns
from softgrad.protocol import loss_dtype
from tests import truth
from tests.cases import DTYPES
from tests.truth import assert_right

# A row in a lane, sixteen rows in vectors, a row by itself; each with whole vectors and a tail.
CLASSES = [3, 16, 31, 33, 100, 384, 385, 1000, 5000]


@pytest.fixture(autouse=True)
def _numba():
    with softgrad.use_backend("numba"):
        yield


def problem(classes: int, rows: int = 37):
    rng = np.random.default_rng(classes)
    z = (rng.standard_normal((rows, classes)) * 4).astype(np.float32)
    z[5] *= 1e4  # rows that float32 will not do for
    z[11, 0] = -np.inf
    v = rng.standard_normal((2, rows, classes)).astype(np.float32)
    return z, rng.integers(0, classes, rows), v


def results(z, t, v):
    loss, grad = softgrad.cross_entropy_value_and_grad(z, t, reduction="none")
    probs, log_probs, lse = softgrad.softmax(z), softgrad.log_softmax(z), softgrad.logsumexp(z)
    return (
        probs,
        log_probs,
        softgrad.softmax_vjp(v, logits=z),
        loss,
        grad,
        lse,
        softgrad.softmax_vjp(v, probs=probs),
        softgrad.log_softmax_jvp(v, logits=z),
        softgrad.log_softmax_vjp(v, log_probs=log_probs),
    )


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture
def forced_threads(monkeypatch):
    """Small problems on that many threads."""

    def force(count):
        monkeypatch.setattr(threads, "WORTH", 1)
        monkeypatch.setattr(processors, "allowed", lambda: count)
        monkeypatch.setattr(single_rows, "FEW", 0)
        monkeypatch.setattr(single_rows, "CHUNK", 64)

    return force


@pytest.mark.parametrize("classes", CLASSES)
def test_threads(classes, forced_threads):
    z, t, v = problem(classes)
    alone = results(z, t, v)
    reduced = softgrad.cross_entropy(z, t)
    for count in (1, 2, 5):
        forced_threads(count)
        assert_same(results(z, t, v), alone)
        assert softgrad.cross_entropy(z, t) == reduced


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_few_rows_have_the_bits_of_many(dtype, monkeypatch):
    """The compiled functions of a few rows, which take arrays as they are, beside the kernels shared by threads."""
    z, t, v = problem(10)
    z, v = z[:3].astype(dtype), v[:, :3].astype(dtype)
    z[0, 1], z[2, 4], t = -np.inf, 3000.0, np.where(np.arange(3) == 1, -100, t[:3])
    weight, p = np.linspace(0.5, 2.0, 10), np.random.default_rng(1).dirichlet(np.ones(10), 3)
    points = softgrad.softmax(z)

    def every_result():
        for targets in (t, t.astype(np.int8), p):
            for options in ({}, {"weight": weight, "reduction": "sum"}, {"label_smoothing": 0.1, "softcap": 30.0}):
                yield from softgrad.cross_entropy_value_and_grad(z, targets, grad_output=0.5, **options)
                yield softgrad.cross_entropy(z, targets, **options | {"reduction": "none"})
                yield softgrad.cross_entropy_jvp(v, logits=z, targets=targets, **options)
                yield softgrad.cross_entropy_hvp(v, logits=z, targets=targets, **options)
        for product in (softgrad.softmax_vjp, softgrad.log_softmax_jvp, softgrad.log_softmax_vjp):
            yield product(v, logits=z)
        yield softgrad.softmax_vjp(v, probs=points, check_probs=False)
        yield from (softgrad.softmax(z), softgrad.log_softmax(z), softgrad.logsumexp(z))

    few = list(every_result())
    monkeypatch.setattr(single_rows, "FEW", 0)
    assert_same(few, list(every_result()))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scratch_memory_is_enough(dtype, monkeypatch):
    """What lies behind it is left alone, whatever is computed for a few rows."""
    made, whole = [], 5.0e-324 * 12345

    class Guarded(memory.Scratch):
        def __init__(self, size):
            super().__init__(size + 8192)
            self.size = size
            self.behind = self.numbers[-(-size // 8) : -(-size // 8) + 1000]
            self.behind[:] = whole
            made.append(self)

    monkeypatch.setattr(memory, "Scratch", Guarded)
    for classes in (1, 3, 7, 9, 65):
        monkeypatch.setattr(memory, "_kept", memory._Kept())  # else what another test has left would do
        z, t, v = problem(classes, 14)
        z, v = z.astype(dtype), v.astype(dtype)
        results(z, t, v)
        softgrad.cross_entropy_jvp(v, logits=z, targets=t)
        softgrad.cross_entropy_hvp(v, logits=z, targets=t, weight=np.ones(classes), softcap=20.0)
        softgrad.cross_entropy_grad(z, t, softcap=20.0)
    assert made
    assert all((each.behind == whole).all() for each in made)


def test_helpers_take_part(forced_threads):
    """That is what the test above is about: the work is really shared."""
    forced_threads(3)
    names = set()
    barrier = threading.Barrier(3, timeout=30)

    def run(counter):
        ctypes.c_int64.from_address(counter & ~threads.HELPER).value += 1
        names.add(threading.current_thread().name)
        barrier.wait()
        threads.end(counter)

    threads.share(100, 100, run)
    assert len(names) >= 2


@pytest.mark.parametrize("classes", CLASSES)
def test_slices_strides_and_in_place(classes):
    z, t, v = problem(classes)
    whole = results(z, t, v)
    for rows in (slice(0, 1), slice(3, 20), slice(5, 6), slice(36, 37)):
        part = results(z[rows], t[rows], v[:, rows])
        assert_same(part, [x[:, rows] if x.ndim == 3 else x[rows] for x in whole])
    spread = np.zeros((z.shape[0], classes + 3), np.float32)
    spread[:, 1:-2] = z
    assert_same(results(spread[:, 1:-2], t, v), whole)
    np.testing.assert_array_equal(softgrad.softmax_vjp(v[0], logits=z), whole[2][0])
    assert_same([softgrad.cross_entropy_grad(z, t, reduction="none")], [whole[4]])
    place = z.copy()
    softgrad.softmax(place, out=place)
    np.testing.assert_array_equal(place, whole[0])
    place = z.copy()
    softgrad.log_softmax(place, out=place)
    np.testing.assert_array_equal(place, whole[1])
    place = v.copy()
    softgrad.softmax_vjp(place, logits=z, out=place)
    np.testing.assert_array_equal(place, whole[2])
    strided = np.zeros((z.shape[0], 2 * classes), np.float32)[:, ::2]
    softgrad.softmax(z, out=strided)
    np.testing.assert_array_equal(strided, whole[0])
    softgrad.log_softmax(z, out=strided)
    np.testing.assert_array_equal(strided, whole[1])


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
@pytest.mark.parametrize("classes", [2, 5, 10, *CLASSES])
def test_results_written_past_the_caches(classes, name, forced_threads, monkeypatch):
    """As large ones are; from addresses within a line, too."""
    z, t, v = problem(classes, 38 if classes > 32 else 358)
    z, v = z.astype(DTYPES[name]), v.astype(DTYPES[name])
    t[20] = -100  # a tile of sixteen rows that are not all written alike
    expected = results(z, t, v)
    forced_threads(1)
    monkeypatch.setattr(single_rows, "LARGE_BYTES", 0)
    assert_same(results(z, t, v), expected)
    for offset in (1, 3, 16):
        place = np.full(z.size + 64, 7.0, z.dtype)
        out = place[offset : offset + z.size].reshape(z.shape)
        softgrad.softmax(z, out=out)
        np.testing.assert_array_equal(out, expected[0])
        softgrad.cross_entropy_grad(z, t, reduction="none", out=out)
        np.testing.assert_array_equal(out, expected[4])
        softgrad.softmax_vjp(v[1], logits=z, out=out)
        np.testing.assert_array_equal(out, expected[2][1])
        assert (place[:offset] == 7.0).all()
        assert (place[offset + z.size :] == 7.0).all()


def test_long_results_of_strided_classes_past_the_caches(forced_threads, monkeypatch):
    """A tile of them is more than would be packed."""
    z, t, v = problem(700, 21)
    z, v = np.asfortranarray(z), v.transpose(0, 2, 1).copy().transpose(0, 2, 1)
    forced_threads(1)
    expected = softgrad.softmax(z), softgrad.softmax_vjp(v[0], logits=z), softgrad.cross_entropy_grad(z, t)
    monkeypatch.setattr(single_rows, "LARGE_BYTES", 0)
    out = [np.full(z.shape, 7.0, np.float32) for _ in expected]
    softgrad.softmax(z, out=out[0])
    softgrad.softmax_vjp(v[0], logits=z, out=out[1])
    softgrad.cross_entropy_grad(z, t, out=out[2])
    assert_same(out, expected)


@pytest.mark.parametrize("classes", [2, 10])
def test_losses_of_short_rows_are_added_in_parts(classes, forced_threads):
    """Rows without a target, and rows that are computed once more, have their place in the sum."""
    rows = 2 * 1024 + 37
    z, t, _ = problem(classes, rows)
    t[7] = t[rows - 1] = -100
    each = softgrad.cross_entropy(z, t, reduction="none").astype(np.float64)
    reduced = [softgrad.cross_entropy(z, t, reduction=reduction) for reduction in ("sum", "mean")]
    np.testing.assert_allclose(reduced, [each.sum(), each.sum() / (rows - 2)], rtol=2e-7)
    for count in (1, 3):
        forced_threads(count)
        assert softgrad.cross_entropy(z, t, reduction="mean") == reduced[1]
        place = z.copy()
        assert softgrad.cross_entropy_value_and_grad(place, t, out=place)[0] == reduced[1]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("position", [5, 2**15 + 9, 2**17 + 2])
def test_the_first_bad_target_of_many(position, count, forced_threads):
    """Whatever part of them it stands in, and whatever follows; judged by one thread or, part by part, by some."""
    forced_threads(count)
    rows = 2**17 + 3
    z, t = np.zeros((rows, 2), np.float32), np.arange(rows) % 2
    t[:: 2**14] = -100  # in every part
    np.testing.assert_allclose(softgrad.cross_entropy(z, t), np.log(2.0), rtol=2e-7)
    t[position] = t[-1] = 2
    with pytest.raises(ValueError, match=rf"targets\[{position}\]"):
        softgrad.cross_entropy(z, t)


def test_one_grad_output_for_all_rows_or_each_its_own():
    z, t, _ = problem(10)
    for scale in (0.3, 1e-20):
        one = softgrad.cross_entropy_grad(z, t, grad_output=scale, reduction="none")
        own = softgrad.cross_entropy_grad(z, t, grad_output=np.full(len(z), scale), reduction="none")
        np.testing.assert_array_equal(one, own)


def test_functions_compiled_apart_have_symbols_of_their_own():
    """Those of one name are taken for one where a process loads kernels that several have cached."""
    found = [x for x in vars(columns).values() if hasattr(x, "py_func")]
    names = {(x.py_func.__module__, x.py_func.__qualname__) for x in found}
    assert len(names) == len(set(map(id, found))) >= 18


def test_eight_python_threads(forced_threads):
    problems = [problem(classes, 64) for classes in (10, 100, 2000)]
    expected = [results(*p) for p in problems]
    forced_threads(2)

    def repeat(_):
        with softgrad.use_backend("numba"):
            for _ in range(5):
                for p, e in zip(problems, expected, strict=True):
                    assert_same(results(*p), e)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(repeat, range(8)))


# Whole segments, and one of a tail alone.
HUGE_CLASSES = [huge.HUGE, huge.HUGE + 7]


@pytest.mark.parametrize("classes", HUGE_CLASSES)
def test_huge_rows(classes, forced_threads):
    """The same bits for any number of threads, any rows around, in place or not."""
    z, t, v = problem(classes, 13)
    z, t, v = z[4:12], t[4:12], v[:, 4:12]  # among them rows that float32 will not do for
    t[3] = -100
    whole = results(z, t, v)
    forced_threads(1)
    assert_same(results(z, t, v), whole)
    forced_threads(3)
    assert_same(results(z, t, v), whole)
    for rows in (slice(0, 1), slice(1, 4), slice(2, 3)):
        assert_same(results(z[rows], t[rows], v[:, rows]), [x[:, rows] if x.ndim == 3 else x[rows] for x in whole])
    np.testing.assert_array_equal(softgrad.softmax_vjp(v[1], logits=z), whole[2][1])
    for expected, call in (
        (whole[0], lambda place: softgrad.softmax(place, out=place)),
        (whole[1], lambda place: softgrad.log_softmax(place, out=place)),
        (whole[4], lambda place: softgrad.cross_entropy_grad(place, t, reduction="none", out=place)),
        (whole[2][1], lambda place: softgrad.softmax_vjp(v[1], logits=place, out=place)),
    ):
        place = z.copy()
        np.testing.assert_array_equal(call(place), expected)
    place = v[1].copy()
    np.testing.assert_array_equal(softgrad.softmax_vjp(place, logits=z, out=place), whole[2][1])


def test_the_segments_of_one_huge_row_are_shared(forced_threads, monkeypatch):
    shared = []
    monkeypatch.setattr(huge_rows, "share", lambda elements, tasks, run: (shared.append(tasks), run_all(run)))
    z, t, v = problem(huge.HUGE + 7, 12)
    results(z[:1], t[:1], v[:, :1])
    segments = huge.HUGE // huge.SEGMENT + 1
    assert shared == [segments] * 20  # products in three steps, all others in two


def test_as_many_huge_rows_as_threads_are_taken_whole(forced_threads, monkeypatch):
    """Others by their segments; smoothing and z_loss change nothing about that, and bits depend on neither way."""
    forced_threads(2)
    z, t, _ = problem(huge.HUGE + 7, 14)
    z, t = z[:5], t[:5]
    z[0, -2] = 60.0  # with an N of its own
    tasks = []
    monkeypatch.setattr(huge_rows, "share", lambda elements, n, run: (tasks.append(n), run_all(run)))
    options = {"label_smoothing": 0.1, "z_loss": 1e-3, "reduction": "none"}
    whole = softgrad.softmax(z), *softgrad.cross_entropy_value_and_grad(z, t, **options)
    segments = huge.HUGE // huge.SEGMENT + 1
    assert tasks == [segments] * 2 + [4] + [segments] * 3 + [4]
    monkeypatch.setattr(huge_rows, "KEPT_BYTES", 0)
    tasks.clear()
    segmented = softgrad.softmax(z), *softgrad.cross_entropy_value_and_grad(z, t, **options)
    assert 4 not in tasks
    for one, other in zip(whole, segmented, strict=True):
        np.testing.assert_array_equal(one, other)


def run_all(run):
    counter = np.zeros(1, np.int64)
    run(counter.ctypes.data)


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_accuracy_of_a_huge_row(name):
    dtype = DTYPES[name]
    classes, peak = 2**20 + 5, 2**18
    rng = np.random.default_rng(1)
    z = rng.standard_normal((1, classes)) * 4
    z[0, : classes // 2] -= 30.0  # whole segments far below the others
    z[0, 2**16 : 2**17] = -np.inf
    z[0, peak] = 60.0  # the others are lost beside it
    z = z.astype(dtype)
    assert_right(softgrad.softmax(z), truth.softmax(z), dtype)
    assert_right(softgrad.log_softmax(z), truth.log_softmax(z), dtype)
    assert_right(softgrad.logsumexp(z), truth.logsumexp(z), loss_dtype(dtype))
    if name == "float32":
        v = rng.standard_normal((1, classes)).astype(dtype)
        assert_right(softgrad.softmax_vjp(v, logits=z), truth.softmax_vjp(v, logits=z), dtype)
        p, log_p = softgrad.softmax(z), softgrad.log_softmax(z)
        assert_right(softgrad.softmax_vjp(v, probs=p), truth.softmax_vjp(v, probs=p), dtype)
        assert_right(softgrad.log_softmax_vjp(v, logits=z), truth.log_softmax_vjp(v, logits=z), dtype)
        assert_right(softgrad.log_softmax_jvp(v, log_probs=log_p), truth.log_softmax_jvp(v, log_probs=log_p), dtype)
        t = np.array([peak])
        loss, grad = softgrad.cross_entropy_value_and_grad(z, t)
        assert_right(loss, truth.cross_entropy(z, t), loss_dtype(dtype))
        assert_right(grad, truth.cross_entropy_grad(z, t), dtype)


def run_apart(code):
    """Run code in a process of its own, with this one's packages; it must end well."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_computes_in_parallel():
    # Apart from this process, where other tests may have loaded libraries that object to a fork.
    run_apart("""
import os, threading, numpy as np, softgrad
from softgrad.backends.numba_cpu import processors, single_rows, threads
threads.WORTH, processors.allowed, single_rows.FEW, single_rows.CHUNK = 1, lambda: 2, 0, 64
z = np.random.default_rng(0).normal(size=(37, 1000)).astype(np.float32)
expected = softgrad.softmax(z)
assert threading.active_count() > 1  # the pool's threads exist now, in the parent alone
child = os.fork()
if child == 0:
    same = (softgrad.softmax(z) == expected).all() and threading.active_count() > 1
    os._exit(0 if same else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
""")


def test_numbas_own_threads_are_left_alone():
    """No parallel region of numba's is started: what would abort under `workqueue`, or in a child of GNU OpenMP."""
    run_apart("""
import numpy, numba, softgrad
z = numpy.zeros((2000, 1000), numpy.float32)
with softgrad.use_backend("numba"):
    softgrad.softmax(z, out=z)
assert not numba.np.ufunc.parallel._is_initialized
""")


def test_calls_beside_a_parallel_region_of_the_users():
    """Under `workqueue`, where two parallel regions at once would abort the process."""
    run_apart("""
import threading, numba, numpy as np, softgrad
numba.config.THREADING_LAYER = "workqueue"

@numba.njit(parallel=True, nogil=True)
def theirs(x):
    total = 0.0
    for _ in range(50):
        for i in numba.prange(x.size):
            total += x[i]
    return total

x = np.ones(100_000)
assert theirs(x) == 50 * x.size and numba.threading_layer() == "workqueue"
z = np.random.default_rng(0).normal(size=(4000, 300)).astype(np.float32)
with softgrad.use_backend("numba"):
    expected = softgrad.softmax(z)
wrong = []

def ours():
    with softgrad.use_backend("numba"):
        for _ in range(30):
            wrong.append((softgrad.softmax(z) != expected).any())

beside = [threading.Thread(target=ours) for _ in range(2)]
for thread in beside:
    thread.start()
while any(thread.is_alive() for thread in beside):
    theirs(x)
for thread in beside:
    thread.join()
assert len(wrong) == 60 and not any(wrong)
""")
