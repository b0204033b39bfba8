"""Seconds per video from its file to its answer, and what they go into.

Policies are run as run-policy runs them. What is done once for all videos is not counted: starting processes,
building networks, their first pass.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from cache_schema import StreamSpec, UserError
from cache_schema.command import count
from policy.data.batches import VideoSet
from policy.deploy.engine import Answer, Engine, Failure, Settings
from policy.deploy.frames import find_videos
from policy.deploy.network import Backbones, CannotRunError
from policy.deploy.session import open_session
from policy.deploy.timing import spread_evenly

if TYPE_CHECKING:
    from extract.sources import SourceVideo

TIMED = 32
"""Videos at most."""
REPEATS = 3
_LONG_S = 60.0  # what takes longer is timed once: over so long a time chance hardly matters


@dataclass(frozen=True)
class TimedVideos:
    """Attributes:
    sources: files of the videos.
    weights: of the streams' networks, as in `Backbones`.
    """

    sources: Sequence[SourceVideo]
    weights: Mapping[str, str]


@dataclass(frozen=True)
class FileSeconds:
    """What a policy took for a video, mean over the videos.

    Attributes:
        decoding_s: CPU seconds of the processes that decode, resize and cut out, while others compute.
        streams_s: in forward passes, by stream.
        policy_s: in the policy's own networks.
        clock_s: from the first file to the last answer, divided by the videos.
    """

    gflops: float
    decoding_s: float
    streams_s: Mapping[str, float]
    policy_s: float
    clock_s: float

    @property
    def computing_s(self) -> float:
        """Without decoding."""
        return sum(self.streams_s.values()) + self.policy_s


def videos_to_time(
    paths: Sequence[Path],
    videos: VideoSet,
    streams: Iterable[StreamSpec],
    weights: Sequence[str],
    *,
    skip_missing: bool,
) -> TimedVideos:
    """Some of the whole videos, spread evenly, by their files.

    Args:
        paths: files, folders and lists of batch-extract.
        streams: those of all policies.
        weights: of --weights.
        skip_missing: leave out videos that have no file.

    Raises:
        UserError: a video has no file, or the weights of a stream are not known.
    """
    from extract.backbones import names_of, weights_by_stream
    from extract.sources import SourceVideo

    found = find_videos(paths, videos.ids)
    missing = [video for video in videos.ids if video not in found]
    if missing and not skip_missing:
        raise UserError(
            f"--videos: {len(missing):,} of the {len(videos):,} videos of subset {videos.subset!r} have no file, "
            f"{missing[0]!r} for example; --skip-missing leaves them out"
        )
    specs = {spec.name: spec for spec in streams}
    chosen = weights_by_stream(weights, names_of(specs))
    for name, spec in specs.items():
        with contextlib.suppress(CannotRunError):  # that row has no time
            Backbones({name: spec}, weights=_of({name}, chosen), device=torch.device("cpu"))
    stream = next(iter(videos.streams.values()))
    whole = [video for video in videos.ids if video in found and stream[video].damage is None]
    if not whole:
        raise UserError(f"--videos: none of the {len(videos):,} videos of subset {videos.subset!r} is whole")
    sources = [
        SourceVideo(video, found[video], stream[video].fps if found[video].is_dir() else None)
        for video in spread_evenly(whole, TIMED)
    ]
    return TimedVideos(sources, chosen)


def measure_files(
    runs: Mapping[str, Path],
    videos: TimedVideos,
    *,
    device: torch.device,
    precision: str,
    batch: int,
    report: Callable[[str], None],
) -> tuple[dict[str, FileSeconds], dict[str, str]]:
    """Time the policies of runs in turn, REPEATS times; the run with the median clock counts.

    Args:
        runs: folders by name.
        report: called with what is timed next, and as `note` of `Backbones`.

    Returns:
        The times by name, and for those of which a network cannot be built the reason.

    Raises:
        UserError: as `seconds_from_files`.
    """
    times: dict[str, list[FileSeconds]] = {}
    reasons: dict[str, str] = {}
    for turn in range(1, REPEATS + 1):
        for name, run in runs.items():
            long = name in times and times[name][0].clock_s * len(videos.sources) > _LONG_S
            if name in reasons or long:
                continue
            how = f"{count(len(videos.sources), 'videos')}, {device.type}, batches of {batch}"
            report(f"timing {name}, round {turn} of {REPEATS}: {how}")
            try:
                seconds = seconds_from_files(
                    run, videos, device=device, precision=precision, batch=batch, note=report
                )
                times.setdefault(name, []).append(seconds)
            except CannotRunError as error:
                reasons[name] = str(error)
    medians = {
        name: sorted(turns, key=lambda turn: turn.clock_s)[len(turns) // 2] for name, turns in times.items()
    }
    return medians, reasons


def seconds_from_files(
    run: Path,
    videos: TimedVideos,
    *,
    device: torch.device,
    precision: str,
    batch: int,
    note: Callable[[str], None],
) -> FileSeconds:
    """Time the policy of a run on videos.

    Args:
        precision: "fp32" or "bf16", of the backbones.
        batch: videos at work together, and rows in a forward pass.
        note: as in `Backbones`.

    Raises:
        CannotRunError: the network of a stream cannot be built.
        UserError: a video cannot be read, or weights are not those of the run.
    """
    session = open_session(run, device=device)
    backbones = _RowBatches(
        session.streams,
        weights=_of(session.streams, videos.weights),
        device=device,
        precision=precision,
        batch=batch,
        note=note,
    )
    with contextlib.closing(
        Engine(session, backbones, Settings(in_flight=min(batch, len(videos.sources))))
    ) as engine:
        engine.start_processes(len(videos.sources))
        for name, view in backbones.views.items():
            backbones(name, [np.zeros((batch, *view.row_shape), view.dtype)])
        _answers(engine, videos.sources[:1])
        backbones.seconds.clear()
        started_s = time.perf_counter()
        answers = _answers(engine, videos.sources)
        clock_s = time.perf_counter() - started_s
    videos_done = len(answers)
    return FileSeconds(
        gflops=sum(sum(answer.gflops.values()) for answer in answers) / videos_done,
        decoding_s=sum(answer.spent.decoding_s for answer in answers) / videos_done,
        streams_s={name: backbones.seconds[name] / videos_done for name in session.streams},
        policy_s=sum(answer.spent.policy_s for answer in answers) / videos_done,
        clock_s=clock_s / videos_done,
    )


def _of(streams: Iterable[str], weights: Mapping[str, str]) -> dict[str, str]:
    return {name: weights[name] for name in streams if name in weights}


class _RowBatches(Backbones):
    """Whose batches are counted in rows, whatever a row's frames."""

    def batch_rows(self, stream: str) -> int:
        return self._batch


def _answers(engine: Engine, sources: Sequence[SourceVideo]) -> list[Answer]:
    answers = []
    for outcome in engine.run(iter(sources)):
        if isinstance(outcome, Failure):
            raise UserError(f"{outcome.video.path}: {outcome.reason}")
        answers.append(outcome)
    return answers
