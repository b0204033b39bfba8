"""Schema 2 of the feature cache: what is on disk, in one page.

A cache is a folder with one folder per *stream*, each holding immutable shards:

    CACHE/mobilenetv2_112/shard-3f2a….h5     CACHE/resnet101_224/shard-….h5

A stream is one backbone with its weights, its input and its sampling. A shard is an HDF5 file:

    features          (N, D) float16, contiguous   penultimate features, the rows of all videos end to end; D = 0
                                                   where only scores were imported
    scores            (N, C) float16, contiguous   class logits; only where the backbone has a classifier
    spans             (N, 2) float64, seconds      first and last instant the row saw; equal for a frame; NaN:
                                                   not known (imported)
    videos/id         (M,)   UTF-8 bytes           a video appears once in a shard
    videos/offsets    (M+1,) int64                 rows of video i: offsets[i]:offsets[i+1]
    videos/duration_s, videos/fps                  (M,) float64, of the source video
    videos/source, videos/fingerprint              (M,) UTF-8 bytes: file name, what tells its content
    videos/checksum   (M,)   uint32                CRC-32 of its rows: features, then scores, then spans
    videos/status     (M,)   UTF-8 bytes           "ok"; "partial": not all could be decoded; "failed": zero rows
    videos/error      (M,)   UTF-8 bytes           why it is partial or failed, else empty
    videos/lost       (M,)   UTF-8 bytes           the rows that a partial video lacks of those that its sampling
                                                   gives, numbered from 0, as "3 7-9"; it has the others, in order
    videos/decoder    (M,)   UTF-8 bytes           what decoded it: "decord", "pyav", "images"; empty: not known
    videos/remarks    (M,)   UTF-8 bytes           what is odd about its file and harmless, a line each

    attributes: schema_version, spec (StreamSpec as JSON), weights_digest, tools (JSON: versions),
    header_checksum (SHA-256 over everything above but the rows themselves, which `checksum` covers)

Strings are fixed-length bytes, so that nothing lies in HDF5's heaps and each dataset is one contiguous block.

Schema 1, which is read as well, has no partial videos, and neither lost nor decoder nor remarks; its tools tell
the precision, which is in the spec now.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

SCHEMA_VERSION = 2
# The `backbone` and `weights` of a stream that nobody extracted here.
IMPORTED = "imported"

Array = npt.NDArray[Any]
Float16Array = npt.NDArray[np.float16]
Float64Array = npt.NDArray[np.float64]

_STREAM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]*")


@dataclass(frozen=True)
class Preprocessing:
    """How a decoded frame becomes the network's input.

    The short side is resized to `resize` pixels and `crop`×`crop` is cut out: the centre, or with three crops
    (Sampling.crops) both ends of the long side too. Then (pixel / 255 − mean) / std is taken per RGB channel.

    With `flow` ("tvl1", "dis", "raft_large", "raft_small") the input is the optical flow from each frame to the
    next, in pixels of the resized picture, clipped to ±20 and divided by 20; `mean` and `std` have no part in it.

    `crop` = 0: nothing is known of it, as with imported streams (`UNKNOWN_PREPROCESSING`).
    """

    resize: int
    crop: int
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    flow: str | None = None


UNKNOWN_PREPROCESSING = Preprocessing(0, 0, "unknown", (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))


@dataclass(frozen=True)
class Sampling:
    """Which instants of a video become rows.

    kind "frames": row k saw the frame on screen at k / fps seconds. The others saw clips: of a window of `window`
    ticks of a clock of `fps` ticks a second, the `frames` ticks numbered ⌊j·(window − 1) / (frames − 1)⌋.

    - "snippets": `rows_per_s` windows a second; tick ⌊window / 2⌋ of row k is at k / rows_per_s seconds.
    - "clips": `clips` windows, spread evenly from the start of the video to its end; one is in its middle.
    - "dense": windows from the start of the video on, every `stride` ticks (0: end to end); what is left at the
      end is too short for one and is left out.

    Every video has at least one row. Ticks before its first frame show the first, ticks after its end the last.
    With `crops` = 3 each clip is three rows: left, centre, right (in portrait: top, centre, bottom). A row of
    flow sees one tick more, for its last pair.

    With imported "clips", `frames` = 0: which frames the rows saw is not known; `window` and `fps` are then 0 too.
    With imported "dense", `fps` = `frames` = 0: the clock is each video's own; its rows' spans say when they are.
    """

    kind: str = "frames"
    fps: float = 1.0
    frames: int = 1
    window: int = 1
    rows_per_s: float = 0.0
    clips: int = 0
    crops: int = 1
    stride: int = 0

    @property
    def step(self) -> int:
        """Ticks from one dense window's start to the next."""
        return self.stride or self.window

    @property
    def row(self) -> str:
        """What a row is of, in a word: a frame, a snippet or a clip; "row" where it may be the whole video."""
        if self.kind == "frames" or (self.kind == "dense" and self.window == self.step == 1):
            return "frame"
        if self.kind == "clips" and not self.frames:
            return "row"
        return "snippet" if self.kind == "snippets" else "clip"


