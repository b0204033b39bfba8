"""A finished run, opened: what its policy needs, and the ways to put it to work."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from cache_schema import StreamSpec
from cache_schema.command import count
from policy.deploy.camera import Camera
from policy.deploy.export import export_onnx
from policy.deploy.session import open_session
from policy.registry import METHODS
from policy.runs import read_config
from policy.session import Session


def open_run(folder: Path | str) -> TrainedPolicy:
    """The trained policy in a run folder of train-policy. Neither the cache nor the labels are needed.

    Raises:
        UserError: the folder holds no finished run, or that of a method without a session.
    """
    return TrainedPolicy(Path(folder))


class TrainedPolicy:
    """A policy that was trained, ready for videos that are in no cache. Printed, it says what it needs.

    Attributes:
        title: of its method.
        streams: by name, what it may need rows of: backbone, weights, preprocessing and sampling.
        classes: names of the C classes.
    """

    def __init__(self, folder: Path) -> None:
        session = open_session(folder)
        self.folder, self.title = folder, METHODS[read_config(folder).method].title
        self.streams, self.classes = session.streams, session.classes

    def session(self, *, device: torch.device | str = "cpu") -> Session:
        """A session, for one who computes the rows of the streams: one per video that is under way."""
        return open_session(self.folder, device=torch.device(device))

    def camera(
        self,
        *,
        weights: Mapping[str, Path | str] | None = None,
        duration_s: float | None = None,
        device: torch.device | str = "cpu",
    ) -> Camera:
        """A session that takes frames, and runs the backbones where the policy wants them.

        Args:
            weights: by stream, "pretrained", "random:SEED" or a file, as batch-extract takes them. Needed of
                streams that were extracted with weights of a file; by default those of the extraction.
            duration_s: of each video, for policies that look at a whole one before they choose (all but
                LiteEval on streams of frames).
            device: of the backbones and of the policy's networks.

        Raises:
            UserError: a stream was imported, weights are missing or name an unknown stream, or the policy needs
                the duration.
        """
        return Camera(self.session(device=device), weights or {}, duration_s, torch.device(device))

    def export_onnx(
        self, out: Path | str, *, backbones: Mapping[str, Path | str | None] | None = None
    ) -> list[Path]:
        """The policy's networks as ONNX, as :func:`policy.deploy.export.export_onnx` writes them."""
        return export_onnx(self.folder, out, backbones=backbones)

    def __repr__(self) -> str:
        return "\n".join(
            [
                f"{self.title}: {count(len(self.classes), 'classes')}",
                *(f"  {_needs(s)}" for s in self.streams.values()),
            ]
        )


def _needs(spec: StreamSpec) -> str:
    """What rows of a stream are computed from, in one line."""
    view, sampling = spec.preprocessing, spec.sampling
    if not sampling.frames:
        return f"{spec.name}: imported, {count(spec.feature_dim, 'features')}"
    rows = {
        "frames": f"{sampling.fps:g} {'frame' if sampling.fps == 1 else 'frames'} a second",
        "snippets": f"{sampling.rows_per_s:g} clips a second, of {sampling.frames} frames",
        "clips": f"{sampling.clips} clips a video, of {sampling.frames} frames",
        "dense": f"clips of {sampling.frames} frames end to end at {sampling.fps:g} a second",
    }[sampling.kind]
    flow = "" if view.flow is None else f", optical flow ({view.flow})"
    return (
        f"{spec.name}: {rows}, resized to {view.resize} pixels ({view.interpolation}), "
        f"{view.crop}×{view.crop} cut out{flow}; {spec.backbone} with weights {spec.weights}"
    )
