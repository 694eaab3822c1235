"""SentencePiece BPE (tokenizer.ggml.model = "llama"): Llama 1 and 2, Mistral, Gemma.

SentencePiece joins the neighbours whose union is the piece of the highest score; a BPE model joins those whose merge
comes first. The merges are therefore every way to cut a piece into two, by falling score. Spaces are spelled "▁".
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.checkpoint.gguf_header import broken
from edgekit.checkpoint.tokenizer.vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED, Vocabulary

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.normalizers import Normalizer

_SPACE = "▁"
_BYTES = 256
#: Published pieces have at most a few dozen characters; cutting one in every way costs their square.
_LONGEST_PIECE = 512


def merges_from_scores(pieces: dict[str, int], scores: list[float]) -> list[tuple[str, str]]:
    """Merges in order of rank.

    Args:
        pieces: normal pieces -> id.
        scores: score by id; among equal scores the smaller id comes first.
    """
    found: list[tuple[float, int, str, str]] = []
    for piece, i in pieces.items():
        for cut in range(1, len(piece)):
            if piece[:cut] in pieces and piece[cut:] in pieces:
                found.append((-scores[i], i, piece[:cut], piece[cut:]))
    found.sort(key=lambda merge: merge[:2])
    return [(left, right) for _, _, left, right in found]


def sentencepiece_tokenizer(vocabulary: Vocabulary, path: Path) -> Tokenizer:
    """The tokenizer without its post-processor. Raises CheckpointError where scores or byte pieces are missing."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

    if vocabulary.scores is None:
        raise broken(path, "a SentencePiece tokenizer needs tokenizer.ggml.scores, which is missing")
    if len(vocabulary.ids_of_type(BYTE)) != _BYTES:
        raise broken(path, f"a SentencePiece tokenizer needs {_BYTES} byte pieces for what it cannot spell")
    if max(map(len, vocabulary.tokens)) > _LONGEST_PIECE:
        raise broken(path, f"a piece of its vocabulary has more than {_LONGEST_PIECE} characters")
    # llama.cpp's converter writes user-defined pieces with real spaces, all others with "▁".
    spelled = [
        token.replace(" ", _SPACE) if kind == USER_DEFINED else token
        for token, kind in zip(vocabulary.tokens, vocabulary.types, strict=True)
    ]
    unknown = vocabulary.special.get("unknown", next(iter(vocabulary.ids_of_type(UNKNOWN)), 0))
    normal = {spelled[i]: i for i in vocabulary.ids_of_type(NORMAL)}
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: i for i, token in enumerate(spelled)},
            merges=merges_from_scores(normal, vocabulary.scores.tolist()),
            unk_token=spelled[unknown],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefix = vocabulary.flags.get("add_space_prefix", True)
    steps: list[Normalizer] = [normalizers.Prepend(_SPACE)] if prefix else []
    steps.append(normalizers.Replace(" ", _SPACE))
    tokenizer.normalizer = normalizers.Sequence(steps) if prefix else steps[0]
    strip = [decoders.Strip(" ", left=1)] if prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    # A piece with a space is looked for in the normalised text, where spaces have their own spelling.
    tokenizer.add_tokens(
        [
            AddedToken(spelled[i], special=vocabulary.types[i] == CONTROL, normalized=_SPACE in spelled[i])
            for i in vocabulary.ids_of_type(CONTROL, USER_DEFINED)
        ]
    )
    return tokenizer
