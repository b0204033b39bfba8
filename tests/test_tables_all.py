"""Every table from one small cache: rows, replaced streams, online views, intervals, LaTeX, own tables, Dask."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cache_schema import FeatureCache, Sampling, write_shard
from cache_schema import command as cluster_module
from policy.evaluation.predictions import Predictions, intervals
from policy.sheets import terminal
from policy.sheets.markup import escape, latex
from policy.sheets.sheet import INTERVALS
from policy.tables import views
from policy.tables.catalogue import TABLES
from policy.tables.cli import paper_tables
from policy.tables.documents import of_report
from policy.tables.reading import EXPERIMENTS, read_table
from policy.tables.report import Report, Row
from tests.caches import make_spec, write_stream
from tests.clusters import dask
from tests.earlier import make_earlier
from tests.planted import write_planted, write_planted_labels

PAPER_STREAMS = ("mobilenetv2_112", "resnet101_224", "dpn107_224", "slowfast_8x8_256")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    labels = write_planted(folder, train=12, test=8, classes=4, dim=8, lengths=(4, 8))[1]
    write_planted_labels(labels, folder / "labels.csv")
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of all the tables."""
    return tmp_path_factory.mktemp("runs")


def call(name: str, cache: Path, *words: object, hidden: tuple[int, int] = (4, 8)) -> Result:
    """A table whose streams are replaced by the two of the cache."""
    folder = EXPERIMENTS / name
    streams = [s for role in read_table(folder).streams.values() for s in role] if folder.is_dir() else []
    given = [
        "--cache",
        cache,
        "--labels",
        cache / "labels.csv",
        "--device",
        "cpu",
        "--epochs",
        1,
        "--batch",
        8,
    ]
    given += ["--coarse-hidden", hidden[0], "--fine-hidden", hidden[1], "--lr", 0.01]
    for stream in streams:
        given += ["--substitute", f"{stream}={'coarse_112' if stream.startswith('mobile') else 'fine_224'}"]
    return CliRunner().invoke(paper_tables, [name, *(str(word) for word in (*given, *words))])


def lines(out: Path) -> dict[str, dict[str, str]]:
    return {row["name"]: row for row in csv.DictReader(io.StringIO((out / "table.csv").read_text()))}


def told(result: Result) -> str:
    """The one line on standard error of a mistake."""
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    return last


@pytest.mark.slow
@pytest.mark.parametrize("name", list(TABLES)[1:])  # the first is tests/test_tables.py
def test_every_table_runs_to_the_end(name: str, cache: Path, runs: Path, tmp_path: Path) -> None:
    sizes = (4, 512) if name == "liteeval-9" else (4, 8)
    result = call(
        name, cache, "--seeds", 1, "--runs", runs, "--out", tmp_path, "--resamples", 50, hidden=sizes
    )
    assert result.exit_code == 0, result.output
    table = read_table(EXPERIMENTS / name)
    rows = lines(tmp_path)
    assert list(rows) == [one.title for one in table.experiments]
    markdown, tex = ((tmp_path / f"table.{kind}").read_text() for kind in ("md", "tex"))
    for one in table.experiments:
        row = rows[one.title]
        assert row["status"] == ("built" if one.method else "cited")
        replaced = {part.partition("=")[0] for part in row["substituted"].split()}
        assert replaced == set(one.streams.values())
        marked = f"{one.title} †" if one.streams else one.title
        assert re.search(rf"^\| \*{{0,2}}{re.escape(marked)}\*{{0,2}} \|", markdown, re.MULTILINE)
        assert f"{escape(marked)}" in tex
        assert re.search(rf"^{re.escape(marked)} +\S", result.stdout, re.MULTILINE)
        if one.method:
            assert float(row["gflops_low"]) <= float(row["gflops_mean"]) <= float(row["gflops_high"])
            assert row["map_percent_std"] == ""
    assert "† Streams replaced: coarse_112 in place of mobilenetv2_112" in markdown
    check_latex(tex)
    with Image.open(tmp_path / "figure.png") as image:
        image.load()
        assert image.format == "PNG"


