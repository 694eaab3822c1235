"""From a bundle and its measurements to the page and to the same facts as JSON."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import edgekit.report.sections
from edgekit import __version__
from edgekit.report.blocks import Page, Section
from edgekit.report.source import Source, moment
from edgekit.words import counted

SCHEMA = 1
SectionMaker = Callable[[Source], Section | None]


def section_makers() -> dict[str, SectionMaker]:
    """The function of each file of `sections`, by name, in the order of the page."""
    found = []
    for module in pkgutil.iter_modules(edgekit.report.sections.__path__):
        if not module.name.startswith("_"):
            imported: Any = importlib.import_module(f"{edgekit.report.sections.__name__}.{module.name}")
            found.append((imported.ORDER, module.name, imported.section))
    return {name: maker for _, name, maker in sorted(found, key=lambda entry: entry[:2])}


def page_of(source: Source) -> Page:
    """The report of a bundle.

    Raises:
        BundleError: a measurement or the graph is damaged, or not what edgekit writes.
    """
    sections = [section for maker in section_makers().values() if (section := maker(source)) is not None]
    manifest = source.bundle.manifest
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Page(
        title=manifest.model.name,
        kicker="edgekit bundle report",
        subtitle=str(source.bundle.path),
        tags=(
            manifest.model.model_type,
            manifest.dtype,
            f"{manifest.form} form",
            counted(manifest.model.layers, "layers"),
            f"context {manifest.cache.capacity_limit:,}",
        ),
        sections=tuple(sections),
        footer=(
            f"Made {moment(now)} by edgekit {__version__} from manifest {source.bundle.manifest_sha256}. "
            "Files were compared with the manifest by size; edgekit verify compares their hashes."
        ),
    )


def document_of(source: Source, page: Page) -> dict[str, Any]:
    """The facts of the page for JSON: of each section its state and what it was made from."""
    return {
        "schema": SCHEMA,
        "edgekit": __version__,
        "bundle": str(source.bundle.path),
        "manifest_sha256": source.bundle.manifest_sha256,
        "sections": {section.name: {"state": section.state, "data": section.data} for section in page.sections},
    }
