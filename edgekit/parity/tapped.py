"""A bundle's graph with its residual stream as additional outputs.

The structure is changed in memory only, and the weights stay in the bundle's files. Kernels that would round
activations to 8 or 16 bits are told not to, so that what differs from PyTorch is the graph and not the rounding. A
shared cache is poisoned with NaN beyond the tokens that were written, so that a read of memory that is not theirs
cannot go unnoticed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from edgekit import contract
from edgekit.bundle import Bundle
from edgekit.errors import BundleError
from edgekit.parity.corrections import OPERATOR
from edgekit.runtime.operators import NO_OPERATORS, OperatorSupport, support_for
from edgekit.runtime.ort_engine import ort_errors, ort_signature
from edgekit.runtime.session import Features, Logits, Tokens
from edgekit.runtime.signature import cache_geometry, features_width
from edgekit.runtime.threads import default_threads

#: accuracy_level of MatMulNBits for products in float32, see onnxruntime/docs/ContribOperators.md.
ACCURACY_FLOAT32 = 1
#: input_bits of edgekit::TTSparseLinear for the same.
EXACT_INPUT_BITS = 24

_DTYPES: dict[str, npt.DTypeLike] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class TappedSession:
    """Runs one text on the CPU and keeps what its last forward saw.

    Attributes:
        hidden: the residual stream of the last forward's tokens, [1, S, hidden] after the embedding and each layer.
        features: see DecoderSession.features.
    """

    def __init__(self, bundle: Bundle, capacity: int, threads: int | None = None) -> None:
        """Load the bundle's graph for at most `capacity` tokens.

        Raises:
            BundleError: the bundle names no taps, or its graph does not have them.
            SessionError, DoesNotFit: ONNX Runtime cannot load it.
        """
        model = bundle.manifest.model
        self._taps = list(bundle.manifest.graph.taps)
        expected = [contract.hidden_tap(i) for i in range(model.layers + 1)]
        if self._taps != expected:
            raise BundleError(
                "a bundle must name the taps of its residual stream to be compared",
                f"{len(expected)} taps are needed ({expected[0]} to {expected[-1]}), it names {len(self._taps)}",
                "export the bundle again with this version of edgekit",
            )
        with ort_errors(f"load {bundle.manifest.graph.file} with its taps"):
            support = support_for(bundle, "cpu")
            self._session = tapped_inference(bundle, self._taps, threads or default_threads(), support)
        types = {value.name: value.type for value in self._session.get_outputs()}
        signature = ort_signature(self._session)
        self._features_width = features_width(signature[1], bundle.manifest.graph.file)
        self._tap_dtype = _DTYPES[types[self._taps[0]]]
        self._vocab, self._hidden_size = model.vocab_size, model.hidden_size
        self._geometry = cache_geometry(*signature, bundle.manifest.graph.file)
        shared = support.cache_kind(bundle.manifest.cache.kind) == contract.CACHE_SHARED
        self._kept = (self._geometry.slots or capacity) if shared else 0
        self.hidden: list[npt.NDArray[Any]] = []
        self.reset()

    def reset(self) -> None:
        """Forget everything, and poison a shared cache."""
        self.length = 0
        self.features: Features | None = None
        self._past = {
            tensor.past: np.full(tensor.form.shape(1, self._kept), np.nan, self._geometry.dtype)
            for tensor in self._geometry.tensors
        }

    def forward(self, tokens: Tokens, keep: int = 1) -> Logits:
        """Append tokens [1, S]; the logits [1, K, V] of the last `keep` positions, 0 for all."""
        new = tokens.shape[1]
        feeds = {
            contract.INPUT_IDS: np.ascontiguousarray(tokens),
            contract.ATTENTION_MASK: np.ones((1, self.length + new), np.int64),
            contract.LOGITS_TO_KEEP: np.array([keep], np.int64),
            **self._past,
        }
        with ort_errors(f"process {new} tokens after {self.length}"):
            results = self._run_in_place(feeds, new, keep) if self._kept else self._run(feeds)
        self.length += new
        self.hidden = [results[name] for name in self._taps]
        self.features = results.get(contract.DRAFT_FEATURES)
        return np.asarray(results[contract.LOGITS])

    def caches(self) -> list[dict[str, npt.NDArray[Any]]]:
        """Copies of every layer's cache tensors for `length` tokens, by suffix."""
        return self._geometry.by_layer(
            [
                np.take(self._past[tensor.past], range(self.length), tensor.form.axis)
                for tensor in self._geometry.tensors
            ]
        )

    def _run(self, feeds: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        names = [value.name for value in self._session.get_outputs()]
        results = dict(zip(names, self._session.run(names, feeds), strict=True))
        for tensor in self._geometry.tensors:
            self._past[tensor.past] = results[tensor.present]
        return results

    def _run_in_place(self, feeds: dict[str, npt.NDArray[Any]], new: int, keep: int) -> dict[str, npt.NDArray[Any]]:
        kept = min(keep, new) or new
        results: dict[str, npt.NDArray[Any]] = {contract.LOGITS: np.full((1, kept, self._vocab), np.nan, np.float32)}
        if self._features_width:
            results[contract.DRAFT_FEATURES] = np.full((1, kept, self._features_width), np.nan, np.float32)
        for tap in self._taps:
            results[tap] = np.full((1, new, self._hidden_size), np.nan, self._tap_dtype)
        bound = dict(results)
        for tensor in self._geometry.tensors:
            bound[tensor.present] = self._past[tensor.past]
        binding = self._session.io_binding()
        for name, array in feeds.items():
            binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        for name, array in bound.items():
            binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        self._session.run_with_iobinding(binding)
        return results


def tapped_inference(bundle: Bundle, taps: list[str], threads: int, support: OperatorSupport = NO_OPERATORS) -> Any:
    """The onnxruntime.InferenceSession of a bundle's graph with its taps as outputs, activations not rounded."""
    import onnxruntime

    model = onnx.load(bundle.graph, load_external_data=False)
    present = {value.name for value in model.graph.output}
    made = {name for node in model.graph.node for name in node.output}
    if missing := [tap for tap in taps if tap not in made]:
        raise BundleError(
            "a graph must hold the taps that its manifest names",
            f"{bundle.graph} has no tensor {missing[0]}",
            "export the bundle again with this version of edgekit",
        )
    # Without a type: ONNX Runtime infers it.
    model.graph.output.extend(onnx.ValueInfoProto(name=tap) for tap in taps if tap not in present)
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "MatMulNBits" and attribute.name == "accuracy_level":
                attribute.i = ACCURACY_FLOAT32
            if node.op_type == OPERATOR and attribute.name == "input_bits":
                attribute.i = EXACT_INPUT_BITS
    options = onnxruntime.SessionOptions()
    # The same for products that ONNX Runtime makes of DequantizeLinear and MatMul.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", str(ACCURACY_FLOAT32))
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    options.enable_mem_pattern = False
    support.register(options)
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(bundle.graph.parent.resolve())
    )
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
