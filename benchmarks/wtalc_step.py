"""How quick is a training step of W-TALC?

    OMP_NUM_THREADS=2 python -m benchmarks.wtalc_step
    python -m benchmarks.wtalc_step --quick        # a smoke test of seconds

One step is dropout, forward, both losses and backward on a batch of 10 videos, 2048 features, 3 pairs, 20 classes.
It is timed in three ways:

- plain: a transcription that pads every video to the longest and goes over videos (top k) and pairs (softmax, high
  and low features of all classes) in Python;
- ours, in float32 and with the hidden layer's products in bfloat16.

All have the same weights and videos, and run in turn. A ratio is that of the medians, by the clock and, in
brackets, of the processor, which tells more where others are at work. In "full" batches all videos have 750 clips,
so that padding costs nothing; in "mixed" ones from 20 to 750. "products" is the hidden layer alone, forward and
backward in float32, which any such step has. Hours of a training as released are processor seconds over threads,
the least that it takes on a machine with nothing else to do.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import click
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.tables import as_written, load, machine, markdown, spent_in_turn
from policy.config import Precision
from policy.localization.loss import Clips, co_activity_loss, mil_loss, padded
from policy.localization.network import WTALCNetwork, left_out

PAIRS, CLASSES, MARGIN, MIL_WEIGHT = 3, 20, 0.5, 0.5
STEPS = 100_000
"""Of a training as released."""
TICK_S = 0.01
"""Of the processor's clock."""


class Sizes(NamedTuple):
    videos: int = 10
    clips: int = 750
    width: int = 2048


QUICK = Sizes(8, 40, 32)


