"""Rows so long that their classes are shared by blocks all over the device: how they are cut, and launched.

Such a row is cut into segments, each a block's.  The kernel is launched once for every walk that it makes over the row:
launch n makes walk n alone, each block over its own segment, and leaves what the walk found in records; a later launch
begins by joining the records of its row, every block in the same order (segments.cuh).  Launches of one stream follow
each other, so nothing waits, no float is added atomically, and a graph can capture them.

The cut depends on the number of classes, the dtype's width and the regime alone, and so do a row's bits.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from softgrad.backends.cuda.regimes import Regime
from softgrad.backends.cuda.scratch import RECORDS

# Blocks of 256 threads that an H100's 132 multiprocessors run at a time, four each: a row is done in one wave.
MOST_SEGMENTS = 512
# Rows launched together: as many as the second-level cache holds (32 MB of float) while they are walked over again.
CLASSES_TOGETHER = 2**23

SEGMENTS_ARGS = struct.Struct("=7q")


class Walks(NamedTuple):
    """Walks over a row that a kernel makes: with no tangent, and for each.  The last one writes the results."""

    first: int
    per_tangent: int = 0


@dataclass(frozen=True, slots=True)
class Cutting:
    """Which rows are cut, and how short a segment may be.

    Up to 2^18 classes a cluster reads its row once, or the 16 rows that clusters have under way are still in the
    second-level cache when they are read again (33 MB where there are two arrays of float).  Longer ones are not, and
    a few of them alone would leave most multiprocessors idle.  4096 classes are four loads of 16 bytes for each of 256
    threads of float: with fewer, a block would be busy with the records of others.
    """

    beyond: int = 2**18
    shortest: int = 4096

    def segments(self, classes: int, itemsize: int, regime: Regime) -> tuple[int, int]:
        """(segments, classes in each but the last) of a row: every segment begins at a lane's first chunk."""
        step = regime.size * (16 // itemsize if regime.kind == "block" else 1)
        most = min(MOST_SEGMENTS, RECORDS // regime.width)
        count = min(-(-classes // self.shortest), most)
        length = -(-classes // (count * step)) * step
        return -(-classes // length), length


def launches(
    segments: int,
    length: int,
    shape: tuple[int, int],
    regime: Regime,
    walks: Walks,
    arguments: Sequence[bytes],
    records: int,
) -> Iterator[tuple[int, bytes]]:
    """(blocks, arguments) of each launch for `shape` = (rows, classes), in turn.

    `arguments` are the kernel's with each of the tangents alone; without tangents, they are one.  `records` is the
    address of the records.
    """
    rows, classes = shape
    teams = regime.grid(rows)
    together = max(1, min(RECORDS // (segments * regime.width), CLASSES_TOGETHER // classes))
    last = walks.first + walks.per_tangent
    for first in range(0, teams, together):
        blocks = min(together, teams - first) * segments
        for tangent, of_kernel in enumerate(arguments):
            for walk in range(walks.first + 1 if tangent else 1, last + 1):
                yield (
                    blocks,
                    of_kernel
                    + SEGMENTS_ARGS.pack(records, first, together * regime.width, segments, length, walk, walk == last),
                )
