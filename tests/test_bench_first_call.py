"""What a first call waits for: how many programs a call compiles, and the table of how long that takes."""

from __future__ import annotations

import re

import pytest

import softgrad
from bench import first_call
from softgrad import dispatch


def test_a_call_is_few_programs() -> None:
    """One for the rows; a mean has one more for its divisor and, if it is of numbers, one for their sum."""
    for name, kernels in first_call.kernels_of(1000, "float32").items():
        functions = [kernel.function for kernel in kernels]
        assert len(functions) == len(set(functions)), name
        sums = {"divisor", "total"} & set(functions)
        assert len(functions) == 1 + len(sums), name
        if "hvp" in name:
            assert sums == {"divisor"}, name
        elif ("cross_entropy" in name and "none" not in name) or name.startswith("the same with"):
            assert sums == {"divisor", "total"}, name
        else:
            assert not sums, name


def test_the_stand_in_for_a_backend_is_gone_afterwards() -> None:
    for before in (None, object()):
        loaded = {} if before is None else {first_call.BACKEND: before}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dispatch, "_loaded", loaded)
            with first_call.noting():
                assert loaded[first_call.BACKEND] is not before
            assert loaded.get(first_call.BACKEND) is before
            assert (first_call.BACKEND in loaded) == (before is not None)


def test_the_same_kernels_serve_both_products_and_the_gradient_alone() -> None:
    z, v, t = ([[0.0] * 9] * 2), [[1.0] * 9] * 2, [1, 2]
    with first_call.noting() as runtime:
        softgrad.softmax_jvp(v, logits=z)
        softgrad.softmax_vjp(v, logits=z)
        softgrad.cross_entropy(z, t, reduction="none")
        softgrad.cross_entropy_grad(z, t, reduction="none")
        softgrad.cross_entropy_grad(z, t, reduction="sum", weight=v[0])
    assert len(runtime.noted) == 5
    assert len(set(runtime.noted)) == 2


def test_the_table_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    compiled = []

    def seconds(kernel: object, architecture: str) -> float:
        compiled.append((kernel, architecture))
        return 0.25

    monkeypatch.setattr(first_call, "seconds_to_compile", seconds)
    assert first_call.main(["--classes", "10", "--dtype", "float16", "--architecture", "sm_80"]) == 0
    rows = re.findall(r"^  (\S.*?) +(\d) +(\d\.\d\d)$", capsys.readouterr().out, re.MULTILINE)
    assert len(rows) == len(first_call.calls(10, "float16"))
    assert all(float(took) == 0.25 * int(programs) for _, programs, took in rows)
    assert {architecture for _, architecture in compiled} == {"sm_80"}
    assert len(compiled) == len(set(compiled)) + 1, "each once, and one to load the compiler"


def test_a_program_is_made() -> None:
    pytest.importorskip("cuda.core", reason="compiling CUDA kernels needs `pip install cuda-core cuda-bindings`")
    pytest.importorskip("cuda.bindings.nvrtc", reason="compiling CUDA kernels needs `pip install nvidia-cuda-nvrtc`")
    (kernel,) = first_call.kernels_of(3, "float32")["logsumexp"]
    assert first_call.seconds_to_compile(kernel, "sm_90") > 0.0
