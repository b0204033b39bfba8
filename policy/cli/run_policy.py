"""run-policy: a trained policy and videos in, an answer for each video out."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as ProgressBar

from cache_schema import UserError
from cache_schema.command import (
    AS_JSON,
    DEVICE,
    SOME_FAILED,
    check_scheduler,
    count,
    jobs_options,
    tells_mistakes,
)
from cache_schema.files import printable
from cache_schema.run_folder import CONFIG, read_json
from policy.deploy.arguments import (
    Ids,
    Sources,
    SourceVideo,
    VideosCommand,
    find_videos,
    fingerprint,
    options,
    takes_videos,
)

if TYPE_CHECKING:
    from policy.deploy.engine import Answer, Failure
    from policy.deploy.network import Backbones
    from policy.deploy.predictions_file import PredictionsFile

_LINE_EVERY_S = 30.0  # in a log file
_EARLIER = "known from an earlier call; --retry-failed tries again"


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
@options.weights(
    " They must be those that the policy was trained on. [default: pretrained or random:SEED where the run "
    "has it so]"
)
@DEVICE
@options.PRECISION
@options.BATCH
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
@options.THREADS
@options.DEADLINE
@jobs_options(
    "Processes that each do whole videos: one for each GPU, say. --in-flight, --memory and --threads are then for "
    "each.",
    "runs the jobs",
    "Videos, weights and RUN",
)
@options.damaged("A video that fails in the middle has no answer, or the one from what came before.")
@options.DECODER
@options.retry_failed("videos that had no answer in an earlier call")
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
    deadline_s: float,
    jobs: int,
    backend: str,
    scheduler: str | None,
    damaged: str,
    decoder: str,
    retry_failed: bool,
    as_json: bool,
) -> None:
    """Apply the policy of RUN, a folder of train-policy, to VIDEOS (files, folders, or lists of paths).

    Only what the policy wants is decoded, resized and computed. What is in the output already is not done again,
    so the same command goes on with a run that was stopped. A video that cannot be read is named with its reason,
    here and in PREDICTIONS.failed.csv, and not tried again but with --retry-failed. Exit codes: 0 done, 1 done but
    some videos failed, 2 the request was wrong.

    \b
    Example:
      run-policy runs/liteeval VIDEOS/ --out predictions.csv
      run-policy runs/liteeval VIDEOS/ --out predictions.csv --trace trace.jsonl \\
        --weights resnet101_224=resnet101.safetensors
      run-policy runs/localization VIDEOS/ --out predictions.csv --detections found.json
      run-policy runs/liteeval VIDEOS/ --out predictions.csv --jobs 4
    """
    check_scheduler(backend, scheduler)
    run_key = str(read_json(run / CONFIG).get("key", ""))
    sources = find_videos(videos, ids=ids, frames_fps=frames_fps, root=root)
    for note in sources.notes:
        _warn(note)

    import torch

    from policy.deploy.applying import prepare
    from policy.deploy.engine import run_policy as run_engine
    from policy.deploy.jobs import run_by_jobs
    from policy.deploy.predictions_file import PredictionsFile
    from policy.session import Localizer

    many = backend == "dask" or jobs > 1
    if many:
        threads = threads or (max(1, (os.cpu_count() or 1) // jobs) if backend == "loky" else None)
    elif threads is not None:
        torch.set_num_threads(threads)
    ready = prepare(
        run,
        weights=weights,
        device=device,
        precision=precision,
        batch=batch,
        threads=threads,
        in_flight=in_flight,
        kept_gib=kept_gib,
        deadline_s=deadline_s,
        decoder=decoder,
        damaged=damaged,
        jobs=jobs,
        elsewhere=many,
        note=_warn,
    )
    session, backbones, recipe = ready.session, ready.backbones, ready.recipe
    if detections is not None and not isinstance(session, Localizer):
        raise UserError(f"--detections {detections}: {run} is a policy that finds no segments")
    file = PredictionsFile(
        out,
        run_key=run_key,
        classes=session.classes,
        top=top,
        trace=trace,
        detections=detections,
    )
    with file:
        if trace is not None and file.untraced:
            _warn(f"{trace}: lacks {count(file.untraced, 'videos')}, predicted earlier without it")
        done = _Progress(sources.absolute() if many else sources, file, damaged == "keep", retry_failed)
        if many:
            outcomes = run_by_jobs(
                done.handed_out(),
                recipe,
                backbones,
                total=len(done.missing),
                jobs=jobs,
                scheduler=scheduler,
                note=_warn,
            )
        else:
            in_flight = max(1, min(recipe.settings.in_flight, len(done.missing)))
            settings = replace(recipe.settings, in_flight=in_flight)
            outcomes = run_engine(done.handed_out(), session, backbones, settings)
        with done.shown(), contextlib.closing(outcomes):
            for outcome in outcomes:
                done.add(outcome)
    done.tell(backbones, out, as_json=as_json)
    if done.failed or (done.partial and damaged == "refuse"):
        context.exit(SOME_FAILED)


@dataclass
class _Progress:
    """What is to be done, and what has been.

    Attributes:
        keep_damaged: the answer from the beginning of a video will do.
        retry_failed: try videos again that failed in an earlier call.
        missing: videos that are to be done.
        partial: reason by video that was not read to its end, also of those of an earlier call.
    """

    sources: Sources
    file: PredictionsFile
    keep_damaged: bool
    retry_failed: bool
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
        self._contents: dict[str, str] = {}  # of videos at work, as they were when they were handed out
        for video in self.sources.videos:
            earlier = self.file.done.get(video.id)
            if earlier is None:
                if reason := self._known_failure(video):
                    self.failed[video.id] = f"{reason} ({_EARLIER})"
                else:
                    self.missing.append(video)
            elif earlier.fingerprint != _content(video):
                self.failed[video.id] = "the output has it already, of a file with another content"
            else:
                self.present += 1
                if earlier.damage:
                    self.partial[video.id] = earlier.damage

    def _known_failure(self, video: SourceVideo) -> str | None:
        """Why there is no need to try a video."""
        known = self.file.failed.get(video.id)
        if known is None or self.retry_failed or (self.keep_damaged and not known.keep_damaged):
            return None
        return known.reason if known.fingerprint == _content(video) else None

    def handed_out(self) -> Iterator[SourceVideo]:
        """The missing videos, each looked at before it is read."""
        for video in self.missing:
            self._contents[video.id] = _content(video)
            yield video

    def add(self, outcome: Answer | Failure) -> None:
        from policy.deploy.engine import Failure

        video = outcome.video
        self.decoding_s += outcome.spent.decoding_s
        self.policy_s += outcome.spent.policy_s
        content = self._contents.pop(video.id)
        if not isinstance(outcome, Failure) and content != _content(video):
            outcome = Failure(
                video, "the file was changed while it was read; the next call takes the new one"
            )
        if isinstance(outcome, Failure):
            self.failed[video.id] = outcome.reason
            self.file.add_failed(video.id, outcome.reason, content, keep_damaged=self.keep_damaged)
            self.failures += 1
        else:
            self.file.add(outcome, content)
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

    def tell(self, backbones: Backbones, out: Path, *, as_json: bool) -> None:
        """Print what has come of the videos."""
        summary = self.summary(backbones, printable(out))
        for word, reasons in (("failed", self.failed), ("partial", self.partial)):
            for video, reason in reasons.items():
                click.echo(f"{word}: {video}: {reason}", err=True)
        if as_json:
            click.echo(json.dumps(summary, indent=2, ensure_ascii=False))
        else:
            videos = len(self.sources.videos) + len(self.sources.refused)
            click.echo(
                f"{count(videos, 'videos')}: {self.predicted} predicted, {self.present} already there, "
                f"{len(self.failed)} failed{f', {len(self.partial)} partial' * bool(self.partial)}; "
                f"{summary['out']}"
            )
            if self.predicted:
                click.echo(f"{self.words()}\n{self.seconds(backbones)}")

    def seconds(self, backbones: Backbones) -> str:
        """How long it took, and what for. Decoding goes on in processes beside the rest."""
        return (
            f"{time.monotonic() - self.started_s:.1f} s: decoding {self.decoding_s:.1f} s of CPU, "
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
