"""How a checkpoint of sentence-transformers makes one vector of a text: modules.json and what it names.

Format: https://www.sbert.net (modules.json lists the steps; a Pooling step has a directory with a config.json;
sentence_bert_config.json gives the most tokens that the model was meant for).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from edgekit.checkpoint.json_file import bad_json, read_json_object, read_json_object_if_any
from edgekit.contract import POOLING_CLS, POOLING_MEAN
from edgekit.errors import CheckpointError

MODULES, LIMITS = "modules.json", "sentence_bert_config.json"
_TRANSFORMER, _POOLING, _NORMALIZE = "Transformer", "Pooling", "Normalize"
#: Switches of a pooling's config.json, and what they are called here; others are not supported.
_MODES = {"pooling_mode_mean_tokens": POOLING_MEAN, "pooling_mode_cls_token": POOLING_CLS}
#: Newer files name the mode in one field.
_MODE = "pooling_mode"


@dataclass(frozen=True)
class Pooling:
    """How embeddings are made.

    Attributes:
        mode: one of `edgekit.contract.POOLINGS`.
        normalize: whether they are scaled to length 1.
        max_tokens: the most tokens of a text, the special ones included; None where nothing is said.
    """

    mode: str
    normalize: bool
    max_tokens: int | None


def pooling_files(path: Path) -> list[str]:
    """The files of a directory that decide how embeddings are made, as far as they are there, relative to it."""
    names = [MODULES, LIMITS, *(f"{step}/config.json" for step, kind in _steps(path) if kind == _POOLING)]
    return [name for name in names if (path / name).is_file()]


def pooling_of(path: Path) -> Pooling:
    """What a directory of sentence-transformers says.

    Raises:
        CheckpointError: it says nothing, or asks for a step or a way of pooling that is not supported.
    """
    steps = _steps(path)
    kinds = [kind for _, kind in steps]
    if not steps:
        raise CheckpointError(
            "an encoder's checkpoint must say how its tokens' vectors become one",
            f"{path} has no {MODULES}",
            "take the checkpoint that sentence-transformers published, or save one with it",
        )
    if kinds not in ([_TRANSFORMER, _POOLING], [_TRANSFORMER, _POOLING, _NORMALIZE]):
        raise CheckpointError(
            f"the steps of an encoder must be {_TRANSFORMER}, {_POOLING} and, where wanted, {_NORMALIZE}",
            f"{path / MODULES} lists {', '.join(kinds)}",
            "this kind of encoder is not supported",
        )
    config = path / steps[1][0] / "config.json"
    limits = read_json_object_if_any(path / LIMITS) or {}
    most = limits.get("max_seq_length")
    if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 1):
        raise bad_json(path / LIMITS, f"has a max_seq_length of {most!r}")
    return Pooling(_mode(read_json_object(config), config), _NORMALIZE in kinds, most)


def _steps(path: Path) -> list[tuple[str, str]]:
    """(directory, kind) of each step; none where there is no modules.json."""
    file = path / MODULES
    if not file.is_file():
        return []
    try:
        listed = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise bad_json(file, f"is not valid JSON ({error})") from None
    if not isinstance(listed, list) or not listed or not all(isinstance(each, dict) for each in listed):
        raise bad_json(file, "is no list of steps")
    return [(_directory(each.get("path", ""), file), str(each.get("type")).rpartition(".")[2]) for each in listed]


def _directory(name: Any, file: Path) -> str:
    """Only a directory below the checkpoint's own: a list of steps must not lead out of it."""
    plain = isinstance(name, str) and "\\" not in name and not PurePosixPath(name).is_absolute()
    if not plain or ".." in PurePosixPath(name).parts:
        raise bad_json(file, f"names {str(name)[:80]!r}, which is no directory of the checkpoint")
    return str(name)


def _mode(config: dict[str, Any], file: Path) -> str:
    named = config.get(_MODE)
    chosen = [key for key, value in config.items() if key.startswith(f"{_MODE}_") and value is True]
    modes = [named] if isinstance(named, str) else [_MODES.get(key, key) for key in chosen]
    if len(modes) != 1 or modes[0] not in _MODES.values():
        raise CheckpointError(
            f"an encoder must pool in one way of {', '.join(_MODES.values())}",
            f"{file} asks for {' and '.join(modes) or 'none'}",
            "this way of pooling is not supported",
        )
    return modes[0]
