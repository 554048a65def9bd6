"""The cross-entropy family: loss, gradient, directional derivative, Hessian product.

h      target mass on the integer target t, w_t (1 − ε); 0 for probabilities
D_j    the masses spread over all classes: w_j ε / C, or w_j (T_j (1 − ε) + ε / C); None where they are all 0
F      h + ΣD + 2 ζ lse, what p is multiplied by in the gradient; ζ = z_loss, under "mean" z_loss · D/n,
       for every row is then divided by D = Σ w_t and the z_loss part should be by n
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from softgrad.backends.numpy_cpu.blocks import Array, Block, blocks
from softgrad.backends.numpy_cpu.checks import TARGETS, classify, judge_targets
from softgrad.backends.numpy_cpu.exponentials import exponentials, first_largest, scale_of, times
from softgrad.backends.numpy_cpu.products import centred, masked_classes, settle_masked, unit_of
from softgrad.backends.numpy_cpu.softcap import Softcap
from softgrad.backends.numpy_cpu.sums import Total, sum_classes, sum_pieces, two_product, two_sum
from softgrad.protocol import Loss, loss_dtype

# 2 ζ lse may leave float64's range, of which the probabilities it multiplies then bring it back.
DOWN = 2.0**-64
# log1p(x) = x to the last digit, long before x is below the smallest normal number.
TINY = 1e-200


def cross_entropy(problem: Loss, grad: Array | None, *, with_loss: bool) -> Array | None:
    """The loss, if asked for, and its gradient, if an array is given."""
    judge_targets(problem)
    if problem.z.shape[1] == 0:
        return _without_classes(problem, of_a_row=np.inf if problem.z_loss else 0.0) if with_loss else None
    divisor = Divisor(problem)
    total = Total()
    reduced = problem.reduction != "none"
    loss = _new_loss(problem) if with_loss else None
    with np.errstate(all="ignore"):
        for block in blocks(problem.z):
            rows = Rows(problem, block, divisor)
            if loss is not None:
                halves = rows.losses()
                if reduced:
                    total.add(halves)
                else:
                    block.store_per_row(loss, 2.0 * halves)
            if grad is not None:
                block.store(grad, rows.grad())
        if loss is not None and reduced:
            loss[...] = 2.0 * divisor.divide(total, when_nothing_counts=np.nan)
    return loss


def cross_entropy_jvp(problem: Loss, v: Array) -> Array:
    """The loss's derivative along each tangent."""
    judge_targets(problem)
    if problem.z.shape[1] == 0:
        slope = _without_classes(problem, of_a_row=0.0, when_nothing_counts=0.0)
        return np.broadcast_to(slope, (len(v), *slope.shape)).copy()
    out = _new_loss(problem, (len(v),))
    divisor = Divisor(problem)
    totals = [Total() for _ in v]
    reduced = problem.reduction != "none"
    with np.errstate(all="ignore"):
        for block in blocks(problem.z):
            rows = Rows(problem, block, divisor)
            for total, tangent, result in block.reusing(zip(totals, v, out, strict=True)):
                values = rows.jvp(block.load(tangent))
                if reduced:
                    total.add(values)
                else:
                    block.store_per_row(result, values)
        if reduced:
            out[...] = [divisor.divide(total, when_nothing_counts=0.0) for total in totals]
    return out


def cross_entropy_hvp(problem: Loss, v: Array, out: Array) -> None:
    """Hessian · v."""
    judge_targets(problem)
    if problem.z.shape[1] == 0:
        return
    divisor = Divisor(problem)
    with np.errstate(all="ignore"):
        for block in blocks(problem.z):
            rows = Rows(problem, block, divisor)
            for tangent, result in block.reusing(zip(v, out, strict=True)):
                block.store(result, rows.hvp(block.load(tangent)))


def _new_loss(problem: Loss, lead: tuple[int, ...] = ()) -> Array:
    outer, _, inner = problem.z.shape
    shape = (outer, inner) if problem.reduction == "none" else ()
    return np.empty(lead + shape, loss_dtype(problem.z.dtype))


