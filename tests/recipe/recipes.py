"""A recipe in parts, for tests that change one of them."""

from __future__ import annotations

from pathlib import Path

DIGEST = "0123456789abcdef" * 4
LINES = (
    "schema = 1",
    "[checkpoint]",
    'name = "./weights"',
    "[checkpoint.sha256]",
    f'"model.gguf" = "{DIGEST}"',
    "[quantization]",
    'dtype = "int4"',
    "block_size = 32",
    "[device]",
    'name = "cpu"',
)


def write_recipe(folder: Path, *changes: tuple[str, str], name: str = "tiny.cpu") -> Path:
    """Writes a recipe; each change replaces a line, or appends one where the first part is empty."""
    lines = list(LINES)
    for before, after in changes:
        if before:
            lines[lines.index(before)] = after
        else:
            lines.append(after)
    path = folder / f"{name}.toml"
    path.write_text("\n".join(lines) + "\n")
    return path
