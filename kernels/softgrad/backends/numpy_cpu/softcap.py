"""Softcapped logits, and the two derivatives of the cap."""

from __future__ import annotations

import numpy as np

from softgrad.backends.numpy_cpu.blocks import ALL, Array, Block
from softgrad.backends.numpy_cpu.sums import two_product

# Numbers of a temporary array: few enough that many of them stay in cache, and that none is fresh from the system.
TEMPORARY = 2**13


class Softcap:
    """z' = s tanh(z / s) of the (C, n) float64 logits z; −inf stays masked, +inf stays as it is (its row is NaN).

    The rounding errors of x = z / s and of z' would be magnified by exp, so both are carried along: z' is
    `logits` + `rest`.  The slope dz'/dz is 4q / (1 + q)² with q = exp(−2 |x|), which has digits where 1 − tanh² has
    none.  Its memory is that of z; where it would be below the smallest normal number, it holds the root.
    """

    def __init__(self, block: Block, softcap: float, z: Array) -> None:
        self._block, self._s = block, softcap
        self._factor, self._faint = z, np.empty(z.shape, bool)
        self.logits, self.rest = block.empty_like(z), block.empty_like(z)
        classes, n = z.shape
        for piece in block.pieces(classes, max(TEMPORARY // n, 1)):
            self._compute(piece, z[piece])
        self._any_faint = bool(self._faint.any())

    def _compute(self, piece: slice, z: Array) -> None:
        x = z / self._s
        product, error = two_product(x, self._s)
        x_rest = ((z - product) - error) / self._s
        x_rest[~np.isfinite(x_rest)] = 0.0
        size, size_rest = np.abs(x), np.sign(x) * x_rest
        q = np.exp(-2.0 * size) * (1.0 - 2.0 * size_rest)
        slope = 4.0 * q / np.square(1.0 + q)
        logits, rest = two_product(np.tanh(x), self._s)
        rest += self._s * x_rest * slope
        # tanh(x) = x to the last digit, and z / s may have lost digits below the smallest normal number.
        as_it_is = (size < 1e-9) | np.isinf(z)
        np.copyto(logits, z, where=as_it_is)
        rest[as_it_is | ~np.isfinite(rest)] = 0.0
        self.logits[piece], self.rest[piece] = logits, rest
        # Where q is below the smallest normal number, √q = exp(−|x|) scales twice.
        faint = np.less(q, 1e-290, out=self._faint[piece])
        self._factor[piece] = np.where(faint, 2.0 * np.exp(-size) * (1.0 - size_rest), slope) if faint.any() else slope

    def times_slope(self, y: Array, piece: slice = ALL) -> Array:
        """y dz'/dz, in the memory of y."""
        y *= self._factor[piece]
        if self._any_faint:
            np.multiply(y, self._factor[piece], out=y, where=self._faint[piece])
        return y

    def times_curvature(self, y: Array, piece: slice = ALL) -> Array:
        """y d²z'/dz², in the memory of y."""
        tanh = np.clip(self.logits[piece] / self._s, -1.0, 1.0)
        y *= tanh * (-2.0 / self._s)
        return self.times_slope(y, piece)
