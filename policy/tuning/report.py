"""What came of a study: a table of all trials, a picture of accuracy against cost, and the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from cache_schema import UserError
from cache_schema.command import count
from policy.sheets.sheet import Column, Document, Picture, Sheet, Spread, Value
from policy.sheets.words import gflops_text
from policy.tables.plots.curves import COST, Line, draw_against_cost
from policy.tuning.problem import ALLOWED, FOLDS, REPORTS, Measured, Problem
from policy.tuning.space import shown, values_of
from policy.tuning.study import REASON

_SHOWN = 10
"""Trials in the short table."""
_NOTE = 60
"""Characters of a reason in the tables; JSON has all of it."""


@dataclass(frozen=True)
class Tried:
    """A trial.

    Attributes:
        state: complete, pruned, failed or stopped.
        folds: what its complete folds measured.
        keeps_cost: whether it spends no more than is allowed.
        note: why it failed; where it was pruned.
    """

    number: int
    state: str
    values: dict[str, Any]
    folds: tuple[Measured, ...]
    keeps_cost: bool
    minutes: float | None
    note: str
    rank_by: tuple[float, ...]

    @staticmethod
    def of(trial: FrozenTrial, problem: Problem) -> Tried:
        folds = tuple(Measured(**fold) for fold in trial.user_attrs.get(FOLDS, []))
        reason = trial.user_attrs.get(REASON, "")
        state = trial.state.name.lower()
        if trial.state == TrialState.FAIL:
            state = "failed" if reason else "stopped"
        note = str(reason)
        if trial.state == TrialState.PRUNED:
            share = max(trial.intermediate_values, default=0) / (REPORTS * len(problem.folds))
            note = f"after {100 * share:.0f} % of its training"
        took = trial.duration
        return Tried(
            trial.number,
            state,
            values_of(trial.params, problem.ranges),
            folds,
            bool(folds) and problem.keeps_cost(Measured.mean(folds)),
            None if took is None else took.total_seconds() / 60,
            note,
            tuple(trial.values) if trial.state == TrialState.COMPLETE else (),
        )

    @property
    def mean(self) -> Measured:
        return Measured.mean(self.folds)


@dataclass(frozen=True)
class Findings:
    """What came of a study.

    Attributes:
        videos: in all folds together.
    """

    problem: Problem
    trials: tuple[Tried, ...]
    videos: int

    @cached_property
    def metric(self) -> str:
        """The accuracy, in words."""
        return next((trial.folds[0].metric for trial in self.trials if trial.folds), "accuracy")

    @cached_property
    def ranked(self) -> list[Tried]:
        """The complete trials, the best first; of equally accurate ones the cheapest."""
        complete = [trial for trial in self.trials if trial.state == "complete"]
        return sorted(complete, key=lambda trial: (-trial.rank_by[0], trial.mean.cost))

    @cached_property
    def front(self) -> list[Tried]:
        """The trials that no other surpasses in accuracy without costing more, the cheapest first."""
        front: list[Tried] = []
        for trial in sorted(self.ranked, key=lambda one: (one.mean.cost, -one.mean.accuracy)):
            if not front or trial.mean.accuracy > front[-1].mean.accuracy:
                front.append(trial)
        return front

    @property
    def best(self) -> list[Tried]:
        """The best trial; where no option says what a policy is to cost, the front.

        Raises:
            UserError: no trial is complete.
        """
        if not self.ranked:
            failed = [trial.note for trial in self.trials if trial.state == "failed"]
            why = f": {failed[-1]}" if failed else ": give it more time, or more trials"
            raise UserError(f"no trial could be completed{why}")
        return self.front if self.problem.has_front else self.ranked[:1]

    def line(self, trial: Tried) -> str:
        """A trial in a line, "trial 3: top-1 81.2 %, usage 5.1 %"."""
        if trial.state != "complete":
            return f"trial {trial.number}: {trial.state} {trial.note}"
        over = "" if trial.keeps_cost else " (exceeds the cost)"
        accuracy = f"{self.metric} {100 * trial.mean.accuracy:.1f} %"
        return f"trial {trial.number}: {accuracy}, {self._cost(trial)}{over}"

    def _cost(self, trial: Tried) -> str:
        """What a complete trial spent, in words."""
        if self.problem.costs_usage:
            return f"usage {100 * trial.mean.cost:.1f} %"
        return f"{gflops_text(trial.mean.cost)} GFLOPs"

    @property
    def caution(self) -> str:
        """That the best trial exceeds the cost, if it does; else empty."""
        best = self.best[0]
        if best.keeps_cost:
            return ""
        return (
            f"No trial kept the cost, {self.target}: the nearest, trial {best.number}, spent {self._cost(best)}; "
            "tune other options as well, or allow more."
        )

    @property
    def target(self) -> str:
        """The cost that is to be kept, in words."""
        target = self.problem.target
        if target is None:
            return ""
        return f"usage {100 * target.value:g} %" if self.problem.costs_usage else f"{target.value:g} GFLOPs"

    def document(self, command: str, *, drawn: bool) -> Document:
        """All of it for `policy.sheets`; `drawn`: with the picture."""
        listed = self.best if self.problem.has_front else self.ranked[:_SHOWN]
        title = (
            "The Pareto front"
            if self.problem.has_front
            else f"The best of {count(len(self.trials), 'trials')}"
        )
        return Document(
            id="tuning",
            title=f"Tuning {self.problem.method}",
            sheets=[self._sheet(title, listed), self._sheet("All trials", self.trials, detail=True)],
            state=self.state,
            command=command,
            pictures=[self._picture()] if drawn else [],
            data=[self._sheet("All trials", self.trials, exact=True).plain],
            label="tuning",
        )

    @property
    def state(self) -> list[str]:
        states = [trial.state for trial in self.trials]
        counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        folds = len(self.problem.folds)
        how = f"in {folds} parts, each held out once (± is over these)" if folds > 1 else "a part held out"
        sentences = [
            f"{count(len(self.trials), 'trials')}: {counted}.",
            f"Trained and judged on {count(self.videos, 'videos')} of subset {self.problem.subset!r}, {how}; "
            "no other video is looked at. The best of many is lucky, too: expect a little less on other videos.",
        ]
        if self.target:
            kept = sum(trial.keeps_cost for trial in self.ranked)
            sentences.append(
                f"Ranked by {self.metric} where the cost is kept ({self.target} and at most {ALLOWED - 1:.0%} "
                f"more: {kept} of {len(self.ranked)}), then by how far it is exceeded."
            )
        return [*sentences, *filter(None, [self.caution])]

    def record(self, commands: Sequence[str]) -> dict[str, Any]:
        """Ready for JSON.

        Args:
            commands: for each of `best`.
        """
        return {
            "method": self.problem.method,
            "metric": self.metric,
            "tuned": {one.name: str(one) for one in self.problem.ranges},
            "best": [
                {**_record(trial), "command": command}
                for trial, command in zip(self.best, commands, strict=True)
            ],
            "trials": [_record(trial) for trial in self.trials],
            "state": self.state,
        }

    def _sheet(
        self, title: str, trials: Sequence[Tried], *, detail: bool = False, exact: bool = False
    ) -> Sheet:
        usage = self.problem.costs_usage
        columns = [
            Column("trial", "trial"),
            Column("", "state"),
            Column(f"{self.metric} %", "accuracy_percent", emphasised=True),
            *([Column("usage %", "usage_percent")] if usage else []),
            Column("GFLOPs", "gflops", decimals=2),
            *(Column(one.name.replace("_", "-"), one.name) for one in self.problem.ranges),
            Column("minutes", "minutes", decimals=2),
            Column("", "note"),
        ]
        best = {trial.number for trial in self.best}
        rows = [self._row(trial, exact) for trial in trials]
        groups = {}
        if not (detail or exact):  # for terminals, which are narrow
            elsewhere = {"state", "minutes", "note"} | ({"gflops"} if usage else set())
            kept = [place for place, one in enumerate(columns) if one.key not in elsewhere]
            columns = [columns[place] for place in kept]
            rows = [[row[place] for place in kept] for row in rows]
            over = [place for place, trial in enumerate(trials) if not trial.keeps_cost]
            groups = {over[0]: "too dear"} if over else {}
        bold = frozenset(place for place, trial in enumerate(trials) if trial.number in best)
        return Sheet(title, columns, rows, detail=detail, groups=groups, emphasised=bold)

    def _row(self, trial: Tried, exact: bool) -> list[Value]:
        usage = self.problem.costs_usage
        complete = trial.state == "complete"
        costs: list[Value] = [None] * (1 + usage)
        if complete:
            costs = [*([100 * trial.mean.cost] if usage else []), trial.mean.gflops]
        accuracy = Spread.of([100 * fold.accuracy for fold in trial.folds]) if complete else None
        over = "" if not complete or trial.keeps_cost else "exceeds the cost"
        note = trial.note if len(trial.note) <= _NOTE else f"{trial.note[: _NOTE - 1]}…"
        values = [trial.values.get(one.name) for one in self.problem.ranges]
        if not exact:
            values = [None if value is None else shown(value) for value in values]
        return [trial.number, trial.state, accuracy, *costs, *values, trial.minutes, note or over]

    def _picture(self) -> Picture:
        """Accuracy against cost of the complete trials."""
        scale = 100 if self.problem.costs_usage else 1
        at = [(scale * one.mean.cost, 100 * one.mean.accuracy) for one in self.ranked]
        lines = []
        if not self.problem.has_front:
            best = self.best[0]
            xs, ys = [scale * best.mean.cost], [100 * best.mean.accuracy]
            lines.append(Line("best", "proposed", xs, ys, labels=[f"trial {best.number}"]))
        lines.append(Line("trial", "models", [x for x, _ in at], [y for _, y in at]))
        front = self.front
        labels = [f"{one.number}" if self.problem.has_front else "" for one in front]
        xs = [scale * one.mean.cost for one in front]
        lines.append(
            Line("Pareto front", "oracle", xs, [100 * one.mean.accuracy for one in front], labels=labels)
        )
        if self.problem.target is not None:
            ys = [y for _, y in at]
            value = scale * self.problem.target.value
            lines.append(Line(self.target, "random", [value, value], [min(ys), max(ys)]))
        drawing = draw_against_cost(
            lines,
            title=f"Tuning {self.problem.method}",
            subtitle=f"the {len(self.ranked)} complete of {count(len(self.trials), 'trials')}, on held-out videos "
            f"of subset {self.problem.subset!r}",
            accuracy=f"{self.metric} (%)",
            cost="usage: rows with the expensive features (%)" if self.problem.costs_usage else COST,
        )
        return Picture(drawing.png, f"Tuning {self.problem.method}: {self.metric} against cost of each trial")


def _record(trial: Tried) -> dict[str, Any]:
    record: dict[str, Any] = {"trial": trial.number, "state": trial.state, "values": trial.values}
    if trial.state == "complete":
        record |= {
            **vars(trial.mean),
            "keeps_cost": trial.keeps_cost,
            "folds": [vars(one) for one in trial.folds],
        }
    return {**record, "minutes": trial.minutes, "note": trial.note}
