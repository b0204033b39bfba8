"""A backbone as a network for other runtimes: from pixels to features and class scores, the scaling inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import torch
from torch import Tensor, nn

from cache_schema import StreamSpec, UserError
from policy.deploy.network import Backbones
from policy.session import Graph


def backbone_graph(backbones: Backbones, stream: str, spec: StreamSpec) -> Graph:
    """The graph "backbone-STREAM", in float32, of any number of rows.

    Raises:
        UserError: as `Backbones.network`, or a network of its own estimates the stream's optical flow.
    """
    network, view = backbones.network(stream), backbones.views[stream]
    if network.flow is not None:
        raise UserError(
            f"stream {stream!r}: its optical flow comes from another network, which is not exported"
        )
    shape = (2, *view.row_shape)
    flow = spec.preprocessing.flow
    pixels = torch.zeros(shape) if flow else torch.zeros(shape, dtype=torch.uint8)
    outputs = ("features", "scores") if network.num_classes else ("features",)
    facts: Mapping[str, object] = {
        "stream": stream,
        "backbone": spec.backbone,
        "weights_digest": spec.weights_digest,
        "pixels": "float32 flow in pixels, x and y last" if flow else "uint8, RGB last",
        "scaling": "inside",
        **{name: value for name, value in asdict(spec.preprocessing).items() if value is not None},
        "sampling": asdict(spec.sampling),
        "score_classes": spec.classes,
    }
    return Graph(
        f"backbone-{stream}",
        _FromPixels(network.model, spec),
        {"pixels": pixels},
        outputs,
        facts,
        rows=True,
        row_outputs=True,
    )


class _FromPixels(nn.Module):
    """What `extract.backbones.backbone.Backbone` computes."""

    def __init__(self, model: nn.Module, spec: StreamSpec) -> None:
        from extract.flow import BOUND_PX

        super().__init__()
        self.model, self.flow, self.bound_px = model, spec.preprocessing.flow is not None, BOUND_PX
        self.register_buffer("mean", torch.tensor(spec.preprocessing.mean))
        self.register_buffer("std", torch.tensor(spec.preprocessing.std))

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        if self.flow:
            scaled = pixels.clamp(-self.bound_px, self.bound_px) / self.bound_px
        else:
            scaled = (pixels.float() / 255 - self.get_buffer("mean")) / self.get_buffer("std")
        features, scores = self.model(scaled.movedim(-1, 1))
        return (features,) if scores is None else (features, scores)
