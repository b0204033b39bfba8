"""paper-tables: what is trained and what reused, the numbers printed, the files and the mistakes."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shlex
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from matplotlib.colors import to_rgb
from PIL import Image

from cache_schema import Sampling
from policy import registry, runs
from policy.method import Method
from policy.runs import Run
from policy.sheets import terminal
from policy.sheets.markup import as_json, comma_separated, latex, markdown, markdown_table
from policy.sheets.sheet import Column, Document, Sheet, Spread
from policy.tables import figure
from policy.tables.catalogue import KNOWN
from policy.tables.cli import paper_tables
from policy.tables.documents import of_report
from policy.tables.experiment import MEASURES
from policy.tables.plots.placement import Box, place
from policy.tables.progress import ShownProgress, Working
from policy.tables.reading import EXPERIMENTS, read_table
from policy.tables.report import Report, Row, row_word
from policy.tables.verdicts import verdicts
from policy.training.loop import CHECKPOINT
from tests.caches import make_spec
from tests.earlier import make_earlier
from tests.planted import write_planted, write_planted_labels

SMALL = ["--epochs", "2", "--batch", "8", "--lr", "0.01", "--coarse-hidden", "4", "--fine-hidden", "8"]
TABLE = read_table(EXPERIMENTS / "liteeval-1")
METHODS = [name for name in registry.METHODS if name in {row.method for row in TABLE.experiments}]
"""Those that the table compares."""
STREAMS = ["--coarse", "coarse_112", "--fine", "fine_224"]

TABLE_1 = """
Uniform       80.0 195.5 70.0 195.5
LSTM          79.8 196.0 70.8 195.8
Uniform+CF    80.1 197.5 70.1 197.5
LSTM+CF       80.1 198.0 71.5 197.8
FrameGlimpse  71.2  29.9 60.2  32.9
FastForward   67.6  66.2 54.7  17.2
LiteEval-RL   74.2 245.9 65.2 269.3
LiteEval      80.0  94.3 72.7  95.1
"""
"""As the paper prints it: FCVID mAP and GFLOPs, ActivityNet mAP and GFLOPs."""
PAPER_COLUMNS = [f"paper_{d}_{what}" for d in ("fcvid", "activitynet") for what in ("map_percent", "gflops")]


pytestmark = pytest.mark.usefixtures("one_thread")


def plant(folder: Path, seed: int = 0) -> Path:
    labels = write_planted(folder, train=12, test=8, classes=4, dim=8, seed=seed, lengths=(4, 8))[1]
    write_planted_labels(labels, folder / "labels.csv")
    return folder


def table(cache: Path, *words: object, seeds: int = 2, labels: Path | None = None) -> Result:
    data = ["--cache", cache, "--labels", labels or cache / "labels.csv", *STREAMS, "--device", "cpu"]
    given = [str(word) for word in ["liteeval-1", *data, *SMALL, "--seeds", seeds, *words]]
    return CliRunner(env={"COLUMNS": "100"}).invoke(paper_tables, given)


def numbers(out: Path) -> dict[str, dict[str, str]]:
    return {row["name"]: row for row in csv.DictReader(io.StringIO((out / "table.csv").read_text()))}


def told(result: Result) -> str:
    """The one line on standard error of a mistake."""
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    lines = result.stderr.strip().splitlines()
    assert lines[-1].startswith("Error: ")
    return lines[-1]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plant(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def made(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A folder with runs/ and out/, and what the command that filled it said."""
    folder = tmp_path_factory.mktemp("table")
    result = table(cache, "--runs", folder / "runs", "--out", folder / "out")
    assert result.exit_code == 0, result.output
    return folder, result


@pytest.fixture(scope="module")
def said(cache: Path, made: tuple[Path, Result]) -> dict[str, object]:
    """The same as JSON."""
    read: dict[str, object] = json.loads(table(cache, "--runs", made[0] / "runs", "--json").stdout)
    return read


def test_paper_values_are_those_of_table_1(made: tuple[Path, Result]) -> None:
    rows = numbers(made[0] / "out")
    expected = [line.split() for line in TABLE_1.strip().splitlines()]
    assert list(rows) == [*(name for name, *_ in expected), "Coarse only", "Random gating"]
    for name, *values in expected:
        assert [rows[name][column] for column in PAPER_COLUMNS] == values
    for name in ("Coarse only", "Random gating"):
        assert rows[name]["group"] == "null controls"
        assert not any(rows[name][column] for column in PAPER_COLUMNS)


