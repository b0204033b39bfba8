"""The papers' tables as files: what they say is what the paper prints, and what is wrong in a file is named."""

from __future__ import annotations

import configparser
import re
import shutil
from pathlib import Path

import pytest

from cache_schema import UserError
from policy.liteeval.config import LiteEvalConfig
from policy.recipes import RECIPES
from policy.registry import METHODS
from policy.tables.catalogue import TABLES
from policy.tables.datasets import DATASETS
from policy.tables.exhibits import MAKERS
from policy.tables.experiment import Experiment, PaperTable, Printed, View
from policy.tables.reading import EXPERIMENTS, read_table
from policy.tables.requests import requests
from policy.tables.streams import Substitution, substitution

ROOT = Path(__file__).parent.parent

# As the paper prints them: per data set mAP or top-1, GFLOPs and fine features where it has them.
PRINTED = {
    "liteeval-2": """
        DPN-10               81.6  183.40 10.00±0.00 | 82.3  183.40 10.00±0.00
        DPN-25               82.1  458.50 25.00±0.00 | 83.0  458.50 25.00±0.00
        LiteEval (DPN)       83.3  157.90  8.00±5.90 | 84.0  193.82  9.96±5.20
        SlowFast-10          83.0  657.10 10.00±0.00 | 84.2  657.10 10.00±0.00
        SlowFast-25          83.7 1642.75 25.00±0.00 | 85.0 1642.75 25.00±0.00
        LiteEval (SlowFast)  83.9  430.98  6.39±3.04 | 85.4  546.76  8.15±5.42
        DPN, K = 4           74.8   73.36  4.00±0.00 | 59.5   73.36  4.00±0.00
        LiteEval, K = 3      76.5   57.78  2.97±0.18 | 65.7   55.96  2.99±0.08
        DPN, K = 6           78.5  110.04  6.00±0.00 | 71.8  110.04  6.00±0.00
        LiteEval, K = 5      79.4   90.62  4.64±0.77 | 71.9   92.12  4.91±0.37
        DPN, K = 9           80.6  165.06  9.00±0.00 | 80.2  165.06  9.00±0.00
        LiteEval, K = 9      81.9  131.56  6.75±2.51 | 80.2  153.39  8.10±2.10""",
    "liteeval-3": """
        IDT                  68.7
        C3D                  67.7
        P3D                  78.9
        RRA                  83.4
        MARL                 83.8
        LiteEval (DPN)       84.0
        LiteEval (SlowFast)  85.4""",
    "liteeval-4": """
        SlowFast-3           74.3 197.10±0.00    3.00±0.00
        SlowFast-5           74.9 328.50±0.00    5.00±0.00
        SlowFast-10          75.2 657.00±0.00   10.00±0.00
        LiteEval             75.0 275.91±144.10  4.16±2.20""",
    "liteeval-5": """
        SlowFast-3           60.6 197.10±0.00    3.00±0.00
        SlowFast-8           66.2 525.60±0.00    8.00±0.00
        SlowFast-10          68.3 657.00±0.00   10.00±0.00
        LiteEval             68.3 497.80±390.10  7.35±0.06""",
    "liteeval-6": """
        GRU (DPN)            67.9  8.78±16.35
        SRU (DPN)            85.0 12.48±4.24
        LSTM (DPN)           84.0  9.96±5.20
        GRU (SlowFast)       73.0  9.44±16.20
        SRU (SlowFast)       84.5 10.19±3.82
        LSTM (SlowFast)      85.4  8.15±5.42""",
    "liteeval-7": """
        γ = 0.01             78.8  75.4
        γ = 0.03             79.7  82.1
        γ = 0.10             80.1 139.0
        γ = 0.05             80.0  94.3""",
    "liteeval-8": """
        w/o sync             65.7
        LiteEval             80.0""",
    "liteeval-9": """
        64 units             76.9
        128 units            77.3
        256 units            78.3
        512 units            80.0""",
}


def paper(name: str) -> PaperTable:
    return read_table(EXPERIMENTS / name)


def row(name: str, title: str) -> Experiment:
    [found] = [one for one in paper(name).experiments if one.title == title]
    return found


