"""The derivation, and the exponentials that everything else is made of.

z      the logits of one row, C of them
k      the first largest class; m = z_k
e_j    exp(z_j − c) for a shift c of our choice: softmax does not depend on it
R      "the others": Σ e_j over the classes other than k (and than the target t)
s      Σ_j e_j = R + e_t + e_k
rest_k = R + e_t, rest_t = R + e_k  (R where t = k)
l      log1p(rest_k / e_k) = log Σ exp(z − m) ≥ 0

Softmax                p_j = e_j / s
Log-softmax            log p_j = (z_j − m) − l: both terms ≤ 0, nothing cancels; −l alone at the largest
Log-sum-exp            lse = m + l
Loss, target t         lse − z_t = (m − z_t) + l: both terms ≥ 0; a sure row's loss is log1p(rest / e_t)
Its gradient           p_j, and at the target p_t − 1 = −rest_t / s: what is left when p_t rounds to 1
Loss, masses W         Σ_j W_j (m − z_j) + l Σ_j W_j, gradient p_j ΣW − W_j
Products               J v = p (u − Σ p u), with u = v − v_k: rows of J sum to 0, so any multiple of 1 may be taken
                       from v, and the largest class, where u would cancel against Σ p u, then carries none

The shift.  Rounding z − m before it reaches exp costs half an ulp of z − m: an error of 2⁻¹⁸ relative at −80 in float32
(~50 ulp), 2⁻⁴⁴ at −700 in float64.  So:

  * A row whose logits all lie within ±narrow needs no shift: c = 0, and nothing is rounded.
  * Otherwise each logit is split into a multiple h of 2⁻¹⁶ (float64: 2⁻⁴²) and a rest r, and c = m − lift is made
    such a multiple too: h − c is exact as far as exp(h − c) > 0, and exp(z − c) = exp(h − c) exp(r) with
    exp(r) = 1 + r, r is so small.  Adding and subtracting a large number rounds to the grid.
  * lift scales all exponentials up, so that terms whose probability is below the smallest normal number keep their
    digits in a sum; it cancels in every ratio.
  * Logits that were float32 or 16-bit (`exact`) need no split in float64: there z − c loses nothing that would show.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from softgrad.backends.numpy_cpu.blocks import Array, Block
from softgrad.backends.numpy_cpu.sums import largest_and_others


class Bounds(NamedTuple):
    """Of a dtype: exp(±narrow), exp(lift) and their sums over 10⁷ classes stay far from its limits."""

    narrow: float
    lift: float
    to_grid: float  # x + to_grid − to_grid is x rounded to the grid


BOUNDS = {
    np.dtype(np.float32): Bounds(40.0, 60.0, 1.5 * 2.0**7),
    np.dtype(np.float64): Bounds(300.0, 600.0, 1.5 * 2.0**10),
}


class Shift:
    """c of each row of the (C, n) logits z, whose maxima are m; `exact`: they were float32 or 16-bit before."""

    def __init__(self, z: Array, m: Array, *, exact: bool = False) -> None:
        narrow, lift, to_grid = BOUNDS[z.dtype]
        self.split = not (exact and z.dtype == np.float64)
        lowest = z.min(initial=np.inf)
        self.needed = not (m.max(initial=-np.inf) <= narrow and lowest >= -narrow)
        if self.needed:
            self.any_masked = not lowest > -np.inf
            # 1 where the row is wide, 0 where it is narrow: what is not shifted is not split either.
            is_wide = (~((m <= narrow) & (z.min(axis=0) >= -narrow))).astype(z.dtype)
            self.to_grid = is_wide * to_grid
            self.c = (m - lift + to_grid - to_grid) * is_wide

    def exp(self, block: Block, z: Array, rest: Array | None = None) -> Array:
        """exp(z + rest − c), (C, n), `rest` far below 1: a new array."""
        e = self._exp(block, z)
        if rest is not None:
            e += e * rest
        return e

    def _exp(self, block: Block, z: Array) -> Array:
        e = block.empty_like(z)
        if not self.needed:
            return np.exp(z, out=e)
        if not self.split:
            return np.exp(np.subtract(z, self.c, out=e), out=e)
        h = np.add(z, self.to_grid, out=block.empty_like(z))
        h -= self.to_grid
        r = np.subtract(z, h, out=block.empty_like(z))
        if self.any_masked:
            np.fmax(r, -1.0, out=r)  # −inf minus itself is NaN: any finite r will do where e is 0
        h -= self.c
        np.exp(h, out=e)
        r *= e
        e += r
        return e

    def exp_in_float64(self, m: Array) -> Array:
        """exp(m − c), (n,), of float32 maxima."""
        m = m.astype(np.float64)
        return np.exp(m - self.c if self.needed else m)


@dataclass(slots=True)
class Exponentials:
    """e and its sums, for the (C, n) block z; per-row numbers are (n,)."""

    e: Array
    m: Array
    e_k: Array
    rest_k: Array
    s: Array
    e_t: Array | None  # where there is a target
    rest_t: Array | None
    l: Array

    @property
    def lse(self) -> Array:
        """log Σ exp(z)."""
        return self.m + self.l


def exponentials(
    block: Block, z: Array, *, exact: bool, t: Array | None = None, rest: Array | None = None
) -> Exponentials:
    """Of the (C, n) float64 logits z + rest and targets t (n,); `exact`: they were float32 or 16-bit before."""
    m, k = largest(block, z)
    e = Shift(z, m, exact=exact).exp(block, z, rest)
    if t is None:
        e_k, rest_k = largest_and_others(block, e, k)
        return Exponentials(e, m, e_k, rest_k, rest_k + e_k, None, None, np.log1p(rest_k / e_k))
    at_t = t, np.arange(len(t))
    e_t = e[at_t]
    e[at_t] = 0.0
    e_k, others = largest_and_others(block, e, None)
    e[at_t] = e_t
    rest_t = others + e_k
    e_k, rest_k = np.maximum(e_t, e_k), others + np.minimum(e_t, e_k)
    return Exponentials(e, m, e_k, rest_k, rest_k + e_k, e_t, rest_t, np.log1p(rest_k / e_k))


def largest(block: Block, z: Array) -> tuple[Array, Array | None]:
    """The largest logit of each row of (C, n), and, where rows lie so that it costs nothing, which class that is."""
    if block.columns:
        return z.max(axis=0), None
    k = z.argmax(axis=0)
    return z[k, np.arange(len(k))], k


def first_largest(block: Block, z: Array) -> Array:
    """Index of the first largest class of each row, (n,); of a NaN, where there is one."""
    classes, n = z.shape
    if not block.columns or n < classes:
        return z.argmax(axis=0)
    k, m = np.zeros(n, np.intp), z[0].copy()
    larger = np.empty(n, bool)
    for j in range(1, classes):
        np.copyto(k, j, where=np.greater(z[j], m, out=larger))
        np.maximum(m, z[j], out=m)
    # A NaN is greater than nothing, but m has become NaN.
    lost = np.isnan(m)
    if lost.any():
        k[lost] = z[:, lost].argmax(axis=0)
    return k


def times(x: Array, *factors: Array | float, over: Array | float = 1.0, out: Array | None = None) -> Array:
    """x · Π factors / over, with numbers per row, (n,); nothing on the way leaves float64's range, only the result may.

    So a probability below the smallest normal number is multiplied by what scales it before it is rounded, not after.
    """
    fraction, power = np.frexp(over)
    fraction, power = 1.0 / fraction, -power
    for factor in factors:
        f, n = np.frexp(factor)
        fraction, power = fraction * f, power + n
    if np.abs(power).max(initial=0) > 1000:
        power = np.clip(power, -2000, 2000)
        half = power // 2
        x, power = np.multiply(x, np.ldexp(1.0, half), out=out), power - half
    return np.multiply(x, np.ldexp(fraction, power), out=out)
