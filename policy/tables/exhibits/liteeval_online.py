"""Figs. 2 and 3 of the LiteEval paper: accuracy and computation before a video has ended."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from policy.baselines.uniform import Uniform
from policy.evaluation.operating import Curve
from policy.liteeval.budgets import oracle_curves, random_curve
from policy.liteeval.method import LiteEvalMethod
from policy.liteeval.online import emissions, seq_k, uniform_k, uniform_watched, watched
from policy.sheets.sheet import Picture, Sheet
from policy.tables.exhibits.averaged import COLUMNS, averaged
from policy.tables.exhibits.exhibit import Exhibit, Material
from policy.tables.plots.curves import draw_against_cost, draw_against_watched

KS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 25)
"""Fine features after which a prediction is made; the paper's figure does not name its values of K."""

FRAMES = 13
"""K of UNIFORM-K: the fewest frames that cost more than LiteEval does on either data set (`uniform_watched`)."""

SHARES = tuple(tenth / 10 for tenth in range(1, 11))


def at_budgets(material: Material) -> Exhibit:
    """Fig. 2, from the rows `liteeval` and `uniform`: accuracy against computation at several budgets K."""
    liteevals, uniforms = material.trained("liteeval"), material.trained("uniform")
    device, resamples = material.device, material.resamples
    ks = _reached([trained.run.predictions().fine_rows.max() for trained in liteevals])
    emitted, spread, first, random = [], [], [], []
    for trained, other in zip(liteevals, uniforms, strict=True):
        method, uniform = trained.method_of(LiteEvalMethod), other.method_of(Uniform)
        curve = emissions(method, trained.evaluation, ks, device=device)
        emitted.append(curve)
        points = [
            uniform_k(uniform, other.evaluation, point.predictions.row_counts, k, device=device)
            for k, point in zip(ks, curve.points, strict=True)
        ]
        spread.append(Curve("UNIFORM-K", tuple(points)))
        first.append(Curve("SEQ-K", tuple(seq_k(uniform, other.evaluation, k, device=device) for k in ks)))
        usages = [float(point.predictions.usage.mean()) for point in curve.points]
        random.append(random_curve(method, trained.evaluation, usages, device=device))

    k, usage, price = "K = {:g}".format, "usage {:.1%}".format, "price {:.3g}".format
    lines = [
        averaged(material.title("liteeval"), "proposed", emitted, point=k, resamples=resamples),
        averaged("UNIFORM-K", "baseline", spread, point=k, resamples=resamples),
        averaged("SEQ-K", "baseline", first, point=k, resamples=resamples),
        averaged("random gates", "control", random, point=usage, resamples=resamples),
        averaged("oracle", "oracle", oracle_curves(emitted), point=price),
    ]
    drawing = draw_against_cost(
        [line.against_cost(labels=[f"{k}" for k in ks] if line.kind == "proposed" else ()) for line in lines],
        **material.titles(),
        accuracy="top-1 (%)",
    )
    return Exhibit(
        material.report,
        (Sheet(material.report.heading, COLUMNS, [row for line in lines for row in line.rows()]),),
        (Picture(drawing.png, "Top-1 accuracy against GFLOPs per video, a curve for each method"),),
        notes=(
            "LiteEval answers after its K-th fine feature, or at the end of a video in which it computes fewer; "
            "UNIFORM-K averages K frames of what LiteEval has seen by then, SEQ-K the first K frames.",
            "Random gates: the same networks over whole videos, gates opened at random with LiteEval's usage at "
            "each K. Oracle: for each video the cheapest K at which LiteEval is right, traded against cost at the "
            "same prices for all seeds. The band is the 95 % bootstrap interval of LiteEval.",
        ),
    )


def _reached(most: Sequence[np.int64]) -> list[int]:
    """Those of KS that some video reaches; the first in any case."""
    return [k for k in KS if k <= max(most)] or [KS[0]]


def while_watched(material: Material) -> Exhibit:
    """Fig. 3, from the rows `liteeval` and `uniform`: accuracy and computation against the share watched."""
    liteeval = [
        watched(trained.method_of(LiteEvalMethod), trained.evaluation, SHARES, device=material.device)
        for trained in material.trained("liteeval")
    ]
    uniform = [
        uniform_watched(
            trained.method_of(Uniform), trained.evaluation, SHARES, frames=FRAMES, device=material.device
        )
        for trained in material.trained("uniform")
    ]
    percent, resamples = "{:.0%}".format, material.resamples
    lines = [
        averaged(material.title("liteeval"), "proposed", liteeval, point=percent, resamples=resamples),
        averaged("UNIFORM-K", "baseline", uniform, point=percent, resamples=resamples),
    ]
    percents = [100 * share for share in SHARES]
    drawing = draw_against_watched(
        [line.gflops_over(percents) for line in lines],
        [line.top1_over(percents) for line in lines],
        **material.titles(),
        measure="top-1 (%)",
    )
    return Exhibit(
        material.report,
        (Sheet(material.report.heading, COLUMNS, [row for line in lines for row in line.rows()]),),
        (Picture(drawing.png, "GFLOPs and top-1 accuracy against the share of the video watched"),),
        notes=(
            f"UNIFORM-K at a share p of the video: p·{FRAMES} frames spread evenly over it, our reading of the "
            "paper, which does not say how many (docs/online.md).",
            "The band is the 95 % bootstrap interval of LiteEval.",
        ),
    )
