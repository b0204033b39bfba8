"""How long does Fig. 5 of the model selection paper take, once the W-TALC models are trained?

    OMP_NUM_THREADS=1 python -m benchmarks.localization_figures
    python -m benchmarks.localization_figures --quick        # a smoke test of a minute

Planted features at the size of Thumos'14: 200 videos to train and 212 to judge in 20 classes, 260 clips each on
average, of 2,048 numbers (flow: 1,024). Appearance is high in actions and for a while after, motion in actions
alone. Timed is `paper-tables selection-fig5` whole, with one seed: ten selectors, each trained, judged and drawn
with its controls. The W-TALC models before it are as large as released, and trained for a moment only, as their
quality has no part in how long this takes.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shutil import copy

import click
import numpy as np
import numpy.typing as npt

from benchmarks.tables import as_written, load, machine, markdown, spent_on
from cache_schema import Preprocessing, Sampling, StreamSpec, VideoRecord, write_shard
from cache_schema.costs import cost_table
from policy.tables.cli import paper_tables
from policy.tables.reading import EXPERIMENTS, TABLE

FIGURE = "selection-fig5"
MOTION = "i3d_flow_dense16"
STREAMS = ("x3d_m_dense16", MOTION, "x3d_xs_dense16", "x3d_s_dense16", "x3d_l_dense16")
CLIP_S = 16 / 25
COLUMNS = ("video_id", "start_s", "end_s", "label", "subset")


@dataclass(frozen=True)
class Size:
    """How much is planted; `clips` is the mean of a video."""

    train: int = 200
    test: int = 212
    classes: int = 20
    clips: int = 260
    dim: int = 2048
    instances: int = 15


QUICK = Size(12, 8, 3, 40, 32, 3)
SHARD = 64  # videos


@dataclass(frozen=True)
class Video:
    """Where actions of its class are, in clips: half-open."""

    name: str
    subset: str
    label: int
    clips: int
    actions: npt.NDArray[np.int64]


def plan(size: Size, random: np.random.Generator) -> list[Video]:
    """Videos of very different lengths, as in Thumos'14, each with actions of 4 to 8 clips."""
    videos = []
    for number in range(size.train + size.test):
        clips = max(20, round(random.gamma(2, size.clips / 2)))
        room = clips // min(size.instances, clips // 16 + 1)
        starts = np.arange(0, clips - 10, max(room, 12)) + random.integers(1, 3)
        actions = np.stack([starts, starts + random.integers(4, 8, len(starts))], axis=1)
        subset = "train" if number < size.train else "test"
        videos.append(Video(f"video_{number:04d}", subset, number % size.classes, clips, actions))
    return videos


def write_cache(folder: Path, videos: Sequence[Video], size: Size, random: np.random.Generator) -> None:
    for stream in STREAMS:
        dim = size.dim // 2 if stream == MOTION else size.dim
        vectors = random.standard_normal((size.classes + 1, dim))
        vectors *= 12 / np.linalg.norm(vectors, axis=1, keepdims=True)
        records = features(videos, vectors, random, is_motion=stream == MOTION)
        for start in range(0, len(videos), SHARD):
            of_shard = [record for _, record in zip(videos[start : start + SHARD], records, strict=False)]
            write_shard(folder / stream, spec(stream, dim), of_shard, tools={"thriftvid": "benchmark"})


def features(
    videos: Sequence[Video], vectors: npt.NDArray[np.float64], random: np.random.Generator, *, is_motion: bool
) -> Iterator[VideoRecord]:
    """Noise, and the class's vector in actions; in appearance for four clips after each, too, beside another that
    says that one is over."""
    noise = random.standard_normal((4096, vectors.shape[1]), np.float32)
    for video in videos:
        rows = noise[random.integers(0, len(noise), video.clips)]
        for start, end in video.actions:
            rows[start:end] += vectors[video.label]
            if not is_motion:
                rows[end : end + 4] += vectors[video.label] + vectors[-1]
        starts_s = np.arange(video.clips) * CLIP_S
        yield VideoRecord(
            id=video.name,
            features=rows.astype(np.float16),
            spans=np.stack([starts_s, starts_s + 15 / 25], axis=1),
            duration_s=video.clips * CLIP_S,
            fps=25.0,
        )


def spec(stream: str, dim: int) -> StreamSpec:
    return StreamSpec(
        name=stream,
        backbone="none",
        weights="random:0",
        weights_digest="0" * 64,
        preprocessing=Preprocessing(256, 224, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        feature_dim=dim,
        num_classes=0,
        macs_per_row=cost_table()[stream].macs,
        sampling=Sampling("dense", fps=25.0, frames=16, window=16),
    )


def write_labels(path: Path, videos: Sequence[Video]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for video in videos:
            for start, end in video.actions * CLIP_S:
                writer.writerow(
                    (video.name, f"{start:.2f}", f"{end:.2f}", f"class {video.label:02d}", video.subset)
                )


def write_models_table(folder: Path) -> None:
    """A table of the figure's W-TALC rows alone."""
    folder.mkdir()
    for path in (EXPERIMENTS / FIGURE).glob("*-wtalc-*.toml"):
        copy(path, folder)
    (folder / TABLE).write_text(
        'title = "W-TALC"\nsource = "none"\nmeasures = ["thumos14_map_0.1:0.7", "gflops"]\ndatasets = []\n',
        encoding="utf-8",
    )


@click.command(help=as_written(__doc__))
@click.option("--steps", default=20, show_default=True, help="Training steps of each W-TALC model.")
@click.option("--jobs", default=2, show_default=True, help="Trainings at a time, a core each.")
@click.option("--out", type=click.Path(path_type=Path), help="Keep the figure's files here.")
@click.option("--seed", default=0, show_default=True)
@click.option("--quick", is_flag=True, help="20 short videos.")
def main(*, steps: int, jobs: int, out: Path | None, seed: int, quick: bool) -> None:
    size, random = QUICK if quick else Size(), np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        videos = plan(size, random)
        write_cache(folder / "cache", videos, size, random)
        write_labels(folder / "labels.csv", videos)
        write_models_table(folder / "wtalc")
        data = ["--cache", str(folder / "cache"), "--labels", str(folder / "labels.csv")]
        runs = ["--runs", str(folder / "runs"), "--seeds", "1", "--device", "cpu", "--jobs", str(jobs)]
        training = ["--epochs", "1", "--epoch-steps", str(steps), "--lr", "1e-3"]
        before = load()
        commands = {
            f"W-TALC, {steps} steps of five models": ["run", str(folder / "wtalc"), "--resamples", "0"],
            "Fig. 5 from these": [FIGURE, "--out", str(out or folder / "out")],
        }
        took = {
            what: spent_on(
                partial(paper_tables.main, [*words, *data, *runs, *training], standalone_mode=False)
            )
            for what, words in commands.items()
        }
    clips = sum(video.clips for video in videos)
    rows = [[what, *(f"{seconds / 60:.1f}" for seconds in spent)] for what, spent in took.items()]
    click.echo(
        f"\n{len(videos)} videos, {clips:,} clips. {machine()}; load {before} before, {load()} after.\n"
    )
    click.echo(markdown(["", "minutes", "of the processor"], rows))


if __name__ == "__main__":
    main()
