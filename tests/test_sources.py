"""Which videos a request means, and under which ids: every file is extracted, refused by name, or counted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_schema import UserError
from cache_schema.files import printable
from extract.sources import Sources, find_videos, fingerprint


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
    assert (sources.refused, sources.left_out, sources.notes) == ((), {}, ())
    assert sources.videos[0].path == tmp_path / "films/deep/er/a.MKV"


def test_a_file_is_taken_whatever_its_name(tmp_path: Path) -> None:
    [odd] = touch(tmp_path, "film.bin")
    assert ids(find_videos([odd])) == ["film"]


ENDINGS = """
264 265 3g2 3gp amv asf av1 avi bik divx dv dvr-ms f4v flv gif gxf h264 h265 hevc ivf m1v m2t m2ts m2v m4v mj2
mjpeg mjpg mkv mov mp4 mpe mpeg mpg mpv mts nut obu ogm ogv qt rm rmvb roq smk tp trp ts vc1 vob webm wmv wtv
xvid y4m
"""


def test_every_ending_of_videos_is_taken(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{number}.{end.upper()}" for number, end in enumerate(ENDINGS.split())))
    sources = find_videos([tmp_path])
    assert len(sources.videos) == len(ENDINGS.split()) and sources.left_out == {}


def test_hidden_files_are_passed_over_and_others_counted_by_ending(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", ".b.mp4", "._a.mp4", ".trash/c.mp4", "notes.txt", "deep/cover.JPG", "no_ending")
    touch(tmp_path, "deep/back.jpg", "deep/a.tar.gz")
    sources = find_videos([tmp_path])
    assert (ids(sources), sources.refused) == (["a"], ())
    assert sources.left_out == {".jpg": 2, ".txt": 1, ".gz": 1, "": 1}
    assert sources.notes == (f"left out of {tmp_path}: 2 .jpg, 1 without ending, 1 .gz, 1 .txt",)


def test_the_count_by_ending_is_one_short_line(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", *(f"x.{number:03d}" for number in range(200)))
    [note] = find_videos([tmp_path]).notes
    assert len(note) < 250 and note.endswith(", 188 with other endings")


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


def test_names_that_differ_in_capitals_are_two_videos(tmp_path: Path) -> None:
    touch(tmp_path, "Film.mp4", "film.mp4")
    assert ids(find_videos([tmp_path])) == ["Film", "film"]


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
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    (tmp_path / "folder.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "list.txt").write_text(f"a.mp4\nmissing.mp4\nfolder.mp4\nA.mp4\n{'x' * 300}.mp4\n")
    sources = find_videos([tmp_path / "list.txt", tmp_path])
    assert ids(sources) == ["a"]
    assert dict(sources.refused) == {
        str(tmp_path / "missing.mp4"): "no such file",
        str(tmp_path / "A.mp4"): "no such file (but a.mp4: capitals count)",
        str(tmp_path / f"{'x' * 300}.mp4"): "File name too long",
        str(
            tmp_path / "folder.mp4"
        ): "a folder; if it holds the frames of a video, --frames-fps RATE says how many a second",
        str(tmp_path / "gone.mp4"): "no such file",
        str(tmp_path / "loop.mp4"): "Too many levels of symbolic links",
        str(tmp_path / "pipe.mp4"): "not a file",
    }


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "films/open/a.mp4", "films/locked/b.mp4")
    list_folder = os.scandir

    def scandir(path: str) -> object:  # the tests may run as root, whom no permission stops
        if os.fspath(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return list_folder(path)

    monkeypatch.setattr(os, "scandir", scandir)
    sources = find_videos([tmp_path / "films"])
    locked = str(tmp_path / "films/locked")
    assert (ids(sources), sources.refused) == (["a"], ((locked, "cannot be read: Permission denied"),))
    with pytest.raises(
        UserError, match=r"no videos in .*locked; .*locked: cannot be read: Permission denied"
    ):
        find_videos([tmp_path / "films/locked"])


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_requests_that_name_nothing(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UserError, match=r"nowhere: no such file or folder"):
        find_videos([tmp_path / "nowhere"])
    with pytest.raises(UserError, match="no videos in"):
        find_videos([tmp_path])
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(UserError, match="no videos in"):
        find_videos([tmp_path / "list.txt"])


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("https://example.org/v/a.mp4", "https://example.org/v/a.mp4: an address, and only files are read: downl"),
        ("s3://bucket/a.mp4", "s3://bucket/a.mp4: an address"),
        ("films/*.mp4", r"films/\*.mp4: no such file; a pattern is the shell's to expand: leave the quotes away"),
        ("x" * 5000, "no such file or folder"),
        ("films.zip", r"films.zip: an archive: unpack it"),
        ("zipped", r"no videos in zipped; left out of zipped: 2 .zip, 1 .md; archives must be unpacked first"),
        ("frames", r"no videos in frames; left out of frames: 2 .jpg; 1 folder of numbered pictures \(frames/v\): "
        "to take each as a video, say with --frames-fps RATE"),
    ],
)  # fmt: skip
def test_what_is_no_video_tells_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argument: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    touch(Path(), "films/a.mp4", "films.zip", "zipped/a.zip", "zipped/b.ZIP", "zipped/readme.md")
    touch(Path(), "frames/v/img_1.jpg", "frames/v/img_2.jpg")
    with pytest.raises(UserError, match=told):
        find_videos([Path(argument)])


def test_an_archive_among_videos_is_refused_alone(tmp_path: Path) -> None:
    film, archive = touch(tmp_path, "a.mp4", "b.tar.gz")
    sources = find_videos([film, archive])
    assert ids(sources) == ["a"]
    assert sources.refused == ((str(archive), "an archive: unpack it, and give the folder"),)


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


# -------------------------------------------------------------------------------------------- folders of frames


def test_a_folder_of_numbered_pictures_is_a_video(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "f/run/a/image_00001.jpg",
        "f/run/a/image_00002.jpg",
        "f/run/a/info.json",
        "f/jump/b/00001.PNG",
    )
    touch(tmp_path, "f/run/c.mp4", "f/run/cover_1.jpg", "f/posters/front.jpg", "f/jump/d.avi/1.webp")
    sources = find_videos([tmp_path / "f"], frames_fps=25)
    assert {video.id: video.frames_fps for video in sources.videos} == {"a": 25, "b": 25, "c": None, "d": 25}
    # A picture beside a video, and one without a number, are no frames.
    assert sources.left_out == {".jpg": 2, ".json": 1}
    by_path = find_videos([tmp_path / "f"], frames_fps=25, ids="path")
    assert ids(by_path) == ["jump/b", "jump/d", "run/a", "run/c"]


def test_a_folder_of_frames_may_be_named_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "frames/v.1", "1.jpg", "2.jpg")
    for named in (tmp_path / "frames/v.1", Path()):
        monkeypatch.chdir(tmp_path / "frames/v.1")
        for how in ("stem", "path"):
            sources = find_videos([named], ids=how, frames_fps=30)
            assert [(video.id, video.path) for video in sources.videos] == [("v.1", named)]


def test_a_folder_of_frames_and_a_video_of_one_name_refuse_each_other(tmp_path: Path) -> None:
    touch(tmp_path, "v.mp4", "frames/v/1.jpg")
    sources = find_videos([tmp_path], frames_fps=30)
    assert ids(sources) == [] and len(sources.refused) == 2


def test_without_a_rate_folders_of_frames_are_told_of(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", *(f"frames/{video}/img_1.jpg" for video in "bcdef"))
    sources = find_videos([tmp_path])
    assert ids(sources) == ["a"] and sources.left_out == {".jpg": 5}
    assert sources.notes[1] == (
        f"5 folders of numbered pictures ({tmp_path}/frames/b, {tmp_path}/frames/c, {tmp_path}/frames/d, …): to "
        "take each as a video, say with --frames-fps RATE how many a second"
    )


def test_a_rate_that_no_folder_needs_and_a_list_that_names_nothing_are_told(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    (tmp_path / "list.txt").touch()
    assert find_videos([tmp_path / "a.mp4", tmp_path / "list.txt"], frames_fps=25).notes == (
        f"{tmp_path}/list.txt: an empty list",
        "--frames-fps 25: there is no folder of numbered pictures",
    )


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_that_is_none(tmp_path: Path, rate: float) -> None:
    with pytest.raises(UserError, match=r"--frames-fps .*: must be positive and finite"):
        find_videos([tmp_path], frames_fps=rate)


def test_fingerprint_of_frames_tells_another_folder_apart(tmp_path: Path) -> None:
    folder = tmp_path / "v"
    names = [f"img_{number}.jpg" for number in range(100)]
    touch(folder, *names, "flow_x_1.jpg", "notes.txt")
    original = fingerprint(folder, 25.0)
    assert fingerprint(folder, 25.0) == original
    assert fingerprint(folder, 24.0) != original
    (folder / "notes.txt").write_text("of no matter")
    assert fingerprint(folder, 25.0) == original
    (folder / "img_50.jpg").write_text("one picture of another size")
    changed = fingerprint(folder, 25.0)
    assert changed != original
    (folder / "img_0.jpg").write_bytes(b"IMG_0.JPG")  # the same size, as pictures without compression have
    assert fingerprint(folder, 25.0) not in (original, changed)
    touch(folder, *names)
    assert fingerprint(folder, 25.0) == original
    (folder / "img_99.jpg").rename(folder / "img_100.jpg")
    assert fingerprint(folder, 25.0) != original
    touch(folder, "img_99.jpg", "img_099.jpg")  # cannot be extracted, until one is gone
    assert fingerprint(folder, 25.0) != original


# ------------------------------------------------------------------------------------------------------ lists


def listed(folder: Path, text: str, name: str = "list.txt", **how: object) -> Sources:
    (folder / name).write_text(text)
    return find_videos([folder / name], **how)  # type: ignore[arg-type]


LABELLED = "only its paths are read, not what stands beside them"


@pytest.mark.parametrize(
    "text",
    [
        "a.mp4 0\nrun/b b.avi 12\n",  # UCF-101, mmaction2, SlowFast
        "a.mp4,0\nrun/b b.avi,12\n",
        "a.mp4, 0\nrun/b b.avi , 12\n",
        "a.mp4\trun\nrun/b b.avi\tjump high\n",
        "a.mp4,running\nrun/b b.avi,a label, with comma\n",
        '"a.mp4",0\n"run/b b.avi",12\n',
        '"a.mp4" 0\n"run/b b.avi" 12\n',
        "a.mp4 300 0\nrun/b b.avi 300 12 3\n",  # frames, and several labels
        "path,label\na.mp4,0\nrun/b b.avi,12\n",
        "Label;Video Path\n0;a.mp4\n12;run/b b.avi\n",
        "id\tFILE\n0\ta.mp4\n12\t run/b b.avi\n",
        'label,video_path\n0,a.mp4\n12,"run/b b.avi"\n',
        "\ufefffilename,label\r\na.mp4,0\r\nrun/b b.avi,12\r\n",
        "a 300 0\nrun/b b 300 12\n",  # ActivityNet's lists have no endings
        "video_id,label,subset\na,run,train\nrun/b b,jump,val\n",
    ],
)
@pytest.mark.parametrize("name", ["list.txt", "list.csv"])
def test_lists_with_labels_and_tables(tmp_path: Path, text: str, name: str) -> None:
    touch(tmp_path, "a.mp4", "run/b b.avi")
    sources = listed(tmp_path, text, name)
    assert (ids(sources), sources.refused) == (["a", "b b"], ())
    assert sources.notes == (f"{tmp_path / name}: {LABELLED}",)


def test_a_table_of_paths_alone_and_paths_alone(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "video")
    assert ids(listed(tmp_path, "path\na.mp4\n")) == ["a"]
    assert ids(listed(tmp_path, "video\na.mp4\n")) == ["a", "video"]  # where it is there, it is no title
    assert listed(tmp_path, "path\na.mp4\n").notes == ()


def test_a_first_line_that_resembles_a_title_is_none(tmp_path: Path) -> None:
    touch(tmp_path, "video_1.mp4", "video2.mp4", "path.mp4")
    assert ids(listed(tmp_path, "video_1 300 0\nvideo2 300 0\n")) == ["video2", "video_1"]
    assert ids(listed(tmp_path, "path.mp4,0\nvideo2.mp4,0\n")) == ["path", "video2"]


def test_the_whole_line_is_the_path_where_that_is_there(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "a.mp4 1", "a.mp4, 2.mp4", "x.mp4")
    assert {str(v.path.name) for v in listed(tmp_path, "a.mp4 1\na.mp4, 2.mp4\nx.mp4 1\n").videos} == {
        "a.mp4 1",
        "a.mp4, 2.mp4",
        "x.mp4",
    }


def test_paths_without_ending_mean_the_only_video_called_so(tmp_path: Path) -> None:
    touch(tmp_path, "-a_1.mp4", "b.mp4", "b.avi", "c.txt", "d.webm", "d.en.vtt")
    sources = listed(tmp_path, "-a_1 142 0\nb 10 0\nc 10 0\nd 10 0\n")
    assert ids(sources) == ["-a_1", "d"]
    assert dict(sources.refused) == {
        str(tmp_path / "b"): "several videos are called so: b.avi, b.mp4",
        str(tmp_path / "c 10 0"): "no such file",
    }


def test_what_lists_are_relative_to(tmp_path: Path) -> None:
    touch(tmp_path, "data/films/a.mp4")
    (tmp_path / "lists").mkdir()
    text = f"films/a.mp4 0\n{tmp_path}/data/films/a.mp4 0\n"
    assert len(listed(tmp_path / "lists", text, root=tmp_path / "data").videos) == 1
    by_path = listed(tmp_path / "lists", text, root=tmp_path / "data", ids="path")
    assert ids(by_path) == ["films/a"]
    with pytest.raises(UserError) as error:
        listed(tmp_path / "lists", "films/a.mp4 0\nfilms/b.mp4 1\n")
    assert str(error.value) == (
        f"{tmp_path}/lists/list.txt: nothing there of the 2 it names, the first: {tmp_path}/lists/films/a.mp4: no "
        f"such file; its paths are taken to be relative to {tmp_path}/lists (--root FOLDER)"
    )


def test_where_the_paths_of_a_list_are_meant_from(tmp_path: Path) -> None:
    text = "films/a.mp4\nfilms/b.mp4\nfilms/c.mp4\n"
    touch(tmp_path, "films/a.mp4")
    list_file = tmp_path / "lists/list.txt"
    list_file.parent.mkdir()
    list_file.write_text(text)
    with pytest.raises(UserError) as error:
        find_videos([list_file])
    assert str(error.value).endswith(f"/lists (--root FOLDER); it is there with --root {tmp_path}")
    found = find_videos([list_file], root=tmp_path)
    assert [video.id for video in found.videos] == ["a"] and len(found.refused) == 2
    (note,) = found.notes
    assert "list.txt: missing: 2 of the 3 it names, the first: " in note
    assert note.endswith(f"its paths are taken to be relative to {tmp_path} (--root FOLDER)")
    list_file.write_text(f"/nowhere/a.mp4\n{tmp_path}/films/a.mp4\n")
    (note,) = find_videos([list_file]).notes
    assert note.endswith("missing: 1 of the 2 it names, the first: /nowhere/a.mp4: no such file")


def test_addresses_in_a_list(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    sources = listed(tmp_path, "a.mp4\nhttps://example.org/b.mp4\n")
    assert sources.refused == (
        ("https://example.org/b.mp4", "an address, and only files are read: download it first"),
    )


def test_lists_of_folders_of_frames(tmp_path: Path) -> None:
    touch(tmp_path, "v/run_1/img_1.jpg", "v/run 2/img_1.jpg", "v/c.mp4")
    text = "v/run_1 163 1\nv/run 2 50 3\nv/c.mp4 20 0\n"  # mmaction2's lists of rawframes
    sources = listed(tmp_path, text, frames_fps=25.0)
    assert [(video.id, video.frames_fps) for video in sources.videos] == [
        ("c", None),
        ("run 2", 25.0),
        ("run_1", 25.0),
    ]
    unrated = listed(tmp_path, text)
    assert ids(unrated) == ["c"]
    assert [path for path, _ in unrated.refused] == [str(tmp_path / "v/run_1"), str(tmp_path / "v/run 2")]
    assert all("--frames-fps RATE" in reason for _, reason in unrated.refused)


def test_a_list_that_is_no_list(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"a\0b\n")
    with pytest.raises(UserError, match=r"list\.txt: not a list of paths"):
        find_videos([tmp_path / "list.txt"])


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)))
def test_any_text_is_read_as_a_list_or_refused(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    try:
        sources = listed(folder, "\n".join(lines), "any.csv")
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert all(video.path.is_file() for video in sources.videos)
