"""LiteEval on raw video: one frame at a time, with fine features only where the gate opens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from cache_schema import StreamSpec
from cache_schema.costs import stream_cost
from policy.data.batches import unit_length
from policy.liteeval.gate import DrawnGates
from policy.liteeval.graphs import step_graphs
from policy.liteeval.model import LiteEval
from policy.liteeval.steps import Steps, Watched
from policy.networks.gated import rows_of
from policy.session import FloatArray, Graph, Rows, Session, Wanted, check_lengths, checked_rows

NETWORK = "LiteEval networks"
"""Their name in a ledger."""
AHEAD = 16
"""Coarse rows that a session wants at once."""
AnyLiteEval = TypeVar("AnyLiteEval", bound="LiteEvalSession")


class LiteEvalSession(Session):
    """One video, frame by frame (Algorithm 1). A video of unknown length, as it arrives::

        session.begin()
        for frame in video:
            if session.look(coarse_features(frame)):
                session.fine(fine_features(frame))
            print(session.probabilities)

    It decides and predicts as the model does on the whole video at once. Coarse features do not depend on the
    gate: of a video whose spans are known it wants those of several frames at once, and goes from one to the next
    until the gate opens. `policy.deploy.session.open_session` makes one from a run folder.

    Attributes:
        frames: at how many it has looked.
        fine_features: for how many of them it has taken fine features.
        wants_fine: whether it waits for the fine features of the last of them.

    Args:
        model: trained; it is put in evaluation mode. Its weights must not change while the session is in use.
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
        self._steps = Steps(model)
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
        check_lengths(self.streams, spans_s)
        super().begin(spans_s, video_id=video_id)

    def _restart(self) -> None:
        self.frames = 0
        self.fine_features = 0
        self.wants_fine = False
        self._coarse_state, self._fine_state = self.model.initial_state(1)
        self._reading = self.model.readout.start(self.model.gate.weight, 1)
        self._taken = self._coarse_state.h[:0]  # rows that `_advance` is to look at
        # Frames that are not done; the first may wait for its fine features.
        self._ahead = Watched(self._taken, rows_of(self._coarse_state, slice(0)))
        if self._drawn is not None:
            self._drawn.begin(self.video_id)

    def wanted(self) -> Wanted | None:
        stream, rows = self.coarse_stream, slice(self.frames, self.frames + AHEAD)
        if self.wants_fine:
            stream, rows = self.fine_stream, slice(self.frames - 1, self.frames)
        spans_s = self._spans_s.get(stream, np.empty((0, 2)))[rows]
        return Wanted(stream, rows.start + np.arange(len(spans_s)), spans_s) if len(spans_s) else None

    def _see(self, stream: str, features: Tensor | None, scores: Tensor | None) -> None:
        rows = self._need(stream, "features", features)
        if self._l2:
            rows = torch.from_numpy(unit_length(rows.cpu().numpy()))
        self._taken = rows.to(self.model.classifier.weight.device)

    @classmethod
    def _advance(cls: type[AnyLiteEval], sessions: Sequence[AnyLiteEval]) -> None:
        """Each goes on to the next frame whose fine features it wants, or to the last that is there."""
        steps = sessions[0]._steps
        if coarse := [session for session in sessions if not session.wants_fine]:
            rows = [session._taken for session in coarse]
            watched = steps.watch(rows, [session._coarse_state for session in coarse])
            for session, ahead in zip(coarse, watched, strict=True):
                session._ahead, session._coarse_state = ahead, rows_of(ahead.states, slice(-1, None))
        if fine := [session for session in sessions if session.wants_fine]:
            rows = [session._taken for session in fine]
            inputs = [session._ahead.inputs[:1] for session in fine]
            states = steps.opened(inputs, rows, [session._fine_state for session in fine])
            for session, state in zip(fine, states, strict=True):
                session._ahead, session._fine_state = session._ahead.after(1), state
                session._read(state.h)
                session.fine_features += 1
        for session in sessions:
            session._go_ahead()

    def _go_ahead(self) -> None:
        self.wants_fine = False
        if not len(self._ahead):
            return
        log_odds, states = self._steps.closed(self._ahead, self._fine_state)
        done = 0
        for learned in (log_odds > self.model.threshold).tolist():
            self.frames += 1
            self.wants_fine = self._opens(learned)
            if self.wants_fine:
                break
            done += 1
        if done:
            self._ahead, self._fine_state = self._ahead.after(done), rows_of(states, slice(done - 1, done))
            self._read(states.h[:done])

    @torch.no_grad()
    def _read(self, states: Tensor) -> None:
        """Take in the fine network's hidden states (k, H) after further frames, in order."""
        readout = self.model.readout
        for h in torch.split(states[-1:] if readout.kind == "last" else states, 1):
            self._reading = readout.step(self._reading, h)

    def _opens(self, learned: bool) -> bool:
        """Whether the gate opens at a frame. Called once for each, in order.

        Args:
            learned: what the model says.
        """
        return learned if self._drawn is None else bool(self._drawn.next(1))

    def look(self, coarse: Rows) -> bool:
        """Take the next frame's coarse features (D_c,).

        Returns:
            Whether its fine features are wanted: then call `fine` next; otherwise the frame is done.

        Raises:
            ValueError: the last frame still waits for its fine features, or these are not D_c finite numbers.
        """
        if self.wants_fine:
            raise ValueError(f"frame {self.frames} waits for its fine features: call fine() before look()")
        self._take_one(self.coarse_stream, coarse, "coarse features", self.frames + 1)
        return self.wants_fine

    def fine(self, features: Rows) -> None:
        """Take the fine features (D_f,) of the frame for which `look` returned True.

        Raises:
            ValueError: they were not wanted, or are not D_f finite numbers.
        """
        if not self.wants_fine:
            raise ValueError("no fine features were asked for: call fine() only after look() returned True")
        self._take_one(self.fine_stream, features, "fine features", self.frames)

    def _take_one(self, stream: str, row: Rows, what: str, frame: int) -> None:
        shape = (self.streams[stream].feature_dim,)
        self._see(stream, checked_rows(row, shape, what, f" of frame {frame}")[None], None)
        self._advance((self,))

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
        # Added, for both may be one stream. Of the frames ahead, only one that waits has been looked at.
        coarse = self.frames + len(self._ahead) - self.wants_fine
        macs[self.coarse_stream] += coarse * stream_cost(self.streams[self.coarse_stream]).macs
        macs[self.fine_stream] += self.fine_features * stream_cost(self.streams[self.fine_stream]).macs
        return macs

    @property
    def operating_value(self) -> Tensor | None:
        return None if self._drawn is not None else self.model.threshold

    def graphs(self) -> Sequence[Graph]:
        if self._drawn is not None:  # the step decides by the learned gate
            return ()
        return step_graphs(self.model, l2=self._l2, multi_label=self._multi_label)
