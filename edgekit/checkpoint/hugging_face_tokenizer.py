"""Tokenizer, chat template and generation defaults of a Hugging Face directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekit.checkpoint.json_file import encode_json, read_json_object, read_json_object_if_any
from edgekit.errors import CheckpointError

#: Every file that these functions may read, in the order in which a checkpoint lists its files.
TOKENIZER_FILES = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
)


def tokenizer_files_from_directory(path: Path, config: dict[str, Any]) -> dict[str, bytes]:
    """File name -> contents. Raises CheckpointError where there is no tokenizer.json."""
    if not (path / "tokenizer.json").is_file():
        slow = [n for n in ("tokenizer.model", "vocab.json", "spiece.model") if (path / n).is_file()]
        raise CheckpointError(
            "a checkpoint's tokenizer must be a tokenizer.json",
            f"{path} has {slow[0] if slow else 'no tokenizer at all'}",
            "write one with transformers: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"
            if slow
            else "copy the tokenizer files of the model into the directory",
        )
    read_json_object(path / "tokenizer.json")
    files = {"tokenizer.json": (path / "tokenizer.json").read_bytes()}
    settings = read_json_object_if_any(path / "tokenizer_config.json") or {}
    template = _chat_template(path, settings)
    # The template travels as a file of its own, so that no two versions of it can disagree.
    settings.pop("chat_template", None)
    files["tokenizer_config.json"] = encode_json(settings)
    if template is not None:
        files["chat_template.jinja"] = template.encode("utf-8")
    generation = read_json_object_if_any(path / "generation_config.json")
    files["generation_config.json"] = encode_json(_from_config(config) if generation is None else generation)
    if (path / "special_tokens_map.json").is_file():
        files["special_tokens_map.json"] = (path / "special_tokens_map.json").read_bytes()
    return files


def _from_config(config: dict[str, Any]) -> dict[str, Any]:
    """Generation defaults as transformers derives them from a configuration without generation_config.json."""
    keys = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {"_from_model_config": True, **{k: config[k] for k in keys if config.get(k) is not None}}


def _chat_template(path: Path, settings: dict[str, Any]) -> str | None:
    """The default template: chat_template.jinja, else chat_template.json, else the one in tokenizer_config.json."""
    if (path / "chat_template.jinja").is_file():
        return _text(path / "chat_template.jinja")
    legacy = read_json_object_if_any(path / "chat_template.json") or {}
    template = legacy.get("chat_template", settings.get("chat_template"))
    if template is None or isinstance(template, str):
        return template
    named: dict[str, Any] = {}
    if isinstance(template, dict):
        named = template
    elif isinstance(template, list):
        named = {str(t.get("name")): t.get("template") for t in template if isinstance(t, dict)}
    chosen = named.get("default") if "default" in named or len(named) != 1 else next(iter(named.values()))
    if not isinstance(chosen, str):
        raise CheckpointError(
            'of several chat templates one must be named "default"',
            f"{path} has {', '.join(named) or 'a chat_template that is neither text nor a list'}",
            "write the wanted one to chat_template.jinja in the directory",
        )
    return chosen


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(
            "a chat template must be UTF-8 text", f"{path}: {error}", "fetch the file again"
        ) from None
