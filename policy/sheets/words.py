"""Names from data sets (classes, files, videos) as text that can be drawn and written."""

from __future__ import annotations

import math
import re

_NO_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def valid(text: str) -> str:
    """Replace characters that no document may contain. Bytes of a file name that are not UTF-8 become \\xNN."""
    return _NO_TEXT.sub(_replacement, text)


def _replacement(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else "�"  # PEP 383


def one_line(text: str) -> str:
    """`valid` text without line breaks."""
    return valid(" ".join(text.split()))


def gflops_text(gflops: float) -> str:
    """With two decimals, as tables have them; of small networks with three digits. Never with an exponent."""
    if gflops >= 0.1 or gflops <= 0:
        return f"{gflops:.2f}"
    return f"{gflops:.{2 - math.floor(math.log10(gflops))}f}"


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters: a long name loses its middle."""
    if len(text) <= limit:
        return text
    head = limit // 2
    return f"{text[:head]}…{text[len(text) - (limit - 1 - head) :]}"


def drawn(text: str, limit: int = 60) -> str:
    """Text for matplotlib: short, and with dollar signs escaped, which would begin a formula."""
    return shorten(one_line(text), limit).replace("$", r"\$")
