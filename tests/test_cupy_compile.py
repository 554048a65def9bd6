"""Every CUDA kernel compiles by NVRTC, without a driver or a toolkit, and keeps its numbers in registers."""

import io
import re

import pytest

from softgrad.backends.cuda import kernels, regimes
from tests.emulator import variants

core = pytest.importorskip("cuda.core", reason="compiling CUDA kernels needs `pip install cuda-core cuda-bindings`")
pytest.importorskip("cuda.bindings.nvrtc", reason="compiling CUDA kernels needs `pip install nvidia-cuda-nvrtc`")

ARCHITECTURES = ("sm_80", "sm_90", "sm_100", "sm_120")


def compiled(kernel, architecture):
    """What the assembler reports: {registers, spilled bytes} of the kernel."""
    log = io.StringIO()
    options = core.ProgramOptions(arch=architecture, std="c++17", ftz=True, fma=False, ptxas_options="-v")
    core.Program(kernel.text(), "c++", options).compile("cubin", logs=log)
    report = log.getvalue()
    spilled = sum(int(a) + int(b) for a, b in re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", report))
    (registers,) = map(int, re.findall(r"Used (\d+) registers", report))
    return registers, spilled


def judge(kernel, architecture):
    registers, spilled = compiled(kernel, architecture)
    assert spilled == 0, f"{kernel.name} on {architecture} spills {spilled} bytes"
    # As many blocks fit a multiprocessor as the regime counts on.
    resident = max(1, kernel.regime.resident // 2) if architecture == "sm_120" else kernel.regime.resident
    threads = kernel.regime.threads * resident
    assert registers * threads <= 65536, f"{kernel.name} on {architecture} takes {registers} registers"


def serves(kernel, architecture):
    return kernel.regime.kind != "cluster" or architecture in ("sm_90", "sm_100")


def some():
    """Of each kernel family its largest regimes, of the two dtypes that matter most; and all that sums over rows."""
    for dtype in ("float32", "bfloat16"):
        for classes in (10, 1000, 8192, 16384, 131_072):
            one, two = (regimes.keeping(classes, 4, contiguous=True, clusters=True, arrays=n) for n in (1, 2))
            if dtype == "bfloat16":
                one, two = (regimes.keeping(classes, 2, contiguous=True, clusters=True, arrays=n) for n in (1, 2))
            yield kernels.cross_entropy(dtype, one)
            yield kernels.softmax("PROBABILITIES", dtype, one)
            yield kernels.products("SOFTMAX_PRODUCT", False, dtype, dtype, two)
        strided = regimes.keeping(500, 4, contiguous=False, clusters=True)
        yield kernels.cross_entropy(dtype, strided)
        yield kernels.products("LOG_VJP", True, dtype, dtype, strided)
    for walk in variants.walking()[1:3]:
        yield kernels.cross_entropy_options("float32", "float32", "float", walk)
        yield kernels.cross_entropy_options("float32", "float32", "double", walk)
        yield kernels.derivatives(True, "float32", "float32", "float32", walk)
    yield kernels.total("float")
    yield kernels.divisor("float")
    yield kernels.check_targets()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_kernels_compile_without_spills(architecture):
    seen = [kernel for kernel in dict.fromkeys(some()) if serves(kernel, architecture)]
    assert len(seen) > 15
    for kernel in seen if architecture == "sm_90" else seen[::2]:
        judge(kernel, architecture)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_kernel_compiles_without_spills(architecture):
    seen = [kernel for kernel in variants.everything() if serves(kernel, architecture)]
    assert len(seen) > 500
    for kernel in seen:
        judge(kernel, architecture)


def ptx(kernel):
    """The kernel's instructions, before the assembler."""
    from cuda.bindings import nvrtc

    def checked(answer):
        error, *rest = answer
        assert error == nvrtc.nvrtcResult.NVRTC_SUCCESS, error
        return rest[0] if rest else None

    options = [b"--gpu-architecture=compute_90", b"-std=c++17", b"--ftz=true", b"--fmad=false"]
    program = checked(nvrtc.nvrtcCreateProgram(kernel.text().encode(), b"kernel.cu", 0, [], []))
    checked(nvrtc.nvrtcCompileProgram(program, len(options), options))
    text = bytearray(checked(nvrtc.nvrtcGetPTXSize(program)))
    checked(nvrtc.nvrtcGetPTX(program, text))
    return text.decode()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("classes", [1024, 8192])
def test_rows_at_any_address_are_read_and_written_in_words(dtype, classes):
    """Aligned chunks by one load of 16 bytes, others by two, and either by one store; the rest is at a warp's ends."""
    itemsize = kernels.ITEMSIZE[dtype]
    regime = regimes.keeping(classes, itemsize, contiguous=True, clusters=True)
    kernel = kernels.softmax("PROBABILITIES", dtype, regime)
    functions = re.split(r"(?=\n\.(?:func|visible))", ptx(kernel))
    (body,) = [text for text in functions if ".entry" in text.split("{")[0]]
    loads, stores = (re.findall(rf"\b{kind}(?:\.global)?(\.v4)?\.[bufs]\d+", body) for kind in ("ld", "st"))
    assert loads == [".v4"] * 3 * regime.chunks
    assert stores.count(".v4") == 2 * regime.chunks


@pytest.mark.parametrize(("dtype", "classes"), [("bfloat16", 2), ("bfloat16", 3), ("float32", 2)])
def test_short_rows_cost_an_exponential_per_class_and_move_in_words(dtype, classes):
    """Where rows follow each other; the other loop, for rows that do not, has its own."""
    regime = regimes.keeping(classes, kernels.ITEMSIZE[dtype], contiguous=True, clusters=True)
    text = ptx(kernels.softmax("PROBABILITIES", dtype, regime))
    assert len(re.findall(r"shl\.b32 .*, 23;", text)) == 2 * classes  # to the exponent's bits
    words = -(-regime.turns * classes * kernels.ITEMSIZE[dtype] // 16)
    for kind in ("ld", "st"):
        assert len(re.findall(rf"\b{kind}\.global\.v4\.u32", text)) == words


def test_a_spill_would_be_seen():
    kernel = kernels.cross_entropy("float32", regimes.block(512, 8, 4))  # 32 registers for 32 numbers
    assert compiled(kernel, "sm_90")[1] > 0
