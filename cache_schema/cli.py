"""feature-cache: look at a cache, check it, join it with others, bring things into it and take them out."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import click

from cache_schema.cache import FeatureCache, shard_paths
from cache_schema.columns import What
from cache_schema.command import AS_JSON, SOME_FAILED, count, progress, size, tells_mistakes
from cache_schema.costs import Cost, cost_table, stream_cost
from cache_schema.errors import CacheError, UserError
from cache_schema.files import printable
from cache_schema.importers.cli import import_command
from cache_schema.index import shard_files
from cache_schema.tools import datasets
from cache_schema.tools import drop as dropping
from cache_schema.tools import export as exporting
from cache_schema.tools import merge as merging
from cache_schema.tools.describe import describe, lines
from cache_schema.tools.verify import index_trouble, verify_stream
from cache_schema.tools.verify import repair_index as repair

_CACHE = click.argument("cache", type=click.Path(path_type=Path))
_VIDEO = click.option(
    "--video", "videos", multiple=True, metavar="ID", help="Only this video; may be repeated."
)
_LIST = click.option(
    "--list",
    "listed",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Only the videos in FILE, an id a line.",
)


@click.group()
@click.version_option(package_name="thriftvid")
def feature_cache() -> None:
    """Look at a feature cache, check it, join it with others, bring things into it and take them out.

    \b
    Example:
      feature-cache info CACHE
      feature-cache verify CACHE
      feature-cache merge MACHINE1 MACHINE2 --into CACHE
    """


@feature_cache.command()
@_CACHE
@AS_JSON
@tells_mistakes
def info(cache: Path, as_json: bool) -> None:
    """Say what CACHE holds, stream by stream.

    \b
    Example:
      feature-cache info CACHE --json
    """
    opened = FeatureCache(cache)
    if not opened.streams and (first := next(iter(sorted(cache.iterdir())), None)):
        raise CacheError(
            f"{cache}: no feature cache: none of its folders has shards of features; it holds "
            f"{printable(Path(first.name))!r}, for example"
        )
    described = {name: describe(opened[name]) for name in opened.streams}
    for name in opened.streams:
        if trouble := opened[name].index_trouble:
            click.echo(f"warning: {trouble}", err=True)
    if as_json:
        click.echo(json.dumps(described, indent=2, ensure_ascii=False))
        return
    if not described:
        click.echo(f"{cache}: an empty cache")
        return
    click.echo(f"Feature cache {cache}")
    for name, stream in described.items():
        click.echo(f"\n{name}")
        for what, text in lines(stream):
            click.echo(f"  {what:11}{text}")


@feature_cache.command()
@click.option("--cache", type=click.Path(path_type=Path), help="The streams of this cache, built in or not.")
@AS_JSON
@tells_mistakes
def costs(cache: Path | None, as_json: bool) -> None:
    """Print what one row of each built-in stream costs: counted, in both conventions, and in the papers.

    \b
    Example:
      feature-cache costs
      feature-cache costs --cache CACHE
    """
    table: list[Cost] = list(cost_table().values())
    rows_a_video: dict[str, float] = {}
    if cache is not None:
        streams = list(FeatureCache(cache).values())
        if not streams:
            raise CacheError(f"{cache}: no streams here, so nothing that costs")
        table = [
            replace(stream_cost(one.spec), stream=one.name, sampling=one.spec.sampling) for one in streams
        ]
        rows_a_video = {one.name: one.total_rows() / max(1, len(one)) for one in streams}
    if as_json:
        rows = [{"rows_a_video": rows_a_video[one.stream]} if rows_a_video else {} for one in table]
        records = [asdict(cost) | more for cost, more in zip(table, rows, strict=True)]
        click.echo(json.dumps(records, indent=2, ensure_ascii=False))
        return
    width = max(20, *(len(cost.stream) + 1 for cost in table))
    click.echo("GFLOPs for one row up to its features, counting a multiply-accumulate as one or as two\n")
    click.echo(f"{'stream':{width}}{'one':>8}{'two':>8}{'papers':>9}  what")
    for cost in table:
        paper = "–" if cost.paper is None else f"{cost.paper:.2f}"
        remark = "; the paper's figure counts two" if cost.paper_unit == "flop" else ""
        one, two = cost.gflops("mac"), cost.gflops("flop")
        if rows_a_video:
            number = rows_a_video[cost.stream]
            remark += f"; {number:.1f} rows a video, {number * one:.2f} GFLOPs"
        click.echo(f"{cost.stream:{width}}{one:8.3f}{two:8.3f}{paper:>9}  {cost.title}{remark}")


@feature_cache.command()
@_CACHE
@click.option(
    "--repair-index", is_flag=True, help="Write each stream's index anew, from the headers of its shards."
)
@AS_JSON
@click.pass_context
@tells_mistakes
def verify(context: click.Context, cache: Path, repair_index: bool, as_json: bool) -> None:
    """Check every checksum and invariant of CACHE. Exit code 1 when something is wrong, each thing named.

    A stream's index, which spares opening a cache the headers of its shards, is compared with them.

    \b
    Example:
      feature-cache verify CACHE
      feature-cache verify CACHE --repair-index
    """
    opened = FeatureCache(cache)
    if shard_paths(cache):
        raise CacheError(f"{cache}: shards lie in this folder itself, so it is one stream's: give its parent")
    if not opened.streams:
        raise CacheError(f"{cache}: no streams here, so nothing to verify")
    folders = [cache / name for name in opened.streams]
    problems = []
    for folder in folders:
        if repair_index:
            try:
                repair(folder)
            except CacheError as error:
                problems.append(f"{folder}: the index was not written: {error}")
        if trouble := index_trouble(folder):
            problems.append(f"warning: {trouble}")
    total = sum(len(shard_paths(folder)) for folder in folders)
    checks = (checked for folder in folders for checked in verify_stream(folder))
    with progress("verifying") as report:
        results = []
        for checked in checks:
            results.append(checked)
            report(len(results), total)
    problems += [problem for checked in results for problem in checked.problems]
    summary: dict[str, Any] = {
        "shards": len(results),
        "videos": len(set().union(*(checked.videos for checked in results))),
        "streams": len(folders),
        "rows": sum(checked.rows for checked in results),
        "problems": problems,
    }
    if as_json:
        click.echo(json.dumps(summary, indent=2, ensure_ascii=False))
    else:
        for problem in problems:
            click.echo(problem, err=True)
        shards, videos, streams, rows = (
            count(summary[what], what) for what in ("shards", "videos", "streams", "rows")
        )
        verdict = count(len(problems), "problems") if problems else "all good"
        click.echo(f"{shards}, {videos} in {streams}, {rows}: {verdict}")
    if problems:
        context.exit(SOME_FAILED)


@feature_cache.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...", type=click.Path(path_type=Path))
@click.option(
    "--into", required=True, type=click.Path(path_type=Path), help="The cache to add to, made if need be."
)
@click.option("--link", is_flag=True, help="Hard links instead of copies, where whole shards are taken over.")
@AS_JSON
@tells_mistakes
def merge(sources: tuple[Path, ...], into: Path, link: bool, as_json: bool) -> None:
    """Add to a cache what the SOURCE caches hold and it does not, in every stream.

    A video that is in several is kept once, if it is from the same file; else nothing is merged, nor where a
    stream was made otherwise. A partial video counts only where no cache has it whole, a failure only where none
    has rows of it. After an interruption, the same command does what is left.

    \b
    Example:
      feature-cache merge MACHINE1/CACHE MACHINE2/CACHE --into CACHE
    """
    with progress("merging") as report:
        merged = merging.merge(sources, into, link=link, report=report)
    if as_json:
        click.echo(json.dumps(asdict(merged), indent=2))
        return
    click.echo(
        f"{into}: {count(merged.videos, 'videos')} and {count(merged.failed, 'failures')} added in "
        f"{count(merged.streams, 'streams')}, "
        f"{size(merged.bytes)}; {count(merged.shards_whole, 'shards')} taken over whole, "
        f"{merged.shards_in_part:,} in part, {merged.shards_present:,} had nothing new"
    )


@feature_cache.command()
@_CACHE
@click.option("--stream", required=True, help="The stream to export.")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder for the files."
)
@click.option(
    "--format",
    "form",
    type=click.Choice([*exporting.FORMS, *datasets.FORMS]),
    default="npz",
    show_default=True,
    help="npy, npz, csv: a file for each video. parquet: one table. hf: a data set of Hugging Face's datasets.",
)
@click.option(
    "--what",
    type=click.Choice(["features", "scores"]),
    help="Only these.  [default: npz, hf: both; npy: features; csv, parquet: scores, where the stream has them]",
)
@click.option(
    "--dtype",
    type=click.Choice(["float16", "float32"]),
    help="Of the numbers; none of a CSV.  [default: float16; parquet: float32]",
)
@_VIDEO
@_LIST
@click.option("--overwrite", is_flag=True, help="Write files that are there already, too.")
@AS_JSON
@click.pass_context
@tells_mistakes
def export(
    context: click.Context,
    cache: Path,
    stream: str,
    out: Path,
    form: Literal["npy", "npz", "csv", "parquet", "hf"],
    what: What | None,
    dtype: Literal["float16", "float32"] | None,
    videos: tuple[str, ...],
    listed: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write the videos of a stream for other tools: a file each, and videos.csv that lists them, or a data set.

    An npz file has features, scores (where the stream has them), spans (first and last second that a row saw),
    duration_s and fps; an npy file is the features alone; a CSV has a line for each row, with its seconds and a
    column for each class, or feature. "/" in an id makes a sub-folder. Files that are there stay. Partial videos
    have the rows that there are; videos.csv says why they are partial and which rows they lack. Videos that have
    no rows are named on standard error, with exit code 1.

    \b
    --format parquet  OUT/scores.parquet (or features.parquet), a line for each row; and videos.csv
    --format hf       OUT/, a line for each video, which datasets.load_from_disk reads
    The folder OUT is written as a whole then, and must not be there yet.

    \b
    Example:
      feature-cache export CACHE --stream resnet101_224 --out features --format npy --dtype float32
      feature-cache export CACHE --stream x3d_m --out x3d_m --format parquet
      feature-cache export CACHE --stream resnet101_224 --out resnet101 --format hf
    """
    chosen = _chosen_ids(videos, listed)
    with progress("exporting") as report:
        exported = datasets.export_features(
            FeatureCache(cache)[stream],
            out,
            form=form,
            what=what,
            dtype=dtype,
            video_ids=None if chosen is None else sorted(chosen),
            overwrite=overwrite,
            report=report,
        )
    for video_id, reason in exported.failed.items():
        click.echo(f"{video_id!r}: {reason}", err=True)
    if as_json:
        click.echo(json.dumps(asdict(exported), indent=2, ensure_ascii=False))
    else:
        of_them = f"{len(exported.partial):,} of them partial, " * bool(exported.partial)
        if form in datasets.FORMS:
            click.echo(
                f"{out}: {count(exported.written, 'videos')}, {of_them}{len(exported.failed):,} without rows"
            )
        else:
            click.echo(
                f"{out}: {count(exported.written, 'files')} written, {exported.present:,} there already, {of_them}"
                f"{len(exported.failed):,} without; listed in {exporting.LIST_NAME}"
            )
    if exported.failed:
        context.exit(SOME_FAILED)


