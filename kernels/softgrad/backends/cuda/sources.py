"""The CUDA C++ sources as one text per kernel family, so that a compiler needs no include path and a cache sees all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent
_INCLUDE = re.compile(r'^#include "(.+)"$', re.MULTILINE)


def amalgamated(name: str, replaced: Mapping[str, str] | None = None) -> str:
    """The text of file `name` with every file it includes in its place, once each.

    `replaced` gives other texts for some of the files.
    """
    seen: set[str] = set()

    def text_of(name: str) -> str:
        if name in seen:
            return ""
        seen.add(name)
        text = (replaced or {}).get(name) or _text(name)
        parts, at = [f'#line 1 "{name}"\n'], 0
        for include in _INCLUDE.finditer(text):
            line = text.count("\n", 0, include.start()) + 2
            parts += [text[at : include.start()], text_of(include[1]), f'#line {line} "{name}"']
            at = include.end()
        return "".join(parts) + text[at:].replace("#pragma once\n", "\n", 1)

    return text_of(name).replace("#pragma once\n", "\n")


@cache
def _text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")