def check_latex(tex: str) -> None:
    """As far as that can be told without LaTeX: balanced, as many cells in every row, only what can be set."""
    bare = re.sub(r"(?m)^%.*$|\\[\\{}&%$#_]", "", tex)
    assert bare.count("{") == bare.count("}") and bare.count("$") % 2 == 0
    assert not re.findall(r"[#%^_](?!\\|\^|{)", re.sub(r"\$[^$]*\$", "", bare))
    assert (
        re.findall(r"\\begin{(\w+)}", tex) == re.findall(r"\\end{(\w+)}", tex)[::-1] == ["table", "tabular"]
    )
    [columns] = re.findall(r"\\begin{tabular}{(l+r+)}", tex)
    body = tex.partition(r"\midrule")[2].partition(r"\bottomrule")[0]
    for line in filter(None, map(str.strip, body.splitlines())):
        if "multicolumn" not in line and line != r"\midrule":
            assert len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1 and line.endswith(r"\\")
    assert all(ord(letter) < 128 for letter in re.sub(r"(?m)^%.*$", "", tex)), tex
    assert tex.count(r"\toprule") == tex.count(r"\bottomrule") == 1


def test_tables_share_their_runs(cache: Path, runs: Path, tmp_path: Path) -> None:
    """Those of Table 3 are those of Table 2."""
    two = call("liteeval-2", cache, "--seeds", 1, "--runs", runs, "--json")
    three = call("liteeval-3", cache, "--seeds", 1, "--runs", runs, "--json")
    assert two.exit_code == three.exit_code == 0 and ": trained" not in three.stderr
    folders = [
        {row["name"]: [run["folder"] for run in row["runs"]] for row in json.loads(said.stdout)["rows"]}
        for said in (two, three)
    ]
    assert folders[0]["LiteEval (DPN)"] == folders[1]["LiteEval (DPN)"] != []
    assert folders[0]["DPN-10"] != folders[0]["DPN-25"]


@pytest.fixture(scope="module")
def online(cache: Path, runs: Path) -> dict[str, dict[str, Any]]:
    """The rows of Table 2 as JSON."""
    said = call("liteeval-2", cache, "--seeds", 1, "--runs", runs, "--json", "--epochs", 3)
    assert said.exit_code == 0, said.output
    return {row["name"]: row for row in json.loads(said.stdout)["rows"]}


def predictions(row: dict[str, Any]) -> Predictions:
    return Predictions.load(Path(row["runs"][0]["folder"]) / "predictions.npz")


@pytest.mark.parametrize(
    ("title", "k"), [("LiteEval, K = 3", 3), ("LiteEval, K = 5", 5), ("LiteEval, K = 9", 9)]
)
def test_online_rows_stop_at_the_kth_fine_feature(
    title: str, k: int, online: dict[str, dict[str, Any]]
) -> None:
    offline, view = predictions(online["LiteEval (DPN)"]), predictions(online[title])
    for start, stop, seen in zip(offline.offsets, offline.offsets[1:], view.row_counts, strict=False):
        gates = offline.gates[0, start:stop]
        opened = np.flatnonzero(gates)
        assert seen == (opened[k - 1] + 1 if len(opened) >= k else len(gates))
        assert view.gates[0, start:stop].tolist() == [*gates[:seen], *[0] * (len(gates) - seen)]
    assert online[title]["ours"]["fine_features"]["mean"] == pytest.approx(view.fine_rows.mean())
    assert online[title]["ours"]["gflops"]["mean"] <= online["LiteEval (DPN)"]["ours"]["gflops"]["mean"]


@pytest.mark.parametrize("k", [4, 6, 9])
def test_uniform_k_sees_what_liteeval_has_seen(k: int, online: dict[str, dict[str, Any]]) -> None:
    offline, view = predictions(online["LiteEval (DPN)"]), predictions(online[f"DPN, K = {k}"])
    for video, (start, stop) in enumerate(zip(offline.offsets, offline.offsets[1:], strict=False)):
        opened = np.flatnonzero(offline.gates[0, start:stop])
        until = opened[k - 1] + 1 if len(opened) >= k else stop - start
        looked = np.flatnonzero(view.gates[0, start:stop])
        assert len(looked) == min(k, until) == view.row_counts[video] and looked.max() < until


