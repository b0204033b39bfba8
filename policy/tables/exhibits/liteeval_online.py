"""Fig. 2 of the LiteEval paper: online recognition, accuracy against computation at several budgets K."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from policy.baselines.uniform import Uniform
from policy.evaluation.operating import Curve
from policy.liteeval.budgets import oracle_curve, random_curve
from policy.liteeval.method import LiteEvalMethod
from policy.liteeval.online import emissions, seq_k, uniform_k
from policy.sheets.sheet import Picture, Sheet
from policy.tables.exhibits.curves import COLUMNS, averaged
from policy.tables.exhibits.exhibit import Exhibit, Material
from policy.tables.plots.curves import accuracy_against_cost

KS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 25)
"""The fine features after which a prediction is asked for; the paper's figure does not name its own."""


def make(material: Material) -> Exhibit:
    """Rows it reads: liteeval, uniform."""
    liteevals, uniforms = material.trained("liteeval"), material.trained("uniform")
    device, resamples = material.device, material.resamples
    ks = _reached([trained.run.predictions().fine_rows.max() for trained in liteevals])
    emitted, spread, first, drawn, oracles = [], [], [], [], []
    for trained, other in zip(liteevals, uniforms, strict=True):
        method, uniform = trained.method_of(LiteEvalMethod), other.method_of(Uniform)
        curve = emissions(method, trained.evaluation, ks, device=device)
        emitted.append(curve)
        spread.append(
            Curve(
                "UNIFORM-K",
                tuple(
                    uniform_k(uniform, other.evaluation, point.predictions.seen, k, device=device)
                    for k, point in zip(ks, curve.points, strict=True)
                ),
            )
        )
        first.append(Curve("SEQ-K", tuple(seq_k(uniform, other.evaluation, k, device=device) for k in ks)))
        usages = [float(point.predictions.usage.mean()) for point in curve.points]
        drawn.append(random_curve(method, trained.evaluation, usages, device=device))
        oracles.append(oracle_curve(curve))

    def k_equals(value: float) -> str:
        return f"K = {value:g}"

    lines = [
        averaged(material.title("liteeval"), "proposed", emitted, point=k_equals, resamples=resamples),
        averaged("UNIFORM-K", "baseline", spread, point=k_equals, resamples=resamples),
        averaged("SEQ-K", "baseline", first, point=k_equals, resamples=resamples),
        averaged("random gates", "control", drawn, point=lambda u: f"usage {u:.1%}", resamples=resamples),
    ]
    # The oracle's points are other trade-offs for every seed: those of the first seed stand for it.
    lines.append(
        averaged("oracle", "oracle", oracles[:1], point=lambda price: f"price {price:.3g}", resamples=0)
    )
    title = material.table.title
    picture = accuracy_against_cost(
        [line.against_cost(labels=[f"{k}" for k in ks] if line.kind == "proposed" else ()) for line in lines],
        title=title,
        subtitle=material.subtitle,
        accuracy="top-1 (%)",
    )
    return Exhibit(
        material.report,
        (Sheet(material.heading, COLUMNS, [row for line in lines for row in line.rows()]),),
        (Picture(picture, "Top-1 accuracy against GFLOPs per video, a curve for each method"),),
        notes=(
            "LiteEval answers after its K-th fine feature, or at the end of a video in which it computes fewer; "
            "UNIFORM-K averages K frames of what LiteEval has seen by then, SEQ-K the first K frames.",
            "Random gates: the same networks over whole videos, gates opened at random with LiteEval's usage at "
            f"each K. Oracle (seed {material.seeds[0]}): for each video the cheapest K at which LiteEval is "
            "right, traded against cost. The band is the 95 % bootstrap interval of LiteEval.",
        ),
    )


def _reached(most: Sequence[np.int64]) -> list[int]:
    """Those of KS that some video reaches; the first in any case."""
    return [k for k in KS if k <= max(most)] or [KS[0]]
