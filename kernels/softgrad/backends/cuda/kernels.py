"""The kernels by name: which source, which instance of its template, on which team."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from softgrad.backends.cuda.regimes import Regime, block
from softgrad.backends.cuda.scratch import MOST_CHUNKS
from softgrad.backends.cuda.sources import amalgamated

C_TYPES = {"float64": "double", "float32": "float", "float16": "float16", "bfloat16": "bfloat16"}
ITEMSIZE = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
SIZES = {C_TYPES[name]: size for name, size in ITEMSIZE.items()}


@dataclass(frozen=True, slots=True)
class Kernel:
    """One instance of a kernel template."""

    source: str  # file
    function: str
    arguments: tuple[str, ...]  # of the template, before the team
    regime: Regime
    takes: str  # the struct passed by value
    dtype: str = ""  # of the rows, where there are any

    @property
    def name(self) -> str:
        """Of the extern "C" function."""
        return "_".join(("softgrad", self.function, *self.arguments, self.regime.name)).lower()

    @property
    def instance(self) -> str:
        """The template's instance, in C++."""
        return self._instance(self.regime.team)

    def _instance(self, team: str) -> str:
        arguments = (*self.arguments, team)
        if self.function in ("softmax", "products", "cross_entropy"):
            arguments = (*arguments, str(self.regime.chunks))
        return f"softgrad::{self.function}<{', '.join(_qualified(a) for a in arguments)}>"

    @property
    def struct(self) -> str:
        """What the extern "C" function takes, in C++."""
        takes = f"softgrad::{self.takes}"
        return f"softgrad::InSegments<{takes}>" if self.regime.cut else takes

    @property
    def call(self) -> str:
        """The template's instance called with `arguments`, in C++."""
        if self.regime.kind == "short":
            return self._in_turns()
        if not self.regime.cut:
            return f"{self.instance}(arguments)"
        return f"{self.instance}(arguments.kernel, {_qualified(self.regime.team)}(arguments.segments))"

    def _in_turns(self) -> str:
        """Each of a thread's rows in turn.  Where rows follow each other, the shape is known but for their number."""

        def loop(team: str, of: str) -> str:
            turns = f"for ({_qualified(team)} team; team.turn < {self.regime.turns}; ++team.turn)"
            return f"\n#pragma unroll 1\n    {turns} {self._instance(team)}({of}, team);\n"

        known = f"{self.struct} known = arguments;\n    known.shape.inner = 1;\n"
        known += f"    known.shape.classes = {self.regime.width};"
        following = loop(self.regime.team, "known")
        apart = loop(self.regime.team.replace("true", "false"), "arguments")
        return f"if (arguments.follow()) {{\n    {known}{following}  }} else {{{apart}  }}"

    @property
    def shared_bytes(self) -> int:
        """Shared memory of a block: what its threads agree through and, of short rows, the block's (slabs.cuh)."""
        regime = self.regime
        if regime.kind not in ("short", "lanes") or regime.size >= 32 or not regime.chunks:
            return regime.shared_bytes
        row, *tangent = [SIZES[a] for a in self.arguments[:-1] if a in SIZES]
        width = regime.width if regime.kind == "short" else 16 // row
        elements = regime.threads * regime.turns * regime.chunks * width
        slabs = [elements * size // 8 * 9 + 16 for size in (row, row, *tangent)]
        # Rows of one turn take the same place, one array after the other.
        return sum(slabs) if regime.turns > 1 else max(slabs)

    def text(self) -> str:
        """The source of a module that holds this kernel alone."""
        return amalgamated(self.source) + self._entry()

    def _entry(self) -> str:
        regime = self.regime
        cluster = f"__cluster_dims__({regime.blocks}, 1, 1) " if regime.blocks > 1 else ""
        bounds = f"__launch_bounds__({regime.threads}, SOFTGRAD_RESIDENT({regime.resident}))"
        return (
            f'\nextern "C" __global__ void {cluster}{bounds} {self.name}(const {self.struct} arguments) {{\n'
            f"  {self.call};\n}}\n"
        )


_BUILT_IN = {"float", "double", "true", "false"}


def _qualified(argument: str) -> str:
    return argument if argument in _BUILT_IN or argument.lstrip("-").isdigit() else f"softgrad::{argument}"


def computing(dtype: str) -> str:
    """The C type that a dtype is computed in."""
    return "double" if dtype == "float64" else "float"


@cache
def softmax(mode: str, dtype: str, regime: Regime) -> Kernel:
    """`mode`: PROBABILITIES, LOG_PROBABILITIES or LOG_SUM_EXP."""
    return Kernel("softmax.cu", "softmax", (mode, C_TYPES[dtype], computing(dtype)), regime, "SoftmaxArgs", dtype)


@cache
def products(mode: str, is_logits: bool, dtype: str, tangent: str, regime: Regime) -> Kernel:
    """`mode`: SOFTMAX_PRODUCT, LOG_JVP or LOG_VJP."""
    logits = "true" if is_logits else "false"
    arguments = (mode, logits, C_TYPES[dtype], C_TYPES[tangent], computing(dtype))
    return Kernel("products.cu", "products", arguments, regime, "ProductArgs", dtype)


@cache
def cross_entropy(dtype: str, regime: Regime) -> Kernel:
    """Integer targets, weight, reductions; no other option."""
    return Kernel("cross_entropy.cu", "cross_entropy", (C_TYPES[dtype], computing(dtype)), regime, "LossArgs", dtype)


@cache
def cross_entropy_options(dtype: str, targets: str, real: str, regime: Regime) -> Kernel:
    """Any option; `targets` the dtype of probabilities (of the logits where there are none), `real` the C type."""
    arguments = (C_TYPES[dtype], C_TYPES[targets], real)
    return Kernel("cross_entropy_options.cu", "cross_entropy_options", arguments, regime, "LossArgs", dtype)


@cache
def derivatives(hessian: bool, dtype: str, targets: str, tangent: str, regime: Regime) -> Kernel:
    """Directional derivatives (Hessian products, if `hessian`) of any loss."""
    arguments = ("true" if hessian else "false", C_TYPES[dtype], C_TYPES[targets], C_TYPES[tangent])
    return Kernel("derivatives.cu", "derivatives", arguments, regime, "LossArgs", dtype)


# Sums over rows: 256 threads, and as many chunks as give a multiprocessor something to do, within fixed scratch.
TOTALS = block(256, 0, 4)


@cache
def total(real: str) -> Kernel:
    """Σ of one number per row."""
    return Kernel("totals.cu", "total", (real,), TOTALS, "TotalArgs")


@cache
def divisor(real: str) -> Kernel:
    """Σ weights, and the number, of the rows that count."""
    return Kernel("totals.cu", "divisor", (real,), TOTALS, "TotalArgs")


@cache
def check_targets() -> Kernel:
    """The first integer target that is neither in range nor ignored."""
    return Kernel("checks.cu", "check_targets", (), TOTALS, "CheckArgs")


@cache
def check_rows(dtype: str, regime: Regime) -> Kernel:
    """The first row that is no probability distribution."""
    return Kernel("checks.cu", "check_rows", (C_TYPES[dtype], computing(dtype)), regime, "CheckArgs", dtype)


CHUNK_ROWS = 4096


def chunks_of(rows: int) -> tuple[int, int]:
    """(chunks, rows in each) of a sum over rows: fixed by their number alone."""
    chunks = min(max(1, -(-rows // CHUNK_ROWS)), MOST_CHUNKS)
    return chunks, -(-rows // chunks)