def shown(report: Report, *, colour: bool = False, width: int | None = None) -> str:
    return terminal.render(of_report(report), colour=colour, width=width)


def csv_of(report: Report) -> str:
    sheet = of_report(report).data[0]
    return comma_separated(sheet)


def test_paper_costs_are_25_frames() -> None:
    published = {row.title: row.published for row in TABLE.experiments}
    for dataset in ("fcvid", "activitynet"):
        assert published["Uniform"][dataset]["gflops"].value == pytest.approx(25 * 7.82)
        assert published["Uniform+CF"][dataset]["gflops"].value == pytest.approx(25 * (7.82 + 0.08))


def test_rows_not_built_say_so(made: tuple[Path, Result]) -> None:
    assert {row["status"] for row in numbers(made[0] / "out").values()} == {"built"}
    some = planned_report({"liteeval": (0.5, 10.0)}, seeds=1)
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(csv_of(some)))}
    for name in ("FrameGlimpse", "FastForward", "LiteEval-RL"):
        row = rows[name]
        assert row["status"] == "not built yet" and row["runs"] == "0" and row["map_percent_mean"] == ""
        assert re.search(rf"^{name} +not built yet", shown(some), re.MULTILINE)
        assert f"| {name} | not built yet |" in markdown(of_report(some))


def test_our_numbers_are_means_over_the_runs(said: dict[str, object], made: tuple[Path, Result]) -> None:
    rows = numbers(made[0] / "out")
    assert isinstance(said["rows"], list)
    for row in said["rows"]:
        results = [run["result"] for run in row["runs"]]
        if not results:
            continue
        in_csv = rows[row["name"]]
        assert in_csv["runs"] == "2"
        for name, field, scale in (
            ("map_percent", "mean_average_precision", 100),
            ("top1_percent", "top1", 100),
            ("gflops", "gflops_mean", 1),
            ("fine_features", "fine_features_mean", 1),
            ("usage_percent", "usage", 100),
        ):
            values = scale * np.array([result[field] for result in results])
            assert float(in_csv[f"{name}_mean"]) == pytest.approx(values.mean(), rel=1e-5, abs=1e-9)
            assert float(in_csv[f"{name}_std"]) == pytest.approx(values.std(ddof=1), rel=1e-4, abs=1e-9)
    assert float(rows["Coarse only"]["fine_features_mean"]) == 0
    # Short videos: K = 25 frames are all there are, each at 7.8 GFLOPs.
    assert float(rows["Uniform"]["usage_percent_mean"]) == 100


def test_random_gating_takes_the_usage_of_the_same_seed(said: dict[str, object]) -> None:
    assert isinstance(said["rows"], list)
    by_name = {row["name"]: row["runs"] for row in said["rows"]}
    for ours, theirs in zip(by_name["Random gating"], by_name["LiteEval"], strict=True):
        configs = [json.loads((Path(run["folder"]) / "config.json").read_text()) for run in (ours, theirs)]
        assert configs[0]["config"]["usage"] == theirs["result"]["usage"]
        assert configs[0]["config"]["seed"] == configs[1]["config"]["seed"]


