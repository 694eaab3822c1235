"""The training recipe: a TOML file with the model, its equal-parameter twin, the text and the optimiser's numbers."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekit.errors import RecipeError
from edgekit.recipe.tables import key, refuse_unknown, table_from

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SCHEMA = 1
#: Kinds of attention that one recipe trains: the T6 itself and its twin of equal size.
TPA, GQA = "tpa", "gqa"
ATTENTIONS = (TPA, GQA)


@dataclass(frozen=True)
class PackageTable:
    """A package of texts: an npm requirement, the SHA-256 of its tarball, its JSON documents and their text field."""

    name: str
    sha256: str
    documents: str
    field: str = key("text")


@dataclass(frozen=True)
class TokenizerTable:
    """The byte-level BPE that is trained on the training split."""

    vocab_size: int = key(least=258)


@dataclass(frozen=True)
class TrainingTable:
    """Optimiser and schedule.

    context: tokens of a window. batch: windows of a step. steps: steps in all; the learning rate rises linearly over
    warmup_steps and falls as a cosine to final_rate times its peak. clip: largest norm of the gradient. held_out_every:
    one document of so many is kept back. compute: "float32", or "bfloat16" for matrix products with bfloat16 operands.
    """

    context: int = key(least=2)
    batch: int = key(least=1)
    steps: int = key(least=1)
    learning_rate: float = key(least=0)
    warmup_steps: int = key(100, least=1)
    final_rate: float = key(0.05, least=0)
    weight_decay: float = key(0.1, least=0)
    clip: float = key(1.0, least=0)
    seed: int = key(0, least=0)
    held_out_every: int = key(20, least=2)
    evaluate_every: int = key(250, least=1)
    evaluate_windows: int = key(32, least=1)
    save_every: int = key(100, least=1)
    compute: str = key("float32", choices=("float32", "bfloat16"))


@dataclass(frozen=True)
class TrainingRecipe:
    """All that decides what a training run computes.

    model: the fields of a T6's config.json without vocab_size. gqa: those that a Llama of equal size has instead.
    """

    name: str
    model: dict[str, Any]
    gqa: dict[str, Any]
    packages: tuple[PackageTable, ...]
    tokenizer: TokenizerTable
    training: TrainingTable

    def config(self, attention: str, vocab_size: int) -> dict[str, Any]:
        """The config.json of the model that is trained."""
        special = {"bos_token_id": 0, "eos_token_id": 0}
        common = {"vocab_size": vocab_size, "tie_word_embeddings": True, **special, "torch_dtype": "float16"}
        if attention == TPA:
            return {"model_type": "t6", "architectures": ["T6ForCausalLM"], **self.model, **common}
        kept = ("hidden_size", "num_hidden_layers", "intermediate_size", "max_position_embeddings", "rms_norm_eps")
        shared = {name: self.model[name] for name in (*kept, "rope_theta") if name in self.model}
        return {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **shared, **self.gqa, **common}

    def tables(self) -> dict[str, Any]:
        """Everything as plain values, ready for JSON."""
        return asdict(self)


def read_training_recipe(path: Path) -> TrainingRecipe:
    """Read the file. Raises RecipeError for one that is missing, no TOML, or not a training recipe of this schema."""
    if not path.is_file():
        raise RecipeError(
            "a training recipe is a TOML file",
            f"{path} {'is a directory' if path.is_dir() else 'does not exist'}",
            "give a file such as exports/t6-small/train.toml",
        )
    try:
        document = tomllib.loads(path.read_bytes().decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecipeError("a training recipe must be valid TOML", f"{path}: {error}", "correct the file") from error
    try:
        return recipe_from(document, path.name.removesuffix(".toml"))
    except RecipeError as error:
        raise RecipeError(error.rule, f"{path}: {error.fact}", error.next_step) from error


def recipe_from(document: dict[str, Any], name: str) -> TrainingRecipe:
    """A parsed TOML document as a recipe. Raises RecipeError."""
    if document.get("schema") != SCHEMA or type(document["schema"]) is not int:
        raise RecipeError(
            f"this edgekit reads training recipes of schema {SCHEMA}",
            f"schema is {document.get('schema')!r}",
            f"write schema = {SCHEMA} on the first line",
        )
    known = ["model", "gqa", "package", "tokenizer", "training"]
    refuse_unknown({entry: 0 for entry in document if entry != "schema"}, known, "the top level")
    for table in ("model", "tokenizer", "training"):
        if not isinstance(document.get(table), dict):
            raise RecipeError(f"a training recipe must have the table [{table}]", "it is missing", f"add [{table}]")
    packages = document.get("package", [])
    if not isinstance(packages, list) or not isinstance(document.get("gqa", {}), dict):
        raise RecipeError(
            "texts are listed as [[package]], the twin's sizes as [gqa]", "one of them is something else", "correct it"
        )
    recipe = TrainingRecipe(
        name=name,
        model=dict(document["model"]),
        gqa=dict(document.get("gqa", {})),
        packages=tuple(table_from(PackageTable, entry, f"[[package]] {i + 1}") for i, entry in enumerate(packages)),
        tokenizer=table_from(TokenizerTable, document["tokenizer"], "[tokenizer]"),
        training=table_from(TrainingTable, document["training"], "[training]"),
    )
    if recipe.training.warmup_steps > recipe.training.steps:
        raise RecipeError(
            "[training] warmup_steps must not exceed steps",
            f"{recipe.training.warmup_steps} of {recipe.training.steps}",
            "set warmup_steps lower",
        )
    return recipe
