"""feature-cache in the tests: as a function, and as a process that is killed."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from click.testing import CliRunner

from cache_schema.cli import feature_cache


def run(*arguments: str | Path, answer: str | None = None) -> tuple[int, str, str]:
    result = CliRunner().invoke(feature_cache, [str(a) for a in arguments], input=answer)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def killed_at_random(*arguments: str | Path, watched: Path, kills: int = 6) -> Iterator[int]:
    """Start the command again and again, and kill -9 it after some changes to the watched folder's files.

    Gives the exit status after each; the last one may have been done before.
    """

    def paths() -> set[str]:
        # Unlike rglob it passes over folders that are gone before it has looked into them.
        return {f"{at}/{name}" for at, *below in os.walk(watched) for name in (*below[0], *below[1])}

    moments = random.Random(0)
    code = "from cache_schema.cli import feature_cache; feature_cache()"
    for _ in range(kills):
        before = paths()
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        changes = moments.randint(1, 8)
        while process.poll() is None and len(paths() ^ before) < changes:
            time.sleep(0.0005)
        time.sleep(moments.uniform(0, 0.004))
        process.kill()
        yield process.wait()