def test_views_are_kept(cache: Path, runs: Path, online: dict[str, dict[str, Any]]) -> None:
    again = call("liteeval-2", cache, "--seeds", 1, "--runs", runs, "--json", "--epochs", 3)
    assert "evaluated online" not in again.stderr and "bootstrap" not in again.stderr
    rows = {row["name"]: row for row in json.loads(again.stdout)["rows"]}
    assert [row["ours"] for row in rows.values()] == [row["ours"] for row in online.values()]
    # A view that was not finished, one of something else and one of an earlier version are made anew.
    first, second, third = (Path(online[f"LiteEval, K = {k}"]["runs"][0]["folder"]) for k in (3, 5, 9))
    (first / "result.json").unlink()
    held = json.loads((second / "result.json").read_text())
    (second / "result.json").write_text(json.dumps({**held, "key": "other"}))
    make_earlier(third)
    mended = call("liteeval-2", cache, "--seeds", 1, "--runs", runs, "--json", "--epochs", 3)
    assert re.findall(r"(.*), seed 0: evaluated online", mended.stderr) == [
        "LiteEval, K = 3",
        "LiteEval, K = 5",
        "LiteEval, K = 9",
    ]
    assert [row["ours"] for row in json.loads(mended.stdout)["rows"]] == [
        row["ours"] for row in online.values()
    ]


