"""Which videos a run is at, so that another run on the same cache leaves them to it.

A claim is a small file in CACHE/.claims with the ids of some videos; claims are made and compared under a file
lock, so no two runs claim a video at once. Its owner touches it while it lives. Nothing else depends on claims:
whatever becomes of them, shards are written atomically, and a video that two runs did extract is there twice.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache_schema import CacheError
from cache_schema.files import machine, started

_HEARTBEAT_S = 10.0
# Older than this is its owner's death, where that cannot be seen: file servers tell of a change late.
STALE_S = 120.0
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


@dataclass(frozen=True)
class Claim:
    """Videos that this run alone is at."""

    path: Path
    ids: tuple[str, ...]


class Claims:
    """The claims of one run. Use it as a context: leaving it gives up what is still claimed.

    Attributes:
        unlocked: the file system knows no locks, so nothing keeps a second run off.

    Raises:
        CacheError: the folder cannot be written.
    """

    def __init__(self, cache: Path) -> None:
        self._folder = cache / ".claims"
        self._run = uuid.uuid4().hex
        self._mine: dict[Path, Claim] = {}
        self._number = 0
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="claims-heartbeat", daemon=True)
        self.unlocked = False
        with self._locked():
            pass
        self._heart.start()

    def __enter__(self) -> Claims:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._heart.join()
        with contextlib.suppress(CacheError), self._locked():
            for path in list(self._mine):
                self._remove(path)
            # The lock file goes with the last run. Under the lock, so that nobody holds one that nobody else sees.
            if not any(self._folder.glob("*.json")):
                (self._folder / "lock").unlink(missing_ok=True)
                self._folder.rmdir()

    def take(self, ids: Iterable[str]) -> tuple[Claim, frozenset[str]]:
        """Claim those videos that no other run has claimed. Returns the claim and the others' ids."""
        with self._locked():
            others = frozenset(self._others())
            free = tuple(dict.fromkeys(id for id in ids if id not in others))
            self._number += 1
            claim = Claim(self._folder / f"{self._run}-{self._number}.json", free)
            if free:
                content = {"owner": _identity(), "videos": free}
                self._mine[claim.path] = claim  # first: what a full disk cuts off is then removed, too
                claim.path.write_text(json.dumps(content), encoding="utf-8", errors="surrogateescape")
        return claim, others

    def release(self, claim: Claim) -> None:
        """The videos are in the cache, or given up."""
        self._remove(claim.path)

    def elsewhere(self, ids: Iterable[str]) -> frozenset[str]:
        """Those of the videos that another run is at now."""
        with self._locked():
            return frozenset(ids) & frozenset(self._others())

    def _others(self) -> Iterator[str]:
        """Ids claimed by other runs that live; claims of dead ones are cleared away."""
        now_s = (self._folder / "lock").stat().st_mtime  # by the clock that the claims' times are of
        for path in self._folder.glob("*.json"):
            if path in self._mine:
                continue
            try:
                content: Any = json.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
                owner, videos = content["owner"], [str(id) for id in content["videos"]]
                age_s = now_s - path.stat().st_mtime
            except FileNotFoundError:  # released just now
                continue
            except (OSError, ValueError, KeyError, TypeError):  # cut off by a full disk: nobody's
                owner, videos, age_s = {}, [], STALE_S + 1
            if age_s > STALE_S or _is_dead(owner):
                path.unlink(missing_ok=True)
            else:
                yield from videos

    def _remove(self, path: Path) -> None:
        self._mine.pop(path, None)
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._ended.wait(_HEARTBEAT_S):
            for path in list(self._mine):
                with contextlib.suppress(OSError):
                    os.utime(path)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        path = self._folder / "lock"
        try:
            while True:
                self._folder.mkdir(parents=True, exist_ok=True)
                try:
                    file = path.open("a")
                except FileNotFoundError:  # the last of the other runs has just tidied up
                    continue
                with file:
                    try:
                        fcntl.lockf(file, fcntl.LOCK_EX)
                    except OSError as error:
                        if error.errno not in _NO_LOCKS:
                            raise
                        self.unlocked = True
                    if not _is_same(file.fileno(), path):
                        continue
                    os.utime(path)
                    yield
                    return
        except OSError as error:
            raise CacheError(f"{self._folder}: cannot be used: {error.strerror or error}") from error


def clear_dead(cache: Path) -> None:
    """Remove what runs that were killed have left behind."""
    if (cache / ".claims").exists():
        with Claims(cache) as claims:
            claims.elsewhere(())


def wait_for(claims: Claims, ids: Iterable[str], *, poll_s: float = 1.0) -> None:
    """Return when no other run is at any of the videos: it is done with them, or dead."""
    waiting = frozenset(ids)
    while waiting := claims.elsewhere(waiting):
        time.sleep(poll_s)


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _identity() -> dict[str, str]:
    """Who this process is, among all that ever share the folder."""
    return {"machine": machine(), "process": str(os.getpid()), "started": started(os.getpid())}


def _is_dead(owner: dict[str, str]) -> bool:
    """Whether a process can be seen, from here, to have ended."""
    here = machine()
    if not here or owner.get("machine") != here:
        return False
    return started(int(owner.get("process", "0"))) != owner.get("started")
