"""The trace of run-policy: a line of JSON for each video, with every step that the policy took in it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cache_schema import UserError
from policy.deploy.engine import Answer, Step


@dataclass(frozen=True, eq=False)
class TracedVideo:
    """A line.

    Attributes:
        gflops: by the name of the stream or network.
        answer: probabilities of the likeliest classes, the most likely first; empty in traces of earlier versions.
        steps: in order, at least one.
        streams: GFLOPs of a row of every stream that the policy could have computed; empty in traces of earlier
            versions.
    """

    video_id: str
    duration_s: float
    gflops: Mapping[str, float]
    answer: Mapping[str, float]
    steps: Sequence[Step]
    streams: Mapping[str, float] = field(default_factory=dict)


def trace_line(answer: Answer, run: str, probabilities: Mapping[str, float]) -> str:
    """The line of a video.

    Args:
        run: which run the answer is of, as in the predictions.
        probabilities: of the likeliest classes.
    """
    steps = [
        {
            "stream": step.stream,
            "rows": step.rows.tolist(),
            "spans_s": np.round(step.spans_s, 6).tolist(),
            "gflops": round(step.gflops, 6),
        }
        for step in answer.steps
    ]
    content = {
        "video_id": answer.video.id,
        "run": run,
        "duration_s": round(answer.duration_s, 6),
        "gflops": {name: round(value, 6) for name, value in answer.gflops.items()},
        "answer": {name: round(value, 6) for name, value in probabilities.items()},
        "streams": {name: round(value, 6) for name, value in answer.streams.items()},
        "steps": steps,
    }
    return json.dumps(content, ensure_ascii=False) + "\n"


def read_trace(path: Path) -> dict[str, TracedVideo]:
    """The videos of a trace, by id, in its order.

    Raises:
        UserError: it cannot be read, a line is damaged, or there is none.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    videos = {}
    for number, line in enumerate(lines, 1):
        try:
            video = _video(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise UserError(
                f"{path}: line {number} is not of a trace, or not whole: give the run-policy command that writes "
                "it once more"
            ) from error
        videos[video.video_id] = video
    if not videos:
        raise UserError(
            f"{path}: is empty: run-policy writes a line for each video that it has an answer for"
        )
    return videos


def _video(content: Mapping[str, Any]) -> TracedVideo:
    """Raises ValueError, KeyError, TypeError or the like where the content is another."""
    steps = []
    for step in content["steps"]:
        rows, spans_s = np.array(step["rows"], np.int64), np.array(step["spans_s"], np.float64)
        if rows.ndim != 1 or not len(rows) or spans_s.shape != (len(rows), 2):
            raise ValueError("no rows, or not as many spans")
        steps.append(Step(str(step["stream"]), rows, spans_s, float(step["gflops"])))
    gflops, answer, streams = (
        {str(name): float(value) for name, value in content.get(part, {}).items()}
        for part in ("gflops", "answer", "streams")
    )
    video = TracedVideo(
        str(content["video_id"]), float(content["duration_s"]), gflops, answer, tuple(steps), streams
    )
    numbers = [
        np.array([video.duration_s, *gflops.values(), *answer.values(), *streams.values()]),
        *(np.append(step.spans_s, step.gflops) for step in steps),
    ]
    if not steps or not all(np.isfinite(part).all() and (part >= 0).all() for part in numbers):
        raise ValueError("no steps, or numbers that are not finite or below 0")
    return video
