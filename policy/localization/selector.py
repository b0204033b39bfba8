"""Clip selection as a method: for each clip the cheap or the expensive model (Sec. 3.1, 3.3 and 3.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from cache_schema import UserError
from cache_schema.costs import stream_cost
from policy.config import RunConfig
from policy.data.batches import Batch, Role, VideoSet
from policy.data.groups import random_folds
from policy.data.opening import Dataset
from policy.evaluation.annotated import ground_truth_of
from policy.evaluation.detection import FloatArray
from policy.evaluation.ledger import IntArray, Ledger, charge
from policy.evaluation.operating import OperatingTarget, TargetKind
from policy.evaluation.predictions import Judged
from policy.localization.clip_selector import (
    NETWORKS,
    SELECTOR,
    ClipSelector,
    answers,
    threshold_of_share,
)
from policy.localization.clip_session import ClipSession
from policy.localization.config import PAPER_BETA, LocalizationSelectorConfig, WTALCConfig
from policy.localization.curve import JudgedClips, curve, curve_lines, disparity_by_ground
from policy.localization.judged import Localizations
from policy.localization.levels import activation_levels
from policy.localization.localize import localize, video_probabilities
from policy.localization.method import WTALC, LocalizationMethod, clip_spans
from policy.localization.motion_affinity import BoolArray, affinity, disparity, pseudo_labels, top_clips
from policy.method import Calibration, Losses, Method, Moment, Prediction, row_offsets
from policy.session import Session, TrainedRun
from policy.training.checkpoint import read_weights


class _Cheap(NamedTuple):
    """Of a video without its motion: activations (T, C), and confidences in motion (T,)."""

    activations: FloatArray
    confidences: FloatArray


class _Answered(NamedTuple):
    """Of a video: comparable activations (T, C) of both models, which clips use motion (T,), and (T, C) what comes
    of that."""

    appearance: FloatArray
    motion: FloatArray
    chosen: BoolArray
    sequence: FloatArray


class LocalizationSelector(LocalizationMethod):
    """Conditional Model Selection, Sec. 3.3."""

    title = "Clip selection"
    roles: ClassVar[tuple[Role, ...]] = ("appearance", "motion")
    gated = "motion"
    splits_batches = False  # clips of a batch count alike, wherever their videos are
    operating_targets: ClassVar[tuple[TargetKind, ...]] = ("usage", "threshold", "budget")
    cross_fits = True

    config: LocalizationSelectorConfig
    model: ClipSelector

    def __init__(self, config: LocalizationSelectorConfig, data: Dataset) -> None:
        super().__init__(config, data)
        self.model = ClipSelector(config, data.train.feature_dim("appearance"), len(data.classes))
        self._affinities: dict[str, Tensor] = {}  # by id of a video
        self._fold_of: dict[str, int] = {}  # by id of a training video

    # --- what it is built on ---

    @classmethod
    def needs(cls, config: RunConfig) -> Mapping[str, str]:
        assert isinstance(config, LocalizationSelectorConfig)
        folders = {f"{role}_run": getattr(config, f"{role}_run") for role in cls.roles}
        for name, folder in folders.items():
            if folder is None:
                raise UserError(f"{config.method} needs --{name.replace('_', '-')}: a finished run of wtalc")
        return folders

    @classmethod
    def check_needed(cls, config: RunConfig, name: str, needed: RunConfig) -> None:
        folder, stream = getattr(config, name), getattr(config, name.removesuffix("_run"))
        option = "--" + name.replace("_", "-")
        if not isinstance(needed, WTALCConfig):
            raise UserError(f"{folder}: a run of {needed.method}; {option} must be one of wtalc")
        streams = [one for one in (needed.appearance, needed.motion) if one is not None]
        if streams != [stream]:
            raise UserError(
                f"{folder}: a run on {' and '.join(streams)}; {option} must be one on {stream} alone"
            )
        if (needed.input_norm == "l2") != (config.input_norm == "l2"):
            raise UserError(
                f"{folder}: trained with --input-norm {needed.input_norm}, and this run has {config.input_norm}: "
                "both wtalc runs and this one have l2, or none of them"
            )

    def build_on(self, trained: Mapping[str, Method], data: Dataset, device: torch.device) -> None:
        models = {}
        for role in self.roles:
            method = trained[f"{role}_run"]
            assert isinstance(method, WTALC)
            models[role] = method.model
        self.model.build_on(models)
        self._prepare(data.train, device)

    def _prepare(self, videos: VideoSet, device: torch.device) -> None:
        """Set what is learned and seen of the training videos, once there are both models."""
        config = self.config
        self.model.to(device).eval()
        if config.budget is not None:
            self._check_budget(videos, config.budget)
        labels = videos.trained_labels
        activations = {
            role: [self.model.activations(role, videos.features(role, i)) for i in range(len(videos))]
            for role in self.roles
        }
        # A class that no training video has is judged by nothing: any level will do for it.
        shown = labels | ~labels.any(axis=0)
        levels = [activation_levels(activations[role], shown) for role in self.roles]
        self.model.levels.copy_(torch.tensor(np.array([[one.low, one.high] for one in levels])))
        self.beta = self._beta(videos)
        of_videos = zip(videos.ids, activations["appearance"], activations["motion"], labels, strict=True)
        self._affinities = {video_id: self._affinity(*of_video) for video_id, *of_video in of_videos}
        if config.input_norm == "standard":
            self.model.selector.scale.fit(
                self.model.inputs(videos.features("appearance", i), appearance)
                for i, appearance in enumerate(activations["appearance"])
            )
        if config.budget is not None:
            fold = random_folds(len(videos), config.folds, config.seed, videos.groups)
            folds = range(int(fold.max()) + 1)
            self.model.folds = nn.ModuleList(deepcopy(self.model.selector) for _ in folds)
            self._fold_of = dict(zip(videos.ids, fold.tolist(), strict=True))

    def _affinity(self, appearance: FloatArray, motion: FloatArray, classes: BoolArray) -> Tensor:
        """(T, 2): what is learned of a video's clips, from both models' activations (T, C) and classes (C,)."""
        disparities = disparity(appearance, self.model.comparable_motion(motion), classes)
        return torch.from_numpy(_target(self.config, disparities, self.beta)).float()

    def _learned(self, videos: VideoSet, index: int) -> Tensor:
        """`_affinity` of a video. Kept."""
        video_id = videos.ids[index]
        if video_id not in self._affinities:
            appearance, motion = (
                self.model.activations(role, videos.features(role, index)) for role in self.roles
            )
            labels = videos.trained_labels[index]
            self._affinities[video_id] = self._affinity(appearance, motion, labels)
        return self._affinities[video_id]

    def _check_budget(self, videos: VideoSet, budget: float) -> None:
        """Raises UserError for a budget that not even the cheap model keeps."""
        cheap, _ = self._clip_gflops(videos)
        if budget < cheap:
            raise UserError(
                f"budget of {budget:g} GFLOPs per clip: the appearance stream, its model and the "
                f"selector, which run on all clips, cost {cheap:.3f}; that is the least possible"
            )

    def _affordable(self, videos: VideoSet, budget: float) -> float:
        """Share of the clips whose motion a budget in GFLOPs per clip pays for."""
        cheap, expensive = self._clip_gflops(videos)
        return (budget - cheap) / expensive

    def _beta(self, videos: VideoSet) -> float:
        if self.config.beta is not None:
            return self.config.beta
        return (
            PAPER_BETA
            if self.config.budget is None
            else min(self._affordable(videos, self.config.budget), 1.0)
        )

    # --- training ---

    @property
    def reads(self) -> bool:
        return False  # of the appearance stream alone, and only its own

    def losses(self, batch: Batch, moment: Moment, generator: torch.Generator) -> Losses:
        assert batch.videos is not None
        parts = [self._inputs(batch.videos, index) for index in batch.indices]
        inputs = torch.cat(parts)
        wanted = torch.cat([self._learned(batch.videos, index) for index in batch.indices]).to(inputs.device)
        loss = _selection_loss(self.model.selector, inputs, wanted)
        if not len(self.model.folds):
            return {"loss": loss}
        # Each is trained as the selector is, on the videos that are not in its fold. They share no weight, so that
        # the sum of the losses trains them apart.
        folds = [self._fold_of[batch.videos.ids[index]] for index in batch.indices]
        fold, total = np.repeat(folds, [len(part) for part in parts]), loss
        for number, network in enumerate(self.model.folds):
            others = torch.from_numpy(np.flatnonzero(fold != number)).to(inputs.device)
            if len(others):
                total = total + _selection_loss(network, inputs[others], wanted[others])
        return {"loss": total, "selector": loss.detach()}

    @torch.no_grad()
    def validation_loss(self, judged: Judged, videos: VideoSet, device: torch.device) -> float:
        """Eq. 1, the mean over all clips."""
        inputs = torch.cat([self._inputs(videos, index) for index in range(len(videos))])
        wanted = torch.cat([self._learned(videos, index) for index in range(len(videos))])
        return float(_selection_loss(self.model.selector, inputs, wanted.to(inputs.device)))

    def finish(self, videos: VideoSet, device: torch.device) -> None:
        config = self.config
        value = 0.5 if config.threshold is None else config.threshold
        if config.budget is not None:
            confidences = [
                self.model.confidences(self._inputs(videos, index), self._fold_of.get(video_id))
                for index, video_id in enumerate(videos.ids)
            ]
            value = threshold_of_share(confidences, self._affordable(videos, config.budget))
            self.model.folds = nn.ModuleList()
        self.model.threshold.fill_(value)

    # --- another operating point ---

    def refitted(self, data: Dataset, device: torch.device) -> LocalizationSelector:
        config = replace(self.config, budget=None, beta=self._beta(data.train))
        method = LocalizationSelector(config, data)
        method.model.build_on({role: self.model.network(role) for role in self.roles})
        method._prepare(data.train, device)
        return method

    def check_target(self, target: OperatingTarget) -> None:
        super().check_target(target)
        if target.kind == "threshold":
            replace(self.config, threshold=target.value, budget=None).check()

    def value_at(self, target: OperatingTarget, calibration: Calibration, device: torch.device) -> float:
        share, confidences = target.value, []
        if target.kind == "budget":
            self._check_budget(calibration[0][1], target.value)
            share = self._affordable(calibration[0][1], target.value)
        for method, videos in calibration:
            assert isinstance(method, LocalizationSelector)
            model = method.model.to(device).eval()
            confidences += [model.confidences(method._inputs(videos, index)) for index in range(len(videos))]
        return threshold_of_share(confidences, share)

    @property
    def value_name(self) -> str:
        return "threshold on the confidence"

    def set_value(self, value: float, target: OperatingTarget) -> None:
        self.model.threshold.fill_(value)

    def _inputs(self, videos: VideoSet, index: int) -> Tensor:
        rows = videos.features("appearance", index)
        activations = np.zeros((0, 0))
        if self.model.sees_activations:
            activations = self.model.activations("appearance", rows)
        return self.model.inputs(rows, activations)

    # --- at work ---

    def _cheap(self, videos: VideoSet, index: int) -> _Cheap:
        rows = videos.features("appearance", index)
        activations = self.model.activations("appearance", rows)
        return _Cheap(activations, self.model.confidences(self.model.inputs(rows, activations)))

    def _answered(self, videos: VideoSet, index: int) -> _Answered:
        """Reads the motion stream's rows of the chosen clips alone."""
        known = self._cheap(videos, index)
        chosen = self.model.chosen(known.confidences)
        motion = np.full_like(known.activations, np.nan)
        if chosen.any():
            clips = np.flatnonzero(chosen)
            rows = videos.features("motion", index, lambda length: clips)
            motion[chosen] = self.model.comparable_motion(self.model.activations("motion", rows))
        sequence = answers(self.config.answer, known.activations, motion, chosen)
        return _Answered(known.activations, motion, chosen, sequence)

    def evaluate(self, videos: VideoSet, *, device: torch.device) -> Localizations:
        self.model.to(device).eval()
        answered = [self._answered(videos, index) for index in range(len(videos))]
        sequences = [one.sequence for one in answered]
        offsets, count, spans = row_offsets(videos), range(len(videos)), clip_spans(videos)
        opened = np.array([one.chosen.sum() for one in answered], np.int64)
        return Localizations(
            videos.ids,
            self.classes,
            videos.labels,
            np.stack([video_probabilities(torch.from_numpy(sequence)).numpy() for sequence in sequences]),
            offsets,
            Ledger.of_draws([self._charged(videos, np.diff(offsets), opened)]),
            localize(
                self.config,
                sequences,
                spans,
                (videos.features("appearance", index) for index in count),
            ),
            ground_truth_of(videos.segments),
            np.concatenate([one.chosen for one in answered]).astype(np.uint8),
            np.concatenate([one.appearance for one in answered]).astype(np.float16),
            np.concatenate([one.motion for one in answered]).astype(np.float16),
            np.concatenate(spans),
            videos.groups,
        )

    def predict(self, batch: Batch, generator: torch.Generator) -> Prediction:
        assert batch.videos is not None
        answered = [self._answered(batch.videos, index) for index in batch.indices]
        scores = torch.stack([video_probabilities(torch.from_numpy(one.sequence)) for one in answered])
        return Prediction(scores, [torch.from_numpy(one.chosen) for one in answered])

    def network_macs(self, row_counts: IntArray, gated_counts: IntArray) -> dict[str, IntArray]:
        return {
            SELECTOR: row_counts * self.model.selector.macs,
            NETWORKS["appearance"]: row_counts * self.model.network("appearance").macs,
            NETWORKS["motion"]: gated_counts * self.model.network("motion").macs,
        }

    def _charged(self, videos: VideoSet, row_counts: IntArray, gated_counts: IntArray) -> Ledger:
        rows = {"appearance": row_counts, "motion": gated_counts}
        streams = [
            (videos.streams[role].name, rows[role], stream_cost(videos.streams[role].spec).macs)
            for role in self.roles
        ]
        return charge(streams, self.network_macs(row_counts, gated_counts))

    def _clip_gflops(self, videos: VideoSet) -> tuple[float, float]:
        """Of any clip, and more of one that uses motion."""
        one, none = np.ones(1, np.int64), np.zeros(1, np.int64)
        cheap, both = (int(self._charged(videos, one, gated).total[0]) for gated in (none, one))
        return cheap / 1e9, (both - cheap) / 1e9

    # --- what else it says ---

    def details(self, data: Dataset, device: torch.device) -> Mapping[str, Any]:
        """The curve over shares of clips, with controls at equal cost; it reads the motion of all clips."""
        videos = data.evaluation
        self.model.to(device).eval()
        cheap, expensive = self._clip_gflops(videos)
        details: dict[str, Any] = {
            "threshold": float(self.model.threshold),
            "gflops_per_clip": {"every clip": cheap, "more with motion": expensive},
        }
        if not any(map(len, videos.segments)):
            return details
        known = [self._cheap(videos, index) for index in range(len(videos))]
        alone = [self.model.activations("motion", videos.features("motion", i)) for i in range(len(videos))]
        clips = JudgedClips(
            appearance=[one.activations for one in known],
            motion=[self.model.comparable_motion(logits) for logits in alone],
            motion_alone=alone,
            confidences=[one.confidences for one in known],
            rows={role: [videos.features(role, i) for i in range(len(videos))] for role in self.roles},
            spans=clip_spans(videos),
            truth=ground_truth_of(videos.segments),
            segments=videos.segments,
            labels=videos.labels,
        )
        share = float(np.concatenate([self.model.chosen(one.confidences) for one in known]).mean())
        selector = self.model.selector.macs / 1e9
        return {
            **details,
            "share": share,
            "points": curve(self.config, clips, share, cheap, expensive, selector),
            "disparity": disparity_by_ground(clips),
        }

    @classmethod
    def details_lines(cls, details: Mapping[str, Any]) -> Sequence[str]:
        return curve_lines(details)

    @classmethod
    def session(cls, run: TrainedRun, device: torch.device) -> Session:
        assert isinstance(run.config, LocalizationSelectorConfig)
        model = ClipSelector(run.config, run.streams["appearance"].feature_dim, len(run.classes))
        read_weights(run.weights, model)
        return ClipSession(
            model.to(device),
            run.streams["appearance"],
            run.streams["motion"],
            run.config,
            classes=run.classes,
        )


def _target(config: LocalizationSelectorConfig, disparities: FloatArray, beta: float) -> FloatArray:
    """(T, 2): G of Eq. 1 for the clips of a training video, of disparities (T,)."""
    if config.target == "affinity":
        return affinity(disparities, beta)
    if config.target == "pseudo-labels":
        return pseudo_labels(top_clips(disparities, beta))
    return np.stack([1 - disparities, disparities], axis=1)


def _selection_loss(network: nn.Module, inputs: Tensor, affinities: Tensor) -> Tensor:
    """Eq. 1, divided by the number of clips (T, …)."""
    log_probabilities: Tensor = network(inputs).log_softmax(1)
    return -(affinities * log_probabilities).sum(1).mean()
