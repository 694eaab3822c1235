"""Reading the text that is measured on."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from edgekit.bundle import Bundle
from edgekit.chat.tokenizer import tokenizer_from_bundle
from edgekit.errors import EdgekitError
from edgekit.evaluate.perplexity import EncodedText

#: What is measured on where no text is given: see data/README.md.
SHIPPED_TEXT = Path(__file__).parent / "data" / "speeches.txt"


def encoded_text(path: Path, bundle: Bundle) -> EncodedText:
    """A UTF-8 file as tokens of the bundle's tokenizer, encoded in one piece.

    Raises:
        EdgekitError: the file is not UTF-8.
        BundleError: the bundle's tokenizer cannot be read.
    """
    content = path.read_bytes()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise EdgekitError(
            "the text must be UTF-8", f"byte {error.start} of {path} is not", "convert it to UTF-8"
        ) from error
    tokens = tokenizer_from_bundle(bundle).encode(text)
    return EncodedText(path.name, tokens, len(content), sha256(content).hexdigest())
