"""Where the networks run."""

from __future__ import annotations

import torch

from cache_schema import UserError


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
