"""Softcapped logits, and the two derivatives of the cap."""

from __future__ import annotations

import numpy as np

from softgrad.backends.numpy_cpu.blocks import Array


class Softcap:
    """z' = s tanh(z / s) of the (C, n) float64 logits z; −inf stays masked, +inf stays as it is (its row is NaN)."""

    def __init__(self, softcap: float, z: Array) -> None:
        self._s = softcap
        self._tanh = z / softcap
        # tanh(x) = x to the last digit, and z / s may have lost digits below the smallest normal number.
        tiny = np.abs(self._tanh) < 1e-9
        # q = exp(−2 |z / s|): the slope 4q / (1 + q)² keeps its digits where 1 − tanh² has none.
        self._q = np.abs(self._tanh)
        self._q *= -2.0
        np.exp(self._q, out=self._q)
        np.tanh(self._tanh, out=self._tanh)
        self.logits = self._tanh * softcap
        np.copyto(self.logits, z, where=tiny | np.isinf(z))

    @property
    def slope(self) -> Array:
        """dz'/dz."""
        return 4.0 * self._q / np.square(1.0 + self._q)

    @property
    def curvature(self) -> Array:
        """d²z'/dz²."""
        return self.slope * self._tanh * (-2.0 / self._s)
