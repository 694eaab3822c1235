"""What a compression is asked for, and how large the checkpoint then is."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from edgekit.checkpoint import Checkpoint
from edgekit.compress.layerwise.stack import layer_of
from edgekit.compress.saten.request import method_named
from edgekit.compress.saten.sparse import sparsity_named
from edgekit.compress.saten.storage import check_dtype
from edgekit.contract import KIND_ENCODER
from edgekit.errors import ExportError, ModelError
from edgekit.layers.encoder import Encoder
from edgekit.models.registry import encoder_on_meta, kind_of, model_on_meta

#: Methods whose codes decide.
CODES = ("saten-augmented", "dense", "gptq", "round")
#: Bits that a base may have where nothing else is asked for: dense methods may also keep 8.
BASE_BITS = {"dense": (2, 3, 4, 8), "gptq": (2, 3, 4, 8), "round": (2, 3, 4, 8)}


#: Bits per weight to reckon with where a time is given.
EXPECTED_BITS = 4.0

#: Choices about a matrix's form, and the options that make them.
FORMS = {
    "sparsity": "--sparsity",
    "factors": "--quantize-factors",
    "order": "--order",
    "base_bits": "--base-bits",
    "symmetric": "--symmetric",
}
EMBEDDINGS = ("keep", "int8")
TM_PARAMS = "tm_params"
LAYOUTS = ("edgekit", TM_PARAMS)
#: Methods without a base of codes.
TM_METHODS = ("saten", "saten-faithful", "svd", "svd-aware", "tt")
#: Inputs that share a scale in TensorRT's codes of 4 bits (`edgekit.export.options.TENSORRT_BLOCK_SIZES`).
SYMMETRIC_BLOCKS = (64, 128)


@dataclass(frozen=True)
class CompressOptions:
    """What is asked for; exactly one of bits_per_weight, ratio, target_bytes and target_ms.

    Attributes:
        method: of every matrix, or of those that allocation does not keep dense.
        bits_per_weight: of the matrices that are compressed, everything counted.
        ratio: bytes of all weights over those of the same weights in float16.
        target_bytes: bytes of all weights.
        target_ms: milliseconds that one token's products with the matrices may take, by the cost model.
        sparsity: spelled as `sparsity_named` reads it; None leaves the sparse part to the method.
        factors: dtype of factors, of `storage`; None for the method's own.
        order: of tensor trains; None for the method's own.
        base_bits: bit widths of bases; empty for the method's own.
        symmetric: bases without zero points, in the blocks that TensorRT takes, for engines.
        embeddings: "keep" as they are, or "int8": tables of embeddings and heads rounded to 8 bits.
        layout: "edgekit", or "tm_params": that of Saten's published training code, float and not quantised.
        rounds: of alternation.
        keep: shell patterns of matrices that stay as they are.
        allocate: share bytes among matrices by measured sensitivity; else all have as many bits per weight.
        sequences, length: passages of the calibration text, and tokens of each.
        minutes: time that fitting may take, by the estimate; None for any.
        workers: layers that are fitted at one time.
    """

    method: str = "saten-augmented"
    bits_per_weight: float | None = None
    ratio: float | None = None
    target_bytes: int | None = None
    target_ms: float | None = None
    sparsity: str | None = None
    factors: str | None = None
    order: int | None = None
    base_bits: tuple[int, ...] = ()
    symmetric: bool = False
    embeddings: str = "keep"
    layout: str = "edgekit"
    rounds: int = 4
    keep: tuple[str, ...] = ()
    allocate: bool = True
    sequences: int = 256
    length: int = 128
    minutes: float | None = None
    workers: int = 1

    def __post_init__(self) -> None:
        reads = method_named(self.method).READS
        idle = [name for name in FORMS if getattr(self, name) and name not in reads]
        if idle:
            raise ExportError(
                "what is chosen must have an effect",
                f"{self.method} takes {', '.join(FORMS[name] for name in reads)}, and not {FORMS[idle[0]]}",
                f"leave {FORMS[idle[0]]} out, or choose another --method",
            )
        if self.sparsity is not None:
            sparsity_named(self.sparsity)
        if self.factors is not None:
            check_dtype(self.factors)
        if self.embeddings not in EMBEDDINGS:
            raise ExportError(
                f"embeddings are one of {', '.join(EMBEDDINGS)}", f"{self.embeddings!r} was asked for", "choose one"
            )
        if self.layout not in LAYOUTS:
            raise ExportError(f"a layout is one of {', '.join(LAYOUTS)}", f"it is {self.layout!r}", "choose one")
        if self.layout == TM_PARAMS and self.method not in TM_METHODS:
            raise ExportError(
                f"tm_params holds tensor trains and residuals: {', '.join(TM_METHODS)} make such",
                f"{self.method} was asked for",
                "choose another --method, or leave --format out",
            )
        given = [self.bits_per_weight, self.ratio, self.target_bytes, self.target_ms]
        if sum(value is not None for value in given) != 1:
            raise ExportError(
                "a size is bits per weight, a ratio, bytes, or the time of a token",
                f"{sum(value is not None for value in given)} of them were given",
                "give one of --bits-per-weight, --ratio, --target-bytes and --target-ms",
            )
        if not all(value is None or (math.isfinite(value) and value > 0) for value in given):
            raise ExportError("a size must be above 0", f"{given} was given", "give a larger one")
        if self.target_ms is not None and (self.method not in CODES or self.sparsity is not None or not self.allocate):
            raise ExportError(
                f"--target-ms shares time among bases and low rank of {', '.join(CODES)}",
                f"{self.method} was asked for"
                + (f" with --sparsity {self.sparsity}" if self.sparsity is not None else "")
                + ("" if self.allocate else " with --uniform"),
                "choose another of the two",
            )

    @property
    def settings(self) -> dict[str, Any]:
        """What a plan for this sets for all matrices, by the names of `plan.SETTINGS`."""
        base = list(self.base_bits or BASE_BITS.get(self.method, ()))
        asked = {"sparsity": self.sparsity, "order": self.order, "factors": self.factors, "base_bits": base}
        found: dict[str, Any] = {key: value for key, value in asked.items() if value not in (None, [])}
        found["rounds"] = self.rounds
        if self.symmetric:
            found |= {"symmetric": True, "base_blocks": list(SYMMETRIC_BLOCKS)}
        return found


@dataclass(frozen=True)
class Sizes:
    """A checkpoint's weights.

    Attributes:
        matrices: what is compressed: weight -> [N, K], layer by layer.
        kept_bytes: of everything else, as it will be stored.
        weights: how many there are in all.
    """

    matrices: dict[str, tuple[int, int]]
    kept_bytes: int
    weights: int

    @property
    def compressed_weights(self) -> int:
        """How many the matrices hold."""
        return sum(rows * columns for rows, columns in self.matrices.values())


def sizes_of(checkpoint: Checkpoint, keep: tuple[str, ...] = (), embeddings: str = "keep") -> Sizes:
    """The matrices of all layers but those that match a pattern of `keep`, and what the rest takes.

    Raises:
        ModelError: nothing is left to compress, or a pattern matches no matrix.
    """
    found, rest, weights = {}, 0, 0
    linear = linear_weights(checkpoint)
    for name in weight_names(checkpoint):
        spec = checkpoint.spec(name)
        weights += math.prod(spec.shape)
        layer = layer_of(name)
        wanted = layer is not None and name in linear and not any(fnmatchcase(name, k) for k in keep)
        if wanted:
            found[name] = (layer or 0, (spec.shape[0], spec.shape[1]))
        else:
            rest += stored_bytes_of(checkpoint, name, embeddings)
    in_layers = [name for name in weight_names(checkpoint) if layer_of(name) is not None and name in linear]
    for pattern in keep:
        if not any(fnmatchcase(name, pattern) for name in in_layers):
            raise ModelError(
                "a pattern of matrices to keep matches one at least",
                f"--keep {pattern} matches none of {len(in_layers)}, such as {in_layers[0] if in_layers else 'none'}",
                "write it as '*.down_proj.weight', with the names that edgekit inspect shows",
            )
    if not found:
        raise ModelError(
            "a checkpoint to compress must have matrices in its layers",
            "none is left",
            "give fewer patterns of matrices to --keep",
        )
    order = sorted(found, key=lambda name: found[name][0])
    return Sizes({name: found[name][1] for name in order}, rest, weights)


def linear_weights(checkpoint: Checkpoint) -> set[str]:
    """The weights of a model's linear layers."""
    encoder = kind_of(checkpoint.config) == KIND_ENCODER
    model: nn.Module = encoder_on_meta(checkpoint.config) if encoder else model_on_meta(checkpoint.config)
    return {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear)}


