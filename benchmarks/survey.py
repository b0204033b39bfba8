"""Does `extract` read a collection right? Every file by a plain decoding of every frame, and by ours.

    python -m benchmarks.survey FOLDER
    python -m benchmarks.survey FOLDER --thorough            # 25 rows a second, too
    python -m benchmarks.survey FOLDER --limit 200 --seed 1  # 200 files, drawn at random
    python -m benchmarks.survey --quick                      # a smoke test of seconds, on videos of its own

A file is surveyed where libav finds moving pictures in it, whatever its name. The plain decoding
(`benchmarks/plain.py`) shares no code with `extract`. Ours gives one row a second, as `batch-extract` does by
default, and by each decoder that can be chosen. What counts as a disagreement:

    false refusal   ours refuses, and nothing was wrong with what the rows need
    wrong rows      another number of rows, another size, or more than 2 grey levels from the plain decoding
    missed damage   the plain decoding complains of what a row needs, and ours neither refuses nor remarks on it
    decoders        a decoder that may be chosen is wrong or refuses where the default is right
    failure         a crash, a traceback, or no answer within --deadline seconds

Exit code 1 where there are any. Files that both refuse are counted by reason.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.plain import NoVideo, Showing
from benchmarks.tables import as_written
from benchmarks.videos import media_data, noisy_frames, write_video
from cache_schema.files import printable
from extract.decode import Video, VideoError, read_video
from extract.sampling import sample_times

GREY_LEVELS = 2
DECODERS = ("auto", "decord", "pyav")
KINDS = ("false refusal", "wrong rows", "missed damage", "decoders", "failure")
PLAYS = "plays"
Reader = Callable[..., Video]


@dataclass
class Ours:
    """What ours made of a file by one decoder.

    asked, decoder: the one that was asked for, and the one that decoded.
    refused: why, or None. unlike: how the rows are not those of the plain decoding, or None.
    difference: the largest between a row and the plain decoding's, in grey levels.
    """

    asked: str
    decoder: str = ""
    refused: str | None = None
    unlike: str | None = None
    difference: int = 0
    rows: int = 0
    remarks: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        if self.refused is not None:
            return f"refused: {self.refused}"
        if self.unlike is not None:
            return self.unlike
        return "; ".join(["right", *self.remarks])


@dataclass
class Finding:
    """A file, what plain decoding says of it ("plays", or what is wrong), what ours does, and disagreements."""

    path: Path
    container: str = ""
    codec: str = ""
    frames: int = 0
    rows: int = 0
    plain: str = PLAYS
    ours: list[Ours] = field(default_factory=list)
    disagreements: list[tuple[str, str]] = field(default_factory=list)  # kind, what


def survey_file(path: Path, rates: Sequence[float] = (1.0,), read: Reader = read_video) -> Finding:
    """Compare a file's rows, so many a second, for each of the rates. Raises NoVideo: libav finds none in it."""
    showing = Showing(path)
    finding = Finding(path, showing.container, showing.codec, len(showing.starts_s))
    finding.rows = len(showing.instants(rates[0]))
    finding.plain = _plain_verdict(showing, rates)
    for asked in DECODERS:
        if all(ours.decoder != asked or ours.refused for ours in finding.ours):  # else it is known
            finding.ours.append(_compared(showing, asked, rates, read))
    finding.disagreements = list(_disagreements(finding.plain, finding.ours))
    return finding


def _plain_verdict(showing: Showing, rates: Sequence[float]) -> str:
    if not showing.starts_s:
        return "no frame can be decoded"
    instants_s = [instant_s for fps in rates for instant_s in showing.instants(fps)]
    if complaints := showing.heard_at(instants_s):
        return f"complains: {complaints[0]}"
    if showing.missing:
        return f"incomplete: {showing.missing}"
    try:
        next(showing.frames({showing.at(instant_s) for instant_s in instants_s}))
    except NoVideo as error:
        return str(error)
    return PLAYS


