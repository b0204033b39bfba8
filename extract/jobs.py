"""Extraction by many processes over joblib: on one machine's cores and GPUs, or on the workers of a Dask cluster.

The unit of work is a shard: some videos and the streams that they lack. A process that dies has its shards done by
others, and each shard is in the cache or is not.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import itertools
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import joblib

from cache_schema import StreamSpec, UserError
from extract.backbones import StreamRequest
from extract.pipeline import Progress, Settings, Work, extract_shards
from extract.planning import make_plan
from extract.sources import SourceVideo

_DEATHS_IN_VAIN = 3


@dataclass(frozen=True)
class Recipe:
    """All that a process needs to make the backbones; the same in every one, so that they are made once.

    device: "cpu", "cuda:N", or "cuda" for whichever GPU of its machine is free.
    threads: of the networks on the CPU; None leaves them as they are.
    """

    requests: tuple[StreamRequest, ...]
    weights: tuple[str, ...]
    device: str
    precision: str
    threads: int | None

    def specs(self) -> dict[str, StreamSpec]:
        """What the streams will be, found out here, on the CPU."""
        import torch

        from extract.backbones.backbone import Backbone

        return {
            request.name: Backbone(
                request, weights=weights, device=torch.device("cpu"), precision=self.precision
            ).spec
            for request, weights in zip(self.requests, self.weights, strict=True)
        }


@dataclass(frozen=True)
class Done:
    """What became of the videos of a piece of work."""

    videos: tuple[SourceVideo, ...]
    progress: Progress


def extract_by_jobs(
    work: Iterator[Work],
    recipe: Recipe,
    specs: Mapping[str, StreamSpec],
    cache: Path,
    settings: Settings,
    *,
    jobs: int,
    backend: str,
    tools: Mapping[str, str],
    progress: Progress,
    report: Callable[[Progress], None],
    done: Callable[[Sequence[SourceVideo]], None],
    warn: Callable[[str], None],
    retry_failed: bool,
) -> None:
    """Extract work in `jobs` processes of a joblib backend ("loky", "dask").

    Raises:
        UserError: processes die again and again, or would make other rows than asked for.
    """
    pending: dict[tuple[SourceVideo, ...], Work] = {}  # handed out, and not known to be done

    def handed_out(again: Sequence[Work]) -> Iterator[Work]:
        for part in itertools.chain(again, work):
            pending[part.videos] = part
            yield part

    def finish(result: Done) -> None:
        done(result.videos)
        progress.add(result.progress)
        report(progress)

    again: Sequence[Work] = ()
    deaths_in_vain = 0
    while True:
        # As many pieces wait as are worked on: they are claimed, and another run might do them meanwhile.
        with joblib.parallel_config(backend=backend, n_jobs=jobs):  # Parallel itself would not know "dask"
            parallel = joblib.Parallel(return_as="generator_unordered", pre_dispatch="2*n_jobs", batch_size=1)
        task = joblib.delayed(_extract_work)
        parent = os.getpid() if backend == "loky" else None
        try:
            for result in parallel(
                task(part, recipe, dict(specs), cache, settings, dict(tools), parent)
                for part in handed_out(again)
            ):
                deaths_in_vain = 0
                del pending[result.videos]
                finish(result)
            return
        except Exception as error:
            if not _is_death(error):
                raise
            deaths_in_vain += 1
            if deaths_in_vain == _DEATHS_IN_VAIN:
                raise UserError(
                    f"the processes that extract die again and again ({type(error).__name__}), for want "
                    "of memory perhaps: use fewer --jobs, a smaller --batch or --workers 1; what is done is "
                    "in the cache"
                ) from error
            warn(
                f"a process that extracts has died; others do its shards, of {len(pending)} that were under way"
            )
        lost = [video for videos in pending for video in videos]
        pending.clear()
        plan = make_plan(lost, specs, cache, retry_failed=retry_failed)
        again = [Work(tuple(videos), streams) for streams, videos in plan.missing.items()]
        missing = {video.id for part in again for video in part.videos}
        written = tuple(video for video in lost if video.id not in missing)
        known = plan.failed | plan.refused
        there = Progress(len(lost), len(written), failures=known, partial=plan.partial)
        finish(Done(written, there))


def _is_death(error: Exception) -> bool:
    """Whether a process died, by the names that loky and Dask have for it."""
    return type(error).__name__ in {"TerminatedWorkerError", "BrokenProcessPool", "KilledWorker"}


def _extract_work(
    part: Work,
    recipe: Recipe,
    specs: Mapping[str, StreamSpec],
    cache: Path,
    settings: Settings,
    tools: Mapping[str, str],
    parent: int | None,
) -> Done:
    """One piece of work, in a process of its own, which ends with its `parent`."""
    if parent is not None:
        _end_with(parent)
    # Files of weights may have changed since a long-lived worker last read them: the digests tell.
    backbones = _backbones(recipe, tuple(spec.weights_digest for spec in specs.values()))
    for name, backbone in backbones.items():
        if backbone.spec != specs[name]:
            raise UserError(
                f"stream {name} would be another one on {os.uname().nodename}: its weights or its versions of "
                "torch and timm are not those of the machine that the run was started on"
            )
    progress = Progress(len(part.videos))
    extract_shards(
        [part], backbones, cache, settings, shard_size=len(part.videos), tools=tools, progress=progress
    )
    return Done(part.videos, progress)


@functools.lru_cache(maxsize=1)
def _end_with(parent: int) -> None:
    """End this process when its parent has ended: nobody is left to say that its videos are being done.

    By asking who the parent is: the kernel's own signal would come when the thread ends that started the process.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


@functools.lru_cache(maxsize=1)
def _backbones(recipe: Recipe, digests: tuple[str, ...]) -> Mapping[str, Any]:
    """The networks, made once for the same recipe and weights with these digests."""
    import torch

    from extract.backbones.backbone import Backbone

    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    device = torch.device(free_gpu() if recipe.device == "cuda" else recipe.device)
    return {
        request.name: Backbone(request, weights=weights, device=device, precision=recipe.precision)
        for request, weights in zip(recipe.requests, recipe.weights, strict=True)
    }


_held: list[IO[str]] = []


@functools.lru_cache(maxsize=1)
def free_gpu() -> str:
    """A GPU of this machine that no other such process has; when all are taken, they are shared.

    A process holds a lock on a file for as long as it lives, so a GPU is free again when its process has died.
    """
    import torch

    count = max(torch.cuda.device_count(), 1)
    for place in range(16 * count):  # up to sixteen processes on each GPU, one after another
        path = Path(tempfile.gettempdir()) / f"thriftvid-{os.getuid()}-gpu-{place}.lock"
        file = path.open("a")
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _held.append(file)
            return f"cuda:{place % count}"
        file.close()
    return "cuda:0"
