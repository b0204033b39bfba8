"""`make demo`: the main job end to end on real videos, and whether its result is what it should be.

Runs the same commands a user would, and prints them. A step whose result is there already is quick: batch-extract
and paper-tables do only what is missing.
"""

from __future__ import annotations

import csv
import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import click
from joblib import Parallel, delayed
from rich.progress import track

from benchmarks.demo.collection import CLASSES, TEST, plan, write_clip, write_labels

COARSE, FINE = "timm:resnet10t@112", "timm:resnet18@224"
WEIGHTS = "random:0"
# The default recipe, made quicker: fewer epochs, of as many steps as about 140 videos allow, of smaller networks.
TRAINING = shlex.split("--gamma 0.1 --epochs 30 --batch 16 --coarse-hidden 64 --fine-hidden 128")


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), default=Path("demo"), show_default=True)
@click.option("--videos-per-class", default=28, show_default=True)
@click.option("--seeds", default=3, show_default=True, help="Trainings of each method.")
def demo(folder: Path, videos_per_class: int, seeds: int) -> None:
    """Write videos, extract features, train LiteEval and what it is compared with, print Table 1, run LiteEval."""
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

    say(
        f"3. Table 1 on the held-out videos: every method trained {'once' if seeds == 1 else f'{seeds} times'}"
    )
    run(
        *("paper-tables", "liteeval-1", "--cache", cache, "--labels", labels),
        *("--coarse", "resnet10t_112", "--fine", "resnet18_224", *TRAINING),
        *("--seeds", str(seeds), "--jobs", str(cores), "--runs", folder / "runs", "--out", table),
    )
    good = judge(table / "table-2.csv")

    held_out, answers = folder / "held_out.txt", folder / "answers"
    answers.mkdir(exist_ok=True)
    say(
        "4. The trained policy on the held-out videos from their files, and LSTM+CF, which looks at every frame"
    )
    held_out.write_text(
        "".join(f"videos/{clip.name}.mp4\n" for clip in clips if clip.subset == TEST), encoding="utf-8"
    )
    all_fine, liteeval = (
        from_files(run_folder(folder / "runs", method), held_out, answers / f"{method}.csv")
        for method in ("lstm-cf", "liteeval")
    )
    click.echo(compared(all_fine, liteeval))
    say(f"Done in {(time.monotonic() - started) / 60:.1f} minutes; table and figure are in {table}")
    sys.exit(0 if good else 1)


def say(text: str) -> None:
    click.secho(f"\n{text}", bold=True)


def run(*command: str | Path, read: bool = False) -> str:
    """Run one of our commands, shown as one would type it. Returns what it prints, where that is to be read."""
    words = [str(word) for word in command]
    click.echo(f"$ {shlex.join(words)}")
    # The policies are small: one thread each, and tables train as many side by side as there are cores.
    policies = words[0] in ("paper-tables", "train-policy")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"} if policies else None
    program = Path(sys.executable).with_name(words[0])
    output = subprocess.PIPE if read else None
    outcome = subprocess.run([program, *words[1:]], env=environment, check=False, stdout=output, text=True)
    if outcome.returncode:
        sys.exit(outcome.returncode)
    return outcome.stdout or ""


def run_folder(runs: Path, method: str) -> Path:
    """The latest run of a method with the table's first seed."""
    configs = {path.parent: json.loads(path.read_bytes())["config"] for path in runs.glob("*/config.json")}
    found = [
        folder for folder, config in configs.items() if (config["method"], config["seed"]) == (method, 0)
    ]
    return max(found, key=lambda folder: folder.stat().st_mtime)


@dataclass(frozen=True)
class Took:
    """What a policy took for all videos together: networks_s, those of the backbones and its own."""

    videos: int
    gflops: float
    networks_s: float
    clock_s: float


def from_files(folder: Path, videos: Path, out: Path) -> Took:
    """Run a policy on videos, once more if the output is there already."""
    out.unlink(missing_ok=True)
    summary = json.loads(run("run-policy", folder, videos, "--out", out, "--json", read=True))
    return Took(
        summary["predicted"],
        sum(summary["gflops"].values()),
        sum(summary["network_seconds"].values()) + summary["policy_seconds"],
        summary["seconds"],
    )


def compared(before: Took, after: Took) -> str:
    """What the policy saves, in one sentence."""

    def change(old: float, new: float, unit: str) -> str:
        return f"{old:.1f} → {new:.1f} {unit} ({new / old - 1:+.0%})"

    gflops = change(before.gflops / before.videos, after.gflops / after.videos, "GFLOPs a video")
    return (
        f"{after.videos} videos from their files, LSTM+CF → LiteEval: {gflops},\n"
        f"networks {change(before.networks_s, after.networks_s, 's')}, "
        f"with decoding and start {change(before.clock_s, after.clock_s, 's')}"
    )


def judge(verdicts: Path) -> bool:
    """Whether the table shows what LiteEval is for, by the verdicts that paper-tables has printed below it."""
    with verdicts.open(newline="", encoding="utf-8") as file:
        claims = [(row["holds"] == "yes", row["claim"]) for row in csv.DictReader(file)]
    for holds, claim in claims:
        click.secho(f"{'yes' if holds else 'NO '}  {claim}", fg="green" if holds else "red")
    return all(holds for holds, _ in claims)


if __name__ == "__main__":
    demo()
