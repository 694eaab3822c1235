"""The tokenizer and the template of the real SmolLM2-135M-Instruct."""

from __future__ import annotations

import pytest

from edgekit.chat.conversation import Conversation
from edgekit.chat.template import ChatTemplate
from edgekit.chat.tokenizer import ChatTokenizer
from edgekit.checkpoint import open_checkpoint
from edgekit.runtime.text import REPLACEMENT, TextStream

pytestmark = pytest.mark.model

TEXTS = [
    "The capital of France is Paris.",
    "naïve café — 你好，世界！ שלום हिन्दी 🎉👩‍👩‍👧‍👦",
    "  indented\n\n\tdef f(x):\n        return x  # 日本語",
    "𓀀𓂀 rare, ﷽ long, e\u0301 combined",
]


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return dict(open_checkpoint("smollm2-135m").tokenizer_files())


@pytest.fixture(scope="module")
def tokenizer(files: dict[str, bytes]) -> ChatTokenizer:
    return ChatTokenizer(files["tokenizer.json"].decode(), eos=[2])


@pytest.mark.parametrize("text", TEXTS)
def test_streaming_gives_whole_characters(tokenizer: ChatTokenizer, text: str) -> None:
    prompt = tokenizer.encode("Say it:")
    stream = TextStream(tokenizer, context=prompt)
    pieces = [stream.push(token) for token in tokenizer.encode(text)]
    assert "".join(pieces) + stream.flush() == text
    assert not any(REPLACEMENT in piece for piece in pieces)


def test_the_template_adds_its_system_prompt_only_where_there_is_none(
    files: dict[str, bytes], tokenizer: ChatTokenizer
) -> None:
    template = ChatTemplate(files["chat_template.jinja"].decode())
    conversation = Conversation()
    conversation.add("user", "Hi")
    ending = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert template.render(conversation.as_dicts(), special_tokens={}) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n" + ending
    )
    conversation.system = "Be brief."
    text = template.render(conversation.as_dicts(), special_tokens={})
    assert text == "<|im_start|>system\nBe brief.<|im_end|>\n" + ending
    assert tokenizer.encode(text)[0] == 1
    assert tokenizer.encode(text).count(2) == 2
