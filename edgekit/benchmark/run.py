"""A benchmark of one bundle: loading, prompts, decoding, memory, and what they are to be judged by."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from edgekit.benchmark.bandwidth import METHOD
from edgekit.benchmark.conversations import Questions, shipped_conversations
from edgekit.benchmark.environment import environment
from edgekit.benchmark.process import drop_file_cache, run_worker
from edgekit.benchmark.samples import summary
from edgekit.benchmark.worker import Request
from edgekit.bundle import Bundle, read_sidecar
from edgekit.errors import EdgekitError
from edgekit.progress import Progress, SilentProgress
from edgekit.runtime.threads import default_threads

_MOST_LOADS = 3


@dataclass(frozen=True)
class BenchmarkOptions:
    """What is measured.

    Attributes:
        prompt_tokens: lengths of prompts.
        depths: tokens in the cache when decoding begins.
        decode_tokens: tokens decoded at each depth.
        threads: None for one per physical core.
        operators: how custom operators run, see `edgekit.runtime.operators`.
        draft: what drafts, see `edgekit.runtime.drafting.open`; None to measure no drafting.
        draft_tokens: tokens of each draft; None for the controller's choice.
        answer_tokens: at most, of each answer to `conversations`, which are asked with drafts and without.
    """

    prompt_tokens: tuple[int, ...] = (128, 512)
    depths: tuple[int, ...] = (128, 1024)
    decode_tokens: int = 32
    repetitions: int = 5
    threads: int | None = None
    backend: str = "cpu"
    operators: str = "auto"
    draft: str | None = None
    draft_tokens: int | None = None
    answer_tokens: int = 128
    conversations: tuple[Questions, ...] = ()

    def __post_init__(self) -> None:
        for what, values in (("prompt length", self.prompt_tokens), ("depth", self.depths)):
            if len(set(values)) != len(values) or not values or min(values) < 1:
                raise EdgekitError(
                    f"each {what} is given once and is at least 1", f"they are {', '.join(map(str, values))}"
                )


def options_within(context: int) -> BenchmarkOptions:
    """The usual options, with lengths cut to what a context of so many tokens holds, and each once."""
    usual = BenchmarkOptions()
    decoded = min(usual.decode_tokens, max(1, context - 1))
    return replace(
        usual,
        prompt_tokens=tuple(dict.fromkeys(min(tokens, context) for tokens in usual.prompt_tokens)),
        depths=tuple(dict.fromkeys(max(1, min(depth, context - decoded)) for depth in usual.depths)),
        decode_tokens=decoded,
    )


def require_parity(bundle: Bundle) -> None:
    """Raise EdgekitError unless this very bundle was compared with PyTorch and passed."""
    found = read_sidecar(bundle, "parity")
    if found is not None and found.get("passed") is True:
        return
    fact = "it was never compared with PyTorch" if found is None else f"it failed: {found.get('failure')}"
    raise EdgekitError(
        "a bundle's speed is reported once its answers are proven",
        f"{bundle.path}: {fact}",
        f"run edgekit parity {bundle.path}, or measure all the same with --unchecked",
    )


def benchmark(bundle: Bundle, options: BenchmarkOptions, progress: Progress) -> dict[str, Any]:
    """Measure in processes of their own; the report for JSON.

    Raises:
        EdgekitError: a prompt or a depth does not fit the context, or the answers are wrong.
        SessionError, DoesNotFit: see session_from_bundle.
    """
    _check_lengths(bundle, options)
    if options.draft is not None:
        from edgekit.runtime.drafting.open import check_choice

        check_choice(bundle, options.draft)
    threads = options.threads or default_threads()
    parity = read_sidecar(bundle, "parity")
    load_only = Request("load", str(bundle.path), options.backend, threads, operators=options.operators)
    before = environment()

    loads = min(options.repetitions, _MOST_LOADS)
    load: dict[str, Any] = {}
    progress.stage("loading", 2 * loads, "loads")
    for state in ("cold", "warm"):
        samples = []
        for _ in range(loads):
            if state == "cold" and not drop_file_cache(bundle):
                break
            samples.append(run_worker(load_only, SilentProgress()))
            progress.advance()
        load[state] = _loads(samples) if samples else None

    request = replace(
        load_only,
        task="measure",
        prompt_tokens=options.prompt_tokens,
        depths=options.depths,
        decode_tokens=options.decode_tokens,
        repetitions=options.repetitions,
    )
    measured = run_worker(request, progress)
    drafted = None
    if options.draft is not None:
        drafted = run_worker(_draft_request(load_only, options), progress)
    bandwidth = measured["read_bandwidth"]
    for decode in measured["decodes"]:
        decode["roofline"] = roofline(bundle, decode["depth"] + options.decode_tokens / 2, decode, bandwidth)
    model = bundle.manifest.model
    return {
        "bundle": str(bundle.path),
        "model": model.name,
        "form": bundle.manifest.form,
        "dtype": bundle.manifest.dtype,
        "parity": None if parity is None else parity.get("passed") is True,
        "settings": {**asdict(replace(options, conversations=())), "threads": threads},
        "session": measured["session"],
        "environment": before,
        "load": load,
        "prompts": measured["prompts"],
        "decodes": measured["decodes"],
        "memory": {
            "loaded": measured["memory_loaded"],
            "measured": measured["memory_measured"],
            "weight_file_bytes": weight_bytes(bundle),
        },
        "read_bandwidth_bytes_per_s": bandwidth,
        "read_bandwidth_method": METHOD,
        "others_cpu_share": measured["others_cpu_share"],
        "draft": drafted,
        "telemetry": measured["telemetry"],
    }


def _draft_request(request: Request, options: BenchmarkOptions) -> Request:
    asked = options.conversations or tuple(shipped_conversations())
    return replace(
        request,
        task="drafts",
        draft=str(options.draft),
        draft_tokens=options.draft_tokens,
        answer_tokens=options.answer_tokens,
        conversations=tuple((each.group, each.turns) for each in asked),
    )


def weight_bytes(bundle: Bundle) -> int:
    """Bytes of the graph's external data."""
    data = set(bundle.manifest.graph.data)
    return sum(entry.bytes for entry in bundle.manifest.files if entry.name in data)


def roofline(bundle: Bundle, depth: float, decode: dict[str, Any], bandwidth: float | None) -> dict[str, Any] | None:
    """How near a decode step comes to the time that reading its bytes takes at the measured bandwidth.

    A step reads all weight files (of an embedding that is not the head too: there the bound is too high) and the
    cache of `depth` tokens.
    """
    if bandwidth is None:
        return None
    bytes_per_token = weight_bytes(bundle) + int(depth * bundle.manifest.cache.bytes_per_token)
    bound = bytes_per_token / bandwidth
    return {
        "bytes_per_token": bytes_per_token,
        "bound_s_per_token": bound,
        "attained": bound / decode["s_per_token"]["median"],
    }


def _loads(samples: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "import_s": summary([sample["import_s"] for sample in samples]),
        "load_s": summary([sample["load_s"] for sample in samples]),
        "major_faults": [sample["major_faults"] for sample in samples],
    }


def _check_lengths(bundle: Bundle, options: BenchmarkOptions) -> None:
    limit = bundle.manifest.cache.capacity_limit
    longest = max([*options.prompt_tokens, *(depth + options.decode_tokens for depth in options.depths)])
    if longest > limit:
        raise EdgekitError(
            "what is measured must fit into the bundle's context",
            f"{longest} tokens are needed, the bundle holds {limit}",
            "give shorter --prompt-tokens, --depth or --decode-tokens",
        )
