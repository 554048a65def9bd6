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


def faults(kernel, architecture):
    registers, spilled = compiled(kernel, architecture)
    if spilled:
        yield f"{kernel.name} on {architecture} spills {spilled} bytes"
    # As many blocks fit a multiprocessor as the regime counts on.
    resident = max(1, kernel.regime.resident // 2) if architecture == "sm_120" else kernel.regime.resident
    if registers * kernel.regime.threads * resident > 65536:
        yield f"{kernel.name} on {architecture} takes {registers} registers"


def serves(kernel, architecture):
    return kernel.regime.kind != "cluster" or architecture in ("sm_90", "sm_100")


def pressure(kernel):
    """Numbers that a thread has at once, as a share of the registers that its regime leaves it."""
    regime = kernel.regime
    wide = 16 // kernels.ITEMSIZE[kernel.dtype]
    width = {"columns": 1, "short": regime.width}.get(regime.kind, wide)
    arrays = {"products": 2, "derivatives": 4, "cross_entropy_options": 3}.get(kernel.function, 1)
    double = kernel.function == "derivatives" or "double" in kernel.arguments
    numbers = max(1, regime.chunks) * width * arrays * (2 if double else 1)
    # A cluster has its places in shared memory to remember, too.
    return numbers / min(255, 65536 // (regime.threads * regime.resident)), regime.blocks, double


def crowded():
    """Of each function, for each kind of team, the kernel most in need of registers; and all that sums over rows."""
    kinds = {}
    for kernel in variants.everything():
        regime = kernel.regime
        key = (kernel.function, regime.kind, regime.cut, regime.chunks < 0) if kernel.dtype else kernel
        kinds.setdefault(key, []).append(kernel)
    return [max(kind, key=pressure) if len(kind) > 1 else kind[0] for kind in kinds.values()]


STRIDED = regimes.keeping(250, 4, contiguous=False, clusters=True, arrays=2)
# Those that have spilled, on one architecture or another, before they were written as they are.
ONCE_AT_FAULT = (
    kernels.softmax("PROBABILITIES", "float32", regimes.cluster(8, 1024, 8, 1)),
    kernels.softmax("LOG_PROBABILITIES", "float32", regimes.cluster(2, 512, 8, 2)),
    kernels.softmax("LOG_SUM_EXP", "float32", regimes.block(512, 8, 2)),
    kernels.cross_entropy("bfloat16", regimes.block(512, 4, 2)),
    kernels.products("LOG_VJP", True, "float32", "float32", STRIDED),
)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_kernels_compile_without_spills(architecture):
    """The hardest, and a share of all others that differs between architectures; `--slow` has all of them."""
    turn, heavy = ARCHITECTURES.index(architecture), ("derivatives", "cross_entropy_options")  # seconds each
    hardest, every = (
        [[kernel for kernel in group if (kernel.function in heavy) == is_heavy] for is_heavy in (False, True)]
        for group in (crowded(), list(variants.everything()))
    )
    chosen = [*ONCE_AT_FAULT, *hardest[False], *hardest[True][turn % 3 :: 3], *every[False][61 * turn :: 241]]
    seen = [kernel for kernel in dict.fromkeys(chosen) if serves(kernel, architecture)]
    assert len(seen) > 30
    found = [fault for kernel in seen for fault in faults(kernel, architecture)]
    assert not found, "\n".join(found)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_kernel_compiles_without_spills(architecture):
    seen = [kernel for kernel in variants.everything() if serves(kernel, architecture)]
    assert len(seen) > 500
    found = [fault for kernel in seen for fault in faults(kernel, architecture)]
    assert not found, "\n".join(found)


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
