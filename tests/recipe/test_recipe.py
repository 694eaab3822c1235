"""Reading recipes: what is right is read, everything else is refused with its place and the nearest right word."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

import edgekit
from edgekit.errors import RecipeError
from edgekit.recipe.recipe import TABLES, read_recipe
from tests.recipe.recipes import DIGEST, write_recipe

EXPORTS = Path(edgekit.__file__).parents[1] / "exports"


def refusal(folder: Path, *changes: tuple[str, str]) -> RecipeError:
    path = write_recipe(folder, *changes)
    with pytest.raises(RecipeError) as caught:
        read_recipe(path)
    return caught.value


def test_what_is_left_out_gets_its_default(tmp_path: Path) -> None:
    recipe = read_recipe(write_recipe(tmp_path))
    assert recipe.name == "tiny.cpu"
    assert recipe.checkpoint.sha256 == {"model.gguf": DIGEST}
    assert (recipe.quantization.dtype, recipe.quantization.block_size) == ("int4", 32)
    assert (recipe.device.backend, recipe.device.form) == ("onnxruntime", "ort")
    assert (recipe.attention.kind, recipe.compression.method, recipe.limits.max_context) == ("as-is", "none", None)
    assert recipe.fingerprint_path == tmp_path / "tiny.cpu.fingerprint.json"


def test_a_path_is_relative_to_the_recipe_and_a_name_is_not(tmp_path: Path) -> None:
    assert read_recipe(write_recipe(tmp_path)).checkpoint_reference() == str(tmp_path / "weights")
    named = write_recipe(tmp_path, ('name = "./weights"', 'name = "smollm2-135m"'))
    assert read_recipe(named).checkpoint_reference() == "smollm2-135m"


@pytest.mark.parametrize("path", sorted(EXPORTS.glob("*.toml")), ids=lambda path: path.name)
def test_committed_recipes_are_read(path: Path) -> None:
    recipe = read_recipe(path)
    assert path.name.endswith(f".{recipe.device.name}.toml")


def test_there_is_a_committed_recipe() -> None:
    assert (EXPORTS / "smollm2-135m.cpu.toml").is_file()


def test_every_key_is_explained() -> None:
    text = (EXPORTS / "README.md").read_text()
    documented = set(re.findall(r"^\| `\[(\w+)\] (\w+)`", text, re.MULTILINE))
    assert documented == {(table, item.name) for table, kind in TABLES.items() for item in fields(kind)}


@pytest.mark.parametrize(
    ("change", "fact", "next_step"),
    [
        (("block_size = 32", "blocksize = 32"), "[quantization]", "block_size"),
        (("[quantization]", "[quantisation]"), "the top level", "quantization"),
        (("", "[paritty]"), "the top level", "parity"),
        (("", "zzz = 1"), "[device]", "known: name, backend, form"),
    ],
)
def test_unknown_keys_are_refused_with_the_nearest(
    tmp_path: Path, change: tuple[str, str], fact: str, next_step: str
) -> None:
    error = refusal(tmp_path, change)
    assert fact in error.rule
    assert "tiny.cpu.toml: it holds" in error.fact
    assert next_step in error.next_step


@pytest.mark.parametrize(
    ("change", "rule", "fact"),
    [
        (('dtype = "int4"', "dtype = 4"), "[quantization] dtype must be a text", "it is 4"),
        (('dtype = "int4"', 'dtype = "int5"'), "dtype must be one of fp32, fp16, int8, int4", "it is 'int5'"),
        (('dtype = "int4"', ""), "[quantization] of a recipe must have dtype", "it is missing"),
        (("block_size = 32", 'block_size = "32"'), "block_size must be a whole number", "it is '32'"),
        (("block_size = 32", "block_size = true"), "block_size must be a whole number", "it is True"),
        (("block_size = 32", "block_size = 32.0"), "block_size must be a whole number", "it is 32.0"),
        (("block_size = 32", "block_size = 8"), "block_size must be at least 16", "it is 8"),
        (('name = "cpu"', 'name = ""'), "[device] name must be a text that is not empty", "it is ''"),
        (("schema = 1", "schema = 2"), "schema 1", "schema is 2"),
        (("schema = 1", ""), "schema 1", "schema is missing"),
        (("schema = 1", "schema = true"), "schema 1", "schema is True"),
        (("[checkpoint.sha256]", "[checkpoint.sha265]"), "[checkpoint] of a recipe may hold only", "sha265"),
        ((f'"model.gguf" = "{DIGEST}"', ""), "sha256 must be a table of texts that is not empty", "it is {}"),
        ((f'"model.gguf" = "{DIGEST}"', '"model.gguf" = "12"'), "64 hexadecimal digits", "model.gguf has '12'"),
        ((f'"model.gguf" = "{DIGEST}"', '"model.gguf" = 12'), "a table of texts", "12"),
    ],
)
def test_wrong_values_are_refused(tmp_path: Path, change: tuple[str, str], rule: str, fact: str) -> None:
    error = refusal(tmp_path, change)
    assert rule in error.rule
    assert fact in error.fact
    assert error.next_step


def test_a_newer_schema_asks_for_a_newer_edgekit(tmp_path: Path) -> None:
    assert refusal(tmp_path, ("schema = 1", "schema = 2")).next_step == "update edgekit"


def test_a_near_dtype_is_suggested(tmp_path: Path) -> None:
    assert "int4" in refusal(tmp_path, ('dtype = "int4"', 'dtype = "in4"')).next_step


def test_a_table_that_is_a_value(tmp_path: Path) -> None:
    path = tmp_path / "tiny.cpu.toml"
    path.write_text('schema = 1\ncheckpoint = "weights"\nquantization = 1\ndevice = 1\n')
    with pytest.raises(RecipeError, match=r"\[checkpoint\] of a recipe must be a table"):
        read_recipe(path)


@pytest.mark.parametrize("table", ["checkpoint", "quantization", "device"])
def test_the_tables_without_which_there_is_no_recipe(tmp_path: Path, table: str) -> None:
    whole = {"checkpoint": f'name = "a"\nsha256 = {{ a = "{DIGEST}" }}', "quantization": 'dtype = "fp32"'}
    whole["device"] = 'name = "cpu"'
    del whole[table]
    path = tmp_path / "a.toml"
    path.write_text("schema = 1\n" + "\n".join(f"[{name}]\n{keys}" for name, keys in whole.items()))
    with pytest.raises(RecipeError, match=rf"must have the table \[{table}\]"):
        read_recipe(path)


def test_files_that_are_no_recipes(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\.toml does not exist"):
        read_recipe(tmp_path / "none.toml")
    with pytest.raises(RecipeError, match="is a directory"):
        read_recipe(tmp_path)
    broken = tmp_path / "broken.toml"
    broken.write_text("schema = ")
    with pytest.raises(RecipeError, match="must be valid TOML"):
        read_recipe(broken)
    broken.write_bytes(b"schema = 1 # \xff")
    with pytest.raises(RecipeError, match="must be valid TOML"):
        read_recipe(broken)
