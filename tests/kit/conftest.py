"""A kit of a tiny factorised model for a Jetson, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.build.bundle_engine import BuildRequest
from edgekit.bundle import Bundle
from edgekit.checkpoint import open_checkpoint
from edgekit.device.profile import device_profile
from edgekit.kit.document import Kit
from edgekit.kit.make import KitRequest, make_kit
from tests.export.tiny_heads import export_with_heads, written_heads
from tests.parity.tiny_models import export, write_checkpoint

DEVICE = "jetson-orin-nano-8gb"
LIMITS = {"max_input_len": 32, "max_kv_cache_capacity": 128}


def request(device: str = DEVICE, library: Path | None = None, **limits: int) -> KitRequest:
    return KitRequest(BuildRequest(device_profile(device), {**LIMITS, **limits}, library=library), tokens=5)


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """By name and form: a plain and a factorised model, in half precision."""
    folder, made = tmp_path_factory.mktemp("kit-bundles"), {}
    for name, form in (("llama", "jetpack6"), ("t6", "jetpack6"), ("llama", "tensorrt")):
        checkpoint = open_checkpoint(write_checkpoint(folder / f"{name}-{form}-checkpoint", name))
        made[f"{name}-{form}"] = export(checkpoint, folder / f"{name}-{form}", form, "fp16")
    return made


@pytest.fixture(scope="session")
def drafting(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The plain model with draft heads."""
    folder = tmp_path_factory.mktemp("kit-drafting")
    checkpoint = open_checkpoint(write_checkpoint(folder / "checkpoint", "llama"))
    heads = written_heads(folder / "heads.safetensors", checkpoint)
    return export_with_heads(checkpoint, folder / "bundle", heads, "jetpack6", "fp16")


@pytest.fixture(scope="session")
def kit(bundles: dict[str, Bundle], tmp_path_factory: pytest.TempPathFactory) -> Kit:
    """Of the plain model, which needs no plugin library."""
    return make_kit(bundles["llama-jetpack6"], request(), tmp_path_factory.mktemp("kit") / "orin")
