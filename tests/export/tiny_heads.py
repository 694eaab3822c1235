"""Random draft heads for tiny models, their files, and what PyTorch makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from edgekit import contract
from edgekit.bundle import Bundle, read_bundle
from edgekit.checkpoint import Checkpoint
from edgekit.compress.blockwise import BlockQuantized, quantize_blocks
from edgekit.compress.quantizer import QuantizationSettings
from edgekit.draft.config import DraftConfig
from edgekit.draft.head_file import DraftFile, read_heads, write_heads
from edgekit.draft.heads import DraftHeads
from edgekit.export.bundle_from_checkpoint import ExportOptions, bundle_from_checkpoint
from edgekit.export.draft import write_draft
from edgekit.export.draft_heads import heads_for
from edgekit.models.registry import model_from_checkpoint, model_on_meta
from edgekit.progress import SilentProgress

ROWS = 5
#: New positions of each row, where heads see a window.
NEW = 3

#: Sizes that blocks of 32 and of 64 divide.
SIZES: dict[str, Any] = {
    "tokens": 3,
    "rank": 4,
    "hidden_size": 64,
    "feature_layers": (1, 2, 3),
    "token_rank": 64,
    "trunk_width": 128,
    "residual_rank": 64,
    "component_rank": 16,
    "vocabulary": 90,
    "window": 7,
    "heads": 4,
    "kv_heads": 2,
    "head_size": 32,
}


def tiny_heads(vocab: int, *, seed: int = 0, record: dict[str, Any] | None = None, **sizes: Any) -> DraftFile:
    """Heads of random numbers that half precision holds, and a random draft vocabulary."""
    config = DraftConfig(**{**SIZES, **sizes})
    heads, rng = DraftHeads(config), np.random.default_rng(seed)
    for name, parameter in heads.named_parameters():
        values = rng.standard_normal(tuple(parameter.shape)) / (1 if "norm" in name else parameter.shape[-1] ** 0.5)
        values = 1 + 0.1 * values if "norm" in name else values
        parameter.data = torch.from_numpy(values.astype(np.float16).astype(np.float32))
    chosen = np.sort(rng.choice(vocab, config.vocabulary, replace=False))
    table = torch.from_numpy(rng.standard_normal((vocab, config.token_rank)).astype(np.float32))
    return DraftFile(heads.eval().requires_grad_(False), table, torch.from_numpy(chosen), record or {})


def rounded(array: np.ndarray, settings: QuantizationSettings) -> BlockQuantized:
    """A matrix as the quantiser rounds it to 8 bits."""
    weight = np.asarray(array, np.float32)
    block = weight.shape[1] if settings.for_tensorrt else settings.block
    return quantize_blocks(weight, 8, block, symmetric=settings.symmetric, positive=settings.for_tensorrt)


def written_heads(path: Path, checkpoint: Checkpoint, **sizes: Any) -> Path:
    """A file of such heads for a checkpoint."""
    config = checkpoint.config
    layers = config["num_hidden_layers"]
    fitting = {"hidden_size": config["hidden_size"], "feature_layers": (1, layers - 1, layers), **sizes}
    write_heads(path, tiny_heads(config["vocab_size"], **fitting))
    return path


def export_with_heads(
    checkpoint: Checkpoint, destination: Path, heads: Path, form: str = "ort", dtype: str = "fp32", **options: Any
) -> Bundle:
    """A bundle made by the real exporter."""
    chosen = ExportOptions(
        dtype=dtype, form=form, calibration_sequences=2, calibration_length=32, draft=str(heads), **options
    )
    return read_bundle(bundle_from_checkpoint(checkpoint, destination, chosen, progress=SilentProgress()))


def torch_draft(
    found: DraftFile, checkpoint: Checkpoint, features: np.ndarray, tokens: np.ndarray, noise: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(log weights [B, c], probabilities [B, n, c, D], components [B, c]) by the formulas of `edgekit.draft.heads`.

    features: [B, P, F]; tokens: [B, P]. A draft is made at the last position.
    """
    model, heads = model_from_checkpoint(checkpoint), found.heads
    embedding = model.model.embed_tokens.weight
    head = embedding if model.lm_head is None else model.lm_head.weight
    with torch.no_grad():
        before = features.shape[1] - 1
        u = heads.trunk_output(torch.from_numpy(features), found.table[torch.from_numpy(tokens)], before)[:, 0]
        log_weights = heads.log_weights(u)
        chosen = (log_weights + torch.from_numpy(noise)).topk(count, -1).indices
        every = torch.softmax(heads.positions(u) @ head[found.vocabulary].T, -1)
        probabilities = torch.stack([row[:, some] for row, some in zip(every, chosen, strict=True)])
        kept = log_weights.gather(1, chosen).log_softmax(-1)
    return kept.numpy(), probabilities.numpy(), chosen.numpy()


