"""One row of logits, in real numbers: everything that depends on it alone.

z_j, k, m    logits (softcapped), the first largest class, m = z_k
gap_j        m − z_j ≥ 0
e_j, s, p    exp(−gap_j), their sum, e / s
l, lse       log1p(Σ_{j≠k} e_j), m + l
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from tests import real
from tests.real import Real, where


def Point(z: np.ndarray, softcap: float | None = None) -> _Point:  # noqa: N802
    """The rows of logits (..., C); the last few are kept, because most functions are asked about the same rows."""
    return _kept(np.ascontiguousarray(z).astype(np.float64).tobytes(), z.shape, softcap)


@lru_cache(maxsize=4)
def _kept(data: bytes, shape: tuple[int, ...], softcap: float | None) -> _Point:
    return _Point(np.frombuffer(data, np.float64).reshape(shape), softcap)


class _Point:
    """Everything that depends on the logits alone."""

    def __init__(self, z: np.ndarray, softcap: float | None = None) -> None:
        self.masked = z == -np.inf
        self.broken = np.isnan(z).any(-1) | (z == np.inf).any(-1) | self.masked.all(-1)
        self.softcap = softcap
        self._z = np.where(self.masked | self.broken[..., None], 0.0, z)
        self.k = np.where(self.masked, -np.inf, self._z).argmax(-1)[..., None]

    @cached_property
    def _tanh(self) -> Real:
        return real.tanh(Real(self._z) / self.softcap)

    @cached_property
    def z(self) -> Real:
        """Softcapped, 0 where masked."""
        return Real(self._z) if self.softcap is None else self._tanh * self.softcap

    @cached_property
    def slope(self) -> Real:
        """dz'/dz = 4q / (1 + q)², 0 where masked."""
        if self.softcap is None:
            return Real(np.ones(self._z.shape))
        q = real.exp(abs(Real(self._z) / self.softcap) * -2.0)
        return where(self.masked, 0.0, q * 4.0 / ((q + 1.0) * (q + 1.0)))

    @cached_property
    def curvature(self) -> Real:
        """d²z'/dz²."""
        if self.softcap is None:
            return Real(np.zeros(self._z.shape))
        return self._tanh * self.slope * -2.0 / self.softcap

    @cached_property
    def m(self) -> Real:
        return self.z.take(self.k)[..., 0]

    @cached_property
    def gap(self) -> Real:
        """m − z, +∞ where masked."""
        return where(self.masked, np.inf, column(self.m) - self.z)

    @cached_property
    def e(self) -> Real:
        return real.exp(-self.gap)

    def others(self, t: np.ndarray) -> Real:
        """Σ e over the classes other than t, (..., 1)."""
        return where(np.arange(self.e.shape[-1]) == t, 0.0, self.e).sum()

    @cached_property
    def rest(self) -> Real:
        return self.others(self.k)

    @cached_property
    def s(self) -> Real:
        return self.rest + 1.0

    @cached_property
    def p(self) -> Real:
        return self.e / column(self.s)

    @cached_property
    def l(self) -> Real:
        return real.log1p(self.rest)

    @cached_property
    def lse(self) -> Real:
        return self.m + self.l


def column(x: Any) -> Any:
    """A number per row, to stand beside the classes."""
    return x[..., None]
