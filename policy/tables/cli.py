"""paper-tables: a paper's table or figure from a cache, the paper's value beside ours."""

from __future__ import annotations

import json
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cache_schema import FeatureCache, UserError
from cache_schema.command import (
    AS_JSON,
    DEVICE,
    SOME_FAILED,
    VAL_FRACTION,
    count,
    given_labels,
    label_options,
    options,
    reading_options,
    tells_mistakes,
)
from cache_schema.names import did_you_mean
from policy.baselines.config import FrameClassifierConfig, FramesConfig, GlimpsesConfig, JumpsConfig
from policy.config import RunConfig, StepTrainingConfig, TrainingConfig, method_options, names_of
from policy.deploy.arguments import Ids, VideosCommand, find_videos
from policy.deploy.arguments import takes_videos as video_arguments
from policy.liteeval.config import GumbelConfig, NetworkConfig, PenaltyConfig, WarmupConfig
from policy.localization.config import LocalizationSelectorConfig, WTALCConfig
from policy.options import (
    DATA,
    C,
    command_words,
    given_options,
    given_settings,
    recipe,
    settings,
    training,
)
from policy.recipes import DEFAULT_RECIPE, NO_RECIPE, RECIPES, recipes_of
from policy.registry import CONFIGS, configure
from policy.selection.config import SelectorConfig, check_given
from policy.tables.catalogue import (
    EXHIBITS,
    EXPERIMENTS,
    KNOWN,
    LEADERBOARD,
    LOCALIZATION,
    PAPERS,
    RUNTIME,
    SELECTION,
    TABLES,
    takes_videos,
)
from policy.tables.datasets import DATASETS, PaperDataset
from policy.tables.datasets import LITEEVAL as LITEEVAL_DATASETS
from policy.tables.datasets import LOCALIZATION as LOCALIZATION_DATASETS
from policy.tables.datasets import SELECTION as SELECTION_DATASETS

if TYPE_CHECKING:
    from policy.tables.experiment import PaperTable
    from policy.tables.requests import Setting

_PATH, _POSITIVE = click.Path(path_type=Path), click.IntRange(min=1)
_shown = partial(click.option, show_default=True)

_COARSE = "Cheap features, in place of those that the paper takes."
_FINE = "Expensive features, where all rows take the same ones: in their place."
ROLES = options(
    click.option("--coarse", metavar="STREAM", help=_COARSE),
    click.option("--fine", metavar="STREAM", help=_FINE),
)
SUBSTITUTE = click.option(
    "--substitute",
    metavar="PAPER=OURS",
    multiple=True,
    help="Read stream OURS where the paper has PAPER, and mark the rows; repeat it.",
)


FURTHER = click.option(
    "--stream",
    "further",
    metavar="STREAM",
    multiple=True,
    help="Further stream, for the rows that take any number of them; repeat it.",
)


def _dataset(names: Iterable[str], what: str) -> Callable[[C], C]:
    return _shown(
        "--dataset",
        type=click.Choice([*names, "none"]),
        default="none",
        help=f"The paper's data set that the cache holds: takes its {what} where they are not given, and sets our "
        "values against the paper's for it.",
    )


_SIZES = "--coarse-hidden, --fine-hidden and --batch (Sec. 4.1)"
_CLIPS = "pool of models, --rows and --epochs (Sec. 4)"
_JUDGED = "evaluation kit and thresholds of IoU (Sec. 5.1)"
"""What --dataset sets, for LiteEval, model selection and localization."""
_RESAMPLES = "Bootstrap samples of the videos for the intervals; 0: no intervals."
TABLE = options(
    _shown("--seeds", type=_POSITIVE, default=3, help="Runs of each row."),
    _shown(
        "--runs", type=_PATH, default=Path("runs"), help="Folder of the run folders, which later calls reuse."
    ),
    _shown("--resamples", type=click.IntRange(min=0), default=1000, help=_RESAMPLES),
    click.option("--out", type=_PATH, help="Folder for table.md, table.csv, table.tex and figure.png."),
    _shown("--jobs", type=_POSITIVE, default=1, help="Trainings at a time."),
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
    type=_PATH,
    multiple=True,
    help="The videos themselves, to show chosen frames or to time policies from file to answer: a folder, "
    "searched recursively, a list of paths, or a file; repeat it.",
)
WEIGHTS = click.option(
    "--weights",
    metavar="[STREAM=]WEIGHTS",
    multiple=True,
    help="Of the networks that are timed on --videos, as in run-policy.",
)


