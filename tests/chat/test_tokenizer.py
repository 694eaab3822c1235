from __future__ import annotations

import json

import pytest

from edgekit.bundle import Bundle
from edgekit.chat.tokenizer import ChatTokenizer, json_object, special_tokens, tokenizer_from_bundle
from edgekit.errors import BundleError, PromptError
from tests.chat.tiny_tokenizers import IM_END, IM_START, byte_level


def test_it_encodes_and_decodes(tokenizer: ChatTokenizer) -> None:
    for text in ("hello world", "日本語 🙂", "tab\tand\nline", ""):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_tokens_are_tokens_and_have_no_text(tokenizer: ChatTokenizer) -> None:
    ids = tokenizer.encode(f"{IM_START}user{IM_END}")
    assert len(ids) == len(tokenizer.encode("user")) + 2
    assert ids[-1] == tokenizer.eos[0]
    assert tokenizer.decode(ids) == "user"


def test_the_first_token_is_added_only_when_asked(tokenizer: ChatTokenizer) -> None:
    plain = tokenizer.encode("hello")
    assert tokenizer.encode("hello", add_bos=True) == [tokenizer.bos, *plain]
    without = ChatTokenizer(byte_level().to_str())
    assert without.encode("hello", add_bos=True) == plain


def test_saved_truncation_and_padding_are_switched_off() -> None:
    made = byte_level()
    made.enable_truncation(4)
    made.enable_padding(length=50)
    tokenizer = ChatTokenizer(made.to_str())
    assert len(tokenizer.encode("abcdefgh")) == 8


def test_what_the_postprocessor_would_add_is_not_added() -> None:
    from tokenizers.processors import TemplateProcessing

    made = byte_level()
    bos = made.token_to_id(IM_START)
    made.post_processor = TemplateProcessing(single=f"{IM_START} $A", special_tokens=[(IM_START, bos)])
    assert bos not in ChatTokenizer(made.to_str()).encode("hello")


def test_half_a_surrogate_pair_is_refused(tokenizer: ChatTokenizer) -> None:
    with pytest.raises(PromptError) as caught:
        tokenizer.encode("ab\udce9")
    assert "character 2" in caught.value.fact


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", '{"version": "1.0", "model": {"type": "nothing"}}'])
def test_a_broken_tokenizer_is_refused_by_name(text: str) -> None:
    with pytest.raises(BundleError) as caught:
        ChatTokenizer(text, origin="there/tokenizer.json")
    assert "there/tokenizer.json" in caught.value.fact


def test_it_knows_where_a_text_can_be_cut(tokenizer: ChatTokenizer) -> None:
    assert tokenizer.splits_before(f"{IM_END}\nmore")
    assert not tokenizer.splits_before(f" {IM_END}")
    assert not tokenizer.splits_before("")


def test_from_a_bundle(tiny_bundle: Bundle) -> None:
    tokenizer = tokenizer_from_bundle(tiny_bundle)
    assert tokenizer.bos is None, "the manifest says that no first token is added"
    assert tokenizer.eos == tiny_bundle.manifest.tokens.eos
    assert tokenizer.special_tokens["bos_token"] == IM_START
    assert tokenizer.special_tokens["eos_token"] == IM_END
    assert tokenizer.size == tiny_bundle.manifest.model.vocab_size


def test_special_tokens_come_as_texts_or_objects() -> None:
    config = {"bos_token": "<s>", "eos_token": {"content": "</s>", "special": True}, "pad_token": None, "unk_token": 5}
    assert special_tokens(config) == {"bos_token": "<s>", "eos_token": "</s>"}


@pytest.mark.parametrize("content", ["", "[1]", '"x"', "{", "[" * 100_000])
def test_a_file_that_holds_no_object_is_refused(tmp_path, content: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "tokenizer_config.json"
    path.write_text(content)
    with pytest.raises(BundleError) as caught:
        json_object(path)
    assert "tokenizer_config.json" in caught.value.fact
    path.write_text(json.dumps({"a": 1}))
    assert json_object(path) == {"a": 1}
