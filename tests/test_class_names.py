"""Files that name the columns of class scores."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from cache_schema import LabelError
from cache_schema.annotations.class_names import read_class_names


@pytest.mark.parametrize(
    "content",
    [
        b"zumba\ntai chi\nsurfing caf\xc3\xa9\n",
        b"zumba\ntai chi\nsurfing caf\xc3\xa9",
        b"\xef\xbb\xbfzumba\r\n tai chi\t\r\nsurfing caf\xc3\xa9\r\n\r\n\n",
    ],
)
def test_lines(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes(content)
    assert read_class_names(path) == ("zumba", "tai chi", "surfing café")


def test_json_of_pytorchvideo(tmp_path: Path) -> None:
    names = ["abseiling", "massaging person's head", 'saying "no"', "tying knot (not on a tie)", "zumba"]
    entries = [(f'"{name}"' if " " in name else name, column) for column, name in enumerate(names)]
    random.Random(0).shuffle(entries)
    path = tmp_path / "kinetics_classnames.json"
    path.write_text(json.dumps(dict(entries)))
    assert read_class_names(path) == tuple(names)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_class_names(path) == tuple(names)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "a.txt, line 1: empty; every line names the class of a column"),
        ("a.txt", b"\n\n", "a.txt, line 1: empty"),
        ("a.txt", b"run\n\njump\n", "a.txt, line 2: empty"),
        ("a.txt", b"run\njump\n run\n", "a.txt, line 3: class 'run' occurs twice, first in line 1"),
        ("a.txt", b"caf\xe9\n", "a.txt: not a text file in UTF-8"),
        ("a.json", b"", "a.json: not JSON"),
        ("a.json", b"[" * 200_000, "nested too deeply"),
        ("a.json", b"{}", "a.json: expected an object of classes and their columns"),
        ("a.json", b'["run", "jump"]', "expected an object"),
        ("a.json", b'{"run": 0, "jump": 2}', "class 'jump' has column 2, but the 2 columns .* from 0 to 1"),
        ("a.json", b'{"run": 0, "jump": 1.0}', r"class 'jump' has column 1\.0"),
        ("a.json", b'{"run": 0, "jump": true}', "class 'jump' has column True"),
        ("a.json", b'{"0": "run"}', "class '0' has column 'run', .*; expected an object"),
        ("a.json", b'{"run": -1}', "class 'run' has column -1"),
        ("a.json", b'{"run": 0, "jump": 0}', "classes 'run' and 'jump' both have column 0"),
        ("a.json", b'{"run": 0, "run": 1}', "class 'run' occurs twice"),
        ("a.json", b'{"run": 0, "\\"run\\"": 1}', "class 'run' occurs twice"),
        ("a.json", b'{"\\"\\"": 0}', "a class without a name"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_names(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LabelError, match=message) as caught:
        read_class_names(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"names.txt: cannot read the class names: No such file"):
        read_class_names(tmp_path / "names.txt")
