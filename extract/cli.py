"""batch-extract: videos to a feature cache."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from cache_schema import UserError
from cache_schema.command import (
    AS_JSON,
    DEVICE,
    SOME_FAILED,
    check_scheduler,
    count,
    group_reasons,
    jobs_options,
    tells_mistakes,
)
from cache_schema.files import printable
from extract import options
from extract.backbones import (
    BUILT_IN,
    FLOWS,
    StreamRequest,
    absolute_weights,
    parse_stream,
    weights_by_stream,
)
from extract.planning import Outcome, nothing_to_do
from extract.sources import Ids, Sources, find_videos
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
    videos: tuple[Path, ...],
    cache: Path,
    streams: tuple[str, ...],
    weights: tuple[str, ...],
    fps: float | None,
    clips: int | None,
    crops: int | None,
    size: int | None,
    flow: str | None,
    ids: Ids,
    frames_fps: float | None,
    root: Path | None,
    device: str,
    precision: str,
    batch: int | None,
    workers: int | None,
    threads: int | None,
    deadline: float,
    shard_size: int,
    jobs: int,
    backend: str,
    scheduler: str | None,
    damaged: str,
    decoder: str,
    retry_failed: bool,
    dry_run: bool,
    as_json: bool,
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
    sources = find_videos(videos, ids=ids, frames_fps=frames_fps, root=root)
    streams = tuple(dict.fromkeys(streams))
    unusual: dict[str, Any] = {"fps": fps, "clips": clips, "crops": crops, "flow": flow, "size": size}
    requests = [parse_stream(name, **unusual) for name in streams]
    check_scheduler(backend, scheduler)
    _all_apply(requests, **unusual)
    names = [request.name for request in requests]
    chosen = weights_by_stream(weights, dict(zip(names, streams, strict=True)))
    for note in sources.notes:
        click.echo(note, err=True)
    pairs = {request.name: (request, chosen[text]) for text, request in zip(streams, requests, strict=True)}

    if not dry_run and not retry_failed:  # networks and decoders take seconds, for nothing perhaps
        done = nothing_to_do(sources, [*pairs.values()], cache, precision=precision)
        if done is not None:
            _finish(context, done, sources, names)
            return

    import torch

    from extract.backbones.backbone import Backbone
    from extract.batch import extract, extract_by_many, tool_versions
    from extract.devices import choose_precision, find_device
    from extract.dry_run import foresee, specs_of, stand_in
    from extract.jobs import Recipe
    from extract.pipeline import Settings
    from extract.progress import show_progress

    many = backend == "dask" or jobs > 1
    cores = max(1, (os.cpu_count() or 1) // jobs)  # for each job
    if dry_run and many:
        threads = threads or cores  # as each job has
    if threads is not None and (dry_run or not many):
        torch.set_num_threads(threads)
    where = find_device(device)
    precision = choose_precision(precision, where, _warn)
    settings = Settings(
        decode_workers=workers or cores,
        batch=batch or (128 if where.type == "cuda" else 16),
        deadline_s=deadline,
        decoder=decoder,
        keep_damaged=damaged == "keep",
    )

    def backbones() -> dict[str, Backbone]:
        return {
            name: Backbone(
                request,
                weights=stand_in(weights) if dry_run else weights,
                device=where,
                precision=precision,
            )
            for name, (request, weights) in pairs.items()
        }

    if dry_run:
        with Console(stderr=True).status("opening some of the videos, and extracting a few"):
            built = backbones()
            forecast = foresee(
                sources,
                built,
                specs_of(built, pairs, cache),
                cache,
                settings,
                retry_failed=retry_failed,
                jobs=jobs,
            )
        summary = {"cache": printable(cache), **forecast.to_json(), "left_out": dict(sources.left_out)}
        _tell("would fail", forecast.failures, summary, "\n".join(forecast.lines()), as_json=as_json)
        return
    tools = tool_versions(where.type)
    common: dict[str, Any] = {"shard_size": shard_size, "retry_failed": retry_failed, "tools": tools}
    common["warn"] = _warn
    with show_progress(Console(stderr=True)) as common["report"]:
        if many:
            recipe = Recipe(
                requests=tuple(request for request, _ in pairs.values()),
                weights=tuple(absolute_weights(weights) for _, weights in pairs.values()),
                device="cuda" if device in ("auto", "cuda") and where.type == "cuda" else str(where),
                precision=precision,
                threads=threads or (cores if backend == "loky" else None),
            )
            outcome = extract_by_many(
                sources, recipe, cache, settings, jobs=jobs, backend=backend, scheduler=scheduler, **common
            )
        else:
            outcome = extract(sources, backbones(), cache, settings, **common)
    _finish(context, outcome, sources, names)


def _finish(context: click.Context, outcome: Outcome, sources: Sources, streams: Sequence[str]) -> None:
    """Print what became of the running command's request, and end it."""
    cache, videos = context.params["cache"], len(sources.videos) + len(sources.refused)
    _remark(outcome.remarks, outcome.partial)
    summary = {
        "cache": printable(cache),
        "streams": list(streams),
        "videos": videos,
        "extracted": outcome.extracted,
        "already_there": outcome.present,
        "failed": outcome.failed,
        "partial": outcome.partial,
        "remarks": outcome.remarks,
        "decoders": outcome.decoders,
        "frames_decoded": outcome.frames,
        "left_out": dict(sources.left_out),
    }
    line = (
        f"{count(videos, 'videos')}: {outcome.extracted} extracted ({count(outcome.frames, 'frames')}), "
        f"{outcome.present} already there, {len(outcome.failed)} failed"
        f"{f', {len(outcome.partial)} partial' * bool(outcome.partial)}; "
        f"cache {cache} has {' and '.join(streams)}"
    )
    _tell("failed", outcome.failed, summary, line, as_json=context.params["as_json"])
    if outcome.failed or (outcome.partial and context.params["damaged"] == "refuse"):
        context.exit(SOME_FAILED)


def _remark(remarks: Mapping[str, Sequence[str]], partial: Mapping[str, str]) -> None:
    """Name what is odd about videos, those that are alike in one line, and each of which there is only a part."""
    alike = group_reasons((video, line) for video, lines in remarks.items() for line in lines)
    for remark, (number, example) in alike.items():
        click.echo(f"remark: {number:,} × {remark}, e.g. {example!r}", err=True)
    for video, reason in partial.items():
        click.echo(f"partial: {video}: {reason}", err=True)


def _tell(
    word: str, failures: Mapping[str, str], summary: dict[str, Any], line: str, *, as_json: bool
) -> None:
    for video, reason in failures.items():
        click.echo(f"{word}: {video}: {reason}", err=True)
    click.echo(json.dumps(summary, indent=2, ensure_ascii=False) if as_json else line)


def _warn(line: str) -> None:
    click.echo(line, err=True)


def _all_apply(requests: list[StreamRequest], **values: object) -> None:
    """Raise UserError for an option that no stream heeds: its user expects something else."""
    kinds = {request.sampling.kind for request in requests}
    heeded = {
        "fps": bool(kinds & {"frames", "snippets"}),
        "clips": "clips" in kinds,
        "crops": "clips" in kinds,
        "flow": any(request.flow for request in requests),
        "size": any(request.resize for request in requests),
    }
    for option, value in values.items():
        if value is not None and not heeded[option]:
            raise UserError(f"--{option} {value}: applies to none of the streams asked for")
