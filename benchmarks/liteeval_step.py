"""How quick is a training step of LiteEval?

    python -m benchmarks.liteeval_step
    python -m benchmarks.liteeval_step --quick        # a smoke test of seconds

One step is forward and backward on a batch, with the `released` recipe: projections with batch norm of 1280 → 512
and 2048 → 2048, a gate that sees h and c, half the noise, a usage loss of the batch. It is timed in three ways:

- in the loop: the same computation as the authors' code has it, everything inside the time loop (projections with
  batch norm, both `nn.LSTMCell`, gate, copy), in float32;
- ours, in float32 and in bfloat16;
- two LSTMs: forward and backward of plain `nn.LSTM`s of the same sizes on inputs of the same sizes, already
  projected and of one type with the weights. They have no gate, no projection and no loss.

All have the same weights, videos and Gumbel noise, and run in turn; a ratio is that of the medians. Every video
has the full length, so packing gives no advantage. `--gate-bias` moves the usage, once for each time it is given:
our backward pass skips closed steps, the others do not. Below the times stands by how much the results differ.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import click
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import PackedSequence

from benchmarks.tables import as_written, in_turn, load, machine, markdown
from policy.config import Precision
from policy.liteeval.gate import CLOSED, OPEN, gumbel_pairs
from policy.liteeval.model import LiteEval
from policy.networks.projection import Projection

CLASSES = 239
WITHOUT_EFFECT = ("projection.norm.bias", "projection.linear.bias")
"""The batch norm behind them takes out what they add: their gradient is rounding alone."""
GAMMA, LAM, TEMPERATURE, NOISE = 0.15, 2.0, 1.0, 0.5


@dataclass(frozen=True)
class Sizes:
    """T steps of B videos, features, projections and units."""

    steps: int = 129
    batch: int = 32
    coarse_dim: int = 1280
    fine_dim: int = 2048
    coarse_projection: int = 512
    fine_projection: int = 2048
    coarse_hidden: int = 512
    fine_hidden: int = 2048


QUICK = Sizes(7, 8, 6, 8, 5, 8, 4, 16)


class Step(NamedTuple):
    """What one training step gives."""

    loss: Tensor
    gates: Tensor
    """(T, B)."""
    gradients: Mapping[str, Tensor]


class Setting:
    """Weights, videos (T, B, D) and noise for all ways alike."""

    def __init__(self, sizes: Sizes, gate_bias: float, device: torch.device, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.sizes, self.seed = sizes, seed
        self.coarse = torch.randn(sizes.steps, sizes.batch, sizes.coarse_dim).to(device)
        self.fine = torch.randn(sizes.steps, sizes.batch, sizes.fine_dim).to(device)
        self.targets = torch.randint(CLASSES, (sizes.batch,)).to(device)
        self.models = {precision: self._model(precision).to(device) for precision in ("float32", "bfloat16")}
        for model in self.models.values():
            model.load_state_dict(self.models["float32"].state_dict())
            with torch.no_grad():
                model.gate.bias[CLOSED] = 0
                model.gate.bias[OPEN] = gate_bias

    def _model(self, precision: Precision) -> LiteEval:
        sizes = self.sizes
        return LiteEval(
            coarse_dim=sizes.coarse_dim,
            fine_dim=sizes.fine_dim,
            num_classes=CLASSES,
            coarse_hidden=sizes.coarse_hidden,
            fine_hidden=sizes.fine_hidden,
            coarse_projection=sizes.coarse_projection,
            fine_projection=sizes.fine_projection,
            gate_state="hidden+cell",
            precision=precision,
        ).train()

    def in_the_loop(self) -> Step:
        """Everything inside the time loop."""
        model = self.models["float32"]
        steps, videos, _ = self.coarse.shape
        generator = torch.Generator().manual_seed(self.seed)
        noise = gumbel_pairs(steps * videos, generator).to(self.coarse).view(steps, videos, 2)
        width = model.coarse_cell.hidden_size
        coarse_h = coarse_c = self.coarse.new_zeros(videos, width)
        fine_h = fine_c = self.coarse.new_zeros(videos, model.fine_cell.hidden_size)
        gates = []
        for t in range(steps):
            coarse = _projected(model.coarse_projection, self.coarse[t])
            fine = _projected(model.fine_projection, self.fine[t])
            coarse_h, coarse_c = model.coarse_cell(coarse, (coarse_h, coarse_c))
            log_probabilities = model.gate(torch.cat([coarse, fine_h, fine_c], 1)).log_softmax(1)
            relaxed = torch.softmax((log_probabilities + NOISE * noise[t]) / TEMPERATURE, 1)
            hard = torch.nn.functional.one_hot(relaxed.argmax(1), 2)
            gate = (hard - relaxed.detach() + relaxed)[:, OPEN, None]
            new_h, new_c = model.fine_cell(torch.cat([coarse, fine], 1), (fine_h, fine_c))
            fine_h = gate * new_h + (1 - gate) * torch.cat([coarse_h, fine_h[:, width:]], 1)
            fine_c = gate * new_c + (1 - gate) * torch.cat([coarse_c, fine_c[:, width:]], 1)
            gates.append(gate[:, 0])
        return self._finish(model, model.classifier(fine_h), torch.stack(gates))

    def ours(self, precision: Precision) -> Step:
        """The same by the model itself."""
        model = self.models[precision]
        steps, videos, _ = self.coarse.shape
        sizes = torch.full((steps,), videos)
        out = model(
            PackedSequence(self.coarse.flatten(0, 1), sizes),
            PackedSequence(self.fine.flatten(0, 1), sizes),
            temperature=TEMPERATURE,
            noise_scale=NOISE,
            generator=torch.Generator().manual_seed(self.seed),
        )
        return self._finish(model, out.logits, out.gates.view(steps, videos))

    def _finish(self, model: LiteEval, logits: Tensor, gates: Tensor) -> Step:
        model.zero_grad(set_to_none=True)
        loss = cross_entropy(logits, self.targets) + LAM * (gates.mean() - GAMMA) ** 2
        loss.backward()  # type: ignore[no-untyped-call]
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        return Step(loss.detach(), gates.detach(), gradients)

    def two_lstms(self, dtype: torch.dtype) -> Callable[[], None]:
        """A function that runs them forward and backward; their gradient reaches the inputs."""
        sizes, inputs, networks = self.sizes, [], []
        for dim, hidden in (
            (sizes.coarse_projection, sizes.coarse_hidden),
            (sizes.coarse_projection + sizes.fine_projection, sizes.fine_hidden),
        ):
            networks.append(nn.LSTM(dim, hidden).to(self.coarse.device, dtype))
            x = torch.randn(sizes.steps, sizes.batch, dim).to(self.coarse.device, dtype)
            inputs.append(x.requires_grad_())

        def run() -> None:
            for network, x in zip(networks, inputs, strict=True):
                network.zero_grad(set_to_none=True)
                x.grad = None
                network(x)[0][-1].sum().backward()

        return run


def _projected(projection: Projection | None, rows: Tensor) -> Tensor:
    assert projection is not None
    projected: Tensor = projection.output_norm(projection.linear(projection.norm(rows))).relu()
    return projected


def differences(expected: Step, step: Step) -> list[str]:
    """Cells of the table: of the loss, the gates, and the gradients, each relative to its own largest entry."""
    relative = {
        name: float((gradient - step.gradients[name]).abs().max() / gradient.abs().max().clamp(min=1e-12))
        for name, gradient in expected.gradients.items()
        if not name.endswith(WITHOUT_EFFECT)
    }
    worst = max(relative, key=relative.__getitem__)
    ours, theirs = (torch.cat([g.flatten() for g in s.gradients.values()]) for s in (step, expected))
    return [
        f"{float(abs(expected.loss - step.loss) / expected.loss):.0e}",
        f"{int((expected.gates - step.gates).abs().round().sum())} of {step.gates.numel():,}",
        f"{relative[worst]:.0e} ({worst})",
        f"{float(torch.cosine_similarity(ours.double(), theirs.double(), dim=0)):.5f}",
    ]


@click.command(help=as_written(__doc__))
@click.option("--gate-bias", "gate_biases", multiple=True, default=(0.0,), show_default=True, type=float)
@click.option("--repeats", default=3, show_default=True, help="Timed runs of each.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--quick", is_flag=True, help="Tiny networks: do the programs run, and do they agree?")
def main(*, gate_biases: tuple[float, ...], repeats: int, device: str, quick: bool) -> None:
    sizes = QUICK if quick else Sizes()
    times_table, agreement = [], []
    for gate_bias in gate_biases:
        setting = Setting(sizes, gate_bias, torch.device(device))
        works: dict[str, Callable[[], Step | None]] = {
            "in the loop": setting.in_the_loop,
            "ours": functools.partial(setting.ours, "float32"),
            "ours, bf16": functools.partial(setting.ours, "bfloat16"),
            "LSTMs": setting.two_lstms(torch.float32),
            "LSTMs, bf16": setting.two_lstms(torch.bfloat16),
        }
        warm = {name: work() for name, work in works.items()}
        expected, step, rounded = (warm[name] for name in ("in the loop", "ours", "ours, bf16"))
        assert isinstance(expected, Step) and isinstance(step, Step) and isinstance(rounded, Step)
        usage = f"{float(expected.gates.mean()):.0%}"
        agreement.append([usage, "float32", *differences(expected, step)])
        agreement.append([usage, "bfloat16", *differences(expected, rounded)])
        del warm, expected, step, rounded
        times = in_turn({name: _finished(work, device) for name, work in works.items()}, repeats)
        for precision, suffix in (("float32", ""), ("bfloat16", ", bf16")):
            loop, ours, lstms = times["in the loop"], times[f"ours{suffix}"], times[f"LSTMs{suffix}"]
            seconds = [f"{value:.3f}" for value in (loop, ours, lstms)]
            ratios = [f"{loop / ours:.2f}", f"{ours / lstms:.2f}"]
            times_table.append([usage, precision, *seconds, *ratios, load()])
    click.echo(
        f"{sizes.fine_hidden}/{sizes.coarse_hidden} units, T = {sizes.steps}, batch {sizes.batch}; medians of "
        f"{repeats}; {torch.get_num_threads()} threads; {machine()}\n"
    )
    header = [
        "usage",
        "ours in",
        "in the loop s",
        "ours s",
        "two LSTMs s",
        "loop / ours",
        "ours / LSTMs",
        "load",
    ]
    click.echo(markdown(header, times_table))
    click.echo("\nagainst the loop:\n")
    header = ["usage", "ours in", "loss", "gates that differ", "largest of a gradient", "cosine of all"]
    click.echo(markdown(header, agreement))


def _finished(work: Callable[[], object], device: str) -> Callable[[], None]:
    """The same, and back only when the device is done with it."""

    def run() -> None:
        work()
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize()

    return run


if __name__ == "__main__":
    main()
