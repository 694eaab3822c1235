"""The bundle's tokenizer: text to tokens and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import BundleError, PromptError

if TYPE_CHECKING:
    from edgekit.bundle import Bundle

_SPECIAL_NAMES = ("bos_token", "eos_token", "pad_token", "unk_token")


class ChatTokenizer:
    """A `tokenizers.Tokenizer` with what a prompt needs to know about it.

    Attributes:
        bos: id put before a raw prompt, or None.
        eos: ids that end an answer.
        special_tokens: text of bos_token, eos_token, pad_token and unk_token, as far as there are any; for templates.
    """

    def __init__(
        self,
        tokenizer_json: str,
        *,
        bos: int | None = None,
        eos: Sequence[int] = (),
        special_tokens: dict[str, str] | None = None,
        origin: str = "tokenizer.json",
    ) -> None:
        """Build from the text of a tokenizer.json. Raises BundleError naming `origin` when it is not one."""
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_str(tokenizer_json)
        except Exception as error:
            raise BundleError(
                "a bundle's tokenizer must be one that the tokenizers library reads",
                f"{origin}: {error}",
                "export the bundle again",
            ) from error
        # Settings of the last training run may be saved with it; they would cut or fill prompts silently.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.bos = bos
        self.eos = tuple(eos)
        self.special_tokens = dict(special_tokens or {})
        added = self._tokenizer.get_added_tokens_decoder()
        self._special_texts = tuple(token.content for token in added.values() if token.special)

    @property
    def size(self) -> int:
        """Number of tokens, added ones included."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    def encode(self, text: str, *, add_bos: bool = False) -> list[int]:
        """Tokens of `text`; the text of a special token becomes that token. No other token is added.

        Args:
            add_bos: put the bundle's first token before them, where it has one.

        Raises:
            PromptError: the text holds half of a surrogate pair.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise PromptError(
                "a prompt must be valid Unicode",
                f"character {error.start} is {text[error.start]!r}",
                "pass the text as UTF-8",
            ) from error
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return [self.bos, *ids] if add_bos and self.bos is not None else ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the tokens; special tokens give none."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def splits_before(self, text: str) -> bool:
        """Whether `text` begins with a special token, so that it can be encoded apart from what comes before it."""
        return text.startswith(self._special_texts)


def tokenizer_from_bundle(bundle: Bundle) -> ChatTokenizer:
    """The tokenizer of a bundle.

    Raises:
        BundleError: tokenizer.json or tokenizer_config.json is missing or malformed.
    """
    tokens = bundle.manifest.tokens
    path = bundle.file("tokenizer.json")
    return ChatTokenizer(
        path.read_text("utf-8"),
        bos=tokens.bos if tokens.add_bos else None,
        eos=tokens.eos,
        special_tokens=special_tokens(tokenizer_config(bundle)),
        origin=str(path),
    )


def tokenizer_config(bundle: Bundle) -> dict[str, Any]:
    """The bundle's tokenizer_config.json; empty where it has none. Raises BundleError when it is no JSON object."""
    if not bundle.has("tokenizer_config.json"):
        return {}
    return json_object(bundle.file("tokenizer_config.json"))


def json_object(path: Path) -> dict[str, Any]:
    """A file of a bundle that holds a JSON object. Raises BundleError."""
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path.name} must be valid JSON", f"{path}: {error}", "export the bundle again") from error
    if not isinstance(document, dict):
        raise BundleError(
            f"{path.name} must hold an object", f"{path}: it holds {type(document).__name__}", "export the bundle again"
        )
    return document


def special_tokens(config: dict[str, Any]) -> dict[str, str]:
    """The special tokens that a tokenizer_config.json names, each as a text or as an object with `content`."""
    found = {}
    for name in _SPECIAL_NAMES:
        value = config.get(name)
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            found[name] = text
    return found
