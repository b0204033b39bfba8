"""Traces of run-policy as pictures: which frames of each video a policy looked at, and with what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cache_schema import UserError
from cache_schema.command import count
from policy.deploy.arguments import SourceVideo
from policy.deploy.frames import thumbnails
from policy.deploy.trace_file import TracedVideo
from policy.sheets.sheet import Column, Document, Picture, Sheet, Value
from policy.sheets.words import one_line, shorten
from policy.tables.plots import steps as plot
from policy.tables.plots.filmstrip import FRAMES
from policy.tables.plots.steps import Lane, Shown, Steps, gflops_text, spacing

TITLE = "Trace: which frames a policy looked at, and with what"
READING = (
    "Streams are drawn from the cheapest to the dearest. A frame has a border where another than the cheapest was "
    "computed; below it are the video's GFLOPs when all rows there had been computed."
)


@dataclass(frozen=True)
class Look:
    """An instant of a video at which rows were computed.

    Attributes:
        lane: the number of the dearest stream of them.
        gflops: of the video when all of them were computed.
    """

    at_s: float
    lane: int
    gflops: float


def by_cost(videos: Iterable[TracedVideo]) -> list[str]:
    """The streams of a trace, computed or not, the one with the cheapest rows first."""
    listed: dict[str, float] = {}
    rows, gflops = Counter[str](), Counter[str]()
    for video in videos:
        counts = Counter({name: len(spans) for name, spans in _spans(video).items()})
        rows.update(counts)
        gflops.update({name: video.gflops.get(name, 0.0) for name in counts})
        listed.update(video.streams)
    per_row = {**{name: gflops[name] / rows[name] for name in rows}, **listed}
    return sorted(per_row, key=lambda name: (per_row[name], name))


def chosen(
    trace: Mapping[str, TracedVideo], sources: Sequence[SourceVideo], most: int
) -> list[tuple[TracedVideo, SourceVideo]]:
    """The videos that are in both; of more than `most`, evenly spread ones from the cheapest to the dearest.

    Raises:
        UserError: none is.
    """
    pairs = [(trace[source.id], source) for source in sources if source.id in trace]
    if not pairs:
        raise UserError(
            f"none of the {len(sources)} videos is among the {len(trace)} of the trace, such as "
            f"{next(iter(trace))!r}: give those of its run-policy command, with the same --ids"
        )
    pairs.sort(key=lambda pair: (sum(pair[0].gflops.values()), pair[1].id))
    places = np.linspace(0, len(pairs) - 1, min(most, len(pairs))).round().astype(int)
    return [pairs[place] for place in places.tolist()]


def looks(video: TracedVideo, streams: Sequence[str]) -> list[Look]:
    """The instants at which rows of a video were computed, in the order of time.

    Rows of several streams are at one instant where their middles are nearer than a quarter of what rows of a
    stream are apart: optical flow needs a frame more than what it stands beside.

    Args:
        streams: the cheapest first.
    """
    found: list[Look] = []
    for step in video.steps:
        lane = streams.index(step.stream)
        found += (Look(at_s, lane, step.gflops) for at_s in step.spans_s.mean(axis=1).tolist())
    found.sort(key=lambda look: (look.at_s, look.lane))
    apart_s = min(spacing(spans_s.mean(axis=1), video.duration_s) for spans_s in _spans(video).values())
    together: list[Look] = []
    for look in found:
        if together and look.at_s - together[-1].at_s < apart_s / 4:
            last = together[-1]
            lane, gflops = max(last.lane, look.lane), max(last.gflops, look.gflops)
            together[-1] = replace(last, lane=lane, gflops=gflops)
        else:
            together.append(look)
    return together


def thinned(found: Sequence[Look], limit: int = FRAMES) -> tuple[list[Look], int]:
    """At most `limit` instants, and n: of every n neighbours the first of those with the dearest stream."""
    n = -(-len(found) // limit)
    groups = (found[start : start + n] for start in range(0, len(found), n))
    return [max(group, key=lambda look: look.lane) for group in groups], n


def drawing(video: TracedVideo, source: SourceVideo, streams: Sequence[str]) -> Steps:
    """What is drawn of a video. Raises UserError where it cannot be decoded, or is not the one in the trace."""
    found = looks(video, streams)
    shown, n = thinned(found)
    instants_s = np.array([look.at_s for look in shown])
    pictures = thumbnails(
        source.path, instants_s, frames_fps=source.frames_fps or float("nan"), whose="the trace"
    )
    frames = [
        Shown(picture, look.at_s, look.lane, look.gflops)
        for picture, look in zip(pictures, shown, strict=True)
    ]
    instants = count(len(found), "instants")
    thinning = f", of every {n} the first that cost most" * (n > 1)
    answer = [f"{shorten(one_line(label), 26)} {chance:.0%}" for label, chance in video.answer.items()][:1]
    return Steps(
        ": ".join([shorten(one_line(video.video_id), 32), *answer]),
        f"{video.duration_s:.1f} s of video, {gflops_text(sum(video.gflops.values()))}",
        max(video.duration_s, *(float(step.spans_s.max()) for step in video.steps)),
        [_lane(video, name) for name in streams],
        frames,
        f"{instants}{thinning}; a border has the colour of the dearest stream there",
    )


def document(drawn: Sequence[tuple[TracedVideo, Steps]], state: Sequence[str], command: str) -> Document:
    """The drawings, and the numbers of their videos."""
    streams = [lane.name for lane in drawn[0][1].lanes]
    columns = [
        Column("video", "video_id", numeric=False),
        Column("answer", "answer", numeric=False),
        Column("probability", "probability", decimals=3, numeric=True),
        Column("seconds", "duration_s", numeric=True),
        Column("GFLOPs", "gflops", decimals=2, numeric=True),
        *(Column(f"rows of {name}", f"rows_{name}", numeric=True) for name in streams),
    ]
    rows: list[list[Value]] = []
    for video, steps in drawn:
        label, probability = next(iter(video.answer.items()), (None, None))
        counts = [len(lane.spans_s) for lane in steps.lanes]
        rows.append(
            [video.video_id, label, probability, video.duration_s, sum(video.gflops.values()), *counts]
        )
    data = Sheet(TITLE, columns, rows)
    texts = [[one_line(one) if isinstance(one, str) else one for one in row] for row in rows]
    return Document(
        id="trace",
        title=TITLE,
        sheets=[replace(data, rows=texts)],
        state=[*state, READING],
        command=command,
        pictures=[_picture(video, steps) for video, steps in drawn],
        record={"title": TITLE, "videos": data.records},
        data=[data],
    )


def _picture(video: TracedVideo, steps: Steps) -> Picture:
    caption = f"{steps.title}. {steps.subtitle}"
    return Picture(
        plot.draw(steps).png, plot.describe(steps), caption, f"trace of {one_line(video.video_id)}"
    )


def _lane(video: TracedVideo, name: str) -> Lane:
    spans_s = _spans(video).get(name, np.empty((0, 2)))
    gflops = video.gflops.get(name, 0.0)
    rows = count(len(spans_s), "rows")
    return Lane(name, spans_s, f"{rows}, {gflops_text(gflops)}" if len(spans_s) else "not computed")


def _spans(video: TracedVideo) -> dict[str, plot.Floats]:
    """(n, 2) by stream."""
    parts: dict[str, list[plot.Floats]] = {}
    for step in video.steps:
        parts.setdefault(step.stream, []).append(step.spans_s)
    return {name: np.concatenate(spans_s) for name, spans_s in parts.items()}
