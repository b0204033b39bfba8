"""How does the time that LiteEval takes to evaluate fall with its usage?

    python -m benchmarks.liteeval_evaluation
    python -m benchmarks.liteeval_evaluation --out curve.png
    python -m benchmarks.liteeval_evaluation --quick        # a smoke test of seconds

Evaluates one batch with the `released` recipe's network (2048/512 units, projections). Its gates are given, open
at random on the share of steps in question, and used as its own would be: a step knows only the past. The ratio is
to usage 100 %, where every step runs the fine network; runs take turns, and times are medians. "multiply-
accumulates" is the same ratio of the networks' counted work. Beside the times stand plain `nn.LSTM`s of the same
sizes, which compute every step and know no gate.

At 0 % the coarse network and the gate are left. Backbones are not run here: they would add to both.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import click
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from benchmarks.liteeval_step import CLASSES, QUICK, Sizes
from benchmarks.tables import as_written, in_turn, load, machine, markdown
from policy.liteeval.model import LiteEval, LiteEvalOutput

USAGES = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)


@torch.no_grad()
def evaluated(model: LiteEval, coarse: PackedSequence, fine: PackedSequence, gates: Tensor) -> LiteEvalOutput:
    output: LiteEvalOutput = model(coarse, fine, gates=gates)
    return output


@torch.no_grad()
def lstms(networks: list[tuple[nn.LSTM, Tensor]]) -> None:
    for network, inputs in networks:
        network(inputs)


def packed(sizes: Sizes, dim: int) -> PackedSequence:
    """Features of videos that all have the full length."""
    return PackedSequence(
        torch.randn(sizes.steps * sizes.batch, dim), torch.full((sizes.steps,), sizes.batch)
    )


@click.command(help=as_written(__doc__))
@click.option("--repeats", default=5, show_default=True, help="Timed runs of each.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Draw the curve here (PNG).")
@click.option("--quick", is_flag=True, help="Tiny networks: does the program run?")
def main(*, repeats: int, out: Path | None, quick: bool) -> None:
    torch.manual_seed(0)
    sizes = QUICK if quick else Sizes()
    fields = dataclasses.asdict(sizes)
    shape = {name: size for name, size in fields.items() if name not in ("steps", "batch")}
    model = LiteEval(num_classes=CLASSES, gate_state="hidden+cell", **shape).eval()
    coarse, fine = packed(sizes, sizes.coarse_dim), packed(sizes, sizes.fine_dim)
    steps = sizes.steps * sizes.batch
    # The steps of a lower usage are among those of a higher one.
    order = torch.randperm(steps).argsort()
    works: dict[str, Callable[[], object]] = {
        f"{usage:.0%}": functools.partial(evaluated, model, coarse, fine, (order < usage * steps).float())
        for usage in USAGES
    }
    works["two nn.LSTMs"] = functools.partial(
        lstms,
        [
            (nn.LSTM(dim, hidden), torch.randn(sizes.steps, sizes.batch, dim))
            for dim, hidden in (
                (sizes.coarse_projection, sizes.coarse_hidden),
                (sizes.coarse_projection + sizes.fine_projection, sizes.fine_hidden),
            )
        ],
    )
    in_turn(works, 1)  # the first time only warms up
    times = in_turn(works, repeats)
    whole = times["100%"]
    share = {
        f"{usage:.0%}": model.cost.total(steps=steps, opened=usage * steps, predictions=sizes.batch)
        / model.cost.total(steps=steps, opened=steps, predictions=sizes.batch)
        for usage in USAGES
    }
    rows = [
        [
            name,
            f"{seconds:.3f}",
            f"{seconds / whole:.3f}",
            f"{share[name]:.3f}" if name in share else "",
            load(),
        ]
        for name, seconds in times.items()
    ]
    click.echo(
        f"{sizes.fine_hidden}/{sizes.coarse_hidden} units, T = {sizes.steps}, batch {sizes.batch}, float32; "
        f"medians of {repeats}; {torch.get_num_threads()} threads; {machine()}\n"
    )
    click.echo(markdown(["usage", "seconds", "of 100 %", "multiply-accumulates", "load"], rows))
    click.echo(f"\nat 5 % usage, {times['5%'] / whole:.0%} of the time at 100 %")
    if out is not None:
        draw(out, [times[f"{usage:.0%}"] / whole for usage in USAGES], list(share.values()))


def draw(path: Path, times: list[float], macs: list[float]) -> None:
    """The curve as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    percent = [100 * usage for usage in USAGES]
    axes.plot(percent, times, marker="o", label="wall time")
    axes.plot(percent, macs, linestyle="--", label="multiply-accumulates")
    axes.set(xlabel="usage (%)", ylabel="share of usage 100 %", xlim=(0, 100), ylim=(0, None))
    axes.legend()
    figure.savefig(path, dpi=150)
    click.echo(f"drawn: {path}")


if __name__ == "__main__":
    main()