TITLES = {"liteeval": "LiteEval", "selection": "Model selection"}
"""The papers' short titles."""


@click.group()
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
@AS_JSON
@tells_mistakes
def list_tables(as_json: bool) -> None:
    """Say which tables and figures there are.

    \b
    Example:
      paper-tables list
    """
    if as_json:
        entries = [{"name": name, "what": what} for name, what in KNOWN.items()]
        click.echo(json.dumps(entries, indent=2, ensure_ascii=False))
        return
    width = max(map(len, KNOWN))
    for name, what in KNOWN.items():
        click.echo(f"{name:<{width}}  {what}")


@paper_tables.command("costs")
@click.option("--out", type=_PATH, help="Folder for costs.md and costs.csv.")
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
    "labels",
    required=True,
    type=click.Path(path_type=Path),
    help="Annotations with segments: a file, or the folder of a benchmark's own files.",
)
@label_options
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
    subset: str | None,
    ious: str | None,
    per_class: bool,
    resamples: int,
    out: Path | None,
    as_json: bool,
    **of_labels: Any,
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
        given_labels(of_labels),
        subset=subset,
        ious=None if ious is None else parse_ious(ious),
        resamples=resamples,
    )
    table = document(judgement, _command(context), per_class=per_class)
    if out is not None:
        for path in output.write(table, out):
            _say(f"wrote {path}")
    _print(markup.as_json(table) if as_json else terminal.render(table, colour=sys.stdout.isatty()))


@paper_tables.command("timeline")
@click.argument("run_folder", metavar="RUN", type=_PATH)
@click.option("--video", "video_ids", metavar="ID", multiple=True, help="Draw this video; repeat it.")
@click.option(
    "--out", required=True, type=_PATH, help="Folder for figure.png, figure-2.png, … and report.html."
)
@click.option(
    "--cache", type=_PATH, help="Feature cache of a wtalc run, whose activations it needs to be drawn."
)
@click.option("--labels", type=_PATH, help="Its labels, with --cache.")
@reading_options
@options(VAL_FRACTION, DEVICE, AS_JSON)
@click.pass_context
@tells_mistakes
def timeline(
    context: click.Context,
    /,
    run_folder: Path,
    video_ids: tuple[str, ...],
    out: Path,
    cache: Path | None,
    labels: Path | None,
    device: str,
    as_json: bool,
    **_: Any,
) -> None:
    """What a run that localizes found in a video, when it is there, and which model answered each clip.

    RUN is a finished run of localization-selector or wtalc. Without --video its best, its median and its worst
    video are drawn, by the average precision of a video (docs/localization.md).

    \b
    Example:
      paper-tables timeline runs/selector --out timelines
      paper-tables timeline runs/rgb --cache CACHE --labels labels.csv --video video_test_0000004 --out timelines
    """
    from policy.sheets import markup, terminal
    from policy.tables import output, timelines

    if (cache is None) != (labels is None):
        raise UserError("--cache and --labels: give both, or none of them")
    run = timelines.read_run(run_folder)
    if cache is not None and labels is not None:
        run = timelines.with_activations(run, FeatureCache(cache), given_labels(context.params), device)
    videos = timelines.choose(run, video_ids)
    output.check_folder(out)
    content = timelines.document(run, videos, _command(context))
    for path in output.write(content, out):
        _say(f"wrote {path}")
    _print(markup.as_json(content) if as_json else terminal.render(content, colour=sys.stdout.isatty()))


