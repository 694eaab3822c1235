"""The draft graph beside the PyTorch heads, in each form and type; and its files in a bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit import contract
from edgekit.checkpoint import Checkpoint, open_checkpoint
from edgekit.draft.head_file import write_heads
from edgekit.errors import CheckpointError, ExportError
from edgekit.export.draft_heads import heads_for
from edgekit.models.registry import model_on_meta
from tests.export.tiny_heads import SIZES, Drafted, tiny_heads, written_heads
from tests.parity.tiny_models import write_checkpoint

ROWS = 5


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Checkpoint]:
    made: dict[str, Checkpoint] = {}

    def make(name: str) -> Checkpoint:
        if name not in made:
            made[name] = open_checkpoint(write_checkpoint(tmp_path_factory.mktemp("c") / name, name))
        return made[name]

    return make


def total_variation(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Of each distribution over the draft vocabulary."""
    distance: np.ndarray = 0.5 * np.abs(found - expected).sum(-1)
    return distance


@pytest.mark.parametrize("form", contract.FORMS)
@pytest.mark.parametrize("components", [1, 3, 4])
def test_in_float32_it_computes_what_pytorch_computes(
    form: str, components: int, checkpoints: Callable[[str], Checkpoint], tmp_path: Path
) -> None:
    drafted = Drafted(checkpoints("llama"), tmp_path, form, "fp32", components)
    for found, expected in zip(drafted.run(), drafted.expected(), strict=True):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=1e-5)
    _, probabilities = drafted.run()
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
    # Rows differ in the components that they choose, and one alone gives the same.
    np.testing.assert_allclose(drafted.run(slice(2, 3))[1], probabilities[2:3], atol=1e-6)


