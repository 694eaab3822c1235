"""The special tokens of a checkpoint, as a bundle's manifest names them."""

from __future__ import annotations

import json
from typing import Any

from edgekit.checkpoint.interface import Checkpoint


def special_token_ids(checkpoint: Checkpoint, tokenizer: dict[str, bytes]) -> dict[str, Any]:
    """ "bos", "eos", "pad" and "add_bos": those generation_config.json names, else the configuration's.

    Args:
        tokenizer: what `Checkpoint.tokenizer_files` gave.
    """
    generation = json.loads(tokenizer.get("generation_config.json", b"{}"))
    settings = json.loads(tokenizer.get("tokenizer_config.json", b"{}"))

    def found(key: str) -> Any:
        return generation.get(key) if generation.get(key) is not None else checkpoint.config.get(key)

    eos = found("eos_token_id")
    return {
        "bos": found("bos_token_id"),
        "eos": [] if eos is None else [int(token) for token in (eos if isinstance(eos, list) else [eos])],
        "pad": found("pad_token_id"),
        "add_bos": bool(settings.get("add_bos_token", False)),
    }
