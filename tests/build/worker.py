"""Builds one engine in its own process: TensorRT ends the process at some mistakes. A job comes as JSON on stdin."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from edgekit.build.engine import engine_from_onnx
from edgekit.build.profile import AxisRange
from edgekit.errors import BuildError


def main() -> None:
    job = json.load(sys.stdin)
    try:
        built = engine_from_onnx(
            Path(job["model"]),
            Path(job["destination"]),
            axes={name: AxisRange(*sizes) for name, sizes in job["axes"].items()},
            plugin_libraries=[Path(path) for path in job["libraries"]],
            expected_plugins=job["expected"],
            compute_capabilities=job["capabilities"],
            embed_plugins=job["embed"],
        )
    except BuildError as error:
        answer = {"rule": error.rule, "fact": error.fact, "next_step": error.next_step}
    else:
        plugins = {use.name: use.nodes for use in built.plugins}
        answer = asdict(built) | {"path": str(built.path), "plugins": plugins}
    sys.stdout.write("\n" + json.dumps(answer))


if __name__ == "__main__":
    main()
