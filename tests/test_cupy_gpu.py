"""The `cupy` backend on a device: the promises again, and those that no emulation can show.

Run by `python3 ci gpu`, in an environment that has CuPy and sees an NVIDIA GPU.
"""

import threading

import numpy as np
import pytest

import softgrad
from tests import cases, truth
from tests.cases import DTYPES

pytestmark = pytest.mark.gpu
cupy = pytest.importorskip("cupy", reason="needs CuPy")


@pytest.fixture(autouse=True)
def _free_memory():
    yield
    cupy.get_default_memory_pool().free_all_blocks()


def judge(result, true, what, within=4.0):
    worst = truth.worst_ulp(cupy.asnumpy(result), true)
    assert worst <= within, f"{what}: {worst:.3g} ulp"


@pytest.mark.parametrize("name", ["float32", "float64", "float16", "bfloat16"])
def test_every_case_is_right(name):
    if name not in DTYPES:
        pytest.skip("bfloat16 needs ml_dtypes")
    for case in cases.ADVERSARIAL + cases.TAILS:
        z, t, v = case.logits(DTYPES[name]), case.targets(), case.tangents(DTYPES[name], (2,))
        zd, td, vd = cupy.asarray(z), cupy.asarray(t), cupy.asarray(v)
        for function in ("softmax", "log_softmax", "logsumexp"):
            judge(getattr(softgrad, function)(zd), getattr(truth, function)(z), (function, case))
        for reduction in ("none", "mean"):
            loss, grad = softgrad.cross_entropy_value_and_grad(zd, td, reduction=reduction)
            judge(loss, truth.cross_entropy(z, t, reduction=reduction), ("loss", case))
            judge(grad, truth.cross_entropy_grad(z, t, reduction=reduction), ("gradient", case))
        for function in ("softmax_jvp", "log_softmax_jvp", "log_softmax_vjp"):
            judge(getattr(softgrad, function)(vd, logits=zd), getattr(truth, function)(v, logits=z), (function, case))
        p = softgrad.softmax(zd)
        judge(softgrad.softmax_vjp(vd, probs=p), truth.softmax_vjp(v, probs=cupy.asnumpy(p)), ("from probs", case))


