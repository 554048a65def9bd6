"""`python3 ci`: what sets up `.venv`, and when it leaves it alone."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "ci"))
import environment  # noqa: E402


@pytest.fixture
def installs(tmp_path, monkeypatch):
    """A project of its own, and what was installed into its `.venv` by each call of pip."""
    installs = []

    def make():
        (tmp_path / ".venv/bin").mkdir(parents=True, exist_ok=True)
        (tmp_path / ".venv/bin/python").touch()
        (tmp_path / ".venv/Scripts").mkdir(exist_ok=True)
        (tmp_path / ".venv/Scripts/python.exe").touch()

    (tmp_path / "pyproject.toml").write_text("one")
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setattr(environment, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(environment, "STAMP", tmp_path / ".venv/softgrad.json")
    monkeypatch.setattr(environment, "_make", make)
    monkeypatch.setattr(environment, "_install", lambda python, extras: installs.append(extras))
    return installs


def test_the_second_set_up_installs_nothing(installs):
    environment.set_up(["dev"])
    environment.set_up(["dev"])
    assert installs == [["dev"]]


def test_extras_add_up(installs):
    environment.set_up(["cpu", "demo"])
    environment.set_up(["dev"])
    environment.set_up(["demo"])
    assert installs == [["cpu", "demo"], ["cpu", "demo", "dev"]]


def test_changed_requirements_are_installed(installs, tmp_path):
    environment.set_up(["dev"])
    (tmp_path / "pyproject.toml").write_text("two")
    environment.set_up(["dev"])
    assert installs == [["dev"], ["dev"]]


def test_another_python_starts_afresh(installs, monkeypatch):
    environment.set_up(["demo"])
    monkeypatch.setattr(environment.sys, "version", "4.0")
    environment.set_up(["dev"])
    assert installs == [["demo"], ["dev"]]


def test_a_failed_installation_is_tried_again(installs, monkeypatch):
    def fail(python, extras):
        sys.exit("no network")

    with monkeypatch.context() as patch:
        patch.setattr(environment, "_install", fail)
        with pytest.raises(SystemExit, match="no network"):
            environment.set_up(["dev"])
    environment.set_up(["dev"])
    assert installs == [["dev"]]


def test_the_exit_status_is_the_command_s():
    assert environment.running().run(["-c", "raise SystemExit(3)"]) == 3


def test_the_working_tree_is_importable_without_installing():
    code = "import pathlib, softgrad, sys; sys.exit(pathlib.Path(softgrad.__file__).parts[-3] != 'kernels')"
    assert environment.running().run(["-c", code]) == 0


def test_help_names_every_command():
    said = subprocess.run([sys.executable, "ci", "--help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for command in ("demo", "test", "lint", "bench", "gpu"):
        assert f"\n  {command} " in said


def test_an_unknown_command_is_an_error():
    done = subprocess.run([sys.executable, "ci", "dmeo"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "dmeo" in done.stderr


@pytest.mark.parametrize(
    ("said", "extras"),
    [
        ("| NVIDIA-SMI 580.159  Driver Version: 580.159  CUDA Version: 13.0 |", ["cuda13", "numba-cuda"]),
        ("| NVIDIA-SMI 535.104  Driver Version: 535.104  CUDA Version: 12.2 |", ["cuda12", "numba-cuda12"]),
        ("No devices were found", None),
    ],
)
def test_the_driver_decides_which_cuda_packages(said, extras, tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{said}'\n")
    program.chmod(0o755)
    monkeypatch.setattr(environment.shutil, "which", lambda name: str(program))
    assert environment.cuda_extras() == extras


def test_without_an_nvidia_driver_gpu_says_so(monkeypatch, capsys):
    monkeypatch.setattr(environment, "cuda_extras", lambda: None)
    monkeypatch.setattr(environment, "set_up", lambda extras: pytest.fail("something was installed"))
    assert runpy.run_path(str(ROOT / "ci" / "__main__.py"))["gpu"]([]) == 2
    assert "NVIDIA" in capsys.readouterr().out


def test_an_interpreter_without_pytest_is_told_apart_from_failing_tests(monkeypatch, capsys):
    monkeypatch.setattr(environment, "running", lambda: pytest.fail("something was run"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert runpy.run_path(str(ROOT / "ci" / "__main__.py"))["gpu"](["--here"]) == 2
    assert "pip install pytest" in capsys.readouterr().out
