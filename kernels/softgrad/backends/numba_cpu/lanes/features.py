"""What the processor that code is compiled for can do."""

from __future__ import annotations

from typing import Any

import numba
from llvmlite.binding import get_host_cpu_features


def has(feature: str) -> bool:
    """Whether it has a feature, by LLVM's name: as NUMBA_CPU_FEATURES says, else as this machine does."""
    config: Any = numba.config
    told = config.CPU_FEATURES
    if told is not None:
        return f"+{feature}" in told.split(",")
    return bool(get_host_cpu_features().get(feature))


# Whether `chosen` is an instruction or two.
CHOOSES = has("avx512f") or has("avx2")
