"""What a build process is told, and what it says: JSON lines over a pipe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from edgekit.build.engine import BuiltPlugin, EngineBuild
from edgekit.build.profile import AxisRange
from edgekit.bundle.engine_entry import InputRange, ShapeProfile
from edgekit.contract import TensorSignature


@dataclass(frozen=True)
class Job:
    """One engine to build; see `engine_from_onnx`."""

    model: str
    destination: str
    backend: str
    device_kind: str
    profiles: Mapping[str, Mapping[str, AxisRange]]
    plugin_libraries: tuple[str, ...] = ()
    expected_plugins: Mapping[str, int] | None = None
    compute_capabilities: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    timing_cache: str | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        document = json.loads(text)
        document["profiles"] = {
            name: {axis: AxisRange(**sizes) for axis, sizes in axes.items()}
            for name, axes in document["profiles"].items()
        }
        for field in fields(cls):
            if isinstance(document.get(field.name), list):
                document[field.name] = tuple(document[field.name])
        return cls(**document)


def build_to_dict(built: EngineBuild) -> dict[str, Any]:
    """As JSON holds it."""
    return asdict(built) | {"path": str(built.path)}


def build_from_dict(document: Mapping[str, Any]) -> EngineBuild:
    """What `build_to_dict` gave."""
    values = dict(document)
    values["path"] = Path(values["path"])
    values["plugins"] = tuple(BuiltPlugin(**each) for each in values["plugins"])
    values["profiles"] = tuple(
        ShapeProfile(each["name"], _ranges(each["shapes"]), _ranges(each["values"])) for each in values["profiles"]
    )
    values["outputs"] = tuple(
        TensorSignature(each["name"], each["dtype"], tuple(each["shape"])) for each in values["outputs"]
    )
    return EngineBuild(**values)


def _ranges(documents: list[dict[str, Any]]) -> tuple[InputRange, ...]:
    return tuple(
        InputRange(each["name"], tuple(each["smallest"]), tuple(each["usual"]), tuple(each["largest"]))
        for each in documents
    )
