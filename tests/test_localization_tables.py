"""The model selection paper's tables and figures on localization, from planted actions: numbers, runs, files."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from cache_schema import FeatureCache, UserError, VideoRecord, write_shard
from cache_schema.annotations import LabelSet
from policy.deploy.flow_speed import FlowTimes
from policy.localization.curve import SHARES
from policy.localization.judged import Localizations
from policy.registry import configure
from policy.runs import read_result, run_method
from policy.tables.catalogue import LOCALIZATION
from policy.tables.cli import paper_tables
from policy.tables.detections import judge
from policy.tables.exhibits import localization_table
from policy.tables.experiment import PaperTable
from policy.tables.reading import EXPERIMENTS, read_table
from policy.tables.requests import requests
from policy.tables.streams import Substitution
from tests.planted_actions import STREAMS, plant_actions

RGB, FLOW = STREAMS
TINY = "tiny_dense16"
AVERAGE = "thumos14_map_0.1:0.7"
SUBSTITUTED = [*("--substitute", f"x3d_m_dense16={RGB}", "--substitute", f"i3d_flow_dense16={FLOW}")]
TRAINING: Mapping[str, Any] = {"epochs": 1, "epoch_steps": 15, "hidden": 8, "lr": 5e-3}
SMALL = [word for name, value in TRAINING.items() for word in (f"--{name.replace('_', '-')}", str(value))]
PAIR_S = {"tvl1": 0.5, "dis": 0.01}

# Table 2 as printed: mAP@0.5, @0.7, average; MultiThumos' mAP@0.5, average; GFLOPs.
PRINTED = {
    "Liu et al.": ("23.1", "7.0", "32.4", None, None, "112"),
    "Nguyen et al.": ("26.8", "9.0", "36.3", None, None, "112"),
    "BaS-Net": ("27.0", "10.4", "35.3", None, None, "112"),
    "DGAM": ("28.8", "11.4", "37.0", None, None, "112"),
    "ActionBytes": ("29.0", "9.5", None, "12.1", "21.5", "112"),
    "ActionBytes (flow)": ("28.6", "10.0", "34.1", "11.5", "19.8", "56"),
    "A2CL-PT": ("30.1", "10.6", "37.8", None, None, "112"),
    "TSCN": ("28.7", "10.2", "37.8", None, None, "112"),
    "Clip selection": ("30.0", "10.4", "35.9", "11.7", "20.7", "43.8"),
}
COLUMNS = (
    ("thumos14", "thumos14_map_0.5"),
    ("thumos14", "thumos14_map_0.7"),
    ("thumos14", AVERAGE),
    ("multithumos", "activitynet_map_0.5"),
    ("multithumos", "activitynet_map_0.1:0.5"),
    ("thumos14", "gflops"),
)

pytestmark = pytest.mark.usefixtures("one_thread")
Rows = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LabelSet]:
    """The folder of a cache with three streams, the last one a cheap one that tells less, and labels.csv."""
    folder = tmp_path_factory.mktemp("planted")
    cache, labels = plant_actions(folder, train=12, test=8, lengths=(24, 32), context=True)
    random = np.random.default_rng(1)
    records = []
    for video in cache[RGB]:
        rows = cache[RGB][video].features[:, :5].astype(np.float32)
        noisy = (rows + random.standard_normal(rows.shape)).astype(np.float16)
        spans = np.array(cache[RGB][video].spans)
        records.append(VideoRecord(video, noisy, spans, duration_s=len(rows) * 16 / 25, fps=25.0))
    spec = replace(cache[RGB].spec, name=TINY, feature_dim=5, macs_per_row=600_000_000)
    write_shard(folder / TINY, spec, records, tools={"thriftvid": "test"})
    write_labels(folder / "labels.csv", labels)
    return folder, labels


def write_labels(path: Path, labels: LabelSet) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("video_id", "start_s", "end_s", "label", "subset"))
        for video in labels.videos:
            for one in video.segments:
                writer.writerow((video.video_id, one.start_s, one.end_s, one.label, video.subset))


def call(folder: Path, *words: object) -> Result:
    data = ["--cache", folder, "--labels", folder / "labels.csv", "--device", "cpu", "--resamples", 20]
    given = [words[0], *data, *SMALL, *words[1:]]
    return CliRunner().invoke(paper_tables, [str(word) for word in given])


def no_clock(**_: object) -> FlowTimes:
    return FlowTimes(PAIR_S, "no clock.")


@pytest.fixture(scope="module")
def table_2(planted: tuple[Path, LabelSet], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/, out/ and stdout of selection-2 with two seeds."""
    return made(planted[0], tmp_path_factory.mktemp("table-2"), "selection-2", *SUBSTITUTED)