@paper_tables.command("trace", cls=VideosCommand)
@click.argument("trace_file", metavar="TRACE", type=_PATH)
@video_arguments
@click.option(
    "--out", required=True, type=_PATH, help="Folder for figure.png, figure-2.png, … and report.html."
)
@_shown(
    "--most", type=_POSITIVE, default=12, help="Videos to draw; of more evenly spread ones, by their GFLOPs."
)
@AS_JSON
@click.pass_context
@tells_mistakes
def trace(
    context: click.Context,
    /,
    trace_file: Path,
    videos: tuple[Path, ...],
    ids: Ids,
    frames_fps: float | None,
    root: Path | None,
    out: Path,
    most: int,
    as_json: bool,
) -> None:
    """Which frames of each video a policy looked at, and with what: the trace of run-policy as pictures.

    VIDEOS are those of run-policy, or some of them, with the same --ids, --frames-fps and --root. Exit codes: 0
    done, 1 done but some videos cannot be drawn, 2 the request was wrong.

    \b
    Example:
      run-policy runs/liteeval VIDEOS/ --out predictions.csv --trace trace.jsonl
      paper-tables trace trace.jsonl VIDEOS/ --out looked-at
    """
    from policy.deploy.trace_file import read_trace
    from policy.sheets import markup, terminal
    from policy.tables import output, traces

    traced = read_trace(trace_file)
    sources = find_videos(videos, ids=ids, frames_fps=frames_fps, root=root)
    for note in sources.notes:
        _say(note)
    pairs = traces.chosen(traced, sources.videos, most)
    output.check_folder(out)
    streams, failed, drawn = traces.by_cost(traced.values()), dict(sources.refused), []
    for video, source in pairs:
        try:
            drawn.append((video, traces.drawing(video, source, streams)))
        except UserError as error:
            failed[video.video_id] = str(error)
    there = len(set(traced).intersection(source.id for source in sources.videos))
    state = [
        f"{trace_file}: {count(len(drawn), 'videos')} drawn, from the cheapest to the dearest of {there} that "
        "are given."
    ]
    for name, reason in failed.items():
        _say(f"failed: {name}: {reason}")
    if drawn:
        content = traces.document(drawn, state, _command(context))
        for path in output.write(content, out):
            _say(f"wrote {path}")
        _print(markup.as_json(content) if as_json else terminal.render(content, colour=sys.stdout.isatty()))
    if failed:
        context.exit(SOME_FAILED)


_LITEEVAL = options(
    DATA,
    ROLES,
    SUBSTITUTE,
    recipe(
        RECIPES, RECIPES[DEFAULT_RECIPE], None, f"  [default: {DEFAULT_RECIPE}; with --dataset: {NO_RECIPE}]"
    ),
    *map(
        settings,
        (PenaltyConfig, WarmupConfig, GumbelConfig, FramesConfig, GlimpsesConfig, JumpsConfig, NetworkConfig),
    ),
    settings(StepTrainingConfig, "dropout"),
    settings(FrameClassifierConfig),
    training(RunConfig, without=("seed",)),
    TABLE,
)
# Rows set a selector's own model themselves.
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
# Rows set streams, runs, β and the target themselves; the training options are W-TALC's.
_OF_CLIPS = ("budget", "threshold", "selector_input", "selector_hidden", "folds", "answer")
_OF_WTALC = tuple(
    name for name in method_options(WTALCConfig) if name not in ("appearance", "motion", "action_bytes")
)
OF_LOCALIZATION = options(
    DATA,
    SUBSTITUTE,
    settings(WTALCConfig, *_OF_WTALC),
    training(WTALCConfig, without=("seed",)),
    settings(LocalizationSelectorConfig, *_OF_CLIPS),
    TABLE,
    _dataset(LOCALIZATION_DATASETS, _JUDGED),
)
OF_ALL = options(
    _LITEEVAL,
    _SELECTOR,
    settings(WTALCConfig, *_OF_WTALC, without=("precision", "dropout")),  # LiteEval's, too
    _dataset(DATASETS, f"{_SIZES}, or the {_CLIPS}"),
)
"""For tables with rows of all families. Rows that choose from a pool default to the selector's --epochs and --lr
(`train-policy selector`), those of W-TALC to its own."""


