"""compute-sanitizer over the kernels of both GPU backends: `python -m tests.sanitize_gpu [tool ...]`.

memcheck, racecheck, initcheck and synccheck each run `calls`: every primitive in every regime, with tails, strides and
unaligned rows.  Exit status 0: all are clean; 1: one found something; 2: there is no compute-sanitizer.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
# Errors of the CUDA API that a library provokes to find something out are its own affair.
TOOLS = {"memcheck": ("--report-api-errors", "no"), "racecheck": (), "initcheck": (), "synccheck": ()}
FOUND, NOT_FOUND = 1, 2
# Beyond these, a row is walked over as any shorter one of its regime.
AFFORDABLE, AFFORDABLE_WITH_OPTIONS = 2**18 + 5, 4100


def main(tools: list[str]) -> int:
    """Run these tools, by default all; the first that finds something ends it."""
    sanitizer = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not Path(sanitizer).exists():
        print("compute-sanitizer was not found: it comes with the CUDA toolkit.")
        return NOT_FOUND
    search = os.pathsep.join(filter(None, [str(ROOT / "kernels"), str(ROOT), os.environ.get("PYTHONPATH")]))
    for tool in tools or TOOLS:
        command = [sanitizer, "--tool", tool, *TOOLS[tool], "--error-exitcode", str(FOUND)]
        command += [sys.executable, "-m", "tests.sanitize_gpu", "calls"]
        done = subprocess.run(command, env=os.environ | {"PYTHONPATH": search}, cwd=ROOT, check=False)
        print(f"{tool}: {'clean' if done.returncode == 0 else 'FAILED'}", flush=True)
        if done.returncode:
            return FOUND
    return 0


def calls() -> int:
    """Every primitive in every regime, few rows each, under every backend that there is."""
    import softgrad
    from tests import gpu

    ran = 0
    for place in ("cupy", "numba_cuda"):
        backend, library = gpu.PLACES[place]
        if softgrad.available_backends()[backend] != "available":
            continue
        arrays = gpu.LIBRARIES[library]()
        if library == "cupy":
            arrays.module.cuda.set_allocator(None)  # a pool would hide overruns into a neighbour
        with softgrad.use_backend(backend):
            for z in every_kind_of_rows():
                call(arrays, z)
                ran += 1
    print(f"{ran} kinds of rows")
    return 0 if ran else NOT_FOUND


def every_kind_of_rows() -> Iterator[np.ndarray]:
    """Three rows in every regime of every width of numbers, each aligned to 16 bytes and not."""
    from tests.cases import DTYPES
    from tests.emulator import variants

    rng = np.random.default_rng(0)
    for dtype in DTYPES.values():
        for classes in (*variants.thresholds(dtype.itemsize), AFFORDABLE):
            if classes <= AFFORDABLE:
                memory = rng.standard_normal(3 * classes + 1).astype(dtype)
                yield memory[:-1].reshape(3, classes)
                yield memory[1:].reshape(3, classes)


def call(arrays: Any, z: np.ndarray) -> None:
    """What there is to compute of such rows."""
    import softgrad

    classes = z.shape[1]
    # Put there as a whole, so that rows which do not start at 16 bytes do not do so there either.
    whole = arrays.put(z.base if z.base is not None else z)
    first = (z.__array_interface__["data"][0] - z.base.__array_interface__["data"][0]) // z.itemsize
    zd = whole[first : first + z.size].reshape(3, classes)
    t = arrays.put(np.array([0, classes - 1, classes]))  # the last is out of range
    softgrad.softmax(zd)
    softgrad.log_softmax(zd)
    softgrad.logsumexp(zd)
    softgrad.cross_entropy_value_and_grad(zd, t)
    softgrad.softmax_vjp(zd, logits=zd)
    softgrad.softmax_vjp(zd, probs=zd, check_probs=False)
    if classes <= AFFORDABLE_WITH_OPTIONS:
        softgrad.log_softmax_jvp(zd, logits=zd)
        softgrad.log_softmax_vjp(zd, logits=zd)
        softgrad.cross_entropy_value_and_grad(zd, t, label_smoothing=0.1, z_loss=0.1, softcap=20.0)
        softgrad.cross_entropy_grad(zd, zd, reduction="sum")
        softgrad.cross_entropy_jvp(zd, logits=zd, targets=t)
        softgrad.cross_entropy_hvp(zd, logits=zd, targets=t)
        across = arrays.put(np.ascontiguousarray(z.T))
        softgrad.softmax(across, axis=0)
        softgrad.softmax_vjp(across, logits=across, axis=0)
        softgrad.cross_entropy_value_and_grad(across, t, axis=0)
        softgrad.cross_entropy_hvp(across, logits=across, targets=t, axis=0)
    arrays.get(softgrad.cross_entropy(zd, t))  # waits for the device


if __name__ == "__main__":
    sys.exit(calls() if sys.argv[1:] == ["calls"] else main(sys.argv[1:]))
