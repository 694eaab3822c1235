"""JSON files that a checkpoint brings along."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgekit.errors import CheckpointError


def bad_json(path: Path, fact: str) -> CheckpointError:
    """The error for a JSON file with unusable contents; `fact` continues a sentence that starts with the path."""
    return CheckpointError(
        "a checkpoint's JSON files must each hold one object", f"{path} {fact}", "fetch the file again"
    )


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises CheckpointError where it is missing or something else."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            "a Hugging Face directory must hold config.json and its weights as safetensors",
            f"{path} does not exist",
            "give the directory that `save_pretrained` wrote, or that the model hub shows",
        ) from None
    except (ValueError, RecursionError) as error:
        raise bad_json(path, f"is not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise bad_json(path, "is not a JSON object")
    return value


def read_json_object_if_any(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file, or None where there is no such file."""
    return read_json_object(path) if path.is_file() else None


def encode_json(value: dict[str, Any]) -> bytes:
    """Indented UTF-8 with a final newline."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8")