@feature_cache.command()
@_CACHE
@click.option("--stream", help="The stream to drop, or to drop from.")
@click.option("--all-streams", is_flag=True, help="Drop from every stream.")
@_VIDEO
@_LIST
@click.option("--failed", is_flag=True, help="Drop failures alone, so that batch-extract tries them again.")
@click.option("--partial", is_flag=True, help="Drop partial videos alone (with --failed: both).")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--yes", is_flag=True, help="Drop a whole stream without asking.")
@AS_JSON
@click.pass_context
@tells_mistakes
def drop(
    context: click.Context,
    cache: Path,
    stream: str | None,
    all_streams: bool,
    videos: tuple[str, ...],
    listed: Path | None,
    failed: bool,
    partial: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Take videos, partial ones, failures, or a whole stream out of CACHE.

    Shards that hold them are written anew without them; that needs room for one shard. After an interruption, the
    same command does what is left. Exit code 1 when a video was in no stream.

    \b
    Example:
      feature-cache drop CACHE --all-streams --video holiday_001 --video holiday_002
      feature-cache drop CACHE --stream resnet101_224 --failed
      feature-cache drop CACHE --stream resnet101_224 --dry-run
    """
    ids = _chosen_ids(videos, listed)
    if (stream is None) == (not all_streams):
        raise CacheError("give one of --stream NAME and --all-streams")
    if ids is None and not failed and not partial:
        if stream is None:
            raise CacheError(
                "--all-streams needs --video, --list, --failed or --partial; to drop a whole cache, delete its "
                "folder"
            )
        _drop_stream(cache, stream, dry_run=dry_run, yes=yes, as_json=as_json)
        return
    opened = FeatureCache(cache)
    plans = [
        dropping.plan_drop(opened[name], ids, failed=failed, partial=partial)
        for name in ([stream] if stream else opened)
    ]
    with progress("dropping") as report:
        for plan in () if dry_run else plans:
            dropping.drop(plan, report)
    nowhere = sorted(set.intersection(*(set(plan.unknown) for plan in plans))) if plans else list(ids or ())
    if as_json:
        summaries = {plan.stream.name: plan.summary() for plan in plans}
        click.echo(
            json.dumps(
                {"dry_run": dry_run, "streams": summaries, "not_there": nowhere}, indent=2, ensure_ascii=False
            )
        )
    else:
        for plan in plans:
            click.echo(_in_words(plan, "would go" if dry_run else "gone"))
        for video_id in nowhere:
            kinds = ["failed"] * failed + ["partial"] * partial
            kind = f"not {' or '.join(kinds)}" if kinds else "not there"
            click.echo(f"{video_id!r}: {kind}, in {stream or 'any stream'}", err=True)
    if nowhere:
        context.exit(SOME_FAILED)


def _in_words(plan: dropping.Plan, gone: str) -> str:
    entries = sum(map(len, plan.positions.values()))
    hidden = entries - plan.videos - plan.failures
    behind = (
        f" ({count(hidden, 'entries')} more, of videos that are there otherwise or twice)"
        if hidden > 0
        else ""
    )
    return (
        f"{plan.stream.name}: {count(plan.videos, 'videos')} with {count(plan.rows, 'rows')} and "
        f"{count(plan.failures, 'failures')} {gone}{behind}; {count(len(plan.positions), 'shards')} of "
        f"{size(plan.bytes)}: {plan.shards_deleted:,} deleted, "
        f"{len(plan.positions) - plan.shards_deleted:,} rewritten"
    )


def _drop_stream(cache: Path, name: str, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Drop a whole stream, damaged or not: its shards are not opened."""
    opened = FeatureCache(cache)
    folder = cache / name
    if name not in opened and not (name == Path(name).name and folder.is_dir() and not any(folder.iterdir())):
        raise opened.no_stream(name)
    files = shard_files(folder)
    total = sum(file[1] for file in files)
    what = f"stream {name} of {cache}: {count(len(files), 'shards')}, {size(total)}"
    if not (dry_run or yes):
        if not sys.stdin.isatty():
            raise CacheError(
                f"{what}: give --yes to drop all of it, or --video, --list, --failed, --partial for some of it"
            )
        click.confirm(f"Drop all of {what}?", abort=True, err=True)
    if not dry_run:
        with progress("dropping") as report:
            dropping.drop_stream(folder, report)
    if as_json:
        summary = {"shards_deleted": len(files), "bytes": total}
        click.echo(json.dumps({"dry_run": dry_run, "streams": {name: summary}, "not_there": []}, indent=2))
    else:
        click.echo(f"{what} {'would go' if dry_run else 'gone'}")


def _chosen_ids(videos: Sequence[str], listed: Path | None) -> set[str] | None:
    """The ids of --video and --list; None where neither is given."""
    if listed is None:
        return set(videos) or None
    try:
        lines_of_file = listed.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UserError(f"{listed}: cannot be read as a list of ids: {reason}") from error
    ids = {line.strip() for line in lines_of_file if line.strip()}
    if not ids and not videos:
        raise UserError(f"{listed}: no ids in it; one a line is expected")
    return {*ids, *videos}


feature_cache.add_command(import_command)
