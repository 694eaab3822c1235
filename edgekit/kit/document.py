"""kit.json: what a kit is for, and every file in it with its hash."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

from edgekit import __version__
from edgekit.bundle.manifest import FileEntry, safe_name
from edgekit.bundle.read import FileCheck, check_file, describe
from edgekit.errors import BundleError
from edgekit.files import atomic_write, sha256_of

KIT_NAME = "kit.json"
SCHEMA = 1
#: Inside a kit: the bundle, golden texts, edgekit itself, what the device needs beside it, the command, and, once it
#: has run, what came out.
BUNDLE, GOLDEN, SOURCE, SITE, RUN = "bundle", "golden", "source", "site", "run.sh"
RESULTS = "results"
#: What a run may add to a kit.
_ADDED = (RESULTS, SITE)
_AGAIN = "make the kit again: edgekit build BUNDLE --device DEVICE -o KIT"


@dataclass(frozen=True)
class KitManifest:
    """What a kit is for.

    Attributes:
        schema, edgekit: of kit.json; the version that made it.
        device: the device profile's name; software: the release on it ("JetPack 6.2").
        compute_capability: "87"; cpu_architecture: "aarch64", "" where any will do.
        tensorrt, cuda: versions the kit is made for ("10.3", "12.6").
        model, form, dtype: of the bundle inside.
        max_batch_size, max_input_len, max_kv_cache_capacity, max_draft_len: what the engine will serve.
        plugin_library: the file with edgekit's operators, compiled for the device; "" where the graph needs none.
        operators_checked: the TensorRT version whose operator table the graph was held to.
        profiles: the shapes of each optimisation profile, as the engines will be built with: the decoder's, then the
            draft graph's where the bundle has draft heads.
        plan: what `edgekit plan --json` tells of the model in these sizes, by which it is expected to run; None in kits
            of an edgekit that did not ask.
        files: every file of the kit but kit.json.
    """

    schema: int
    edgekit: str
    device: str
    software: str
    compute_capability: str
    cpu_architecture: str
    tensorrt: str
    cuda: str
    model: str
    form: str
    dtype: str
    max_batch_size: int
    max_input_len: int
    max_kv_cache_capacity: int
    max_draft_len: int
    plugin_library: str
    operators_checked: str
    profiles: list[dict[str, Any]]
    plan: dict[str, Any] | None
    files: tuple[FileEntry, ...]


@dataclass(frozen=True)
class Kit:
    """An opened kit; `sha256` of its kit.json is what a result is tied to."""

    path: Path
    manifest: KitManifest
    sha256: str


def write_kit_manifest(folder: Path, **about: Any) -> None:
    """Hash every file below `folder` and write kit.json. `about`: the fields of KitManifest but schema, edgekit, files.

    Raises:
        BundleError: there is a link or a device among them.
    """
    entries = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise BundleError("a kit holds regular files", f"{name} is a link or a device", "copy the file instead")
        if path.is_file():
            entries.append(FileEntry(name, path.stat().st_size, sha256_of(path, sync=True)))
    manifest = KitManifest(schema=SCHEMA, edgekit=__version__, files=tuple(entries), **about)
    atomic_write(folder / KIT_NAME, json.dumps(asdict(manifest), indent=2, ensure_ascii=False) + "\n")


def read_kit(path: Path) -> Kit:
    """Open a kit by its kit.json alone; see `verify_kit`. Raises BundleError naming the field that is wrong."""
    file = path / KIT_NAME
    if not file.is_file():
        raise BundleError(f"a kit is a directory that holds {KIT_NAME}", f"{path} is none", _AGAIN)
    content = file.read_bytes()
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{KIT_NAME} must be valid JSON", f"{file}: {error}", _AGAIN) from error
    return Kit(path, _manifest(document), sha256(content).hexdigest())


def _manifest(document: Any) -> KitManifest:
    if not isinstance(document, dict) or not isinstance(document.get("schema"), int):
        raise BundleError(f"{KIT_NAME} must be an object with a schema", "it is not", _AGAIN)
    if document["schema"] != SCHEMA:
        fact = f"this kit has schema {document['schema']}, written by edgekit {document.get('edgekit')}"
        raise BundleError(f"this edgekit reads kits of schema {SCHEMA}", fact, "use the edgekit inside the kit: run.sh")
    values = dict(document)
    kinds = {"int": int, "str": str, "list[dict[str, Any]]": list, "dict[str, Any] | None": (dict, type(None))}
    for field in fields(KitManifest):
        expected: Any = kinds.get(str(field.type), list)
        if field.name not in values or not isinstance(values[field.name], expected):
            found = repr(values.get(field.name, "missing"))[:60]
            raise BundleError(f"{KIT_NAME}: {field.name} must be {field.type}", f"it is {found}", _AGAIN)
    try:
        files = tuple(FileEntry(safe_name(f["name"]), int(f["bytes"]), str(f["sha256"])) for f in values["files"])
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{KIT_NAME}: files must be names, sizes and hashes", str(error), _AGAIN) from error
    known = {field.name for field in fields(KitManifest)}
    return KitManifest(**{**{name: values[name] for name in known}, "files": files})


def check_kit(kit: Kit, progress: Callable[[int], None] | None = None) -> Iterator[FileCheck]:
    """Compare every file with its hash, then name those that kit.json does not list and no run has added."""
    listed = {entry.name for entry in kit.manifest.files}
    for entry in kit.manifest.files:
        yield check_file(kit.path, entry, full=True, progress=progress)
    for path in sorted(kit.path.rglob("*")):
        name = path.relative_to(kit.path).as_posix()
        added = name.split("/")[0] in _ADDED or "__pycache__" in name
        if (path.is_symlink() or path.is_file()) and name not in {*listed, KIT_NAME} and not added:
            yield FileCheck(name, "unlisted", None, None, f"{KIT_NAME} does not list it")


def verify_kit(path: Path, progress: Callable[[int], None] | None = None) -> Kit:
    """Open a kit whose files are all as it was made. Raises BundleError naming the first that is not."""
    kit = read_kit(path)
    for check in check_kit(kit, progress):
        if not check.ok:
            raise BundleError(
                "a kit's files must be as kit.json says", f"{path / check.name} is {describe(check)}", _AGAIN
            )
    return kit
