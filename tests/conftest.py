"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

# How long an example takes depends on who else is at work on the machine. Developers look for new failures; what
# CI says of a commit is the same each time.
settings.register_profile("thriftvid", deadline=None, derandomize="CI" in os.environ)
# Of `make quick`: a fifth of the examples, where a test does not say itself how many it takes.
settings.register_profile("quick", settings.get_profile("thriftvid"), max_examples=20)
settings.load_profile("thriftvid")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Networks this small, on cores that others use too, spend their time waiting for a second thread."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
