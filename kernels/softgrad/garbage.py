"""Start-up without garbage collection.

Imports and compilers make some hundred thousand objects that stay.  To look for garbage among them again and again
takes a third of the time of a first call.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Suspend garbage collection, where it is on, inside the ``with`` block."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            # What has been made meanwhile is filed with the old, as if it had been looked through, which would take
            # as long as a tenth of the start.  (Unless somebody keeps objects frozen, who would be thawed with it.)
            if not gc.get_freeze_count():
                gc.freeze()
                gc.unfreeze()
            gc.enable()
