"""A bundle's graph as an ONNX protobuf, without its weights."""

from __future__ import annotations

from typing import Any

from edgekit.bundle import Bundle
from edgekit.errors import BundleError


def onnx_graph(bundle: Bundle) -> Any | None:
    """The onnx.GraphProto, external data left where they are; None where the package onnx is not installed.

    Raises:
        BundleError: it is no ONNX file.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    except ModuleNotFoundError:
        return None
    try:
        return onnx.load(str(bundle.graph), load_external_data=False).graph
    except DecodeError as error:
        raise BundleError(
            "a bundle's graph is an ONNX file",
            f"{bundle.graph} is not one: {error}",
            "make the bundle again: edgekit export CHECKPOINT -o BUNDLE --dtype DTYPE",
        ) from error
