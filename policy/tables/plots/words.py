"""Names that others chose (classes, files, videos) as one line of text that can be drawn and written."""

from __future__ import annotations

import unicodedata


def one_line(text: str) -> str:
    """Without line breaks and control characters; bytes of a file name that are not UTF-8 become \\xNN."""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join("�" if unicodedata.category(c) == "Cc" else c for c in " ".join(text.split()))


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters: from a long name the middle is left out."""
    if len(text) <= limit:
        return text
    head = limit // 2
    return f"{text[:head]}…{text[len(text) - (limit - 1 - head) :]}"


def drawn(text: str, limit: int = 60) -> str:
    """As matplotlib is to draw it: short, and a dollar sign is no formula."""
    return shorten(one_line(text), limit).replace("$", r"\$")
