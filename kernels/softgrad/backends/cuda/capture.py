"""Which capture of a graph a stream is in, as the driver numbers them.

Asked of the driver itself, for neither CuPy nor torch hands the number out, and both GPU backends need it.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from functools import cache
from typing import Any

# Handles of the default stream in its two guises; the older one cannot be captured.
_DEFAULT, _LEGACY = 0, 1
_SUCCESS, _ACTIVE = 0, 1


def capture_of(stream: int) -> int:
    """The number of the capture that a stream, by its handle, is in; 0 while it is in none."""
    if stream in (_DEFAULT, _LEGACY):
        return 0
    answer = _answer
    ask: Any = _driver().cuStreamGetCaptureInfo_v2
    status = ask(stream, answer.status_at, answer.number_at, None, None, None)
    # An error: no context yet, hence no capture.
    return answer.number.value if status == _SUCCESS and answer.status.value == _ACTIVE else 0


class _Answer(threading.local):
    """Where a thread's answers are written."""

    def __init__(self) -> None:
        self.status, self.number = ctypes.c_int(), ctypes.c_uint64()
        self.status_at, self.number_at = ctypes.byref(self.status), ctypes.byref(self.number)


_answer = _Answer()


@cache
def _driver() -> Any:
    if sys.platform == "win32":
        driver: Any = ctypes.WinDLL("nvcuda.dll")
    else:
        driver = ctypes.CDLL("libcuda.so.1")
    driver.cuStreamGetCaptureInfo_v2.argtypes = [ctypes.c_void_p] * 6
    return driver
