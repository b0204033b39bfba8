"""`make demo`: the main job end to end on real videos, and whether its result is what it should be.

Runs the same commands a user would, and prints them. A step whose result is there already is quick: batch-extract
and paper-tables do only what is missing.
"""

from __future__ import annotations

import csv
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import click
from joblib import Parallel, delayed
from rich.progress import track

from benchmarks.demo.collection import CLASSES, plan, write_clip, write_labels

COARSE, FINE = "timm:resnet10t@112", "timm:resnet18@224"
WEIGHTS = "random:0"
# For about 140 training videos; the paper's batch of 128 and rate of 1e-4 are for thousands.
TRAINING = shlex.split(
    "--gamma 0.1 --warmup 0.5 --epochs 30 --batch 16 --lr 1e-3 --coarse-hidden 64 --fine-hidden 128"
)


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), default=Path("demo"), show_default=True)
@click.option("--videos-per-class", default=28, show_default=True)
@click.option("--seeds", default=3, show_default=True, help="Trainings of each method.")
def demo(folder: Path, videos_per_class: int, seeds: int) -> None:
    """Write videos, extract features, train LiteEval and what it is compared with, print Table 1."""
    started = time.monotonic()
    cores = os.cpu_count() or 1
    videos, labels, cache, table = (folder / n for n in ("videos", "labels.csv", "cache", "table"))
    clips = plan(videos_per_class=videos_per_class, seed=0)
    videos.mkdir(parents=True, exist_ok=True)
    say(f"1. {len(clips)} H.264 videos of {len(CLASSES)} classes, 8 to 20 s, 320x240, into {videos}")
    missing = [clip for clip in clips if not (videos / f"{clip.name}.mp4").exists()]
    written = Parallel(cores, return_as="generator")(delayed(write_clip)(clip, videos) for clip in missing)
    for _ in track(written, "writing", total=len(missing), transient=True):
        pass
    write_labels(clips, labels)

    say(
        f"2. Features of every second, coarse ({COARSE}) and fine ({FINE}).\n"
        f"   No trained weights can be assumed here, so both networks have random weights ({WEIGHTS}): their\n"
        "   features still tell textures and colours apart, and the policies are trained on those. With\n"
        "   a network connection, --weights pretrained takes timm's."
    )
    run(
        *("batch-extract", videos, "--cache", cache, "--stream", COARSE, "--stream", FINE),
        *("--weights", WEIGHTS, "--shard-size", "64"),
    )

    say(f"3. Table 1 on the held-out videos: every method trained {seeds} times")
    run(
        *("paper-tables", "liteeval-1", "--cache", cache, "--labels", labels),
        *("--coarse", "resnet10t_112", "--fine", "resnet18_224", *TRAINING),
        *("--seeds", str(seeds), "--jobs", str(cores), "--runs", folder / "runs", "--out", table),
    )
    good = judge(table / "table-2.csv")
    say(f"Done in {(time.monotonic() - started) / 60:.1f} minutes; table and figure are in {table}")
    sys.exit(0 if good else 1)


def say(text: str) -> None:
    click.secho(f"\n{text}", bold=True)


def run(*command: str | Path) -> None:
    """Run one of our commands, shown as one would type it."""
    words = [str(word) for word in command]
    click.echo(f"$ {shlex.join(words)}")
    # The policies are small: one thread each, and tables train as many side by side as there are cores.
    policies = words[0] in ("paper-tables", "train-policy")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"} if policies else None
    program = Path(sys.executable).with_name(words[0])
    outcome = subprocess.run([program, *words[1:]], env=environment, check=False)
    if outcome.returncode:
        sys.exit(outcome.returncode)


def judge(verdicts: Path) -> bool:
    """Whether the table shows what LiteEval is for, by the verdicts that paper-tables has printed below it."""
    with verdicts.open(newline="", encoding="utf-8") as file:
        claims = [(row["holds"] == "yes", row["claim"]) for row in csv.DictReader(file)]
    for holds, claim in claims:
        click.secho(f"{'yes' if holds else 'NO '}  {claim}", fg="green" if holds else "red")
    return all(holds for holds, _ in claims)


if __name__ == "__main__":
    demo()
