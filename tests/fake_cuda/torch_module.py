"""What stands for the module `torch`, version 2.13, on the machine's devices."""

from __future__ import annotations

import types
from typing import Any

import numpy as np

from tests.cases import DTYPES
from tests.fake_cuda.machine import LEGACY, Block, Capsule, Machine, address_of, array_at, placed


def module(machine: Machine) -> types.ModuleType:
    """The module."""
    torch: Any = types.ModuleType("torch")
    thread = machine.thread
    streams: dict[int, int] = {}

    class dtype:  # noqa: N801
        def __init__(self, numpy: np.dtype[Any]) -> None:
            self.numpy, self.itemsize = numpy, numpy.itemsize

    names = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    numpy_of = {name: np.dtype(name) for name in names} | DTYPES
    dtypes = {name: dtype(of) for name, of in numpy_of.items()}

    class Tensor:
        """Strides are in elements, `shape` is a torch.Size."""

        layout = "strided"
        is_cuda = True

        def __init__(self, host: np.ndarray, block: Block, *, requires_grad: bool = False) -> None:
            self._host, self._block, self.requires_grad = host, block, requires_grad
            self.negated = self.conjugated = False

        shape = property(lambda self: Size(self._host.shape))
        dtype = property(lambda self: dtypes[self._host.dtype.name])
        device = property(lambda self: types.SimpleNamespace(type="cuda", index=self._block.device))

        def data_ptr(self) -> int:
            return address_of(self._host)

        def stride(self) -> tuple[int, ...]:
            return tuple(step // self._host.itemsize for step in self._host.strides)

        def is_conj(self) -> bool:
            return self.conjugated

        def is_neg(self) -> bool:
            return self.negated

        def untyped_storage(self) -> Any:
            block = self._block
            return types.SimpleNamespace(block=block, data_ptr=lambda: block.pointer)

        def set_(self, storage: Any, offset: int, size: Any, stride: Any) -> Tensor:
            kind = self._host.dtype
            steps = [step * kind.itemsize for step in stride]
            self._block = storage.block
            self._host = array_at(storage.block.pointer + offset * kind.itemsize, size, steps, kind, storage.block)
            return self

        def detach(self) -> Tensor:
            return Tensor(self._host, self._block)

        def __dlpack_device__(self) -> tuple[int, int]:
            return (2, self._block.device)

        def __dlpack__(
            self, *, stream: Any = -1, max_version: Any = None, dl_device: Any = None, copy: Any = None
        ) -> Capsule:
            if self.requires_grad:
                raise BufferError("Can't export tensors that require gradient, use tensor.detach()")
            if self.conjugated:
                raise BufferError("Can't export tensors with the conjugate bit set")
            if thread.device != self._block.device:
                raise BufferError("Can't export tensors on a different CUDA device index.")
            if stream == 2:
                raise BufferError("per-thread default stream is not supported.")
            assert stream == -1, "torch would make one stream wait for another"
            return Capsule(self.data_ptr(), self._host, self._block.device, self)

    class Parameter(Tensor):
        pass

    class Size(tuple):
        pass

    Tensor.__module__, Parameter.__module__ = "torch", "torch.nn.parameter"

    def tensor(array: Any, *, device: int = 0, kind: Any = Tensor) -> Any:
        """A tensor with these values and these strides."""
        block, host = placed(machine, np.asarray(array), device)
        return kind(host, block)

    def empty(*shape: Any, dtype: Any, device: Any) -> Any:
        shape = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple) else shape
        number = device.index if hasattr(device, "index") and not isinstance(device, str) else int(device[5:])
        return tensor(np.full(shape, 7, dtype.numpy), device=number)

    def from_dlpack(array: Any) -> Any:
        kind, number = array.__dlpack_device__()
        found = array.__dlpack__(stream=streams.get(number, LEGACY) or 1, max_version=(1, 0)).consume()
        assert (kind, found.device) == (2, number)
        owner = types.SimpleNamespace(pointer=found.pointer, device=number, owner=found)
        return Tensor(found.host, owner)  # type: ignore[arg-type]

    def current_stream(device: Any) -> Any:
        if getattr(device, "type", "cuda") != "cuda":
            raise ValueError(f"Expected a cuda device, but got: {device}")
        return types.SimpleNamespace(cuda_stream=streams.get(device.index, LEGACY))

    for name, of in dtypes.items():
        setattr(torch, name, of)
    torch.Tensor, torch.nn = Tensor, types.SimpleNamespace(Parameter=Parameter)
    torch.strided, torch.empty, torch.from_dlpack, torch.tensor = "strided", empty, from_dlpack, tensor
    torch.cuda = types.SimpleNamespace(current_stream=current_stream, streams=streams)
    return torch
