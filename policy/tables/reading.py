"""Read tables from folders of TOML files: table.toml, and a file for each row, in the order of their names.

EXPERIMENTS/liteeval-2/table.toml            the table
EXPERIMENTS/liteeval-2/03-liteeval-dpn.toml  a row, to which others refer as liteeval-dpn

docs/tables.md lists the fields. Everything is checked here, before anything is trained.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from cache_schema import UserError
from cache_schema.names import did_you_mean
from policy.config import DataConfig, names_of, types_of
from policy.data.batches import Role
from policy.registry import CONFIGS, METHODS
from policy.selection.config import PoolConfig
from policy.selection.pool import parse_models
from policy.tables.catalogue import EXPERIMENTS
from policy.tables.experiment import (
    MEASURES,
    METHODS_GROUP,
    ExhibitName,
    Experiment,
    Measure,
    PaperTable,
    Printed,
    Published,
    View,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TABLE = "table.toml"

_ROLES: tuple[Role, ...] = ("coarse", "fine", "appearance", "motion")
_ONLINE = ("liteeval", "liteeval-rl")
_LOCALIZERS = ("wtalc", "localization-selector")
_FLAGS = (
    "videos",
    "pool_of_dataset",
    "cost_of_dataset",
    "budget_over_threshold",
    "rows_within_cache",
    "verdicts",
    "streams_within_cache",
    "of_packages",
)
_EXHIBITS: tuple[ExhibitName, ...] = get_args(ExhibitName)
_READS: Mapping[ExhibitName, tuple[str, ...]] = {
    "frames": ("liteeval",),
    "online": ("liteeval", "uniform"),
    "usage": ("liteeval",),
    "watched": ("liteeval", "uniform"),
}
"""Rows that an exhibit reads by name, which is that of their method."""


def read_table(folder: Path) -> PaperTable:
    """Read a table.

    Raises:
        UserError: the folder is not a table, or a file in it is invalid; names file and field.
    """
    if not (folder / TABLE).is_file():
        raise UserError(f"{folder}: not a table: it has no {TABLE}")
    about = _File.read(folder / TABLE)
    title, source = about.text("title"), about.text("source")
    columns, notes = about.texts("columns"), about.texts("notes")
    backbones = about.text_or_none("backbones") or PaperTable.backbones
    datasets, measures = about.texts("datasets"), about.texts("measures")
    for measure in measures:
        if measure not in MEASURES:
            raise about.wrong(f"no measure {measure!r}; {_there_are(MEASURES, measure)}")
    if not measures:
        raise about.wrong("measures: at least one is needed")
    exhibit = _exhibit(about)
    flags = {name: about.flag(name) for name in _FLAGS}
    about.done()
    paths = sorted(path for path in folder.glob("*.toml") if path.name != TABLE)
    rows = {path: _experiment(_File.read(path), columns, datasets) for path in paths}
    _check_references(rows)
    if not any(one.method for one in rows.values()):
        raise UserError(
            f"{folder}: a table needs at least one row with a method, a .toml file beside {TABLE}"
        )
    _check_exhibit(about, exhibit, rows.values())
    chosen = tuple(measure for measure in MEASURES if measure in measures)
    return PaperTable(
        folder.resolve().name,
        title,
        source,
        chosen,
        datasets,
        tuple(rows.values()),
        columns,
        notes,
        backbones,
        exhibit,
        **flags,
    )


def _exhibit(about: _File) -> ExhibitName | None:
    name = about.text_or_none("exhibit")
    if name not in (None, *_EXHIBITS):
        raise about.wrong(f"no exhibit {name!r}; {_there_are(_EXHIBITS, str(name))}")
    return name


def _check_exhibit(about: _File, exhibit: ExhibitName | None, rows: Collection[Experiment]) -> None:
    """Raises UserError if rows that the exhibit needs are missing."""
    if exhibit is None:
        return
    trained = {one.name: one.method for one in rows if one.method}
    for method in _READS.get(exhibit, ()):
        if trained.get(method) != method:
            raise about.wrong(f"exhibit {exhibit!r} needs a row {method!r} of this method")
    if exhibit.startswith("selection-"):
        others = [name for name, method in trained.items() if not chooses(str(method))]
        if others and exhibit != "selection-table":
            raise about.wrong(f"exhibit {exhibit!r}: the row {others[0]!r} does not choose from a pool")
    if exhibit.startswith("localization-"):
        others = [name for name, method in trained.items() if method not in _LOCALIZERS]
        if others:
            raise about.wrong(f"exhibit {exhibit!r}: the row {others[0]!r} does not localize")
        if [one.method for one in rows if one.emphasised] != ["localization-selector"]:
            raise about.wrong(
                f"exhibit {exhibit!r} needs one row that is emphasised, of localization-selector"
            )
    if exhibit == "selection-table" and sum(map(chooses, filter(None, trained.values()))) != 1:
        raise about.wrong(f"exhibit {exhibit!r} needs one row with a method that chooses from a pool")
    if exhibit in ("selection-alpha", "selection-inputs") and sum(one.emphasised for one in rows) != 1:
        raise about.wrong(f"exhibit {exhibit!r} needs one row that is emphasised")


def chooses(method: str) -> bool:
    """Whether a method chooses from a pool of models."""
    return issubclass(CONFIGS[method], PoolConfig)


def _experiment(file: _File, columns: tuple[str, ...], datasets: tuple[str, ...]) -> Experiment:
    method = file.text_or_none("method")
    if method is not None and method not in METHODS:
        raise file.wrong(f"no method {method!r}; {_there_are(METHODS, method)}")
    streams, view = file.part("streams"), file.part("view")
    texts = file.texts("columns")
    if texts and len(texts) != len(columns):
        raise file.wrong(f"columns: {len(texts)} texts, but {TABLE} names {len(columns)} columns")
    paper = file.part("paper")
    published = {name: _published(paper.part(name), name, datasets) for name in list(paper.values)}
    experiment = Experiment(
        name=re.sub(r"^\d+-", "", file.path.stem),
        title=file.text("title"),
        method=method,
        group=file.text_or_none("group") or METHODS_GROUP,
        streams={role: streams.text(role) for role in _ROLES if role in streams.values},
        models=streams.texts("models"),
        lists={name: streams.texts(name) for name in _lists(method) if name in streams.values},
        settings=_settings(file.part("settings"), method),
        usage_of=file.text_or_none("usage_of"),
        teacher_of=file.text_or_none("teacher_of"),
        runs_of=_runs_of(file.part("runs"), method),
        view=_view(view) if view.values else None,
        columns=texts or ("",) * len(columns),
        published=published,
        emphasised=file.flag("emphasised"),
    )
    for part in (streams, view, paper, file):
        part.done()
    _check_streams(file, experiment)
    _check_method(file, experiment)
    return experiment


def _lists(method: str | None) -> tuple[str, ...]:
    """The options of a method that take any number of streams."""
    options = fields(CONFIGS[method]) if method is not None and not chooses(method) else ()
    return tuple(
        option.name
        for option in options
        if option.metadata["metavar"] == "STREAM" and isinstance(option.default, tuple)
    )


def _view(part: _File) -> View:
    if part.flag("action_bytes"):
        return View(action_bytes=True)
    return View(part.number("online"), part.text_or_none("follows"))


def _runs_of(part: _File, method: str | None) -> Mapping[str, str]:
    """By the option of the method that takes a run folder, the row whose run it is."""
    runs = {name: part.text(name) for name in _run_options(method)}
    part.done()
    return runs


def _run_options(method: str | None) -> tuple[str, ...]:
    options = fields(CONFIGS[method]) if method is not None else ()
    return tuple(option.name for option in options if option.metadata["metavar"] == "RUN")


def _published(part: _File, dataset: str, datasets: tuple[str, ...]) -> Published:
    if dataset not in datasets:
        raise part.wrong(f"{TABLE} does not name this data set; it names: {', '.join(datasets) or 'none'}")
    published: dict[Measure, Printed] = {}
    for measure in MEASURES:
        text = part.text_or_none(measure)
        if text is not None:
            try:
                published[measure] = Printed(text)
            except ValueError as error:
                raise part.wrong(f"{measure}: {error}") from error
    part.done()
    return published


def _settings(part: _File, method: str | None) -> Mapping[str, Any]:
    """The settings of a row, checked against the configuration of its method."""
    if "models" in part.values:
        raise part.wrong("models stand in [streams]")
    if method is None:
        for name in part.values:
            raise part.wrong(f"unknown field {name!r}; there is no method")
        return {}
    config = CONFIGS[method]
    # The other fields are set elsewhere in the file, or for all rows.
    elsewhere = {*_ROLES, *_run_options(method), *_lists(method), "models", "seed"}
    allowed = names_of(config) - names_of(DataConfig) - elsewhere
    for name, value in part.values.items():
        if name not in allowed:
            reads = ", ".join(sorted(allowed)) + did_you_mean(name, allowed)
            raise part.wrong(f"unknown field {name!r}; {method} reads: {reads}")
        kind = types_of(config)[name]
        if not _fits(value, kind):
            raise part.wrong(f"{name}: {value!r} is not of its type, {_in_words(kind)}")
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in part.values.items()}
    teacher: dict[str, Any] = {"teacher": "given elsewhere"} if values.get("distill") else {}
    lists: dict[str, Any] = dict.fromkeys(_lists(method), ("given", "elsewhere"))
    try:
        config(**teacher, **lists, **values).check()
    except UserError as error:
        raise part.wrong(str(error)) from error
    part.values.clear()
    return values


def _check_method(file: _File, row: Experiment) -> None:
    if row.method is None:
        if row.streams or row.models or row.settings or row.view or row.usage_of or row.teacher_of:
            raise file.wrong(
                "a row without a method only cites: it has no streams, settings, view, usage_of or teacher_of"
            )
        return
    if row.method == "random-gating" and (row.usage_of is None) == ("usage" not in row.settings):
        raise file.wrong("random-gating needs either usage_of, another row, or a usage in [settings]")
    if row.usage_of is not None and row.method != "random-gating":
        raise file.wrong(f"usage_of is for random-gating, not for {row.method}")
    if (row.teacher_of is None) == bool(row.settings.get("distill")):
        raise file.wrong("teacher_of, another row, and a distill in [settings] need each other")
    if row.view is None:
        return
    if row.view.action_bytes:
        if row.method not in _LOCALIZERS:
            raise file.wrong(f"[view]: action_bytes is for {' and '.join(_LOCALIZERS)}, not for {row.method}")
        return
    if row.view.online is None or row.view.online < 1:
        raise file.wrong(f"[view]: online must be at least 1, not {row.view.online}")
    if row.method not in (*_ONLINE, "uniform"):
        raise file.wrong(f"[view]: online is for {', '.join(_ONLINE)} and uniform, not for {row.method}")
    if (row.view.follows is None) == (row.method == "uniform"):
        raise file.wrong("[view]: uniform, and nothing else, follows a row of LiteEval: follows = NAME")


def _check_streams(file: _File, row: Experiment) -> None:
    if row.method is None:
        return
    method = METHODS[row.method]
    if not chooses(row.method):
        if row.models:
            raise file.wrong(f"[streams]: {row.method} does not choose from models")
    elif not row.models:
        raise file.wrong(f'[streams]: {row.method} needs a pool of models: models = ["STREAM", "STREAM", …]')
    else:
        try:
            parse_models(row.models)
        except UserError as error:
            raise file.wrong(f"[streams]: models: {error}") from error
    required = {option.name for option in fields(CONFIGS[row.method]) if option.metadata["required"]}
    for role in _ROLES:
        # A selector without a coarse stream looks at the cheapest model of its pool.
        if role not in row.streams and role in required and not row.models:
            raise file.wrong(f"[streams]: {row.method} needs a {role} stream")
        if role in row.streams and role not in method.roles:
            raise file.wrong(f"[streams]: {row.method} does not read a {role} stream")


def _check_references(rows: Mapping[Path, Experiment]) -> None:
    for what in ("name", "title"):
        paths: dict[str, Path] = {}
        for path, row in rows.items():
            value = getattr(row, what)
            if value in paths:
                raise UserError(
                    f"{path}: has the {what} {value!r} of {paths[value].name}; each needs its own"
                )
            paths[value] = path
    by_name = {row.name: row for row in rows.values()}
    for path, row in rows.items():
        follows = row.view.follows if row.view else None
        references = (
            ("usage_of", row.usage_of),
            ("teacher_of", row.teacher_of),
            ("follows", follows),
            *row.runs_of.items(),
        )
        for what, other in references:
            if other is None:
                continue
            named = by_name.get(other)
            if named is None:
                raise UserError(f"{path}: {what}: no row {other!r}; {_there_are(by_name, other)}")
            if named.method is None or named.usage_of is not None:
                raise UserError(f"{path}: {what}: the row {other!r} has no usage of its own")
            if named.teacher_of is not None:
                raise UserError(f"{path}: {what}: the row {other!r} waits for a teacher itself")
            if named.runs_of:
                raise UserError(f"{path}: {what}: the row {other!r} waits for other rows itself")
            if what == "follows" and named.method not in _ONLINE:
                raise UserError(f"{path}: follows: the row {other!r} is not one of {', '.join(_ONLINE)}")


def _there_are(known: Iterable[str], name: str) -> str:
    """What is known where a name is not."""
    known = tuple(known)
    return f"there are: {', '.join(known)}{did_you_mean(name, known)}"


class _File:
    """The values of a TOML file, or of a part of it, that have not been taken yet."""

    def __init__(self, path: Path, values: dict[str, Any], where: str = "") -> None:
        self.path, self.values, self.where = path, values, where
        self.known: dict[str, None] = {}

    @staticmethod
    def read(path: Path) -> _File:
        try:
            return _File(path, tomllib.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
        except ValueError as error:  # also TOMLDecodeError, and text that is not UTF-8
            raise UserError(f"{path}: not TOML: {error}") from error

    def wrong(self, what: str) -> UserError:
        return UserError(f"{self.path}: {self.where}{what}")

    def text(self, name: str) -> str:
        value = self.text_or_none(name)
        if not value:
            raise self.wrong(f"{name} is missing")
        return value

    def text_or_none(self, name: str) -> str | None:
        value: str | None = self._take(name, str, "a text", None)
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        return tuple(self._take(name, tuple[str, ...], "a list of texts", []))

    def number(self, name: str) -> int:
        value: int | None = self._take(name, int, "a whole number", None)
        if value is None:
            raise self.wrong(f"{name} is missing")
        return value

    def flag(self, name: str) -> bool:
        return bool(self._take(name, bool, "true or false", False))

    def part(self, name: str) -> _File:
        values = self._take(name, dict, f"a part [{name}]", {})
        return _File(self.path, dict(values), f"{self.where}[{name}]: ".replace("]: [", "."))

    def done(self) -> None:
        """Raises UserError if a value is left that is no known field."""
        if self.values:
            name = next(iter(self.values))
            raise self.wrong(f"unknown field {name!r}; {_there_are(self.known, name)}")

    def _take(self, name: str, kind: Any, what: str, default: Any) -> Any:
        self.known[name] = None
        value = self.values.pop(name, default)
        if value is not default and not _fits(value, kind):
            raise self.wrong(f"{name}: {value!r} is not {what}")
        return value


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value of a TOML file has the type of a configuration's field."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:
        return isinstance(value, list) and all(_fits(one, get_args(kind)[0]) for one in value)
    if get_args(kind):  # a union; TOML has no None
        return any(_fits(value, one) for one in get_args(kind) if one is not type(None))
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _in_words(kind: Any) -> str:
    """A type in plain words."""
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(repr, get_args(kind)))
    if get_origin(kind) is tuple:
        return {int: "a list of whole numbers", str: "a list of texts"}[get_args(kind)[0]]
    kinds = [one for one in get_args(kind) if one is not type(None)] or [kind]
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    return " or ".join(names[one] for one in kinds)


__all__ = ["EXPERIMENTS", "TABLE", "chooses", "read_table"]
