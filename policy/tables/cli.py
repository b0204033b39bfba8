"""paper-tables: a paper's table or figure from a cache, the paper's value beside ours."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from cache_schema import FeatureCache, UserError
from cache_schema.annotations import READERS, read_labels
from cache_schema.command import tells_mistakes
from policy.baselines.config import FramesConfig, GlimpsesConfig, JumpsConfig
from policy.config import RunConfig, method_options
from policy.liteeval.config import GumbelConfig, NetworkConfig, PenaltyConfig, WarmupConfig
from policy.options import (
    AS_JSON,
    DATA,
    DEVICE,
    RECIPE,
    C,
    given_options,
    given_settings,
    options,
    settings,
    training,
)
from policy.recipes import RECIPES
from policy.registry import configure
from policy.selection.config import SelectorConfig, check_given
from policy.tables.catalogue import COMMANDS, EXHIBITS, KNOWN, PAPERS, SELECTION, TABLES, takes_videos
from policy.tables.datasets import DATASETS, PaperDataset
from policy.tables.datasets import LITEEVAL as LITEEVAL_DATASETS
from policy.tables.datasets import SELECTION as SELECTION_DATASETS

if TYPE_CHECKING:
    from policy.tables.experiment import PaperTable
    from policy.tables.making import Setting

ROLES = options(
    click.option(
        "--coarse", metavar="STREAM", help="Cheap features, in place of those that the paper takes."
    ),
    click.option(
        "--fine",
        metavar="STREAM",
        help="Expensive features, where all rows take the same ones: in their place.",
    ),
)
SUBSTITUTE = click.option(
    "--substitute",
    metavar="PAPER=OURS",
    multiple=True,
    help="Read stream OURS where the paper has PAPER, and mark the rows; repeat it.",
)


def _dataset(names: Iterable[str], what: str) -> Callable[[C], C]:
    return click.option(
        "--dataset",
        type=click.Choice([*names, "none"]),
        default="none",
        show_default=True,
        help=f"The paper's data set that the cache holds: takes its {what} where they are not given, and sets our "
        "values against the paper's for it.",
    )


_SIZES = "--coarse-hidden, --fine-hidden and --batch (Sec. 4.1)"
_CLIPS = "pool of models, --rows and --epochs (Sec. 4)"
"""What `_dataset` says that a data set takes, of LiteEval and of model selection."""
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
        "--resamples",
        type=click.IntRange(min=0),
        default=1000,
        show_default=True,
        help="Bootstrap samples of the videos for the intervals; 0: no intervals.",
    ),
    click.option(
        "--out",
        type=click.Path(path_type=Path),
        help="Folder for table.md, table.csv, table.tex and figure.png.",
    ),
    click.option(
        "--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Trainings at a time."
    ),
    click.option(
        "--scheduler",
        metavar="ADDRESS",
        help="Train on the Dask cluster of this scheduler instead, such as tcp://10.0.0.1:8786. Cache and --runs "
        "must have the same paths on every machine.",
    ),
    DEVICE,
    AS_JSON,
)


VIDEOS = click.option(
    "--videos",
    type=click.Path(path_type=Path),
    help="Folder of the videos, searched recursively, to show the frames that were chosen.",
)


TITLES = {"liteeval": "LiteEval", "selection": "Model selection"}
"""Of the papers."""


class Tables(click.Group):
    """The built tables, and for the others a line that says that they are not built."""

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
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

    docs/tables.md says for each table what to extract, and how to make one of your own.
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
    from policy.tables.costs import showing
    from policy.tables.output import check_folder

    if out is not None:
        check_folder(out)
        for path in showing.write_report(out):
            click.echo(f"wrote {path}", err=True)
    _print(showing.as_json() if as_json else showing.render(colour=sys.stdout.isatty()))


@paper_tables.command("detections")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--annotations",
    required=True,
    type=click.Path(path_type=Path),
    help="Annotations with segments: a file, or the folder of a benchmark's own files.",
)
@click.option(
    "--format",
    "annotations_format",
    type=click.Choice(sorted(READERS)),
    help="Format of the annotations; by default what names and first lines say.",
)
@click.option("--subset", help="Subset to judge; by default the one that the detections are of.")
@click.option(
    "--ious",
    metavar="FIRST:LAST:STEP",
    help="Thresholds of IoU; by default 0.1:0.5:0.1 for MultiTHUMOS, 0.5:0.95:0.05 for ActivityNet, and "
    "0.1:0.7:0.1 for THUMOS'14 and all others.",
)
@click.option("--per-class", is_flag=True, help="Show average precision of each class, too.")
@click.option(
    "--resamples",
    type=click.IntRange(min=0),
    default=1000,
    show_default=True,
    help="Bootstrap samples of the videos for the intervals; 0: no intervals.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for table.md, table.csv, table.tex and report.html.",
)
@AS_JSON
@click.pass_context
@tells_mistakes
def detections(
    context: click.Context,
    /,
    file: Path,
    annotations: Path,
    annotations_format: str | None,
    subset: str | None,
    ious: str | None,
    per_class: bool,
    resamples: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Anybody's detections: mAP by three protocols, on every set of videos that papers evaluate. Needs no cache.

    FILE is a .json in ActivityNet's form, {"results": {VIDEO: [{"label", "score", "segment"}]}}, or a .csv with
    the columns video_id,label,start_s,end_s,score.

    \b
    Example:
      paper-tables detections detections.json --annotations THUMOS14 --per-class --out judged
    """
    from policy.sheets import markup, terminal
    from policy.tables import output
    from policy.tables.detection_sheets import document
    from policy.tables.detections import judge, parse_ious

    if out is not None:
        output.check_folder(out)
    judgement = judge(
        file,
        read_labels(annotations, annotations_format),
        subset=subset,
        ious=None if ious is None else parse_ious(ious),
        resamples=resamples,
    )
    table = document(judgement, _command(context), per_class=per_class)
    if out is not None:
        for path in output.write(table, out):
            _say(f"wrote {path}")
    _print(markup.as_json(table) if as_json else terminal.render(table, colour=sys.stdout.isatty()))


