"""Doing jobs at the same time: in processes of this machine, each on one thread, or on a Dask cluster."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, TypeVar

from edgekit.errors import ExportError

Job = TypeVar("Job")
Result = TypeVar("Result")
Stop = Callable[[], bool]
#: Does all jobs, calling `done` after each; whether all were done.
Executor = Callable[[Callable[[Any], Any], Sequence[Any], Callable[[Any], None], Stop], bool]

#: Numbers of threads that libraries read when they are loaded.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_PR_SET_PDEATHSIG = 1
#: How long a scheduler is waited for, and how often a job is tried that takes its worker with it.
CONNECT_S, RETRIES = 10, 3


def in_processes(workers: int) -> Executor:
    """So many processes. A stop lets those that have begun finish; they end with this process, whatever ends it."""

    def execute(
        function: Callable[[Job], Result],
        jobs: Sequence[Job],
        done: Callable[[Result], None],
        stopped: Callable[[], bool],
    ) -> bool:
        waiting = iter(jobs)
        with (
            _one_thread(),
            ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_prepare) as pool,
        ):
            running: set[Future[Result]] = set()
            while True:
                while len(running) < workers and not stopped() and (job := next(waiting, None)) is not None:
                    running.add(pool.submit(function, job))
                if not running:
                    return next(waiting, None) is None and not stopped()
                finished, running = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in finished:
                    done(future.result())

    return execute


def on_cluster(address: str) -> Executor:
    """The workers of a Dask scheduler, which share this file system. A worker that dies has its jobs done by another.

    Raises:
        ExportError: Dask is not installed, or no scheduler answers.
    """
    try:
        from distributed import Client, as_completed
    except ImportError:
        raise ExportError(
            "jobs run on a cluster by Dask", "it is not installed here", "pip install 'edgekit[cluster]'"
        ) from None
    try:
        client = Client(address, timeout=CONNECT_S, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise ExportError(
            "the scheduler of a cluster must answer",
            f"{address}: {type(error).__name__}",
            "start one with dask-scheduler, and workers with dask-worker ADDRESS",
        ) from error

    def execute(
        function: Callable[[Job], Result],
        jobs: Sequence[Job],
        done: Callable[[Result], None],
        stopped: Callable[[], bool],
    ) -> bool:
        with client:
            futures = client.map(function, jobs, pure=False, retries=RETRIES)
            for future in as_completed(futures, loop=client.loop):  # type: ignore[no-untyped-call]
                done(future.result())
                if stopped():
                    client.cancel(futures)  # type: ignore[no-untyped-call]
                    return False
        return True

    return execute


@contextmanager
def _one_thread() -> Iterator[None]:
    """Processes that are started in the block compute on one thread each."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _prepare() -> None:
    """A process leaves Ctrl-C to the one that started it, and is killed where that one is."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
