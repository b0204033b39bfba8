"""What an imported stream is: its cost above all, which no file tells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from cache_schema.costs import Cost, built_in_cost, cost_table
from cache_schema.errors import UserError
from cache_schema.importers.rows import Rows, printable
from cache_schema.schema import (
    IMPORTED,
    UNKNOWN_PREPROCESSING,
    Sampling,
    StreamSpec,
    check_stream_name,
)

# A figure of three digits, as papers print it, is the same cost.
_SAME_COST = 0.005
_MOST_MACS = 1e18


def like_stream(name: str) -> Cost:
    """A line of the cost table. Raises UserError: there is none."""
    try:
        return cost_table()[name]
    except KeyError:
        raise UserError(f"--like {name}: no built-in stream; there are: {', '.join(cost_table())}") from None


def macs_per_row(
    name: str, *, macs: float | None = None, gflops: float | None = None, like: Cost | None = None
) -> int:
    """What a row costs, in multiply-accumulates: as said, else as the stream it is like.

    Policies take the cost of a stream with a built-in name from the cost table, so that none other may be given.

    Args:
        macs, gflops: as the user says, in one of two units; of 10⁹ is a GFLOP here, as in the papers.

    Raises:
        UserError: nothing says it, two things do, or it is not what the table says of that name.
    """
    if macs is not None and gflops is not None:
        raise UserError("give one of --macs-per-row and --gflops-per-row")
    own = built_in_cost(name)
    said = macs if gflops is None else gflops * 1e9
    if said is None:
        known = like or own
        if known is None:
            raise UserError(
                "say what a row costs, or there is nothing to trade accuracy for: --gflops-per-row 4.73 (10⁹ "
                "multiply-accumulates), --macs-per-row 4.73e9, or --like x3d_m (`feature-cache costs` lists these)"
            )
        said = known.macs
    if not (math.isfinite(said) and 1 <= said <= _MOST_MACS):
        raise UserError(f"a row of {said:g} multiply-accumulates: at least one, and at most {_MOST_MACS:g}")
    if own is None:
        return round(said)
    if abs(said - own.macs) > _SAME_COST * own.macs:
        raise UserError(
            f"stream {name!r} has the name of a built-in one, a row of which costs {own.gflops():.4g} GFLOPs, not "
            f"{said / 1e9:.4g}: give it another name, or leave the cost out"
        )
    return own.macs


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
        UserError: a name cannot be one, or there are not as many names as columns.
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
