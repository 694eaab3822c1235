"""Running a kit on its device: build, parity with the golden texts, benchmark. The same code as edgekit's own verbs.

Needs numpy and TensorRT, and neither torch nor onnx. Whatever happens, what was reached is written to the result.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekit import __version__
from edgekit.benchmark import energy
from edgekit.benchmark.measure import Timing, check_answers
from edgekit.build.backends import backend_named
from edgekit.build.backends.tensorrt import release
from edgekit.build.bundle_engine import BuildRequest, engine_from_bundle, prepared_build
from edgekit.bundle import Bundle, read_bundle
from edgekit.device.profile import device_profile
from edgekit.errors import BuildError, EdgekitError, ParityFailed, SessionError
from edgekit.files import atomic_write, copy_tree
from edgekit.kit.document import BUNDLE, GOLDEN, RESULTS, Kit
from edgekit.kit.golden import read_golden
from edgekit.kit.parity import golden_parity
from edgekit.progress import Progress, SilentProgress
from edgekit.runtime.cuda_library import load_cuda
from edgekit.runtime.session import DecoderSession, session_from_bundle

RESULT = "result.json"
RESULT_SCHEMA = 1
STAGES = ("machine", "build", "parity", "benchmark")


@dataclass(frozen=True)
class RunOptions:
    """What is measured; the lengths are cut to what the engine serves."""

    prompt_tokens: tuple[int, ...] = (128, 512)
    depths: tuple[int, ...] = (128, 1024)
    decode_tokens: int = 32
    repetitions: int = 10


def run_kit(
    kit: Kit, options: RunOptions, say: Callable[[str], None] = print, progress: Progress | None = None
) -> dict[str, Any]:
    """Run every stage and write the result; the result.

    Raises:
        BaseException: a stage failed or was interrupted. The result is written all the same, with the failure in it.
    """
    (kit.path / RESULTS).mkdir(exist_ok=True)
    result: dict[str, Any] = {
        "schema": RESULT_SCHEMA,
        "edgekit": __version__,
        "kit_sha256": kit.sha256,
        "kit": {key: value for key, value in asdict(kit.manifest).items() if key != "files"},
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "passed": False,
        "failure": None,
    }
    runner = _Runner(kit, options, progress or SilentProgress())
    stage = STAGES[0]
    try:
        for stage in STAGES:
            say(f"{stage} …")
            result[stage] = getattr(runner, stage)()
        result["passed"] = True
    except BaseException as error:
        result["failure"] = _failure(stage, error)
        if stage == "parity" and runner.parity_found is not None:
            result["parity"] = runner.parity_found
        raise
    finally:
        try:
            runner.close()
        finally:
            text = json.dumps(result, indent=2, ensure_ascii=False) + "\n"
            atomic_write(kit.path / RESULTS / RESULT, text)
    return result


def _failure(stage: str, error: BaseException) -> dict[str, str]:
    """What the result says of the error that ended the run, in the three parts of edgekit's own."""
    found = {"stage": stage, "kind": type(error).__name__}
    if isinstance(error, EdgekitError):
        return found | {"rule": error.rule, "fact": error.fact, "next_step": error.next_step}
    # A file's name may hold bytes that are no text.
    text = str(error).encode("utf-8", "backslashreplace").decode()
    fact = f"{type(error).__name__}: {text}" if text else type(error).__name__
    rule = "a kit is proven when every stage has come to its end"
    return found | {"rule": rule, "fact": fact, "next_step": "mend what it names, if anything, and run the kit again"}