_LITEEVAL = options(
    DATA,
    ROLES,
    SUBSTITUTE,
    RECIPE,
    *map(
        settings,
        (PenaltyConfig, WarmupConfig, GumbelConfig, FramesConfig, GlimpsesConfig, JumpsConfig, NetworkConfig),
    ),
    training(RunConfig, without=("seed",)),
    TABLE,
)
# What a selector looks at, rows say themselves.
_SELECTOR = settings(SelectorConfig, *method_options(SelectorConfig), without=("coarse",))
OF_LITEEVAL = options(_LITEEVAL, _dataset(LITEEVAL_DATASETS, _SIZES))
OF_SELECTION = options(
    DATA,
    SUBSTITUTE,
    _SELECTOR,
    training(SelectorConfig, without=("seed",)),
    TABLE,
    _dataset(SELECTION_DATASETS, _CLIPS),
)
OF_ALL = options(_LITEEVAL, _SELECTOR, _dataset(DATASETS, f"{_SIZES}, or the {_CLIPS}"))
"""Of tables that may have rows of both. Those that choose from a pool have the selector's --epochs and --lr
(`train-policy selector`) where none are given."""


@paper_tables.command("run")
@click.argument("folder", type=click.Path(path_type=Path))
@options(OF_ALL, VIDEOS)
@click.pass_context
@tells_mistakes
def run(context: click.Context, /, folder: Path, **given: Any) -> None:
    """A table of your own: a FOLDER with table.toml and a file for each row, as docs/tables.md has them.

    Trains what is missing and reuses what --runs holds, also of other tables.

    \b
    Example:
      paper-tables run my-table --cache CACHE --labels labels.csv --seeds 3 --out table
    """
    from policy.tables.reading import read_table

    table = read_table(folder)
    if given["videos"] is not None and not table.videos:
        raise UserError("--videos: for a table that shows frames, which says videos = true in its table.toml")
    _make(table, context, given)


def _add_table(name: str) -> None:
    @OF_LITEEVAL
    @click.pass_context
    @tells_mistakes
    def command(context: click.Context, /, **given: Any) -> None:
        from policy.tables.reading import EXPERIMENTS, read_table

        _make(read_table(EXPERIMENTS / name), context, given)

    number = name.removeprefix("liteeval-")
    help_text = f"""Table {number} of the LiteEval paper: {KNOWN[name]}.

    Trains what is missing and reuses what --runs holds of the same configuration, features and labels, also of
    other tables. A command that was stopped goes on where it stopped when it is given again.

    \b
    Example:
      paper-tables {name} --cache CACHE --labels labels.csv \\
        --dataset {TABLES[name]} --seeds 3 --out table
    """
    paper_tables.command(name, help=help_text, short_help=KNOWN[name])(command)


