"""Out-of-fold class scores of training videos, and what accuracies give away of a pool."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from cache_schema import FeatureCache, UserError, VideoRecord, write_shard
from cache_schema.annotations import LabelSet, VideoLabel
from policy.data.opening import Dataset
from policy.runs import Listener, open_data, run_method
from policy.selection.config import SelectorConfig
from policy.selection.heads import parse_held_out
from policy.selection.opening import Pool
from policy.selection.pool import PoolTable
from tests.caches import make_spec

CLASSES = 6
TRAIN, TEST = 60, 60
IDS = tuple(f"v{video:03d}" for video in range(TRAIN + TEST))
LABEL = np.arange(TRAIN + TEST) % CLASSES
NAMES = tuple(f"class {c}" for c in range(CLASSES))


def write(
    folder: Path,
    name: str,
    right: Sequence[bool] | np.ndarray,
    *,
    videos: Sequence[int] = range(TRAIN + TEST),
    names: tuple[str, ...] | None = NAMES,
    order: Sequence[int] = range(CLASSES),
    macs: int = 1_000,
) -> None:
    """A stream of class scores, their columns in an `order`; not `right` is the class after a video's."""
    said = np.where(right, LABEL, (LABEL + 1) % CLASSES)
    logits = 5.0 * np.eye(CLASSES)[said] + np.random.default_rng(0).normal(0, 0.1, (len(LABEL), CLASSES))
    logits = logits[:, list(order)]
    records = [
        VideoRecord(
            id=IDS[v],
            features=np.zeros((1, 2), np.float16),
            scores=logits[v : v + 1].astype(np.float16),
            spans=np.zeros((1, 2)),
        )
        for v in videos
    ]
    spec = make_spec(name, dim=2, classes=CLASSES, macs_per_row=macs)
    spec = type(spec)(**{**vars(spec), "classes": names})
    write_shard(folder / name, spec, records, tools={})


def labels() -> LabelSet:
    return LabelSet(
        Path("labels.csv"),
        tuple(
            VideoLabel(v, (NAMES[c],), "train" if i < TRAIN else "test")
            for i, (v, c) in enumerate(zip(IDS, LABEL, strict=True))
        ),
    )


def opened(folder: Path, **more: object) -> tuple[SelectorConfig, Dataset]:
    config = SelectorConfig(models=("small", "large"), epochs=1, **more)  # type: ignore[arg-type]
    return config, open_data(config, FeatureCache(folder), labels())


def tables(folder: Path, **more: object) -> tuple[PoolTable, PoolTable]:
    config, data = opened(folder, temperature="none", **more)
    pool = Pool.of(config, data)
    return pool.table(data.train), pool.table(data.evaluation)


def notes(folder: Path, out: Path, **more: object) -> list[str]:
    """What the user is told when training."""
    config = SelectorConfig(models=("small", "large"), epochs=1, **more)  # type: ignore[arg-type]
    said: list[str] = []
    run_method(config, FeatureCache(folder), labels(), out, device="cpu", listener=Listener(said.append))
    return said


def often(share: float, seed: int = 0) -> np.ndarray:
    """Right on so many of the videos."""
    return np.asarray(np.random.default_rng(seed).random(TRAIN + TEST) < share)


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """A small model and a large one that knows the training videos; its folds, which do not."""
    in_training = np.arange(TRAIN + TEST) < TRAIN
    write(tmp_path, "small", often(0.7))
    write(tmp_path, "large", in_training | often(0.5, 1), macs=9_000)
    even, odd = range(0, TRAIN, 2), range(1, TRAIN, 2)
    # Beyond their own the folds hold videos that their models have seen, as they may.
    write(tmp_path, "even", often(0.5, 2), videos=even)
    write(tmp_path, "odd", often(0.5, 2) | (np.arange(TRAIN + TEST) % 2 == 0), videos=[*odd, *even])
    return tmp_path


def test_training_videos_are_judged_by_the_folds(pool: Path) -> None:
    plain, plain_evaluation = tables(pool)
    folded, evaluation = tables(pool, out_of_fold=("large=even,odd",))
    assert plain.correct[:, 1].all()
    np.testing.assert_array_equal(folded.correct[:, 1], often(0.5, 2)[:TRAIN])
    np.testing.assert_array_equal(folded.correct[:, 0], plain.correct[:, 0])
    np.testing.assert_array_equal(evaluation.probabilities, plain_evaluation.probabilities)
    np.testing.assert_array_equal(folded.macs, plain.macs)


