"""Softcapped logits, and the two derivatives of the cap."""

from __future__ import annotations

import numpy as np

from softgrad.backends.numpy_cpu.blocks import Array
from softgrad.backends.numpy_cpu.sums import two_product


class Softcap:
    """z' = s tanh(z / s) of the (C, n) float64 logits z; −inf stays masked, +inf stays as it is (its row is NaN).

    The rounding errors of x = z / s and of z' would be magnified by exp, so both are carried along: z' is
    `logits` + `rest`.  The slope dz'/dz is 4q / (1 + q)² with q = exp(−2 |x|), which has digits where 1 − tanh² has
    none.
    """

    def __init__(self, softcap: float, z: Array) -> None:
        self._s = softcap
        x = z / softcap
        product, error = two_product(x, softcap)
        x_rest = ((z - product) - error) / softcap
        x_rest[~np.isfinite(x_rest)] = 0.0
        size, size_rest = np.abs(x), np.sign(x) * x_rest
        q = np.exp(-2.0 * size) * (1.0 - 2.0 * size_rest)
        self._slope = 4.0 * q / np.square(1.0 + q)
        # Where q is below the smallest normal number, √q = exp(−|x|) scales twice.
        self._faint = q < 1e-290
        self._root_slope = 2.0 * np.exp(-size) * (1.0 - size_rest) if self._faint.any() else None
        self._tanh = np.tanh(x)
        self.logits, self.rest = two_product(self._tanh, softcap)
        self.rest += softcap * x_rest * self._slope
        # tanh(x) = x to the last digit, and z / s may have lost digits below the smallest normal number.
        as_it_is = (size < 1e-9) | np.isinf(z)
        np.copyto(self.logits, z, where=as_it_is)
        self.rest[as_it_is | ~np.isfinite(self.rest)] = 0.0

    def times_slope(self, y: Array) -> Array:
        """y dz'/dz."""
        if self._root_slope is None:
            return y * self._slope
        return np.where(self._faint, y * self._root_slope * self._root_slope, y * self._slope)

    def times_curvature(self, y: Array) -> Array:
        """y d²z'/dz²."""
        return self.times_slope(y * (self._tanh * (-2.0 / self._s)))
