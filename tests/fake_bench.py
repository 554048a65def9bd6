"""Contenders and devices for tests of the benchmark: right, wrong, failing, interrupted; no library, no GPU."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from bench.cases import Case
from bench.contenders import Contender


def double_softmax(logits: np.ndarray) -> np.ndarray:
    """Right to the last digit: computed in a wider type."""
    z = logits.astype(np.longdouble)
    e = np.exp(z - z.max(-1, keepdims=True))
    return (e / e.sum(-1, keepdims=True)).astype(logits.dtype)


class Fake(Contender):
    """A softmax whose results `spoil` may change."""

    def __init__(self, name: str, *, ours: bool = False, spoil: Any = lambda p: p, cuda: Any = None) -> None:
        self.name, self.ours, self._spoil, self._cuda = name, ours, spoil, cuda
        self.calls = 0

    def obstacle(self, case: Case) -> str | None:
        return None if case.operation == "softmax" else f"has no {case.operation}"

    def softmax(self, logits: np.ndarray, out: np.ndarray) -> Any:
        def call() -> np.ndarray:
            self.calls += 1
            if self._cuda is not None:  # a memory-bound kernel at half of the copy's speed
                self._cuda.now += 2.0 * logits.nbytes * 1e-9
            return self._spoil(double_softmax(logits))

        return call


class Raising(Fake):
    """Fails like a library that does not serve its input."""

    def softmax(self, logits: np.ndarray, out: np.ndarray) -> Any:
        raise NotImplementedError("not for this dtype")


class Interrupting(Fake):
    """Its user presses Ctrl-C during the third case."""

    def __init__(self) -> None:
        super().__init__("peer")
        self._seen: set[Any] = set()

    def softmax(self, logits: np.ndarray, out: np.ndarray) -> Any:
        self._seen.add(logits.shape)
        if len(self._seen) > 2:
            raise KeyboardInterrupt
        return super().softmax(logits, out)


class FakeStopwatch:
    """Every call takes what `seconds` says of it; nothing waits."""

    def __init__(self, seconds: Any) -> None:
        self._seconds, self.settled = seconds, 0

    def settle(self) -> None:
        self.settled += 1

    def time(self, call: Any, wait: Any = None) -> float:
        call()
        return self._seconds(call)


class FakeCuda:
    """A device with a clock of its own that remembers what was enqueued, in order; it copies 1 GB/s each way."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.now = 0.0

    def name(self) -> str:
        return "A GPU"

    def version(self) -> str:
        return "driver 13000"

    def free_bytes(self) -> int:
        return 48 * 40_000

    def release(self) -> None:
        self.log.append("release")

    def buffer(self, size: int) -> int:
        return size

    def fill(self, buffer: int) -> None:
        self.log.append("fill")
        self.now += 1.0

    def copy(self, target: int, source: int) -> None:
        self.log.append(f"copy {source}")
        self.now += source * 1e-9

    def event(self) -> float:
        self.log.append("event")
        return self.now

    def seconds(self, before: float, after: float) -> float:
        return after - before

    def synchronize(self) -> None:
        self.log.append("synchronize")


CONTENDERS = {
    "right": lambda cuda: [Fake("numba", ours=True), Fake("peer")],
    "wrong": lambda cuda: [
        Fake("numba", ours=True, spoil=lambda p: p * np.float32(1.000002)),
        Fake("peer", spoil=lambda p: p * np.float32(1.01)),
        Raising("raising"),
    ],
    "interrupted": lambda cuda: [Fake("numba", ours=True), Interrupting()],
    "gpu": lambda cuda: [Fake("cupy", ours=True, cuda=cuda), Fake("torch", cuda=cuda)],
}


def main(scenario: str, folder: Path, *, resume: bool) -> None:
    """One small run with fake contenders, in a process of its own: pytest runs inside."""
    from rich.console import Console

    from bench import cases, inputs, results
    from bench.run import Run, Settings
    from bench.session import execute

    cases.CPU_FEW = ((64, 10), (32, 100), (8, 1000))
    inputs.KNOWN_ELEMENTS = 4096  # what takes most of the time is the truth
    on_gpu = scenario == "gpu"
    settings = Settings("gpu" if on_gpu else "cpu", quick=True, operations=("softmax",), sections=("speed",))
    contenders, cuda, resumed = CONTENDERS[scenario], FakeCuda() if on_gpu else None, None
    run = Run(settings, contenders(cuda), {"absentee (cpu)": "absentee is not installed"}, cuda)
    if resume:
        resumed, earlier = results.to_resume(folder, run)
        run.go_on_from(earlier)
    finished = execute(run, folder / f"{results.stem(settings, 'fake')}.json", Console(width=200), resumed)
    print(f"interrupted={finished.interrupted} failures={len(finished.failures)} taken over={len(run.taken_over)}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), resume="--resume" in sys.argv)
