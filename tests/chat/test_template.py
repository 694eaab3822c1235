from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekit.bundle import Bundle, read_bundle, write_bundle
from edgekit.chat.template import ChatTemplate, template_from_bundle
from edgekit.errors import PromptError
from tests.chat.tiny_bundle import CHATML, write_tiny_bundle

HELLO = [{"role": "user", "content": "hello"}]


def render(source: str, messages: list[dict[str, str]] | None = None, **special: str) -> str:
    return ChatTemplate(source).render(messages or HELLO, special_tokens=special)


def test_chatml() -> None:
    messages = [{"role": "system", "content": "Be brief."}, *HELLO]
    assert render(CHATML, messages) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_beginning_of_an_answer_is_optional() -> None:
    text = ChatTemplate(CHATML).render(HELLO, special_tokens={}, add_generation_prompt=False)
    assert text.endswith("<|im_end|>\n")


def test_blocks_leave_no_blank_lines() -> None:
    """As transformers renders them: trim_blocks and lstrip_blocks."""
    assert render("{% if true %}\n  {% for m in messages %}\nx\n  {% endfor %}\n{% endif %}\ny") == "x\ny"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ bos_token }}", "<s>"),
        ("{{ eos_token }}", ""),
        ("{{ tools is none }}", "True"),
        ("{{ {'a': '<é>'} | tojson }}", '{"a": "<é>"}'),
        ("{{ [1] | tojson(indent=2) }}", "[\n  1\n]"),
        (
            "{% for i in range(5) %}{% if i == 1 %}{% continue %}{% endif %}"
            "{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}",
            "02",
        ),
        (
            "{% for m in messages + messages %}{{ loop.index }}{{ loop.length }}{{ ',' if not loop.last }}{% endfor %}",
            "12,22",
        ),
        ("{% generation %}inner{% endgeneration %}", "inner"),
        ("{{ 'a' ~ 1 ~ none }}", "a1None"),
        ("{{ messages[0].content | trim | upper }}", "HELLO"),
        ("{{ messages | selectattr('role', 'equalto', 'user') | list | length }}", "1"),
        ("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}", "1"),
        ("{% macro turn(m) %}[{{ m.content }}]{% endmacro %}{{ turn(messages[0]) }}", "[hello]"),
        ("{{ 'x\ny' | indent(2) }}", "x\n  y"),
        ("{{ '%02d' | format(5) }} {{ '%s' % 'a' }} {{ '{:>3}{{}}'.format(1) }}", "05 a   1{}"),
        ("{{ messages[::-1][0]['content'].split('l') }}", "['he', '', 'o']"),
        ("{% for x in absent %}{% else %}none{% endfor %}", "none"),
        ("{{ 2 ** 8 * 3 + 1 }}", "769"),
        ("{% filter upper %}abc{% endfilter %}", "ABC"),
    ],
)
def test_what_templates_use(source: str, text: str) -> None:
    assert render(source, bos_token="<s>") == text


def test_the_date() -> None:
    year = render("{{ strftime_now('%Y') }}")
    assert year.isdigit()
    assert len(year) == 4


def test_rendering_is_what_transformers_renders() -> None:
    transformers = pytest.importorskip("transformers")
    from transformers import PreTrainedTokenizerFast

    from tests.chat.tiny_tokenizers import IM_END, IM_START, byte_level

    source = (
        "{{- bos_token }}\n{%- if messages[0].role == 'system' %}\n    {{- messages[0].content + '\n' }}\n"
        "    {%- set messages = messages[1:] %}\n{%- endif %}\n{% for message in messages %}\n"
        "    {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\n"
        "        {{ raise_exception('roles must alternate') }}\n    {% endif %}\n"
        "    {{- '<|im_start|>' ~ message.role ~ '\n' ~ message.content | trim ~ '<|im_end|>\n' }}\n"
        "{% endfor %}\n{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    messages = [
        {"role": "system", "content": "Brief."},
        {"role": "user", "content": " a <b> & 'c' "},
        {"role": "assistant", "content": "日本"},
        {"role": "user", "content": "x\n\ny"},
    ]
    theirs = PreTrainedTokenizerFast(tokenizer_object=byte_level(), bos_token=IM_START, eos_token=IM_END)
    theirs.chat_template = source
    want = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert transformers.__version__
    assert render(source, messages, bos_token=IM_START, eos_token=IM_END) == want


