"""Breakfast: the activity of a whole video, which its name says, and splits s1 to s4 by person.

http://serre-lab.clps.brown.edu/resource/breakfast-actions-dataset. A video is called P03_cam01_P03_cereals:
person, camera, person, activity. Split s1 tests on persons P03–P15, s2 on P16–P28, s3 on P29–P41 and s4 on P42–P54
(Kuehne et al. 2014). Read are the published bundles, train.split1.bundle and test.split1.bundle, or any text file
with a video in each line; endings such as .txt and a header that starts with "#" are passed over.

The videos' own files are P03/cam01/P03_cereals.avi, and for the stereo camera P03/stereo/P03_cereals_ch0.avi and
_ch1, two views of which the first that the cache holds counts: these paths are looked for too, as batch-extract
calls videos with --ids path.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from cache_schema.annotations.labels import LabelSet, VideoLabel
from cache_schema.annotations.published import lines, start_of, wrong
from cache_schema.errors import LabelError

ACTIVITIES = frozenset({
    "cereals", "coffee", "friedegg", "juice", "milk", "pancake", "salat", "sandwich", "scrambledegg", "tea",
})  # fmt: skip
_TESTED = {1: range(3, 16), 2: range(16, 29), 3: range(29, 42), 4: range(42, 55)}
_BUNDLE = re.compile(r"(?P<subset>train|test)\.split(?P<split>[1-4])\.bundle")
_VIDEO = re.compile(
    r"(?P<person>P(?P<number>\d\d))_(?P<camera>[a-z]+\d\d)_(?P=person)_(?P<activity>[a-z]+)(\.\w+)?"
)
_FORM = "a video of Breakfast, such as P03_cam01_P03_cereals"


def fits(path: Path) -> bool:
    """Whether this is a bundle, a text file that starts with such a video, or a folder with bundles."""
    if path.is_dir():
        return any(_BUNDLE.fullmatch(entry.name) for entry in path.iterdir())
    if _BUNDLE.fullmatch(path.name):
        return True
    first = next((line for line in start_of(path).splitlines() if line.strip() and line[0] != "#"), "")
    return path.suffix.lower() == ".txt" and _VIDEO.fullmatch(_name(first)) is not None


def read(path: Path, split: int | None = None) -> LabelSet:
    """Read the two bundles of a split from a folder, or one file.

    Args:
        split: 1 to 4; None: the one in the file's name, else 1.

    Raises:
        LabelError: a bundle is missing or of another split, or a line names no video of Breakfast.
    """
    bundle = _BUNDLE.fullmatch(path.name)
    if split is None:
        split = int(bundle["split"]) if bundle else 1
    files = [path]
    if path.is_dir():
        files = [path / f"{subset}.split{split}.bundle" for subset in ("train", "test")]
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            raise LabelError(f"{path}: no {missing[0]}, which split s{split} of Breakfast needs")
    videos: dict[str, VideoLabel] = {}
    places: dict[str, str] = {}
    for file in files:
        for number, line in lines(file):
            if line.startswith("#"):
                continue
            place = f"{file}, line {number}"
            video = _video(place, line, split)
            promised = _BUNDLE.fullmatch(file.name)
            if promised and promised["subset"] != video.subset:
                raise LabelError(
                    f"{place}: {video.video_id} is a {video.subset} video of split s{split}, in a file of "
                    f"{promised['subset']} videos"
                )
            if video.video_id in videos:
                raise LabelError(
                    f"{place}: video {video.video_id!r} occurs twice, first at {places[video.video_id]}"
                )
            videos[video.video_id], places[video.video_id] = video, place
    if not videos:
        raise LabelError(f"{path}: no videos in it")
    return LabelSet(path, tuple(videos.values()))


def _name(line: str) -> str:
    return PurePosixPath(line.strip()).name


def _video(place: str, line: str, split: int) -> VideoLabel:
    found = _VIDEO.fullmatch(_name(line))
    if found is None or found["activity"] not in ACTIVITIES:
        raise wrong(place, line, _FORM)
    person, camera, activity = found["person"], found["camera"], found["activity"]
    number = int(found["number"])
    if not any(number in tested for tested in _TESTED.values()):
        raise LabelError(f"{place}: Breakfast's persons are P03 to P54, not {person}")
    if camera.startswith("stereo"):
        files = [f"{person}/stereo/{person}_{activity}_ch{channel}" for channel in (0, 1)]
    else:
        files = [f"{person}/{camera}/{person}_{activity}"]
    return VideoLabel(
        video_id=f"{person}_{camera}_{person}_{activity}",
        labels=(activity,),
        subset="test" if number in _TESTED[split] else "train",
        aliases=tuple(files),
    )
