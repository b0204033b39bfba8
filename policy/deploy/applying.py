"""A trained policy on video files: what run-policy and `policy.Run.apply` prepare alike, and answers in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from cache_schema.command import count
from cache_schema.frames import table_of
from policy.deploy.arguments import Sources, absolute_weights, names_of, weights_by_stream
from policy.deploy.engine import Answer, Failure, Settings, run_policy
from policy.deploy.jobs import Recipe
from policy.deploy.network import Backbones, choose_precision
from policy.deploy.session import open_session
from policy.runs import RESULT, choose_device
from policy.session import Session

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Prepared:
    """A policy that is ready for videos, in this process or, by the recipe, in others."""

    session: Session
    backbones: Backbones
    recipe: Recipe


def prepare(
    run: Path,
    *,
    weights: Sequence[str] = (),
    device: str = "auto",
    precision: str = "auto",
    batch: int | None = None,
    threads: int | None = None,
    in_flight: int | None = None,
    kept_gib: float = 1.0,
    deadline_s: float = 120.0,
    decoder: str = "auto",
    damaged: str = "refuse",
    jobs: int = 1,
    elsewhere: bool = False,
    note: Callable[[str], None] = print,
) -> Prepared:
    """Open the run in a folder.

    Args:
        run, …, jobs: as run-policy's options have them.
        elsewhere: other processes do the work.

    Raises:
        UserError: the folder holds no run that works on videos, or an option does not fit it.
    """
    cores = max(1, (os.cpu_count() or 1) // jobs)  # for each job
    where = choose_device(device)
    session = open_session(run, device=torch.device("cpu") if elsewhere else where)
    chosen = weights_by_stream(weights, names_of(session.streams))
    recipe = Recipe(
        run=run.absolute(),
        weights=tuple((stream, absolute_weights(value)) for stream, value in chosen.items()),
        device="cuda" if device in ("auto", "cuda") and where.type == "cuda" else str(where),
        precision=choose_precision(precision, where, note),
        batch=batch or (128 if where.type == "cuda" else 16),
        threads=threads,
        settings=Settings(
            in_flight=in_flight or max(4, 2 * cores),
            kept_bytes=round(kept_gib * 2**30),
            deadline_s=deadline_s,
            decoder=decoder,
            keep_damaged=damaged == "keep",
        ),
        finished_ns=(run / RESULT).stat().st_mtime_ns,
    )
    return Prepared(session, recipe.backbones(session.streams, where, note), recipe)


@dataclass(frozen=True, repr=False)
class Answers(Mapping[str, Answer]):
    """What a policy says of M videos, by id, and why it says nothing of the others.

    Attributes:
        classes: names of the C classes.
        failed: reasons by video, or file.
    """

    classes: tuple[str, ...]
    outcomes: Mapping[str, Answer]
    failed: Mapping[str, str]

    def __getitem__(self, video_id: str) -> Answer:
        return self.outcomes[video_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self.outcomes)

    def __len__(self) -> int:
        return len(self.outcomes)

    @property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """(M, C), in the order of the videos."""
        rows = [answer.probabilities for answer in self.values()]
        return np.array(rows, np.float64).reshape(len(rows), len(self.classes))

    @property
    def gflops(self) -> npt.NDArray[np.float64]:
        """(M,): 10⁹ MACs, of backbones and policy."""
        return np.array([sum(answer.gflops.values()) for answer in self.values()], np.float64)

    def to_frame(self, top: int = 5) -> pd.DataFrame:
        """As a table of pandas, with the columns of run-policy's CSV: a line for each video.

        Args:
            top: how many classes a line has.

        Raises:
            UserError: pandas is not installed.
        """
        columns: dict[str, Any] = {"video_id": list(self)}
        best = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :top]
        for rank in range(best.shape[1]):
            columns[f"label_{rank + 1}"] = [self.classes[place] for place in best[:, rank]]
            columns[f"probability_{rank + 1}"] = self.probabilities[np.arange(len(self)), best[:, rank]]
        answers = list(self.values())
        columns["gflops"] = self.gflops
        columns["expensive_share"] = [one.expensive_rows[0] / one.expensive_rows[1] for one in answers]
        columns["duration_s"] = [answer.duration_s for answer in answers]
        columns["damage"] = [answer.damage for answer in answers]
        return table_of(columns, index=("video_id",))

    def __repr__(self) -> str:
        lines = [
            f"Answers({count(len(self), 'videos')} of {len(self.classes)} classes, {len(self.failed)} failed)"
        ]
        lines += [
            f"  {video_id}: {self.classes[int(answer.probabilities.argmax())]} "
            f"({answer.probabilities.max():.3f}), {sum(answer.gflops.values()):.3f} GFLOPs"
            for video_id, answer in list(self.items())[:_SHOWN]
        ]
        lines += [f"  … and {len(self) - _SHOWN:,} more"] * (len(self) > _SHOWN)
        return "\n".join(lines)


_SHOWN = 10  # videos in a repr


def answers_to(sources: Sources, ready: Prepared) -> Answers:
    """What a policy says of videos, in this process."""
    settings = ready.recipe.settings
    settings = replace(settings, in_flight=max(1, min(settings.in_flight, len(sources.videos))))
    found: dict[str, Answer] = {}
    failed = dict(sources.refused)
    for outcome in run_policy(sources.videos, ready.session, ready.backbones, settings):
        if isinstance(outcome, Failure):
            failed[outcome.video.id] = outcome.reason
        else:
            found[outcome.video.id] = outcome
    in_order = {video.id: found[video.id] for video in sources.videos if video.id in found}
    return Answers(ready.session.classes, in_order, failed)