@paper_tables.command("run")
@click.argument("folder", type=_PATH)
@options(OF_ALL, VIDEOS, WEIGHTS)
@click.pass_context
@tells_mistakes
def run(context: click.Context, /, folder: Path, **values: Any) -> None:
    """A table of your own: a FOLDER with table.toml and a file for each row, as docs/tables.md has them.

    Trains what is missing and reuses what --runs holds, also of other tables.

    \b
    Example:
      paper-tables run my-table --cache CACHE --labels labels.csv --seeds 3 --out table
    """
    _make(folder, context, values)


def _add(name: str, taken: Callable[[C], C], help_text: str) -> None:
    @options(taken)
    @click.pass_context
    @tells_mistakes
    def command(context: click.Context, /, **values: Any) -> None:
        _make(EXPERIMENTS / name, context, values)

    paper_tables.command(name, help=help_text, short_help=KNOWN[name])(command)


def _table_help(name: str) -> str:
    return f"""Table {name.removeprefix("liteeval-")} of the LiteEval paper: {KNOWN[name]}.

    Trains what is missing and reuses what --runs holds of the same configuration, features and labels, also of
    other tables. A command that was stopped goes on where it stopped when it is given again.

    \b
    Example:
      paper-tables {name} --cache CACHE --labels labels.csv \\
        --dataset {TABLES[name]} --seeds 3 --out table
    """


def _exhibit_help(name: str, dataset: str, videos: bool) -> str:
    return f"""{KNOWN[name][0].upper()}{KNOWN[name][1:]}{_of_the_paper(name)}.

    Trains what is missing and reuses what --runs holds, also of tables. --out gets the picture, the numbers behind
    it and a page, report.html, that needs nothing beside it.

    \b
    Example:
      paper-tables {name} --cache CACHE --labels labels.csv \\
        --dataset {dataset} --seeds 3 --out {name}{" --videos VIDEOS" * videos}
    """


def _of_the_paper(name: str) -> str:
    paper, _, number = name.partition("-")
    if number.startswith("fig"):
        return f" ({TITLES[paper]} paper, Figure {number.removeprefix('fig')})"
    return f" ({TITLES[paper]} paper, Table {number})" if number.isdigit() else ""


for _name in TABLES:
    _add(_name, OF_LITEEVAL, _table_help(_name))
for _name, _set in (*EXHIBITS.items(), *SELECTION.items(), *LOCALIZATION.items()):
    _taken = OF_SELECTION if _name in SELECTION else OF_LOCALIZATION if _name in LOCALIZATION else OF_LITEEVAL
    _videos = takes_videos(_name)
    _more = (VIDEOS, WEIGHTS) if _name == RUNTIME else (VIDEOS,) if _videos else ()
    _add(_name, options(_taken, *_more), _exhibit_help(_name, _set, _videos))


_add(
    LEADERBOARD,
    options(OF_LITEEVAL, FURTHER),
    f"""Every policy that takes streams of frames, on one cache at many budgets: a leaderboard.

    Each is trained once for each seed and judged at other thresholds, prices or numbers of rows. Methods of other
    packages take part (docs/extending.md). --out gets the picture, the numbers and a page, report.html.

    \b
    Example:
      paper-tables {LEADERBOARD} --cache CACHE --labels labels.csv \\
        --coarse mobilenetv2_112 --fine resnet101_224 --validation 0.2 --seeds 3 --out policies
    """,
)


