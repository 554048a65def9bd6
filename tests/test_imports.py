"""What importing softgrad loads and costs, which way its imports point, and the names it offers."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import softgrad
from softgrad import naive
from softgrad.registry import BACKENDS

PACKAGE = Path(softgrad.__file__).parent

PUBLIC = {
    "softmax": "(logits, *, axis=-1, out=None)",
    "log_softmax": "(logits, *, axis=-1, out=None)",
    "logsumexp": "(logits, *, axis=-1, keepdims=False)",
    "softmax_jvp": "(tangent, *, logits=None, probs=None, axis=-1, out=None, check_probs=None)",
    "softmax_vjp": "(cotangent, *, logits=None, probs=None, axis=-1, out=None, check_probs=None)",
    "log_softmax_jvp": "(tangent, *, logits=None, log_probs=None, axis=-1, out=None, check_probs=None)",
    "log_softmax_vjp": "(cotangent, *, logits=None, log_probs=None, axis=-1, out=None, check_probs=None)",
    "softmax_jacobian": "(*, logits=None, probs=None, axis=-1, check_probs=None)",
    "cross_entropy": "(logits, targets, *, LOSS)",
    "cross_entropy_grad": "(logits, targets, *, grad_output=None, out=None, LOSS)",
    "cross_entropy_value_and_grad": "(logits, targets, *, grad_output=None, out=None, LOSS)",
    "cross_entropy_jvp": "(tangent, *, logits, targets, LOSS)",
    "cross_entropy_hvp": "(tangent, *, logits, targets, grad_output=None, out=None, LOSS)",
    "available_backends": "()",
    "use_backend": "(name)",
}
LOSS = (
    "axis=-1, weight=None, ignore_index=-100, label_smoothing=0.0, z_loss=0.0, softcap=None, "
    "reduction='mean', check_targets=None"
)
MODULES = {"naive", "diagnose"}  # the rest of what `import softgrad` offers


def signature(function: Any) -> str:
    """The signature without its annotations."""
    of = inspect.signature(function)
    bare = [parameter.replace(annotation=parameter.empty) for parameter in of.parameters.values()]
    return str(of.replace(parameters=bare, return_annotation=of.empty))


@pytest.mark.parametrize("name", PUBLIC)
def test_signatures(name: str) -> None:
    assert signature(getattr(softgrad, name)) == PUBLIC[name].replace("LOSS", LOSS)


def test_public_names_are_these_and_no_others() -> None:
    assert set(softgrad.__all__) - MODULES == set(PUBLIC)
    assert "naive" in softgrad.__all__
    assert len(softgrad.__all__) == len(set(softgrad.__all__))
    for name in softgrad.__all__:
        assert getattr(softgrad, name) is not None


@pytest.mark.parametrize("name", naive.__all__)
def test_the_textbook_functions_have_the_same_names_and_signatures(name: str) -> None:
    assert signature(getattr(naive, name)) == signature(getattr(softgrad, name))


def test_the_textbook_module_has_every_function_it_must() -> None:
    products = {f"{kind}_{way}" for kind in ("softmax", "log_softmax") for way in ("jvp", "vjp")}
    assert products | {"softmax", "softmax_jacobian", "cross_entropy", "cross_entropy_grad"} <= set(naive.__all__)


# --- what an import loads ---------------------------------------------------------------------------------------------


def modules_after(code: str) -> list[str]:
    """The modules that a new interpreter has after the code, beyond those it has after `import numpy`."""
    before, after = (
        "import sys, json, numpy; before = set(sys.modules)",
        "json.dumps(sorted(set(sys.modules) - before))",
    )
    code = f"{before}\n{code}\nprint({after})"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_import_loads_numpy_and_nothing_else() -> None:
    loaded = modules_after("import softgrad")
    roots = {name.partition(".")[0] for name in loaded}
    # What NumPy itself loads lazily is NumPy.
    assert roots - set(sys.stdlib_module_names) <= {"softgrad", "numpy"}
    backends = [name for name in loaded if name.startswith("softgrad.backends.")]
    assert backends == [], "a backend is imported when one of its arrays arrives"
    # Heavy parts of the standard library have no business in a numerical library's import.
    assert not roots & {"asyncio", "unittest", "email", "http", "multiprocessing", "sqlite3", "ssl", "xml", "tkinter"}


def test_import_is_light() -> None:
    """Few modules and little code: what keeps the import under 50 ms, without a clock."""
    loaded = [name for name in modules_after("import softgrad") if name.startswith("softgrad")]
    assert len(loaded) <= 20
    lines = sum(len(Path(str(sys.modules[name].__file__)).read_text("utf-8").splitlines()) for name in loaded)
    assert lines <= 4000


def test_a_call_on_numpy_arrays_loads_one_backend() -> None:
    code = "import softgrad\nwith softgrad.use_backend('numpy'): softgrad.softmax([1.0, 2.0])"
    loaded = {name.split(".")[2] for name in modules_after(code) if name.startswith("softgrad.backends.")}
    assert loaded == {"numpy_cpu"}


# --- which way imports point ------------------------------------------------------------------------------------------

# Each storey may import those below it, and what stands on its own floor if listed there.
FRONT = {"__init__", "__main__"}
FUNCTIONS = {"softmax_ops", "products", "losses"}
JUDGEMENT = {"loss_call", "arguments", "layout"}
DISPATCH = {"dispatch", "host", "registry", "protocol", "garbage"}
WITHIN = {
    ("loss_call", "arguments"),
    ("loss_call", "layout"),
    ("arguments", "layout"),
    ("dispatch", "host"),
    ("dispatch", "registry"),
    ("dispatch", "protocol"),
    ("dispatch", "garbage"),
    ("host", "registry"),
}
STOREYS = [FRONT, FUNCTIONS, JUDGEMENT, DISPATCH]


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name within it."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        found[name] = path
    return found


def imports(path: Path) -> set[str]:
    """The modules of the package that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            if node.module == "softgrad":
                found |= {alias.name for alias in node.names}
            elif (node.module or "").startswith("softgrad."):
                found.add(str(node.module).removeprefix("softgrad."))
        elif isinstance(node, ast.Import):
            found |= {
                alias.name.removeprefix("softgrad.") for alias in node.names if alias.name.startswith("softgrad.")
            }
    return found


