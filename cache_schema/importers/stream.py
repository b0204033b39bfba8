"""What an imported stream is: its cost above all, which no file tells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from cache_schema.costs import Cost, built_in_cost, cost_table, gflops_digits
from cache_schema.errors import UserError
from cache_schema.files import printable
from cache_schema.importers.rows import Rows
from cache_schema.names import did_you_mean
from cache_schema.schema import IMPORTED, UNKNOWN_PREPROCESSING, Sampling, StreamSpec, check_stream_name
from cache_schema.tools.export import exported_spec

# A figure of three digits, as papers print it, is the same cost.
_SAME_COST = 0.005
_MOST_MACS = 1e18


def like_stream(name: str) -> Cost:
    """The built-in stream of this name in the cost table. Raises UserError if there is none."""
    known = cost_table()
    if name not in known:
        close = did_you_mean(name, known)
        raise UserError(f"--like {name}: no built-in stream; there are: {', '.join(known)}{close}")
    return known[name]


def kept_of(spec: StreamSpec, first: Rows) -> StreamSpec:
    """What an export says of its stream, of the rows that are imported.

    Raises:
        UserError: these are of other rows.
    """
    missing = [name for name in ("features", "scores") if getattr(first, name) is None]
    if len(missing) == 1:
        spec = exported_spec(spec, "scores" if missing == ["features"] else "features")
    columns = {"features": spec.feature_dim, "scores": spec.num_classes}
    for name, expected in columns.items():
        values = getattr(first, name)
        if (0 if values is None else values.shape[1]) != expected:
            raise UserError(
                f"{first.place}: not {expected:,} {name} a row, as the export says of its stream: export again"
            )
    return spec


def macs_per_row(
    name: str,
    *,
    macs: float | None = None,
    gflops: float | None = None,
    like: Cost | None = None,
    kept: StreamSpec | None = None,
) -> int:
    """What a row of the stream costs, in multiply-accumulates.

    Policies take the cost of a stream with a built-in name from the cost table, so no other is accepted.

    Args:
        macs, gflops: the user's figure in one of two units; a GFLOP is 10⁹ of them here, as in the papers.
        like: the built-in stream whose cost is taken where no figure is given.
        kept: what an export says of its stream, whose cost is taken where there is no other.

    Raises:
        UserError: no cost is given, or two are, or it is not the table's for that name.
    """
    if macs is not None and gflops is not None:
        raise UserError("give one of --macs-per-row and --gflops-per-row")
    # As `stream_cost` has it.
    built_in = None if kept and kept.sampling.crops > 1 else built_in_cost(name)
    cost = macs if gflops is None else gflops * 1e9
    if cost is None:
        model = like or built_in
        if model is not None:
            cost = model.macs
        elif kept is not None:
            cost = kept.macs_per_row
        else:
            raise UserError(
                "say what a row costs, or there is nothing to trade accuracy for: --gflops-per-row 4.73 (10⁹ "
                "multiply-accumulates), --macs-per-row 4.73e9, or --like x3d_m (`feature-cache costs` lists these)"
            )
    if not (math.isfinite(cost) and 1 <= cost <= _MOST_MACS):
        raise UserError(f"a row of {cost:g} multiply-accumulates: at least one, and at most {_MOST_MACS:g}")
    if built_in is None:
        return round(cost)
    if abs(cost - built_in.macs) > _SAME_COST * built_in.macs:
        raise UserError(
            f"stream {name!r} has the name of a built-in one, a row of which costs "
            f"{gflops_digits(built_in.gflops())} GFLOPs, not {gflops_digits(cost / 1e9)}: give it another "
            "name, or leave the cost out"
        )
    return built_in.macs


def make_spec(
    name: str,
    first: Rows,
    *,
    macs: int,
    sampling: Sampling,
    classes: Sequence[str] | None,
    classes_from: Path,
) -> StreamSpec:
    """The specification of a stream, from its first video.

    Args:
        classes_from: the file that names the classes, for messages.

    Raises:
        UserError: the stream or a class cannot have that name, or there are not as many classes as columns.
    """
    try:
        check_stream_name(name)
    except ValueError as error:
        raise UserError(str(error)) from error
    columns = 0 if first.scores is None else first.scores.shape[1]
    if classes is not None and not columns:
        raise UserError("--classes names the columns of scores, but there are none, only features")
    if classes is not None and not all(classes):
        number = list(classes).index("") + 1
        raise UserError(f"{printable(classes_from)}: class {number} of {len(classes)} has no name")
    try:
        return StreamSpec(
            name=name,
            backbone=IMPORTED,
            weights=IMPORTED,
            weights_digest="",
            preprocessing=UNKNOWN_PREPROCESSING,
            feature_dim=0 if first.features is None else first.features.shape[1],
            num_classes=columns,
            macs_per_row=macs,
            sampling=sampling,
            classes=None if classes is None else tuple(classes),
        )
    except ValueError as error:
        raise UserError(f"{printable(classes_from)}: {error}") from error
