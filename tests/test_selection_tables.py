"""The model selection paper's table and figures on a planted pool: numbers, files, and whose pool it is."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from cache_schema import FeatureCache, StreamSpec, UserError
from cache_schema.annotations import read_labels
from policy.deploy.selection_speed import ModelTime, SelectionTimes
from policy.deploy.timing import Machine
from policy.evaluation.predictions import Predictions
from policy.runs import load_method, open_data, read_config, read_result
from policy.selection.config import SelectionConfig
from policy.selection.controls import cascade
from policy.selection.pool_method import PoolMethod
from policy.tables import pool_rows
from policy.tables.catalogue import SELECTION
from policy.tables.cli import paper_tables
from policy.tables.datasets import DATASETS
from policy.tables.exhibits import selection_inputs
from policy.tables.experiment import Measure, PaperTable
from policy.tables.reading import EXPERIMENTS, read_table
from policy.tables.requests import Request, requests
from policy.tables.streams import substitution
from tests.planted import write_planted_labels
from tests.pools import GFLOPS, plant_pool

SMALL = ["--seeds", "1", "--epochs", "3", "--resamples", "20", "--device", "cpu"]
PAPERS = ["x3d_xs", "x3d_s", "x3d_m", "x3d_l"]
SUBSTITUTED = [word for n, paper in enumerate(PAPERS) for word in ("--substitute", f"{paper}=m{n}")]
USUAL: dict[str, object] = {
    "alpha": 5e-4,
    "coarse": "m0",
    "rows": 3,
    "budget": None,
    "rule": "threshold",
    "decisions": "perceptron",
}
"""The paper's selector on the cheapest model."""
CLIPS = 3
ROW_S, LOAD_S = (0.001, 0.002, 0.004, 0.008), 0.1

Rows = list[dict[str, str]]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    pool = plant_pool(folder, train=200, test=120, classes_per_group=2, rows=CLIPS, telling=True)
    write_planted_labels(pool.labels, folder / "labels.csv")
    return folder


def tables(cache: Path, *words: object) -> Result:
    data = ["--cache", cache, "--labels", cache / "labels.csv", *SMALL]
    return CliRunner().invoke(paper_tables, [str(w) for w in (words[0], *data, *words[1:])])


