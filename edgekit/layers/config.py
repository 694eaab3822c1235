"""Reading Hugging Face configurations into frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgekit.errors import ModelError
from edgekit.layers.rotary import Rotary, rotary_from_config

FULL_ATTENTION = "full_attention"
SLIDING_ATTENTION = "sliding_attention"


@dataclass(frozen=True)
class DecoderConfig:
    """What every decoder's configuration holds; architectures add their own fields.

    Sizes are counts of elements; `rotary` maps the name of rotary tables to their base and scaling; `tied` means
    that the head is the embedding.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    kv_heads: int
    head_dim: int
    rms_norm_eps: float
    max_position_embeddings: int
    hidden_act: str
    tied: bool
    rotary: dict[str, Rotary]


class ConfigFields:
    """Typed access to a config.json; a missing or malformed field is a ModelError that names it."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.fields = fields

    def _convert(self, name: str, convert: type, what: str) -> Any:
        value = self.fields[name]
        try:
            if isinstance(value, (str, bool, list, dict)):
                raise TypeError
            converted = convert(value)
        except (TypeError, ValueError):
            converted = None
        if converted is None or converted != value:
            raise _field_error(name, f"must be {what}", f"It is {value!r}.")
        return converted

    def integer(self, name: str, default: int | None = None, least: int = 1) -> int:
        """An integer of at least `least`; absent or null gives the default, or an error without one."""
        if self.fields.get(name) is None:
            if default is None:
                raise _field_error(name, "is required", "It is missing.")
            return default
        value: int = self._convert(name, int, "an integer")
        if value < least:
            raise _field_error(name, f"must be at least {least}", f"It is {value}.")
        return value

    def number(self, name: str, default: float) -> float:
        """A number; absent or null gives the default."""
        if self.fields.get(name) is None:
            return default
        value: float = self._convert(name, float, "a number")
        return value

    def flag(self, name: str, default: bool) -> bool:
        """True or false; absent or null gives the default."""
        value = self.fields.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise _field_error(name, "must be true or false", f"It is {value!r}.")
        return value

    def text(self, name: str, default: str) -> str:
        """A string; absent or null gives the default."""
        value = self.fields.get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise _field_error(name, "must be a string", f"It is {value!r}.")
        return value

    def decoder(
        self,
        *,
        tied: bool,
        act_field: str = "hidden_act",
        act: str = "silu",
        head_dim: int | None = None,
        rotary: dict[str, Rotary] | None = None,
    ) -> dict[str, Any]:
        """The fields of `DecoderConfig`.

        Args:
            tied: the architecture's default of tie_word_embeddings.
            act_field: where the activation's name stands.
            act: the architecture's default activation.
            head_dim: the architecture's default of head_dim; None for hidden_size / num_attention_heads.
            rotary: tables, where they are not the single base that most architectures have.
        """
        hidden_size, num_heads = self.integer("hidden_size"), self.integer("num_attention_heads")
        kv_heads = self.integer("num_key_value_heads", num_heads)
        if num_heads % kv_heads:
            raise _field_error(
                "num_key_value_heads", "must divide num_attention_heads", f"{num_heads} / {kv_heads} is not whole."
            )
        head_dim = self.integer("head_dim", head_dim or max(1, hidden_size // num_heads))
        if head_dim % 2:
            raise _field_error("head_dim", "must be even for RoPE", f"It is {head_dim}.")
        return {
            "vocab_size": self.integer("vocab_size"),
            "hidden_size": hidden_size,
            "intermediate_size": self.integer("intermediate_size"),
            "num_layers": self.integer("num_hidden_layers"),
            "num_heads": num_heads,
            "kv_heads": kv_heads,
            "head_dim": head_dim,
            "rms_norm_eps": self.number("rms_norm_eps", 1e-6),
            "max_position_embeddings": self.integer("max_position_embeddings"),
            "hidden_act": self.text(act_field, act),
            "tied": self.flag("tie_word_embeddings", tied),
            "rotary": {"rope": self.rotary(10_000.0)} if rotary is None else rotary,
        }

    def rotary(self, default_theta: float, layer_type: str = FULL_ATTENTION, theta_field: str = "rope_theta") -> Rotary:
        """The RoPE of one layer type.

        Reads rope_parameters (transformers 5: one dict, or one per layer type), else `theta_field` and, for full
        attention, rope_scaling.
        """
        parameters = self._table("rope_parameters")
        if FULL_ATTENTION in parameters or SLIDING_ATTENTION in parameters:
            parameters = dict(parameters.get(layer_type) or {})
        elif layer_type != FULL_ATTENTION:
            parameters = {}
        elif not parameters:
            parameters = self._table("rope_scaling")
        if "partial_rotary_factor" in self.fields:
            parameters.setdefault("partial_rotary_factor", self.fields["partial_rotary_factor"])
        parameters.setdefault("rope_theta", self.number(theta_field, default_theta))
        return rotary_from_config(parameters, default_theta, self.integer("max_position_embeddings"))

    def layer_types(self, num_layers: int, default: list[bool]) -> list[bool]:
        """Per layer whether layer_types says "sliding_attention" (else "full_attention")."""
        found = self.fields.get("layer_types")
        if found is None:
            return default
        known = (FULL_ATTENTION, SLIDING_ATTENTION)
        if not isinstance(found, list) or len(found) != num_layers or any(name not in known for name in found):
            raise _field_error(
                "layer_types",
                f"must give {' or '.join(known)} for each of the {num_layers} layers",
                f"It is {found!r}.",
            )
        return [name == SLIDING_ATTENTION for name in found]

    def qwen_windows(self, num_layers: int) -> tuple[int, ...]:
        """Qwen's windows per layer: layers from max_window_layers on, and only if use_sliding_window is set."""
        if not self.flag("use_sliding_window", False):
            return (-1,) * num_layers
        window = self.integer("sliding_window", -1 if "sliding_window" in self.fields else 4096)
        first = self.integer("max_window_layers", 28, least=0)
        sliding = self.layer_types(num_layers, [i >= first for i in range(num_layers)])
        return tuple(window if slides else -1 for slides in sliding)

    def _table(self, name: str) -> dict[str, Any]:
        value = self.fields.get(name) or {}
        if not isinstance(value, dict):
            raise _field_error(name, "must be a table", f"It is {value!r}.")
        return dict(value)


def _field_error(name: str, rule: str, fact: str) -> ModelError:
    return ModelError(f"{name} {rule}.", fact, "Correct the checkpoint's config.json.")
