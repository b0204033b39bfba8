"""Localization on real videos, from labels of whole videos alone, and what the flow of a few clips adds.

Runs the same commands as a user would, and prints them; what is there already is not made again. The videos are of
places that suggest an action which only motion shows (`collection`). A cheap network sees pictures, an expensive
one optical flow; W-TALC learns from either where the actions are, and a selector which clips are worth the flow.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from pathlib import Path

import click
from joblib import Parallel, delayed
from rich.progress import track

from benchmarks.demo.__main__ import run, say
from benchmarks.localization_demo.collection import CLASSES, plan, write, write_labels

APPEARANCE, MOTION, SIZE = "x3d_xs_dense16", "i3d_flow_dense16", "48"
APPEARANCE_STREAM, MOTION_STREAM = f"{APPEARANCE}@{SIZE}px", f"{MOTION}@{SIZE}px@dis"
# For 48 training videos and networks with random weights; the released code's 100,000 steps are for 200.
TRAINING = shlex.split("--input-norm standard --hidden 128 --epochs 40 --epoch-steps 60 --lr 1e-3")
BUDGET = "0.63"  # GFLOPs per clip, half of what both streams cost
MAP = "thumos14_map_0.1:0.7"


@click.command()
@click.option(
    "--folder", type=click.Path(path_type=Path), default=Path("demo-localization"), show_default=True
)
@click.option("--train", default=56, show_default=True, help="Training videos.")
@click.option("--test", default=32, show_default=True, help="Videos that are held out.")
def main(folder: Path, train: int, test: int) -> None:
    """Write videos, extract features of pictures and of flow, train on labels, print where actions were found."""
    started = time.monotonic()
    videos, labels, cache, runs = (folder / name for name in ("videos", "labels.csv", "cache", "runs"))
    collection = plan(train=train, test=test, seed=0)
    videos.mkdir(parents=True, exist_ok=True)
    say(
        f"1. {len(collection)} H.264 videos of {len(CLASSES)} actions into {videos}; their segments into {labels}"
    )
    missing = [video for video in collection if not (videos / f"{video.name}.mp4").exists()]
    written = Parallel(os.cpu_count() or 1, return_as="generator")(delayed(write)(v, videos) for v in missing)
    for _ in track(written, "writing", total=len(missing), transient=True):
        pass
    write_labels(collection, labels)

    say(
        f"2. Features of clips of 16 frames: of pictures ({APPEARANCE}) and of optical flow ({MOTION}), both of\n"
        "   random weights and small input, for no trained weights can be assumed here"
    )
    run(
        *("batch-extract", videos, "--cache", cache, "--stream", APPEARANCE, "--stream", MOTION),
        *("--flow", "dis", "--size", SIZE, "--weights", "random:0"),
    )

    say("3. W-TALC, on labels of whole videos: of pictures, of flow, and of both side by side")
    data: tuple[str | Path, ...] = ("--cache", cache, "--labels", labels)
    appearance, motion = ("--appearance", APPEARANCE_STREAM), ("--motion", MOTION_STREAM)
    streams = {"appearance": appearance, "motion": motion, "both": (*appearance, *motion)}
    for name, words in streams.items():
        run("train-policy", "wtalc", *data, *words, *TRAINING, "--out", runs / name)

    say("4. For which clips is flow worth its cost?")
    pair = ("--appearance-run", runs / "appearance", "--motion-run", runs / "motion")
    choose = ("train-policy", "localization-selector", *data, *appearance, *motion, *pair)
    run(*choose, "--budget", BUDGET, "--out", runs / "selector")
    good = judge(runs)
    say(f"Done in {(time.monotonic() - started) / 60:.1f} minutes; the runs are in {runs}")
    sys.exit(0 if good else 1)


def judge(runs: Path) -> bool:
    """Whether the runs show what the selector is for, claim by claim."""
    results = {
        name: json.loads((runs / name / "result.json").read_text(encoding="utf-8"))["result"]
        for name in ("appearance", "motion", "selector")
    }
    cheap, dear, selected = (100 * result["metrics"][MAP] for result in results.values())
    share = results["selector"]["gflops_mean"] / results["motion"]["gflops_mean"]
    gain = (selected - cheap) / (dear - cheap)
    details = json.loads((runs / "selector" / "details.json").read_text(encoding="utf-8"))
    (chance,) = (
        100 * point[MAP]
        for point in details["points"]
        if point["choice"] == "random" and point["at"] == details["share"]
    )
    claims = [
        (
            dear - cheap >= 5,
            f"flow finds actions better than pictures: average mAP {dear:.1f} to {cheap:.1f}",
        ),
        (gain >= 0.75, f"the selector keeps {gain:.0%} of that gain: {selected:.1f}"),
        (share <= 0.6, f"at {share:.0%} of the GFLOPs of flow for every clip"),
        (selected - chance >= 5, f"above as many clips at random by {selected - chance:.1f} points"),
    ]
    for holds, claim in claims:
        click.secho(f"{'yes' if holds else 'NO '}  {claim}", fg="green" if holds else "red")
    return all(holds for holds, _ in claims)


if __name__ == "__main__":
    main()
