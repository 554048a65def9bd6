"""What ``python -m softgrad info`` says: versions, backends, devices, threads."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
from collections.abc import Iterable, Iterator

import softgrad
from softgrad.registry import BACKENDS

_PACKAGES = ("numpy", "numba", "llvmlite", "cupy", "numba-cuda", "ml_dtypes")


def about() -> str:
    """Versions, backends, devices and threads, as text."""
    lines = [f"softgrad {softgrad.__version__}, Python {platform.python_version()}, {platform.platform()}", ""]
    lines += ["packages", *_table(_versions()), ""]
    lines += ["backends", *_table([*softgrad.available_backends().items(), _forced()]), ""]
    lines += ["devices and threads", *_table(_devices())]
    return "\n".join(lines)


def _table(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    pairs = list(rows)
    width = max((len(name) for name, _ in pairs), default=0)
    return (f"  {name:<{width}}  {value}" for name, value in pairs)


def _forced() -> tuple[str, str]:
    name = os.environ.get("SOFTGRAD_BACKEND", "")
    known = "" if name in BACKENDS else ", which is no backend"
    return "SOFTGRAD_BACKEND", f"{name!r}{known}" if name else "not set: the array decides"


def _versions() -> Iterator[tuple[str, str]]:
    installed = {}
    for distribution in importlib.metadata.distributions():
        name = str(distribution.metadata["Name"])
        installed[name.lower().replace("-", "_")] = distribution.version
    for package in _PACKAGES:
        key = package.replace("-", "_")
        # CuPy's wheels are called cupy-cuda12x, cupy-cuda13x.
        found = next((v for name, v in installed.items() if name == key or name.startswith(f"{key}_cuda1")), "")
        yield package, found or "not installed"


def _devices() -> Iterator[tuple[str, str]]:
    yield "CPU", f"{platform.machine()}, {os.cpu_count()} logical cores"
    if importlib.util.find_spec("numba") is not None:
        numba = importlib.import_module("numba")
        yield "numba", f"{numba.get_num_threads()} threads (NUMBA_NUM_THREADS)"
    yield "GPU", _gpus()


def _gpus() -> str:
    if importlib.util.find_spec("cupy") is None:
        return "not looked for: cupy is not installed"
    try:
        runtime = importlib.import_module("cupy").cuda.runtime
        count = runtime.getDeviceCount()
        names = [runtime.getDeviceProperties(device)["name"].decode() for device in range(count)]
    except Exception as error:  # without a driver CuPy raises errors of its own
        return f"none that CuPy can use: {type(error).__name__}: {error}"
    return ", ".join(names) or "none"