@pytest.fixture(scope="module")
def made(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/ and out/: all four, the first of two seeds, with models as quick as is said."""
    folder = tmp_path_factory.mktemp("selection")
    where = ("--runs", folder / "runs", "--out", folder / "out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection_inputs, "measure_selection", measured)
        # What train-policy prints takes longer than all the rest, and no table reads it.
        patch.setattr("policy.selection.pool_method.PoolMethod.details", lambda *_: {})
        given = ("--dataset", "mini-kinetics", *SUBSTITUTED, *where)
        said = tables(cache, "all", "--paper", "selection", *given)
        assert said.exit_code == 0, said.output
        given = ("--seeds", 2, *given, "--out", folder / "out" / "selection-1")
        said = tables(cache, "selection-1", *given)
        assert said.exit_code == 0, said.output
    return folder


def measured(models: list[StreamSpec], *_: object, **__: object) -> SelectionTimes:
    """Instead of a clock."""
    times = {spec.name: ModelTime(spec.name, ROW_S[int(spec.name[1])], LOAD_S) for spec in models}
    return SelectionTimes(times, 0.0, Machine("a machine", 1, "2"), 32)


def rows(folder: Path, name: str, file: str = "table.csv") -> Rows:
    return list(csv.DictReader(io.StringIO((folder / "out" / name / file).read_text(encoding="utf-8"))))


def runs_of(folder: Path, **wanted: object) -> list[Path]:
    """Run folders by seed, of the configuration that has these values."""
    found = []
    for path in (folder / "runs").glob("selector-*"):
        config = json.loads((path / "config.json").read_text())["config"]
        if all(config.get(name) == value for name, value in wanted.items()):
            found.append((config["seed"], path))
    return [path for _, path in sorted(found)]


def hull_area(points: list[tuple[float, float]], low: float, high: float) -> float:
    """Mean height over a fine grid of what two points at most make achievable at each budget, or less than it."""
    grid = np.linspace(low, high, 401)
    best = np.full(len(grid), -np.inf)
    for x0, y0 in points:
        best = np.where(grid >= x0, np.maximum(best, y0), best)
        for x1, y1 in points:
            inside = (x0 < grid) & (grid < x1)
            height = y0 + (y1 - y0) * (grid - x0) / (x1 - x0 or 1)
            best = np.where(inside, np.maximum(best, height), best)
    return float(best.mean())


def test_table_1_is_its_runs(made: Path) -> None:
    table = {row["method"]: row for row in rows(made, "selection-1")}
    budget = 7.9  # as the paper prints it for Mini-Kinetics
    results = [read_result(path) for path in runs_of(made, budget=budget)]
    assert len(results) == 2
    ours = table["Model selection †"]
    for column, values in (
        ("gflops", [r.gflops_mean for r in results]),
        ("top1_percent", [100 * r.metrics["top1"] for r in results]),
        ("map_percent", [100 * r.metrics["mean_average_precision"] for r in results]),
    ):
        assert float(ours[column]) == pytest.approx(np.mean(values), rel=1e-5)
    assert (ours["paper_mini-kinetics_gflops"], ours["paper_hvu_map_percent"]) == ("7.9", "50.1")
    for n, gflops in enumerate(GFLOPS):
        assert float(table[f"m{n} alone"]["gflops"]) == pytest.approx(gflops, rel=1e-6)
    assert table["m2 alone"]["paper_mini-kinetics_top1_percent"] == "81", "in X3D-M's place"
    assert "X3D-M" not in table
    assert table["HATNet *"]["gflops"] == "" and table["HATNet *"]["paper_hvu_gflops"] == "41.8"
    # Controls at the very cost, and the lead is the difference.
    for name in ("random selection", "ensemble", "confidence cascade", "committee cascade", "oracle"):
        assert table[name]["gflops"] == ours["gflops"]
        lead = float(ours["top1_percent"]) - float(table[name]["top1_percent"])
        assert float(table[name]["lead"]) == pytest.approx(lead, abs=1e-3)
        assert float(table[name]["lead_low"]) <= lead <= float(table[name]["lead_high"])
    assert float(table["oracle"]["top1_percent"]) >= float(ours["top1_percent"])


@pytest.mark.slow
def test_table_1_needs_no_operating_point(cache: Path, made: Path) -> None:
    """Without a data set, a budget or a threshold it is 1/N, which one of N confidences always reaches."""
    said = tables(cache, "selection-1", "--model", "m0", "--model", "m2", "--runs", made / "runs")
    assert said.exit_code == 0, said.output
    assert "Operating point: --threshold 0.5." in said.stdout


def test_areas_are_those_of_the_points(made: Path) -> None:
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows(made, "selection-1", "table-3.csv"):
        points.setdefault(row["method"], []).append((float(row["gflops"]), float(row["top1_percent"])))
        assert float(row["top1_percent_low"]) <= float(row["top1_percent_high"])
    low = max(min(x for x, _ in line) for line in points.values())
    areas = {name: hull_area(line, low, GFLOPS[-1]) for name, line in points.items()}
    found = {row["method"]: row for row in rows(made, "selection-1", "table-2.csv")}
    for name, row in found.items():
        if name != "random selection":
            above = areas[name] - areas["random selection"]
            assert float(row["above_random"]) == pytest.approx(above, abs=0.1), name
    assert float(found["oracle"]["above_random"]) > float(found["Model selection †"]["above_random"])


def test_alphas_and_clips(made: Path) -> None:
    table = {row["method"]: row for row in rows(made, "selection-fig3")}
    # With as many clips as the cache has, the selectors are those of α = 5e-4.
    assert [name for name in table if "clip" in name] == ["1 clip †", "2 clips †"]
    for name, wanted in (
        ("α = 5e-5 †", {"alpha": 5e-5}),
        ("α = 5e-4 †", USUAL),
        ("1 clip †", {"rows": 1}),
    ):
        results = [read_result(path) for path in runs_of(made, **wanted)]
        assert float(table[name]["gflops"]) == pytest.approx(
            np.mean([r.gflops_mean for r in results]), rel=1e-5
        )
        assert float(table[name]["top1_percent"]) == pytest.approx(
            np.mean([100 * r.metrics["top1"] for r in results]), rel=1e-5
        )
    curves = rows(made, "selection-fig3", "table-2.csv")
    for name, clips in (("1 clip †", 1), ("2 clips †", 2), ("α = 5e-3 †", 3)):
        mine = [row for row in curves if row["method"] == name]
        costs = [float(row["gflops"]) for row in mine]
        assert costs == sorted(costs)
        # From the selector's own model alone on; with the selector's network, which is small.
        assert costs[0] == pytest.approx(GFLOPS[0] * clips / CLIPS, rel=1e-3)
        for row in mine:
            assert sum(float(row[f"m{n}_percent"]) for n in range(4)) == pytest.approx(100, abs=1e-3)


def test_classes_cost_what_their_videos_cost(made: Path) -> None:
    paths = runs_of(made, **USUAL)
    # Fig. 4 and the budgets have the same run, and nothing is trained twice.
    assert len(paths) == 1
    run = Predictions.load(paths[0] / "predictions.npz")
    found = rows(made, "selection-fig3", "table-3.csv")
    costs = [float(row["gflops"]) for row in found]
    assert costs == sorted(costs) and len(found) == 8
    for row in found:
        c = int(row["class"].removeprefix("class "))
        mine = run.labels[:, c]
        assert int(row["videos"]) == mine.sum()
        assert float(row["gflops"]) == pytest.approx(run.gflops[0, mine].mean(), rel=1e-5)
        right = 100 * run.correct[0, mine].mean()
        assert float(row["top1_percent"]) == pytest.approx(right, rel=1e-5, abs=1e-9)


def test_curves_begin_where_the_selector_looks(made: Path) -> None:
    table = {row["looks_at"]: row for row in rows(made, "selection-fig4") if row["looks_at"]}
    assert list(table) == ["m0", "m1", "m2"]
    for n in range(3):
        assert float(table[f"m{n}"]["least_gflops"]) == pytest.approx(GFLOPS[n], rel=1e-3)


def test_latency(made: Path) -> None:
    """Of the models' planted seconds."""
    shares = [
        [float(row[f"m{n}_percent"]) / 100 for n in range(4)]
        for row in rows(made, "selection-fig4", "table-3.csv")
        if row["method"].startswith("selector on x3d_xs")
    ]
    found = [row for row in rows(made, "selection-fig4", "table-4.csv") if row["point"]]
    assert len(found) == len(shares) > 1
    for row, mine in zip(found, shares, strict=True):
        others = sum(share * CLIPS * s for share, s in zip(mine[1:], ROW_S[1:], strict=True))
        memory = CLIPS * ROW_S[0] + others  # its own model always runs
        assert float(row["ms_never"]) == pytest.approx(1000 * memory, rel=1e-4)
        loads = LOAD_S * sum(mine[1:])
        assert float(row["ms_per_video"]) == pytest.approx(1000 * (memory + loads), rel=1e-4)
        assert float(row["ms_never"]) <= float(row["ms_per_batch"]) <= float(row["ms_per_video"])
    assert (made / "out" / "selection-fig4" / "figure-2.png").exists()


WAYS: dict[str, tuple[str, dict[str, object]]] = {
    "The paper's selector †": ("threshold 0.25", USUAL),
    "Chosen by price †": ("price 0.01", {"rule": "price", "affinity": "hard", "target": "affinity"}),
    "Soft affinity, by price †": ("price 0.01", {"rule": "price", "affinity": "soft"}),
    "Every model's loss, by price †": ("price 0.01", {"target": "loss"}),
    "Selector †": ("price 0.01", {"method": "selector", "decisions": "logistic"}),
    "Selection and cascade †": ("price 0.01", {"method": "selector-cascade", "answer": "weighted"}),
    "Selection and cascade, mean †": ("price 0.01", {"answer": "mean"}),
    "Selection and cascade, largest †": ("price 0.01", {"answer": "largest"}),
    "Selection and cascade, perceptron †": (
        "price 0.01",
        {"method": "selector-cascade", "decisions": "perceptron"},
    ),
}


def test_ways_to_choose(made: Path, cache: Path) -> None:
    table = {row["method"]: row for row in rows(made, "selection-budgets")}
    assert list(table)[: len(WAYS)] == list(WAYS)
    for name, (at, wanted) in WAYS.items():
        [path] = runs_of(made, **wanted)
        result = read_result(path)
        assert table[name]["at"] == at
        assert float(table[name]["gflops"]) == pytest.approx(result.gflops_mean, rel=1e-5)
        assert float(table[name]["top1_percent"]) == pytest.approx(100 * result.metrics["top1"], rel=1e-5)
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows(made, "selection-budgets", "table-2.csv"):
        points.setdefault(row["method"], []).append((float(row["gflops"]), float(row["top1_percent"])))
    assert points.keys() == table.keys()
    # The cascade is the one that train-policy shows, although the paper's selector looks at scores as they are.
    [path] = runs_of(made, method="selector", decisions="logistic")
    config = read_config(path)
    data = open_data(config, FeatureCache(cache), read_labels(cache / "labels.csv"))
    method = load_method(path, config, data)
    assert isinstance(method, PoolMethod)
    shown = cascade(method.calibrated(data.evaluation), method.calibrated(data.train))
    expected = np.stack([shown.gflops, 100 * shown.top1], axis=1)
    np.testing.assert_allclose(points["confidence cascade"], expected, rtol=1e-4)
    low = max(min(x for x, _ in line) for line in points.values())
    areas = {name: hull_area(line, low, GFLOPS[-1]) for name, line in points.items()}
    for column, other in (("above_random", "random selection"), ("above_cascade", "confidence cascade")):
        for name, row in table.items():
            if name == other:
                assert row[column] == ""
                continue
            assert float(row[column]) == pytest.approx(areas[name] - areas[other], abs=0.1), name
            assert float(row[f"{column}_low"]) <= float(row[column]) <= float(row[f"{column}_high"])


def selecting(request: Request) -> SelectionConfig:
    assert isinstance(request.config, SelectionConfig)
    return request.config


def test_where_the_ways_decide() -> None:
    """A threshold is for the row that has one; a budget is for all."""
    table = paper("selection-budgets")
    same = substitution(table, [])
    asked = requests(table, {"threshold": 0.7}, same)
    assert [selecting(one).threshold for one in asked.values()] == [0.7, *[0.01] * 8]
    given = {"budget": 8.0, "rule": "price", "target": "loss", "affinity": "soft"}
    budgets = requests(pool_rows.at_budget(table), given, same)
    assert {selecting(one).budget for one in budgets.values()} == {8.0}
    for one in table.experiments:
        config = budgets[one.name].config
        stays = {name: value for name, value in one.settings.items() if name != "threshold"}
        assert stays and {name: getattr(config, name) for name in stays} == stays


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rule": "price", "budget": 8.0}, "budget"),
        ({"rule": "price", "threshold": 0.02}, "threshold"),
    ],
)
def test_a_price_is_enough_for_rows_that_need_one(given: dict[str, Any], said: str) -> None:
    table = paper("selection-fig4")
    made = requests(table, given, substitution(table, []))
    assert [getattr(one.config, said) for one in made.values()] == [given[said]] * 3