@dataclass(frozen=True)
class StreamSpec:
    """Everything that decides what a row of a stream means.

    Attributes:
        name: the stream's folder name.
        backbone: where the network comes from, e.g. "timm:resnet101"; "imported" where nobody built it here.
        weights: as chosen by the user: "pretrained:TAG", "random:SEED" or "file"; "imported": somebody else's.
        weights_digest: SHA-256 over the names, types, shapes and values of the parameters and buffers; empty
            where imported.
        feature_dim: D, columns of `features`; 0 where scores alone were imported.
        num_classes: C, columns of `scores`; 0 where there is no classifier.
        macs_per_row: multiply-accumulates of the backbone for one row up to its features (the classifier adds
            D·C, nothing where D = 0), as counted when it was built, or given when it was imported.
        classes: names of the C scores, where they are known.
        precision: what the network computed in, "fp32" or "bf16"; empty where that is not known (imported).
    """

    name: str
    backbone: str
    weights: str
    weights_digest: str
    preprocessing: Preprocessing
    feature_dim: int
    num_classes: int
    macs_per_row: int
    sampling: Sampling = field(default_factory=Sampling)
    classes: tuple[str, ...] | None = None
    precision: str = ""

    def __post_init__(self) -> None:
        check_stream_name(self.name)
        if self.classes is not None and len(self.classes) != self.num_classes:
            raise ValueError(f"{len(self.classes)} class names for {self.num_classes} scores")
        if self.classes is not None and len(set(self.classes)) != len(self.classes):
            raise ValueError("a class name occurs twice")

    def to_json(self) -> str:
        fields = asdict(self)
        if not self.precision:  # as the first shards have it
            del fields["precision"]
        if not self.sampling.stride:  # likewise
            del fields["sampling"]["stride"]
        return json.dumps(fields, sort_keys=True, ensure_ascii=False)

    @staticmethod
    def from_json(text: str, *, precision: str = "") -> StreamSpec:
        """The inverse of `to_json`. Raises ValueError, KeyError or TypeError on anything else.

        Args:
            precision: used where the text has none, as in schema 1, whose shards have it among their tools.
        """
        raw: dict[str, Any] = {"precision": precision, **json.loads(text)}
        pre = raw.pop("preprocessing")
        pre = Preprocessing(**{**pre, "mean": tuple(pre["mean"]), "std": tuple(pre["std"])})
        classes = raw.pop("classes")
        return StreamSpec(
            **{**raw, "sampling": Sampling(**raw["sampling"])},
            preprocessing=pre,
            classes=None if classes is None else tuple(classes),
        )


def differences(ours: StreamSpec, theirs: StreamSpec) -> str:
    """The first two fields in which two specifications differ, in words; empty where they are equal."""
    return ", ".join(_in_words(name, value, other) for name, value, other in [*_differing(theirs, ours)][:2])


def _in_words(name: str, value: object, other: object) -> str:
    if name == "macs_per_row":
        return f"a row of {value:,} multiply-accumulates is not one of {other:,}"
    return f"{name} {_short(value)} is not {_short(other)}"


