"""Tiny random models in each form, and running them: what the pipeline tests share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from edgekit import contract
from edgekit.checkpoint import Checkpoint, TensorSpec, open_checkpoint
from edgekit.compress.quantizer import QuantizedModel
from edgekit.export.bind import bind_weights
from edgekit.export.trace import Traced, traced_from_config
from edgekit.export.write import MODEL_FILE, write_model
from edgekit.layers.decoder import Decoder
from edgekit.models.registry import model_from_checkpoint, model_on_meta, weight_map
from edgekit.rewrite.pipelines import rewrite
from edgekit.rewrite.rule import Context, Outcome
from tests.parity.tiny_models import write_checkpoint

CONTEXT = 64

#: Changes to `tests.parity.tiny_models`: one more architecture, windows shorter than the texts of the tests.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"num_hidden_layers": 2}),
    "llama-untied": ("llama-untied", {"num_hidden_layers": 2}),
    "mistral": ("llama-untied", {"model_type": "mistral", "num_hidden_layers": 2, "sliding_window": 5}),
    "qwen2": ("qwen2", {"num_hidden_layers": 2}),
    "qwen3": ("qwen3", {"num_hidden_layers": 2}),
    "gemma3_text": ("gemma3_text", {"num_hidden_layers": 3, "sliding_window": 5}),
}


@dataclass
class Form:
    """A written form of a model.

    Attributes:
        outcomes: what each rule of its pipeline did.
        shared: whether past and present are one buffer.
        dtype: of the cache.
    """

    folder: Path
    traced: Traced
    outcomes: dict[str, Outcome]
    shared: bool
    dtype: str

    def session(self, *, optimized: bool = True) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        if not optimized:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        return onnxruntime.InferenceSession(self.folder / MODEL_FILE, options, providers=["CPUExecutionProvider"])


class Run:
    """Feeds a form its tokens in any number of calls, keeping its cache as the form wants it."""

    def __init__(self, form: Form, *, batch: int = 1, optimized: bool = True) -> None:
        self._session, self._form = form.session(optimized=optimized), form
        geometry = form.traced.geometry
        shape = (batch, geometry.kv_heads, CONTEXT if form.shared else 0, geometry.head_dim)
        self._layers = range(geometry.layers)
        make = onnxruntime.OrtValue.ortvalue_from_numpy
        self._cache = {
            name: make(np.zeros(shape, form.dtype))
            for layer in self._layers
            for name in (contract.past_name(layer, contract.KEY), contract.past_name(layer, contract.VALUE))
        }

    def __call__(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Logits [B, S, V] of all the new tokens `ids` [B, S], for a mask over the cached and the new ones."""
        binding = self._session.io_binding()
        binding.bind_cpu_input(contract.INPUT_IDS, ids)
        binding.bind_cpu_input(contract.ATTENTION_MASK, mask)
        binding.bind_cpu_input(contract.LOGITS_TO_KEEP, np.zeros(1, np.int64))
        binding.bind_output(contract.LOGITS)
        for past, value in self._cache.items():
            binding.bind_ortvalue_input(past, value)
            present = past.replace("past_key_values", "present")
            if self._form.shared:
                binding.bind_ortvalue_output(present, value)
            else:
                binding.bind_output(present)
        self._session.run_with_iobinding(binding)
        logits, *presents = binding.get_outputs()
        if not self._form.shared:
            self._cache = dict(zip(self._cache, presents, strict=True))
        self.length = mask.shape[1]
        return np.asarray(logits.numpy())

    def cache(self) -> list[np.ndarray]:
        """Keys and values of each layer, [B, G, length, D]."""
        return [value.numpy()[:, :, : self.length].copy() for value in self._cache.values()]


class Forms:
    """Makes checkpoints, traces and forms once each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._checkpoints: dict[str, Checkpoint] = {}
        self._traced: dict[tuple[str, str], Traced] = {}
        self._forms: dict[tuple[str, str, str], Form] = {}

    def checkpoint(self, name: str) -> Checkpoint:
        if name not in self._checkpoints:
            base, changes = MODELS[name]
            self._checkpoints[name] = open_checkpoint(write_checkpoint(self._folder / name, base, **changes))
        return self._checkpoints[name]

    def traced(self, name: str, dtype: str = "float32") -> Traced:
        """A copy of the traced graph, its weights not bound."""
        key = (name, dtype)
        if key not in self._traced:
            self._traced[key] = traced_from_config(self.checkpoint(name).config, dtype, CONTEXT)
        made = self._traced[key]
        return Traced(made.graph.copy(), made.geometry, made.taps)

    def bound(self, name: str, dtype: str = "float32") -> Traced:
        """A copy of the traced graph with its weights."""
        traced = self.traced(name, dtype)
        bind(traced, self.checkpoint(name), dtype)
        return traced

    def form(self, name: str, form: str, dtype: str = "float32") -> Form:
        """The unquantised form."""
        key = (name, form, dtype)
        if key not in self._forms:
            folder = self._folder / "-".join(key)
            folder.mkdir()
            self._forms[key] = written(self.bound(name, dtype), form, folder, dtype)
        return self._forms[key]


def bind(traced: Traced, checkpoint: Checkpoint, dtype: str = "float32") -> int:
    model = model_on_meta(checkpoint.config, CONTEXT)
    tables = {name: table.numpy() for name, table in model.rope_tables().items()}
    return bind_weights(traced.graph, checkpoint, weight_map(model), tables, dtype)


def written(
    traced: Traced, form: str, folder: Path, dtype: str = "float32", quantized: QuantizedModel | None = None
) -> Form:
    outcomes = rewrite(traced.graph, form, Context(traced.geometry, dtype, quantized))
    write_model(traced.graph, folder)
    return Form(folder, traced, outcomes, form in (contract.FORM_ORT, contract.FORM_TENSORRT), dtype)


class Replaced:
    """A checkpoint some of whose weights are others."""

    def __init__(self, checkpoint: Checkpoint, weights: dict[str, np.ndarray]) -> None:
        self.config, self._checkpoint, self._weights = checkpoint.config, checkpoint, weights

    def names(self) -> list[str]:
        return list(self._checkpoint.names())

    def spec(self, name: str) -> TensorSpec:
        return self._checkpoint.spec(name)

    def array(self, name: str) -> np.ndarray:
        return self._weights[name] if name in self._weights else self._checkpoint.array(name)


def torch_model(checkpoint: Checkpoint | Replaced) -> Decoder:
    return model_from_checkpoint(checkpoint, max_positions=CONTEXT)


def torch_run(model: Decoder, ids: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Logits [B, S, V] and the cache after one call over all tokens."""
    shape = model.model.layers[0].self_attn.shape  # type: ignore[union-attr]
    past = [(torch.zeros(len(ids), shape.kv_heads, 0, shape.head_dim),) * 2 for _ in model.model.layers]
    with torch.no_grad():
        output = model(torch.from_numpy(ids), torch.from_numpy(mask), past, torch.tensor([0]))
    return output.logits.numpy(), [tensor.numpy() for pair in output.present for tensor in pair]


@contextmanager
def one_thread() -> Iterator[None]:
    """Matrices this small lose more to waiting threads than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
