"""Byte-level BPE (tokenizer.ggml.model = "gpt2"): how text is split before the merges, by tokenizer.ggml.pre.

The expressions are those of the models' own tokenizer.json; llama.cpp's src/llama-vocab.cpp says which name stands for
which.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.checkpoint.gguf_header import broken
from edgekit.checkpoint.tokenizer.vocabulary import CONTROL, USER_DEFINED, Vocabulary
from edgekit.errors import CheckpointError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_CONTRACTIONS_AND_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_PUNCTUATION_AND_SPACE = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_QWEN2 = rf"{_CONTRACTIONS_AND_WORDS}|\p{{N}}|{_PUNCTUATION_AND_SPACE}"
_LLAMA3 = rf"{_CONTRACTIONS_AND_WORDS}|\p{{N}}{{1,3}}|{_PUNCTUATION_AND_SPACE}"


@dataclass(frozen=True)
class Splitting:
    """How a family splits text.

    Attributes:
        pattern: regular expression of the pieces; None for GPT-2's own, which `tokenizers` has built in.
        single_digits: cut numbers into digits first.
        normalize: bring text to Unicode form NFC first.
        whole_words_first: take a piece that is a token as a whole, whatever the merges say.
        add_bos: whether text starts with the beginning-of-text token where the file does not say.
    """

    pattern: str | None = None
    single_digits: bool = False
    normalize: bool = False
    whole_words_first: bool = False
    add_bos: bool = False


_LLAMA3_SPLITTING = Splitting(pattern=_LLAMA3, whole_words_first=True, add_bos=True)
_QWEN2_SPLITTING = Splitting(pattern=_QWEN2, normalize=True)

#: tokenizer.ggml.pre -> splitting.
SPLITTINGS = {
    "gpt-2": Splitting(),
    "smollm": Splitting(single_digits=True),
    "qwen2": _QWEN2_SPLITTING,
    "deepseek-r1-qwen": _QWEN2_SPLITTING,
    "llama-bpe": _LLAMA3_SPLITTING,
    "llama-v3": _LLAMA3_SPLITTING,
    "llama3": _LLAMA3_SPLITTING,
}


def splitting(vocabulary: Vocabulary, path: Path) -> Splitting:
    """The splitting that the file names. Raises CheckpointError listing the known ones."""
    if vocabulary.pre not in SPLITTINGS:
        raise CheckpointError(
            "a byte-level tokenizer's pre-tokenizer must be one that edgekit knows",
            f"{path} names {vocabulary.pre!r}; known are {', '.join(sorted(SPLITTINGS))}",
            "convert the model with a current llama.cpp, or use its Hugging Face directory, which has tokenizer.json",
        )
    return SPLITTINGS[vocabulary.pre]


def _merge(text: str, path: Path) -> tuple[str, str]:
    # From the second character on: the left part may itself start with a space in vocabularies with raw spaces.
    at = text.find(" ", 1)
    if at < 0:
        raise broken(path, f"the BPE merge {text!r} does not consist of two parts")
    return text[:at], text[at + 1 :]


def byte_level_tokenizer(vocabulary: Vocabulary, path: Path) -> Tokenizer:
    """The tokenizer without its post-processor. Raises CheckpointError for an unknown pre-tokenizer."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    rules = splitting(vocabulary, path)
    if vocabulary.merges is None:
        raise broken(path, "a byte-level tokenizer needs tokenizer.ggml.merges, which is missing")
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: i for i, token in enumerate(vocabulary.tokens)},
            merges=[_merge(text, path) for text in vocabulary.merges],
            ignore_merges=rules.whole_words_first,
        )
    )
    steps: list[pre_tokenizers.PreTokenizer] = []
    if rules.normalize:
        tokenizer.normalizer = normalizers.NFC()
    if rules.single_digits:
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    if rules.pattern is not None:
        steps.append(pre_tokenizers.Split(Regex(rules.pattern), "isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=rules.pattern is None))
    tokenizer.pre_tokenizer = steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(
        [
            AddedToken(vocabulary.tokens[i], special=vocabulary.types[i] == CONTROL, normalized=False)
            for i in vocabulary.ids_of_type(CONTROL, USER_DEFINED)
        ]
    )
    return tokenizer
