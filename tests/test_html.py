"""The page of the report: well-formed, complete in itself, and text stays text whatever things are called."""

from __future__ import annotations

import base64
import configparser
import io
import re
from collections import Counter
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from policy.sheets.page import render
from policy.sheets.sheet import Column, Document, Picture, Sheet, Spread, Thumbnail, Thumbnails

VOID = {"meta", "img", "br", "hr", "link", "input"}
HOSTILE = [
    "<script>alert('x')</script>",
    "\"><img src=x onerror=alert(1)>' onload='x",
    "</table></title></style>--><!-- ]]> &amp; &#60;",
    "javascript:alert(1)",
    "כיתה مرحبا \u202e desrever",
    "long" * 500,
    "https://example.org/a.js",
]


class Read(HTMLParser):
    """What a page is made of. Raises AssertionError where tags do not balance."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names)
        self.tags[tag] += 1
        self.attributes.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)
            self.texts.append((tag, ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and data.strip():
            tag, so_far = self.texts[-1]
            self.texts[-1] = tag, so_far + data

    def of(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]

    def values(self, attribute: str) -> list[str]:
        return [having[attribute] for _, having in self.attributes if attribute in having]


def picture(kind: str, width: int = 6, height: int = 4) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 200, np.uint8)).save(content, format=kind)
    return content.getvalue()


def test_an_interval_is_apart_from_its_number() -> None:
    """So that it can go below it in a narrow window."""
    sheet = Sheet("", [Column("m"), Column("x")], [["a [1, 2]", Spread(1.0, 0.5, 0.2, 2.0)], ["b", "c"]])
    text = render("title", [Document("one", "title", [sheet])])
    assert '<td dir="auto" class="text">1.0 ± 0.5 <span class="interval">[0.2, 2.0]</span></td>' in text
    assert '<td dir="auto" class="text">c</td>' in text and ">a [1, 2]</th>" in text


def test_headings_span_their_columns() -> None:
    columns = [
        Column("m"),
        Column("x", heading="ours"),
        Column("y", heading="ours"),
        Column("y", paper="FCVID"),
    ]
    read = check(render("title", [Document("one", "title", [Sheet("", columns, [["a", 1, 2, 3]])])]))
    headers = [
        (having["scope"], int(having.get("colspan", 1))) for tag, having in read.attributes if tag == "th"
    ]
    assert headers == [("colgroup", 2), ("colgroup", 1), *[("col", 1)] * 4, ("row", 1)]
    assert [text for text in read.of("span") if text] == ["ours", "paper, FCVID"]
    assert [text for text in read.of("th") if text] == [*"mxyy", "a"]
    spans = [int(having["span"]) for tag, having in read.attributes if tag == "colgroup"]
    assert spans == [1, 2, 1]
    assert read.tags["td"] == 1 + 3  # one above the first title


def page(words: Sequence[str]) -> str:
    """A page with all that a document can have, and these words wherever words can be."""
    word = " / ".join(words)
    columns = [Column("method"), Column(word)]
    sheet = Sheet(word, columns, [[word, "1"], ["b", word]], groups={1: word}, emphasised=frozenset({1}))
    thumbnails = [Thumbnail(picture("JPEG"), word, word, marked) for marked in (True, False)]
    one = Document("one", word, [sheet], [word, "two"], word, thumbnails=[Thumbnails(word, thumbnails, word)])
    two = Document("two", word, pictures=[Picture(picture("PNG"), alt=word, caption=word)])
    return render(word, [one, two])


def check(page: str) -> Read:
    read = Read(page)
    assert page.startswith("<!DOCTYPE html>\n")
    ids = read.values("id")
    assert len(set(ids)) == len(ids)
    assert all(target in ids for target in read.values("aria-labelledby"))
    assert all(link.startswith("#") and link[1:] in ids for link in read.values("href"))
    assert all(re.match("data:image/(png|jpeg);base64,", source) for source in read.values("src"))
    assert all(having.get("alt") for tag, having in read.attributes if tag == "img")
    assert set(read.tags).isdisjoint({"script", "link", "iframe", "object", "embed", "base", "form"})
    assert not any(name.startswith("on") for _, having in read.attributes for name in having)
    assert not re.search(r"@import|url\(", read.of("style")[0])
    return read


def test_a_page_is_complete_and_accessible() -> None:
    read = check(page(["plain"]))
    assert [having for tag, having in read.attributes if tag == "html"] == [{"lang": "en"}]
    assert read.tags["h1"] == 1 and read.of("h2") == ["Contents", "plain", "plain"]
    assert read.values("href") == ["#one", "#two"]
    assert read.tags["table"] == read.tags["caption"] == read.tags["thead"] == 1
    assert read.tags["tbody"] == 2  # the group begins a new one
    assert Counter(read.values("scope")) == {"col": 2, "row": 2, "rowgroup": 1}
    assert read.values("class").count("marked") == read.values("class").count("emphasised") == 1
    policy = next(having["content"] for _, having in read.attributes if "http-equiv" in having)
    assert "default-src 'none'" in policy and "http" not in policy


def test_pictures_are_inside_with_their_size() -> None:
    png = picture("PNG", 30, 20)
    drawn = render("t", [Document("one", "t", pictures=[Picture(png, "a", "b")])])
    (image,) = [having for tag, having in check(drawn).attributes if tag == "img"]
    assert (image["width"], image["height"]) == ("30", "20")
    assert base64.b64decode(image["src"].partition(",")[2]) == png


@pytest.mark.parametrize("word", HOSTILE)
def test_hostile_names_stay_text(word: str) -> None:
    read = check(page([word]))
    assert read.tags == Read(page(["plain"])).tags
    assert word in read.of("h1") and word in read.of("code") and read.of("td") == ["1", word]


@settings(max_examples=60)
@given(st.text(st.characters(exclude_categories=[]), min_size=1))  # surrogates and controls, too
def test_any_text_comes_back_as_it_was(word: str) -> None:
    made = page([word])
    made.encode("utf-8")  # no half of a surrogate pair is left
    read = check(made)
    shown = read.of("td")[1]
    if word.isprintable() and word.strip():
        assert shown == word
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", made)


def test_bytes_of_file_names_that_are_no_text() -> None:
    assert "a\\xff.mp4" in Read(page(["a\udcff.mp4"])).of("td")


@pytest.mark.parametrize("ids", [["a", "a"], ["1a"], ["a b"], [""], ['a"x']])
def test_ids_of_sections_are_names(ids: list[str]) -> None:
    with pytest.raises(ValueError, match="ids of sections"):
        render("t", [Document(one, "title") for one in ids])


def test_tables_and_pictures_that_are_none() -> None:
    with pytest.raises(ValueError, match="numbers: row 0 has 1 cells, not 2"):
        Sheet("numbers", [Column("a"), Column("b")], [["1"]])
    with pytest.raises(ValueError, match="PNG or JPEG"):
        render("t", [Document("one", "t", pictures=[Picture(b"<svg onload='x'/>", "a", "b")])])


def test_one_section_needs_no_contents() -> None:
    assert "Contents" not in render("t", [Document("one", "title")])


def test_template_and_style_are_packaged() -> None:
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parent.parent / "setup.cfg")
    assert setup["options.package_data"]["policy.sheets"].split() == ["page.html", "report.css"]
