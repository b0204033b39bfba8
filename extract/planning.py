"""What a cache lacks of the videos and streams that are asked for."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cache_schema import CacheError, FeatureCache, Stream, StreamSpec
from cache_schema.cache import shard_paths
from cache_schema.files import printable
from cache_schema.schema import differences
from cache_schema.shard import Shard, prepare_folder
from extract.backbones import StreamRequest
from extract.claims import clear_dead
from extract.sources import Sources, SourceVideo, fingerprint

_EARLIER = "known from an earlier run; --retry-failed tries again"


@dataclass
class Plan:
    """What is to be done about some videos.

    Attributes:
        missing: videos by the streams that they lack.
        present: how many every stream has already, in part at least.
        failed: reason by id, of those that an earlier run could not read and that are not to be tried.
        partial: reason by id, of those that some stream has in part and that are not to be tried there.
        refused: reason by id, of those under whose id the cache has something else.
        shards: names of the shards that were looked at, by stream.
        arrived: ids in the shards that have come since, as far as was looked.
    """

    missing: dict[tuple[str, ...], list[SourceVideo]] = field(default_factory=dict)
    present: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    partial: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    shards: dict[str, set[str]] = field(default_factory=dict)
    arrived: set[str] = field(default_factory=set)


@dataclass
class Outcome:
    """What became of a request.

    Attributes:
        extracted: videos that this run added to at least one stream.
        present: videos that every stream had already, or got from another run meanwhile.
        failed: reason by video, those refused or known from an earlier run included.
        partial: reason by video, of which there are rows but not all, those known from an earlier run included.
        remarks: of this run, by video, what is odd about the file and harmless.
        decoders: of this run, how many videos each decoder decoded.
        frames: how many were decoded.
    """

    extracted: int = 0
    present: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    partial: dict[str, str] = field(default_factory=dict)
    remarks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    decoders: dict[str, int] = field(default_factory=dict)
    frames: int = 0

    def add(self, plan: Plan) -> None:
        """What needs not be done."""
        self.present += plan.present
        self.failed.update(plan.failed | plan.refused)
        self.partial.update(plan.partial)


def make_plan(
    videos: Sequence[SourceVideo],
    specs: Mapping[str, StreamSpec],
    cache: Path,
    *,
    retry_failed: bool,
    read_only: bool = False,
) -> Plan:
    """Compare what is asked for with what a cache has, and check that it can be written to.

    Args:
        read_only: make and change nothing; a cache that is not there is an empty one.

    Raises:
        CacheError: the cache cannot be written, is damaged, or holds other streams under these names.
    """
    if not read_only:
        for name in specs:  # now, not after the hours that the first shard takes
            prepare_folder(cache / name)
    streams = _open_streams(cache, specs, read_only=read_only) if cache.exists() else {}
    plan = Plan(
        shards={name: {shard.path.name for shard in stream.shards} for name, stream in streams.items()}
    )
    for video in videos:
        try:
            lacking = _lacking(video, specs, streams, plan, retry_failed=retry_failed)
        except _Refused as refusal:
            plan.refused[video.id] = str(refusal)
            continue
        if lacking:
            plan.missing.setdefault(lacking, []).append(video)
        elif video.id not in plan.failed:
            plan.present += 1
    return plan


def streams_there(
    requests: Iterable[tuple[StreamRequest, str]], cache: Path, *, precision: str
) -> dict[str, Stream]:
    """Those of some streams that a cache has, as far as can be told without their networks and weights.

    Args:
        requests: with the weights of each. Of a file only its content says whether they are the same.
        precision: "fp32", "bf16", or "auto", which is either.

    Raises:
        CacheError: the cache is damaged.
    """
    opened = FeatureCache(cache, read_only=True) if cache.is_dir() else {}
    there = {}
    for request, weights in requests:
        if request.name not in opened:
            continue
        spec = opened[request.name].spec
        alike = (request.network, request.sampling, request.size)
        if (
            (spec.backbone, spec.sampling, spec.preprocessing.crop) == alike
            and weights in (spec.weights, spec.weights.partition(":")[0])
            and weights != "file"
            and precision in ("auto", spec.precision)
        ):
            there[request.name] = opened[request.name]
    return there


def nothing_to_do(
    sources: Sources, requests: Sequence[tuple[StreamRequest, str]], cache: Path, *, precision: str
) -> Outcome | None:
    """What a run would come to that has nothing to extract; None where there is something, or it is not certain.

    Raises:
        CacheError: the cache is damaged.
    """
    streams = streams_there(requests, cache, precision=precision)
    if len(streams) < len(requests):
        return None
    if not all(video.id in s or video.id in s.failures for video in sources.videos for s in streams.values()):
        return None  # before files are looked at, which takes long of many
    specs = {name: stream.spec for name, stream in streams.items()}
    plan = make_plan(sources.videos, specs, cache, retry_failed=False, read_only=True)
    if plan.missing:
        return None
    clear_dead(cache)
    outcome = Outcome(failed=dict(sources.refused))
    outcome.add(plan)
    return outcome


def added_since(plan: Plan, cache: Path, specs: Mapping[str, StreamSpec]) -> set[str]:
    """Ids of the videos in shards that have come since the plan was made."""
    for name in specs:
        known = plan.shards.setdefault(name, set())
        for path in shard_paths(cache / name):
            if path.name not in known:
                known.add(path.name)
                try:
                    plan.arrived.update(Shard(path).ids)
                except CacheError:
                    if path.exists():
                        raise  # else `feature-cache drop` has just deleted it
    return plan.arrived


def _open_streams(cache: Path, specs: Mapping[str, StreamSpec], *, read_only: bool) -> dict[str, Stream]:
    """The streams that the cache has already, each made exactly as the one asked for."""
    opened = FeatureCache(cache, read_only=read_only)
    streams = {}
    for name, spec in specs.items():
        if name not in opened:
            continue
        streams[name] = opened[name]
        theirs = streams[name].spec
        if theirs.precision and theirs == replace(spec, precision=theirs.precision) != spec:
            raise CacheError(
                f"{cache}: stream {name} was computed in {theirs.precision}, this run would add rows in "
                f"{spec.precision}; use --precision {theirs.precision}, or another --cache"
            )
        if changes := differences(spec, theirs):
            raise CacheError(
                f"{cache}: stream {name} is there already, but made otherwise ({changes}); "
                f"`feature-cache drop {cache} --stream {name}` makes room for it; or use another --cache, or the "
                "same options"
            )
    return streams


class _Refused(Exception):
    """The cache has rows under this video's id that cannot be told to be its own."""


