"""Figures, runtimes and budgets: their numbers against the runs they come from, their files, the page of all."""

from __future__ import annotations

import csv
import io
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from benchmarks.videos import numbered_frames, write_video
from policy.evaluation.predictions import Predictions
from policy.runs import read_result
from policy.sheets.sheet import Column, Sheet
from policy.tables.catalogue import EXHIBITS, TABLES
from policy.tables.cli import paper_tables
from policy.tables.reading import EXPERIMENTS
from tests.planted import write_planted, write_planted_labels

SMALL = ["--epochs", "2", "--batch", "8", "--lr", "0.01", "--coarse-hidden", "4", "--fine-hidden", "8"]
SMALL += ["--recipe", "none", "--seeds", "2", "--resamples", "20"]
STREAMS = [
    word
    for paper, ours in (
        ("mobilenetv2_112", "coarse_112"),
        ("resnet101_224", "fine_224"),
        ("dpn107_224", "fine_224"),
        ("slowfast_8x8_256", "fine_224"),
    )
    for word in ("--substitute", f"{paper}={ours}")
]
QUICK = ["liteeval-fig2", "liteeval-fig3", "liteeval-fig4", "liteeval-fig5"]

Rows = list[dict[str, str]]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    labels = write_planted(folder, train=12, test=8, classes=4, dim=8, lengths=(4, 8))[1]
    write_planted_labels(labels, folder / "labels.csv")
    return folder


def tables(cache: Path, *words: object) -> Result:
    data = ["--cache", cache, "--labels", cache / "labels.csv", "--device", "cpu"]
    return CliRunner().invoke(paper_tables, [str(w) for w in (words[0], *data, *SMALL, *words[1:])])


def only(*names: str) -> list[str]:
    return [word for name in names for word in ("--only", name)]


