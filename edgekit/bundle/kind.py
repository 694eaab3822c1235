"""Verbs and sessions that are for one kind of model only."""

from __future__ import annotations

from edgekit.bundle.read import Bundle
from edgekit.contract import KIND_DECODER
from edgekit.errors import BundleError

_WORDS = {
    "decoder": ("a decoder, which continues a text", "chat with it: edgekit chat"),
    "encoder": ("an encoder, which makes a vector of a text", "make vectors with it: edgekit embed"),
}


def require_kind(bundle: Bundle, kind: str, doing: str) -> None:
    """Raise BundleError unless the bundle's model is of that kind, one of `edgekit.contract.KINDS`.

    Args:
        doing: what needs it: "a chat".
    """
    found = bundle.manifest.kind
    if found != kind:
        words, instead = _WORDS[found]
        raise BundleError(
            f"{doing} needs {'a decoder' if kind == KIND_DECODER else 'an encoder'}",
            f"{bundle.path} holds {words}",
            f"{instead} {bundle.path}",
        )
