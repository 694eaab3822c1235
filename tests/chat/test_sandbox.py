from __future__ import annotations

import time

import pytest

from edgekit.chat import sandbox
from edgekit.chat.template import ChatTemplate
from edgekit.errors import PromptError


def attempt(source: str) -> str:
    messages = [{"role": "user", "content": "hello"}]
    return ChatTemplate(source).render(messages, special_tokens={"bos_token": "<s>"})


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__class__.__base__.__subclasses__() }}",
        "{{ raise_exception.__globals__['__builtins__'] }}",
        "{{ strftime_now.__globals__['datetime'].now() }}",
        "{{ strftime_now.__code__.co_consts }}",
        "{{ self.__init__.__globals__.os.system('true') }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ joiner.__init__.__globals__.os }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ (messages | map(attribute='__class__') | list)[0].__mro__ }}",
        "{{ messages[0].update({'content': 'x'}) }}",
        "{{ messages.append(1) }}",
        "{{ messages.clear() }}",
        "{% set x = messages[0].pop('content') %}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{% extends 'x' %}",
        "{% do messages.append(1) %}",
        "{{ open('/etc/passwd').read() }}",
        "{{ __import__('os') }}",
        "{{ eval('1') }}",
        "{{ loop.__class__ }}{{ messages | attr('append') }}{{ (messages | attr('append'))(1) }}",
        "{% for x in messages %}{{ loop._iterator.__class__.__base__ }}{% endfor %}",
        "{{ '{0.__class__.__mro__}'.format(messages).x.y }}",
    ],
)
def test_escapes_are_refused(source: str) -> None:
    with pytest.raises(PromptError):
        attempt(source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__ }}",
        "{{ messages | attr('__class__') }}",
        "{{ messages | map(attribute='__class__') | list }}",
        "{{ '{0.__class__}'.format(messages) }}",
        "{{ '{0.__globals__}'.format(raise_exception) }}",
    ],
)
def test_what_is_forbidden_reads_as_nothing_where_it_is_only_shown(source: str) -> None:
    try:
        shown = attempt(source)
    except PromptError:
        return
    assert "class" not in shown
    assert "builtins" not in shown


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% set x = 1 %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}",
        "{{ range(1000000000) | list }}",
        "{{ 'a' * 1000000000 }}",
        "{{ 1000000000 * 'a' }}",
        "{{ [0] * 1000000000 }}",
        "{{ 9 ** 999999 }}",
        "{% set ns = namespace(x=9) %}{% for i in range(60) %}{% set ns.x = ns.x * ns.x %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x='aaaa') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x='aaaa') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}"
        "{{ ns.x | tojson }}",
        "{% set ns = namespace(x='aaaa') %}{% for i in range(60) %}{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}"
        "{% set ns.x = y %}{% endfor %}",
        "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x | replace('a', 'aa') %}{% endfor %}",
        "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x.replace('a', 'aaa') %}{% endfor %}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%*d' % (1000000000, 1) }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ '{:{w}}'.format(1, w=1000000000) }}",
        "{{ 'a'.ljust(1000000000) }}",
        "{{ 'a'.center(1000000000) }}",
        "{{ 'a' | center(1000000000) }}",
        "{{ 'a\nb' | indent(1000000000) }}",
        "{{ lipsum(100000) }}",
        "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% for x in [messages] recursive %}{{ loop([x]) }}{% endfor %}",
        "{{" + "(" * 5000 + ")" * 5000 + "}}",
        "{{ [" * 500,
    ],
    ids=lambda source: source[:60],
)
def test_bombs_are_refused_in_time(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "TIME_LIMIT_S", 0.3)
    started = time.monotonic()
    with pytest.raises(PromptError) as caught:
        attempt(source)
    assert time.monotonic() - started < 10
    assert caught.value.fact


def test_long_conversations_are_no_bombs() -> None:
    messages = [{"role": "user", "content": "word " * 1000} for _ in range(500)]
    text = ChatTemplate("{% for m in messages %}{{ m.role + ': ' + m.content }}{% endfor %}").render(
        messages, special_tokens={}
    )
    assert len(text) == 500 * (5000 + len("user: "))


def test_a_template_is_as_good_as_new_after_a_bomb() -> None:
    template = ChatTemplate("{% for i in range(messages | length) %}{{ 'a' * 10 ** (messages | length) }}{% endfor %}")
    with pytest.raises(PromptError):
        template.render([{}] * 9, special_tokens={})
    assert template.render([{}], special_tokens={}) == "a" * 10