@pytest.mark.parametrize("name", PRINTED)
def test_values_are_the_paper_s(name: str) -> None:
    table = paper(name)
    said = [
        [one.title, *(value.text for dataset in table.datasets for value in one.published[dataset].values())]
        for one in table.experiments
        if one.published
    ]
    expected = [
        [line.strip()[:20].strip(), *re.findall(r"[\d.]+(?:±[\d.]+)?", line.strip()[20:])]
        for line in PRINTED[name].strip().splitlines()
    ]
    assert said == [[title, *(v.replace("±", " ± ") for v in values)] for title, *values in expected]


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_sound(name: str) -> None:
    table = paper(name)
    assert table.name == name and f"Table {name.removeprefix('liteeval-')}" in table.title
    assert table.source.endswith(table.title.partition(":")[0].removeprefix("LiteEval, "))
    assert set(table.datasets) <= set(DATASETS) and TABLES[name] in table.datasets
    assert table.accuracy == ("top1_percent" if name in ("liteeval-4", "liteeval-5") else "map_percent")
    assert any(one.emphasised for one in table.experiments)
    controls = {one.method for one in table.experiments if one.group == "null controls"}
    assert controls == {"coarse-only", "random-gating"}
    for title, request in requests(table, {}, Substitution()).items():
        assert request.config.method in METHODS, title


@pytest.mark.parametrize(("stream", "gflops"), [("dpn107_224", 18.34), ("slowfast_8x8_256", 65.71)])
def test_costs_of_uniform_rows_are_their_frames(stream: str, gflops: float) -> None:
    for one in paper("liteeval-2").experiments:
        if one.method == "uniform" and one.streams["fine"] == stream:
            frames = (one.view and one.view.online) or one.settings["frames"]
            for values in one.published.values():
                assert values["gflops"].value == pytest.approx(frames * gflops)
                assert values["fine_features"].value == frames
    assert {one.streams["fine"] for one in paper("liteeval-4").experiments if "fine" in one.streams} == {
        "slowfast_8x8_256"
    }


def test_what_the_ablations_vary() -> None:
    def settings(name: str) -> list[dict[str, object]]:
        return [dict(one.settings) for one in paper(name).experiments if one.method == "liteeval"]

    assert [one["cell"] for one in settings("liteeval-6")] == ["gru", "sru", "lstm"] * 2
    assert settings("liteeval-7") == [{"gamma": gamma} for gamma in (0.01, 0.03, 0.10, 0.05)]
    assert settings("liteeval-8") == [{"sync": False}, {"sync": True}]
    assert settings("liteeval-9") == [{"coarse_hidden": units} for units in (64, 128, 256, 512)]


def test_rows_win_over_options_and_recipes() -> None:
    released = {**RECIPES["released"], "gamma": 0.3}
    gru = requests(paper("liteeval-6"), released, Substitution())["gru-dpn"].config
    assert isinstance(gru, LiteEvalConfig)
    assert (gru.cell, gru.gate_state, gru.coarse_projection, gru.gamma) == ("gru", "hidden", 512, 0.3)
    gammas = requests(paper("liteeval-7"), released, Substitution())
    least = gammas["gamma-0.01"].config
    assert isinstance(least, LiteEvalConfig) and least.gamma == 0.01 and least.noise == 0.5


def test_rows_that_ask_for_the_same_share_it() -> None:
    same = Substitution({"dpn107_224": "fine_224", "slowfast_8x8_256": "fine_224"})
    asked = requests(paper("liteeval-2"), {}, same)
    assert len(asked) == 15 and len(set(asked.values())) == 5
    assert asked["liteeval-dpn"] == asked["liteeval-slowfast"] == asked["liteeval-online-3"]
    assert asked["random-gating-dpn"] == asked["random-gating-slowfast"]
    assert len(set(requests(paper("liteeval-2"), {}, Substitution()).values())) == 9


def test_impossible_sizes_are_told_by_row() -> None:
    with pytest.raises(
        UserError, match="row '128 units': coarse-hidden \\(128\\) must not exceed fine-hidden \\(64\\)"
    ):
        requests(paper("liteeval-9"), {"fine_hidden": 64}, Substitution())


