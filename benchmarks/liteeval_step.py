"""How much quicker is a LiteEval training step than a plain loop over both cells?

    python -m benchmarks.liteeval_step

Both compute forward and backward of Eq. 7 with the same weights, videos and Gumbel noise. Runs alternate, and
the ratio is that of the medians. The plain loop does per time step what Algorithm 1 says: both
``nn.LSTMCell`` with their input projections, the gate, and the copy of Eq. 5. Every video has the full length
here, so packing gives no advantage. ``--gate-bias`` moves the usage: our backward pass skips closed steps,
the plain loop does not.
"""

import statistics
import time
from collections.abc import Callable

import click
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from policy.liteeval import CLOSED, OPEN, LiteEval, liteeval_loss
from policy.liteeval.gate import gumbel_pairs

GAMMA, TEMPERATURE = 0.05, 1.0
Step = Callable[[], tuple[Tensor, Tensor]]


def plain_step(
    model: LiteEval, coarse: Tensor, fine: Tensor, targets: Tensor, seed: int
) -> tuple[Tensor, Tensor]:
    """Loss and gates (T, B) of one step, everything inside the time loop. Features are (T, B, D)."""
    steps, videos, _ = coarse.shape
    noise = gumbel_pairs(steps * videos, torch.Generator().manual_seed(seed)).view(steps, videos, 2)
    width = model.coarse_cell.hidden_size
    coarse_h = coarse_c = coarse.new_zeros(videos, width)
    fine_h = fine_c = coarse.new_zeros(videos, model.fine_cell.hidden_size)
    gates = []
    for t in range(steps):
        coarse_h, coarse_c = model.coarse_cell(coarse[t], (coarse_h, coarse_c))
        log_probabilities = model.gate(torch.cat([coarse[t], fine_h], 1)).log_softmax(1)
        relaxed = torch.softmax((log_probabilities + noise[t]) / TEMPERATURE, 1)
        hard = torch.nn.functional.one_hot(relaxed.argmax(1), 2)
        gate = (hard - relaxed.detach() + relaxed)[:, OPEN, None]
        new_h, new_c = model.fine_cell(torch.cat([coarse[t], fine[t]], 1), (fine_h, fine_c))
        fine_h = gate * new_h + (1 - gate) * torch.cat([coarse_h, fine_h[:, width:]], 1)
        fine_c = gate * new_c + (1 - gate) * torch.cat([coarse_c, fine_c[:, width:]], 1)
        gates.append(gate[:, 0])
    stacked = torch.stack(gates)
    loss = liteeval_loss(model.classifier(fine_h), stacked.mean(0), targets, gamma=GAMMA).total
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach(), stacked.detach()


def our_step(
    model: LiteEval, coarse: Tensor, fine: Tensor, targets: Tensor, seed: int
) -> tuple[Tensor, Tensor]:
    """The same by the model itself."""
    steps, videos, _ = coarse.shape
    sizes = torch.full((steps,), videos)
    out = model(
        PackedSequence(coarse.flatten(0, 1), sizes),
        PackedSequence(fine.flatten(0, 1), sizes),
        temperature=TEMPERATURE,
        generator=torch.Generator().manual_seed(seed),
    )
    loss = liteeval_loss(out.logits, out.usage, targets, gamma=GAMMA).total
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach(), out.gates.detach().view(steps, videos)


def measure(step: Step, model: LiteEval) -> tuple[float, Tensor, Tensor, dict[str, Tensor]]:
    """Seconds of one step, its loss, its gates and the gradient of every parameter."""
    model.zero_grad(set_to_none=True)
    started = time.perf_counter()
    loss, gates = step()
    seconds = time.perf_counter() - started
    return seconds, loss, gates, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@click.command(help=__doc__)
@click.option("--steps", default=129, show_default=True, help="Length T of every video.")
@click.option("--batch", default=32, show_default=True, help="Videos in the batch.")
@click.option("--fine-hidden", default=2048, show_default=True, help="Units of the fine LSTM.")
@click.option("--coarse-hidden", default=512, show_default=True, help="Units of the coarse LSTM.")
@click.option("--coarse-dim", default=1280, show_default=True, help="Coarse features.")
@click.option("--fine-dim", default=2048, show_default=True, help="Fine features.")
@click.option("--gate-bias", default=0.0, show_default=True, help="Added to the log-odds of opening.")
@click.option("--repeats", default=3, show_default=True, help="Timed runs of each, alternating.")
@click.option("--seed", default=0, show_default=True)
def main(
    *,
    steps: int,
    batch: int,
    fine_hidden: int,
    coarse_hidden: int,
    coarse_dim: int,
    fine_dim: int,
    gate_bias: float,
    repeats: int,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    model = LiteEval(
        coarse_dim=coarse_dim,
        fine_dim=fine_dim,
        num_classes=200,
        coarse_hidden=coarse_hidden,
        fine_hidden=fine_hidden,
    ).train()
    with torch.no_grad():
        model.gate.bias[OPEN] += gate_bias - (model.gate.bias[OPEN] - model.gate.bias[CLOSED])
    coarse, fine = torch.randn(steps, batch, coarse_dim), torch.randn(steps, batch, fine_dim)
    targets = torch.randint(200, (batch,))

    plain_times, our_times = [], []
    for repeat in range(repeats + 1):
        plain = measure(lambda: plain_step(model, coarse, fine, targets, seed), model)
        ours = measure(lambda: our_step(model, coarse, fine, targets, seed), model)
        if repeat > 0:  # the first pair only warms up
            plain_times.append(plain[0])
            our_times.append(ours[0])
    click.echo(
        f"LiteEval training step, {fine_hidden}/{coarse_hidden} units, T = {steps}, batch {batch}, float32, "
        f"{torch.get_num_threads()} threads, usage {float(ours[2].mean()):.0%}"
    )
    if our_times:
        slow, quick = statistics.median(plain_times), statistics.median(our_times)
        click.echo(
            f"plain loop {slow:.3f} s, ours {quick:.3f} s (medians of {repeats}): ratio {slow / quick:.2f}"
        )
    loss = float(plain[1])
    click.echo(f"largest difference of the loss: {abs(loss - float(ours[1])):.1e} (of {loss:.3f})")
    click.echo(f"gates that differ: {int((plain[2] - ours[2]).abs().round().sum())} of {ours[2].numel()}")
    for name, gradient in plain[3].items():
        difference, size = float((gradient - ours[3][name]).abs().max()), float(gradient.abs().max())
        click.echo(f"largest difference of the gradient of {name}: {difference:.1e} (of {size:.1e})")


if __name__ == "__main__":
    main()