def test_a_table_stopped_between_views_goes_on(
    cache: Path, runs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copytree(runs, tmp_path / "runs")
    for folder in (tmp_path / "runs").glob("*/views"):
        shutil.rmtree(folder)
    whole = views.make
    made: list[str] = []

    def stop_at_the_third(*arguments: Any) -> Any:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(arguments[0].name)
        return whole(*arguments)

    words = ("--seeds", 1, "--runs", tmp_path / "runs", "--json")
    with monkeypatch.context() as patched:
        patched.setattr(views, "make", stop_at_the_third)
        assert call("liteeval-2", cache, *words).exit_code == 130
    result = call("liteeval-2", cache, *words)
    assert result.exit_code == 0 and ": trained" not in result.stderr
    assert result.stderr.count("evaluated online") == 4 and made[0] not in result.stderr


@pytest.mark.slow
def test_intervals_are_of_all_seeds_and_kept(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--runs", tmp_path / "runs", "--out", tmp_path / "out", "--resamples", 40)
    seen: list[int] = []

    def counted(said: Any, **options: Any) -> Any:
        seen.append(len(said))
        return intervals(said, **options)

    monkeypatch.setattr("policy.evaluation.predictions.intervals", counted)
    for seeds, expected in ((2, [2] * 4), (1, [1] * 4), (2, [])):
        seen.clear()
        assert call("liteeval-8", cache, "--seeds", seeds, *words).exit_code == 0
        assert seen == expected
    row = lines(tmp_path / "out")["LiteEval"]
    markdown = (tmp_path / "out" / "table.md").read_text()
    assert re.search(r"\*\*LiteEval †\*\* \| \*\*\S+ ± \S+ \[\S+, \S+\]\*\*", markdown)
    said = [
        Predictions.load(config.parent / "predictions.npz")
        for config in (tmp_path / "runs").glob("liteeval-*/config.json")
        if json.loads(config.read_text())["config"]["sync"]
    ]
    expected_low = intervals(said, resamples=40)["gflops"].low
    assert float(row["gflops_low"]) == pytest.approx(expected_low, rel=1e-5)
    for path in (tmp_path / "runs" / "intervals").iterdir():
        path.write_text("{")
    assert call("liteeval-8", cache, "--seeds", 2, *words, "--resamples", 0).exit_code == 0
    assert not lines(tmp_path / "out")["LiteEval"]["gflops_low"] and "[" not in row["gflops_mean"]
    assert INTERVALS not in (tmp_path / "out" / "table.md").read_text()


def test_a_missing_stream_is_told_with_what_to_give(cache: Path, tmp_path: Path) -> None:
    words = ["--cache", cache, "--labels", cache / "labels.csv", "--runs", tmp_path / "runs"]
    line = told(CliRunner().invoke(paper_tables, ["liteeval-2", *map(str, words), "--coarse", "coarse_112"]))
    assert "liteeval-2 needs dpn107_224, slowfast_8x8_256, but this cache has: coarse_112, fine_224" in line
    assert line.endswith("--substitute dpn107_224=fine_224 --substitute slowfast_8x8_256=fine_224")
    line = told(CliRunner().invoke(paper_tables, ["liteeval-8", *map(str, words)]))
    assert line.endswith("--substitute mobilenetv2_112=coarse_112 --substitute resnet101_224=fine_224")
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(cache, elsewhere)
    # A stream at other instants could not stand in, however dear it is.
    clips = make_spec("clips", macs_per_row=10**13, sampling=Sampling("clips", 5, 4, 8, clips=3))
    write_stream(elsewhere, clips, {"v0": 3})
    words[1] = elsewhere
    line = told(CliRunner().invoke(paper_tables, ["liteeval-8", *map(str, words)]))
    assert line.endswith("--substitute mobilenetv2_112=coarse_112 --substitute resnet101_224=fine_224")
    nowhere = call(
        "liteeval-7", cache, "--runs", tmp_path / "runs", "--substitute", "resnet101_224=coarse_112"
    )
    assert "resnet101_224 is replaced twice" in told(nowhere)
    given = [*map(str, words), "--coarse", "coarse_112", "--fine", "nowhere"]
    assert "no stream 'nowhere' in this cache" in told(
        CliRunner().invoke(paper_tables, ["liteeval-8", *given])
    )
    assert not (tmp_path / "runs").exists()


def test_only_rows_with_replaced_streams_are_marked(cache: Path, tmp_path: Path) -> None:
    """A cache with the paper's coarse stream and SlowFast, whose snippets are around the frames' instants."""
    for ours, paper, sampling in (
        ("coarse_112", "mobilenetv2_112", Sampling()),
        (
            "fine_224",
            "slowfast_8x8_256",
            Sampling("snippets", fps=30.0, frames=32, window=64, rows_per_s=1.0),
        ),
    ):
        stream = FeatureCache(cache)[ours]
        spec = replace(stream.spec, name=paper, sampling=sampling)
        write_shard(tmp_path / "cache" / paper, spec, [stream[video] for video in stream], tools={})
    words = ["--cache", tmp_path / "cache", "--labels", cache / "labels.csv", "--runs", tmp_path / "runs"]
    words += ["--epochs", 1, "--seeds", 1, "--fine-hidden", 64, "--device", "cpu", "--out", tmp_path / "out"]
    result = CliRunner().invoke(
        paper_tables, ["liteeval-6", *map(str, words), "--substitute", "dpn107_224=slowfast_8x8_256"]
    )
    assert result.exit_code == 0, result.output
    shown = re.findall(
        r"^(.+?)(?:  |$)", result.stdout.partition("\n\n")[2].partition("Ours:")[0], re.MULTILINE
    )
    titles = {title.removesuffix(" †"): title.endswith("†") for title in shown if "(" in title}
    assert titles == {title: "DPN" in title for title in titles} and len(titles) == 8
    assert "† Streams replaced: slowfast_8x8_256 in place of dpn107_224." in result.stdout
    assert lines(tmp_path / "out")["GRU (SlowFast)"]["substituted"] == ""
    assert lines(tmp_path / "out")["GRU (DPN)"]["substituted"] == "dpn107_224=slowfast_8x8_256"


def test_rows_of_other_streams_are_judged_on_the_same_videos(cache: Path, tmp_path: Path) -> None:
    shutil.copytree(cache, tmp_path / "cache")
    stream = FeatureCache(cache)["fine_224"]
    for name, missing in (("dpn107_224", "video_0019"), ("slowfast_8x8_256", "video_0000")):
        some = [stream[video] for video in stream if video != missing]
        write_shard(tmp_path / "cache" / name, replace(stream.spec, name=name), some, tools={})
    words = ["--cache", tmp_path / "cache", "--labels", cache / "labels.csv", "--runs", tmp_path / "runs"]
    words += ["--coarse", "coarse_112", "--epochs", 1, "--seeds", 1, "--fine-hidden", 64, "--device", "cpu"]
    given = ["liteeval-3", *map(str, words), "--json"]
    assert "'video_0019' (not in dpn107_224)" in told(CliRunner().invoke(paper_tables, given))
    result = CliRunner().invoke(paper_tables, [*given, "--skip-missing"])
    assert result.exit_code == 0, result.output
    assert "1 more left out, which other streams of the table lack" in result.stderr
    configs = [json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*/config.json")]
    assert [config["videos"] for config in configs] == [{"train": 11, "evaluation": 7}] * 5


def test_other_samplings_do_not_go_together(cache: Path, tmp_path: Path) -> None:
    shutil.copytree(cache, tmp_path / "cache")
    stream = FeatureCache(cache)["fine_224"]
    spec = replace(stream.spec, name="twice", sampling=Sampling("snippets", 30.0, 32, 64, rows_per_s=2.0))
    write_shard(tmp_path / "cache" / "twice", spec, [stream[video] for video in stream], tools={})
    words = ["--cache", tmp_path / "cache", "--labels", cache / "labels.csv", "--coarse", "coarse_112"]
    line = told(CliRunner().invoke(paper_tables, ["liteeval-8", *map(str, words), "--fine", "twice"]))
    assert "look at different instants (frames at 1 fps and snippets at 2 fps)" in line


def test_a_table_of_one_s_own(cache: Path, runs: Path, tmp_path: Path) -> None:
    mine = tmp_path / "my & table"
    shutil.copytree(EXPERIMENTS / "liteeval-8", mine)
    (mine / "table.toml").write_text(
        'title = "Mine: 50 % of {a_b}"\nsource = "myself"\ndatasets = ["my set"]\ncolumns = ["what"]\n'
        'measures = ["top1_percent", "gflops", "usage_percent"]\nnotes = ["A ~ B^2 \\\\ C."]\n'
    )
    (mine / "01-no-sync.toml").unlink()
    (mine / "02-liteeval.toml").write_text(
        'title = "[*] always & ever_ #1"\nmethod = "liteeval"\ncolumns = ["γ | 50 %"]\nemphasised = true\n'
        '[streams]\ncoarse = "coarse_112"\nfine = "fine_224"\n[settings]\ngamma = 1.0\nlam = 50.0\n'
        '[paper."my set"]\ntop1_percent = "99.5 ± 0.1"\n'
    )
    (mine / "03-coarse-only.toml").write_text(
        'title = "Coarse"\nmethod = "coarse-only"\n[streams]\ncoarse = "coarse_112"\n'
    )
    (mine / "04-random-gating.toml").unlink()
    words = ["run", mine, "--cache", cache, "--labels", cache / "labels.csv", "--runs", runs, "--seeds", 2]
    words += ["--epochs", 1, "--coarse-hidden", 4, "--fine-hidden", 8, "--device", "cpu"]
    words += ["--out", tmp_path / "out"]
    result = CliRunner().invoke(paper_tables, [str(word) for word in [*words, "--gamma", 0.2]])
    assert result.exit_code == 0, result.output
    assert "--gamma: not for 1 of the rows, whose own setting it is" in result.stderr
    rows = lines(tmp_path / "out")
    assert list(rows) == ["[*] always & ever_ #1", "Coarse"]
    first = rows["[*] always & ever_ #1"]
    assert (first["paper_my set_top1_percent"], first["paper_my set_top1_percent_std"]) == ("99.5", "0.1")
    assert first["what"] == "γ | 50 %"
    tex = (tmp_path / "out" / "table.tex").read_text()
    check_latex(tex)
    assert r"\textbf{[*] always \& ever\_ \#1} & \textbf{$\gamma$ \textbar{} 50 \%}" in tex
    assert r"A \textasciitilde{} B\textasciicircum{}2 \textbackslash{} C." in tex
    assert r"paper, my set" in tex and "†" not in result.stdout
    assert r"| **γ \| 50 %** |" in (tmp_path / "out" / "table.md").read_text()
    assert f"paper-tables run '{mine}' --cache" in result.stdout
    assert "no table.toml" in told(
        CliRunner().invoke(paper_tables, ["run", str(cache), *map(str, words[2:])])
    )


@given(st.text())
def test_latex_escapes_everything(text: str) -> None:
    escaped = escape(text)
    rest = re.sub(r"\\[&%$#_{}]|\\text[a-z]+{}|\\dots{}|\$[^$]*\$", "", escaped)
    assert not set(rest) & set("&%$#_{}~^\\<>|")


def test_latex_rows_never_begin_with_an_argument() -> None:
    table = read_table(EXPERIMENTS / "liteeval-8")
    one = replace(table.experiments[0], title="[2] *", emphasised=False)
    report = Report(replace(table, experiments=(one,)), (Row(one, ()),), (0,), "l.csv", None, ("S.",), "c\nd")
    tex = latex(of_report(report))
    assert "{}[2] * & not built yet & -- & -- & -- & 65.7" in tex
    assert "% c\n% d\n" in tex


def test_wide_terminals_show_intervals(cache: Path, runs: Path) -> None:
    words = ("--seeds", 1, "--runs", runs)
    result = call("liteeval-2", cache, *words)
    assert "[" not in result.stdout.partition("Ours:")[0]
    assert "a wider terminal shows them" in " ".join(result.stdout.split())
    wide = CliRunner(env={"COLUMNS": "250"})
    again = wide.invoke(paper_tables, result.stdout.splitlines()[-1].removeprefix("$ paper-tables ").split())
    assert re.search(r"^LiteEval \(DPN\) † +\S+ \[\S+, \S+\] ", again.stdout, re.MULTILINE)
    assert INTERVALS in again.stdout


def test_narrow_terminals_put_the_paper_below() -> None:
    table = read_table(EXPERIMENTS / "liteeval-2")
    rows = tuple(Row(one, ()) for one in table.experiments)
    report = Report(table, rows, (0,), "l.csv", None, ("Ours: some.",), "command")
    wide, narrow = (terminal.render(of_report(report), width=width).splitlines() for width in (200, 90))
    assert sum(line.startswith("method ") for line in wide) == 1
    assert sum(line.startswith("method ") for line in narrow) == 2
    [ours, paper] = (line for line in narrow if line.startswith("LiteEval (DPN) "))
    assert "not built yet" in ours and re.search(r"84\.0 +/ +193\.82 +/ +9\.96 ± 5\.20$", paper)
    # In the paper's part only rows that it has.
    assert sum(line.startswith("Coarse only") for line in narrow) == 1


@pytest.mark.slow
def test_an_unreachable_scheduler(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "_TIMEOUT_S", 1)
    line = told(call("liteeval-8", cache, "--runs", tmp_path / "runs", "--scheduler", "tcp://127.0.0.1:9"))
    assert "--scheduler tcp://127.0.0.1:9: no Dask scheduler answers there" in line


@pytest.mark.slow
def test_a_dask_cluster_gives_the_same_table(
    cache: Path, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distributed import Client

    monkeypatch.chdir(tmp_path)  # paths are relative to where the command is given, not to where workers are
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    # Two threads in one process, which must not disturb each other's weights.
    worker = ("worker", address, "--nthreads", "2", "--no-nanny", "--no-dashboard")
    with dask("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"), dask(*worker):
        with Client(address, timeout=120) as client:
            client.wait_for_workers(1, timeout=120)
        words = ("--seeds", 1, "--resamples", 50)
        away = call("liteeval-2", cache, *words, "--runs", "runs", "--out", "away", "--scheduler", address)
        assert away.exit_code == 0, away.output
    here = call("liteeval-2", cache, *words, "--runs", runs, "--out", "here")
    assert here.exit_code == 0
    assert lines(Path("away")) == lines(Path("here"))
    assert ": trained" in away.stderr
