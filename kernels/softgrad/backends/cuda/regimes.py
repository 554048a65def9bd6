"""Which team of threads serves a row: the one table of it, with the reasons.

A regime follows from the number of classes, the size of the computing type, whether the class axis is contiguous, and
whether the device has clusters; never from the number of rows, so that a row's bits do not depend on its neighbours.

    short     several rows per lane, in turns  row in registers, a block's rows in shared memory
    lanes     several rows per warp            row in registers
    block     a block per row                  row in registers
    cluster   several blocks per row           row in registers, sm_90 on
    columns   strided class axis: neighbouring rows side by side, several threads down the classes
    held      a cluster                        row, and tangent, in shared memory
    walk      any of these with the row read again at each walk: longer rows, and losses with options
    segments  a block or columns for each segment of a row: the longest rows, shared by the whole device (segments.py)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

SLOT = 24  # bytes of shared memory that one value agreed upon may take (teams.cuh)


@dataclass(frozen=True, slots=True)
class Regime:
    """A team, and how many chunks of the row each of its threads keeps (0: none, the row is read again)."""

    kind: str
    size: int  # threads per row and block: 1, W, THREADS or Y
    chunks: int  # in shared memory, at most, if negative
    blocks: int = 1  # per row
    width: int = 1  # rows side by side, for columns; classes, for short rows
    turns: int = 1  # rows of a lane, one after the other
    threads: int = 128
    resident: int = 1  # blocks per multiprocessor that registers must leave room for
    cut: bool = False  # a row is cut into segments, each of them such a team's

    @property
    def team(self) -> str:
        """The C++ type."""
        team = {
            "short": f"Short<{self.width}, {self.turns}, {self.threads}, true>",
            "lanes": f"Lanes<{self.size}, {self.threads}>",
            "block": f"Block<{self.size}>",
            "cluster": f"Cluster<{self.blocks}, {self.size}>",
            "columns": f"Columns<{self.size}, {self.width}>",
        }[self.kind]
        return f"Segments<softgrad::{team}>" if self.cut else team

    @property
    def name(self) -> str:
        """For kernel names and tests: kind, size (classes of short rows), chunks."""
        blocks = f"{self.blocks}x" if self.blocks > 1 else ""
        segments = "segments_" if self.cut else ""
        size = self.width if self.kind == "short" else self.size
        place = f"keep{self.chunks}" if self.chunks > 0 else f"held{-self.chunks}" if self.chunks < 0 else "walk"
        return f"{segments}{self.kind}{blocks}{size}_{place}"

    @property
    def shared_bytes(self) -> int:
        """Shared memory per block: two turns of a slot per warp (per thread for columns), and of one per cluster."""
        if self.kind in ("short", "lanes"):
            return 0
        if self.kind == "columns":
            return 2 * SLOT * self.threads
        slots = 2 * SLOT * (self.threads // 32 + (1 if self.kind == "cluster" else 0))
        # Two arrays.
        return slots if self.chunks >= 0 else -(-slots // 16) * 16 - 2 * self.chunks * 16 * self.threads

    def grid(self, rows: int) -> int:
        """Blocks for so many rows, were none cut."""
        per_block = {"short": self.threads, "lanes": self.threads // self.size, "columns": self.width}.get(self.kind, 1)
        per_block *= self.turns
        return -(-rows // per_block) * self.blocks


def short(classes: int, turns: int, resident: int) -> Regime:
    """A lane for `turns` rows of so many classes each."""
    return Regime("short", 1, 1, width=classes, turns=turns, threads=128, resident=resident)


def lanes(size: int, chunks: int, resident: int = 8) -> Regime:
    """`size` lanes of a warp per row; 4 warps a block: enough blocks for every multiprocessor even of few rows."""
    return Regime("lanes", size, chunks, threads=128, resident=resident)


def block(size: int, chunks: int, resident: int) -> Regime:
    """A block of `size` threads per row."""
    return Regime("block", size, chunks, threads=size, resident=resident)


def cluster(blocks: int, size: int, chunks: int, resident: int) -> Regime:
    """A cluster of `blocks` blocks per row."""
    return Regime("cluster", size, chunks, blocks=blocks, threads=size, resident=resident)


def columns(size: int, width: int, chunks: int) -> Regime:
    """`size` threads down the classes, `width` neighbouring rows: a warp reads a whole line of neighbours."""
    return Regime("columns", size, chunks, width=width, threads=size * width)


def segments(contiguous: bool, resident: int) -> Regime:
    """Each segment of a row as a team of its own: a block, or columns for a strided class axis."""
    team = block(256, 0, resident) if contiguous else columns(8, 32, 0)
    return replace(team, resident=resident, cut=True)


@cache
def keeping(
    classes: int, itemsize: int, *, contiguous: bool, clusters: bool, arrays: int = 1, cut: bool = False
) -> Regime:
    """The regime of a kernel that can keep its row, of one array or of two, in registers.

    A thread keeps 16 numbers of an array (8 of double): four 16-byte loads of float under way at once, and with the
    arithmetic no more than 64 registers (128 for two arrays, or for double), so that 1024 (512) threads, 64 KB of
    loads, share a multiprocessor.  At 4.8 TB/s and 0.6 µs of latency, 132 multiprocessors need 22 KB each under way.
    """
    wide = 16 // itemsize  # classes per chunk
    few = 2 if itemsize == 2 else 4
    # double has half as many numbers, but twice the registers for each and for the arithmetic.
    share = 2 if itemsize == 8 else 1
    chunks = -(-classes // wide)
    if arrays == 2:
        share *= 2
    if cut:
        return segments(contiguous, 4 // share)
    if not contiguous:
        # One class per chunk; 16 kept.
        # Of two arrays a thread has 255 registers, or 128 in a block of more than 256.
        widest = 32 if arrays == 1 else 16
        for size, width in ((1, 128), (8, 32), (16, widest))[: 2 if itemsize == 8 and arrays == 2 else 3]:
            if classes <= 16 * size:
                return columns(size, width, 16)
        return columns(16, 32, 0)
    threads = 1024 // share
    # 8 blocks of 128 threads to a multiprocessor; 3 with two arrays of 64 bytes a thread under way.
    resident = 8 // share if arrays == 1 else 3 if itemsize < 8 else 2
    if chunks <= 1:
        # A lane has room for exactly its row, and takes 32 bytes of rows in turn: with one row each a multiprocessor
        # would have 4 to 8 KB under way where there are two classes, and blocks that end as soon as they have begun.
        # Counted in machine code, a class of bfloat16 costs 40 instructions of softmax where C = 2, 31 where C = 3, 26
        # to 34 beyond, and 64, 49, 38 to 50 of a product with probabilities; at 4.8 TB/s there is time for 28 and 42.
        # In rows padded to eight numbers, one for each lane, two classes cost more than 200 each.
        return short(classes, 32 // (classes * itemsize), 8 if itemsize < 8 else 4)
    # Up to 16 numbers per lane: the fewest lanes, so that no lane idles and fewest exchanges are needed.
    for size in (1, 2, 4, 8, 16, 32):
        if chunks <= size * few:
            return lanes(size, few, resident)
    # Beyond a warp's 512 numbers a barrier (some 40 ns, while other blocks run) costs less than longer rows per lane.
    # At least two blocks stay on a multiprocessor: one loads while the other computes.
    size = 64
    while size <= 512 // share:
        if chunks <= size * few:
            return block(size, few, threads // size)
        size *= 2
    size //= 2
    # One array leaves room for 32 numbers a thread within 64 registers; with two, clusters begin here.
    many = 2 * few if arrays == 1 else few
    if chunks <= size * many:
        return block(size, many, 2)
    if clusters:
        # 8 blocks are the most that every device grants.
        for blocks in (2, 4, 8):
            if chunks <= blocks * size * many:
                return cluster(blocks, size, many, 2)
        # One block to a multiprocessor, in twice as many threads.
        if chunks <= 8 * 2 * size * many:
            return cluster(8, 2 * size, many, 1)
        # Shared memory holds 14 chunks of two arrays each of 512 threads: 224 of the 227 KB that a block may have, or
        # of two blocks of 256, which share a multiprocessor.  They come all at once, and are read five times there.
        for size, resident in ((256, 2), (512, 1)):
            if arrays == 2 and chunks <= 8 * size * 14:
                return cluster(8, size, -14, resident)
        # The row is read again at each walk, but 132 multiprocessors have 16 rows under way: 32 MB where C is 262,144
        # and there are two arrays of float, which the second-level cache (50 MB) holds.
        return cluster(8, 512, 0, 1)
    # A row per block: rows of up to some 50,000 classes are still in the second-level cache when they are read again.
    return block(512, 0, 1)


@cache
def walking(classes: int, *, contiguous: bool, cut: bool = False) -> Regime:
    """The regime of a kernel that reads its row again at each walk, and has much to remember of it.

    At most 256 threads, so that each may have 255 registers: these kernels compute in double or with every option.
    """
    if cut:
        return segments(contiguous, 1)
    if not contiguous:
        return columns(1, 128, 0) if classes <= 16 else columns(8, 32, 0)
    # As many lanes as the row has chunks, roughly, so that few idle.
    if classes <= 4:
        return lanes(1, 0, resident=1)
    if classes <= 32:
        return lanes(4, 0, resident=1)
    if classes <= 1024:
        return lanes(32, 0, resident=1)
    return block(256, 0, 1)
