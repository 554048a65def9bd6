"""The cases: which operation, dtype and shape are timed, on which device, and why those."""

from __future__ import annotations

from dataclasses import dataclass

from bench.operations import OPERATIONS, Operation
from tests.cases import MODEL_CLASSES

DTYPES = {"float32": 4, "float64": 8, "float16": 2, "bfloat16": 2}  # and their bytes; the main one first
GPU_BYTES = 512 << 20  # of logits: far more than any L2 holds


@dataclass(frozen=True, slots=True)
class Case:
    """One operation on (rows, classes) logits of a dtype."""

    operation: str
    dtype: str
    rows: int
    classes: int

    @property
    def name(self) -> str:
        """Unique, and the name under which the result file keeps it."""
        return f"{self.operation}-{self.dtype}-{self.rows}x{self.classes}"

    @property
    def spec(self) -> Operation:
        """The operation's inputs and byte model."""
        return OPERATIONS[self.operation]

    @property
    def bytes(self) -> int:
        """Bytes moved by the byte model."""
        return self.spec.bytes_moved(self.rows, self.classes, DTYPES[self.dtype])

    @property
    def shape(self) -> tuple[int, int]:
        """(B, C)."""
        return (self.rows, self.classes)


DIGITS, IMAGENET, LLAMA_2, GPT_2, LLAMA_3, GEMMA = MODEL_CLASSES.values()

# (rows, classes) on a CPU: the class counts of real models; few classes, where a row is shorter than a kernel's
# start-up; 32, where a row is a few vectors; 257, a multiple of no vector; and at the end batches beyond every cache.
CPU_SHAPES = (
    (1_000_000, 2), (100_000, DIGITS), (60_000, 32), (30_000, 100), (7_001, 257), (3_000, IMAGENET), (128, LLAMA_2),
    (100, GPT_2), (32, LLAMA_3), (8, GEMMA), (30_000, IMAGENET), (1000, GPT_2),
)  # fmt: skip
CPU_FEW = ((100_000, DIGITS), (3_000, IMAGENET), (100, GPT_2))  # for --quick, other dtypes, lesser operations
GPU_CLASSES = (2, DIGITS, 100, 128, IMAGENET, 4096, LLAMA_2, GPT_2, LLAMA_3, GEMMA)
GPU_FEW = (IMAGENET, GPT_2, LLAMA_3)

# What a run measures unless it is told otherwise; the others at a few shapes only.
MAIN = ("softmax", "softmax_vjp", "cross_entropy_value_and_grad")
GPU_MAIN = ("softmax", "softmax_vjp_from_probs", "cross_entropy_value_and_grad")
GPU_DTYPES = ("float32", "bfloat16", "float16")

# A single small call, where only the overhead of the call counts.
OVERHEAD_SHAPES = ((1, 10), (64, 10))

Names = tuple[str, ...]


def cpu_cases(*, quick: bool, operations: Names = (), dtypes: Names = ()) -> list[Case]:
    """Cases on the CPU: of the operations and dtypes named, by default of all, or with `quick` of the main ones."""
    return [
        Case(operation, dtype, *shape)
        for dtype in dtypes or (("float32",) if quick else tuple(DTYPES))
        for operation in operations or (MAIN if quick or dtype != "float32" else by_importance(MAIN))
        for shape in (CPU_SHAPES if not quick and operation in MAIN and dtype == "float32" else CPU_FEW)
    ]


def gpu_cases(*, quick: bool, operations: Names = (), dtypes: Names = (), logits_bytes: int = GPU_BYTES) -> list[Case]:
    """Cases on the GPU, chosen likewise: as many rows as make `logits_bytes` of logits."""
    return [
        Case(operation, dtype, max(1, round(logits_bytes / (classes * DTYPES[dtype]))), classes)
        for dtype in dtypes or (("float32",) if quick else GPU_DTYPES)
        for operation in operations or (GPU_MAIN if quick or dtype != "float32" else by_importance(GPU_MAIN))
        for classes in (GPU_CLASSES if not quick and operation in GPU_MAIN and dtype != "float16" else GPU_FEW)
    ]


def overhead_cases(*, quick: bool, operations: Names = (), dtypes: Names = ()) -> list[Case]:
    """Calls so small that only their overhead counts."""
    return [
        Case(operation, dtype, *shape)
        for dtype in dtypes or ("float32",)
        for operation in operations or MAIN
        for shape in (OVERHEAD_SHAPES[:1] if quick else OVERHEAD_SHAPES)
    ]


def by_importance(first: Names) -> Names:
    """The names of all operations, `first` ahead of the others."""
    return (*first, *(name for name in OPERATIONS if name not in first))
