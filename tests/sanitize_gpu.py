"""compute-sanitizer over the CUDA kernels on a device: `python -m tests.sanitize_gpu`.

memcheck, racecheck, initcheck and synccheck each run `calls`: every primitive in every regime, with tails, strides and
unaligned rows.  Exit status 0: all four are clean.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")


def main() -> int:
    """Run every tool; the first that finds something decides."""
    sanitizer = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not Path(sanitizer).exists():
        print("compute-sanitizer was not found: it comes with the CUDA toolkit.")
        return 2
    # CuPy's pool would hide overruns into a neighbouring allocation.
    environment = os.environ | {"SOFTGRAD_NO_POOL": "1", "PYTHONPATH": f"{ROOT / 'kernels'}{os.pathsep}{ROOT}"}
    for tool in TOOLS:
        command = [
            sanitizer,
            "--tool",
            tool,
            "--error-exitcode",
            "1",
            sys.executable,
            "-m",
            "tests.sanitize_gpu",
            "calls",
        ]
        done = subprocess.run(command, env=environment, cwd=ROOT, check=False)
        print(f"{tool}: {'clean' if done.returncode == 0 else 'FAILED'}")
        if done.returncode:
            return 1
    return 0


def calls() -> int:
    """Every primitive in every regime, few rows each."""
    import cupy
    import numpy as np

    import softgrad
    from tests.emulator import variants

    if os.environ.get("SOFTGRAD_NO_POOL"):
        cupy.cuda.set_allocator(None)
    for name, itemsize in (("float32", 4), ("float16", 2), ("float64", 8)):
        for classes in variants.thresholds(itemsize):
            memory = cupy.random.standard_normal(3 * classes + 1).astype(name)
            for z in (memory[:-1].reshape(3, classes), memory[1:].reshape(3, classes)):
                t = cupy.asarray([0, classes - 1, classes])  # the last is out of range
                softgrad.softmax(z)
                softgrad.log_softmax(z)
                softgrad.cross_entropy_value_and_grad(z, t)
                softgrad.softmax_vjp(z[::-1].copy(), logits=z)
                if classes <= 4096:
                    softgrad.cross_entropy_grad(z, t, label_smoothing=0.1, z_loss=0.1, softcap=20.0)
                    softgrad.cross_entropy_hvp(z, logits=z, targets=t)
                    softgrad.softmax(cupy.ascontiguousarray(z.T), axis=0)
    cupy.cuda.Device().synchronize()
    print(np.dtype(np.float32).name, "to float64: every regime ran")
    return 0


if __name__ == "__main__":
    sys.exit(calls() if sys.argv[1:] == ["calls"] else main())