def weight_names(checkpoint: Checkpoint) -> list[str]:
    """Names of all weights, without what no embedding depends on (an encoder's pooler, position numbers)."""
    unused = Encoder.unused_weights if kind_of(checkpoint.config) == KIND_ENCODER else re.compile("(?!)")
    return [name for name in checkpoint.names() if not unused.fullmatch(name)]


#: What keeps its integers: GGML types whose zero is a code.
EXACT_TYPES = {"Q8_0": 8, "Q4_0": 4}


def is_table(checkpoint: Checkpoint, name: str) -> bool:
    """Whether a weight is an embedding's or a head's: a matrix outside the layers whose rows are whole blocks of 32."""
    shape = checkpoint.spec(name).shape
    return layer_of(name) is None and len(shape) == 2 and shape[1] % 32 == 0 and shape[0] > 1


def stored_bytes_of(checkpoint: Checkpoint, name: str, embeddings: str = "keep") -> int:
    """What a weight takes that is not compressed: its own type, or float32 for integers that no base expresses."""
    spec = checkpoint.spec(name)
    size = math.prod(spec.shape)
    bits = EXACT_TYPES.get(spec.dtype) if len(spec.shape) == 2 else None
    if bits is None and embeddings == "int8" and is_table(checkpoint, name):
        bits = 8
    if bits is not None:
        return size * bits // 8 + size // 32 * 2 + -(-size // 32 * bits // 8)
    return size * {"float16": 2, "bfloat16": 2}.get(spec.dtype, 4)


def budget_of(options: CompressOptions, sizes: Sizes) -> int:
    """Bytes for all matrices together; what is to be expected of a time.

    Raises:
        ExportError: what is not compressed already takes more than was asked for.
    """
    if options.target_ms is not None:
        return int(EXPECTED_BITS * sizes.compressed_weights / 8)
    if options.bits_per_weight is not None:
        return int(options.bits_per_weight * sizes.compressed_weights / 8)
    whole = options.target_bytes if options.target_bytes is not None else int((options.ratio or 0) * 2 * sizes.weights)
    if whole <= sizes.kept_bytes:
        least = sizes.kept_bytes / (2 * sizes.weights)
        raise ExportError(
            f"the weights that are not compressed (embeddings, norms) take {sizes.kept_bytes:,} bytes",
            f"{whole:,} bytes were asked for in all",
            f"ask for more than {sizes.kept_bytes:,} bytes (a ratio of {least:.3f}), give --bits-per-weight of the "
            "matrices alone, or make tables smaller with --embeddings int8",
        )
    return whole - sizes.kept_bytes
