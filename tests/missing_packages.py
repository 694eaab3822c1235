"""A pytest plugin for machines that do not have every package: what cannot be imported is skipped, with the reason.

Not hooks of a conftest, which pytest does not ask about folders with a conftest of their own.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Generator
from typing import Any

import pytest

#: Modules that could not be imported because a package is missing, and which.
_lacking: dict[str, str] = {}


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    """Skip, with the reason, a file or folder of tests that needs a package which is not installed.

    So that `pytest -m gpu` runs on a device, whose image has torch and no more than it has. With EDGEKIT_CI=1 nothing
    may be missing, and the error stays one. Modules of edgekit and of the tests themselves are never "missing".
    """
    report = yield
    call = getattr(report, "call", None)
    if report.outcome == "failed" and os.environ.get("EDGEKIT_CI") != "1" and call is not None and call.excinfo:
        package = missing_package(call.excinfo.value)
        if package is not None:
            report.outcome = "skipped"
            report.longrepr = (str(collector.path), 0, f"Skipped: the package of the module {package} is not installed")
    return report


def missing_package(error: BaseException | None) -> str | None:
    """The top-level module whose absence an error of a collection comes from; None where it has another cause."""
    while error is not None:
        if isinstance(error, ImportError):
            name = (error.name or "").partition(".")[0]
            if isinstance(error, ModuleNotFoundError):
                found = name if name not in ("", "edgekit", "tests") and find_spec_of(name) is None else None
            else:  # "cannot import name": of a module that stayed half made when it was imported before
                found = _lacking.get(error.name or "")
            if found is not None:
                trace = error.__traceback__
                while trace is not None:
                    module = str(trace.tb_frame.f_globals.get("__name__", ""))
                    if module.startswith("tests."):
                        _lacking[module] = found
                    trace = trace.tb_next
            return found
        error = getattr(error, "cause", None) or error.__cause__
    return None


def find_spec_of(name: str) -> object | None:
    """Where a top-level module is; None where it is not."""
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