def test_all_formats(made: Path) -> None:
    pictures = {"selection-1": 1, "selection-fig3": 3, "selection-fig4": 2, "selection-budgets": 1}
    page = (made / "out" / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png") == sum(pictures.values())
    for name, count in pictures.items():
        folder = made / "out" / name
        assert len(list(folder.glob("figure*.png"))) == count
        markdown = (folder / "table.md").read_text(encoding="utf-8")
        assert len(re.findall(r"^!\[.+\]\(figure(-\d)?\.png\)$", markdown, re.MULTILINE)) == count
        assert "† Streams replaced: m0 in place of x3d_xs, m1 in place of x3d_s" in markdown
        assert f"paper-tables {name} " in markdown and "--paper" not in markdown
        # What is long comes last, and not where it has no room.
        assert markdown.index("```sh") < markdown.index("## Curves")
        tex = (folder / "table.tex").read_text(encoding="utf-8")
        assert r"\toprule" in tex and "Curves" not in tex
        assert name in page


@pytest.mark.slow
def test_a_pool_of_one_s_own(cache: Path, tmp_path: Path) -> None:
    """In any order; no clock knows these networks, and nothing is made up."""
    given = ("--model", "m3", "--model", "m1", "--seeds", 1, "--runs", tmp_path / "runs", "--json")
    said = tables(cache, "selection-fig4", *given, "--out", tmp_path / "out")
    assert said.exit_code == 0, said.output
    shown = json.loads(said.stdout)
    first = shown["sheets"][0]["rows"]
    assert [row["method"] for row in first if row["looks_at"]] == ["selector on m1"]
    curves = next(sheet["rows"] for sheet in shown["sheets"] if sheet["title"] == "Curves")
    printed = tables(cache, "selection-fig4", *given[:-1])
    assert f"Curves: {len(curves)} rows, in the files of --out and in --json." in printed.stdout
    assert printed.stdout.count("selector on m1") < len(curves)
    assert "Pool: m1, m3, in place of the paper's x3d_xs, x3d_s, x3d_m, x3d_l." in shown["state"]
    assert any(sentence.startswith("No time: m1: ") for sentence in shown["state"])
    assert all(row["row_ms"] is None for row in shown["sheets"][1]["rows"])
    assert not (tmp_path / "out" / "figure-2.png").exists()
    assert "†" not in said.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["selection-1"],
            "selection-1 needs x3d_xs, x3d_s, x3d_m, x3d_l, but this cache has: m0, m1, m2, m3",
        ),
        (["selection-1", *SUBSTITUTED[2:]], "needs x3d_xs, but"),
        (["selection-1", "--dataset", "hvu"], "needs efficientnet_b0_224, x3d_m, but"),
        (["selection-fig3", "--model", "m0"], "a pool needs at least two models"),
        (["selection-fig3", "--model", "m0", "--model", "m0"], "'m0' is given twice"),
        (["selection-fig4", "--model", "m0", "--model", "m9"], "no stream 'm9'"),
        (["selection-1", "--dataset", "imagenet"], "'imagenet'"),
        (["selection-1", *SUBSTITUTED, "--budget", "8", "--threshold", "0.5"], "--threshold or --budget"),
        (["selection-1", "--substitute", "x3d_xl=m0"], "selection-1 does not read x3d_xl"),
        (["selection-fig4", *SUBSTITUTED, "--rule", "price"], "give --budget GFLOPS"),
        (
            ["selection-budgets", *SUBSTITUTED, "--selector-input", "features"],
            "give --selector-input scores+",
        ),
        (["liteeval-1", "--model", "m0"], "--model"),
        (
            ["all", "--out", "OUT", "--only", "selection-1"],
            "--only selection-1: of --paper liteeval there are",
        ),
    ],
)
def test_mistakes(words: list[str], said: str, cache: Path, tmp_path: Path) -> None:
    given = [str(tmp_path / "out") if word == "OUT" else word for word in words]
    result = tables(cache, *given, "--runs", tmp_path / "runs")
    assert result.exit_code == 2 and "Traceback" not in result.output
    assert said in result.stderr.strip().splitlines()[-1]
    assert not (tmp_path / "runs").exists(), "nothing is trained"


