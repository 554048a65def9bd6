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

The shift.  Rounding z − m before it reaches exp costs half an ulp of z − m, an error of 2⁻⁴⁴ relative at −700 in float64
(2⁻¹⁸ at −80 in float32, ~50 ulp).  So:

  * A row whose logits all lie within ±NARROW needs no shift: c = 0, and z − c is exact.
  * Otherwise c = m − LIFT, and the rounding error r of z − c is carried along: exp(z − c) = exp(d) exp(r), d + r = z − c,
    and r is so small that exp(r) = 1 + r.  LIFT scales all exponentials up, so that terms whose probability is
    below the smallest normal number keep their digits in a sum; it cancels in every ratio.
  * float32 and 16-bit data are computed in float64, where z − c loses nothing that would show.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from softgrad.backends.numpy_cpu.blocks import Array, Block
from softgrad.backends.numpy_cpu.sums import sum_classes

# exp(±300) and its sums over any number of classes are far from float64's limits, 10^±308.
NARROW = 300.0
LIFT = 600.0


@dataclass(slots=True)
class Exponentials:
    """e and its sums, for the (C, n) block z; per-row numbers are (n,)."""

    e: Array
    k: Array
    m: Array
    e_k: Array
    rest_k: Array
    s: Array
    t: Array | None  # the target, where there is one; and its
    e_t: Array | None
    rest_t: Array | None

    @property
    def l(self) -> Array:  # noqa: E743 — the derivation's symbol
        """log Σ exp(z − m)."""
        return np.log1p(self.rest_k / self.e_k)

    @property
    def lse(self) -> Array:
        """log Σ exp(z)."""
        return self.m + self.l


def exponentials(block: Block, z: Array, *, exact: bool, t: Array | None = None) -> Exponentials:
    """Of the (C, n) float64 logits z and targets t (n,); `exact` says that z − c cannot lose digits that show."""
    columns = np.arange(z.shape[1])
    k = first_largest(z, in_columns=block.columns)
    m = z[k, columns]
    e = shifted_exp(block, z, m, exact=exact)
    e_k = e[k, columns]
    e[k, columns] = 0.0
    if t is None:
        others = sum_classes(e)
        e[k, columns] = e_k
        return Exponentials(e, k, m, e_k, others, others + e_k, None, None, None)
    same = t == k
    e_t = np.where(same, e_k, e[t, columns])
    e[t, columns] = 0.0
    others = sum_classes(e)
    e[t, columns] = e_t
    e[k, columns] = e_k
    rest_k = np.where(same, others, others + e_t)
    rest_t = np.where(same, others, others + e_k)
    return Exponentials(e, k, m, e_k, rest_k, rest_k + e_k, t, e_t, rest_t)


def shifted_exp(block: Block, z: Array, m: Array, *, exact: bool) -> Array:
    """exp(z − c) of the (C, n) float64 logits z whose maxima are m."""
    narrow = (m <= NARROW) & (z.min(axis=0) >= -NARROW)
    e = block.empty_like(z)
    if narrow.all():
        return np.exp(z, out=e)
    c = np.where(narrow, 0.0, m - LIFT)
    d = np.subtract(z, c, out=block.empty_like(z))
    np.exp(d, out=e)
    if not exact:
        # r by Knuth's two-sum; where e is 0 there is nothing to correct, and r may be infinite − infinite.
        r = np.subtract(z, d, out=block.empty_like(z))
        d += r
        d -= z
        r -= c
        r -= d
        np.copyto(r, 0.0, where=e == 0.0)
        r *= e
        e += r
    return e


def first_largest(z: Array, *, in_columns: bool) -> Array:
    """Index of the first largest class of each row, (n,); of a NaN, where there is one."""
    classes, n = z.shape
    if not in_columns or n < classes:
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


def times_ratio(x: Array, a: Array, b: Array) -> Array:
    """x · a / b for a, b (n,), where a / b may leave float64's range though the result does not."""
    fraction_a, power_a = np.frexp(a)
    fraction_b, power_b = np.frexp(b)
    power = power_a - power_b
    fraction = fraction_a / fraction_b
    first = np.where(np.abs(power) > 1000, power // 2, 0)
    if first.any():
        x = x * np.ldexp(1.0, first)
    return x * np.ldexp(fraction, power - first)
