"""Softmax Jacobian products of sixteen rows side by side at given logits: J v = p (u − Σ p u), u = v − v[k]."""

from __future__ import annotations

from softgrad.backends.numba_cpu.compiling import helper, kernel
from softgrad.backends.numba_cpu.lanes import (
    absolute,
    f32s,
    f64s,
    halves,
    i32s,
    joined,
    larger,
    load_f32,
    store_f32,
    sum_across,
    take,
)
from softgrad.backends.numba_cpu.narrow import (
    exponentials,
    fill_columns,
    largest,
    pick,
    spill_columns,
    tile_at,
    tiles_of,
)
from softgrad.backends.numba_cpu.single import scaled
from softgrad.backends.numba_cpu.sixteen import fine_tangents, ordinary, refer_rows, split, whole_shift


@kernel
def product_columns(counter, chunk, hard, stage, rows, classes, z, count_v, v, v_step, out, out_step, v_fmt, fmt):
    """J v of every tile not taken.  What float32 will not do for is listed: tangent · rows + row."""
    columns = stage + 1024
    v_columns = columns + 64 * ((classes + 15) >> 4 << 4)
    tiles = tiles_of(z, rows)
    first = take(counter) * chunk
    while first < tiles:
        for i in range(first, min(first + chunk, tiles)):
            tile = tile_at(i, z, rows, classes)
            fill_columns(columns, stage, z, tile, fmt)
            m, k = largest(columns, classes)
            low, high = exponentials(columns, columns, classes, whole_shift(m), i32s(-1))
            factor, rest = split(1.0 / low, 1.0 / high)
            for n in range(count_v):
                fill_columns(v_columns, stage, (v[0] + n * v_step, v[1], v[2], v[3], v[4], v[5]), tile, v_fmt)
                v_k = pick(v_columns, classes, k)
                u_low, u_high, top = moments(columns, v_columns, classes, v_k)
                keep = ordinary(m, tile) & fine_tangents(top, u_low, u_high, tile)
                if sum_across(keep) < 16:
                    refer_rows(hard, tile, keep, n * rows)
                mean = joined(u_low / low, u_high / high)
                for c in range(classes):
                    u = load_f32(v_columns + 64 * c) - v_k
                    store_f32(v_columns + 64 * c, scaled(load_f32(columns + 64 * c) * (u - mean), factor, rest))
                of_out = (out[0] + n * out_step, out[1], out[2], out[3], out[4], out[5])
                spill_columns(v_columns, stage, of_out, tile, keep, fmt)
        first = take(counter) * chunk


@helper
def moments(columns, v_columns, classes, v_k):
    """Σ e u of the first eight rows and of the others, added in the order of Σ e, and the largest |u|."""
    low, high, top = f64s(0.0), f64s(0.0), f32s(0.0)
    c = 0
    group = f32s(0.0)
    while c < classes:
        u = load_f32(v_columns + 64 * c) - v_k
        top = larger(absolute(u), top)
        group += load_f32(columns + 64 * c) * u
        c += 1
        if c & 3 == 0:
            x, y = halves(group)
            low += x
            high += y
            group = f32s(0.0)
    x, y = halves(group)
    return low + x, high + y, top
