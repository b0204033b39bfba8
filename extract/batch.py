"""A whole run: what is missing in a cache, in shards, extracted; what could not be is named."""

from __future__ import annotations

import contextlib
import platform
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from cache_schema import CacheError, FeatureCache, Stream
from cache_schema.shard import remove_stale_temporaries
from extract.backbones.timm2d import Backbone
from extract.pipeline import Progress, Settings, Work, extract_shards
from extract.sources import Sources, SourceVideo, fingerprint

_TOOLS = ("thriftvid", "torch", "timm", "decord2", "decord", "av", "pillow", "h5py")


@dataclass
class Outcome:
    """What became of a request.

    Attributes:
        extracted: videos that this run added to at least one stream.
        present: videos that every stream had already.
        failed: reason by video, those refused or known from an earlier run included.
        rows: frames decoded.
    """

    extracted: int = 0
    present: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    rows: int = 0


def extract(
    sources: Sources,
    backbones: Mapping[str, Backbone],
    cache: Path,
    settings: Settings,
    *,
    shard_size: int = 256,
    retry_failed: bool = False,
    tools: Mapping[str, str] | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Outcome:
    """Extract the videos that a cache lacks, for every stream.

    Args:
        shard_size: videos in a shard. A killed run loses at most one, and the videos that it was at.
        retry_failed: try videos again that an earlier run could not read.

    Raises:
        CacheError: the cache cannot be written, is damaged, or holds other streams under these names.
    """
    tools = tools or tool_versions()
    streams = _open_streams(cache, backbones, tools["precision"])
    outcome = Outcome(failed=dict(sources.refused))
    missing: dict[tuple[str, ...], list[SourceVideo]] = {}
    for video in sources.videos:
        try:
            lacking = _lacking(video, backbones, streams, outcome, retry_failed=retry_failed)
        except _Refused as refusal:
            outcome.failed[video.id] = str(refusal)
            continue
        if lacking:
            missing.setdefault(lacking, []).append(video)
        elif video.id not in outcome.failed:
            outcome.present += 1
    work = [Work(tuple(videos), lacking) for lacking, videos in missing.items()]
    if work:
        progress = extract_shards(
            work,
            backbones,
            cache,
            settings,
            shard_size=shard_size,
            tools=tools,
            report=report,
        )
        outcome.failed.update(progress.failures)
        outcome.extracted = progress.videos_done - len(progress.failures)
        outcome.rows = progress.rows_done
    return outcome


def tool_versions(precision: str = "fp32", device: str = "cpu") -> dict[str, str]:
    """What made the rows, for a shard's attributes."""
    installed = {}
    for tool in _TOOLS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed[tool] = metadata.version(tool)
    return {**installed, "python": platform.python_version(), "precision": precision, "device": device}


def _open_streams(cache: Path, backbones: Mapping[str, Backbone], precision: str) -> dict[str, Stream]:
    """The streams that the cache has already, each made exactly as the one asked for."""
    for folder in (cache / name for name in backbones):
        try:  # now, not after the hours that the first shard takes
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise CacheError(f"{folder}: cannot write to the cache: {error.strerror or error}") from error
    opened = FeatureCache(cache)
    streams = {}
    for name, backbone in backbones.items():
        remove_stale_temporaries(cache / name)
        if name not in opened:
            continue
        streams[name] = opened[name]
        made_in = {shard.tools.get("precision", precision) for shard in streams[name].shards}
        if made_in != {precision}:
            raise CacheError(
                f"{cache}: stream {name} was computed in {', '.join(sorted(made_in))}, this run would add rows in "
                f"{precision}; use --precision {min(made_in)}, or another --cache"
            )
        theirs, ours = streams[name].spec, backbone.spec
        if theirs != ours:
            differing = [k for k in vars(ours) if getattr(ours, k) != getattr(theirs, k)]
            described = ", ".join(
                f"{k} {getattr(theirs, k)} is not {getattr(ours, k)}" for k in differing[:2]
            )
            raise CacheError(
                f"{cache}: stream {name} is there already, but made otherwise ({described}); "
                "use another --cache, or the same options"
            )
    return streams


class _Refused(Exception):
    """The cache has rows under this video's id that cannot be told to be its own."""


def _lacking(
    video: SourceVideo,
    backbones: Iterable[str],
    streams: Mapping[str, Stream],
    outcome: Outcome,
    *,
    retry_failed: bool,
) -> tuple[str, ...]:
    """The streams that are to be extracted from a video. What is known to fail is noted in the outcome."""
    content, trouble = "", None
    known = any(video.id in stream or video.id in stream.failures for stream in streams.values())
    try:
        content = fingerprint(video.path) if known else ""  # a read for each video: not of the new ones
    except OSError as error:  # the decoder, if it comes to that, will meet the same and say so
        trouble = f"cannot be read: {error.strerror or error}"
    lacking = []
    for name in backbones:
        stream = streams.get(name)
        if stream is None:
            lacking.append(name)
        elif video.id in stream:
            if stream.fingerprint(video.id) != content:
                raise _Refused(
                    trouble
                    or f"the cache has this id from a file with other content ({stream.source(video.id)}); "
                    "rename one, use --ids path, or another --cache"
                )
        elif retry_failed or (reason := stream.failure(video.id, content)) is None:
            lacking.append(name)
        else:
            outcome.failed[video.id] = f"{reason} (known from an earlier run; --retry-failed tries again)"
    return tuple(lacking)
