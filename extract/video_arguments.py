"""How commands are told which videos are meant: the argument VIDEOS, and the options that go with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from extract.sources import Ids

C = TypeVar("C", bound=Callable[..., Any])

_PATH = click.Path(path_type=Path)


class VideosCommand(click.Command):
    """A command that takes files, and says what to do about one whose name is taken for an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click's."""
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            name = next((text for text in given if text.startswith(error.option_name)), None)
            if name is not None and os.path.lexists(name):
                raise click.UsageError(
                    f"{name} is taken for an option; as a file it is ./{name}", ctx
                ) from error
            raise


def video_words(
    videos: Sequence[Path], *, ids: Ids, frames_fps: float | None, root: Path | None
) -> list[str]:
    """The words of a command line that mean the same videos."""
    options = {
        "--ids": None if ids == "stem" else ids,
        "--frames-fps": frames_fps,
        "--root": root,
    }
    given = [(name, str(value)) for name, value in options.items() if value is not None]
    files = (f"./{path}" if str(path).startswith("-") else str(path) for path in videos)
    return [*files, *(word for pair in given for word in pair)]


def _rate(text: str) -> float:
    """A number, or a fraction as ffprobe prints it."""
    above, slash, below = text.partition("/")
    try:
        return float(above) / (float(below) if slash else 1)
    except (ValueError, ZeroDivisionError) as error:
        raise click.BadParameter(f"{text!r} is no rate; give a number such as 25 or 30000/1001") from error


def takes_videos(command: C) -> C:
    """Add VIDEOS, --ids, --frames-fps and --root: the arguments of `extract.sources.find_videos`."""
    for decorate in (
        click.argument("videos", nargs=-1, required=True, type=_PATH),
        click.option(
            "--ids",
            type=click.Choice(["stem", "path"]),
            default="stem",
            show_default=True,
            help="Call a video by its file name without ending, or by its path below the given folder.",
        ),
        click.option(
            "--frames-fps",
            type=_rate,
            metavar="RATE",
            help="Folders of numbered pictures are videos, too, of so many frames a second (25 or 30000/1001).",
        ),
        click.option(
            "--root",
            type=_PATH,
            metavar="FOLDER",
            help="What paths in lists are relative to. [default: the list's own folder]",
        ),
    ):
        command = decorate(command)
    return command
