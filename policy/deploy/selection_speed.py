"""Seconds per video of choosing among models, with all of them in memory or loaded when chosen (Fig. 4b).

Conditional Model Selection, Sec. 4.2, "Latency impact": with batches of 32 on one GPU, once with the pool kept in
memory, once loading the model at every selection. The paper does not define a load. Here it reads the weights from
a file in the system's page cache into newly allocated memory of the device, which is freed when the next model
comes. The modules of all networks are built once and stay, without weights. Nothing overlaps: a load and a forward
pass add up.

As in `policy.deploy.speed`, all parts are measured in turn within one run, without decoding, resizing and copies
of pixels to the device. A row costs its share of a full batch, however few videos of one batch choose a model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from cache_schema import StreamSpec, UserError
from policy.deploy.speed import build, forward_pass, request_of
from policy.deploy.timing import Machine, medians
from policy.selection.curve import SelectionCurve
from policy.selection.pool import BoolArray, FloatArray, contains

BATCH = 32
"""Rows of a model, or videos, that are computed together (Sec. 4.2, Latency impact)."""
REPEATS = 5

Loading = Literal["never", "per batch", "per video"]
"""When a chosen model is loaded: never, because all are in memory; once for each batch of videos in which it is
chosen; or, "at every selection", once for each video that it is chosen for, as if videos came one by one."""


@dataclass(frozen=True)
class ModelTime:
    """Seconds of a model of the pool.

    Attributes:
        row_s: for a row (a frame or a clip) in a full batch, in memory; None where it cannot be timed.
        load_s: to bring its weights onto the device; None where it cannot be timed.
        reason: why there is no time; empty where there is one.
    """

    stream: str
    row_s: float | None
    load_s: float | None
    reason: str = ""


@dataclass(frozen=True)
class SelectionTimes:
    """Seconds that were measured together.

    Attributes:
        models: by stream.
        selector_s: of the selector's own network, for a video in a full batch.
        batch: rows, or videos, computed together.
    """

    models: Mapping[str, ModelTime]
    selector_s: float
    machine: Machine
    batch: int

    def per_video(
        self,
        curve: SelectionCurve,
        rows: Mapping[str, npt.NDArray[np.integer]],
        *,
        loading: Loading = "never",
    ) -> FloatArray | None:
        """Seconds (P, M) of a curve's points for its videos; None where a model that ran has no time.

        A model that at each point runs for all videos or for none is not chosen video by video, and stays in
        memory: the selector's input model does, and so do the models of an ensemble. With "per batch" a batch is
        as many videos as were measured together, in the table's order, and those of a batch for which a model runs
        share its load equally. A curve that has an overhead is charged the selector's network too.

        Args:
            rows: by stream, (M,): how many rows of each video a model looks at. A model outside the pool, which
                the selector looks at, runs for all videos.
        """
        selects = bool(curve.overhead.any())
        seconds = np.full(curve.ran.shape, self.selector_s if selects else 0.0)
        pool = curve.table.models
        works = [(name, contains(curve.ran, n)) for n, name in enumerate(pool)]
        if selects:
            everywhere = np.ones(curve.ran.shape, np.bool_)
            works += [(name, everywhere) for name in rows if name not in pool]
        for name, ran in works:
            if not ran.any():
                continue
            time = self.models[name]
            if time.row_s is None or time.load_s is None:
                return None
            seconds += ran * (rows[name] * time.row_s)
            chosen = (ran.any(axis=1) & ~ran.all(axis=1)).any()
            if loading != "never" and chosen:
                seconds += time.load_s * (ran if loading == "per video" else self._shares(ran))
        return seconds

    def _shares(self, ran: BoolArray) -> FloatArray:
        """(P, M): of one load for each batch with a video for which a model ran (P, M)."""
        batch_of = np.arange(ran.shape[1]) // self.batch
        counts = np.add.reduceat(ran, np.arange(0, ran.shape[1], self.batch), axis=1, dtype=np.int64)
        return np.asarray(ran / np.maximum(counts, 1)[:, batch_of])


class WeightsFile:
    """A network's weights in a file, from which they are loaded onto the network's device.

    Its modules stay as they are. `unload` frees the memory of their tensors, after which the network cannot run
    until `load` has allocated memory and filled it with the same values, in the same strides. Buffers that are not
    persistent are left alone.
    """

    def __init__(self, network: nn.Module, path: Path) -> None:
        self._path = path
        self._tensors: dict[str, torch.Tensor] = network.state_dict(keep_vars=True)
        self._shapes = {name: torch.empty_like(t, device="meta") for name, t in self._tensors.items()}
        # Files hold contiguous tensors that share no memory.
        plain = torch.contiguous_format
        save_file(
            {name: t.detach().cpu().clone(memory_format=plain) for name, t in self._tensors.items()}, path
        )

    def unload(self) -> None:
        for tensor in self._tensors.values():
            tensor.data = tensor.data.new_empty(0)

    def load(self) -> None:
        with safe_open(self._path, framework="pt") as file:
            for name, tensor in self._tensors.items():
                shape = self._shapes[name]
                # Strides by number: `empty_like` takes others where an axis has length 1, and convolutions choose
                # their algorithm by the strides.
                memory = torch.empty_strided(
                    shape.shape, shape.stride(), dtype=shape.dtype, device=tensor.device
                )
                # Reads through a memory map: the data are read by the copy, on a CPU too.
                tensor.data = memory.copy_(file.get_tensor(name))

    def reload(self) -> None:
        """As when a chosen model replaces another of the same size."""
        self.unload()
        self.load()


def measure_selection(
    models: Sequence[StreamSpec],
    selector: nn.Module | None,
    inputs: int,
    *,
    device: torch.device,
    batch: int = BATCH,
    repeats: int = REPEATS,
    report: Callable[[str], None] = lambda what: None,
) -> SelectionTimes:
    """Time the models of a pool, loading them, and a selector's network, all in turn.

    A model that `extract` cannot build (whose features or scores were imported) has no time.

    Args:
        models: the pool's, and the selector's input model where it is outside.
        selector: (B, `inputs`) to anything, moved to the device; None: there is no selector.
        batch: rows of a model, or videos, that are computed together.
        repeats: how often each is timed; the median counts. What takes more than 10 s is timed once.
        report: called with what is timed next.
    """
    works: dict[tuple[str, str], Callable[[], object]] = {}
    reasons: dict[str, str] = {}
    with TemporaryDirectory(prefix="thriftvid-") as folder:
        for place, spec in enumerate(models):
            try:
                backbone = build(request_of(spec), device)
            except UserError as error:
                reasons[spec.name] = f"{spec.name}: {error}"
                continue
            works["row", spec.name] = forward_pass(backbone, batch)
            file = WeightsFile(backbone.parameters, Path(folder) / f"{place}.safetensors")
            works["load", spec.name] = file.reload
        if selector is not None:
            network, zeros = selector.to(device).eval(), torch.zeros(batch, inputs, device=device)
            works["selector", ""] = torch.inference_mode()(lambda: network(zeros))
        timed = [spec.name for spec in models if spec.name not in reasons]
        if timed:
            report(f"timing {', '.join(timed)} in memory and loaded")
        seconds = medians(works, repeats, device)
        works.clear()  # and with them the models
    times = {
        spec.name: ModelTime(spec.name, None, None, reasons[spec.name])
        if spec.name in reasons
        else ModelTime(spec.name, seconds["row", spec.name] / batch, seconds["load", spec.name])
        for spec in models
    }
    return SelectionTimes(times, seconds.get(("selector", ""), 0.0) / batch, Machine.of(device), batch)
