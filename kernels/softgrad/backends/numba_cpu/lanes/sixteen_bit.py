"""16-bit formats, widened and rounded in registers.

By integer arithmetic, which every machine has, except where the machine converts float16 itself.
"""

from __future__ import annotations

import platform
from typing import Any

from llvmlite import ir

from softgrad.backends.numba_cpu.lanes.features import has
from softgrad.backends.numba_cpu.lanes.vectors import F32, I16, I32

_CONVERTS_HALF = platform.machine() in ("arm64", "aarch64") or has("f16c")


def _whole(count: int, number: int) -> Any:
    return ir.Constant(ir.VectorType(I32, count), [number] * count)


def widen_bfloat(builder: Any, value: Any) -> Any:
    """bfloat16 as float32."""
    n = value.type.count
    word = builder.shl(builder.zext(value, ir.VectorType(I32, n)), _whole(n, 16))
    return builder.bitcast(word, ir.VectorType(F32, n))


def round_bfloat(builder: Any, value: Any) -> Any:
    """float32 as bfloat16."""
    n = value.type.count
    word = builder.bitcast(value, ir.VectorType(I32, n))
    odd = builder.and_(builder.lshr(word, _whole(n, 16)), _whole(n, 1))
    rounded = builder.lshr(builder.add(word, builder.add(odd, _whole(n, 0x7FFF))), _whole(n, 16))
    rounded = builder.select(builder.fcmp_unordered("uno", value, value), _whole(n, 0x7FC0), rounded)
    return builder.trunc(rounded, ir.VectorType(I16, n))


def widen_half(builder: Any, value: Any) -> Any:
    """float16 as float32."""
    n = value.type.count
    floats = ir.VectorType(F32, n)
    if _CONVERTS_HALF:
        return builder.fpext(builder.bitcast(value, ir.VectorType(ir.HalfType(), n)), floats)
    word = builder.zext(value, ir.VectorType(I32, n))
    sign = builder.shl(builder.and_(word, _whole(n, 0x8000)), _whole(n, 16))
    magnitude = builder.shl(builder.and_(word, _whole(n, 0x7FFF)), _whole(n, 13))
    # The exponent's bias differs by 112; a product puts subnormal numbers right too.
    scaled = builder.fmul(builder.bitcast(magnitude, floats), ir.Constant(floats, [2.0**112] * n))
    finite = builder.bitcast(scaled, ir.VectorType(I32, n))
    special = builder.or_(magnitude, _whole(n, 0x7F800000))
    is_special = builder.icmp_unsigned(">=", magnitude, _whole(n, 0x7C00 << 13))
    return builder.bitcast(builder.or_(builder.select(is_special, special, finite), sign), floats)


def round_half(builder: Any, value: Any) -> Any:
    """float32 as float16."""
    n = value.type.count
    shorts = ir.VectorType(I16, n)
    if _CONVERTS_HALF:
        return builder.bitcast(builder.fptrunc(value, ir.VectorType(ir.HalfType(), n)), shorts)
    floats, words = ir.VectorType(F32, n), ir.VectorType(I32, n)
    word = builder.bitcast(value, words)
    sign = builder.and_(builder.lshr(word, _whole(n, 16)), _whole(n, 0x8000))
    magnitude = builder.and_(word, _whole(n, 0x7FFFFFFF))
    odd = builder.and_(builder.lshr(magnitude, _whole(n, 13)), _whole(n, 1))
    normal = builder.lshr(builder.add(magnitude, builder.add(odd, _whole(n, 0xFFF))), _whole(n, 13))
    normal = builder.sub(normal, _whole(n, 112 << 10))
    # Added to ½, whose last bit is the smallest float16, a number below the normal ones is rounded as it should be.
    half = ir.Constant(floats, [0.5] * n)
    small = builder.bitcast(builder.fadd(builder.bitcast(magnitude, floats), half), words)
    small = builder.sub(small, builder.bitcast(half, words))
    rounded = builder.select(builder.icmp_signed("<", magnitude, _whole(n, 113 << 23)), small, normal)
    overflows = builder.icmp_signed(">=", magnitude, _whole(n, 0x477FF000))
    rounded = builder.select(overflows, _whole(n, 0x7C00), rounded)
    rounded = builder.select(builder.icmp_signed(">", magnitude, _whole(n, 0x7F800000)), _whole(n, 0x7E00), rounded)
    return builder.trunc(builder.or_(rounded, sign), shorts)


def same(builder: Any, value: Any) -> Any:
    """float32 as it is."""
    return value
