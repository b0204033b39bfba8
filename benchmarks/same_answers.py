"""Does run-policy say of a video from its file what the policy says of the same video in the cache?

    python -m benchmarks.same_answers
    python -m benchmarks.same_answers --videos FOLDER   # your videos, too
    python -m benchmarks.same_answers --quick           # a smoke test of a minute

Writes the demo's videos, extracts two networks of random weights, trains LiteEval, a selector and a cascade, and
lets each judge the held-out videos three times: from the cache, and from the files with rows as the backbones give
them (float32) and rounded to the cache's float16. They judge the videos of FOLDER as well, on which nothing was
trained.

"Δp" is a difference of a class probability, "others" counts decisions that are not those of the cache, "open" how
many of them spend: LiteEval's gates, one for each row; or the models of a pool, each of which looks at a video or
does not. LiteEval is also moved to where half of the rows are open. Each video with other decisions is named, and
of LiteEval how far from the threshold the log-odds of the first one are in the cache.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import numpy as np
import numpy.typing as npt
import torch
from joblib import Parallel, delayed

from benchmarks.demo.__main__ import COARSE, FINE, WEIGHTS
from benchmarks.demo.collection import CLASSES, TEST, TRAIN, plan, write_clip
from benchmarks.extraction import video_folder
from benchmarks.tables import as_written, machine, markdown
from cache_schema import FeatureCache
from cache_schema.annotations import LabelSet, VideoLabel
from extract.backbones import parse_stream
from extract.backbones.backbone import Backbone
from extract.batch import extract
from extract.pipeline import Settings as ExtractSettings
from extract.sources import SourceVideo, find_videos
from policy.config import DataConfig
from policy.deploy.engine import Answer, Failure, Settings, run_policy
from policy.deploy.network import Backbones
from policy.deploy.session import open_session
from policy.evaluation.operating import OperatingTarget
from policy.evaluation.predictions import Predictions
from policy.finished import evaluate_run
from policy.liteeval.session import LiteEvalSession
from policy.registry import configure
from policy.runs import run_method
from policy.selection.config import SelectionConfig, with_schedule
from policy.session import Rows, Session

CPU = torch.device("cpu")
GIVEN = "given"
"""The subset of the videos of --videos."""
Flags = npt.NDArray[np.bool_]
HALF = OperatingTarget("usage", 0.5)


@dataclass(frozen=True)
class Collection:
    """Videos, and what was extracted of those that can be read.

    Attributes:
        built: the backbone of each stream, the cheap one first.
        failed: why others could not be extracted, by id.
    """

    sources: Mapping[str, SourceVideo]
    cache: FeatureCache
    labels: LabelSet
    built: Mapping[str, Backbone]
    failed: Mapping[str, str]

    @property
    def streams(self) -> tuple[str, str]:
        coarse, fine = self.built
        return coarse, fine


@click.command(help=as_written(__doc__))
@click.option("--videos", type=click.Path(path_type=Path, exists=True), help="Folder of further videos.")
@click.option("--videos-per-class", default=28, show_default=True, help="Of the demo's, of 8 classes.")
@click.option("--folder", type=click.Path(path_type=Path), help="Keep all here. [default: a temporary one]")
@click.option("--quick", is_flag=True, help="Only to see whether it runs.")
def main(videos: Path | None, videos_per_class: int, folder: Path | None, quick: bool) -> None:
    torch.set_num_threads(1)
    with video_folder(folder) as place:
        data = collected(place, videos, 2 if quick else videos_per_class)
        rows, remarks = [], []
        runs = trained(data, place / "runs", epochs=2 if quick else 30)
        remarks += failures(runs["liteeval"], data)
        for name, run in runs.items():
            for subset in [name for name in (TEST, GIVEN) if name in data.labels.subsets]:
                more, notes = measured(name, run, subset, data)
                rows.append(more)
                remarks += notes
                if name == "liteeval":
                    moved = at_half(run, subset, data)
                    more, notes = measured(f"{name}, half open", moved, subset, data)
                    rows.append(more)
                    remarks += notes
    streams = " and ".join(data.streams)
    videos_written = sum(label.subset != GIVEN for label in data.labels.videos)
    click.echo(f"{streams}, {WEIGHTS}; {videos_written} videos of the demo; {machine()}\n")
    header = ["policy", "videos", "open", "float32: largest Δp", "others", "float16: largest Δp", "others"]
    click.echo(markdown(header, rows))
    for line in ["", *remarks]:
        click.echo(line)


def collected(folder: Path, videos: Path | None, videos_per_class: int) -> Collection:
    """The demo's videos and others, extracted together; labels of the others mean nothing."""
    clips = plan(videos_per_class=videos_per_class, seed=0)
    (folder / "videos").mkdir(exist_ok=True)
    missing = [clip for clip in clips if not (folder / "videos" / f"{clip.name}.mp4").exists()]
    Parallel(os.cpu_count() or 1)(delayed(write_clip)(clip, folder / "videos") for clip in missing)
    built = {
        request.name: Backbone(request, weights=WEIGHTS, device=CPU)
        for request in map(parse_stream, (COARSE, FINE))
    }
    sources = find_videos([folder / "videos", *([] if videos is None else [videos])])
    settings = ExtractSettings(decode_workers=os.cpu_count() or 1, batch=16, deadline_s=120.0)
    outcome = extract(sources, built, folder / "cache", settings)
    labels = [VideoLabel(clip.name, (clip.label,), clip.subset) for clip in clips]
    known = {clip.name for clip in clips} | outcome.failed.keys()
    labels += [VideoLabel(v.id, (CLASSES[0],), GIVEN) for v in sources.videos if v.id not in known]
    by_id = {video.id: video for video in sources.videos}
    labelled = LabelSet(folder / "labels.csv", tuple(labels))
    return Collection(by_id, FeatureCache(folder / "cache"), labelled, built, dict(outcome.failed))


