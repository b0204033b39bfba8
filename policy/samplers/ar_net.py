"""AR-Net: for each row one of several streams, or a skip of the next rows.

After Meng, Lin, Panda, Sattigeri, Karlinsky, Oliva, Saenko and Feris, "AR-Net: Adaptive Frame Resolution for
Efficient Action Recognition" (ECCV 2020), and the code that its authors released. An LSTM looks at a row of the
cheapest stream and chooses: this stream, whose classifier reads the LSTM's state; another stream, whose backbone
runs on the row; or to skip this row and the k − 1 that follow. The answer is the mean of the logits of the rows
that are not skipped. What is done here where the paper has something else, or leaves it open:

- The streams' networks are those of the cache. Only their classifiers are trained, and the LSTM.
- In evaluation the most likely choice is taken; the released code draws there, too.
- While rows are skipped the LSTM's state stays as it is, and nothing of them is computed. (The released code keeps
  the hidden state only, and computes the cell state of skipped rows.)
- Where all rows are skipped, the cheapest stream's classifier answers for the rows that were looked at.
- A price of a GFLOP moves a trained policy to other budgets: the log-probability of each choice falls by the price
  of what it costs at its row. What is saved by skips counts, too. (The authors draw their curve by reading fewer
  or more frames.)
- The last stage of the released scripts, classifiers trained on with the policy held fixed, is left out.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations, pairwise
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from cache_schema import FeatureCache, StreamSpec, UserError
from cache_schema.costs import stream_cost
from policy.config import RunConfig
from policy.data.batches import Batch, Role, VideoSet, batched, fed, unit_length
from policy.data.opening import Dataset
from policy.evaluation.operating import Curve, OperatingTarget, TargetKind
from policy.evaluation.predictions import Judged, Predictions
from policy.method import (
    Calibration,
    IntArray,
    Losses,
    Method,
    Moment,
    Prediction,
    class_probabilities,
    evaluate,
    moved,
)
from policy.networks.macs import linear_macs, lstm_step_macs
from policy.networks.packing import mean_per_video, split_videos
from policy.networks.readout import dropped
from policy.networks.standardize import Standardize, fit_scale, unit_rows
from policy.samplers.ar_net_config import ARNetConfig
from policy.samplers.ar_net_looks import look
from policy.session import AlignedSession, Graph, Session, TrainedRun, Wanted
from policy.training.checkpoint import read_weights
from policy.training.losses import classification_loss

NETWORK = "AR-Net networks"
"""Their name in the ledger of costs."""
CURVE_POINTS = 8
_PRICES = 8193
"""Among which those of operating points are."""
_MOST_VIDEOS = 1000
"""Whose choices say which prices these are."""


class Chosen(NamedTuple):
    """Choices for N rows, packed as the rows are.

    Attributes:
        actions: (N, A), 1 for the choice and 0 elsewhere, with the gradient of the Gumbel-softmax; a skipped row
            has that of the row where the skip was chosen.
        looked: (N,) bool, whether the LSTM looked at the row.
        hidden: (N, H), its state after the row.
        log_odds: (N, A), log-probabilities of the choices, without prices.
    """

    actions: Tensor
    looked: Tensor
    hidden: Tensor
    log_odds: Tensor


class ARNetNetwork(nn.Module):
    """The LSTM that decides, and a classifier for each stream.

    Actions are the N streams, the cheapest first, then the skips.

    Attributes:
        gflops: (A,) that a choice costs at its row, beside the look that all take: negative for skips of more than
            one row, which save looks.
        price: () of a GFLOP.
    """

    gflops: Tensor
    price: Tensor

    def __init__(
        self, specs: Sequence[StreamSpec], skips: Sequence[int], hidden: int, num_classes: int
    ) -> None:
        """Args:
        specs: of the N streams, the cheapest first.
        """
        super().__init__()
        dims = [spec.feature_dim for spec in specs]
        self.skips, self.streams = tuple(skips), len(specs)
        self.scales = nn.ModuleList(Standardize(dim) for dim in dims)
        self.cell = nn.LSTMCell(dims[0], hidden)
        self.decision = nn.Linear(hidden, len(specs) + len(skips))
        self.classifiers = nn.ModuleList(nn.Linear(width, num_classes) for width in (hidden, *dims[1:]))
        macs = [stream_cost(spec).macs for spec in specs]
        costs = [0, *macs[1:], *(-(rows - 1) * macs[0] for rows in skips)]
        self.register_buffer("gflops", torch.tensor(costs, dtype=torch.float64) / 1e9)
        self.register_buffer("price", torch.zeros((), dtype=torch.float64))
        # The cheapest stream's classifier reads each state, as in the released code.
        looks = linear_macs(hidden, self.decision.out_features) + linear_macs(hidden, num_classes)
        self.look_macs = lstm_step_macs(dims[0], hidden) + looks
        self.classifier_macs = np.array([0, *(linear_macs(dim, num_classes) for dim in dims[1:])])

    def choose(
        self,
        cheapest: PackedSequence,
        *,
        temperature: float | None = None,
        generator: torch.Generator | None = None,
        dropout: float = 0.0,
        skipping: bool = True,
    ) -> Chosen:
        """Choices for the rows of B videos.

        Args:
            cheapest: (N, D) of the cheapest stream.
            temperature: of the Gumbel-softmax; None takes the most likely.
            generator: of noise and dropout, on the CPU.
            skipping: False looks at all rows, whatever is chosen.
        """
        inputs = dropped(self.scales[0](cheapest.data), dropout, generator)
        noise = None
        if temperature is not None:
            exponential = torch.empty(len(inputs), len(self.gflops)).exponential_(generator=generator)
            noise = -exponential.log().to(inputs)

        def choices(hidden: Tensor, rows: Tensor) -> Tensor:
            log_odds = self.decision(hidden).log_softmax(1)
            return self.most_likely(log_odds) if noise is None else (log_odds + noise[rows]).argmax(1)

        lasting = self.skips if skipping else [1] * len(self.skips)
        strides = torch.tensor([*[1] * self.streams, *lasting], device=inputs.device)
        looks = look(self.cell, inputs, cheapest.batch_sizes.tolist(), choices, strides)
        log_odds = self.decision(looks.hidden).log_softmax(1)
        actions = F.one_hot(looks.choices, len(self.gflops)).to(log_odds)
        if noise is not None:
            relaxed = ((log_odds + noise[looks.rows]) / temperature).softmax(1)
            # In this order the sum is exactly 0 or 1.
            actions = actions + (relaxed - relaxed.detach())
        looked = torch.zeros(len(inputs), dtype=torch.bool, device=inputs.device)
        looked[looks.rows] = True
        actions, hidden, log_odds = (
            values.index_select(0, looks.of_row) for values in (actions, looks.hidden, log_odds)
        )
        return Chosen(actions, looked, hidden, log_odds)

    def most_likely(self, log_odds: Tensor) -> Tensor:
        """(n,): the choice of largest log-probability less its price, of (n, A); of equal ones the first."""
        return (log_odds.double() - self.price * self.gflops).argmax(1)

    def row_logits(
        self,
        hidden: Tensor,
        rows: Sequence[Tensor],
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> list[Tensor]:
        """(N, C) for each stream.

        Args:
            hidden: (N, H).
            rows: (N, D), of the streams but the cheapest.
        """
        inputs = [hidden, *(scale(part) for scale, part in zip([*self.scales][1:], rows, strict=True))]
        return [
            layer(dropped(part, dropout, generator))
            for layer, part in zip(self.classifiers, inputs, strict=True)
        ]

    def answer(self, chosen: Chosen, logits: Sequence[Tensor], packed: PackedSequence) -> Tensor:
        """(B, C) logits, in the caller's order.

        Args:
            logits: of `row_logits`.
            packed: any rows, laid out alike.
        """
        shares = chosen.actions[:, : self.streams]
        of_rows = (shares[:, :, None] * torch.stack([*logits], 1)).sum(1)
        classified = mean_per_video(shares.sum(1, keepdim=True), packed)  # shares of a video's rows
        looked = chosen.looked[:, None].to(of_rows)
        looks = mean_per_video(torch.cat([looked * logits[0], looked], 1), packed)
        answer = mean_per_video(of_rows, packed) / torch.where(classified > 0, classified, 1.0)
        return torch.where(classified > 0, answer, looks[:, :-1] / looks[:, -1:])

    def macs(self, looks: IntArray, classified: IntArray) -> IntArray:
        """(M,): of so many looks (M,), and of rows (M, N) that each stream's classifier has classified."""
        return np.asarray(looks * self.look_macs + classified @ self.classifier_macs)


