"""Reading a page as a browser and a screen reader would."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from edgekit.bundle import Bundle
from edgekit.report.collect import page_of
from edgekit.report.kit_result import KitResult
from edgekit.report.page import html_of
from edgekit.report.source import Source

XHTML = "{http://www.w3.org/1999/xhtml}"
Element = ElementTree.Element


def parsed(html: str) -> Element:
    """The page as a tree; fails where it is not well-formed. Names carry no namespace."""
    root = ElementTree.fromstring(html)
    for element in root.iter():
        element.tag = element.tag.removeprefix(XHTML)
    return root


def report(bundle: Bundle, *kits: KitResult) -> Element:
    """The report of a bundle."""
    return parsed(html_of(page_of(Source.of(bundle, kits))))


def text(element: Element) -> str:
    """All text in it, white space as single spaces and no-break spaces as such."""
    return " ".join("".join(element.itertext()).replace("\N{NO-BREAK SPACE}", " ").split())


def section(root: Element, name: str) -> Element:
    """The section of that name."""
    (found,) = (element for element in root.iter("section") if element.get("id") == name)
    return found


def facts(element: Element) -> dict[str, str]:
    """Labels and values of its definition lists."""
    pairs = [div for dl in element.iter("dl") for div in dl]
    return {text(div[0]): text(div[1]) for div in pairs}


def table(element: Element, caption: str) -> dict[str, list[str]]:
    """The rows of the table of that caption by their first cell."""
    (found,) = (each for each in element.iter("table") if text(each[0]) == caption)
    rows = [[text(cell) for cell in row] for body in found.iter("tbody") for row in body]
    return {row[0]: row[1:] for row in rows}


def tiles(root: Element) -> dict[str, str]:
    """The figures at the top."""
    (found,) = (dl for dl in root.iter("dl") if dl.get("class") == "tiles")
    return {text(div[0]): text(div[1]) for div in found}