@paper_tables.command("all")
@options(OF_ALL, VIDEOS, WEIGHTS)
@_shown("--paper", type=click.Choice([*PAPERS]), default="liteeval", help="Whose tables.")
@click.option("--only", metavar="NAME", multiple=True, help="Of these only; repeat it.")
@click.pass_context
@tells_mistakes
def all_tables(context: click.Context, /, paper: str, only: tuple[str, ...], **values: Any) -> None:
    """Every table and figure of a paper from one cache, and one page with all of them.

    Needs --out, which gets a folder for each and report.html. Stopped, it goes on where it stopped.

    \b
    Example:
      paper-tables all --cache CACHE --labels labels.csv --out report \\
        --substitute dpn107_224=resnet101_224 --substitute slowfast_8x8_256=resnet101_224
      paper-tables all --paper selection --cache CACHE --labels labels.csv --out report
    """
    out: Path | None = values["out"]
    if out is None:
        raise UserError("--out FOLDER: say where the tables go")
    if values["coarse"] or values["fine"]:
        raise UserError(
            "tables have several fine streams: say which by --substitute, not by --coarse and --fine"
        )
    names = [name for name in KNOWN if name in PAPERS[paper]]
    unknown = [name for name in only if name not in names]
    if unknown:
        known = ", ".join(names) + did_you_mean(unknown[0], names)
        raise UserError(f"--only {unknown[0]}: of --paper {paper} there are: {known}")
    setting = _setting(values)

    from policy.sheets import page
    from policy.tables import output
    from policy.tables.documents import document
    from policy.tables.making import fill
    from policy.tables.pool_rows import of_dataset
    from policy.tables.reading import read_table
    from policy.tables.requests import Order, order
    from policy.tables.streams import MissingStreamsError, for_each

    output.check_folder(out)
    tables = [of_dataset(read_table(EXPERIMENTS / name), setting.dataset) for name in names]
    ordered: list[tuple[Order, tuple[str, ...]]] = []
    left_out: list[MissingStreamsError] = []
    for table, pairs in zip(tables, for_each(tables, values["substitute"]), strict=True):
        if only and table.name not in only:
            continue
        try:
            ordered.append((order(table, setting, pairs), tuple(pairs)))
        except MissingStreamsError as error:
            # The paper's two halves read streams that few caches have together.
            if paper != "selection" or table.name in only:
                raise
            left_out.append(error)
    if not ordered:
        raise left_out[0]
    for why in left_out:
        _say(f"left out: {why}")
    documents = []
    for number, (checked, substitutes) in enumerate(ordered, 1):
        table = checked.table
        _say(f"{number}/{len(ordered)} {table.title}")
        alone = {"paper": None, "only": None, "out": out / table.name, "substitute": substitutes}
        command = _command(context, table.name, **alone, **({} if table.videos else {"videos": None}))
        documents.append(document(fill(checked, command, _say), drawn=True))
        output.check_folder(out / table.name)
        output.write(documents[-1], out / table.name)
    everything = page.render(f"{TITLES[paper]}: every table and figure", documents)
    for path in output.write_files({output.REPORT_HTML: everything.encode()}, out):
        _say(f"wrote {path}")


def _make(folder: Path, context: click.Context, values: dict[str, Any]) -> None:
    """The table of a folder."""
    setting, out = _setting(values), values["out"]

    # Imported late: torch and matplotlib take a second or two, which a mistake should not.
    from policy.tables import output
    from policy.tables.reading import read_table
    from policy.tables.requests import order

    table = read_table(folder)
    if values.get("videos") and not table.videos:
        raise UserError("--videos: for a table that says videos = true in its table.toml")
    if values.get("weights") and table.exhibit != "runtime":
        raise UserError('--weights: for a table that says exhibit = "runtime" in its table.toml')
    if out is not None:
        output.check_folder(out)
    checked = order(
        table,
        setting,
        values["substitute"],
        coarse=values.get("coarse"),
        fine=values.get("fine"),
        further=values.get("further", ()),
    )

    from policy.sheets import terminal
    from policy.sheets.markup import as_json
    from policy.tables.documents import document
    from policy.tables.making import fill

    for line in (*_without_recipe(checked.table, values.get("recipe")), *_overridden(checked.table)):
        _say(line)
    content = document(fill(checked, _command(context), _say), drawn=out is not None)
    for path in output.write(content, out) if out is not None else ():
        _say(f"wrote {path}")
    _print(as_json(content) if values["as_json"] else terminal.render(content, colour=sys.stdout.isatty()))


def _setting(values: dict[str, Any]) -> Setting:
    """Raises UserError for settings that are wrong for every table."""
    common, of_pools, of_methods = _common(values)
    cache = FeatureCache(values["cache"])
    substitutes = [text.partition("=")[2] for text in values["substitute"]]
    streams = (values.get("coarse"), values.get("fine"), *values.get("further", ()), *substitutes)
    for stream in filter(None, streams):
        cache[stream]
    labels = given_labels(values)

    from policy.tables.requests import Setting
    from policy.tables.workers import Workers

    setting = Setting(
        values=common,
        of_pools=of_pools,
        of_methods=of_methods,
        models=values.get("models", ()),
        cache=cache,
        labels=labels,
        dataset=None if values["dataset"] == "none" else values["dataset"],
        seeds=range(values["seeds"]),
        runs=values["runs"],
        resamples=values["resamples"],
        workers=Workers(values["jobs"], values["scheduler"]),
        device=values["device"],
        videos=values.get("videos", ()),
        weights=values.get("weights", ()),
    )
    setting.check()
    return setting


