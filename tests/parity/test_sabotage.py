"""A comparison that cannot fail proves nothing: each defect must be found, and at the place where it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgekit.bundle import Bundle, read_bundle
from edgekit.checkpoint import Checkpoint, open_checkpoint
from edgekit.errors import BundleError
from tests.parity.sabotage import copied, edit_constant, edit_node, set_attribute
from tests.parity.test_check import compare
from tests.parity.tiny_models import write_checkpoint

Checkpoints = Callable[[str], Checkpoint]
Bundles = Callable[..., Bundle]


def failure(bundle: Bundle, checkpoint: Checkpoint) -> str:
    """Where the comparison fails first."""
    found = compare(bundle, checkpoint).failure
    assert found is not None
    return found.rsplit(":", 1)[0]


def one_element(row: int, column: int) -> Callable[[np.ndarray], None]:
    """Adds 0.05 to one weight; they are spread by 0.2."""

    def change(array: np.ndarray) -> None:
        array[row, column] += 0.05

    return change


@pytest.mark.parametrize(
    ("constant", "place", "expected"),
    [
        # Packed rows [in, q 64 | k 32 | v 32] and [in, gate 96 | up 96] of layer 1.
        ("model.layers.1.self_attn.qkv_proj.weight_t", (5, 3), "hidden.2"),
        ("model.layers.1.self_attn.qkv_proj.weight_t", (5, 64 + 3), "cache.1.key"),
        ("model.layers.1.self_attn.qkv_proj.weight_t", (5, 96 + 3), "cache.1.value"),
        ("model.layers.1.self_attn.o_proj.weight_t", (5, 3), "hidden.2"),
        ("model.layers.0.mlp.gate_up_proj.weight_t", (5, 100), "hidden.1"),
        ("model.layers.2.mlp.down_proj.weight_t", (5, 3), "hidden.3"),
        ("lm_head.weight_t", (5, 3), "logits"),
    ],
)
def test_one_weight_altered(
    constant: str,
    place: tuple[int, int],
    expected: str,
    tmp_path: Path,
    tiny_bundle: Bundles,
    tiny_checkpoint: Checkpoints,
) -> None:
    bundle = copied(tiny_bundle("llama-untied"), tmp_path / "bundle")
    edit_constant(bundle, constant, one_element(*place))
    assert failure(bundle, tiny_checkpoint("llama-untied")) == f"prefill, {expected}"


def test_a_weight_that_is_not_a_number(tmp_path: Path, tiny_bundle: Bundles, tiny_checkpoint: Checkpoints) -> None:
    def change(array: np.ndarray) -> None:
        array[0, 0] = np.nan

    bundle = copied(tiny_bundle("llama-untied"), tmp_path / "bundle")
    edit_constant(bundle, "model.layers.2.mlp.down_proj.weight_t", change)
    report = compare(bundle, tiny_checkpoint("llama-untied"))
    assert str(report.failure).startswith("prefill, hidden.3: ")
    json.dumps(report.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("llama", {"rope_theta": 520.0}, "cache.0.key"),
        ("llama", {"rms_norm_eps": 1e-3}, "cache.0.key"),
        ("llama", {"hidden_act": "gelu"}, "hidden.1"),
        ("llama", {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}, "cache.0.key"),
        ("gemma3_text", {"rope_local_base_freq": 31.0}, "cache.0.key"),
        ("gemma3_text", {"sliding_window": 8}, "hidden.1"),
        ("gemma3_text", {"sliding_window": 6}, "hidden.1"),
        ("gemma3_text", {"query_pre_attn_scalar": 13}, "hidden.1"),
        # Layer 2 is the global one of every three; with a pattern of 2 layers 1 and 3 are.
        ("gemma3_text", {"sliding_window_pattern": 2}, "cache.1.key"),
    ],
)
def test_another_configuration_of_the_same_weights(
    name: str, changes: dict[str, Any], expected: str, tmp_path: Path, tiny_bundle: Bundles
) -> None:
    checkpoint = open_checkpoint(write_checkpoint(tmp_path / name, name, **changes))
    assert failure(tiny_bundle(name), checkpoint) == f"prefill, {expected}"


@pytest.mark.parametrize(
    ("name", "dtype", "node", "attribute", "value", "expected"),
    [
        ("llama", "fp32", "attention.1", "scale", 0.26, "hidden.2"),  # 1/√16 is 0.25
        ("llama", "int4", "attention.1", "scale", 0.26, "hidden.2"),
        ("llama", "fp32", "attention.2", "rotary_interleaved", 1, "cache.2.key"),
        ("llama", "int4", "attention.0", "do_rotary", 0, "cache.0.key"),
        ("gemma3_text", "fp32", "attention.0", "local_window_size", 6, "hidden.1"),
        ("gemma3_text", "fp32", "attention.2", "local_window_size", 7, "hidden.3"),
    ],
)
def test_an_attribute_of_the_graph_altered(
    name: str,
    dtype: str,
    node: str,
    attribute: str,
    value: float,
    expected: str,
    tmp_path: Path,
    tiny_bundle: Bundles,
    tiny_checkpoint: Checkpoints,
) -> None:
    bundle = copied(tiny_bundle(name, "ort", dtype), tmp_path / "bundle")
    edit_node(bundle, node, set_attribute(attribute, value))
    assert failure(bundle, tiny_checkpoint(name)) == f"prefill, {expected}"


def test_positions_that_are_right_only_from_an_empty_cache(
    tmp_path: Path, tiny_bundle: Bundles, tiny_checkpoint: Checkpoints
) -> None:
    """mask.positions is a slice from past to total; from 0 to sequence it is the same where nothing is past."""

    def change(node: onnx.NodeProto) -> None:
        node.input[1:3] = ["mask.zero", "mask.sequence"]

    bundle = copied(tiny_bundle("llama", "portable"), tmp_path / "bundle")
    edit_node(bundle, "mask.positions", change)
    model = onnx.load(bundle.graph, load_external_data=False)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(1, np.int64), "mask.zero"))
    onnx.save(model, bundle.graph)
    assert failure(bundle, tiny_checkpoint("llama")) == "chunked, cache.0.key"


def swap_nibbles(array: np.ndarray) -> None:
    array[:] = (array >> 4) | (array << 4)


def scale_a_row(array: np.ndarray) -> None:
    array.reshape(64, -1)[7] *= 2


@pytest.mark.parametrize(
    ("constant", "change"),
    [
        ("model.layers.1.mlp.down_proj.codes", swap_nibbles),
        ("model.layers.1.mlp.down_proj.scales", scale_a_row),
        ("model.layers.1.mlp.down_proj.zero_points", swap_nibbles),
    ],
)
def test_codes_that_are_not_the_checkpoints(
    constant: str,
    change: Callable[[np.ndarray], None],
    tmp_path: Path,
    tiny_bundle: Bundles,
    tiny_checkpoint: Checkpoints,
) -> None:
    bundle = copied(tiny_bundle("qwen2", "ort", "int4"), tmp_path / "bundle")
    edit_constant(bundle, constant, change)
    assert failure(bundle, tiny_checkpoint("qwen2")) == "weight model.layers.1.mlp.down_proj.weight"


def test_weights_of_another_checkpoint(tmp_path: Path, tiny_bundle: Bundles) -> None:
    other = open_checkpoint(write_checkpoint(tmp_path / "other", "qwen2", seed=1))
    assert failure(tiny_bundle("qwen2", "ort", "int4"), other) == "weight model.embed_tokens.weight"
    assert failure(tiny_bundle("qwen2"), other) == "prefill, hidden.0"


def test_a_float_bundle_that_calls_itself_quantised(
    tmp_path: Path, tiny_bundle: Bundles, tiny_checkpoint: Checkpoints
) -> None:
    bundle = copied(tiny_bundle("llama"), tmp_path / "bundle")
    manifest = json.loads((bundle.path / "manifest.json").read_text())
    manifest["dtype"] = "int8"
    (bundle.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="its dtype is int8, and 0 of its matrices are quantised"):
        compare(read_bundle(bundle.path), tiny_checkpoint("llama"))
