"""What a finished run says of the training videos, and how far a student is from it (Hinton et al., 2015)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cache_schema import FeatureCache, Stream, UserError
from cache_schema.run_folder import CONFIG, read_json
from policy.config import RunConfig
from policy.data import Dataset, Role, VideoSet
from policy.evaluation import evaluate

LEAST = 1e-7
"""Probabilities this close to 0 (or, of a sigmoid, to 1) are taken for it: float32 tells no finer from 1."""


def distillation_loss(logits: Tensor, probabilities: Tensor, *, tau: float, multi_label: bool) -> Tensor:
    """τ² times the Kullback-Leibler divergence of the student's classes from the teacher's, mean over videos.

    Both are softened by τ first: the logits of either are divided by it. For a teacher of which only probabilities
    are known log p does, which differs from its logits by a constant that the softmax cancels. The factor τ² keeps
    the gradient's scale (Hinton et al., "Distilling the Knowledge in a Neural Network", Sec. 2.1).

    Args:
        logits: of the student, (B, C).
        probabilities: of the teacher, (B, C).
        tau: τ.
        multi_label: each class is a distribution of its own; their divergences are summed. The gradient is that of
            binary cross-entropy with soft targets.
    """
    student = logits / tau
    if multi_label:
        soft = torch.sigmoid(probabilities.clamp(LEAST, 1 - LEAST).logit() / tau)
        cross_entropy = F.binary_cross_entropy_with_logits(student, soft, reduction="none")
        each = (cross_entropy - F.binary_cross_entropy(soft, soft, reduction="none")).sum(1)
    else:
        soft = (probabilities.clamp_min(LEAST).log() / tau).log_softmax(1)
        each = F.kl_div(student.log_softmax(1), soft, reduction="none", log_target=True).sum(1)
    return tau**2 * each.mean()


def teacher_probabilities(folder: Path, data: Dataset, *, device: torch.device) -> Tensor:
    """(M, C) float32 on the device: what the method of a finished run says of the M training videos.

    A method that draws at random is asked as often as its evaluation was, and its answers averaged.

    Args:
        folder: of the run.
        data: of the student.

    Raises:
        UserError: the run is not finished, or was trained for other classes or on other videos or features.
    """
    # The runs know all methods, of which one is made with a teacher.
    from policy.runs import load_method, read_config

    config, described = read_config(folder), read_json(folder / CONFIG)
    data = _data_of(folder, config, described, data)
    method = load_method(folder, config, data)
    scores = evaluate(method, data.train, device=device).scores
    return torch.from_numpy(scores.mean(axis=0)).to(device)


def _data_of(folder: Path, config: RunConfig, described: dict[str, Any], data: Dataset) -> Dataset:
    """The teacher's view of the student's data, which must be what it was trained on."""
    held, own = described["data"], data.digest()
    if tuple(described["classes"]) != data.classes:
        raise _unfit(folder, "tells other classes apart")
    if described["multi_label"] != data.multi_label:
        how = "with several classes per video" if described["multi_label"] else "on one class per video"
        raise _unfit(folder, f"was trained {how}")
    if held["labels"] != own["labels"]:
        raise _unfit(folder, "was trained or evaluated on other videos, or on other labels of them")
    streams, pool, held_out = _streams(config, data.train)

    def seen(videos: VideoSet) -> VideoSet:
        return replace(videos, streams=streams, l2=config.input_norm == "l2", pool=pool)

    data = replace(data, train=seen(data.train), evaluation=seen(data.evaluation), held_out=held_out)
    for name, digest in data.digest().items():
        if held.get(name) != digest:
            raise _unfit(folder, f"was trained on other features of stream {name!r}")
    return data


def _streams(
    config: RunConfig, videos: VideoSet
) -> tuple[dict[Role, Stream], dict[str, Stream], dict[str, Stream]]:
    """The streams that the teacher reads, by role, chooses from and takes held-out scores of, by name: the
    student's own, or others of the same cache."""
    from policy.registry import METHODS

    cache = FeatureCache(next(iter(videos.streams.values())).folder.parent)
    known = {stream.name: stream for stream in videos.streams.values()}
    method = METHODS[config.method]
    by_role = method.streams(config, cache)
    return (
        {role: known.get(name) or cache[name] for role, name in by_role.items()},
        {name: known.get(name) or cache[name] for name in method.pool(config)},
        {name: cache[name] for name in method.held_out(config)},
    )


def _unfit(folder: Path, why: str) -> UserError:
    return UserError(f"{folder}: no teacher for this run, for it {why}")
