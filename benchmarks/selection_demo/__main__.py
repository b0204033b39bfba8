"""Model selection on real videos, from class scores that people already have.

Somebody has trained four networks of different size on the demo's videos and has their class scores as .npy files.
`feature-cache import` makes streams of them, with what they cost, and `train-policy selector` learns which network
a video needs. Nothing is extracted. What is there already is not made again.
"""

from __future__ import annotations

import csv
import os
import time
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
from joblib import Parallel, delayed
from PIL import Image
from rich.progress import track

from benchmarks.demo.__main__ import run, say
from benchmarks.demo.collection import CLASSES, TRAIN, plan, write_clip, write_labels
from benchmarks.selection_demo.networks import SIZES, out_of_fold
from extract.decode import open_video

LARGEST = max(size.pixels for size in SIZES)


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), default=Path("demo-selection"), show_default=True)
@click.option("--videos-per-class", default=60, show_default=True)
@click.option("--epochs", default=12, show_default=True, help="Of the networks.")
@click.option("--folds", default=3, show_default=True, help="So many networks judge the training videos.")
def main(folder: Path, videos_per_class: int, epochs: int, folds: int) -> None:
    """Write videos, train four networks on them, import their scores, learn which of them a video needs."""
    started = time.monotonic()
    videos, labels, scores, cache = (folder / n for n in ("videos", "labels.csv", "scores", "cache"))
    clips = plan(videos_per_class=videos_per_class, seed=0)
    videos.mkdir(parents=True, exist_ok=True)
    scores.mkdir(exist_ok=True)
    say(f"1. {len(clips)} H.264 videos of {len(CLASSES)} classes into {videos}")
    missing = [clip for clip in clips if not (videos / f"{clip.name}.mp4").exists()]
    written = Parallel(os.cpu_count() or 1, return_as="generator")(
        delayed(write_clip)(c, videos) for c in missing
    )
    for _ in track(written, "writing", total=len(missing), transient=True):
        pass
    write_labels(clips, labels)

    say(
        "2. Four networks of different size, trained on the training videos; each video is judged by one that\n"
        "   has not seen it. Their class probabilities go into one .npy each, as somebody might keep them."
    )
    ids = scores / "ids.txt"
    ids.write_text("".join(f"{clip.name}\n" for clip in clips), encoding="utf-8")
    (scores / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES), encoding="utf-8")
    if not all((scores / f"{size.name}.npy").exists() for size in SIZES):
        frames = Parallel(os.cpu_count() or 1, return_as="generator")(
            delayed(_every_second)(videos / f"{clip.name}.mp4") for clip in clips
        )
        seen = list(track(frames, "decoding", total=len(clips), transient=True))
        number = {name: place for place, name in enumerate(CLASSES)}
        targets = np.array([number[clip.label] for clip in clips])
        train = np.array([clip.subset == TRAIN for clip in clips])
        rows = float(np.mean([len(video) for video in seen]))
        for size in SIZES:
            smaller = [_resized(video, size.pixels) for video in seen]
            said = out_of_fold(
                size,
                smaller,
                targets,
                train,
                classes=len(CLASSES),
                epochs=epochs,
                folds=folds,
                report=click.echo,
            )
            np.save(scores / f"{size.name}.npy", said)
        with (scores / "costs.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([size.name, size.macs(len(CLASSES)) * rows / 1e9] for size in SIZES)

    say("3. Their scores become streams of a cache, with what a video costs")
    with (scores / "costs.csv").open(newline="", encoding="utf-8") as file:
        costs = {name: float(gflops) for name, gflops in csv.reader(file)}
    for name, gflops in costs.items():
        run(
            *("feature-cache", "import", scores / f"{name}.npy", "--into", cache, "--stream", name),
            *("--ids", ids, "--classes", scores / "classes.txt", "--kind", "softmax"),
            *("--gflops-per-row", f"{gflops:.4g}"),
        )

    say("4. Which of them does a video need?")
    models = [word for size in SIZES for word in ("--model", size.name)]
    budget = ("--budget", f"{max(costs.values()) / 3:.2g}")
    given: tuple[str | Path, ...] = ("--cache", cache, "--labels", labels, *models, *budget)
    run("train-policy", "selector-cascade", *given, "--out", folder / "cascade-run")

    say("5. The paper's way to choose and others, each at many budgets")
    table = folder / "table"
    # Of perceptrons, for some 200 training videos; the paper's 5 epochs are for 240,000.
    training = ("--epochs", "60", "--batch", "16")
    run("paper-tables", "selection-budgets", *given, *training, "--runs", folder / "runs", "--out", table)
    judge(table / "table.csv")
    say(f"Done in {(time.monotonic() - started) / 60:.1f} minutes; table and figure are in {table}")


def judge(table: Path) -> None:
    """What the areas say of each way to choose, and whether it may be chance."""
    with table.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["at"]]
    for row in rows:
        for other, name in (("random", "random selection"), ("cascade", "the confidence cascade")):
            value, low, high = (
                round(float(row[f"above_{other}{end}"]), 1) + 0.0 for end in ("", "_low", "_high")
            )
            verdict = "above" if low > 0 else "below" if high < 0 else "as good as"
            click.echo(f"{row['method']}: {verdict} {name}, {value:+.1f} points [{low:+.1f}, {high:+.1f}]")


def _every_second(path: Path) -> npt.NDArray[np.uint8]:
    """(T, LARGEST, LARGEST, 3): the frame of every second, its middle."""
    chunks = [chunk for _, chunk in open_video(path, fps=1).chunks()]
    return _resized(np.concatenate(chunks), LARGEST)


def _resized(frames: npt.NDArray[np.uint8], pixels: int) -> npt.NDArray[np.uint8]:
    """(T, pixels, pixels, 3), from the middle square."""
    height, width = frames.shape[1:3]
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return np.stack(
        [
            np.asarray(Image.fromarray(f).resize((pixels, pixels), Image.Resampling.BICUBIC, box=box))
            for f in frames
        ]
    )


if __name__ == "__main__":
    main()
