"""Timelines of the best, the median and the worst video of a run that localizes, or of those that are named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cache_schema import FeatureCache, UserError
from cache_schema.annotations import LabelSet
from cache_schema.command import count
from cache_schema.costs import gflops_digits
from cache_schema.names import did_you_mean
from cache_schema.run_folder import CONFIG, read_json
from policy.evaluation.detection import THUMOS14_IOUS, Detections, FloatArray, GroundTruth, match
from policy.evaluation.detection_map import video_average_precision
from policy.localization.clip_selector import answers
from policy.localization.config import LocalizationSelectorConfig, ProposalsConfig, WTALCConfig
from policy.localization.judged import Localizations
from policy.localization.localize import localize
from policy.localization.method import WTALC, clip_spans
from policy.localization.proposals import class_scores, clip_edges
from policy.runs import Run, choose_device, key_of, load_method, open_data, read_config, read_result
from policy.sheets.sheet import Column, Document, Picture, Sheet
from policy.sheets.words import one_line
from policy.tables.plots import timeline
from policy.tables.plots.timeline import CORRECT_IOU, Found, Timeline, Track, Verdict

TITLE = "Timelines: what was found, when it is there, and which model answered"
MEASURE = (
    "Average precision of a video: of one ranking of all its detections, whatever their class, by the THUMOS'14 "
    "kit of 2015, averaged over IoU 0.1 to 0.7. Detections of a class that it does not show count against it. "
    "Videos are ranked by it, then by id; the median is the better one of two."
)
HEIGHTS = "Drawn detections are the higher the better their score is, among those of their video."
CLASSES = 4
"""The largest number of classes drawn of a video: its own, then those detected with the highest scores."""

_COLUMNS = (
    Column("video", "video_id", numeric=False),
    Column("rank", "rank", numeric=False),
    Column("average precision %", "average_precision", numeric=True),
    Column("of appearance alone %", "average_precision_alone", numeric=True),
    Column("clips with motion %", "usage", numeric=True),
    Column("GFLOPs", "gflops", decimals=2),
)


@dataclass(frozen=True, eq=False)
class LocalizationRun:
    """A finished run that localizes.

    Attributes:
        title: of its method.
        activations: (N, C), of the clips of a wtalc run, which keeps none; None: not known.
    """

    folder: Path
    title: str
    config: ProposalsConfig
    found: Localizations
    activations: FloatArray | None = None


@dataclass(frozen=True, eq=False)
class DrawnVideo:
    """A video with its timeline.

    Attributes:
        rank: "best", "median", "worst", several of these, or empty.
        precision, precision_alone: its average precision, and that of the appearance model alone; None where it
            has no segments, or nothing is known of that model.
        usage: share of its clips that use motion, of a method that chooses clips.
    """

    video_id: str
    rank: str
    precision: float | None
    precision_alone: float | None
    usage: float | None
    gflops: float
    timeline: Timeline

    @property
    def picture(self) -> Picture:
        png, alt = timeline.draw(self.timeline).png, timeline.describe(self.timeline)
        return Picture(
            png,
            alt,
            f"{self.timeline.title}. {self.timeline.subtitle}",
            f"timeline of {one_line(self.video_id)}",
        )


def read_run(folder: Path) -> LocalizationRun:
    """Raises UserError where the folder holds no finished run, or one of a method that does not localize."""
    result = read_result(folder)
    config, found = read_config(folder), Run(folder, result, reused=True).judged()
    if not isinstance(found, Localizations) or not isinstance(config, ProposalsConfig):
        raise UserError(
            f"{folder}: a run of {result.method}, which finds no segments that a timeline could show"
        )
    if found.gates is not None and found.spans is None:
        raise UserError(
            f"{folder}: an earlier version wrote its predictions, which do not say when its clips are; give its "
            "train-policy command again with another --out"
        )
    return LocalizationRun(folder, result.title, config, found)


def with_activations(
    run: LocalizationRun, cache: FeatureCache, labels: LabelSet, device: str
) -> LocalizationRun:
    """A wtalc run with the activations that its model gives the clips.

    Raises:
        UserError: the run is of another method, or of other features or labels.
    """
    config, folder = run.config, run.folder
    if not isinstance(config, WTALCConfig):
        raise UserError(f"{folder}: keeps the activations of its clips; leave out --cache and --labels")
    data = open_data(config, cache, labels)
    if key_of(config, data) != read_json(folder / CONFIG).get("key"):
        raise UserError(f"{folder}: a run on other features or labels than those of --cache and --labels")
    method = load_method(folder, config, data)
    assert isinstance(method, WTALC)
    videos = data.evaluation
    activations = method.activations(videos, choose_device(device))
    # An earlier version kept no times.
    found = replace(run.found, spans=np.concatenate(clip_spans(videos)))
    return replace(run, found=found, activations=np.concatenate(activations).astype(np.float64))


def choose(run: LocalizationRun, video_ids: Sequence[str] = ()) -> list[DrawnVideo]:
    """The videos that are named, in this order; without any the best, the median and the worst one.

    Raises:
        UserError: the run has no such video, or none is named and no video has segments to rank them by.
    """
    found = run.found
    judged = _Judged.of(found.detections, found.truth, len(found.video_ids))
    ranks = ranked(judged.precisions, found.video_ids)
    if not video_ids and not ranks:
        raise UserError(
            f"{run.folder}: the labels give no segments of its videos, so that none is the best; name some by "
            "--video"
        )
    places = [_place(run, video_id) for video_id in dict.fromkeys(video_ids)] or [*ranks]
    alone = _appearance_alone(run, places)
    return [_drawn(run, place, ranks.get(place, ""), judged, alone) for place in places]


def ranked(precisions: FloatArray, video_ids: Sequence[str]) -> dict[int, str]:
    """The positions of the best, the median and the worst video, with these words; a video may be several.

    Args:
        precisions: (M,) of the videos; those with NaN are left out.
    """
    order = sorted(
        np.flatnonzero(~np.isnan(precisions)).tolist(),
        key=lambda place: (-precisions[place], video_ids[place]),
    )
    ranks: dict[int, list[str]] = {}
    for word, rank in (("best", 0), ("median", (len(order) - 1) // 2), ("worst", -1)) if order else ():
        ranks.setdefault(order[rank], []).append(word)
    return {place: " and ".join(words) for place, words in ranks.items()}


def timelines(folder: Path, video_ids: Sequence[str] = ()) -> list[Picture]:
    """Drawings of a run's best, median and worst video, or of those that are named, for a page.

    Raises:
        UserError: as `read_run` and `choose`.
    """
    return [video.picture for video in choose(read_run(folder), video_ids)]


def document(run: LocalizationRun, videos: Sequence[DrawnVideo], command: str) -> Document:
    """The drawings, and the numbers of their videos."""
    rows = [
        [
            video.video_id,
            video.rank or None,
            *(
                None if share is None else 100 * share
                for share in (video.precision, video.precision_alone, video.usage)
            ),
            video.gflops,
        ]
        for video in videos
    ]
    sheet = Sheet(TITLE, _COLUMNS, rows)
    return Document(
        id="timelines",
        title=TITLE,
        sheets=[replace(sheet, rows=[[one_line(str(video_id)), *numbers] for video_id, *numbers in rows])],
        state=[f"{run.folder}: {run.title}.", MEASURE, HEIGHTS],
        command=command,
        pictures=[video.picture for video in videos],
        record={"title": TITLE, "run": str(run.folder), "videos": sheet.records},
        data=[sheet],
    )


@dataclass(frozen=True, eq=False)
class _Judged:
    """Detections by class, the highest score first, and which are correct.

    Attributes:
        verdicts: as many.
        precisions: (M,) average precisions of the videos.
    """

    detections: Detections
    verdicts: npt.NDArray[np.object_]
    precisions: FloatArray

    @staticmethod
    def of(detections: Detections, truth: GroundTruth, num_videos: int) -> _Judged:
        # In the order in which `match` has them.
        order = np.lexsort((detections.videos, -detections.scores, detections.classes))
        detections = Detections(*(part[order] for part in vars(detections).values()))
        verdicts = np.full(len(detections), "not judged", object)
        if len(truth.videos):
            matching = match(detections, truth, [CORRECT_IOU], "thumos14")
            verdicts[matching.clear] = "false"
            verdicts[matching.correct[:, 0]] = "correct"
        return _Judged(
            detections, verdicts, video_average_precision(detections, truth, num_videos, THUMOS14_IOUS)
        )

    def classes_of(self, video: int) -> list[int]:
        """Those detected in a video, the highest score first."""
        rows = self.detections.videos == video
        best = self.detections.classes[rows][np.argsort(-self.detections.scores[rows], kind="stable")]
        return [*dict.fromkeys(best.tolist())]

    def of_class(self, video: int, label: int) -> Found:
        rows = (self.detections.videos == video) & (self.detections.classes == label)
        verdicts: list[Verdict] = self.verdicts[rows].tolist()
        return Found(self.detections.spans[rows], self.detections.scores[rows], verdicts)


def _place(run: LocalizationRun, video_id: str) -> int:
    ids = run.found.video_ids
    if video_id not in ids:
        raise UserError(
            f"{run.folder}: no video {video_id!r} among the {len(ids)} of its evaluation, such as "
            f"{', '.join(map(repr, ids[:3]))}{did_you_mean(video_id, ids)}"
        )
    return ids.index(video_id)


def _appearance_alone(run: LocalizationRun, places: Sequence[int]) -> _Judged | None:
    """What the appearance model would find by itself in some of the videos, from the activations that are kept."""
    found, config = run.found, run.config
    # ActionBytes looks at the features, too, and these are not kept.
    if found.gates is None or config.action_bytes:
        return None
    assert found.appearance is not None and found.spans is not None
    clips = [slice(*found.offsets[place : place + 2]) for place in places]
    detections = localize(
        config, [found.appearance[one] for one in clips], [found.spans[one] for one in clips], ()
    )
    detections = replace(detections, videos=np.array(places)[detections.videos])
    return _Judged.of(detections, found.truth, len(found.video_ids))


def _drawn(run: LocalizationRun, place: int, rank: str, judged: _Judged, alone: _Judged | None) -> DrawnVideo:
    found = run.found
    precision, precision_alone = (
        None if one is None or np.isnan(one.precisions[place]) else float(one.precisions[place])
        for one in (judged, alone)
    )
    gflops = float(found.gflops[:, place].mean())
    clips = slice(*found.offsets[place : place + 2])
    gates = None if found.gates is None else found.gates[clips].astype(bool)
    parts = [run.title]
    if gates is not None:
        parts.append(f"motion in {gates.sum()} of {len(gates)} clips ({100 * gates.mean():.0f} %)")
    parts.append(f"{gflops_digits(gflops, 3)} GFLOPs")
    if precision_alone is not None:
        parts.append(f"appearance alone: average precision {100 * precision_alone:.1f} %")
    of_all = f"{rank} of {int((~np.isnan(judged.precisions)).sum())} videos"
    of_video = [of_all] if rank else []
    if precision is not None:
        of_video.append(f"average precision {100 * precision:.1f} %")
    title = f"{found.video_ids[place]}: {', '.join(of_video) or 'without segments'}"
    drawing = _timeline(run, place, title, ", ".join(parts), judged, alone)
    usage = None if gates is None else float(gates.mean())
    return DrawnVideo(found.video_ids[place], rank, precision, precision_alone, usage, gflops, drawing)


def _timeline(
    run: LocalizationRun, place: int, title: str, subtitle: str, judged: _Judged, alone: _Judged | None
) -> Timeline:
    found, truth = run.found, run.found.truth
    clips = slice(*found.offsets[place : place + 2])
    spans = None if found.spans is None else found.spans[clips]
    segments = truth.videos == place
    ambiguous = truth.ambiguous_spans[truth.ambiguous_videos == place]
    ends = [truth.spans[segments], ambiguous, judged.detections.spans[judged.detections.videos == place]]
    if spans is not None:
        ends.append(spans)
    labelled = found.labels[place].copy()
    labelled[truth.classes[segments]] = True
    classes = [
        *np.flatnonzero(labelled).tolist(),
        *judged.classes_of(place),
        *(alone.classes_of(place) if alone else ()),
    ]
    # Of a video without a class the one that is the most likely.
    classes = [*dict.fromkeys(classes)] or [int(found.scores[place].argmax())]

    activations = _activations(run, clips)
    tracks = []
    for label in classes:
        track = Track(
            found.classes[label],
            bool(labelled[label]),
            truth.spans[segments & (truth.classes == label)],
            judged.of_class(place, label),
            None if alone is None else alone.of_class(place, label),
        )
        if activations is not None:
            appearance, motion, answer = activations
            track = replace(
                track,
                appearance=None if appearance is None else appearance[:, label],
                motion=None if motion is None else motion[:, label],
                answer=answer[:, label],
                threshold=_threshold(run.config, answer, label),
            )
        tracks.append(track)
    return Timeline(
        title,
        subtitle,
        float(max((part.max(initial=0.0) for part in ends), default=0.0)) or 1.0,
        tracks[:CLASSES],
        ambiguous,
        None if spans is None else clip_edges(spans),
        None if found.gates is None else found.gates[clips].astype(bool),
        _omitted(tracks[CLASSES:]),
    )


def _activations(
    run: LocalizationRun, clips: slice
) -> tuple[FloatArray | None, FloatArray | None, FloatArray] | None:
    """(T, C) of the appearance and the motion model, and of what is made of them."""
    found = run.found
    if run.activations is not None:
        return None, None, run.activations[clips]
    if found.gates is None or not isinstance(run.config, LocalizationSelectorConfig):
        return None
    assert found.appearance is not None and found.motion is not None
    appearance, motion = found.appearance[clips].astype(np.float64), found.motion[clips].astype(np.float64)
    return appearance, motion, answers(run.config.answer, appearance, motion, found.gates[clips].astype(bool))


def _threshold(config: ProposalsConfig, answer: FloatArray, label: int) -> float | None:
    """Of `wtalc_proposals`; None for a class that does not count in the video, or where there are many."""
    if config.proposals != "wtalc" or class_scores(answer)[label] <= 0:
        return None
    return float(answer[:, label].max() + answer[:, label].min()) / 2


def _omitted(tracks: Sequence[Track]) -> str:
    if not tracks:
        return ""
    segments, detections = sum(len(one.truth) for one in tracks), sum(len(one.found.scores) for one in tracks)
    names = ", ".join(track.name for track in tracks)
    return (
        f"Not drawn: {count(len(tracks), 'more classes')}, with {count(segments, 'true segments')} and "
        f"{count(detections, 'detections')}: {names}"
    )
