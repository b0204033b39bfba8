"""The backbones of a run, each built when rows of its stream are first wanted."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from cache_schema import StreamSpec, UserError
from cache_schema.names import did_you_mean
from cache_schema.schema import differences
from policy.deploy.session import spans_of
from policy.deploy.speed import request_of

if TYPE_CHECKING:
    from extract.backbones import StreamRequest
    from extract.backbones.backbone import Backbone
    from extract.backbones.network import Network
    from extract.views import PixelArray, View

FloatRows = npt.NDArray[np.float32]

_FROM_TRANSFORMERS = "transformers:"


class CannotRunError(UserError):
    """A stream is of a kind that cannot be computed from raw video."""


class Backbones:
    """From pixels of a stream's rows to features and class scores.

    Attributes:
        views: by stream, what its rows show of a video.
        seconds: by stream, spent in forward passes; building is not counted.
        rows: by stream, how many were computed.

    Args:
        streams: of the run.
        weights: by stream, as --weights of batch-extract; for the others what the run's stream was extracted with.
        precision: "fp32" or "bf16"; None: of each stream that of its extraction.
        batch: frames in a forward pass; of clips, as many as have that many frames, at least one.
        note: called with what the user should know.

    Raises:
        CannotRunError: a stream was imported or is of an unknown network.
        UserError: its weights were a file and none is given, or weights are given for no stream.
    """

    def __init__(
        self,
        streams: Mapping[str, StreamSpec],
        *,
        weights: Mapping[str, Path | str],
        device: torch.device,
        precision: str | None = None,
        batch: int = 16,
        note: Callable[[str], None] = lambda line: None,
    ) -> None:
        from extract.views import View

        self._streams, self._device, self._precision = streams, device, precision
        self._batch, self._note = batch, note
        if unknown := [name for name in weights if name not in streams]:
            known = ", ".join(streams) + did_you_mean(unknown[0], streams)
            raise UserError(f"weights for {unknown[0]!r}, which is none of the streams: {known}")
        self._requests: dict[str, StreamRequest] = {}
        self._weights: dict[str, str] = {}
        for name, spec in streams.items():
            try:
                spans_of(spec, 0.0)
            except UserError as error:
                raise CannotRunError(str(error)) from error
            try:
                self._requests[name] = request_of(spec)
            except UserError as error:
                raise CannotRunError(
                    f"stream {name!r}: its backbone, {spec.backbone!r}, is none that can be built here: "
                    "raw video needs streams that batch-extract has extracted"
                ) from error
            self._weights[name] = str(weights.get(name) or _usual_weights(name, spec))
            if spec.backbone.startswith(_FROM_TRANSFORMERS) and Path(self._weights[name]).is_dir():
                self._requests[name] = replace(self._requests[name], folder=self._weights[name])
                self._weights[name] = "pretrained"
        self.views: Mapping[str, View] = {
            name: View(spec.sampling, spec.preprocessing) for name, spec in streams.items()
        }
        self._built: dict[str, Backbone] = {}
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.rows: Counter[str] = Counter()

    def use(self, built: Mapping[str, Backbone]) -> None:
        """Take backbones that are built already instead of building them."""
        self._built |= built

    def built(self, stream: str) -> Backbone:
        """A stream's backbone. Raises UserError where it cannot be built, or is not the one of the run."""
        if stream not in self._built:
            self._built[stream] = self._build(stream)
        return self._built[stream]

    def batch_rows(self, stream: str) -> int:
        """How many rows of a stream are computed together at most."""
        return max(1, self._batch // self._streams[stream].sampling.frames)

    def __call__(self, stream: str, pixels: Sequence[PixelArray]) -> list[tuple[FloatRows, FloatRows | None]]:
        """Compute rows of several videos together.

        Args:
            pixels: of each video (n, *View.row_shape).

        Returns:
            Of each video features (n, D) and class scores (n, C), None where the backbone has no classifier.

        Raises:
            UserError: it cannot be built, its weights are not those of the run, or the batch does not fit into the
                GPU's memory.
        """
        backbone = self.built(stream)
        started_s = time.perf_counter()
        try:
            features, scores = backbone(torch.from_numpy(np.concatenate(pixels)))
            features = features.cpu()  # a GPU is done then
            scores = None if scores is None else scores.cpu()
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"{sum(map(len, pixels))} rows of {stream} do not fit into the GPU's memory: use a smaller --batch"
            ) from error
        self.seconds[stream] += time.perf_counter() - started_s
        self.rows[stream] += len(features)
        stops = np.cumsum([len(part) for part in pixels])[:-1]
        split = np.split(features.numpy(), stops)
        if scores is None:
            return [(part, None) for part in split]
        return list(zip(split, np.split(scores.numpy(), stops), strict=True))

    def network(self, stream: str) -> Network:
        """The network of a stream as its family builds it, on the CPU: for other runtimes. Raises as `built`."""
        from extract.backbones.backbone import build_network, stream_of

        request, weights = self._requests[stream], self._weights[stream]
        network = build_network(request, weights)
        self._check(stream, stream_of(request, network, precision="fp32"))
        return network

    def _build(self, stream: str) -> Backbone:
        from extract.backbones.backbone import Backbone

        expected = self._streams[stream].precision
        backbone = Backbone(
            self._requests[stream],
            weights=self._weights[stream],
            device=self._device,
            precision=self._precision or expected or "fp32",
        )
        self._check(stream, backbone.spec)
        if expected and backbone.spec.precision != expected:
            self._note(
                f"{stream} is computed in {backbone.spec.precision}; the policy was trained on {expected}: "
                "answers may differ a little"
            )
        return backbone

    def _check(self, stream: str, built: StreamSpec) -> None:
        """Raises UserError where it is not the stream of the run."""
        spec = self._streams[stream]
        if built.weights_digest != spec.weights_digest:
            raise UserError(
                f"stream {stream!r}: weights {self._weights[stream]} are not those that the policy was trained "
                f"on: their digest is {built.weights_digest}, not {spec.weights_digest}"
            )
        # The digest tells weights apart, whatever they are called; of the rest these change no row.
        comparable = replace(
            built,
            weights=spec.weights,
            classes=spec.classes,
            macs_per_row=spec.macs_per_row,
            precision=spec.precision,
        )
        if comparable != spec:
            raise UserError(
                f"stream {stream!r}: the backbone is not the one that the policy was trained on: "
                f"{differences(spec, comparable)}; use the version of timm that extracted it"
            )


def _usual_weights(name: str, spec: StreamSpec) -> str:
    """What --weights says to have a stream's weights again."""
    kind = spec.weights.partition(":")[0]
    if kind == "random":
        return spec.weights
    folder = Path(spec.backbone.removeprefix(_FROM_TRANSFORMERS))
    if spec.backbone.startswith(_FROM_TRANSFORMERS) and folder.is_absolute() and not folder.is_dir():
        raise UserError(
            f"stream {name!r}: the folder of its network is not at {folder} any more: say where it is, by "
            f"--weights {name}=FOLDER or weights={{{name!r}: FOLDER}}"
        )
    if kind == "pretrained":
        return kind
    raise UserError(
        f"stream {name!r} was extracted with weights from a file (digest {spec.weights_digest[:12]}…): say where "
        f"it is, by --weights {name}=FILE or weights={{{name!r}: FILE}}"
    )


def choose_precision(name: str, device: torch.device, warn: Callable[[str], None]) -> str:
    """As `extract.devices.choose_precision`, for commands, which may not import that."""
    from extract.devices import choose_precision as choose

    return choose(name, device, warn)
