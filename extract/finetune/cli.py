"""finetune-backbone: labelled videos in, a backbone fitted to them out."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console

from cache_schema import UserError
from cache_schema.annotations.dividing import divided
from cache_schema.command import (
    AS_JSON,
    DEVICE,
    SOME_FAILED,
    count,
    given_labels,
    label_options,
    tells_mistakes,
)
from extract import options
from extract.backbones import BUILT_IN, parse_stream
from extract.finetune.choices import LEARNING_RATES, Choices
from extract.sources import Ids, find_videos
from extract.video_arguments import VideosCommand, takes_videos, video_words

C = TypeVar("C", bound=Callable[..., Any])

DEFAULTS = {field.name: field.default for field in fields(Choices) if field.name != "stream"}


def setting(flag: str, help_text: str, **more: Any) -> Callable[[C], C]:
    """An option for the field of Choices of the same name, with its default."""
    default = DEFAULTS[flag.partition("/")[0].removeprefix("--").replace("-", "_")]
    # Zero is no default to hide, None is.
    return click.option(flag, default=default, show_default=default is not None, help=help_text, **more)


@click.command(cls=VideosCommand)
@click.version_option(package_name="thriftvid")
@takes_videos
@click.option(
    "--labels",
    required=True,
    type=click.Path(path_type=Path),
    help="Annotation file, or a folder of annotation files or of videos (docs/labels.md).",
)
@click.option(
    "--stream",
    required=True,
    metavar="NAME",
    help=f"Which backbone, on what part of a video: {', '.join(BUILT_IN)}, timm:NAME@SIZE, "
    "or torchvision:NAME[@SIZE].",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Run folder.")
@setting(
    "--weights",
    "What to start from: pretrained, random:SEED, or a FILE as batch-extract takes it. The classifier is replaced "
    "by a new one, unless the file's is for the same classes.",
    metavar="WEIGHTS",
)
@label_options
@setting("--train-subset", "Subset to train on. [default: training or train]", metavar="NAME")
@setting("--val-subset", "Subset to choose the best epoch on. [default: validation or val]", metavar="NAME")
@setting(
    "--val-fraction",
    "Instead, set this share of the training videos aside, the same for every seed; better where results are to "
    "be reported on the validation subset. Needed where labels have no subsets at all (docs/labels.md). [default: "
    "0.1 where there is no such subset]",
    type=float,
)
@setting(
    "--multi-label/--single-label",
    "Binary cross-entropy for each class (measured by mAP), or cross-entropy on each video's first class (top-1). "
    "By default multi-label where some video has several classes.",
    type=bool,
)
@click.option(
    "--skip-missing", is_flag=True, help="Leave out videos without labels and labels without videos."
)
@click.option(
    "--classes-present",
    is_flag=True,
    help="Leave out classes that do not have a video both for training and for validation, as in a pilot "
    "on a part of a benchmark.",
)
@click.option(
    "--flow",
    type=click.Choice(["tvl1", "dis"]),
    help="How i3d_flow_* estimates flow. [default: tvl1, which takes far longer than the network]",
)
@setting("--epochs", "Times that every training video is visited.", type=int)
@setting(
    "--frames-per-video",
    "Random frames (clips) of a video in each visit, one in each of as many equal parts of it.",
    type=int,
)
@setting("--batch", "Frames (clips) in a step. [default: 32 frames, 8 clips]", type=int)
@setting(
    "--val-rows",
    "Frames (clips) of the stream's own that each video is validated on, evenly spaced; 0: all. 25 is what "
    "Table 1 of LiteEval averages over.",
    type=int,
)
@setting(
    "--optimizer",
    "AdamW, whose one learning rate serves most networks, or SGD with momentum 0.9, as most were trained by their "
    "authors.",
    type=click.Choice(["adamw", "sgd"]),
)
@setting(
    "--lr",
    "Highest learning rate; it rises to that and falls to 0 along a cosine. "
    f"[default: {LEARNING_RATES['adamw']:g}, for sgd {LEARNING_RATES['sgd']:g}]",
    type=float,
)
@setting(
    "--head-lr-factor",
    "How much higher it is for a new classifier, which knows nothing yet; the rest only has to adapt.",
    type=float,
)
@setting("--weight-decay", "Of weights, not of biases and scales.", type=float)
@setting("--warmup", "Share of the run in which the learning rate rises.", type=float)
@click.option(
    "--head-only",
    "--freeze-backbone",
    "head_only",
    is_flag=True,
    help="Train the classifier alone; the features stay as they are.",
)
@setting(
    "--batch-norm",
    "Whether BatchNorm keeps its means and variances. auto: yes, unless the weights are random: the frames of a "
    "batch come from few videos, so that their statistics say less than those of the first training.",
    type=click.Choice(["auto", "frozen", "trained"]),
)
@setting("--min-area", "Smallest share of the picture that a random crop shows; not for flow.", type=float)
@setting(
    "--flip/--no-flip", "Mirror half of the frames (clips); not where left and right tell classes apart."
)
@setting("--seed", "Of the new classifier, and of all that is drawn.", type=int)
@DEVICE
@options.PRECISION
@options.WORKERS
@options.THREADS
@options.DEADLINE
@options.DECODER
@AS_JSON
@tells_mistakes
def finetune_backbone(
    videos: tuple[Path, ...],
    labels: Path,
    stream: str,
    out: Path,
    labels_format: str | None,
    split: int | None,
    class_file: Path | None,
    skip_missing: bool,
    classes_present: bool,
    ids: Ids,
    frames_fps: float | None,
    root: Path | None,
    flow: str | None,
    device: str,
    precision: str,
    workers: int | None,
    threads: int | None,
    deadline_s: float,
    decoder: str,
    as_json: bool,
    **settings: Any,
) -> None:
    """Fine-tune a backbone on labelled VIDEOS (files, folders, or lists of paths in .txt or .csv).

    It becomes a classifier of single frames or clips, each an example of its video's classes. The epoch that is
    best on the validation videos (by their probabilities averaged over each video) is kept in
    OUT/weights.safetensors, which batch-extract --weights takes; the cache then has class scores too.

    A run that was stopped goes on after its last epoch when the same command is given again. A video that cannot
    be read is named with its reason, and the run goes on. Exit codes: 0 done, 1 done but some videos failed, 2 the
    request was wrong.

    \b
    Example:
      finetune-backbone VIDEOS/ --labels labels.csv --stream resnet101_224 --out runs/resnet101
      batch-extract VIDEOS/ --cache CACHE --stream resnet101_224 --weights runs/resnet101/weights.safetensors
    """
    request = parse_stream(stream, flow=flow)
    if flow is not None and request.flow is None:
        raise UserError(f"--flow {flow}: {stream} does not look at flow")
    choices = Choices(stream=request.name, **settings)
    choices.check()
    sources = find_videos(videos, ids=ids, frames_fps=frames_fps, root=root)
    read = given_labels(click.get_current_context().params, divides=False)
    if read.undivided and choices.val_fraction is not None:  # as train-policy divides them
        read = divided(read, choices.val_fraction, split or 0)
        choices = replace(choices, val_fraction=None)
    for note in (*sources.notes, *read.notes):
        click.echo(note, err=True)
    for file, reason in sources.refused:
        click.echo(f"left out: {file}: {reason}", err=True)

    import torch

    from extract.devices import choose_precision, find_device
    from extract.finetune.progress import show_training
    from extract.finetune.runs import fine_tune
    from extract.finetune.training import Machine

    if threads is not None:
        torch.set_num_threads(threads)
    where = find_device(device)
    precision = choose_precision(precision, where, lambda line: click.echo(line, err=True))
    choices = replace(choices, precision=precision)
    machine = Machine(where, workers or os.cpu_count() or 1, deadline_s, decoder)
    several = read.multi_label if choices.multi_label is None else choices.multi_label
    with show_training(Console(stderr=True), metric="mAP" if several else "top-1") as listener:
        run = fine_tune(
            choices,
            request,
            sources,
            read,
            out,
            machine,
            listener,
            skip_missing=skip_missing,
            classes_present=classes_present,
        )
    result = {
        **run.result,
        "folder": str(run.folder),
        "reused": run.reused,
        "refused": dict(sources.refused),
        "left_out": dict(sources.left_out),
    }
    if run.reused:
        click.echo(f"{out}: had already been finished with these choices and videos", err=True)
    for video, reason in run.result["failed"].items():
        click.echo(f"failed: {video}: {reason}", err=True)
    if as_json:
        click.echo(json.dumps(result, indent=2, ensure_ascii=False))
    else:
        words = video_words(videos, ids=ids, frames_fps=frames_fps, root=root)
        _tell(result, words, stream, run.weights, flow)
    if run.result["failed"] or sources.refused:
        click.get_current_context().exit(SOME_FAILED)


def _tell(result: dict[str, Any], videos: list[str], stream: str, weights: Path, flow: str | None) -> None:
    click.echo(
        f"{result['stream']}: epoch {result['epoch']} of {result['epochs']} is the best, {result['metric']} "
        f"{100 * result['val_videos']:.1f} % of {count(result['validation_videos'], 'validation videos')} "
        f"({100 * result['val_rows']:.1f} % row by row), {count(result['classes'], 'classes')}, "
        f"{count(len(result['failed']), 'videos')} failed"
    )
    command = ["batch-extract", *videos, "--cache", "CACHE", "--stream", stream, "--weights", str(weights)]
    click.echo("next: " + shlex.join([*command, *(["--flow", flow] if flow else [])]))
