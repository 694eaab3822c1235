"""The recipe: a TOML file `exports/<model>.<device>.toml`. Its fields are explained in exports/README.md."""

from __future__ import annotations

import string
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from edgekit import contract
from edgekit.errors import RecipeError
from edgekit.export.idle_options import idle_options
from edgekit.recipe.tables import key, refuse_unknown, table_from

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SCHEMA = 1
DTYPES = ("fp32", "fp16", "int8", "int4")
BASES = ("auto", "operator", "products")


@dataclass(frozen=True)
class CheckpointTable:
    """Where the weights come from, and the SHA-256 of each of its files by name."""

    name: str
    sha256: dict[str, str]


@dataclass(frozen=True)
class ModelTable:
    """The architecture: as the checkpoint has it."""

    kind: str = key("as-is", choices=("as-is",))
    name: str | None = key(None)


@dataclass(frozen=True)
class AttentionTable:
    """What becomes of attention: it stays as the checkpoint has it."""

    kind: str = key("as-is", choices=("as-is",))


@dataclass(frozen=True)
class CompressionTable:
    """Compression before quantisation: none."""

    method: str = key("none", choices=("none",))


@dataclass(frozen=True)
class QuantizationTable:
    """The type of the weights, and what decides about each of them."""

    dtype: str = key(choices=DTYPES)
    block_size: int | None = key(None, least=16)
    allowed_cost: float | None = key(None, least=0)
    keep_8bit: tuple[str, ...] | None = key(None)
    carry_over: bool | None = key(None)
    calibration_sequences: int | None = key(None, least=1)
    calibration_length: int | None = key(None, least=2)
    base: str | None = key(None, choices=BASES)


@dataclass(frozen=True)
class DraftTable:
    """Draft heads: their file, its SHA-256, how many components a draft computes and how many tokens it has at most."""

    heads: str | None = key(None)
    sha256: str | None = key(None)
    components: int | None = key(None, least=1)
    tokens: int | None = key(None, least=1)


@dataclass(frozen=True)
class LimitsTable:
    """What the bundle is made for at most."""

    max_context: int | None = key(None, least=1)


@dataclass(frozen=True)
class DeviceTable:
    """What the bundle is made for."""

    name: str
    backend: str = key("onnxruntime", choices=("onnxruntime",))
    form: str = key(contract.FORM_ORT, choices=contract.FORMS)


@dataclass(frozen=True)
class ParityTable:
    """How much is compared with PyTorch before the bundle is put in its place."""

    prompts: int = key(2, least=1)
    tokens: int = key(16, least=2)


@dataclass(frozen=True)
class Recipe:
    """All that is needed to make a bundle again."""

    path: Path
    checkpoint: CheckpointTable
    model: ModelTable
    attention: AttentionTable
    compression: CompressionTable
    quantization: QuantizationTable
    draft: DraftTable
    limits: LimitsTable
    device: DeviceTable
    parity: ParityTable

    @property
    def name(self) -> str:
        """The file's name without .toml: "<model>.<device>"."""
        return self.path.name.removesuffix(".toml")

    @property
    def fingerprint_path(self) -> Path:
        """Where the golden fingerprint lies."""
        return self.path.with_name(f"{self.name}.fingerprint.json")

    def checkpoint_reference(self) -> str:
        """The checkpoint as `open_checkpoint` takes it; a path beginning with ./ or ../ is relative to the recipe."""
        name = self.checkpoint.name
        if name.startswith(("./", "../")):
            return str((self.path.parent / name).resolve())
        return name

    def draft_heads(self) -> Path | None:
        """The file of the draft heads, below the recipe's directory or absolute; None for none."""
        return self.path.parent / self.draft.heads if self.draft.heads is not None else None

    def tables(self) -> dict[str, Any]:
        """Every table with its defaults filled in, ready for JSON; keys without a value are left out."""
        return {
            table: {name: value for name, value in asdict(getattr(self, table)).items() if value is not None}
            for table in TABLES
        }


TABLES: dict[str, Any] = {
    item.name: get_type_hints(Recipe)[item.name] for item in fields(Recipe) if item.name != "path"
}
#: Tables whose every key has a default may be left out.
_REQUIRED = ("checkpoint", "quantization", "device")


def read_recipe(path: str | Path) -> Recipe:
    """Read a recipe file. Raises RecipeError for a file that is missing, no TOML, or not a recipe of this schema."""
    file = Path(path)
    if not file.is_file():
        raise RecipeError(
            "a recipe is a TOML file",
            f"{file} {'is a directory' if file.is_dir() else 'does not exist'}",
            "give a file such as exports/smollm2-135m.cpu.toml",
        )
    try:
        document = tomllib.loads(file.read_bytes().decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecipeError("a recipe must be valid TOML", f"{file}: {error}", "correct the file") from error
    try:
        return recipe_from(document, file)
    except RecipeError as error:
        raise RecipeError(error.rule, f"{file}: {error.fact}", error.next_step) from error


def recipe_from(document: dict[str, Any], path: Path) -> Recipe:
    """A parsed TOML document as a recipe. Raises RecipeError."""
    schema = document.get("schema")
    if type(schema) is not int or schema != SCHEMA:
        newer = type(schema) is int and schema > SCHEMA
        raise RecipeError(
            f"this edgekit reads recipes of schema {SCHEMA}",
            "schema is missing" if schema is None else f"schema is {schema!r}",
            "update edgekit" if newer else f"write schema = {SCHEMA} on the first line",
        )
    refuse_unknown({name: 0 for name in document if name != "schema"}, list(TABLES), "the top level")
    for name in _REQUIRED:
        if name not in document:
            raise RecipeError(f"a recipe must have the table [{name}]", "it is missing", f"add [{name}]")
    tables = {name: table_from(kind, document.get(name, {}), f"[{name}]") for name, kind in TABLES.items()}
    recipe = Recipe(path=path, **tables)
    dtype, form = recipe.quantization.dtype, recipe.device.form
    if idle := idle_options(dtype, document["quantization"], form):
        raise RecipeError(
            "a key of [quantization] must have an effect",
            f"{idle[0]} has none on {dtype} in the form {form}",
            f"remove {', '.join(idle)}, or choose another dtype",
        )
    for name, digest in recipe.checkpoint.sha256.items():
        if not _is_digest(digest):
            raise RecipeError(
                "[checkpoint] sha256 must give 64 hexadecimal digits for each file",
                f"{name} has {digest!r}",
                "take the digits from `sha256sum FILE`",
            )
    _check_draft(recipe.draft)
    return recipe


def _check_draft(draft: DraftTable) -> None:
    if draft.heads is None and draft != DraftTable():
        raise RecipeError("[draft] of a recipe must have heads", "it is missing", "give the file of the draft heads")
    if draft.heads is not None and not _is_digest(draft.sha256 or ""):
        raise RecipeError(
            "[draft] sha256 must give the 64 hexadecimal digits of the heads' file",
            f"it is {draft.sha256!r}",
            "take the digits from `sha256sum FILE`",
        )


def _is_digest(text: str) -> bool:
    return len(text) == 64 and set(text) <= set(string.hexdigits.lower())
