"""What one generation took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from edgekit.runtime.drafting.statistics import DraftStatistics
from edgekit.words import counted


@dataclass
class Elapsed:
    """Seconds that a block took, once it is over."""

    seconds: float = 0.0


@dataclass
class Statistics:
    """Counts and seconds of one generation. Time that the consumer of the events takes is not counted.

    Attributes:
        prompt_tokens: tokens of the prompt.
        reused_tokens: those of them that were in the cache already.
        processed_tokens: those of them that were processed.
        generated_tokens: tokens chosen, a stop token included.
        dropped_tokens: old tokens that were given up because the context was full.
        prompt_s: seconds that the prompt took, with the choice of the first token.
        decode_s: seconds from the first token to the last.
        seed: what the random numbers started from; None when the choice was greedy.
        draft: what drafting did; None without a drafter.
    """

    prompt_tokens: int = 0
    reused_tokens: int = 0
    processed_tokens: int = 0
    generated_tokens: int = 0
    dropped_tokens: int = 0
    prompt_s: float = 0.0
    decode_s: float = 0.0
    seed: int | None = None
    draft: DraftStatistics | None = None

    @contextmanager
    def timed(self) -> Iterator[Elapsed]:
        """Add the time that the block takes to the phase that the generation is in, and tell it."""
        started, elapsed = time.perf_counter(), Elapsed()
        try:
            yield elapsed
        finally:
            elapsed.seconds = time.perf_counter() - started
            if self.generated_tokens == 0:
                self.prompt_s += elapsed.seconds
            else:
                self.decode_s += elapsed.seconds

    @property
    def prompt_tokens_per_s(self) -> float | None:
        """Processed prompt tokens per second; None when none was processed."""
        return self.processed_tokens / self.prompt_s if self.processed_tokens and self.prompt_s > 0 else None

    @property
    def decode_tokens_per_s(self) -> float | None:
        """Tokens after the first per second; None when there was none."""
        return (self.generated_tokens - 1) / self.decode_s if self.generated_tokens > 1 and self.decode_s > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the attributes and the two rates."""
        return {
            **vars(self),
            "draft": None if self.draft is None else self.draft.to_dict(),
            "prompt_tokens_per_s": self.prompt_tokens_per_s,
            "decode_tokens_per_s": self.decode_tokens_per_s,
        }

    def summary(self) -> str:
        """One line for people."""
        reused = f" ({self.reused_tokens} reused)" if self.reused_tokens else ""
        parts = [f"prompt {counted(self.prompt_tokens, 'tokens')}{reused}"]
        if self.prompt_tokens_per_s is not None:
            parts.append(f"{self.prompt_tokens_per_s:.0f} tokens/s")
        parts.append(f"first token after {self.prompt_s * 1e3:.0f} ms")
        parts.append(f"{self.generated_tokens} generated")
        if self.decode_tokens_per_s is not None:
            parts.append(f"{self.decode_tokens_per_s:.1f} tokens/s")
        if self.draft is not None and (self.draft.sources or self.draft.off):
            parts.append(self.draft.summary())
        if self.dropped_tokens:
            parts.append(f"{self.dropped_tokens} old tokens dropped")
        return " · ".join(parts)