@pytest.fixture(scope="module")
def made(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/ and out/: the four figures."""
    folder = tmp_path_factory.mktemp("figures")
    said = tables(cache, "all", *STREAMS, *only(*QUICK), "--runs", folder / "runs", "--out", folder / "out")
    assert said.exit_code == 0, said.output
    return folder


def rows(folder: Path, name: str, file: str = "table.csv") -> Rows:
    return list(csv.DictReader(io.StringIO((folder / "out" / name / file).read_text(encoding="utf-8"))))


def trained(folder: Path, method: str) -> list[Path]:
    """Run folders by seed."""
    found = [path for path in (folder / "runs").glob(f"{method}-*") if (path / "result.json").exists()]
    return sorted(found, key=lambda path: json.loads((path / "config.json").read_text())["config"]["seed"])


def mean(values: list[float]) -> float:
    return float(np.mean(values))


class Page(HTMLParser):
    """Ids of the sections, and what pictures say."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.alts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        if tag == "section":
            self.ids.append(said.get("id") or said.get("aria-labelledby") or "")
        if tag == "img":
            self.alts.append(said["alt"] or "")


def test_online_ends_where_offline_is(made: Path) -> None:
    """The largest K that a video reaches is the whole video for all."""
    runs = [Predictions.load(path / "predictions.npz") for path in trained(made, "liteeval")]
    most = max(int(run.fine_rows.max()) for run in runs)
    found = [row for row in rows(made, "liteeval-fig2") if row["method"] == "LiteEval †"]
    assert found, "no K at all"
    ks = [int(row["point"].removeprefix("K = ")) for row in found]
    assert ks == sorted(ks)
    assert ks[0] == 1
    if ks[-1] >= most:
        last = found[-1]
        assert float(last["top1_percent"]) == pytest.approx(
            mean([100 * run.top1() for run in runs]), rel=1e-5
        )
        assert float(last["gflops"]) == pytest.approx(
            mean([float(run.gflops.mean()) for run in runs]), rel=1e-5
        )
    watched = [float(row["looked_at_percent"]) for row in found]
    assert watched == sorted(watched), "more fine features take no less of the video"
    methods = {row["method"] for row in rows(made, "liteeval-fig2")}
    assert methods == {"LiteEval †", "UNIFORM-K", "SEQ-K", "random gates", "oracle"}


def test_the_whole_video_watched_is_offline_recognition(made: Path) -> None:
    found = {row["method"]: row for row in rows(made, "liteeval-fig3") if row["point"] == "100%"}
    for title, method in (("LiteEval †", "liteeval"), ("UNIFORM-K", "uniform")):
        results = [read_result(path) for path in trained(made, method)]
        assert float(found[title]["top1_percent"]) == pytest.approx(
            mean([100 * result.metrics["top1"] for result in results]), rel=1e-5
        )
        assert float(found[title]["gflops"]) == pytest.approx(
            mean([result.gflops_mean for result in results]), rel=1e-5
        )
    for title in found:
        costs = [float(row["gflops"]) for row in rows(made, "liteeval-fig3") if row["method"] == title]
        assert costs == sorted(costs)
        assert len(costs) == 10


def test_usage_by_class(made: Path) -> None:
    runs = [Predictions.load(path / "predictions.npz") for path in trained(made, "liteeval")]
    counted: dict[str, list[int]] = {f"class {c}": [] for c in range(4)}
    for run in runs:
        for video, fine in enumerate(run.fine_rows[0].tolist()):
            counted[f"class {int(run.labels[video].argmax())}"].append(fine)
    found = rows(made, "liteeval-fig4")
    assert {row["class"] for row in found} == set(counted)
    for row in found:
        values = counted[row["class"]]
        assert int(row["videos"]) == len(values) / len(runs)
        assert float(row["mean"]) == pytest.approx(np.mean(values), abs=1e-5)
        assert float(row["median"]) == pytest.approx(np.median(values), abs=1e-5)
        assert (int(row["least"]), int(row["most"])) == (min(values), max(values))


def test_chosen_frames_without_videos(made: Path) -> None:
    """The seconds are said; there is no picture."""
    run = Predictions.load(trained(made, "liteeval")[0] / "predictions.npz")
    found = rows(made, "liteeval-fig5")
    assert found
    for row in found:
        video = run.video_ids.index(row["video"])
        gates = run.gates[0, run.offsets[video] : run.offsets[video + 1]]
        assert run.correct[0, video], "a video that is recognised"
        assert [float(second) for second in row["seconds"].split(", ")] == np.flatnonzero(gates).tolist()
        assert int(row["fine_features"]) == gates.sum() > 0
    assert not (made / "out" / "liteeval-fig5" / "figure.png").exists()
    assert "--videos" in (made / "out" / "liteeval-fig5" / "table.md").read_text(encoding="utf-8")


def test_chosen_frames_of_videos(cache: Path, made: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    shown = rows(made, "liteeval-fig5")[0]["video"]
    write_video(videos / f"{shown}.mp4", numbered_frames(80), fps=10)
    given = (*STREAMS[:4], "--runs", made / "runs", "--out", tmp_path / "out")
    said = tables(cache, "liteeval-fig5", *given, "--videos", videos)
    assert said.exit_code == 0, said.output
    assert (tmp_path / "out" / "figure.png").read_bytes().startswith(b"\x89PNG")
    page = Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    fine = int(next(row for row in rows(made, "liteeval-fig5") if row["video"] == shown)["fine_features"])
    assert sum("fine features computed" in alt for alt in page.alts) == fine

    said = tables(cache, "liteeval-fig5", *given, "--videos", tmp_path / "nowhere")
    assert (said.exit_code, "nowhere: no such file or folder" in said.stderr) == (2, True)
    (videos / f"{shown}.mp4").rename(videos / "another.mp4")
    said = tables(cache, "liteeval-fig5", *given, "--videos", videos)
    assert (said.exit_code, "none of the" in said.stderr) == (2, True)


def test_a_figure_of_one_s_own(cache: Path, made: Path, tmp_path: Path) -> None:
    """A copy makes the same figure, by what its table.toml says."""
    mine = Path(shutil.copytree(EXPERIMENTS / "liteeval-fig4", tmp_path / "mine"))
    given = (*STREAMS[:4], "--runs", made / "runs", "--out", tmp_path / "out")
    said = tables(cache, "run", mine, *given)
    assert said.exit_code == 0, said.output
    ours, theirs = (folder / "table.csv" for folder in (tmp_path / "out", made / "out" / "liteeval-fig4"))
    assert ours.read_bytes() == theirs.read_bytes()
    said = tables(cache, "run", mine, *given, "--videos", tmp_path)
    assert (said.exit_code, "says videos = true" in said.stderr) == (2, True)
    about = mine / "table.toml"
    about.write_text(about.read_text(encoding="utf-8").replace('exhibit = "usage"', ""), encoding="utf-8")
    said = tables(cache, "run", mine, *given, "--json")
    assert [row["experiment"] for row in json.loads(said.stdout)["rows"]] == ["liteeval"]


def test_files_and_page(made: Path) -> None:
    page = Page((made / "out" / "report.html").read_text(encoding="utf-8"))
    assert [one.removesuffix("-title") for one in page.ids] == QUICK
    assert all(page.alts)
    for name in QUICK:
        markdown = (made / "out" / name / "table.md").read_text(encoding="utf-8")
        assert "† Streams replaced: " in markdown
        assert f"paper-tables {name} " in markdown
        assert "--only" not in markdown
        assert r"\toprule" in (made / "out" / name / "table.tex").read_text(encoding="utf-8")


def test_json_and_terminal_say_the_same(cache: Path, made: Path) -> None:
    given = (*STREAMS[:4], "--runs", made / "runs")
    said = json.loads(tables(cache, "liteeval-fig4", *given, "--json").stdout)
    shown = tables(cache, "liteeval-fig4", *given)
    assert shown.exit_code == 0
    for row in said["sheets"][0]["rows"]:
        assert row["class"] in shown.stdout
        assert f"{row['mean']:.2f}" in shown.stdout
    assert shown.stdout.rstrip().splitlines()[-1].startswith("$ paper-tables liteeval-fig4 ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([*STREAMS], "--out FOLDER"),
        (["--out", "OUT", *STREAMS, "--coarse", "coarse_112"], "--substitute, not by --coarse"),
        (["--out", "OUT", *STREAMS, "--only", "liteeval-11"], "--only liteeval-11"),
        (["--out", "OUT", "--substitute", "resnet50=fine_224"], "no table reads resnet50"),
        (["--out", "OUT", *STREAMS[:4]], "needs dpn107_224, slowfast_8x8_256"),
        (["--out", "OUT", *STREAMS, "--videos", "nowhere"], "nowhere: no such file or folder"),
    ],
)
def test_mistakes_of_all(words: list[str], said: str, cache: Path, tmp_path: Path) -> None:
    given = [str(tmp_path / "out") if word == "OUT" else word for word in words]
    result = tables(cache, "all", *given, "--runs", tmp_path / "runs")
    assert result.exit_code == 2
    assert said in result.stderr.strip().splitlines()[-1]
    assert not (tmp_path / "runs").exists(), "nothing is trained"


@pytest.mark.slow
def test_runtimes_and_budgets(cache: Path, made: Path, tmp_path: Path) -> None:
    names = ["liteeval-10", "liteeval-budgets"]
    out = tmp_path / "out"
    said = tables(cache, "all", *STREAMS, *only(*names), "--runs", made / "runs", "--out", out)
    assert said.exit_code == 0, said.output

    times = rows(tmp_path, "liteeval-10")
    assert [row["paper_seconds"] for row in times[:4]] == ["0.058", "0.047", "0.061", "0.041"]
    # Nothing can build these streams' backbones: no time of them, and the reason is said.
    assert all(row["seconds"] == "" and float(row["network_seconds"]) > 0 for row in times)
    assert "No time: " in (out / "liteeval-10" / "table.md").read_text(encoding="utf-8")

    areas = {row["method"].removesuffix(" †"): row for row in rows(tmp_path, "liteeval-budgets")}
    assert len(areas) == 5
    for row in areas.values():
        low, area, high = (float(row[f"area_percent{end}"]) for end in ("_low", "", "_high"))
        assert 0 <= low <= area <= high <= 100
        assert float(row["oracle_area_percent"]) >= area - 1e-6
    curves = rows(tmp_path, "liteeval-budgets", "table-2.csv")
    assert {"random gates", "oracle"} < {row["method"] for row in curves}
    taught = [json.loads((path / "config.json").read_text())["config"] for path in trained(made, "liteeval")]
    teachers = {json.loads((path / "config.json").read_text())["key"] for path in trained(made, "lstm-cf")}
    assert {one["teacher"] for one in taught if one["distill"] > 0} == teachers


@pytest.mark.slow
def test_every_name_from_one_cache(cache: Path, made: Path, tmp_path: Path) -> None:
    # Table 9 has coarse networks of 512 units.
    given = (*STREAMS, "--seeds", 1, "--epochs", 1, "--resamples", 0, "--fine-hidden", 512)
    said = tables(cache, "all", *given, "--runs", tmp_path / "runs", "--out", tmp_path / "out")
    assert said.exit_code == 0, said.output
    page = Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert {one.removesuffix("-title") for one in page.ids} == {*TABLES, *EXHIBITS}
    for name in (*TABLES, *EXHIBITS):
        assert (tmp_path / "out" / name / "table.csv").read_text(encoding="utf-8").count("\n") > 1
        assert "†" in (tmp_path / "out" / name / "table.md").read_text(encoding="utf-8"), "marked as replaced"


def test_sheet() -> None:
    columns = (Column("name", "name"), Column("value", "value", 2))
    sheet = Sheet("s", columns, [["a", 1.0], ["b", None], ["c", 3]])
    assert sheet.words == [["a", "1.00"], ["b", "–"], ["c", "3"]]
    assert sheet.numeric == [False, True]
    with pytest.raises(ValueError, match="do not fit"):
        Sheet("s", columns, [["a"]])