def test_a_second_call_reuses_everything(cache: Path, made: tuple[Path, Result], tmp_path: Path) -> None:
    folder, first = made
    assert first.stderr.count(": trained in ") == 2 * len(METHODS) and "reused" not in first.stderr
    before = {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*") if path.is_file()}
    again = table(cache, "--runs", folder / "runs", "--out", tmp_path)
    assert again.exit_code == 0, again.output
    for name in (experiment.title for experiment in TABLE.experiments):
        assert f"{name}: 2 runs reused" in again.stderr
    assert "trained" not in again.stderr
    kept = {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*") if path.is_file()}
    assert kept == before
    assert (tmp_path / "table.csv").read_bytes() == (folder / "out" / "table.csv").read_bytes()
    # The last line is the command, whose --out is another.
    assert again.stdout.splitlines()[:-1] == first.stdout.splitlines()[:-1]


def test_gamma_retrains_what_it_concerns(cache: Path, made: tuple[Path, Result], tmp_path: Path) -> None:
    shutil.copytree(made[0] / "runs", tmp_path / "runs")
    result = table(cache, "--runs", tmp_path / "runs", "--gamma", "0.9", seeds=1)
    assert result.exit_code == 0, result.output
    for name in ("LiteEval", "LiteEval-RL"):
        assert f"{name}, seed 0: trained" in result.stderr
    for name in ("Uniform", "LSTM", "Uniform+CF", "LSTM+CF", "FrameGlimpse", "FastForward", "Coarse only"):
        assert f"{name}: 1 run reused" in result.stderr


def test_other_features_retrain_everything(made: tuple[Path, Result], tmp_path: Path) -> None:
    shutil.copytree(made[0] / "runs", tmp_path / "runs")
    result = table(plant(tmp_path / "other", seed=1), "--runs", tmp_path / "runs", seeds=1)
    assert result.exit_code == 0, result.output
    assert result.stderr.count(": trained in ") == len(METHODS) and "reused" not in result.stderr


@pytest.mark.slow
def test_a_stopped_table_goes_on(
    cache: Path, made: tuple[Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped when LiteEval-RL is trained but not judged, which is as if killed there."""

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Method, "evaluate", stop)
        stopped = table(cache, "--runs", tmp_path / "runs", seeds=1)
    assert stopped.exit_code == 130
    (begun,) = (tmp_path / "runs").iterdir()
    assert (begun / CHECKPOINT).exists()
    result = table(cache, "--runs", tmp_path / "runs", "--out", tmp_path / "out", seeds=1)
    assert "LiteEval-RL, seed 0: resumed and trained in" in result.stderr
    undisturbed = table(cache, "--runs", made[0] / "runs", "--out", tmp_path / "undisturbed", seeds=1)
    assert undisturbed.exit_code == 0
    assert numbers(tmp_path / "out") == numbers(tmp_path / "undisturbed")


def test_runs_of_an_earlier_version_are_judged_again(
    cache: Path, made: tuple[Path, Result], tmp_path: Path
) -> None:
    shutil.copytree(made[0] / "runs", tmp_path / "runs")
    for folder in (tmp_path / "runs").glob("l*-*"):
        make_earlier(folder)
    result = table(cache, "--runs", tmp_path / "runs", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert ": trained in" not in result.stderr and "LiteEval, seed 1: evaluated in" in result.stderr
    assert numbers(tmp_path / "out") == numbers(made[0] / "out")


@pytest.mark.slow
def test_processes_give_the_same_table(cache: Path, made: tuple[Path, Result], tmp_path: Path) -> None:
    result = table(cache, "--runs", tmp_path / "runs", "--out", tmp_path / "out", "--jobs", 2)
    assert result.exit_code == 0, result.output
    assert numbers(tmp_path / "out") == numbers(made[0] / "out")


@pytest.mark.slow
def test_mistakes_in_other_processes(cache: Path, tmp_path: Path) -> None:
    shutil.copytree(cache, tmp_path / "cache")
    damage(tmp_path / "cache", "row")
    line = told(table(tmp_path / "cache", "--runs", tmp_path / "runs", "--jobs", 2))
    assert "damaged shard" in line


def test_terminal(made: tuple[Path, Result]) -> None:
    lines = made[1].stdout.splitlines()
    assert max(map(len, lines[:-1])) <= 100
    (liteeval,) = (line for line in lines if line.startswith("LiteEval  "))
    assert len(re.findall(r"\d+\.\d+ ± \d+\.\d+", liteeval)) == 4
    assert re.search(r"80\.0 / +94\.3 +72\.7 / +95\.1$", liteeval)
    assert "\x1b" not in made[1].stdout
    state = made[1].stdout.partition("Ours:")[2]
    for word in (
        "labels.csv",
        "12 videos",
        "8 for",
        "random:0",
        "10⁹",
        "seeds 0, 1",
        "FCVID and ActivityNet",
    ):
        assert word in state
    assert lines[-1].startswith("$ paper-tables liteeval-1 --cache ")


def test_a_narrow_terminal_loses_no_number() -> None:
    narrow, wide = (shown(planned_report(), width=width) for width in (40, 200))
    found = [re.findall(r"\d+\.\d+", rendered.partition("Ours")[0]) for rendered in (narrow, wide)]
    assert sorted(found[0]) == sorted(found[1]) and "…" not in narrow
    assert "\x1b[1m" in shown(planned_report(), colour=True)


def test_markdown_parses_back(made: tuple[Path, Result]) -> None:
    folder, _ = made
    lines = (folder / "out" / "table.md").read_text().splitlines()
    body = [
        [cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")
    ]
    assert {len(row) for row in body} == {9}
    rows = {row[0]: row for row in body[2:]}
    for name, values in numbers(folder / "out").items():
        assert rows[name][5:] == [values[column] or "–" for column in PAPER_COLUMNS]
        if values["status"] == "built":
            for printed, what in zip(
                re.findall(r"\d+\.\d+", rows[name][1]), ("mean", "std", "low", "high"), strict=True
            ):
                assert float(printed) == pytest.approx(float(values[f"map_percent_{what}"]), abs=0.051)
            assert re.fullmatch(r"\S+ ± \S+ \[\S+, \S+\]", rows[name][1])
    assert "![Accuracy against computation per video](figure.png)" in lines
    assert any(line.startswith("paper-tables liteeval-1 --cache") for line in lines)


def test_columns_keep_their_headings() -> None:
    columns = [
        Column("method", "method"),
        Column("GFLOPs", "gflops", heading="as trained"),
        Column("2.27", "at_0.1", heading="top-1 % at GFLOPs"),
        Column("5.67", "at_0.25", heading="top-1 % at GFLOPs"),
        Column("mAP %", "paper_map", paper="FCVID"),
    ]
    sheet = Sheet("title", columns, [["LSTM", 1.0, 2.0, 3.0, 4.0]])
    titles = [
        "method",
        "as trained: GFLOPs",
        "top-1 % at GFLOPs: 2.27",
        "top-1 % at GFLOPs: 5.67",
        "paper, FCVID: mAP %",
    ]
    assert markdown_table(sheet)[3] == f"| {' | '.join(titles)} |"
    assert comma_separated(sheet).startswith("method,gflops,at_0.1,at_0.25,paper_map\n")
    tex = latex(Document("one", "title", [sheet]))
    assert r"\multicolumn{1}{c}{as trained} & \multicolumn{2}{c}{top-1 \% at GFLOPs} &" in tex
    assert r"\cmidrule(lr){2-2} \cmidrule(lr){3-4} \cmidrule(lr){5-5}" in tex
    assert r"method & GFLOPs & 2.27 & 5.67 & mAP \% \\" in tex


def test_the_command_reproduces_the_table(made: tuple[Path, Result], tmp_path: Path) -> None:
    words = shlex.split(made[1].stdout.splitlines()[-1].removeprefix("$ paper-tables "))
    words[words.index("--out") + 1] = str(tmp_path)
    assert CliRunner().invoke(paper_tables, words).exit_code == 0
    assert numbers(tmp_path) == numbers(made[0] / "out")


def test_figure_file(made: tuple[Path, Result]) -> None:
    with Image.open(made[0] / "out" / "figure.png") as image:
        image.load()
        assert image.format == "PNG" and min(image.size) > 800
        pixels = np.asarray(image.convert("RGB"))
    assert (pixels != 255).any(axis=2).mean() > 0.01
    for style in (figure.EMPHASIS, figure.METHOD, figure.CONTROL):
        near = np.abs(pixels / 255 - to_rgb(style.colour)).max(axis=2) < 0.02
        assert near.sum() > 50, style.name


def planned_report(
    values: dict[str, tuple[float, float]] | None = None, *, dataset: str | None = None, seeds: int = 3
) -> Report:
    """A report of runs that never were: mAP (of 1) and GFLOPs by method."""
    values = values or {method: (0.5 + 0.05 * i, 10.0 + 10 * i) for i, method in enumerate(METHODS)}
    rows = []
    for experiment in TABLE.experiments:
        accuracy, cost = values.get(experiment.method or "", (math.nan, math.nan))
        metrics = {"mean_average_precision": accuracy, "top1": accuracy, "usage": 0.3}
        metrics |= {"fine_features_mean": 2.0, "fine_features_std": 0}
        made = [
            runs.Result("m", "M", 8, 4, metrics, cost * (1 + 0.01 * s), 0, {}, 6, True) for s in range(seeds)
        ]
        known = experiment.method in values
        rows.append(Row(experiment, tuple(Run(Path("r"), r, False) for r in made) if known else ()))
    return Report(TABLE, tuple(rows), tuple(range(seeds)), "labels.csv", dataset, ("Ours: some.",), "command")


GOOD = {
    "lstm-cf": (0.8, 200.0),
    "liteeval": (0.79, 90.0),
    "random-gating": (0.6, 91.0),
    "coarse-only": (0.5, 10.0),
    "uniform": (0.85, 190.0),
}


@pytest.mark.parametrize(
    ("changed", "failing"),
    [
        ({}, []),
        ({"lstm-cf": (0.82, 200.0)}, ["within 2 points of LSTM+CF: mAP 79.0 to 82.0"]),
        ({"lstm-cf": (0.8, 100.0)}, ["costs no more than 50% of LSTM+CF's GFLOPs: 90% of them"]),
        ({"random-gating": (0.78, 91.0)}, ["random as often: by 1.0 points of mAP"]),
        ({"coarse-only": (0.79, 10.0)}, ["as good for no more are Coarse only (79.0 at 10.10 GFLOPs)"]),
        (
            {"random-gating": (0.8, 91.0)},
            ["it is below them by 1.0 points of mAP", "as good for no more are Random gating"],
        ),
        (
            {"random-gating": (0.79, 91.0)},
            ["they are level to a tenth of a point of mAP", "as good for no more are Random gating"],
        ),
    ],
)
def test_a_table_says_where_liteeval_is_no_better(
    changed: dict[str, tuple[float, float]], failing: list[str]
) -> None:
    report = planned_report(GOOD | changed)
    found = [str(one) for one in verdicts(report) if not one.holds]
    assert len(verdicts(report)) == 4 and len(found) == len(failing)
    assert all(line.startswith("NO: ") and text in line for line, text in zip(found, failing, strict=True))
    content = of_report(report)
    assert list(content.state[:4]) == [str(one) for one in verdicts(report)]
    assert [one["holds"] for one in as_records(content)] == [one.holds for one in verdicts(report)]
    written = [*csv.DictReader(io.StringIO(comma_separated(content.data[1])))]
    assert [row["holds"] for row in written] == ["yes" if v.holds else "no" for v in verdicts(report)]


def as_records(content: Document) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(as_json(content))["verdicts"]
    return found


def test_claims_are_of_rows_that_were_built() -> None:
    alone = planned_report({"liteeval": (0.8, 90.0)})
    assert [one.holds for one in verdicts(alone)] == [True]
    assert not verdicts(planned_report({"lstm-cf": (0.8, 90.0)}))
    assert not verdicts(replace(alone, table=replace(TABLE, verdicts=False)))


@pytest.mark.parametrize("dataset", [None, "fcvid", "activitynet"])
@pytest.mark.parametrize("kind", ["demo", "same", "column", "apart", "perfect"])
def test_labels_of_the_figure_do_not_overlap(kind: str, dataset: str | None) -> None:
    methods = list(METHODS)
    values = {
        "demo": dict(
            zip(
                methods,
                [
                    *[(0.95, 30), (0.92, 110), (0.92, 112), (0.95, 110.5), (0.96, 112.5)],
                    *[(0.85, 31), (0.7, 35), (0.9, 17), (0.6, 1.2), (0.8, 30)],
                ],
                strict=True,
            )
        ),
        "same": dict.fromkeys(methods, (0.7, 90.0)),
        "column": {method: (0.7 + 0.01 * i, 90.0) for i, method in enumerate(methods)},
        "apart": {method: (0.1 + 0.1 * i, 10.0**i) for i, method in enumerate(methods)},
        "perfect": {method: (1.0, 100.0 + i) for i, method in enumerate(methods)},
    }[kind]
    drawn, boxes = figure.draw(planned_report(values, dataset=dataset))
    assert len(boxes) == len(METHODS) + (dataset is not None)  # of the paper's, LiteEval
    assert all(a.overlap(b) == 0 for i, a in enumerate(boxes) for b in boxes[:i])
    width, height = drawn.get_size_inches() * drawn.dpi
    assert all(box.outside(Box(0, 0, width, height)) == 0 for box in boxes)
    (axes,) = drawn.axes
    assert (axes.get_xscale() == "log") == (kind in ("demo", "apart") or dataset is not None)


def test_placing_labels_keeps_off_obstacles() -> None:
    frame = Box(0, 0, 100, 100)
    wall = Box(52, 0, 60, 100)
    (box,) = place([(50, 50)], [(20, 8)], [4.0], [wall], frame)
    assert box.overlap(wall) == 0 and box.outside(frame) == 0 and box.right < 50


def test_one_seed_has_no_spread() -> None:
    assert Spread.of([3.0]) == Spread(3.0, None)
    assert Spread.of([1.0, 3.0]) == Spread(2.0, math.sqrt(2))
    rendered = csv_of(planned_report(seeds=1))
    assert "±" not in shown(planned_report(seeds=1)).partition("Ours")[0]
    assert next(csv.DictReader(io.StringIO(rendered)))["map_percent_std"] == ""
    assert set(MEASURES) >= {"map_percent", "gflops"}


def test_what_is_rounded_to_zero_has_no_sign() -> None:
    assert Spread(-0.004, 0.1, -0.0001, -0.26).text(2, interval=True) == "0.00 ± 0.10 [0.00, -0.26]"
    assert Spread(float("nan"), None).text(1, interval=False) == "nan"


def test_small_costs_keep_two_digits() -> None:
    rendered = shown(planned_report({"liteeval": (0.5, 0.0123), "uniform": (0.5, 1.0)}, seeds=1))
    assert re.search(r"^LiteEval +50\.0 +50\.0 +0\.012 ", rendered, re.MULTILINE)


def test_dataset_sets_what_was_not_given(cache: Path, tmp_path: Path) -> None:
    """ActivityNet's 64 and 512 units and batch of 128 (Sec. 4.1), but the units that are given."""
    words = ["--cache", cache, "--labels", cache / "labels.csv", *STREAMS, "--epochs", 1, "--seeds", 1]
    given = [*words, "--dataset", "fcvid", "--fine-hidden", 16, "--coarse-hidden", 8, "--runs", tmp_path]
    result = CliRunner().invoke(paper_tables, ["liteeval-1", *map(str, given)])
    assert result.exit_code == 0, result.output
    (folder,) = tmp_path.glob("liteeval-[0-9a-f]*")
    config = json.loads((folder / "config.json").read_text())["config"]
    assert (config["coarse_hidden"], config["fine_hidden"], config["batch"]) == (8, 16, 256)
    assert "45,611 training and 45,612" in " ".join(result.stdout.split())


@pytest.mark.slow
def test_skip_missing_judges_all_rows_on_the_same_videos(cache: Path, tmp_path: Path) -> None:
    from cache_schema import FeatureCache, write_shard

    whole = FeatureCache(cache)["coarse_112"]
    shutil.copytree(cache, tmp_path / "cache")
    (shard,) = (tmp_path / "cache" / "coarse_112").glob("*.h5")
    shard.unlink()
    fewer = [whole[video_id] for video_id in list(whole)[:-1]]
    write_shard(tmp_path / "cache" / "coarse_112", whole.spec, fewer, tools={})
    words = ["--runs", tmp_path / "runs", "--json"]
    assert "'video_0019' (not in coarse_112)" in told(table(tmp_path / "cache", *words, seeds=1))
    result = table(tmp_path / "cache", "--skip-missing", *words, seeds=1)
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["rows"]
    assert {run["result"]["videos"] for row in rows for run in row["runs"]} == {7}


def test_list() -> None:
    lines = CliRunner().invoke(paper_tables, ["list"]).stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(KNOWN)
    assert "liteeval-10" in KNOWN and "selection-fig4" in KNOWN and "costs" in KNOWN and "timeline" in KNOWN
    for line in lines:
        name = line.split()[0]
        assert line.split(maxsplit=1) == [name, KNOWN[name]] and name in paper_tables.commands
    said = json.loads(CliRunner().invoke(paper_tables, ["list", "--json"]).stdout)
    assert {entry["name"]: entry["what"] for entry in said} == KNOWN


def test_unknown_table() -> None:
    assert "No such command 'liteeval-99'" in told(CliRunner().invoke(paper_tables, ["liteeval-99"]))


def test_help_shows_a_full_example() -> None:
    help_text = CliRunner().invoke(paper_tables, ["liteeval-1", "--help"]).output
    example = help_text.partition("Example:")[2].partition("Options:")[0]
    for word in ("paper-tables liteeval-1", "--cache", "--labels", "--out"):
        assert word in example


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gamma", "1.2"], "gamma must be between 0 and 1, not 1.2"),
        (["--coarse", "mobilenet"], "no stream 'mobilenet' in this cache; it has: coarse_112, fine_224"),
        (["--coarse-hidden", "16"], "coarse-hidden (16) must not exceed fine-hidden (8)"),
        (["--cache", "nowhere"], "nowhere: no such cache folder"),
        (["--labels", "nowhere.csv"], "nowhere.csv: cannot read the labels"),
        (["--eval-subset", "val"], "no subset 'val'; it has: train, test"),
        (["--device", "abacus"], "--device abacus: not to be had here"),
        (["--runs", "/proc/no"], "cannot be used as a run folder"),
        (["--out", "/proc/no"], "/proc/no: cannot write the table there"),
        (["--seeds", "0"], "0 is not in the range"),
        (["--jobs", "0"], "0 is not in the range"),
        (["--dataset", "imagenet"], "'imagenet' is not one of"),
    ],
)
def test_mistakes(words: list[str], said: str, cache: Path, tmp_path: Path) -> None:
    result = table(cache, "--runs", tmp_path / "runs", "--out", tmp_path / "out", *words)
    assert said in told(result)
    assert not list(tmp_path.iterdir())


def test_out_is_tried_before_training(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    line = told(table(cache, "--runs", tmp_path / "runs", "--out", tmp_path / "out"))
    assert "out: cannot write the table there" in line
    assert not (tmp_path / "runs").exists()


def damage(cache: Path, how: str) -> None:
    import h5py

    (shard,) = (cache / "fine_224").glob("*.h5")
    content = bytearray(shard.read_bytes())
    if how == "cut":
        content = content[: len(content) // 2]
    else:
        with h5py.File(shard) as file:
            content[file["features"].id.get_offset() + 5] ^= 0x10
    shard.write_bytes(content)


@pytest.mark.parametrize("how", ["cut", "row"])
def test_damaged_shards(how: str, cache: Path, tmp_path: Path) -> None:
    shutil.copytree(cache, tmp_path / "cache")
    damage(tmp_path / "cache", how)
    assert "damaged shard" in told(table(tmp_path / "cache", "--runs", tmp_path / "runs"))


def test_a_damaged_run_is_named(cache: Path, made: tuple[Path, Result], tmp_path: Path) -> None:
    shutil.copytree(made[0] / "runs", tmp_path / "runs")
    for folder in (tmp_path / "runs").glob("lstm-cf-*"):
        (folder / "result.json").write_text("{")
    line = told(table(cache, "--runs", tmp_path / "runs"))
    assert "result.json: cannot be read; delete the run folder" in line


@pytest.mark.parametrize("name", ["config.json", "result.json"])
@pytest.mark.parametrize("content", ["{}", "[]", '{"result": {"method": "lstm"}}'])
def test_a_run_of_another_version_is_named(
    name: str, content: str, cache: Path, made: tuple[Path, Result], tmp_path: Path
) -> None:
    shutil.copytree(made[0] / "runs", tmp_path / "runs")
    for folder in (tmp_path / "runs").glob("lstm-cf-*"):
        (folder / name).write_text(content)
    line = told(table(cache, "--runs", tmp_path / "runs"))
    assert f"{name}: not a {name[:6]} of this version; delete the run folder" in line


@pytest.mark.slow
def test_progress_on_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("{}\n{}\n")
    progress = ShownProgress(3, live=True)
    with progress.watch({folder: Working("LSTM, seed 0", 4), tmp_path: Working("LSTM, seed 1", 9)}):
        threading.Event().wait(1.2)
        shown = progress.bar.tasks[0]
        assert shown.completed == 0.5
        assert shown.fields["current"] == "LSTM, seed 0: epoch 2 of 4"
        progress.trained("LSTM, seed 0", folder, seconds=75.0, how="trained")
    progress.reused("Uniform", 2)
    lines = capsys.readouterr().err
    assert "[1/3] LSTM, seed 0: trained in 1 min 15 s" in lines
    assert "[3/3] Uniform: 2 runs reused" in lines


def test_what_rows_are_of_in_a_caption() -> None:
    """A stream of snippets is none of frames, whichever role it has; of several kinds they are rows."""
    frames = make_spec("frames")
    snippets = make_spec("snippets", sampling=Sampling("snippets", 30, 8, 64, rows_per_s=1))
    assert [row_word([one]) for one in (frames, snippets)] == ["frame", "snippet"]
    assert row_word([frames, frames]) == "frame" and row_word([frames, snippets]) == "row"
