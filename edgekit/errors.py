"""Errors that a user can act on.

Each error states the rule that was broken, the fact that broke it and the next step. The command line prints
these three lines and exits with the class's exit code; it never shows a traceback for them.

Exit codes: 0 success, 1 error, 2 usage (Click's own), 3 parity failed, 4 does not fit, 5 damaged or
incompatible bundle, 130 interrupted.
"""

from __future__ import annotations

import errno


class EdgekitError(Exception):
    """A mistake or a limit the user can act on.

    Args:
        rule: what must hold ("a bundle's files must match its manifest").
        fact: what was found instead ("model.onnx.data has 12 bytes, the manifest says 80").
        next_step: what to do ("export the bundle again: edgekit export ...").
    """

    exit_code = 1

    def __init__(self, rule: str, fact: str = "", next_step: str = "") -> None:
        super().__init__("\n".join(part for part in (rule, fact, next_step) if part))
        self.rule = rule
        self.fact = fact
        self.next_step = next_step


class CheckpointError(EdgekitError):
    """The checkpoint cannot be found, read or trusted."""


class ModelError(EdgekitError):
    """The architecture is unknown, or its weights do not match it."""


class ExportError(EdgekitError):
    """The model cannot be traced, quantised or written."""


class RewriteError(EdgekitError):
    """A rewrite rule did not find what it requires, or did not leave what it ensures."""


class BuildError(EdgekitError):
    """An engine or a plugin library cannot be built with what this machine has, or from this graph."""


class DeviceError(EdgekitError):
    """A device is unknown, or its profile is malformed."""


class RecipeError(EdgekitError):
    """A recipe is malformed or names something that does not exist."""


class SessionError(EdgekitError):
    """The runtime cannot load or run a model with what this machine has."""


class PromptError(EdgekitError):
    """The prompt is empty, too long, or cannot be rendered by the chat template."""


class ParityFailed(EdgekitError):
    """A stage differs from its reference by more than its tolerance."""

    exit_code = 3


class DoesNotFit(EdgekitError):
    """Memory or disk space is not enough."""

    exit_code = 4


class BundleError(EdgekitError):
    """A bundle is missing a file, is damaged, or is of another schema."""

    exit_code = 5


def of_os_error(error: OSError) -> EdgekitError | None:
    """What a user can do about a full disk, or a file that cannot be read or written; None for anything else."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" while writing {error.filename}" if error.filename else ""
        return DoesNotFit(
            "there must be disk space for what is written",
            f"the disk is full{where}",
            "free some space, or write to another disk",
        )
    if error.filename is None:
        return None
    return EdgekitError(
        "files must be readable and writable where they are used",
        f"{error.strerror}: {error.filename}",
        "check the path and its permissions",
    )