def trained(data: Collection, folder: Path, epochs: int) -> dict[str, Path]:
    """The run folder of each policy."""
    coarse, fine = data.streams
    usual = {"epochs": epochs, "batch": 16}
    liteeval = {"coarse_hidden": 64, "fine_hidden": 128, "gamma": 0.1, "warmup": 0.5, "lr": 1e-3}
    pool = {"models": data.streams, "heads": "linear", "folds": 2}
    settings: dict[str, dict[str, Any]] = {
        "liteeval": {"coarse": coarse, "fine": fine, **liteeval},
        "selector": {**pool, "target": "loss", "budget": 8.0},
        "selector-cascade": {**pool, "budget": 8.0},
    }
    for method, options in settings.items():
        config = configure(method, {**usual, **options})
        if isinstance(config, SelectionConfig):
            config = with_schedule(config, {**usual, **options}.keys())
        run_method(config, data.cache, data.labels, folder / method, device="cpu")
    return {method: folder / method for method in settings}


def at_half(run: Path, subset: str, data: Collection) -> Path:
    """LiteEval at the threshold at which it opens half of the rows of a subset."""
    out = run.with_name(f"{run.name}-half-{subset}")
    config = DataConfig(eval_subset=TRAIN)  # judging others keeps it from refusing
    evaluate_run(run, data.cache, data.labels, config=config, target=HALF, calibrate_subset=subset, out=out)
    return out


def failures(run: Path, data: Collection) -> list[str]:
    """Of each video that could not be extracted the reason, and what run-policy makes of it."""
    session = open_session(run)
    backbones = _backbones(session, data)
    sources = [data.sources[video] for video in data.failed if video in data.sources]
    return [
        f"{one.video.id}: not extracted: {data.failed[one.video.id]}; "
        f"{f'run-policy: {one.reason}' if isinstance(one, Failure) else 'but run-policy has an answer'}"
        for one in run_policy(sources, session, backbones, Settings(4))
    ]


def measured(name: str, run: Path, subset: str, data: Collection) -> tuple[list[str], list[str]]:
    """A row of the table, and remarks."""
    judged = evaluate_run(
        run, data.cache, data.labels, config=DataConfig(eval_subset=subset), described=False
    )
    cached = judged.outcome.judged
    assert isinstance(cached, Predictions)
    session = open_session(run)
    gated = isinstance(session, LiteEvalSession)
    backbones = _backbones(session, data)
    sources = [data.sources[video] for video in cached.video_ids]
    expected = [_of_cache(cached, number, data.streams, gated) for number in range(len(sources))]
    cells, remarks = [], []
    for precision, adapt in ADAPTED.items():
        largest, differing = 0.0, 0
        for outcome in run_policy(sources, session, backbones, Settings(4), adapt=adapt):
            assert isinstance(outcome, Answer), outcome
            video = outcome.video.id
            number = cached.video_ids.index(video)
            change = outcome.probabilities - cached.scores[0, number]
            largest = max(largest, float(np.abs(change).max()))
            others = np.flatnonzero(_of_answer(outcome, data.streams, gated) != expected[number])
            differing += len(others)
            if len(others):
                first = int(others[0])
                where = (
                    _row(session, video, first, data)
                    if isinstance(session, LiteEvalSession)
                    else data.streams[first]
                )
                remarks.append(f"{name}, {video}, {precision}: differs in {where}")
        cells += [f"{largest:.1e}", str(differing)]
    decisions = np.concatenate(expected)
    return [name, f"{len(sources)} {subset}", f"{decisions.sum()} of {len(decisions)}", *cells], remarks


def _backbones(session: Session, data: Collection) -> Backbones:
    backbones = Backbones(session.streams, weights={}, device=CPU)
    backbones.use(data.built)
    return backbones


def _of_cache(cached: Predictions, number: int, streams: tuple[str, str], gated: bool) -> Flags:
    """A video's decisions in the evaluation of the cache."""
    if gated:
        return cached.gates[0, slice(*cached.offsets[number : number + 2])] > 0
    return np.array([cached.ledger[name][0, number] > 0 for name in streams])


def _of_answer(answer: Answer, streams: tuple[str, str], gated: bool) -> Flags:
    """The same decisions as run-policy took them."""
    if not gated:
        return np.array([any(step.stream == name for step in answer.steps) for name in streams])
    rows = {
        name: [row for step in answer.steps if step.stream == name for row in step.rows] for name in streams
    }
    coarse, fine = (rows[name] for name in streams)
    return np.isin(coarse, fine)


def _row(session: LiteEvalSession, video: str, row: int, data: Collection) -> str:
    """The row, and how far from the threshold its log-odds are where the rows come from the cache."""
    margins: list[float] = []
    closed = session._steps.closed

    def watched(*states: Any) -> Any:
        log_odds, after = closed(*states)
        margins.append(float(log_odds[0] - session.model.threshold))
        return log_odds, after

    session.begin()
    coarse, fine = (data.cache[name][video].features for name in data.streams)
    with patch.object(session._steps, "closed", watched):
        for number in range(row + 1):
            if session.look(coarse[number]):
                session.fine(fine[number])
    return f"row {row} first, {margins[-1]:+.1e} from the threshold"


def _as_in_the_cache(rows: Rows) -> Rows:
    return np.asarray(rows).astype(np.float16)


ADAPTED: Mapping[str, Callable[[Rows], Rows]] = {"float32": lambda rows: rows, "float16": _as_in_the_cache}
"""What a policy is given of the rows that a backbone gives."""


if __name__ == "__main__":
    main()
