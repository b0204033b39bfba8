"""What does a gate save in seconds, on videos from their files?

    python -m benchmarks.run_policy
    python -m benchmarks.run_policy --quick        # a smoke test of seconds

LiteEval's networks in full size, untrained, with a gate that is open in one row of ten, drawn for each video, and
with one that is always open; backbones with random weights. The same videos (640×360 H.264) are decoded and looked
at, in turn:

- with both gates, as run-policy does it, several videos in flight;
- with the first gate, one video at a time;
- by batch-extract, with every row of both streams, into a cache from which a policy would still have to predict;
- by batch-extract's decoders alone, for the cheap stream: all of them, and one.

"saved" is the share of the open gate's GFLOPs, of its networks' seconds, or of its seconds by the clock that the
closed gate does without; "of what it should" is the saved share of networks' seconds over that of GFLOPs.
"policy" is the share of the clock that the sessions take. "of the bound" is the larger of decoding alone and the
networks' seconds, over the clock. Building backbones is not counted. Of one video at a time the parts are decoding
with one process, the networks and the policy: their sum is what it takes if nothing is done at the same time.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.extraction import HEIGHT, WIDTH, decoded, video_folder, write_videos
from benchmarks.tables import as_written, load, machine, markdown, seconds_of
from extract.backbones import parse_stream
from extract.backbones.backbone import Backbone
from extract.batch import extract
from extract.pipeline import Settings as ExtractSettings
from extract.sources import Sources
from policy.deploy.engine import Answer, Settings, run_policy
from policy.deploy.network import Backbones
from policy.liteeval.model import LiteEval
from policy.liteeval.session import LiteEvalSession
from policy.session import Wanted

CLASSES = 239  # FCVID
FEW, ALWAYS, ALONE = "gate open in 1 of 10 rows", "gate always open", "1 of 10 rows, one video at a time"


class Scheduled(LiteEvalSession):
    """LiteEval whose gate opens in one row of `period`, drawn for each video, whatever it sees.

    `seconds`: those that all sessions take.
    """

    period = 1
    seconds = 0.0

    def _restart(self) -> None:
        super()._restart()
        rows = len(self._spans_s.get(self.coarse_stream, ()))
        order = np.random.default_rng(list(self.video_id.encode())).permutation(rows)
        self._open = frozenset(order[: round(rows / self.period)].tolist())

    def _opens(self, learned: bool) -> bool:
        return self.frames - 1 in self._open

    def wanted(self) -> Wanted | None:
        started = time.perf_counter()
        try:
            return super().wanted()
        finally:
            Scheduled.seconds += time.perf_counter() - started

    @classmethod
    def take_together(cls, sessions: Any, rows: Any) -> list[ValueError | None]:
        started = time.perf_counter()
        try:
            return super().take_together(sessions, rows)
        finally:
            Scheduled.seconds += time.perf_counter() - started


@dataclass(frozen=True)
class Took:
    """What a way took."""

    clock_s: float
    networks_s: float
    policy_s: float
    gflops: float


@click.command(help=as_written(__doc__))
@click.option("--coarse", default="mobilenetv2_112", show_default=True)
@click.option("--fine", default="resnet101_224", show_default=True)
@click.option("--videos", default=20, show_default=True)
@click.option("--seconds", default=60, show_default=True, help="Length of each video.")
@click.option("--in-flight", default=max(4, 2 * (os.cpu_count() or 1)), show_default=True)
@click.option("--repeats", default=3, show_default=True, help="Timed runs of each way, alternating.")
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Keep the videos here. [default: a temporary one]"
)
@click.option("--quick", is_flag=True, help="Three videos of 8 s, a small second network, once.")
def main(
    *,
    coarse: str,
    fine: str,
    videos: int,
    seconds: int,
    in_flight: int,
    repeats: int,
    folder: Path | None,
    quick: bool,
) -> None:
    if quick:
        fine, videos, seconds, repeats = "timm:resnet18@64", 3, 8, 1
    with video_folder(folder) as place:
        sources = write_videos(place, videos=videos, seconds=seconds)
        rows, notes = measure(sources, place, (coarse, fine), in_flight, repeats)
    click.echo(
        f"{videos} videos of {seconds} s, {WIDTH}×{HEIGHT} H.264; {coarse} and {fine}; {in_flight} in flight; "
        f"medians of {repeats}; {machine()}\n"
    )
    header = ["", "GFLOPs", "networks s", "policy s", "clock s", "saved GFLOPs", "saved networks s"]
    header += ["of what it should", "saved clock s", "policy", "of the bound", "load"]
    click.echo("\n".join([markdown(header, rows), "", *notes]))


def measure(
    sources: Sources, folder: Path, names: tuple[str, str], in_flight: int, repeats: int
) -> tuple[list[list[str]], list[str]]:
    """The rows of the table, and what is said below it."""
    import torch  # after extract, which tells OpenMP how to wait

    device = torch.device("cpu")
    built = {
        name: Backbone(parse_stream(name), weights="random:0", device=device) for name in dict.fromkeys(names)
    }
    coarse, fine = (built[name].spec for name in names)
    model = LiteEval(
        coarse_dim=coarse.feature_dim,
        fine_dim=fine.feature_dim,
        num_classes=CLASSES,
        coarse_hidden=512,
        fine_hidden=2048,
    )
    session = Scheduled(model, coarse, fine, classes=tuple(map(str, range(CLASSES))))
    backbones = Backbones(session.streams, weights={}, device=device)
    backbones.use(built)

    def gated(period: int, together: int) -> Took:
        Scheduled.period, Scheduled.seconds = period, 0.0
        backbones.seconds.clear()
        outcomes: list[Answer] = []

        def work() -> None:
            for outcome in run_policy(sources.videos, session, backbones, Settings(together)):
                assert isinstance(outcome, Answer), outcome
                outcomes.append(outcome)

        clock_s = seconds_of(work)
        gflops = sum(sum(outcome.gflops.values()) for outcome in outcomes)
        return Took(clock_s, sum(backbones.seconds.values()), Scheduled.seconds, gflops)

    settings = ExtractSettings(decode_workers=os.cpu_count() or 1, batch=16, deadline_s=120.0)

    def decoding(workers: int) -> float:
        how = replace(settings, decode_workers=workers)
        return seconds_of(lambda: deque(decoded(sources, built[names[0]], how), maxlen=0))

    def everything() -> None:
        with tempfile.TemporaryDirectory(dir=folder) as cache:
            outcome = extract(sources, built, Path(cache), settings)
        if outcome.failed:
            raise click.ClickException(f"videos failed: {outcome.failed}")

    few = replace(sources, videos=sources.videos[:1])
    for _ in run_policy(few.videos, session, backbones, Settings(1)):  # warms up
        pass
    ways = {FEW: (10, in_flight), ALWAYS: (1, in_flight), ALONE: (10, 1)}
    taken: dict[str, list[Took]] = {way: [] for way in ways}
    extraction_s, decoding_s, alone_s = [], [], []
    for _ in range(repeats):
        for way, how in ways.items():
            taken[way].append(gated(*how))
        extraction_s.append(seconds_of(everything))
        decoding_s.append(decoding(settings.decode_workers))
        alone_s.append(decoding(1))
    all_decoded, extraction = statistics.median(decoding_s), statistics.median(extraction_s)
    medians = {way: _median(runs) for way, runs in taken.items()}
    always = medians[ALWAYS]
    rows = []
    for way, took in medians.items():
        saved, saved_s = 1 - took.gflops / always.gflops, 1 - took.networks_s / always.networks_s
        rows.append(
            [
                way,
                f"{took.gflops:.0f}",
                f"{took.networks_s:.1f}",
                f"{took.policy_s:.2f}",
                f"{took.clock_s:.1f}",
                f"{saved:.3f}",
                f"{saved_s:.3f}",
                f"{saved_s / saved:.3f}" if saved else "",
                f"{1 - took.clock_s / always.clock_s:.3f}",
                f"{took.policy_s / took.clock_s:.1%}",
                f"{max(all_decoded, took.networks_s) / took.clock_s:.2f}",
                load(),
            ]
        )
    empty = [""] * 3
    decoded_alone = {
        "decoded alone": all_decoded,
        "decoded alone, by one process": statistics.median(alone_s),
    }
    for way, clock_s in {"every row extracted": extraction, **decoded_alone}.items():
        saved_clock = f"{1 - clock_s / always.clock_s:.3f}"
        rows.append([way, *empty, f"{clock_s:.1f}", *empty, saved_clock, *empty])
    parts = [
        run.clock_s / (decoded_s + run.networks_s + run.policy_s)
        for run, decoded_s in zip(taken[ALONE], alone_s, strict=True)
    ]
    return rows, [
        f"Extracting every row takes {extraction / medians[FEW].clock_s:.2f} times as long as the first line.",
        f"One video at a time takes {statistics.median(parts):.2f} of the sum of its parts.",
    ]


def _median(runs: list[Took]) -> Took:
    columns = zip(*((t.clock_s, t.networks_s, t.policy_s, t.gflops) for t in runs), strict=True)
    return Took(*map(statistics.median, columns))


if __name__ == "__main__":
    main()
