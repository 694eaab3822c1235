from __future__ import annotations

import pytest

from edgekit.bundle import Bundle, read_bundle
from edgekit.chat.tokenizer import ChatTokenizer
from tests.chat.tiny_bundle import write_tiny_bundle
from tests.chat.tiny_tokenizers import IM_END, IM_START, byte_level


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle that runs; do not change it."""
    return read_bundle(write_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle"))


@pytest.fixture
def tokenizer() -> ChatTokenizer:
    """Byte-level, with <|im_start|> as its first token and <|im_end|> as its end."""
    made = byte_level()
    return ChatTokenizer(made.to_str(), bos=made.token_to_id(IM_START), eos=[made.token_to_id(IM_END)])