def paper(name: str) -> PaperTable:
    return read_table(EXPERIMENTS / name)


def test_values_are_the_paper_s() -> None:
    """Sec. 4.3, Table 1: GFLOPs and mAP on HVU, GFLOPs and HIT@1 on Mini-Kinetics."""
    printed = """
        3D ResNet-18 *        38.6 35.4 |
        HATNet *              41.8 39.6 |
        FrameExit (β = 1e-2)   5.7 46.1 |
        FrameExit (β = 1e-3)  11.7 47.7 |
        LiteEval                        | 99.0 61.0
        SCSampler                       | 41.9 70.8
        AR-Net                          | 32.0 71.7
        FrameExit                       |  7.8 75.3
        X3D-M                  9.46 49.1 | 14.19 81.0
        Model selection       11.5 50.1 |  7.9 83.5"""
    measures: dict[str, tuple[Measure, Measure]] = {
        "hvu": ("gflops", "map_percent"),
        "mini-kinetics": ("gflops", "top1_percent"),
    }
    said = [
        [one.title, *(values[m].text for name, values in one.published.items() for m in measures[name])]
        for one in paper("selection-1").experiments
    ]
    lines = [line.replace("|", " ").strip() for line in printed.strip().splitlines()]
    assert said == [[line[:21].strip(), *line[21:].split()] for line in lines]


