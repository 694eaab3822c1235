"""Texts as an encoder's tokens: between its special tokens, and cut where they are too long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekit.errors import BundleError, PromptError

if TYPE_CHECKING:
    from edgekit.bundle import Bundle


@dataclass(frozen=True)
class EncodedTexts:
    """Texts as tokens.

    Attributes:
        tokens: ids of each text, the special ones included.
        cut: indices of the texts that were too long.
    """

    tokens: list[list[int]]
    cut: list[int]


class EncoderTokenizer:
    """An encoder's tokenizer; it cuts texts to `max_tokens`, as the model was meant to be used."""

    def __init__(self, tokenizer_json: str, max_tokens: int, origin: str = "tokenizer.json") -> None:
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
        # What was set when the file was saved (the published MiniLM cuts to 128 tokens there) is not the model's limit.
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)

    def encode(self, texts: Sequence[str]) -> EncodedTexts:
        """Tokens of each text.

        Raises:
            PromptError: a text is blank, or holds half of a surrogate pair.
        """
        for index, text in enumerate(texts):
            if not text.strip():
                raise PromptError("a text must hold characters", f"text {index + 1} of {len(texts)} is blank")
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise PromptError(
                    "a text must be valid Unicode",
                    f"character {error.start} of text {index + 1} is {text[error.start]!r}",
                    "pass the text as UTF-8",
                ) from error
        encodings = self._tokenizer.encode_batch(list(texts))
        cut = [index for index, encoding in enumerate(encodings) if encoding.overflowing]
        return EncodedTexts([list(encoding.ids) for encoding in encodings], cut)


def encoder_tokenizer(bundle: Bundle) -> EncoderTokenizer:
    """The tokenizer of an encoder's bundle. Raises BundleError when it is missing or malformed."""
    path = bundle.file("tokenizer.json")
    encoder = bundle.manifest.encoder
    assert encoder is not None
    return EncoderTokenizer(path.read_text("utf-8"), encoder.max_tokens, str(path))
