"""train-policy evaluate and predict: finished runs on other videos."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cache_schema import FeatureCache, UserError
from cache_schema.command import (
    AS_JSON,
    DEVICE,
    SOME_FAILED,
    VAL_FRACTION,
    count,
    given_labels,
    label_options,
    options,
    tells_mistakes,
)
from cache_schema.run_folder import write_atomically
from policy.config import DataConfig
from policy.options import (
    given_settings,
    settings,
)

if TYPE_CHECKING:  # they import torch, for which --help has no time
    from policy.evaluation.operating import OperatingTarget
    from policy.finished import MovedPoint


_PATH: click.ParamType[Any] = click.Path(path_type=Path)
_RUN = click.argument("run", type=_PATH)
_CACHE = click.option("--cache", required=True, type=_PATH, help="Feature cache with the streams of the run.")
_TARGET = options(
    click.option(
        "--usage",
        type=float,
        metavar="SHARE",
        help="Move LiteEval, its variants, an agent such as FrameGlimpse or a localization-selector to this share "
        "of rows, or clips, for which the expensive backbone runs.",
    ),
    click.option(
        "--budget",
        type=float,
        metavar="GFLOPS",
        help="Move the policy to so many mean GFLOPs per video, all included; a localization-selector per clip.",
    ),
    click.option(
        "--shared-budget",
        type=float,
        metavar="GFLOPS",
        help="As --budget, but the videos share it: all are answered at one operating point, and each goes on to "
        "dearer ones as long as its answer promises enough, by --calibrate-subset or held-out videos.",
    ),
    click.option(
        "--threshold",
        type=float,
        help="Move the policy to this threshold: of LiteEval on the log-odds that the gate opens (0 is Algorithm "
        "1), of selectors on the confidence, or the price of a GFLOP; of FrameGlimpse the number of glimpses, of "
        "FastForward on the log-odds of stopping, of AdaFrame the margin μ, of FrameExit and confidence-exit on "
        "the log-odds of going on (0 is as trained), of SCSampler, motion-difference, Uniform and LSTM the number "
        "of rows.",
    ),
    click.option(
        "--calibrate-subset",
        metavar="SUBSET",
        help="Find --usage, --budget or --shared-budget on these videos, best ones that it was not trained on; "
        "by default on those that its training held out, or else (not --shared-budget) on the training videos.",
    ),
)


@click.command()
@_RUN
@options(
    _CACHE,
    click.option("--labels", required=True, type=_PATH, help="Labels of the videos to judge it on."),
    label_options,
    VAL_FRACTION,
    settings(DataConfig, "eval_subset", "skip_missing", "whole_only", "classes_present"),
    _TARGET,
    click.option(
        "--out",
        type=_PATH,
        help="Write a run folder of what comes of it, with weights that keep the operating point.",
    ),
    DEVICE,
    AS_JSON,
)
@tells_mistakes
def evaluate(run: Path, **given: Any) -> None:
    """Judge a finished run on another subset, cache or labels, or at another operating point.

    Nothing is trained again but the small network of a selector, on parts of its training videos, where these are
    what a budget is found on. RUN itself is only read.

    \b
    Example:
      train-policy evaluate runs/liteeval --cache CACHE --labels labels.csv \\
        --eval-subset test --usage 0.1 --calibrate-subset val --out runs/liteeval-10
    """
    from policy.cli.result_text import result_text
    from policy.finished import evaluate_run
    from policy.runs import SHARED, choose_device

    target = _target(given)
    done = evaluate_run(
        run,
        FeatureCache(given["cache"]),
        given_labels(given),
        config=DataConfig(**given_settings()),
        target=target,
        calibrate_subset=given["calibrate_subset"],
        device=choose_device(given["device"]),
        out=given["out"],
        note=_note,
    )
    if given["as_json"]:
        shown = {**done.outcome.result.as_json(), "folder": str(done.folder), "subset": done.subset}
        shown |= {"operating_point": done.point.as_json()} if done.point else {}
        shown |= {"details": done.outcome.details} if done.outcome.details else {}
        click.echo(json.dumps(shown, indent=2, ensure_ascii=False))
        return
    outcome = done.outcome
    click.echo(result_text(done.config, outcome.result, outcome.details, done.folder, done.class_scores))
    if done.point:
        click.echo(f"  {_described(done.point)}")
    if gain := done.outcome.details.get(SHARED):
        points = gain["gain_top1_points"]
        click.echo(
            f"  shared: top-1 is {abs(points):.1f} points {'below' if points < 0 else 'above'} what the same "
            f"policy has for this cost, spent on all videos alike (95 %: {gain['gain_low']:+.1f} to "
            f"{gain['gain_high']:+.1f})"
        )


@click.command()
@_RUN
@options(
    _CACHE,
    click.option("--out", required=True, type=_PATH, help="CSV file of the predictions."),
    click.option(
        "--top",
        default=5,
        show_default=True,
        type=click.IntRange(min=1),
        help="Classes of a video that are written.",
    ),
    _TARGET,
    click.option(
        "--labels",
        type=_PATH,
        help="Of the videos on which --usage, --budget or --shared-budget is found; else not needed.",
    ),
    label_options,
    VAL_FRACTION,
    DEVICE,
    AS_JSON,
)
@tells_mistakes
def predict(run: Path, **given: Any) -> None:
    """Class probabilities of all videos of a cache by a finished run, without labels.

    The file has a line for each of the best classes of a video: video_id, rank, class, probability. A video that
    has no rows in one of the run's streams is named, and the exit code is 1.

    \b
    Example:
      train-policy predict runs/liteeval --cache CACHE --out predictions.csv --top 5
    """
    from policy.finished import predict_run
    from policy.runs import choose_device

    if given["out"].is_dir():
        raise UserError(f"{given['out']}: is a folder; --out is the name of a CSV file")
    done = predict_run(
        run,
        FeatureCache(given["cache"]),
        labels=given_labels(given) if given["labels"] else None,
        target=_target(given),
        calibrate_subset=given["calibrate_subset"],
        device=choose_device(given["device"]),
        note=_note,
    )
    rows = done.best(given["top"])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["video_id", "rank", "class", "probability"])
    writer.writerows((*row, f"{probability:.6g}") for *row, probability in rows)
    write_atomically(given["out"], text.getvalue().encode())
    for video, reason in done.failed.items():
        _note(f"no prediction for {video!r}: {reason}")
    if given["as_json"]:
        shown: dict[str, Any] = {
            "predictions": {video: {} for video in done.video_ids},
            "failed": done.failed,
        }
        for video, _, name, probability in rows:
            shown["predictions"][video][name] = probability
        shown |= {"operating_point": done.point.as_json()} if done.point else {}
        click.echo(json.dumps(shown, indent=2, ensure_ascii=False))
    else:
        videos = count(len(done.video_ids), "videos")
        classes = count(min(given["top"], len(done.classes)), "classes")
        click.echo(f"{given['out']}: {videos}, {classes} of each")
        if done.point:
            click.echo(_described(done.point))
    if done.failed:
        click.get_current_context().exit(SOME_FAILED)


def _target(given: dict[str, Any]) -> OperatingTarget | None:
    """The operating point that was asked for, if one was."""
    from policy.evaluation.operating import OperatingTarget

    names = ("usage", "budget", "shared_budget", "threshold", "calibrate_subset")
    return OperatingTarget.chosen(**{name: given[name] for name in names})


def _described(point: MovedPoint) -> str:
    """A line on where a policy was moved to."""
    if not point.found_on:
        return f"moved to {point.target}"
    return f"moved to {point.target}: {point.value_name} {point.value:.4g}, found on {point.found_on}"


def _note(line: str) -> None:
    click.echo(line, err=True)
