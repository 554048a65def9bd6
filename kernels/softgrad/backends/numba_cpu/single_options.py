"""label_smoothing ε (without weights) and z_loss ζ in float32: they change a few numbers of each row, no pass over it.

lse     log Σ exp(z)
F       h + ε + 2 ζ lse, what p is multiplied by in the gradient; h the mass on the target, w_t (1 − ε)
D       ε / C, what is subtracted at every class
at_t    (e_t (F − h) − h rest_t) / F, which takes the place of e_t: p_t F − h where p_t − 1 has no digits
gaps    Σ (m − z_j) over the classes, for the loss: h (lse − z_t) + ε (lse − m + gaps / C) + ζ lse²

Kernels are compiled with options = None for losses that have neither, or (ε, ζ); float64 throughout.
"""

from __future__ import annotations

from softgrad.backends.numba_cpu.compiling import helper, inlined
from softgrad.backends.numba_cpu.functions import log1p
from softgrad.backends.numba_cpu.lanes import absolute, f64s, load_f32, where
from softgrad.backends.numba_cpu.single import LIFT, LN_2, scaled

# Below, lse has not the digits that its square should have.
SMALLEST_LSE = 2.0**-20


@inlined
def log_of_sum(s, N):
    """lse, from Σ e lifted and shifted: s ≥ 2⁶³, where log1p is log."""
    return log1p(s) + (N - LIFT) * LN_2


@helper
def with_options(h, e_t, rest, lse, options):
    """(F, at_t, 1.0 if float32 will do else 0.0) of rows whose target has mass h after smoothing."""
    epsilon, zeta = options
    others = epsilon + 2.0 * zeta * lse
    mass = h + others
    at_t = where(mass == 0.0, f64s(0.0), (e_t * others - h * rest) / mass)
    size = absolute(lse)
    # An error of float32's in lse is one of lse only where that is not small, else of what ζ is small beside.  And
    # where F is small beside its parts, at_t has no room.
    whole = absolute(mass) >= 2.0**-20 * (h + absolute(others))
    fine = (f64s(zeta) == 0.0) | whole & (
        (size >= 1.0) | ((size > SMALLEST_LSE) & (absolute(f64s(zeta)) <= 0.5 * (h + epsilon)))
    )
    return mass, at_t, where(fine, f64s(1.0), f64s(0.0))


@helper
def with_options_loss(loss, gaps, m, lse, classes, options):
    """The loss, from its part h (lse − z_t)."""
    epsilon, zeta = options
    if epsilon != 0.0:
        loss += epsilon * ((lse - m) + gaps / classes)
    part = zeta * lse * lse
    return loss + part if zeta != 0.0 else loss


@inlined
def less(j, n, of):
    """e (factor + rest) − D of sixteen classes, for `write_row`."""
    e_at, factor, rest, offset = of
    return scaled(load_f32(e_at + 4 * j), factor, rest) - offset
