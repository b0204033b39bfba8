"""A whole run: what is missing in a cache, extracted here or by many processes; what could not be is named."""

from __future__ import annotations

import contextlib
import platform
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from cache_schema import StreamSpec
from cache_schema.command import cluster, count
from cache_schema.costs import gflops_digits, stream_cost
from cache_schema.tools.describe import sampling_in_words
from extract.backbones.backbone import Backbone
from extract.claims import Claim, Claims, clear_dead, wait_for
from extract.jobs import Recipe, extract_by_jobs
from extract.pipeline import Progress, Settings, Work, extract_shards
from extract.planning import Outcome, Plan, added_since, make_plan
from extract.sources import Sources, SourceVideo

_TOOLS = ("thriftvid", "torch", "torchvision", "timm", "decord2", "decord", "av", "pillow", "h5py")

# Is told of videos that are in the cache, in every stream.
Written = Callable[[Sequence[SourceVideo]], None]
# Extracts all of some work.
Round = Callable[[Iterator[Work], Progress, Written], None]


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
    warn: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Extract the videos that a cache lacks, for every stream, in this process and its decoders.

    Args:
        shard_size: videos in a shard. A killed run loses at most one, and the videos that it was at.
        retry_failed: try videos again that an earlier run could not read, or read in part.

    Raises:
        CacheError: the cache cannot be written, is damaged, or holds other streams under these names.
    """
    tools = tools or tool_versions()

    def here(work: Iterator[Work], progress: Progress, done: Written) -> None:
        extract_shards(
            work,
            backbones,
            cache,
            settings,
            shard_size=shard_size,
            tools=tools,
            progress=progress,
            report=report,
            written=done,
        )

    return run_rounds(
        sources,
        {name: backbone.spec for name, backbone in backbones.items()},
        cache,
        here,
        work_size=shard_size,
        retry_failed=retry_failed,
        warn=warn,
    )


def extract_by_many(
    sources: Sources,
    recipe: Recipe,
    cache: Path,
    settings: Settings,
    *,
    jobs: int,
    backend: str,
    scheduler: str | None = None,
    shard_size: int = 256,
    retry_failed: bool = False,
    tools: Mapping[str, str] | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
    warn: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Extract the videos that a cache lacks by many processes, each of which does whole shards.

    Args:
        settings: of each process.
        jobs: how many processes; of a Dask cluster all workers are used.
        backend: "loky" for this machine, "dask" for the cluster at `scheduler`.

    Raises:
        CacheError: as `extract` does.
        UserError: the scheduler cannot be reached, or processes die again and again.
    """
    tools = tools or tool_versions()
    specs = recipe.specs()
    sources = sources.absolute()
    cache = cache.absolute()
    with contextlib.ExitStack() as stack:
        if backend == "dask":
            jobs = stack.enter_context(cluster(scheduler or ""))

        def by_jobs(work: Iterator[Work], progress: Progress, done: Written) -> None:
            extract_by_jobs(
                work,
                recipe,
                specs,
                cache,
                settings,
                jobs=jobs,
                backend=backend,
                tools=tools,
                progress=progress,
                report=report,
                done=done,
                warn=warn,
                retry_failed=retry_failed,
            )

        # Few videos are shared out evenly: a job that does all of them in one shard helps nobody.
        share = -(-len(sources.videos) // jobs)
        return run_rounds(
            sources,
            specs,
            cache,
            by_jobs,
            work_size=max(1, min(shard_size, share)),
            retry_failed=retry_failed,
            warn=warn,
        )


def run_rounds(
    sources: Sources,
    specs: Mapping[str, StreamSpec],
    cache: Path,
    extract_all: Round,
    *,
    work_size: int,
    retry_failed: bool,
    warn: Callable[[str], None],
) -> Outcome:
    """Have everything extracted that is missing and that no other run is at; then what the others left.

    Args:
        work_size: videos in a piece of work, claimed together.

    Raises:
        CacheError: as `extract` does.
    """
    outcome = Outcome(failed=dict(sources.refused))
    videos: Sequence[SourceVideo] = sources.videos
    progress = Progress(0)
    priced: set[str] = set()
    while videos:
        plan = make_plan(videos, specs, cache, retry_failed=retry_failed)
        retry_failed = False  # in a later round: what another run has just tried
        outcome.add(plan)
        progress.videos_total += sum(map(len, plan.missing.values()))
        if not plan.missing:
            clear_dead(cache)
            break
        for name in sorted({name for streams in plan.missing for name in streams} - priced):
            priced.add(name)
            gflops = stream_cost(specs[name]).gflops()
            warn(
                f"{name}: {gflops_digits(gflops, 3)} GFLOPs a row, {sampling_in_words(specs[name].sampling)}"
            )
        with Claims(cache) as claims:
            if claims.unlocked:
                warn(f"{cache}: its file system has no locks: start no second run on it at the same time")
            work = _ClaimedWork(plan, claims, cache, specs, work_size)
            extract_all(iter(work), progress, work.done)
            videos = work.left_to_others
            progress.videos_total -= len(videos)
            if videos:
                warn(f"waiting for {count(len(videos), 'videos')} that another run is at")
                wait_for(claims, (video.id for video in videos))
    outcome.failed.update(progress.failures)
    outcome.partial.update(progress.partial)
    outcome.remarks, outcome.decoders = progress.remarks, dict(progress.decoders)
    outcome.extracted = progress.videos_done - len(progress.failures)
    outcome.frames = progress.frames_done
    return outcome


class _ClaimedWork:
    """The work of a plan, each piece claimed when it is taken; `left_to_others` is what could not be."""

    def __init__(
        self, plan: Plan, claims: Claims, cache: Path, specs: Mapping[str, StreamSpec], size: int
    ) -> None:
        self._plan, self._claims, self._cache, self._specs, self._size = plan, claims, cache, specs, size
        self._claimed: dict[str, Claim] = {}  # by id, until it is in the cache
        self._lock = threading.Lock()
        self.left_to_others: list[SourceVideo] = []

    def __iter__(self) -> Iterator[Work]:
        for streams, videos in self._plan.missing.items():
            for start in range(0, len(videos), self._size):
                part = videos[start : start + self._size]
                claim, _ = self._claims.take(video.id for video in part)
                # Claimed first, then looked up: what another run has finished is in the cache or still claimed.
                arrived = added_since(self._plan, self._cache, self._specs)
                ours = {id for id in claim.ids if id not in arrived}
                self.left_to_others += [video for video in part if video.id not in ours]
                if not ours:
                    self._claims.release(claim)
                    continue
                with self._lock:
                    self._claimed.update(dict.fromkeys(ours, claim))
                yield Work(tuple(video for video in part if video.id in ours), streams)

    def done(self, videos: Sequence[SourceVideo]) -> None:
        """These are in the cache: what is left of no claim is released."""
        with self._lock:
            touched = {self._claimed.pop(video.id) for video in videos}
            finished = touched - set(self._claimed.values())
        for claim in finished:
            self._claims.release(claim)


def tool_versions(device: str = "cpu") -> dict[str, str]:
    """What made the rows, for a shard's attributes."""
    installed = {}
    for tool in _TOOLS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed[tool] = metadata.version(tool)
    return {**installed, "python": platform.python_version(), "device": device}
