"""Every name of CuPy that is used is a name that CuPy has: to be seen wherever it is installed, with no GPU."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

cupy = pytest.importorskip("cupy", reason="needs CuPy, though no GPU: pip install 'softgrad[cuda13]'")
ROOT = Path(__file__).parent.parent
FILES = [
    *sorted((ROOT / "kernels/softgrad/backends/cupy_cuda").glob("*.py")),
    *(ROOT / name for name in ("bench/gpu.py", "bench/host_cost.py", "bench/contenders/softgrad_backends.py")),
    *(ROOT / f"tests/{name}.py" for name in ("gpu", "sanitize_gpu", "test_gpu_rows", "test_gpu_promises")),
]


def names(path: Path) -> Iterator[str]:
    """Dotted names that begin with the module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        parts = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if isinstance(node, ast.Name) and node.id == "cupy" and parts:
            yield ".".join(reversed(parts))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_they_exist(path: Path) -> None:
    for name in set(names(path)):
        found = cupy
        for part in name.split("."):
            assert hasattr(found, part), f"cupy.{name}"
            found = getattr(found, part)
