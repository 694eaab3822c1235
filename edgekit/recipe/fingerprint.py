"""Golden fingerprints: the structure of a bundle's graph, without its weights, kept beside the recipe.

A change of an exporter, a rule or a package that alters the graph shows up as a difference in a few readable lines.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgekit.bundle import Bundle
from edgekit.errors import RecipeError
from edgekit.files import atomic_write

_LAYER = re.compile(r"\.\d+\.")
#: A longer difference is cut: its first lines tell what happened.
_MOST_LINES = 20


#: Operators that read codes. Their bits are no part of a fingerprint: which matrices stay at 8 bits is measured, and
#: may differ between processors in a close case.
_QUANTIZED = ("MatMulNBits", "GatherBlockQuantized", "DequantizeLinear")


def fingerprint_of(bundle: Bundle) -> dict[str, Any]:
    """The fingerprint of a bundle's graph, ready for JSON; below "draft" that of its draft graph, where it has one."""
    import onnx

    model = onnx.load(bundle.graph, load_external_data=False)
    manifest = bundle.manifest
    found = graph_fingerprint(model, manifest.form, manifest.dtype, rule_counts(manifest.raw))
    if manifest.draft is not None:
        draft = onnx.load(bundle.file(manifest.draft.file), load_external_data=False)
        rules = rule_counts(manifest.raw["draft"])
        found["draft"] = graph_fingerprint(draft, manifest.form, manifest.dtype, rules)
    return found


def graph_fingerprint(model: Any, form: str, dtype: str, rules: dict[str, dict[str, int]]) -> dict[str, Any]:
    """The fingerprint of an onnx.ModelProto.

    opset: version per operator domain. inputs, outputs: how often each signature occurs, the layer's number replaced
    by *. operators: how often each occurs, those with quantised weights by their sizes. initializers: how often each
    dtype and shape occurs, without codes, scales and zero points. rules: how often each fired and refused.
    """
    graph = model.graph
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    codes = {name for node in graph.node if node.op_type in _QUANTIZED for name in node.input}
    plain = [tensor for tensor in graph.initializer if tensor.name not in codes]
    return {
        "form": form,
        "dtype": dtype,
        "opset": dict(sorted((_domain(entry.domain), entry.version) for entry in model.opset_import)),
        "inputs": _counts((_signature(value) for value in graph.input), keep_order=True),
        "outputs": _counts((_signature(value) for value in graph.output), keep_order=True),
        "operators": _counts(_operator(node, shapes) for node in graph.node),
        "initializers": _counts(f"{_type(tensor.data_type)} {list(tensor.dims)}" for tensor in plain),
        "rules": rules,
    }


def rule_counts(manifest: Any) -> dict[str, dict[str, int]]:
    """How often each rule fired and refused, in the order in which they ran."""
    return {
        name: {"fired": outcome["fired"], "refused": len(outcome["refused"])}
        for name, outcome in (manifest.get("rules") or {}).items()
    }


def read_fingerprint(path: Path) -> dict[str, Any] | None:
    """The golden fingerprint; None where there is none. Raises RecipeError for a damaged one."""
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(document, dict):
        raise _damaged(path, "it is no JSON object")
    return document


def write_fingerprint(path: Path, fingerprint: dict[str, Any]) -> None:
    """Replace the golden fingerprint in one step."""
    atomic_write(path, json.dumps(fingerprint, indent=2) + "\n")


def check_fingerprint(found: dict[str, Any], path: Path) -> bool:
    """Compare with the golden fingerprint; False where there is none to compare with.

    Raises:
        RecipeError: they differ, naming what.
    """
    golden = read_fingerprint(path)
    if golden is None:
        return False
    lines = differences(golden, found)
    if lines:
        more = [f"... and {len(lines) - _MOST_LINES} more"] if len(lines) > _MOST_LINES else []
        raise RecipeError(
            f"the graph must be as its golden fingerprint {path} says",
            f"{len(lines)} difference{'s' * (len(lines) > 1)}:\n    " + "\n    ".join(lines[:_MOST_LINES] + more),
            "if the change is meant, run edgekit make again with --update-fingerprint and commit the file",
        )
    return True


def differences(golden: Any, found: Any, where: str = "") -> list[str]:
    """What changed, one line per value: "operators: MatMul (onnx): 211 expected, 210 found"."""
    if golden == found:
        return []
    if not isinstance(golden, dict) or not isinstance(found, dict):
        return [f"{where}: {_shown(golden)} expected, {_shown(found)} found"]
    names = [*golden, *(name for name in found if name not in golden)]
    prefix = f"{where}: " if where else ""
    return [line for name in names for line in differences(golden.get(name), found.get(name), prefix + name)]


def _shown(value: Any) -> str:
    return "none" if value is None else json.dumps(value)


def _counts(items: Iterable[str], keep_order: bool = False) -> dict[str, int]:
    counter = Counter(items)
    return dict(counter if keep_order else sorted(counter.items()))


def _operator(node: Any, shapes: dict[str, list[int]]) -> str:
    """ "Relu (onnx)", or "MatMulNBits (com.microsoft) K=576 N=960 accuracy_level=4 block_size=32"."""
    name = f"{node.op_type} ({_domain(node.domain)})"
    if node.op_type not in _QUANTIZED:
        return name
    sizes = [f"{attribute.name}={attribute.i}" for attribute in node.attribute if attribute.name != "bits"]
    if node.op_type == "DequantizeLinear":  # its matrix has one element per code, whatever their bits
        sizes.append(str(shapes.get(node.input[0])))
    return " ".join([name, *sorted(sizes)])


def _signature(value: Any) -> str:
    """ "past_key_values.*.key float32 [batch_size, 3, past_sequence_length, 64]"."""
    tensor = value.type.tensor_type
    sizes = [size.dim_param or size.dim_value for size in tensor.shape.dim]
    return f"{_LAYER.sub('.*.', value.name)} {_type(tensor.elem_type)} [{', '.join(map(str, sizes))}]"


def _type(number: int) -> str:
    from onnx import TensorProto

    name: str = TensorProto.DataType.Name(number)
    return name.lower()


def _domain(domain: str) -> str:
    return domain or "onnx"


def _damaged(path: Path, fact: str) -> RecipeError:
    return RecipeError(
        "a golden fingerprint must be valid JSON",
        f"{path}: {fact}",
        "restore the file, or write it again: edgekit make RECIPE --update-fingerprint",
    )