def test_columns_of_the_folds_are_found_by_name(pool: Path) -> None:
    """Each stream has its own order of classes."""
    order = [3, 1, 0, 2, 5, 4]
    write(
        pool, "turned", often(0.5, 2), names=tuple(NAMES[c] for c in order), order=order, videos=range(TRAIN)
    )
    folded, _ = tables(pool, out_of_fold=("large=turned",))
    np.testing.assert_array_equal(folded.correct[:, 1], often(0.5, 2)[:TRAIN])


def test_a_run_depends_on_what_the_folds_hold(pool: Path) -> None:
    _, data = opened(pool, out_of_fold=("large=even,odd",))
    assert {"held-out even", "held-out odd"} <= data.digest().keys()
    assert set(data.held_out) == {"even", "odd"}


@pytest.mark.slow
def test_that_models_know_the_training_videos_is_said(pool: Path, tmp_path: Path) -> None:
    (line,) = [line for line in notes(pool, tmp_path / "plain") if "optimistic" in line]
    right = 100 * often(0.5, 1)[TRAIN:].mean()
    assert (
        f"large is right on 100.0 % of the training videos and {right:.1f} % of those for evaluation" in line
    )
    folded = notes(pool, tmp_path / "folded", out_of_fold=("large=even,odd",))
    assert not [line for line in folded if "optimistic" in line]


@pytest.mark.slow
def test_columns_without_names(tmp_path: Path) -> None:
    """In sorted order, and said to be; in another one it shows in the accuracy, until a file says which it is."""
    write(tmp_path, "small", often(0.7))
    write(tmp_path, "large", often(0.8), names=None, macs=9_000)
    told = notes(tmp_path, tmp_path / "sorted")
    assert [line for line in told if "class scores without names in large" in line]
    assert not [line for line in told if "WARNING" in line]

    order = [1, 2, 3, 4, 5, 0]
    write(tmp_path / "other", "small", often(0.7))
    write(tmp_path / "other", "large", often(1.0), names=None, order=order, macs=9_000)
    (line,) = [line for line in notes(tmp_path / "other", tmp_path / "out") if "WARNING" in line]
    assert "large is right on 0 % of the training videos, hardly more than chance (16.7 %)" in line
    assert "--classes FILE" in line
    names = tuple(NAMES[c] for c in order)
    told = notes(tmp_path / "other", tmp_path / "named", score_classes=names)
    assert not [line for line in told if "WARNING" in line or "without names" in line]
    table, _ = tables(tmp_path / "other", score_classes=names)
    assert table.correct[:, 1].all() and not table.correct[:, 0].all()


def test_classes_that_the_labels_do_not_have(tmp_path: Path) -> None:
    """Only the labels' classes take part in the softmax: a network may know more."""
    write(tmp_path, "small", often(0.7))
    logits = np.full((1, CLASSES + 2), 1.0)
    logits[0, [0, 7]] = 3.0, 9.0
    spec = make_spec("large", dim=2, classes=CLASSES + 2, macs_per_row=9_000)
    spec = type(spec)(**{**vars(spec), "classes": (*NAMES, "further", "sure")})
    empty = np.zeros((1, 2))
    records = [VideoRecord(v, empty.astype(np.float16), empty, logits.astype(np.float16)) for v in IDS]
    write_shard(tmp_path / "large", spec, records, tools={})
    table, _ = tables(tmp_path)
    expected = np.exp([3.0, 1, 1, 1, 1, 1]) / np.exp([3.0, 1, 1, 1, 1, 1]).sum()
    np.testing.assert_allclose(table.probabilities[5, 1], expected, rtol=1e-5)
    # All of its classifier runs.
    assert table.macs[0, 1] == 9_000 + 2 * (CLASSES + 2)


def test_syntax() -> None:
    assert parse_held_out(["a=x,y", "b=z"], ["a", "b"]) == {"a": ("x", "y"), "b": ("z",)}
    assert parse_held_out([], ["a"]) == {}
    for wrong in ("a", "=x", "a=", "a=x,", "a=x,x", "c=x"):
        with pytest.raises(UserError, match="out-of-fold"):
            parse_held_out([wrong], ["a", "b"])