@pytest.mark.parametrize("name", SELECTION)
def test_tables_are_sound(name: str) -> None:
    table = paper(name)
    if name == "selection-budgets":
        assert table.title.startswith("Beyond the paper: ") and table.source == "none: what we add"
    else:
        kind, number = ("Figure", name[-1]) if "fig" in name else ("Table", "1")
        assert table.title.startswith(f"Model selection, {kind} {number}: ")
        assert table.source.endswith(f", {kind} {number}")
    assert set(table.datasets) <= set(DATASETS) and SELECTION[name] in DATASETS
    assert sum(one.emphasised for one in table.experiments) == 1
    asked = requests(table, {}, substitution(table, []))
    for one in (asked[row.name] for row in table.experiments if row.models):
        assert selecting(one).models == tuple(PAPERS) and one.config.lr_drop


@pytest.mark.slow
def test_others_are_trained_where_the_cache_has_their_streams(cache: Path, tmp_path: Path) -> None:
    others = ["--substitute", "mobilenetv2_112=m0", "--substitute", "resnet101_224=m3"]
    where = ("--runs", tmp_path / "runs", "--out", tmp_path / "out/selection-1")
    said = tables(cache, "selection-1", *SUBSTITUTED, *others, *where, "--seeds", 1)
    assert said.exit_code == 0, said.output
    table = {row["method"]: row for row in rows(tmp_path, "selection-1")}
    for name, paper_gflops in (("SCSampler", "41.9"), ("AR-Net", "32"), ("FrameExit", "7.8")):
        row = table[f"{name} †"]
        assert float(row["gflops"]) > 0 and 0 < float(row["top1_percent"]) <= 100
        assert float(row["paper_mini-kinetics_gflops"]) == float(paper_gflops)
    alone = tables(cache, "selection-1", *SUBSTITUTED, "--runs", tmp_path / "runs", "--seeds", 1)
    assert "Not trained, for the cache has no stream mobilenetv2_112: SCSampler, AR-Net." in " ".join(
        alone.output.split()
    )


