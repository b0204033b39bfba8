"""A report as one HTML file that needs nothing beside it: no script, no font, no picture from elsewhere.

The page is built as a tree and serialised by the standard library, so that whatever a class or a file is called
stays text. A content security policy in its head forbids it to load anything.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import singledispatch
from importlib import resources
from xml.etree.ElementTree import Element, SubElement, tostring

from policy.tables.words import valid

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_ID = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Paragraph:
    text: str


@dataclass(frozen=True)
class Facts:
    """Sentences that belong together, each a line of a list."""

    sentences: Sequence[str]


@dataclass(frozen=True)
class Command:
    """What one types to get this again."""

    text: str
    caption: str = ""


@dataclass(frozen=True)
class Table:
    """Cells of text; the first column names the rows.

    Attributes:
        emphasised: indices of rows that stand out.
        groups: by index of a row, the title of the group that it begins.
        notes: below the table, a line each.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    emphasised: frozenset[int] = frozenset()
    groups: Mapping[int, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Figure:
    """A PNG.

    Attributes:
        alt: what it shows, for those who do not see it.
    """

    png: bytes
    alt: str
    caption: str


@dataclass(frozen=True)
class Thumbnail:
    """A small picture, JPEG or PNG, with what is to be read instead of it, and below it."""

    image: bytes
    alt: str
    caption: str
    marked: bool = False


@dataclass(frozen=True)
class Thumbnails:
    """Pictures in a row that wraps, the marked ones in a green frame."""

    title: str
    images: Sequence[Thumbnail]
    note: str = ""


Block = Paragraph | Facts | Command | Table | Figure | Thumbnails


@dataclass(frozen=True)
class Section:
    """Attributes:
    id: of its heading in links to it; a letter, then letters, digits, - and _.
    """

    id: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A document.

    Attributes:
        intro: what stands above the table of contents.
    """

    title: str
    intro: Sequence[Block]
    sections: Sequence[Section]


def render(page: Page) -> str:
    """The document.

    Raises:
        ValueError: ids of sections that are none or occur twice, a table whose rows have not as many cells as
            its header, a picture that is neither PNG nor JPEG.
    """
    ids = [section.id for section in page.sections]
    if len(set(ids)) < len(ids) or not all(_ID.fullmatch(one) for one in ids):
        raise ValueError(f"ids of sections must be unique names: {', '.join(map(repr, ids))}")
    root = Element("html", lang="en")
    _head(root, page.title)
    body = SubElement(root, "body")
    header = SubElement(body, "header")
    _text(header, "h1", page.title)
    for block in page.intro:
        _add(block, header)
    if len(page.sections) > 1:
        _contents(body, page.sections)
    main = SubElement(body, "main")
    for section in page.sections:
        _section(main, section)
    _clean(root)
    return f"<!DOCTYPE html>\n{tostring(root, encoding='unicode', method='html')}\n"


def _head(root: Element, title: str) -> None:
    head = SubElement(root, "head")
    SubElement(head, "meta", charset="utf-8")
    SubElement(head, "meta", {"http-equiv": "Content-Security-Policy", "content": _POLICY})
    SubElement(head, "meta", name="viewport", content="width=device-width, initial-scale=1")
    SubElement(head, "meta", {"name": "color-scheme", "content": "light dark"})
    SubElement(head, "title").text = title
    SubElement(head, "style").text = (
        resources.files("policy.tables").joinpath("report.css").read_text("utf-8")
    )


def _contents(body: Element, sections: Sequence[Section]) -> None:
    nav = SubElement(body, "nav", {"aria-labelledby": "-contents"})
    _text(nav, "h2", "Contents", id="-contents")
    entries = SubElement(nav, "ol")
    for section in sections:
        _text(SubElement(entries, "li"), "a", section.title, href=f"#{section.id}")


def _section(main: Element, section: Section) -> None:
    inside = SubElement(main, "section", {"aria-labelledby": section.id})
    _text(inside, "h2", section.title, id=section.id)
    for block in section.blocks:
        _add(block, inside)


@singledispatch
def _add(block: Block, parent: Element) -> None:
    raise TypeError(f"no block of a page: {type(block).__name__}")


@_add.register
def _(block: Paragraph, parent: Element) -> None:
    _text(parent, "p", block.text)


@_add.register
def _(block: Facts, parent: Element) -> None:
    entries = SubElement(parent, "ul")
    for sentence in block.sentences:
        _text(entries, "li", sentence)


@_add.register
def _(block: Command, parent: Element) -> None:
    if block.caption:
        _text(parent, "p", block.caption, {"class": "caption"})
    # From left to right, whatever is in it: a command is no prose. It scrolls, so keys must reach it.
    pre = SubElement(parent, "pre", {"dir": "ltr", "tabindex": "0"})
    SubElement(pre, "code").text = block.text


@_add.register
def _(block: Table, parent: Element) -> None:
    # A wide table scrolls in a box of its own, which keys can reach.
    box = SubElement(
        parent, "div", {"class": "wide", "role": "region", "tabindex": "0", "aria-label": block.caption}
    )
    table = SubElement(box, "table")
    _text(SubElement(table, "caption"), "span", block.caption)
    line = SubElement(SubElement(table, "thead"), "tr")
    for title in block.header:
        _text(line, "th", title, scope="col")
    body = SubElement(table, "tbody")
    for index, row in enumerate(block.rows):
        if len(row) != len(block.header):
            raise ValueError(f"{block.caption}: row {index} has {len(row)} cells, not {len(block.header)}")
        if index in block.groups:
            body = SubElement(table, "tbody")
            group = {"class": "group", "scope": "rowgroup", "colspan": str(len(row))}
            _text(SubElement(body, "tr"), "th", block.groups[index], group)
        line = SubElement(body, "tr", {"class": "emphasised"} if index in block.emphasised else {})
        for column, cell in enumerate(row):
            if column == 0:
                _text(line, "th", cell, scope="row")
            else:
                _text(line, "td", cell)
    _notes(parent, block.notes)


@_add.register
def _(block: Figure, parent: Element) -> None:
    figure = SubElement(parent, "figure")
    size = {}
    if block.png.startswith(_PNG):  # width and height are the first fields of its first chunk
        size = dict(zip(("width", "height"), map(str, struct.unpack(">II", block.png[16:24])), strict=True))
    SubElement(figure, "img", {"src": _data(block.png), "alt": block.alt, **size})
    _text(figure, "figcaption", block.caption)


@_add.register
def _(block: Thumbnails, parent: Element) -> None:
    figure = SubElement(parent, "figure", {"class": "strip"})
    _text(figure, "figcaption", f"{block.title}: {block.note}" if block.note else block.title)
    pictures = SubElement(figure, "ul")
    for image in block.images:
        entry = SubElement(pictures, "li", {"class": "marked"} if image.marked else {})
        SubElement(entry, "img", {"src": _data(image.image), "alt": image.alt, "loading": "lazy"})
        _text(entry, "span", image.caption, {"aria-hidden": "true"})


def _notes(parent: Element, notes: Sequence[str]) -> None:
    if notes:
        entries = SubElement(parent, "ul", {"class": "notes"})
        for note in notes:
            _text(entries, "li", note)


def _data(image: bytes) -> str:
    if image.startswith(_PNG):
        kind = "png"
    elif image.startswith(b"\xff\xd8\xff"):
        kind = "jpeg"
    else:
        raise ValueError("a picture must be PNG or JPEG")
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def _text(
    parent: Element, tag: str, text: str, attributes: dict[str, str] | None = None, **more: str
) -> Element:
    """An element with a text that finds its own direction: one from right to left turns nothing around it."""
    element = SubElement(parent, tag, {"dir": "auto", **(attributes or {}), **more})
    element.text = text
    return element


def _clean(root: Element) -> None:
    """Replace in all texts what no document may contain, and end blocks with a line break."""
    for element in root.iter():
        element.text = None if element.text is None else valid(element.text)
        for name, value in element.attrib.items():
            if not value.startswith("data:"):
                element.attrib[name] = valid(value)
        if element.tag in ("section", "p", "li", "tr", "table", "figure", "style", "h1", "h2", "pre", "ul"):
            element.tail = "\n"
