"""Which streams of a cache a table's rows read: the paper's, or the user's replacements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cache_schema import FeatureCache, UserError
from cache_schema.costs import stream_cost
from cache_schema.names import did_you_mean
from policy.data.batches import Role
from policy.data.opening import grid
from policy.selection.pool import ModelName
from policy.tables.experiment import Experiment, PaperTable


class MissingStreamsError(UserError):
    """A cache lacks streams that a table reads."""


@dataclass(frozen=True)
class Substitution:
    """Attributes:
    replaced: the cache's stream by the paper's, for streams that are replaced.
    marked: the paper's streams whose rows have a mark.
    """

    replaced: Mapping[str, str] = field(default_factory=dict)
    marked: frozenset[str] = frozenset()

    def stream(self, paper: str) -> str:
        """The cache's stream for a stream of the paper."""
        return self.replaced.get(paper, paper)

    def model(self, paper: str) -> str:
        """The cache's "STREAM:ROWS" for a model of the paper's pool; the number of rows stays."""
        name = ModelName.parse(paper)
        return self.stream(name.stream) + paper.removeprefix(name.stream)

    def marks(self, experiment: Experiment) -> bool:
        """Whether a row has a mark."""
        return not self.marked.isdisjoint(experiment.reads)

    def of(self, experiment: Experiment) -> Mapping[str, str]:
        """The replaced streams of a row."""
        return {paper: self.replaced[paper] for paper in experiment.reads if paper in self.replaced}


def substitution(
    table: PaperTable, pairs: Iterable[str], *, coarse: str | None = None, fine: str | None = None
) -> Substitution:
    """The substitution that the command line describes.

    Args:
        pairs: "PAPER=OURS" each; rows that read these streams are marked.
        coarse, fine: replace the table's only stream of that role, without a mark: the user has named the role.

    Raises:
        UserError: a pair has another form, or the table does not have exactly one such stream.
    """
    replaced: dict[str, str] = {}
    for text in pairs:
        paper, _, ours = text.partition("=")
        if not (paper and ours):
            raise UserError(f"--substitute {text}: give PAPER=OURS, such as dpn107_224=resnet18_224")
        if paper not in table.reads:
            raise UserError(
                f"--substitute {text}: {table.name} does not read {paper}; it reads: {_all(table.reads)}"
                f"{did_you_mean(paper, table.reads)}"
            )
        if paper in replaced:
            raise UserError(f"--substitute {text}: {paper} is replaced twice")
        replaced[paper] = ours
    marked = frozenset(paper for paper, ours in replaced.items() if paper != ours)
    roles: dict[Role, str | None] = {"coarse": coarse, "fine": fine}
    for role, stream in roles.items():
        if stream is None:
            continue
        streams = table.streams[role]
        if len(streams) != 1:
            raise UserError(
                f"--{role} {stream}: {table.name} reads {len(streams)} {role} streams ({_all(streams)}); "
                f"say which: --substitute {streams[0]}={stream}"
            )
        if streams[0] in replaced:
            raise UserError(f"--{role} {stream}: {streams[0]} is replaced twice")
        replaced[streams[0]] = stream
    return Substitution({paper: ours for paper, ours in replaced.items() if paper != ours}, marked)


def for_each(tables: Iterable[PaperTable], pairs: Sequence[str]) -> list[list[str]]:
    """For each of several tables, the "PAPER=OURS" pairs for its streams.

    Raises:
        UserError: no table reads a pair's stream.
    """
    reads = [set(table.reads) for table in tables]
    for text in pairs:
        paper = text.partition("=")[0]
        if not any(paper in streams for streams in reads):
            streams = sorted(set().union(*reads))
            close = did_you_mean(paper, streams)
            raise UserError(f"--substitute {text}: no table reads {paper}; they read: {_all(streams)}{close}")
    return [[text for text in pairs if text.partition("=")[0] in streams] for streams in reads]


def check_streams(table: PaperTable, substitution: Substitution, cache: FeatureCache) -> None:
    """Raises MissingStreamsError for streams that the cache lacks, with options that replace them."""
    for ours in substitution.replaced.values():
        cache[ours]
    missing = [paper for paper in table.reads if substitution.stream(paper) not in cache]
    if not missing:
        return
    # Of streams that go together the cheapest is probably meant as the coarse one, the dearest as the fine one.
    grids = {name: grid(cache[name]) for name in cache}
    there = [stream for paper in table.reads if (stream := substitution.stream(paper)) in cache]
    counts = Counter(grids[name] for name in there or cache)
    usual = counts.most_common(1)[0][0] if counts else None
    alike = [name for name in cache if grids[name] == usual]
    by_cost = sorted(alike, key=lambda name: stream_cost(cache[name].spec).macs) or ["STREAM"]
    stand_ins = {
        **dict.fromkeys(table.streams["fine"], by_cost[-1]),
        **dict.fromkeys(table.streams["coarse"], by_cost[0]),
        **dict.fromkeys(table.pool, "STREAM"),
    }
    advice = " ".join(f"--substitute {paper}={stand_ins.get(paper, 'STREAM')}" for paper in missing)
    if not set(table.pool).isdisjoint(missing):
        advice += "; or name a pool of your own: --model STREAM, repeated"
    raise MissingStreamsError(
        f"{cache.folder}: {table.name} needs {_all(missing)}, but this cache has: {_all(cache) or 'nothing'}; "
        f"extract what is missing with batch-extract, or put another stream in its place: {advice}"
    )


def _all(names: Iterable[str]) -> str:
    return ", ".join(names)