def test_hvu_has_a_pool_clips_epochs_and_a_cost_of_its_own() -> None:
    table = pool_rows.at_paper_costs(pool_rows.of_dataset(paper("selection-1"), "hvu"), "hvu")
    asked = requests(table, {}, substitution(table, []), of_pools=DATASETS["hvu"].of_pools)
    config = selecting(asked["selection"])
    assert config.models == ("efficientnet_b0_224", "x3d_m")
    assert (config.coarse, config.rows, config.epochs, config.budget) == ("efficientnet_b0_224", 2, 1, 11.5)
    # What a row is about wins over the data set.
    table = replace(table, experiments=[replace(table.experiments[-1], settings={"epochs": 7})])
    asked = requests(table, {}, substitution(table, []), of_pools=DATASETS["hvu"].of_pools)
    assert asked["selection"].config.epochs == 7


def test_models_that_are_replaced_keep_their_number_of_clips() -> None:
    table = paper("selection-1")
    [one] = [one for one in table.experiments if one.models]
    models = ("x3d_xs:10", "x3d_m:3", "x3d_l")
    table = replace(table, experiments=[replace(one, streams={}, models=models)])
    chosen = substitution(table, ["x3d_m=mine"])
    assert selecting(requests(table, {}, chosen)["selection"]).models == ("x3d_xs:10", "mine:3", "x3d_l")
    assert chosen.marks(table.experiments[0]) and chosen.of(table.experiments[0]) == {"x3d_m": "mine"}
    with pytest.raises(UserError, match=r"does not read x3d_s; it reads: x3d_xs, x3d_m, x3d_l"):
        substitution(table, ["x3d_s=mine"])


