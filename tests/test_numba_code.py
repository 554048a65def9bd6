"""The numba backend's machine code: packed loops, exp and log1p within one ulp, nothing compiled before its call."""

from __future__ import annotations

import errno
import gc
import math
import os
import platform
import signal
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("numba", reason="the numba backend needs numba")

import numba
from llvmlite.binding import get_host_cpu_features

from softgrad.backends.numba_cpu import compiling, lanes, pairs, single
from softgrad.backends.numba_cpu.functions import LIFT, exp_lifted, log1p
from softgrad.backends.numba_cpu.tile_products import product_tiles
from softgrad.backends.numba_cpu.tile_softmax import softmax_tiles
from softgrad.backends.numba_cpu.wide_products import product_rows
from softgrad.backends.numba_cpu.wide_softmax import softmax_rows
from softgrad.garbage import uncollected
from tests import real
from tests.real import Real


@compiling.helper
def exp_of_each(z_at, n_at, out_at, count):
    """e of each float32 by the N beside it."""
    for j in range(0, 4 * count, 64):
        n = lanes.load_f32(n_at + j)
        rounder, lowest = single.ROUNDER - n, (n - single.REACH) * single.LN_2
        lanes.store_f32(out_at + j, single.exp_shifted(lanes.load_f32(z_at + j), rounder, lowest))


@compiling.helper
def exp_lifted_of_each(x_at, out_at, count):
    """2^LIFT exp of each float64."""
    for j in range(0, 8 * count, 64):
        lanes.store_f64(out_at + j, exp_lifted(lanes.load_f64(x_at + j), lanes.f64s(0.0)))


@compiling.helper
def log1p_of_each(x_at, out_at, count):
    """log1p of each float64."""
    for j in range(0, 8 * count, 64):
        lanes.store_f64(out_at + j, log1p(lanes.load_f64(x_at + j)))


@compiling.helper
def log1p_of_each_quotient(high_at, low_at, by_at, out_at, count):
    """log1p of a pair over a number, of each."""
    for j in range(0, 4 * count, 64):
        pair = lanes.load_f32(high_at + j), lanes.load_f32(low_at + j)
        lanes.store_f32(out_at + j, pairs.log1p_of_quotient(pair, lanes.load_f32(by_at + j)))


def worst_float32_exp(patterns: np.ndarray) -> float:
    """The largest error in ulp of exp over float32 bit patterns, for those that float32 rows hold."""
    z = patterns.view(np.float32)
    z = z[np.abs(z) < single.LARGEST]
    z = np.concatenate([z, np.zeros(-len(z) % 16, np.float32)])
    exact = z.astype(np.float64)
    n = np.rint(exact / math.log(2.0)).astype(np.float32)
    e = np.empty_like(z)
    exp_of_each(z.ctypes.data, n.ctypes.data, e.ctypes.data, len(z))
    # float64 carries n ln 2 far beyond what a float32 shows.
    truth = np.exp(exact - n * np.float64(math.log(2.0))) * 2.0**single.LIFT
    return float((np.abs(e - truth) / truth).max(initial=0.0) * 2.0**23)


def test_float32_exp_of_random_patterns():
    rng = np.random.default_rng(0)
    assert worst_float32_exp(rng.integers(0, 2**32, 2**21, dtype=np.uint32)) < 1.0
    # Most patterns are tiny numbers: the range that matters, evenly.
    assert worst_float32_exp(rng.uniform(-800, 800, 2**20).astype(np.float32).view(np.uint32)) < 1.0


@pytest.mark.slow
def test_float32_exp_of_every_pattern():
    chunk = 2**24  # some chunks have nothing but NaNs
    worst = [worst_float32_exp(np.arange(start, start + chunk, dtype=np.uint32)) for start in range(0, 2**32, chunk)]
    assert 0.5 <= max(worst) < 1.0


def ulp(found: np.ndarray, truth: Real) -> float:
    error = Real(found) - truth
    return float((abs(error) / abs(truth)).float().max() * 2.0**52)


def test_float64_functions():
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.uniform(-1100, 0, 4096), rng.uniform(-1, 1, 4096)])
    found = np.empty_like(x)
    exp_lifted_of_each(x.ctypes.data, found.ctypes.data, len(x))
    assert ulp(found, real.exp(Real(x)) * 2.0**LIFT) <= 1.0
    x = np.concatenate([10.0 ** rng.uniform(-300, 300, 4096), rng.uniform(0, 2, 4096)])
    log1p_of_each(x.ctypes.data, found.ctypes.data, len(x))
    assert ulp(found, real.log1p(Real(x))) <= 1.0


