"""ONNX Runtime set up for decoding: providers, session options, and its errors in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgekit.contract import TensorSignature
from edgekit.errors import DoesNotFit, EdgekitError, SessionError
from edgekit.runtime.operators import NO_OPERATORS, OperatorSupport
from edgekit.runtime.threads import default_threads

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_INSTALL = {
    "cpu": "pip install 'edgekit[cpu]'",
    "cuda": "pip uninstall onnxruntime, then pip install 'edgekit[cuda]' (they share an import name)",
}
_MEMORY_SIGNS = ("bad_alloc", "Failed to allocate memory", "out of memory", "OUT_OF_MEMORY", "BFCArena")


def inference_session(
    graph: Path, backend: str, threads: int | None, operators: OperatorSupport = NO_OPERATORS
) -> tuple[Any, str]:
    """Load a graph; external data is found beside it and mapped, not copied.

    Args:
        operators: how the graph's custom operators run.

    Returns:
        The onnxruntime.InferenceSession and a description of it.

    Raises:
        SessionError: the backend is unknown or missing here, or the graph cannot be loaded.
        DoesNotFit: memory ran out.
    """
    if backend not in _PROVIDERS:
        raise SessionError(f"a backend is one of {', '.join(_PROVIDERS)}", f"it is {backend!r}")
    if threads is not None and threads < 1:
        raise SessionError("at least one thread must work", f"threads is {threads}")
    try:
        import onnxruntime
    except ImportError as error:
        raise SessionError("running a bundle needs ONNX Runtime", str(error), _INSTALL[backend]) from error
    provider, available = _PROVIDERS[backend], onnxruntime.get_available_providers()
    if provider not in available:
        raise SessionError(
            f"backend {backend} needs ONNX Runtime's {provider}",
            f"onnxruntime {onnxruntime.__version__} here has {', '.join(available)}",
            _INSTALL[backend],
        )
    threads = threads or default_threads()
    with ort_errors(f"load {graph.name}"):
        options = _session_options(threads)
        operators.register(options)
        session = onnxruntime.InferenceSession(str(graph), options, providers=[provider])
    # Where its libraries are missing, ONNX Runtime goes on with the CPU and says so only in its log.
    if session.get_providers()[0] != provider:
        raise SessionError(
            f"backend {backend} must run on {provider}",
            f"ONNX Runtime could not start it and offers {', '.join(session.get_providers())}",
            "check the driver and the CUDA libraries: edgekit doctor",
        )
    described = f"onnxruntime {onnxruntime.__version__}, {provider}, {threads} thread{'s' if threads > 1 else ''}"
    return session, ", ".join(filter(None, (described, operators.description)))


def _session_options(threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Workers spin within a run and rest between runs. Spinning on, they take a core from what runs then: sampling, and
    # a draft graph with workers of its own, beside which a step of the decoder took twice as long.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4  # what goes wrong is raised as well
    # The mask grows with every token, so that no two runs share a memory plan and each would be kept.
    options.enable_mem_pattern = False
    return options


def ort_signature(session: Any) -> tuple[list[TensorSignature], list[TensorSignature]]:
    """Inputs and outputs of a session, in graph order."""
    return [_tensor(value) for value in session.get_inputs()], [_tensor(value) for value in session.get_outputs()]


def _tensor(value: Any) -> TensorSignature:
    """Types in ONNX Runtime's words, "tensor(float16)"; what is neither float nor int stays as it says it."""
    name = value.type.removeprefix("tensor(").removesuffix(")")
    return TensorSignature(value.name, {"float": "float32", "double": "float64"}.get(name, name), tuple(value.shape))


@contextmanager
def ort_errors(doing: str) -> Iterator[None]:
    """Turn what ONNX Runtime raises inside the block into SessionError or DoesNotFit. `doing`: "load model.onnx"."""
    try:
        yield
    except EdgekitError:
        raise
    except Exception as error:  # its exceptions share no base class of their own
        message = " ".join(str(error).split())
        if isinstance(error, MemoryError) or any(sign in message for sign in _MEMORY_SIGNS):
            raise DoesNotFit(
                "the model and its cache must fit in memory",
                f"ONNX Runtime could not {doing}: {message[:300]}",
                "close other programs, or use a smaller model, dtype or --max-context",
            ) from error
        raise SessionError(
            f"ONNX Runtime must be able to {doing}",
            f"{type(error).__name__}: {message[:500]}",
            "check the bundle: edgekit verify BUNDLE; and the installation: edgekit doctor",
        ) from error
