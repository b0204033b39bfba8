"""Fig. 4 of the model selection paper: which model the selector looks at, and seconds instead of operations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from policy.deploy.selection_speed import Loading, SelectionTimes, measure_selection
from policy.selection.area import Drawn
from policy.selection.controls import single_models
from policy.selection.curve import SelectionCurve
from policy.selection.method import Selector
from policy.sheets.sheet import Column, Sheet, Value
from policy.tables.exhibits import selection_parts as parts
from policy.tables.exhibits.exhibit import Exhibit, Material
from policy.tables.plots.curves import Kind, Line

LATENCY = "milliseconds per video"
LOADINGS: Mapping[Loading, str] = {
    "never": "all models in memory",
    "per batch": "loaded for each batch",
    "per video": "loaded at every selection",
}

ROWS = (
    Column("method", "method"),
    Column("looks at", "looks_at"),
    Column("least GFLOPs", "least_gflops", 2),
    Column("GFLOPs", "gflops", 2),
    Column("HIT@1 %", "top1_percent"),
    *parts.ABOVE_RANDOM,
)
MODEL_TIMES = (
    Column("model", "model"),
    Column("milliseconds per row", "row_ms", 3),
    Column("milliseconds to load", "load_ms", 3),
    Column("rows per video", "clips"),
)
TIMES = (
    Column("method", "method"),
    Column("point", "point"),
    Column("GFLOPs", "gflops", 2),
    Column("HIT@1 %", "top1_percent"),
    *(Column(f"ms, {title}", f"ms_{loading.replace(' ', '_')}", 3) for loading, title in LOADINGS.items()),
)


def make(material: Material) -> Exhibit:
    """From all rows, each a selector that looks at another model; latency is that of the emphasised one."""
    selectors = {one.name: parts.select(material, one.name) for one in material.table.experiments}
    main = parts.emphasised(material)
    ours = selectors[main]
    curves, compared = parts.with_controls(material, selectors.values(), ours)
    above_random = {
        name: parts.in_points(compared.area_above(name, parts.RANDOM))
        for name in curves
        if name != parts.RANDOM
    }
    summary: list[list[Value]] = [
        [
            one.name,
            material.selecting(name).coarse,
            float(np.mean([curve.gflops[0] for curve in one.curves])),
            *material.means(name, "gflops", "top1_percent"),
            *above_random.pop(one.name),
        ]
        for name, one in selectors.items()
    ]
    summary += [[name, None, None, None, None, *above] for name, above in above_random.items()]
    latency = _Latency.of(material, main)
    points = parts.point_rows(curves, compared)
    sheets = [
        Sheet(material.report.heading, ROWS, summary),
        Sheet("Times of the models", MODEL_TIMES, latency.models()),
        Sheet("Curves", parts.curve_columns(ours.table), points, detail=True),
    ]
    lines = parts.lines_with_controls(selectors.values(), compared)
    alt = "GFLOPs per video, a curve for each model that a selector looks at"
    pictures = [parts.hit_picture(material, lines, "(a)", "the model that the selector looks at", alt)]
    timed = latency.lines(ours)
    if timed:
        alt = "milliseconds per video, with all models in memory and loaded when they are chosen"
        pictures.append(parts.hit_picture(material, timed, "(b)", "latency", alt, cost=LATENCY))
        sheets.append(Sheet("Latency", TIMES, latency.rows(ours), detail=True))
    return Exhibit(
        material.report,
        tuple(sheets),
        tuple(pictures),
        notes=(
            "GFLOPs and HIT@1 of the first table are at the run's own threshold. A curve is one trained selector "
            "at other thresholds, and begins at what the model costs that it looks at; low, high and bands are "
            f"95 % bootstrap intervals over {material.drawn}.",
            *parts.area_notes(compared),
            *latency.notes(ours, bool(timed)),
            parts.CONTROLS_NOTE,
        ),
    )


@dataclass(frozen=True)
class _Latency:
    """Times of the models of a pool on this machine.

    Attributes:
        counts: by stream, (M,): how many rows of each video a model looks at.
    """

    times: SelectionTimes
    counts: Mapping[str, npt.NDArray[np.int64]]

    @staticmethod
    def of(material: Material, row: str) -> _Latency:
        trained = material.trained(row)[0]
        method = trained.method_of(Selector)
        members = {member.name.stream: member for member in (*method.pool_of_models, method.input_model)}
        _, inputs = method.look(trained.evaluation)
        times = measure_selection(
            [member.stream.spec for member in members.values()],
            method.model,
            inputs.shape[1],
            device=material.device,
            report=material.say,
        )
        ids = trained.evaluation.ids
        counts = {
            name: np.array([len(member.rows(member.stream.rows(video))) for video in ids])
            for name, member in members.items()
        }
        return _Latency(times, counts)

    def milliseconds(self, curve: Drawn, loading: Loading) -> list[float] | None:
        """(P,): mean over videos and seeds; None if a model has no time."""
        draws = [curve] if isinstance(curve, SelectionCurve) else curve
        seconds = [self.times.per_video(one, self.counts, loading=loading) for one in draws]
        means = [1000 * one.mean(axis=1) for one in seconds if one is not None]
        return list(map(float, np.mean(means, axis=0))) if len(means) == len(seconds) else None

    def models(self) -> list[list[Value]]:
        """A row for each model, for MODEL_TIMES."""
        return [
            [
                name,
                None if time.row_s is None else 1000 * time.row_s,
                None if time.load_s is None else 1000 * time.load_s,
                float(self.counts[name].mean()),
            ]
            for name, time in self.times.models.items()
        ]

    def lines(self, ours: parts.Selected) -> list[Line]:
        """HIT@1 over milliseconds; none if a model has no time."""
        top1 = (100 * np.mean([one.top1 for one in ours.curves], axis=0)).tolist()
        lines: list[Line] = []
        for loading, title in LOADINGS.items():
            kind: Kind = "baseline" if lines else "proposed"
            milliseconds = self.milliseconds(ours.curves, loading)
            if milliseconds is not None:
                lines.append(Line(title, kind, milliseconds, top1))
        single = single_models(ours.table)
        alone = self.milliseconds(single, "never")
        if alone is not None:
            percents = (100 * single.top1).tolist()
            lines.append(Line(parts.MODELS, "models", alone, percents, labels=ours.table.models))
            lines.append(parts.random_line(np.array(alone), np.array(percents)))
        return lines

    def rows(self, ours: parts.Selected) -> list[list[Value]]:
        """A row for each point of the selector and each model, for TIMES."""
        rows: list[list[Value]] = []
        milliseconds = [self.milliseconds(ours.curves, loading) for loading in LOADINGS]
        values, gflops, top1 = (
            np.mean([getattr(one, of) for one in ours.curves], axis=0) for of in ("values", "gflops", "top1")
        )
        for k, value in enumerate(values):
            at_k = [None if one is None else one[k] for one in milliseconds]
            rows.append([ours.name, f"at {value:.3g}", float(gflops[k]), float(100 * top1[k]), *at_k])
        single = single_models(ours.table)
        alone = self.milliseconds(single, "never")
        for n, name in enumerate(ours.table.models):
            means = float(single.gflops[n]), float(100 * single.top1[n])
            rows.append([f"{name} alone", "", *means, None if alone is None else alone[n], None, None])
        return rows

    def notes(self, ours: parts.Selected, timed: bool) -> list[str]:
        reasons = [f"No time: {time.reason}." for time in self.times.models.values() if time.reason]
        if not timed:
            return ["No latency: it takes a time of every model of the pool.", *reasons]
        return [
            f"Latency of {ours.name}: measured on {self.times.machine}, batches of {self.times.batch}, networks "
            "of random weights; decoding is not in it. A load reads a model's weights from a file in the page "
            "cache; the model that the selector looks at stays. The paper: a 2080 Ti, batches of 32.",
            *reasons,
        ]
