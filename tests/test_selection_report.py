"""What train-policy selector says at the end, in a terminal and as JSON."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from cache_schema.annotations import LabelSet
from policy.cli.selection_text import render
from policy.cli.train_policy import train_policy
from policy.runs import Run, read_result
from policy.selection import report
from tests.pools import PlantedPool, plant_pool

POOL = ("m2", "m0", "m1", "m3")
TEST = 120


def write_labels(pool: LabelSet, path: Path, *, several: bool = False) -> None:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["video_id", "label", "subset"])
        for place, video in enumerate(pool.videos):
            further = ("class 000",) if several and place % 3 == 0 else ()
            rows.writerow([video.video_id, ";".join(dict.fromkeys(video.labels + further)), video.subset])


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PlantedPool]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("pool")
    pool = plant_pool(folder / "cache", train=200, test=TEST, classes_per_group=2, telling=True)
    write_labels(pool.labels, folder / "labels.csv")
    write_labels(pool.labels, folder / "several.csv", several=True)
    return folder, pool


def run(
    folder: Path,
    *words: object,
    labels: str = "labels.csv",
    pool: tuple[str, ...] = POOL,
    width: int = 80,
) -> Result:
    data = ["--cache", str(folder / "cache"), "--labels", str(folder / labels), "--device", "cpu"]
    data += [word for model in pool for word in ("--model", model)]
    result = CliRunner().invoke(
        train_policy,
        ["selector", "--decisions", "perceptron", *data, *map(str, words)],
        env={"COLUMNS": str(width), "LINES": "24"},
    )
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def finished(planted: tuple[Path, PlantedPool]) -> tuple[Path, dict[str, Any]]:
    folder, _ = planted
    said = run(folder, "--out", folder / "run", "--epochs", 20, "--batch", 16, "--budget", 4, "--json")
    return folder, json.loads(said.stdout)


def test_json(finished: tuple[Path, dict[str, Any]], planted: tuple[Path, PlantedPool]) -> None:
    folder, said = finished
    _, pool = planted
    details = said["details"]
    assert details == Run(folder / "run", read_result(folder / "run"), reused=True).details()
    assert [model["name"] for model in details["models"]] == ["m0", "m1", "m2", "m3"]
    assert [model["gflops"] for model in details["models"]] == pytest.approx(pool.gflops)
    assert sum(model["chosen"] for model in details["models"]) == pytest.approx(1)
    assert sum(details["affinity"]["shares"]) == pytest.approx(1)
    assert details["threshold"]["budget"] == 4
    # What was evaluated video by video is a point of the curve.
    for name, field in (("gflops", "gflops_mean"), ("top1", "top1"), ("mean_average_precision",) * 2):
        assert details["point"][name] == pytest.approx(said[field])
    own = details["own"]
    assert own["model"] == "m0" and own["in_pool"]
    assert own["gflops"] == pytest.approx(0.6)
    assert said["gflops_mean"] == pytest.approx(sum(said["gflops"].values()))
    assert said["gflops"]["m0"] == pytest.approx(own["gflops"])
    assert said["gflops"]["selector network"] == pytest.approx(own["network_gflops"])
    assert set(details["comparisons"]) == {"top1"}
    single = {name: [model[name] for model in details["models"]] for name in ("gflops", "top1")}
    assert {name: details["curves"]["random"][name] for name in single} == single


def test_what_is_compared(finished: tuple[Path, dict[str, Any]]) -> None:
    details = finished[1]["details"]
    curves, made = details["curves"], details["comparisons"]["top1"]
    names = {"selector", "random", "cascade", "committee", "weighted", "ensemble", "oracle"}
    assert set(curves) == names
    assert set(made["selector_above"]) == set(made["equal_cost"]) == names - {"selector"}
    assert made["budgets"] == [curves["selector"]["gflops"][0], pytest.approx(18.4)]
    over = {name: figure["value"] for name, figure in made["above_random"].items()}
    assert over["oracle"] > max(over["selector"], 0)
    for name in ("cascade", "committee", "oracle"):
        difference = made["selector_above"][name]
        assert difference["value"] == pytest.approx(over["selector"] - over[name])
        assert difference["low"] <= difference["value"] <= difference["high"]
    point = details["point"]
    between = np.interp(point["gflops"], curves["oracle"]["gflops"], curves["oracle"]["top1"])
    assert point["top1"] - made["equal_cost"]["oracle"]["value"] >= between - 1e-9


@pytest.mark.parametrize("width", [80, 120])
def test_terminal(finished: tuple[Path, dict[str, Any]], width: int) -> None:
    folder, said = finished
    result = run(folder, "--out", folder / "run", "--epochs", 20, "--batch", 16, "--budget", 4, width=width)
    lines = result.stdout.splitlines()
    assert lines[0] == "Model selection"
    assert max(len(line) for line in lines if str(folder) not in line) <= width
    text = " ".join(result.stdout.split())
    details, point = said["details"], said["details"]["point"]
    for expected in (
        f"videos {TEST} of 8 classes",
        f"HIT@1 {100 * said['top1']:.1f} %",
        f"GFLOPs per video {said['gflops_mean']:.2f} ±",
        "the model that always runs, m0 0.60",
        "models answering " + ", ".join(f"{m['name']} {100 * m['chosen']:.0f} %" for m in details["models"]),
        "of the training videos (α 0.0005)",
        f"threshold {details['threshold']['value']:.4g}, for 4 GFLOPs on the training videos",
        str(folder / "run"),
    ):
        assert expected in text
    assert "fine features" not in text and "usage" not in text
    rows = {line.split("  ")[0]: re.findall(r"[−\d.]+", line.partition("  ")[2]) for line in lines}
    area = details["comparisons"]["top1"]["above_random"]["selector"]
    shown = [f"{100 * area[name]:.1f}".replace("-", "−") for name in ("value", "low", "high")]
    assert rows["selector"] == [f"{point['gflops']:.2f}", f"{100 * point['top1']:.1f}", *shown]
    for model in details["models"]:
        assert rows[model["name"]] == [f"{model['gflops']:.2f}", f"{100 * model['top1']:.1f}"]
    for name, title in (("random", "random selection"), ("cascade", "confidence cascade")):
        height = point["top1"] - details["comparisons"]["top1"]["equal_cost"][name]["value"]
        assert rows[title][:2] == [f"{point['gflops']:.2f}", f"{100 * height:.1f}"]


@pytest.mark.slow
def test_several_classes(planted: tuple[Path, PlantedPool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MOST_POINTS", 5)
    folder, _ = planted
    words = ["--out", folder / "several", "--epochs", 2]
    said = json.loads(run(folder, *words, "--json", labels="several.csv").stdout)
    details = said["details"]
    assert set(details["comparisons"]) == {"top1", "map"}
    for curve in details["curves"].values():
        assert len(curve["mean_average_precision"]) == len(curve["gflops"])
    assert len(details["curves"]["cascade"]["value"]) == 5
    figure = details["comparisons"]["map"]["above_random"]["selector"]
    assert figure["low"] < figure["value"] < figure["high"]
    text = run(folder, *words, labels="several.csv").stdout
    assert "HIT@1 %  mAP %" in text and "points of mAP" in " ".join(text.split())


def test_learning_losses_on_a_model_outside_the_pool(planted: tuple[Path, PlantedPool]) -> None:
    folder, _ = planted
    words = ["--input", "m0", "--epochs", 2, "--target", "loss", "--threshold", 0.01]
    result = run(folder, *words, "--out", folder / "losses", pool=("m1", "m2", "m3"))
    text = " ".join(result.stdout.split())
    assert "the model that always runs, m0, not in the pool, 0.60" in text
    assert "price of a GFLOP 0.01 " in text and "affinity" not in text
    assert re.search(r"models answering m1 \d+ %, m2 \d+ %, m3 \d+ %", text)


def figures(value: float, low: float | None, high: float | None) -> Mapping[str, float | None]:
    return {"value": value, "low": low, "high": high}


@pytest.mark.parametrize(
    ("figure", "expected"),
    [
        (
            figures(0.041, 0.02, 0.062),
            "the selector is better than the confidence cascade by 4.1 points of HIT@1 [2.0, 6.2].",
        ),
        (
            figures(-0.004, -0.007, -0.001),
            "the confidence cascade is better than the selector by 0.4 points of HIT@1 [0.1, 0.7].",
        ),
        (figures(-0.004, -0.011, 0.003), "by 0.4 points of HIT@1 [−0.3, 1.1], which may be chance."),
        (figures(0.004, -0.003, 0.011), "by 0.4 points of HIT@1 [−0.3, 1.1], which may be chance."),
        (
            figures(-0.0002, -0.0011, 0.0),
            "the selector is level with the confidence cascade, to a tenth of a point of HIT@1 [−0.1, 0.0].",
        ),
        (
            figures(0.0, None, None),
            "to a tenth of a point of HIT@1 (no interval: it would have taken too long).",
        ),
        (figures(0.004, None, None), "by 0.4 points of HIT@1 (no interval: it would have taken too long)."),
    ],
)
def test_which_is_better(
    finished: tuple[Path, dict[str, Any]], figure: Mapping[str, float | None], expected: str
) -> None:
    folder, said = finished
    details = json.loads(json.dumps(said["details"]))
    details["comparisons"]["top1"]["equal_cost"]["cascade"] = figure
    text = render(read_result(folder / "run"), details, folder, width=80)
    assert expected in " ".join(text.split())


def test_nothing_in_common(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, said = finished
    details = json.loads(json.dumps(said["details"]))
    made = details["comparisons"]["top1"]
    made["budgets"] = None
    made["equal_cost"]["random"] = None
    for part in ("above_random", "selector_above"):
        made[part] = dict.fromkeys(made[part])
    text = render(read_result(folder / "run"), details, folder, width=80)
    assert "No areas: at no budget" in text and "On average" not in text
    assert re.search(r"random selection +[\d.]+ +–$", text, re.MULTILINE)
