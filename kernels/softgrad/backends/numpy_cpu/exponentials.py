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
(~50 ulp), 2⁻⁴⁴ at −700 in float64.  So the error of the subtraction is carried along: exp(d + r) = exp(d) (1 + r), r so
small.  And exponentials are scaled up, so that terms whose probability is below the smallest normal number keep their
digits in a sum; the scale cancels in every ratio.

In float64 (`exp_from_largest`), for all but the two functions that stay in float32:
  * c = m: e_k has no error at all, and d + r = z − m exactly.  Logits that were float32 or 16-bit (`exact`) need no r:
    there z − m loses nothing that would show.
  * The scale is a power of two, applied where d is small enough for exp(d) to need it.

In float32 (`Shift`):
  * A row whose logits all lie within ±narrow needs no shift: c = 0, and nothing is rounded.
  * Otherwise each logit is split into a multiple h of 2⁻¹⁶ and a rest r, and c = m − lift is made such a multiple too:
    h − c is exact as far as exp(h − c) > 0.  Adding and subtracting a large number rounds to the grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from softgrad.backends.numpy_cpu.blocks import Array, Block
from softgrad.backends.numpy_cpu.sums import largest_and_others

# Float32: exp(±NARROW), exp(LIFT) and their sums over 10⁷ classes stay far from its limits.
NARROW, LIFT = np.float32(40.0), np.float32(60.0)
TO_GRID = np.float32(1.5 * 2.0**7)  # x + TO_GRID − TO_GRID is x rounded to a multiple of 2⁻¹⁶

# Float64: exp(d) · SCALE, below FAINT as exp(d + STEP) · SCALED_STEP: d + STEP is exact there, and SCALE / exp(STEP)
# very nearly a float64.
FAINT, STEP = -300.0, 577.0
SCALE, SCALED_STEP = 2.0**833, float.fromhex("0x1.7ab68bd9864aap+0")


class Shift:
    """c of each row of the (C, n) float32 logits z, whose maxima are m."""

    def __init__(self, block: Block, z: Array, m: Array) -> None:
        lows = z.min(axis=0) if block.columns else z
        lowest = lows.min(initial=np.inf)
        self.needed = not (m.max(initial=-np.inf) <= NARROW and lowest >= -NARROW)
        if self.needed:
            self.any_masked = not lowest > -np.inf
            if not block.columns:
                lows = smallest(block, z)
            is_wide = ~((m <= NARROW) & (lows >= -NARROW))
            self.to_grid: Array | np.float32 = TO_GRID
            self.c = m - LIFT + TO_GRID - TO_GRID
            if not is_wide.all():
                # What is not shifted is not split either.
                self.to_grid = is_wide * TO_GRID
                self.c *= is_wide

    def exp(self, block: Block, z: Array) -> Array:
        """exp(z − c), (C, n): a new array."""
        e = block.empty_like(z)
        if not self.needed:
            return np.exp(z, out=e)
        h = np.add(z, self.to_grid, out=block.empty_like(z))
        h -= self.to_grid
        r = np.subtract(z, h, out=block.empty_like(z))
        if self.any_masked:
            np.fmax(r, np.float32(-1.0), out=r)  # −inf minus itself is NaN: any finite r will do where e is 0
        h -= self.c
        np.exp(h, out=e)
        r *= e
        e += r
        return e

    def exp_in_float64(self, m: Array) -> Array:
        """exp(m − c), (n,), of float32 maxima."""
        m = m.astype(np.float64)
        return np.exp(m - self.c if self.needed else m)


def exp_from_largest(block: Block, z: Array, m: Array, *, exact: bool, rest: Array | None = None) -> Array:
    """exp(z + rest − m) times a power of two, of (C, n) float64 logits: a new array, or in the memory of `rest`.

    `exact`: the logits were float32 or 16-bit.  `rest` is far below 1.
    """
    result = block.empty_like(z) if rest is None else rest
    any_faint = not exact and bool((smallest(block, z) - m < FAINT).any())
    for piece in block.pieces(len(z)):
        r, out = None if rest is None else rest[piece], result[piece]
        d = np.subtract(z[piece], m, out=out if r is None else block.empty_like(out))
        if not exact:
            error = _error_of_difference(block, z[piece], m, d)
            r = error if r is None else np.add(error, r, out=error)
            np.fmax(r, -1.0, out=r)  # NaN where d is −inf: any finite r will do where e is 0
        if any_faint:
            faint = d < FAINT
            d += faint * STEP
            e = np.exp(d, out=d)
            e *= np.where(faint, SCALED_STEP, SCALE)
        else:
            e = np.exp(d, out=d)
        if r is not None:
            r *= e
            np.add(e, r, out=out)
    return result


def _error_of_difference(block: Block, z: Array, m: Array, d: Array) -> Array:
    """z − m − d of d = z − m rounded (Knuth): a new array."""
    of_m = np.subtract(d, z, out=block.empty_like(z))
    error = np.subtract(d, of_m, out=block.empty_like(z))
    np.subtract(z, error, out=error)
    of_m += m
    error -= of_m
    return error


def scale_of(e: Array) -> float:
    """The power of two that `exp_from_largest` chose for this block: a bound of all e (but a NaN row's)."""
    return SCALE if np.fmax.reduce(e, axis=None, initial=0.0) > 2.0 else 1.0


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
    """Of the (C, n) float64 logits z + rest and targets t (n,); `exact`: they were float32 or 16-bit before.

    e takes the memory of `rest`.
    """
    m, k = largest(block, z)
    e = exp_from_largest(block, z, m, exact=exact, rest=rest)
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


def smallest(block: Block, z: Array) -> Array:
    """The smallest logit of each row of (C, n)."""
    if block.columns:
        return z.min(axis=0)
    return z[z.argmin(axis=0), np.arange(z.shape[1])]  # sooner found by NumPy than z.min(axis=0)


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
    divisor, power = np.frexp(over)
    power = -power
    fraction: Array | float = 1.0
    for factor in factors:
        f, n = np.frexp(factor)
        fraction, power = fraction * f, power + n
    if np.abs(power).max(initial=0) > 1000:
        power = np.clip(power, -2000, 2000)
        half = power // 2
        x, power = np.multiply(x, np.ldexp(1.0, half), out=out), power - half
    # Divided: where the factors are powers of two, that is the only rounding.
    return np.divide(x, np.ldexp(divisor / fraction, -power), out=out)