def _compared(showing: Showing, asked: str, rates: Sequence[float], read: Reader) -> Ours:
    ours = Ours(asked)
    video = None
    try:
        for fps in rates:
            video = read(showing.path, decoder=asked)
            times_s = sample_times(duration_s=video.duration_s, fps=fps)
            ours.rows = ours.rows or len(times_s)
            numbers = video.numbers_at(times_s).tolist()
            frames = (frame for frame in video.frames(np.unique(numbers)) if frame is not None)
            rows = _rows(numbers, frames)
            _compare(ours, rows, len(times_s), showing, fps)
    except VideoError as error:
        ours.refused = str(error)
    if video is not None:
        ours.decoder, ours.remarks = video.decoder, list(video.remarks)
    return ours


def _compare(ours: Ours, rows: Iterator[NDArray[np.uint8]], count: int, showing: Showing, fps: float) -> None:
    """Note how these rows differ from the plain decoding's."""
    instants_s = showing.instants(fps) if showing.starts_s else []
    numbers = [showing.at(instant_s) for instant_s in instants_s]
    if count != len(numbers):
        ours.unlike = f"{count} rows at {fps:g} fps, not {len(numbers)}"
    plain_rows = _rows(numbers, showing.frames(numbers))
    compared: tuple[object, object] = (None, None)
    for row, (picture, instant_s) in enumerate(zip(rows, instants_s, strict=False)):
        plain = next(plain_rows, None)
        if plain is None or (picture is compared[0] and plain is compared[1]):
            continue
        compared = picture, plain
        if picture.shape != plain.shape:
            sizes = [f"{shape[1]}×{shape[0]}" for shape in (picture.shape, plain.shape)]
            ours.unlike = ours.unlike or f"row {row} is {sizes[0]}, not {sizes[1]}"
            continue
        difference = int(np.abs(picture.astype(np.int16) - plain).max())
        ours.difference = max(ours.difference, difference)
        if difference > GREY_LEVELS and ours.unlike is None:
            ours.unlike = f"{difference} grey levels off at {instant_s:g} s"
    for _ in rows:  # only at its end has a video been found whole
        pass


