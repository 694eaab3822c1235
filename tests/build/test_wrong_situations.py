"""What a user meets when something is wrong with a build, and what it says: the rule, the fact and the next step.

Builds that are ended are in test_ended_builds.py; engines that are refused when they are loaded in
tests/runtime/test_engine_compatibility.py.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import helper

from edgekit.build import preflight
from edgekit.build.backends import backend_named
from edgekit.build.bundle_engine import engine_from_bundle, prepared_build
from edgekit.build.engine_cache import EngineCache
from edgekit.build.graph_build import check_versions
from edgekit.bundle import Bundle, read_bundle
from edgekit.bundle.extend import _check_writable
from edgekit.bundle.manifest import OperatorUse
from edgekit.cli.build import command
from edgekit.device.profile import device_profile
from edgekit.errors import BuildError, BundleError, DeviceError, DoesNotFit, EdgekitError
from tests.build.bundles import copied, need_tensorrt_rtx, request, tiny_bundle, with_graph, with_manifest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def tensorrt_rtx() -> None:
    need_tensorrt_rtx()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("llama"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))


def refused(bundle: Bundle, **options: Any) -> EdgekitError:
    """Why a build of this bundle does not begin."""
    with pytest.raises(EdgekitError) as caught:
        prepared_build(bundle, request(**options))
    return caught.value


def invoke(bundle: Bundle | Path, *arguments: str) -> Result:
    path = bundle if isinstance(bundle, Path) else bundle.path
    return CliRunner().invoke(command, [str(path), *arguments])


def says(error: BaseException | None, kind: type[EdgekitError], *texts: str) -> None:
    assert type(error) is kind, error
    for text in texts:
        assert text in str(error), str(error)


# The device


def test_an_unknown_device(bundle: Bundle) -> None:
    result = invoke(bundle, "--device", "toaster")
    says(result.exception, DeviceError, "'toaster' is not", "edgekit devices list")


def test_a_typo_in_a_device_name(bundle: Bundle) -> None:
    result = invoke(bundle, "--device", "rtx-490")
    says(result.exception, DeviceError, "'rtx-490' is not", "did you mean rtx-4090")


@pytest.mark.parametrize("device", ["jetson-orin-nano-8gb", "h100-sxm"])
def test_a_device_that_must_build_itself(bundle: Bundle, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "local_capabilities", set)
    error = refused(bundle, device=device)
    capability = device_profile(device).compute_capability
    says(error, BuildError, f"it has compute capability {capability}, GPUs of this machine: none")
    assert f"edgekit build {bundle.path} --device {device}" in error.next_step


def test_a_device_with_too_old_a_tensorrt(bundle: Bundle) -> None:
    says(refused(bundle, device="jetson-xavier-nx"), BuildError, "10.3 or newer", "has 8.5", "can be planned for")


def test_weights_that_the_device_has_no_arithmetic_for(bundle: Bundle) -> None:
    old = replace(device_profile("rtx-3090"), dtypes=("fp32", "fp16", "int8"))
    with pytest.raises(BuildError, match="have weights of fp32, fp16, int8") as caught:
        preflight.check_dtype(with_manifest(bundle, dtype="int4"), old)
    assert "are int4" in caught.value.fact
    assert "--dtype fp16" in caught.value.next_step
    fp8 = with_manifest(bundle, dtype="fp8")
    with pytest.raises(BuildError, match="are fp8"):
        preflight.check_dtype(fp8, device_profile("rtx-3090"))
    preflight.check_dtype(fp8, device_profile("rtx-4090"))


def test_a_backend_that_the_device_does_not_have(bundle: Bundle) -> None:
    error = refused(bundle, device="h100-sxm", backend="tensorrt-rtx")
    says(error, BuildError, "tensorrt-rtx was asked for", "leave --backend out")
    says(refused(bundle, backend="tensort"), BuildError, "'tensort' is none of them", "did you mean tensorrt?")


# TensorRT


def test_no_tensorrt(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "local_capabilities", lambda: {"87", "89"})
    monkeypatch.setitem(sys.modules, "tensorrt", None)  # what importing a missing package meets
    jetson = refused(bundle, device="jetson-orin-nano-8gb")
    says(jetson, BuildError, "needs TensorRT", "apt install python3-libnvinfer", "--system-site-packages")
    says(refused(bundle, backend="tensorrt"), BuildError, "pip install", "pypi.nvidia.com")


def test_the_stub_of_the_package_index(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "local_capabilities", lambda: {"89"})
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="10.16.0"))
    says(refused(bundle, backend="tensorrt"), BuildError, "a stub without a builder")


def test_too_old_a_tensorrt(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "local_capabilities", lambda: {"87"})
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="8.6.2", Builder=object))
    error = refused(bundle, device="jetson-orin-nano-8gb")
    says(error, BuildError, "10.3 or newer", "version 8.6.2 is installed", "JetPack 6")


@pytest.mark.parametrize("option", ["refit", "strip"])
def test_an_option_that_tensorrt_rtx_lacks_without_a_gpu(bundle: Bundle, option: str) -> None:
    from edgekit.build.backends import tensorrt_rtx

    if tensorrt_rtx._has_driver():
        pytest.skip("this machine has a CUDA driver, so the option is not refused")
    says(refused(bundle, options=(option,)), BuildError, "there is no CUDA driver here", f"leave --{option} out")


# The bundle


@pytest.mark.parametrize("form", ["ort", "portable"])
def test_a_form_for_another_runtime(bundle: Bundle, form: str) -> None:
    error = refused(with_manifest(bundle, form=form))
    says(error, BuildError, f"has the form {form}", "edgekit export ", "--form tensorrt --dtype fp16")


def test_a_damaged_bundle(bundle: Bundle, tmp_path: Path) -> None:
    damaged = copied(bundle, tmp_path / "bundle")
    data = damaged.path / damaged.manifest.graph.data[0]
    content = bytearray(data.read_bytes())
    content[100] ^= 1
    data.write_bytes(content)
    result = invoke(damaged, "--device", "rtx-4090")
    says(result.exception, BundleError, "model.onnx.data is altered: sha256")


def test_a_read_only_bundle(bundle: Bundle) -> None:
    """As another user where this one is root, whom permissions do not stop."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        made = copied(bundle, Path(place) / "bundle")
        for folder in (made.path, made.path.parent):
            folder.chmod(0o555)
        message = as_another_user(lambda: _check_writable(made.path))
        for folder in (made.path.parent, made.path):
            folder.chmod(0o755)
        assert f"{made.path} is read-only" in message
    assert "what is added to a bundle is written to its directory and beside it" in message
    assert "copy the bundle to a disk that can be written to" in message


