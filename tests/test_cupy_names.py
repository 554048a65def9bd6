"""Every name of CuPy that is used is a name that CuPy has: to be seen wherever it is installed, with no GPU."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

cupy = pytest.importorskip("cupy", reason="needs CuPy, though no GPU: pip install 'softgrad[cuda13]'")
ROOT = Path(__file__).parent.parent
FILES = [
    *sorted((ROOT / "kernels/softgrad/backends/cupy_cuda").glob("*.py")),
    *(ROOT / name for name in ("bench/gpu.py", "bench/host_cost.py", "bench/contenders/softgrad_backends.py")),
    *(ROOT / f"tests/{name}.py" for name in ("gpu", "sanitize_gpu", "test_gpu_rows", "test_gpu_promises")),
]


def names(path: Path) -> Iterator[str]:
    """Dotted names that begin with the module, or with what is imported from it."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    meaning: dict[str, tuple[str, ...]] = {"cupy": ()}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "cupy":
            within = tuple(node.module.split(".")[1:])
            meaning |= {alias.asname or alias.name: (*within, alias.name) for alias in node.names}
    yield from (".".join(parts) for parts in meaning.values() if parts)
    for node in nodes:
        parts = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if isinstance(node, ast.Name) and node.id in meaning and parts:
            yield ".".join((*meaning[node.id], *reversed(parts)))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_they_exist(path: Path) -> None:
    for name in set(names(path)):
        found: Any = cupy
        for part in name.split("."):
            assert hasattr(found, part), f"cupy.{name}"
            found = getattr(found, part)