def _other_content(video: SourceVideo, content: str, stream: Stream) -> str:
    """Why the rows of a stream are not those of the video of this id, and what to do about it."""
    source = stream.source(video.id)
    if os.path.abspath(source) != os.path.abspath(printable(video.path)):  # noqa: PTH100
        return (
            f"the cache has this id from a file with other content ({source}); rename one, use --ids path, or "
            "another --cache"
        )
    theirs, _, rate = (stream.fingerprint(video.id) or "").partition("@")
    same = rate and theirs == content.partition("@")[0]
    change = f"it was extracted with --frames-fps {rate}" if same else "it has changed since it was extracted"
    drop = shlex.join(
        ["feature-cache", "drop", str(stream.folder.parent), "--all-streams", "--video", video.id]
    )
    return f"{change}; `{drop}` takes out its old rows, and the next run extracts it anew"


def _lacking(
    video: SourceVideo,
    names: Iterable[str],
    streams: Mapping[str, Stream],
    plan: Plan,
    *,
    retry_failed: bool,
) -> tuple[str, ...]:
    """The streams that are to be extracted from a video. What is known to fail or be partial is noted in the plan.

    That is tried again when the file has another content, or when it is asked for; a file with another content
    than a whole video of its id is refused.
    """
    content, trouble = "", None
    known = any(video.id in stream or video.id in stream.failures for stream in streams.values())
    try:
        content = (
            fingerprint(video.path, video.frames_fps) if known else ""
        )  # a read for each video: not of the new ones
    except OSError as error:  # the decoder, if it comes to that, will meet the same and say so
        trouble = f"cannot be read: {error.strerror or error}"
    lacking = []
    for name in names:
        stream = streams.get(name)
        if stream is None:
            lacking.append(name)
        elif video.id in stream and video.id not in stream.partial:
            if stream.fingerprint(video.id) != content:
                raise _Refused(trouble or _other_content(video, content, stream))
        elif retry_failed or not stream.tried(video.id, content):
            lacking.append(name)
        elif reason := stream.partial.get(video.id):
            plan.partial[video.id] = f"{reason} ({_EARLIER})"
        else:
            plan.failed[video.id] = f"{stream.failure(video.id, content)} ({_EARLIER})"
    return tuple(lacking)
