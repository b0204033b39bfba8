"""How good and how quick are proposals, on planted videos whose actions are known?

    python -m benchmarks.localization_proposals
    python -m benchmarks.localization_proposals --quick        # a smoke test of seconds

Three tables. mAP is not interpolated, by score over all videos, in percent, means over the seeds.

1. W-TALC's proposals (one threshold) and contrast proposals (many, with soft-NMS) of the same activations,
blurred in
   time; and what each part of ActionBytes post-processing adds: the method's proposals of activations averaged in
   bytes, its usual proposals with their ends moved to boundaries, and all of it. On videos whose features change
   where actions begin and end, and on others whose features change nowhere.
2. RGB stays high in the place where an action is over, motion does not but has a scale of its own. Half of the
clips
   use motion: at random, and by disparity (Eq. 3). Motion activations as they are, mapped by the levels of
   training videos (ours), standardised per class over all training clips, or by quantiles of these. Half of the
   videos train.
3. Seconds for videos in which every class counts, the worst case, and for the plain loops of the tests on some of
   them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click
import numpy as np

from benchmarks.tables import as_written, load, machine, markdown, seconds_of
from policy.evaluation.detection import Detections, FloatArray
from policy.localization.action_bytes import (
    Propose,
    action_byte_proposals,
    byte_means,
    change_boundaries,
    to_boundaries,
)
from policy.localization.controls import random_clips
from policy.localization.levels import activation_levels, comparable
from policy.localization.motion_affinity import BoolArray, disparity, top_clips
from policy.localization.proposals import (
    class_scores,
    contrast_candidates,
    contrast_proposals,
    wtalc_proposals,
)
from policy.localization.suppression import soft_nms
from tests.plain_proposals import plain_contrast, plain_soft_nms, plain_wtalc
from tests.planted_activations import (
    PlantedModels,
    PlantedVideos,
    plain_map,
    plant_activations,
    plant_models,
    selected_map,
)

METHODS: dict[str, Propose] = {"W-TALC": wtalc_proposals, "contrast": contrast_candidates}
BLUR = 4.0
SCALES = ((3.0, -6.0), (0.3, 2.0))
"""Scale and shift of the motion model's logits."""

Map = Callable[[FloatArray], FloatArray]


@click.command(help=as_written(__doc__))
@click.option("--quick", is_flag=True, help="Few and short videos, one seed.")
def main(quick: bool) -> None:
    seeds = range(1 if quick else 5)
    videos = 10 if quick else 60
    click.echo(f"{machine()}; load {load()}\n")
    click.echo(_action_bytes(seeds, videos) + "\n")
    click.echo(_scales(seeds, videos) + "\n")
    click.echo(_speed(2 if quick else 200, 50 if quick else 1000, 1 if quick else 2))


# --- 1: proposals and ActionBytes ---


def _action_bytes(seeds: Sequence[int], videos: int) -> str:
    planted = [
        [plant_activations(seed, videos=videos, blur=BLUR, feature_changes=changes) for seed in seeds]
        for changes in (True, False)
    ]
    rows = []
    for name, propose in METHODS.items():
        for part, found in _parts(propose).items():
            figures = [
                np.mean([100 * plain_map(found(each), each.truth, iou) for each in of_seeds])
                for of_seeds in planted
                for iou in (0.5, 0.7)
            ]
            rows.append([f"{name}{part}", *(f"{figure:.1f}" for figure in figures)])
    return markdown(["proposals", "changes, 0.5", "0.7", "no changes, 0.5", "0.7"], rows)


def _parts(propose: Propose) -> dict[str, Callable[[PlantedVideos], Detections]]:
    def of_bytes(planted: PlantedVideos) -> Detections:
        averaged = [
            byte_means(logits, change_boundaries(rows))
            for logits, rows in zip(planted.activations, planted.features, strict=True)
        ]
        return soft_nms(propose(averaged, planted.spans, planted.scores))

    def moved(planted: PlantedVideos) -> Detections:
        boundaries = [change_boundaries(rows) for rows in planted.features]
        usual = propose(planted.activations, planted.spans, planted.scores)
        return soft_nms(to_boundaries(usual, planted.spans, boundaries))

    return {
        "": lambda planted: soft_nms(propose(planted.activations, planted.spans, planted.scores)),
        ", of bytes alone": of_bytes,
        ", ends moved": moved,
        ", ActionBytes": lambda planted: action_byte_proposals(
            propose, planted.activations, planted.spans, planted.scores, planted.features
        ),
    }


# --- 2: two models on one scale ---


