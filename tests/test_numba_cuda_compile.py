"""The Numba CUDA kernels as machine code, made without a device: they compile, spill nothing, move 16 bytes at once."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest

pytest.importorskip("numba_cuda", reason="needs numba-cuda: pip install 'softgrad[numba-cuda]'")
pytest.importorskip("cuda.bindings.nvjitlink", reason="needs nvJitLink: pip install 'softgrad[numba-cuda]'")
from numba.cuda import dispatcher
from numba.cuda.cudadrv import nvvm

from softgrad.backends.cuda import checks, kernels, loss_plans, plans, regimes
from softgrad.backends.cuda.kernels import Kernel
from softgrad.backends.cuda.segments import Cutting
from softgrad.backends.numba_cuda import arguments, binaries
from softgrad.backends.numba_cuda import kernels as numba_kernels
from softgrad.backends.numba_cuda.rows import Place

if not nvvm.is_available():
    pytest.skip("needs NVVM: pip install 'softgrad[numba-cuda]'", allow_module_level=True)

CAPABILITIES = [(8, 0), (9, 0), (10, 0), (12, 0)]
SHARED_LIMIT = 232448  # of an H100


@pytest.fixture(autouse=True)
def no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numba asks the present device for what device functions are compiled for."""
    monkeypatch.setattr(dispatcher, "get_current_device", lambda: SimpleNamespace(compute_capability=(8, 0)))


def placed(kernel: Kernel, classes: int) -> tuple[Kernel, Place]:
    return kernel, numba_kernels.place(kernel, classes, SHARED_LIMIT)[0]


def kernels_of(dtype: str, classes: int, *, contiguous: bool) -> Iterator[tuple[Kernel, Place]]:
    """Every kernel for rows of so many classes."""
    size, cut = kernels.ITEMSIZE[dtype], classes > Cutting().beyond
    keeping = regimes.keeping(classes, size, contiguous=contiguous, clusters=False, cut=cut)
    of_two = regimes.keeping(classes, size, contiguous=contiguous, clusters=False, arrays=2, cut=cut)
    walking = regimes.walking(classes, contiguous=contiguous, cut=cut)
    for mode in ("PROBABILITIES", "LOG_PROBABILITIES", "LOG_SUM_EXP"):
        yield placed(kernels.softmax(mode, dtype, keeping), classes)
    yield placed(kernels.cross_entropy(dtype, keeping), classes)
    for mode in ("SOFTMAX_PRODUCT", "LOG_JVP", "LOG_VJP"):
        for is_logits in (True, False):
            yield placed(kernels.products(mode, is_logits, dtype, dtype, of_two), classes)
    yield placed(kernels.check_rows(dtype, walking), classes)
    for real in dict.fromkeys((kernels.computing(dtype), "double")):
        yield placed(kernels.cross_entropy_options(dtype, dtype, real, walking), classes)
    for hessian in (True, False):
        yield placed(kernels.derivatives(hessian, dtype, dtype, dtype, walking), classes)


def sample() -> list[tuple[Kernel, Place]]:
    """Every kernel once, and every dtype, place and kind of team."""
    shapes = [(500, True), (9000, True), (200_000, True), (100, False), (2**19, True)]
    thinned = []
    for i, dtype in enumerate(kernels.ITEMSIZE):
        for k, (classes, contiguous) in enumerate(shapes):
            every = list(kernels_of(dtype, classes, contiguous=contiguous))
            thinned += every[(5 * i + k) % 14 :: 14]
    cut = regimes.keeping(2**19, 2, contiguous=True, clusters=False, arrays=2, cut=True)
    crowded = kernels.products("LOG_JVP", True, "float16", "float16", cut)  # the one with the most to remember
    fixed = [kernels.total("float"), kernels.divisor("double"), kernels.check_targets(), crowded]
    copying = numba_kernels.copying("int8", "float16")
    return list(dict.fromkeys([*thinned, *(placed(kernel, 0) for kernel in (*fixed, copying))]))


