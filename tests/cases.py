"""The one list of cases that feeds tests and benchmarks: adversarial rows, tails around vector widths, real models.

    case.logits(dtype), case.targets(), case.probabilities(dtype), case.tangents(dtype, k), case.weight(dtype)

The same arrays every time: each is drawn from a generator seeded with the case's name.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

DTYPES: dict[str, np.dtype[Any]] = {name: np.dtype(name) for name in ("float64", "float32", "float16")}
try:
    import ml_dtypes

    DTYPES["bfloat16"] = np.dtype(ml_dtypes.bfloat16)
except ImportError:  # NumPy alone has no bfloat16
    pass


@dataclass(frozen=True)
class Reach:
    """How far a dtype goes, for rows that are to strain it."""

    sure: float  # 1 − p of a class this far above one other has no digit left as 1 − p
    spread: float  # the smallest probability is still a normal number
    flushed: float  # a class this far below has a probability under the smallest normal number
    offset: float
    largest: float
    smallest: float  # subnormal


REACH = {
    "float64": Reach(45.0, 700.0, 720.0, 1e6, 1.7e308, 5e-324),
    "float32": Reach(25.0, 86.0, 92.0, 1e6, 3e38, 1e-45),
    "float16": Reach(25.0, 86.0, 92.0, 3e4, 65504.0, 6e-8),
    "bfloat16": Reach(25.0, 86.0, 92.0, 1e6, 3e38, 9.2e-41),
}

# (generator, shape, targets, reach) -> logits in float64
Draw = Callable[[np.random.Generator, tuple[int, int], np.ndarray, Reach], np.ndarray]


@dataclass(frozen=True)
class Case:
    """Rows of logits with everything that may go with them; `shape` is (B, C)."""

    name: str
    shape: tuple[int, int]
    draw: Draw

    def logits(self, dtype: Any = np.float64) -> np.ndarray:
        dtype = np.dtype(dtype)
        drawn = self.draw(self._rng("logits"), self.shape, self.targets(), REACH[dtype.name])
        with np.errstate(over="ignore"):
            return drawn.astype(dtype)

    def targets(self, dtype: Any = np.int64) -> np.ndarray:
        return self._rng("targets").integers(0, self.shape[1], self.shape[0]).astype(dtype)

    def probabilities(self, dtype: Any = np.float64) -> np.ndarray:
        """Targets that do not sum to 1; some are 0."""
        drawn = self._rng("probabilities").random(self.shape)
        return np.where(drawn < 0.25, 0.0, drawn).astype(dtype)

    def weight(self, dtype: Any = np.float64) -> np.ndarray:
        return (self._rng("weight").random(self.shape[1]) + 0.1).astype(dtype)

    def grad_output(self, dtype: Any = np.float64) -> np.ndarray:
        return self._rng("grad_output").standard_normal(self.shape[0]).astype(dtype)

    def tangents(self, dtype: Any = np.float64, k: tuple[int, ...] = ()) -> np.ndarray:
        return self._rng("tangents").standard_normal((*k, *self.shape)).astype(dtype)

    def _rng(self, what: str) -> np.random.Generator:
        return np.random.default_rng(zlib.crc32(f"{self.name} {what}".encode()))

    def __str__(self) -> str:
        return self.name


def normal(sigma: float, offset: float = 0.0) -> Draw:
    """Independent normal logits."""
    return lambda rng, shape, targets, reach: rng.standard_normal(shape) * sigma + offset


def _sure_and_right(rng, shape, targets, reach):
    z = rng.standard_normal(shape)
    z[np.arange(len(z)), targets] = 4.0 + reach.sure
    return z


def _sure_and_wrong(rng, shape, targets, reach):
    z = rng.standard_normal(shape)
    z[np.arange(len(z)), (targets + 1) % shape[1]] = 4.0 + reach.sure
    return z


def _flushed(rng, shape, targets, reach):
    """1 − p is a sum of terms each under the smallest normal number."""
    z = np.full(shape, -reach.flushed)
    z[np.arange(len(z)), targets] = 0.0
    return z


def _spread(rng, shape, targets, reach):
    return rng.permuted(np.broadcast_to(np.linspace(0.0, -reach.spread, shape[1]), shape), axis=1)


def _offset(rng, shape, targets, reach):
    return rng.standard_normal(shape) * 5.0 + np.linspace(-reach.offset, reach.offset, shape[0])[:, None]


def _huge(rng, shape, targets, reach):
    """Differences that overflow; in every other row also ordinary logits, and in some a tie for the largest."""
    z = reach.largest * rng.choice([-1.0, 1.0, 0.5, 0.0], shape)
    z[1::2, ::2] = rng.standard_normal(z[1::2, ::2].shape)
    return z


def _ties(rng, shape, targets, reach):
    z = rng.integers(0, 3, shape).astype(float)
    z[0] = 1.0
    return z


def _denormal(rng, shape, targets, reach):
    return reach.smallest * rng.integers(-3, 4, shape).astype(float)


def _edges(rng, shape, targets, reach):
    """On both sides of the bounds within which a backend may leave out the shift."""
    edge = np.array([39.9999, 40.0, 40.0001, 85.0, 90.0, 299.9999, 300.0, 300.0001])
    return rng.choice(edge, shape) * rng.choice([-1.0, 1.0], shape) * rng.choice([1.0, 0.01], shape)


def _masked(rng, shape, targets, reach):
    """A third of the classes masked: some targets among them."""
    return np.where(rng.random(shape) < 1 / 3, -np.inf, rng.standard_normal(shape) * 10.0)


def _one_left(rng, shape, targets, reach):
    z = np.full(shape, -np.inf)
    z[np.arange(len(z)), targets] = rng.standard_normal(len(z)) * 100.0
    return z


def _broken(rng, shape, targets, reach):
    """Rows of −inf only, with +inf, with NaN, with both, between ordinary ones."""
    z = rng.standard_normal(shape)
    z[1] = -np.inf
    z[3, 0] = np.inf
    z[5, -1] = np.nan
    z[7, 0], z[7, -1] = np.inf, np.nan
    z[9, :] = np.inf
    return z


ADVERSARIAL = [
    Case("ordinary", (64, 100), normal(3.0)),
    Case("wide", (64, 100), normal(200.0)),
    Case("sure and right", (64, 100), _sure_and_right),
    Case("sure and wrong", (64, 100), _sure_and_wrong),
    Case("sure and right, few classes", (64, 7), _sure_and_right),
    Case("sure and wrong, few classes", (64, 7), _sure_and_wrong),
    Case("others flushed", (16, 1000), _flushed),
    Case("spread", (16, 500), _spread),
    Case("spread, few classes", (64, 11), _spread),
    Case("offset", (64, 30), _offset),
    Case("offset, many classes", (16, 300), _offset),
    Case("huge", (64, 40), _huge),
    Case("huge, few classes", (64, 5), _huge),
    Case("ties", (64, 40), _ties),
    Case("ties, few classes", (64, 4), _ties),
    Case("denormal", (16, 40), _denormal),
    Case("edges", (64, 40), _edges),
    Case("edges, few classes", (64, 10), _edges),
    Case("one class", (16, 1), normal(100.0)),
    Case("two classes", (64, 2), normal(30.0)),
    Case("masked", (64, 40), _masked),
    Case("masked, few classes", (64, 6), _masked),
    Case("one class left", (16, 40), _one_left),
    Case("broken rows", (16, 40), _broken),
    Case("broken rows, few classes", (16, 3), _broken),
]

# Both sides of every width a vector unit, an unrolled loop, a warp or a block may have.
TAILS = [
    Case(f"{classes} classes", (5, classes), normal(10.0))
    for classes in (*range(1, 19), *range(30, 36), *range(62, 67), *range(126, 131), 255, 256, 257, 1023, 1024, 1025)
]

# Class counts of real models, in a few rows; benchmarks ask for more with `rows`.
MODEL_CLASSES = {
    "digits": 10,
    "ImageNet": 1000,
    "Llama 2": 32_000,
    "GPT-2": 50_257,
    "Llama 3": 128_256,
    "Gemma": 262_144,
}
MODELS = [Case(f"{name}, {c} classes", (max(2, 2000 // c), c), normal(3.0)) for name, c in MODEL_CLASSES.items()]

# 1 − p = 2.9e-35 in float32: 262,144 terms, each below the smallest normal number.
LARGE = [
    Case("262,144 classes, others flushed", (2, 262_144), _flushed),
    Case("262,144 classes, spread", (2, 262_144), _spread),
    Case("262,144 classes, sure and wrong", (2, 262_144), _sure_and_wrong),
]

CASES = ADVERSARIAL + TAILS + MODELS + LARGE


def rows(classes: int, elements: int, sigma: float = 3.0) -> Case:
    """Ordinary rows of about `elements` elements in all, for benchmarks."""
    shape = (max(1, elements // classes), classes)
    return Case(f"{shape[0]} × {classes}, σ = {sigma:g}", shape, normal(sigma))
