from __future__ import annotations

import random

import pytest

from edgekit.runtime.text import REPLACEMENT, StopStrings, TextStream
from tests.chat.tiny_tokenizers import byte_fallback, byte_level

TEXTS = [
    "plain",
    "naïve café",
    "日本語のテキスト、漢字",
    "🙂🙃",
    "👩‍👩‍👧‍👦 family",
    "mixed 🙂 日 text é.",
    "hello world hello",
    "flags 🇫🇷🇯🇵 and ﷽",
]


class Tokenizers:
    """Both families, as decoders."""

    def __init__(self, kind: str) -> None:
        self.tokenizer = {"byte-level": byte_level, "byte-fallback": byte_fallback}[kind]()

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: list[int]) -> str:
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return text


@pytest.fixture(params=["byte-level", "byte-fallback"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizers:
    return Tokenizers(request.param)


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_whole_characters_and_make_the_text(tokenizer: Tokenizers, text: str) -> None:
    ids = tokenizer.encode(text)
    stream = TextStream(tokenizer)
    pieces = [stream.push(token) for token in ids]
    assert REPLACEMENT not in "".join(pieces)
    assert "".join(pieces) + stream.flush() == tokenizer.decode(ids) == text
    assert stream.flush() == ""


def test_a_character_comes_with_its_last_byte() -> None:
    """🙂 is four byte tokens here: nothing, nothing, nothing, 🙂."""
    tokenizer = Tokenizers("byte-level")
    ids = tokenizer.encode("a🙂b")
    assert len(ids) == 6
    stream = TextStream(tokenizer)
    assert [stream.push(token) for token in ids] == ["a", "", "", "", "🙂", "b"]


def test_text_is_given_out_at_once(tokenizer: Tokenizers) -> None:
    stream = TextStream(tokenizer)
    pieces = [stream.push(token) for token in tokenizer.encode("abc world")]
    assert all(pieces[-3:])


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_an_incomplete_last_character_is_dropped(tokenizer: Tokenizers, cut: int) -> None:
    ids = tokenizer.encode("a🙂")
    stream = TextStream(tokenizer)
    shown = "".join(stream.push(token) for token in ids[:-cut])
    assert shown + stream.flush() == "a"


def test_bytes_that_are_no_text_become_replacement_characters() -> None:
    """A continuation byte alone, then text: it will never be a character, and the text is not lost."""
    tokenizer = Tokenizers("byte-level")
    continuation = tokenizer.encode("🙂")[-1]
    ids = [continuation, *tokenizer.encode("ok")]
    stream = TextStream(tokenizer)
    assert "".join(stream.push(token) for token in ids) == f"{REPLACEMENT}ok"


def test_endless_garbage_is_not_held_for_ever() -> None:
    tokenizer = Tokenizers("byte-level")
    continuation = tokenizer.encode("🙂")[-1]
    stream = TextStream(tokenizer)
    shown = "".join(stream.push(continuation) for _ in range(100))
    assert len(shown) >= 80
    assert "".join(stream.push(token) for token in tokenizer.encode("x🙂")).endswith("x🙂")


def test_the_space_before_the_first_word_of_a_continuation_is_kept() -> None:
    """A SentencePiece decoder strips the space at the start of a text; after a prompt it is not the start."""
    tokenizer = Tokenizers("byte-fallback")
    prompt, more = tokenizer.encode("abc"), tokenizer.encode("def")
    alone, after = TextStream(tokenizer), TextStream(tokenizer, context=prompt)
    assert "".join(alone.push(token) for token in more) == "def"
    assert "".join(after.push(token) for token in more) == " def"


def test_special_tokens_give_no_text_and_do_not_swallow_the_next_space() -> None:
    tokenizer = Tokenizers("byte-fallback")
    end = tokenizer.tokenizer.token_to_id("</s>")
    ids = [*tokenizer.encode("ab"), end, end, *tokenizer.encode("cd")]
    stream = TextStream(tokenizer)
    pieces = [stream.push(token) for token in ids]
    assert "".join(pieces) == tokenizer.decode(ids) == "ab cd"


def test_a_prompt_that_ends_inside_a_character() -> None:
    tokenizer = Tokenizers("byte-level")
    ids = tokenizer.encode("🙂")
    stream = TextStream(tokenizer, context=[*tokenizer.encode("abc"), *ids[:2]])
    assert "".join(stream.push(token) for token in [*ids[2:], *tokenizer.encode("x")]).endswith("x")


def test_random_token_streams_lose_nothing() -> None:
    """Any tokens at all: the pieces make the decoded whole, but for an incomplete end."""
    tokenizer = Tokenizers("byte-level")
    chance = random.Random(0)
    for _ in range(300):
        ids = [token for _ in range(4) for token in tokenizer.encode(chance.choice(TEXTS))[: chance.randrange(9)]]
        stream = TextStream(tokenizer)
        got = "".join(stream.push(token) for token in ids) + stream.flush()
        assert got == tokenizer.decode(ids).rstrip(REPLACEMENT)


def feed(stops: list[str], pieces: list[str]) -> tuple[list[str], str | None]:
    matcher = StopStrings(stops)
    shown = []
    for piece in pieces:
        shown.append(matcher.push(piece))
        if matcher.found is not None:
            return shown, matcher.found
    return [*shown, matcher.flush()], None


@pytest.mark.parametrize(
    ("stops", "pieces", "shown", "found"),
    [
        ([], ["ab", "c"], ["ab", "c", ""], None),
        (["END"], ["ab", "c"], ["ab", "c", ""], None),
        (["END"], ["abENDcd"], ["ab"], "END"),
        (["END"], ["END"], [""], "END"),
        (["END"], ["aE", "N", "D", "x"], ["a", "", ""], "END"),
        (["END"], ["aE", "N", "x"], ["a", "", "ENx", ""], None),
        (["END"], ["aEE", "ND"], ["aE", ""], "END"),
        (["END"], ["ab", "EN"], ["ab", "", "EN"], None),
        (["aab"], ["aaa", "b"], ["a", ""], "aab"),
        (["\n\n", "User:"], ["x\n", "Us", "er", "\n", "\n"], ["x", "\n", "", "User", ""], "\n\n"),
        (["bc", "abcd"], ["abcd"], ["a"], "bc"),
        (["bc", "abcd"], ["abc", "d"], ["a"], "bc"),
        (["🙂"], ["a🙂"], ["a"], "🙂"),
        (["x"], ["", "a"], ["", "a", ""], None),
    ],
)
def test_stop_strings(stops: list[str], pieces: list[str], shown: list[str], found: str | None) -> None:
    assert feed(stops, pieces) == (shown, found)


def test_stop_strings_do_not_depend_on_how_the_text_is_cut() -> None:
    chance = random.Random(1)
    for _ in range(500):
        text = "".join(chance.choice("ab") for _ in range(20))
        stops = ["".join(chance.choice("ab") for _ in range(chance.randrange(1, 7))) for _ in range(2)]
        pieces, rest = [], text
        while rest:
            size = chance.randrange(1, 6)
            pieces.append(rest[:size])
            rest = rest[size:]
        ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
        shown, found = feed(stops, pieces)
        whole, found_whole = feed(stops, [text])
        assert "".join(shown) == "".join(whole)
        assert (found is None) == (found_whole is None) == (not ends)
        if found is not None:
            assert len("".join(shown)) + len(found) == min(ends)
