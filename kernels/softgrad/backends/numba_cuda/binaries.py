"""Machine code for a device: compiled by Numba and the linker on a kernel's first use, then kept on disk.

Numba takes a second for a kernel, so what it made is found again by the next process: in `$SOFTGRAD_CACHE_DIR`, else
`softgrad` in the user's cache folder, under a name that stands for the kernels' sources, the compilers and the kernel.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sys
import tempfile
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, NamedTuple

from softgrad.backends.cuda.kernels import Kernel
from softgrad.backends.numba_cuda import kernels
from softgrad.backends.numba_cuda.rows import Place


class Binary(NamedTuple):
    """A kernel's machine code, and its name in it."""

    code: bytes
    entry: str


def binary(kernel: Kernel, place: Place, capability: tuple[int, int]) -> Binary:
    """The machine code of a kernel for a compute capability."""
    path = _folder() / f"{_key(kernel, place, capability)}.cubin"
    with contextlib.suppress(OSError, ValueError):
        entry, code = path.read_bytes().split(b"\n", 1)
        return Binary(code, entry.decode())
    made = compiled(kernel, place, capability)[0]
    with contextlib.suppress(OSError):  # a folder that cannot be written to costs time, nothing else
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent)
        with open(handle, "wb") as file:
            file.write(made.entry.encode() + b"\n" + made.code)
        os.replace(temporary, path)
    return made


def compiled(kernel: Kernel, place: Place, capability: tuple[int, int]) -> tuple[Binary, str]:
    """A kernel compiled anew, and what the assembler says of its registers."""
    core: Any = import_module("cuda.core")
    text = kernels.ptx(kernel, place, capability)
    (entry,) = re.findall(r"\.visible \.entry (\w+)\(", text)
    arch = f"sm_{capability[0]}{capability[1]}"
    options = core.LinkerOptions(arch=arch, fma=False, verbose=True, ptxas_options="-v")
    linker = core.Linker(core.ObjectCode.from_ptx(text.encode()), options=options)
    code = linker.link("cubin").code
    return Binary(bytes(code), entry), str(linker.get_info_log())


def _folder() -> Path:
    chosen = os.environ.get("SOFTGRAD_CACHE_DIR")
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "softgrad"


def _key(kernel: Kernel, place: Place, capability: tuple[int, int]) -> str:
    of = f"{_origin()} {kernel.name} {place} {capability}"
    return hashlib.sha256(of.encode()).hexdigest()[:32]


@cache
def _origin() -> str:
    """A fingerprint of everything that machine code depends on beside the kernel's name."""
    fingerprint = hashlib.sha256()
    for package in ("numba", "numba-cuda", "cuda-bindings", "nvidia-nvvm", "nvidia-nvjitlink", "numpy"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            fingerprint.update(f"{package} {metadata.version(package)}\n".encode())
    here = Path(__file__).parent
    for file in sorted((*here.glob("*.py"), *(here.parent / "cuda").glob("*.py"))):
        fingerprint.update(file.read_bytes())
    return fingerprint.hexdigest()
