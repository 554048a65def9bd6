"""Operators on vectors of one kind."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from numba import types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import lower_builtin

from softgrad.backends.numba_cpu.lanes.vectors import MASK, Vector


def _operator(op: Any, arity: int, emit: Callable[[Any, Vector, list[Any]], Any], *, compares: bool = False) -> None:
    """Teach numba `op` on vectors; `emit(builder, vector type, values)` writes the LLVM instruction."""

    @infer_global(op)
    class Typing(AbstractTemplate):
        key = op

        def generic(self, args: Any, kws: Any) -> Any:
            vectors = {a for a in args if isinstance(a, Vector)}
            if len(args) != arity or len(vectors) != 1:
                return None
            (vector,) = vectors
            if not all(a is vector or isinstance(a, types.Number) for a in args):
                return None
            return signature(MASK[vector.count] if compares else vector, *[vector] * arity)

    @lower_builtin(op, *[Vector] * arity)
    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return emit(builder, sig.args[0], list(args))


def _arithmetic(floating: str, integer: str) -> Callable[[Any, Vector, list[Any]], Any]:
    return lambda builder, vector, args: getattr(builder, floating if vector.kind == "f" else integer)(*args)


def _comparison(symbol: str) -> Callable[[Any, Vector, list[Any]], Any]:
    def emit(builder: Any, vector: Vector, args: list[Any]) -> Any:
        if vector.kind != "f":
            return builder.icmp_signed(symbol, *args)
        return builder.fcmp_unordered(symbol, *args) if symbol == "!=" else builder.fcmp_ordered(symbol, *args)

    return emit


_operator(operator.add, 2, _arithmetic("fadd", "add"))
_operator(operator.sub, 2, _arithmetic("fsub", "sub"))
_operator(operator.mul, 2, _arithmetic("fmul", "mul"))
_operator(operator.truediv, 2, lambda builder, _, args: builder.fdiv(*args))
_operator(operator.neg, 1, lambda builder, vector, args: _arithmetic("fneg", "neg")(builder, vector, args))
_operator(operator.and_, 2, lambda builder, _, args: builder.and_(*args))
_operator(operator.or_, 2, lambda builder, _, args: builder.or_(*args))
_operator(operator.invert, 1, lambda builder, _, args: builder.not_(*args))
_operator(operator.lshift, 2, lambda builder, _, args: builder.shl(*args))
_operator(operator.rshift, 2, lambda builder, _, args: builder.ashr(*args))
for _op, _symbol in {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}.items():
    _operator(getattr(operator, _op), 2, _comparison(_symbol), compares=True)
# In-place forms are the same functions: a vector has no identity.
_operator(operator.iadd, 2, _arithmetic("fadd", "add"))
_operator(operator.isub, 2, _arithmetic("fsub", "sub"))
_operator(operator.imul, 2, _arithmetic("fmul", "mul"))
_operator(operator.ior, 2, lambda builder, _, args: builder.or_(*args))
