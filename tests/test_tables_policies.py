"""The leaderboard: every policy on one cache at many budgets."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from cache_schema import UserError, write_shard
from cache_schema.annotations import LabelSet
from policy.cli.train_policy import train_policy
from policy.config import RunConfig
from policy.evaluation.curves import hull_area
from policy.evaluation.metrics import resampled_weights
from policy.options import config_words
from policy.registry import CONFIGS, completed, usual_recipe
from policy.runs import read_config
from policy.tables.cli import paper_tables
from policy.tables.exhibits.areas import Outcomes, area, gain
from policy.tables.plots.curves import Line
from policy.tables.plots.multiples import draw_multiples
from policy.tables.requests import Order
from tests.caches import make_record, make_spec
from tests.planted import write_planted, write_planted_labels

SHEETS = ("leaderboard", "streams", "commands", "points")
TRAINING = shlex.split("--epochs 1 --batch 8 --coarse-hidden 4 --fine-hidden 8 --seeds 2 --resamples 50")


def with_validation(labels: LabelSet) -> LabelSet:
    """Every third training video is for validation."""
    videos = tuple(
        replace(video, subset="val") if video.subset == "train" and number % 3 == 0 else video
        for number, video in enumerate(labels.videos)
    )
    return replace(labels, videos=videos)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("policies")
    cache, labels = write_planted(folder / "cache", train=45, test=24, classes=4, dim=8, lengths=(4, 9))
    write_planted_labels(with_validation(labels), folder / "labels.csv")
    given = [
        "--cache",
        str(cache.folder),
        "--labels",
        str(folder / "labels.csv"),
        "--validation-subset",
        "val",
    ]
    streams = ["--coarse", "coarse_112", "--fine", "fine_224", "--runs", str(folder / "runs")]
    words = ["policies", *given, *streams, *TRAINING, "--out", str(folder / "out"), "--json"]
    result = CliRunner().invoke(paper_tables, words)
    assert result.exit_code == 0, result.output
    return folder, json.loads(result.stdout)


def sheets(record: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    return dict(zip(SHEETS, (sheet["rows"] for sheet in record["sheets"]), strict=True))


@pytest.mark.slow
def test_policies_stand_by_the_area_below_their_points(made: tuple[Path, dict[str, Any]]) -> None:
    _, record = made
    found = sheets(record)
    *policies, oracle = found["leaderboard"]
    assert [row["rank"] for row in policies] == list(range(1, len(policies) + 1))
    areas = [row["area_percent"] for row in policies]
    assert areas == sorted(areas, reverse=True) and oracle["policy"] == "oracle"
    assert all(oracle["area_percent"] >= area - 1e-9 for area, row in zip(areas, policies, strict=True))
    dearest = max(point["gflops"] for point in found["points"])
    for row in policies:
        of_policy = [point for point in found["points"] if point["policy"] == row["policy"]]
        of_seed = [
            hull_area(
                [0.0, *(point["gflops"] for point in of_policy if point["seed"] == seed)],
                [25.0, *(point["top1_percent"] for point in of_policy if point["seed"] == seed)],
                0,
                dearest,
            )
            for seed in range(2)
        ]
        assert row["area_percent"] == pytest.approx(np.mean(of_seed)), row["policy"]
        assert row["area_percent_low"] <= row["area_percent"] <= row["area_percent_high"]
        heights = [value for key, value in row.items() if key.startswith("top1_percent_at")]
        assert len(heights) == 4 and heights == sorted(heights)


@pytest.mark.slow
def test_each_row_says_how_it_is_trained(made: tuple[Path, dict[str, Any]]) -> None:
    folder, record = made
    for row in sheets(record)["commands"]:
        words = shlex.split(row["command"])
        assert words[0] == "train-policy"
        run = Path(next(runs for name, runs in record["runs"].items() if name == words[1])[0])
        again = [*words[1:-1], str(folder / "again" / words[1])]
        if words[1] == "random-gating":  # whose usage is that of another row's run
            assert "--usage" not in words
            continue
        trained = CliRunner().invoke(train_policy, again)
        assert trained.exit_code == 0, trained.output
        assert read_config(folder / "again" / words[1]) == read_config(run)


@pytest.mark.slow
def test_what_a_shared_budget_gains(made: tuple[Path, dict[str, Any]]) -> None:
    found = sheets(made[1])
    for row in found["leaderboard"]:
        points = [point for point in found["points"] if point["policy"] == row["policy"]]
        several = len(points) > 2 and row["policy"] != "Random gating"  # which draws
        assert (row["shared_gain"] is not None) == several, row["policy"]
        if several:
            assert row["shared_gain_low"] <= row["shared_gain"] <= row["shared_gain_high"]


@pytest.mark.slow
def test_the_page_and_the_picture(made: tuple[Path, dict[str, Any]]) -> None:
    folder, record = made
    page = (folder / "out/report.html").read_text(encoding="utf-8")
    for row in sheets(record)["leaderboard"]:
        assert row["policy"] in page
    assert (folder / "out/figure.png").stat().st_size > 10_000
    shared = any(row["shared_gain"] is not None for row in sheets(record)["leaderboard"])
    assert ("held out from its training" in page) != shared


def test_areas_and_their_intervals() -> None:
    random = np.random.default_rng(0)
    gflops, correct = (
        random.uniform(1, 2, (3, 40)).cumsum(axis=0),
        (random.random((3, 40)) < 0.6).astype(float),
    )
    curve = Outcomes(gflops, correct)
    budgets = (2.0, 5.0)
    plain = [
        hull_area(
            [float((gflops[p] * weights).sum() / weights.sum()) for p in range(3)],
            [float((100 * correct[p] * weights).sum() / weights.sum()) for p in range(3)],
            2.0,
            5.0,
        )
        for weights in (np.ones(40), *resampled_weights(40, 25, 0).T)
    ]
    found = area([curve, curve], budgets, 25)
    assert found.value == pytest.approx(plain[0])
    assert [found.low, found.high] == pytest.approx(np.quantile(plain[1:], [0.025, 0.975]))
    better = Outcomes(gflops, np.maximum(correct, 1 - correct[::-1]))
    assert gain([(curve, curve)], 25).value == 0
    above = gain([(better, curve)], 25)
    assert above.low <= above.value <= above.high and above.value > 0


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The options that say which cache, labels and streams."""
    folder = tmp_path_factory.mktemp("small")
    cache, labels = write_planted(folder, train=8, test=4, classes=2, dim=3)
    records = [make_record(video, cache["fine_224"].rows(video), dim=3) for video in cache["fine_224"]]
    write_shard(folder / "other", make_spec("other", dim=3), records, tools={})
    write_planted_labels(labels, folder / "labels.csv")
    streams = ["--coarse", "coarse_112", "--fine", "fine_224", "--runs", str(folder / "runs")]
    return ["--cache", str(folder), "--labels", str(folder / "labels.csv"), *streams]


