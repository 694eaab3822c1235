"""Whether a written graph keeps to what the target of its form can run."""

from __future__ import annotations

import onnx

from edgekit import contract
from edgekit.errors import ExportError
from edgekit.rewrite.tensorrt_table import check_operators, operator_table

#: The oldest TensorRT that takes a form.
_TENSORRT = {contract.FORM_JETPACK6: "10.3", contract.FORM_TENSORRT: "10.15"}


def check_target(structure: onnx.ModelProto, form: str) -> None:
    """Raise ExportError, naming what it is, where a written graph has something that the target of its form lacks."""
    version = _TENSORRT.get(form)
    unsupported = check_operators(structure, operator_table(version)) if version is not None else []
    if unsupported:
        listed = "; ".join(f"{entry.operator} at {entry.place}: {entry.reason}" for entry in unsupported[:3])
        newer = ", or --form tensorrt for a newer TensorRT" if form == contract.FORM_JETPACK6 else ""
        raise ExportError(
            f"every operator of the form {form} must be one of TensorRT {version}'s",
            f"{len(unsupported)} are not: {listed}",
            f"choose another --dtype{newer}",
        )