for _name in TABLES:
    _add_table(_name)


def _add_exhibit(name: str) -> None:
    taken, dataset = (OF_SELECTION, SELECTION[name]) if name in SELECTION else (OF_LITEEVAL, EXHIBITS[name])

    videos = takes_videos(name)

    @options(taken, *([VIDEOS] if videos else []))
    @click.pass_context
    @tells_mistakes
    def command(context: click.Context, /, **given: Any) -> None:
        from policy.tables.reading import EXPERIMENTS, read_table

        _make(read_table(EXPERIMENTS / name), context, given)

    help_text = f"""{KNOWN[name][0].upper()}{KNOWN[name][1:]}{_of_the_paper(name)}.

    Trains what is missing and reuses what --runs holds, also of tables. --out gets the picture, the numbers behind
    it and a page, report.html, that needs nothing beside it.

    \b
    Example:
      paper-tables {name} --cache CACHE --labels labels.csv \\
        --dataset {dataset} --seeds 3 --out {name}{" --videos VIDEOS" * videos}
    """
    paper_tables.command(name, help=help_text, short_help=KNOWN[name])(command)


def _of_the_paper(name: str) -> str:
    paper, _, number = name.partition("-")
    if number.startswith("fig"):
        return f" ({TITLES[paper]} paper, Figure {number.removeprefix('fig')})"
    return f" ({TITLES[paper]} paper, Table {number})" if number.isdigit() else ""


for _name in (*EXHIBITS, *SELECTION):
    _add_exhibit(_name)


@paper_tables.command("all")
@options(OF_ALL, VIDEOS)
@click.option(
    "--paper", type=click.Choice([*PAPERS]), default="liteeval", show_default=True, help="Whose tables."
)
@click.option("--only", metavar="NAME", multiple=True, help="Of these only; repeat it.")
@click.pass_context
@tells_mistakes
def all_tables(context: click.Context, /, paper: str, only: tuple[str, ...], **given: Any) -> None:
    """Every table and figure of a paper from one cache, and one page with all of them.

    Needs --out, which gets a folder for each and report.html. Stopped, it goes on where it stopped.

    \b
    Example:
      paper-tables all --cache CACHE --labels labels.csv --out report \\
        --substitute dpn107_224=resnet101_224 --substitute slowfast_8x8_256=resnet101_224
      paper-tables all --paper selection --cache CACHE --labels labels.csv --out report
    """
    from policy.sheets import page
    from policy.tables import output
    from policy.tables.documents import document
    from policy.tables.making import fill, order
    from policy.tables.reading import EXPERIMENTS, read_table
    from policy.tables.selection import of_dataset
    from policy.tables.streams import for_each

    out: Path | None = given["out"]
    if out is None:
        raise UserError("--out FOLDER: say where the tables go")
    if given["coarse"] or given["fine"]:
        raise UserError(
            "tables have several fine streams: say which by --substitute, not by --coarse and --fine"
        )
    names = [name for name in KNOWN if name in PAPERS[paper]]
    unknown = [name for name in only if name not in names]
    if unknown:
        raise UserError(f"--only {unknown[0]}: of --paper {paper} there are: {', '.join(names)}")
    setting = _setting(given)
    output.check_folder(out)
    tables = [of_dataset(read_table(EXPERIMENTS / name), setting.dataset) for name in names]
    ordered = [
        (order(table, setting, substitutes), tuple(substitutes))
        for table, substitutes in zip(tables, for_each(tables, given["substitute"]), strict=True)
        if not only or table.name in only
    ]
    documents = []
    for number, (one, substitutes) in enumerate(ordered, 1):
        name = one.table.name
        _say(f"{number}/{len(ordered)} {one.table.title}")
        alone = {} if one.table.videos else {"videos": None}
        command = _command(
            context, name, paper=None, only=None, out=out / name, substitute=substitutes, **alone
        )
        made = document(fill(one, command, _say), drawn=True)
        output.check_folder(out / name)
        output.write(made, out / name)
        documents.append(made)
    everything = page.render(f"{TITLES[paper]}: every table and figure", documents)
    for path in output.write_files({output.REPORT_HTML: everything.encode()}, out):
        _say(f"wrote {path}")