class ARNet(Method):
    """Charges the cheapest stream for the rows that it looks at, the others for those that they are chosen for."""

    title = "AR-Net"
    roles: ClassVar[tuple[Role, ...]] = ()  # as many as its configuration names, charged by itself
    operating_targets: ClassVar[tuple[TargetKind, ...]] = ("threshold", "budget")
    value_buffer = "price"
    splits_batches = False  # choices are balanced over a whole batch

    config: ARNetConfig
    model: ARNetNetwork

    def __init__(self, config: ARNetConfig, data: Dataset) -> None:
        super().__init__(config, data)
        for role in data.train.streams:
            data.train.feature_dim(role)
        self.specs = [stream.spec for stream in data.train.streams.values()]
        self.model = ARNetNetwork(self.specs, config.skips, config.policy_hidden, len(data.classes))
        if config.input_norm == "standard":
            for role, scale in zip(data.train.streams, self.model.scales, strict=True):
                assert isinstance(scale, Standardize)
                fit_scale(scale, data.train, role)

    @classmethod
    def streams(cls, config: RunConfig, cache: FeatureCache) -> dict[Role, str]:
        assert isinstance(config, ARNetConfig)
        config.check_together()
        names = sorted(config.streams, key=lambda name: stream_cost(cache[name].spec).macs)
        return {f"stream {place}": name for place, name in enumerate(names)}

    @classmethod
    def session(cls, run: TrainedRun, device: torch.device) -> Session:
        config, specs = run.config, list(run.streams.values())
        assert isinstance(config, ARNetConfig)
        model = ARNetNetwork(specs, config.skips, config.policy_hidden, len(run.classes))
        read_weights(run.weights, model)
        l2 = config.input_norm == "l2"
        return ARNetSession(model.to(device), specs, run.classes, l2=l2, multi_label=run.multi_label)

    def notes(self, data: Dataset) -> Sequence[str]:
        return [
            f"ar-net decides from {self.specs[0].name}; it trains an LSTM and the streams' classifiers, on "
            "features as they are in the cache: the paper trains the networks that give them, too"
        ]

    def validates(self, progress: float) -> bool:
        return progress >= self.config.pretraining

    def losses(self, batch: Batch, moment: Moment, generator: torch.Generator) -> Losses:
        config, model = self.config, self.model
        cheapest, *others = batch.inputs.values()
        rows, pretrains = [packed.data for packed in others], moment.progress < config.pretraining
        start, end = config.temperature_start, config.temperature_end
        # It starts with the policy, as in the released scripts.
        decided = max(0.0, moment.progress - config.pretraining) / (1 - config.pretraining)
        tau = start * (end / start) ** decided
        dropout = config.dropout
        chosen = model.choose(
            cheapest, temperature=tau, generator=generator, dropout=dropout, skipping=not pretrains
        )
        logits = model.row_logits(chosen.hidden, rows, dropout, generator)
        if pretrains:  # each stream by itself
            each = [classification_loss(mean_per_video(part, cheapest), batch.targets) for part in logits]
            return {"loss": torch.stack(each).sum(), "tau": tau}
        classification = classification_loss(model.answer(chosen, logits, cheapest), batch.targets)
        # Of videos alike, however long; and of rows that are skipped, what was chosen where the skip began.
        spent = mean_per_video(chosen.actions, cheapest) @ model.gflops.clamp_min(0).to(chosen.actions)
        shares = chosen.actions.mean(0)
        balance = torch.linalg.vector_norm(shares - shares.mean())
        efficiency = spent.mean() + config.balance * balance
        return {
            "loss": (1 - config.efficiency) * classification + config.efficiency * efficiency,
            "classification": classification,
            "gflops_per_row": spent.mean(),
            "balance": balance,
            "looked": chosen.looked.float().mean(),
            "tau": tau,
        }

    def validation_loss(self, judged: Judged, videos: VideoSet, device: torch.device) -> float:
        """As in training, without the balance."""
        assert isinstance(judged, Predictions)
        share = self.config.efficiency
        spent = sum(judged.ledger[spec.name] for spec in self.specs[1:]) / 1e9 / judged.lengths
        return (1 - share) * super().validation_loss(judged, videos, device) + share * float(np.mean(spent))

    @torch.no_grad()
    def predict(self, batch: Batch, generator: torch.Generator) -> Prediction:
        cheapest, *others = batch.inputs.values()
        chosen = self.model.choose(cheapest)
        logits = self.model.row_logits(chosen.hidden, [packed.data for packed in others])
        answer = self.model.answer(chosen, logits, cheapest)
        streams = chosen.actions[:, : len(self.specs)]
        taken = torch.cat([chosen.looked[:, None].to(streams), streams], 1)
        videos = split_videos(taken, cheapest.batch_sizes, cheapest.unsorted_indices)
        counts = np.stack([video.sum(0).cpu().numpy() for video in videos]).astype(np.int64)
        looks, classified = counts[:, 0], counts[:, 1:]
        ran = [looks, *classified.T[1:]]
        macs = {spec.name: rows * stream_cost(spec).macs for spec, rows in zip(self.specs, ran, strict=True)}
        macs[NETWORK] = self.model.macs(looks, classified)
        gates = [video[:, 2:].sum(1) for video in videos]
        columns = [0, *range(2, len(self.specs) + 1)]
        of_streams = zip(self.specs, columns, strict=True)
        ran_on = {spec.name: [video[:, column] > 0 for video in videos] for spec, column in of_streams}
        return Prediction(class_probabilities(answer, self.multi_label), gates, macs, ran_on)

    def network_macs(self, row_counts: IntArray, gated_counts: IntArray) -> dict[str, IntArray]:
        return {NETWORK: np.zeros_like(row_counts)}  # `predict` charges what depends on the choices

    # --- operating points ---

    @property
    def value_name(self) -> str:
        return "price of a GFLOP, in log-odds"

    def value_at(self, target: OperatingTarget, calibration: Calibration, device: torch.device) -> float:
        ((_, videos),) = calibration
        prices = self.prices(videos, device)
        # Costs rise from price to price, but for videos that skip other rows then. Wherever the search ends, the
        # cost of the price that it returns was within the budget.
        within = bisect_right(prices, target.value, key=lambda price: self._gflops(price, videos, device))
        if not within:
            least = self._gflops(prices[0], videos, device)
            raise UserError(
                f"{target}: the least that is possible is {least:.4g} GFLOPs per video, where "
                f"{self.specs[0].name} is looked at as seldom as skips allow"
            )
        return prices[within - 1]

    def operating_curve(self, videos: VideoSet, calibration: VideoSet, *, device: torch.device) -> Curve:
        prices = self.prices(calibration, device)
        costs = {place: self._gflops(prices[place], calibration, device) for place in (0, len(prices) - 1)}
        while len(costs) < 2 * CURVE_POINTS:  # in the middle of the widest gap
            gaps = {(a + b) // 2: costs[b] / costs[a] for a, b in pairwise(sorted(costs)) if b - a > 1}
            place = max(gaps, key=gaps.__getitem__)
            costs[place] = self._gflops(prices[place], calibration, device)
        wanted = np.geomspace(min(costs.values()), max(costs.values()), CURVE_POINTS)
        places, spent = np.array([*costs]), np.array([*costs.values()])
        nearest = places[np.abs(spent - wanted[:, None]).argmin(axis=1)]
        values = {*(prices[place] for place in nearest), float(self.model.price)}
        curve = self.at_values(values, videos, device=device)
        by_cost = {float(point.predictions.gflops.mean()): point for point in curve.points}
        return replace(curve, points=tuple(by_cost[cost] for cost in sorted(by_cost)))

    @torch.no_grad()
    def prices(self, videos: VideoSet, device: torch.device) -> list[float]:
        """Descending: prices at which some choice turns, evenly by rank. No labels are looked at.

        All 0 where all choices cost the same.
        """
        model = self.model.to(device).eval()
        some = range(0, len(videos), -(-len(videos) // _MOST_VIDEOS))
        gflops = model.gflops.cpu().numpy()
        pairs = [(a, b) for a, b in combinations(range(len(gflops)), 2) if gflops[a] != gflops[b]]
        turning = [] if pairs else [np.zeros(1)]
        with moved(model.price, 0.0):  # the same prices wherever it was moved to
            for batch in fed(videos, batched(some, self.config.batch), device):
                chosen = model.choose(next(iter(batch.inputs.values())))
                odds = chosen.log_odds[chosen.looked].double().cpu().numpy()
                turning += [(odds[:, a] - odds[:, b]) / (gflops[a] - gflops[b]) for a, b in pairs]
        prices: list[float] = np.quantile(np.concatenate(turning), np.linspace(1, 0, _PRICES)).tolist()
        return prices

    def _gflops(self, price: float, videos: VideoSet, device: torch.device) -> float:
        """Mean per video."""
        with moved(self.model.price, price):
            return float(evaluate(self, videos, device=device).gflops.mean())


class ARNetSession(AlignedSession):
    """Wants a row of the cheapest stream; then that of the stream that is chosen, or a row after those skipped.

    Args:
        model: trained; it is put in evaluation mode.
        specs: of the streams, the cheapest first.
        l2: features are brought to length 1 first.
        multi_label: trained with a sigmoid for each class instead of a softmax.
    """

    def __init__(
        self,
        model: ARNetNetwork,
        specs: Sequence[StreamSpec],
        classes: tuple[str, ...],
        *,
        l2: bool,
        multi_label: bool,
    ) -> None:
        super().__init__({spec.name: spec for spec in specs}, classes)
        self.model, self._specs, self._l2, self._multi_label = model.eval(), specs, l2, multi_label
        self._restart()

    def _restart(self) -> None:
        self._row = self._place = 0  # next; the place of its stream
        zero = self.model.decision.weight.new_zeros(1, self.model.cell.hidden_size)
        self._state = zero, zero
        self._looks, self._classified = 0, np.zeros(len(self._specs), np.int64)
        self._sum = self._sum_of_looks = zero.new_zeros(len(self.classes))  # of logits

    def wanted(self) -> Wanted | None:
        name = self._specs[self._place].name
        spans_s = self._spans_s.get(name, np.zeros((0, 2)))
        rows = np.arange(self._row, len(spans_s))[:1]
        return Wanted(name, rows, spans_s[rows]) if len(rows) else None

    @torch.no_grad()
    def _see(self, stream: str, features: Tensor | None, scores: Tensor | None) -> None:
        row, model, place = self._need(stream, "features", features), self.model, self._place
        if self._l2:
            row = torch.from_numpy(unit_length(row.cpu().numpy()))
        scaled = model.scales[place](row.to(self._sum.device))
        if not place:
            self._state = model.cell(scaled, self._state)
            scaled = self._state[0]
            choice = int(model.most_likely(model.decision(scaled).log_softmax(1)))
            self._looks += 1
        logits = model.classifiers[place](scaled)[0]
        if not place:
            self._sum_of_looks = self._sum_of_looks + logits
            if choice >= len(self._specs):
                self._row += model.skips[choice - len(self._specs)]
                return
            if choice:
                self._place = choice
                return
        self._sum = self._sum + logits
        self._classified[place] += 1
        self._row, self._place = self._row + 1, 0

    @property
    def probabilities(self) -> Tensor:
        """(C,): of the classes; the same for all until a row was taken."""
        if not self._looks:
            return torch.full((len(self.classes),), 1 / len(self.classes))
        count = int(self._classified.sum())
        mean = self._sum / count if count else self._sum_of_looks / self._looks
        return class_probabilities(mean, self._multi_label).cpu()

    @property
    def operating_value(self) -> Tensor:
        return self.model.price

    @property
    def macs_by_name(self) -> Mapping[str, int]:
        ran = [self._looks, *self._classified[1:].tolist()]
        macs = {spec.name: rows * stream_cost(spec).macs for spec, rows in zip(self._specs, ran, strict=True)}
        return macs | {NETWORK: int(self.model.macs(np.array([self._looks]), self._classified[None])[0])}

    def graphs(self) -> Sequence[Graph]:
        """The graph "step", and of each stream but the cheapest a classifier."""
        cheapest, *others = self._specs
        states = {name: torch.zeros(1, self.model.cell.hidden_size) for name in ("h", "c")}
        facts = {
            "streams": [spec.name for spec in self._specs],
            "skips": self.model.skips,
            "gflops": self.model.gflops.tolist(),
            "price": float(self.model.price),
            "choice": "of largest log_probabilities - price * gflops: a stream, or after them a skip of rows",
            "probabilities": "sigmoid" if self._multi_label else "softmax",
            "input_scaling": "inside: rows as the backbones give them",
        }
        return (
            Graph(
                "step",
                _Step(self.model, self._l2),
                {"features": torch.zeros(1, cheapest.feature_dim), **states},
                ("log_probabilities", "logits", *(f"{name}_next" for name in states)),
                facts,
            ),
            *(
                Graph(
                    f"classifier-{spec.name}",
                    _Classifier(self.model, place, self._l2),
                    {"features": torch.zeros(1, spec.feature_dim)},
                    ("logits",),
                    facts,
                )
                for place, spec in enumerate(others, 1)
            ),
        )


class _Step(nn.Module):
    """A row of the cheapest stream (1, D), and h and c (1, H), to the choice and to what that stream's classifier
    says: log-probabilities (1, A), logits (1, C), and h and c after it."""

    def __init__(self, model: ARNetNetwork, l2: bool) -> None:
        super().__init__()
        self.model, self.l2 = model, l2

    def forward(self, features: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        scaled = self.model.scales[0](unit_rows(features) if self.l2 else features)
        h, c = self.model.cell(scaled, (h, c))
        return self.model.decision(h).log_softmax(1), self.model.classifiers[0](h), h, c


class _Classifier(nn.Module):
    """A row (1, D) of the stream of a place, not the cheapest, to logits (1, C)."""

    def __init__(self, model: ARNetNetwork, place: int, l2: bool) -> None:
        super().__init__()
        self.scale, self.classifier, self.l2 = model.scales[place], model.classifiers[place], l2

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        return (self.classifier(self.scale(unit_rows(features) if self.l2 else features)),)
