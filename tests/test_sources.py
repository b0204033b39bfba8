"""Which videos a request means, and under which ids: every file is extracted, refused by name, or counted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_schema import UserError
from extract.sources import Sources, find_videos, fingerprint, printable


def touch(folder: Path, *names: str | bytes) -> list[Path]:
    paths = [folder / os.fsdecode(name) for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode("utf-8", "surrogateescape"))
    return paths


def ids(sources: Sources) -> list[str]:
    return [video.id for video in sources.videos]


def test_files_folders_and_lists(tmp_path: Path) -> None:
    touch(tmp_path, "films/b.mp4", "films/deep/er/a.MKV", "films/deep/c.webm", "one.mp4", "listed/d.avi")
    (tmp_path / "some.txt").write_text("listed/d.avi\n\n  one.mp4  \r\n")
    sources = find_videos([tmp_path / "films", tmp_path / "some.txt"])
    assert ids(sources) == ["a", "b", "c", "d", "one"]
    assert sources.refused == () and sources.ignored == 0
    assert sources.videos[0].path == tmp_path / "films/deep/er/a.MKV"


def test_a_file_is_taken_whatever_its_name(tmp_path: Path) -> None:
    [odd] = touch(tmp_path, "film.bin")
    assert ids(find_videos([odd])) == ["film"]


def test_hidden_files_are_passed_over_and_others_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", ".b.mp4", "._a.mp4", ".trash/c.mp4", "notes.txt", "deep/cover.jpg", "no_ending")
    sources = find_videos([tmp_path])
    assert (ids(sources), sources.ignored, sources.refused) == (["a"], 3, ())


def test_a_hidden_folder_that_was_named_is_searched(tmp_path: Path) -> None:
    touch(tmp_path, ".films/a.mp4")
    assert ids(find_videos([tmp_path / ".films"])) == ["a"]


def test_ids_by_path(tmp_path: Path) -> None:
    touch(tmp_path, "run/v.1.mp4", "jump/v.1.mp4", "v.mp4")
    (tmp_path / "list.txt").write_text("run/v.1.mp4\n")
    assert ids(find_videos([tmp_path], ids="path")) == ["jump/v.1", "run/v.1", "v"]
    assert ids(find_videos([tmp_path / "list.txt"], ids="path")) == ["run/v.1"]
    assert ids(find_videos([tmp_path / "run/v.1.mp4"], ids="path")) == ["v.1"]


def test_one_name_in_two_folders_refuses_both_and_no_other(tmp_path: Path) -> None:
    touch(tmp_path, "x/same.mp4", "y/same.mkv", "y/other.mp4")
    sources = find_videos([tmp_path])
    assert ids(sources) == ["other"]
    (first, why), (second, _) = sources.refused
    assert (first, second) == (str(tmp_path / "x/same.mp4"), str(tmp_path / "y/same.mkv"))
    assert "its id 'same' is also that of" in why and second in why and "--ids path" in why
    assert ids(find_videos([tmp_path], ids="path")) == ["x/same", "y/other", "y/same"]


def test_one_file_named_twice_is_one_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [path] = touch(tmp_path, "films/a.mp4")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text("films/a.mp4\nfilms/../films/a.mp4\n")
    named = [Path("films"), path, Path("films/a.mp4"), Path("list.txt")]
    assert (ids(find_videos(named)), find_videos(named).refused) == (["a"], ())


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    paths = touch(tmp_path, b"caf\xe9.mp4", "café.mp4".encode(), "line\u2028two.mp4", b"nl\n.mp4")
    sources = find_videos([tmp_path])
    assert ids(sources) == ["café", "caf\\xe9", "line\u2028two", "nl\\n"] or len(sources.videos) == 4
    assert all("\n" not in video.id for video in sources.videos)
    for video in sources.videos:
        video.id.encode()  # can be stored and printed
        assert video.path in paths
    (tmp_path / "list.txt").write_bytes(b"caf\xe9.mp4\n" + "line\u2028two.mp4".encode())
    listed = find_videos([tmp_path / "list.txt"])
    assert ids(listed) == ["caf\\xe9", "line\u2028two"] and not listed.refused


def test_what_cannot_be_found_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "list.txt").write_text("a.mp4\nmissing.mp4\nfolder.mp4\n")
    sources = find_videos([tmp_path / "list.txt", tmp_path])
    assert ids(sources) == ["a"]
    assert dict(sources.refused) == {
        str(tmp_path / "missing.mp4"): "no such file",
        str(tmp_path / "folder.mp4"): "not a file",
        str(tmp_path / "gone.mp4"): "no such file",
    }


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_requests_that_name_nothing(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UserError, match=r"nowhere: no such file or folder"):
        find_videos([tmp_path / "nowhere"])
    with pytest.raises(UserError, match="no videos in"):
        find_videos([tmp_path])
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(UserError, match="no videos in"):
        find_videos([tmp_path / "list.txt"])


def test_a_list_that_is_no_list(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"a\0b\n")
    with pytest.raises(UserError, match=r"list\.txt: not a list of paths"):
        find_videos([tmp_path / "list.txt"])


@given(st.binary(min_size=1, max_size=40).filter(lambda name: not {0, 47} & set(name)))
def test_every_name_can_be_printed_on_one_line(name: bytes) -> None:
    text = printable(Path(os.fsdecode(name)))
    text.encode()
    assert "\n" not in text and "\r" not in text


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 131072, 131073, 500_000])
def test_fingerprint_tells_contents_apart(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    path = tmp_path / "a"
    path.write_bytes(content)
    original = fingerprint(path)
    assert original == fingerprint(path)
    changed = [content + b"x", content[:-1]] if size else [b"x"]
    if size:
        changed += [bytes([content[0] ^ 1]) + content[1:], content[:-1] + bytes([content[-1] ^ 1])]
    for other in changed:
        path.write_bytes(other)
        assert fingerprint(path) != original


def test_linked_folders_are_searched_once(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.mp4").touch()
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "given")
    assert [video.id for video in find_videos([tmp_path / "given"]).videos] == ["a"]
