"""Fig. 4 of the model selection paper: which model the selector looks at, and seconds instead of operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from policy.deploy.selection_speed import Loading, SelectionTimes, measure_selection
from policy.selection.area import Comparison, Drawn, compare
from policy.selection.controls import single_models
from policy.selection.curve import SelectionCurve
from policy.selection.method import Selector
from policy.sheets.sheet import Column, Picture, Sheet, Value
from policy.tables.exhibits.exhibit import Exhibit, Material
from policy.tables.exhibits.selection import (
    ABOVE_RANDOM,
    CONTROLS_NOTE,
    HIT,
    MODELS,
    POINT,
    RANDOM,
    Selected,
    area_notes,
    at_own_point,
    beside_controls,
    controls,
    curve_columns,
    in_points,
    point_rows,
    random_line,
    select,
)
from policy.tables.plots.curves import Kind, Line, accuracy_against_cost

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
    *ABOVE_RANDOM,
)
MODEL_TIMES = (
    Column("model", "model"),
    Column("milliseconds per clip", "row_ms", 3),
    Column("milliseconds to load", "load_ms", 3),
    Column("clips per video", "clips"),
)
TIMES = (
    Column("method", "method"),
    Column("point", "point"),
    Column("GFLOPs", "gflops", 2),
    Column("HIT@1 %", "top1_percent"),
    *(Column(f"ms, {said}", f"ms_{loading.replace(' ', '_')}", 3) for loading, said in LOADINGS.items()),
)


def make(material: Material) -> Exhibit:
    """Rows it reads: all, each a selector on another model; latency is that of the emphasised one."""
    rows = material.table.experiments
    chosen = {one.name: select(material, one.name) for one in rows}
    [main] = [one.name for one in rows if one.emphasised]
    ours = chosen[main]
    curves = {**{one.name: one.curves for one in chosen.values()}, **controls(ours)}
    compared = compare(curves, resamples=material.resamples)
    first = [_row(material, name, one, compared) for name, one in chosen.items()]
    first += [
        [name, None, None, None, None, *in_points(compared.area_above(name, RANDOM))]
        for name in POINT
        if name != RANDOM
    ]
    points = point_rows(curves, compared)
    latency = _Latency.of(material, main)
    sheets = [
        Sheet(material.heading, ROWS, first),
        Sheet("Times of the models", MODEL_TIMES, latency.models()),
        Sheet("Curves", curve_columns(ours.table), points, detail=True),
    ]
    pictures = [_of_inputs(material, chosen, compared)]
    timed = latency.lines(ours)
    if timed:
        pictures.append(_of_latency(material, timed))
        sheets.append(Sheet("Latency", TIMES, latency.rows(ours), detail=True))
    return Exhibit(
        material.report,
        tuple(sheets),
        tuple(pictures),
        notes=(
            "GFLOPs and HIT@1 of the first table are at the run's own threshold. A curve is one trained selector "
            "at other thresholds, and begins at what the model costs that it looks at; low, high and bands are "
            "95 % bootstrap intervals over videos.",
            *area_notes(compared),
            *latency.notes(ours, bool(timed)),
            CONTROLS_NOTE,
        ),
    )


@dataclass(frozen=True)
class _Latency:
    """What the models of a pool take here.

    Attributes:
        counts: by stream, (M,): how many clips of each video a model looks at.
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
        """(P,): mean over videos and seeds; None where a model has no time."""
        draws = [curve] if isinstance(curve, SelectionCurve) else curve
        seconds = [self.times.per_video(one, self.counts, loading=loading) for one in draws]
        found = [1000 * one.mean(axis=1) for one in seconds if one is not None]
        return list(map(float, np.mean(found, axis=0))) if len(found) == len(seconds) else None

    def models(self) -> list[list[Value]]:
        return [
            [
                name,
                None if time.row_s is None else 1000 * time.row_s,
                None if time.load_s is None else 1000 * time.load_s,
                float(self.counts[name].mean()),
            ]
            for name, time in self.times.models.items()
        ]

    def lines(self, ours: Selected) -> list[Line]:
        """HIT@1 over milliseconds; none where a model has no time."""
        top1 = (100 * np.mean([one.top1 for one in ours.curves], axis=0)).tolist()
        kinds: Sequence[Kind] = ("proposed", "baseline", "baseline")
        lines = []
        for kind, (loading, said) in zip(kinds, LOADINGS.items(), strict=True):
            taken = self.milliseconds(ours.curves, loading)
            if taken is not None:
                lines.append(Line(said, kind, taken, top1))
        single = single_models(ours.table)
        alone = self.milliseconds(single, "never")
        if alone is not None:
            heights = (100 * single.top1).tolist()
            lines.append(Line(MODELS, "models", alone, heights, labels=ours.table.models))
            lines.append(random_line(np.array(alone), np.array(heights)))
        return lines

    def rows(self, ours: Selected) -> list[list[Value]]:
        """A row for each point of the selector and each model, for TIMES."""
        rows: list[list[Value]] = []
        taken = [self.milliseconds(ours.curves, loading) for loading in LOADINGS]
        values, gflops, top1 = (
            np.mean([getattr(one, of) for one in ours.curves], axis=0) for of in ("values", "gflops", "top1")
        )
        for k, value in enumerate(values):
            spent = [None if one is None else one[k] for one in taken]
            rows.append([ours.name, f"at {value:.3g}", float(gflops[k]), float(100 * top1[k]), *spent])
        single = single_models(ours.table)
        alone = self.milliseconds(single, "never")
        for n, name in enumerate(ours.table.models):
            spent = [None if alone is None else alone[n], None, None]
            rows.append([f"{name} alone", "", float(single.gflops[n]), float(100 * single.top1[n]), *spent])
        return rows

    def notes(self, ours: Selected, timed: bool) -> list[str]:
        reasons = [f"No time: {time.reason}." for time in self.times.models.values() if time.reason]
        if not timed:
            return ["No latency: it takes a time of every model of the pool.", *reasons]
        return [
            f"Latency of {ours.name}: measured on {self.times.machine}, batches of {self.times.batch}, networks "
            "of random weights; decoding is not in it. A load reads a model's weights from a file in the page "
            "cache; the model that the selector looks at stays. The paper: a 2080 Ti, batches of 32.",
            *reasons,
        ]


def _row(material: Material, row: str, one: Selected, compared: Comparison) -> list[Value]:
    looks_at = material.selecting(row).coarse
    return [
        one.name,
        looks_at,
        float(np.mean([curve.gflops[0] for curve in one.curves])),
        *at_own_point(material, row),
        *in_points(compared.area_above(one.name, RANDOM)),
    ]


def _of_inputs(material: Material, chosen: Mapping[str, Selected], compared: Comparison) -> Picture:
    title = material.table.title
    png = beside_controls(chosen.values(), compared, title=f"{title} (a)", subtitle=material.subtitle)
    alt = "HIT@1 against GFLOPs per video, a curve for each model that a selector looks at"
    return Picture(png, alt, f"(a) {title}: the model that the selector looks at")


def _of_latency(material: Material, lines: Sequence[Line]) -> Picture:
    title = material.table.title
    png = accuracy_against_cost(
        lines, title=f"{title} (b)", subtitle=material.subtitle, accuracy=HIT, cost=LATENCY
    )
    alt = "HIT@1 against milliseconds per video, with all models in memory and loaded when they are chosen"
    return Picture(png, alt, f"(b) {title}: latency")
