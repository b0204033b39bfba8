"""feature-cache: look at a cache and check it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import track

from cache_schema.cache import FeatureCache, Stream, shard_paths
from cache_schema.command import SOME_FAILED, tells_mistakes
from cache_schema.costs import cost_table, stream_cost
from cache_schema.errors import CacheError
from cache_schema.verify import verify_stream

_CACHE = click.argument("cache", type=click.Path(path_type=Path))
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")


@click.group()
@click.version_option(package_name="thriftvid")
def feature_cache() -> None:
    """Look at a feature cache and check it.

    \b
    Example:
      feature-cache info CACHE
      feature-cache verify CACHE
    """


@feature_cache.command()
@_CACHE
@_JSON
@tells_mistakes
def info(cache: Path, as_json: bool) -> None:
    """Say what CACHE holds, stream by stream.

    \b
    Example:
      feature-cache info CACHE --json
    """
    opened = FeatureCache(cache)
    described = {name: _describe(opened[name]) for name in opened.streams}
    if as_json:
        click.echo(json.dumps(described, indent=2, ensure_ascii=False))
        return
    if not described:
        click.echo(f"{cache}: an empty cache")
        return
    click.echo(f"Feature cache {cache}")
    for name, stream in described.items():
        click.echo(f"\n{name}")
        for what, text in _lines(stream):
            click.echo(f"  {what:10}{text}")


def _lines(stream: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What `_describe` found, for people: a topic and a line that fits 80 columns, names permitting."""
    yield (
        "videos",
        f"{stream['videos']:,} with {_count(stream['rows'], 'rows')}, {stream['failed']:,} failed; "
        f"{_count(stream['shards'], 'shards')}, {stream['bytes'] / 1e6:,.1f} MB",
    )
    classes = stream["num_classes"]
    names = "names known" if stream["class_names_known"] else "names unknown"
    scores = f"scores of {classes:,} classes ({names})" if classes else "no scores"
    yield "row", f"{stream['feature_dim']:,} features, {scores}, {stream['gflops_per_row']:.3g} GFLOPs"
    sampling, pixels = stream["sampling"], stream["preprocessing"]
    yield "sampling", f"{sampling['kind']} at {sampling['fps']:g} a second"
    yield (
        "input",
        f"{pixels['crop']}×{pixels['crop']} pixels, short side {pixels['resize']}, {pixels['interpolation']}",
    )
    yield "network", f"{stream['backbone']}, {stream['weights']} (digest {stream['weights_digest'][:12]})"
    for reason, count in stream["failures"].items():
        yield "failed", f"{count:,} × {reason}"


def _count(number: int, things: str) -> str:
    return f"{number:,} {things if number != 1 else things.removesuffix('s')}"


def _describe(stream: Stream) -> dict[str, Any]:
    spec = json.loads(stream.spec.to_json())
    return {
        **{key: spec[key] for key in ("backbone", "weights", "weights_digest", "preprocessing", "sampling")},
        "feature_dim": stream.spec.feature_dim,
        "num_classes": stream.spec.num_classes,
        "class_names_known": stream.spec.classes is not None,
        "gflops_per_row": stream_cost(stream.spec).gflops(),
        "videos": len(stream),
        "failed": len(stream.failures),
        "failures": dict(Counter(stream.failures.values()).most_common()),
        "rows": sum(stream.rows(video_id) for video_id in stream),
        "shards": len(stream.shards),
        "bytes": sum(shard.path.stat().st_size for shard in stream.shards),
        "tools": stream.shards[0].tools,
    }


@feature_cache.command()
@_JSON
@tells_mistakes
def costs(as_json: bool) -> None:
    """Print what one row of each built-in stream costs: counted, in both conventions, and in the papers.

    \b
    Example:
      feature-cache costs
    """
    table = cost_table().values()
    if as_json:
        click.echo(json.dumps([asdict(cost) for cost in table], indent=2, ensure_ascii=False))
        return
    click.echo("GFLOPs for one row up to its features, counting a multiply-accumulate as one or as two\n")
    click.echo(f"{'stream':20}{'one':>8}{'two':>8}{'papers':>9}  what")
    for cost in table:
        paper = "–" if cost.paper is None else f"{cost.paper:.2f}"
        remark = "; the paper's figure counts two" if cost.paper_unit == "flop" else ""
        one, two = cost.gflops("mac"), cost.gflops("flop")
        click.echo(f"{cost.stream:20}{one:8.3f}{two:8.3f}{paper:>9}  {cost.title}{remark}")


@feature_cache.command()
@_CACHE
@_JSON
@click.pass_context
@tells_mistakes
def verify(context: click.Context, cache: Path, as_json: bool) -> None:
    """Check every checksum and invariant of CACHE. Exit code 1 when something is wrong, each thing named.

    \b
    Example:
      feature-cache verify CACHE
    """
    opened = FeatureCache(cache)
    if shard_paths(cache):
        raise CacheError(f"{cache}: shards lie in this folder itself, so it is one stream's: give its parent")
    if not opened.streams:
        raise CacheError(f"{cache}: no streams here, so nothing to verify")
    folders = [cache / name for name in opened.streams]
    console = Console(stderr=True)
    total = sum(len(shard_paths(folder)) for folder in folders)
    checks = (checked for folder in folders for checked in verify_stream(folder))
    quiet = not console.is_terminal
    results = list(track(checks, "verifying", total=total, console=console, transient=True, disable=quiet))
    problems = [problem for checked in results for problem in checked.problems]
    summary: dict[str, Any] = {
        "shards": len(results),
        "videos": sum(checked.videos for checked in results),
        "rows": sum(checked.rows for checked in results),
        "problems": problems,
    }
    if as_json:
        click.echo(json.dumps(summary, indent=2, ensure_ascii=False))
    else:
        for problem in problems:
            click.echo(problem, err=True)
        counts = ", ".join(_count(summary[what], what) for what in ("shards", "videos", "rows"))
        click.echo(f"{counts}: {_count(len(problems), 'problems') if problems else 'all good'}")
    if problems:
        context.exit(SOME_FAILED)
