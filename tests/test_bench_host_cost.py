"""The benchmark of what a call on a GPU costs the host, over a driver that does nothing."""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace
from typing import Any

import pytest

import softgrad
from bench import host_cost

NEEDS = {"cupy": ("cupy", "cuda13"), "numba_cuda": ("numba_cuda", "numba-cuda")}


@pytest.fixture(params=host_cost.PLACES)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A GPU backend whose package is installed, with or without a device; few calls are timed."""
    package, extra = NEEDS[request.param]
    pytest.importorskip(package, reason=f"needs {package}, though no GPU: pip install 'softgrad[{extra}]'")
    monkeypatch.setattr(host_cost, "BURST", 3)
    monkeypatch.setattr(host_cost, "BURSTS", 2)
    return str(request.param)


def test_the_table_is_shown(backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert host_cost.main([backend]) == 0
    said = capsys.readouterr().out
    assert re.search(rf"^{backend}: µs of a call .* whole +above +below$", said, re.MULTILINE)
    rows = re.findall(r"^  (\w+(?:, \w+)?) +(\d+\.\d) +(\d+\.\d) +(-?\d+\.\d)$", said, re.MULTILINE)
    assert len(rows) == 7
    for _, whole, above, _ in rows:
        assert 0.0 < float(above) < 1e5
        assert 0.0 < float(whole) < 1e5


def test_a_launch_counts_as_below(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of this test moves only at launches, one microsecond each: none of it is the public layers'."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(host_cost, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    place = host_cost.PLACES[backend]

    def ticking() -> Any:
        return Ticking(place(), clock)

    monkeypatch.setitem(host_cost.PLACES, backend, ticking)
    sums = {  # a launch for each, too
        "cross_entropy_value_and_grad, sum": 2.0,
        "cross_entropy_value_and_grad, mean": 3.0,
        "cross_entropy_hvp, mean": 2.0,
    }
    for call, whole, above in host_cost.table(backend):
        assert above == 0.0
        assert whole == pytest.approx(sums.get(call, 1.0))


class Ticking:
    """One of `host_cost.PLACES`, changed so that every launch moves a clock."""

    def __init__(self, place: Any, clock: SimpleNamespace) -> None:
        self._place, self._clock = place, clock

    def __enter__(self) -> Any:
        module, put, settle = self._place.__enter__()
        runtime = module.softmax.__self__.runtime
        launch = runtime.launch

        def counted(*arguments: Any) -> None:
            self._clock.now += 1e-6
            launch(*arguments)

        runtime.launch = counted
        return module, put, settle

    def __exit__(self, *error: object) -> Any:
        return self._place.__exit__(*error)


def test_nothing_of_it_stays(backend: str) -> None:
    before = softgrad.available_backends()[backend]
    with host_cost.PLACES[backend]():
        assert host_cost.MODULES[backend] in sys.modules
    assert softgrad.available_backends()[backend] == before


def test_a_bad_call_says_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        host_cost.main(["tpu"])
    assert stopped.value.code == 2
    assert "there is no backend 'tpu' on a GPU" in capsys.readouterr().err


def test_a_backend_that_is_not_installed_is_said_to_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert host_cost.main(["cupy"]) == 0
    assert "cupy: import of cupy halted" in capsys.readouterr().out