def test_a_template_that_refuses_says_why() -> None:
    with pytest.raises(PromptError) as caught:
        render("first\n\n{{ raise_exception('Roles must alternate') }}")
    assert "Roles must alternate" in caught.value.fact
    assert "line 3" in caught.value.fact


@pytest.mark.parametrize(
    ("source", "line", "words"),
    [
        ("a\n{% if %}", 2, "Expected an expression"),
        ("a\n\n{% for x in y %}", 3, "end"),
        ("{{ 'a' }", 1, ""),
        ("\n{{ x | nosuchfilter }}", 2, "nosuchfilter"),
    ],
)
def test_a_broken_template_is_refused_with_its_line(source: str, line: int, words: str) -> None:
    with pytest.raises(PromptError) as caught:
        ChatTemplate(source, "here.jinja")
    assert f"here.jinja, line {line}" in caught.value.fact
    assert words in caught.value.fact
    assert "--template" in caught.value.next_step


@pytest.mark.parametrize(
    ("source", "line"), [("a\n{{ x.y.z }}", 2), ("\n\n\n{{ 1 / 0 }}", 4), ("{{ messages[0]['content'].nosuch() }}", 1)]
)
def test_a_template_that_fails_is_refused_with_its_line(source: str, line: int) -> None:
    with pytest.raises(PromptError) as caught:
        render(source)
    assert f"line {line}" in caught.value.fact


def test_messages_are_not_changed() -> None:
    messages = [{"role": "user", "content": "x"}]
    with pytest.raises(PromptError):
        render("{{ messages[0].update({'content': 'y'}) }}", messages)
    assert messages == [{"role": "user", "content": "x"}]


def test_the_template_of_a_bundle(tiny_bundle: Bundle) -> None:
    assert "assistant" in template_from_bundle(tiny_bundle).render(HELLO, special_tokens={})


def test_another_template_can_be_given(tiny_bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text("mine: {{ messages[0].content }}")
    assert template_from_bundle(tiny_bundle, path).render(HELLO, special_tokens={}) == "mine: hello"
    path.write_bytes(b"\xff")
    with pytest.raises(PromptError, match="UTF-8"):
        template_from_bundle(tiny_bundle, path)
    path.write_text("{% if")
    with pytest.raises(PromptError, match=r"mine\.jinja"):
        template_from_bundle(tiny_bundle, path)


def test_a_missing_template_is_refused_with_the_ways_out(tmp_path: Path) -> None:
    bundle = read_bundle(write_tiny_bundle(tmp_path / "bare", template=None))
    with pytest.raises(PromptError) as caught:
        template_from_bundle(bundle)
    assert str(bundle.path) in caught.value.fact
    assert "--template" in caught.value.next_step
    assert "--raw" in caught.value.next_step


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("one", "one"),
        ([{"name": "tool_use", "template": "no"}, {"name": "default", "template": "two"}], "two"),
        ([{"name": "tool_use", "template": "no"}], None),
        ([], None),
        (5, None),
        ([{"name": "default", "template": 5}, "x"], None),
    ],
)
def test_templates_inside_tokenizer_config(tmp_path: Path, value: object, text: str | None) -> None:
    source = read_bundle(write_tiny_bundle(tmp_path / "source", template=None))
    with write_bundle(tmp_path / "bundle") as draft:
        for entry in source.manifest.files:
            (draft.path / entry.name).write_bytes(source.file(entry.name).read_bytes())
        (draft.path / "tokenizer_config.json").write_text(json.dumps({"chat_template": value}))
        draft.manifest.update({k: v for k, v in source.manifest.raw.items() if k not in ("files", "schema", "edgekit")})
    bundle = read_bundle(tmp_path / "bundle")
    if text is None:
        with pytest.raises(PromptError, match="chat template"):
            template_from_bundle(bundle)
    else:
        assert template_from_bundle(bundle).render(HELLO, special_tokens={}) == text
