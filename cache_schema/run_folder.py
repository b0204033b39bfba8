"""A run folder: the configuration and results of one run of train-policy or finetune-backbone.

config.json says which run it is. Every file is replaced as a whole. `policy` and `extract` share this, and neither
imports the other.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from cache_schema.errors import UserError
from cache_schema.files import missing_folders, remove_empty, replacing

CONFIG = "config.json"
"""Which run it is. Written first."""
_LOCK = ".lock"
_NAMED = 3  # runs in a message


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Make the folder and lock it, so that no two programs write to it.

    After a UserError in the block nothing is left of a run that had not begun: neither its config.json nor a
    folder that was made for it.

    Raises:
        UserError: it cannot be made or written to, or another program holds it.
    """
    missing = missing_folders(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = {*folder.iterdir()}
        lock = (folder / _LOCK).open("w")
    except OSError as error:
        remove_empty(missing)
        raise UserError(f"{folder}: cannot be used as a run folder: {error.strerror or error}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{folder}: another program is at work in this run folder") from error
        except OSError:
            pass  # a file system without locks
        try:
            yield
        except UserError:
            new = {*folder.iterdir()} - there
            if new <= {folder / _LOCK, folder / CONFIG}:
                for path in new:
                    path.unlink(missing_ok=True)
                remove_empty(missing)
            raise


def claim(
    folder: Path,
    described: Mapping[str, Any],
    *,
    decisive: Mapping[str, str],
    begun: tuple[str, ...],
    is_own: Callable[[str], bool],
    unread: Collection[str] = (),
) -> bool:
    """Make the folder this run's. Returns whether it already was, and holds some of its results.

    Args:
        described: the content of config.json.
        decisive: the objects in `described` that are equal if two runs are the same, each with the words before
            its fields in messages: "value of --" makes "another value of --lr (0.1 → 0.2), --epochs (5 → 6)".
        begun: names of files that mark a run with results; without any of them another run may take its place.
        is_own: whether a file of this name is one that a run writes, so that it may be overwritten.
        unread: names of fields that runs of earlier versions have, and that decide nothing.

    Raises:
        UserError: the folder holds another run, of which every difference is named; or files that are not a run's.
    """
    path = folder / CONFIG
    if any((folder / name).exists() for name in begun):
        held = read_json(path)
        if not all(isinstance(held.get(part), dict) for part in decisive):
            raise not_ours(path)
        differences = [
            f"another {what}" + f", {what.rpartition(' ')[2]}".join(differing)
            for part, what in decisive.items()
            if (differing := _differences(held[part], described[part], unread))
        ]
        if differences:
            raise UserError(f"{folder}: holds a run with {'; '.join(differences)}; choose another folder")
        return True
    # Of a run that ended before its first checkpoint nothing is lost, so another may take its place.
    if any(not entry.name.startswith(".") and not is_own(entry.name) for entry in folder.iterdir()):
        raise UserError(f"{folder}: is neither empty nor a run folder; choose another")
    write_json(path, described)
    return False


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a run folder. Raises UserError where there is none."""
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _no_run(path) from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read; delete the run folder to start again") from error
    if not isinstance(read, dict):
        raise not_ours(path)
    return read


def _no_run(path: Path) -> UserError:
    """The error for a folder that lacks a file which every finished run has."""
    folder = path.parent
    if (folder / CONFIG).exists():
        return UserError(
            f"{folder}: not a finished run: it has no {path.name}; the command that began it goes on with it"
        )
    why = f"it has no {CONFIG}"
    if not folder.is_dir():
        why = "a file" if folder.exists() else "no such folder"
    inside = sorted(str(run.parent) for run in folder.glob(f"*/{CONFIG}"))[:_NAMED]
    which = f"there are {', '.join(inside)}" if inside else "give the one that its --out names"
    return UserError(f"{folder}: no run folder of train-policy ({why}); {which}")


def not_ours(path: Path) -> UserError:
    """The error for a file that another program, or version, has written."""
    return UserError(f"{path}: not a {path.stem} of this version; delete the run folder")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a JSON file. Raises UserError where it cannot be written."""
    write_atomically(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file's content; readers see the old or the new. Raises UserError where it cannot be written."""
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], unread: Collection[str]) -> list[str]:
    """The fields that differ: "lr (0.1 → 0.2)"."""
    names = {*old, *new}.difference(unread)
    if old.get("method") != new.get("method"):  # what one method alone has is no news
        names &= {*old} & {*new}
    return [
        f"{name.replace('_', '-')} ({_shown(old.get(name))} → {_shown(new.get(name))})"
        for name in sorted(names)
        if old.get(name) != new.get(name)
    ]


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:12]}…"
