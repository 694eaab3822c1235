"""How far a bundle may be from PyTorch, by the numbers it computes with.

Three questions, each with its own gate:

weights: are the stored codes the checkpoint's weights, up to the rounding of that many bits?
graph: does the graph compute what PyTorch computes with the very same weights? Only the arithmetic differs here.
model: does the quantised model still choose as the original does? A coarse gate: how much quality a format costs is
    measured by `edgekit eval`, this only tells a costly format from a broken one.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.parity.compare import Difference


@dataclass(frozen=True)
class Tolerance:
    """Bounds of a Difference; None where a measure is reported but not judged."""

    cosine: float
    relative_error: float
    max_abs_error: float | None = None

    def objection(self, difference: Difference) -> str | None:
        """The first bound that is broken, in words; None when all hold. What is not a number breaks its bound."""
        if not difference.cosine >= self.cosine:
            return f"cosine {difference.cosine:.9f} is below {self.cosine}"
        if self.max_abs_error is not None and not difference.max_abs_error <= self.max_abs_error:
            return f"the largest error {difference.max_abs_error:.3g} is above {self.max_abs_error:g}"
        if not difference.relative_error <= self.relative_error:
            return f"the relative error {difference.relative_error:.3g} is above {self.relative_error:g}"
        return None


@dataclass(frozen=True)
class GraphTolerance:
    """For each kind of stage."""

    hidden: Tolerance
    cache: Tolerance
    logits: Tolerance

    def of(self, stage: str) -> Tolerance:
        """The tolerance of a stage by its name: "hidden.3", "cache.3.key", "features" or "logits"."""
        # What draft heads read is the residual stream.
        kind = "hidden" if stage == "features" else stage.split(".")[0]
        tolerance: Tolerance = getattr(self, kind)
        return tolerance


_COARSE = Tolerance(cosine=0.8, relative_error=0.1)
_FINE = Tolerance(cosine=0.999_9, relative_error=3e-3)
_EXACT = Tolerance(cosine=0.999_999, relative_error=1e-4)

#: By the element type that matrix products read their activations in; with the same weights on both sides.
#: float32: both sides round differently, nothing more. float16: 11 bits in every activation. int8: kernels round
#: the activations of each block of a matrix product to 8 bits (MatMulNBits with accuracy_level 4); on SmolLM2-135M
#: that makes relative errors of 0.035 in logits and 0.05 in caches, and a cosine of 0.95 at the worst position. It is
#: loose because the same graph without that rounding is held to float32. int16: the base of edgekit::TTSparseLinear is
#: multiplied by activations of 16 bits, 256 times finer.
GRAPH = {
    "float32": GraphTolerance(_EXACT, _EXACT, Tolerance(0.999_999, 1e-4, max_abs_error=1e-3)),
    "float16": GraphTolerance(Tolerance(0.999, 0.03), Tolerance(0.999, 0.03), Tolerance(0.999, 0.03)),
    "int16": GraphTolerance(_FINE, _FINE, _FINE),
    "int8": GraphTolerance(_COARSE, _COARSE, _COARSE),
}


@dataclass(frozen=True)
class WeightTolerance:
    """Bounds of ‖stored - original‖ / ‖original‖ for a matrix, and for any of its rows."""

    matrix: float
    row: float


#: By the bits of a code. Round-to-nearest over blocks of normally distributed weights gives about 0.3 * 2**-(bits-2);
#: rounding that compensates errors (GPTQ) up to twice that; codes read in the wrong order or with the wrong scale
#: about 1.
WEIGHTS = {2: WeightTolerance(0.7, 0.9), 4: WeightTolerance(0.3, 0.5), 8: WeightTolerance(0.02, 0.05)}
#: With one scale for each output: a weight of t standard deviations makes steps of t/127, and an error of t/(127 √12)
#: in its row. Rows of SmolLM2-135M reach 0.063 (t = 28), its matrices 0.012.
WEIGHTS_PER_OUTPUT = {4: WeightTolerance(0.3, 0.5), 8: WeightTolerance(0.02, 0.1)}

#: What a checkpoint stores compressed is carried over as it is: sums in float32 alone differ.
WEIGHTS_AS_COMPRESSED = WeightTolerance(1e-5, 1e-4)
#: Both halves of a contracted train are rounded to 11 bits: 2^-12 each at most, and half of that on average.
WEIGHTS_CONTRACTED = WeightTolerance(2**-11, 2**-10)


@dataclass(frozen=True)
class ModelTolerance:
    """Bounds against the original over all positions: mean KL divergence in nats, share of equal first choices."""

    kl_mean: float
    top1: float


#: By the bundle's dtype.
MODEL = {
    "fp32": ModelTolerance(kl_mean=1e-6, top1=0.99),
    "fp16": ModelTolerance(kl_mean=0.01, top1=0.95),
    "int8": ModelTolerance(kl_mean=0.03, top1=0.90),
    "int4": ModelTolerance(kl_mean=0.3, top1=0.70),
}

#: Smallest cosine of a text's embedding to the original's, by the bundle's dtype.
EMBEDDING = {"fp32": 0.999_999, "fp16": 0.999_9, "int8": 0.99, "int4": 0.85}


@dataclass(frozen=True)
class DraftTolerance:
    """Bounds of a draft graph against its heads in float32: mean total variation of what each computed component says
    of each drafted token, and of the components' weights."""

    tokens: float
    weights: float


#: By the bundle's dtype. As much of a draft's acceptance is lost at most.
DRAFT = {
    "fp32": DraftTolerance(1e-5, 1e-5),
    "fp16": DraftTolerance(0.01, 0.01),
    "int8": DraftTolerance(0.05, 0.05),
    "int4": DraftTolerance(0.15, 0.15),
}
