"""The package as others get it: wheel and sdist build, hold what they must, and the wheel works away from here."""

import os
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel and the sdist, built by the standard front end."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, sdist


def test_the_wheel_holds_every_file_of_the_package(built):
    with zipfile.ZipFile(built[0]) as wheel:
        held = {name for name in wheel.namelist() if name.startswith("softgrad/")}
    listed = subprocess.run(["git", "ls-files", "kernels"], cwd=ROOT, capture_output=True, text=True, check=True)
    tracked = {line.removeprefix("kernels/") for line in listed.stdout.splitlines()}
    assert tracked <= held
    assert "softgrad/py.typed" in held


def test_the_sdist_holds_the_tests_and_the_licence(built):
    with tarfile.open(built[1]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"LICENSE", "README.md", "pyproject.toml", "tests/truth.py", "kernels/softgrad/__init__.py"} <= names


def test_the_wheel_works_where_it_is_installed(built, tmp_path):
    target = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*command, str(built[0])], check=True)
    code = (
        "import softgrad, importlib.metadata as m; print(softgrad.__file__); print(m.version('softgrad'));"
        "print(softgrad.__version__); print(softgrad.cross_entropy_grad([[1.75, 1.75]], [1]).tolist())"
    )
    command, environment = [sys.executable, "-W", "error", "-c", code], os.environ | {"PYTHONPATH": str(target)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    file, installed, version, grad = done.stdout.splitlines()
    assert Path(file).is_relative_to(target)
    assert installed == version
    assert grad == "[[0.5, -0.5]]"


def test_numpy_is_the_only_dependency_and_every_extra_is_there(built):
    with zipfile.ZipFile(built[0]) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = message_from_bytes(wheel.read(name))
    required = [requirement for requirement in metadata.get_all("Requires-Dist") if "extra ==" not in requirement]
    assert [requirement.partition(">")[0] for requirement in required] == ["numpy"]
    assert {"cpu", "cuda12", "cuda13", "numba-cuda", "bench", "dev"} <= set(metadata.get_all("Provides-Extra"))
