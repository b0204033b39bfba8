"""run-policy: a trained policy and videos in, an answer for each video out."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as ProgressBar

from cache_schema import UserError
from cache_schema.command import SOME_FAILED, tells_mistakes
from cache_schema.run_folder import CONFIG, read_json
from policy.deploy.arguments import (
    Ids,
    Sources,
    SourceVideo,
    VideosCommand,
    find_videos,
    fingerprint,
    printable,
    takes_videos,
    weights_by_stream,
)
from policy.options import AS_JSON, DEVICE

if TYPE_CHECKING:
    from policy.deploy.engine import Answer, Failure
    from policy.deploy.network import Backbones
    from policy.deploy.predictions_file import PredictionsFile

_LINE_EVERY_S = 30.0  # in a log file


@click.command(cls=VideosCommand)
@click.version_option(package_name="thriftvid")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@takes_videos
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="CSV to write, a line for each video."
)
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Classes in a line.")
@click.option(
    "--trace",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write which rows of which stream were computed, with their instants: a line of JSON for each video.",
)
@click.option(
    "--detections",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the segments that a localizing policy finds: .csv, or .json in ActivityNet's form.",
)
@click.option(
    "--weights",
    multiple=True,
    metavar="[STREAM=]WEIGHTS",
    help="Of the backbones, as in batch-extract; they must be those that the policy was trained on. "
    "[default: pretrained or random:SEED where the run has it so]",
)
@DEVICE
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16"]),
    default="auto",
    show_default=True,
    help="What the backbones compute in; auto: bf16 on a GPU, else fp32.",
)
@click.option(
    "--batch",
    type=click.IntRange(1),
    help="Most frames in a forward pass, those of clips too. [default: 16, on a GPU 128]",
)
@click.option(
    "--in-flight",
    type=click.IntRange(1),
    help="Videos at work together, each with a process that decodes it. [default: twice the cores, at least 4]",
)
@click.option(
    "--memory",
    "kept_gib",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    show_default=True,
    metavar="GIB",
    help="Of decoded frames kept, for all videos in flight. What a policy comes back to later is decoded again.",
)
@click.option(
    "--threads", type=click.IntRange(1), help="Threads of the networks on the CPU. [default: torch's]"
)
@click.option(
    "--deadline",
    type=click.FloatRange(0, min_open=True),
    default=120.0,
    show_default=True,
    help="Seconds that a decoder may take without getting a frame further, before it is given up.",
)
@click.option(
    "--damaged",
    type=click.Choice(["refuse", "keep"]),
    default="refuse",
    show_default=True,
    help="A video that fails in the middle has no answer, or the one from what came before.",
)
@click.option(
    "--decoder",
    type=click.Choice(["auto", "decord", "pyav"]),
    default="auto",
    show_default=True,
    help="As in batch-extract.",
)
@AS_JSON
@click.pass_context
@tells_mistakes
def run_policy(
    context: click.Context,
    run: Path,
    videos: tuple[Path, ...],
    out: Path,
    top: int,
    trace: Path | None,
    detections: Path | None,
    weights: tuple[str, ...],
    ids: Ids,
    frames_fps: float | None,
    root: Path | None,
    device: str,
    precision: str,
    batch: int | None,
    in_flight: int | None,
    kept_gib: float,
    threads: int | None,
    deadline: float,
    damaged: str,
    decoder: str,
    as_json: bool,
) -> None:
    """Apply the policy of RUN, a folder of train-policy, to VIDEOS (files, folders, or lists of paths).

    Only what the policy wants is decoded, resized and computed. What is in the output already is not done again,
    so the same command goes on with a run that was stopped. A video that cannot be read is named with its reason,
    and tried again by the next call. Exit codes: 0 done, 1 done but some videos failed, 2 the request was wrong.

    \b
    Example:
      run-policy runs/liteeval VIDEOS/ --out predictions.csv
      run-policy runs/liteeval VIDEOS/ --out predictions.csv --trace trace.jsonl \\
        --weights resnet101_224=resnet101.safetensors
      run-policy runs/localization VIDEOS/ --out predictions.csv --detections found.json
    """
    sources = find_videos(videos, ids=ids, frames_fps=frames_fps, root=root)
    for note in sources.notes:
        _warn(note)

    import torch

    from policy.deploy.engine import Settings
    from policy.deploy.engine import run_policy as run_engine
    from policy.deploy.network import Backbones, choose_precision
    from policy.deploy.predictions_file import PredictionsFile
    from policy.deploy.session import open_session
    from policy.runs import choose_device
    from policy.session import Localizer

    if threads is not None:
        torch.set_num_threads(threads)
    where = choose_device(device)
    session = open_session(run, device=where)
    if detections is not None and not isinstance(session, Localizer):
        raise UserError(f"--detections {detections}: {run} is a policy that finds no segments")
    names = {name: name for name in session.streams}
    backbones = Backbones(
        session.streams,
        weights=weights_by_stream(weights, names),
        device=where,
        precision=choose_precision(precision, where, _warn),
        batch=batch or (128 if where.type == "cuda" else 16),
        note=_warn,
    )
    settings = Settings(
        in_flight=in_flight or max(4, 2 * (os.cpu_count() or 1)),
        kept_bytes=round(kept_gib * 2**30),
        deadline_s=deadline,
        decoder=decoder,
        keep_damaged=damaged == "keep",
    )
    file = PredictionsFile(
        out,
        run_key=str(read_json(run / CONFIG).get("key", "")),
        classes=session.classes,
        top=top,
        trace=trace,
        detections=detections,
    )
    with contextlib.closing(file):
        if trace is not None and file.untraced:
            _warn(f"{trace}: lacks {file.untraced} videos that were predicted earlier, without it")
        done = _Progress(sources, file)
        with done.shown():
            for outcome in run_engine(done.missing, session, backbones, settings):
                done.add(outcome)
    summary = done.summary(backbones, printable(out))
    for video, reason in done.failed.items():
        click.echo(f"failed: {video}: {reason}", err=True)
    for video, reason in done.partial.items():
        click.echo(f"partial: {video}: {reason}", err=True)
    if as_json:
        click.echo(json.dumps(summary, indent=2, ensure_ascii=False))
    else:
        click.echo(
            f"{summary['videos']} videos: {done.predicted} predicted, {done.present} already there, "
            f"{len(done.failed)} failed{f', {len(done.partial)} partial' * bool(done.partial)}; "
            f"{done.words()}{done.seconds(backbones)}; {out}"
        )
    if done.failed or (done.partial and damaged == "refuse"):
        context.exit(SOME_FAILED)


@dataclass
class _Progress:
    """What is to be done, and what has been.

    Attributes:
        missing: videos that are not in the output.
        partial: reason by video that was not read to its end, also of those of an earlier call.
    """

    sources: Sources
    file: PredictionsFile
    missing: list[SourceVideo] = field(init=False)
    failed: dict[str, str] = field(init=False)
    partial: dict[str, str] = field(default_factory=dict)
    predicted: int = 0
    failures: int = 0
    present: int = 0
    frames: int = 0
    seconds_of_video: float = 0.0
    expensive: int = 0
    available: int = 0
    gflops: Counter[str] = field(default_factory=Counter)
    decoding_s: float = 0.0
    policy_s: float = 0.0
    show: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.missing, self.failed = [], dict(self.sources.refused)
        self.started_s = self._line_s = time.monotonic()
        for video in self.sources.videos:
            earlier = self.file.done.get(video.id)
            if earlier is None:
                self.missing.append(video)
            elif earlier.fingerprint != _content(video):
                self.failed[video.id] = "the output has it already, of a file with another content"
            else:
                self.present += 1
                if earlier.damage:
                    self.partial[video.id] = earlier.damage

    def add(self, outcome: Answer | Failure) -> None:
        from policy.deploy.engine import Failure

        video = outcome.video
        self.decoding_s += outcome.spent.decoding_s
        self.policy_s += outcome.spent.policy_s
        if isinstance(outcome, Failure):
            self.failed[video.id] = outcome.reason
            self.failures += 1
        else:
            self.file.add(outcome, _content(video))
            self.predicted += 1
            if outcome.damage:
                self.partial[video.id] = outcome.damage
            self.frames += outcome.frames_decoded
            self.seconds_of_video += outcome.duration_s
            self.expensive += outcome.expensive_rows[0]
            self.available += outcome.expensive_rows[1]
            self.gflops.update(outcome.gflops)
        self.show()

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """A bar on a terminal; elsewhere a line now and then."""
        console = Console(stderr=True)
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("videos, {task.fields[words]}"))
        with ProgressBar(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
            task = bar.add_task("", total=len(self.missing), words="")

            def show() -> None:
                bar.update(task, completed=self._ended, words=self.words())
                if not console.is_terminal and time.monotonic() - self._line_s > _LINE_EVERY_S:
                    self._line_s = time.monotonic()
                    _warn(f"{self._ended} of {len(self.missing)} videos, {self.words()}")

            self.show = show
            yield

    @property
    def _ended(self) -> int:
        return self.predicted + self.failures

    def words(self) -> str:
        """The rate, the share of expensive rows and the cost so far."""
        elapsed_s = max(time.monotonic() - self.started_s, 1e-9)
        share = self.expensive / max(self.available, 1)
        return (
            f"{self.seconds_of_video / elapsed_s:.1f} s of video/s, {share:.1%} of expensive rows, "
            f"{sum(self.gflops.values()) / max(self.predicted, 1):.2f} GFLOPs a video"
        )

    def seconds(self, backbones: Backbones) -> str:
        """How long it took, and what for. Decoding goes on in processes beside the rest."""
        return (
            f"; {time.monotonic() - self.started_s:.1f} s: decoding {self.decoding_s:.1f} s of CPU, "
            f"networks {sum(backbones.seconds.values()):.1f} s, policy {self.policy_s:.1f} s"
        )

    def summary(self, backbones: Backbones, out: str) -> dict[str, object]:
        """What --json prints. Seconds and GFLOPs are those of this call."""
        return {
            "out": out,
            "videos": len(self.sources.videos) + len(self.sources.refused),
            "predicted": self.predicted,
            "already_there": self.present,
            "failed": self.failed,
            "partial": self.partial,
            "frames_decoded": self.frames,
            "seconds_of_video": self.seconds_of_video,
            "seconds": time.monotonic() - self.started_s,
            "decoding_seconds": self.decoding_s,
            "policy_seconds": self.policy_s,
            "network_seconds": dict(backbones.seconds),
            "rows": dict(backbones.rows),
            "expensive_share": self.expensive / self.available if self.available else None,
            "gflops": dict(self.gflops),
            "gflops_mean": sum(self.gflops.values()) / self.predicted if self.predicted else None,
            "left_out": dict(self.sources.left_out),
        }


def _content(video: SourceVideo) -> str:
    try:
        return fingerprint(video.path, video.frames_fps)
    except OSError:  # the decoder meets the same trouble, and says so
        return ""


def _warn(line: str) -> None:
    click.echo(line, err=True)
