"""A module in place of a GPU backend: what is measured without a GPU goes through softgrad's own public functions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import softgrad
from softgrad import dispatch


@contextmanager
def standing_in(name: str, module: Any) -> Iterator[None]:
    """Every call inside the ``with`` block goes to `module`, as the backend `name`."""
    before = dispatch._loaded.get(name)
    dispatch._loaded[name] = module
    try:
        with softgrad.use_backend(name):
            yield
    finally:
        dispatch._loaded.pop(name)
        if before is not None:
            dispatch._loaded[name] = before