def _scales(seeds: Sequence[int], videos: int) -> str:
    figures: dict[str, list[list[float]]] = {}
    for scale, shift in SCALES:
        for seed in seeds:
            models = plant_models(seed, videos=2 * videos, scale=scale, shift=shift)
            for name, values in _of_maps(models, videos, seed).items():
                figures.setdefault(name, []).append(values)
    rows = []
    for name, all_values in figures.items():
        means = np.reshape(all_values, (len(SCALES), len(seeds), -1)).mean(axis=1)
        rows.append([name, *(f"{value:.1f}" for value in means.ravel())])
    of_scale = ["motion", "random half", "disparity half"]
    header = [f"{what}, ×{scale:g}{shift:+g}" for scale, shift in SCALES for what in of_scale]
    return markdown(["motion's activations, mAP at 0.5", *header], rows)


def _of_maps(models: PlantedModels, training: int, seed: int) -> dict[str, list[float]]:
    rgb, motion, labels = models.rgb[:training], models.motion[:training], models.labels[:training]
    maps: dict[str, Map] = {
        "as they are": lambda logits: logits,
        "levels": _by_levels(rgb, motion, labels),
        "standardised": _standardised(np.concatenate(rgb), np.concatenate(motion)),
        "quantiles": _by_quantiles(np.concatenate(rgb), np.concatenate(motion)),
    }
    test = range(training, len(models.rgb))
    none, every = ([np.full(len(logits), value) for logits in models.rgb] for value in (False, True))
    random = np.random.default_rng(seed)
    at_random = [random_clips(len(logits), 0.5, random) for logits in models.rgb]
    values = {"(RGB only)": [100 * selected_map(models, models.motion, none, test)] * 3}
    for name, to_scale in maps.items():
        mapped = [to_scale(logits) for logits in models.motion]
        different = [
            top_clips(disparity(*each), 0.5) for each in zip(models.rgb, mapped, models.labels, strict=True)
        ]
        values[name] = [
            100 * selected_map(models, mapped, chosen, test) for chosen in (every, at_random, different)
        ]
    return values


def _by_levels(rgb: Sequence[FloatArray], motion: Sequence[FloatArray], labels: BoolArray) -> Map:
    levels, reference = activation_levels(motion, labels), activation_levels(rgb, labels)
    return lambda logits: comparable(logits, levels, reference)


def _standardised(rgb: FloatArray, motion: FloatArray) -> Map:
    return lambda logits: (logits - motion.mean(0)) / motion.std(0) * rgb.std(0) + rgb.mean(0)


def _by_quantiles(rgb: FloatArray, motion: FloatArray) -> Map:
    ranked_rgb, ranked = np.sort(rgb, axis=0), np.sort(motion, axis=0)
    return lambda logits: np.stack(
        [np.interp(logits[:, c], ranked[:, c], ranked_rgb[:, c]) for c in range(logits.shape[1])], axis=1
    )


# --- 3: speed ---


def _speed(videos: int, clips: int, plain_videos: int) -> str:
    random = np.random.default_rng(0)
    window = np.ones(9) / 9
    activations = [
        3
        * np.stack([np.convolve(noise, window, "same") for noise in random.normal(size=(20, clips))], axis=1)
        for _ in range(videos)
    ]
    starts = 0.64 * np.arange(clips)
    spans = [np.stack([starts, starts + 0.64], axis=1)] * videos
    scores = np.stack([class_scores(logits) for logits in activations])
    some = slice(plain_videos)

    def plain_all() -> None:
        for video in range(plain_videos):
            plain_soft_nms(plain_contrast(video, activations[video], spans[video], scores[video]))

    def plain_one_threshold() -> None:
        for video in range(plain_videos):
            plain_wtalc(video, activations[video], spans[video])

    rows = []
    for name, propose, plain in (
        ("W-TALC", wtalc_proposals, plain_one_threshold),
        ("contrast", contrast_proposals, plain_all),
    ):
        found = len(propose(activations, spans, scores))
        ours = seconds_of(lambda: propose(activations, spans, scores))  # noqa: B023
        same = seconds_of(lambda: propose(activations[some], spans[some], scores[some]))  # noqa: B023
        ratio = seconds_of(plain) / same
        rows.append([name, f"{found:,}", f"{ours:.2f} s", f"{ratio:.0f}×"])
    return markdown(
        [f"{videos} videos × {clips} clips × 20 classes", "proposals", "time", f"plain, on {plain_videos}"],
        rows,
    )


if __name__ == "__main__":
    main()