def _differing(one: object, other: object, prefix: str = "") -> Iterator[tuple[str, object, object]]:
    """Fields that differ, by name, as "sampling.fps", with both values."""
    for key, value in vars(one).items():
        theirs = getattr(other, key)
        if is_dataclass(value):
            yield from _differing(value, theirs, f"{prefix}{key}.")
        elif value != theirs:
            yield prefix + key, value, theirs


def _short(value: object) -> str:
    text = ", ".join(value) if isinstance(value, tuple) else str("" if value is None else value)
    text = text or "unknown"
    if len(text) <= 60:
        return text
    # A digest is told from another by its beginning.
    return f"{text[: 12 if len(text) == 64 else 57]}…"


def check_stream_name(name: str) -> None:
    """Raise ValueError unless `name` can be a folder's name on every system."""
    if not _STREAM_NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot be the name of a stream: use letters, digits and _ . @ -")


@dataclass(frozen=True)
class VideoRecord:
    """One video in one stream.

    Attributes:
        features: (T, D) float16.
        scores: (T, C) float16, or None where the stream has no classifier.
        spans: (T, 2) float64, seconds.
        fingerprint: identifies the content of the source file.
        error: why there are no rows; None if there are.
        damage: why it is partial; None if it is whole.
        lost: the numbers of the rows that a partial video lacks, increasing.
        decoder: what decoded it; empty if that is not known.
        remarks: what is odd about the file but harmless, one line each.
    """

    id: str
    features: Float16Array
    spans: Float64Array
    scores: Float16Array | None = None
    duration_s: float = float("nan")
    fps: float = float("nan")
    source: str = ""
    fingerprint: str = ""
    error: str | None = None
    damage: str | None = None
    lost: tuple[int, ...] = ()
    decoder: str = ""
    remarks: tuple[str, ...] = ()

    def __repr__(self) -> str:
        scores = "" if self.scores is None else f", scores {self.scores.shape[1]:,}"
        return (
            f"VideoRecord({self.id!r}: rows {len(self.spans):,}, features {self.features.shape[1]:,}{scores}, "
            f"duration_s {self.duration_s:g}"
            f"{f', failed: {self.error}' * bool(self.error)}{f', partial: {self.damage}' * bool(self.damage)})"
        )

    @property
    def numbers(self) -> npt.NDArray[np.int64]:
        """(T,): the number of each row among those the sampling gives: 0, 1, … unless the video is partial."""
        return numbers_without(self.lost, len(self.spans))

    @staticmethod
    def failed(spec: StreamSpec, video_id: str, error: str, *, source: str, fingerprint: str) -> VideoRecord:
        """The entry of a video that could not be read: zero rows and the reason."""
        return VideoRecord(
            id=video_id,
            features=np.zeros((0, spec.feature_dim), np.float16),
            scores=np.zeros((0, spec.num_classes), np.float16) if spec.num_classes else None,
            spans=np.zeros((0, 2), np.float64),
            source=source,
            fingerprint=fingerprint,
            error=error,
        )


def numbers_without(lost: Sequence[int], count: int) -> npt.NDArray[np.int64]:
    """The first `count` of the numbers 0, 1, … that are not among the lost ones."""
    return np.delete(np.arange(count + len(lost), dtype=np.int64), lost)


def ranges(numbers: Iterable[int]) -> str:
    """Increasing numbers as text: 3, 7, 8, 9 as "3 7-9"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return " ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def numbers_of(text: str) -> tuple[int, ...]:
    """The inverse of `ranges`. Raises ValueError on anything else."""
    runs = [tuple(map(int, run.split("-"))) for run in text.split()]
    numbers = tuple(number for run in runs for number in range(run[0], run[-1] + 1))
    if list(numbers) != sorted(set(numbers)) or ranges(numbers) != text:
        raise ValueError(f"{text!r} are no increasing numbers")
    return numbers


def to_float16(array: npt.NDArray[Any], what: str) -> Float16Array:
    """Cast to float16. Raises ValueError where a value is not finite or would overflow (above 65504)."""
    largest = float(np.max(np.abs(array), initial=0.0))
    if not np.isfinite(largest):
        raise ValueError(f"{what} are not finite")
    if largest > float(np.finfo(np.float16).max):
        raise ValueError(f"{what} reach {largest:.3g}, beyond float16's 65504")
    return array.astype(np.float16)
