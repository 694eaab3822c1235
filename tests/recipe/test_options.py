"""From recipes to the options of an export, and the committed recipes' fingerprints."""

from __future__ import annotations

from dataclasses import fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import edgekit
from edgekit.checkpoint import Checkpoint, open_checkpoint
from edgekit.compress.blockwise import BlockQuantized
from edgekit.compress.quantizer import QuantizedModel
from edgekit.compress.sensitivity import forced
from edgekit.compress.units import is_matrix, unit_of
from edgekit.errors import ExportError, RecipeError
from edgekit.export.bind import bind_weights
from edgekit.export.draft import write_draft
from edgekit.export.draft_features import add_draft_features
from edgekit.export.draft_heads import heads_for
from edgekit.export.options import ExportOptions
from edgekit.export.trace import traced_from_config
from edgekit.export.write import write_model
from edgekit.models.registry import model_on_meta, weight_map
from edgekit.progress import SilentProgress
from edgekit.recipe.fingerprint import differences, graph_fingerprint, read_fingerprint, rule_counts
from edgekit.recipe.inputs import export_inputs
from edgekit.recipe.options import export_options
from edgekit.recipe.recipe import Recipe, read_recipe
from edgekit.rewrite.pipelines import rewrite
from edgekit.rewrite.rule import Context
from tests.recipe.recipes import DIGEST, write_recipe

EXPORTS = Path(edgekit.__file__).parents[1] / "exports"


def test_what_a_recipe_leaves_out_is_the_default_of_an_export(tmp_path: Path) -> None:
    recipe = read_recipe(write_recipe(tmp_path, ("block_size = 32", "")))
    assert export_options(recipe) == ExportOptions(dtype="int4", form="ort")


def test_every_option_of_an_export_can_be_written_in_a_recipe(tmp_path: Path) -> None:
    chosen: dict[str, Any] = {
        "dtype": "int4",
        "form": "portable",
        "max_context": 77,
        "block_size": 64,
        "allowed_cost": 0.5,
        "keep_8bit": ("lm_head", "*.down_proj"),
        "carry_over": False,
        "calibration_sequences": 3,
        "calibration_length": 99,
        "name": "Tiny",
        "draft": str(tmp_path / "heads.safetensors"),
        "draft_components": 3,
        "draft_tokens": 2,
    }
    (tmp_path / "heads.safetensors").write_bytes(b"heads")
    # "base" has no effect in the form portable; the next test has it.
    assert set(chosen) | {"base"} == {item.name for item in fields(ExportOptions)}
    quantization = [
        "block_size = 64",
        "allowed_cost = 0.5",
        'keep_8bit = ["lm_head", "*.down_proj"]',
        "carry_over = false",
        "calibration_sequences = 3",
        "calibration_length = 99",
    ]
    rest = 'form = "portable"\n[limits]\nmax_context = 77\n[model]\nname = "Tiny"\n'
    rest += (
        f'[draft]\nheads = "heads.safetensors"\nsha256 = "{sha256(b"heads").hexdigest()}"\ncomponents = 3\ntokens = 2'
    )
    path = write_recipe(tmp_path, ("block_size = 32", "\n".join(quantization)), ("", rest))
    assert export_options(read_recipe(path)) == ExportOptions(**chosen)


def test_what_multiplies_by_codes_can_be_written_in_a_recipe(tmp_path: Path) -> None:
    recipe = read_recipe(write_recipe(tmp_path, ("block_size = 32", 'base = "products"')))
    assert export_options(recipe) == ExportOptions(dtype="int4", form="ort", base="products")


def with_heads(folder: Path, *lines: str) -> Path:
    return write_recipe(folder, ("", "\n".join(["[draft]", *lines])))


