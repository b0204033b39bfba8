"""Which streams of a cache a table's rows read: the paper's, or those that the user puts in their place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cache_schema import FeatureCache, UserError
from cache_schema.costs import stream_cost
from policy.data.batches import Role
from policy.selection.pool import ModelName
from policy.tables.experiment import Experiment, PaperTable


@dataclass(frozen=True)
class Substitution:
    """Attributes:
    replaced: the cache's stream by the paper's, for those that are not the same.
    marked: of the paper's, those whose rows bear a mark.
    """

    replaced: Mapping[str, str] = field(default_factory=dict)
    marked: frozenset[str] = frozenset()

    def stream(self, paper: str) -> str:
        """The cache's stream for one of the paper's."""
        return self.replaced.get(paper, paper)

    def model(self, paper: str) -> str:
        """The same for a model of a pool, whose number of rows stays what it is."""
        name = ModelName.parse(paper)
        return self.stream(name.stream) + paper.removeprefix(name.stream)

    def marks(self, experiment: Experiment) -> bool:
        """Whether a row bears a mark."""
        return not self.marked.isdisjoint(experiment.reads)

    def of(self, experiment: Experiment) -> Mapping[str, str]:
        """What is replaced in a row."""
        return {paper: self.replaced[paper] for paper in experiment.reads if paper in self.replaced}


def substitution(
    table: PaperTable,
    given: Iterable[str],
    *,
    coarse: str | None = None,
    fine: str | None = None,
) -> Substitution:
    """From the command line.

    Args:
        given: "PAPER=OURS" each. Such rows are marked.
        coarse, fine: in place of the table's only stream of that role. Who says what the two streams of a table
            are knows it: no marks.

    Raises:
        UserError: something else is given, or the table has no such stream, or several.
    """
    replaced: dict[str, str] = {}
    marked = set()
    known = table.reads
    for text in given:
        paper, equals, ours = text.partition("=")
        if not (paper and equals and ours):
            raise UserError(f"--substitute {text}: give PAPER=OURS, such as dpn107_224=resnet18_224")
        if paper not in known:
            raise UserError(
                f"--substitute {text}: {table.name} does not read {paper}; it reads: {_all(known)}"
            )
        if paper in replaced:
            raise UserError(f"--substitute {text}: {paper} is replaced twice")
        replaced[paper] = ours
        if ours != paper:
            marked.add(paper)
    roles: dict[Role, str | None] = {"coarse": coarse, "fine": fine}
    for role, name in roles.items():
        if name is None:
            continue
        streams = table.streams[role]
        if len(streams) != 1:
            raise UserError(
                f"--{role} {name}: {table.name} reads {len(streams)} {role} streams ({_all(streams)}); "
                f"say which: --substitute {streams[0]}={name}"
            )
        if streams[0] in replaced:
            raise UserError(f"--{role} {name}: {streams[0]} is replaced twice")
        replaced[streams[0]] = name
    return Substitution({p: o for p, o in replaced.items() if p != o}, frozenset(marked))


def for_each(tables: Iterable[PaperTable], given: Sequence[str]) -> list[list[str]]:
    """For each of several tables, what of "PAPER=OURS" is about its streams.

    Raises:
        UserError: something is about no table's.
    """
    known = [set(table.reads) for table in tables]
    for text in given:
        paper = text.partition("=")[0]
        if not any(paper in streams for streams in known):
            every = _all(sorted(set().union(*known)))
            raise UserError(f"--substitute {text}: no table reads {paper}; they read: {every}")
    return [[text for text in given if text.partition("=")[0] in streams] for streams in known]


def check_streams(table: PaperTable, chosen: Substitution, cache: FeatureCache) -> None:
    """Raises UserError where the cache lacks a stream, with what to give instead."""
    for ours in chosen.replaced.values():
        cache[ours]
    missing = [paper for paper in table.reads if chosen.stream(paper) not in cache]
    if not missing:
        return
    # The streams' costs tell which of them are likely to be meant.
    by_cost = sorted(cache, key=lambda name: stream_cost(cache[name].spec).macs)
    stand_ins = dict.fromkeys(table.streams["fine"], by_cost[-1]) if by_cost else {}
    stand_ins |= dict.fromkeys(table.streams["coarse"], by_cost[0]) if by_cost else {}
    advice = " ".join(
        f"--substitute {paper}={'STREAM' if paper in table.pool else stand_ins.get(paper, 'STREAM')}"
        for paper in missing
    )
    if not set(table.pool).isdisjoint(missing):
        advice += "; or name a pool of your own: --model STREAM, repeated"
    raise UserError(
        f"{cache.folder}: {table.name} needs {_all(missing)}, but this cache has: {_all(cache) or 'nothing'}; "
        f"extract what is missing with batch-extract, or put another stream in its place: {advice}"
    )


def _all(names: Iterable[str]) -> str:
    return ", ".join(names)
