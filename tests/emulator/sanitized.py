"""The kernels under AddressSanitizer with UBSan, or under ThreadSanitizer, each in a process of its own.

`python -m tests.emulator.sanitized SANITIZER CALLS EDITS` is that process: what it runs is chosen by the name of one of
the functions below, EDITS plant faults in the sources.  Within it every launch is watched: accesses beyond an array or
to shared memory that nobody allocated, misaligned words, and, for the threads that the emulated ones are to
ThreadSanitizer, two that touch the same memory with no barrier between them.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.emulator import build

ROOT = Path(__file__).resolve().parent.parent.parent
LIBRARIES = {"address": ("libasan.so", "libubsan.so"), "thread": ("libtsan.so",)}


def run(sanitizer: str, calls: str, *edits: tuple[str, str, str]) -> subprocess.CompletedProcess:
    """Make the calls in a process that the sanitizer watches; the test is skipped, with advice, where it cannot be."""
    libraries = []
    for library in LIBRARIES[sanitizer]:
        asked = [*build.compiler(), f"-print-file-name={library}"]
        path = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
        if not os.path.isabs(path):
            pytest.skip(f"the sanitized run needs g++ with its {library}")
        libraries.append(path)
    command = [sys.executable, "-m", __name__, sanitizer, calls, repr(edits)]
    if sanitizer == "thread":
        # ThreadSanitizer wants memory where it expects it.
        without = [shutil.which("setarch") or "setarch", "-R"]
        try:
            subprocess.run([*without, "true"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("ThreadSanitizer needs `setarch -R` (of util-linux) to be permitted")
        command = without + command
    environment = os.environ | {
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "TSAN_OPTIONS": "halt_on_error=1",
        "PYTHONPATH": f"{ROOT / 'kernels'}{os.pathsep}{ROOT}",
    }
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)


def _numbers(shape, dtype="float32"):
    import numpy as np

    from tests.cases import DTYPES

    return np.random.default_rng(1).standard_normal(shape).astype(DTYPES[dtype])


def softmax() -> None:
    """Rows short and long, with tails, and a class axis with neighbours."""
    import softgrad

    for classes in (3, 37, 1030):
        softgrad.softmax(_numbers((3, classes)))
    softgrad.softmax(_numbers((2, 200, 300)), axis=1)


def some() -> None:
    """Each kind of team once or twice, in place where that is harder."""
    import numpy as np

    import softgrad

    for classes in (37, 1030, 2100):  # lanes, a block, segments
        z, t = _numbers((4, classes)), np.array([0, 1, 2, classes - 1])
        softgrad.cross_entropy_value_and_grad(z, t, out=z, weight=np.ones(classes))
    for classes in (37, 1400):
        z, v = _numbers((2, 3, classes))
        softgrad.softmax_vjp(v, logits=z, out=z)
        memory = _numbers((3 * classes + 1,))
        unaligned = memory[1:].reshape(3, classes)
        softgrad.softmax(unaligned, out=unaligned)
    z = _numbers((150, 3))  # several rows of a lane
    softgrad.softmax(z, out=z)
    z = _numbers((3, 10))  # rows that follow each other, but not in words
    softgrad.log_softmax_vjp(_numbers((2, 3, 10)), logits=z)
    z, v = _numbers((2, 2, 300, 3))
    softgrad.softmax_vjp(v, logits=z, out=v, axis=1)
    z, v = _numbers((2, 1, 40))
    softgrad.cross_entropy_hvp(v, logits=z, targets=np.array([3]), out=z, label_smoothing=0.1, softcap=20.0)


def clusters() -> None:
    """Blocks that exchange through each other's shared memory."""
    import softgrad

    z, v = _numbers((2, 1, 1400), "float64")
    softgrad.softmax_vjp(v, logits=z, out=v)


def everything() -> None:
    """Every primitive in every regime that a few thousand classes reach."""
    import numpy as np

    import softgrad
    from tests.cases import DTYPES
    from tests.emulator import variants

    for dtype in DTYPES:
        counts = [c for c in variants.thresholds(DTYPES[dtype].itemsize) if c <= 4200]
        for classes in counts[:: 1 if dtype == "float32" else 4]:
            t = np.array([0, classes - 1, classes])  # the last is out of range
            for shift in (0, 1):
                memory = _numbers((3 * classes + 1,), dtype)
                z = memory[shift : shift + 3 * classes].reshape(3, classes)
                v, p = z.copy(), np.abs(z)
                softgrad.log_softmax(z)
                softgrad.softmax_vjp(v, logits=z, out=v)
                softgrad.log_softmax_vjp(z.copy(), log_probs=z, check_probs=False)
                softgrad.cross_entropy(z, t, check_targets=False)
                softgrad.cross_entropy_grad(z, p, softcap=20.0, z_loss=0.1, label_smoothing=0.1, out=p)
                softgrad.cross_entropy_jvp(z, logits=z, targets=t, check_targets=False)
                softgrad.cross_entropy_hvp(v, logits=z, targets=t, check_targets=False, softcap=20.0, out=v)
                softgrad.softmax(z, out=z)
            softgrad.softmax(np.ascontiguousarray(z.T), axis=0)
    clusters()


def main(sanitizer: str, calls: str, edits: str) -> None:
    """Make the calls."""
    from softgrad.backends.cuda.segments import Cutting
    from tests.emulator import emulated

    made = {function.__name__: function for function in (softmax, some, clusters, everything)}[calls]
    with emulated(
        "cupy", edits=ast.literal_eval(edits), sanitizer=sanitizer, order=3, cutting=Cutting(beyond=1500, shortest=1)
    ) as device:
        made()
    print("clean:", len(device.ran), "kernels")


if __name__ == "__main__":
    main(*sys.argv[1:])