def _make(table: PaperTable, context: click.Context, given: dict[str, Any]) -> None:
    # Late, because torch and matplotlib take a second or two and --help has no use for them.
    from policy.sheets import terminal
    from policy.sheets.markup import as_json
    from policy.tables import output
    from policy.tables.documents import document
    from policy.tables.making import fill, order

    setting = _setting(given)
    if given["out"] is not None:
        output.check_folder(given["out"])
    ordered = order(table, setting, given["substitute"], coarse=given.get("coarse"), fine=given.get("fine"))
    for line in _overridden(ordered.table, given):
        _say(line)
    made = document(fill(ordered, _command(context), _say), drawn=given["out"] is not None)
    if given["out"] is not None:
        for path in output.write(made, given["out"]):
            _say(f"wrote {path}")
    _print(as_json(made) if given["as_json"] else terminal.render(made, colour=sys.stdout.isatty()))


def _setting(given: dict[str, Any]) -> Setting:
    """Raises UserError where it makes no sense, whatever the table."""
    from policy.tables.making import Setting
    from policy.tables.workers import Workers

    values, of_pools = _values(given)
    setting = Setting(
        values=values,
        of_pools=of_pools,
        models=given.get("models", ()),
        cache=FeatureCache(given["cache"]),
        labels=read_labels(given["labels"], given["labels_format"]),
        dataset=None if given["dataset"] == "none" else given["dataset"],
        seeds=range(given["seeds"]),
        runs=given["runs"],
        resamples=given["resamples"],
        workers=Workers(given["jobs"], given["scheduler"]),
        device=given["device"],
        videos=given.get("videos"),
    )
    setting.check()
    return setting


def _say(line: str) -> None:
    click.echo(line, err=True)


def _values(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values that all rows have in common: what was given, then the paper's for a data set, then a recipe's.

    And those of rows that choose from a pool, which have no recipe, and none of LiteEval's values.
    """
    asked = given_settings()
    asked.pop("models", None)  # `Setting.models`
    recipe = RECIPES.get(given.get("recipe") or "", {})
    paper = DATASETS.get(given["dataset"], PaperDataset("none"))
    config = configure("selector", asked)
    assert isinstance(config, SelectorConfig)
    check_given(config, asked)
    # Of the labels all rows must think alike.
    alike = {name: value for name, value in recipe.items() if name == "multi_label"}
    return {**recipe, **paper.settings, **asked}, {**alike, **paper.of_pools, **asked}


def _overridden(table: PaperTable, given: dict[str, Any]) -> list[str]:
    """A line for each option that was given, and that rows have a setting of their own for."""
    own = {
        name: sum(name in one.settings for one in table.experiments)
        for one in table.experiments
        for name in one.settings
    }
    asked = given_options()
    flags = {one.name: one.opts[0] for one in click.get_current_context().command.params}
    return [
        f"{flags[name]}: not for {count} of the rows, whose own setting it is"
        for name, count in own.items()
        if name in asked
    ]


def _command(context: click.Context, table: str | None = None, **changed: Any) -> str:
    """The command line, with what was given and nothing else; what only concerns the printing is left out.

    Args:
        table: one of those that `all` makes, for the command that makes it alone.
        changed: values of options that are other for it; None for those that are only of `all`.
    """
    words = ["paper-tables", table or str(context.info_name)]
    alone = context.command if table is None else paper_tables.commands[table]
    known = {parameter.name for parameter in alone.params}
    for parameter in context.command.params:
        name = str(parameter.name)
        if name not in known:
            continue
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        value = changed.get(name, context.params[name])
        if not given or name == "as_json" or value is None:
            continue
        if not isinstance(parameter, click.Option):
            words.append(str(value))
        elif parameter.is_flag:
            words += parameter.opts[:1] if value else parameter.secondary_opts[:1]
        else:
            for one in value if parameter.multiple else [value]:
                words += [parameter.opts[0], str(one)]
    return shlex.join(words)


def _print(content: str) -> None:
    """Also where the output is not in UTF-8: there a ± becomes a question mark, and no digit is lost."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    click.echo(content.encode(encoding, "replace").decode(encoding), nl=False)
