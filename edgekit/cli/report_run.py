"""What `edgekit report --run` measures first: whatever is missing or stale, with an estimate before it begins."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from edgekit.errors import EdgekitError

if TYPE_CHECKING:
    from edgekit.bundle import Bundle
    from edgekit.evaluate.perplexity import EncodedText
    from edgekit.evaluate.windows import WindowPlan
    from edgekit.progress import Progress

CONTEXT = 512
#: Greedy tokens of each prompt, as `edgekit parity` has it by default.
PARITY_TOKENS = 64
_PROBE_PROMPT, _PROBE_STEPS = 128, 4
#: A step in float32 over one of the bundle's, by the bytes of a weight with its scale.
_FLOAT32_STEPS = {"fp32": 1.0, "fp16": 2.0, "int8": 3.5, "int4": 6.5}
#: Steps in float32 that parity takes for each greedy token, in PyTorch and in the exact graph: 362 s for 512 tokens of
#: SmolLM2-135M as int8, whose own steps took 29 ms then, on two processors that others used too.
_PARITY_STEPS = 7.0


def run_what_is_missing(bundle: Bundle, *, offline: bool) -> list[EdgekitError]:
    """Measure parity, perplexity on the shipped text, and speed, each unless it is there and current.

    Returns:
        Why a measurement could not be made or failed; the others are made all the same.
    """
    from edgekit.bundle import read_sidecar
    from edgekit.cli.display_progress import displayed_progress

    needed = [name for name in MEASURES if read_sidecar(bundle, name) is None]
    failures: list[EdgekitError] = []
    with displayed_progress() as progress:
        if not needed:
            progress.note("parity, eval and bench have been measured with this bundle: nothing to run")
            return []
        progress.stage("estimating")
        progress.note(f"to measure: {', '.join(needed)}; {estimate(bundle, needed)}")
        for name in needed:
            try:
                MEASURES[name](bundle, offline, progress)
            except EdgekitError as error:
                progress.note(f"{name} was not measured: {error.fact or error.rule}")
                failures.append(error)
    return failures


def estimate(bundle: Bundle, needed: Iterable[str]) -> str:
    """ "about 3 min": from how long a prompt and a few steps take now. Coarse: parity's share is a rule of thumb."""
    import numpy as np

    from edgekit.cli.display_progress import duration
    from edgekit.runtime.session import session_from_bundle
    from edgekit.runtime.threads import default_threads

    started = time.perf_counter()
    session = session_from_bundle(bundle, backend="cpu", threads=default_threads())
    load = time.perf_counter() - started
    try:
        prompt = np.ones((1, min(_PROBE_PROMPT, session.capacity - _PROBE_STEPS)), np.int64)
        session.forward(prompt)
        started = time.perf_counter()
        for _ in range(_PROBE_STEPS):
            session.forward(np.ones((1, 1), np.int64))
        step = (time.perf_counter() - started) / _PROBE_STEPS
        session.reset()
        started = time.perf_counter()
        session.forward(prompt)
        token = (time.perf_counter() - started) / prompt.shape[1]
    finally:
        session.close()
    costs = {
        "parity": _parity_s(bundle, step),
        "eval": _eval_s(bundle, token),
        "bench": _bench_s(bundle, load, step, token),
    }
    return f"about {duration(sum(costs[name] for name in needed))} as busy as this machine is now"


def _parity_s(bundle: Bundle, step_s: float) -> float:
    from edgekit.parity.prompts import shipped_prompts

    steps = len(shipped_prompts()) * PARITY_TOKENS
    return steps * step_s * (1 + _PARITY_STEPS * _FLOAT32_STEPS.get(bundle.manifest.dtype, 4.0))


def _eval_s(bundle: Bundle, token_s: float) -> float:
    text, _ = _text(bundle)
    return len(text.tokens) * token_s


def _bench_s(bundle: Bundle, load_s: float, step_s: float, token_s: float) -> float:
    from edgekit.benchmark.run import options_within

    options = options_within(bundle.manifest.cache.capacity_limit)
    tokens = sum(options.prompt_tokens) + max(options.depths)
    steps = len(options.depths) * options.decode_tokens
    return 7 * load_s + (options.repetitions + 1) * (tokens * token_s + steps * step_s)


def _parity(bundle: Bundle, offline: bool, progress: Progress) -> None:
    from edgekit.bundle import write_sidecar
    from edgekit.cli.torch_needed import require_torch

    require_torch("comparing a bundle with PyTorch")
    from edgekit.parity.check import parity_of
    from edgekit.parity.origin import checkpoint_of

    checkpoint = checkpoint_of(bundle, None, offline=offline)
    report = parity_of(bundle, checkpoint, tokens=PARITY_TOKENS, progress=progress)
    write_sidecar(bundle, "parity", report.to_dict())
    report.require()


def _eval(bundle: Bundle, offline: bool, progress: Progress) -> None:
    from edgekit.bundle import write_sidecar
    from edgekit.evaluate.document import eval_document
    from edgekit.evaluate.of_bundle import perplexity_of_bundle

    text, plan = _text(bundle)
    write_sidecar(
        bundle, "eval", eval_document(text, plan, perplexity_of_bundle(bundle, text, plan, progress=progress))
    )


def _text(bundle: Bundle) -> tuple[EncodedText, WindowPlan]:
    from edgekit.evaluate.text import SHIPPED_TEXT, encoded_text
    from edgekit.evaluate.windows import plan_of

    tokens = bundle.manifest.tokens
    context = min(CONTEXT, bundle.manifest.cache.capacity_limit)
    return encoded_text(SHIPPED_TEXT, bundle), plan_of(context, None, tokens.bos if tokens.add_bos else None)


def _bench(bundle: Bundle, offline: bool, progress: Progress) -> None:
    from edgekit.benchmark.run import benchmark, options_within, require_parity
    from edgekit.bundle import write_sidecar

    require_parity(bundle)
    options = options_within(bundle.manifest.cache.capacity_limit)
    write_sidecar(bundle, "bench", benchmark(bundle, options, progress))


#: In the order in which they are made: speed is measured once answers are proven.
MEASURES: dict[str, Callable[[Bundle, bool, Progress], None]] = {"parity": _parity, "eval": _eval, "bench": _bench}
