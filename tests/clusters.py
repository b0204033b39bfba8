"""A Dask cluster of processes of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent


@contextmanager
def dask(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """The commands that the README names, as a process group of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "dask", *arguments]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield process
    finally:
        for child in (
            [*psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []
        ):
            child.kill()
        process.kill()
        process.wait()