def _without_classes(problem: Loss, of_a_row: float, when_nothing_counts: float = np.nan) -> Array:
    """The loss, or its derivative, where C is 0: sums over nothing are 0, lse = −inf."""
    outer, _, inner = problem.z.shape
    values = np.full((outer, inner), of_a_row)
    if not problem.dense:
        _, ignored, bad = classify(problem.targets, 0, problem.ignore_index)
        values[ignored], values[bad] = 0.0, np.nan
    loss = _new_loss(problem)
    if problem.reduction == "none":
        loss[...] = values
    elif problem.reduction == "mean" and Divisor(problem).by == 0.0:
        loss[...] = when_nothing_counts
    else:
        loss[...] = of_a_row if problem.reduction == "mean" else values.sum()
    return loss


class Divisor:
    """What "mean" divides by, D (1 otherwise), and ζ."""

    def __init__(self, problem: Loss) -> None:
        self.by = 1.0
        self.zeta = problem.z_loss
        if problem.reduction != "mean":
            return
        count, self.by = _count(problem)
        if count and self.zeta:
            self.zeta *= self.by / count

    def divide(self, total: Total, *, when_nothing_counts: float) -> float:
        """The reduced value."""
        if self.by == 0.0:
            return when_nothing_counts
        high, low, scale = total.value()
        return float(np.divide(high + low if np.isfinite(high) else high, self.by) / scale)


def _count(problem: Loss) -> tuple[int, float]:
    """Number of rows that count, and the sum of their weights."""
    outer, classes, inner = problem.z.shape
    if problem.dense:
        return outer * inner, float(outer * inner)
    targets = problem.targets.reshape(-1)
    weight = None if problem.weight is None else problem.weight.astype(np.float64)
    count, mass = 0, Total()
    with np.errstate(all="ignore"):
        for start in range(0, targets.size, TARGETS):
            t, ignored, bad = classify(targets[start : start + TARGETS], classes, problem.ignore_index)
            counting = t[~(ignored | bad)]
            count += len(counting)
            if weight is not None:
                mass.add(weight[counting])
        return count, float(count) if weight is None else mass.sum()


