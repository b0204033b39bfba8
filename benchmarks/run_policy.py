"""What does a gate save in seconds, on videos from their files?

    python -m benchmarks.run_policy
    python -m benchmarks.run_policy --quick        # a smoke test of seconds

LiteEval's networks in full size, untrained, with a gate that is open in every tenth row, and with one that is
always open; backbones with random weights. The same videos (640×360 H.264) are decoded and looked at, in turn:

- with both gates, as run-policy does it;
- by batch-extract, with every row of both streams, into a cache from which a policy would still have to predict;
- by batch-extract's decoders alone, for the cheap stream.

"saved" is the share of the open gate's GFLOPs, of its networks' seconds, or of its seconds by the clock that the
closed gate does without; "of what it should" is the saved share of networks' seconds over that of GFLOPs.
"policy" is the share of the clock that the sessions take. "of the bound" is the larger of decoding alone and the
networks' seconds, over the clock. Building backbones is not counted.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path

import click

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
from policy.session import Rows, Wanted

CLASSES = 239  # FCVID


class Scheduled(LiteEvalSession):
    """LiteEval whose gate opens in every `period`-th row, whatever it sees. `seconds`: of all sessions."""

    period = 1
    seconds = 0.0

    def look(self, coarse: Rows) -> bool:
        self.model.threshold.fill_(float("inf") if self.frames % self.period else float("-inf"))
        return super().look(coarse)

    def wanted(self) -> Wanted | None:
        started = time.perf_counter()
        try:
            return super().wanted()
        finally:
            Scheduled.seconds += time.perf_counter() - started

    def take(self, features: Rows | None = None, scores: Rows | None = None) -> None:
        started = time.perf_counter()
        super().take(features, scores)
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
        rows = measure(sources, place, (coarse, fine), in_flight, repeats)
    click.echo(
        f"{videos} videos of {seconds} s, {WIDTH}×{HEIGHT} H.264; {coarse} and {fine}; {in_flight} in flight; "
        f"medians of {repeats}; {machine()}\n"
    )
    header = ["", "GFLOPs", "networks s", "clock s", "saved GFLOPs", "saved networks s", "of what it should"]
    click.echo(markdown([*header, "saved clock s", "policy", "of the bound", "load"], rows))


def measure(
    sources: Sources, folder: Path, names: tuple[str, str], in_flight: int, repeats: int
) -> list[list[str]]:
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

    def gated(period: int) -> Took:
        Scheduled.period, Scheduled.seconds = period, 0.0
        backbones.seconds.clear()
        outcomes: list[Answer] = []

        def work() -> None:
            for outcome in run_policy(sources.videos, session, backbones, Settings(in_flight)):
                assert isinstance(outcome, Answer), outcome
                outcomes.append(outcome)

        clock_s = seconds_of(work)
        gflops = sum(sum(outcome.gflops.values()) for outcome in outcomes)
        return Took(clock_s, sum(backbones.seconds.values()), Scheduled.seconds, gflops)

    settings = ExtractSettings(decode_workers=os.cpu_count() or 1, batch=16, deadline_s=120.0)

    def everything() -> None:
        with tempfile.TemporaryDirectory(dir=folder) as cache:
            outcome = extract(sources, built, Path(cache), settings)
        if outcome.failed:
            raise click.ClickException(f"videos failed: {outcome.failed}")

    few = replace(sources, videos=sources.videos[:1])
    for _ in run_policy(few.videos, session, backbones, Settings(1)):  # warms up
        pass
    taken: dict[str, list[Took]] = {"gate open in 1 of 10 rows": [], "gate always open": []}
    extraction_s, decoding_s = [], []
    for _ in range(repeats):
        for (_, runs), period in zip(taken.items(), (10, 1), strict=True):
            runs.append(gated(period))
        extraction_s.append(seconds_of(everything))
        first = built[names[0]]
        decoding_s.append(seconds_of(lambda: deque(decoded(sources, first, settings), maxlen=0)))  # noqa: B023
    decoding, extraction = statistics.median(decoding_s), statistics.median(extraction_s)
    medians = {way: _median(runs) for way, runs in taken.items()}
    always = medians["gate always open"]
    rows = []
    for way, took in medians.items():
        saved, saved_s = 1 - took.gflops / always.gflops, 1 - took.networks_s / always.networks_s
        rows.append(
            [
                way,
                f"{took.gflops:.0f}",
                f"{took.networks_s:.1f}",
                f"{took.clock_s:.1f}",
                f"{saved:.3f}",
                f"{saved_s:.3f}",
                f"{saved_s / saved:.3f}" if saved else "",
                f"{1 - took.clock_s / always.clock_s:.3f}",
                f"{took.policy_s / took.clock_s:.1%}",
                f"{max(decoding, took.networks_s) / took.clock_s:.2f}",
                load(),
            ]
        )
    empty = [""] * 3
    for way, clock_s in {"every row extracted": extraction, "decoded alone": decoding}.items():
        saved_clock = f"{1 - clock_s / always.clock_s:.3f}"
        rows.append([way, "", "", f"{clock_s:.1f}", *empty, saved_clock, *empty])
    return rows


def _median(runs: list[Took]) -> Took:
    columns = zip(*((t.clock_s, t.networks_s, t.policy_s, t.gflops) for t in runs), strict=True)
    return Took(*map(statistics.median, columns))


if __name__ == "__main__":
    main()
