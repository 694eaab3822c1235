"""When to stop a generation, how to choose its tokens, and the events it consists of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from edgekit.errors import EdgekitError
from edgekit.runtime.sampling import SamplingOptions
from edgekit.runtime.statistics import Statistics

OnFull = Literal["stop", "truncate-oldest", "error"]
Reason = Literal["stop-token", "stop-string", "length", "context-full", "interrupted"]

#: Tokens of the prompt processed at once. Longer chunks gain little, need more working memory, and delay Ctrl-C.
PROMPT_CHUNK = 512


@dataclass(frozen=True)
class GenerationOptions:
    """When to stop and how to choose.

    Attributes:
        max_new_tokens: at most this many; None until something else stops it.
        stop_tokens: choosing one of these ends the text; it gives no text itself.
        stop_strings: the text ends before the first of these.
        on_full: what to do when no token fits into the context any more:
            "stop" ends the text with reason "context-full";
            "truncate-oldest" gives up the oldest quarter after the first `keep_first` tokens and processes the
            rest again, with a Truncated event;
            "error" refuses, before the first token where prompt and max_new_tokens are known not to fit.
        keep_first: tokens at the start that "truncate-oldest" never drops.
        prompt_chunk: tokens of the prompt processed at once.
    """

    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    max_new_tokens: int | None = None
    stop_tokens: frozenset[int] = frozenset()
    stop_strings: tuple[str, ...] = ()
    on_full: OnFull = "stop"
    keep_first: int = 0
    prompt_chunk: int = PROMPT_CHUNK

    def __post_init__(self) -> None:
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise EdgekitError("at least one token must be generated", f"max-new-tokens is {self.max_new_tokens}")
        if self.prompt_chunk < 1:
            raise EdgekitError("a chunk of the prompt holds at least one token", f"it is {self.prompt_chunk}")
        if "" in self.stop_strings:
            raise EdgekitError("a stop string must hold text", "one of them is empty")
        if self.on_full not in get_args(OnFull):
            raise EdgekitError(
                f"what to do on a full context is one of {', '.join(get_args(OnFull))}", f"it is {self.on_full!r}"
            )


@dataclass(frozen=True)
class PromptProgress:
    """`done` of the `total` prompt tokens that had to be processed are in the cache."""

    done: int
    total: int


@dataclass(frozen=True)
class Truncated:
    """The `dropped` oldest tokens were given up, because the context was full."""

    dropped: int


@dataclass(frozen=True)
class Piece:
    """A token was chosen; `text` is what became certain with it and may be empty."""

    token: int
    text: str


@dataclass(frozen=True)
class Finished:
    """The last event.

    Attributes:
        text: the whole text: every piece, and `rest`.
        rest: what was held back until the end.
        tokens: every token chosen, a stop token included.
    """

    reason: Reason
    text: str
    rest: str
    tokens: tuple[int, ...]
    statistics: Statistics


Event = PromptProgress | Truncated | Piece | Finished
