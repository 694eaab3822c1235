"""The chat template that comes with a model: from messages to the text of a prompt.

A template is a program from a stranger. It runs in Jinja's immutable sandbox, without files, includes or Python
objects, and with limits on time and size, so that it can neither reach out nor hang.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from traceback import walk_tb
from typing import TYPE_CHECKING

from jinja2 import Template, TemplateError, TemplateSyntaxError

from edgekit.chat.sandbox import LimitExceeded, TemplateEnvironment
from edgekit.chat.tokenizer import tokenizer_config
from edgekit.errors import PromptError

if TYPE_CHECKING:
    from edgekit.bundle import Bundle

TEMPLATE_FILE = "chat_template.jinja"
_OTHER_WAYS = "give another with --template FILE, or use edgekit run --raw"


class ChatTemplate:
    """A compiled template."""

    def __init__(self, source: str, origin: str = TEMPLATE_FILE) -> None:
        """Compile `source`. Raises PromptError naming `origin` and the line."""
        self.origin = origin
        self._environment = TemplateEnvironment()
        self._environment.filters["tojson"] = _tojson
        self._environment.globals.update(raise_exception=_raise_exception, strftime_now=_strftime_now)
        try:
            self._template: Template = self._environment.compiled(source, origin)
        except TemplateSyntaxError as error:
            raise PromptError(
                "a chat template must be valid Jinja", f"{origin}, line {error.lineno}: {error.message}", _OTHER_WAYS
            ) from error
        except RecursionError as error:
            raise PromptError(
                "a chat template must be valid Jinja", f"{origin}: it is nested too deeply", _OTHER_WAYS
            ) from error

    def render(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        special_tokens: Mapping[str, str],
        add_generation_prompt: bool = True,
    ) -> str:
        """The prompt's text.

        Args:
            messages: objects with `role` ("system", "user", "assistant") and `content`.
            special_tokens: bos_token, eos_token, ... as variables of the template.
            add_generation_prompt: end with what begins an answer.

        Raises:
            PromptError: the template refuses the messages, fails, or exceeds its limits.
        """
        variables = {
            **special_tokens,
            "messages": [dict(message) for message in messages],
            "add_generation_prompt": add_generation_prompt,
            "tools": None,
            "documents": None,
        }
        try:
            return self._environment.rendered(self._template, variables)
        except LimitExceeded as error:
            raise PromptError(
                "a chat template must finish within its limits", f"{self.origin}{_line(error)}: {error}", _OTHER_WAYS
            ) from error
        except _Refused as error:
            raise PromptError(
                "the chat template must accept the conversation",
                f"{self.origin}{_line(error)} says: {error}",
                f"change the messages, or {_OTHER_WAYS}",
            ) from error
        except Exception as error:
            raise PromptError(
                "a chat template must run without errors",
                f"{self.origin}{_line(error)}: {type(error).__name__}: {error}",
                _OTHER_WAYS,
            ) from error


def template_from_bundle(bundle: Bundle, override: Path | None = None) -> ChatTemplate:
    """The template to use: `override`, else the bundle's chat_template.jinja, else that of tokenizer_config.json.

    Raises:
        PromptError: there is none, or it is broken.
    """
    if override is not None:
        try:
            return ChatTemplate(override.read_text("utf-8"), str(override))
        except UnicodeDecodeError as error:
            raise PromptError(
                "a chat template must be UTF-8 text", f"{override}: byte {error.start} is not", "save it as UTF-8"
            ) from error
    if bundle.has(TEMPLATE_FILE):
        return ChatTemplate(bundle.file(TEMPLATE_FILE).read_text("utf-8"), str(bundle.path / TEMPLATE_FILE))
    source = _configured(tokenizer_config(bundle).get("chat_template"))
    if source is not None:
        return ChatTemplate(source, f"{bundle.path / 'tokenizer_config.json'}: chat_template")
    raise PromptError(
        "a chat needs the model's chat template, or the model answers in a form it was never taught",
        f"{bundle.path} has neither {TEMPLATE_FILE} nor a chat_template in tokenizer_config.json",
        "give one with --template FILE, or continue the text as it is with edgekit run --raw",
    )


def _configured(value: object) -> str | None:
    """A template of tokenizer_config.json: a text, or a list of named ones of which "default" is meant."""
    if isinstance(value, str):
        return value
    for entry in value if isinstance(value, list) else []:
        if isinstance(entry, dict) and entry.get("name") == "default" and isinstance(entry.get("template"), str):
            return str(entry["template"])
    return None


class _Refused(TemplateError):
    """Raised by the template itself."""


def _raise_exception(message: object) -> None:
    raise _Refused(str(message))


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def _tojson(value: object, ensure_ascii: bool = False, indent: int | None = None, sort_keys: bool = False) -> str:
    # Jinja's own filter escapes for HTML, which a model has not seen.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, sort_keys=sort_keys)


def _line(error: BaseException) -> str:
    """The line of the template where the error arose; Jinja rewrites tracebacks to show it."""
    lines = [
        line for frame, line in walk_tb(error.__traceback__) if frame.f_code.co_filename == TemplateEnvironment.FILE
    ]
    return f", line {lines[-1]}" if lines else ""
