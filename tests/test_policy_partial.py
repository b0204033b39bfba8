"""Policies on partial videos: rows go together by their instants, and who wants whole videos only gets them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_schema import FeatureCache, Sampling, write_shard
from cache_schema.annotations import LabelSet, VideoLabel
from cache_schema.errors import LabelError
from policy.baselines.config import FineLSTMConfig
from policy.cli.train_policy import train_policy
from policy.config import DataConfig
from policy.data.batches import Role, uniform_rows
from policy.data.opening import Dataset, open_dataset
from policy.liteeval.config import LiteEvalConfig
from policy.networks.packing import video_of_row
from policy.runs import open_data, read_config, run_key
from policy.tables.cli import paper_tables
from policy.tables.reading import EXPERIMENTS
from tests.caches import make_partial, make_record, make_spec, without_rows, write_stream
from tests.planted import write_planted, write_planted_labels

TOOLS = {"thriftvid": "test"}
LABELS = LabelSet(
    Path("l.csv"),
    (VideoLabel("a", ("x",), "train"), VideoLabel("b", ("x",), "train"), VideoLabel("c", ("x",), "test")),
)
PAIR: dict[Role, str] = {"coarse": "coarse", "fine": "fine"}


def cache_of(folder: Path, lost: Mapping[str, Mapping[str, list[int]]], *, rows: int = 8) -> FeatureCache:
    """Videos a, b, c in streams coarse and fine; feature 0 says which second a row is of."""
    samplings = {"coarse": Sampling(), "fine": Sampling("snippets", 30.0, 32, 64, 1.0)}
    for name, sampling in samplings.items():
        records = []
        for video in "abc":
            features = np.random.default_rng(0).standard_normal((rows, 8))
            features[:, 0] = np.arange(rows)
            record = make_record(video, rows, features=features)
            gone = lost.get(name, {}).get(video, [])
            records.append(without_rows(record, gone) if gone else record)
        write_shard(folder / name, make_spec(name, sampling=sampling), records, tools=TOOLS)
    return FeatureCache(folder)


@settings(max_examples=25)
@given(
    coarse=st.sets(st.integers(0, 7), max_size=4),
    fine=st.sets(st.integers(0, 7), max_size=3),
    count=st.integers(1, 9),
)
def test_rows_of_a_partial_video_go_together_by_instant(
    coarse: set[int], fine: set[int], count: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lost = {"coarse": {"a": sorted(coarse)}, "fine": {"a": sorted(fine), "b": [7]}}
    data = open_dataset(cache_of(tmp_path_factory.mktemp("cache"), lost), LABELS, PAIR)
    common = [float(second) for second in range(8) if second not in coarse | fine]
    videos = data.train
    assert [videos.length(0), videos.length(1)] == [len(common), 7]
    for role in PAIR:
        assert videos.features(role, 0)[:, 0].tolist() == common
        assert videos.spans(role, 0)[:, 0].tolist() == common
        assert videos.features(role, 1)[:, 0].tolist() == list(range(7))
    batch = videos.batch([0, 1], lambda length: uniform_rows(length, count))
    owner = video_of_row(batch.inputs["coarse"])
    seconds = [batch.inputs[role].data[owner == 0][:, 0].tolist() for role in ("coarse", "fine")]
    assert seconds[0] == seconds[1] == np.array(common)[uniform_rows(len(common), count)].tolist()


def test_a_method_of_one_stream_has_all_rows_of_that(tmp_path: Path) -> None:
    cache = cache_of(tmp_path, {"coarse": {"a": [0, 1, 2]}, "fine": {"a": [5]}})
    videos = open_dataset(cache, LABELS, {"fine": "fine"}).train
    assert videos.features("fine", 0)[:, 0].tolist() == [0, 1, 2, 3, 4, 6, 7]


def test_streams_without_a_common_instant(tmp_path: Path) -> None:
    cache = cache_of(tmp_path, {"coarse": {"a": [0, 1, 2, 3]}, "fine": {"a": [4, 5, 6, 7]}})
    with pytest.raises(LabelError, match=r"'a' \(partial, and no row of one stream is of the same instant"):
        open_dataset(cache, LABELS, PAIR)
    data = open_dataset(cache, LABELS, PAIR, DataConfig(skip_missing=True))
    assert data.train.ids == ("b",)
    assert open_dataset(cache, LABELS, PAIR, DataConfig(whole_only=True)).train.ids == ("b",)


def notes_on_parts(data: Dataset) -> list[str]:
    return [note for note in data.notes if "partial" in note]


def test_partial_videos_are_used_and_counted_unless_whole_ones_are_asked_for(tmp_path: Path) -> None:
    cache = cache_of(tmp_path, {"fine": {"a": [3]}})
    data = open_dataset(cache, LABELS, PAIR)
    assert data.train.ids == ("a", "b")
    [note] = notes_on_parts(data)
    assert note.startswith("1 of 3 videos is partial: ") and "--whole-only" in note
    whole = open_dataset(cache, LABELS, PAIR, DataConfig(whole_only=True))
    assert whole.train.ids == ("b",) and whole.evaluation.ids == ("c",)
    assert notes_on_parts(whole) == ["1 video of subset 'train' left out as partial"]
    assert whole.digest() != data.digest()
    nothing = cache_of(tmp_path / "other", {"fine": {"c": [3]}})
    with pytest.raises(LabelError, match="no video of subset 'test' has features whole in the cache"):
        open_dataset(nothing, LABELS, PAIR, DataConfig(whole_only=True))


def test_of_a_pool_the_models_rows_need_not_go_together(tmp_path: Path) -> None:
    for name in ("small", "large"):
        records = [make_record(v, 8, classes=2) for v in "bc"]
        part = make_partial("a", 8, [1] if name == "small" else [0, 4], classes=2)
        write_shard(tmp_path / name, make_spec(name, classes=2), [part, *records], tools=TOOLS)
    pool = ("small", "large")
    data = open_dataset(FeatureCache(tmp_path), LABELS, {"coarse": "small"}, pool=pool)
    assert [len(data.train.scores_of(data.train.pool[name], 0)) for name in pool] == [7, 6]
    whole = DataConfig(whole_only=True)
    assert open_dataset(FeatureCache(tmp_path), LABELS, {"coarse": "small"}, whole, pool=pool).train.ids == (
        "b",
    )


# ------------------------------------------------------------------------------------------------------- commands


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 12 training and 8 test videos, one of each is partial in one stream, another in the other."""
    whole, folder = (tmp_path_factory.mktemp(name) for name in ("whole", "planted"))
    labels = write_planted(whole, train=12, test=8, classes=4, dim=8, lengths=(4, 8))[1]
    write_planted_labels(labels, folder / "labels.csv")
    parts = {
        "coarse_112": {"video_0001": [0], "video_0013": [2]},
        "fine_224": {"video_0002": [1], "video_0014": [0, 3]},
    }
    for name, stream in FeatureCache(whole).items():
        records = [
            without_rows(stream[video], parts[name][video]) if video in parts[name] else stream[video]
            for video in stream
        ]
        write_shard(folder / name, stream.spec, records, tools=TOOLS)
    return folder


