"""SVG elements, and how wide a text will be: just enough to place marks and labels without overlap.

Colours are classes, which the page's style sheet defines for light and dark: `c1` to `c8` fill with a series' colour,
`s1` to `s8` draw lines of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from markupsafe import Markup

#: How many series colours there are.
COLOURS = 8
FONT_SIZE = 12.0

#: Widths of characters in units of the font size, those of DejaVu Sans, the widest of the usual system fonts.
_WIDTHS = {
    **dict.fromkeys("ijl'", 0.28),
    **dict.fromkeys(" .,:;|!·", 0.32),
    **dict.fromkeys("ftrI()[]-/\\", 0.41),
    **dict.fromkeys("mMW%", 0.95),
    **dict.fromkeys("wGOQNDH", 0.82),
    **dict.fromkeys("ABCEFJKLPRSTUVXYZ&", 0.68),
}
_USUAL, _WIDE = 0.64, 1.0
#: From here on, scripts of square characters begin.
_FIRST_SQUARE = 0x2E80


def text_width(text: str, size: float = FONT_SIZE) -> float:
    """An upper estimate of a text's width in pixels."""
    return size * sum(_WIDTHS.get(c, _WIDE if ord(c) >= _FIRST_SQUARE else _USUAL) for c in text)


def fitted(text: str, width: float, size: float = FONT_SIZE) -> str:
    """The text, cut with an ellipsis where it is wider than `width`."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "…", size) > width:
        text = text[:-1]
    return text.rstrip() + "…"


@dataclass
class Canvas:
    """A drawing in the making, in pixels; `height` may grow until it is finished."""

    width: float
    height: float = 0.0
    elements: list[Markup] = field(default_factory=list)

    def rect(
        self, x: float, y: float, width: float, height: float, kind: str, tip: str = "", radius: float = 0
    ) -> None:
        """A filled rectangle; `tip` is shown when the pointer rests on it."""
        rounded = Markup(' rx="{}"').format(_number(radius)) if radius else Markup("")
        self._add("rect", kind, tip, x=x, y=y, width=max(width, 0.0), height=height, more=rounded)

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str, tip: str = "") -> None:
        """A straight line."""
        self._add("line", kind, tip, x1=x1, y1=y1, x2=x2, y2=y2)

    def dot(self, x: float, y: float, radius: float, kind: str, tip: str = "") -> None:
        """A disc."""
        self._add("circle", kind, tip, cx=x, cy=y, r=radius)

    def path(self, points: list[tuple[float, float]], kind: str, *, closed: bool = False) -> None:
        """Straight lines through points; filled when closed."""
        if not points:
            return
        steps = " L".join(f"{_number(x)} {_number(y)}" for x, y in points)
        shape = Markup(' d="M{}{}"').format(steps, "Z" if closed else "")
        self.elements.append(Markup('<path class="{}"{}/>').format(kind, shape))

    def text(self, x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> None:
        """A text whose baseline is at y. `anchor`: "start", "middle" or "end"."""
        self.elements.append(
            Markup('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>').format(
                kind, _number(x), _number(y), anchor, text
            )
        )

    def _add(self, tag: str, kind: str, tip: str, more: Markup = Markup(""), **places: float) -> None:  # noqa: B008
        where = Markup("").join(Markup(' {}="{}"').format(name, _number(value)) for name, value in places.items())
        inside = Markup("<title>{}</title>").format(tip) if tip else Markup("")
        self.elements.append(Markup('<{0} class="{1}"{2}{3}>{4}</{0}>').format(Markup(tag), kind, where, more, inside))

    def svg(self, title: str, description: str, name: str) -> Markup:
        """The finished drawing. `name` is an id no other drawing of the page has."""
        return Markup(
            '<svg class="plot" role="img" aria-labelledby="{name}-t {name}-d" viewBox="0 0 {width} {height}" '
            'width="{width}" height="{height}"><title id="{name}-t">{title}</title>'
            '<desc id="{name}-d">{description}</desc>{elements}</svg>'
        ).format(
            name=name,
            width=_number(self.width),
            height=_number(self.height),
            title=title,
            description=description,
            elements=Markup("").join(self.elements),
        )


def legend(canvas: Canvas, entries: list[tuple[str, str]], left: float, top: float) -> float:
    """Draw labelled swatches, as many a row as fit; the y below them.

    Args:
        entries: class of the swatch and label.
    """
    x, y, row = left, top, 20.0
    for kind, label in entries:
        label = fitted(label, canvas.width - left - 18)
        needed = 18 + text_width(label) + 14
        if x > left and x + needed - 14 > canvas.width:
            x, y = left, y + row
        canvas.rect(x, y + 2, 11, 11, kind, radius=2)
        canvas.text(x + 17, y + 12, label)
        x += needed
    return y + row if entries else top


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