class Rows:
    """One block of the problem: its rows' masses, exponentials and scales; the mathematics, classes first."""

    def __init__(self, problem: Loss, block: Block, divisor: Divisor) -> None:
        z = block.load(problem.z)
        classes, n = z.shape
        self.block = block
        self.columns = np.arange(n)
        self.zeta = divisor.zeta
        self.cap = None if problem.softcap is None else Softcap(block, problem.softcap, z)
        self.z = z if self.cap is None else self.cap.logits
        z_rest = None if self.cap is None else self.cap.rest
        self._masses(problem, classes, n)
        self.dead |= divisor.by == 0.0
        self.f = exponentials(block, self.z, exact=problem.z.dtype != np.float64, t=self.t, rest=z_rest)
        self.lse = self.f.lse
        self.bound = scale_of(self.f.e) if problem.z.dtype == np.float64 else None
        scale = problem.grad_output
        if not isinstance(scale, float):
            scale = block.load_per_row(scale).astype(np.float64)
        self.scale = np.broadcast_to(np.divide(scale, divisor.by), n)

    def _masses(self, problem: Loss, classes: int, n: int) -> None:
        """t, h, D, ΣD, and which rows are dead or bad."""
        epsilon = problem.label_smoothing
        weight = None if problem.weight is None else problem.weight[:, None]
        self.t = self.h = self.spread = None
        self.spread_sum: Array | float = 0.0
        if problem.dense:
            self.spread = self.block.load(problem.targets)
            for piece in self.block.pieces(classes):
                spread = self.spread[piece]
                if epsilon:
                    # Both roundings undone: a negative T may cancel against ε / C.
                    product, of_product = two_product(spread, 1.0 - epsilon)
                    product, of_sum = two_sum(product, epsilon / classes)
                    np.add(product, of_product + of_sum, out=spread)
                if weight is not None:
                    spread *= weight[piece].astype(np.float64)
            self.spread_sum = sum_classes(self.block, self.spread)
            self.dead, self.bad = np.zeros((2, n), bool)
            return
        t, self.dead, self.bad = classify(self.block.load_per_row(problem.targets), classes, problem.ignore_index)
        self.t = t
        self.h = np.ones(n) if weight is None else weight[t, 0].astype(np.float64)
        if epsilon:
            self.h *= 1.0 - epsilon
            self.spread = np.ones((classes, 1)) if weight is None else weight.astype(np.float64)
            self.spread_sum = epsilon if weight is None else float(self.spread.mean()) * epsilon
            self.spread *= epsilon / classes

    def losses(self) -> Array:
        """Half of Σ_j W_j (m − z_j) + l ΣW + ζ lse², (n,): m − z may overflow though a mean of it does not."""
        f, l = self.f, 0.5 * self.f.l
        loss = np.zeros(len(l))
        if self.h is not None:
            gap = 0.5 * f.m - 0.5 * self.z[self.t, self.columns]
            # 0 · ∞ = 0: a masked target without mass.
            gap[(self.h == 0.0) & (gap == np.inf)] = 0.0
            loss += self.h * gap
        if self.spread is not None:
            loss += sum_pieces(self.block, len(self.z), partial(self._gaps, self.spread))
        # A sure row's l = rest / e may be below the smallest normal number though l ΣW is not.
        total = self._total()
        loss += np.where(l < TINY, times(f.rest_k, 0.5, total, over=f.e_k), l * total)
        if self.zeta:
            part = 0.5 * self.zeta * self.lse * self.lse
            # Where that overflows it outweighs every finite logit.
            loss = np.where(np.isinf(part) & np.isfinite(self.z.min(axis=0)), part, loss + part)
        return self._settle(loss)

    def _gaps(self, spread: Array, piece: slice) -> Array:
        """Half of D_j (m − z_j)."""
        gaps = 0.5 * self.f.m - 0.5 * self.z[piece]
        gaps[(np.broadcast_to(spread[piece], gaps.shape) == 0.0) & (gaps == np.inf)] = 0.0
        gaps *= spread[piece]
        return gaps

    def grad(self) -> Array:
        """Scaled d loss / d logits, (C, n)."""
        g = self.block.empty_like(self.f.e)
        grad_of_capped = self._grad_of_capped()
        for piece in self.block.pieces(len(g)):
            grad_of_capped(piece, g[piece])
            if self.cap is not None:
                self.cap.times_slope(g[piece], piece)
        return self._settle(g)

    def jvp(self, v: Array) -> Array:
        """Derivative of the loss along v, (n,): ΣW Σ p u − Σ W u + 2 ζ lse Σ p v, with u = v − v[t], or v − v[k]."""
        f = self.f
        if self.cap is not None:
            self.cap.times_slope(v)
        masked = masked_classes(self.z)
        moment = self._moment(v, masked) if self.zeta else ()
        # In the mean a masked class adds nothing, even a NaN; in Σ W u only if it has no mass.
        idle = masked if masked is None or self.spread is None else masked & (self.spread == 0.0)
        u = centred(self.block, v, self._k() if self.t is None else self.t, f.e, self.bound, idle)
        slope = times(u.moment, self._total(), u.unit, over=f.s)
        if self.spread is not None:
            spread = self.spread
            slope -= times(sum_pieces(self.block, len(v), lambda piece: spread[piece] * u.x[piece]), u.unit)
        if self.zeta:
            slope += times(self.lse, 2.0 * self.zeta, *moment, over=f.s)
        return self._settle(slope)

    def hvp(self, v: Array) -> Array:
        """Scaled Hessian · v, (C, n): p (F (u − Σ p u) + 2 ζ Σ p v), through the cap where there is one."""
        f = self.f
        masked = masked_classes(self.z)
        if self.cap is None:
            y = self._hvp_of_capped(v, masked)
        else:
            y = self._hvp_of_capped(self.cap.times_slope(self.block.cast(v, v.dtype)), masked)
            if masked is not None:
                v[masked] = 0.0
            unit = unit_of(v)
            grad_of_capped = self._grad_of_capped(unit)
            for piece in self.block.pieces(len(v)):
                g = grad_of_capped(piece, self.block.empty_like(v[piece]))
                g *= v[piece] / unit
                self.cap.times_slope(y[piece], piece)
                y[piece] += self.cap.times_curvature(g, piece)
        if masked is not None:
            settle_masked(y, masked, f.s)
        return self._settle(y)

    def _hvp_of_capped(self, v: Array, masked: Array | None) -> Array:
        """`hvp` by the softcapped logits, in the memory of v; anything at masked classes."""
        f, k = self.f, self._k()
        at_k = k, self.columns
        moment, unit = self._moment(v, masked) if self.zeta else (None, None)
        u = centred(self.block, v, k, f.e, self.bound, masked)
        scales = self._factor(self._total()), 1.0 / DOWN, self.scale, u.unit
        mean = u.moment / f.s
        # At k, where u = 0, the mean alone is left.
        y_k = times(-u.moment * (f.e[at_k] / f.s), *scales, over=f.s)
        y = u.x
        for piece in self.block.pieces(len(y)):
            y[piece] -= mean
            y[piece] *= f.e[piece]
            times(y[piece], *scales, over=f.s, out=y[piece])
        y[at_k] = y_k
        if moment is not None and unit is not None:
            mass = times(moment, self.scale, 2.0 * self.zeta, over=f.s)
            for piece in self.block.pieces(len(y)):
                y[piece] += times(f.e[piece], mass, unit, over=f.s)
        return y

    def _k(self) -> Array:
        return first_largest(self.block, self.z)

    def _moment(self, v: Array, masked: Array | None) -> tuple[Array, Array]:
        """Σ e v of (C, n) tangents as moment · unit."""
        # In the mean a masked class adds nothing, even a NaN.
        unit = unit_of(v if masked is None else np.where(masked, 0.0, v))

        def terms(piece: slice) -> Array:
            v_ = v[piece] if masked is None else np.where(masked[piece], 0.0, v[piece])
            return self.f.e[piece] * (v_ / unit)

        return sum_pieces(self.block, len(v), terms), unit

    def _total(self) -> Array:
        """ΣW, (n,)."""
        return np.broadcast_to(self.spread_sum if self.h is None else self.h + self.spread_sum, self.lse.shape)

    def _factor(self, total: Array) -> Array:
        """(`total` + 2 ζ lse) · DOWN."""
        return total * DOWN + (2.0 * self.zeta * DOWN) * self.lse if self.zeta else total * DOWN

    def _grad_of_capped(self, unit: Array | float = 1.0) -> Callable[[slice, Array], Array]:
        """p F − W, and at the target p (F − h) − D_t − h rest_t / s; scaled, and times a power of two.

        What is returned writes it to the memory for a piece of the classes.
        """
        f, scale = self.f, self.scale * unit
        F = self._factor(self._total())
        if self.h is not None and f.e_t is not None and f.rest_t is not None:
            at_t = -times(f.rest_t, scale, self.h, over=f.s)
            if self.spread is not None or self.zeta:
                others = np.broadcast_to(self.spread_sum, self.lse.shape)
                at_t += times(f.e_t, scale, self._factor(others), 1.0 / DOWN, over=f.s)
            if self.spread is not None:
                at_t -= scale * self.spread[self.t, 0]

        def write(piece: slice, g: Array) -> Array:
            times(f.e[piece], scale, F, 1.0 / DOWN, over=f.s, out=g)
            if self.spread is not None:
                g -= scale * self.spread[piece]
            if self.t is not None:
                here = (self.t >= piece.start) & (self.t < piece.stop)
                g[self.t[here] - piece.start, self.columns[here]] = at_t[here]
            return g

        return write

    def _settle(self, values: Array) -> Array:
        """Rows that count for nothing are exactly 0, rows whose target is out of range NaN."""
        if self.bad.any():
            values[..., self.bad] = np.nan
        if self.dead.any():
            values[..., self.dead] = 0.0
        return values
