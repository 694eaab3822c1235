"""A bundle that runs: a tiny random decoder with a byte-level tokenizer and a ChatML template."""

from __future__ import annotations

import json
from pathlib import Path

from edgekit import contract
from edgekit.bundle import write_bundle
from tests.chat.tiny_tokenizers import END_OF_TEXT, IM_END, IM_START, byte_level
from tests.runtime.tiny_decoder import HEAD_DIM, HEADS, HIDDEN, KV_HEADS, LAYERS, MAX_POSITION, write_tiny_decoder

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def write_tiny_bundle(
    path: Path,
    *,
    cache_kind: str = contract.CACHE_SHARED,
    template: str | None = CHATML,
    add_bos: bool = False,
    capacity_limit: int = MAX_POSITION,
    generation_config: dict[str, object] | None = None,
    endless: bool = False,
) -> Path:
    """Write the bundle; its words are random, but the same every time.

    Args:
        endless: no token ends an answer.
    """
    tokenizer = byte_level()
    vocab = tokenizer.get_vocab_size()
    bos, eos = tokenizer.token_to_id(IM_START), tokenizer.token_to_id(IM_END)
    with write_bundle(path) as draft:
        write_tiny_decoder(draft.path / "model.onnx", cache_kind, vocab=vocab, max_position=capacity_limit)
        (draft.path / "tokenizer.json").write_text(tokenizer.to_str())
        config = {"bos_token": IM_START, "eos_token": {"content": IM_END}, "unk_token": END_OF_TEXT}
        (draft.path / "tokenizer_config.json").write_text(json.dumps(config))
        if template is not None:
            (draft.path / "chat_template.jinja").write_text(template)
        if generation_config is not None:
            (draft.path / "generation_config.json").write_text(json.dumps(generation_config))
        draft.manifest.update(
            model={
                "name": "tiny",
                "model_type": "llama",
                "layers": LAYERS,
                "heads": HEADS,
                "kv_heads": KV_HEADS,
                "head_dim": HEAD_DIM,
                "vocab_size": vocab,
                "hidden_size": HIDDEN,
                "max_context": capacity_limit,
            },
            form=contract.FORM_ORT if cache_kind == contract.CACHE_SHARED else contract.FORM_PORTABLE,
            dtype="fp32",
            cache={
                "kind": cache_kind,
                "dtype": "float32",
                "capacity_limit": capacity_limit,
                "bytes_per_token": 2 * 4 * LAYERS * KV_HEADS * HEAD_DIM,
            },
            graph={"file": "model.onnx", "data": [], "inputs": [], "outputs": [], "taps": []},
            tokens={"bos": bos, "eos": [] if endless else [eos], "pad": None, "add_bos": add_bos},
        )
    return path
