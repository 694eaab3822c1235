"""A Jinja environment for templates of strangers: sandboxed, and metered."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from jinja2 import Template, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

#: Seconds that one rendering may take; a real template takes about a millisecond.
TIME_LIMIT_S = 2.0
#: Characters and elements of anything that a template makes, its output included.
SIZE_LIMIT = 1 << 24
#: Bits of an integer.
BITS_LIMIT = 1 << 12
#: Columns that a format or an indentation may ask for.
WIDTH_LIMIT = 999

_WIDE_PERCENT = re.compile(r"%[^a-zA-Z%]*(\*|\d{4})")
_WIDE_BRACES = re.compile(r"\{[^{}]*(\{|\d{4})")
#: They fill up to a given width or count whatever their input is, and no prompt needs them.
_FILLING_FILTERS = ("center", "wordwrap", "batch", "slice", "urlize", "xmlattr", "random")
_FILLING_METHODS = ("center", "ljust", "rjust", "zfill", "expandtabs", "format_map")


class LimitExceeded(Exception):
    """The template took too long, or made something too large."""


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """Renders within limits; one rendering at a time."""

    FILE = "<chat template>"
    intercepted_binops = frozenset(["*", "**", "+", "%"])

    def __init__(self) -> None:
        # As transformers sets it up: templates rely on blocks that leave no blank lines.
        extensions = [loopcontrols, _GenerationTag]
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=extensions, finalize=self._bounded)
        self._deadline = float("inf")
        for name in _FILLING_FILTERS:
            del self.filters[name]
        del self.globals["lipsum"]
        self.filters["indent"] = _narrow_indent(self.filters["indent"])
        self.filters["format"] = _narrow_format(self.filters["format"])
        self.filters["_metered"] = self._metered
        self.filters["_bounded"] = self._bounded
        self.filters["_joined"] = self._joined

    def compiled(self, source: str, name: str) -> Template:
        """Compile `source` with its loops metered. Raises jinja2.TemplateSyntaxError."""
        tree = _Metering().visit(self.parse(source, name, self.FILE))
        return Template.from_code(self, self.compile(tree, name, self.FILE), self.make_globals(None))

    def rendered(self, template: Template, variables: Mapping[str, Any]) -> str:
        """Render. Raises LimitExceeded, or whatever the template does."""
        self._deadline = time.monotonic() + TIME_LIMIT_S
        return template.render(variables)

    def tick(self) -> None:
        """Called by every iteration, call and piece of output."""
        if time.monotonic() > self._deadline:
            raise LimitExceeded(f"it ran for more than {TIME_LIMIT_S:g} s")

    def concat(self, parts: Iterable[str]) -> str:
        """Join the output of a block or of the whole template."""
        pieces, size = [], 0
        for part in parts:
            self.tick()
            size += len(part)
            _check_size(size)
            pieces.append(part)
        return "".join(pieces)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call `__obj` from a template."""
        __self.tick()
        method = getattr(__obj, "__wrapped__", __obj)  # the sandbox wraps str.format
        text = getattr(method, "__self__", None)
        if isinstance(text, str):
            _check_method(method.__name__, text)
        return __self._bounded(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute `left operator right`, refusing what would be large before it is made."""
        self.tick()
        if isinstance(left, int) and isinstance(right, int):
            if operator == "*":
                _check_bits(left.bit_length() + right.bit_length())
            elif operator == "**":
                _check_bits(left.bit_length() * abs(right))
        elif operator == "*":
            for sized, count in ((left, right), (right, left)):
                if hasattr(sized, "__len__") and isinstance(count, int):
                    _check_size(len(sized) * count)
        elif operator == "+" and hasattr(left, "__len__") and hasattr(right, "__len__"):
            _check_size(len(left) + len(right))
        elif operator == "%" and isinstance(left, str):
            _check_pattern(_WIDE_PERCENT, left)
            self._bounded(right)
        return super().call_binop(context, operator, left, right)

    def _metered(self, iterable: Iterable[Any]) -> Iterator[Any]:
        for item in iterable:
            self.tick()
            yield item

    def _bounded(self, value: Any) -> Any:
        """`value`, if it is small with all that it contains: a list that holds one list twice counts it twice."""
        size, containers = 0, [value]
        while containers:
            item = containers.pop()
            if isinstance(item, str | bytes):
                size += len(item)
            elif isinstance(item, list | tuple | set | frozenset | dict):
                self.tick()
                size += len(item)
                containers.extend(item)
                if isinstance(item, dict):
                    containers.extend(item.values())
            _check_size(size)
        return value

    def _joined(self, parts: list[Any]) -> str:
        return self.concat(str(self._bounded(part)) for part in parts)


class _Metering(NodeTransformer):
    """Wraps what loops go over, what filters take and give, and what `~` joins."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = _filtered(node.iter, "_metered")
        return node

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:
        self.generic_visit(node)
        if node.node is not None:  # None in a {% filter %} block, whose text comes from concat
            node.node = _filtered(node.node, "_bounded")
            return _filtered(node, "_bounded")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), "_joined")


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


class _GenerationTag(Extension):
    """{% generation %} marks the assistant's part for training; here it is just its content."""

    tags = {"generation"}  # noqa: RUF012 - the base class declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _narrow_indent(indent: Callable[..., str]) -> Callable[..., str]:
    def checked(text: str, width: int | str = 4, *args: Any, **kwargs: Any) -> str:
        _check_width(width if isinstance(width, int) else len(width))
        return indent(text, width, *args, **kwargs)

    return checked


def _narrow_format(percent_format: Callable[..., str]) -> Callable[..., str]:
    def checked(pattern: str, *args: Any, **kwargs: Any) -> str:
        _check_pattern(_WIDE_PERCENT, str(pattern))
        return percent_format(pattern, *args, **kwargs)

    return checked


def _check_method(name: str, text: str) -> None:
    if name in _FILLING_METHODS:
        raise LimitExceeded(f"it uses {name}(), which makes a text of any size")
    if name == "format":
        _check_pattern(_WIDE_BRACES, text.replace("{{", "").replace("}}", ""))


def _check_pattern(wide: re.Pattern[str], pattern: str) -> None:
    if wide.search(pattern):
        raise LimitExceeded(f"it formats to a width of more than {WIDTH_LIMIT} characters, or to one it computes")


def _check_width(width: int) -> None:
    if width > WIDTH_LIMIT:
        raise LimitExceeded(f"it indents by {width} characters, more than {WIDTH_LIMIT}")


def _check_size(size: int) -> None:
    if size > SIZE_LIMIT:
        raise LimitExceeded(f"it makes something of more than {SIZE_LIMIT} characters or elements")


def _check_bits(bits: int) -> None:
    if bits > BITS_LIMIT:
        raise LimitExceeded(f"it computes a number of about {bits} bits, more than {BITS_LIMIT}")