def test_float32_log1p_of_quotients():
    """Of the smallest that losses are, of all near 1, of large ones."""
    rng = np.random.default_rng(2)
    n = 2**16
    by = (2.0 ** rng.uniform(-50, 65, n)).astype(np.float32)
    wanted = np.concatenate([2.0 ** rng.uniform(-90, 60, n // 2), 2.0 ** rng.uniform(-12, 3, n // 2)])
    exact = wanted * by
    # Sums of very many numbers leave more than a rounding error in their second part.
    left = exact * rng.choice([0.0, 1e-5, -1e-5, 1e-4, -1e-4], n)
    high = (exact - left).astype(np.float32)
    low = (exact - high).astype(np.float32)
    found = np.empty_like(high)
    log1p_of_each_quotient(high.ctypes.data, low.ctypes.data, by.ctypes.data, found.ctypes.data, n)
    truth = np.log1p((high.astype(np.float64) + low) / by)
    assert float((np.abs(found - truth) / truth).max() * 2.0**23) <= 1.0


def test_special_values_of_exp():
    x = np.array([-np.inf, np.nan, 0.0, -1124.0, np.inf, -0.0, -5000.0, 1.0])
    found = np.empty_like(x)
    exp_lifted_of_each(x.ctypes.data, found.ctypes.data, len(x))
    np.testing.assert_array_equal(found[:7], [0.0, np.nan, 2.0**LIFT, 0.0, np.inf, 2.0**LIFT, 0.0])


on_avx2 = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64") or not get_host_cpu_features().get("avx2"),
    reason="looks for the vector registers of x86-64 with AVX2",
)


CALL = """
import hashlib

import numpy as np

import softgrad

with softgrad.use_backend("numba"):
    for dtype in (np.float32, np.float16):
        z = np.linspace(-9.0, 9.0, 8241).reshape(201, 41).astype(dtype)  # more than a few, in runs
        print(hashlib.sha256(softgrad.softmax(z[:3]).tobytes()).hexdigest())
        print(hashlib.sha256(softgrad.softmax(z).tobytes()).hexdigest())
"""


@on_avx2
def test_a_processor_without_512_bits_gives_the_same_bits(tmp_path):
    """As numba compiles for it where it is told to."""
    older = {
        "NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma,+f16c,+bmi2", "NUMBA_CACHE_DIR": str(tmp_path),
    }  # fmt: skip
    runs = [
        subprocess.run([sys.executable, "-c", CALL], env=os.environ | more, capture_output=True, text=True, check=False)
        for more in ({}, older)
    ]
    assert [run.returncode for run in runs] == [0, 0], runs[1].stderr
    assert runs[0].stdout
    assert runs[0].stdout == runs[1].stdout


def instructions(kernel, *signature) -> list[list[str]]:
    """The machine code of a kernel, by words."""
    return [line for run in straight_runs(kernel, *signature) for line in run]


def straight_runs(kernel, *signature) -> list[list[list[str]]]:
    """The same in pieces that nothing jumps into."""
    compiled = compiling.helper(kernel.py_func)
    compiled.compile(signature)
    (code,) = compiled.inspect_asm().values()
    runs: list[list[list[str]]] = [[]]
    for line in code.splitlines():
        if line.endswith(":"):
            runs.append([])
        elif line.startswith("\t") and line.strip():
            runs[-1].append(line.split())
    return runs


def packed(lines: list[list[str]], *names: str, of: str = "s") -> int:
    """How many of these instructions there are on whole vectors of float32, "s", or float64, "d"; none on one alone."""
    found = [words for words in lines if words[0].startswith(names)]
    assert not [words for words in found if words[0].endswith("s" + of)]
    return sum(words[0].endswith("p" + of) and any(r in " ".join(words) for r in ("ymm", "zmm")) for words in found)


ARRAY = numba.types.UniTuple(numba.int64, 6)


@on_avx2
def test_hot_loops_are_packed():
    lines = instructions(softmax_rows, *(numba.int64,) * 7, ARRAY, ARRAY, numba.boolean, numba.float32)
    # Eight exponentials a step, nine products each.
    assert packed(lines, "vfmadd", "vfnmadd") >= 72
    # log_softmax: two differences for every sixteen classes, in each of four loops or tails.
    assert packed(lines, "vsub") >= 8


@on_avx2
def test_hot_loops_of_products_are_packed():
    ints = numba.int64
    lines = instructions(
        product_rows, *(ints,) * 8, ARRAY, ints, ARRAY, ints, ARRAY, ints, numba.boolean, numba.float32, numba.float32
    )
    # Beside the exponentials, two for every sixteen classes of a softmax product and one of log_softmax's.
    assert packed(lines, "vfmadd", "vfnmadd") >= 72 + 12
    # u of eight vectors a step of both sums, u less its mean of both that have one.
    assert packed(lines, "vsub") >= 16 + 12


INT = numba.int64
WORK = numba.types.Tuple((INT, INT, numba.boolean, INT, INT))


@on_avx2
@pytest.mark.parametrize(
    ("kernel", "signature"),
    [
        (softmax_tiles, (INT, INT, numba.types.UniTuple(INT, 2), WORK, INT, ARRAY, ARRAY)),
        (product_tiles, (INT, INT, numba.types.UniTuple(INT, 3), WORK, INT, INT, ARRAY, INT, ARRAY, INT, ARRAY, INT)),
    ],
)
def test_hot_loops_in_float64_are_packed(kernel, signature):
    # Eight exponentials a step, thirteen products each.
    assert max(packed(run, "vfmadd", "vfnmadd", of="d") for run in straight_runs(kernel, *signature)) >= 8 * 13


def test_nothing_is_compiled_before_it_is_called():
    code = """
import numpy, softgrad
from softgrad.backends.numba_cpu import addresses
assert softgrad.available_backends()["numba"] == "available"
assert not addresses._finders
with softgrad.use_backend("numba"):
    softgrad.softmax(numpy.zeros((2, 5)))
from softgrad.backends.numba_cpu import few_tiles, tile_cross_entropy, tile_products, tile_softmax
assert tile_softmax.softmax_tiles_few
assert not tile_products.product_tiles_few and not tile_products.product_tiles.signatures
assert not few_tiles.losses_few and not tile_cross_entropy.cross_entropy_tiles.signatures
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=120)


def test_a_second_process_loads_what_it_calls_and_nothing_else():
    """numba's own start-up, which imports SciPy, waits for somebody who compiles; then it works as ever."""
    code = """
import importlib.util, sys, numba, numpy as np, softgrad
z = np.zeros((2, 4), np.float32)
softgrad.softmax(z)
softgrad.softmax_vjp(z, logits=z)
started = "numba.np.arraymath" in sys.modules
assert numba.njit(lambda a: (a * 2.0).sum())(np.ones(3)) == 6.0
if importlib.util.find_spec("scipy"):
    assert numba.njit(lambda a: a @ a)(np.eye(3))[0, 0] == 1.0
assert (softgrad.softmax(z) == 0.25).all()
sys.exit(7 if started else 0)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    run = [sys.executable, "-c", code]
    outcomes: set[int] = set()
    for _ in range(4):  # the last may find that another test's process has just replaced an index of numba's cache
        if 0 not in outcomes:
            outcomes.add(subprocess.run(run, env=environment, timeout=300, check=False).returncode)
    assert 0 in outcomes
    assert outcomes <= {0, 7}  # 7: had to compile


def test_numbas_own_way_of_loading_is_there_still(monkeypatch):
    def add(a, b):
        return a + b

    monkeypatch.setattr(compiling, "rtsys", None)
    assert compiling.kernel(add)(1, 2) == 3


def test_start_up_leaves_the_collector_as_it_was():
    young = gc.get_count()[0]
    with uncollected():
        assert not gc.isenabled()
        made = [[] for _ in range(100_000)]
    assert gc.isenabled()
    assert gc.get_count()[0] < 1000 + young  # nothing of it is looked through at once
    assert gc.get_freeze_count() == 0
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        with uncollected():
            pass
        assert gc.get_freeze_count() >= frozen > 0
    finally:
        gc.unfreeze()
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
    del made


def test_works_without_a_cache_folder(monkeypatch):
    from numba.core import caching

    monkeypatch.setattr(caching.CompileResultCacheImpl, "_locator_classes", [])

    def add(a, b):
        return a + b

    assert compiling.kernel(add)(1, 2) == 3


def test_a_cached_kernel_is_stale_when_a_helper_changes():
    own, sources = softmax_rows._cache._cache_file._source_stamp
    assert own
    assert {"wide.py", "shuffles.py"} <= {name for name, _, _ in sources}


def test_works_where_the_cache_cannot_be_written(monkeypatch):
    def add(a, b):
        return a + b

    compiled = compiling.kernel(add)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(compiled._cache._cache_file, "save", full)
    assert compiled(1, 2) == 3


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers that interrupt")
def test_an_interrupt_while_compiling_leaves_numba_usable(tmp_path):
    """By any thread: the lock that numba compiles under is free again, and what was compiled is found."""
    code = """
import signal, threading, numba, numpy as np

def slow(a):
    return np.sort(a)[0]

class Interrupt(BaseException):
    pass

def interrupt(*_):
    raise Interrupt

from softgrad.backends.numba_cpu import compiling
numba.njit(lambda: 0)()  # numba's own start-up is not what is interrupted
kernel = compiling.kernel(slow)
signal.signal(signal.SIGALRM, interrupt)
signal.setitimer(signal.ITIMER_REAL, 0.1)
interrupted = False
try:
    kernel(np.arange(9.0))
except Interrupt:
    interrupted = True
assert interrupted
found = []
thread = threading.Thread(target=lambda: found.append(kernel(np.arange(9.0))), daemon=True)
thread.start()
thread.join(90)
assert found
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=150)