class Drafted:
    """A written draft graph and its entry, and inputs for it."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        folder: Path,
        form: str,
        dtype: str,
        components: int,
        draft_tokens: int | None = None,
        **sizes: Any,
    ) -> None:
        self.checkpoint, self.folder = checkpoint, folder
        path = written_heads(folder / "heads.safetensors", checkpoint, **sizes)
        self.found: DraftFile = read_heads(path)
        model = model_on_meta(checkpoint.config)
        heads = heads_for(checkpoint, model, path, components, draft_tokens)
        options = ExportOptions(dtype=dtype, form=form)
        self.entry = write_draft(heads, checkpoint, model, options, folder, SilentProgress())
        rng, config = np.random.default_rng(1), self.found.heads.config
        new = NEW if config.window else 1
        self.features = rng.standard_normal((ROWS, new, config.features)).astype(np.float32) * 5
        self.tokens = rng.integers(0, checkpoint.config["vocab_size"], (ROWS, new))
        self.noise = rng.gumbel(size=(ROWS, config.rank)).astype(np.float32)
        self.components = components

    @property
    def model(self) -> onnx.ModelProto:
        return onnx.load(self.folder / self.entry["file"], load_external_data=False)

    def run(self, rows: slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
        """Drafts after all new positions, with none before them."""
        log_weights, probabilities, _ = self.step(self.features[rows], self.tokens[rows], rows)
        return log_weights, probabilities

    def step(
        self, features: np.ndarray, tokens: np.ndarray, rows: slice = slice(None), past: np.ndarray | None = None
    ) -> tuple[np.ndarray, ...]:
        """Log weights, probabilities and what is kept (empty without a window)."""
        config = self.found.heads.config
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        session = onnxruntime.InferenceSession(
            str(self.folder / self.entry["file"]), options, providers=["CPUExecutionProvider"]
        )
        values = {
            contract.DRAFT_FEATURES: features if config.window else features[:, -1],
            contract.DRAFT_TOKEN: tokens if config.window else tokens[:, -1],
            contract.DRAFT_NOISE: self.noise[rows],
            contract.DRAFT_PAST: np.zeros((len(features), config.window, config.kept), np.float32),
        }
        if past is not None:
            values[contract.DRAFT_PAST] = past
        given = {each.name: values[each.name] for each in session.get_inputs()}
        assert (contract.DRAFT_NOISE in given) == (self.components < self.found.heads.config.rank)
        found: list[np.ndarray] = session.run(None, given)
        return (*found, np.empty(0)) if len(found) == 2 else tuple(found)

    def expected(self) -> tuple[np.ndarray, np.ndarray]:
        """What PyTorch says, its components in the graph's order: by noisy weight, or as they are where all are."""
        log_weights, probabilities, chosen = torch_draft(
            self.found, self.checkpoint, self.features, self.tokens, self.noise, self.components
        )
        if self.components == self.found.heads.config.rank:
            order = chosen.argsort(-1)
            log_weights = np.take_along_axis(log_weights, order, 1)
            probabilities = np.take_along_axis(probabilities, order[:, None, :, None], 2)
        return log_weights, probabilities