def test_the_files_are_packaged() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    patterns = setup["options.package_data"]["policy.tables"].split()
    packaged = {path for pattern in patterns for path in (ROOT / "policy" / "tables").glob(pattern)}
    files = {path for path in EXPERIMENTS.rglob("*") if path.is_file()}
    assert files <= packaged and len(files) > 80


def test_the_example_of_the_documentation(tmp_path: Path) -> None:
    shutil.copytree(EXPERIMENTS / "liteeval-1", tmp_path / "my-table")
    (tmp_path / "my-table" / "table.toml").unlink()
    text = (ROOT / "docs" / "tables.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```toml\n# (my-table/[\w.-]+\.toml).*\n((?:.*\n)*?)```", text)
    names = ["table.toml", "02-careful.toml", "03-selector.toml", "04-clips.toml"]
    assert [name for name, _ in blocks] == [f"my-table/{name}" for name in names]
    for name, block in blocks:
        (tmp_path / name).write_text(block, encoding="utf-8")
    for path in (tmp_path / "my-table").glob("*.toml"):
        if path.name not in names:
            path.unlink()
    for name, role, stream in (
        ("rgb", "appearance", "x3d_m_dense16"),
        ("flow", "motion", "i3d_flow_dense16"),
    ):
        row = f'title = "{name}"\nmethod = "wtalc"\n[streams]\n{role} = "{stream}"\n'
        (tmp_path / "my-table" / f"01-wtalc-{name}.toml").write_text(row, encoding="utf-8")
    *_, careful, chooses, clips = read_table(tmp_path / "my-table").experiments
    assert clips.name == "clips" and clips.settings["beta"] == 0.5
    assert (careful.name, careful.settings, careful.view) == ("careful", {"gamma": 0.02}, View(5))
    assert (chooses.models, chooses.settings["budget"]) == (("x3d_xs", "x3d_m:3", "x3d_l:3"), 10.0)


@pytest.mark.parametrize("text", ["80", "80.0", "8.00 ± 5.90", "1642.75"])
def test_printed_values_keep_their_digits(text: str) -> None:
    printed = Printed(text)
    assert " ± ".join(part for part in (printed.mean, printed.std) if part) == text
    assert printed.value == float(text.partition(" ")[0])


