"""What a video's process may run instead of a decoder: named in `Settings.target` as "tests.bad_processes:…"."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing.connection import Connection
from typing import Any

from policy.deploy import videos


def misbehaving(pipe: Connection) -> None:
    """Serve as usual, but for what a video's name asks for; names with "once" ask it unless PyAV is to decode.

    "fatal" kills the process that asks for the video, "fatal-once" the first that does; a file names the killed.
    """
    changed: Any = videos
    read = changed.read_video

    def read_video(path: Any, *, decoder: str, **how: Any) -> Any:
        if "fatal" in path.stem:
            killed = path.with_suffix(".killed")
            if "once" not in path.stem or not killed.exists():
                with killed.open("a") as file:
                    file.write(f"{os.getppid()}\n")
                os.kill(os.getppid(), signal.SIGKILL)
                time.sleep(600)  # this process ends with it
        if "once" not in path.stem or decoder != "pyav":
            if "crash" in path.stem:
                os.kill(os.getpid(), signal.SIGKILL)
            if "hang" in path.stem:
                time.sleep(600)
        return read(path, decoder=decoder, **how)

    changed.read_video = read_video
    videos.serve(pipe)


def busy(pipe: Connection) -> None:
    """Serve as usual, but compute for 0.5 s before a video is read, and sleep for 3 s."""
    changed: Any = videos
    read = changed.read_video

    def read_video(*what: Any, **how: Any) -> Any:
        time.sleep(3)
        until_s = time.process_time() + 0.5
        while time.process_time() < until_s:
            pass
        return read(*what, **how)

    changed.read_video = read_video
    videos.serve(pipe)
