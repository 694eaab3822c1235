"""Quantising an encoder: products to 8 bits or, by GPTQ over the calibration text, to 4; its word embedding to 8.

There is no sensitivity here: an encoder has no loss per token. Looking up a row costs nothing, whatever its width, so
the embedding stays at 8 bits.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from tokenizers import Tokenizer
from torch import nn

from edgekit.checkpoint import Checkpoint
from edgekit.compress.calibrated import moment_groups
from edgekit.compress.calibration import calibration_text, calibration_tokens
from edgekit.compress.gptq import gptq_quantize
from edgekit.compress.quantizer import QuantizationSettings, QuantizedModel, matrix_of, store_8bit
from edgekit.compress.sensitivity import forced
from edgekit.layers.encoder import Encoder
from edgekit.models.registry import encoder_from_checkpoint
from edgekit.progress import Progress

WORD_EMBEDDINGS = "embeddings.word_embeddings.weight"


def quantized_encoder(
    checkpoint: Checkpoint,
    names: list[str],
    settings: QuantizationSettings,
    progress: Progress,
    *,
    word_embeddings: bool,
) -> QuantizedModel:
    """Quantise the products' matrices called `names`, and the word embedding where asked."""
    result = QuantizedModel(settings)
    if settings.bits < 8:
        low = [name for name in names if not forced(name.removesuffix(".weight"), settings.keep_8bit)]
        _round_by_gptq(checkpoint, low, result, progress)
    rest = [name for name in [*names, *([WORD_EMBEDDINGS] if word_embeddings else [])] if name not in result.matrices]
    if rest:
        progress.stage("quantise to 8 bits", len(rest), "matrices")
    for name in rest:
        store_8bit(checkpoint, name, result)
        progress.advance()
    return result


def _round_by_gptq(checkpoint: Checkpoint, names: list[str], result: QuantizedModel, progress: Progress) -> None:
    settings = result.settings
    passages = calibration_passages(checkpoint, settings.sequences, settings.length)
    model = encoder_from_checkpoint(checkpoint)
    groups = [group for group in moment_groups({name: checkpoint.spec(name).shape[1] for name in names}) if group]
    for index, group in enumerate(groups):
        part = f" ({index + 1}/{len(groups)})" if len(groups) > 1 else ""
        progress.stage(f"calibrate{part}", len(passages), "sequences")
        moments = input_moments(model, passages, group, progress.advance)
        progress.stage(f"quantise to {settings.bits} bits{part}", len(group), "matrices")
        for name in group:
            result.matrices[name] = gptq_quantize(
                matrix_of(checkpoint, name), moments[name], settings.bits, settings.block, symmetric=settings.symmetric
            )
            result.origin[name] = f"rounded to {settings.bits} bits by GPTQ"
            progress.advance()


def calibration_passages(checkpoint: Checkpoint, sequences: int, length: int, given: str | None = None) -> torch.Tensor:
    """Passages of a text (None: the one that edgekit carries) between the tokenizer's first and last token:
    int64 [sequences, length]."""
    contents = checkpoint.tokenizer_files()["tokenizer.json"]
    around = enclosed(contents, torch.empty(1, 0, dtype=torch.int64)).shape[1]
    return enclosed(
        contents, calibration_tokens(contents, given or calibration_text(), sequences, max(2, length - around))
    )


def enclosed(tokenizer_json: bytes, tokens: torch.Tensor) -> torch.Tensor:
    """Passages int64 [n, length] between what the tokenizer puts before and after a text."""
    tokenizer = Tokenizer.from_str(tokenizer_json.decode())
    tokenizer.no_padding()
    around: list[int] = tokenizer.encode("").ids
    before, after = around[: len(around) // 2], around[len(around) // 2 :]
    sides = [torch.tensor(side, dtype=torch.int64).expand(len(tokens), -1) for side in (before, after)]
    return torch.cat([sides[0], tokens, sides[1]], dim=1)


def input_moments(
    model: Encoder, passages: torch.Tensor, names: list[str], advance: Callable[[int], None]
) -> dict[str, torch.Tensor]:
    """E[x xᵀ] of the inputs of each product, float32 [K, K], by the name of its weight, over passages [n, length]."""
    moments: dict[str, torch.Tensor] = {}

    def gather(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            x = inputs[0].flatten(0, -2)
            moments[name] = moments.get(name, torch.zeros(())) + x.T @ x / passages.numel()

        return hook

    handles = [
        model.get_submodule(name.removesuffix(".weight")).register_forward_pre_hook(gather(name)) for name in names
    ]
    try:
        for row in passages:
            model(row[None], torch.ones_like(row)[None])
            advance(1)
    finally:
        for handle in handles:
            handle.remove()
    return moments
