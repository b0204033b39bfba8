"""Extraction from Python: the function that batch-extract calls, and what comes of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cache_schema import FeatureCache, UserError
from cache_schema.arguments import checks_arguments, speaks_python
from cache_schema.command import check_scheduler, count
from cache_schema.files import StrPath, printable
from extract.backbones import (
    StreamRequest,
    Weights,
    absolute_weights,
    moved,
    parse_stream,
    weight_words,
    weights_by_stream,
)
from extract.planning import Outcome, nothing_to_do
from extract.sources import Ids, find_videos

if TYPE_CHECKING:  # they import torch, for which the first mistakes have no time
    from extract.dry_run import Forecast


@dataclass(frozen=True)
class Extraction:
    """What became of a request. Printed, it says so in a line.

    Attributes:
        streams: their names in the cache.
        videos: how many the request names.
        outcome: None of a dry run.
        forecast: of a dry run: what a run would do.
        left_out: how many files in folders were not taken, by ending.
    """

    cache: Path
    streams: tuple[str, ...]
    videos: int
    outcome: Outcome | None = None
    forecast: Forecast | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def failed(self) -> Mapping[str, str]:
        """Reasons by video, or file, of those that failed; of a dry run, that would."""
        if self.outcome is not None:
            return self.outcome.failed
        return self.forecast.failures if self.forecast else {}

    @property
    def partial(self) -> Mapping[str, str]:
        """Reasons by video of which there are rows, but not all."""
        done = self.outcome or self.forecast
        return done.partial if done else {}

    def open(self) -> FeatureCache:
        """The cache."""
        return FeatureCache(self.cache)

    def as_json(self) -> dict[str, Any]:
        """As the command prints it."""
        if self.forecast is not None:
            return {
                "cache": printable(self.cache),
                **self.forecast.to_json(),
                "left_out": dict(self.left_out),
            }
        assert self.outcome is not None
        return {
            "cache": printable(self.cache),
            "streams": list(self.streams),
            "videos": self.videos,
            "extracted": self.outcome.extracted,
            "already_there": self.outcome.present,
            "failed": self.outcome.failed,
            "partial": self.outcome.partial,
            "remarks": self.outcome.remarks,
            "decoders": self.outcome.decoders,
            "frames_decoded": self.outcome.frames,
            "left_out": dict(self.left_out),
        }

    def __str__(self) -> str:
        if self.forecast is not None:
            return "\n".join(self.forecast.lines())
        assert self.outcome is not None
        done = self.outcome
        return (
            f"{count(self.videos, 'videos')}: {done.extracted} extracted ({count(done.frames, 'frames')}), "
            f"{done.present} already there, {len(done.failed)} failed"
            f"{f', {len(done.partial)} partial' * bool(done.partial)}; "
            f"cache {self.cache} has {' and '.join(self.streams)}"
        )

    __repr__ = __str__


@speaks_python(stream="streams", deadline="deadline_s")
@checks_arguments
def extract(
    videos: StrPath | Sequence[StrPath],
    cache: StrPath,
    streams: str | Sequence[str],
    *,
    weights: Weights = "pretrained",
    fps: float | None = None,
    clips: int | None = None,
    crops: int | None = None,
    flow: str | None = None,
    size: int | None = None,
    ids: Ids = "stem",
    frames_fps: float | None = None,
    root: StrPath | None = None,
    device: str = "auto",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    batch: int | None = None,
    workers: int | None = None,
    threads: int | None = None,
    deadline_s: float = 120.0,
    shard_size: int = 256,
    jobs: int = 1,
    backend: Literal["loky", "dask"] = "loky",
    scheduler: str | None = None,
    damaged: Literal["refuse", "keep"] = "refuse",
    decoder: Literal["auto", "decord", "pyav"] = "auto",
    retry_failed: bool = False,
    dry_run: bool = False,
    note: Callable[[str], None] = print,
    progress: bool = True,
) -> Extraction:
    """Extract what a cache lacks of videos. Each argument is the option of batch-extract of its name.

    A video that cannot be read fails and the others go on: see `Extraction.failed`.

    Args:
        videos: files, folders, or lists of paths (.txt, .csv).
        cache: folder, made if need be.
        streams: names, as "resnet101_224" or "timm:resnet18@224".
        weights: of all streams, or by stream: "pretrained", "random:SEED" or a file.
        batch: frames in a forward pass; None: 16, on a GPU 128.
        workers: processes that decode; None: as many as there are cores.
        threads: of the networks on the CPU; None: torch's.
        deadline_s: that a decoder may take without getting a frame further.
        shard_size: videos in a shard file.
        jobs: processes that each do whole shards.
        dry_run: only foresee what would be done, and about how long it would take (`Extraction.forecast`).
        note: is called with each line that the user should know.
        progress: show it on standard error: a bar on a terminal, elsewhere a line now and then.

    Raises:
        UserError: the request cannot be carried out: no videos, no such stream or weights, an option that applies
            to none of the streams.
        CacheError: the cache cannot be written, is damaged, or holds other streams under these names.
    """
    texts = tuple(dict.fromkeys([streams] if isinstance(streams, str) else streams))
    if not texts:
        raise UserError("no stream to extract: name at least one")
    sources = find_videos(videos, ids=ids, frames_fps=frames_fps, root=root)
    unusual: dict[str, Any] = {"fps": fps, "clips": clips, "crops": crops, "flow": flow, "size": size}
    requests = [parse_stream(text, **unusual) for text in texts]
    check_scheduler(backend, scheduler)
    _all_apply(requests, **unusual)
    cache = Path(cache)
    requests = [_as_there(request, cache) for request in requests]
    names = tuple(request.name for request in requests)
    by_text = weights_by_stream(["pretrained", *weight_words(weights)], dict(zip(names, texts, strict=True)))
    chosen = {name: by_text[text] for name, text in zip(names, texts, strict=True)}
    pairs = {request.name: (request, chosen[request.name]) for request in requests}
    for line in sources.notes:
        note(line)
    about: dict[str, Any] = {
        "streams": names,
        "videos": len(sources.videos) + len(sources.refused),
        "left_out": sources.left_out,
    }
    if not dry_run and not retry_failed:  # networks and decoders take seconds, for nothing perhaps
        done = nothing_to_do(sources, [*pairs.values()], cache, precision=precision)
        if done is not None:
            return Extraction(cache, outcome=done, **about)

    from rich.console import Console

    from extract.backbones.backbone import Backbone
    from extract.batch import extract as extract_here
    from extract.batch import extract_by_many, tool_versions
    from extract.devices import choose_precision, find_device
    from extract.dry_run import foresee, specs_of, stand_in
    from extract.jobs import Recipe
    from extract.pipeline import Settings
    from extract.progress import show_progress

    console = Console(stderr=True, quiet=not progress)
    many = backend == "dask" or jobs > 1
    cores = max(1, (os.cpu_count() or 1) // jobs)  # for each job
    where = find_device(device)
    precision_chosen = choose_precision(precision, where, note)
    settings = Settings(
        decode_workers=workers or cores,
        batch=batch or (128 if where.type == "cuda" else 16),
        deadline_s=deadline_s,
        decoder=decoder,
        keep_damaged=damaged == "keep",
    )

    def backbones() -> dict[str, Backbone]:
        return {
            name: Backbone(
                request,
                weights=stand_in(weights) if dry_run else weights,
                device=where,
                precision=precision_chosen,
            )
            for name, (request, weights) in pairs.items()
        }

    if dry_run:
        looking = console.status("opening some of the videos, and extracting a few")
        with looking, _threads(threads or (cores if many else None)):
            built = backbones()
            specs = specs_of(built, pairs, cache)
            forecast = foresee(sources, built, specs, cache, settings, retry_failed=retry_failed, jobs=jobs)
        return Extraction(cache, forecast=forecast, **about)
    common: dict[str, Any] = {
        "shard_size": shard_size,
        "retry_failed": retry_failed,
        "tools": tool_versions(where.type),
        "warn": note,
    }
    with show_progress(console) as common["report"]:
        if many:
            recipe = Recipe(
                requests=tuple(requests),
                weights=tuple(absolute_weights(chosen[name]) for name in names),
                device="cuda" if device in ("auto", "cuda") and where.type == "cuda" else str(where),
                precision=precision_chosen,
                threads=threads or (cores if backend == "loky" else None),
            )
            outcome = extract_by_many(
                sources, recipe, cache, settings, jobs=jobs, backend=backend, scheduler=scheduler, **common
            )
        else:
            with _threads(threads):
                outcome = extract_here(sources, backbones(), cache, settings, **common)
    return Extraction(cache, outcome=outcome, **about)


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """Within it torch uses so many threads; None: as before."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _as_there(request: StreamRequest, cache: Path) -> StreamRequest:
    """A request for a network from a folder as the cache's stream of that name has it, if there is one."""
    if not request.network.startswith("transformers:/") or not cache.is_dir():
        return request
    opened = FeatureCache(cache, read_only=True)
    return moved(request, opened[request.name].spec.backbone) if request.name in opened else request


def _all_apply(requests: Sequence[StreamRequest], **values: object) -> None:
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