def requested(words: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, RunConfig], str]:
    """What the rows of the leaderboard would be trained with, by method, and what is printed before."""
    orders: list[Order] = []

    def fill(checked: Order, command: str, say: Any) -> None:
        orders.append(checked)
        raise UserError("nothing is trained here")

    monkeypatch.setattr("policy.tables.making.fill", fill)
    result = CliRunner().invoke(paper_tables, ["policies", *words])
    assert result.exit_code == 2, result.output
    return {
        one.config.method: one.config for order in orders for one in order.requests.values()
    }, result.stderr


def test_rows_have_the_recipes_of_their_own_papers(small: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    configs, printed = requested([*small, "--recipe", "released", "--epochs", "60"], monkeypatch)
    assert (
        "--recipe released: there is none for SCSampler, AdaFrame: they have their options' defaults"
        in printed
    )
    drops = {method: config.lr_drop for method, config in configs.items()}
    assert (drops["liteeval"], drops["ar-net"], drops["adaframe"]) == ((40, 80), (50,), ())
    assert configs["ar-net"].lr == CONFIGS["ar-net"]().lr != configs["liteeval"].lr
    assert vars(configs["frame-exit"])["row_hidden"] == 4096
    assert {config.multi_label for config in configs.values()} == {False}  # labels are treated alike
    assert configs["adaframe"].epochs == 60
    assert (
        configs["motion-difference"].epochs == CONFIGS["motion-difference"]().epochs
    )  # which it does not read
    configs, printed = requested([*small, "--recipe", "paper", "--lr", "0.01"], monkeypatch)
    assert "there is none for" not in printed
    assert configs["ar-net"].lr == 0.01 and configs["ar-net"].input_norm == "none"


def test_the_usual_recipe_is_for_all_that_descent_trains(
    small: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    configs, printed = requested(small, monkeypatch)
    assert "--recipe" not in printed
    for method, config in configs.items():
        assert config.batch == 32 and (config.lr == 1e-3 or not config.by_descent), method


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            "--stream coarse_112",
            "--stream coarse_112: is read already, as the coarse stream (--coarse): leave it out",
        ),
        (
            "--stream fine_224",
            "--stream fine_224: is read already, as the fine stream (--fine): leave it out",
        ),
        ("--stream other --stream other", "--stream other: is given twice"),
        ("--stream nowhere", "no stream 'nowhere' in this cache"),
    ],
)
def test_further_streams_that_are_none(
    words: str, line: str, small: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    configs, printed = requested([*small, *words.split()], monkeypatch)
    assert not configs and line in printed


def test_further_streams_are_for_rows_that_take_any_number(
    small: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    configs, _ = requested([*small, "--stream", "other"], monkeypatch)
    reading = {method for method, config in configs.items() if "other" in config.stream_names()}
    assert reading == {"ar-net", "confidence-exit"}


def test_the_words_of_a_configuration() -> None:
    """Only what differs, in words that the command takes."""
    for method, config_class in CONFIGS.items():
        if not issubclass(config_class, RunConfig) or "fine" not in vars(completed(method, {})):
            continue
        usual = completed(method, {"fine": "f"}, usual_recipe(method))
        assert config_words(usual, usual) == []
        other = replace(usual, lr=0.5, lr_drop=(3, 4), multi_label=False, validation=0.2)
        assert config_words(other, usual) == shlex.split(
            "--single-label --lr 0.5 --lr-drop 3 --lr-drop 4 --validation 0.2"
        )


def test_panels_are_of_the_lines() -> None:
    lines = [Line(f"policy {n}", "baseline", [1.0, 2.0 + n], [40.0, 50.0 + n]) for n in range(5)]
    figure = draw_multiples(
        lines, Line("oracle", "oracle", [1.0, 2.0], [60.0, 70.0]), title="Policies"
    ).figure
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in panels] == [line.name for line in lines]
    assert all(
        len(axes.lines) == len(lines) + 3 for axes in panels
    )  # the others, the oracle, line and points
    with pytest.raises(ValueError, match="no line"):
        draw_multiples([], lines[0], title="Policies")
