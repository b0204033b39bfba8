"""Where the networks run, and what they compute in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from cache_schema import UserError

_CPUINFO = Path("/proc/cpuinfo")
# What Linux calls the instructions that multiply bfloat16 there, of x86 and of ARM.
_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}


def find_device(name: str) -> torch.device:
    """The device that a user names; "auto" is a GPU where there is one. Raises UserError: not to be had here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"--device {name}: not to be had here ({str(error).splitlines()[0]})") from error
    return device


def choose_precision(name: str, device: torch.device, warn: Callable[[str], None]) -> str:
    """What the networks compute in, "fp32" or "bf16", as a user says; "auto" is bf16 on a GPU, else fp32.

    Args:
        warn: is told where a processor has no instructions for what was asked for.
    """
    if name == "auto":
        return "bf16" if device.type == "cuda" else "fp32"
    on_cpu = device.type == "cpu" and _CPUINFO.exists()
    if name == "bf16" and on_cpu and not _BF16 & set(_CPUINFO.read_text().split()):
        warn("this processor only emulates bfloat16: --precision fp32 is quicker here")
    return name
