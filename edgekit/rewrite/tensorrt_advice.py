"""Where in a model the nodes are that a version of TensorRT refuses, and what would mend each."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import onnx

from edgekit.rewrite.tensorrt_table import OperatorTable, Unsupported, check_operators

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MENDS = Path(__file__).parent / "known" / "mends.toml"

_LAYER = re.compile(r"\blayers\.(\d+)\.((?:\w+\.)*?)?(\w+)\.?(?:codes|weight|scales|dequantized?)?$")
_TAP = re.compile(r"^hidden\.(\d+)$")


@dataclass(frozen=True)
class Refused:
    """A node that a version of TensorRT would not take.

    Attributes:
        place: its name, or "opset" or "functions" for the model as a whole.
        where: in the model: "layer 3, self_attn.q_proj", "before layer 0", "after the last layer"; "" for the whole.
        operator: its type; "" for the opset.
        reason: why.
        mend: the rule or the form that would mend it; "" where none is known.
    """

    place: str
    where: str
    operator: str
    reason: str
    mend: str

    def __str__(self) -> str:
        located = f"{self.place} ({self.where})" if self.where else self.place
        named = f"{self.operator} at {located}" if self.operator else located
        return f"{named}: {self.reason}" + (f" [{self.mend}]" if self.mend else "")


def refused_nodes(model: onnx.ModelProto, table: OperatorTable) -> list[Refused]:
    """What `check_operators` finds, each with its place in the decoder and what mends it, in the graph's order."""
    found = check_operators(model, table)
    if not found:
        return []
    places = _places(model)
    return [_refused(entry, places.get(entry.place, ""), table) for entry in found]


def _refused(entry: Unsupported, where: str, table: OperatorTable) -> Refused:
    mends = _mends()
    name = entry.operator if entry.operator else "opset"
    contributed = f"has no {entry.operator}" not in entry.reason and "::" in entry.reason
    key = "contributed" if contributed and entry.operator else name
    text = mends.get(f"{table.version}:{key}") or mends.get(key, "")
    return Refused(entry.place, where, entry.operator, entry.reason, text)


@cache
def _mends() -> dict[str, str]:
    """What mends an operator, by its name, or by a table's version and its name."""
    document = tomllib.loads(MENDS.read_text(encoding="utf-8"))
    found: dict[str, str] = dict(document["any"])
    for version, mends in document.items():
        if version != "any":
            found |= {f"{version}:{operator}": text for operator, text in mends.items()}
    return found


def _places(model: onnx.ModelProto) -> dict[str, str]:
    """Where each node is, by the place that `check_operators` calls it.

    A node that belongs to a module is named after it, or reads or makes a tensor that is. Others lie between the
    residual streams "hidden.N", the input of layer N.
    """
    layers = max((int(m[1]) for node in model.graph.node for name in node.output if (m := _TAP.match(name))), default=0)
    places: dict[str, str] = {}
    layer = None
    for index, node in enumerate(model.graph.node):
        module = _module([node.name, *node.input, *node.output])
        places[node.name or f"node {index}"] = module or _between(layer, layers)
        layer = next((int(m[1]) for name in node.output if (m := _TAP.match(name))), layer)
    return places


def _module(names: Sequence[str]) -> str:
    for name in names:
        match = _LAYER.search(name)
        if match is not None:
            path = f"{match[2] or ''}{match[3]}"
            return f"layer {match[1]}, {path}"
    return ""


def _between(layer: int | None, layers: int) -> str:
    if layer is None:
        return "before layer 0"
    return "after the last layer" if layer >= layers else f"layer {layer}"