@pytest.mark.parametrize("name", ["llama-untied", "gemma3_text", "t6"])
def test_the_unembedding_is_the_models_head(
    name: str, checkpoints: Callable[[str], Checkpoint], tmp_path: Path
) -> None:
    """A head of its own, one tied to an embedding that the model scales, a model without norm weights."""
    drafted = Drafted(checkpoints(name), tmp_path, "ort", "fp32", 2)
    for found, expected in zip(drafted.run(), drafted.expected(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    "sizes",
    [
        {"tokens": 1, "rank": 1, "component_rank": 0},
        {"rank": 1, "component_rank": 8, "feature_layers": (3,)},
        {"rank": 2, "component_rank": 0},
        {"rank": 2, "window": 0},
        {"rank": 2, "window": 1},
        {"rank": 2, "window": 5, "heads": 3, "kv_heads": 3, "head_size": 5},
    ],
)
def test_heads_of_every_shape(sizes: dict[str, Any], checkpoints: Callable[[str], Checkpoint], tmp_path: Path) -> None:
    drafted = Drafted(checkpoints("llama"), tmp_path, "ort", "fp32", sizes["rank"], **sizes)
    for found, expected in zip(drafted.run(), drafted.expected(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("form", contract.FORMS)
@pytest.mark.parametrize("parts", [(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1), (3, 1, 4, 2, 1), (11,), (7, 4)])
def test_what_is_kept_of_earlier_positions_is_what_a_whole_text_shows(
    form: str, parts: tuple[int, ...], checkpoints: Callable[[str], Checkpoint], tmp_path: Path
) -> None:
    """Eleven positions and a window of seven: what lies too far back is not seen, however it comes."""
    drafted = Drafted(checkpoints("llama"), tmp_path, form, "fp32", 4)
    rng, config = np.random.default_rng(4), drafted.found.heads.config
    features = rng.standard_normal((2, 11, config.features)).astype(np.float32) * 5
    tokens = rng.integers(0, len(drafted.found.table), (2, 11))
    rows, past, place = slice(0, 2), None, 0
    for count in parts:
        new = slice(place, place + count)
        found = drafted.step(features[:, new], tokens[:, new], rows, past)
        past, place = found[2], place + count
        drafted.features, drafted.tokens = features[:, :place], tokens[:, :place]
        drafted.noise = np.zeros((2, config.rank), np.float32)
        for mine, theirs in zip(found, drafted.expected(), strict=False):
            np.testing.assert_allclose(mine, theirs, atol=1e-5)
    assert past is not None
    assert past.shape == (2, 7, config.kept)
    assert np.all(past[:, :, -1] == 1)
    # What was too far back makes no difference; what is seen does.
    wild = features.copy()
    wild[:, :3] = 1e3
    drafted.features = wild
    np.testing.assert_allclose(drafted.expected()[1], found[1], atol=1e-5)
    wild[:, 3] = 1e3
    assert np.abs(drafted.expected()[1] - found[1]).max() > 1e-3


def test_of_fewer_tokens_it_says_the_same(checkpoints: Callable[[str], Checkpoint], tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    (tmp_path / "two").mkdir()
    whole = Drafted(checkpoints("llama"), tmp_path / "all", "ort", "fp32", 2)
    fewer = Drafted(checkpoints("llama"), tmp_path / "two", "ort", "fp32", 2, draft_tokens=2)
    assert fewer.entry["tokens"] == 2
    (weights, said), (other, shorter) = whole.run(), fewer.run()
    np.testing.assert_allclose(other, weights, atol=1e-6)
    np.testing.assert_allclose(shorter, said[:, :2], atol=1e-6)
    with pytest.raises(ExportError, match="of one or more of the tokens") as caught:
        Drafted(checkpoints("llama"), tmp_path / "two", "ort", "fp32", 2, draft_tokens=4)
    assert "has 3" in caught.value.fact


#: Mean and largest total variation from the heads in float32, of weights without any redundancy.
TOLERANCES = {"fp16": (0.001, 0.003), "int8": (0.015, 0.03), "int4": (0.13, 0.4)}


#: TensorRT 10.3 has no int4, and a decoder for it is refused.
FORMS_AND_TYPES = [
    (form, dtype) for form in contract.FORMS for dtype in TOLERANCES if (form, dtype) != ("jetpack6", "int4")
]


@pytest.mark.parametrize(("form", "dtype"), FORMS_AND_TYPES)
def test_rounded_weights(form: str, dtype: str, checkpoints: Callable[[str], Checkpoint], tmp_path: Path) -> None:
    drafted = Drafted(checkpoints("llama"), tmp_path, form, dtype, 4)
    (log_weights, probabilities), (wanted_weights, wanted) = drafted.run(), drafted.expected()
    distance = total_variation(probabilities, wanted)
    mean, largest = TOLERANCES[dtype]
    assert distance.mean() < mean
    assert distance.max() < largest
    assert total_variation(np.exp(log_weights), np.exp(wanted_weights)).max() < largest
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
    assert log_weights.dtype == probabilities.dtype == np.float32


#: Rules of each form on heads of three tokens: of the 13 matrices, gate and up are one in the `ort` form.
FIRED = {
    "ort": {"pack_gate_up": 1, "fuse_norm": 6, "quantize_linear": 12, "quantize_embedding": 1},
    "portable": {"quantize_linear_qdq": 13},
    "tensorrt": {"quantize_linear_qdq": 13},
    "jetpack6": {"quantize_linear_qdq": 13, "lower_rms_normalization": 6, "opset_20": 1},
}


@pytest.mark.parametrize("form", contract.FORMS)
def test_matrices_are_quantised_by_the_decoders_rules(
    form: str, checkpoints: Callable[[str], Checkpoint], tmp_path: Path
) -> None:
    drafted = Drafted(checkpoints("llama"), tmp_path, form, "int8", 2)
    rules = drafted.entry["rules"]
    assert {name: outcome["fired"] for name, outcome in rules.items()} == FIRED[form]
    refused = [(name, each["reason"]) for name, outcome in rules.items() for each in outcome["refused"]]
    assert refused == [(next(n for n in rules if "linear" in n), "mixture.weight is not quantised")]


def test_beside_4_bits_the_unembedding_has_8(checkpoints: Callable[[str], Checkpoint], tmp_path: Path) -> None:
    drafted = Drafted(checkpoints("llama"), tmp_path, "ort", "int4", 1)
    bits = {
        node.name: next(attribute.i for attribute in node.attribute if attribute.name == "bits")
        for node in drafted.model.graph.node
        if node.op_type in ("MatMulNBits", "GatherBlockQuantized")
    }
    assert {name for name, count in bits.items() if count == 8} == {"unembedding", "token"}
    assert set(bits.values()) == {4, 8}
    assert drafted.entry["quantization"]["at_8_bits"] == ["token.table", "unembedding.weight"]


def test_only_chosen_components_are_multiplied(checkpoints: Callable[[str], Checkpoint], tmp_path: Path) -> None:
    graph = Drafted(checkpoints("llama"), tmp_path, "ort", "int8", 1).model.graph
    gathered = [node.input[0] for node in graph.node if node.op_type == "Gather"]
    assert sorted(gathered) == ["component.down", "component.up"]
    assert {tensor.name: next(iter(tensor.dims)) for tensor in graph.initializer if tensor.name in gathered} == {
        "component.down": 4,
        "component.up": 4,
    }


def test_standard_operators_alone_where_the_form_says_so(
    checkpoints: Callable[[str], Checkpoint], tmp_path: Path
) -> None:
    for form in ("portable", "tensorrt", "jetpack6"):
        folder = tmp_path / form
        folder.mkdir()
        model = Drafted(checkpoints("llama"), folder, form, "int8", 2).model
        assert {node.domain for node in model.graph.node} == {""}
        assert [entry.domain for entry in model.opset_import] == [""]


def test_the_vocabulary_is_read_without_pickle(checkpoints: Callable[[str], Checkpoint], tmp_path: Path) -> None:
    drafted = Drafted(checkpoints("llama"), tmp_path, "ort", "fp32", 1)
    stored = np.load(tmp_path / drafted.entry["vocabulary"], allow_pickle=False)
    assert stored.dtype == np.int32
    np.testing.assert_array_equal(stored, drafted.found.vocabulary.numpy())
    assert drafted.entry["vocabulary_size"] == len(stored) == SIZES["vocabulary"]


@pytest.mark.parametrize(
    ("sizes", "fact"),
    [
        ({"hidden_size": 32}, "hidden size of 32, the model has 64"),
        ({"feature_layers": (1, 4)}, "read after layers 1, 4, the model has 3"),
        ({"feature_layers": (3, 1)}, "read after layers 3, 1, the model has 3"),
    ],
)
def test_heads_of_another_model_are_refused(
    sizes: dict[str, Any], fact: str, checkpoints: Callable[[str], Checkpoint], tmp_path: Path
) -> None:
    checkpoint = checkpoints("llama")
    path = written_heads(tmp_path / "heads.safetensors", checkpoint, **sizes)
    with pytest.raises(ExportError, match="belong to the model") as caught:
        heads_for(checkpoint, model_on_meta(checkpoint.config), path, None)
    assert fact in caught.value.fact
    assert "edgekit draft train" in caught.value.next_step


def test_a_table_of_another_vocabulary_is_refused(checkpoints: Callable[[str], Checkpoint], tmp_path: Path) -> None:
    checkpoint, path = checkpoints("llama"), tmp_path / "heads.safetensors"
    known = checkpoint.config["vocab_size"]
    found = tiny_heads(known, feature_layers=(1, 2, 3))
    found.table = found.table[:-1]
    write_heads(path, found)
    with pytest.raises(ExportError) as caught:
        heads_for(checkpoint, model_on_meta(checkpoint.config), path, None)
    assert caught.value.fact.endswith(f"they know {known - 1} tokens, the model has {known}")


def test_tokens_beyond_the_vocabulary_are_refused(checkpoints: Callable[[str], Checkpoint], tmp_path: Path) -> None:
    checkpoint, path = checkpoints("llama"), tmp_path / "heads.safetensors"
    write_heads(path, tiny_heads(10_000, feature_layers=(1, 2, 3)))
    with pytest.raises(ExportError) as caught:
        heads_for(checkpoint, model_on_meta(checkpoint.config), path, None)
    assert f"vocabulary ends at {checkpoint.config['vocab_size'] - 1}" in caught.value.fact


def test_a_model_that_caps_its_logits_is_refused(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write_checkpoint(tmp_path / "c", "gemma3_text", final_logit_softcapping=30.0))
    path = written_heads(tmp_path / "heads.safetensors", checkpoint)
    with pytest.raises(ExportError, match="plain products") as caught:
        heads_for(checkpoint, model_on_meta(checkpoint.config), path, None)
    assert "30" in caught.value.fact


@pytest.mark.parametrize("components", [0, 5])
def test_as_many_components_as_there_are(
    components: int, checkpoints: Callable[[str], Checkpoint], tmp_path: Path
) -> None:
    checkpoint = checkpoints("llama")
    path = written_heads(tmp_path / "heads.safetensors", checkpoint)
    with pytest.raises(ExportError) as caught:
        heads_for(checkpoint, model_on_meta(checkpoint.config), path, components)
    assert f"{components} were asked for" in caught.value.fact
    assert "between 1 and 4" in caught.value.next_step


def test_what_is_no_file_of_heads_is_refused(checkpoints: Callable[[str], Checkpoint], tmp_path: Path) -> None:
    checkpoint = checkpoints("llama")
    with pytest.raises(CheckpointError, match="edgekit draft train"):
        heads_for(checkpoint, model_on_meta(checkpoint.config), checkpoint.path / "model.safetensors", None)


@pytest.mark.parametrize("same", [True, False, None])
def test_whose_heads_they_are_is_told(
    same: bool | None, checkpoints: Callable[[str], Checkpoint], tmp_path: Path
) -> None:
    checkpoint, path = checkpoints("llama"), tmp_path / "heads.safetensors"
    files = checkpoint.files() if same else [{"name": "model.safetensors", "bytes": 1, "sha256": "0" * 64}]
    record = {} if same is None else {"model": {"files": files}}
    write_heads(path, tiny_heads(checkpoint.config["vocab_size"], record=record))
    heads = heads_for(checkpoint, model_on_meta(checkpoint.config), path, None)
    assert heads.of_checkpoint is same
    assert heads.components == 2
    assert heads.provenance()["record"] == record