def test_a_pool_takes_the_ranks_of_the_paper_s(cache: Path) -> None:
    """Five models for four: selectors on the three cheapest, as the paper has them on three."""
    opened = FeatureCache(cache)
    table = pool_rows.with_pool(paper("selection-fig4"), ["m3", "m2", "m1:1", "m0"], None, opened)
    assert [one.streams["coarse"] for one in table.experiments] == ["m0", "m1", "m2"]
    assert {tuple(one.models) for one in table.experiments} == {("m0", "m1:1", "m2", "m3")}
    few = pool_rows.with_pool(paper("selection-fig4"), ["m2", "m0"], None, opened)
    assert [one.title for one in few.experiments] == ["selector on m0"]


OWN = """title = "Selection"
method = "selector"

[streams]
models = ["m0", "m2:1", "m3"]

[settings]
alpha = 0
"""


def write_own(folder: Path, row: str) -> Path:
    folder.mkdir()
    (folder / "table.toml").write_text(
        'title = "Mine"\nsource = "our own"\nmeasures = ["top1_percent", "gflops"]\n'
    )
    (folder / "01-selection.toml").write_text(row)
    return folder


@pytest.mark.slow
def test_a_table_of_one_s_own(cache: Path, tmp_path: Path) -> None:
    """With a row of each kind: what chooses has its own command's defaults, the other those of all."""
    mine = write_own(tmp_path / "mine", OWN)
    (mine / "02-largest.toml").write_text(
        'title = "Largest"\nmethod = "uniform"\n[streams]\nfine = "m3"\n[settings]\nframes = 1\n'
    )
    one = OWN.replace('"Selection"', '"Cascade"').replace('"selector"', '"selector-cascade"')
    (mine / "03-cascade.toml").write_text(one.replace("alpha = 0", "epochs = 2"))
    data = ["--cache", cache, "--labels", cache / "labels.csv", "--device", "cpu", "--seeds", "1"]
    given = ["run", mine, *data, "--resamples", "0", "--runs", tmp_path / "runs", "--json"]
    said = CliRunner().invoke(paper_tables, list(map(str, given)))
    assert said.exit_code == 0, said.output
    chosen, largest, cascade = json.loads(said.stdout)["rows"]
    config = json.loads((Path(chosen["runs"][0]["folder"]) / "config.json").read_text())["config"]
    assert config["models"] == ["m0", "m2:1", "m3"]
    assert (config["epochs"], config["lr"], config["lr_drop"], config["alpha"]) == (5, 1e-3, [2, 4], 0)
    config = json.loads((Path(cascade["runs"][0]["folder"]) / "config.json").read_text())["config"]
    assert (config["epochs"], config["lr"], config["weight_decay"], config["threshold"]) == (
        2,
        3e-3,
        1e-4,
        0.01,
    )
    assert largest["ours"]["gflops"]["mean"] == pytest.approx(GFLOPS[3] / CLIPS, rel=1e-6)
    assert "Model: m2, weights random:0" in said.stdout


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('models = ["m0", "m2:1", "m3"]', "", "[streams]: selector needs a pool of models: models = ["),
        ('models = ["m0", "m2:1", "m3"]', 'models = ["m0"]', "models: a pool needs at least two models"),
        ('"m2:1"', '"m2:x"', "models: model 'm2:x'"),
        ("alpha = 0", 'models = ["m0", "m1"]', "[settings]: models stand in [streams]"),
        ("alpha = 0", "score_classes = [1]", "score_classes: [1] is not of its type, a list of texts"),
        ("alpha = 0", "lr_drop = [0.5]", "lr_drop: [0.5] is not of its type, a list of whole numbers"),
        ("alpha = 0", "alpha = -1.0", "alpha must not be negative"),
        (
            'method = "selector"',
            'method = "uniform"\nsettings = {}',
            "[streams]: uniform does not choose from models",
        ),
        ('method = "selector"', "settings = {}", "a row without a method only cites"),
    ],
)
def test_mistakes_in_rows(old: str, new: str, said: str, tmp_path: Path) -> None:
    assert old in OWN
    row = OWN.replace(old, new)
    folder = write_own(tmp_path / "mine", row.partition("[settings]")[0] if "settings = {}" in row else row)
    with pytest.raises(UserError, match=re.escape(said)) as raised:
        read_table(folder)
    assert "01-selection.toml" in str(raised.value) and "\n" not in str(raised.value)
