"""Golden texts: what a bundle says on one engine, to hold another engine to. Needs numpy alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.errors import BundleError, PromptError
from edgekit.files import atomic_write
from edgekit.runtime.session import DecoderSession

TEXTS_FILE, LOGITS_FILE = "texts.json", "logits.npy"
Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class GoldenText:
    """A prompt, its greedy continuation, and the logits [N, V] that each of its N tokens was chosen from."""

    prompt: tuple[int, ...]
    continuation: tuple[int, ...]
    logits: Logits


@dataclass(frozen=True)
class Golden:
    """Golden texts, and the description of the session that wrote them."""

    made_by: str
    texts: tuple[GoldenText, ...]


def golden_from_session(session: DecoderSession, prompts: Sequence[Sequence[int]], tokens: int) -> Golden:
    """Continue each prompt greedily by `tokens` tokens, a token at a time.

    Raises:
        PromptError: there is no prompt, or one is empty or too long for the session's context.
        SessionError, DoesNotFit: see DecoderSession.forward.
    """
    if not prompts or not all(prompts) or tokens < 1:
        raise PromptError("golden texts need prompts of at least one token", f"there are {len(prompts)} prompts")
    longest = max(map(len, prompts)) + tokens
    if longest > session.capacity:
        raise PromptError(
            "a golden text must fit into the context",
            f"the longest needs {longest} tokens, the context holds {session.capacity}",
            "give shorter prompts, or a longer --max-kv-cache-capacity",
        )
    return Golden(session.description, tuple(_continued(session, prompt, tokens) for prompt in prompts))


def _continued(session: DecoderSession, prompt: Sequence[int], tokens: int) -> GoldenText:
    session.reset()
    rows: list[Logits] = []
    chosen: list[int] = []
    pending = np.array([prompt], np.int64)
    for _ in range(tokens):
        rows.append(session.forward(pending)[0, -1])
        chosen.append(int(rows[-1].argmax()))
        pending = np.array([[chosen[-1]]], np.int64)
    return GoldenText(tuple(int(token) for token in prompt), tuple(chosen), np.stack(rows))


def write_golden(golden: Golden, folder: Path) -> None:
    """Write into an existing directory: the tokens as JSON, all logits as one float32 array [sum of N, V]."""
    texts = [{"prompt": text.prompt, "continuation": text.continuation} for text in golden.texts]
    atomic_write(folder / TEXTS_FILE, json.dumps({"made_by": golden.made_by, "texts": texts}, indent=1) + "\n")
    np.save(folder / LOGITS_FILE, np.concatenate([text.logits for text in golden.texts]), allow_pickle=False)


def read_golden(folder: Path) -> Golden:
    """What `write_golden` wrote. Raises BundleError where it is not that."""
    try:
        document: dict[str, Any] = json.loads((folder / TEXTS_FILE).read_text(encoding="utf-8"))
        logits = np.load(folder / LOGITS_FILE, mmap_mode="r", allow_pickle=False)
        tokens = [(tuple(text["prompt"]), tuple(text["continuation"])) for text in document["texts"]]
        made_by = str(document["made_by"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, str(error)) from error
    if logits.dtype != np.float32 or logits.ndim != 2 or len(logits) != sum(len(more) for _, more in tokens):
        raise _damaged(folder, f"its logits are {logits.dtype} {list(logits.shape)}")
    texts, start = [], 0
    for prompt, continuation in tokens:
        texts.append(GoldenText(prompt, continuation, np.asarray(logits[start : start + len(continuation)])))
        start += len(continuation)
    return Golden(made_by, tuple(texts))


def _damaged(folder: Path, fact: str) -> BundleError:
    return BundleError("golden texts are tokens and their logits", f"{folder}: {fact}", "make the kit again")
