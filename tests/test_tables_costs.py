"""paper-tables costs: the papers' figures against arithmetic by hand, the verdicts, and the files."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from torch.utils.flop_counter import FlopCounterMode

from cache_schema.costs import cost_table
from policy.tables.cli import paper_tables
from policy.tables.costs import printed, wording
from policy.tables.costs.components import BACKBONES, BY_STREAM, FLOW_ROWS, PAIRS, RAFT_GMACS
from policy.tables.costs.printed import COMPUTED, LEARNED
from policy.tables.costs.quantity import Figure, exact, half_unit, percent, saved_percent
from policy.tables.costs.quantity import printed as as_printed
from policy.tables.costs.showing import render
from policy.tables.costs.wording import remarks

FIGURES = (*COMPUTED, *LEARNED)


def costs(*words: object) -> Result:
    result = CliRunner().invoke(paper_tables, ["costs", *map(str, words)])
    assert result.exit_code == 0, result.output
    return result


def find(where: str, what: str, value: str | None = None) -> Figure:
    (one,) = (
        figure
        for figure in FIGURES
        if figure.where.endswith(where) and figure.what == what and value in (None, figure.printed)
    )
    return one


# -------------------------------------------------------------------------------------------------- arithmetic


def test_a_quantity_keeps_its_sides_in_step() -> None:
    resnet, mobilenet = as_printed("7.82", 7.8, "mac"), as_printed("0.08", 0.081, "mac")
    both = 25 * (resnet + mobilenet)
    assert both.text == "25·(7.82 + 0.08)"
    assert both.paper == pytest.approx(197.5) and both.counted == pytest.approx(197.025)
    assert both.slack == pytest.approx(25 * 0.01)
    assert not both.mixed
    share = percent(both, 25 * resnet)
    assert share.text == "25·(7.82 + 0.08) / (25·7.82)" and share.paper == pytest.approx(197.5 / 195.5 * 100)
    assert saved_percent(as_printed("94.3"), as_printed("195.5")).paper == pytest.approx(51.7647, abs=1e-4)
    assert (exact(10) - (exact(3) + exact(2))).text == "10 − (3 + 2)"


def test_units_mix_and_count_twice() -> None:
    one, two = as_printed("4.73", 4.7, "mac"), as_printed("56", 25.6, "flop")
    mixture = one + exact(0.7) * two
    assert mixture.mixed and not (one + one).mixed
    assert mixture.counted == pytest.approx(4.7 + 0.7 * 25.6)
    assert mixture.counted_as_printed == pytest.approx(4.7 + 0.7 * 51.2)


@pytest.mark.parametrize(
    ("text", "half"), [("195.5", 0.05), ("56", 0.5), ("0.08", 0.005), ("1642.75", 0.005)]
)
def test_rounding_is_half_a_unit_of_the_last_digit(text: str, half: float) -> None:
    assert half_unit(text) == pytest.approx(half)


# --------------------------------------------------------------------------------------------------- backbones


def test_every_backbone_with_a_paper_figure_appears() -> None:
    table = {stream: cost for stream, cost in cost_table().items() if cost.paper is not None}
    assert set(BY_STREAM) == set(table)
    for stream, cost in table.items():
        assert float(BY_STREAM[stream].printed) == cost.paper


def test_backbones_by_hand() -> None:
    ways = {backbone.stream: backbone.counted_way for backbone in BACKBONES}
    assert [stream for stream, way in ways.items() if way is None] == ["i3d_flow_dense16"]
    # 7.799 and 18.296 up to the features; 2048 and 2688 × 1000 for the classifier; the rest is batch norm.
    assert BY_STREAM["resnet101_224"].ways["+ batch norm"] == pytest.approx(7.8176, abs=1e-4)
    assert BY_STREAM["dpn107_224"].ways["+ batch norm"] == pytest.approx(18.3398, abs=1e-4)
    assert ways["resnet101_224"] == ways["dpn107_224"] == "+ batch norm"
    assert ways["mobilenetv2_112"] == ways["x3d_m"] == ways["slowfast_8x8_256"] == "features"
    assert ways["efficientnet_b0_224"] == "+ classifier"  # 0.3845 + 0.0013


@pytest.mark.slow
def test_counts_that_the_cost_table_does_not_have() -> None:
    import timm

    for stream, name, size in (
        ("resnet101_224", "resnet101", 224),
        ("dpn107_224", "dpn107", 224),
        ("mobilenetv2_112", "mobilenetv2_100", 112),
        ("efficientnet_b0_224", "efficientnet_b0", 224),
    ):
        _, batch_norm, feature_dim = counted(timm.create_model, name, size)
        backbone = BY_STREAM[stream]
        assert (batch_norm, feature_dim) == (backbone.batch_norm, backbone.feature_dim)
    macs, _, _ = counted(timm.create_model, "resnet101", 112)
    assert printed.RESNET_112.counted == pytest.approx((macs - 2048 * 1000) / 1e9, abs=1e-12)


def counted(make: object, name: str, size: int) -> tuple[int, int, int]:
    """MACs, values that batch normalisation scales, and the dimension of the features."""
    assert callable(make)
    values = []
    with torch.device("meta"):
        model = make(name).eval()
        image = torch.zeros(1, 3, size, size)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_hook(lambda _module, _input, output: values.append(output.numel()))
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(image)
    return counter.get_total_flops() // 2, sum(values), model.num_features


@pytest.mark.slow
@pytest.mark.parametrize("name", list(RAFT_GMACS))
def test_raft_counted_again(name: str) -> None:
    from torchvision.models import get_model

    raft, frame = get_model(name, weights=None).eval(), torch.zeros(1, 3, 256, 256)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        raft(frame, frame, num_flow_updates=12)
    assert counter.get_total_flops() / 2e9 == pytest.approx(RAFT_GMACS[name], abs=0.005)


# ----------------------------------------------------------------------------------------------------- figures


@pytest.mark.parametrize(
    ("where", "what", "value", "by_paper", "verdict"),
    [
        ("Sec. 1", "saved by 112² input", "74", 74.37, "adds up"),
        ("Table 1", "Uniform (both)", "195.5", 195.5, "adds up"),
        ("Table 1", "Uniform+CF (both)", "197.5", 197.5, "adds up"),
        ("Table 1", "LSTM, FCVID", "196.0", 196.339, "does not add up"),  # + 25·4·2048·(2048 + 2048)
        ("Table 1", "LSTM, ActivityNet", "195.8", 195.631, "does not add up"),
        ("Table 1", "LSTM+CF, FCVID", "198.0", 198.601, "does not add up"),
        ("Table 1", "LSTM+CF, ActivityNet", "197.8", 197.697, "does not add up"),
        ("Sec. 4.2.1", "saved, FCVID", "51.8", 51.765, "adds up"),
        ("Sec. 4.2.1", "saved, ActivityNet", "51.3", 51.355, "adds up"),
        ("offline", "DPN-10 (both)", "183.40", 183.40, "adds up"),
        ("offline", "DPN-25 (both)", "458.50", 458.50, "adds up"),
        ("offline", "SlowFast-10 (both)", "657.10", 657.10, "adds up"),
        ("offline", "SlowFast-25 (both)", "1642.75", 1642.75, "adds up"),
        ("Sec. 4.2.2", "saved, DPN, FCVID", "65", 65.562, "does not add up"),
        ("online", "DPN, 4 frames (both)", "73.36", 73.36, "adds up"),
        ("online", "DPN, 6 frames (both)", "110.04", 110.04, "adds up"),
        ("online", "DPN, 9 frames (both)", "165.06", 165.06, "adds up"),
        ("Table 4", "SlowFast, 3 snippets", "197.10", 197.13, "does not add up"),  # 3·65.70
        ("Table 4", "SlowFast, 5 snippets", "328.50", 328.55, "does not add up"),
        ("Table 4", "SlowFast, 10 snippets", "657.00", 657.10, "does not add up"),
        ("Table 4", "± of fine features", "2.20", 2.193, "adds up"),
        ("Table 5", "SlowFast, 8 snippets", "525.60", 525.68, "does not add up"),
        ("Table 5", "± of fine features", "0.06", 5.937, "does not add up"),
        ("Sec. 4.3", "LSTMs, of ResNet-101", "0.06", 0.610, "does not add up"),
        ("Table 10", "DPN-10", "183.4", 183.4, "adds up"),
        ("Table 10", "SlowFast-10", "657.1", 657.1, "adds up"),
        ("Table 10", "LSTM", "657.3", 657.457, "does not add up"),
        ("Table 1", "X3D-M, 2 clips", "9.46", 9.46, "adds up"),
        ("Table 1", "X3D-M, 3 clips", "14.19", 14.19, "adds up"),
        ("Table 2", "two-stream I3D, 7×", "112", 112, "adds up"),
        ("Table 2", "Ours (β = 0.7)", "43.8", 43.93, "adds up only in mixed units"),
        ("Sec. 5.3", "of two-stream, about", "40", 39.107, "adds up only in mixed units"),
        ("Sec. 5.3", "of I3D flow", "78", 78.214, "adds up only in mixed units"),
    ],
)
def test_figures_by_hand(where: str, what: str, value: str, by_paper: float, verdict: str) -> None:
    figure = find(where, what)
    assert figure.printed == value and figure.formula is not None
    assert figure.formula.paper == pytest.approx(by_paper, abs=0.006)
    assert figure.verdict == verdict


@pytest.mark.parametrize(
    ("where", "what", "counted"),
    [
        ("Table 1", "Uniform (both)", 25 * 7.799357),
        ("Table 1", "LSTM, FCVID", 25 * 7.799357 + 25 * 0.033554),
        ("offline", "SlowFast-25 (both)", 25 * 65.707966),
        ("Table 2", "two-stream I3D, 7×", 27.787569 + 25.584642),
        ("Table 2", "Ours (β = 0.7)", 4.731650 + 0.7 * 25.584642),
        ("Sec. 5.3", "of I3D flow", 100 * (4.731650 + 0.7 * 25.584642) / 25.584642),
    ],
)
def test_counts_by_hand(where: str, what: str, counted: float) -> None:
    figure = find(where, what)
    assert figure.counted == pytest.approx(counted, rel=1e-5)
    assert figure.difference == pytest.approx(figure.value - counted, abs=1e-2)
    twice = figure.counted_two_per_mac
    assert twice == (pytest.approx(2 * counted, rel=1e-5) if figure.unit == "GFLOPs" else None)


@pytest.mark.parametrize(
    ("where", "what", "value", "rest", "half"),
    [
        ("offline", "DPN, FCVID", "157.90", 157.90 - 8.00 * 18.34, 0.097),
        ("offline", "DPN, ActivityNet", "193.82", 193.82 - 9.96 * 18.34, 0.097),
        ("offline", "SlowFast, FCVID", "430.98", 430.98 - 6.39 * 65.71, 0.334),
        ("offline", "SlowFast, ActivityNet", "546.76", 546.76 - 8.15 * 65.71, 0.334),
        ("online", "DPN, FCVID", "57.78", 3.310, 0.097),
        ("online", "DPN, ActivityNet", "153.39", 4.836, 0.097),
        ("Table 4", "SlowFast, Kinetics", "275.91", 2.56, 0.334),
        ("Table 5", "SlowFast, Breakfast", "497.80", 14.83, 0.334),
        ("Table 1", "Ours, HVU", "11.5", 2.04, 0.06),
        ("Table 1", "Ours, Mini-Kinetics", "7.9", 6.10, 0.065),
    ],
)
def test_rests_of_learned_rows(where: str, what: str, value: str, rest: float, half: float) -> None:
    figure = find(where, what, value)
    assert figure.verdict == "needs training"
    assert figure.rest is not None
    assert figure.rest.paper == pytest.approx(rest, abs=0.006)
    assert figure.rest.slack == pytest.approx(half, abs=0.001)


def test_offline_rests_are_about_129_steps() -> None:
    offline = [figure for figure in LEARNED if figure.where.endswith("offline")]
    rests = [round(figure.rest.paper, 1) for figure in offline if figure.rest]
    assert rests == [11.2, 11.2, 11.1, 11.2]
    fcvid, activitynet = (
        [figure.inferred.value.paper for figure in offline if figure.inferred and name in figure.what]
        for name in ("FCVID", "ActivityNet")
    )
    assert fcvid == pytest.approx([129, 129], abs=0.5)
    assert activitynet == pytest.approx([138, 139], abs=0.5)
    # By hand, FCVID with DPN: coarse LSTM 4·512·1792, fine LSTM 4·2048·6016, gate 2·3328.
    by_hand = (11.18 - 8 * 0.049283 - 0.00049) / (0.08 + 0.003670 + 0.0000067)
    assert fcvid[0] == pytest.approx(by_hand, abs=0.05)
    kinetics = find("Table 4", "SlowFast, Kinetics").inferred
    assert (
        kinetics is not None and kinetics.value.paper - kinetics.value.slack > 20
    )  # not 10 seconds at 1 fps


def test_fine_features_that_are_not_printed() -> None:
    usage = []
    for gamma in ("0.01", "0.03", "0.05", "0.10"):
        inferred = find("Table 7", f"γ = {gamma}, FCVID").inferred
        assert inferred is not None
        usage.append(100 * inferred.value.paper / 129)
    assert usage == pytest.approx([6.4, 7.0, 8.2, 12.7], abs=0.1)
    reinforced = find("Table 1", "LiteEval-RL, FCVID").inferred
    assert reinforced is not None and reinforced.value.paper == pytest.approx(29.9, abs=0.1)


def test_a_figure_printed_twice_is_the_same() -> None:
    assert find("Table 7", "γ = 0.05, FCVID").printed == find("LiteEval, Table 1", "LiteEval, FCVID").printed
    repeated = [figure.printed for figure in LEARNED if figure.what == "SlowFast, FCVID"]
    assert repeated == ["430.98", "430.98"]


def test_what_does_not_add_up_says_why() -> None:
    suspicious = [figure for figure in COMPUTED if figure.verdict != "adds up"]
    assert len(suspicious) == 17 and all(figure.remark for figure in suspicious)
    assert {figure.verdict for figure in suspicious} == {"does not add up", "adds up only in mixed units"}
    said = " ".join(remarks())
    for word in ("65.70", "0.06", "5.9 snippets", "22.6", "45.3", "42 %", "88 %", "1 fps", "40.6"):
        assert word in said, word
    assert all(figure.remark for figure in LEARNED if figure.verdict == "quoted from others")


def test_known_good_and_bad_figures() -> None:
    formula = 25 * as_printed("7.82", 7.8, "mac")
    assert Figure("", "", "195.5", formula).verdict == "adds up"
    assert Figure("", "", "195.6", formula).verdict == "adds up"  # 7.82 may be 7.8249
    assert Figure("", "", "195.7", formula).verdict == "does not add up"
    assert Figure("", "", "195.5", formula, learned="training").verdict == "needs training"
    mixture = as_printed("4.73", 4.7, "mac") + as_printed("56", 27.8, "flop")
    assert Figure("", "", "60.7", mixture).verdict == "adds up only in mixed units"
    assert Figure("", "", "62.0", mixture).verdict == "does not add up"


def test_flow_by_hand() -> None:
    two_stream, flow, ours = FLOW_ROWS
    assert PAIRS == 16
    assert two_stream.gmacs(None) == pytest.approx(27.788 + 25.585, abs=0.01)
    assert two_stream.gmacs("raft_large") == pytest.approx(27.788 + 25.585 + 16 * 51.95, abs=0.01)
    assert flow.gmacs("raft_small") == pytest.approx(25.585 + 16 * 11.51, abs=0.01)
    assert ours.gmacs("raft_small") == pytest.approx(4.732 + 0.7 * (25.585 + 16 * 11.51), abs=0.01)


# -------------------------------------------------------------------------------------------------------- words


def test_numbers_as_words() -> None:
    assert [wording.number(value) for value in (None, 0.612, 25.58, 1642.7)] == [
        "–",
        "0.612",
        "25.58",
        "1642.70",
    ]
    by_rounding = [replace(exact(value), slack=slack) for value, slack in ((11.18, 0.097), (129.3, 1.2))]
    assert [*map(wording.quantity, by_rounding)] == ["11.2 ± 0.1", "129 ± 1"]
    assert wording.off_percent(195.5, 194.98) == "+0.3" and wording.off_percent(1.0, None) == "–"


def test_terminal_fits_100_columns() -> None:
    rendered = render(width=100)
    lines = rendered.splitlines()
    assert max(map(len, lines)) <= 100
    assert "…" not in rendered and "\x1b" not in rendered and "\x1b[1m" in render(colour=True)
    for backbone in BACKBONES:
        assert re.search(rf"^{backbone.stream} +{re.escape(backbone.printed)} ", rendered, re.MULTILINE)
    for figure in FIGURES:
        assert figure.what in rendered and figure.printed in rendered
    assert re.search(
        r"Uniform \(both\) +195\.5 +25·7\.82 +195\.5 +194\.98 +\+0\.3 +yes$", rendered, re.MULTILINE
    )
    assert re.search(r"43\.8 +4\.73 \+ 0\.7·56 +43\.93 +22\.64 .* if mixed \[\d+\]$", rendered, re.MULTILINE)
    for number in remarks().values():
        assert rendered.count(f"[{number}]") >= 2  # where it is pointed to, and where it is said
    assert "TV-L1 and DIS" in rendered


def test_a_narrow_terminal_loses_no_number() -> None:
    numbers = [re.findall(r"\d+\.\d+", " ".join(render(width=width).split())) for width in (50, 200)]
    assert sorted(numbers[0]) == sorted(numbers[1])


# -------------------------------------------------------------------------------------------------------- files


def test_command_writes_both_files_without_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = costs("--out", "made/costs")
    assert [line.split()[0] for line in result.stderr.splitlines()] == ["wrote", "wrote"]
    assert sorted(path.name for path in (tmp_path / "made" / "costs").iterdir()) == ["costs.csv", "costs.md"]
    assert "does not" in (tmp_path / "made/costs/costs.md").read_text()
    assert result.stdout.startswith("The papers' costs, computed again")


def test_csv_has_every_figure(tmp_path: Path) -> None:
    costs("--out", tmp_path)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "costs.csv").read_text())))
    assert len(rows) == len(BACKBONES) + len(FIGURES)
    by_name = {(row["where"], row["what"]): row for row in rows}
    ours = by_name["Selection, Table 2", "Ours (β = 0.7)"]
    assert ours["printed"] == "43.8" and ours["verdict"] == "adds up only in mixed units"
    assert float(ours["counted"]) == pytest.approx(22.641, abs=1e-3)
    assert float(ours["counted_two_per_mac"]) == pytest.approx(45.282, abs=1e-3)
    assert float(ours["difference"]) == pytest.approx(43.8 - 22.641, abs=1e-3)
    assert by_name["LiteEval, Table 1", "FrameGlimpse, FCVID"]["counted"] == ""
    assert "nan" not in (tmp_path / "costs.csv").read_text()


def test_markdown_has_every_figure_and_remark(tmp_path: Path) -> None:
    costs("--out", tmp_path)
    text = (tmp_path / "costs.md").read_text()
    tables = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    first_cells = [row[1].strip() for row in tables]
    for figure in FIGURES:
        assert figure.what in first_cells
    for remark, number in remarks().items():
        assert f"\n{number}. {remark}\n" in text and f"[{number}]" in text
    assert text.count("does not add up") >= 14


def test_json_is_all_of_it() -> None:
    said = json.loads(costs("--json").stdout)
    assert len(said["figures"]) == len(BACKBONES) + len(FIGURES)
    (uniform,) = (row for row in said["figures"] if row["what"] == "Uniform (both)")
    assert uniform["formula"] == "25·7.82" and uniform["by_paper"] == pytest.approx(195.5)
    assert uniform["verdict"] == "adds up"
    learned = [row for row in said["figures"] if row["section"] == "learned"]
    assert {row["verdict"] for row in learned} == {"needs training", "quoted from others"}
    assert len(said["flow_gmacs_per_clip"]) == 3
    assert not any(isinstance(v, float) and math.isnan(v) for row in said["figures"] for v in row.values())


def test_list_names_costs() -> None:
    listed = CliRunner().invoke(paper_tables, ["list"]).stdout
    assert re.search(r"^costs +\S", listed, re.MULTILINE)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(paper_tables, ["costs", "--out", str(tmp_path / "file")])
    assert result.exit_code == 2 and "cannot write the table there" in result.stderr
