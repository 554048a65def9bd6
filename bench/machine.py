"""The machine a run was made on: its name, caches, threads and the versions of what ran."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from pathlib import Path

import softgrad

PACKAGES = (
    "numpy", "numba", "torch", "jax", "jaxlib", "optax", "scikit-learn", "scipy", "ml_dtypes",
    "cupy-cuda12x", "cupy-cuda13x", "numba-cuda", "liger-kernel", "quack-kernels", "triton", "pytest-benchmark",
)  # fmt: skip
DEFAULT_CACHE = 64 << 20
BUSY = 0.5  # waiting processes per core, before a run adds its own


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def limit_threads(threads: int) -> None:
    """Hold every contender to `threads` threads; called before their libraries are imported.

    The libraries' own variables cover all but JAX, which sizes its pool by the cores it may run on.
    """
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[variable] = str(threads)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def last_level_cache() -> int:
    """Bytes of the largest CPU cache, `DEFAULT_CACHE` where the system does not say."""
    sizes = [DEFAULT_CACHE // 64]
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        match = re.fullmatch(r"(\d+)([KM]?)", path.read_text().strip())
        if match:
            sizes.append(int(match[1]) << {"": 0, "K": 10, "M": 20}[match[2]])
    return max(sizes) if len(sizes) > 1 else DEFAULT_CACHE


def available_memory() -> int:
    """Bytes of memory that can be used without swapping; 4 GiB where the system does not say."""
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return 4 << 30
    match = re.search(r"MemAvailable:\s+(\d+) kB", text)
    return int(match[1]) << 10 if match else 4 << 30


def load() -> float | None:
    """Processes that wanted to run in the last minute, None where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def cpu_name() -> str:
    """The CPU's brand, as far as the system tells."""
    try:
        match = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        match = None
    return match[1].strip() if match else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Installed versions of the libraries that can take part, and of Python."""
    installed = {dist.name.lower(): dist.version for dist in importlib.metadata.distributions() if dist.name}
    found = {package: installed[package] for package in PACKAGES if package in installed}
    return {"python": platform.python_version(), "softgrad": softgrad.__version__, **found}


def slug(text: str) -> str:
    """`text` as part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
