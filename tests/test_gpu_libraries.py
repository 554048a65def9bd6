"""Arrays of every library under both GPU backends, on a machine that is not there: what comes in goes out.

Results are of the main input's library, on its device, computed on that library's current stream, and right; what is
not served is refused, and says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import softgrad
from softgrad.backends.cuda.buffers import STORE
from softgrad.backends.cuda.kernels import ITEMSIZE
from tests import calls, truth
from tests.cases import DTYPES
from tests.emulator import build
from tests.fake_cuda import Machine
from tests.fake_cuda.backends import forced

STREAM = 0x7E57


class Library:
    """One of the libraries: arrays made and read, and the stream that its user works on."""

    def __init__(self, name: str, machine: Machine, found: SimpleNamespace) -> None:
        self.name, self.machine, self.module = name, machine, getattr(found, name)
        if self.module is None:
            pytest.skip("needs numba-cuda: pip install 'softgrad[numba-cuda]'")

    def array(self, x: np.ndarray, device: int = 0) -> Any:
        """On a device, its strides kept where that is the library's habit."""
        if self.name == "numba":
            from tests.fake_cuda.numba_module import to_device

            return to_device(self.machine, x, device=device, stream=self._numba_stream)
        if self.name == "cupy":
            with self.module.cuda.Device(device):
                return (self.module.asarray if x.flags.forc else self.module.view_like)(x)
        return (self.module.tensor if self.name == "torch" else self.module.asarray)(x, device=device)

    _numba_stream: Any = 0

    def work_on_a_stream(self) -> int:
        """From now on; its handle."""
        if self.name == "numba":
            self._numba_stream = self.module.stream()
            return int(self._numba_stream)
        if self.name == "torch":
            self.module.cuda.streams[0] = STREAM
            return STREAM
        stream = self.module.cuda.Stream()
        stream.__enter__()
        return int(stream.ptr)

    def host(self, x: Any) -> np.ndarray:
        """The values of a result, which must be of the library."""
        kinds = {"numba": "numba.cuda.cudadrv.devicearray", "cupy": "cupy", "torch": "torch", "jax": "jaxlib._jax"}
        assert type(x).__module__ == kinds[self.name]
        values = np.array(x._host if self.name in ("cupy", "torch") else x.host)
        return values if values.ndim else values[()]  # as the truth is

    def device(self, x: Any) -> int:
        """That it is on."""
        return int(x.__dlpack_device__()[1])


