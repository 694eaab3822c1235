"""Text from a stream of tokens: whole characters only, and nothing of a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

#: Tokens of context before the first one: tokenizers strip or add a space at the start of a text.
_CONTEXT_TOKENS = 8
#: Tokens without text (special ones) do not count as company; beyond this many they are let go all the same.
_MOST_CONTEXT_TOKENS = 64
#: A character has at most 4 bytes, so tokens that stay undecodable for longer are not a character in the making.
_MOST_HELD_TOKENS = 16


class Decoder(Protocol):
    """What turns tokens into text; special tokens give none."""

    def decode(self, ids: Sequence[int]) -> str: ...


class TextStream:
    """Decodes tokens as they come.

    A byte-level tokenizer may spread one character over several tokens. Text is given out when it is certain, so the
    pieces never hold a replacement character that a later token would have turned into a real one, and together
    they equal the decoded whole. Bytes that are not UTF-8 do become replacement characters, as in `decode`.
    """

    def __init__(self, decoder: Decoder, context: Sequence[int] = ()) -> None:
        """`context`: the tokens before the first one; they give no text."""
        self._decoder = decoder
        self._ids = list(context[-_CONTEXT_TOKENS:])
        while decoder.decode(self._ids).startswith(REPLACEMENT):
            del self._ids[0]  # the rest of a character that began before
        # The text of _ids[:_given] has been given out; it is decoded again so that the rest is decoded in its company.
        self._given = len(self._ids)
        self._given_text = decoder.decode(self._ids)

    def push(self, token: int) -> str:
        """The text that `token` completes; empty while a character is incomplete."""
        self._ids.append(token)
        text = self._decoder.decode(self._ids)
        held = len(self._ids) - self._given
        if text.endswith(REPLACEMENT) and held < _MOST_HELD_TOKENS:
            return ""
        return self._give(text)

    def flush(self) -> str:
        """The text still held, at the end. An incomplete last character is dropped: no token will complete it."""
        text = self._decoder.decode(self._ids)
        return self._give(text).rstrip(REPLACEMENT) if len(self._ids) > self._given else ""

    def _give(self, text: str) -> str:
        # A decoder that rewrites what it gave before (it cleans up spaces, say) cannot be taken back: show the rest.
        new = text[len(self._given_text) :]
        if new or len(self._ids) > _MOST_CONTEXT_TOKENS:
            del self._ids[: self._given]
        self._given = len(self._ids)
        self._given_text = self._decoder.decode(self._ids)
        return new


class StopStrings:
    """Cuts a text before the first stop string, holding back what may become one."""

    def __init__(self, stops: Sequence[str]) -> None:
        """`stops`: none of them empty."""
        self._stops = tuple(stops)
        self._held = ""
        self.found: str | None = None

    def push(self, text: str) -> str:
        """The part of the text so far that is certain to be shown; once `found` is set there is no more."""
        self._held += text
        matches = [(at, stop) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if matches:
            # The first to be complete, so that it makes no difference how the text came in pieces.
            at, self.found = min(matches, key=lambda match: (match[0] + len(match[1]), match[0]))
            shown, self._held = self._held[:at], ""
            return shown
        cut = len(self._held) - max((_overlap(self._held, stop) for stop in self._stops), default=0)
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown

    def flush(self) -> str:
        """The text held back, at the end: no stop string was completed."""
        shown, self._held = self._held, ""
        return shown


def _overlap(text: str, stop: str) -> int:
    """Length of the longest proper prefix of `stop` that ends `text`."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
