"""Perplexity of a text under a bundle, resumable."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

from edgekit.bundle import Bundle
from edgekit.evaluate.perplexity import EncodedText, Perplexity, measure
from edgekit.evaluate.progress_file import ProgressFile
from edgekit.evaluate.scoring import CHUNK
from edgekit.evaluate.windows import WindowPlan
from edgekit.progress import Progress
from edgekit.runtime.session import DecoderSession, session_from_bundle
from edgekit.runtime.threads import default_threads


def perplexity_of_bundle(
    bundle: Bundle,
    text: EncodedText,
    plan: WindowPlan,
    *,
    backend: str = "cpu",
    operators: str = "auto",
    threads: int | None = None,
    max_windows: int | None = None,
    resume: bool = True,
    progress: Progress | None = None,
) -> Perplexity:
    """Measure, going on where an interrupted measurement of the same bundle, text and settings stopped.

    Raises: see `edgekit.evaluate.perplexity.measure`.
    """
    import onnxruntime

    threads = threads or default_threads()
    subject = {
        "manifest_sha256": bundle.manifest_sha256,
        "backend": backend,
        "operators": operators,
        "threads": threads,
        "onnxruntime": onnxruntime.__version__,
    }
    file = ProgressFile(measurement_key(subject, text, plan))
    if resume:
        file.load()

    def opened() -> DecoderSession:
        return session_from_bundle(bundle, backend=backend, threads=threads, operators=operators)

    return measure(opened, text, plan, file=file, max_windows=max_windows, progress=progress)


def measurement_key(subject: dict[str, Any], text: EncodedText, plan: WindowPlan) -> dict[str, Any]:
    """All that the sums of a measurement depend on. `subject`: what is measured, and with what."""
    return {
        **subject,
        "tokens_sha256": sha256(json.dumps(text.tokens).encode()).hexdigest(),
        "context": plan.context,
        "stride": plan.stride,
        "bos": plan.bos,
        "chunk": CHUNK,
    }
