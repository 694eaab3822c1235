"""Memory at run time, item by item."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.plan.activations import activation_memory, plugin_workspace
from edgekit.plan.estimate import Estimate, total
from edgekit.plan.machine import Machine
from edgekit.plan.model_sizes import ModelSizes
from edgekit.plan.options import PlanOptions
from edgekit.plan.storage import activation_bytes, weight_bytes

#: CUDA context, TensorRT's own and, where GPU and CPU share memory, the process around them.
#: Discrete: https://github.com/pytorch/pytorch/issues/107667 (about 300 MB with kernels loaded lazily).
#: Shared: what TensorRT-Edge-LLM 0.9.0 reports on AGX Orin for Qwen3 of 0.6 to 8 billion parameters (1,931 to 8,221 MB)
#: less weights and caches leaves 0.8 to 1.8 GB, activations for 2,048 new tokens included.
CONTEXT_DISCRETE = Estimate(300e6, 150e6, 600e6, "about 300 MB with lazy loading (pytorch#107667)")
CONTEXT_SHARED = Estimate(600e6, 300e6, 1_000e6, "what TensorRT-Edge-LLM's published totals leave on AGX Orin")


@dataclass(frozen=True)
class Item:
    """One use of memory, in bytes."""

    name: str
    bytes: Estimate


@dataclass(frozen=True)
class RunMemory:
    """What running takes, in bytes.

    Attributes:
        available: what the device leaves to a program.
    """

    items: tuple[Item, ...]
    total: Estimate
    available: int

    def of(self, name: str) -> Estimate:
        """The item of that name."""
        return next(item.bytes for item in self.items if item.name == name)


WEIGHTS, CACHE, ACTIVATIONS = "weights", "cache", "activations"
WORKSPACE, BUFFERS, CONTEXT = "plugin workspace", "inputs and outputs", "CUDA context and runtime"


def cache_bytes(sizes: ModelSizes, options: PlanOptions) -> int:
    """Bytes of the cache for all sequences, once.

    Layers with a sliding window keep all tokens: the graph masks what is out of the window, and does not drop it.
    """
    return sizes.cache_numbers * options.context * options.batch * activation_bytes(options.dtype)


def run_memory(sizes: ModelSizes, machine: Machine, options: PlanOptions) -> RunMemory:
    """Memory of one engine with one session."""
    weights = weight_bytes(sizes, options.dtype, options.context, options.compression)
    if options.resident_weight_bytes is not None:
        kept = min(options.resident_weight_bytes, weights.value)
        weights = Estimate.exact(kept, "the part that weight streaming keeps on the GPU")
    in_place = sizes.cache_in_place or machine.caches_in_place
    copies = 1 if in_place else 2
    cache_basis = "written in place" if copies == 1 else "two buffers that take turns: a step makes a new, longer cache"
    workspace = plugin_workspace(sizes, options.batch, options.max_input, machine.device.streaming_multiprocessors)
    buffers = options.batch * (4 * sizes.vocab_size + 16 * options.max_input + 16 * options.context)
    items = (
        Item(WEIGHTS, weights),
        Item(CACHE, Estimate.exact(copies * cache_bytes(sizes, options), cache_basis)),
        Item(
            ACTIVATIONS,
            activation_memory(
                sizes, options.dtype, options.batch, options.max_input, options.context, in_place=in_place
            ),
        ),
        Item(WORKSPACE, Estimate.exact(workspace, "the formula of the plugin" if workspace else "no plugin")),
        Item(BUFFERS, Estimate.exact(buffers, "token ids, mask, and one row of logits per sequence")),
        Item(CONTEXT, CONTEXT_SHARED if machine.device.memory_is_shared else CONTEXT_DISCRETE),
    )
    return RunMemory(
        items, total((item.bytes for item in items), "sum of the items"), machine.device.usable_memory_bytes
    )
