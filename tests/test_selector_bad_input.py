"""What is wrong with a pool is told in one clear line, exit code 2 and without a traceback."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from cache_schema import FeatureCache, StreamSpec, VideoRecord, write_shard
from cache_schema.annotations.labels import TRAIN_SUBSETS
from policy.cli.train_policy import train_policy
from policy.data.opening import EVAL_SUBSETS
from tests.pools import RIGHT, PlantedPool, plant_pool

VIDEOS = 48
MODELS = ("--model", "m0", "--model", "m1")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def pool(tmp_path: Path) -> PlantedPool:
    """Four models; the training videos come first, in one shard with the others."""
    planted = plant_pool(
        tmp_path / "cache", train=32, test=VIDEOS - 32, classes_per_group=2, right=RIGHT[[0, 1]]
    )
    write_labels(planted)
    return planted


def write_labels(pool: PlantedPool, subset: Callable[[str], str] = str) -> None:
    lines = [f"{video.video_id},{video.labels[0]},{subset(video.subset)}" for video in pool.labels.videos]
    text = "\n".join(["video_id,label,subset", *lines])
    (pool.cache.folder / "labels.csv").write_text(text)


def change(
    pool: PlantedPool,
    stream: str,
    *,
    new: str | None = None,
    record: Callable[[VideoRecord], VideoRecord | None] = lambda record: record,
    spec: Callable[[StreamSpec], StreamSpec] = lambda spec: spec,
) -> None:
    """Write a stream anew, or another one (`new`) like it, with other records; None leaves a video out."""
    old = pool.cache[stream]
    records = [kept for video in old if (kept := record(old[video])) is not None]
    records = [
        dataclasses.replace(r, features=r.features.copy(), spans=r.spans.copy(), scores=copied(r.scores))
        for r in records
    ]
    if new is None:
        for shard in old.folder.glob("shard-*.h5"):
            shard.unlink()
    folder = pool.cache.folder / (new or stream)
    write_shard(folder, spec(dataclasses.replace(old.spec, name=folder.name)), records, tools={})


def copied(scores: np.ndarray | None) -> np.ndarray | None:
    return None if scores is None else scores.copy()


def with_scores(scores: Callable[[np.ndarray], np.ndarray]) -> Callable[[VideoRecord], VideoRecord]:
    return lambda r: dataclasses.replace(
        r, scores=None if r.scores is None else scores(r.scores.astype(np.float64)).astype(np.float16)
    )


def run(pool: PlantedPool, *words: object) -> Result:
    folder = pool.cache.folder
    data = ["--cache", folder, "--labels", folder / "labels.csv", "--out", folder.parent / "run"]
    given = [*data, "--decisions", "perceptron", "--epochs", 1, "--device", "cpu", *words]
    return CliRunner().invoke(train_policy, ["selector", *map(str, given)])


def told(pool: PlantedPool, *words: object) -> str:
    """The one line of a mistake."""
    result = run(pool, *words)
    assert result.exit_code == 2, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    said = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(said) == 1 and result.stderr.strip().endswith(said[0])
    return said[0].removeprefix("Error: ")


def test_a_sound_pool(pool: PlantedPool) -> None:
    """What the tests below spoil works."""
    result = run(pool, *MODELS)
    assert result.exit_code == 0, result.output
    assert "WARNING" not in result.stderr and "names" not in result.stderr


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--model", "m0"), "a pool needs at least two models to choose from; given: only 'm0'"),
        ((), "a pool needs at least two models to choose from; given: none"),
        ((*MODELS, "--model", "m0:1"), "model 'm0' is given twice"),
        ((*MODELS, "--model", "m9"), "no stream 'm9' in this cache; it has: m0, m1, m2, m3"),
        ((*MODELS, "--input", "m9"), "no stream 'm9' in this cache"),
        (("--model", "m0:0", "--model", "m1"), "model 'm0:0': give STREAM, or STREAM:ROWS"),
        (("--model", "m0:x", "--model", "m1"), "model 'm0:x': give STREAM, or STREAM:ROWS"),
        ((*MODELS, "--rows", 0), "rows must be positive, not 0"),
        ((*MODELS, "--rows", -1), "rows must be positive, not -1"),
        ((*MODELS, "--alpha", -1), "alpha must not be negative, not -1.0"),
        ((*MODELS, "--alpha", "nan"), "alpha must be finite, not nan"),
        ((*MODELS, "--budget", "nan"), "budget must be finite, not nan"),
        ((*MODELS, "--threshold", "nan"), "threshold must be finite, not nan"),
        ((*MODELS, "--folds", 3), "--folds is about linear heads: give --heads linear"),
        ((*MODELS, "--heads", "linear", "--folds", 0), "folds must be positive, not 0"),
        ((*MODELS, "--budget", 0.1), "--budget 0.1: the least that is possible is 0.6"),
        ((*MODELS, "--budget", 1, "--threshold", 0.5), "give --threshold or --budget"),
        ((*MODELS, "--heads", "linear", "--folds", 33), "--folds 33: only 32 videos to train on"),
        ((*MODELS, "--train-subset", "nowhere"), "no subset 'nowhere'; it has: train, test"),
        ((*MODELS, "--eval-subset", "nowhere"), "no subset 'nowhere'; it has: train, test"),
        ((*MODELS, "--out-of-fold", "m0"), "out-of-fold 'm0': give STREAM=OTHER[,OTHER…]"),
        ((*MODELS, "--out-of-fold", "m0="), "out-of-fold 'm0=': give STREAM=OTHER[,OTHER…]"),
        ((*MODELS, "--out-of-fold", "m0=m2,,m3"), "out-of-fold 'm0=m2,,m3': give STREAM=OTHER[,OTHER…]"),
        ((*MODELS, "--out-of-fold", "m2=m3"), "out-of-fold 'm2=m3': 'm2' is no model of the pool: m0, m1"),
        ((*MODELS, "--out-of-fold", "m0=m0"), "out-of-fold 'm0=m0': a stream occurs twice"),
        ((*MODELS, *2 * ("--out-of-fold", "m0=m2")), "out-of-fold is given twice for 'm0'"),
        ((*MODELS, "--out-of-fold", "m0=none"), "no stream 'none' in this cache"),
        ((*MODELS, "--heads", "linear", "--out-of-fold", "m0=m2"), "give --out-of-fold or --heads linear"),
        ((*MODELS, "--classes", "nowhere.txt"), "nowhere.txt: cannot read the class names"),
    ],
)
def test_requests(words: tuple[object, ...], line: str, pool: PlantedPool) -> None:
    assert line in told(pool, *words)


@pytest.mark.parametrize("only", ["train", "test"])
def test_an_empty_split(only: str, pool: PlantedPool) -> None:
    write_labels(pool, lambda subset: only)
    wanted = " or ".join(EVAL_SUBSETS if only == "train" else TRAIN_SUBSETS)
    assert f"no subset named {wanted} with labels" in told(pool, *MODELS)


def test_other_videos(pool: PlantedPool) -> None:
    change(pool, "m1", record=lambda r: None if r.id == "video000003" else r)
    assert "'video000003' (not in m1)" in told(pool, *MODELS)
    change(pool, "m2", record=lambda r: dataclasses.replace(r, id="another") if r.id == "video000000" else r)
    line = told(pool, "--model", "m0", "--model", "m2")
    assert "no label for 1 cached video: 'another'" in line


def test_no_video_in_common(pool: PlantedPool) -> None:
    labels = pool.cache.folder / "labels.csv"
    labels.write_text(labels.read_text().replace("video0", "clip0"))
    line = told(pool, *MODELS)
    assert f"none of its {VIDEOS} videos is in the cache" in line
    assert "'clip000000', … here and 'video000000', … there" in line


def test_more_rows_than_there_are(pool: PlantedPool) -> None:
    result = run(pool, "--model", "m0:3", "--model", "m1")
    assert result.exit_code == 0, result.output
    assert "m0: no video has 3 clips or frames; all are looked at, at most 1" in result.stderr


@pytest.mark.parametrize(
    "words",
    [("--heads", "linear"), ("--selector-input", "features"), ("--selector-input", "scores+features")],
)
def test_no_features(words: tuple[str, ...], pool: PlantedPool) -> None:
    """As of a stream of which class scores alone were imported."""
    for stream in ("m0", "m1"):
        change(
            pool,
            stream,
            record=lambda r: dataclasses.replace(r, features=r.features[:, :0]),
            spec=lambda spec: dataclasses.replace(spec, feature_dim=0),
        )
    assert "stream 'm0' has no features, only class scores" in told(pool, *MODELS, *words)


def test_other_classes(pool: PlantedPool) -> None:
    names = ("class 000", "class 001", "class 002", "other")
    change(pool, "m1", spec=lambda spec: dataclasses.replace(spec, classes=names))
    line = told(pool, *MODELS)
    assert "stream 'm1' has no class scores for 1 of the 4 classes of the labels: 'class 003'" in line
    assert "it has 'class 000', 'class 001', 'class 002', …: --heads linear" in line


def test_no_class_scores(pool: PlantedPool) -> None:
    change(
        pool,
        "m1",
        record=lambda r: dataclasses.replace(r, scores=None),
        spec=lambda spec: dataclasses.replace(spec, num_classes=0, classes=None),
    )
    line = told(pool, *MODELS)
    assert "stream 'm1' has no class scores" in line and "--heads linear" in line
    line = told(pool, "--model", "m0", "--model", "m2", "--input", "m1")
    assert "'m1' has no class scores for the selector to look at; give --selector-input features" in line


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def test_probabilities_instead_of_logits(pool: PlantedPool) -> None:
    change(pool, "m1", record=with_scores(softmax))
    line = told(pool, *MODELS)
    assert "'m1': its class scores are probabilities (from 0 to 1, adding up to 1 in each row)" in line
    assert "feature-cache import --kind softmax" in line
    assert "'m1': its class scores are probabilities" in told(
        pool, "--model", "m0", "--model", "m2", "--input", "m1"
    )
    change(pool, "m2", record=with_scores(lambda s: 1 / (1 + np.exp(-s))))
    line = told(pool, "--model", "m0", "--model", "m2", "--multi-label")
    assert "'m2': its class scores are probabilities (from 0 to 1)" in line and "--kind sigmoid" in line


def test_scores_that_are_not_finite(pool: PlantedPool) -> None:
    change(
        pool,
        "m1",
        record=lambda r: with_scores(lambda s: s * np.nan)(r) if r.id == "video000040" else r,
    )
    assert "video 'video000040' in stream 'm1': its class scores are not finite" in told(pool, *MODELS)


def test_a_damaged_shard(pool: PlantedPool) -> None:
    (shard,) = (pool.cache.folder / "m1").glob("shard-*.h5")
    scores = FeatureCache(pool.cache.folder)["m1"]["video000007"].scores
    assert scores is not None
    content = bytearray(shard.read_bytes())
    place = content.index(scores.tobytes())
    content[place] ^= 1
    shard.write_bytes(content)
    line = told(pool, *MODELS)
    assert f"{shard}: damaged shard" in line and "'video000007'" in line


def test_training_videos_that_no_fold_holds(pool: PlantedPool) -> None:
    change(pool, "m0", new="fold0", record=lambda r: r if int(r.id[5:]) < 16 else None)
    change(pool, "m0", new="fold1", record=lambda r: r if 16 <= int(r.id[5:]) < 30 else None)
    line = told(pool, *MODELS, "--out-of-fold", "m0=fold0,fold1")
    assert "out-of-fold m0=fold0,fold1: video 'video000030' of subset 'train' is in none of these" in line
    assert "nor are 1 more" in line


def test_names_of_the_columns(pool: PlantedPool, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("class 000\nclass 001\nclass 002\nclass 003\n")
    assert "no stream here whose class scores are without names" in told(pool, *MODELS, "--classes", names)
    change(pool, "m1", spec=lambda spec: dataclasses.replace(spec, classes=None))
    names.write_text("class 000\nclass 001\nclass 002\n")
    line = told(pool, *MODELS, "--classes", names)
    assert "--classes names 3 columns, but stream 'm1' has 4 class scores" in line
    names.write_text("class 000\nclass 001\nclass 002\nclass 001\n")
    assert "line 4: class 'class 001' occurs twice" in told(pool, *MODELS, "--classes", names)


def test_columns_without_names_that_are_more_than_the_classes(pool: PlantedPool) -> None:
    change(
        pool,
        "m1",
        record=with_scores(lambda s: np.concatenate([s, s[:, :1]], axis=1)),
        spec=lambda spec: dataclasses.replace(spec, classes=None, num_classes=5),
    )
    line = told(pool, *MODELS)
    assert "stream 'm1' has 5 class scores without names, and the labels have 4 classes" in line
    assert "--classes FILE" in line and "--heads linear" in line