def everything() -> list[tuple[Kernel, Place]]:
    """Every kernel that there is, for arguments of one dtype."""
    found = [placed(kernels.total("double"), 0), placed(kernels.divisor("float"), 0)]
    for dtype in kernels.ITEMSIZE:
        for contiguous in (True, False):
            for classes in (2, 4, 5, 7, 8, *(3 * 2**power // 2 for power in range(20))):
                found += kernels_of(dtype, classes, contiguous=contiguous)
    return list(dict.fromkeys(found))


def name(of: tuple[Kernel, Place]) -> str:
    return f"{of[0].name.removeprefix('softgrad_')}-{of[1]}"


def assert_compiles(kernel: Kernel, place: Place) -> None:
    for capability in CAPABILITIES:
        binary, report = binaries.compiled(kernel, place, capability)
        assert len(binary.code) > 1000
        assert re.search(r"\b0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads", report), report
        registers = int(re.search(r"Used (\d+) registers", report)[1])
        assert registers * kernel.regime.threads <= 65536


@pytest.mark.parametrize("of", sample(), ids=name)
def test_no_spills(of: tuple[Kernel, Place]) -> None:
    assert_compiles(*of)


@pytest.mark.slow
@pytest.mark.parametrize("of", everything(), ids=name)
def test_no_kernel_spills(of: tuple[Kernel, Place]) -> None:
    assert_compiles(*of)


def ptx(kernel: Kernel, place: Place) -> str:
    return numba_kernels.ptx(kernel, place, (9, 0))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_a_row_is_moved_16_bytes_at_a_time(dtype: str) -> None:
    """64 bytes of it in registers, and no narrower load before these."""
    regime = regimes.keeping(500, kernels.ITEMSIZE[dtype], contiguous=True, clusters=False)
    text = ptx(kernels.softmax("PROBABILITIES", dtype, regime), "registers")
    loads = re.findall(r"ld\.global\.(\S+)", text)
    assert loads[: regime.chunks] == ["v4.u32"] * regime.chunks
    assert "v4.u32" not in loads[regime.chunks :]
    assert re.findall(r"st\.global\.(v4\S+)", text) == ["v4.u32"] * regime.chunks


def test_float32_rows_are_computed_in_float32() -> None:
    """Only lanes hand their sums to each other as doubles."""
    regime = regimes.keeping(500, 4, contiguous=True, clusters=False)
    text = ptx(kernels.softmax("PROBABILITIES", "float32", regime), "registers")
    in_double = re.findall(r"\b(add|sub|mul|fma|div|min|max)\.\S*f64", text)
    assert set(in_double) == {"add", "sub"}
    assert len(in_double) < 10


def test_products_and_sums_are_fused_only_where_the_source_says_so() -> None:
    text = ptx(
        *placed(
            kernels.products("SOFTMAX_PRODUCT", True, "float32", "float32", regimes.walking(500, contiguous=True)), 500
        )
    )
    assert "fma.rn.f32" in text
    assert re.search(r"\bmul\.rn\.f32", text)
    assert not re.search(r"\b(mul|add|sub)\.f32", text), "what is not marked may be fused by the assembler"


STRUCTS = {
    arguments.SoftmaxArgs: plans.SOFTMAX_ARGS,
    arguments.ProductArgs: plans.PRODUCT_ARGS,
    arguments.LossArgs: loss_plans.LOSS_ARGS,
    arguments.TotalArgs: loss_plans.LOSS_ARGS + loss_plans.TOTAL_ARGS,
    arguments.CheckArgs: checks.CHECK_ARGS,
}


@pytest.mark.parametrize("kind", STRUCTS, ids=lambda kind: kind.__name__)
def test_arguments_are_the_struct_of_the_cuda_kernels(kind: type) -> None:
    assert arguments.letters(kind) == STRUCTS[kind]


def test_numba_lays_arguments_out_as_that_struct() -> None:
    kernel, place = placed(kernels.divisor("float"), 0)
    text = ptx(kernel, place)
    head = text[text.index(".visible .entry") : text.index(")", text.index(".visible .entry"))]
    letters = "".join({"u64": "q", "f64": "d"}[size] for size in re.findall(r"\.param \.(\w+) ", head))
    assert letters == arguments.letters(arguments.TotalArgs)
    packed = struct.pack("=" + letters, *range(len(letters)))
    assert arguments.unpacked(arguments.TotalArgs, packed).loss.z.outer == 4


def test_a_kernel_that_spills_is_found_out() -> None:
    """The check itself: 16 numbers more than a lane can hold."""
    regime = regimes.keeping(500, 4, contiguous=True, clusters=False)
    crowded = replace(regime, chunks=64)
    with pytest.raises(AssertionError):
        assert_compiles(kernels.softmax("PROBABILITIES", "float32", crowded), "registers")


def test_machine_code_is_found_again(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTGRAD_CACHE_DIR", str(tmp_path / "new"))
    kernel, place = placed(kernels.check_targets(), 0)
    first = binaries.binary(kernel, place, (9, 0))
    monkeypatch.setattr(binaries, "compiled", None)
    assert binaries.binary(kernel, place, (9, 0)) == first
    with pytest.raises(TypeError):
        binaries.binary(kernel, place, (8, 0))  # another device needs its own
