"""What a contender is: an object with one method per operation, which prepares a call without arguments.

A method takes the operation's arrays, already the contender's own kind, by name (`logits`, `probs`, `tangent`,
`targets`, `out`), and returns a function that does the work and waits for nothing more than the library's users would.
An operation without a method is one that the library does not have.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import numpy as np

from bench.cases import DTYPES, Case
from bench.inputs import Inputs

Call = Callable[[], Any]
Shared = dict[tuple[str, str], Any]  # (library, input) -> array


class Contender:
    """One implementation on one device."""

    name: str
    library = "numpy"  # contenders of one library share its arrays
    ours = False  # softgrad's backends are held to its promises
    dtypes: tuple[str, ...] = tuple(DTYPES)
    lacks: tuple[str, ...] = ()  # inherited methods that do not count
    notes: ClassVar[dict[str, str]] = {}  # operation -> how it is done here, where that is not the obvious way
    wait: Callable[[Any], Any] | None = None  # on a GPU: what waits for results, where no event of ours sees them

    def active(self) -> AbstractContextManager[Any]:
        """What has to be in force while its calls run, set up outside the timed part."""
        return nullcontext()

    def array(self, x: np.ndarray) -> Any:
        """A NumPy array as the library's own, without a copy where it can."""
        return x

    def numpy(self, x: Any) -> np.ndarray:
        """A result as a NumPy array."""
        return np.asarray(x)

    def finish(self, case: Case, results: tuple[Any, ...]) -> tuple[np.ndarray, ...]:
        """The results of a call in the form the check compares: outside the timed part."""
        return tuple(self.numpy(result) for result in results)

    def obstacle(self, case: Case) -> str | None:
        """Why this contender does not take part in a case; None if it does."""
        if case.operation in self.lacks or not hasattr(self, case.operation):
            return f"has no {case.operation}"
        if case.dtype not in self.dtypes:
            return f"does not take {case.dtype}"
        return None

    def prepare(self, case: Case, inputs: Inputs, shared: Shared | None = None) -> Call:
        """The call to time, on one set of inputs; its arrays are kept in `shared` for others of the same library."""
        names = (*case.spec.inputs, "out")
        return getattr(self, case.operation)(**{name: self.given(name, inputs, shared) for name in names})

    def given(self, name: str, inputs: Inputs, shared: Shared | None) -> Any:
        """One of the inputs as the library's own array; `out` may be None."""
        if inputs[name] is None:
            return None
        if shared is None:
            return self.array(inputs[name])
        key = (self.library, name)
        if key not in shared:
            shared[key] = self.array(inputs[name])
        return shared[key]

    def results(self, case: Case, call: Call) -> tuple[np.ndarray, ...]:
        """Run `call` once, for the check."""
        with self.active():
            returned = call()
        return self.finish(case, returned if isinstance(returned, tuple) else (returned,))
