"""What `edgekit inspect` tells about a checkpoint."""

from __future__ import annotations

import json
import math
from typing import Any

from edgekit.checkpoint.interface import Checkpoint
from edgekit.errors import CheckpointError

#: Keys of config.json shown as they are, where present.
_SIZES = (
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "max_position_embeddings",
    "sliding_window",
    "rope_theta",
    "rope_scaling",
    "tie_word_embeddings",
)


def _dtypes(checkpoint: Checkpoint) -> dict[str, dict[str, int]]:
    """dtype -> number of tensors, parameters and bytes, largest first."""
    found: dict[str, dict[str, int]] = {}
    for name in checkpoint.names():
        spec = checkpoint.spec(name)
        row = found.setdefault(spec.dtype, {"tensors": 0, "parameters": 0, "bytes": 0})
        row["tensors"] += 1
        row["parameters"] += math.prod(spec.shape)
        row["bytes"] += spec.nbytes
    return dict(sorted(found.items(), key=lambda item: -item[1]["bytes"]))


def _tokenizer(files: dict[str, bytes]) -> dict[str, Any]:
    tokenizer = json.loads(files["tokenizer.json"])
    settings = json.loads(files["tokenizer_config.json"])
    added = tokenizer.get("added_tokens") or []
    vocabulary = (tokenizer.get("model") or {}).get("vocab") or {}
    # A Unigram vocabulary is a list of [piece, score], the others map pieces to ids.
    pieces = set(vocabulary) if isinstance(vocabulary, dict) else {entry[0] for entry in vocabulary}
    roles = ("bos_token", "eos_token", "unk_token", "pad_token")
    named = {role: settings[role] for role in roles if settings.get(role) is not None}
    return {
        "kind": (tokenizer.get("model") or {}).get("type", "unknown"),
        "vocabulary": len(pieces | {token["content"] for token in added}),
        "special_tokens": sum(bool(token.get("special")) for token in added),
        **{role: token["content"] if isinstance(token, dict) else token for role, token in named.items()},
        "eos_token_ids": _ids(json.loads(files["generation_config.json"]).get("eos_token_id")),
        "chat_template": "chat_template.jinja" in files,
    }


def _ids(value: Any) -> list[int]:
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def checkpoint_summary(checkpoint: Checkpoint) -> dict[str, Any]:
    """JSON-ready facts: architecture, sizes, parameters, dtypes, tokenizer, files' sizes.

    "tokenizer" is None, with the reason under "tokenizer_error", where the checkpoint has none.
    """
    dtypes = _dtypes(checkpoint)
    config = checkpoint.config
    summary: dict[str, Any] = {
        "kind": "checkpoint",
        "path": str(checkpoint.path),
        "format": checkpoint.format,
        "model_type": config["model_type"],
        "parameters": sum(row["parameters"] for row in dtypes.values()),
        "bytes": sum(path.stat().st_size for path in checkpoint.file_paths()),
        "dtypes": dtypes,
        "sizes": {key: config[key] for key in _SIZES if config.get(key) is not None},
    }
    try:
        summary["tokenizer"] = _tokenizer(checkpoint.tokenizer_files())
    except CheckpointError as error:
        summary["tokenizer"] = None
        summary["tokenizer_error"] = error.fact
    except (KeyError, TypeError, AttributeError, IndexError):
        summary["tokenizer"] = None
        summary["tokenizer_error"] = "its tokenizer.json or tokenizer_config.json has an unknown structure"
    return summary
