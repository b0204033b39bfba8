"""What a fine-tuning run is asked to do: every choice that can change its result, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from cache_schema import UserError
from cache_schema.annotations import Grouping

Optimizer = Literal["adamw", "sgd"]
BatchNorm = Literal["auto", "frozen", "trained"]

LEARNING_RATES: Mapping[str, float] = {"adamw": 1e-4, "sgd": 1e-2}


@dataclass(frozen=True)
class Choices:
    """One run.

    Attributes:
        stream: the stream's name as the user gave it.
        weights: "pretrained", "random:SEED" or a file: what training starts from.
        train_subset, val_subset: of the label file; None takes the usual names (`collection`).
        val_fraction: share of the training videos that are set aside for validation; None: a subset is.
        group_column, group_pattern: which videos belong together (`Grouping`): a share is of whole groups.
        multi_label: False trains on each video's first class; None asks the labels.
        epochs: times that every training video is visited.
        frames_per_video: frames (clips) of a video in each visit, one in each of as many equal parts of it.
        batch: frames (clips) in a step; None: 32 frames, 8 clips.
        val_rows: at most so many of a video's rows are validated on, evenly spaced; 0: all of them.
        optimizer, lr: None: LEARNING_RATES, of the trained part of the network.
        head_lr_factor: by how much the learning rate of a new classifier is higher.
        weight_decay: of weights; biases and scales have none.
        warmup: share of the run in which the learning rate rises to `lr`; then it falls to 0 along a cosine.
        head_only: train the classifier and nothing else.
        batch_norm: whether BatchNorm's means and variances stay; "auto": unless the weights are random.
        min_area: smallest share of the picture that a random crop shows.
        flip: mirror every other frame (clip).
        precision: "fp32" or "bf16" (autocast; the weights are float32 either way).
        seed: of the new classifier, and with epoch and video of everything drawn.
    """

    stream: str
    weights: str = "pretrained"
    train_subset: str | None = None
    val_subset: str | None = None
    val_fraction: float | None = None
    group_column: str | None = None
    group_pattern: str | None = None
    multi_label: bool | None = None
    epochs: int = 10
    frames_per_video: int = 3
    batch: int | None = None
    val_rows: int = 25
    optimizer: Optimizer = "adamw"
    lr: float | None = None
    head_lr_factor: float = 10.0
    weight_decay: float = 1e-4
    warmup: float = 0.05
    head_only: bool = False
    batch_norm: BatchNorm = "auto"
    min_area: float = 0.35
    flip: bool = True
    precision: str = "fp32"
    seed: int = 0

    def check(self) -> None:
        """Raises UserError, one line, where a value makes no sense."""
        for name in ("epochs", "frames_per_video", "head_lr_factor"):
            _require(getattr(self, name) > 0, name, "must be positive", self)
        for name in ("batch", "lr"):
            value = getattr(self, name)
            _require(value is None or value > 0, name, "must be positive", self)
        for name in ("val_rows", "weight_decay", "seed"):
            _require(getattr(self, name) >= 0, name, "must not be negative", self)
        _require(0 <= self.warmup < 1, "warmup", "must be at least 0 and below 1", self)
        _require(0 < self.min_area <= 1, "min_area", "must be above 0 and at most 1", self)
        fraction = self.val_fraction
        _require(
            fraction is None or 0 < fraction <= 0.5, "val_fraction", "must be above 0 and at most 0.5", self
        )
        if fraction is not None and self.val_subset is not None:
            raise UserError(
                "validate on a --val-subset or on a --val-fraction of the training videos, not both"
            )

    @property
    def grouping(self) -> Grouping | None:
        """None where nothing says which videos belong together. Raises UserError where both options do."""
        return Grouping.of(self.group_column, self.group_pattern)

    @property
    def learning_rate(self) -> float:
        return LEARNING_RATES[self.optimizer] if self.lr is None else self.lr


def _require(condition: bool, name: str, what: str, choices: Choices) -> None:
    if not condition:
        raise UserError(f"--{name.replace('_', '-')} {what}, not {getattr(choices, name)}")
