"""In what versions of TensorRT differ, told from modules that have the members of each: nothing is built here."""

from __future__ import annotations

import enum
import sys
from importlib import metadata
from types import SimpleNamespace
from typing import Any

import pytest

from edgekit.build.backends import backend_named, backend_names
from edgekit.build.backends import tensorrt as regular
from edgekit.errors import BuildError


class Flags10(enum.IntEnum):
    """NetworkDefinitionCreationFlag of TensorRT 10 (Python API reference, 10.3)."""

    EXPLICIT_BATCH = 0
    STRONGLY_TYPED = 1


class Flags11(enum.IntEnum):
    """That of TensorRT 11, which types every network strongly (migration guide 10.x to 11.x)."""

    PREFER_AOT_PYTHON_PLUGINS = 2


class BuilderFlag(enum.IntEnum):
    REFIT = 1
    STRIP_PLAN = 2
    WEIGHT_STREAMING = 3


class BuilderFlag9(enum.IntEnum):
    REFIT = 1


class PreviewFeature(enum.IntEnum):
    ALIASED_PLUGIN_IO_10_03 = 5


class Config:
    """An IBuilderConfig that keeps what it is given."""

    def __init__(self) -> None:
        self.flags: list[Any] = []
        self.features: list[Any] = []

    def set_flag(self, flag: Any) -> None:
        self.flags.append(flag)

    def set_preview_feature(self, feature: Any, on: bool) -> None:
        assert on
        self.features.append(feature)


def module(version: str, flags: Any = Flags10, **members: Any) -> Any:
    return SimpleNamespace(
        __version__=version, Builder=object, NetworkDefinitionCreationFlag=flags, BuilderFlag=BuilderFlag,
        PreviewFeature=PreviewFeature, **members,
    )  # fmt: skip


TENSORRT = backend_named("tensorrt")


def test_backends_are_found_by_name() -> None:
    assert backend_names() == ["tensorrt", "tensorrt-rtx"]
    assert [backend_named(name).name for name in backend_names()] == backend_names()
    with pytest.raises(BuildError, match="'tensorrt_rtx' is none of them\ndid you mean tensorrt-rtx"):
        backend_named("tensorrt_rtx")


@pytest.mark.parametrize("version", ["10.3.0", "10.13.2", "10.16.1.11"])
def test_10_is_asked_for_a_strongly_typed_network(version: str) -> None:
    assert TENSORRT.network_flags(module(version)) == 0b10


def test_11_types_strongly_without_a_flag() -> None:
    assert TENSORRT.network_flags(module("11.4.1", Flags11)) == 0
    # Where the flag is still accepted, it is set.
    assert TENSORRT.network_flags(module("11.0.0", Flags10)) == 0b10


def test_10_without_the_flag_is_refused() -> None:
    with pytest.raises(BuildError, match=r"TensorRT 10\.3\.0 has no flag for it"):
        TENSORRT.network_flags(module("10.3.0", Flags11))


@pytest.mark.parametrize(
    ("version", "forms"),
    [
        ("10.3.0", ("jetpack6",)),
        ("10.14.1", ("jetpack6",)),
        ("10.15.0", ("tensorrt", "jetpack6")),
        ("11.4.1", ("tensorrt", "jetpack6")),
    ],
)
def test_forms_by_version(version: str, forms: tuple[str, ...]) -> None:
    assert TENSORRT.forms(version) == forms


def test_options_become_flags() -> None:
    config = Config()
    TENSORRT.set_options(module("10.3.0"), config, ["strip", "weight_streaming"], plugins=True)
    assert config.flags == [BuilderFlag.STRIP_PLAN, BuilderFlag.WEIGHT_STREAMING]
    assert config.features == [PreviewFeature.ALIASED_PLUGIN_IO_10_03]
    plain = Config()
    TENSORRT.set_options(module("10.3.0"), plain, [], plugins=False)
    assert (plain.flags, plain.features) == ([], [])


def test_an_option_that_the_version_lacks_is_named() -> None:
    trt = module("10.3.0")
    trt.BuilderFlag = BuilderFlag9
    with pytest.raises(BuildError, match=r"TensorRT 10\.3\.0 has no WEIGHT_STREAMING\nleave --weight-streaming out"):
        TENSORRT.check_options(trt, ["weight_streaming"])


def test_without_aliased_plugins_none_is_asked_for() -> None:
    trt = module("11.0.0", Flags11)
    trt.PreviewFeature = SimpleNamespace()
    config = Config()
    TENSORRT.set_options(trt, config, [], plugins=True)
    assert config.features == []


def test_a_module_that_fits_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    trt = module("10.3.0")
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    assert TENSORRT.load("jetson") is trt


def test_a_module_without_its_libraries_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> Any:
        raise ImportError("libnvinfer.so.10: cannot open shared object file", name="tensorrt.tensorrt")

    monkeypatch.setattr(regular.importlib, "import_module", broken)
    with pytest.raises(BuildError, match=r"there without its libraries: libnvinfer\.so\.10"):
        TENSORRT.load()


@pytest.mark.parametrize(("name", "cuda"), [("tensorrt-cu12", "12"), ("tensorrt_cu13", "13")])
def test_cuda_by_the_package(name: str, cuda: str, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = [SimpleNamespace(metadata={"Name": other}) for other in ("numpy", "tensorrt-rtx-cu11", name)]
    monkeypatch.setattr(metadata, "distributions", lambda: packages)
    assert TENSORRT.cuda() == cuda


def test_only_tensorrt_rtx_builds_for_a_gpu_that_is_not_here() -> None:
    members = {"NONE": 0, "SM89": 89}
    trt = SimpleNamespace(ComputeCapability=SimpleNamespace(__members__=members))
    for name, elsewhere in (("tensorrt", False), ("tensorrt-rtx", True)):
        backend = backend_named(name)
        assert backend.builds_elsewhere is elsewhere
        assert (backend.targets(trt) is not None) is elsewhere


def test_only_regular_tensorrt_has_a_timing_cache() -> None:
    assert {name: backend_named(name).has_timing_cache for name in backend_names()} == {
        "tensorrt": True,
        "tensorrt-rtx": False,
    }


@pytest.mark.parametrize(
    ("capability", "known"),
    [("89", True), ("120", True), ("87", False), ("90", False), ("110", False)],
)
def test_what_tensorrt_rtx_builds_for(capability: str, known: bool) -> None:
    members = {"NONE": 0, "CURRENT": 1, "SM75": 75, "SM80": 80, "SM86": 86, "SM89": 89, "SM120": 120, "SM121": 121}
    trt = SimpleNamespace(ComputeCapability=SimpleNamespace(__members__=members))
    backend = backend_named("tensorrt-rtx")
    assert backend.targets(trt) == ("75", "80", "86", "89", "120", "121")
    config = SimpleNamespace(num_compute_capabilities=0, set_compute_capability=lambda value, index: None)
    if known:
        backend.set_targets(trt, config, [capability])
        assert config.num_compute_capabilities == 1
    else:
        with pytest.raises(BuildError, match=f"compute capability {capability} is not one of 75, 80, 86, 89, 120, 121"):
            backend.set_targets(trt, config, [capability])
