"""What a stream is and holds, as JSON and in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from cache_schema.cache import Stream
from cache_schema.command import count, group_reasons, size
from cache_schema.costs import gflops_digits, stream_cost
from cache_schema.schema import Preprocessing, Sampling

_REASONS_SHOWN = 10


def describe(stream: Stream) -> dict[str, Any]:
    """All that `feature-cache info --json` prints of a stream.

    `failures`, `damage` (of partial videos) and `remarks` count videos by reason; reasons that differ only
    in numbers are one.
    """
    spec = json.loads(stream.spec.to_json())
    reasons = group_reasons(stream.failures.items())
    damage = group_reasons(stream.partial.items())
    remarks = stream.remarks()
    kinds = group_reasons((video, remark) for video, lines in remarks.items() for remark in lines)
    mixed: dict[str, set[str]] = {}
    for tools in {shard.tools for shard in stream.table.shards}:
        for tool, version in json.loads(tools).items():
            mixed.setdefault(tool, set()).add(version)
    return {
        **{key: spec[key] for key in ("backbone", "weights", "weights_digest", "preprocessing", "sampling")},
        "sampling_in_words": sampling_in_words(stream.spec.sampling),
        "feature_dim": stream.spec.feature_dim,
        "num_classes": stream.spec.num_classes,
        "precision": stream.spec.precision,
        "class_names_known": stream.spec.classes is not None,
        "gflops_per_row": stream_cost(stream.spec).gflops(),
        "videos": len(stream),
        "failed": len(stream.failures),
        "failures": {reason: number for reason, (number, _) in reasons.items()},
        "failure_examples": {reason: example for reason, (_, example) in reasons.items()},
        "partial": len(stream.partial),
        "damage": {reason: number for reason, (number, _) in damage.items()},
        "damage_examples": {reason: example for reason, (_, example) in damage.items()},
        "damage_by_video": stream.partial,
        "decoders": {decoder or "unknown": number for decoder, number in stream.decoders().items()},
        "remarks": {remark: number for remark, (number, _) in kinds.items()},
        "remark_examples": {remark: example for remark, (_, example) in kinds.items()},
        "remarks_by_video": remarks,
        "rows": stream.total_rows(),
        "shards": len(stream.shards),
        "bytes": sum(shard.size for shard in stream.table.shards),
        "tools": stream.shards[0].tools,
        "mixed_tools": {
            tool: sorted(versions) for tool, versions in sorted(mixed.items()) if len(versions) > 1
        },
    }


def lines(stream: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The output of `describe` in words: a topic and a line of about 80 columns."""
    of_them = f", {stream['partial']:,} of them partial" if stream["partial"] else ""
    videos, rows = count(stream["videos"], "videos"), count(stream["rows"], "rows")
    yield "videos", f"{videos} with {rows}{of_them}, {stream['failed']:,} failed"
    yield "size", f"{size(stream['bytes'])} in {count(stream['shards'], 'shards')}"
    classes = stream["num_classes"]
    names = "names known" if stream["class_names_known"] else "names unknown"
    scores = f"scores of {classes:,} classes ({names})" if classes else "no scores"
    features = f"{stream['feature_dim']:,} features" if stream["feature_dim"] else "no features"
    yield "row", f"{features}, {scores}, {gflops_digits(stream['gflops_per_row'], 3)} GFLOPs"
    yield "sampling", stream["sampling_in_words"]
    yield "input", _preprocessing_in_words(Preprocessing(**stream["preprocessing"]))
    yield "network", stream["backbone"]
    digest = f" (digest {stream['weights_digest'][:12]})" if stream["weights_digest"] else ""
    yield "weights", f"{stream['weights']}{digest}"
    if precision := stream["precision"]:
        device = stream["tools"].get("device")
        one_kind = device and "device" not in stream["mixed_tools"]
        yield "precision", f"{precision}, on {device}" if one_kind else precision
    for tool, versions in stream["mixed_tools"].items():
        yield "mixed", f"{tool} {', '.join(versions)}"
    if stream["decoders"].keys() - {"unknown"}:
        yield "decoder", ", ".join(f"{decoder} {number:,}" for decoder, number in stream["decoders"].items())
    yield from _counted("remark", stream["remarks"], stream["remark_examples"])
    yield from _counted("partial", stream["damage"], stream["damage_examples"])
    yield from _counted("failed", stream["failures"], stream["failure_examples"])


def _counted(topic: str, counts: Mapping[str, int], examples: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The most frequent reasons, each with how many videos it applies to, and one of them."""
    reasons = list(counts.items())
    width = max((len(f"{number:,}") for number in counts.values()), default=0)
    for reason, number in reasons[:_REASONS_SHOWN]:
        yield topic, f"{number:{width},} × {reason}, e.g. {examples[reason]!r}"
    if rest := sum(number for _, number in reasons[_REASONS_SHOWN:]):
        yield "", f"{rest:{width},} × {len(reasons) - _REASONS_SHOWN:,} other reasons (--json tells)"


def sampling_in_words(sampling: Sampling) -> str:
    """How rows lie in a video."""
    s = sampling
    if s.kind == "dense" and not s.fps:
        sizes = f" of {count(s.window, 'frames')}" if s.window else ""
        apart = f"every {s.stride}" if s.stride else "end to end"
        clips = "every frame" if s.window == s.step == 1 else f"clips{sizes} {apart}"
        return f"{clips}, at each video's own rate"
    if s.frames == 0:
        return f"{count(s.clips, 'rows')} a video, of unknown instants"
    clip = f"{s.frames} frames of {s.window} at {s.fps:g} a second"
    crops = "" if s.crops == 1 else f", {s.crops} crops each"
    if s.kind == "frames":
        every = "a frame every second" if s.fps == 1 else f"{s.fps:g} frames a second"
        return f"{every}{crops}"
    if s.kind == "snippets":
        return f"{s.rows_per_s:g} snippets a second, {clip}{crops}"
    if s.kind == "clips":
        return f"{count(s.clips, 'clips')} spread evenly, {clip}{crops}"
    if s.kind == "dense":
        apart = f"every {count(s.stride, 'frames')}" if s.stride else "end to end"
        return f"clips {apart}, {clip}{crops}"
    return f"{s.kind}, {clip}{crops}"


def _preprocessing_in_words(pixels: Preprocessing) -> str:
    if pixels.crop == 0:
        return "unknown"
    flow = f", optical flow ({pixels.flow})" if pixels.flow else ""
    return f"{pixels.crop}×{pixels.crop} pixels, short side {pixels.resize}, {pixels.interpolation}{flow}"
