"""The whole conversion: measure, choose structures and ranks, convert each layer, write."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from edgekit.checkpoint import Checkpoint
from edgekit.compress.attention.allocate import STEP, Place, Spectrum, expected_loss, pooled
from edgekit.compress.attention.balance import balanced
from edgekit.compress.attention.choose import (
    REBUILDING_IS_WORTH,
    Candidate,
    measured_divergence,
    with_read_price,
)
from edgekit.compress.attention.source import (
    LayerWeights,
    SourceShape,
    converted_config,
    layer_weights,
    source_shape,
)
from edgekit.compress.attention.statistics import (
    LayerStatistics,
    load_statistics,
    measure_attention,
    save_statistics,
)
from edgekit.compress.attention.structure import structure
from edgekit.compress.attention.write import check_destination, new_directory, write_directory
from edgekit.compress.calibration import calibration_text, calibration_tokens
from edgekit.errors import ExportError, ModelError
from edgekit.files import cache_dir
from edgekit.models.registry import check_weights, model_from_checkpoint, model_on_meta
from edgekit.progress import Progress

AUTO = "auto"
#: What `auto` weighs for keys.
KEY_CANDIDATES = ("spectral", "latent")
#: The candidate whose layers have the structure that suits each.
PER_LAYER = "per layer"
#: Places are compared by loss * total^(DAMPING - 1): expected losses are second-order and of few tokens, and taken at
#: their word (1) they starve the layers that seem to matter least. Chosen by perplexity, see
#: docs/attention-conversion.md.
DAMPING = 0.75
#: Passages held out of the calibration text to measure candidates on.
HELD_OUT = 2


@dataclass(frozen=True)
class ConvertOptions:
    """What is asked for.

    Attributes:
        structure: of the keys: exact, head, spectral, latent, or auto.
        value_structure: of the values: exact, head, latent; None for what goes with the keys' (exact with exact, head
            with head, latent otherwise).
        cache_ratio: bytes of the new cache over those of the old one, above 0 and at most 1.
        kv_rank: components of keys and of values in every layer, instead of a ratio.
        sequences: passages of the calibration text.
        length: tokens of each.
    """

    structure: str = AUTO
    value_structure: str | None = None
    cache_ratio: float | None = None
    kv_rank: int | None = None
    sequences: int = 40
    length: int = 512

    @property
    def values(self) -> str:
        """The structure of the values."""
        return self.value_structure or (self.structure if self.structure in ("exact", "head") else "latent")

    @property
    def keys(self) -> tuple[str, ...]:
        """Structures of keys that may be used."""
        return KEY_CANDIDATES if self.structure == AUTO else (self.structure,)

    @property
    def exact(self) -> bool:
        """Whether nothing is left out, so that nothing need be measured."""
        return self.structure == "exact" and self.values == "exact"


def check_options(shape: SourceShape, options: ConvertOptions) -> None:
    """ModelError or ExportError for options that no conversion fulfils."""
    for side, names in (("key", options.keys), ("value", (options.values,))):
        for name in names:
            structure(side, name)
    if options.exact:
        if options.cache_ratio not in (None, 1.0) or options.kv_rank is not None:
            raise ExportError(
                "An exact conversion keeps the cache as it is.",
                "A ratio or a rank was asked for.",
                "Leave --cache-ratio and --kv-rank out, or choose another --structure.",
            )
        return
    if (options.cache_ratio is None) == (options.kv_rank is None):
        raise ExportError(
            "A reduced conversion needs either a cache ratio or a rank.",
            "Both were given." if options.kv_rank is not None else "None was given.",
            "Give --cache-ratio, such as 0.5, or --kv-rank.",
        )
    if options.cache_ratio is not None and not 0 < options.cache_ratio <= 1:
        raise ExportError(
            "The cache ratio must be above 0 and at most 1.", f"It is {options.cache_ratio}.", "Give 0.5 for half."
        )
    if options.kv_rank is not None:
        most = min(_most(shape, name) for name in (*options.keys, options.values) if name != "exact")
        if not 1 <= options.kv_rank <= most:
            raise ExportError(
                f"The rank must be from 1 to {most} for these structures.",
                f"It is {options.kv_rank}.",
                "Choose a rank in that range.",
            )


def _most(shape: SourceShape, name: str) -> int:
    """The most components of a structure."""
    return {"head": shape.groups, "spectral": shape.groups * shape.head_dim // 2}.get(
        name, shape.groups * shape.head_dim
    )


def convert(
    checkpoint: Checkpoint,
    destination: Path,
    options: ConvertOptions,
    *,
    text: str | None = None,
    overwrite: bool = False,
    progress: Progress,
) -> dict[str, Any]:
    """Convert a checkpoint into a directory at `destination`; returns what conversion.json records.

    Args:
        text: calibration text instead of the one that edgekit carries.

    Raises:
        ModelError, ExportError, CheckpointError: see `check_options`, `source_shape` and `new_directory`.
    """
    shape = source_shape(checkpoint.config)
    check_options(shape, options)
    check_destination(destination, overwrite=overwrite)
    check_weights(model_on_meta(checkpoint.config), checkpoint)
    tokens = statistics = None
    if not options.exact:
        tokens = calibration_tokens(
            checkpoint.tokenizer_files()["tokenizer.json"],
            text or calibration_text(),
            options.sequences + HELD_OUT,
            options.length,
        )
        statistics = attention_statistics(checkpoint, shape, tokens[HELD_OUT:], progress)
    candidates = candidates_of(checkpoint, shape, options, statistics, progress)
    tried: dict[str, float] = {}
    if len(candidates) > 1:
        assert tokens is not None
        progress.stage("compare structures", len(candidates) + 1, "models")
        tried = measured_divergence(checkpoint, candidates, tokens[:HELD_OUT], progress.advance)
        candidates.sort(key=lambda c: with_read_price(tried[c.name], c))
        progress.note(", ".join(f"{name}: {value:.4f} nats" for name, value in tried.items()))
    chosen = candidates[0]
    progress.stage("write")
    record = {
        "options": asdict(options),
        "source": {"path": checkpoint.path.name, "files": checkpoint.files()},
        "chosen": chosen.name,
        "expected_loss_nats": chosen.expected_loss,
        "divergence_on_held_out_text": tried,
        **_bytes_per_token(shape, chosen.config),
        "layers": chosen.record,
    }
    with new_directory(destination, overwrite=overwrite) as folder:
        write_directory(folder, checkpoint, chosen.config, chosen.layers, record)
    return record


def estimate(checkpoint: Checkpoint, options: ConvertOptions) -> dict[str, int]:
    """What a conversion will take, after checking that it can be done.

    bytes_on_disk; peak_memory (two models in float32, bytes); cache_bytes_before and _after, of a token in float16;
    calibration_tokens.
    """
    shape = source_shape(checkpoint.config)
    check_options(shape, options)
    parameters = sum(math.prod(checkpoint.spec(name).shape) for name in checkpoint.names())
    stored = sum(
        math.prod(spec.shape) * (2 if spec.dtype in ("float16", "bfloat16") else 4)
        for spec in map(checkpoint.spec, checkpoint.names())
    )
    before = 2 * shape.numbers * shape.layers
    ratio = 1.0 if options.exact else options.cache_ratio
    if ratio is None:
        rank, whole = options.kv_rank or 0, shape.numbers // 2
        sides = [("key", max(options.keys, key=lambda name: _numbers(name, "key", rank, shape)))]
        sides.append(("value", options.values))
        ratio = sum(min(whole, _numbers(name, side, rank, shape)) for side, name in sides) / shape.numbers
    return {
        "bytes_on_disk": int(stored * 1.02),
        "peak_memory": 8 * parameters,
        "cache_bytes_before": before,
        "cache_bytes_after": int(before * ratio),
        "calibration_tokens": 0 if options.exact else (options.sequences + HELD_OUT) * options.length,
    }


def _numbers(name: str, side: str, rank: int, shape: SourceShape) -> int:
    """What `rank` components of a structure keep per token and layer."""
    if name == "exact":
        return shape.numbers // 2
    return rank * int(structure(side, name).numbers(shape.head_dim))


def attention_statistics(
    checkpoint: Checkpoint, shape: SourceShape, tokens: Tensor, progress: Progress
) -> list[LayerStatistics]:
    """Measured, or read again where the same was measured before."""
    digest = hashlib.sha256(json.dumps([dict(record) for record in checkpoint.files()]).encode())
    digest.update(tokens.numpy().tobytes())
    path = cache_dir() / "attention-statistics" / f"{digest.hexdigest()[:32]}.safetensors"
    if path.is_file():
        progress.note(f"statistics measured before: {path}")
        return load_statistics(path)
    progress.stage("load for calibration")
    model = model_from_checkpoint(checkpoint, max_positions=tokens.shape[1])
    statistics = measure_attention(model, shape, tokens, progress)
    save_statistics(path, statistics)
    return statistics


def candidates_of(
    checkpoint: Checkpoint,
    shape: SourceShape,
    options: ConvertOptions,
    statistics: list[LayerStatistics] | None,
    progress: Progress,
) -> list[Candidate]:
    """One converted model per structure of keys that the options allow, and one that chooses it for each layer.

    Args:
        statistics: None for exact ones.
    """
    weights = {layer: layer_weights(checkpoint, layer, shape) for layer in range(shape.layers)}
    plans = {name: _counts(shape, options, [name] * shape.layers, weights, statistics) for name in options.keys}
    names = {name: [name] * shape.layers for name in options.keys}
    if options.keys == KEY_CANDIDATES:
        per_layer = [_key_structure(plans, layer) for layer in range(shape.layers)]
        if len(set(per_layer)) > 1:
            names[PER_LAYER] = per_layer
            plans[PER_LAYER] = _counts(shape, options, per_layer, weights, statistics)
    progress.stage("convert layers", shape.layers * len(plans), "layers")
    found = []
    for name, (counts, spectra) in plans.items():
        values = structure("value", options.values)
        layers, factors, record = {}, [], []
        for layer in range(shape.layers):
            measured: Any = None if statistics is None else statistics[layer]
            keys = structure("key", names[name][layer])
            key_entry, tensors = keys.convert(weights[layer], measured, counts[layer, "key"])
            value_entry, more = values.convert(weights[layer], measured, counts[layer, "value"])
            layers[layer] = balanced({**tensors, **more})
            factors.append({"key": key_entry, "value": value_entry})
            record.append(
                {
                    side: {
                        "structure": entry["structure"],
                        "components": counts[layer, side],
                        "expected_loss": spectra[layer, side].tail(counts[layer, side]),
                    }
                    for side, entry in (("key", key_entry), ("value", value_entry))
                }
            )
            progress.advance()
        config = converted_config(checkpoint.config, factors)
        found.append(Candidate(name, config, layers, record, expected_loss(spectra, counts)))
    return found


def _key_structure(plans: Mapping[str, tuple[dict[Place, int], dict[Place, Spectrum]]], layer: int) -> str:
    """The structure of a layer's keys: latent where, at as many numbers, that is worth a rebuilding at every read."""
    counts, spectra = plans["latent"]
    place = (layer, "key")
    spectral = plans["spectral"][1][place]
    same = counts[place] * spectra[place].numbers // spectral.numbers
    worth = spectra[place].tail(counts[place]) < REBUILDING_IS_WORTH * spectral.tail(same)
    return "latent" if worth else "spectral"


