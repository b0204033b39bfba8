"""The training loop: epochs over decoded videos, each validated and saved, resumed to the same bits on a CPU."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cache_schema import UserError
from cache_schema.run_folder import write_atomically
from extract.finetune import draws
from extract.finetune.checkpoint import read_checkpoint, write_checkpoint, write_weights
from extract.finetune.choices import Choices
from extract.finetune.collection import Collection, LabelledVideos
from extract.finetune.cutting import TrainingJob, ValidationJob
from extract.finetune.metrics import accuracy, classification_loss, video_means
from extract.finetune.network import Start, Trainee, weights_are_random
from extract.finetune.samples import Job, Sample, decode_in_order, in_batches
from extract.views import PixelArray

CHECKPOINT = "checkpoint.safetensors"
METRICS = "metrics.jsonl"

Epoch = Mapping[str, Any]
"""One line of metrics.jsonl: "epoch" (from 1), "train_loss", "val_loss", "val_rows" and "val_videos" (mAP or
top-1, in [0, 1], of single frames or clips, and of their probabilities averaged over each video), "lr" and
"seconds"."""

_AHEAD_BYTES = 512 << 20
_AHEAD_VIDEOS = 64
_LONG_VIDEO_ROWS = 300  # what is reckoned with where all rows of a video are validated on


@dataclass(frozen=True)
class Machine:
    """What the work is done with; on the CPU none of it changes a result by more than decoders' rounding.

    Attributes:
        workers: processes that decode.
        deadline_s: seconds that a decoder may take without getting a video further.
        decoder: "auto", "decord" or "pyav".
        target: of the workers, for tests.
    """

    device: torch.device
    workers: int
    deadline_s: float = 120.0
    decoder: str = "auto"
    target: str | None = None


@dataclass
class Progress:
    """How far a run is: videos visited, of all visits to come in this call, and their frames or clips."""

    epochs: int
    videos_total: int
    epoch: int = 0
    videos_done: int = 0
    rows_done: int = 0
    loss: float = math.nan
    started_s: float = field(default_factory=time.monotonic)

    @property
    def elapsed_s(self) -> float:
        return max(time.monotonic() - self.started_s, 1e-6)


@dataclass(frozen=True)
class Listener:
    """Who is told how a run goes; by default nobody."""

    note: Callable[[str], None] = lambda line: None
    progress: Callable[[Progress], None] = lambda progress: None
    epoch: Callable[[Epoch], None] = lambda epoch: None


@dataclass(frozen=True)
class History:
    """What a run has come to: its epochs, and which videos could not be read, with the reasons."""

    epochs: list[Epoch]
    failed: dict[str, str]

    @property
    def best(self) -> Epoch:
        """The epoch with the best accuracy per video; of equals that with the least loss, then the first."""
        return max(self.epochs, key=lambda entry: (entry["val_videos"], -entry["val_loss"]))


def best_weights(folder: Path, epoch: Epoch) -> Path:
    """Where the weights of the best epoch so far are while the run is unfinished."""
    return folder / f"best-{epoch['epoch']}.safetensors"


def train(
    choices: Choices,
    collection: Collection,
    start: Start,
    folder: Path,
    machine: Machine,
    listener: Listener,
) -> History:
    """Train, or go on where a checkpoint in the folder stopped.

    After each epoch first the weights, if they are the best so far, then the checkpoint that names them: whenever
    the run is killed, the two agree.

    Raises:
        UserError: the loss is no longer finite, too few videos can be read, or the folder cannot be written to.
    """
    cuda = [machine.device] if machine.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):  # dropout draws from torch's own generators
        return _Training(choices, collection, start, folder, machine, listener).run()


class _Training:
    def __init__(
        self,
        choices: Choices,
        collection: Collection,
        start: Start,
        folder: Path,
        machine: Machine,
        listener: Listener,
    ) -> None:
        self.choices, self.collection, self.folder = choices, collection, folder
        self.machine, self.listener = machine, listener
        self.trainee = start.trainee.to(machine.device)
        frames = self.trainee.view.sampling.kind == "frames"
        if machine.device.type == "cuda":
            layout = torch.channels_last if frames else torch.channels_last_3d
            self.trainee = self.trainee.to(memory_format=layout)
        self.batch = choices.batch or default_batch(clips=not frames)
        norms_frozen = choices.batch_norm == "frozen"
        if choices.batch_norm == "auto":
            norms_frozen = not weights_are_random(start.weights)
        self.norms_frozen = norms_frozen
        self.trainee.train_as(head_only=choices.head_only, norms_frozen=norms_frozen)
        self.optimizer = _optimizer(self.trainee, start.new_head, choices, machine.device)
        self.history = History([], {})
        self.metadata = {"classes": json.dumps(list(collection.classes), ensure_ascii=False)}

    def run(self) -> History:
        checkpoint = self.folder / CHECKPOINT
        if checkpoint.exists():
            state = read_checkpoint(checkpoint, self.trainee.parameters_of, self.optimizer)
            self.history = History(state["history"], state["failed"])
        # Lines that were written after the last checkpoint belong to an epoch that is done again.
        write_atomically(self.folder / METRICS, "".join(map(_line, self.history.epochs)).encode())
        self._clear_weights()
        done = len(self.history.epochs)
        videos = len(self.collection.train) + len(self.collection.validation)
        self.progress = Progress(self.choices.epochs, (self.choices.epochs - done) * videos)
        samples = decode_in_order(
            self._jobs(done),
            workers=self.machine.workers,
            deadline_s=self.machine.deadline_s,
            ahead=self._ahead(),
            target=self.machine.target,
        )
        with closing(samples):
            started_s, train_loss = time.monotonic(), math.nan
            for (epoch, kind), part in itertools.groupby(samples, key=lambda s: (s.job.epoch, type(s.job))):
                self.progress.epoch = epoch + 1
                if kind is TrainingJob:
                    train_loss = self._train(epoch, part)
                else:
                    entry = {"epoch": epoch + 1, "train_loss": train_loss, **self._validate(part)}
                    entry["lr"] = self.choices.learning_rate * self._schedule(
                        (epoch + 1) / self.choices.epochs
                    )
                    entry["seconds"] = round(time.monotonic() - started_s, 3)
                    self._save(entry)
                    started_s = time.monotonic()
        return self.history

    # ---------------------------------------------------------------------------------------------- the videos

    def _jobs(self, first_epoch: int) -> Iterator[Job]:
        """All epochs, so that the decoders begin with one while the one before it is still trained on.

        A video that failed may be asked for once more where that was not known yet; its answer counts for nothing.
        """
        choices, view = self.choices, self.trainee.view
        train, validation = self.collection.train, self.collection.validation
        ids = [video.id for video in train.videos]
        for epoch in range(first_epoch, choices.epochs):
            for index in draws.order(choices.seed, epoch, ids):
                if ids[index] not in self.history.failed:
                    yield TrainingJob(
                        key=0,
                        path=train.videos[index].path,
                        frames_fps=train.videos[index].frames_fps,
                        views=(view,),
                        decoder=self.machine.decoder,
                        epoch=epoch,
                        index=index,
                        video_id=ids[index],
                        seed=choices.seed,
                        rows=choices.frames_per_video,
                        min_area=choices.min_area,
                        flip=choices.flip,
                    )
            for index, video in enumerate(validation.videos):
                if video.id not in self.history.failed:
                    yield ValidationJob(
                        key=0,
                        path=video.path,
                        frames_fps=video.frames_fps,
                        views=(view,),
                        decoder=self.machine.decoder,
                        epoch=epoch,
                        index=index,
                        rows=choices.val_rows,
                    )

    def _ahead(self) -> int:
        view = self.trainee.view
        row_bytes = math.prod(view.row_shape) * view.dtype.itemsize
        rows = max(self.choices.frames_per_video, self.choices.val_rows or _LONG_VIDEO_ROWS)
        return max(self.machine.workers + 1, min(_AHEAD_VIDEOS, _AHEAD_BYTES // (rows * row_bytes)))

    def _read(self, samples: Iterable[Sample], part: LabelledVideos) -> Iterator[tuple[int, PixelArray]]:
        """Index and rows of the videos that could be read. Raises UserError when those are too few."""
        failed = self.history.failed
        for sample in samples:
            video_id = part.videos[sample.job.index].id
            self.progress.videos_done += 1
            if video_id not in failed:
                if sample.pixels is not None:
                    self.progress.rows_done += len(sample.pixels)
                    yield sample.job.index, sample.pixels
                else:
                    failed[video_id] = sample.error or "it has no frames"
                    self.listener.note(f"left out: {video_id}: {failed[video_id]}")
                    self._require_enough(part)
            self.listener.progress(self.progress)

    def _require_enough(self, part: LabelledVideos) -> None:
        lost = [video.id for video in part.videos if video.id in self.history.failed]
        if 2 * len(lost) > len(part):
            what = "train" if part is self.collection.train else "validate"
            raise UserError(
                f"{len(lost)} of the {len(part)} videos to {what} on cannot be read, too many to go on; the "
                f"first: {lost[0]}: {self.history.failed[lost[0]]}"
            )

    # ------------------------------------------------------------------------------------------------ the steps

    def _train(self, epoch: int, samples: Iterable[Sample]) -> float:
        """One epoch; returns the mean loss."""
        chance = draws.generator(self.choices.seed, epoch, "dropout")
        torch.manual_seed(int(chance.integers(2**62)))
        self.trainee.train_as(head_only=self.choices.head_only, norms_frozen=self.norms_frozen)
        part = self.collection.train
        left = sum(video.id not in self.history.failed for video in part.videos)
        expected = left * self.choices.frames_per_video
        targets = self._targets(part)
        total, rows = torch.zeros((), dtype=torch.float64, device=self.machine.device), 0
        for pixels, owners in in_batches(self._read(samples, part), self.batch):
            # A few rows are no measure of the loss; but where there are no more, they must do.
            if rows and 2 * len(owners) < self.batch:
                continue
            self._set_rates((epoch + min(1.0, (rows + len(owners) / 2) / expected)) / self.choices.epochs)
            with self._autocast():
                logits = self.trainee(self._moved(pixels))
            loss = classification_loss(logits.float(), targets[owners].to(self.machine.device)).mean()
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            try:
                self.optimizer.step()
            except RuntimeError as error:
                if "overflow" not in str(error):
                    raise
                raise self._diverged(epoch + 1) from error
            total += loss.detach().double() * len(owners)
            rows += len(owners)
            if self.machine.device.type == "cpu":  # elsewhere asking would mean waiting for it
                self.progress.loss = float(total) / rows
        self.progress.loss = float(total) / rows
        return self.progress.loss

    @torch.inference_mode()
    def _validate(self, samples: Iterable[Sample]) -> dict[str, float]:
        """Loss and accuracy of single rows and of whole videos, by those that can be read."""
        self.trainee.eval()
        part, several = self.collection.validation, self.collection.multi_label
        logits, owners = [], []
        for pixels, theirs in in_batches(self._read(samples, part), self.batch):
            with self._autocast():
                logits.append(self.trainee(self._moved(pixels)).float().cpu())
            owners += theirs
        rows = torch.cat(logits)
        videos, inverse = np.unique(owners, return_inverse=True)
        places = torch.from_numpy(inverse)
        losses = classification_loss(rows, self._targets(part)[owners])
        probabilities = rows.sigmoid() if several else rows.softmax(dim=1)
        means = video_means(probabilities, places, len(videos))
        return {
            "val_loss": float(video_means(losses, places, len(videos)).mean()),
            "val_rows": accuracy(probabilities, part.labels[owners], multi_label=several),
            "val_videos": accuracy(means, part.labels[videos], multi_label=several),
        }

    def _targets(self, part: LabelledVideos) -> Tensor:
        if self.collection.multi_label:
            return torch.from_numpy(part.labels.astype(np.float32))
        return torch.from_numpy(part.first)

    def _moved(self, pixels: PixelArray) -> Tensor:
        moved = torch.from_numpy(pixels)
        if self.machine.device.type == "cuda":
            moved = moved.pin_memory()
        return moved.to(self.machine.device, non_blocking=True)

    def _autocast(self) -> torch.autocast:
        bf16 = self.choices.precision == "bf16"
        return torch.autocast(self.machine.device.type, dtype=torch.bfloat16, enabled=bf16)

    def _set_rates(self, progress: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = group["highest_lr"] * self._schedule(progress)

    def _schedule(self, progress: float) -> float:
        """Share of the highest learning rate: a linear rise, then a cosine down to 0."""
        warmup = self.choices.warmup
        if progress < warmup:
            return progress / warmup
        return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))

    # ----------------------------------------------------------------------------------------------- the folder

    def _diverged(self, epoch: int) -> UserError:
        return UserError(f"{self.folder}: in epoch {epoch} the loss is not finite any more; try a lower --lr")

    def _save(self, entry: Epoch) -> None:
        if not all(math.isfinite(entry[name]) for name in ("train_loss", "val_loss")):
            raise self._diverged(entry["epoch"])
        self.history.epochs.append(entry)
        if self.history.best is entry:
            write_weights(best_weights(self.folder, entry), self.trainee.parameters_of, self.metadata)
        state = {"history": self.history.epochs, "failed": self.history.failed}
        write_checkpoint(self.folder / CHECKPOINT, self.trainee.parameters_of, self.optimizer, state)
        self._clear_weights()
        write_atomically(self.folder / METRICS, "".join(map(_line, self.history.epochs)).encode())
        self.listener.epoch(entry)

    def _clear_weights(self) -> None:
        """Delete weights that are the best no more, or of an epoch without a checkpoint."""
        keep = best_weights(self.folder, self.history.best) if self.history.epochs else None
        for path in self.folder.glob("best-*.safetensors"):
            if path != keep:
                path.unlink()


def default_batch(*, clips: bool) -> int:
    """Rows of a step: as many as a GPU of 16 GB has room for with the larger of the built-in networks."""
    return 8 if clips else 32


def _optimizer(
    trainee: Trainee, new_head: bool, choices: Choices, device: torch.device
) -> torch.optim.Optimizer:
    """Groups by whether they decay (weights do, biases and scales do not) and by their learning rate."""
    groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in trainee.parameters_of.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((name in trainee.head and new_head, parameter.ndim > 1), []).append(parameter)
    described = [
        {
            "params": parameters,
            "highest_lr": choices.learning_rate * (choices.head_lr_factor if new else 1.0),
            "weight_decay": choices.weight_decay if decays else 0.0,
        }
        for (new, decays), parameters in groups.items()
    ]
    # On the CPU one implementation everywhere, so that a resumed run computes what an undisturbed one does.
    how: dict[str, Any] = {"fused": True} if device.type == "cuda" else {"foreach": False}
    if choices.optimizer == "adamw":
        return torch.optim.AdamW(described, lr=choices.learning_rate, **how)
    return torch.optim.SGD(described, lr=choices.learning_rate, momentum=0.9, **how)


def _line(epoch: Epoch) -> str:
    return json.dumps(epoch) + "\n"
