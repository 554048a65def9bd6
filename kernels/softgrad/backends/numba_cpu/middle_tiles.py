"""The way through rows of some vectors, tile by tile, that softmax and cross-entropy have in common: see `middle`."""

from __future__ import annotations

import math

from softgrad.backends.numba_cpu.compiling import inlined
from softgrad.backends.numba_cpu.lanes import anywhere, f32s, f64s, larger, max_of_each, size_of, store_f32
from softgrad.backends.numba_cpu.middle import (
    AHEAD,
    LINES,
    NEAR,
    NEXT,
    TOPS,
    USUAL,
    are_near,
    fill_again,
    fill_run,
    largest_of_row,
    look_at_run,
    next_largest,
    shift_rows,
    shifts,
    terms_in,
    terms_of_row,
    tile_at,
)
from softgrad.backends.numba_cpu.past_caches import begin_lines, flush
from softgrad.backends.numba_cpu.sixteen import everywhere
from softgrad.backends.numba_cpu.taking import ahead, following


@inlined
def over_tiles(
    counter, chunk, stage, arrays, flat, fmt, may_be_usual, needs_largest,
    set_apart, add, settle, write_run, write, of, options,
):  # fmt: skip
    """Every tile that no other thread takes: fill its terms e, add them, and when the next one's are filled, write.

    `arrays`: rows, classes, logits, result.  `may_be_usual`: rows near 0 may share one N; `needs_largest`: each row's
    largest logit is wanted all the same.  What is done with a tile, with what else is told, `of`:

    set_apart(of, terms, tile, stage)           what is not to be added is taken out of the terms
    add(of, terms, tile, is_run, stage)         Σ e of eight rows and of the others, and what was taken out of them
    settle(of, options, here, terms, m, N, sums, total, stage)
                                                here: (tile, is_run, which chunk, whether the tile is its last);
                                                which rows of the tile are to be written, whether as a run; the total
    write_run(of, terms, tile, table, distance, stage), write(of, terms, tile, i, distance, stage)
    """
    rows, classes, z, out = arrays
    terms, others, table = terms_in(stage, classes, flat)
    of_z, of_out = ahead(z, size_of(fmt), classes, AHEAD), ahead(out, size_of(fmt), classes, AHEAD)
    tiles = (rows + 15) >> 4
    begin_lines(stage + LINES)
    i, stop = following(counter, chunk, tiles, -1, 0)
    before, tile = tile_at(0, 0, classes, flat), tile_at(i, rows, classes, flat)
    usual, found, whole, total = may_be_usual, False, False, f64s(0.0)
    while True:
        share, is_last = i // chunk, i + 1 == stop
        i, stop = following(counter, chunk, tiles, i, stop)
        after = tile_at(i, rows, classes, flat)
        terms, others = others, terms
        is_run = flat and tile[1] == 16
        if is_run:
            N, low_enough = fill_run(z, terms, tile, usual, may_be_usual, table, of_z, stage, fmt)
            set_apart(of, terms, tile, stage)  # long before the others are added, that none waits for the other
        else:
            N = f32s(USUAL) if usual else shifts(next_largest(z, tile, of_z, found, stage, fmt), may_be_usual)
            low_enough = usual
            shift_rows(N, N, stage)
        found, top = not (is_run or usual), f32s(-math.inf)
        if whole:
            write_run(of, others, before, table, of_out, stage)
        to_write, to_fill = 0 if whole else before[1], 0 if is_run else tile[1]
        for r in range(max(to_write, to_fill)):
            if r < to_write:
                write(of, others, before, r, of_out, stage)
            if r < to_fill:
                top = larger(terms_of_row(z, terms, tile, r, of_z, stage, fmt), top)
            if r < after[1] and found:
                store_f32(stage + NEXT + 64 * r, largest_of_row(z, after, r, of_z, fmt))
        if tile[1] == 0:
            break
        if not is_run:
            set_apart(of, terms, tile, stage)
        sums = add(of, terms, tile, is_run, stage)
        low_enough = low_enough and not anywhere(top >= NEAR)
        near = not needs_largest and low_enough and are_near(sums[0] + sums[2], sums[1] + sums[3])
        if is_run and not near:
            look_at_run(z, tile, stage, fmt)
        m, wanted = f32s(0.0), N
        if not near:
            m = max_of_each(stage + TOPS)
            wanted = shifts(m, may_be_usual)
            if not everywhere(wanted == N):
                shift_rows(wanted, wanted, stage)
                fill_again(z, terms, tile, of_z, stage, fmt)
                set_apart(of, terms, tile, stage)
                sums = add(of, terms, tile, is_run, stage)
            usual = may_be_usual and everywhere(wanted == USUAL)
        here = tile, is_run, share, is_last
        before, whole, total = settle(of, options, here, terms, m, wanted, sums, total, stage)
        tile = after
    flush(stage + LINES, fmt)
