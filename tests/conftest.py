"""Fixtures that several test folders use. Only `smollm2_path` may reach a network."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit.bundle import write_bundle
from tests import missing_packages

#: Contents that no model runs, in every place a bundle has files.
PAPER_FILES = {
    "config.json": b"{}\n",
    "model.onnx": b"graph" * 100,
    "model.onnx.data": bytes(range(256)) * 40,
    "tokenizer/vocab.txt": "Zürich\n".encode(),
}


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(missing_packages)
    # Shells ignore Ctrl-C in what they start by `nohup` or `&`, which processes that tests interrupt would inherit.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def paper_manifest() -> dict[str, Any]:
    """The fields of a manifest that a writer fills in, for the files of PAPER_FILES."""
    return {
        "model": {
            "name": "paper",
            "model_type": "llama",
            "layers": 2,
            "heads": 4,
            "kv_heads": 2,
            "head_dim": 8,
            "vocab_size": 100,
            "hidden_size": 32,
            "max_context": 64,
        },
        "form": "ort",
        "dtype": "int4",
        "cache": {"kind": "shared", "dtype": "float32", "capacity_limit": 64, "bytes_per_token": 256},
        "graph": {"file": "model.onnx", "data": ["model.onnx.data"], "inputs": [], "outputs": [], "taps": ["hidden.0"]},
        "tokens": {"bos": 1, "eos": [2], "pad": None, "add_bos": False},
        "provenance": {},
    }


@pytest.fixture
def paper_draft() -> Callable[[Path], dict[str, Any]]:
    """Fills a directory with the files of PAPER_FILES and gives the manifest fields that belong to them."""

    def fill(folder: Path) -> dict[str, Any]:
        for file_name, content in PAPER_FILES.items():
            path = folder / file_name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        return paper_manifest()

    return fill


@pytest.fixture
def paper_bundle(tmp_path: Path, paper_draft: Callable[[Path], dict[str, Any]]) -> Callable[..., Path]:
    """Writes a bundle of a few small files that are no model: paper_bundle(name="bundle", overwrite=False)."""

    def write(name: str = "bundle", *, overwrite: bool = False) -> Path:
        with write_bundle(tmp_path / name, overwrite=overwrite) as draft:
            draft.manifest.update(paper_draft(draft.path))
        return tmp_path / name

    return write


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The real SmolLM2 weights (GGUF), pulled into the cache at the first use: for tests marked `model`."""
    from edgekit.checkpoint import pull

    return pull("smollm2-135m")


@pytest.fixture
def ort_sessions(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Sessions of decoders and draft heads over ONNX Runtime that are opened from now on; closed, they hold no more."""
    from edgekit.runtime.drafting.draft_session import OrtDraftSession
    from edgekit.runtime.ort_session import OrtSession

    found: list[Any] = []

    def watch(kind: Any) -> None:
        load = kind.__init__

        def noted(self: Any, *arguments: Any, **options: Any) -> None:
            load(self, *arguments, **options)
            found.append(self)

        monkeypatch.setattr(kind, "__init__", noted)

    watch(OrtSession)
    watch(OrtDraftSession)
    return found
