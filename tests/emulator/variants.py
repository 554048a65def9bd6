"""Every variant of every kernel: what the compile checks go through, and what emulation compiles together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

from softgrad.backends.cuda import kernels, regimes
from softgrad.backends.cuda.kernels import ITEMSIZE, Kernel
from softgrad.backends.cuda.regimes import Regime


@cache
def keeping(itemsize: int, arrays: int = 1) -> tuple[Regime, ...]:
    """Every regime that `regimes.keeping` can answer with, in the order of class counts."""
    found = {}
    for contiguous, clusters in ((True, True), (True, False), (False, True)):
        for classes in thresholds(itemsize):
            regime = regimes.keeping(classes, itemsize, contiguous=contiguous, clusters=clusters, arrays=arrays)
            found[regime] = None
        found[regimes.keeping(1, itemsize, contiguous=contiguous, clusters=clusters, arrays=arrays, cut=True)] = None
    return tuple(found)


@cache
def walking() -> tuple[Regime, ...]:
    """Every regime that `regimes.walking` can answer with."""
    found = {}
    for contiguous in (True, False):
        for classes in thresholds(4):
            found[regimes.walking(classes, contiguous=contiguous)] = None
        found[regimes.walking(1, contiguous=contiguous, cut=True)] = None
    return tuple(found)


@cache
def thresholds(itemsize: int) -> tuple[int, ...]:
    """Class counts on both sides of every point where a regime changes, found by bisection."""
    counts = {1}
    for table in (
        lambda c: regimes.keeping(c, itemsize, contiguous=True, clusters=True),
        lambda c: regimes.keeping(c, itemsize, contiguous=True, clusters=True, arrays=2),
        lambda c: regimes.keeping(c, itemsize, contiguous=True, clusters=False),
        lambda c: regimes.keeping(c, itemsize, contiguous=False, clusters=True),
        lambda c: regimes.walking(c, contiguous=True),
        lambda c: regimes.walking(c, contiguous=False),
    ):
        low = 1
        while True:
            step = 1
            while low + step < 2**20 and table(low + step) == table(low):
                step *= 2
            if low + step >= 2**20:
                break
            inside, outside = low + step // 2, low + step
            while outside - inside > 1:
                middle = (inside + outside) // 2
                inside, outside = (middle, outside) if table(middle) == table(low) else (inside, middle)
            counts |= {inside, outside}
            low = outside
    return tuple(sorted(counts))


@cache
def family(kernel: Kernel) -> tuple[Kernel, ...]:
    """The variants that differ from a kernel in their regime alone: compiled together, they are parsed once."""
    if not kernel.dtype:
        return (kernel,)
    if kernel.function in ("softmax", "products", "cross_entropy"):
        itemsize = ITEMSIZE[kernel.dtype]
        every = keeping(itemsize, 2 if kernel.function == "products" else 1)
    else:
        every = dict.fromkeys(walking())
    return tuple(replace(kernel, regime=regime) for regime in every)


def everything(tangents: bool = True) -> Iterator[Kernel]:
    """Every kernel for arguments of one dtype."""
    for dtype, itemsize in ITEMSIZE.items():
        for regime in keeping(itemsize):
            for mode in ("PROBABILITIES", "LOG_PROBABILITIES", "LOG_SUM_EXP"):
                yield kernels.softmax(mode, dtype, regime)
            yield kernels.cross_entropy(dtype, regime)
        for regime in keeping(itemsize, arrays=2):
            for mode in ("SOFTMAX_PRODUCT", "LOG_JVP", "LOG_VJP"):
                for is_logits in (True, False):
                    yield kernels.products(mode, is_logits, dtype, dtype, regime)
        for regime in walking():
            yield kernels.check_rows(dtype, regime)
            for real in dict.fromkeys((kernels.computing(dtype), "double")):
                yield kernels.cross_entropy_options(dtype, dtype, real, regime)
            for hessian in (True, False):
                yield kernels.derivatives(hessian, dtype, dtype, dtype, regime)
    for real in ("float", "double"):
        yield kernels.total(real)
        yield kernels.divisor(real)
    yield kernels.check_targets()
