"""What one step of decoding costs: bytes, arithmetic, time, and what limits it.

    t = max(bytes / (BANDWIDTH_SHARE · bandwidth), operations / (COMPUTE_SHARE · peak))
        + CYCLES_PER_LAYER · layers / clock

The three constants are the same for all models and devices. They were fitted to the figures that TensorRT-Edge-LLM
publishes for Qwen3 on Jetson Orin and Thor (`scripts/check-plan --published` prints figures, fit and residuals); no
engine of edgekit has been timed on a GPU yet.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from edgekit.plan.estimate import Estimate
from edgekit.plan.machine import Machine
from edgekit.plan.model_sizes import EMBEDDING, HEAD, ModelSizes
from edgekit.plan.storage import Compression, activation_bytes, read_bytes

#: Share of the peak bandwidth that products of one row reach.
BANDWIDTH_SHARE = 0.90
#: Cycles of the GPU's clock per layer that go by between kernels and in their prologues.
CYCLES_PER_LAYER = 100_000
#: Share of the half-precision peak that products of a prompt with 4-bit weights reach.
COMPUTE_SHARE = 0.42

#: Published over predicted times lie in this band (tests/plan/test_published.py).
FASTER, SLOWER = 0.15, 0.25

WEIGHTS, CACHE, COMPUTE, LAUNCHES = "weight bandwidth", "cache bandwidth", "compute", "launches between kernels"


@dataclass(frozen=True)
class Step:
    """One step of `positions` new tokens for each of `batch` sequences at a depth of `context` tokens.

    Attributes:
        weight_bytes, cache_bytes: moved to or from memory.
        operations: multiply-adds counted as two.
        *_s: seconds that each resource is busy; None where the device's profile lacks the fact.
    """

    positions: int
    batch: int
    weight_bytes: float
    cache_bytes: float
    operations: float
    weights_s: float
    cache_s: float
    compute_s: float | None
    launch_s: float | None

    @property
    def seconds(self) -> float:
        """For the whole step."""
        return max(self.weights_s + self.cache_s, self.compute_s or 0.0) + (self.launch_s or 0.0)

    @property
    def limit(self) -> str:
        """The resource that takes longest."""
        busy = {WEIGHTS: self.weights_s, CACHE: self.cache_s, LAUNCHES: self.launch_s or 0.0}
        if (self.compute_s or 0.0) > self.weights_s + self.cache_s:
            busy[COMPUTE] = self.compute_s or 0.0
        return max(busy, key=lambda name: busy[name])


@dataclass(frozen=True)
class StepCost:
    """The cost model of one model on one machine.

    Attributes:
        in_place: the cache is written in place; None for what the model and the machine do. Otherwise each step reads
            all of it, writes it anew one token longer, and reads that: three times the bytes.
    """

    sizes: ModelSizes
    machine: Machine
    dtype: str
    extra: Compression = field(default_factory=Compression)
    in_place: bool | None = None
    #: Bytes of weights per step where they are known better than `dtype` tells.
    weights: float | None = None

    def step(self, context: int, batch: int = 1, positions: int = 1, logits: int | None = None) -> Step:
        """One step; `logits` positions get logits, all of them by default."""
        sizes, machine = self.sizes, self.machine
        weights = self.weights or read_bytes(sizes, self.dtype, self.extra).value
        in_place = sizes.cache_in_place or machine.caches_in_place if self.in_place is None else self.in_place
        cache = sizes.cached_numbers(context) if in_place else 3 * sizes.cache_numbers * context
        cache *= batch * activation_bytes(self.dtype)
        logits = positions if logits is None else logits
        bandwidth = BANDWIDTH_SHARE * machine.bandwidth_bytes_per_s
        peak, clock = machine.peak_ops_per_s(self.dtype), machine.gpu_clock_hz
        operations = batch * self._operations(context, positions, logits)
        return Step(
            positions=positions,
            batch=batch,
            weight_bytes=weights,
            cache_bytes=cache,
            operations=operations,
            weights_s=weights / bandwidth,
            cache_s=cache / bandwidth,
            compute_s=None if peak is None else operations / (COMPUTE_SHARE * peak),
            launch_s=None if clock is None else CYCLES_PER_LAYER * sizes.layers / clock,
        )

    def prompt_seconds(self, tokens: int, max_input: int, batch: int = 1) -> float | None:
        """Time to read a prompt in pieces of `max_input` tokens and make the first logits; None without a peak."""
        seconds, depth = 0.0, 0
        while depth < tokens:
            piece = min(max_input, tokens - depth)
            step = self.step(depth + piece, batch, piece, logits=1)
            if step.compute_s is None:
                return None
            seconds += step.seconds
            depth += piece
        return seconds

    def _operations(self, context: int, positions: int, logits: int) -> float:
        sizes = self.sizes
        in_layers = sum(m.numbers for m in sizes.matrices if m.role not in (EMBEDDING, HEAD)) + sizes.unquantised
        head = sizes.vocab_size * sizes.hidden_size
        # Of positions of one piece, each sees those before it: half of the piece on average.
        attention = sizes.attend_macs(max(1, context - positions // 2))
        return 2.0 * (positions * (in_layers + attention) + logits * head)


def with_band(seconds: float, basis: str, weights: Estimate | None = None) -> Estimate:
    """Seconds with the band of published figures, wider where the weights' bytes are uncertain."""
    low, high = 1 - FASTER, 1 + SLOWER
    if weights is not None and weights.value:
        low *= min(1.0, weights.low / weights.value)
        high *= max(1.0, weights.high / weights.value)
    return Estimate(seconds, seconds * low, seconds * high, basis)