@pytest.mark.parametrize("text", ["", "80 %", "8.0±5", "about 80", "-3", "8.0 ± 5.0 ± 1.0", "8.0 ± "])
def test_what_is_no_printed_value(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number as printed"):
        Printed(text)


def written(method: str = "liteeval", top: str = "", below: str = "") -> str:
    """A row of Table 2's folder."""
    coarse = "" if method == "uniform" else "coarse = 'mobilenetv2_112'\n"
    return f"title = 'Mine'\nmethod = '{method}'\n{top}\n[streams]\n{coarse}fine = 'dpn107_224'\n{below}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EXPERIMENTS / "liteeval-2", tmp_path / "mine"))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("title = ", "99-mine.toml: not TOML: "),
        ("title = 'Mine'\ntitel = 'x'", "unknown field 'titel'; there are: method, "),
        ("method = 'liteeval'", "title is missing"),
        ("title = 3", "title: 3 is not a text"),
        (written("litevale"), "no method 'litevale'; there are: liteeval, uniform"),
        (written("litevale"), "; did you mean liteeval"),
        (written(below="fin = 'x'"), "; did you mean fine?"),
        (
            written("uniform").replace("Mine", "DPN-10"),
            "has the title 'DPN-10' of 01-dpn-10.toml; each",
        ),
        ("title = 'Mine'\nmethod = 'uniform'", "[streams]: uniform needs a fine stream"),
        (written().replace("liteeval", "uniform"), "[streams]: uniform does not read a coarse stream"),
        (written(below="fin = 'x'"), "[streams]: unknown field 'fin'; there are: coarse, fine, models"),
        (
            written(below="[settings]\ngama = 0.1"),
            "[settings]: unknown field 'gama'; liteeval reads: batch, ",
        ),
        (written(below="[settings]\nframes = 3"), "[settings]: unknown field 'frames'; liteeval reads"),
        (written(below="[settings]\nseed = 3"), "[settings]: unknown field 'seed'; liteeval reads"),
        (written(below="[settings]\ngamma = '0.1'"), "[settings]: gamma: '0.1' is not of its type, a number"),
        (written(below="[settings]\nsync = 1"), "[settings]: sync: 1 is not of its type, true or false"),
        (written(below="[settings]\nepochs = true"), "epochs: True is not of its type, a whole number"),
        (written(below="[settings]\nepochs = 1.5"), "epochs: 1.5 is not of its type, a whole number"),
        (written(below="[settings]\nlr_drop = 3"), "lr_drop: 3 is not of its type, a list of whole numbers"),
        (written(below="[settings]\ncell = 'rnn'"), "'rnn' is not of its type, one of 'lstm', 'gru', 'sru'"),
        (written(below="[settings]\ngamma = 2"), "[settings]: gamma must be between 0 and 1, not 2"),
        (
            written(below="[paper.fcvid]\nmap_percent = 80.0"),
            "[paper.fcvid]: map_percent: 80.0 is not a text",
        ),
        (written(below="[paper.fcvid]\nmap_percent = '80 %'"), "'80 %' is not a number as printed"),
        (
            written(below="[paper.fcvid]\nmap = '80'"),
            "[paper.fcvid]: unknown field 'map'; there are: map_percent",
        ),
        (
            written(below="[paper.hvu]\nmap_percent = '80'"),
            "[paper.hvu]: table.toml does not name this data set",
        ),
        (written(below="[paper]\nfcvid = 3"), "[paper]: fcvid: 3 is not a part [fcvid]"),
        (written(below="[view]\nonline = 0"), "[view]: online must be at least 1, not 0"),
        (written(below="[view]\nonline = 1.5"), "[view]: online: 1.5 is not a whole number"),
        (written(below="[view]\nfollows = 'dpn-10'"), "[view]: online is missing"),
        (written(below="[view]\nonline = 3\nfollows = 'dpn-10'"), "uniform, and nothing else, follows a row"),
        (written("lstm-cf", below="[view]\nonline = 3"), "online is for liteeval, liteeval-rl and uniform"),
        (
            written("uniform", below="[view]\nonline = 3\nfollows = 'dpn-10'"),
            "follows: the row 'dpn-10' is not one of liteeval, liteeval-rl",
        ),
        (written(top="usage_of = 'dpn-10'"), "usage_of is for random-gating, not for liteeval"),
        (written("random-gating"), "random-gating needs either usage_of, another row, or a usage"),
        (written("random-gating", "usage_of = 'nobody'"), "usage_of: no row 'nobody'; there are: dpn-10, "),
        (
            written("random-gating", "usage_of = 'random-gating-dpn'"),
            "usage_of: the row 'random-gating-dpn' has no usage of its own",
        ),
        ("title = 'Mine'\n[settings]\ngamma = 0.1", "[settings]: unknown field 'gamma'; there is no method"),
        ("title = 'Mine'\n[streams]\nfine = 'x'", "a row without a method only cites"),
        (written(top="columns = ['a']"), "columns: 1 texts, but table.toml names 0 columns"),
        (written(top="emphasised = 'yes'"), "emphasised: 'yes' is not true or false"),
    ],
)
def test_what_is_wrong_in_a_row_is_named(row: str, said: str, folder: Path) -> None:
    (folder / "99-mine.toml").write_text(row, encoding="utf-8")
    with pytest.raises(UserError) as error:
        read_table(folder)
    assert f"{folder / '99-mine.toml'}: " in str(error.value)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("title =", "titel =", "table.toml: title is missing"),
        (
            r"measures = \[",
            'measures = ["accuracy", ',
            "no measure 'accuracy'; there are: map_percent",
        ),
        (r"measures = \[.*?\]", "measures = []", "measures: at least one is needed"),
        ("datasets = .*", 'datasets = "fcvid"', "datasets: 'fcvid' is not a list of texts"),
        ("title =", "colour = 3\ntitle =", "table.toml: unknown field 'colour'; there are: title, source, "),
    ],
)
def test_what_is_wrong_in_a_table_is_named(old: str, new: str, said: str, folder: Path) -> None:
    path = folder / "table.toml"
    path.write_text(re.sub(old, new, path.read_text(encoding="utf-8"), count=1), encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(said)):
        read_table(folder)


