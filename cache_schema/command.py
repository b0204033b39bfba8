"""What the command lines of all rooms share: exit codes, options, progress, numbers in words, and a cluster.

Exit codes: 0: done. 1: done, but some videos failed, each named with its reason. 2: the request itself was wrong.
130: interrupted by Ctrl-C.
"""

from __future__ import annotations

import errno
import functools
import re
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, ParamSpec, TypeVar

import click

from cache_schema.annotations import FORMATS, Grouping, LabelSet, read_labels
from cache_schema.errors import UserError
from cache_schema.extras import needs_extra
from cache_schema.names import did_you_mean

SOME_FAILED = 1

_TIMEOUT_S = 20  # for a scheduler to answer
_NUMBER = re.compile(r"0x[0-9a-f]+|\d+(?:\.\d+)?")

DEVICE = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, …")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON for scripts.")
P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=Callable[..., Any])


def options(*decorators: Callable[[Any], Any]) -> Callable[[C], C]:
    """Several options as one decorator, in the order in which --help shows them."""

    def decorate(command: C) -> C:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


class FormatName(click.Choice[str]):
    """A format of labels; of a wrong name the closest are told, not all."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in self.choices:
            close = did_you_mean(str(value), self.choices)
            self.fail(f"no format of labels is called {value!r}: docs/labels.md shows all{close}", param, ctx)
        return str(value)


reading_options = options(
    click.option(
        "--format",
        "labels_format",
        type=FormatName(sorted(FORMATS)),
        metavar="NAME",
        help="Format of the labels (docs/labels.md); by default what names and first lines say.",
    ),
    click.option(
        "--split",
        type=click.IntRange(0),
        metavar="N",
        help="Which of several published splits, as of UCF-101, HMDB-51 and Breakfast; of --val-fraction the "
        "seed.  [default: 1; as seed 0]",
    ),
    click.option(
        "--class-file",
        type=click.Path(path_type=Path),
        help="Names the classes of lists that number them; by default classInd.txt, label_map.txt and the like "
        "beside them.",
    ),
)
"""--format, --split and --class-file: in which format labels are, and what else a reader takes."""
label_options = options(
    reading_options,
    click.option(
        "--group-column",
        metavar="NAME",
        help="Column of the CSV of labels that says which videos belong together, such as the person or the "
        "source: they are held out, and drawn for intervals, together.",
    ),
    click.option(
        "--group-pattern",
        metavar="REGEX",
        help="The same from the videos' ids, by what the parentheses match: v_(.*_g\\d+)_c of UCF-101's.",
    ),
)
"""Those, --group-column and --group-pattern: how a command reads its --labels."""
VAL_FRACTION = click.option(
    "--val-fraction",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="SHARE",
    help="Of labels without subsets: set this share of the videos of each class aside, to judge on.",
)


def given_labels(given: Mapping[str, Any], *, divides: bool = True) -> LabelSet:
    """Read the --labels of a command with `label_options` or `reading_options`, and VAL_FRACTION if it has that.

    Args:
        given: the command's parameters by name.
        divides: as of `read_labels`.

    Raises:
        UserError: as `read_labels`, or the options contradict each other.
    """
    return read_labels(
        given["labels"],
        given["labels_format"],
        Grouping.of(given.get("group_column"), given.get("group_pattern")),
        split=given["split"],
        class_file=given["class_file"],
        val_fraction=given.get("val_fraction"),
        divides=divides,
    )


class RequestError(click.ClickException):
    """One line on standard error and exit code 2, as click does for a wrong option."""

    exit_code = 2


class Interrupted(click.ClickException):
    """Ctrl-C: one line and the exit code that shells expect. Click's 1 would mean that the work was done."""

    exit_code = 128 + signal.SIGINT

    def __init__(self) -> None:
        super().__init__("interrupted; run the same command again to finish")

    def show(self, file: IO[Any] | None = None) -> None:
        """Without click's "Error:", which it is not."""
        click.echo(self.message, file=file, err=file is None)


