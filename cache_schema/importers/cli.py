"""feature-cache import: class scores and features that people have already."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import click

from cache_schema.annotations.class_names import read_class_names
from cache_schema.command import count, progress, tells_mistakes
from cache_schema.costs import gflops
from cache_schema.errors import UserError
from cache_schema.importers import (
    Timing,
    What,
    import_stream,
    like_stream,
    looks_like,
    macs_per_row,
    make_spec,
    open_source,
)
from cache_schema.importers.rows import read_ids
from cache_schema.schema import StreamSpec
from cache_schema.scores import Kind
from cache_schema.tools.describe import sampling_in_words

_PATH = click.Path(path_type=Path)
_KEPT_AS = {
    "logits": "kept as they are",
    "softmax": "kept as log p, of p below 2⁻²⁴ as −16.6",
    "sigmoid": "kept as log p − log(1 − p), within ±16.6",
}


@click.command("import")
@click.argument("source", type=_PATH)
@click.option(
    "--into", required=True, type=_PATH, metavar="CACHE", help="The cache to add to, made if need be."
)
@click.option("--stream", required=True, metavar="NAME", help="The stream to make, or to add to.")
@click.option(
    "--gflops-per-row", type=float, metavar="X", help="What a row costs, in 10⁹ multiply-accumulates."
)
@click.option("--macs-per-row", "macs", type=float, metavar="X", help="The same, in multiply-accumulates.")
@click.option(
    "--like", metavar="STREAM", help="Cost and sampling of a built-in stream (`feature-cache costs`)."
)
@click.option("--fps", type=float, metavar="X", help="Rows a second; with --clip-frames, frames a second.")
@click.option(
    "--clip-frames", type=click.IntRange(1), metavar="N", help="Rows are clips of N frames, end to end."
)
@click.option(
    "--clips",
    type=click.IntRange(1),
    metavar="K",
    help="Each video has K rows, spread over it.  [default, of scores: as many as there are]",
)
@click.option(
    "--kind",
    type=click.Choice(["logits", "softmax", "sigmoid"]),
    help="What the scores are: logits, or probabilities.  [default: logits, unless all look like probabilities]",
)
@click.option(
    "--classes",
    type=_PATH,
    metavar="FILE",
    help="Names of the scores' columns, one a line, or as in kinetics_classnames.json.",
)
@click.option(
    "--ids",
    type=_PATH,
    metavar="FILE",
    help="Whose the rows of an npy or npz are: an id a line, or a CSV with a column video_id.",
)
@click.option(
    "--array", metavar="NAME", help="Which array of an npz.  [default: scores, or that of the stream's name]"
)
@click.option(
    "--what",
    type=click.Choice(["features", "scores"]),
    help="What the arrays are.  [default: of a file scores; of a folder features, or what an npz has]",
)
@click.option(
    "--shard-size", type=click.IntRange(1, 100_000), default=256, show_default=True, help="Videos in a shard."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
@tells_mistakes
def import_command(
    source: Path,
    into: Path,
    stream: str,
    what: str | None,
    ids: Path | None,
    array: str | None,
    classes: Path | None,
    kind: str | None,
    gflops_per_row: float | None,
    macs: float | None,
    like: str | None,
    fps: float | None,
    clip_frames: int | None,
    clips: int | None,
    shard_size: int,
    as_json: bool,
) -> None:
    """Make class scores or features that you have already a stream of a cache.

    SOURCE is a file with the class scores of all videos, or a folder with a file for each video:

    \b
      scores.npy   (videos, classes) or (videos, clips, classes), with --ids
      scores.npz   such an array and ids; or an array per video, under its id
      scores.csv   video_id,CLASS,CLASS,… and a line for each video, or clip
      FOLDER/      VIDEO.npy of (rows, dimension), or npz files of an export

    What a row costs must be said. Videos that are there already are left as they are; after an interruption, the
    same command does what is left.

    \b
    Example:
      feature-cache import x3d_m.npy --ids videos.txt --classes classes.txt \\
        --stream x3d_m --like x3d_m --into CACHE
      feature-cache import x3d_s.csv --stream x3d_s --kind softmax --into CACHE
      feature-cache import resnet/ --stream resnet101_224 --fps 1 --into CACHE
      feature-cache import i3d/ --stream my_i3d --clip-frames 16 --fps 25 \\
        --gflops-per-row 27.8 --into CACHE
    """
    model = None if like is None else like_stream(like)
    cost = macs_per_row(stream, macs=macs, gflops=gflops_per_row, like=model)
    names = None if classes is None else read_class_names(classes)
    videos = open_source(
        source,
        stream=stream,
        what=cast(What | None, what),
        ids=None if ids is None else read_ids(ids),
        array=array,
    )
    first = next(iter(videos))
    timing = Timing(fps, clip_frames, clips, None if model is None else model.sampling)
    spec = make_spec(
        stream,
        first,
        macs=cost,
        sampling=timing.sampling(first),
        classes=names or videos.classes,
        classes_from=classes or source,
    )
    if kind is not None and not spec.num_classes:
        raise UserError("--kind is about scores, but there are none, only features")
    if kind is None and spec.num_classes:
        with progress("looking at the scores") as report:
            likely_kind = looks_like(videos, lambda number: report(number, len(videos)))
        if likely_kind != "logits":
            raise UserError(_probabilities(source, likely_kind))
    score_kind = cast(Kind, kind or "logits")
    with progress("importing") as report:
        imported = import_stream(videos, spec, into, kind=score_kind, shard_size=shard_size, report=report)
    cost_given = macs is not None or gflops_per_row is not None
    about = _about(spec, score_kind, videos.ignored, cost_given=cost_given)
    if as_json:
        answer: dict[str, Any] = {"stream": stream, **asdict(imported), **about}
        click.echo(json.dumps(answer, indent=2, ensure_ascii=False))
        return
    click.echo(
        f"{into / stream}: {count(imported.videos, 'videos')} with {count(imported.rows, 'rows')} in "
        f"{count(imported.shards, 'shards')} imported, {imported.present:,} there already"
    )
    click.echo(_row(spec))
    if spec.num_classes:
        noun = "logits" if score_kind == "logits" else f"{score_kind} probabilities"
        click.echo(f"scores: {noun}, {_KEPT_AS[score_kind]}")
    click.echo(f"sampling: {about['sampling_in_words']}")
    for note in about["notes"]:
        click.echo(f"note: {note}")


def _probabilities(source: Path, kind: Kind) -> str:
    sums = "and sum to 1" if kind == "softmax" else "without summing to 1"
    return (
        f"{source}: logits are expected, but all scores lie in [0, 1] {sums}, as probabilities of a {kind} do: "
        f"give --kind {kind}, or --kind logits if they are logits"
    )


def _row(spec: StreamSpec) -> str:
    features = f"{spec.feature_dim:,} features" if spec.feature_dim else "no features"
    scores = f"scores of {count(spec.num_classes, 'classes')}" if spec.num_classes else "no scores"
    return f"row: {features}, {scores}, {gflops(spec.macs_per_row):.4g} GFLOPs"


def _about(spec: StreamSpec, kind: Kind, ignored: int, *, cost_given: bool) -> dict[str, Any]:
    notes = []
    if spec.sampling.clips == 1 and spec.sampling.frames == 0 and not cost_given:
        notes.append(
            f"a video costs one row, {gflops(spec.macs_per_row):.4g} GFLOPs; where that is the mean of several "
            "clips or crops, say what all of them cost (--gflops-per-row, under a name that is not built in)"
        )
    if spec.num_classes and spec.classes is None:
        notes.append(
            "without class names (--classes FILE) nothing says which column is which class: model selection takes "
            "them for the labels' classes in sorted order, other methods do not use such scores"
        )
    if ignored:
        notes.append(f"{count(ignored, 'files')} in the folder neither npy nor npz: not read")
    return {
        "feature_dim": spec.feature_dim,
        "num_classes": spec.num_classes,
        "class_names_known": spec.classes is not None,
        "kind": kind if spec.num_classes else None,
        "gflops_per_row": gflops(spec.macs_per_row),
        "sampling_in_words": sampling_in_words(spec.sampling),
        "notes": notes,
    }