def storey(name: str) -> int | None:
    return next((i for i, names in enumerate(STOREYS) if name in names), None)


def test_imports_point_one_way() -> None:
    for name, path in modules().items():
        here = storey(name)
        if here is None or name in FRONT:
            continue
        for target in imports(path):
            there = storey(target)
            assert there is not None, f"{name} imports {target}"
            assert here < there or (name, target) in WITHIN, f"{name} imports {target}"


def test_a_backend_imports_no_other_and_nothing_above_the_protocol() -> None:
    roots = {entry.module.removeprefix("softgrad.") for entry in BACKENDS.values()}
    for name, path in modules().items():
        parts = name.split(".")
        if parts[0] != "backends" or len(parts) < 2:
            continue
        own = ".".join(parts[:2])
        for target in imports(path):
            inside = target == own or target.startswith(f"{own}.")
            shared = target in ("host", "registry", "protocol", "garbage") or (
                target.startswith("backends.")
                and not any(target == root or target.startswith(f"{root}.") for root in roots)
            )
            assert inside or shared, f"{name} imports {target}"


def test_every_backend_is_named_in_the_table_only() -> None:
    """Nothing above dispatch knows a backend, and dispatch knows them by the table alone."""
    for name in JUDGEMENT | FUNCTIONS | {"dispatch", "host", "protocol"}:
        assert not any(target.startswith("backends") for target in imports(modules()[name])), name


def test_the_textbook_way_shares_no_line() -> None:
    assert imports(modules()["naive"]) == set()
