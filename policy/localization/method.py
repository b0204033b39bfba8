"""W-TALC as a method that is trained and judged like the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from cache_schema import FeatureCache, UserError
from cache_schema.costs import stream_cost
from policy.config import RunConfig
from policy.data.batches import Batch, Role, VideoSet, batched, fed
from policy.data.opening import Dataset, segments_digest
from policy.evaluation.annotated import ground_truth_of
from policy.evaluation.detection import Detections, FloatArray
from policy.evaluation.ledger import IntArray, Ledger, charge
from policy.localization.config import WTALCConfig
from policy.localization.judged import Localizations
from policy.localization.localize import Activations, localize, video_probabilities
from policy.localization.loss import Clips, class_logits, co_activity_loss, mil_loss, padded
from policy.localization.network import WTALCNetwork
from policy.localization.sampling import check_clips, crop, draw_batches
from policy.localization.session import NETWORK, WTALCSession
from policy.method import Losses, Method, Moment, Prediction, row_offsets
from policy.networks.packing import lengths_of, split_videos, video_of_row
from policy.session import Session, TrainedRun
from policy.training.checkpoint import read_weights


class LocalizationMethod(Method):
    """What methods that find segments have in common."""

    judged = Localizations

    def __init__(self, config: RunConfig, data: Dataset) -> None:
        super().__init__(config, data)
        self.classes = data.classes
        for videos in (data.train, data.evaluation):
            check_clips(videos)

    @classmethod
    def decisive_data(cls, data: Dataset) -> Mapping[str, str]:
        """The segments by which it is judged; those of training videos have no part in anything."""
        return {"segments": segments_digest(data.evaluation)}

    def notes(self, data: Dataset) -> Sequence[str]:
        if any(map(len, data.evaluation.segments)):
            return ()
        return (
            f"the labels give no segments of the videos of subset {data.evaluation.subset!r}: detections are "
            "written, and nothing judges them",
        )


class WTALC(LocalizationMethod):
    """Paul et al., ECCV 2018, as released; M_rgb and M_motion of Conditional Model Selection, Sec. 3.3."""

    title = "W-TALC"
    roles: ClassVar[tuple[Role, ...]] = ("appearance", "motion")
    splits_batches = False  # a pair would be torn apart

    config: WTALCConfig
    model: WTALCNetwork

    def __init__(self, config: WTALCConfig, data: Dataset) -> None:
        super().__init__(config, data)
        input_dim = sum(data.train.feature_dim(role) for role in data.train.streams)
        self.model = self.network(config, input_dim, len(data.classes))
        if self.model.scale is not None:
            self.model.scale.fit(torch.from_numpy(joined(data.train, i)) for i in range(len(data.train)))

    @staticmethod
    def network(config: WTALCConfig, input_dim: int, num_classes: int) -> WTALCNetwork:
        """The network that a configuration asks for, without its data."""
        return WTALCNetwork(
            input_dim,
            config.hidden or input_dim,
            num_classes,
            dropout=config.dropout,
            standardize=config.input_norm == "standard",
            precision=config.precision,
        )

    @classmethod
    def streams(cls, config: RunConfig, cache: FeatureCache) -> dict[Role, str]:
        named = {role: name for role in cls.roles if (name := getattr(config, role)) is not None}
        if not named:
            raise UserError(
                f"{config.method} needs an appearance stream, a motion stream or both; the cache has: "
                f"{', '.join(cache)}"
            )
        return named

    @classmethod
    def session(cls, run: TrainedRun, device: torch.device) -> Session:
        assert isinstance(run.config, WTALCConfig)
        specs = {role: run.streams[role] for role in cls.roles if role in run.streams}
        model = cls.network(run.config, sum(spec.feature_dim for spec in specs.values()), len(run.classes))
        read_weights(run.weights, model)
        return WTALCSession(
            model.to(device),
            tuple(specs.values()),
            run.config,
            l2=run.config.input_norm == "l2",
            classes=run.classes,
        )

    def epoch_order(self, videos: VideoSet, generator: torch.Generator) -> Tensor:
        config = self.config
        return draw_batches(videos.trained_labels, config.epoch_steps, config.batch, config.pairs, generator)

    def losses(self, batch: Batch, moment: Moment, generator: torch.Generator) -> Losses:
        config = self.config
        features, clips = self._clips(batch)
        if int(clips.lengths.max()) > config.max_clips:
            clips, kept = crop(clips, config.max_clips, generator)
            features = features[kept]
        hidden, logits = self.model(features, generator)
        by_video = padded(logits, clips)
        labels = batch.targets
        if not labels.is_floating_point():
            labels = functional.one_hot(labels, logits.shape[1]).to(logits.dtype)
        mil = mil_loss(by_video, clips.lengths, labels)
        co_activity = co_activity_loss(hidden, by_video, clips, labels, config.pairs, config.margin)
        loss = config.mil_weight * mil + (1 - config.mil_weight) * co_activity
        return {"loss": loss, "mil": mil, "co_activity": co_activity}

    def predict(self, batch: Batch, generator: torch.Generator) -> Prediction:
        features, clips = self._clips(batch)
        by_video = padded(self.model(features).logits, clips)
        return Prediction(class_logits(by_video, clips.lengths).softmax(1))

    def network_macs(self, row_counts: IntArray, gated_counts: IntArray) -> dict[str, IntArray]:
        return {NETWORK: row_counts * self.model.macs}

    @torch.no_grad()
    def activations(self, videos: VideoSet, device: torch.device) -> list[npt.NDArray[np.float32]]:
        """Of each video (T, C) class logits of its clips."""
        self.model.to(device).eval()
        found = []
        for batch in fed(videos, batched(range(len(videos)), self.config.batch), device):
            logits = self.model(_side_by_side(batch)).logits.cpu()
            packed = next(iter(batch.inputs.values()))
            found += [
                part.numpy() for part in split_videos(logits, packed.batch_sizes, packed.unsorted_indices)
            ]
        return found

    def detections(self, videos: VideoSet, activations: Activations) -> Detections:
        """What is found in videos where their clips have these activations."""
        rows = (joined(videos, index) for index in range(len(videos)))
        return localize(self.config, activations, clip_spans(videos), rows)

    def evaluate(self, videos: VideoSet, *, device: torch.device) -> Localizations:
        activations = self.activations(videos, device)
        offsets = row_offsets(videos)
        lengths = np.diff(offsets)
        streams = [
            (stream.name, lengths, stream_cost(stream.spec).macs) for stream in videos.streams.values()
        ]
        return Localizations(
            videos.ids,
            self.classes,
            videos.labels,
            np.stack([video_probabilities(torch.from_numpy(clips)).numpy() for clips in activations]),
            offsets,
            Ledger.of_draws([charge(streams, self.network_macs(lengths, np.zeros_like(lengths)))]),
            self.detections(videos, activations),
            ground_truth_of(videos.segments),
            spans=np.concatenate(clip_spans(videos)),
            groups=videos.groups,
        )

    def _clips(self, batch: Batch) -> tuple[Tensor, Clips]:
        """(N, D) features of all clips of a batch, and which these are."""
        packed = next(iter(batch.inputs.values()))
        steps = torch.arange(len(packed.batch_sizes)).repeat_interleave(packed.batch_sizes)
        device = packed.data.device
        return _side_by_side(batch), Clips(
            video_of_row(packed).to(device), steps.to(device), lengths_of(packed)
        )


def clip_spans(videos: VideoSet) -> list[FloatArray]:
    """Of each video (T, 2): first and last second that each clip saw."""
    role = next(iter(videos.streams))
    return [videos.spans(role, index) for index in range(len(videos))]


def joined(videos: VideoSet, index: int) -> npt.NDArray[np.float16]:
    """(T, D): features of a video, of all streams side by side."""
    return np.concatenate([videos.features(role, index) for role in videos.streams], axis=1)


def _side_by_side(batch: Batch) -> Tensor:
    """The same of all rows of a batch, which are packed alike."""
    parts = [packed.data for packed in batch.inputs.values()]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)