@pytest.mark.parametrize("case", cases.MODELS + cases.LARGE, ids=str)
def test_long_rows_are_right(case):
    z, t = case.logits(np.float32), case.targets()
    loss, grad = softgrad.cross_entropy_value_and_grad(cupy.asarray(z), cupy.asarray(t), reduction="none")
    judge(loss, truth.cross_entropy(z, t, reduction="none"), "loss")
    judge(grad, truth.cross_entropy_grad(z, t, reduction="none"), "gradient")
    judge(softgrad.softmax(cupy.asarray(z)), truth.softmax(z), "softmax")


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_options_agree_with_the_reference(axis):
    rng = np.random.default_rng(axis)
    shape = (6, 40, 50)
    rows = shape[:axis] + shape[axis + 1 :]
    z, v = rng.standard_normal((2, *shape)) * 4
    for targets in (rng.integers(0, shape[axis], rows), rng.random(shape)):
        options = {
            "axis": axis,
            "label_smoothing": 0.2,
            "z_loss": 0.1,
            "softcap": 9.0,
            "weight": rng.random(shape[axis]),
        }
        on = {key: cupy.asarray(x) if isinstance(x, np.ndarray) else x for key, x in options.items()}
        zd, vd, td = map(cupy.asarray, (z, v, targets))
        for got, expected in (
            (softgrad.cross_entropy(zd, td, **on), softgrad.cross_entropy(z, targets, **options)),
            (softgrad.cross_entropy_grad(zd, td, **on), softgrad.cross_entropy_grad(z, targets, **options)),
            (
                softgrad.cross_entropy_jvp(vd, logits=zd, targets=td, **on),
                softgrad.cross_entropy_jvp(v, logits=z, targets=targets, **options),
            ),
            (
                softgrad.cross_entropy_hvp(vd, logits=zd, targets=td, **on),
                softgrad.cross_entropy_hvp(v, logits=z, targets=targets, **options),
            ),
        ):
            np.testing.assert_allclose(cupy.asnumpy(got), expected, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("classes", [3, 10, 100, 1000, 5000, 50_257, 200_000])
@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_a_rows_bits_are_its_own(classes, name):
    z = cupy.asarray((np.random.default_rng(classes).standard_normal((5, classes)) * 8).astype(DTYPES[name]))
    t = cupy.asarray(np.arange(5) % classes)
    p = softgrad.softmax(z)
    loss, grad = softgrad.cross_entropy_value_and_grad(z, t, reduction="none")
    memory = cupy.zeros((5, classes + 3), z.dtype)
    moved = memory[:, 1 : 1 + classes]
    moved[...] = z
    assert softgrad.softmax(moved).tobytes() == p.tobytes()
    assert softgrad.cross_entropy_grad(moved, t, reduction="none").tobytes() == grad.tobytes()
    for row in range(5):
        assert softgrad.softmax(z[row]).tobytes() == p[row].tobytes()
    for _ in range(20):
        again = softgrad.cross_entropy_value_and_grad(z, t, reduction="none")
        assert again[0].tobytes() == loss.tobytes()
        assert again[1].tobytes() == grad.tobytes()
    assert softgrad.softmax(moved, out=moved) is moved
    assert moved.tobytes() == p.tobytes()


def test_targets_out_of_range_poison_their_own_row():
    z, t = cupy.zeros((4, 100), np.float32), cupy.asarray([1, 100, -1, 2])
    loss, grad = softgrad.cross_entropy_value_and_grad(z, t, reduction="none")
    assert cupy.isnan(loss).tolist() == [False, True, True, False]
    assert cupy.isnan(grad).any(axis=1).tolist() == [False, True, True, False]
    assert bool(cupy.isnan(softgrad.cross_entropy(z, t)))
    with pytest.raises(ValueError, match=r"targets\[1\] is 100"):
        softgrad.cross_entropy(z, t, check_targets=True)


def test_calls_follow_the_current_stream():
    z, t = cupy.random.standard_normal((4096, 1000), dtype=np.float32), cupy.zeros(4096, np.int64)
    expected = softgrad.cross_entropy_grad(z, t)
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        late = cupy.zeros_like(z)
        for _ in range(50):
            late += 1.0  # so that the copy below is late
        late[...] = z
        grad = softgrad.cross_entropy_grad(late, t)
    stream.synchronize()
    assert grad.tobytes() == expected.tobytes()


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_calls_can_be_captured_in_a_graph(reduction):
    z, t = cupy.random.standard_normal((300, 1000), dtype=np.float32), cupy.zeros(300, np.int64)
    out = cupy.empty_like(z)
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        softgrad.cross_entropy_value_and_grad(z, t, reduction=reduction, out=out)  # compiles
        stream.synchronize()
        stream.begin_capture()
        loss, _ = softgrad.cross_entropy_value_and_grad(z, t, reduction=reduction, out=out)
        graph = stream.end_capture()
        for seed in range(3):
            z[...] = cupy.asarray(np.random.default_rng(seed).standard_normal(z.shape).astype(np.float32))
            graph.launch()
            stream.synchronize()
            true_loss, true_grad = softgrad.cross_entropy_value_and_grad(z, t, reduction=reduction)
            assert loss.tobytes() == true_loss.tobytes()
            assert out.tobytes() == true_grad.tobytes()


def test_more_than_two_to_the_31_elements():
    rows, classes = 2**21 + 3, 1030
    z = cupy.zeros((rows, classes), np.float16)
    z[-1, 7], z[-2, 8] = 5.0, 6.0
    grad = softgrad.cross_entropy_grad(z, cupy.zeros(rows, np.int32), out=z, reduction="none")
    e, n = np.exp(5.0), classes - 1
    assert abs(float(grad[-1, 7]) - e / (e + n)) < 1e-4
    assert abs(float(grad[-1, 0]) + (e + n - 1) / (e + n)) < 1e-3
    assert abs(float(grad[0, 0]) + n / classes) < 1e-3


def test_a_row_of_ten_million_classes():
    z = (np.random.default_rng(0).standard_normal(10**7) * 3).astype(np.float32)
    p = cupy.asnumpy(softgrad.softmax(cupy.asarray(z))).astype(np.float64)
    e = np.exp(z.astype(np.float64) - z.max())
    assert np.abs(p / (e / e.sum()) - 1.0).max() < 4 * 2.0**-23


def test_two_host_threads():
    z = cupy.random.standard_normal((64, 1000), dtype=np.float32)
    t = cupy.zeros(64, np.int64)
    expected = [x.tobytes() for x in softgrad.cross_entropy_value_and_grad(z, t)]
    wrong = []

    def work():
        with cupy.cuda.Stream(non_blocking=True) as stream:
            for _ in range(200):
                got = softgrad.cross_entropy_value_and_grad(z, t)
                stream.synchronize()
                if [x.tobytes() for x in got] != expected:
                    wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_torch_tensors_in_and_out():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch sees no GPU")
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        z = torch.randn(64, 1000, device="cuda").to(dtype)
        t = torch.randint(0, 1000, (64,), device="cuda")
        loss, grad = softgrad.cross_entropy_value_and_grad(z, t)
        assert (type(loss), type(grad), grad.dtype) == (torch.Tensor, torch.Tensor, dtype)
        assert abs(float(loss) - float(torch.nn.functional.cross_entropy(z.double(), t))) < 1e-5
        out = torch.empty_like(z)
        assert softgrad.softmax(z, out=out) is out
    with pytest.raises(TypeError, match="detach"):
        softgrad.softmax(z.float().requires_grad_())
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        late = torch.zeros_like(z)
        for _ in range(50):
            late = late * 0.5 + z * 0.5
        p = softgrad.softmax(late)
    stream.synchronize()
    assert torch.equal(p, softgrad.softmax(late))


def test_numba_device_arrays_in_and_out():
    cuda = pytest.importorskip("numba.cuda")
    z = np.random.default_rng(0).standard_normal((8, 50)).astype(np.float32)
    with softgrad.use_backend("cupy"):
        p = softgrad.softmax(cuda.to_device(z))
    assert cuda.is_cuda_array(p)
    judge(p.copy_to_host(), truth.softmax(z), "softmax")


def test_arrays_of_other_libraries_and_devices_are_refused():
    z, memory = cupy.zeros((2, 3)), cupy.zeros(6)
    with pytest.raises(TypeError, match="targets"):
        softgrad.cross_entropy(z, np.zeros(2, np.int64))
    with pytest.raises(ValueError, match="overlaps"):
        softgrad.softmax(memory[:-1], out=memory[1:])