SMALL = ["--epochs", "1", "--batch", "8", "--coarse-hidden", "4", "--fine-hidden", "8", "--device", "cpu"]
STREAMS = ["--coarse", "coarse_112", "--fine", "fine_224"]


def train(planted: Path, out: Path, *words: str) -> Result:
    data = ["--cache", str(planted), "--labels", str(planted / "labels.csv"), "--out", str(out)]
    return CliRunner().invoke(train_policy, ["liteeval", *data, *STREAMS, *SMALL, *words])


def test_train_policy_with_and_without_parts(planted: Path, tmp_path: Path) -> None:
    ran = train(planted, tmp_path / "all", "--json")
    assert ran.exit_code == 0, ran.output
    assert "4 of 20 videos are partial: the rows that the cache has are used" in ran.stderr
    assert json.loads(ran.stdout)["videos"] == 8
    ran = train(planted, tmp_path / "whole", "--whole-only", "--json")
    assert ran.exit_code == 0, ran.output
    for line in (
        "2 videos of subset 'train' left out as partial",
        "2 videos of subset 'test' left out as partial",
    ):
        assert line in ran.stderr
    assert json.loads(ran.stdout)["videos"] == 6
    assert read_config(tmp_path / "whole").whole_only and not read_config(tmp_path / "all").whole_only
    # The one's folder is not the other's.
    ran = train(planted, tmp_path / "all", "--whole-only")
    assert ran.exit_code == 2 and "holds a run with another content of" in ran.stderr
    assert json.loads(train(planted, tmp_path / "whole", "--whole-only", "--json").stdout)["reused"]


def test_the_key_of_a_run_says_which_videos_it_is_of(planted: Path, tmp_path: Path) -> None:
    def keys(cache: FeatureCache, labels: LabelSet) -> list[str]:
        config = FineLSTMConfig(fine="fine_224")
        return [run_key(replace(config, whole_only=whole), cache, labels) for whole in (False, True)]

    cache, labels = write_planted(tmp_path, train=12, test=8, classes=4, dim=8, lengths=(4, 8))
    no_parts, parts = keys(cache, labels), keys(FeatureCache(planted), labels)
    assert no_parts[0] == no_parts[1] and len({*no_parts, *parts}) == 3


def test_every_row_of_a_table_is_judged_on_the_same_videos(planted: Path, tmp_path: Path) -> None:
    """One row reads a stream alone, in which other videos are partial than in the two of the other."""
    shutil.copytree(EXPERIMENTS / "liteeval-1", tmp_path / "mine")
    for path in (tmp_path / "mine").glob("[0-9]*.toml"):
        if path.name not in {"02-lstm.toml", "08-liteeval.toml"}:
            path.unlink()
    data = ["--cache", planted, "--labels", planted / "labels.csv", "--seeds", "1", "--resamples", "0"]
    for option, videos in ((), {8}), (("--whole-only",), {6}):
        runs = tmp_path / f"runs {videos}"
        words = ["run", tmp_path / "mine", *data, *STREAMS, *SMALL, "--runs", runs, *option]
        ran = CliRunner().invoke(paper_tables, list(map(str, words)))
        assert ran.exit_code == 0, ran.output
        results = [json.loads(path.read_text())["result"] for path in runs.glob("*/result.json")]
        assert len(results) == 2 and {result["videos"] for result in results} == videos
        assert ("partial" in ran.stderr) and ("left out as partial" in ran.stderr) == bool(option)


def test_streams_that_are_whole_know_nothing_of_it(tmp_path: Path) -> None:
    write_stream(tmp_path, make_spec("coarse"), {"a": 4, "b": 4, "c": 2})
    write_stream(tmp_path, make_spec("fine"), {"a": 4, "b": 4, "c": 2})
    config = LiteEvalConfig(coarse="coarse", fine="fine", whole_only=True)
    data = open_data(config, FeatureCache(tmp_path), LABELS)
    assert not notes_on_parts(data) and not data.train.pairs