@pytest.fixture(scope="module")
def everything(planted: tuple[Path, LabelSet], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of all localization tables at once, with a stream in the place of one of the two others."""
    more = ("--substitute", f"x3d_s_dense16={TINY}")
    return made(
        planted[0], tmp_path_factory.mktemp("all"), "all", "--paper", "selection", *SUBSTITUTED, *more
    )


def made(cache: Path, folder: Path, *words: object) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(localization_table, "measure_flow", no_clock)
        result = call(cache, *words, "--seeds", 2, "--runs", folder / "runs", "--out", folder / "out")
    assert result.exit_code == 0, result.output
    (folder / "stdout").write_text(result.stdout)
    (folder / "stderr").write_text(result.stderr)
    return folder


def rows(path: Path) -> Rows:
    lines = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    return {line[next(iter(line))]: line for line in lines}


def configs(folder: Path, method: str, **wanted: object) -> list[tuple[Path, dict[str, Any]]]:
    """Run folders of a method and their configurations, by seed, that have these values."""
    found = []
    for path in (folder / "runs").glob(f"{method}-*"):
        config = json.loads((path / "config.json").read_text())["config"]
        if all(config.get(name) == value for name, value in wanted.items()):
            found.append((path, config))
    return sorted(found, key=lambda one: one[1]["seed"])


def metric(folders: list[tuple[Path, dict[str, Any]]], name: str) -> list[float]:
    return [100 * read_result(path).metrics[name] for path, _ in folders]


# --- Table 2 ---


def test_the_papers_values() -> None:
    table = read_table(EXPERIMENTS / "selection-2")
    printed = {
        one.title: tuple(
            value.text if (value := one.published.get(dataset, {}).get(measure)) else None
            for dataset, measure in COLUMNS
        )
        for one in table.experiments
        if one.published
    }
    assert printed == PRINTED


def test_table_2_is_its_runs(table_2: Path) -> None:
    table = rows(table_2 / "out" / "table.csv")
    alone = {"appearance": (RGB, None), "motion": (None, FLOW), "both": (RGB, FLOW)}
    of_rows = {
        f"W-TALC, {name} †": configs(table_2, "wtalc", appearance=appearance, motion=motion)
        for name, (appearance, motion) in alone.items()
    }
    of_rows["Clip selection †"] = configs(table_2, "localization-selector")
    for title, folders in of_rows.items():
        assert len(folders) == 2
        for name in ("thumos14_map_0.5", "thumos14_map_0.7", AVERAGE):
            values = metric(folders, name)
            assert float(table[title][name]) == pytest.approx(np.mean(values), rel=1e-5)
            assert float(table[title][f"{name}_std"]) == pytest.approx(np.std(values, ddof=1), rel=1e-4)
            low, high = (float(table[title][f"{name}_{end}"]) for end in ("low", "high"))
            assert low <= high
        results = [read_result(path) for path, _ in folders]
        gflops = np.mean([one.gflops_mean / one.rows_mean for one in results])
        assert float(table[title]["gflops"]) == pytest.approx(gflops, rel=1e-5)
    assert table["DGAM"]["gflops"] == "" and table["DGAM"]["paper_thumos14_gflops"] == "112"
    assert table["Clip selection †"]["paper_multithumos_activitynet_map_0.5"] == "11.7"


def test_random_clips_are_the_runs_own_control(table_2: Path) -> None:
    values = []
    for path, _ in configs(table_2, "localization-selector"):
        details = json.loads((path / "details.json").read_text())
        [point] = [
            one for one in details["points"] if one["choice"] == "random" and one["at"] == details["share"]
        ]
        values.append(100 * point[AVERAGE])
    shown = rows(table_2 / "out" / "table.csv")["random clips"]
    assert float(shown[AVERAGE]) == pytest.approx(np.mean(values), rel=1e-5)
    assert shown["thumos14_map_0.5"] == "", "details have averages alone"


def test_costs_in_both_conventions(table_2: Path) -> None:
    costs = rows(table_2 / "out" / "table-2.csv")
    usage = np.mean(metric(configs(table_2, "localization-selector"), "usage")) / 100
    assert 0 < usage < 1
    ours = costs["Clip selection †"]
    assert float(ours["motion_percent"]) == pytest.approx(100 * usage, rel=1e-5)
    assert float(ours["gflops"]) == pytest.approx(4.73 + usage * 56, rel=1e-4), (
        "planted: a clip of flow is 56"
    )
    assert float(ours["paper_gflops"]) == pytest.approx(4.73 + usage * 2 * 56, rel=1e-5)
    assert ours["paper"] == "43.8"
    flow = rows(table_2 / "out" / "table-3.csv")
    with_flow = flow["Clip selection †"]
    estimated = float(with_flow["gflops_raft_small"]) - float(ours["gflops"])
    assert estimated == pytest.approx(usage * 16 * 11.51, rel=1e-4)
    assert float(with_flow["tvl1_s"]) == pytest.approx(usage * 16 * 0.5, rel=1e-5)
    appearance = costs["W-TALC, appearance †"]
    assert (appearance["motion_percent"], flow["W-TALC, appearance †"]["dis_s"]) == ("0", "0")
    assert float(costs["W-TALC, motion †"]["paper_gflops"]) == 112


def test_the_budget_pays_for_as_many_clips_as_the_papers(table_2: Path) -> None:
    # The planted streams have 4.73 and 56 GFLOPs in one unit, as the paper has in its two.
    for _, config in configs(table_2, "localization-selector"):
        assert config["budget"] == pytest.approx(43.8)


def test_each_seed_has_its_own_models(table_2: Path) -> None:
    digests = {
        role: {
            config["seed"]: sha256((path / "model.safetensors").read_bytes()).hexdigest()
            for path, config in configs(table_2, "wtalc", **{role: stream, other: None})
        }
        for role, stream, other in (("appearance", RGB, "motion"), ("motion", FLOW, "appearance"))
    }
    assert digests["appearance"][0] != digests["appearance"][1]
    for _, config in configs(table_2, "localization-selector"):
        for role, by_seed in digests.items():
            assert config[f"{role}_run"] == by_seed[config["seed"]]


def test_action_bytes_of_a_model_are_not_trained_again(
    table_2: Path, planted: tuple[Path, LabelSet], tmp_path: Path
) -> None:
    assert not configs(table_2, "wtalc", action_bytes=True)
    config = configure("wtalc", {"motion": FLOW, "action_bytes": True, **TRAINING})
    run = run_method(config, FeatureCache(planted[0]), planted[1], tmp_path / "run", device="cpu")
    [(folder, _), _] = configs(table_2, "wtalc", motion=FLOW, appearance=None)
    view = Localizations.load(folder / "views" / "action-bytes" / "predictions.npz")
    assert dict(view.metrics()) == pytest.approx(dict(run.result.metrics))
    before = Localizations.load(folder / "predictions.npz").detections
    assert len(view.detections.spans) != len(before.spans)


def test_intervals_are_those_of_anybodys_detections(table_2: Path, planted: tuple[Path, LabelSet]) -> None:
    (path, _), _ = configs(table_2, "wtalc", motion=FLOW, appearance=None)
    found = Localizations.intervals([Localizations.load(path / "predictions.npz")], resamples=50)
    labels = planted[1]
    judged = judge(path / "detections.json", labels, subset="test", resamples=50)
    for protocol, scores in judged.scores.items():
        spread = scores["test"].mean(np.ones(len(judged.ious), np.bool_))
        ours = found[f"{protocol}_map_0.1:0.7"]
        assert spread.low is not None and spread.high is not None
        expected = (spread.mean / 100, spread.low / 100, spread.high / 100)
        # Files of detections have rounded times and scores.
        assert (ours.value, ours.low, ours.high) == pytest.approx(expected, abs=2e-3)


def test_files_and_terminal(table_2: Path) -> None:
    out = table_2 / "out"
    markdown = (out / "table.md").read_text()
    assert "**Clip selection †**" in markdown and "| 43.8 |" in markdown and "W-TALC, both" in markdown
    assert "43.8" in (out / "table.tex").read_text()
    draws(out / "figure.png")
    for number, rank in ((2, "best"), (3, "median"), (4, "worst")):  # of the clip selection's videos
        draws(out / f"figure-{number}.png")
        assert re.search(rf"<img[^>]*alt=\"[^\"]*{rank}", (out / "report.html").read_text())
    text = (table_2 / "stdout").read_text()
    assert "4.73 + 0.698 · 56" in text and "no clock." in text
    listed = CliRunner().invoke(paper_tables, ["list"]).stdout
    assert all(f"\n{name} " in listed for name in LOCALIZATION)


def draws(path: Path) -> None:
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG" and np.asarray(image.convert("L")).std() > 5


# --- Figures 5 and 6, and all at once ---


@pytest.mark.slow
def test_models_are_trained_once_for_all(everything: Path) -> None:
    # On both streams alone, on both together, and on the other cheap one.
    assert len(configs(everything, "wtalc")) == 2 * 4
    # Table 2; β, pseudo-labels and disparity; the other cheap stream; ActionBytes. Fig. 6 shares β = 0.7.
    assert len(configs(everything, "localization-selector")) == 2 * (1 + 4 + 2 + 1 + 1 + 1)
    assert sorted(path.name for path in (everything / "out").iterdir() if path.is_dir()) == [*LOCALIZATION]
    stderr = (everything / "stderr").read_text()
    for name in ("selection-1", "selection-fig3", "selection-fig4", "selection-budgets"):
        assert f"{name} needs" in stderr, "named where it is left out"
    page = (everything / "out" / "report.html").read_text()
    assert all(f'id="{name}"' in page for name in LOCALIZATION)


@pytest.mark.slow
def test_figure_5_is_its_runs(everything: Path) -> None:
    out = everything / "out" / "selection-fig5"
    summary = rows(out / "table.csv")
    wanted: dict[str, dict[str, object]] = {
        "β = 0.3 †": {"beta": 0.3, "target": "affinity", "appearance": RGB},
        "β = 0.7 †": {"beta": 0.7, "target": "affinity", "appearance": RGB, "action_bytes": False},
        "pseudo, β = 0.5 †": {"beta": 0.5, "target": "pseudo-labels"},
        "disparity †": {"target": "disparity"},
        "on x3d_s †": {"appearance": TINY},
    }
    for title, settings in wanted.items():
        folders = configs(everything, "localization-selector", **settings)
        assert len(folders) == 2
        means: dict[str, list[float]] = {}
        for path, _ in folders:
            points = json.loads((path / "details.json").read_text())["points"]
            for choice in ("selector", "random", "every n-th", "frame motion", "oracle"):
                of_choice = [
                    100 * one[AVERAGE] for one in points if one["choice"] == choice and one["at"] in SHARES
                ]
                assert len(of_choice) == len(SHARES)
                means.setdefault(choice, []).append(float(np.mean(of_choice)))
        assert float(summary[title]["mean_map_percent"]) == pytest.approx(
            np.mean(means["selector"]), rel=1e-4
        )
        above = np.subtract(means["selector"], means["random"])
        assert float(summary[title]["above_random"]) == pytest.approx(above.mean(), abs=1e-3)
        assert float(summary[title]["above_random_std"]) == pytest.approx(above.std(ddof=1), abs=1e-3)
    for number in ("", "-2", "-3", "-4"):
        draws(out / f"figure{number}.png")
    markdown = (out / "table.md").read_text()
    assert "no stream x3d_xs_dense16: W-TALC, x3d_xs_dense16, on x3d_xs" in markdown
    assert "no stream x3d_l_dense16" in markdown


@pytest.mark.slow
def test_disparity_is_that_of_the_runs(everything: Path) -> None:
    folders = configs(
        everything, "localization-selector", beta=0.7, target="affinity", action_bytes=False, appearance=RGB
    )
    counts = [json.loads((path / "details.json").read_text())["disparity"] for path, _ in folders]
    lines = csv.DictReader((everything / "out" / "selection-fig5" / "table-3.csv").open())
    for number, line in enumerate(lines):
        for ground in ("foreground", "background"):
            assert int(line[ground]) == sum(one[ground][number] for one in counts)


@pytest.mark.slow
def test_curves_have_every_control_in_both_conventions(everything: Path) -> None:
    for name, curves in (("selection-fig5", "table-4.csv"), ("selection-fig6", "table-3.csv")):
        points = list(csv.DictReader((everything / "out" / name / curves).open()))
        methods = {point["method"] for point in points}
        for method in methods:
            choices = {point["choice"] for point in points if point["method"] == method}
            assert choices == {
                *("selector", "random", "every n-th", "frame motion", "oracle"),
                *("RGB only", "motion only", "both averaged"),
            }
        motion = [one for one in points if one["choice"] == "motion only"]
        assert motion and all(float(one["gflops"]) == pytest.approx(56, rel=1e-4) for one in motion)
        assert {float(one["paper_gflops"]) for one in motion} == {112.0}
    out = everything / "out" / "selection-fig6"
    assert {point["method"] for point in points} == {"W-TALC †", "ActionBytes †"}
    for number in ("", "-2", "-3"):
        draws(out / f"figure{number}.png")


# --- rows that refer to others, and what is refused ---


def paper(name: str) -> PaperTable:
    return read_table(EXPERIMENTS / name)


@pytest.mark.parametrize("name", list(LOCALIZATION))
def test_rows_know_the_rows_that_they_are_built_on(name: str) -> None:
    asked = requests(paper(name), {}, Substitution())
    selectors = {key: one for key, one in asked.items() if one.config.method == "localization-selector"}
    assert selectors
    for one in selectors.values():
        needed = dict(one.runs_of)
        assert set(needed) == {"appearance_run", "motion_run"} and one.needs == tuple(needed.values())
        for role in ("appearance", "motion"):
            config: Any = needed[f"{role}_run"].config
            assert config.method == "wtalc" and getattr(config, role) == getattr(one.config, role)


def test_l2_is_of_models_and_selectors_alike() -> None:
    with pytest.raises(UserError, match="input-norm l2, and this run has standard"):
        requests(paper("selection-fig6"), {}, Substitution(), of_methods={"wtalc": {"input_norm": "l2"}})


def table_folder(folder: Path, **files: str) -> Path:
    folder.mkdir()
    (folder / "table.toml").write_text(
        f'title = "Ours"\nsource = "ours"\nmeasures = ["{AVERAGE}", "usage_percent", "gflops"]\ndatasets = []\n'
    )
    for name, text in files.items():
        (folder / f"{name}.toml").write_text(text)
    return folder


WTALC_RGB = f'title = "rgb"\nmethod = "wtalc"\n[streams]\nappearance = "{RGB}"\n'
WTALC_FLOW = f'title = "flow"\nmethod = "wtalc"\n[streams]\nmotion = "{FLOW}"\n'
SELECTOR = (
    f'title = "selector"\nmethod = "localization-selector"\n[streams]\nappearance = "{RGB}"\nmotion = "{FLOW}"\n'
    '[runs]\nappearance_run = "rgb"\nmotion_run = "flow"\n'
)


@pytest.mark.slow
def test_a_table_of_ones_own(planted: tuple[Path, LabelSet], tmp_path: Path) -> None:
    """Detection mAP as a measure, with intervals; rows of a family without it would have an empty cell."""
    folder = table_folder(tmp_path / "mine", rgb=WTALC_RGB, flow=WTALC_FLOW, selector=SELECTOR)
    words = ("run", "--seeds", 1, "--runs", tmp_path / "runs", "--out", tmp_path / "out", folder)
    result = call(planted[0], *words)
    assert result.exit_code == 0, result.output
    table = rows(tmp_path / "out" / "table.csv")
    [(path, _)] = configs(tmp_path, "localization-selector")
    ours = read_result(path).metrics
    assert float(table["selector"][f"{AVERAGE}_mean"]) == pytest.approx(100 * ours[AVERAGE], rel=1e-5)
    low, high = (float(table["selector"][f"{AVERAGE}_{end}"]) for end in ("low", "high"))
    assert low <= 100 * ours[AVERAGE] <= high or math.isclose(low, high)
    assert float(table["selector"]["usage_percent_mean"]) == pytest.approx(100 * ours["usage"], rel=1e-5)
    assert table["rgb"]["usage_percent_mean"] == "" and "map_percent_mean" not in table["rgb"]
    draws(tmp_path / "out" / "figure.png")


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"selector": SELECTOR.replace('"rgb"', '"nobody"')}, "appearance_run: no row 'nobody'"),
        ({"selector": SELECTOR.partition("[runs]")[0]}, "[runs]: appearance_run is missing"),
        (
            {"selector": SELECTOR.replace('motion_run = "flow"', 'motion_run = "rgb"')},
            f"row 'selector': rgb: a run on {RGB}; --motion-run must be one on {FLOW} alone",
        ),
        (
            {"other": SELECTOR.replace('"selector"', '"other"').replace('"rgb"', '"selector"')},
            "appearance_run: the row 'selector' waits for other rows itself",
        ),
        ({"rgb": WTALC_RGB + '[runs]\nteacher = "flow"\n'}, "[runs]: unknown field 'teacher'"),
        (
            {"rgb": WTALC_RGB + "[view]\naction_bytes = true\nonline = 3\n"},
            "[view]: unknown field 'online'",
        ),
        ({"rgb": WTALC_RGB + f'fine = "{FLOW}"\n'}, "wtalc does not read a fine stream"),
        (
            {"selector": SELECTOR.replace(f'motion = "{FLOW}"\n', "")},
            "localization-selector needs a motion stream",
        ),
    ],
)
def test_rows_that_refer_wrongly(
    changed: dict[str, str], line: str, planted: tuple[Path, LabelSet], tmp_path: Path
) -> None:
    files = {"rgb": WTALC_RGB, "flow": WTALC_FLOW, "selector": SELECTOR, **changed}
    folder = table_folder(tmp_path / "mine", **files)
    told_in_a_line(call(planted[0], "run", folder, "--runs", tmp_path / "runs"), line, tmp_path)


def told_in_a_line(result: Result, line: str, folder: Path) -> None:
    assert result.exit_code == 2, result.output
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: ") and line in last
    assert not (folder / "runs").exists(), "nothing was trained"


def test_labels_without_segments(planted: tuple[Path, LabelSet], tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    lines = [f"{one.video_id},{one.labels[0]},{one.subset}" for one in planted[1].videos]
    labels.write_text("\n".join(["video_id,label,subset", *lines]))
    words = ("selection-fig6", "--labels", labels, *SUBSTITUTED, "--runs", tmp_path / "runs")
    told_in_a_line(call(planted[0], *words), "no segments of the videos of subset 'test'", tmp_path)


def test_a_cache_without_the_streams(planted: tuple[Path, LabelSet], tmp_path: Path) -> None:
    """The streams that every row reads must be there; --only names a table that is wanted."""
    words = ("--runs", tmp_path / "runs", "--out", tmp_path / "out")
    told_in_a_line(
        call(planted[0], "selection-fig5", *words), "needs x3d_m_dense16, i3d_flow_dense16", tmp_path
    )
    alone = ("all", "--paper", "selection", "--only", "selection-1", *SUBSTITUTED, *words)
    told_in_a_line(call(planted[0], *alone), "selection-1 needs x3d_xs", tmp_path)
    nothing = ("all", "--paper", "selection", *words)
    told_in_a_line(call(planted[0], *nothing), "selection-1 needs x3d_xs", tmp_path)
