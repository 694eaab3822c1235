"""Tiny random encoders of transformers."""

from __future__ import annotations

from typing import Any

import torch
import transformers

COMMON: dict[str, Any] = {
    "vocab_size": 101,
    "hidden_size": 48,
    "intermediate_size": 37,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "max_position_embeddings": 96,
}

#: Per case the transformers classes' stem, the padding token's number and the configuration.
CASES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "bert": ("Bert", 0, {"type_vocab_size": 3, "layer_norm_eps": 1e-3}),
    "bert-tanh": ("Bert", 0, {"hidden_act": "gelu_pytorch_tanh", "num_hidden_layers": 1}),
    # Long enough for distances beyond the last bucket's border.
    "mpnet": ("MPNet", 1, {"max_position_embeddings": 400}),
}


def published_encoder(case: str, seed: int = 0, **changes: Any) -> transformers.PreTrainedModel:
    """A random model of transformers in float32, every parameter drawn (norms and biases too)."""
    stem, pad, overrides = CASES[case]
    settings = COMMON | {"pad_token_id": pad} | overrides | changes
    config = getattr(transformers, f"{stem}Config")(**settings, attn_implementation="eager")
    model = getattr(transformers, f"{stem}Model")(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            norm = name.endswith("LayerNorm.weight")
            spread = 1.0 if "relative_attention_bias" in name else 0.25
            parameter.copy_(float(norm) + spread * torch.randn(parameter.shape, generator=generator))
    return model


def batch(case: str, lengths: tuple[int, ...] = (23, 9, 1), seed: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids int64 [B, S] and their mask, padded at the right."""
    pad = CASES[case][1]
    ids = torch.randint(2, 101, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(seed))
    mask = (torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]).long()
    return torch.where(mask == 1, ids, pad), mask
