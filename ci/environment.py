"""The virtual environment `.venv` that the commands run in, made from pyproject.toml."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
# What .venv was set up with: the Python, the extras and the requirements behind them.
STAMP = VENV / "softgrad.json"


@dataclass(frozen=True)
class Interpreter:
    """A Python with the packages that a command needs."""

    executable: str
    # Where the package is found when it is not installed.
    search_path: str = ""

    def run(self, arguments: list[str]) -> int:
        """Run it in the project's root; its exit status."""
        variables = dict(os.environ)
        if self.search_path:
            variables["PYTHONPATH"] = os.pathsep.join(filter(None, [self.search_path, variables.get("PYTHONPATH")]))
        try:
            status = subprocess.run([self.executable, *arguments], cwd=ROOT, env=variables, check=False).returncode
        except KeyboardInterrupt:
            return 130
        return status if status >= 0 else 128 - status


def running() -> Interpreter:
    """This very interpreter and its packages, with softgrad from the working tree."""
    return Interpreter(sys.executable, str(ROOT / "kernels"))


def set_up(extras: list[str]) -> Interpreter:
    """`.venv` with softgrad (editable) and these extras: made or brought up to date, left alone where it already is."""
    python = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = _stamp()
    usable = python.exists() and stamp.get("python") == sys.version
    had = stamp["extras"] if usable else []
    wanted = sorted({*extras, *had})
    requirements = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    if usable and wanted == had and stamp["requirements"] == requirements:
        return Interpreter(str(python))
    started = time.monotonic()
    if not usable:
        print(f"Making {VENV.relative_to(ROOT)} with Python {sys.version.split()[0]}", flush=True)
        _make()
    print(f"Installing softgrad[{','.join(wanted)}] into .venv (the first time takes a minute or two)", flush=True)
    _install(python, wanted)
    STAMP.write_text(json.dumps({"python": sys.version, "requirements": requirements, "extras": wanted}))
    print(f"Set up in {time.monotonic() - started:.0f} s\n", flush=True)
    return Interpreter(str(python))


def cuda_extras() -> list[str] | None:
    """The extras for this machine's NVIDIA driver; None where there is no NVIDIA GPU."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    said = subprocess.run([program], capture_output=True, text=True, check=False).stdout
    version = re.search(r"CUDA Version:\s*(\d+)", said)
    if version is None:
        return None
    return ["cuda13", "numba-cuda"] if int(version[1]) >= 13 else ["cuda12", "numba-cuda12"]


def _stamp() -> dict:
    try:
        return json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}


def _make() -> None:
    try:
        venv.EnvBuilder(with_pip=True, clear=True, symlinks=os.name != "nt").create(VENV)
    except (subprocess.CalledProcessError, OSError, SystemExit) as error:
        sys.exit(
            f"Could not make .venv: {error}\nOn Debian and Ubuntu the module that makes one is a package of its own: "
            "apt install python3-venv"
        )


def _install(python: Path, extras: list[str]) -> None:
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-color"]
    command += ["--editable", f".[{','.join(extras)}]"]
    said: list[str] = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            said.append(line)
            _show(line)
    _show("")
    if pip.returncode != 0:
        sys.exit("".join(said[-25:]) + f"\npip could not install softgrad[{','.join(extras)}] (its last words above).")


def _show(line: str) -> None:
    """Show what pip is doing, on one line that is written over; nothing where that cannot be done."""
    if not sys.stdout.isatty():
        return
    step = re.match(r"\s*(Collecting|Downloading|Building|Installing|Preparing) ?(.{0,60})", line)
    if step or not line:
        sys.stdout.write(f"\r\033[K{step[0].strip() if step else ''}")
        sys.stdout.flush()