class _Runner:
    """The stages in order; each gives its part of the result."""

    def __init__(self, kit: Kit, options: RunOptions, progress: Progress) -> None:
        self._kit, self._options, self._progress = kit, options, progress
        self._session: DecoderSession | None = None
        self._bundle: Bundle | None = None
        self.parity_found: dict[str, Any] | None = None

    def machine(self) -> dict[str, Any]:
        """What this machine is. Raises an error where it is not the one that the kit is for."""
        wanted = self._kit.manifest
        device = device_profile(wanted.device)
        try:
            cuda = load_cuda()
        except SessionError as error:
            raise _not_here(device.title, error.fact, error.next_step) from error
        gpu = cuda.gpu()
        if gpu is None:
            raise _not_here(
                device.title,
                f"this machine has no GPU that {cuda.name} can use",
                f"copy the kit to one and run it there: ./{Path('run.sh')}",
            )
        if gpu.compute_capability != wanted.compute_capability:
            raise _not_here(
                device.title,
                f"it has compute capability {wanted.compute_capability}, this GPU {gpu.compute_capability}",
                "make a kit for this device: edgekit build BUNDLE --device DEVICE -o KIT",
            )
        if wanted.plugin_library and wanted.cpu_architecture != platform.machine():
            raise _not_here(
                device.title,
                f"its plugin library is for {wanted.cpu_architecture}, this machine is {platform.machine()}",
                f"make the kit with --plugin-library, a library compiled for {platform.machine()}",
            )
        trt = backend_named("tensorrt").load(device.kind)
        version = str(trt.__version__)
        if release(version) != release(wanted.tensorrt):
            raise BuildError(
                f"this kit is made for TensorRT {wanted.tensorrt} ({wanted.software})",
                f"TensorRT {version} is installed",
                "install that release, or make the kit of a bundle in the other form: edgekit export --form "
                "tensorrt (10.15 and newer) or jetpack6 (older)",
            )
        return {
            "platform": platform.platform(),
            "python": platform.python_version(),
            "gpu": asdict(gpu),
            "tensorrt": version,
            "cuda_runtime": cuda.runtime_version(),
            "cuda_driver": cuda.driver_version(),
        }

    def build(self) -> dict[str, Any]:
        """The engine, in a bundle of the results: the kit stays as it was made."""
        wanted, place = self._kit.manifest, self._kit.path / RESULTS / BUNDLE
        if not place.exists():
            copy_tree(self._kit.path / BUNDLE, place, copy=_linked)
        limits = ("max_batch_size", "max_input_len", "max_kv_cache_capacity", "max_draft_len")
        library = self._kit.path / wanted.plugin_library if wanted.plugin_library else None
        request = BuildRequest(
            device=device_profile(wanted.device),
            limits={name: getattr(wanted, name) for name in limits},
            backend="tensorrt",
            library=library,
        )
        entry, origin = engine_from_bundle(prepared_build(read_bundle(place), request))
        self._bundle = read_bundle(place)
        return {"from": origin, "engine": entry.to_dict()}

    def parity(self) -> dict[str, Any]:
        """The engine's answers beside the golden ones. Raises ParityFailed."""
        assert self._bundle is not None
        self._session = session_from_bundle(self._bundle, backend="tensorrt")
        golden = read_golden(self._kit.path / GOLDEN)
        found = golden_parity(self._session, golden, self._bundle.manifest.cache.dtype)
        self.parity_found = found.to_dict() | {"session": self._session.description}
        if found.failure is not None:
            raise ParityFailed(
                "an engine gives the logits of the golden texts, up to the rounding of its numbers",
                found.failure,
                f"send back {RESULTS}/{RESULT}: the engine must not be used",
            )
        return self.parity_found

    def benchmark(self) -> dict[str, Any]:
        """Seconds per prompt and per decoded token, with what the device showed meanwhile."""
        assert self._session is not None
        assert self._bundle is not None
        vocab = self._bundle.manifest.model.vocab_size
        return measured(self._session, vocab, self._options, self._progress)

    def close(self) -> None:
        if self._session is not None:
            with suppress(EdgekitError):
                self._session.close()


def measured(session: DecoderSession, vocab: int, options: RunOptions, progress: Progress) -> dict[str, Any]:
    """Seconds per prompt and per decoded token, with what the device showed meanwhile.

    Raises:
        SessionError: the session answers the same prompt differently, or token by token otherwise than at once.
    """
    most = session.capacity - options.decode_tokens
    timing = Timing(
        tuple(dict.fromkeys(min(tokens, session.capacity) for tokens in options.prompt_tokens)),
        tuple(dict.fromkeys(max(1, min(depth, most)) for depth in options.depths)),
        min(options.decode_tokens, session.capacity - 1),
        options.repetitions,
    )
    check_answers(session, vocab)
    return {
        **energy.measured(session, vocab, timing, progress),
        "session": session.description,
        "cuda_graph_launches": getattr(session, "graph_launches", None),
    }


def _linked(source: Path, target: Path) -> None:
    """A second name of the same file where the file system has them, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _not_here(title: str, fact: str, next_step: str) -> BuildError:
    return BuildError(f"this kit builds and runs on {title} only", fact, next_step)