def _rows(numbers: Sequence[int], frames: Iterator[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    """Yield each row's frame, of frames that come once each."""
    last = None
    for number in numbers:
        if number != last:
            frame = next(frames, None)
            last = number
        if frame is not None:
            yield frame
    for _ in frames:
        pass


def _disagreements(plain: str, every: Sequence[Ours]) -> Iterator[tuple[str, str]]:
    """Yield (kind, what). decord may decline a file: then another decoder is to take it."""
    default, *others = every
    if default.refused is not None and plain == PLAYS:
        yield "false refusal", default.refused
    elif default.refused is None and default.unlike is not None:
        yield "wrong rows", default.unlike
    elif default.refused is None and plain != PLAYS and not default.remarks:
        yield "missed damage", plain
    for ours in others:
        if ours.refused is None and ours.unlike is not None and default.unlike is None:
            yield "decoders", f"{ours.asked}: {ours.unlike}"
        elif (
            ours.refused is not None and default.refused is None and plain == PLAYS and ours.asked != "decord"
        ):
            yield "decoders", f"{ours.asked} refuses: {ours.refused}"
        elif ours.refused is None and default.refused is not None and plain != PLAYS and not ours.remarks:
            yield "missed damage", f"by {ours.asked}: {plain}"


# ------------------------------------------------------------------------------------------- many files


def serve(reader: str) -> None:
    """What a worker process runs: a request a line, an answer a line."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    module, _, name = reader.partition(":")
    read: Reader = getattr(importlib.import_module(module), name)
    for line in sys.stdin:
        path, rates = json.loads(line)
        answer: dict[str, Any]
        try:
            answer = asdict(survey_file(Path(path), rates, read))
            answer["path"] = path
        except NoVideo:
            answer = {}
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            answer = {"failure": f"{type(error).__name__} at {where.name}:{where.lineno}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


class Worker:
    """A process that surveys one file after another, and is replaced where one of them ends it."""

    def __init__(self, reader: str, deadline_s: float) -> None:
        self._reader, self._deadline_s = reader, deadline_s
        self._process: subprocess.Popen[str] | None = None

    def survey(self, path: Path, rates: Sequence[float]) -> Finding | None:
        """The finding, or None where there is no video."""
        if self._process is None:
            command = [sys.executable, "-c", f"from benchmarks.survey import serve; serve({self._reader!r})"]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            self._process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, **pipes)
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps([str(path), list(rates)]) + "\n")
        process.stdin.flush()
        with selectors.DefaultSelector() as selector:  # takes any number of open files
            selector.register(process.stdout, selectors.EVENT_READ)
            ready = selector.select(self._deadline_s)
        line = process.stdout.readline() if ready else ""
        if not line:
            failure = "crash" if ready else f"no answer within {self._deadline_s:g} s"
            self.stop()
            if ready and process.returncode < 0:
                failure = f"crash ({signal.Signals(-process.returncode).name})"
            return Finding(path, disagreements=[("failure", failure)])
        answer = json.loads(line)
        if "failure" in answer:
            return Finding(path, disagreements=[("failure", answer["failure"])])
        if not answer:
            return None
        answer["path"] = path
        answer["ours"] = [Ours(**ours) for ours in answer["ours"]]
        answer["disagreements"] = [(kind, what) for kind, what in answer["disagreements"]]
        return Finding(**answer)

    def stop(self) -> None:
        if self._process is not None:
            if self._process.poll() is None:
                self._process.kill()
            self._process.wait()
            self._process = None


def survey(
    paths: Sequence[Path], rates: Sequence[float], *, jobs: int, deadline_s: float, reader: str
) -> Iterator[tuple[Path, Finding | None]]:
    """Yield each file's finding as it is there; None: no video."""
    idle: SimpleQueue[Worker] = SimpleQueue()
    workers = [Worker(reader, deadline_s) for _ in range(jobs)]
    for worker in workers:
        idle.put(worker)

    def one(path: Path) -> tuple[Path, Finding | None]:
        worker = idle.get()
        try:
            return path, worker.survey(path, rates)
        finally:
            idle.put(worker)

    try:
        with ThreadPoolExecutor(jobs) as pool:
            for done in as_completed([pool.submit(one, path) for path in paths]):
                yield done.result()
    finally:
        for worker in workers:
            worker.stop()


@click.command(help=as_written(__doc__))
@click.argument("folder", type=click.Path(exists=True, path_type=Path), required=False)
@click.option("--thorough", is_flag=True, help="Compare at 25 rows a second, too.")
@click.option("--limit", type=click.IntRange(1), help="At most so many files, drawn at random.")
@click.option("--seed", default=0, show_default=True, help="Of what is drawn.")
@click.option("--jobs", default=os.cpu_count() or 1, show_default=True, type=click.IntRange(1))
@click.option("--deadline", default=600.0, show_default=True, help="Seconds for one file.")
@click.option("--json", "as_json", is_flag=True, help="Every finding, as JSON.")
@click.option("--quick", is_flag=True, help="Four videos that are written for it.")
@click.option("--reader", default="extract.decode:read_video", hidden=True, help="For tests: what reads.")
def main(
    *,
    folder: Path | None,
    thorough: bool,
    limit: int | None,
    seed: int,
    jobs: int,
    deadline: float,
    as_json: bool,
    quick: bool,
    reader: str,
) -> None:
    if (folder is None) == (not quick):
        raise click.UsageError("name a folder, or give --quick")
    with tempfile.TemporaryDirectory() as place:
        if folder is None:
            folder = Path(place)
            write_examples(folder)
        root = folder if folder.is_dir() else folder.parent
        paths = sorted(path for path in root.rglob("*") if path.is_file()) if folder.is_dir() else [folder]
        if limit is not None and limit < len(paths):
            random = np.random.default_rng(seed)
            paths = [paths[at] for at in sorted(random.choice(len(paths), limit, replace=False))]
        findings: list[Finding] = []
        rates = (1.0, 25.0) if thorough else (1.0,)
        done = survey(paths, rates, jobs=jobs, deadline_s=deadline, reader=reader)
        with click.progressbar(done, len(paths), label="surveying", file=sys.stderr) as bar:
            findings = [finding for _, finding in bar if finding is not None]
    findings.sort(key=lambda finding: finding.path)
    for finding in findings:
        finding.path = finding.path.relative_to(root)
    if as_json:
        click.echo(json.dumps([asdict(f) for f in findings], default=printable, indent=1))
    else:
        report(findings, ignored=len(paths) - len(findings))
    if any(finding.disagreements for finding in findings):
        raise SystemExit(1)


def report(findings: Sequence[Finding], *, ignored: int) -> None:
    console = Console(width=min(max(shutil.get_terminal_size().columns, 80), 120), highlight=False)
    for kind in KINDS:
        table = Table("file", "plain", "ours", title=kind, title_justify="left", expand=True)
        for finding in findings:
            if whats := [what for its_kind, what in finding.disagreements if its_kind == kind]:
                holds = f"{finding.container} {finding.codec}, {finding.frames} frames, {finding.rows} rows"
                ours = "\n".join(_verdicts(finding.ours) or whats)
                table.add_row(f"{printable(finding.path)}\n[dim]{holds}[/]", finding.plain, ours)
        if table.row_count:
            console.print(table)
    counts: Counter[str] = Counter()
    refusals: Counter[str] = Counter()
    decoders: Counter[str] = Counter()
    for finding in findings:
        for kind in {kind for kind, _ in finding.disagreements}:
            counts[kind] += 1
        if finding.disagreements:
            continue
        default = finding.ours[0]
        if default.refused is not None:
            counts["refused by both"] += 1
            refusals[re.sub(r"[\d.]+", "#", default.refused)] += 1
        else:
            counts["right, with a remark" if default.remarks else "right"] += 1
            decoders[default.decoder] += 1
    chosen = ", ".join(f"{decoder} {count}" for decoder, count in sorted(decoders.items()))
    console.print(f"{len(findings)} videos ({ignored} other files); decoded right by: {chosen or 'none'}")
    for what, count in counts.most_common():
        console.print(f"{count:7}  {what}")
    if refusals:
        console.print("refused by both, because:")
        for reason, count in refusals.most_common():
            console.print(f"{count:7}  {reason}", soft_wrap=True)


def _verdicts(every: Sequence[Ours]) -> list[str]:
    """A line for each verdict, with the decoders that come to it, as asked for (and which it was)."""
    by_verdict: dict[str, list[str]] = {}
    for ours in every:
        name = ours.asked if ours.decoder in ("", ours.asked) else f"{ours.asked} ({ours.decoder})"
        by_verdict.setdefault(ours.verdict, []).append(name)
    return [f"{', '.join(names)}: {verdict}" for verdict, names in by_verdict.items()]


def write_examples(folder: Path) -> None:
    """Two whole videos, one that was cut off and one that is damaged."""
    write_video(folder / "whole.mp4", noisy_frames(60), fps=25)
    write_video(folder / "whole.avi", noisy_frames(60), fps=25, codec="mpeg4")
    content = (folder / "whole.avi").read_bytes()
    (folder / "cut.avi").write_bytes(content[: len(content) // 2])
    damaged = bytearray((folder / "whole.mp4").read_bytes())
    first, last = media_data(folder / "whole.mp4")
    damaged[(first + last) // 2 : last] = bytes(last - (first + last) // 2)
    (folder / "damaged.mp4").write_bytes(damaged)


if __name__ == "__main__":
    main()
