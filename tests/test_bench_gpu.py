"""The benchmark of a GPU rehearsed on one that is not there: on a device, it must not fail for reasons of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import gpu, report
from bench.cases import DTYPES
from bench.contenders import PEERS
from bench.contenders.softgrad_backends import CudaBackend
from tests.emulator import build

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The result file of a whole run, and what it said."""
    for package in ("numba_cuda", "torch", "jax", "optax", "scipy"):
        pytest.importorskip(package, reason=f"needs {package}: pip install 'softgrad[bench,numba-cuda]'")
    try:
        build.compiler()
    except build.NoCompilerError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("results")
    # A worker of pytest-xdist would pass for one itself there, and pytest-benchmark times nothing in workers.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.fake_gpu_bench", str(folder)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.iterdir()
    return path, done.stdout


def test_everybody_takes_part(rehearsed: tuple[Path, str]) -> None:
    path, said = rehearsed
    assert path.name.endswith("-nvidia-h200.json"), "named for the device, and a whole run"
    assert "failed:" not in said
    content = json.loads(path.read_text(encoding="utf-8"))
    about = content["softgrad"]
    assert about["complete"]
    assert about["cuda"] == "driver 13000, runtime 13000"
    assert set(about["contenders"]) == {"cupy", "numba_cuda"} | {peer.name for peer in PEERS if peer.device == "gpu"}
    assert {entry["contender"] for entry in about["refused"]} == {"quack"}, "it takes rows of whole 16 bytes alone"
    measured = {(b["extra_info"]["kind"], b["extra_info"]["contender"]) for b in content["benchmarks"]}
    ours = {(kind, name) for kind in ("speed", "overhead", "jacobian") for name in ("cupy", "numba_cuda")}
    assert ours | {("speed", "copy"), ("speed", "jax"), ("jacobian", "naive")} <= measured
    for bench in content["benchmarks"]:
        info = bench["extra_info"]
        assert bench["stats"]["median"] > 0.0
        assert info["kind"] != "speed" or info["percent_of_copy"] > 0.0
        assert info["kind"] != "jacobian" or info["peak_bytes"] >= 0
    assert all(float(entry["worst_ulp"]) <= 4.0 for entry in about["accuracy"] if entry["ours"])


def test_the_report_of_it(rehearsed: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install 'softgrad[demo]'")
    folder, source = tmp_path / "results", rehearsed[0]
    folder.mkdir()
    for path in (source, *report.latest()):
        (folder / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    readme, results = tmp_path / "README.md", tmp_path / "RESULTS.md"
    readme.write_text(report.README.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(report, "README", readme)
    monkeypatch.setattr(report, "RESULTS", results)
    paths = report.latest(folder)
    assert [path.name == source.name for path in paths] == [False] * (len(paths) - 1) + [True], "CPUs first"
    written = report.write(paths)
    assert {path.name for path in written} >= {f"{source.stem}-speed.svg", f"{source.stem}-jacobian.svg"}
    for text in (readme.read_text(encoding="utf-8"), results.read_text(encoding="utf-8")):
        assert f"NVIDIA H200, {source.name[:10]}" in text
        assert "| B × C | MB | copy | cupy | numba_cuda | torch | torch.compile |" in text
    assert "There is no GPU result yet" not in readme.read_text(encoding="utf-8")
    assert "CUDA events on the default stream" in results.read_text(encoding="utf-8")


class Deaf:
    """A package whose device cannot be reached."""

    def __init__(self, *_: Any) -> None:
        raise OSError("libcuda.so.1: cannot open shared object file\nand more")


def test_without_a_device_both_reasons_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "CupyRuntime", Deaf)
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda package: None if package == "torch" else package)
    with pytest.raises(RuntimeError, match=r"can be used: cupy: OSError: libcuda\.so\.1.*; torch is not installed"):
        gpu.runtime()


def test_cupy_13_has_no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.fake_cuda import Machine
    from tests.fake_cuda.backends import libraries

    with libraries(Machine(), monkeypatch) as found:
        assert CudaBackend("cupy").dtypes == tuple(DTYPES)
        monkeypatch.setattr(found.cupy, "__version__", "13.6.0")
        assert "bfloat16" not in CudaBackend("cupy").dtypes
