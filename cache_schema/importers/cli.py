"""feature-cache import: class scores and features that people have already."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, cast

import click

from cache_schema.command import count, progress, tells_mistakes
from cache_schema.costs import gflops, gflops_digits
from cache_schema.importers import LAYOUTS, Imported, What
from cache_schema.importers.api import EACH, import_features
from cache_schema.schema import StreamSpec
from cache_schema.scores import Kind
from cache_schema.tools.describe import sampling_in_words

_PATH = click.Path(path_type=Path)
_KEPT_AS = {
    "logits": "kept as they are",
    "softmax": "kept as log p, of p below 2⁻²⁴ as −16.6",
    "sigmoid": "kept as log p − log(1 − p), within ±16.6",
}


class _Fps(click.ParamType[Any]):
    """A rate, or "each"."""

    name = "X|each"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value == EACH else click.FLOAT.convert(value, param, ctx)


@click.command("import")
@click.argument("source", type=_PATH)
@click.option(
    "--into", required=True, type=_PATH, metavar="CACHE", help="The cache to add to, made if need be."
)
@click.option(
    "--stream",
    "streams",
    multiple=True,
    metavar="NAME",
    help="The stream to make, or to add to. Twice: RGB's and flow's, out of parts or of halves of each row.  "
    "[default: of some layouts, the built-in streams that they are of]",
)
@click.option(
    "--format",
    "layout",
    type=click.Choice([*LAYOUTS]),
    help="The published layout, whose usual clips are taken.  [default: told by the files, where they can be]",
)
@click.option(
    "--gflops-per-row",
    type=float,
    multiple=True,
    metavar="X",
    help="What a row costs, in 10⁹ multiply-accumulates; for each stream, or once for both.",
)
@click.option(
    "--macs-per-row",
    "macs",
    type=float,
    multiple=True,
    metavar="X",
    help="The same, in multiply-accumulates.",
)
@click.option(
    "--like",
    multiple=True,
    metavar="STREAM",
    help="Cost and sampling of a built-in stream (`feature-cache costs`); with --format, its cost.",
)
@click.option(
    "--fps",
    type=_Fps(),
    metavar="X",
    help="Rows a second; with --clip-frames, frames a second. `each`: every video's own, which its rows and "
    "length say.",
)
@click.option(
    "--clip-frames", type=click.IntRange(1), metavar="N", help="Rows are clips of N frames, end to end."
)
@click.option("--stride", type=click.IntRange(1), metavar="N", help="Clips start N frames apart instead.")
@click.option(
    "--lengths",
    type=_PATH,
    metavar="FILE",
    help="How long videos are, to check the rate: ActivityNet's JSON, a CSV of video_id,duration_s, or W-TALC's "
    "folder of annotations.",
)
@click.option(
    "--allow-other-lengths", is_flag=True, help="Import rows that contradict the lengths as they are."
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
    help="Whose the rows of an npy or npz are: an id a line, a CSV with a column video_id, or an npy of text.",
)
@click.option(
    "--array",
    metavar="NAME",
    help="Which array of an npz, or which part of several, as rgb.  [default, of an npz: scores, or that of the "
    "stream's name]",
)
@click.option(
    "--what",
    type=click.Choice(["features", "scores"]),
    help="What the arrays are.  [default: of a file scores; of a folder features, or what an npz has]",
)
@click.option(
    "--shard-size", type=click.IntRange(1, 100_000), default=256, show_default=True, help="Videos in a shard."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts; of two streams a list.")
@tells_mistakes
def import_command(
    source: Path,
    into: Path,
    streams: tuple[str, ...],
    layout: str | None,
    what: str | None,
    ids: Path | None,
    array: str | None,
    classes: Path | None,
    kind: str | None,
    gflops_per_row: tuple[float, ...],
    macs: tuple[float, ...],
    like: tuple[str, ...],
    fps: float | str | None,
    clip_frames: int | None,
    stride: int | None,
    lengths: Path | None,
    allow_other_lengths: bool,
    clips: int | None,
    shard_size: int,
    as_json: bool,
) -> None:
    """Make class scores or features that you have already streams of a cache.

    SOURCE is a file with the class scores of all videos, or features in a file for each video, or as published:

    \b
      scores.npy   (videos, classes) or (videos, clips, classes), with --ids
      scores.npz   such an array and ids; or an array per video, under its id
      scores.csv   video_id,CLASS,CLASS,… and a line for each video, or clip
      x.parquet    the same in parquet
      FOLDER/      VIDEO.npy of (rows, dimension), or npz or CSV files of an export
      FOLDER/      a data set that Hugging Face's datasets saved
      FOLDER/      {train,test}/{rgb,flow}/VIDEO.npy as of BaS-Net
      FOLDER/      VIDEO_rgb.npy, VIDEO_flow.npy, … as video_features writes
      FILE.h5      a dataset for each video, as ActivityNet's C3D, TSP, G-TAD

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
      feature-cache import i3d_features/ --format actionformer \\
        --stream i3d_rgb --like i3d_rgb_dense16 \\
        --stream i3d_flow --like i3d_flow_dense16 --into CACHE
    """
    notes: list[str] = []
    done = import_features(
        source,
        into,
        streams,
        layout=layout,
        gflops_per_row=gflops_per_row,
        macs_per_row=macs,
        like=like,
        fps=cast(float | Literal["each"] | None, fps),
        clip_frames=clip_frames,
        stride=stride,
        clips=clips,
        lengths=lengths,
        allow_other_lengths=allow_other_lengths,
        kind=cast(Kind | None, kind),
        classes=classes,
        ids=ids,
        array=array,
        what=cast(What | None, what),
        shard_size=shard_size,
        note=notes.append,
        progress=progress,
    )
    if as_json:
        answers = [
            {"stream": one.spec.name, **asdict(one.imported), **_about(one.spec, one.kind), "notes": notes}
            for one in done
        ]
        click.echo(json.dumps(answers if len(answers) > 1 else answers[0], indent=2, ensure_ascii=False))
        return
    for one in done:
        _show(into, one.spec, one.imported, one.kind)
    for line in notes:
        click.echo(f"note: {line}")


def _show(into: Path, spec: StreamSpec, imported: Imported, kind: Kind) -> None:
    click.echo(
        f"{into / spec.name}: {count(imported.videos, 'videos')} with {count(imported.rows, 'rows')} in "
        f"{count(imported.shards, 'shards')} imported, {imported.present:,} there already"
    )
    features = f"{spec.feature_dim:,} features" if spec.feature_dim else "no features"
    scores = f"scores of {count(spec.num_classes, 'classes')}" if spec.num_classes else "no scores"
    click.echo(f"row: {features}, {scores}, {gflops_digits(gflops(spec.macs_per_row))} GFLOPs")
    if spec.num_classes:
        noun = "logits" if kind == "logits" else f"{kind} probabilities"
        click.echo(f"scores: {noun}, {_KEPT_AS[kind]}")
    click.echo(f"sampling: {sampling_in_words(spec.sampling)}")


def _about(spec: StreamSpec, kind: Kind) -> dict[str, Any]:
    return {
        "feature_dim": spec.feature_dim,
        "num_classes": spec.num_classes,
        "class_names_known": spec.classes is not None,
        "kind": kind if spec.num_classes else None,
        "gflops_per_row": gflops(spec.macs_per_row),
        "sampling_in_words": sampling_in_words(spec.sampling),
    }
