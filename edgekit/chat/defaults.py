"""How to choose tokens in a chat when the user does not say: as the model's authors recommend, or modestly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgekit.chat.tokenizer import json_object
from edgekit.errors import BundleError
from edgekit.runtime.sampling import SamplingOptions

if TYPE_CHECKING:
    from edgekit.bundle import Bundle

#: Little chance, because small models lose the thread; the values that SmolLM2's authors give.
#: https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct
MODEST = SamplingOptions(temperature=0.2, top_p=0.9)
#: What transformers samples with where a generation_config.json says do_sample and nothing more.
_TRANSFORMERS = {"temperature": 1.0, "top_k": 50, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}


def chat_sampling(bundle: Bundle) -> SamplingOptions:
    """The sampling of the bundle's generation_config.json, or MODEST where it does not say.

    Raises:
        BundleError: the file is malformed.
    """
    if not bundle.has("generation_config.json"):
        return MODEST
    path = bundle.file("generation_config.json")
    return sampling_of(json_object(path), str(path))


def sampling_of(config: dict[str, Any], origin: str) -> SamplingOptions:
    """The sampling that a generation_config.json asks for; do_sample false is greedy, absent is MODEST."""
    do_sample = config.get("do_sample")
    if do_sample is None:
        return MODEST
    values = {}
    for name, default in _TRANSFORMERS.items():
        value = config.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise BundleError(
                "generation_config.json must hold numbers", f"{origin}: {name} is {value!r}", "export the bundle again"
            )
        values[name] = type(default)(default if value is None else value)
    if not do_sample:
        return SamplingOptions(repetition_penalty=values["repetition_penalty"])
    return SamplingOptions(
        temperature=values["temperature"],
        top_k=int(values["top_k"]),
        top_p=values["top_p"],
        min_p=values["min_p"],
        repetition_penalty=values["repetition_penalty"],
    )
