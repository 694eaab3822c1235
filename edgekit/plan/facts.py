"""A plan as JSON-ready facts."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from edgekit.plan.drafts import TRAINED
from edgekit.plan.limits import largest_batch, largest_context
from edgekit.plan.plan import Plan
from edgekit.plan.suggestions import Suggestion, build_suggestions, run_suggestions

#: Fields of options that say how they came about, or stand elsewhere.
_NO_OPTIONS = ("compression", "assumed")


def plan_facts(plan: Plan) -> dict[str, Any]:
    """Everything that the plan tells; sizes in bytes, times in seconds."""
    device, mode, speed = plan.machine.device, plan.machine.mode, plan.speed
    return {
        "model": {
            "name": plan.model,
            "model_type": plan.sizes.model_type,
            "parameters": plan.sizes.parameters,
            "cache_numbers_per_token": plan.sizes.cache_numbers,
        },
        "device": {"name": device.name, "title": device.title, "power_mode": mode.name},
        "options": {key: value for key, value in asdict(plan.options).items() if key not in _NO_OPTIONS},
        "verdict": {"run": plan.run_verdict, "build": plan.build_verdict, "fits": plan.fits},
        "memory": {
            "items": {item.name: item.bytes.facts() for item in plan.memory.items},
            "total": plan.memory.total.facts(),
            "available": plan.memory.available,
        },
        "build": plan.build.facts(),
        "speed": {
            "tokens_per_s": speed.tokens_per_s.facts(),
            "tokens_per_s_at_start": speed.at_start.facts(),
            "limit": speed.step.limit,
            "first_token_s": speed.first_token_s.facts() if speed.first_token_s else None,
            "first_token_limit": speed.first_token_limit,
            "tokens_per_joule": speed.tokens_per_joule.facts() if speed.tokens_per_joule else None,
            "step": asdict(speed.step) | {"seconds": speed.step.seconds},
        },
        "multi_token": asdict(plan.break_even),
        "drafting": None
        if plan.drafting is None
        else {**vars(plan.drafting), "tokens_per_s": plan.drafting.tokens_per_s.facts()},
        "smaller_cache": asdict(plan.cache_pays),
        "largest_context": largest_context(plan),
        "largest_batch": largest_batch(plan),
        "suggestions": [_suggestion(entry) for entry in run_suggestions(plan)],
        "build_suggestions": build_suggestions(plan),
        "missing": missing(plan),
        "notes": notes(plan),
    }


def _suggestion(entry: Suggestion) -> dict[str, Any]:
    return {
        "change": entry.change,
        "command": entry.command,
        "verdict": entry.plan.run_verdict,
        "total_bytes": entry.plan.memory.total.value,
        "tokens_per_s": entry.plan.speed.tokens_per_s.value if entry.speed_is_known else None,
    }


def missing(plan: Plan) -> list[str]:
    """What the device's profile does not say, and what is left out for it."""
    device, lacking = plan.machine.device, []
    if device.memory_reserved_bytes is None:
        lacking.append("memory that the system keeps: all of it is counted as available")
    if plan.machine.gpu_clock_hz is None:
        lacking.append("the GPU's clock: time between kernels is left out, speeds are too high for small models")
    if plan.machine.peak_ops_per_s(plan.options.dtype) is None:
        lacking.append("the peak of half-precision products: no time to first token, arithmetic is left out of speeds")
    if plan.machine.mode.watts is None:
        lacking.append(f"a power limit in mode {plan.machine.mode.name}: no tokens per joule")
    return lacking


def notes(plan: Plan) -> list[str]:
    """What the figures leave out, and what to know about them."""
    found = ["Speeds rest on published figures of another runtime: no engine of edgekit has been timed on a GPU yet."]
    if not (plan.sizes.cache_in_place or plan.machine.caches_in_place):
        found.append(
            "This TensorRT is older than 10.15: the graph makes a new, longer cache at each step, so there are two "
            "buffers, a step moves three times the cache's bytes and cannot be replayed as a CUDA graph, and small "
            "models may be slower than told."
        )
    elif plan.machine.older_releases and not plan.sizes.cache_in_place:
        found.append(
            f"The cache is written in place, as TensorRT 10.15 and newer do. With {plan.machine.older_releases[-1]} it "
            "grows: twice its memory, and three times its bytes a step."
        )
    if any(cache.window > 0 for cache in plan.sizes.caches):
        found.append("Layers with a sliding window keep all tokens in the cache: the graph masks, and drops none.")
    if plan.machine.device.memory_is_shared:
        found.append("GPU and CPU share the memory: a desktop and other programs take from what is called available.")
    if plan.machine.version_without_form:
        found.append(
            f"The newest TensorRT in the profile is {plan.machine.version_without_form}, "
            "and edgekit exports for 10.3 and newer."
        )
    found += plan.options.assumed
    if plan.options.drafts is not None and plan.options.drafts.basis == TRAINED:
        found.append(
            "Heads are accepted less often in conversations than on text like that of their training: of those of "
            "SmolLM2-135M 59 % of first tokens there, and 36 to 47 % on questions (docs/draft-training.md). edgekit "
            "bench BUNDLE --draft cp measures this bundle, and the next plan goes by it; --acceptance P does without."
        )
    if plan.options.drafts is not None:
        found.append(
            "What drafting wins is an upper bound: bytes, arithmetic and launches of a step are counted, not that "
            "kernels for several positions reach less of a device than those for one, and are not replayed as CUDA "
            "graphs. edgekit bench --draft measures it."
        )
        if plan.options.drafts.graph_bytes is None:
            found.append("What drafts is not told, so drafting itself counts nothing: as it is with copies (ngram).")
    if plan.build.on_device and plan.build.seconds is None:
        found.append("TensorRT times kernels on the device while it builds; how long that takes was not measured.")
    return found
