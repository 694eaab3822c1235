"""Tiny random encoders on the disk, as sentence-transformers saves them."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from tests.models.encoders import CASES, published_encoder

#: Sizes that are whole blocks of 32, which quantisation likes.
SIZES: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_hidden_layers": 2}
TEXTS = ["a small lamp", "the boat came home at nine", "q", "word " * 20 + "end", "Zürich?"]


def write_encoder(
    path: Path, case: str = "bert", *, pooling: str = "mean", normalize: bool = True, **changes: Any
) -> Path:
    """A Hugging Face directory with random weights, a tokenizer of letters, and the files that say how to pool."""
    path.mkdir(parents=True)
    model = published_encoder(case, **(SIZES | changes))
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(model.config.to_dict()))
    write_tokenizer(path, pad=CASES[case][1])
    steps = ["Transformer", "Pooling", *(["Normalize"] if normalize else [])]
    modules = [
        {"idx": i, "path": "" if i == 0 else f"{i}_{step}", "type": f"sentence_transformers.models.{step}"}
        for i, step in enumerate(steps)
    ]
    (path / "modules.json").write_text(json.dumps(modules))
    (path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 40}))
    (path / "1_Pooling").mkdir()
    mode = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}[pooling]
    (path / "1_Pooling" / "config.json").write_text(json.dumps({mode: True}))
    return path


def write_tokenizer(path: Path, pad: int) -> None:
    """A WordPiece of single letters between [CLS] and [SEP], saved with settings of a training run."""
    special = ["[CLS]", "[SEP]", "[UNK]"]
    special.insert(pad, "[PAD]")
    pieces = [*special, *string.ascii_lowercase, *(f"##{letter}" for letter in string.ascii_lowercase)]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    )
    tokenizer.add_special_tokens(special)
    tokenizer.enable_padding(length=7, pad_id=pad, pad_token="[PAD]")
    tokenizer.enable_truncation(7)
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(json.dumps({"pad_token": "[PAD]"}))
