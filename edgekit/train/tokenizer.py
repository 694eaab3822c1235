"""A byte-level BPE tokenizer trained on the training text, and the files that go with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgekit.checkpoint.json_file import encode_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: Stands at the start of every document; id 0.
END_OF_TEXT = "<|endoftext|>"

#: The model continues text and follows no instruction: a chat is the messages themselves, one paragraph each.
_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['content'] }}{{ '\n\n' if not loop.last }}{% endfor %}\n"
)


def trained_tokenizer(documents: Sequence[str], vocab_size: int) -> Tokenizer:
    """A tokenizer of at most `vocab_size` entries: END_OF_TEXT, the 256 bytes, and merges learnt from the documents."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer


def tokens_of(tokenizer: Tokenizer, documents: Sequence[str]) -> npt.NDArray[np.int32]:
    """All documents in one row of ids, END_OF_TEXT before each."""
    rows = [
        np.array([0, *encoding.ids], np.int32)
        for encoding in tokenizer.encode_batch(list(documents), add_special_tokens=False)
    ]
    return np.concatenate(rows)


def tokenizer_files(tokenizer: Tokenizer, max_length: int) -> dict[str, bytes]:
    """File name -> contents, as a Hugging Face directory has them."""
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "add_bos_token": True,
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_length,
    }
    return {
        "tokenizer.json": tokenizer.to_str(pretty=True).encode(),
        "tokenizer_config.json": encode_json(settings),
        "generation_config.json": encode_json({"bos_token_id": 0, "eos_token_id": 0}),
        "chat_template.jinja": _TEMPLATE.encode(),
    }