def _counts(
    shape: SourceShape,
    options: ConvertOptions,
    keys: Sequence[str],
    weights: Mapping[int, LayerWeights],
    statistics: list[LayerStatistics] | None,
) -> tuple[dict[Place, int], dict[Place, Spectrum]]:
    """Components per layer and side, and the losses they were chosen by. `keys`: the structure of each layer's."""
    spectra: dict[Place, Spectrum] = {}
    for layer in range(shape.layers):
        for side, of in (("key", keys[layer]), ("value", options.values)):
            kind = structure(side, of)
            measured: Any = None if statistics is None else statistics[layer]
            # Half as many pairs as numbers make a step; heads come one by one.
            step = 1 if of in ("exact", "head") else STEP // kind.numbers(shape.head_dim)
            losses = kind.losses(weights[layer], measured)
            total = float(losses.sum())
            weight = total ** (DAMPING - 1) if 0 < total < math.inf else 1.0
            spectra[layer, side] = Spectrum(losses, kind.numbers(shape.head_dim), step, weight)
    whole = {place: len(s.losses) for place, s in spectra.items()}
    fixed = [place for place in spectra if (keys[place[0]] if place[1] == "key" else options.values) == "exact"]
    if options.kv_rank is not None:
        return {place: whole[place] if place in fixed else options.kv_rank for place in spectra}, spectra
    if options.exact:
        return whole, spectra
    assert options.cache_ratio is not None
    budget = int(options.cache_ratio * shape.numbers * shape.layers)
    budget -= sum(whole[place] * spectra[place].numbers for place in fixed)
    least = sum(s.step * s.numbers for place, s in spectra.items() if place not in fixed)
    if budget < least:
        lowest = (least + shape.numbers * shape.layers * options.cache_ratio - budget) / shape.numbers / shape.layers
        raise ModelError(
            f"The cache ratio must leave room for each layer's least: {lowest:.3f} with these structures.",
            f"It is {options.cache_ratio}.",
            "Give a larger --cache-ratio or other structures.",
        )
    counts = pooled({place: s for place, s in spectra.items() if place not in fixed}, budget)
    return {place: counts.get(place, whole[place]) for place in spectra}, spectra


def _bytes_per_token(shape: SourceShape, config: dict[str, Any]) -> dict[str, Any]:
    from edgekit.layers.static_factors import LayerFactors

    factors = [LayerFactors.from_dict(f, shape.groups, shape.head_dim) for f in config["attention_factors"]]
    numbers = [factor.numbers(shape.head_dim) for factor in factors]
    before = shape.numbers * shape.layers
    return {
        "cache_numbers_per_token": {"before": before, "after": sum(numbers), "per_layer": numbers},
        "cache_bytes_per_token_float16": {"before": 2 * before, "after": 2 * sum(numbers)},
        "cache_ratio": sum(numbers) / before,
    }