@pytest.fixture(params=["cupy", "numba_cuda"])
def backend(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The backend's name, its machine and the libraries there."""
    if request.param == "numba_cuda":
        pytest.importorskip("numba_cuda", reason="needs numba-cuda: pip install 'softgrad[numba-cuda]'")
    else:
        try:
            build.compiler()
        except build.NoCompilerError as error:
            pytest.skip(str(error))
    machine = Machine()
    with forced(request.param, machine) as (_, found):
        yield SimpleNamespace(name=request.param, machine=machine, found=found)


@pytest.fixture(params=["cupy", "numba", "torch"])
def library(request: pytest.FixtureRequest, backend: Any) -> Library:
    """Those that both backends serve."""
    return Library(request.param, backend.machine, backend.found)


@pytest.mark.parametrize("name", [name for name in ITEMSIZE if name in DTYPES])
def test_what_comes_in_goes_out(library: Library, name: str) -> None:
    rng = np.random.default_rng(1)
    z = (rng.standard_normal((5, 37)) * 5).astype(DTYPES[name])
    v, t = rng.standard_normal((2, 5, 37)).astype(DTYPES[name]), np.arange(5)
    zd, vd, td = map(library.array, (z, v, t))
    loss_type = np.float64 if name == "float64" else np.float32
    p = softgrad.softmax(zd)
    truth.assert_right(library.host(p), truth.softmax(z), DTYPES[name])
    product = softgrad.softmax_vjp(vd, logits=zd)
    truth.assert_right(library.host(product), truth.softmax_vjp(v, logits=z), DTYPES[name])
    loss, grad = softgrad.cross_entropy_value_and_grad(zd, td)
    truth.assert_right(library.host(loss), truth.cross_entropy(z, t), loss_type)
    truth.assert_right(library.host(grad), truth.cross_entropy_grad(z, t), DTYPES[name])
    rows = softgrad.cross_entropy(zd, td, reduction="none")
    truth.assert_right(
        library.host(rows), truth.cross_entropy(z, t, reduction="none"), np.float64 if name == "float64" else np.float32
    )
    out = library.array(np.zeros_like(z))
    assert softgrad.log_softmax(zd, out=out) is out
    truth.assert_right(library.host(out), truth.log_softmax(z), DTYPES[name])
    assert softgrad.softmax(zd, out=zd) is zd
    assert library.host(zd).tobytes() == library.host(p).tobytes()


def test_results_stand_on_the_device_of_the_main_input(library: Library) -> None:
    z, t = library.array(np.eye(3, 20), device=1), library.array(np.arange(3), device=1)
    results = [softgrad.softmax(z), *softgrad.cross_entropy_value_and_grad(z, t), softgrad.logsumexp(z)]
    assert [library.device(result) for result in results] == [1] * 4
    assert {device for *_, device in library.machine.launches} == {1}
    assert library.machine.thread.device == 0
    with pytest.raises(ValueError, match="`targets` is on device 0; expected device 1"):
        softgrad.cross_entropy(z, library.array(np.arange(3)))


def test_everything_runs_on_the_library_s_current_stream(library: Library, backend: Any) -> None:
    softgrad.cross_entropy(library.array(np.eye(3, 20)), library.array(np.arange(3)))  # compiles
    machine = library.machine
    handle = library.work_on_a_stream()
    z, t = library.array(np.eye(3, 20)), library.array(np.arange(3))
    hot = library.array(np.eye(3, 20, dtype=np.uint8))  # brought to the computing dtype by one copy
    machine.launches.clear()
    machine.host_copies = 0
    softgrad.cross_entropy_value_and_grad(z, t)
    softgrad.softmax(z)
    softgrad.cross_entropy_grad(z, hot)
    assert {stream for _, stream, _ in machine.launches} == {handle}
    assert [function for function, *_ in machine.launches][:4] == ["divisor", "cross_entropy", "total", "softmax"]
    assert machine.host_copies == 0, "the host waited for the device"


def test_layouts_that_leave_no_choice_but_a_copy(library: Library) -> None:
    rng = np.random.default_rng(2)
    handle = library.work_on_a_stream()
    z = rng.standard_normal((4, 3, 5, 6)).transpose(2, 0, 3, 1)
    t = rng.integers(0, 6, (5, 4, 3))
    zd, td = library.array(z), library.array(t)
    out = library.array(rng.standard_normal((4, 3, 5, 6)).transpose(2, 0, 3, 1))
    library.machine.computed.clear()
    library.machine.launches.clear()
    loss, grad = softgrad.cross_entropy_value_and_grad(zd, td, axis=2, out=out)
    assert grad is out
    truth.assert_right(library.host(out), truth.cross_entropy_grad(z, t, axis=2), np.float64)
    truth.assert_right(library.host(loss), truth.cross_entropy(z, t, axis=2), np.float64)
    integers = softgrad.softmax(library.array((z * 4).astype(np.int32)), axis=2)
    truth.assert_right(
        library.host(integers), truth.softmax((z * 4).astype(np.int32).astype(float), axis=2), np.float64
    )
    library.host(softgrad.softmax_jacobian(logits=zd, axis=2))
    # Copies too, whoever makes them.
    assert {stream for _, stream, _ in library.machine.launches} == {handle}
    assert set(library.machine.computed) <= {handle}


def test_with_out_nothing_is_allocated(library: Library) -> None:
    z, t = library.array(np.eye(3, 20)), library.array(np.arange(3))
    out, v = library.array(np.zeros((3, 20))), library.array(np.ones((3, 20)))
    given: list[Any] = [
        lambda: softgrad.softmax(z, out=out),
        lambda: softgrad.softmax_vjp(v, logits=z, out=out),
        lambda: softgrad.cross_entropy_grad(z, t, out=out),
        lambda: softgrad.cross_entropy_hvp(v, logits=z, targets=t, out=out),
    ]
    for call in given:
        call()
        before = library.machine.allocated
        call()
        assert library.machine.allocated == before
    softgrad.cross_entropy_value_and_grad(z, t, out=out)
    assert library.machine.allocated == before + 1, "the loss, and its scratch with it"


def test_targets_out_of_range_poison_their_own_row(library: Library) -> None:
    z, t = library.array(np.zeros((4, 10), np.float32)), library.array(np.array([1, 10, -1, 2]))
    loss, grad = softgrad.cross_entropy_value_and_grad(z, t, reduction="none")
    assert np.isnan(library.host(loss)).tolist() == [False, True, True, False]
    assert np.isnan(library.host(grad)).any(axis=1).tolist() == [False, True, True, False]
    with pytest.raises(ValueError, match=r"targets\[1\] is 10; expected \[0, 10\)"):
        softgrad.cross_entropy(z, t, check_targets=True)
    p = library.array(np.array([[0.5, 0.5], [0.9, 0.3]]))
    with pytest.raises(ValueError, match=r"row \(1,\) sums to 1.2, not 1"):
        softgrad.softmax_jvp(p, probs=p, check_probs=True)


def test_the_second_host_thread_has_no_context_at_first(library: Library) -> None:
    from concurrent.futures import ThreadPoolExecutor

    z = library.array(np.eye(3, 20), device=1)
    expected = library.host(softgrad.softmax(z)).tobytes()
    from softgrad import use_backend

    name = softgrad.dispatch._forced.get()

    def work() -> bytes:
        with use_backend(name):
            return library.host(softgrad.softmax(z)).tobytes()

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(work).result() == expected


def test_every_array_is_of_the_main_input_s_library(library: Library, backend: Any) -> None:
    others = {"cupy", "numba", "torch"} - {library.name}
    z = library.array(np.eye(3, 4))
    for other in others:
        t = Library(other, backend.machine, backend.found).array(np.arange(3))
        with pytest.raises(TypeError, match=r"`targets` is a .*; every array of a call must be of the library"):
            softgrad.cross_entropy(z, t)
    with pytest.raises(TypeError, match=r"`targets` is a numpy\.ndarray; .* main input"):
        softgrad.cross_entropy(z, np.arange(3))
    with pytest.raises(TypeError, match=r"`logits` is a numpy\.ndarray"):
        softgrad.softmax(np.eye(3))


def test_tensors_that_are_more_than_their_memory_are_refused(backend: Any) -> None:
    torch = backend.found.torch

    class Watched(torch.Tensor):  # type: ignore[misc, name-defined]
        pass

    Watched.__module__ = "torch.somewhere"
    watched = torch.tensor(np.eye(3, 4))
    watched.requires_grad = True
    negated, conjugated = torch.tensor(np.eye(3, 4)), torch.tensor(np.eye(3, 4))
    negated.negated, conjugated.conjugated = True, True
    elsewhere = torch.tensor(np.eye(3, 4))
    elsewhere.is_cuda = False
    subclass = torch.tensor(np.eye(3, 4), kind=Watched)
    for tensor in (watched, negated, conjugated, elsewhere, subclass):
        with pytest.raises(TypeError, match=r"`logits` is a torch.*`logits.detach\(\).cpu\(\).numpy\(\)`"):
            softgrad.softmax(tensor)
    assert type(softgrad.softmax(watched.detach())) is torch.Tensor
    parameter = torch.tensor(np.eye(3, 4), kind=torch.nn.Parameter)
    assert type(softgrad.softmax(parameter)) is torch.Tensor


def test_jax_arrays_are_ordered_by_their_producer_and_never_written(backend: Any) -> None:
    if backend.name != "cupy":
        jax = backend.found.jax
        with pytest.raises(TypeError, match="`logits` is a jaxlib"):
            softgrad.softmax(jax.asarray(np.eye(3, 4)))
        return
    jax, cupy = Library("jax", backend.machine, backend.found), backend.found.cupy
    z = np.random.default_rng(0).standard_normal((3, 20)).astype(np.float32)
    zd = jax.array(z)
    with cupy.cuda.Stream() as stream:
        p = softgrad.softmax(zd)
        assert jax.module.ordered == [stream.ptr]
        assert backend.machine.launches[-1] == ("softmax", stream.ptr, 0)
    truth.assert_right(jax.host(p), truth.softmax(z), np.float32)
    with pytest.raises(TypeError, match="`out` is a jaxlib"):
        softgrad.softmax(zd, out=zd)
    with pytest.raises(TypeError, match="`out` is a jaxlib"):
        softgrad.softmax(cupy.asarray(z), out=zd)
    assert jax.host(zd).tobytes() == z.tobytes()


class Described:
    """An array of a library that nobody knows, by the CUDA array interface."""

    def __init__(self, array: Any, *, read_only: bool) -> None:
        self.owner, self._read_only = array, read_only

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return self.owner.__cuda_array_interface__ | {"data": (self.owner.data.ptr, self._read_only)}


def test_other_libraries_by_the_cuda_array_interface(backend: Any) -> None:
    z = np.random.default_rng(0).standard_normal((3, 20))
    zd = Described(backend.found.cupy.asarray(z), read_only=True)
    if backend.name != "cupy":
        with pytest.raises(TypeError, match=r"`logits` is a tests\.test_gpu_libraries\.Described"):
            softgrad.softmax(zd)
        return
    p = softgrad.softmax(zd)
    truth.assert_right(p.get(), truth.softmax(z), np.float64)
    out = Described(backend.found.cupy.zeros((3, 20)), read_only=False)
    assert softgrad.softmax(zd, out=out) is out
    assert out.owner.tobytes() == p.tobytes()
    with pytest.raises(ValueError, match="`out` is read-only"):
        softgrad.softmax(zd, out=zd)


def test_a_stream_met_for_the_first_time_while_it_captures(backend: Any) -> None:
    cupy = backend.found.cupy
    z, t = np.random.default_rng(0).standard_normal((2, 6, 30)), np.arange(6)
    zd, td = cupy.asarray(z[0]), cupy.asarray(t)
    out = cupy.empty_like(zd)
    softgrad.cross_entropy_value_and_grad(zd, td, out=out)  # compiles
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        loss, _ = softgrad.cross_entropy_value_and_grad(zd, td, out=out)
        graph = stream.end_capture()
    zd[...] = cupy.asarray(z[1])
    graph.launch()
    truth.assert_right(out.get(), truth.cross_entropy_grad(z[1], t), np.float64)
    truth.assert_right(loss.get()[()], truth.cross_entropy(z[1], t), np.float64)
    with stream:  # nothing was left for the graph's first launch to set up
        again, _ = softgrad.cross_entropy_value_and_grad(zd, td, out=out)
    assert again.tobytes() == loss.tobytes()


def test_graphs_captured_on_one_stream_may_run_at_once(backend: Any) -> None:
    cupy = backend.found.cupy
    z, w = (
        np.random.default_rng(0).standard_normal((3, 6, 30)),
        np.array([np.full(30, 2.0), np.arange(30), np.ones(30)]),
    )
    t = np.arange(6)
    given = [tuple(map(cupy.asarray, (z[i], t, w[i]))) for i in range(3)]

    def work(i: int) -> Any:
        logits, targets, weight = given[i]
        return softgrad.cross_entropy_value_and_grad(logits, targets, weight=weight)

    stream, graphs, results = cupy.cuda.Stream(non_blocking=True), [], []
    with stream:
        work(0)  # compiles
        for i in (0, 1):
            stream.begin_capture()
            results.append(work(i))
            graphs.append(stream.end_capture())
        # Launched on two other streams, they may run step by step together, and with what comes on this one.
        assert [len(graph.steps) for graph in graphs] == [3, 3]
        for steps in zip(*(graph.steps for graph in graphs), strict=True):
            for step in steps:
                step()
            latest = work(2)
    for i, (loss, grad) in enumerate([*results, latest]):
        truth.assert_right(grad.get(), truth.cross_entropy_grad(z[i], t, weight=w[i]), np.float64)
        truth.assert_right(loss.get()[()], truth.cross_entropy(z[i], t, weight=w[i]), np.float64)


def test_buffers_for_captures_are_in_store(backend: Any) -> None:
    cupy, machine = backend.found.cupy, backend.machine
    z, t, out = cupy.asarray(np.eye(3, 20)), cupy.asarray(np.arange(3)), cupy.zeros((3, 20))
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        for _ in range(3):
            softgrad.cross_entropy_grad(z, t, out=out)  # which fills the store, where captures have emptied it
            before = machine.allocated
            for _ in range(STORE // 2):
                stream.begin_capture()
                softgrad.cross_entropy_grad(z, t, out=out)
                softgrad.cross_entropy_grad(z, t, out=out)
                stream.end_capture()
            assert machine.allocated == before


def field_of_records(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Random float32, five bytes apart."""
    field = np.zeros(shape, np.dtype([("value", np.float32), ("flag", np.uint8)]))["value"]
    field[...] = np.random.default_rng(seed).standard_normal(shape)
    return field


def test_elements_that_are_not_whole_elements_apart(library: Library) -> None:
    if library.name == "torch":
        pytest.skip("torch has no such tensors")
    z, v, t = field_of_records((4, 6), 0), field_of_records((2, 4, 6), 1), np.arange(4)
    zd, vd, td = map(library.array, (z, v, t))
    assert zd.strides == z.strides == (30, 5)
    truth.assert_right(library.host(softgrad.softmax(zd)), truth.softmax(z), np.float32)
    truth.assert_right(library.host(softgrad.softmax_jvp(vd, logits=zd)), truth.softmax_jvp(v, logits=z), np.float32)
    grad = softgrad.cross_entropy_grad(zd, td)
    truth.assert_right(library.host(grad), truth.cross_entropy_grad(z, t), np.float32)
    cube = field_of_records((3, 4, 5), 2).transpose(2, 0, 1)
    p = softgrad.softmax(library.array(cube), axis=1)
    truth.assert_right(library.host(p), truth.softmax(cube, axis=1), np.float32)
    before = library.host(zd).tobytes()
    with pytest.raises(ValueError, match="`out` has elements"):
        softgrad.softmax(library.array(np.zeros((4, 6), np.float32)), out=zd)
    assert library.host(zd).tobytes() == before


def test_an_out_whose_elements_lie_between_each_other_s(library: Library) -> None:
    z = np.random.default_rng(0).standard_normal((2, 3))
    out = library.array(np.lib.stride_tricks.as_strided(np.zeros(8), (2, 3), (24, 16)))
    assert softgrad.softmax(library.array(z), out=out) is out
    truth.assert_right(library.host(out), truth.softmax(z), np.float64)


def test_formats_of_8_bits_are_refused_everywhere(library: Library) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="needs ml_dtypes")
    if library.name == "torch":
        pytest.skip("its tensors of such formats are not adopted at all")
    z = np.zeros((3, 4), np.float32)
    for name in ("float8_e5m2", "float8_e4m3fn"):
        v = z.astype(getattr(ml_dtypes, name))
        with pytest.raises(TypeError, match=rf"`tangent` (has dtype {name}|is a numba.* '<[fV]1')"):
            softgrad.softmax_jvp(library.array(v), logits=library.array(z))
        with softgrad.use_backend("numpy"), pytest.raises(TypeError, match=f"`tangent` has dtype {name}"):
            softgrad.softmax_jvp(v, logits=z)


@pytest.mark.parametrize("name", calls.EVERY)
def test_both_backends_agree_with_the_cpu_s(library: Library, name: str) -> None:
    arguments = calls.arguments(name)
    moved = {k: library.array(v) if isinstance(v, np.ndarray) else v for k, v in arguments.items()}
    results = getattr(softgrad, name)(**moved)
    with softgrad.use_backend("numpy"):
        expected = getattr(softgrad, name)(**arguments)
    for got, of in zip(*(x if isinstance(x, tuple) else (x,) for x in (results, expected)), strict=True):
        np.testing.assert_allclose(library.host(got), of, rtol=1e-13, atol=1e-15)
