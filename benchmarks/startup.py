"""How soon do commands answer that have little to do: help, a mistake, and what was done already?

    python -m benchmarks.startup
    python -m benchmarks.startup --before CHECKOUT      # another version beside this one, in turn, and their ratio
    python -m benchmarks.startup --quick                # a smoke test

Each command runs in a process of its own, as in a shell. Given are seconds by the clock and, in brackets, of the
processor, of all processes that the command starts: on a busy machine these tell more.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click

from benchmarks.tables import as_written, load, machine, markdown, spent_in_turn
from benchmarks.videos import numbered_frames, write_video

HERE = Path(__file__).parents[1]
COMMANDS = {
    "batch-extract": "extract.cli:batch_extract",
    "finetune-backbone": "extract.finetune.cli:finetune_backbone",
    "feature-cache": "cache_schema.cli:feature_cache",
    "run-policy": "policy.cli.run_policy:run_policy",
    "train-policy": "policy.cli.train_policy:train_policy",
    "paper-tables": "policy.tables.cli:paper_tables",
}
VIDEOS = 6
STREAMS = "--stream timm:resnet10t@64 --stream mobilenetv2_112 --weights random:0"
EXTRACT = f"batch-extract videos --cache cache {STREAMS}"
READ = "--cache cache --labels labels.csv --coarse resnet10t_64 --fine mobilenetv2_112"
TRAIN = f"train-policy liteeval {READ} --epochs 1 --out run"
TABLE = f"paper-tables liteeval-9 {READ} --epochs 1 --seeds 1 --resamples 0 --runs runs --out table"
FIRST = (EXTRACT, TRAIN, TABLE)
CASES: dict[str, dict[str, str]] = {
    "help": {command: f"{command} --help" for command in COMMANDS}
    | {"train-policy liteeval": "train-policy liteeval --help"},
    "a mistake": {
        "batch-extract, stream": EXTRACT.replace("mobilenetv2_112", "mobilenetv2_11"),
        "batch-extract, weights": EXTRACT.replace("random:0", "weights.pt"),
        "finetune-backbone, labels": "finetune-backbone videos --labels no.csv --stream mobilenetv2_112 --out t",
        "train-policy, stream": TRAIN.replace("resnet10t_64", "resnet10t_65"),
        "train-policy, labels": TRAIN.replace("labels.csv", "wrong.csv"),
        "train-policy, option": f"{TRAIN} --gamma 7",
        "paper-tables, stream": TABLE.replace("resnet10t_64", "resnet10t_65"),
        "paper-tables, labels": TABLE.replace("labels.csv", "wrong.csv"),
        "run-policy, run": "run-policy no-run videos --out predictions.csv",
    },
    "nothing to do": {
        "batch-extract": EXTRACT,
        "train-policy": TRAIN,
        "paper-tables": TABLE,
        "feature-cache info": "feature-cache info cache",
    },
}


def run(line: str, folder: Path, checkout: Path, *, code: int) -> None:
    command, *words = line.split()
    module, _, function = COMMANDS[command].partition(":")
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"from {module} import {function} as main; main(prog_name={command!r})",
            *words,
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != code:
        raise click.ClickException(f"{line}: exit code {done.returncode}, not {code}\n{done.stderr}")


def prepare(folder: Path) -> None:
    """Videos, labels, and what the commands make of them."""
    (folder / "videos").mkdir()
    rows = ["video_id,label,subset"]
    for n in range(VIDEOS):
        write_video(folder / "videos" / f"v{n}.mp4", numbered_frames(75, first=100 * n), fps=25)
        rows.append(f"v{n},{'ab'[n % 2]},{'train' if n < VIDEOS - 2 else 'val'}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    (folder / "wrong.csv").write_text("\n".join(["video,name", *rows[1:]]) + "\n")
    for line in FIRST:
        run(line, folder, HERE, code=0)


@click.command(help=as_written(__doc__))
@click.option("--before", type=click.Path(path_type=Path, exists=True, file_okay=False), help="A checkout.")
@click.option("--repeats", default=3, show_default=True)
@click.option("--quick", is_flag=True, help="Each once.")
def main(*, before: Path | None, repeats: int, quick: bool) -> None:
    versions = {"now": HERE} | ({"before": before.absolute()} if before else {})
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        for kind, cases in CASES.items():
            for case, line in cases.items():
                code = 2 if kind == "a mistake" else 0
                works: dict[str, Callable[[], object]] = {
                    version: partial(run, line, folder, checkout, code=code)
                    for version, checkout in versions.items()
                }
                spent = spent_in_turn(works, 1 if quick else repeats)
                ratio = [spent["before"].processor_s / spent["now"].processor_s] if before else []
                cells = [str(spent[version]) for version in versions]
                rows.append([f"{kind}: {case}", *cells, *(f"{value:.1f}" for value in ratio)])
    header = ["command", *versions, *(["before / now"] if before else [])]
    click.echo(f"{machine()}; load {load()}\n")
    click.echo(markdown(header, rows))


if __name__ == "__main__":
    main()
