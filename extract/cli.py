"""batch-extract: videos to a feature cache."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar

from cache_schema import UserError
from cache_schema.command import SOME_FAILED, tells_mistakes
from extract.backbones import BUILT_IN, parse_stream
from extract.sources import Ids, find_videos, printable

if TYPE_CHECKING:  # torch is slow to import, and `--help` does without
    import torch

    from extract.backbones.timm2d import Backbone
    from extract.pipeline import Progress


@click.command()
@click.version_option(package_name="thriftvid")
@click.argument("videos", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--cache", required=True, type=click.Path(path_type=Path), help="Folder of the feature cache.")
@click.option(
    "--stream",
    "streams",
    multiple=True,
    required=True,
    metavar="NAME",
    help=f"What to extract; may be repeated: {', '.join(BUILT_IN)}, or timm:NAME@SIZE.",
)
@click.option(
    "--weights",
    "weights",
    multiple=True,
    default=["pretrained"],
    show_default=True,
    metavar="[STREAM=]WEIGHTS",
    help="pretrained, random:SEED, or a FILE (.safetensors, whose metadata may "
    'name the classes: {"classes": "[…JSON list…]"}; or a torch checkpoint of tensors); '
    "for one stream of several: STREAM=WEIGHTS.",
)
@click.option(
    "--fps", default=1.0, show_default=True, help="Rows a second; other than 1 makes other streams."
)
@click.option(
    "--ids",
    type=click.Choice(["stem", "path"]),
    default="stem",
    show_default=True,
    help="Call a video by its file name without ending, or by its path below the given folder.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, …")
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16"]),
    default="auto",
    show_default=True,
    help="What the networks compute in; auto: bf16 on a GPU, else fp32.",
)
@click.option("--batch", type=click.IntRange(1), help="Frames in a forward pass. [default: 16, on a GPU 128]")
@click.option(
    "--workers", type=click.IntRange(1), help="Processes that decode. [default: the number of cores]"
)
@click.option(
    "--threads", type=click.IntRange(1), help="Threads of the networks on the CPU. [default: torch's]"
)
@click.option(
    "--deadline",
    type=click.FloatRange(0, min_open=True),
    default=120.0,
    show_default=True,
    help="Seconds that a video may take to decode beyond its own duration.",
)
@click.option(
    "--shard-size", type=click.IntRange(1), default=256, show_default=True, help="Videos in a shard file."
)
@click.option("--retry-failed", is_flag=True, help="Try again what an earlier run could not read.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@click.pass_context
@tells_mistakes
def batch_extract(
    context: click.Context,
    videos: tuple[Path, ...],
    cache: Path,
    streams: tuple[str, ...],
    weights: tuple[str, ...],
    fps: float,
    ids: Ids,
    device: str,
    precision: str,
    batch: int | None,
    workers: int | None,
    threads: int | None,
    deadline: float,
    shard_size: int,
    retry_failed: bool,
    as_json: bool,
) -> None:
    """Extract features of VIDEOS (files, folders, or a .txt list of paths) into a cache.

    Every video is decoded once for all streams. What the cache has already is not done again, so the same
    command resumes a run that was stopped. A video that cannot be read is named with its reason, and the
    run goes on. Exit codes: 0 done, 1 done but some videos failed, 2 the request was wrong.

    \b
    Example:
      batch-extract VIDEOS/ --cache CACHE --stream mobilenetv2_112 --stream resnet101_224
      batch-extract VIDEOS/ --cache CACHE --stream timm:resnet18@224 --weights random:0
    """
    sources = find_videos(videos, ids=ids)
    requests = [parse_stream(name, fps=fps) for name in dict.fromkeys(streams)]
    chosen = _weights_by_stream(weights, streams)
    if sources.ignored:
        click.echo(f"left out for not ending like a video's: {sources.ignored} of the files found", err=True)

    import torch

    from extract.backbones.timm2d import Backbone
    from extract.batch import extract, tool_versions
    from extract.pipeline import Settings

    if threads is not None:
        torch.set_num_threads(threads)
    where = _device(device)
    if precision == "auto":
        precision = "bf16" if where.type == "cuda" else "fp32"
    backbones: dict[str, Backbone] = {}
    for text, request in zip(dict.fromkeys(streams), requests, strict=True):
        if request.name not in backbones:
            backbones[request.name] = Backbone(
                request, weights=chosen[text], device=where, precision=precision
            )
    settings = Settings(
        decode_workers=workers or os.cpu_count() or 1,
        batch=batch or (128 if where.type == "cuda" else 16),
        deadline_s=deadline,
    )
    with _progress(Console(stderr=True)) as report:
        outcome = extract(
            sources,
            backbones,
            cache,
            settings,
            shard_size=shard_size,
            retry_failed=retry_failed,
            tools=tool_versions(precision, where.type),
            report=report,
        )
    for video, reason in outcome.failed.items():
        click.echo(f"failed: {video}: {reason}", err=True)
    summary: dict[str, Any] = {
        "cache": printable(cache),
        "streams": list(backbones),
        "videos": len(sources.videos) + len(sources.refused),
        "extracted": outcome.extracted,
        "already_there": outcome.present,
        "failed": outcome.failed,
        "frames_decoded": outcome.rows,
    }
    if as_json:
        click.echo(json.dumps(summary, indent=2, ensure_ascii=False))
    else:
        click.echo(
            f"{summary['videos']} videos: {outcome.extracted} extracted ({outcome.rows} frames), "
            f"{outcome.present} already there, {len(outcome.failed)} failed; "
            f"cache {cache} has {' and '.join(backbones)}"
        )
    if outcome.failed:
        context.exit(SOME_FAILED)


def _weights_by_stream(weights: tuple[str, ...], streams: tuple[str, ...]) -> dict[str, str]:
    """STREAM=WEIGHTS for that stream, a plain WEIGHTS for the rest."""
    chosen: dict[str, str] = {}
    rest = "pretrained"
    for value in weights:
        stream, equals, given = value.partition("=")
        if equals and stream in streams:
            chosen[stream] = given
        elif equals and not Path(value).exists():
            raise UserError(f"--weights {value}: {stream!r} is none of the streams asked for")
        else:
            rest = value
    return {stream: chosen.get(stream, rest) for stream in streams}


def _device(name: str) -> torch.device:
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"--device {name}: not to be had here ({str(error).splitlines()[0]})") from error
    return device


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[Progress], None]]:
    """A bar with rate and time left on a terminal; elsewhere a line now and then."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    with ProgressBar(
        TextColumn("extracting"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("videos, {task.fields[rate]:.1f} frames/s, {task.fields[failed]} failed; took"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    ) as bar:
        task = bar.add_task("extracting", total=None, rate=0.0, failed=0)

        def report(progress: Progress) -> None:
            bar.update(
                task,
                total=progress.videos_total,
                completed=progress.videos_done,
                rate=progress.rows_done / progress.elapsed_s,
                failed=len(progress.failures),
            )

        yield report


class _Lines:
    """Progress for a log file: a line every half minute."""

    EVERY_S = 30.0

    def __init__(self, console: Console) -> None:
        self._console = console
        self._printed_s = 0.0

    def __call__(self, progress: Progress) -> None:
        elapsed_s = progress.elapsed_s
        if elapsed_s - self._printed_s < self.EVERY_S:
            return
        self._printed_s = elapsed_s
        left = "?"
        if progress.videos_done:
            left = f"{elapsed_s / progress.videos_done * (progress.videos_total - progress.videos_done):.0f}"
        self._console.print(
            f"{progress.videos_done} of {progress.videos_total} videos, "
            f"{progress.rows_done / elapsed_s:.1f} frames/s, {len(progress.failures)} failed, "
            f"about {left} s left",
            highlight=False,
        )
