"""A trained LiteEval from its run folder, to be fed frame by frame."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from cache_schema import StreamSpec, UserError
from cache_schema.costs import stream_cost
from cache_schema.run_folder import CONFIG, not_ours, read_json
from policy.liteeval.config import LiteEvalConfig, LiteEvalRLConfig
from policy.liteeval.method import LiteEvalMethod
from policy.liteeval.stream import LiteEvalStream
from policy.runs import WEIGHTS, read_config, read_result
from policy.training.checkpoint import read_weights


def open_stream(folder: Path, *, device: torch.device | None = None) -> LiteEvalStream:
    """The policy of a finished run, ready for a video's features as the backbones give them.

    Neither the cache nor the labels are needed. For the next video, `reset` it.

    Raises:
        UserError: the folder holds no finished run, or not one of LiteEval or LiteEval-RL.
    """
    config = read_config(folder)
    read_result(folder)
    if not isinstance(config, LiteEvalConfig | LiteEvalRLConfig):
        raise UserError(f"{folder}: a run of {config.method}, which has no gate to ask: give one of liteeval")
    held = read_json(folder / CONFIG)
    try:
        coarse, fine = (
            StreamSpec.from_json(json.dumps(held["streams"][role])) for role in LiteEvalMethod.roles
        )
        classes, multi_label = tuple(map(str, held["classes"])), bool(held["multi_label"])
    except (KeyError, TypeError, ValueError) as error:
        raise not_ours(folder / CONFIG) from error
    model = LiteEvalMethod.network(config, coarse.feature_dim, fine.feature_dim, len(classes))
    read_weights(folder / WEIGHTS, model)
    return LiteEvalStream(
        model.to(device or torch.device("cpu")),
        l2=config.input_norm == "l2",
        multi_label=multi_label,
        coarse_macs=stream_cost(coarse).macs,
        fine_macs=stream_cost(fine).macs,
        classes=classes,
    )
