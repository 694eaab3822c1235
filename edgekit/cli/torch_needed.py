"""The one thing that verbs which compare with PyTorch ask of the installation."""

from __future__ import annotations


def require_torch(what: str) -> None:
    """Raise EdgekitError unless PyTorch is installed. `what`: what needs it, as in "comparing a bundle"."""
    from importlib.util import find_spec

    from edgekit.errors import EdgekitError

    missing = [name for name in ("torch", "onnx") if find_spec(name) is None]
    if missing:
        raise EdgekitError(
            f"{what} needs PyTorch and onnx",
            f"{' and '.join(missing)} cannot be imported here",
            "pip install 'edgekit[export]', or do this on the machine that made the bundle",
        )
