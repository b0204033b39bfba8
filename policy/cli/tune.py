"""train-policy tune: a method's options, searched for on a part of the training videos."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cache_schema import FeatureCache, UserError
from cache_schema.command import (
    AS_JSON,
    DEVICE,
    check_scheduler,
    given_labels,
    jobs_options,
    options,
    tells_mistakes,
)
from cache_schema.extras import needs_extra
from cache_schema.run_folder import write_atomically
from policy.cli.train_method import MethodCommand
from policy.options import (
    command_words,
    given_settings,
    option_words,
)
from policy.registry import CONFIGS
from policy.tuning.space import describe, ranges_of

if TYPE_CHECKING:  # they import torch, for which --help has no time
    from policy.tuning.report import Findings, Tried

_OF_A_RUN = {
    *("out", "device", "tensorboard", "wandb", "log_file", "as_json", "like", "of_run", "assigned"),
    *("validation", "validation_subset", "keep", "patience"),
}
"""Options that training has, and tuning does not, or not the same."""
_OF_TUNING = {
    "out",
    "as_json",
    "tuned",
    "trials",
    "minutes",
    "tune_folds",
    "validation",
    "prune",
    "jobs",
    "backend",
    "scheduler",
}
"""Those that tuning has, and training does not, or not the same."""
_FOLDS, _TRIALS = 3, 50

TUNE = options(
    click.option(
        "--tune",
        "tuned",
        metavar="OPTION[=RANGE]",
        multiple=True,
        help="An option to search, with LOW:HIGH or VALUE,VALUE,… where its usual range is not wanted; repeat it.",
    ),
    click.option(
        "--trials",
        type=click.IntRange(min=1),
        help=f"Trials of the whole study.  [default: {_TRIALS}, or with --minutes as many as it takes]",
    ),
    click.option(
        "--minutes",
        type=click.FloatRange(min=0, min_open=True),
        help="Begin no trial after so many minutes of this call; those at work are finished.",
    ),
    click.option(
        "--validation",
        type=click.FloatRange(min=0, max=1, min_open=True, max_open=True),
        metavar="SHARE",
        help="Hold out this share of the training videos, once, instead: quicker, and less certain.",
    ),
    click.option(
        "--prune/--no-prune",
        default=True,
        show_default=True,
        help="Give up a trial that, at the same point of its training, is below the median of the others.",
    ),
    jobs_options("Trials at a time.", "makes the trials", "Cache and --out"),
    click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the study."),
    DEVICE,
    AS_JSON,
)


def _folds(flag: str) -> Any:
    return click.option(
        flag,
        "tune_folds",
        type=click.IntRange(min=2),
        help=f"Parts of the training videos, each held out once.  [default: {_FOLDS}]",
    )


@click.group()
def tune() -> None:
    """Search a method's options on a part of the training videos, with Optuna.

    \b
    Example:
      train-policy tune liteeval --cache CACHE --labels labels.csv \\
        --coarse mobilenetv2_112 --fine resnet101_224 --gamma 0.05 --trials 50 --folds 3 --out tuning/liteeval

    docs/training.md says how trials are compared. The videos for evaluation are never looked at.
    """


def add_tuning(method: str, trains: click.Command) -> None:
    """Add the command that tunes a method.

    Args:
        trains: the command that trains it, whose options it takes.
    """
    # Selection has folds of another kind.
    folds = "--tune-folds" if any(parameter.name == "folds" for parameter in trains.params) else "--folds"

    def command(**given: Any) -> None:
        _tune(method, given)

    made = click.command(method, MethodCommand, help=_help(method, trains))(
        _folds(folds)(TUNE(tells_mistakes(command)))
    )
    made.params[:0] = [parameter for parameter in trains.params if parameter.name not in _OF_A_RUN]
    tune.add_command(made)


def _help(method: str, trains: click.Command) -> str:
    """With the example of the command that trains, changed to one that tunes."""
    example = (trains.help or "").rpartition("\b")[2].rstrip()
    for words, instead in (
        (f"train-policy {method} ", f"train-policy tune {method} "),
        ("--like runs/liteeval", "--usage 0.05"),
        ("--out runs/", "--trials 50 --out tuning/"),
    ):
        example = example.replace(words, instead)
    return f"""Tune {method}.

    Options that are given are fixed, those that --tune names are searched, all others have their defaults. Without
    --tune it searches {describe(CONFIGS[method])}.

    Give the same command again to go on with a study that was stopped.

    \b{example}"""


def _tune(method: str, given: dict[str, Any]) -> None:
    from policy.training.stopping import Terminated, exit_code, terminable

    with needs_extra("tune", "tuning"):
        import optuna  # noqa: F401
    if given["tune_folds"] is not None and given["validation"] is not None:
        raise UserError("give --folds or --validation, which hold videos out in different ways")
    check_scheduler(given["backend"], given["scheduler"])
    try:
        with terminable():
            _search(method, given)
    except (Terminated, KeyboardInterrupt) as stop:
        click.echo("stopped; give the same command again to go on", err=True)
        raise SystemExit(exit_code(stop)) from stop


def _search(method: str, given: dict[str, Any]) -> None:
    from cache_schema.annotations.labels import TRAIN_SUBSETS
    from policy.data.opening import usual_subset
    from policy.registry import METHODS, completed
    from policy.sheets import terminal
    from policy.tables import output
    from policy.tables.workers import Workers
    from policy.tuning.folds import fold_labels
    from policy.tuning.problem import Problem, check
    from policy.tuning.report import Findings, Tried
    from policy.tuning.study import BEST, BEST_TXT, Budget, carry_out, is_finished

    values, out = given_settings(), given["out"]
    config = completed(method, values, given.get("recipe"))
    config.check()
    ranges = ranges_of(config, given["tuned"], values)
    cache, labels = FeatureCache(given["cache"]), given_labels(given)
    subset = config.train_subset or usual_subset(labels, TRAIN_SUBSETS, "--train-subset")
    folds = None if given["validation"] else given["tune_folds"] or _FOLDS
    parts = fold_labels(labels, subset, folds=folds or 1, validation=given["validation"], seed=config.seed)
    problem = Problem(method, values, given.get("recipe"), ranges, parts, subset)
    data = check(problem, cache)
    for note in data.notes:
        _say(note if len(parts) == 1 else f"fold 1 of {len(parts)}: {note}")
    described = {
        "config": {**problem.config({}).decisive(), "folds": folds, "validation": given["validation"]},
        "tuned": {one.name: str(one) for one in ranges},
        "data": {**data.digest(), **METHODS[method].decisive_data(data), "train_subset": subset},
    }
    videos = len(data.train) + len(data.evaluation)

    budget = Budget(given["trials"] or (None if given["minutes"] else _TRIALS), given["minutes"])

    def findings(trials: Sequence[Any]) -> Findings:
        return Findings(problem, tuple(Tried.of(trial, problem) for trial in trials), videos)

    def tried(trial: Any, trials: Sequence[Any]) -> None:
        found = findings(trials)
        best = ""
        if found.ranked and not problem.has_front:
            first = found.ranked[0]
            word = "best so far" if first.keeps_cost else "none keeps the cost so far, nearest to it"
            best = f"; {word}: {found.line(first)}"
        place = f"{sum(map(is_finished, trials))}" + (f"/{budget.trials}" if budget.trials else "")
        _say(f"[{place}] {found.line(found.trials[trial.number])}{best}")

    trials = carry_out(
        problem,
        cache,
        out,
        described,
        budget=budget,
        workers=Workers(given["jobs"], given["scheduler"]),
        device=given["device"],
        prunes=given["prune"],
        tried=tried,
    )
    found = findings(trials)
    several = len(found.best) > 1
    commands = [
        _command(method, one, out / (f"{BEST}-{one.number}" if several else BEST), data.multi_label)
        for one in found.best
    ]
    everything = {str(parameter.name) for parameter in click.get_current_context().command.params} - {
        "as_json"
    }
    document = found.document(
        shlex.join(["train-policy", "tune", method, *command_words(everything)]), drawn=True
    )
    for path in output.write(document, out):
        _say(f"wrote {path}")
    lines = [*([f"# {found.caution}"] if found.caution else []), *commands]  # a comment to the shell
    write_atomically(out / BEST_TXT, "".join(f"{line}\n" for line in lines).encode())
    if given["as_json"]:
        click.echo(json.dumps(found.record(commands), indent=2, ensure_ascii=False))
        return
    click.echo(terminal.render(document, colour=sys.stdout.isatty()), nl=False)
    which = "one of these" if several else "that nearest one" if found.caution else "the best"
    click.echo(f"\nto train {which} on all training videos:")
    for command in commands:
        click.echo(command)


def _command(method: str, trial: Tried, out: Path, multi_label: bool) -> str:
    """The command that trains what a trial was, on all training videos."""
    parameters = {str(one.name): one for one in click.get_current_context().command.params}
    taken = (parameters.keys() - {"out", "as_json", "tuned"}) - {str(name) for name in _OF_TUNING}
    words = command_words(taken)
    for name, value in trial.values.items():
        words += option_words(parameters[name], value)
    if "multi_label" not in given_settings():  # which without a word the videos for evaluation decide, too
        words += option_words(parameters["multi_label"], multi_label)
    return shlex.join(["train-policy", method, *words, "--out", str(out)])


def _say(line: str) -> None:
    click.echo(line, err=True)