def _say(line: str) -> None:
    click.echo(line, err=True)


def _common(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, dict[str, Any]]]:
    """The settings of all rows: the user's, else the paper's for the data set, else the recipe's. And the settings
    of rows that choose from a pool, and by method of rows that localize, to which LiteEval's settings and recipes
    do not apply, and of rows whose recipes are those of a paper of their own."""
    users = given_settings()
    if "models" not in values and "epoch_steps" in values:  # no row is of another family
        return {}, {}, {method: _of_localization(method, users, values) for method in _LOCALIZERS}
    users.pop("models", None)  # `Setting.models`
    paper = DATASETS.get(values["dataset"], PaperDataset("none"))
    name = values.get("recipe") or (DEFAULT_RECIPE if values["dataset"] == "none" else NO_RECIPE)
    recipe_values = RECIPES.get(name, {})
    config = configure("selector", users)
    assert isinstance(config, SelectorConfig)
    check_given(config, users)
    # All rows must treat the labels in the same way.
    labels = {name: value for name, value in recipe_values.items() if name == "multi_label"}
    of_methods = {method: {**labels, **_of_localization(method, users, values)} for method in _LOCALIZERS}
    for method, other in CONFIGS.items():
        if other.published is not None:
            of_methods[method] = {**labels, **recipes_of(other).get(name, {}), **paper.settings, **users}
    return {**recipe_values, **paper.settings, **users}, {**labels, **paper.of_pools, **users}, of_methods


_LOCALIZERS = ("wtalc", "localization-selector")


def _of_localization(method: str, users: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The user's settings that are for rows of a method that localizes."""
    if method == "wtalc":
        return dict(users)
    left_out = set(names_of(TrainingConfig))
    if users.get("input_norm") == "l2":  # of the models and the selector alike
        left_out.remove("input_norm")
    if "models" in values:  # there such options are of a selector among models
        left_out |= names_of(SelectorConfig) - names_of(RunConfig)
    return {name: value for name, value in users.items() if name not in left_out}


def _without_recipe(table: PaperTable, name: str | None) -> list[str]:
    """A line where the recipe that the user has named is none of some rows, though others of theirs are."""
    titles = [
        row.title
        for row in table.experiments
        if row.method
        and (recipes := recipes_of(CONFIGS[row.method]))
        and name not in {*recipes, NO_RECIPE, None}
    ]
    if not titles:
        return []
    return [f"--recipe {name}: there is none for {', '.join(titles)}: they have their options' defaults"]


def _overridden(table: PaperTable) -> list[str]:
    """A line for each option of the user that some rows override."""
    counts = Counter(name for row in table.experiments for name in row.settings)
    options_given = given_options()
    flags = {parameter.name: parameter.opts[0] for parameter in click.get_current_context().command.params}
    return [
        f"{flags[name]}: not for {count} of the rows, whose own setting it is"
        for name, count in counts.items()
        if name in options_given
    ]


def _command(context: click.Context, table: str | None = None, **changed: Any) -> str:
    """The command line, with the user's options except --json.

    Args:
        table: a table made by `all`, for the command that makes it alone.
        changed: options with other values in that command; None leaves an option out.
    """
    alone = context.command if table is None else paper_tables.commands[table]
    taken = {str(parameter.name) for parameter in alone.params} - {"as_json"}
    words = ["paper-tables", table or str(context.info_name), *command_words(taken, **changed)]
    return shlex.join(words)


def _print(content: str) -> None:
    """Print text; where the output is not UTF-8, ± and the like become question marks."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    click.echo(content.encode(encoding, "replace").decode(encoding), nl=False)
