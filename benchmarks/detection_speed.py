"""How quick is detection mAP?

    python -m benchmarks.detection_speed
    python -m benchmarks.detection_speed --quick        # a smoke test of seconds

Segments and detections are random, at the sizes of the benchmarks: six of ten detections lie near a segment, the
others anywhere, in a class of their video. Each protocol is timed from arrays to the average precision of every
class at every threshold, then the bootstrap over videos. At a small size this is compared with plain loops over
detections and segments (`benchmarks.plain_detection`), which run in turn with it. The average mAP shows how far
protocols differ on the same detections: several for a segment, as without non-maximum suppression.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import click
import numpy as np

from benchmarks import plain_detection
from benchmarks.tables import as_written, in_turn, load, machine, markdown
from policy.evaluation.detection import (
    ACTIVITYNET_IOUS,
    PROTOCOLS,
    THUMOS14_IOUS,
    Detections,
    FloatArray,
    GroundTruth,
    Matching,
    match,
)
from policy.evaluation.detection_map import average_precision, mean_over_classes, weighted_average_precision
from policy.evaluation.metrics import resampled_weights


class Size(NamedTuple):
    """How much there is to judge, and at which thresholds of IoU."""

    title: str
    videos: int
    classes: int
    segments: int
    detections: int
    thresholds: tuple[float, ...]
    length_s: float = 210.0


SMALL = Size("small", 20, 5, 300, 1_000, THUMOS14_IOUS)
SIZES = (
    Size("Thumos'14", 212, 20, 3_358, 20_000, THUMOS14_IOUS),
    Size("Thumos'14, many detections", 212, 20, 3_358, 100_000, THUMOS14_IOUS),
    Size("ActivityNet", 4_926, 200, 7_654, 500_000, ACTIVITYNET_IOUS, 117.0),
)


def planted(size: Size, seed: int) -> tuple[Detections, GroundTruth]:
    """Segments, mostly of one class a video, and detections with random scores that are higher near segments."""
    random = np.random.default_rng(seed)

    def spans(count: int) -> FloatArray:
        start_s = random.random(count) * size.length_s
        return np.stack([start_s, start_s + random.gamma(2, size.length_s / 50, count)], axis=1)

    main_class = random.integers(0, size.classes, size.videos)
    videos = random.integers(0, size.videos, size.segments)
    is_main = random.random(size.segments) < 0.9
    classes = np.where(is_main, main_class[videos], random.integers(0, size.classes, size.segments))
    ambiguous = size.videos // 2
    truth = GroundTruth(
        videos,
        classes,
        spans(size.segments),
        random.integers(0, size.videos, ambiguous),
        spans(ambiguous),
    )
    near = random.random(size.detections) < 0.6
    segment = random.integers(0, size.segments, size.detections)
    anywhere = random.integers(0, size.videos, size.detections)
    shifted = truth.spans[segment] + random.normal(0, size.length_s / 100, (size.detections, 2))
    detections = Detections(
        np.where(near, videos[segment], anywhere),
        np.where(near, classes[segment], main_class[anywhere]),
        np.where(near[:, None], np.sort(shifted, axis=1), spans(size.detections)),
        random.random(size.detections) + near / 2,
    )
    return detections, truth


def ours(
    detections: Detections, truth: GroundTruth, size: Size, protocol: str
) -> tuple[Matching, FloatArray]:
    """The matching, and average precision (C, I)."""
    matching = match(detections, truth, size.thresholds, protocol)
    return matching, average_precision(matching, size.classes)


def plain(detections: Detections, truth: GroundTruth, size: Size, protocol: str) -> FloatArray:
    """(C, I), by loops."""
    return np.array(
        [
            [
                plain_detection.average_precision(detections, truth, threshold, protocol, number)
                for threshold in size.thresholds
            ]
            for number in range(size.classes)
        ]
    )


@click.command(help=as_written(__doc__))
@click.option(
    "--repeats", default=3, show_default=True, help="Timed runs of each, of which the median counts."
)
@click.option("--resamples", default=1000, show_default=True, help="Bootstrap samples.")
@click.option("--seed", default=0, show_default=True)
@click.option("--quick", is_flag=True, help="The small size alone, once.")
def main(*, repeats: int, resamples: int, seed: int, quick: bool) -> None:
    click.echo(machine())
    detections, truth = planted(SMALL, seed)
    rows = []
    for protocol in PROTOCOLS:
        difference = np.abs(
            plain(detections, truth, SMALL, protocol) - ours(detections, truth, SMALL, protocol)[1]
        )
        arguments = detections, truth, SMALL, protocol
        taken = in_turn(
            {"plain": partial(plain, *arguments), "ours": partial(ours, *arguments)}, 1 if quick else repeats
        )
        rows.append(
            [
                protocol,
                f"{taken['plain']:.3f}",
                f"{taken['ours']:.4f}",
                f"{taken['plain'] / taken['ours']:.0f}",
                f"{np.nanmax(difference):.0e}",
            ]
        )
    click.echo(f"\n{_describe(SMALL)}\n")
    click.echo(markdown(["protocol", "plain, s", "ours, s", "ratio", "largest difference"], rows))
    rows = []
    for size in () if quick else SIZES:
        detections, truth = planted(size, seed)
        weights = resampled_weights(size.videos, resamples, seed)
        total_s = 0.0
        for protocol in PROTOCOLS:
            matching, precision = ours(detections, truth, size, protocol)
            taken = in_turn(
                {
                    "map": partial(ours, detections, truth, size, protocol),
                    "bootstrap": partial(weighted_average_precision, matching, size.classes, weights),
                },
                repeats,
            )
            total_s += taken["map"]
            average = f"{100 * mean_over_classes(precision).mean():.1f}"
            rows.append([size.title, protocol, f"{taken['map']:.2f}", f"{taken['bootstrap']:.2f}", average])
        rows.append([size.title, "all three", f"{total_s:.2f}", "", ""])
    if rows:
        click.echo("\n" + "\n".join(map(_describe, SIZES)) + f"\nload {load()}\n")
        header = ["size", "protocol", "mAP, s", f"{resamples} bootstrap samples, s", "average mAP, %"]
        click.echo(markdown(header, rows))


def _describe(size: Size) -> str:
    return (
        f"{size.title}: {size.videos:,} videos, {size.classes} classes, {size.segments:,} segments, "
        f"{size.detections:,} detections, {len(size.thresholds)} IoUs"
    )


if __name__ == "__main__":
    main()
