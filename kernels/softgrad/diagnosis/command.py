"""``python -m softgrad diagnose path/to/file.py:function --what jacobian``."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from softgrad.diagnosis.front import diagnose
from softgrad.diagnosis.question import LOSSES, PRODUCTS, WHATS

_EPILOG = """\
The function is called as softgrad.diagnose describes: with the logits, and with targets or the vector where it takes
them. Logits are drawn at random unless given. Exit status: 0 right, 1 not right, 2 the command itself was wrong.

  python -m softgrad diagnose mine.py:softmax_jacobian --what jacobian
  python -m softgrad diagnose mine.py:gradient --what cross_entropy_grad --rows 8 --classes 5 --reduction sum
  python -m softgrad diagnose mine.py:jacobian --what jacobian --logits "1.75 1.75"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.description = "Say what is wrong with a softmax, a derivative of it, or a cross-entropy, and how to mend it."
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("candidate", metavar="file.py:function", help="the function; a name with dots goes deeper")
    parser.add_argument("--what", required=True, choices=WHATS, help="what it is meant to compute")
    shape = parser.add_argument_group("logits")
    shape.add_argument("--classes", type=_at_least(1), default=5, metavar="C", help="default 5")
    shape.add_argument(
        "--rows", type=_at_least(0), default=4, metavar="B", help="default 4; 0: one row without a batch axis"
    )
    shape.add_argument("--logits", type=_matrix, metavar="'1 2; 3 4'", help="in place of random ones")
    shape.add_argument("--dtype", choices=("float64", "float32", "float16"), default="float64")
    shape.add_argument("--seed", type=int, default=0)
    loss = parser.add_argument_group("cross-entropy")
    loss.add_argument("--targets", type=_integers, metavar="'0 2 1'", help="class indices, in place of random ones")
    loss.add_argument("--reduction", choices=("mean", "sum", "none"), help="default mean")
    loss.add_argument("--weight", type=_numbers, metavar="'1 2 1'", help="a weight per class")
    loss.add_argument("--ignore-index", type=int, metavar="I")
    loss.add_argument("--label-smoothing", type=float, metavar="EPS")
    loss.add_argument("--z-loss", type=float, metavar="W")
    loss.add_argument("--softcap", type=float, metavar="S")
    parser.add_argument("--color", choices=("auto", "always", "never"), default="auto")


def run(chosen: argparse.Namespace) -> int:
    """Load, diagnose, print."""
    color = _wants_color(chosen.color)
    try:
        candidate = load(chosen.candidate)
    except UnusableError as error:
        print(error, file=sys.stderr)
        return 2
    except SyntaxError as error:
        print(f"{chosen.candidate}: wrong, Python cannot read the file: {error.msg}, line {error.lineno}")
        if error.text:
            print(f"  {error.text.rstrip()}")
        if "outside function" in str(error.msg):
            print("  Indent that line: it belongs to the function above it.")
        return 1
    except (Exception, SystemExit) as error:
        print(f"{chosen.candidate}: wrong, running the file raises {type(error).__name__}: {error}")
        return 1
    try:
        found = diagnose(candidate, what=chosen.what, **_inputs(chosen))
    except (TypeError, ValueError) as error:
        print(f"diagnose: {error}", file=sys.stderr)
        return 2
    print(found.render(color=color))
    return 0 if found.ok else 1


class UnusableError(Exception):
    """What the command line names is not there."""


def load(spelled: str) -> Any:
    """The object that ``path/to/file.py:name`` names."""
    path, colon, name = spelled.rpartition(":")
    if not colon or not path or not name:
        raise UnusableError(f"{spelled!r}: expected path/to/file.py:function")
    file = Path(path)
    if not file.is_file():
        raise UnusableError(f"{path}: there is no such file")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise UnusableError(f"{path}: not a Python file (its name must end in .py)")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(file.resolve().parent))  # as `python file.py` would
    sys.modules.setdefault(file.stem, module)
    spec.loader.exec_module(module)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            known = sorted(key for key, value in vars(module).items() if callable(value) and not key.startswith("_"))
            raise UnusableError(f"{path}: there is no {name!r} in it; functions there: {', '.join(known) or 'none'}")
        found = getattr(found, part)
    return found


def _inputs(chosen: argparse.Namespace) -> dict[str, Any]:
    rng = np.random.default_rng(chosen.seed)
    if chosen.logits is not None:
        logits = chosen.logits
    else:
        shape = (chosen.rows, chosen.classes) if chosen.rows else (chosen.classes,)
        logits = 2.0 * rng.normal(size=shape)
    logits = logits.astype(chosen.dtype)
    inputs: dict[str, Any] = {"logits": logits}
    if chosen.what in PRODUCTS:
        inputs[PRODUCTS[chosen.what]] = rng.normal(size=logits.shape)
    rows, classes = logits.shape[:-1], logits.shape[-1]
    if chosen.targets is not None:
        inputs["targets"] = chosen.targets if rows or chosen.targets.size != 1 else chosen.targets[0]
    elif chosen.what in LOSSES:
        inputs["targets"] = rng.integers(0, classes, rows)
    # Only what was given: `diagnose` refuses an option that `what` does not take.
    options = ("reduction", "weight", "ignore_index", "label_smoothing", "z_loss", "softcap")
    return inputs | {name: getattr(chosen, name) for name in options if getattr(chosen, name) is not None}


def _wants_color(choice: str) -> bool:
    if choice != "auto":
        return choice == "always"
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _at_least(least: int) -> Callable[[str], int]:
    def integer(text: str) -> int:
        if not text.strip().isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r}: expected an integer of at least {least}")
        return int(text)

    return integer


def _numbers(text: str) -> Any:
    return _array_of(float, text, "numbers, such as '0.5 2 1'")


def _integers(text: str) -> Any:
    return _array_of(int, text, "integers, such as '0 2 1'")


def _array_of(kind: type[int | float], text: str, expected: str) -> Any:
    try:
        return np.array([kind(number) for number in text.replace(",", " ").split()])
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected {expected}") from None


def _matrix(text: str) -> Any:
    rows = [_numbers(row) for row in text.split(";") if row.strip()]
    if len({len(row) for row in rows}) != 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected rows of the same length, separated by ';'")
    return np.array(rows) if ";" in text else rows[0]
