"""One run: its settings, the contenders present and absent, and everything it finds out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bench import cases, inputs, jacobian, machine
from bench.cases import Case
from bench.contenders import LIMIT, Contender, gather
from bench.contenders.copy import DeviceCopy, HostCopy
from bench.field import Outcome, raised, run_field
from bench.operations import OPERATIONS
from bench.race import HostStopwatch

SECTIONS = ("speed", "overhead", "jacobian", "accuracy")
ACCURACY_QUICK = ("softmax", "log_softmax", "softmax_vjp", "cross_entropy_value_and_grad")
OVERHEAD_CALLS = {"cpu": 200, "gpu": 50}


@dataclass(frozen=True, slots=True)
class Settings:
    """What was asked for; empty filters mean everything."""

    device: str = "cpu"
    threads: int = 1
    quick: bool = False
    operations: tuple[str, ...] = ()
    backends: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()

    @property
    def filtered(self) -> bool:
        """Whether this is less than a whole run."""
        return bool(self.operations or self.backends or self.dtypes or self.sections)

    def wants_section(self, section: str) -> bool:
        """Whether a section passes the filters."""
        return section in (self.sections or SECTIONS)

    @property
    def rounds(self) -> int:
        """Samples of each contender, time permitting."""
        return 9 if self.quick else 21

    @property
    def seconds(self) -> float:
        """Time for the samples of one case."""
        return 2.5 if self.quick else 6.0


@dataclass
class Run:
    """A run in progress; what the suites find goes into `refused`, `accuracy` and `stopped`."""

    settings: Settings
    contenders: list[Contender]
    absent: dict[str, str]
    cuda: Any = None  # the GPU runtime, on a GPU
    refused: list[dict[str, Any]] = field(default_factory=list)
    accuracy: list[dict[str, Any]] = field(default_factory=list)
    stopped: dict[str, str] = field(default_factory=dict)  # who stopped growing with C, and why
    load_at_start: float | None = field(default_factory=machine.load)
    taken_over: list[dict[str, Any]] = field(default_factory=list)  # benchmarks of the run that this one goes on from
    _done: set[str] = field(default_factory=set)
    _raced: tuple[str, dict[str, Outcome]] | None = None  # a case by kind and name, and its outcomes
    _stopwatches: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def start(cls, settings: Settings) -> Run:
        """Look who is there.

        Raises
        ------
        RuntimeError
            If a GPU is asked for and none can be used, or a backend asked for is absent: with the reason.
        """
        cuda = None
        if settings.device == "gpu":
            from bench.gpu import runtime

            cuda = runtime()
        contenders, absent = gather(settings.device, settings.threads)
        names = [contender.name for contender in contenders]
        for backend in settings.backends:
            if backend not in names:
                reason = absent.get(f"softgrad {backend}", f"it does not run on the {settings.device}")
                raise RuntimeError(f"backend {backend!r} cannot be measured here: {reason}")
        if settings.backends:
            contenders = [c for c in contenders if not c.ours or c.name in settings.backends]
        return cls(settings, contenders, absent, cuda)

    # --- what there is to do -------------------------------------------------------------------------------------

    def go_on_from(self, earlier: dict[str, Any]) -> None:
        """Take over what an interrupted run found, but for the last case of each part: it may be unfinished."""
        timed = list(dict.fromkeys(bench["group"] for bench in earlier["benchmarks"]))
        judged = list(dict.fromkeys(f"accuracy {e['operation']} {e['dtype']}" for e in earlier["softgrad"]["accuracy"]))
        self._done = {*timed[:-1], *judged[:-1]}
        about = earlier["softgrad"]
        self.taken_over = [bench for bench in earlier["benchmarks"] if bench["group"] in self._done]
        self.refused = [entry for entry in about["refused"] if entry["case"] in self._done]
        self.accuracy = [e for e in about["accuracy"] if f"accuracy {e['operation']} {e['dtype']}" in self._done]
        self.stopped = about["stopped"]

    def _left(self, kind: str, listed: list[Case]) -> list[Case]:
        return [case for case in listed if f"{kind} {case.name}" not in self._done]

    def sections_to_do(self) -> list[str]:
        """The sections that have a case."""
        return [section for section in SECTIONS if getattr(self, f"{section}_cases")()]

    def speed_cases(self) -> list[Case]:
        """The cases of the speed suite."""
        if not self.settings.wants_section("speed"):
            return []
        if self.cuda is None:
            return self._left("speed", cases.cpu_cases(**self._chosen()))
        # Two sets of inputs and results for each library, the copy's buffers and the flush have to fit.
        # A power of two, so that a little more or less memory changes no case.
        room = 1 << (self.cuda.free_bytes() // 48).bit_length() - 1
        return self._left("speed", cases.gpu_cases(**self._chosen(), logits_bytes=min(cases.GPU_BYTES, room)))

    def overhead_cases(self) -> list[Case]:
        """The cases of the overhead suite."""
        listed = cases.overhead_cases(**self._chosen()) if self.settings.wants_section("overhead") else []
        return self._left("overhead", listed)

    def jacobian_cases(self) -> list[Case]:
        """The gradient at growing C, for the comparison with the full Jacobian."""
        chosen = self.settings
        asked = jacobian.OPERATION in (chosen.operations or (jacobian.OPERATION,))
        if not (chosen.wants_section("jacobian") and asked and "float32" in (chosen.dtypes or ("float32",))):
            return []
        classes = jacobian.CLASSES_QUICK if chosen.quick else jacobian.CLASSES
        return self._left("jacobian", [jacobian.case_of(c) for c in classes])

    def accuracy_cases(self) -> list[tuple[str, str]]:
        """(operation, dtype) of the accuracy suite."""
        chosen = self.settings
        if not chosen.wants_section("accuracy"):
            return []
        return [
            (operation, dtype)
            for dtype in chosen.dtypes or (("float32",) if chosen.quick else ("float32", "float64"))
            for operation in chosen.operations or (ACCURACY_QUICK if chosen.quick else tuple(OPERATIONS))
            if f"accuracy {operation} {dtype}" not in self._done
        ]

    def _chosen(self) -> dict[str, Any]:
        chosen = self.settings
        return {"quick": chosen.quick, "operations": chosen.operations, "dtypes": chosen.dtypes}

    def entrants(self, case: Case) -> list[Contender]:
        """The contenders that can take part in a case."""
        return [contender for contender in self.contenders if contender.obstacle(case) is None]

    # --- races: one at a time is kept, that of the case whose contenders are being reported -------------------------

    def race(self, case: Case) -> dict[str, Outcome]:
        """The outcomes of a large case: cold caches, a copy of as many bytes beside it."""
        return self._kept("speed", case, self._race)

    def overhead(self, case: Case) -> dict[str, Outcome]:
        """The outcomes of a small case: warm caches, many calls a sample."""
        return self._kept("overhead", case, self._overhead)

    def against_the_jacobian(self, case: Case) -> dict[str, Outcome]:
        """softgrad's backends and the full Jacobian, at one C."""
        return self._kept("jacobian", case, self._against_the_jacobian)

    def _kept(self, kind: str, case: Case, race: Callable[[Case], dict[str, Outcome]]) -> dict[str, Outcome]:
        """A case's outcomes, raced when its first contender asks."""
        name = f"{kind} {case.name}"
        if self._raced is None or self._raced[0] != name:
            self._raced = None  # the last case's memory is free before this one's is taken
            outcomes = race(case)
            self._raced = (name, outcomes)
            self.note_refusals(name, outcomes)
        return self._raced[1]

    def _race(self, case: Case) -> dict[str, Outcome]:
        if self.cuda is not None:
            self.cuda.release()
        on_cpu = self.settings.device == "cpu"
        sets = inputs.sets_to_rotate(case) if on_cpu else 2
        caches = inputs.cache_state(case, sets) if on_cpu else "cold"
        limit = HostCopy(self.settings.threads) if on_cpu else DeviceCopy(self.cuda)
        return run_field(
            case, [limit, *self.entrants(case)], self.stopwatch("device"),
            rounds=self.settings.rounds, seconds=self.settings.seconds, sets=sets, caches=caches,
        )  # fmt: skip

    def _overhead(self, case: Case) -> dict[str, Outcome]:
        return run_field(
            case, self.entrants(case), self.stopwatch("host"), rounds=self.settings.rounds, seconds=5.0,
            sets=1, caches="warm", repeat=OVERHEAD_CALLS[self.settings.device],
        )  # fmt: skip

    def _against_the_jacobian(self, case: Case) -> dict[str, Outcome]:
        return run_field(
            case, self.jacobian_entrants(case), self.stopwatch("device"),
            rounds=self.settings.rounds, seconds=self.settings.seconds, sets=2, caches="warm",
        )  # fmt: skip

    def jacobian_entrants(self, case: Case) -> list[Contender]:
        """softgrad's backends, and the full Jacobian as long as it fits."""
        obstacle = jacobian.does_not_fit(case.classes, self.memory(), quick=self.settings.quick)
        if obstacle is not None:
            self.stopped.setdefault(jacobian.WAY, obstacle)
        return [c for c in self.contenders if c.ours or (c.name == jacobian.WAY and obstacle is None)]

    def memory(self) -> int:
        """Free memory of the device."""
        return machine.available_memory() if self.cuda is None else self.cuda.free_bytes()

    def peak(self, case: Case, contender: Contender) -> int | None:
        """Peak memory of one call, its results included; None where the device's allocator cannot be asked."""
        call = contender.prepare(case, inputs.draw(case, 1) | {"out": None})
        with contender.active():
            return jacobian.host_peak(call) if self.cuda is None else self.cuda.peak(call)

    def stopwatch(self, what: str) -> Any:
        """The clock for a "device"'s work or for the "host"'s cost."""
        if self.settings.device == "cpu":
            return HostStopwatch()
        if what not in self._stopwatches:
            from bench.gpu import EventStopwatch, HostCostStopwatch

            self._stopwatches[what] = (EventStopwatch if what == "device" else HostCostStopwatch)(self.cuda)
        return self._stopwatches[what]

    def note_refusals(self, case: str, outcomes: dict[str, Outcome]) -> None:
        """Keep who was refused a timing, and why."""
        self.refused += [
            {"case": case, "contender": name, "ours": outcome.contender.ours, "reason": outcome.refusal}
            for name, outcome in outcomes.items()
            if outcome.refusal is not None
        ]

    def refuse(self, case: str, contender: Contender, error: Exception) -> None:
        """Keep what a contender raised, once for each case."""
        entry = {"case": case, "contender": contender.name, "ours": contender.ours, "reason": raised(error)}
        if entry not in self.refused:
            self.refused.append(entry)

    def extra(self, kind: str, case: Case, outcomes: dict[str, Outcome], name: str) -> dict[str, Any]:
        """What the result file says of one contender in one case, besides pytest-benchmark's statistics."""
        outcome = outcomes[name]
        own, limit = outcome.median, outcomes.get(LIMIT)
        info: dict[str, Any] = {
            "kind": kind, "operation": case.operation, "dtype": case.dtype, "rows": case.rows, "classes": case.classes,
            "contender": name, "ours": outcome.contender.ours, "bytes": case.bytes, "caches": outcome.caches,
        }  # fmt: skip
        if kind == "speed":
            info["gb_per_s"] = case.bytes / own / 1e9
            if limit is not None:
                info["percent_of_copy"] = 100.0 * limit.median / own
        if outcome.verdict is not None:
            info["worst_ulp"] = outcome.verdict.worst_ulp
        if outcome.contender.ours:
            info["times_faster_than"] = {
                other: rival.median / own
                for other, rival in outcomes.items()
                if rival.refusal is None and other not in (name, LIMIT)
            }
        note = outcome.contender.notes.get(case.operation)
        return info | ({"note": note} if note else {})