def test_a_copy_of_a_figure_is_one(tmp_path: Path) -> None:
    """By what its table.toml says, whatever its folder is called."""
    copy = Path(shutil.copytree(EXPERIMENTS / "liteeval-fig5", tmp_path / "mine"))
    table = read_table(copy)
    assert (table.exhibit, table.videos, table.pool_of_dataset) == ("frames", True, False)
    path = copy / "table.toml"
    path.write_text(path.read_text(encoding="utf-8").replace('exhibit = "frames"', ""), encoding="utf-8")
    assert read_table(copy).exhibit is None


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("liteeval-fig2", '"online"', '"offline"', "no exhibit 'offline'; there are: budgets, frames"),
        ("liteeval-fig4", '"usage"', '"watched"', "exhibit 'watched' needs a row 'uniform' of this method"),
        ("liteeval-fig4", '"usage"', '"selection-alpha"', "the row 'liteeval' does not choose from a pool"),
        ("selection-fig4", '"selection-inputs"', '"selection-table"', "needs one row with a method"),
        ("liteeval-fig5", "videos = true", "videos = 1", "videos: 1 is not true or false"),
    ],
)
def test_what_an_exhibit_lacks_is_named(name: str, old: str, new: str, said: str, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(EXPERIMENTS / name, tmp_path / "mine"))
    path = copy / "table.toml"
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(said)):
        read_table(copy)


def test_every_exhibit_can_be_made() -> None:
    tables = [read_table(path) for path in EXPERIMENTS.iterdir()]
    assert set(MAKERS) == {table.exhibit for table in tables} - {None}


def test_what_is_no_table(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UserError, match=r"not a table: it has no table\.toml"):
        read_table(tmp_path / "nowhere")
    for path in folder.glob("[0-9]*.toml"):
        path.unlink()
    with pytest.raises(UserError, match="a table needs at least one row with a method"):
        read_table(folder)
    (folder / "01-a.toml").write_bytes(b"title = '\xff'")
    with pytest.raises(UserError, match="not TOML"):
        read_table(folder)


@pytest.mark.parametrize(
    ("given", "roles", "said"),
    [
        (["dpn107_224"], {}, "--substitute dpn107_224: give PAPER=OURS"),
        (["dpn107_224="], {}, "--substitute dpn107_224=: give PAPER=OURS"),
        (["resnet101_224=x"], {}, "liteeval-2 does not read resnet101_224; it reads: mobilenetv2_112, dpn107_224"),
        (["dpn107_224=x", "dpn107_224=y"], {}, "dpn107_224 is replaced twice"),
        ([], {"fine": "x"}, "--fine x: liteeval-2 reads 2 fine streams (dpn107_224, slowfast_8x8_256); say"),
        (["mobilenetv2_112=x"], {"coarse": "y"}, "--coarse y: mobilenetv2_112 is replaced twice"),
    ],
)  # fmt: skip
def test_what_cannot_be_substituted(given: list[str], roles: dict[str, str], said: str) -> None:
    with pytest.raises(UserError) as error:
        substitution(paper("liteeval-2"), given, **roles)
    assert said in str(error.value)


def test_substitution() -> None:
    chosen = substitution(
        paper("liteeval-2"), ["dpn107_224=r18", "slowfast_8x8_256=slowfast_8x8_256"], coarse="c"
    )
    assert chosen.replaced == {"dpn107_224": "r18", "mobilenetv2_112": "c"}
    dpn, slowfast, control = (
        row("liteeval-2", title) for title in ("LiteEval (DPN)", "LiteEval (SlowFast)", "Coarse only")
    )
    assert [chosen.marks(one) for one in (dpn, slowfast, control)] == [True, False, False]
    assert chosen.of(dpn) == {"mobilenetv2_112": "c", "dpn107_224": "r18"}
    assert chosen.of(control) == {"mobilenetv2_112": "c"}