def as_another_user(call: Callable[[], None]) -> str:
    """What a call raises, in a process that is not root's."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        said = "nothing was raised"
        try:
            if os.geteuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            call()
        except EdgekitError as error:
            said = str(error)
        finally:
            os.write(write_end, said.encode())
            os._exit(0)
    os.close(write_end)
    os.waitpid(child, 0)
    with os.fdopen(read_end) as pipe:
        return pipe.read()


def add_node(op: str, domain: str = "", dtype: int = onnx.TensorProto.INT64) -> Any:
    """Put a node in front of the attention of layer 1."""

    def change(model: onnx.ModelProto) -> None:
        place = next(i for i, node in enumerate(model.graph.node) if "layers.1.self_attn.q_proj" in str(node.input))
        node = model.graph.node[place]
        added = helper.make_node(op, [node.input[0]], ["strange"], "strange_node", domain=domain)
        node.input[0] = "strange"
        model.graph.node.insert(place, added)
        if domain:
            model.opset_import.append(helper.make_opsetid(domain, 1))

    return change


def test_an_operator_that_tensorrt_does_not_have(bundle: Bundle, tmp_path: Path) -> None:
    error = refused(with_graph(bundle, tmp_path / "bundle", add_node("BitwiseNot")))
    says(error, BuildError, "1 is not: BitwiseNot at strange_node (layer 1): TensorRT rtx-1.7 has no BitwiseNot")


def test_an_operator_of_onnx_runtime(bundle: Bundle, tmp_path: Path) -> None:
    error = refused(with_graph(bundle, tmp_path / "bundle", add_node("QuickGelu", "com.microsoft")))
    says(error, BuildError, "com.microsoft::QuickGelu", "strange_node (layer 1)")
    assert "[an operator of ONNX Runtime alone: edgekit export --form tensorrt]" in error.fact


def test_an_operator_that_a_rule_replaces(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BuildError) as caught:
        preflight.check_operators(bundle, backend_named("tensorrt"), "10.3.0")
    says(caught.value, BuildError, "opset: TensorRT 10.3 takes opset 9 to 20, the model has 24")
    assert "[rule lower_rms_normalization: edgekit export --form jetpack6]" in caught.value.fact
    assert "--form jetpack6 --dtype fp16" in caught.value.next_step


def test_too_new_an_opset(bundle: Bundle, tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.opset_import[0].version = 26

    error = refused(with_graph(bundle, tmp_path / "bundle", change))
    says(error, BuildError, "takes opset 9 to 24, the model has 26")


# Plugins


def test_a_plugin_library_that_is_not_there(bundle: Bundle, tmp_path: Path) -> None:
    made = with_manifest(bundle, operators=(OperatorUse("TPAAttention", 1, 2),))
    error = refused(made, library=tmp_path / "libnone.so")
    says(error, BuildError, "libnone.so does not exist", "leave --plugin-library out")


def test_a_plugin_library_for_another_processor(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    made = with_manifest(bundle, operators=(OperatorUse("TPAAttention", 1, 2),))
    monkeypatch.setattr(preflight.platform, "machine", lambda: "x86_64")
    error = refused(made, device="dgx-spark", backend="tensorrt-rtx")
    says(error, BuildError, "so both have one processor", "has an aarch64 processor, this machine x86_64", "-o KIT")
    # Where no TensorRT builds that must be on the device, a kit would be refused, and is not what to make.
    with pytest.raises(BuildError) as caught:
        preflight.check_processor(made, replace(device_profile("dgx-spark"), backends=("tensorrt-rtx",)))
    assert caught.value.next_step.endswith(f"on the device itself: edgekit build {made.path} --device dgx-spark")
    # Without a library of ours nothing is known to be wrong, and it is said that nothing is known.
    prepared = prepared_build(bundle, request("dgx-spark", backend="tensorrt-rtx"))
    assert "whether this engine loads there was not tried" in prepared.note
    monkeypatch.setattr(preflight.platform, "machine", lambda: "aarch64")
    assert preflight.check_processor(made, device_profile("dgx-spark")) == ""
    assert preflight.check_processor(made, device_profile("rtx-4090")) == ""


def test_a_plugin_library_that_is_none(bundle: Bundle, tmp_path: Path) -> None:
    library = tmp_path / "libbroken.so"
    library.write_bytes(b"no library")
    made = with_manifest(bundle, operators=(OperatorUse("TPAAttention", 1, 2),))
    with pytest.raises(BuildError, match="a plugin library must load"):
        engine_from_bundle(prepared_build(made, request(library=library)))
    assert not read_bundle(bundle.path).manifest.engines


def test_a_plugin_of_another_version() -> None:
    facts = {"plugins": [{"name": "TPAAttention", "version": "1"}]}
    with pytest.raises(BuildError, match="the graph has TPAAttention version 2, the library version 1"):
        check_versions([OperatorUse("TPAAttention", 2, 5)], facts)


def test_no_compiler_for_plugins(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekit.build import plugin_library as compiling

    monkeypatch.setattr(compiling.shutil, "which", lambda name: None)
    usual = Path.is_file
    monkeypatch.setattr(Path, "is_file", lambda path: path.name != "nvcc" and usual(path))
    made = with_manifest(bundle, operators=(OperatorUse("TPAAttention", 1, 2),))
    says(refused(made), BuildError, "compiling the plugin library needs nvcc", "install the CUDA toolkit")


def test_no_headers_for_plugins(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekit.build import plugin_library as compiling

    monkeypatch.setenv("TENSORRT_INCLUDE_DIR", str(tmp_path))
    monkeypatch.setattr(compiling, "_nvcc", lambda: tmp_path / "nvcc")
    made = with_manifest(bundle, operators=(OperatorUse("TPAAttention", 1, 2),))
    says(refused(made), BuildError, "needs TensorRT's headers", "has no NvInferRuntime.h")


# Sizes, disk, memory


def test_a_longer_context_than_the_bundle_serves(bundle: Bundle) -> None:
    error = refused(bundle, limits={"max_kv_cache_capacity": 5000})
    says(error, BuildError, "--max-kv-cache-capacity is 5,000, the bundle serves 256 tokens", "--max-context 5000")


def test_a_longer_piece_of_a_prompt_than_the_cache(bundle: Bundle) -> None:
    error = refused(bundle, limits={"max_input_len": 64})
    says(error, BuildError, "--max-input-len is 64, the cache holds 32 tokens", "choose --max-input-len 32 or less")


def test_caches_that_do_not_fit_into_the_device(bundle: Bundle) -> None:
    error = refused(bundle, limits={"max_batch_size": 10**8})
    says(error, DoesNotFit, "NVIDIA GeForce RTX 4090", "32 tokens of cache for 100000000 sequences", "edgekit plan")
    assert error.exit_code == 4


def test_no_space_on_the_disk(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekit.build import bundle_engine

    monkeypatch.setattr(bundle_engine, "disk_free_bytes", lambda path: 1_000_000)
    says(refused(bundle), DoesNotFit, "an engine must fit on the disk of its bundle", "1 MB are free")


@pytest.mark.parametrize("cache", ["/proc/edgekit", "/dev/null/edgekit"])
def test_a_cache_that_cannot_be_written_to(bundle: Bundle, cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", cache)
    says(refused(bundle), BuildError, "must be writable", f"{cache} is not", "EDGEKIT_CACHE", "--no-cache")
    prepared_build(bundle, request(cache=False))


# The cache of engines


def test_a_damaged_engine_in_the_cache_is_not_taken(tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    engine.write_bytes(b"an engine")
    cache = EngineCache(tmp_path / "cache")
    cache.store("key", engine, {"seconds": 1.0})
    assert cache.find("key") is not None
    kept = tmp_path / "cache" / "engines" / "key" / "model.engine"
    kept.unlink()
    kept.write_bytes(b"an engina")
    assert cache.find("key") is None


# The command line


def test_a_mistyped_option(bundle: Bundle) -> None:
    result = invoke(bundle, "--device", "rtx-4090", "--max-inptu-len", "3")
    assert result.exit_code == 2
    assert "No such option" in result.output
    assert "--max-input-len" in result.output


@pytest.mark.parametrize("size", ["four", "4 potatoes", "0GB", "-1"])
def test_a_memory_limit_that_is_no_size(bundle: Bundle, size: str) -> None:
    result = invoke(bundle, "--device", "rtx-4090", "--memory-limit", size)
    assert result.exit_code == 2
    assert "write for example 4GB or 800MB" in result.output


def test_a_name_that_would_lead_elsewhere(bundle: Bundle) -> None:
    says(refused(bundle, name="../x"), BuildError, "'../x' is not", "choose another --name")
