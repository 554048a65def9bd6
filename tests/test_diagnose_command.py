"""``python -m softgrad``: diagnose, info, --version."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import softgrad
from softgrad.__main__ import main

MINE = """
import numpy as np


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def jacobian(f):
    return np.stack([np.diag(row) - np.outer(row, row) for row in f])


def right(z):
    return jacobian(softmax(z))


def gradient(z, t):
    dz = softmax(z)
    dz[np.arange(len(t)), t] -= 1
    return dz


class Layer:
    @staticmethod
    def backward(g, z):
        p = softmax(z)
        return p * (g - (p * g).sum(axis=-1, keepdims=True))
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    file = tmp_path / "mine_to_diagnose.py"
    file.write_text(MINE)
    yield str(file)
    sys.modules.pop("mine_to_diagnose", None)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["right", "--what", "jacobian"], 0, "jacobian: right"),
        (["jacobian", "--what", "jacobian", "--classes", "7"], 1, "logits-as-probs"),
        (["jacobian", "--what", "jacobian", "--logits", "1.75 1.75"], 1, "candidate -3.0625, right -0.25"),
        (["gradient", "--what", "cross_entropy_grad"], 1, "reduction-scale"),
        (["gradient", "--what", "cross_entropy_grad", "--reduction", "sum", "--rows", "6"], 0, "right"),
        (
            [
                "gradient",
                "--what",
                "cross_entropy_grad",
                "--reduction",
                "none",
                "--logits",
                "0 1; 2 3",
                "--targets",
                "0 1",
            ],
            0,
            "right",
        ),
        (["Layer.backward", "--what", "softmax_vjp", "--dtype", "float32"], 0, "right"),
        (["softmax", "--what", "softmax", "--rows", "0"], 0, "right"),
    ],
)
def test_diagnose(mine, capsys, arguments, status, said):
    function, *rest = arguments
    assert main(["diagnose", f"{mine}:{function}", *rest]) == status
    out = capsys.readouterr().out
    assert said in out
    assert "\x1b[" not in out


def test_colours(mine, capsys):
    assert main(["diagnose", f"{mine}:jacobian", "--what", "jacobian", "--color", "always"]) == 1
    assert "\x1b[1;31m" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("spelled", "said"),
    [
        ("{mine}:nowhere", "functions there: Layer, gradient, jacobian"),
        ("{mine}", "expected path/to/file.py:function"),
        ("nowhere.py:f", "no such file"),
    ],
)
def test_a_candidate_that_is_not_there(mine, capsys, spelled, said):
    assert main(["diagnose", spelled.format(mine=mine), "--what", "jacobian"]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--classes", "0", "'0': expected an integer of at least 1"),
        ("--classes", "five", "'five': expected an integer of at least 1"),
        ("--rows", "-1", "'-1': expected an integer of at least 0"),
        ("--logits", "a b", "'a b': expected numbers"),
        ("--logits", "1 2; 3", "expected rows of the same length"),
        ("--weight", "1 x", "'1 x': expected numbers"),
        ("--targets", "1.5", "'1.5': expected integers"),
    ],
)
def test_an_option_that_cannot_be_read(mine, capsys, option, value, said):
    with pytest.raises(SystemExit) as stopped:
        main(["diagnose", f"{mine}:softmax", "--what", "softmax", f"{option}={value}"])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--softcap=3", "--weight=1 1 1 1 1", "--targets=1 2 3 4", "--label-smoothing=0.1"])
def test_an_option_that_the_question_does_not_take(mine, capsys, option):
    """It would change nothing, so it was meant for another `--what`."""
    assert main(["diagnose", f"{mine}:softmax", "--what", "softmax", option]) == 2
    name = option.partition("=")[0].removeprefix("--").replace("-", "_")
    assert f"what='softmax' does not take `{name}`" in capsys.readouterr().err


def test_a_file_that_is_no_python(tmp_path, capsys):
    file = tmp_path / "df2.py"
    file.write_text("import numpy as np\n\ndef df2(d):\n    pass\nreturn np.diag(d)\n")
    assert main(["diagnose", f"{file}:df2", "--what", "jacobian"]) == 1
    out = capsys.readouterr().out
    assert "'return' outside function, line 5" in out
    assert "Indent that line" in out


@pytest.mark.parametrize(("line", "said"), [("1 / 0", "ZeroDivisionError"), ("raise SystemExit(0)", "SystemExit: 0")])
def test_a_file_that_raises(tmp_path, capsys, line, said):
    file = tmp_path / "raising.py"
    file.write_text(f"{line}\n")
    assert main(["diagnose", f"{file}:f", "--what", "jacobian"]) == 1
    assert said in capsys.readouterr().out


def test_an_impossible_question(mine, capsys):
    assert main(["diagnose", f"{mine}:gradient", "--what", "cross_entropy_grad", "--label-smoothing", "2"]) == 2
    assert "label_smoothing" in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"softgrad {softgrad.__version__}\n"


def test_info(capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    for backend, state in softgrad.available_backends().items():
        assert backend in out
        assert state in out
    assert f"softgrad {softgrad.__version__}" in out
    assert "logical cores" in out
    assert "GPU" in out


@pytest.mark.parametrize(
    ("name", "said"),
    [("", "not set: the array decides"), ("numpy", "'numpy'\n"), ("nunpy", "'nunpy', which is no backend")],
)
def test_info_says_which_backend_is_forced(monkeypatch, capsys, name, said):
    monkeypatch.setenv("SOFTGRAD_BACKEND", name)
    assert main(["info"]) == 0
    assert f"  SOFTGRAD_BACKEND  {said}" in capsys.readouterr().out


def test_as_a_process(mine):
    """The module runs, is plain in a pipe, and its exit status reaches the shell, whatever the encoding."""
    root = Path(softgrad.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "softgrad", "diagnose", f"{mine}:jacobian", "--what", "jacobian"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1, done.stderr
    assert "logits-as-probs" in done.stdout
    assert "\x1b[" not in done.stdout


def test_the_diagnosis_is_not_loaded_with_softgrad():
    code = """
import sys, softgrad
assert not any("diagnosis" in name for name in sys.modules)
assert callable(softgrad.diagnose) and callable(softgrad.diagnose)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(softgrad.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
