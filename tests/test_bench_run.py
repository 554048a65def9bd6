"""The benchmark as a whole: pytest-benchmark's file, what an interruption leaves, who is absent, bad calls."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from bench import __main__ as command
from bench.clock import CLOCK, sample_clock
from bench.contenders import Peer, gather

ROOT = Path(__file__).parent.parent


def fake_run(scenario: str, folder: Path, *options: str) -> tuple[str, dict]:
    """A run with fake contenders in a process of its own, and its result file."""
    # A worker of pytest-xdist would pass for one itself there, and pytest-benchmark times nothing in workers.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.fake_bench", scenario, str(folder), *options],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.iterdir()
    return f"{path.name}\n{done.stdout}", json.loads(path.read_text())


def test_a_run_leaves_a_pytest_benchmark_file(tmp_path):
    said, content = fake_run("right", tmp_path)
    assert "interrupted=False failures=0" in said
    assert {"machine_info", "commit_info", "datetime", "version", "benchmarks"} <= content.keys()
    assert len(content["benchmarks"]) == 3 * 3  # the copy and two contenders, three cases
    for bench in content["benchmarks"]:
        info, stats = bench["extra_info"], bench["stats"]
        assert bench["group"] == f"speed softmax-float32-{info['rows']}x{info['classes']}"
        assert stats["rounds"] == 9
        assert stats["min"] <= stats["q1"] <= stats["median"] <= stats["q3"] <= stats["max"]
        assert info["bytes"] == 2 * 4 * info["rows"] * info["classes"]
        assert info["gb_per_s"] == pytest.approx(info["bytes"] / stats["median"] / 1e9, rel=1e-3)
    by_name = {bench["name"]: bench for bench in content["benchmarks"]}
    copy, ours, peer = (by_name[f"test_speed[softmax-float32-64x10-{name}]"] for name in ("copy", "numba", "peer"))
    medians = [bench["stats"]["median"] for bench in (copy, ours, peer)]
    assert ours["extra_info"]["percent_of_copy"] == pytest.approx(100 * medians[0] / medians[1], rel=1e-3)
    assert ours["extra_info"]["times_faster_than"] == {"peer": pytest.approx(medians[2] / medians[1], rel=1e-3)}
    assert content["softgrad"]["complete"] is True
    assert content["softgrad"]["absent"] == {"absentee (cpu)": "absentee is not installed"}
    assert "node" not in content["machine_info"]  # the machine's name in its network


def test_a_run_on_a_gpu_is_timed_by_its_events(tmp_path):
    said, content = fake_run("gpu", tmp_path)
    assert "failures=0" in said
    assert content["softgrad"]["device_name"] == "A GPU"
    assert content["softgrad"]["cuda"] == "driver 13000"
    found = [bench["extra_info"] for bench in content["benchmarks"] if bench["extra_info"]["contender"] == "cupy"]
    assert [info["classes"] for info in found] == [1000, 50_257, 128_256]
    for info in found:
        assert info["percent_of_copy"] == pytest.approx(50.0)
        assert info["gb_per_s"] == pytest.approx(1.0)
        assert info["times_faster_than"] == {"torch": pytest.approx(1.0)}
        assert info["caches"] == "cold"


def test_a_wrong_contender_has_no_timing_in_the_file(tmp_path):
    said, content = fake_run("wrong", tmp_path)
    assert "failures=3" in said  # softgrad's own being wrong fails the run; a peer's does not
    assert {bench["extra_info"]["contender"] for bench in content["benchmarks"]} == {"copy"}
    refused = {entry["contender"]: entry["reason"] for entry in content["softgrad"]["refused"]}
    assert refused.keys() == {"numba", "peer", "raising"}
    assert "promised" in refused["numba"]


def test_an_interrupted_run_keeps_what_it_has(tmp_path):
    said, content = fake_run("interrupted", tmp_path)
    assert "interrupted=True" in said
    assert said.splitlines()[0].endswith("-interrupted.json")
    assert content["softgrad"]["complete"] is False
    assert {bench["extra_info"]["classes"] for bench in content["benchmarks"]} == {10, 100}
    assert len(content["benchmarks"]) == 2 * 3


def test_an_interrupted_run_can_be_resumed(tmp_path):
    _, before = fake_run("interrupted", tmp_path)
    said, content = fake_run("right", tmp_path, "--resume")
    assert "interrupted=False failures=0 taken over=3" in said  # the last case may have been cut short: once more
    assert not said.splitlines()[0].endswith("-interrupted.json")
    names = [bench["name"] for bench in content["benchmarks"]]
    assert len(names) == len(set(names)) == 3 * 3
    assert content["benchmarks"][:3] == before["benchmarks"][:3]
    assert content["softgrad"]["complete"] is True


def test_statistics_are_those_of_the_samples(benchmark_like):
    samples = [3.0, 1.0, 2.0, 10.0]
    CLOCK.replay(benchmark_like, samples)
    assert benchmark_like.rounds == pytest.approx(samples)
    assert statistics.median(benchmark_like.rounds) == pytest.approx(2.5)


@pytest.fixture
def benchmark_like():
    """Times `target` by `sample_clock` as benchmark.pedantic does."""

    class Fixture:
        rounds: list[float]

        def pedantic(self, target, setup, rounds):
            self.rounds = []
            for _ in range(rounds):
                setup()
                start = sample_clock()
                target()
                self.rounds.append(sample_clock() - start)

    return Fixture()


# --- who takes part -----------------------------------------------------------------------------------------------


def test_absent_peers_are_listed_with_reasons():
    peers = (
        Peer("missing", "cpu", "missing:Missing", ("no_such_package",), "no-such-package"),
        Peer("broken", "cpu", "base:NoSuchClass", (), ""),
        Peer("elsewhere", "gpu", "base:Contender", (), ""),
        Peer("present", "cpu", "base:Contender", (), ""),
    )
    present, absent = gather("cpu", 1, peers)
    assert absent["missing (cpu)"] == "no_such_package is not installed: pip install no-such-package"
    assert absent["broken (cpu)"].startswith("AttributeError: ")
    assert "python3 ci gpu" in absent["elsewhere (gpu)"]
    assert "present (cpu)" not in absent
    assert "numpy" in [contender.name for contender in present if contender.ours]


# --- bad calls -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--op", "sofmax"], "invalid choice: 'sofmax' (choose from"),
        (["--dtype", "int8"], "invalid choice: 'int8'"),
        (["--backend", "tpu"], "invalid choice: 'tpu'"),
        (["--threads", "0"], "--threads must be from 1 to"),
        (["--quik"], "unrecognized arguments: --quik"),
    ],
)
def test_a_bad_call_says_what_is_wrong(argv, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(argv)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--report"], "there is no whole run to report on yet"),
        (["--compare"], "there is no result yet to compare"),
    ],
)
def test_without_results_there_is_nothing_to_show(argv, message, tmp_path, capsys):
    assert command.main([*argv, "--results", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_a_file_of_another_kind_is_refused(tmp_path, capsys):
    (tmp_path / "2026-01-01-machine.json").write_text('{"benchmarks": []}')
    assert command.main(["--report", "--results", str(tmp_path)]) == 2
    assert "is not a result file of this benchmark" in capsys.readouterr().err
