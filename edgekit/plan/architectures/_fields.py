"""Typed access to a config.json without torch; the messages are those of `edgekit.layers.config`."""

from __future__ import annotations

from typing import Any

from edgekit.errors import ModelError


class Fields:
    """A config.json; a missing or malformed field is a ModelError that names it."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.fields = fields

    def integer(self, name: str, default: int | None = None, least: int = 1) -> int:
        """An integer of at least `least`; absent or null gives the default, or an error without one."""
        value = self.fields.get(name)
        if value is None:
            if default is None:
                raise field_error(name, "is required", "It is missing.")
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
            raise field_error(name, "must be an integer", f"It is {value!r}.")
        if value < least:
            raise field_error(name, f"must be at least {least}", f"It is {value}.")
        return int(value)

    def flag(self, name: str, default: bool) -> bool:
        """True or false; absent or null gives the default."""
        value = self.fields.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise field_error(name, "must be true or false", f"It is {value!r}.")
        return value

    def sliding(self, layers: int, default: list[bool]) -> list[bool]:
        """Per layer whether layer_types says "sliding_attention"; `default` where it says nothing."""
        found = self.fields.get("layer_types")
        if found is None:
            return default
        known = ("full_attention", "sliding_attention")
        if not isinstance(found, list) or len(found) != layers or any(name not in known for name in found):
            rule = f"must give {' or '.join(known)} for each of the {layers} layers"
            raise field_error("layer_types", rule, f"It is {found!r}.")
        return [name == known[1] for name in found]

    def qwen_windows(self, layers: int) -> list[int]:
        """Windows of a Qwen: layers from max_window_layers on, and only if use_sliding_window is set."""
        if not self.flag("use_sliding_window", False):
            return [-1] * layers
        window = self.integer("sliding_window", -1 if "sliding_window" in self.fields else 4096)
        first = self.integer("max_window_layers", 28, least=0)
        return [window if slides else -1 for slides in self.sliding(layers, [i >= first for i in range(layers)])]


def field_error(name: str, rule: str, fact: str) -> ModelError:
    """The error for one field."""
    return ModelError(f"{name} {rule}.", fact, "Correct the checkpoint's config.json.")
