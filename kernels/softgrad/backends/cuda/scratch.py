"""The few numbers that launches hand to each other: where in their buffer (`buffers`) each of them lies."""

from __future__ import annotations

from softgrad.backends.cuda.regimes import SLOT

# Sums over rows (totals.cu): a counter, the divisor {Σ weights, number}, and the sums of so many chunks of rows.
COUNTER_AT, DIVISOR_AT, PARTS_AT = 0, 16, 32
MOST_CHUNKS = 1024
# Rows cut into segments (segments.cuh): up to 8 numbers (those of derivatives), a record of each per row and segment.
RECORDS_AT = PARTS_AT + MOST_CHUNKS * SLOT
NUMBERS, RECORDS = 8, 2048
SCRATCH_BYTES = RECORDS_AT + NUMBERS * RECORDS * SLOT
