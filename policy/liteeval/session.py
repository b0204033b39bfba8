"""LiteEval on raw video: one frame at a time, with fine features only where the gate opens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from cache_schema import StreamSpec
from cache_schema.costs import stream_cost
from policy.data.batches import unit_length
from policy.liteeval.gate import DrawnGates
from policy.liteeval.graphs import step_graphs
from policy.liteeval.model import LiteEval
from policy.session import FloatArray, Graph, Rows, Session, Wanted, checked_rows

NETWORK = "LiteEval networks"
"""Their name in a ledger."""


class LiteEvalSession(Session):
    """One video, frame by frame (Algorithm 1). A video of unknown length, as it arrives::

        session.begin()
        for frame in video:
            if session.look(coarse_features(frame)):
                session.fine(fine_features(frame))
            print(session.probabilities)

    It decides and predicts as the model does on the whole video at once. It wants one row at a time.
    `policy.deploy.session.open_session` makes one from a run folder.

    Attributes:
        frames: how many it has looked at.
        fine_features: for how many of them it has taken fine features.
        wants_fine: whether it waits for the fine features of the last frame.

    Args:
        model: trained; it is put in evaluation mode.
        coarse, fine: the streams that it was trained on.
        l2: the model was trained on features of length 1 (input_norm "l2"): scale what it is given, so that a
            backbone's output can be passed on as it is.
        multi_label: the model was trained with a sigmoid for each class instead of a softmax.
        classes: names of the C classes; by default their numbers.
        drawn: opens the gates at random instead (`RandomGating`).
    """

    def __init__(
        self,
        model: LiteEval,
        coarse: StreamSpec,
        fine: StreamSpec,
        *,
        l2: bool = False,
        multi_label: bool = False,
        classes: tuple[str, ...] = (),
        drawn: DrawnGates | None = None,
    ) -> None:
        names = classes or tuple(map(str, range(model.classifier.out_features)))
        super().__init__({spec.name: spec for spec in (coarse, fine)}, names)
        self.model = model.eval()
        self.coarse_stream, self.fine_stream = coarse.name, fine.name
        self._l2 = l2
        self._multi_label = multi_label
        self._drawn = drawn
        self._restart()

    def begin(self, spans_s: Mapping[str, FloatArray] | None = None, *, video_id: str = "") -> None:
        """As any session does; both streams have the same number of rows, at the same instants.

        Args:
            spans_s: None for a video of unknown length: nothing is `wanted` then; call `look` and `fine`.
        """
        if spans_s is None:
            self._spans_s, self.video_id = {}, video_id
            self._restart()
            return
        lengths = {name: len(spans_s[name]) for name in self.streams if name in spans_s}
        if len(set(lengths.values())) > 1:
            both = " and ".join(f"{length} of {name}" for name, length in lengths.items())
            raise ValueError(f"a video has as many coarse rows as fine ones, not {both}")
        super().begin(spans_s, video_id=video_id)

    @torch.no_grad()
    def _restart(self) -> None:
        self.frames = 0
        self.fine_features = 0
        self._coarse_state, self._fine_state = self.model.initial_state(1)
        self._reading = self.model.readout.start(self.model.gate.weight, 1)
        self._waiting: Tensor | None = None  # coarse features of the frame that waits for its fine ones
        if self._drawn is not None:
            self._drawn.begin(self.video_id)

    @property
    def wants_fine(self) -> bool:
        return self._waiting is not None

    def wanted(self) -> Wanted | None:
        stream, row = self.coarse_stream, self.frames
        if self.wants_fine:
            stream, row = self.fine_stream, self.frames - 1
        spans_s = self._spans_s.get(stream, np.empty((0, 2)))[row : row + 1]
        return Wanted(stream, np.array([row], np.int64), spans_s) if len(spans_s) else None

    def _see(self, stream: str, features: Tensor | None, scores: Tensor | None) -> None:
        (row,) = self._need(stream, "features", features)
        if self.wants_fine:
            self.fine(row)
        else:
            self.look(row)

    @torch.no_grad()
    def look(self, coarse: Rows) -> bool:
        """Take the next frame's coarse features (D_c,).

        Returns:
            Whether its fine features are wanted: then call `fine` next; otherwise the frame is done.

        Raises:
            ValueError: the last frame still waits for its fine features, or these are not D_c finite numbers.
        """
        if self._waiting is not None:
            raise ValueError(f"frame {self.frames} waits for its fine features: call fine() before look()")
        checked = self._checked(coarse, len(self.model.coarse_scale.mean), "coarse")
        log_odds, self._coarse_state = self.model.look(checked, self._coarse_state, self._fine_state)
        self.frames += 1
        if self._opens(bool(log_odds > self.model.threshold)):
            self._waiting = checked
            return True
        self._update(checked, checked.new_empty(0, len(self.model.fine_scale.mean)))
        return False

    def _opens(self, learned: bool) -> bool:
        """Whether the gate opens at the next frame, for which this is what it has learned. Called once a frame."""
        return learned if self._drawn is None else bool(self._drawn.next(1)[0])

    @torch.no_grad()
    def fine(self, features: Rows) -> None:
        """Take the fine features (D_f,) of the frame for which `look` returned True.

        Raises:
            ValueError: they were not wanted, or are not D_f finite numbers.
        """
        if self._waiting is None:
            raise ValueError("no fine features were asked for: call fine() only after look() returned True")
        checked = self._checked(features, len(self.model.fine_scale.mean), "fine")
        self._update(self._waiting, checked)
        self._waiting = None
        self.fine_features += 1

    def _update(self, coarse: Tensor, fine: Tensor) -> None:
        """End a step: (1, D_c) and (1, D_f), or (0, D_f) where the gate is closed."""
        opened = torch.arange(len(fine), device=coarse.device)
        self._fine_state = self.model.update(coarse, fine, opened, self._coarse_state, self._fine_state)
        self._reading = self.model.readout.step(self._reading, self._fine_state.h)

    @property
    @torch.no_grad()
    def logits(self) -> Tensor:
        """(C,): after the frames that are done; before the first, those of the zero state."""
        logits: Tensor = self.model.classifier(self._reading.value)
        return logits[0]

    @property
    def probabilities(self) -> Tensor:
        """(C,): of the classes, after the frames that are done."""
        return self.logits.sigmoid() if self._multi_label else self.logits.softmax(0)

    @property
    def macs_by_name(self) -> Mapping[str, int]:
        macs = Counter({NETWORK: self.model.cost.total(steps=self.frames, opened=self.fine_features)})
        # Added, for both may be one stream.
        macs[self.coarse_stream] += self.frames * stream_cost(self.streams[self.coarse_stream]).macs
        macs[self.fine_stream] += self.fine_features * stream_cost(self.streams[self.fine_stream]).macs
        return macs

    def graphs(self) -> Sequence[Graph]:
        if self._drawn is not None:  # the step decides by the learned gate
            return ()
        return step_graphs(self.model, l2=self._l2, multi_label=self._multi_label)

    def _checked(self, features: Rows, dim: int, name: str) -> Tensor:
        """(1, D), as the model takes them."""
        frame = self.frames + (name == "coarse")
        checked = checked_rows(features, (dim,), f"{name} features", f" of frame {frame}")
        if self._l2:
            checked = torch.from_numpy(unit_length(checked.cpu().numpy()))
        return checked.to(self.model.classifier.weight.device)[None]
