"""Compiles kernels for the emulated machine: one shared library per set of kernels, kept in a cache by its contents."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from softgrad.backends.cuda.kernels import Kernel
from softgrad.backends.cuda.sources import amalgamated

HERE = Path(__file__).parent
ADVICE = "running CUDA kernels on the CPU needs a C++ compiler: install g++ or clang++, or `pip install ziglang`"

# -ffp-contract=off: multiplications and additions are fused where the source says so, as on the device.
FLAGS = ["-std=c++17", "-O1", "-ffp-contract=off", "-fPIC", "-shared", "-w", "-fno-strict-aliasing"]
SANITIZERS = {
    "": [],
    "address": ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"],
    "thread": ["-g", "-fsanitize=thread"],
}


class NoCompilerError(RuntimeError):
    """There is no C++ compiler; the message says how to get one."""


@cache
def compiler() -> tuple[str, ...]:
    """The command of a C++17 compiler."""
    for candidate in (os.environ.get("CXX"), "g++", "clang++"):
        if candidate and shutil.which(candidate):
            return (candidate,)
    if importlib.util.find_spec("ziglang"):
        return (sys.executable, "-m", "ziglang", "c++")
    raise NoCompilerError(ADVICE)


def library(kernels: Iterable[Kernel], sanitizer: str = "", edits: tuple = ()) -> Path:
    """A shared library with a function per kernel: (blocks, order, arguments).  All kernels are of one source.

    `edits` are (file, old text, new text), to plant a fault in a source.
    """
    return _compiled(_text(tuple(kernels), edits), sanitizer)


@cache
def files_of(source: str) -> frozenset[str]:
    """The files that a source is made of."""
    return frozenset(re.findall(r'^#line 1 "(.+)"$', amalgamated(source), re.MULTILINE))


def _text(kernels: tuple[Kernel, ...], edits: tuple) -> str:
    replaced = {path.name: path.read_text(encoding="utf-8") for path in HERE.glob("*.cuh")}
    (source,) = {kernel.source for kernel in kernels}
    text = amalgamated(source, replaced)
    for file, old, new in edits:
        before, marker, after = text.partition(f'#line 1 "{file}"')
        assert marker, f"{file} is not part of {source}"
        assert old in after, f"{file} has no {old!r}"
        text = before + marker + after.replace(old, new, 1)
    return text + "".join(_entry(kernel) for kernel in kernels)


def _entry(kernel: Kernel) -> str:
    regime = kernel.regime
    flushes = "false" if "double" in kernel.arguments or kernel.function == "derivatives" else "true"
    return (
        f'\n#line 1 "{kernel.name}"\n'
        f'extern "C" void {kernel.name}(unsigned blocks, int order, const {kernel.struct}* of_launch) {{\n'
        f"  const emulator::Flushing flushing({flushes});\n"
        f"  emulator::launch(blocks, {regime.threads}, {regime.blocks}, {kernel.shared_bytes}, order, [of_launch] {{\n"
        f"    const {kernel.struct}& arguments = *of_launch;\n    {kernel.call};\n  }});\n}}\n"
    )


def _compiled(text: str, sanitizer: str) -> Path:
    command = [*compiler(), *FLAGS, *SANITIZERS[sanitizer]]
    key = hashlib.sha256("\0".join([*command, text]).encode()).hexdigest()[:24]
    folder = cache_folder()
    path = folder / f"{key}.so"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            source, made = Path(work) / "kernels.cpp", Path(work) / "kernels.so"
            source.write_text(text, encoding="utf-8")
            done = subprocess.run([*command, str(source), "-o", str(made)], capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[:4000]}")
            made.replace(path)
    return path


def cache_folder() -> Path:
    """Where libraries are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "softgrad-emulator"


@cache
def loaded(path: Path) -> ctypes.CDLL:
    """The library, opened once."""
    return ctypes.CDLL(str(path))
