"""LiteEval's own networks in the sizes of Sec. 4.1, and what a printed cost leaves for them."""

from __future__ import annotations

from dataclasses import replace

from policy.liteeval.cost import PolicyCost
from policy.networks.macs import lstm_step_macs
from policy.tables.costs.backbones import BY_STREAM, backbone
from policy.tables.costs.figure import Inferred
from policy.tables.costs.quantity import Quantity, counted_only, exact, printed
from policy.tables.datasets import LITEEVAL

COARSE = "mobilenetv2_112"

_CLASSES = {"FCVID": 239, "ActivityNet": 200, "Kinetics": 400, "Breakfast": 10}
_SIZES = {dataset.title: dataset.settings for dataset in LITEEVAL.values()}


def lstm(inputs: int, hidden: int) -> Quantity:
    """One step of an LSTM: the papers print no cost for it."""
    return counted_only(f"LSTM {hidden}", lstm_step_macs(inputs, hidden))


def policy_cost(dataset: str, fine: str) -> PolicyCost:
    """MACs of LiteEval's networks on a data set of Sec. 4.1 with a fine stream."""
    sizes = _SIZES[dataset] or _SIZES["FCVID"]  # The paper gives none for Breakfast.
    return PolicyCost.of(
        coarse_dim=BY_STREAM[COARSE].feature_dim,
        fine_dim=BY_STREAM[fine].feature_dim,
        num_classes=_CLASSES[dataset],
        coarse_hidden=sizes["coarse_hidden"],
        fine_hidden=sizes["fine_hidden"],
    )


def _figure(stream: str) -> Quantity:
    """A backbone at the figure of Sec. 4.1, without its rounding.

    The paper multiplies the rounded figures: Table 2 has 1642.75 = 25·65.71 to the last digit.
    """
    return replace(backbone(stream), slack=0.0)


def _step(cost: PolicyCost) -> Quantity:
    """What every step pays: the coarse backbone, the coarse LSTM and the gate."""
    return _figure(COARSE) + counted_only("coarse LSTM, gate", cost.coarse_step + cost.gate_step)


def fine_part(features: str, stream: str) -> Quantity:
    """Printed fine features at the cost of their backbone."""
    return printed(features) * _figure(stream)


def steps(total: str, features: str, dataset: str, fine: str) -> Inferred:
    """How many steps a printed cost pays for, its fine features taken off."""
    cost = policy_cost(dataset, fine)
    # One product, so that the rounding of the features counts once.
    opened = printed(features) * (_figure(fine) + counted_only("fine LSTM", cost.fine_step))
    rest = printed(total) - opened - counted_only("classifier", cost.classifier)
    return Inferred(rest / _step(cost), "steps")


def fine_features(total: str, dataset: str, fine: str, every: int) -> Inferred:
    """How many fine features a printed cost pays for, `every` steps taken off."""
    cost = policy_cost(dataset, fine)
    rest = printed(total) - exact(every) * _step(cost) - counted_only("classifier", cost.classifier)
    opened = rest / (_figure(fine) + counted_only("fine LSTM", cost.fine_step))
    return Inferred(opened, f"fine, {100 * opened.paper / every:.1f} %")


def rows(total: Quantity, stream: str, what: str) -> Inferred:
    """How many rows of a backbone a cost pays for."""
    return Inferred(total / backbone(stream), what)
