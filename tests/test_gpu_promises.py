"""Both GPU backends on a device: the same bits every time, poison, streams, graphs, threads.

Run by `python3 ci gpu`.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import softgrad
from tests import gpu as sizes
from tests.cases import DTYPES

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("classes", sizes.CLASSES)
@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_a_row_s_bits_are_its_own(gpu: Any, classes: int, name: str) -> None:
    if name not in DTYPES:
        pytest.skip("bfloat16 needs ml_dtypes")
    values = (np.random.default_rng(classes).standard_normal((5, classes)) * 8).astype(DTYPES[name])
    z, t = gpu.put(values), gpu.put(np.arange(5) % classes)
    p = gpu.get(softgrad.softmax(z)).tobytes()
    loss, grad = map(gpu.get, softgrad.cross_entropy_value_and_grad(z, t, reduction="none"))
    product = gpu.get(softgrad.softmax_vjp(z, logits=z)).tobytes()
    # Moved: rows that start at odd addresses, further apart.
    memory = np.zeros((5, classes + 3), values.dtype)
    memory[:, 1 : 1 + classes] = values
    moved = gpu.put(memory)[:, 1 : 1 + classes]
    assert moved.strides[0] == memory.strides[0]
    assert gpu.get(softgrad.softmax(moved)).tobytes() == p
    assert gpu.get(softgrad.cross_entropy_grad(moved, t, reduction="none")).tobytes() == grad.tobytes()
    # Alone, and with the loss left out.
    for row in range(5):
        alone = softgrad.cross_entropy_grad(gpu.put(values[row : row + 1]), t[row : row + 1], reduction="none")
        assert gpu.get(alone).tobytes() == grad[row].tobytes()
    # Among other tangents, again and again, and in place.
    two = gpu.put(np.stack([values[::-1], values]))
    assert gpu.get(softgrad.softmax_vjp(two, logits=z))[1].tobytes() == product
    for _ in range(sizes.REPEATS):
        again = softgrad.cross_entropy_value_and_grad(z, t, reduction="none")
        assert gpu.get(again[0]).tobytes() == loss.tobytes()
        assert gpu.get(again[1]).tobytes() == grad.tobytes()
    assert softgrad.softmax(z, out=z) is z
    assert gpu.get(z).tobytes() == p


def test_reductions_repeat_to_the_bit(gpu: Any) -> None:
    rng = np.random.default_rng(0)
    z, t = (
        gpu.put(rng.standard_normal((sizes.MANY_ROWS, 3)).astype(np.float32)),
        gpu.put(rng.integers(0, 3, sizes.MANY_ROWS)),
    )
    w = gpu.put(rng.random(3).astype(np.float32))
    first = [gpu.get(x) for x in softgrad.cross_entropy_value_and_grad(z, t, weight=w)]
    for _ in range(sizes.REPEATS):
        again = [gpu.get(x) for x in softgrad.cross_entropy_value_and_grad(z, t, weight=w)]
        assert [x.tobytes() for x in again] == [x.tobytes() for x in first]
    per_row = gpu.get(softgrad.cross_entropy(z, t, weight=w, reduction="none")).astype(np.float64)
    mean = per_row.sum() / gpu.get(w).astype(np.float64)[gpu.get(t)].sum()
    assert abs(first[0] / mean - 1.0) < 2.0**-23


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int32, np.int64, np.uint64])
def test_targets_out_of_range_poison_their_own_row(gpu: Any, kind: Any) -> None:
    far = np.iinfo(kind).max
    z = gpu.put(np.random.default_rng(0).standard_normal((4, 100)).astype(np.float32))
    bad, good = gpu.put(np.array([1, far, 100, 2], kind)), gpu.put(np.array([1, 0, 0, 2], kind))
    loss, grad = map(gpu.get, softgrad.cross_entropy_value_and_grad(z, bad, reduction="none"))
    assert np.isnan(loss).tolist() == [False, True, True, False]
    assert np.isnan(grad).all(axis=1).tolist() == [False, True, True, False]
    whole = gpu.get(softgrad.cross_entropy_grad(z, good, reduction="none"))
    np.testing.assert_array_equal(grad[[0, 3]], whole[[0, 3]])
    mean, grad = map(gpu.get, softgrad.cross_entropy_value_and_grad(z, bad))
    assert np.isnan(mean)
    np.testing.assert_allclose(grad[[0, 3]], whole[[0, 3]] / 2, rtol=1e-6)  # a bad row counts in no divisor
    with pytest.raises(ValueError, match=rf"targets\[1\] is {far}; expected \[0, 100\)"):
        softgrad.cross_entropy(z, bad, check_targets=True)


def test_bad_calls_leave_everything_as_it_was(gpu: Any) -> None:
    values = np.random.default_rng(0).standard_normal(40)
    memory = gpu.put(values)
    with pytest.raises(ValueError, match="overlaps"):
        softgrad.softmax(memory[:-1], out=memory[1:])
    with pytest.raises(TypeError, match="`targets` is a numpy"):
        softgrad.cross_entropy(gpu.put(np.zeros((2, 3))), np.zeros(2, np.int64))
    with pytest.raises(TypeError, match="`out` has dtype float32"):
        softgrad.softmax(memory, out=gpu.put(np.zeros(40, np.float32)))
    with pytest.raises(ValueError, match="negative entry"):
        softgrad.softmax_vjp(memory, probs=memory, check_probs=True)
    np.testing.assert_array_equal(gpu.get(memory), values)


# --- streams, graphs, threads -----------------------------------------------------------------------------------------


def test_calls_follow_the_current_stream(gpu_streams: Any) -> None:
    gpu, cupy = gpu_streams, gpu_streams.module
    rng = np.random.default_rng(0)
    z, t = gpu.put(rng.standard_normal(sizes.BATCH).astype(np.float32)), gpu.put(np.zeros(sizes.BATCH[0], np.int64))
    expected = [gpu.get(x).tobytes() for x in softgrad.cross_entropy_value_and_grad(z, t)]
    with gpu.on_a_stream():
        late = cupy.zeros_like(z)
        for _ in range(50):
            late += 1.0  # so that the copy below is late
        late[...] = z
        got = softgrad.cross_entropy_value_and_grad(late, t)
        late[...] = 0.0  # later than the call
    assert [gpu.get(x).tobytes() for x in got] == expected


def test_calls_follow_the_stream_that_numba_s_array_is_bound_to(gpu_numba: Any) -> None:
    gpu = gpu_numba
    values = np.random.default_rng(0).standard_normal((64, 3000)).astype(np.float32)
    expected = gpu.get(softgrad.softmax(gpu.put(values)))
    stream = gpu.module.stream()
    bound = gpu.module.to_device(values, stream=stream)
    p = softgrad.softmax(bound)
    stream.synchronize()
    np.testing.assert_array_equal(gpu.get(p), expected)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_calls_can_be_captured_in_a_graph(gpu_streams: Any, reduction: str) -> None:
    gpu, cupy = gpu_streams, gpu_streams.module
    rng = np.random.default_rng(0)
    batches = rng.standard_normal((3, *sizes.BATCH)).astype(np.float32)
    z, t = gpu.put(batches[0].copy()), gpu.put(np.zeros(sizes.BATCH[0], np.int64))
    out, product = cupy.empty_like(z), cupy.empty_like(z)

    def work() -> Any:
        loss, _ = softgrad.cross_entropy_value_and_grad(z, t, reduction=reduction, out=out)
        slope = softgrad.cross_entropy_jvp(z, logits=z, targets=t, reduction=reduction)
        softgrad.cross_entropy_hvp(z, logits=z, targets=t, reduction=reduction, out=product)
        return loss, slope

    work()  # compiles
    cupy.cuda.Device().synchronize()
    with gpu.on_a_stream() as stream:  # which no call has met before
        stream.begin_capture()
        loss, slope = work()
        graph = stream.end_capture()
        for batch in batches:
            z[...] = gpu.put(batch)
            graph.launch()
            stream.synchronize()
            got = [gpu.get(x).tobytes() for x in (loss, slope, out, product)]
            true_loss, true_slope = work()
            stream.synchronize()
            assert got == [gpu.get(x).tobytes() for x in (true_loss, true_slope, out, product)]


def test_graphs_captured_on_one_stream_run_at_once_on_others(gpu_streams: Any) -> None:
    gpu, cupy = gpu_streams, gpu_streams.module
    rng = np.random.default_rng(0)
    t = gpu.put(rng.integers(0, 3, sizes.MANY_ROWS))
    given = [
        (gpu.put(rng.standard_normal((sizes.MANY_ROWS, 3)).astype(np.float32)), gpu.put(rng.random(3, np.float32)))
        for _ in range(2)
    ]
    expected = [softgrad.cross_entropy_value_and_grad(z, t, weight=w) for z, w in given]
    cupy.cuda.Device().synchronize()
    graphs, results = [], []
    with gpu.on_a_stream() as stream:
        for z, w in given:
            stream.begin_capture()
            results.append(softgrad.cross_entropy_value_and_grad(z, t, weight=w))
            graphs.append(stream.end_capture())
    streams = [cupy.cuda.Stream(non_blocking=True) for _ in graphs]
    for _ in range(sizes.REPEATS):
        for graph, stream in zip(graphs, streams, strict=True):
            graph.launch(stream)
        for stream, got, of in zip(streams, results, expected, strict=True):
            stream.synchronize()
            assert [gpu.get(x).tobytes() for x in got] == [gpu.get(x).tobytes() for x in of]


def test_with_out_nothing_is_allocated(gpu_streams: Any) -> None:
    gpu, pool = gpu_streams, gpu_streams.module.get_default_memory_pool()
    z, t = gpu.put(np.eye(64, 1000, dtype=np.float32)), gpu.put(np.arange(64))
    out = gpu.put(np.zeros((64, 1000), np.float32))
    calls = (
        lambda: softgrad.softmax(z, out=out),
        lambda: softgrad.softmax_vjp(z, logits=z, out=out),
        lambda: softgrad.cross_entropy_grad(z, t, out=out),
        lambda: softgrad.cross_entropy_hvp(z, logits=z, targets=t, out=out),
    )
    for call in calls:
        call()
        before = pool.used_bytes(), pool.total_bytes()
        call()
        assert (pool.used_bytes(), pool.total_bytes()) == before


def test_two_host_threads(gpu_streams: Any) -> None:
    gpu = gpu_streams
    z = gpu.put(np.random.default_rng(0).standard_normal((64, 1000)).astype(np.float32))
    t = gpu.put(np.zeros(64, np.int64))
    gpu.module.cuda.Device().synchronize()
    expected = [gpu.get(x).tobytes() for x in softgrad.cross_entropy_value_and_grad(z, t)]
    wrong: list[Any] = []

    def work() -> None:
        try:
            with softgrad.use_backend(gpu.backend), gpu.on_a_stream() as stream:
                for _ in range(10 * sizes.REPEATS):
                    got = softgrad.cross_entropy_value_and_grad(z, t)
                    stream.synchronize()
                    if [gpu.get(x).tobytes() for x in got] != expected:
                        wrong.append("other bits")
        except Exception as error:  # else the thread would die in silence
            wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_another_device_than_the_current_one(gpu_streams: Any) -> None:
    cupy = gpu_streams.module
    if cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("needs two GPUs")
    with cupy.cuda.Device(1):
        z, t = gpu_streams.put(np.eye(64, 1000)), gpu_streams.put(np.arange(64))
    loss, grad = softgrad.cross_entropy_value_and_grad(z, t)
    assert (loss.device.id, grad.device.id, cupy.cuda.Device().id) == (1, 1, 0)
    with softgrad.use_backend("numpy"):
        expected = softgrad.cross_entropy_grad(np.eye(64, 1000), np.arange(64))
    with cupy.cuda.Device(1):
        np.testing.assert_allclose(gpu_streams.get(grad), expected, rtol=1e-14)
    with pytest.raises(ValueError, match="`targets` is on device 0; expected device 1"):
        softgrad.cross_entropy(z, gpu_streams.put(np.arange(64)))
