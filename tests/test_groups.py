"""Videos that belong together: how labels say so, and that no split and no bootstrap sample takes them apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cache_schema import FeatureCache, LabelError, UserError
from cache_schema.annotations import Grouping, LabelSet, VideoLabel, read_labels
from cache_schema.annotations.groups import grouped, held_out_groups, in_both
from policy.baselines import cross_validated
from policy.baselines.config import UniformConfig
from policy.data.groups import random_folds, stratified_folds
from policy.data.opening import Dataset, open_dataset
from policy.evaluation.metrics import percentile_interval, resampled_weights, weighted_mean
from policy.evaluation.predictions import Predictions, intervals
from policy.method import Method
from policy.selection.area import compare
from policy.selection.controls import cascade, single_models
from policy.selection.linear_head import assign_folds
from policy.training.validation import split
from policy.tuning.folds import HELD_OUT, fold_labels
from tests.planted import write_planted
from tests.pool_tables import random_table
from tests.test_intervals import predictions

CSV = (
    "video_id,label,subset,person\na1,run,train,ann\na2,jump,train,ann\nb1,run,train,bob\nc1,run,test,cleo\n"
)
PERSON = Grouping("person")


def written(folder: Path, text: str, name: str = "labels.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


# --- what labels say ---


def test_groups_of_a_csv(tmp_path: Path) -> None:
    labels = read_labels(written(tmp_path, CSV), grouping=PERSON)
    assert [video.group for video in labels.videos] == ["ann", "ann", "bob", "cleo"]
    assert labels.grouping == PERSON
    mac = read_labels(written(tmp_path, CSV.replace("\n", "\r"), "mac.csv"), grouping=PERSON)
    assert mac.videos == labels.videos
    plain = read_labels(tmp_path / "labels.csv")
    assert plain.grouping is None and not any(video.group for video in plain.videos)
    segments = "video_id,start_s,end_s,label,source\na,0,1,run,x\na,2,3,run,x\nb,,,run,y\n"
    labels = read_labels(written(tmp_path, segments), grouping=Grouping("source"))
    assert [(video.video_id, video.group) for video in labels.videos] == [("a", "x"), ("b", "y")]


def test_groups_in_ids(tmp_path: Path) -> None:
    ids = ("v_Swim_g08_c03", "v_Swim_g08_c04", "v_Dive_g08_c01")
    text = "video_id,label,subset\n" + "".join(f"{name},{name[2:6]},train\n" for name in ids)
    labels = read_labels(written(tmp_path, text), grouping=Grouping(pattern=r"v_(.*_g\d+)_c"))
    assert [video.group for video in labels.videos] == ["Swim_g08", "Swim_g08", "Dive_g08"]


def test_a_group_begins_an_id_or_what_its_folders_leave_of_it(tmp_path: Path) -> None:
    ids = ("UCF/Swim/v_Swim_g08_c03", "v_Swim_g08_c04", "UCF/Dive/v_Dive_g08_c01")
    text = "video_id,label,subset\n" + "".join(f"{name},x,train\n" for name in ids)

    def groups(pattern: str) -> list[str]:
        labels = read_labels(written(tmp_path, text), grouping=Grouping(pattern=pattern))
        return [video.group for video in labels.videos]

    assert groups(r"^v_(.*_g\d+)_c") == ["Swim_g08", "Swim_g08", "Dive_g08"]
    assert groups(r"^(UCF|v)[/_]") == ["UCF", "v", "UCF"]  # the whole id comes first
    with pytest.raises(LabelError, match="finds no group in the ids of 2 of 3 videos: 'UCF/Swim/v_Swim"):
        groups(r"\A(v_Swim_g08_c04)\Z")


@pytest.mark.parametrize(
    ("text", "grouping", "message"),
    [
        (
            CSV,
            Grouping("persn"),
            "no column 'persn' for Grouping's column persn; it has: video_id, label, subset, person",
        ),
        (CSV.replace("bob", " "), PERSON, "line 4: no person for video 'b1'"),
        (CSV.replace(",cleo", ""), PERSON, "line 5: no person for video 'c1'"),
        (
            CSV.replace("person\n", "person,person\n"),
            PERSON,
            "two columns 'person'",
        ),
        (
            "video_id,start_s,end_s,label,person\na,0,1,run,x\na,2,3,run,y\n",
            PERSON,
            "line 3: video 'a' is of person 'y', but of 'x' in line 2",
        ),
        (CSV, Grouping(pattern=r"([ab])\d"), "finds no group in the ids of 1 of 4 videos: 'c1'"),
        (CSV, Grouping(pattern=r"(x?)"), "finds no group in the ids of 4 of 4 videos: 'a1', 'a2', 'b1', …"),
    ],
)
def test_what_is_wrong_with_groups(text: str, grouping: Grouping, message: str, tmp_path: Path) -> None:
    with pytest.raises(LabelError) as error:
        read_labels(written(tmp_path, text), grouping=grouping)
    assert message in str(error.value) and str(tmp_path / "labels.csv") in str(error.value)


def test_a_column_is_of_a_csv(tmp_path: Path) -> None:
    lists = written(tmp_path, f'{{"database": {{}}, "x": "{"y" * 200_000}"}}', "labels.json")
    (tmp_path / "labels.zip").write_bytes(b"PK\x03\x04\x00\xff\n\x00")
    for source in (lists, tmp_path, tmp_path / "labels.zip"):
        with pytest.raises(LabelError, match="--group-column person is for a CSV with a column video_id"):
            grouped(LabelSet(source, ()), PERSON)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"column": "person", "pattern": "(.)"}, "give --group-column or --group-pattern, not both"),
        ({"pattern": "(."}, "--group-pattern .*: is no regular expression: missing"),
        ({"pattern": "v_.*_c"}, "has 0 pairs of parentheses; put one around what names the group"),
        ({"pattern": "(a)(b)"}, "has 2 pairs of parentheses"),
    ],
)
def test_groupings_that_are_none(options: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Grouping.of(**{"column": None, "pattern": None, **options})
    assert Grouping.of(None, None) is None


# --- what a dataset makes of them ---


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[FeatureCache, LabelSet]:
    """16 videos for training and 8 for evaluation, of 2 classes; each four in a row are of a group."""
    cache, labels = write_planted(tmp_path_factory.mktemp("planted"), train=16, test=8, classes=2, dim=4)
    videos = (replace(video, group=f"g{place // 4}") for place, video in enumerate(labels.videos))
    return cache, replace(labels, videos=tuple(videos), grouping=PERSON)


def opened(cache: FeatureCache, labels: LabelSet) -> Dataset:
    return open_dataset(cache, labels, {"fine": "fine_224"})


def regrouped(labels: LabelSet, groups: dict[int, str]) -> LabelSet:
    """Videos at some places are of other groups."""
    videos = (replace(v, group=groups.get(place, v.group)) for place, v in enumerate(labels.videos))
    return replace(labels, videos=tuple(videos))


def test_groups_of_a_dataset(planted: tuple[FeatureCache, LabelSet]) -> None:
    cache, labels = planted
    data = opened(cache, labels)
    assert data.train.groups == tuple(f"g{place // 4}" for place in range(16))
    assert data.train.part([5, 0]).groups == ("g1", "g0")
    assert "groups of videos (--group-column person): 4 in subset 'train', 2 in subset 'test'" in data.notes
    assert not any("WARNING" in note for note in data.notes)
    bare = opened(cache, LabelSet(labels.source, tuple(replace(v, group="") for v in labels.videos)))
    assert bare.digest() == {name: one for name, one in data.digest().items() if name != "groups"}
    other = opened(cache, regrouped(labels, {0: "g3"}))
    assert {name for name, one in other.digest().items() if one != data.digest()[name]} == {"groups"}


def test_groups_in_both_subsets_are_named(planted: tuple[FeatureCache, LabelSet]) -> None:
    cache, labels = planted
    data = opened(cache, regrouped(labels, {0: "g5", 1: "g4", 17: "g2"}))
    (warning,) = [note for note in data.notes if "WARNING" in note]
    assert warning.startswith(
        "WARNING: 3 groups have videos in both subsets, 'g2', 'g4', 'g5': 6 of 'train', 8 of 'test'"
    )
    assert data.describe_groups() == {
        "told_by": {"column": "person", "pattern": None},
        "train": 6,
        "evaluation": 3,
        "in_both": ["g2", "g4", "g5"],
    }
    assert in_both(["a"], ["b"], ("train", "test")) == ""


def test_classes_and_subsets_of_one_group_are_named(planted: tuple[FeatureCache, LabelSet]) -> None:
    cache, labels = planted
    by_class = regrouped(labels, {place: f"g{place % 2}" for place in range(16)})
    assert any(
        "2 classes: 'class 0', 'class 1', with all training videos in" in note
        for note in opened(cache, by_class).notes
    )
    single = regrouped(labels, dict.fromkeys(range(16, 24), "one"))
    assert any("all videos of subset 'test' are of one group" in note for note in opened(cache, single).notes)
    assert any(
        "WARNING: each video of subset 'train' is a group of its own, 'n0', 'n1', 'n2', …: the same" in note
        for note in opened(cache, regrouped(labels, {place: f"n{place}" for place in range(16)})).notes
    )
    whole = opened(cache, regrouped(labels, dict.fromkeys(range(16), "one"))).notes
    assert any("WARNING: all videos of subset 'train' are of one group, 'one'" in note for note in whole)
    with pytest.raises(LabelError, match="no group for 1 of 16 videos: 'video_0003'"):
        opened(cache, regrouped(labels, {3: ""}))


# --- splits ---

members = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), min_size=2, max_size=60).filter(
    lambda videos: len({group for group, _ in videos}) > 1
)
"""Of each video its group and its class."""


def whole(part: np.ndarray, groups: list[str]) -> bool:
    """Whether all videos of each group are in the same part."""
    return all(len({int(part[m]) for m, one in enumerate(groups) if one == group}) == 1 for group in groups)


@settings(max_examples=150, deadline=None)
@example(videos=[(0, 0), (0, 1), (1, 1), (1, 1), (1, 1), (2, 1), (3, 1), (4, 2)], folds=5, seed=0)
@given(videos=members, folds=st.integers(2, 6), seed=st.integers(0, 5))
def test_folds_are_of_whole_groups(videos: list[tuple[int, int]], folds: int, seed: int) -> None:
    groups, classes = [f"g{group}" for group, _ in videos], np.array([label for _, label in videos])
    fold = random_folds(len(videos), folds, seed, groups)
    assert whole(fold, groups)
    assert {*fold.tolist()} == {*range(min(folds, len(set(groups))))}
    onehot = classes[:, None] == np.arange(4)
    if len(set(groups)) < folds:
        with pytest.raises(UserError, match=f"{folds} folds need as many groups of videos, and there are "):
            stratified_folds(groups, classes, folds, seed)
        return
    for fold in (stratified_folds(groups, classes, folds, seed), assign_folds(onehot, folds, seed, groups)):
        assert whole(fold, groups)
        assert {*fold.tolist()} == {*range(folds)}


def test_folds_without_groups_are_as_they_were() -> None:
    expected = np.random.default_rng(3).permutation(17) % 5
    assert np.array_equal(random_folds(17, 5, 3), expected)
    assert np.array_equal(random_folds(17, 5, 3, [f"{place:02d}" for place in range(17)]), expected)


def test_folds_spread_classes() -> None:
    """Of groups of one class each, every fold has as many of each."""
    groups = [f"g{place // 3:02d}" for place in range(60)]
    classes = np.arange(60) // 3 % 4
    fold = stratified_folds(groups, classes, 5, 0)
    assert all(np.bincount(classes[fold == number]).tolist() == [3, 3, 3, 3] for number in range(5))


@settings(max_examples=150, deadline=None)
@given(videos=members, share=st.floats(0.02, 0.9), seed=st.integers(0, 5))
def test_held_out_videos_are_whole_groups(videos: list[tuple[int, int]], share: float, seed: int) -> None:
    groups, classes = [f"g{group}" for group, _ in videos], np.array([label for _, label in videos])
    labels = classes[:, None] == np.arange(4)
    spared = [
        g
        for g in set(groups)
        if all(((classes == c) & (np.array(groups) != g)).any() for c in classes[np.array(groups) == g])
    ]
    if not spared:
        with pytest.raises(
            UserError, match=f"each of the {len(set(groups))} groups has all videos of some class"
        ):
            held_out_groups(groups, labels, share, seed)
        return
    held = held_out_groups(groups, labels, share, seed)
    assert whole(held, groups) and held.any()
    assert {*classes[~held].tolist()} == {*classes.tolist()}
    largest = max(groups.count(group) for group in groups)
    assert held.sum() <= max(share * len(groups) + largest, min(groups.count(group) for group in spared))


@pytest.mark.parametrize("share", [0.05, 0.1, 0.25, 0.5])
def test_the_share_is_kept_in_each_class(share: float) -> None:
    """As of UCF-101: 20 groups of about 7 videos in each of 10 classes."""
    sizes = np.random.default_rng(0).integers(4, 11, 200)
    groups = np.repeat([f"g{place:03d}" for place in range(200)], sizes).tolist()
    classes = np.repeat(np.arange(200) % 10, sizes)
    held = held_out_groups(groups, classes[:, None] == np.arange(10), share, 0)
    assert held.mean() == pytest.approx(share, abs=0.01)
    for c in range(10):
        assert held[classes == c].mean() == pytest.approx(share, abs=0.08)


def test_a_class_of_one_group_stays_in_training() -> None:
    groups = ["only"] * 5 + [f"g{place // 2}" for place in range(40)]
    labels = np.array([0] * 5 + [1, 2] * 20)[:, None] == np.arange(3)
    for seed in range(20):
        held = held_out_groups(groups, labels, 0.4, seed)
        assert not held[:5].any() and held.mean() == pytest.approx(0.4, abs=0.06)
    with pytest.raises(UserError, match="all videos to train on are of one group, 'a'"):
        held_out_groups(["a", "a"], labels[:2], 0.5, 0)


class _Validated:
    """All that `split` asks of a method."""

    by_descent = True
    config = UniformConfig(seed=3, validation=0.25)


def test_validation_videos_are_of_other_groups(planted: tuple[FeatureCache, LabelSet]) -> None:
    cache, labels = planted
    videos = opened(cache, labels).train
    trained, held_out = split(cast(Method, _Validated()), videos)
    assert len(held_out) == 4 and len({videos.groups[place] for place in held_out}) == 1
    assert sorted([*trained, *held_out]) == list(range(16))
    assert not {videos.groups[place] for place in trained} & {videos.groups[place] for place in held_out}


def labelled(groups: list[str], classes: list[str]) -> LabelSet:
    pairs = enumerate(zip(groups, classes, strict=True))
    videos = [VideoLabel(f"v{place}", (label,), "train", group=group) for place, (group, label) in pairs]
    return LabelSet(
        Path("labels.csv"), (*videos, VideoLabel("t", ("x",), "test", group="t")), grouping=PERSON
    )


@pytest.mark.parametrize("validation", [None, 0.3])
def test_parts_of_tuning_are_whole_groups(validation: float | None) -> None:
    labels = labelled([f"g{place // 4}" for place in range(40)], ["x", "y"] * 20)
    parts = fold_labels(labels, "train", folds=3 if validation is None else 1, validation=validation, seed=0)
    for part in parts:
        by_subset = {name: {v.group for v in part.videos if v.subset == name} for name in (HELD_OUT, "train")}
        assert by_subset[HELD_OUT] and not by_subset[HELD_OUT] & by_subset["train"]
        assert part.grouping == PERSON
    held = [v.video_id for part in parts for v in part.videos if v.subset == HELD_OUT]
    assert len(set(held)) == len(held) == (40 if validation is None else 12)


def test_parts_of_tuning_that_groups_forbid() -> None:
    def folds(labels: LabelSet, count: int) -> None:
        fold_labels(labels, "train", folds=count, validation=None, seed=0)

    with pytest.raises(LabelError, match=r"labels.csv, subset 'train': 4 folds need .* and there are 3"):
        folds(labelled(["a", "a", "b", "c"], ["x"] * 4), 4)
    with pytest.raises(
        LabelError, match=r"class 'y' .* cannot be learned where all its 2 videos, of one group, would"
    ):
        folds(labelled(["a", "a", "b", "c"], ["y", "y", "x", "x"]), 3)


def test_penalties_are_chosen_by_group() -> None:
    """Of copies of a video, some in training and some held out, the least penalty looks best."""
    random = np.random.default_rng(0)
    base = random.standard_normal((20, 30))
    features, label = np.repeat(base, 4, axis=0), np.repeat(np.arange(20) % 2, 4)
    targets, groups = label[:, None] == np.arange(2), [f"g{place // 4:02d}" for place in range(80)]
    how: dict[str, Any] = {"multi_label": False, "seed": 0}
    alone = cross_validated.fit(features, np.arange(80), targets, **how)[2]
    together = cross_validated.fit(features, np.arange(80), targets, **how, groups=groups)[2]
    assert alone == cross_validated.PENALTIES[-1] and together == cross_validated.PENALTIES[0]
    with pytest.raises(UserError, match="all videos to train on are of one group, 'g'"):
        cross_validated.fit(features, np.arange(80), targets, **how, groups=["g"] * 80)


# --- bootstrap samples ---


def test_samples_are_of_whole_groups() -> None:
    groups = ["b", "a", "c", "a", "b", "b", "d"]
    weights = resampled_weights(7, 50, 4, groups)
    random, names = np.random.default_rng(4), sorted(set(groups))
    for sample in weights.T:
        drawn = random.multinomial(4, [0.25] * 4)
        assert sample.tolist() == [drawn[names.index(group)] for group in groups]
    alone = resampled_weights(7, 50, 4)
    assert np.array_equal(alone, resampled_weights(7, 50, 4, list("abcdefg")))
    assert np.array_equal(alone, np.random.default_rng(4).multinomial(7, np.full(7, 1 / 7), size=50).T)


def test_intervals_are_over_groups() -> None:
    """Against plain loops over samples, each the videos of the groups that were drawn, one after the other."""
    groups = tuple(f"g{place * place % 11:02d}" for place in range(40))
    run = replace(predictions(seed=5), groups=groups)
    found = intervals([run], resamples=60)
    names, random = sorted(set(groups)), np.random.default_rng(0)
    top1, gflops = [], []
    for times in random.multinomial(len(names), np.full(len(names), 1 / len(names)), size=60):
        right = cost = count = 0.0
        for name, often in zip(names, times, strict=True):
            for video in [m for m in range(40) if groups[m] == name] * int(often):
                right += run.labels[video, run.scores[0, video].argmax()]
                cost += run.gflops[0, video]
                count += 1
        top1.append(right / count)
        gflops.append(cost / count)
    for measure, samples in (("top1", top1), ("gflops", gflops)):
        assert (found[measure].low, found[measure].high) == pytest.approx(
            np.quantile(samples, [0.025, 0.975])
        )


def copied(run: Predictions, times: int) -> Predictions:
    """Each video several times over."""
    lengths = np.tile(run.lengths, times)
    return replace(
        run,
        video_ids=tuple(str(place) for place in range(times * len(run.video_ids))),
        labels=np.tile(run.labels, (times, 1)),
        scores=np.tile(run.scores, (1, times, 1)),
        offsets=np.concatenate([[0], lengths.cumsum()]),
        gates=np.tile(run.gates, (1, times)),
        row_counts=np.tile(run.row_counts, times),
        ledger=type(run.ledger)({name: np.tile(macs, (1, times)) for name, macs in run.ledger.items()}),
    )


def test_copies_of_a_video_say_no_more_than_it() -> None:
    run = predictions(30)
    by_video = copied(run, 9)
    by_group = replace(by_video, groups=run.video_ids * 9)
    width = {}
    for name, one in (("once", run), ("by video", by_video), ("by group", by_group)):
        interval = intervals([one], resamples=2000)["top1"]
        width[name] = interval.high - interval.low
    assert width["by group"] == pytest.approx(width["once"], rel=0.1)
    assert width["by video"] == pytest.approx(width["once"] / 3, rel=0.2)


def test_curves_are_compared_over_groups() -> None:
    table, training = random_table(1, videos=60), random_table(2, videos=60)

    def width(groups: tuple[str, ...]) -> float:
        one = replace(table, groups=groups)
        compared = compare({"a": cascade(one, training, points=5), "b": single_models(one)}, resamples=300)
        interval = compared.area_above("a", "b")
        assert interval is not None
        return interval.high - interval.low

    alone = tuple(f"{place:02d}" for place in range(60))
    assert width(()) == width(alone)
    assert width(tuple("ab"[place // 30] for place in range(60))) != width(())
    assert width(("all",) * 60) == 0


def test_groups_are_kept_with_predictions(tmp_path: Path) -> None:
    run = predictions()
    run.save(tmp_path / "bare.npz")
    with np.load(tmp_path / "bare.npz") as file:
        assert "groups" not in file.files
    assert Predictions.load(tmp_path / "bare.npz").groups == ()
    replace(run, groups=tuple("abcd" * 10)).save(tmp_path / "grouped.npz")
    assert Predictions.load(tmp_path / "grouped.npz").groups == tuple("abcd" * 10)


def test_intervals_cover_what_new_groups_would_give() -> None:
    """Of 200 evaluations on 30 new persons, each of whom a policy finds easy or hard, with 8 videos of each."""
    random, covered = np.random.default_rng(0), {"by group": 0, "by video": 0}
    groups = [f"p{place // 8:02d}" for place in range(240)]
    weights = {
        "by group": resampled_weights(240, 400, 0, groups),
        "by video": resampled_weights(240, 400, 0),
    }
    for _ in range(200):
        right = (random.random(240) < np.repeat(random.choice([0.3, 0.9], 30), 8)).astype(np.float64)
        for name, drawn in weights.items():
            interval = percentile_interval(right.mean(), weighted_mean(right, drawn))
            covered[name] += interval.low <= 0.6 <= interval.high
    assert 0.9 <= covered["by group"] / 200 <= 0.98
    assert covered["by video"] / 200 <= 0.8
