"""How fast this machine reads memory: the bound of decoding, which reads all weights for each token."""

from __future__ import annotations

import ctypes
import threading
import time

import numpy as np

_BYTES = 256 << 20
_REPETITIONS = 5
METHOD = "libc memchr over 256 MiB, split among the threads, best of 5"


def read_bandwidth(threads: int, size: int = _BYTES) -> float | None:
    """Bytes per second that `threads` threads read together; None where the C library has no memchr.

    memchr only reads, uses vector instructions, and releases the interpreter's lock (ctypes does).
    """
    memchr = getattr(ctypes.CDLL(None), "memchr", None)
    if memchr is None:
        return None
    memchr.restype, memchr.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    buffer = np.ones(size, np.uint8)  # written, so that every page is a page of its own
    part = size // threads

    def scan(index: int) -> None:
        memchr(buffer.ctypes.data + index * part, 0, part)

    best = float("inf")
    for _ in range(_REPETITIONS):
        workers = [threading.Thread(target=scan, args=(index,)) for index in range(threads)]
        started = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        best = min(best, time.perf_counter() - started)
    return part * threads / best
