"""The process that is measured: a request on stdin, messages on stdout.

A process of its own, so that its memory and its start are the runtime's and nothing else's. Messages are JSON, one
a line: {"stage", "total", "unit"}, {"advance"}, and last {"result"} or {"error"}.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import IO, TYPE_CHECKING, Any

from edgekit.errors import EdgekitError

if TYPE_CHECKING:
    from edgekit.bundle import Bundle
    from edgekit.runtime.session import DecoderSession


@dataclass(frozen=True)
class Request:
    """What the worker does: "load" the bundle only, or load it and "measure" it, or time it with "drafts".

    `conversations`: for drafts, [group, [turns]] of each.
    """

    task: str
    bundle: str
    backend: str
    threads: int
    prompt_tokens: tuple[int, ...] = ()
    depths: tuple[int, ...] = ()
    decode_tokens: int = 0
    repetitions: int = 0
    operators: str = "auto"
    draft: str = ""
    draft_tokens: int | None = None
    answer_tokens: int = 0
    conversations: tuple[Any, ...] = ()

    def to_json(self) -> str:
        """For the worker's stdin."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Request:
        """What `to_json` wrote."""
        fields: dict[str, Any] = json.loads(text)
        lists = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
        return cls(**{**fields, **lists})


class MessageProgress:
    """Progress as messages."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out

    def stage(self, name: str, total: int | None = None, unit: str = "") -> None:
        self._send({"stage": name, "total": total, "unit": unit})

    def advance(self, n: int = 1) -> None:
        self._send({"advance": n})

    def note(self, text: str) -> None:
        self._send({"note": text})

    def _send(self, message: dict[str, Any]) -> None:
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()


def serve(request: Request, out: IO[str]) -> None:
    """Do what is asked and write the messages."""
    try:
        answer: dict[str, Any] = {"result": _work(request, MessageProgress(out))}
    except EdgekitError as error:
        answer = {"error": {"type": type(error).__name__, "parts": [error.rule, error.fact, error.next_step]}}
    out.write(json.dumps(answer) + "\n")
    out.flush()


def _work(request: Request, progress: MessageProgress) -> dict[str, Any]:
    # Imported here, so that the time it takes can be told from the time that loading takes.
    started = time.perf_counter()
    from edgekit.bundle import read_bundle
    from edgekit.runtime.backends import backend_named
    from edgekit.runtime.session import session_from_bundle

    backend = backend_named(request.backend)
    if backend.library:
        import_module(backend.library)
    imported = time.perf_counter()
    bundle = read_bundle(request.bundle)
    session = session_from_bundle(bundle, backend=request.backend, threads=request.threads, operators=request.operators)
    loaded = time.perf_counter()
    result: dict[str, Any] = {
        "import_s": imported - started,
        "load_s": loaded - imported,
        "major_faults": resource.getrusage(resource.RUSAGE_SELF).ru_majflt,
    }
    if request.task == "load":
        return result
    if request.task == "drafts":
        with ExitStack() as stack:
            stack.callback(session.close)
            return _drafts(request, bundle, session, stack, progress)

    from functools import partial

    from edgekit.benchmark.bandwidth import read_bandwidth
    from edgekit.benchmark.energy import measured
    from edgekit.benchmark.measure import Timing, check_answers
    from edgekit.benchmark.memory import resident_bytes
    from edgekit.device.telemetry import Recorder, open_source

    result["memory_loaded"] = resident_bytes()
    timing = Timing(request.prompt_tokens, request.depths, request.decode_tokens, request.repetitions)
    vocab = bundle.manifest.model.vocab_size
    progress.stage("checking answers")
    check_answers(session, vocab)
    recorder = Recorder(open_=partial(open_source, on_cpu=backend.on_cpu))
    timings = measured(session, vocab, timing, progress, recorder)
    result["memory_measured"] = resident_bytes()
    result["session"] = session.description
    session.close()
    result["read_bandwidth"] = None
    if backend.on_cpu:
        progress.stage("measuring memory bandwidth")
        result["read_bandwidth"] = read_bandwidth(request.threads)
    return {**result, **timings}


def _drafts(
    request: Request, bundle: Bundle, session: DecoderSession, stack: ExitStack, progress: MessageProgress
) -> dict[str, Any]:
    """`stack`: closes the drafters."""
    from edgekit.benchmark.conversations import Questions
    from edgekit.benchmark.drafted import DraftBenchmark
    from edgekit.chat.template import template_from_bundle
    from edgekit.chat.tokenizer import tokenizer_from_bundle
    from edgekit.runtime.drafting.open import drafters_for

    drafters = drafters_for(
        bundle,
        request.draft,
        request.draft_tokens,
        backend=request.backend,
        threads=request.threads,
        operators=request.operators,
    )
    for drafter in drafters:
        stack.callback(drafter.close)
    made = DraftBenchmark(
        bundle,
        session,
        drafters,
        tokenizer_from_bundle(bundle),
        template_from_bundle(bundle),
        request.draft_tokens,
        request.answer_tokens,
    )
    found = made.run([Questions(group, tuple(turns)) for group, turns in request.conversations], progress)
    return {**found, "session": session.description}


def main() -> None:
    """The whole process."""
    serve(Request.from_json(sys.stdin.read()), sys.stdout)
