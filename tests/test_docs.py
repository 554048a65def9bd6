"""Documentation that runs: every docstring's examples, the README's Python; and what a docstring must hold."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import softgrad
from softgrad import naive

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(softgrad.__file__).parent
FUNCTIONS = [name for name in softgrad.__all__ if inspect.isfunction(getattr(softgrad, name))]


def modules() -> list[str]:
    """The modules whose import needs nothing but NumPy."""
    return sorted(f"softgrad.{path.stem}" for path in PACKAGE.glob("*.py") if not path.stem.startswith("__"))


@pytest.mark.parametrize("module", modules())
def test_examples_run(module: str) -> None:
    # The reference's last digits; another backend's may differ within its budget.
    with softgrad.use_backend("numpy"):
        result = doctest.testmod(importlib.import_module(module), raise_on_error=False)
    assert result.failed == 0


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_docstring_is_complete(name: str) -> None:
    function = getattr(softgrad, name)
    doc = inspect.getdoc(function) or ""
    parameters = list(inspect.signature(function).parameters)
    sections = ["Returns", "Examples"] if name != "use_backend" else ["Examples"]
    if parameters:
        sections += ["Parameters", "Raises"]
    for section in sections:
        assert re.search(rf"^{section}\n-+$", doc, re.MULTILINE), f"{name}: {section}"
    assert ">>> " in doc
    if parameters:
        listed = doc.split("Parameters\n")[1].split("\n\n")[0]
        for parameter in parameters:
            assert re.search(rf"\b{parameter}\b", listed), f"{name} does not describe {parameter}"


@pytest.mark.parametrize("name", naive.__all__)
def test_every_textbook_docstring_has_an_example(name: str) -> None:
    assert ">>> " in (inspect.getdoc(getattr(naive, name)) or "")


def blocks() -> list[Any]:
    """The README's Python blocks, with the line each starts at."""
    readme = ROOT / "README.md"
    text = readme.read_text("utf-8") if readme.exists() else ""
    return [
        pytest.param(match.group(1), id=f"line {text[: match.start()].count(chr(10)) + 1}")
        for match in re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    ]


@pytest.mark.parametrize("block", blocks())
def test_the_readme_runs(block: str, capsys: pytest.CaptureFixture[str]) -> None:
    namespace: dict[str, Any] = {"np": np, "softgrad": softgrad}
    if ">>> " in block:
        example = doctest.DocTestParser().get_doctest(block, namespace, "README.md", "README.md", 0)
        with softgrad.use_backend("numpy"):
            assert doctest.DocTestRunner().run(example).failed == 0, capsys.readouterr().out
    else:
        exec(compile(block, "README.md", "exec"), namespace)
