"""paper-tables: a paper's table or figure from a cache, the paper's value beside ours."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from cache_schema import FeatureCache, UserError
from cache_schema.annotations import read_labels
from cache_schema.command import tells_mistakes
from policy.cli import (
    AS_JSON,
    COARSE_HIDDEN,
    DATA,
    DEFAULTS,
    DEVICE,
    FAST_FORWARD,
    FINE_HIDDEN,
    FRAME_GLIMPSE,
    FRAMES,
    LITEEVAL,
    OPTIMIZATION,
    SYNC,
    options,
)
from policy.config import RunConfig
from policy.tables.datasets import DATASETS

STREAMS = options(
    click.option(
        "--coarse", default="mobilenetv2_112", show_default=True, help="Stream with the cheap features."
    ),
    click.option(
        "--fine", default="resnet101_224", show_default=True, help="Stream with the expensive ones."
    ),
    click.option(
        "--dataset",
        type=click.Choice([*DATASETS, "none"]),
        default="none",
        show_default=True,
        help="The paper's data set that the cache holds: takes its --coarse-hidden, --fine-hidden and --batch "
        "(Sec. 4.1) where they are not given, and sets our values against the paper's for it.",
    ),
)
TABLE = options(
    click.option(
        "--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Runs of each row."
    ),
    click.option(
        "--runs",
        type=click.Path(path_type=Path),
        default=Path("runs"),
        show_default=True,
        help="Folder of the run folders, which later calls reuse.",
    ),
    click.option(
        "--out", type=click.Path(path_type=Path), help="Folder for table.md, table.csv and figure.png."
    ),
    click.option(
        "--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Trainings at a time."
    ),
    DEVICE,
    AS_JSON,
)


class Tables(click.Group):
    """The built tables, and for the others a line that says that they are not built."""

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        from policy.tables.catalogue import KNOWN

        command = super().get_command(context, name)
        return _not_built(name) if command is None and name in KNOWN else command


def _not_built(name: str) -> click.Command:
    @click.command(
        name,
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )
    @tells_mistakes
    def say() -> None:
        from policy.tables.catalogue import COMMANDS

        raise UserError(f"{name} is not built yet; built: {', '.join(COMMANDS)} (see paper-tables list)")

    return say


@click.group(cls=Tables)
@click.version_option(package_name="thriftvid")
def paper_tables() -> None:
    """Make a paper's table or figure from a feature cache, the paper's value beside ours.

    \b
    Example:
      paper-tables list
      paper-tables liteeval-1 --cache CACHE --labels labels.csv --out table
    """


@paper_tables.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
@tells_mistakes
def list_tables(as_json: bool) -> None:
    """Say which tables and figures there are, and which of them are built.

    \b
    Example:
      paper-tables list
    """
    from policy.tables.catalogue import COMMANDS, KNOWN

    if as_json:
        said = [{"name": name, "what": what, "built": name in COMMANDS} for name, what in KNOWN.items()]
        click.echo(json.dumps(said, indent=2, ensure_ascii=False))
        return
    width = max(map(len, KNOWN))
    for name, what in KNOWN.items():
        click.echo(f"{name:<{width}}  {'built        ' if name in COMMANDS else 'not built yet'}  {what}")


@paper_tables.command("costs")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for costs.md and costs.csv.")
@AS_JSON
@tells_mistakes
def costs(out: Path | None, as_json: bool) -> None:
    """Every cost that the two papers print, computed again, and those that do not add up. Needs no cache.

    Figures that depend on what a policy learned are taken apart as far as their table allows.

    \b
    Example:
      paper-tables costs --out costs
    """
    from policy.tables.costs import terminal, text
    from policy.tables.output import check_folder

    if out is not None:
        check_folder(out)
        for path in text.write_report(out):
            click.echo(f"wrote {path}", err=True)
    _print(text.as_json() if as_json else terminal.render(colour=sys.stdout.isatty()))


@paper_tables.command("liteeval-1")
@options(
    DATA,
    STREAMS,
    LITEEVAL,
    FRAMES,
    FRAME_GLIMPSE,
    FAST_FORWARD,
    COARSE_HIDDEN,
    FINE_HIDDEN,
    SYNC,
    OPTIMIZATION,
    TABLE,
)
@click.pass_context
@tells_mistakes
def liteeval_1(context: click.Context, /, **given: Any) -> None:
    """Table 1 of the LiteEval paper: offline recognition, accuracy and computation of each method.

    Trains what is missing and reuses what --runs holds of the same configuration, features and labels. A
    command that was stopped goes on where it stopped when it is given again.

    \b
    Example:
      paper-tables liteeval-1 --cache CACHE --labels labels.csv \\
        --coarse mobilenetv2_112 --fine resnet101_224 --gamma 0.05 --seeds 3 --out table
    """
    _make("liteeval-1", context, given)


def _make(name: str, context: click.Context, given: dict[str, Any]) -> None:
    # Late, because torch and matplotlib take a second or two and --help has no use for them.
    from policy.runs import choose_device
    from policy.tables import terminal, text
    from policy.tables.catalogue import BUILT
    from policy.tables.output import check_folder, write_report
    from policy.tables.progress import Told
    from policy.tables.report import make_report
    from policy.tables.running import Source, carry_out

    table = BUILT[name]
    config = _config(context, given)
    # All that can be wrong with the request is looked for before the first training.
    config.check()
    choose_device(given["device"])
    out: Path | None = given["out"]
    if out is not None:
        check_folder(out)
    labels = read_labels(given["labels"], given["labels_format"])
    source = Source.open(config, FeatureCache(given["cache"]), labels)
    for note in source.both.notes:
        click.echo(note, err=True)
    seeds = range(given["seeds"])
    built = [experiment for experiment in table.experiments if experiment.method is not None]
    runs = carry_out(
        built,
        config,
        seeds,
        source,
        given["runs"],
        device=given["device"],
        jobs=given["jobs"],
        progress=Told(len(built) * len(seeds), config.epochs),
    )
    report = make_report(
        table,
        runs,
        source.both,
        seeds=seeds,
        labels_name=given["labels"].name,
        dataset=None if given["dataset"] == "none" else given["dataset"],
        command=_command(context),
    )
    if out is not None:
        for path in write_report(report, out):
            click.echo(f"wrote {path}", err=True)
    _print(text.as_json(report) if given["as_json"] else terminal.render(report, colour=sys.stdout.isatty()))


def _config(context: click.Context, given: dict[str, Any]) -> RunConfig:
    """What is common to all rows; the paper's settings for a data set stand in for what was not given."""
    config = RunConfig(
        method="liteeval", **{name: value for name, value in given.items() if name in DEFAULTS}
    )
    if given["dataset"] == "none":
        return config
    paper = DATASETS[given["dataset"]]

    def chosen(name: str, preset: int) -> int:
        asked = context.get_parameter_source(name) is not ParameterSource.DEFAULT
        return int(given[name]) if asked else preset

    return replace(
        config,
        coarse_hidden=chosen("coarse_hidden", paper.coarse_hidden),
        fine_hidden=chosen("fine_hidden", paper.fine_hidden),
        batch=chosen("batch", paper.batch),
    )


def _command(context: click.Context) -> str:
    """The command line, with what was given and nothing else; what only concerns the printing is left out."""
    words = ["paper-tables", str(context.info_name)]
    for parameter in context.command.params:
        name = str(parameter.name)
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if not isinstance(parameter, click.Option) or not given or name == "as_json":
            continue
        value = context.params[name]
        if parameter.is_flag:
            words += parameter.opts[:1] if value else parameter.secondary_opts[:1]
        else:
            words += [parameter.opts[0], str(value)]
    return shlex.join(words)


def _print(content: str) -> None:
    """Also where the output is not in UTF-8: there a ± becomes a question mark, and no digit is lost."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    click.echo(content.encode(encoding, "replace").decode(encoding), nl=False)
