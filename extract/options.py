"""Options that several commands on videos have: where networks run, how videos are decoded, and by whom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

C = TypeVar("C", bound=Callable[..., Any])

PRECISION = click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16"]),
    default="auto",
    show_default=True,
    help="What the backbones compute in (weights that are trained stay fp32); auto: bf16 on a GPU, else fp32.",
)
BATCH = click.option(
    "--batch",
    type=click.IntRange(1),
    help="Frames in a forward pass, those of clips too. [default: 16, on a GPU 128]",
)
WORKERS = click.option(
    "--workers", type=click.IntRange(1), help="Processes that decode. [default: the number of cores]"
)
THREADS = click.option(
    "--threads", type=click.IntRange(1), help="Threads of the networks on the CPU. [default: torch's]"
)
DEADLINE = click.option(
    "--deadline",
    "deadline_s",
    type=click.FloatRange(0, min_open=True),
    default=120.0,
    show_default=True,
    help="Seconds that a decoder may take without getting a frame further, before it is given up.",
)
DECODER = click.option(
    "--decoder",
    type=click.Choice(["auto", "decord", "pyav"]),
    default="auto",
    show_default=True,
    help="auto: for each video the quicker one of those that decode it right; decord: wherever it is right (most "
    "H.264 in MP4 and Matroska), else PyAV; pyav: always. batch-extract --json counts which it was.",
)


def retry_failed(what: str) -> Callable[[C], C]:
    """--retry-failed. what: is tried again."""
    return click.option("--retry-failed", is_flag=True, help=f"Try again {what}.")


def damaged(what: str) -> Callable[[C], C]:
    """--damaged. what: becomes of such a video, either way."""
    return click.option(
        "--damaged",
        type=click.Choice(["refuse", "keep"]),
        default="refuse",
        show_default=True,
        help=what,
    )


def weights(more: str, **attributes: Any) -> Callable[[C], C]:
    """--weights of each stream. more: in its help."""
    return click.option(
        "--weights",
        multiple=True,
        metavar="[STREAM=]WEIGHTS",
        help="pretrained, random:SEED, or a FILE (.safetensors, whose metadata may "
        'name the classes: {"classes": "[…JSON list…]"}; or a torch checkpoint of tensors); '
        f"for one stream of several: STREAM=WEIGHTS.{more}",
        **attributes,
    )
