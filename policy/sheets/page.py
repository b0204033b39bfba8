"""Documents as one self-contained HTML file: no script, and no font or picture from elsewhere."""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Sequence
from functools import cache
from importlib import resources

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from policy.sheets.sheet import Document
from policy.sheets.words import valid

_ID = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_PNG = b"\x89PNG\r\n\x1a\n"


def render(title: str, documents: Sequence[Document]) -> str:
    """A page with a section for each document.

    Raises:
        ValueError: an id is invalid or occurs twice, or a picture is neither PNG nor JPEG.
    """
    ids = [document.id for document in documents]
    if len(set(ids)) < len(ids) or not all(_ID.fullmatch(one) for one in ids):
        raise ValueError(f"ids of sections must be unique names: {', '.join(map(repr, ids))}")
    return _template().render(title=title, documents=documents)


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True,
        finalize=lambda value: value if isinstance(value, Markup) else valid(str(value)),
        keep_trailing_newline=True,
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=StrictUndefined,
    )
    environment.globals |= {"data": _data, "size": _size, "style": Markup(_file("report.css"))}
    return environment.from_string(_file("page.html"))


def _file(name: str) -> str:
    return resources.files("policy.sheets").joinpath(name).read_text("utf-8")


def _data(image: bytes) -> Markup:
    if image.startswith(_PNG):
        kind = "png"
    elif image.startswith(b"\xff\xd8\xff"):
        kind = "jpeg"
    else:
        raise ValueError("a picture must be PNG or JPEG")
    return Markup(f"data:image/{kind};base64,{base64.b64encode(image).decode()}")


def _size(image: bytes) -> Markup:
    """The width and height attributes of a PNG, which are the first fields of its first chunk."""
    if not image.startswith(_PNG):
        return Markup("")
    width, height = struct.unpack(">II", image[16:24])
    return Markup(f' width="{width}" height="{height}"')
