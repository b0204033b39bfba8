"""LiteEval's step (Algorithm 1) as two networks for other runtimes: for every frame, and where the gate opens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from policy.liteeval.model import LiteEval
from policy.method import class_probabilities
from policy.networks.gated import State
from policy.networks.readout import Reading
from policy.networks.standardize import unit_rows
from policy.session import Graph


def step_graphs(model: LiteEval, *, l2: bool, multi_label: bool) -> Sequence[Graph]:
    """The graphs "step" and "fine". Input scaling, and projections if there are any, are inside.

    Args:
        l2, multi_label: as `LiteEvalSession` takes them.
    """
    states = {
        f"{name}_{part}": values
        for name, state in zip(("coarse", "fine"), model.initial_state(1), strict=True)
        for part, values in state._asdict().items()
        if values is not None
    }
    states |= model.readout.states("fine_read")
    fine_states = {name: state for name, state in states.items() if name.startswith("fine")}
    coarse, fine = (torch.zeros(1, len(scale.mean)) for scale in (model.coarse_scale, model.fine_scale))
    facts = {
        "input_scaling": "inside: features as the backbones give them",
        "probabilities": "sigmoid" if multi_label else "softmax",
    }
    return (
        Graph(
            "step",
            _Step(model, l2, multi_label),
            {"coarse": coarse, **states},
            ("log_odds", *(f"{name}_next" for name in states), "probabilities"),
            {**facts, "threshold": float(model.threshold), "open": "where log_odds is above the threshold"},
        ),
        Graph(
            "fine",
            _Fine(model, l2, multi_label),
            {"coarse": coarse, "fine": fine, **fine_states},
            (*(f"{name}_next" for name in fine_states), "probabilities"),
            facts,
        ),
    )


class _Graph(nn.Module):
    def __init__(self, model: LiteEval, l2: bool, multi_label: bool) -> None:
        super().__init__()
        self.model, self.l2, self.multi_label = model, l2, multi_label

    def scaled(self, features: Tensor) -> Tensor:
        """Brought to length 1, if the model was trained so."""
        return unit_rows(features) if self.l2 else features

    def outputs(self, *states: State, reading: Reading | None) -> tuple[Tensor, ...]:
        """The entries of states and of what is read after the last of them, and the class probabilities."""
        read = states[-1].h
        parts: list[tuple[Tensor | None, ...]] = [*states]
        if reading is not None:
            reading = self.model.readout.step(reading, read)
            read = reading.value
            parts.append(reading)
        # Copies: an input that is an output as well would lose its name.
        entries = [values.clone() for part in parts for values in part if values is not None]
        return *entries, class_probabilities(self.model.classifier(read), self.multi_label)


class _Step(_Graph):
    def forward(
        self,
        coarse: Tensor,
        coarse_h: Tensor,
        fine_h: Tensor,
        coarse_c: Tensor | None = None,
        fine_c: Tensor | None = None,
        fine_read_value: Tensor | None = None,
        fine_read_log_weight: Tensor | None = None,
        fine_read_steps: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Whether the fine features are wanted, and the states if they are not (Eq. 1, 2, 5)."""
        coarse_state, fine_state = State(coarse_h, coarse_c), State(fine_h, fine_c)
        log_odds, coarse_state = self.model.look(self.scaled(coarse), coarse_state, fine_state)
        reading = Reading.of(fine_read_value, fine_read_log_weight, fine_read_steps)
        closed = self.model.reuse(coarse_state, fine_state)
        return log_odds, *self.outputs(coarse_state, closed, reading=reading)


class _Fine(_Graph):
    def forward(
        self,
        coarse: Tensor,
        fine: Tensor,
        fine_h: Tensor,
        fine_c: Tensor | None = None,
        fine_read_value: Tensor | None = None,
        fine_read_log_weight: Tensor | None = None,
        fine_read_steps: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """The state with the fine features, from the one before the step (Eq. 3)."""
        before = State(fine_h, fine_c)
        refined = self.model.refine(self.scaled(coarse), self.scaled(fine), before)
        return self.outputs(
            refined, reading=Reading.of(fine_read_value, fine_read_log_weight, fine_read_steps)
        )
