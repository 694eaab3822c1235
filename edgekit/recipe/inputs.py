"""What a step's result depends on, as one hash: a step is skipped while the hash of its inputs stays the same.

The hash of a bundle's inputs is kept in its manifest and that of a comparison in its parity.json, so there is no stamp
that could outlive what it stands for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

import edgekit
from edgekit.recipe.recipe import Recipe

#: Parts of edgekit and packages that decide what a bundle contains.
EXPORT_CODE = (
    "bundle",
    "checkpoint",
    "compress",
    "contract.py",
    "draft",
    "export",
    "layers",
    "models",
    "ops",
    "rewrite",
)
EXPORT_PACKAGES = (
    "gguf",
    "ml_dtypes",
    "numpy",
    "onnx",
    "onnx-graphsurgeon",
    "onnx-ir",
    "onnxruntime",
    "onnxscript",
    "safetensors",
    "torch",
)
#: The same for the comparison of a bundle with PyTorch.
PARITY_CODE = ("chat", "contract.py", "draft", "layers", "models", "ops", "parity", "runtime")
PARITY_PACKAGES = ("numpy", "onnxruntime", "tokenizers", "torch")


def export_inputs(recipe: Recipe) -> str:
    """The hash of all that a bundle is made from: checkpoint, recipe, edgekit and its packages."""
    tables = recipe.tables()
    # Which checkpoint it is, its hashes say; where it lies, and what is compared afterwards, changes no byte.
    tables.pop("parity")
    tables["checkpoint"].pop("name")
    tables["draft"].pop("heads", None)
    return _digest(
        {
            "tables": tables,
            "code": _source_digest(EXPORT_CODE),
            "packages": {name: _version(name) for name in EXPORT_PACKAGES},
            "edgekit": edgekit.__version__,
        }
    )


def parity_inputs(recipe: Recipe) -> str:
    """The hash of all that a comparison depends on beside the bundle and the checkpoint that its manifest names."""
    return _digest(
        {
            "parity": recipe.tables()["parity"],
            "code": _source_digest(PARITY_CODE),
            "packages": {name: _version(name) for name in PARITY_PACKAGES},
            "edgekit": edgekit.__version__,
        }
    )


def _digest(document: Any) -> str:
    return sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


@cache
def _source_digest(parts: tuple[str, ...]) -> str:
    """The hash of every source and data file below the named parts of edgekit."""
    root = Path(edgekit.__file__).parent
    digest = sha256()
    for file in sorted(_files(root / part for part in parts)):
        digest.update(f"{file.relative_to(root).as_posix()}\0".encode())
        digest.update(sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _files(parts: Iterable[Path]) -> Iterable[Path]:
    for part in parts:
        if part.is_file():
            yield part
        else:
            yield from (file for file in part.rglob("*") if file.is_file() and file.suffix != ".pyc")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
