"""The artifact directory: model files, tokenizer, configuration, and the manifest that names each with its hash.

with write_bundle(destination, overwrite=False) as draft:
    (draft.path / "model.onnx").write_bytes(...)
    draft.manifest.update(model=..., form=..., ...)

bundle = read_bundle(path, verify="size")
bundle.file("model.onnx"), bundle.manifest.model.layers
"""

from __future__ import annotations

from edgekit.bundle.kind import require_kind
from edgekit.bundle.manifest import (
    MANIFEST_NAME,
    SCHEMA,
    CacheInfo,
    DraftInfo,
    EncoderInfo,
    EngineEntry,
    FileEntry,
    GraphInfo,
    Manifest,
    ModelInfo,
    Tokens,
)
from edgekit.bundle.read import Bundle, FileCheck, check_files, read_bundle
from edgekit.bundle.sidecar import SIDECARS, Measurement, find_measurement, read_sidecar, write_sidecar
from edgekit.bundle.write import BundleDraft, write_bundle

__all__ = [
    "MANIFEST_NAME",
    "SCHEMA",
    "SIDECARS",
    "Bundle",
    "BundleDraft",
    "CacheInfo",
    "DraftInfo",
    "EncoderInfo",
    "EngineEntry",
    "FileCheck",
    "FileEntry",
    "GraphInfo",
    "Manifest",
    "Measurement",
    "ModelInfo",
    "Tokens",
    "check_files",
    "find_measurement",
    "read_bundle",
    "read_sidecar",
    "require_kind",
    "write_bundle",
    "write_sidecar",
]