def tells_mistakes(command: Callable[P, R]) -> Callable[P, R]:
    """A UserError becomes one line and exit code 2, Ctrl-C one and 130, and so does a path that is too long, which
    fails wherever it is first looked for. All else is our mistake: a traceback."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except UserError as error:
            raise RequestError(" ".join(str(error).split())) from error
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            raise RequestError(f"{error.filename}: {error.strerror}") from error
        except KeyboardInterrupt as interrupt:
            raise Interrupted from interrupt

    return run


@contextmanager
def progress(task: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, nothing elsewhere. Yields a function that takes how much is done, and the total."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        row = bar.add_task(task, total=None)
        yield lambda done, total: bar.update(row, completed=done, total=total)


_SINGULAR = {"entries": "entry", "classes": "class", "processes": "process"}


def count(number: int, things: str) -> str:
    """A number of things, one of them in the singular: "1 true segment"."""
    last = things.rpartition(" ")[2]
    one = things.removesuffix(last) + _SINGULAR.get(last, last.removesuffix("s"))
    return f"{number:,} {things if number != 1 else one}"


def size(number: int) -> str:
    """Bytes for people, in powers of a thousand."""
    if number < 1000:
        return f"{number} bytes" if number != 1 else "1 byte"
    value = float(number)
    for unit in ("kB", "MB", "GB", "TB", "PB"):
        value /= 1000
        if value < 999.95 or unit == "PB":
            return f"{value:,.1f} {unit}"
    raise AssertionError


def group_reasons(reasons: Iterable[tuple[str, str]]) -> dict[str, tuple[int, str]]:
    """How many videos each reason applies to, and one of them; the most frequent reason first.

    Reasons that differ only in their numbers are one, with "…" for the numbers.

    Args:
        reasons: pairs of a video's id and a reason, or a remark; a video may have several.
    """
    groups: dict[str, dict[str, str]] = {}
    for video_id, reason in reasons:
        groups.setdefault(_NUMBER.sub("…", reason), {})[video_id] = reason
    counted = {}
    for blanked, texts in sorted(groups.items(), key=lambda group: (-len(group[1]), group[0])):
        distinct = set(texts.values())
        counted[distinct.pop() if len(distinct) == 1 else blanked] = len(texts), next(iter(texts))
    return counted


def jobs_options(number: str, who: str, shared: str) -> Callable[[C], C]:
    """--jobs, --backend and --scheduler.

    Args:
        number: help of --jobs.
        who: is chosen by --backend, "runs the jobs".
        shared: what must have the same path on every machine.
    """
    return options(
        click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help=number),
        click.option(
            "--backend",
            type=click.Choice(["loky", "dask"]),
            default="loky",
            show_default=True,
            help=f"Who {who}: processes of this machine, or the workers of a Dask cluster.",
        ),
        click.option(
            "--scheduler",
            metavar="ADDRESS",
            help="With --backend dask: the scheduler's address, such as tcp://10.0.0.1:8786. "
            f"{shared} must have the same paths on every machine.",
        ),
    )


def check_scheduler(backend: str, scheduler: str | None) -> None:
    """Raise UserError where one of --backend dask and --scheduler is given without the other."""
    if (backend == "dask") != (scheduler is not None):
        raise UserError("--backend dask and --scheduler ADDRESS go together")


@contextmanager
def cluster(address: str) -> Iterator[int]:
    """Connect to a Dask scheduler, for joblib's "dask" backend. Yields how many jobs its workers do at once.

    Raises:
        UserError: Dask is not installed, nobody answers, or the scheduler has no workers.
    """
    with needs_extra("dask", "a Dask cluster"):
        from distributed import Client
    try:
        client = Client(address, timeout=_TIMEOUT_S)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"--scheduler {address}: no Dask scheduler answers there ({type(error).__name__}); start one with "
            "`dask scheduler`, which prints its address"
        ) from error
    with client:
        slots = sum(client.nthreads().values())
        if not slots:
            raise UserError(
                f"--scheduler {address}: it has no workers; start some with `dask worker {address} --nthreads 1`"
            )
        yield slots