class Setting:
    """Weights and videos for all ways alike.

    Args:
        mixed: videos of different lengths.
    """

    def __init__(self, sizes: Sizes, *, mixed: bool, seed: int = 0) -> None:
        torch.manual_seed(seed)
        random = np.random.default_rng(seed)
        self.seed, self.sizes = seed, sizes
        lengths = (
            random.integers(20, sizes.clips + 1, sizes.videos) if mixed else [sizes.clips] * sizes.videos
        )
        self.features = [torch.randn(int(length), sizes.width).half() for length in lengths]
        self.labels = torch.zeros(sizes.videos, CLASSES)
        for video in range(sizes.videos):
            self.labels[video, [video // 2, 15]] = 1  # two classes, both shared within a pair
        self.models = {precision: self._model(precision) for precision in ("float32", "bfloat16")}
        self.models["bfloat16"].load_state_dict(self.models["float32"].state_dict())
        self.steps = torch.cat([torch.arange(len(rows)) for rows in self.features])
        self.lengths = torch.tensor([len(rows) for rows in self.features])
        self.of_video = torch.arange(sizes.videos).repeat_interleave(self.lengths)

    def _model(self, precision: Precision) -> WTALCNetwork:
        return WTALCNetwork(self.sizes.width, self.sizes.width, CLASSES, precision=precision).train()

    def ours(self, precision: Precision) -> Tensor:
        """The loss, after its gradients."""
        model, clips = self.models[precision], Clips(self.of_video, self.steps, self.lengths)
        model.zero_grad(set_to_none=True)
        hidden, logits = model(torch.cat(self.features), torch.Generator().manual_seed(self.seed))
        by_video = padded(logits, clips)
        mil = mil_loss(by_video, self.lengths, self.labels)
        loss = MIL_WEIGHT * mil + (1 - MIL_WEIGHT) * co_activity_loss(
            hidden, by_video, clips, self.labels, PAIRS, MARGIN
        )
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def plain(self, mask: Tensor | None = None) -> Tensor:
        """The same.

        Args:
            mask: (videos, longest, width) of dropout; by default drawn.
        """
        model = self.models["float32"]
        model.zero_grad(set_to_none=True)
        longest = max(map(len, self.features))
        rows = torch.zeros(len(self.features), longest, self.sizes.width)
        for video, features in enumerate(self.features):
            rows[video, : len(features)] = features.float()
        hidden = functional.relu(model.hidden(rows))
        hidden = functional.dropout(hidden, model.dropout) if mask is None else hidden * mask
        logits = model.classifier(hidden)
        lengths = self.lengths.tolist()
        means = []
        for video, length in enumerate(lengths):
            k = -(-length // 8)
            means.append(logits[video, :length].topk(k, dim=0).values.mean(0))
        shares = self.labels / self.labels.sum(1, keepdim=True)
        mil = -(shares * torch.stack(means).log_softmax(1)).sum(1).mean()
        total, count = torch.zeros(()), torch.zeros(())
        for first in range(0, 2 * PAIRS, 2):
            high, low = [], []
            for video in (first, first + 1):
                clips, length = hidden[video, : lengths[video]], lengths[video]
                active = logits[video, :length].softmax(0)
                high.append(clips.T @ active)
                low.append(clips.T @ ((1 - active) / (length - 1)))
            distances = [
                1 - functional.cosine_similarity(one, other, dim=0)
                for one, other in ((high[0], high[1]), (high[0], low[1]), (high[1], low[0]))
            ]
            shared = self.labels[first] * self.labels[first + 1]
            for apart in distances[1:]:
                total = total + 0.5 * ((distances[0] - apart + MARGIN).relu() * shared).sum()
            count = count + shared.sum()
        loss = MIL_WEIGHT * mil + (1 - MIL_WEIGHT) * total / count
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def products(self) -> None:
        """The hidden layer, forward and backward."""
        layer = self.models["float32"].hidden
        layer.zero_grad(set_to_none=True)
        out = functional.linear(torch.cat(self.features).float(), layer.weight, layer.bias)
        out.backward(out)  # type: ignore[no-untyped-call]

    def difference(self, precision: Precision) -> list[str]:
        """Cells of the table: how far loss and gradients are from those of the transcription, dropout alike."""
        model = self.models[precision]
        loss = self.ours(precision)
        gradients = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        like = torch.empty(len(self.steps), self.sizes.width)
        dropped = left_out(like, model.dropout, torch.Generator().manual_seed(self.seed))
        mask = torch.zeros(len(self.features), int(self.lengths.max()), self.sizes.width)
        mask[self.of_video, self.steps] = (~dropped).float() / (1 - model.dropout)
        expected = self.plain(mask)
        theirs = torch.cat(
            [p.grad.flatten() for p in self.models["float32"].parameters() if p.grad is not None]
        )
        return [
            f"{float(abs(loss - expected) / expected):.0e}",
            f"{float((gradients - theirs).norm() / theirs.norm()):.0e}",
        ]


@click.command(help=as_written(__doc__))
@click.option("--repeats", default=5, show_default=True, help="Timed runs of each.")
@click.option("--quick", is_flag=True, help="Tiny videos: do the programs run, and do they agree?")
def main(*, repeats: int, quick: bool) -> None:
    sizes = QUICK if quick else Sizes()
    times, agreement = [], []
    for name, mixed in (("full", False), ("mixed", True)):
        setting = Setting(sizes, mixed=mixed)
        agreement += [[f"{name}, {p}", *setting.difference(p)] for p in ("float32", "bfloat16")]
        works: dict[str, Callable[[], object]] = {
            "plain": setting.plain,
            "float32": partial(setting.ours, "float32"),
            "bfloat16": partial(setting.ours, "bfloat16"),
            "products": setting.products,
        }
        spent = spent_in_turn(works, repeats)
        plain = spent["plain"]
        for precision in ("float32", "bfloat16"):
            ours = spent[precision]
            ratios = plain.clock_s / ours.clock_s, plain.processor_s / max(ours.processor_s, TICK_S)
            hours = STEPS * ours.processor_s / torch.get_num_threads() / 3600
            shown = [f"{one.clock_s:.3f} ({one.processor_s:.3f})" for one in (plain, ours, spent["products"])]
            cells = [f"{ratios[0]:.2f} ({ratios[1]:.2f})", f"{hours:.1f}", load()]
            times.append([f"{name}, {precision}", *shown, *cells])
    click.echo(
        f"{sizes.videos} videos of up to {sizes.clips} clips of {sizes.width} features; medians of {repeats}; "
        f"{torch.get_num_threads()} threads; {machine()}\n"
    )
    header = [
        "batch, ours in",
        "plain s",
        "ours s",
        "products s",
        "plain / ours",
        f"{STEPS:,} steps h",
        "load",
    ]
    click.echo(markdown(header, times))
    click.echo("\nagainst the transcription, relative:\n")
    click.echo(markdown(["batch, ours in", "loss", "all gradients"], agreement))


if __name__ == "__main__":
    main()
