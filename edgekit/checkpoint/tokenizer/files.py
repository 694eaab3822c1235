"""tokenizer.json, tokenizer_config.json, generation_config.json and the chat template out of a GGUF file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.checkpoint.gguf_header import GgufHeader, broken
from edgekit.checkpoint.json_file import encode_json
from edgekit.checkpoint.tokenizer.byte_level import byte_level_tokenizer, splitting
from edgekit.checkpoint.tokenizer.sentencepiece import sentencepiece_tokenizer
from edgekit.checkpoint.tokenizer.vocabulary import CONTROL, USER_DEFINED, Vocabulary, read_vocabulary
from edgekit.errors import CheckpointError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: tokenizer.ggml.model -> builder.
_BUILDERS = {"gpt2": byte_level_tokenizer, "llama": sentencepiece_tokenizer}

#: Hugging Face name of a special token -> GGUF's.
_SPECIALS = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}

#: Tokens with which chat models end their turn (the names that llama.cpp's vocabulary looks for).
_END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>", "<|end_of_turn|>", "<EOT>")


def tokenizer_files_from_header(header: GgufHeader, path: Path) -> dict[str, bytes]:
    """File name -> contents. Raises CheckpointError for a missing, damaged or unknown tokenizer."""
    vocabulary = read_vocabulary(header, path)
    template = header.metadata.get("tokenizer.chat_template") or None
    if template is not None and not isinstance(template, str):
        raise broken(path, "tokenizer.chat_template is not a string")
    add_bos, add_eos = _added(vocabulary, path)
    tokenizer = _build(vocabulary, path, add_bos, add_eos)
    names = {hf: token for hf, kind in _SPECIALS.items() if (token := vocabulary.special_token(kind)) is not None}
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **names,
        "add_bos_token": add_bos,
        "add_eos_token": add_eos,
        "clean_up_tokenization_spaces": False,
        "added_tokens_decoder": {str(i): _added_token(token) for i, token in _added_tokens(tokenizer)},
    }
    context = header.metadata.get(f"{header.metadata['general.architecture']}.context_length")
    if isinstance(context, int):
        settings["model_max_length"] = context
    files = {
        "tokenizer.json": tokenizer.to_str(pretty=False).encode("utf-8"),
        "tokenizer_config.json": encode_json(settings),
        "special_tokens_map.json": encode_json(dict(names)),
        "generation_config.json": encode_json(_generation(vocabulary, template)),
    }
    if template is not None:
        files["chat_template.jinja"] = template.encode("utf-8")
    return files


def _added(vocabulary: Vocabulary, path: Path) -> tuple[bool, bool]:
    """Whether encoding adds the first and the last token, with llama.cpp's defaults for files that do not say."""
    default = splitting(vocabulary, path).add_bos if vocabulary.model == "gpt2" else True
    add_bos = vocabulary.flags.get("add_bos_token", default) and "bos" in vocabulary.special
    add_eos = vocabulary.flags.get("add_eos_token", False) and "eos" in vocabulary.special
    return add_bos, add_eos


def _build(vocabulary: Vocabulary, path: Path, add_bos: bool, add_eos: bool) -> Tokenizer:
    from tokenizers import processors

    if vocabulary.model not in _BUILDERS:
        raise CheckpointError(
            "a GGUF tokenizer must be of a kind that edgekit knows",
            f"{path} has {vocabulary.model!r}; known are {', '.join(sorted(_BUILDERS))}",
            "use the model's Hugging Face directory, which has tokenizer.json",
        )
    try:
        tokenizer = _BUILDERS[vocabulary.model](vocabulary, path)
    except CheckpointError:
        raise
    except Exception as error:  # what `tokenizers` raises for an impossible model is a bare Exception
        raise broken(path, f"its tokenizer does not fit together ({error})") from error
    if tokenizer.get_vocab_size() != len(vocabulary.tokens):
        raise broken(path, "a special token cannot be told from another one")
    if add_bos or add_eos:
        first = [(vocabulary.tokens[vocabulary.special["bos"]], vocabulary.special["bos"])] if add_bos else []
        last = [(vocabulary.tokens[vocabulary.special["eos"]], vocabulary.special["eos"])] if add_eos else []
        parts = [token for token, _ in first], [token for token, _ in last]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[*parts[0], "$A", *parts[1]],
            pair=[*parts[0], "$A", *parts[1], *(f"{t}:1" for t in parts[0]), "$B:1", *(f"{t}:1" for t in parts[1])],
            special_tokens=list({*first, *last}),
        )
    return tokenizer


def _added_tokens(tokenizer: Tokenizer) -> list[tuple[int, Any]]:
    return sorted(tokenizer.get_added_tokens_decoder().items())


def _added_token(token: Any) -> dict[str, Any]:
    keys = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    return {key: getattr(token, key) for key in keys}


def _generation(vocabulary: Vocabulary, template: str | None) -> dict[str, Any]:
    """Generation stops at the end of text and, for a chat model, at the token that its template ends turns with."""
    stops = [vocabulary.special[kind] for kind in ("eos", "eot", "eom") if kind in vocabulary.special]
    if template is not None:
        single = set(vocabulary.ids_of_type(CONTROL, USER_DEFINED))
        ids = {token: i for i, token in enumerate(vocabulary.tokens) if i in single}
        stops += [ids[token] for token in _END_OF_TURN if token in ids and token in template]
    stops = list(dict.fromkeys(stops))
    generation: dict[str, Any] = {}
    if "bos" in vocabulary.special:
        generation["bos_token_id"] = vocabulary.special["bos"]
    if stops:
        generation["eos_token_id"] = stops[0] if len(stops) == 1 else stops
    if "padding" in vocabulary.special:
        generation["pad_token_id"] = vocabulary.special["padding"]
    return generation
