"""Who takes part: one small file per library, each optional; whoever is absent is listed with the reason."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import softgrad
from bench.contenders.base import Contender
from bench.contenders.copy import LIMIT
from softgrad.registry import BACKENDS

__all__ = ["LIMIT", "PEERS", "Contender", "Peer", "gather"]


@dataclass(frozen=True, slots=True)
class Peer:
    """A row of the table: where a peer's adaptor is, and what it needs."""

    name: str
    device: str  # "cpu" or "gpu"
    adaptor: str  # "module:class" under bench.contenders
    needs: tuple[str, ...]  # importable packages
    install: str
    arguments: tuple[str, ...] = ()  # of "device", "threads"


PEERS = (
    Peer("torch", "cpu", "pytorch:Torch", ("torch",), "torch", ("device", "threads")),
    Peer("jax", "cpu", "jax_optax:Jax", ("jax", "optax"), "jax optax", ("device",)),
    Peer("sklearn", "cpu", "sklearn_loss:HalfMultinomial", ("sklearn",), "scikit-learn", ("threads",)),
    Peer("scipy", "cpu", "scipy_special:Special", ("scipy",), "scipy", ("device",)),
    Peer("naive", "cpu", "naive:Naive", (), "", ("device",)),
    Peer("torch", "gpu", "pytorch:Torch", ("torch",), "torch", ("device", "threads")),
    Peer("torch.compile", "gpu", "pytorch:TorchCompiled", ("torch", "triton"), "torch", ("device", "threads")),
    Peer("liger", "gpu", "pytorch:Liger", ("torch", "liger_kernel"), "liger-kernel", ("device", "threads")),
    Peer("quack", "gpu", "pytorch:Quack", ("torch", "quack"), "quack-kernels", ("device", "threads")),
    Peer("jax", "gpu", "jax_optax:Jax", ("jax", "optax"), "'jax[cuda13]' optax", ("device",)),
    Peer("cupyx", "gpu", "scipy_special:Special", ("cupy",), "cupy-cuda13x", ("device",)),
    Peer("naive", "gpu", "naive:Naive", ("cupy",), "cupy-cuda13x", ("device",)),
)


def gather(device: str, threads: int, peers: tuple[Peer, ...] = PEERS) -> tuple[list[Contender], dict[str, str]]:
    """The contenders on `device`, softgrad's backends first, and the absent ones with their reasons."""
    present: list[Contender] = []
    absent: dict[str, str] = {}
    for name, state in softgrad.available_backends().items():
        on_gpu = BACKENDS[name].device == "cuda"
        if state != "available":
            absent[f"softgrad {name}"] = state
        elif on_gpu == (device == "gpu"):
            present.append(_backend(name, on_gpu))
    given: dict[str, Any] = {"device": device, "threads": threads}
    for peer in peers:
        label = f"{peer.name} ({peer.device})"
        if peer.device != device:
            if peer.device == "gpu":
                absent[label] = "runs on an NVIDIA GPU, with `python3 ci gpu`"
            continue
        obstacle = _missing(peer)
        if obstacle is None:
            try:
                module, _, kind = peer.adaptor.partition(":")
                make: Callable[..., Contender] = getattr(importlib.import_module(f"bench.contenders.{module}"), kind)
                present.append(make(*(given[argument] for argument in peer.arguments)))
                continue
            except Exception as error:  # a broken installation can raise anything: it is reported, not hidden
                obstacle = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        absent[label] = obstacle
    return present, absent


def _missing(peer: Peer) -> str | None:
    for package in peer.needs:
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed: pip install {peer.install}"
    return None


def _backend(name: str, on_gpu: bool) -> Contender:
    from bench.contenders.softgrad_backends import Backend, CudaBackend

    return CudaBackend(name) if on_gpu else Backend(name)
