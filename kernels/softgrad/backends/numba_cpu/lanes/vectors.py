"""The types of vectors, and what writes LLVM code for them."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typeconv.castgraph import Conversion
from numba.extending import lower_cast, models, register_model

I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
F32, F64 = ir.FloatType(), ir.DoubleType()
ALIGN = {F32: 4, F64: 8, I16: 2, I32: 4, I64: 8}


class Vector(types.Type):
    """`count` elements of an LLVM type; kind "f", "i" or "m"."""

    def __init__(self, name: str, kind: str, element: ir.Type, count: int) -> None:
        self.kind, self.count = kind, count
        self.bits = {"float": 32, "double": 64}.get(str(element)) or element.width
        super().__init__(name)

    @property
    def llvm(self) -> ir.VectorType:
        """Its LLVM type."""
        element = {"f32": F32, "f64": F64}.get(f"{self.kind}{self.bits}") or ir.IntType(self.bits)
        return ir.VectorType(element, self.count)

    def can_convert_from(self, typing_context: Any, other: Any) -> Any:
        """Numbers become vectors."""
        return Conversion.safe if isinstance(other, types.Number) and self.kind != "m" else None


f32, f64 = Vector("f32", "f", F32, 16), Vector("f64", "f", F64, 8)
i32, i64 = Vector("i32", "i", I32, 16), Vector("i64", "i", I64, 8)
m32, m64 = Vector("m32", "m", I1, 16), Vector("m64", "m", I1, 8)
MASK = {16: m32, 8: m64}
INTEGERS = {16: i32, 8: i64}


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Vector) -> None:
        super().__init__(manager, fe_type, fe_type.llvm)


def _splat(builder: Any, scalar: Any, vector: Vector) -> Any:
    one = builder.insert_element(ir.Constant(vector.llvm, ir.Undefined), scalar, I32(0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(I32, vector.count), [0] * vector.count))


@lower_cast(types.Number, Vector)
def _cast(context: Any, builder: Any, source: Any, target: Vector, value: Any) -> Any:
    scalar = {"f32": types.float32, "f64": types.float64, "i32": types.int32, "i64": types.int64}[target.name]
    return _splat(builder, context.cast(builder, value, source, scalar), target)


def llvm_call(builder: Any, name: str, result: Any, args: list[Any]) -> Any:
    """A call of an LLVM intrinsic."""
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, [a.type for a in args]), name)
    return builder.call(function, args)


def pointer_to(builder: Any, address: Any, element: Any) -> Any:
    """A pointer to what lies at an address."""
    return builder.inttoptr(address, element.as_pointer())


def first_lanes(builder: Any, n: Any, count: int) -> Any:
    """A mask of the first n lanes."""
    lanes = ir.VectorType(I32, count)
    one = builder.insert_element(ir.Constant(lanes, ir.Undefined), builder.trunc(n, I32), I32(0))
    limit = builder.shuffle_vector(one, one, ir.Constant(lanes, [0] * count))
    return builder.icmp_signed("<", ir.Constant(lanes, list(range(count))), limit)


def zeros(vector: ir.VectorType) -> Any:
    """A vector of zeros."""
    return ir.Constant(vector, None)