def test_draft_heads_must_be_those_of_the_recipe(tmp_path: Path) -> None:
    path = with_heads(tmp_path, 'heads = "heads.safetensors"', f'sha256 = "{DIGEST}"')
    with pytest.raises(RecipeError, match="whose SHA-256 the recipe gives") as caught:
        export_options(read_recipe(path))
    assert "heads.safetensors does not exist" in caught.value.fact
    (tmp_path / "heads.safetensors").write_bytes(b"others")
    with pytest.raises(RecipeError) as caught:
        export_options(read_recipe(path))
    assert sha256(b"others").hexdigest() in caught.value.fact


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["components = 2"], "must have heads"),
        ([f'sha256 = "{DIGEST}"'], "must have heads"),
        (['heads = "heads.safetensors"'], "64 hexadecimal digits"),
        (['heads = "heads.safetensors"', 'sha256 = "abc"'], "64 hexadecimal digits"),
        (['heads = "heads.safetensors"', "components = 0"], "components must be at least 1"),
    ],
)
def test_malformed_draft_tables_are_refused(tmp_path: Path, lines: list[str], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        read_recipe(with_heads(tmp_path, *lines))


def test_other_heads_make_another_bundle_wherever_they_lie(tmp_path: Path) -> None:
    other = DIGEST[::-1]
    recipes = [
        write_recipe(tmp_path, name="none.cpu"),
        write_recipe(tmp_path, ("", f'[draft]\nheads = "a"\nsha256 = "{DIGEST}"'), name="a.cpu"),
        write_recipe(tmp_path, ("", f'[draft]\nheads = "b"\nsha256 = "{DIGEST}"'), name="b.cpu"),
        write_recipe(tmp_path, ("", f'[draft]\nheads = "a"\nsha256 = "{other}"'), name="other.cpu"),
    ]
    none, first, second, third = (export_inputs(read_recipe(path)) for path in recipes)
    assert first == second
    assert len({none, first, third}) == 3


@pytest.mark.parametrize(("dtype", "key"), [("fp32", "block_size = 32"), ("int8", "allowed_cost = 1")])
def test_a_key_without_effect_is_refused(tmp_path: Path, dtype: str, key: str) -> None:
    path = write_recipe(tmp_path, ('dtype = "int4"', f'dtype = "{dtype}"'), ("block_size = 32", key))
    with pytest.raises(RecipeError, match=f"{key.split()[0]} has none on {dtype}"):
        read_recipe(path)


def test_a_whole_number_is_a_number(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, ("block_size = 32", "allowed_cost = 1"))
    assert export_options(read_recipe(path)).allowed_cost == 1.0


@pytest.mark.parametrize("value", ['"lm_head"', "[1]", '[""]'])
def test_patterns_are_a_list_of_texts(tmp_path: Path, value: str) -> None:
    path = write_recipe(tmp_path, ("block_size = 32", f"keep_8bit = {value}"))
    with pytest.raises(RecipeError, match="keep_8bit must be a list of texts"):
        read_recipe(path)


@pytest.mark.parametrize("value", ["-0.1", "nan", '"0.1"', "true"])
def test_costs_that_are_none(tmp_path: Path, value: str) -> None:
    path = write_recipe(tmp_path, ("block_size = 32", f"allowed_cost = {value}"))
    with pytest.raises(RecipeError, match="allowed_cost must be"):
        read_recipe(path)


def test_a_block_size_that_the_export_does_not_know(tmp_path: Path) -> None:
    recipe = read_recipe(write_recipe(tmp_path, ("block_size = 32", "block_size = 48")))
    with pytest.raises(ExportError, match="block_size must be one of"):
        export_options(recipe)


@pytest.mark.model
@pytest.mark.parametrize("path", sorted(EXPORTS.glob("*.toml")), ids=lambda path: path.name)
def test_the_graph_is_as_the_golden_fingerprint_says(path: Path, tmp_path: Path) -> None:
    """The structure alone: every matrix gets codes of 0, so that nothing is calibrated or rounded."""
    recipe = read_recipe(path)
    golden = read_fingerprint(recipe.fingerprint_path)
    assert golden is not None
    assert differences(golden, structure(recipe, tmp_path)) == []


def structure(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """The fingerprint of a recipe's graph with no values in it."""
    options = export_options(recipe)
    checkpoint = open_checkpoint(recipe.checkpoint_reference())
    max_context = options.max_context or checkpoint.config["max_position_embeddings"]
    traced = traced_from_config(checkpoint.config, options.activations, max_context)
    model = model_on_meta(checkpoint.config, max_context)
    tables = {name: table.numpy() for name, table in model.rope_tables().items()}
    bind_weights(traced.graph, checkpoint, weight_map(model), tables, options.activations)
    quantized = zeros(checkpoint, options) if options.quantization is not None else None
    outcomes = rewrite(traced.graph, options.form, Context(traced.geometry, options.activations, quantized))
    rules = rule_counts({"rules": {name: outcome.to_dict() for name, outcome in outcomes.items()}})
    heads = None
    if options.draft:
        heads = heads_for(checkpoint, model, Path(options.draft), options.draft_components, options.draft_tokens)
    if heads is not None:
        layers, width = heads.found.heads.config.feature_layers, traced.geometry.hidden_size
        add_draft_features(traced.graph, layers, width, options.activations)
    found = graph_fingerprint(write_model(traced.graph, folder), options.form, options.dtype, rules)
    if heads is not None:
        entry = write_draft(heads, checkpoint, model, options, folder, SilentProgress())
        draft = onnx.load(folder / entry["file"], load_external_data=False)
        found["draft"] = graph_fingerprint(draft, options.form, options.dtype, rule_counts(entry))
    return found


def zeros(checkpoint: Checkpoint, options: ExportOptions) -> QuantizedModel:
    """Every matrix of the checkpoint, quantised to nothing but zeros, with offsets where Q4_1 is carried over."""
    settings = options.quantization
    assert settings is not None
    model = QuantizedModel(settings)
    carries = settings.carry_over and (settings.bits, settings.block, settings.symmetric) == (4, 32, False)
    for name in checkpoint.names():
        shape = checkpoint.spec(name).shape
        if is_matrix(name, shape):
            blocks = (shape[0], -(-shape[1] // settings.block))
            middle = np.full(blocks, 2 ** (settings.bits - 1), np.uint8)
            codes = np.zeros((*blocks, settings.block), np.uint8)
            ones = np.ones(blocks, np.float32)
            own = carries and checkpoint.spec(name).dtype == "Q4_1" and not forced(unit_of(name), settings.keep_8bit)
            model.matrices[name] = BlockQuantized(codes, ones, middle, settings.bits, shape[1], ones if own else None)
    return model
