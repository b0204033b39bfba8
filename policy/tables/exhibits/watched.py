"""Fig. 3 of the LiteEval paper: accuracy and computation against the share of the video watched."""

from __future__ import annotations

from policy.baselines.uniform import Uniform
from policy.liteeval.method import LiteEvalMethod
from policy.liteeval.online import uniform_watched, watched
from policy.sheets.sheet import Picture, Sheet
from policy.tables.exhibits.curves import COLUMNS, averaged
from policy.tables.exhibits.exhibit import Exhibit, Material
from policy.tables.plots.curves import accuracy_against_watched

FRAMES = 13
"""K of UNIFORM-K: the fewest frames that cost more than LiteEval does on either data set (`uniform_watched`)."""

SHARES = tuple(tenth / 10 for tenth in range(1, 11))


def make(material: Material) -> Exhibit:
    """Rows it reads: liteeval, uniform."""
    device, resamples = material.device, material.resamples
    ours = [
        watched(one.method_of(LiteEvalMethod), one.evaluation, SHARES, device=device)
        for one in material.trained("liteeval")
    ]
    theirs = [
        uniform_watched(one.method_of(Uniform), one.evaluation, SHARES, frames=FRAMES, device=device)
        for one in material.trained("uniform")
    ]
    lines = [
        averaged(material.title("liteeval"), "proposed", ours, point=_percent, resamples=resamples),
        averaged("UNIFORM-K", "baseline", theirs, point=_percent, resamples=resamples),
    ]
    percents = [100 * share for share in SHARES]
    title = material.table.title
    picture = accuracy_against_watched(
        [line.gflops_over(percents) for line in lines],
        [line.top1_over(percents) for line in lines],
        title=title,
        subtitle=material.subtitle,
        measure="top-1 (%)",
    )
    return Exhibit(
        material.report,
        (Sheet(material.heading, COLUMNS, [row for line in lines for row in line.rows()]),),
        (Picture(picture, "GFLOPs and top-1 accuracy against the share of the video watched"),),
        notes=(
            f"UNIFORM-K at a share p of the video: p·{FRAMES} frames spread evenly over it, our reading of the "
            "paper, which does not say how many (docs/online.md).",
            "The band is the 95 % bootstrap interval of LiteEval.",
        ),
    )


def _percent(share: float) -> str:
    return f"{share:.0%}"
