"""The limit: a copy of as many bytes as the operation moves, by as many threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np

from bench.cases import Case
from bench.contenders.base import Call, Contender, Shared
from bench.inputs import Inputs

LIMIT = "copy"
SMALLEST_SHARE = 1 << 20  # bytes worth a thread of their own


class HostCopy(Contender):
    """memcpy, split evenly over the threads; half of the bytes are read, half written."""

    name = LIMIT

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(max(1, threads - 1))

    def obstacle(self, case: Case) -> str | None:
        """Every case has a limit."""
        return None

    def prepare(self, case: Case, inputs: Inputs, shared: Shared | None = None) -> Call:
        """From one buffer of its own to another, both in memory: np.zeros would leave that to the first call."""
        half = max(1, case.bytes // 2)
        source, target = np.ones(half, np.uint8), np.ones(half, np.uint8)
        threads = min(self._threads, max(1, half // SMALLEST_SHARE))
        cuts = [half * i // threads for i in range(threads + 1)]
        shares = [(target[a:b], source[a:b]) for a, b in pairwise(cuts)]

        def call() -> None:
            others = [self._pool.submit(np.copyto, *share) for share in shares[1:]]
            np.copyto(*shares[0])
            for other in others:
                other.result()

        return call


class DeviceCopy(Contender):
    """A device-to-device copy on the default stream."""

    name = LIMIT

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda

    def obstacle(self, case: Case) -> str | None:
        """Every case has a limit."""
        return None

    def prepare(self, case: Case, inputs: Inputs, shared: Shared | None = None) -> Call:
        """From one buffer of its own to another."""
        half = max(1, case.bytes // 2)
        source, target = self._cuda.buffer(half), self._cuda.buffer(half)
        return lambda: self._cuda.copy(target, source)
