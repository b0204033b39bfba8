"""batch-extract: videos to a feature cache."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from cache_schema.command import (
    AS_JSON,
    DEVICE,
    SOME_FAILED,
    group_reasons,
    jobs_options,
    tells_mistakes,
)
from extract import options
from extract.api import Extraction, extract
from extract.backbones import BUILT_IN, FLOWS
from extract.video_arguments import VideosCommand, takes_videos


@click.command(cls=VideosCommand)
@click.version_option(package_name="thriftvid")
@takes_videos
@click.option("--cache", required=True, type=click.Path(path_type=Path), help="Folder of the feature cache.")
@click.option(
    "--stream",
    "streams",
    multiple=True,
    required=True,
    metavar="NAME",
    help=f"What to extract; may be repeated: {', '.join(BUILT_IN)}, timm:NAME@SIZE, torchvision:NAME[@SIZE], or "
    "transformers:REPOSITORY.",
)
@options.weights("", default=["pretrained"], show_default=True)
@click.option("--fps", type=float, help="Rows a second, of frames and snippets; other streams if not 1.")
@click.option("--clips", type=int, help="Clips a video, of x3d_* and torchvision:*; other streams if not 10.")
@click.option("--crops", type=int, help="Crops of each such clip, 1 or 3; other streams if not 1.")
@click.option(
    "--flow",
    metavar="METHOD",
    help=f"How i3d_flow_* estimates flow: {', '.join(FLOWS)}; another stream if not tvl1.",
)
@click.option(
    "--size",
    type=int,
    metavar="PIXELS",
    help="Along each side of the input of networks that see clips and of efficientnet_lite*, which cost in "
    "proportion to its square; other streams if not their usual ones.",
)
@DEVICE
@options.PRECISION
@options.BATCH
@options.WORKERS
@options.THREADS
@options.DEADLINE
@click.option(
    "--shard-size", type=click.IntRange(1), default=256, show_default=True, help="Videos in a shard file."
)
@jobs_options(
    "Processes that each do whole shards: one for each GPU, say. --workers and --threads are then for each.",
    "runs the jobs",
    "Videos, weights and the cache",
)
@options.damaged(
    "A video that does not decode right as a whole fails, or its rows that do are kept and it is partial."
)
@options.DECODER
@options.retry_failed("what an earlier run could not read, or only in part")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Only say what would be done and, from a few seconds of it, about how long it would take. Pretrained "
    "weights need not be there.",
)
@AS_JSON
@click.pass_context
@tells_mistakes
def batch_extract(
    context: click.Context,
    /,
    videos: tuple[Path, ...],
    cache: Path,
    streams: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Extract features of VIDEOS (files, folders, or lists of paths in .txt or .csv) into a cache.

    Every video is decoded once for all streams. What the cache has already is not done again, so the same
    command resumes a run that was stopped. A video that cannot be read is named with its reason, and the
    run goes on. Exit codes: 0 done, 1 done but some videos failed, 2 the request was wrong. A partial video is
    named, too: with --damaged keep it is what was asked for (0), without it is not (1), also where an earlier run
    has kept it.

    \b
    Example:
      batch-extract VIDEOS/ --cache CACHE --stream mobilenetv2_112 --stream resnet101_224
      batch-extract VIDEOS/ --cache CACHE --stream timm:resnet18@224 --weights random:0
      batch-extract VIDEOS/ --cache CACHE --stream resnet101_224 --dry-run
      batch-extract FRAMES/ --frames-fps 25 --cache CACHE --stream mobilenetv2_112
    """
    done = extract(videos, cache, streams, dry_run=dry_run, note=_warn, **given)
    if done.outcome is not None:
        _remark(done.outcome.remarks, done.partial)
    _tell("would fail" if dry_run else "failed", done, as_json=as_json)
    if not dry_run and (done.failed or (done.partial and given["damaged"] == "refuse")):
        context.exit(SOME_FAILED)


def _remark(remarks: Mapping[str, Sequence[str]], partial: Mapping[str, str]) -> None:
    """Name what is odd about videos, those that are alike in one line, and each of which there is only a part."""
    alike = group_reasons((video, line) for video, lines in remarks.items() for line in lines)
    for remark, (number, example) in alike.items():
        click.echo(f"remark: {number:,} × {remark}, e.g. {example!r}", err=True)
    for video, reason in partial.items():
        click.echo(f"partial: {video}: {reason}", err=True)


def _tell(word: str, done: Extraction, *, as_json: bool) -> None:
    for video, reason in done.failed.items():
        click.echo(f"{word}: {video}: {reason}", err=True)
    click.echo(json.dumps(done.as_json(), indent=2, ensure_ascii=False) if as_json else str(done))


def _warn(line: str) -> None:
    click.echo(line, err=True)
