"""feature-cache import of what it cannot take: one line that names the culprit, and no shard."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_schema import FeatureCache
from cache_schema.tools.export import LIST_COLUMNS
from tests.cache_commands import run
from tests.test_cache_import import COST, IDS, imported, refused, scores, write_folder, write_ids

Make = Callable[[Path], object]


def csv_of(text: str | bytes) -> Make:
    return lambda path: path.write_bytes(text if isinstance(text, bytes) else text.encode())


def npz_of(**named: Any) -> Make:
    return lambda path: np.savez(path, **named)


def npy_of(values: Any) -> Make:
    return lambda path: np.save(path, np.asarray(values))


def cut(make: Make, left: int) -> Make:
    def made(path: Path) -> None:
        make(path)
        path.write_bytes(path.read_bytes()[:left])

    return made


def each_compressed(path: Path) -> None:
    named: dict[str, Any] = dict.fromkeys(IDS, GOOD)
    np.savez_compressed(path, **named)


GOOD = scores(7, 3)
OBJECTS = np.array([[1.0], [1.0, 2.0]], dtype=object)


@pytest.mark.parametrize(
    ("name", "make", "told"),
    [
        ("a.csv", csv_of(""), "the first line must be video_id,CLASS"),
        ("a.csv", csv_of("name,cat\na,1\n"), "the first line must be video_id,CLASS"),
        ("a.csv", csv_of("video_id,cat\n"), "no videos in it"),
        ("a.csv", csv_of("video_id,cat,dog\na,1,2\nb,1\n"), "line 3: nothing in column 'dog', where"),
        ("a.csv", csv_of("video_id,cat,dog\na,1,2\nb,1,\n"), "line 3: nothing in column 'dog'"),
        ("a.csv", csv_of("video_id,cat,dog\na,1,x\n"), "line 2: 'x' in column 'dog', where a number"),
        ("a.csv", csv_of("video_id,cat,dog\na,nan,1\n"), "line 2: 'nan' in column 'cat'"),
        ("a.csv", csv_of("video_id,cat\na,1\nb,2\na,3\n"), "line 4: video 'a' again, with others between"),
        ("a.csv", csv_of("video_id,cat\n,1\n"), "id 1 of 1 is empty"),
        ("a.csv", csv_of("video_id,cat,cat\na,1,2\n"), "a class name occurs twice"),
        ("a.csv", csv_of("video_id,cat,\na,1,2\n"), "line 2: '2' in a column without a class's name"),
        ("a.csv", csv_of("video_id,cat,,dog\na,1,3,2\n"), "class 2 of 3 has no name"),
        ("a.csv", csv_of("video_id,cat\na,1,2\n"), "line 2: 3 fields, not the 2 of the first line"),
        ("a.csv", csv_of("video_id;cat\na;1.234,5\n"), "line 2: '1.234,5' in column 'cat'"),
        ("a.csv", csv_of('video_id,cat\na,"1,5"\n'), "line 2: '1,5' in column 'cat'"),
        ("a.csv", csv_of('video_id,cat\n"a,1\nb,2\n'), "line 2: not CSV ("),
        ("a.csv", csv_of(b"video_id,caf\xe9\na,1\n"), "not CSV in UTF-8"),
        ("a.csv", csv_of("video_id,cat\na,7e4\n"), "a.csv: video 'a': its scores reach 7e+04, beyond"),
        ("a.csv", csv_of("video_id,cat,dog\na,9,2\nb,1,1\nb,1,1\n"), "video 'b': it has 2 rows, where 1 a video"),
        ("a.npz", npz_of(scores=GOOD, ids=[*IDS[:6], "v0"]), "video 'v0' occurs twice, as id 1 and as id 7"),
        ("a.npz", npz_of(scores=GOOD, ids=[*IDS[:6], ""]), "id 7 of 7 is empty"),
        ("a.npz", npz_of(scores=GOOD, ids=[*IDS[:6], "a\0b"]), "id 7 of 7 has a zero byte"),
        ("a.npz", npz_of(scores=GOOD, ids=[*IDS[:6], "x" * 9999]), "id 7 of 7 has 9,999 bytes"),
        ("a.npz", npz_of(scores=GOOD, ids=[*IDS[:6], "\ud800"]), "id 7 of 7 is not Unicode text"),
        ("a.npz", npz_of(scores=GOOD, ids=IDS[:6]), "7 videos, but 6 ids"),
        ("a.npz", npz_of(scores=GOOD, ids=np.arange(7)), "its ids are int64 of shape (7,); a row of text"),
        ("a.npz", npz_of(scores=GOOD, ids=np.array([b"\xff"] * 7)), "one of its ids is not UTF-8"),
        ("a.npz", npz_of(scores=GOOD, ids=np.array(IDS, object)), "holds pickled Python objects"),
        ("a.npz", npz_of(scores=GOOD[0], ids=IDS), "an array of shape (3,)"),
        ("a.npz", npz_of(scores=GOOD[:0], ids=np.array([], "U1")), "no videos in it"),
        ("a.npz", npz_of(scores=GOOD[:, :0], ids=IDS), "video 'v0': its scores have shape (0,)"),
        ("a.npz", npz_of(x=GOOD, y=GOOD, ids=IDS), "no array 'scores'; say which with --array: x, y"),
        ("a.npz", npz_of(scores=GOOD > 0, ids=IDS), "its scores are of type bool, which is no type of numbers"),
        ("a.npz", npz_of(scores=GOOD + 1j, ids=IDS), "its scores are of type complex128"),
        ("a.npz", npz_of(scores=GOOD.astype(str), ids=IDS), "its scores are of type <U"),
        ("a.npz", npz_of(scores=GOOD * [1, 1, np.inf], ids=IDS), "video 'v0': its scores are not finite"),
        ("a.npz", npz_of(scores=np.full((7, 3), -(2**63)), ids=IDS), "its scores reach 9.22e+18"),
        ("a.npz", npz_of(scores=GOOD, ids=IDS, classes=["a", "b"]), "2 class names for 3 scores"),
        ("a.npz", npz_of(a=GOOD[0], b=GOOD[:, 0]), "video 'b': it has 7 scores a row, the stream 3"),
        ("a.npz", npz_of(a=GOOD[None]), "video 'a': its scores have shape (1, 7, 3)"),
        ("a.npz", npz_of(a=OBJECTS), "holds pickled Python objects"),
        ("a.npz", npz_of(scores=GOOD, spans=GOOD, duration_s=1.0, fps=1.0), "one video's file: give the folder"),
        ("a.npz", npz_of(), "no videos in it"),
        ("a.npz", npy_of(GOOD), "no such file"),  # numpy calls it a.npz.npy
        ("a.npz", cut(npz_of(scores=GOOD, ids=IDS), 300), "not a readable npz file"),
        ("a.npz", csv_of("junk"), "not an npz file"),
        ("a.npz", csv_of(b"PK\x03\x04 and no more"), "not a readable npz file"),
        ("a.npy", csv_of(""), "an empty file"),
        ("a.npy", csv_of("junk"), "not an npy file"),
        ("a.npy", csv_of(b"\x80\x04\x95\x05"), "holds pickled Python objects"),
        ("a.npy", npy_of(OBJECTS), "objects of shape (2,), where an array for each of 7 videos is expected"),
        ("a.npy", cut(npy_of(GOOD), 200), "not a readable npy file"),
        ("a.npy", cut(npy_of(GOOD), 30), "not a readable npy file"),
        ("a.npy", npy_of(GOOD[:6]), "6 videos, but 7 ids"),
        ("a.npy", npy_of(GOOD[0, 0]), "an array of shape ()"),
        ("a.pkl", csv_of(b"\x80\x04\x95\x05"), "neither npy, npz, HDF5, parquet nor csv"),
        ("a.h5", csv_of(""), "a.h5: not readable HDF5, cut or damaged"),
    ],
)  # fmt: skip
def test_files_with_all_videos(name: str, make: Make, told: str, tmp_path: Path) -> None:
    make(tmp_path / name)
    ids = ("--ids", write_ids(tmp_path)) if name == "a.npy" else ()
    err = refused(tmp_path / name, *ids, *COST, into=tmp_path / "cache")
    assert told in err and name in err, err
    assert not (tmp_path / "cache").exists()


ROWS = np.ones((4, 3), np.float32)
LIST = ",".join(LIST_COLUMNS)


@pytest.mark.parametrize(
    ("name", "make", "told"),
    [
        ("b.npy", npy_of(ROWS[:, :2]), "video 'b': it has 2 features a row, the stream 3"),
        ("b.npy", npy_of(ROWS[:0]), "video 'b': its features have shape (0, 3)"),
        ("b.npy", npy_of(ROWS[None]), "video 'b': its features have shape (1, 4, 3)"),
        ("b.npy", npy_of(np.where(np.eye(4, 3), np.nan, 1)), "video 'b': its features are not finite"),
        ("b.npy", npy_of(1e5 * ROWS), "video 'b': its features reach 1e+05, beyond float16's 65504"),
        ("b.npy", npy_of(OBJECTS), "holds pickled Python objects, which can run any program"),
        ("b.npy", csv_of("junk"), "not an npy file"),
        ("b.npy", lambda path: path.symlink_to("nowhere"), "cannot be read: No such file"),
        ("a.npz", npz_of(features=ROWS), "video 'a' occurs twice"),
        ("b.npz", npz_of(other=ROWS), "no array 'features' or 'scores'; it has: other"),
        ("b.npz", npz_of(features=ROWS, scores=ROWS), "video 'b': it has 3 scores a row, the stream 0"),
        ("b.npz", npz_of(features=ROWS, scores=ROWS[:2]), "as many rows of features as of scores"),
        ("b.npz", npz_of(features=ROWS, spans=ROWS), "its spans are float32 of shape (4, 3)"),
        ("b.npz", npz_of(features=ROWS, spans=np.array([[2.0, 1.0]] * 4)), "spans are not finite and in order"),
        ("b.npz", npz_of(features=ROWS, spans=np.full((4, 2), np.inf)), "spans are not finite and in order"),
        ("b.npz", npz_of(features=ROWS, duration_s=np.array("long")), "duration or rate is not a number"),
        ("videos.csv", csv_of(f"{LIST}\nx,x.npy,1,1,1,1,1,1,x,p,,\n"), "lists x.npy, which is not there"),
        ("videos.csv", csv_of(f"{LIST}\na,a.npy\n"), "the line of a.npy is not whole"),
    ],
)  # fmt: skip
def test_folders(name: str, make: Make, told: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "features", {"a": ROWS})
    make(folder / name)
    err = refused(folder, "--fps", "1", *COST, into=tmp_path / "cache")
    assert told in err and name.partition(".")[0] in err, err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("none",), "none: no such file or folder"),
        (("empty",), "no npy, npz or CSV files below this folder"),
        (("a.npy",), "give --ids FILE"),
        (("a.npy", "--ids", "none.txt"), "none.txt: cannot be read as a list of ids: No such file"),
        (("a.npy", "--ids", "gap.txt"), "gap.txt: id 2 of 3 is empty"),
        (("a.npy", "--ids", "blank.txt"), "7 videos, but 0 ids"),
        (("a.npy", "--ids", "a.csv"), "a.csv: no column 'video_id' in its first line"),
        (("a.npy", "--ids", "a.npy"), "its ids are float64 of shape (7, 3); a row of text is expected"),
        (("a.npy", "--ids", "b.npz"), "cannot be read as a list of ids: not text in UTF-8"),
        (("b.npz", "--ids", "ids.txt"), "has ids of its own: leave out --ids"),
        (("b.npz", "--array", "other"), "no array 'other'; say which with --array: scores"),
        (("features", "--ids", "ids.txt"), "--ids is for npy and npz files"),
        (("features", "--array", "x"), "an npy file has one array, without a name: leave out --array"),
        (("a.npy", "--array", "x"), "--array names an array of npz or HDF5 files"),
        (("features",), "say where in a video its rows are: --fps 1"),
        (("features", "--fps", "0"), "--fps 0: the rate must be above 0"),
        (("features", "--fps", "nan"), "--fps nan: the rate must be above 0"),
        (("features", "--clip-frames", "16"), "--clip-frames needs --fps"),
        (("features", "--clips", "4", "--fps", "1"), "--clips says that rows are spread over a video"),
        (("features", "--clips", "3"), "video 'a': it has 4 rows, where 3 a video are expected"),
        (("features", "--fps", "1", "--kind", "logits"), "--kind is about scores"),
        (("features", "--fps", "1", "--classes", "ids.txt"), "there are none, only features"),
        (("b.npz", "--classes", "ids.txt"), "7 class names for 3 scores"),
        (("b.npz", "--classes", "gap.txt"), "gap.txt, line 2: empty; every line names the class"),
        (("b.npz", "--classes", "twice.txt"), "twice.txt, line 2: class 'a' occurs twice"),
        (("b.npz", "--classes", "none.txt"), "none.txt: cannot read the class names"),
        (("b.npz", "--stream", "../up"), "'../up' cannot be the name of a stream"),
    ],
)
def test_requests(words: tuple[str, ...], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", GOOD)
    np.savez("b.npz", scores=GOOD, ids=IDS)
    write_folder(Path("features"), {"a": ROWS})
    Path("empty").mkdir()
    write_ids(tmp_path)
    Path("blank.txt").write_text("\n \n")
    Path("gap.txt").write_text("a\n\nb\n")
    Path("twice.txt").write_text("a\na\nb\n")
    Path("a.csv").write_text("name\na\n")
    assert told in refused(*words, *COST, into=tmp_path / "cache")


def test_a_huge_file_is_not_loaded(tmp_path: Path) -> None:
    """1 TB, of which the disk holds nothing: more than any memory."""
    header = {"descr": "<f8", "fortran_order": False, "shape": (7, 10**6, 18_000)}
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        try:
            file.truncate(file.tell() + 7 * 10**6 * 18_000 * 8)
        except OSError:
            pytest.skip("this file system takes no file of that size")
    ids = write_ids(tmp_path, ["a", "b"])
    assert "7 videos, but 2 ids" in refused(tmp_path / "a.npy", "--ids", ids, *COST, into=tmp_path / "cache")


@settings(max_examples=60)
@given(data=st.data())
def test_damage_is_one_line_or_none(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("damage")
    name, make = data.draw(
        st.sampled_from(
            [
                ("a.npy", npy_of(GOOD)),
                ("a.npz", npz_of(scores=GOOD, ids=IDS)),
                ("a.npz", each_compressed),
                ("a.csv", csv_of("video_id,cat,dog\na,1.5,2\nb,-1,3\n")),
            ]
        )
    )
    make(folder / name)
    content = bytearray((folder / name).read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=3)):
        content[place] = data.draw(st.integers(0, 255))
    (folder / name).write_bytes(content)
    ids = ("--ids", write_ids(folder)) if name == "a.npy" else ()
    words = ("--kind", "logits", *ids, *COST, "--stream", "mine", "--into", folder / "cache")
    code, _, err = run("import", folder / name, *words)
    assert (code == 0 and not err) or (code == 2 and err.count("\n") == 1 and name in err), (code, err)
    assert code == 2 or run("verify", folder / "cache")[0] == 0


def test_what_comes_before_a_bad_video_stays_and_the_rest_follows(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "features", {f"v{i}": ROWS + i for i in range(9)})
    np.save(folder / "v7.npy", ROWS * np.nan)
    words = ("import", folder, "--into", tmp_path / "cache", "--stream", "mine", "--fps", "1", *COST)
    code, _, err = run(*words, "--shard-size", "3")
    assert code == 2 and f"{folder}/v7.npy: video 'v7': its features are not finite" in err
    assert len(FeatureCache(tmp_path / "cache")["mine"]) == 6
    np.save(folder / "v7.npy", ROWS)
    assert "3 videos with 12 rows in 1 shard imported, 6 there already" in run(*words)[1]


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_folder(tmp_path / "features", {"a": ROWS})
    (tmp_path / "file").touch()
    assert "cannot write to the cache" in refused(folder, "--fps", "1", *COST, into=tmp_path / "file")

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    err = refused(folder, "--fps", "1", *COST, into=tmp_path / "cache")
    assert "cannot write a shard: No space left on device" in err
    assert not list((tmp_path / "cache").rglob("*.tmp"))


def test_names_that_are_not_text(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "features", {"a": ROWS})
    try:
        os.rename(folder / "a.npy", os.fsencode(folder) + b"/\xff.npy")  # noqa: PTH104
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    stream = imported(tmp_path / "cache", folder, "--fps", "1", *COST)
    assert list(stream) == ["\\xff"] and stream.source("\\xff") == "\\xff.npy"


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    write_folder(tmp_path / "elsewhere", {"b": ROWS})
    folder = write_folder(tmp_path / "features", {"a": ROWS})
    (folder / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(folder)
    assert list(imported(tmp_path / "cache", folder, "--fps", "1", *COST)) == ["a", "more/b"]
