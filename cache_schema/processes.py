"""Which processes have ended, told by what they left in a folder that several machines may share."""

from __future__ import annotations

from pathlib import Path


def machine() -> str:
    """This boot of this machine and this space of process numbers; empty where that cannot be told.

    A host's name is not enough: containers may share one, and each has a process 1.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def started(process: int) -> str:
    """When a process began, in ticks since the boot; empty for none. A number alone may have been given again."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]
