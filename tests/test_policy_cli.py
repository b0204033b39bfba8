"""train-policy on the command line: what it prints, and how it tells a user's mistake."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from policy.cli.train_policy import train_policy
from policy.recipes import RECIPES
from policy.registry import METHODS
from tests.planted import write_planted, write_planted_labels

SMALL = ["--epochs", "1", "--batch", "8", "--device", "cpu"]
HIDDEN = ["--coarse-hidden", "6", "--fine-hidden", "12"]
STREAMS = ["--coarse", "coarse_112", "--fine", "fine_224"]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    write_planted_labels(write_planted(folder, train=16, test=8, classes=4, dim=8)[1], folder / "labels.csv")
    return folder


def run(planted: Path, *words: object, labels: Path | None = None) -> Result:
    method, *rest = map(str, words)
    data = ["--cache", str(planted), "--labels", str(labels or planted / "labels.csv")]
    return CliRunner().invoke(train_policy, [method, *data, *rest])


def liteeval(planted: Path, out: Path, *words: object, labels: Path | None = None) -> Result:
    return run(planted, "liteeval", *STREAMS, *SMALL, *HIDDEN, "--out", out, *words, labels=labels)


def told(result: Result) -> str:
    """The one line on standard error of a mistake."""
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert lines[-1].startswith("Error: ")
    assert "Traceback" not in result.output
    return lines[-1]


def test_a_stream_is_charged_under_the_name_that_the_cache_has_for_it(planted: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(planted, cache)
    (cache / "fine_224").rename(cache / "mine")
    runs = [
        run(place, "uniform", "--fine", fine, "--epochs", 1, "--out", tmp_path / fine, "--json")
        for place, fine in ((planted, "fine_224"), (cache, "mine"))
    ]
    before, after = (json.loads(result.stdout)["gflops"] for result in runs)
    assert after["mine"] == before["fine_224"] > 0 and after.keys() == {"mine", "frame classifier"}
    text = run(cache, "uniform", "--fine", "mine", "--epochs", 1, "--out", tmp_path / "mine").stdout
    assert f"fine {after['mine']:.2f}, networks {after['frame classifier']:.3f};" in text


def test_liteeval(planted: Path, tmp_path: Path) -> None:
    result = liteeval(planted, tmp_path / "run", "--gamma", "0.1")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == "LiteEval"
    for line in (
        r"mAP +\d+\.\d %",
        r"top-1 +\d+\.\d %",
        r"GFLOPs per video +[\d.]+ ± [\d.]+",
        r"fine features +[\d.]+ ± [\d.]+ of [\d.]+ frames \(usage [\d.]+ %, the mean of each video's own share\)",
    ):
        assert re.search(line, result.stdout), result.stdout
    assert str(tmp_path / "run") in result.stdout
    assert "of subset 'train' for training" in result.stderr
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["config"]["gamma"] == 0.1
    assert {"torch", "thriftvid"} <= config["versions"].keys()

    again = liteeval(planted, tmp_path / "run", "--gamma", "0.1", "--json")
    said = json.loads(again.stdout)
    assert said["reused"] and said["method"] == "liteeval" and said["videos"] == 8
    assert "already been finished" in again.stderr

    other = liteeval(planted, tmp_path / "run", "--gamma", "0.2")
    assert "another value of gamma (0.1 → 0.2)" in told(other)

    words = [*STREAMS, *SMALL, *HIDDEN, "--out", tmp_path / "random", "--json"]
    random = run(planted, "random-gating", "--like", tmp_path / "run", *words)
    assert json.loads(random.stdout)["method"] == "random-gating"
    used = json.loads((tmp_path / "random" / "config.json").read_text())["config"]["usage"]
    assert used == said["usage"]


def test_the_recipe_is_the_robust_one_unless_another_is_given(planted: Path, tmp_path: Path) -> None:
    def trained(*words: object) -> dict[str, Any]:
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        assert liteeval(planted, out, *words).exit_code == 0
        values: dict[str, Any] = json.loads((out / "config.json").read_bytes())["config"]
        return values

    robust = trained()
    assert all(
        robust[name] == value
        for name, value in RECIPES["robust"].items()
        if name in robust and name not in ("batch", "coarse_hidden")  # given, or made from another
    )
    assert trained("--dropout", "0.1", "--readout", "last")["dropout"] == 0.1
    plain = trained("--recipe", "none")
    assert plain["usage_loss"] == "video" and plain["lr"] == 1e-4


@pytest.mark.parametrize(
    "method", ["uniform", "uniform-cf", "lstm", "lstm-cf", "frame-glimpse", "fast-forward", "coarse-only"]
)
def test_baselines(method: str, planted: Path, tmp_path: Path) -> None:
    streams = {"uniform-cf": STREAMS, "lstm-cf": STREAMS, "coarse-only": STREAMS[:2]}.get(method, STREAMS[2:])
    result = run(planted, method, *streams, *SMALL, "--out", tmp_path / "run", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["method"] == method


def test_uniform_says_where_its_class_scores_come_from(planted: Path, tmp_path: Path) -> None:
    for _ in ("trained", "reused"):
        result = run(planted, "uniform", *STREAMS[2:], *SMALL, "--out", tmp_path / "run")
        assert result.exit_code == 0, result.output
        assert "class scores: fits a linear classifier (fine_224)" in result.stderr
        assert re.search(r"class scores +fits a linear classifier \(fine_224\)", result.stdout)


def test_single_label(planted: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    rows = (planted / "labels.csv").read_text().splitlines()
    rows[1] = rows[1].replace(",train", ";class 0;class 1,train")
    labels.write_text("\n".join(rows))
    several = liteeval(planted, tmp_path / "several", labels=labels)
    assert "1 of 24 videos has several classes: trained as multi-label" in several.stderr
    single = liteeval(planted, tmp_path / "single", "--single-label", labels=labels)
    assert single.exit_code == 0, single.output
    assert "1 of 16 training videos has several classes: trained on the first" in single.stderr
    assert "--single-label trains" not in single.stderr
    shown = CliRunner().invoke(train_policy, ["liteeval", "--help"]).output
    assert "first class in the file" in " ".join(shown.split())


@pytest.mark.parametrize("method", METHODS)
def test_help_shows_a_full_example(method: str) -> None:
    result = CliRunner().invoke(train_policy, [method, "--help"])
    assert result.exit_code == 0
    example = result.output.partition("Example:")[2]
    for word in (f"train-policy {method}", "--cache", "--labels", "--out"):
        assert word in example.partition("Options:")[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gamma", "1.2"], "gamma must be between 0 and 1, not 1.2"),
        (["--epochs", "0"], "epochs must be positive"),
        (["--coarse", "mobilenet"], "no stream 'mobilenet' in this cache; it has: coarse_112, fine_224"),
        (["--coarse", "coarse112"], "it has: coarse_112, fine_224; did you mean coarse_112?"),
        (["--device", "abacus"], "--device abacus: not to be had here"),
        (["--device", "meta"], "--device meta: not to be had here"),
        (["--eval-subset", "val"], "no subset 'val'; it has: train, test"),
        (["--coarse-hidden", "16"], "coarse-hidden (16) must not exceed fine-hidden (12)"),
        (["--cache", "nowhere"], "nowhere: no such cache folder"),
        (["--labels", "nowhere.csv"], "nowhere.csv: cannot read the labels"),
        (["--labels", "labels.txt"], "labels.txt: cannot read the labels: No such file"),
        (["--out", "/proc/no/run"], "cannot be used as a run folder"),
        (["--lr", "fast"], "not a valid float"),
    ],
)
def test_mistakes(words: list[str], said: str, planted: Path, tmp_path: Path) -> None:
    assert said in told(liteeval(planted, tmp_path / "deep" / "run", *words))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            "ar-net --coarse x",
            "ar-net names its streams by --stream (A stream that it may choose for a row).",
        ),
        ("uniform --stream=x", "uniform names its streams by --fine (Stream with the expensive features)."),
        (
            "wtalc --fine x",
            "wtalc names its streams by --appearance (Stream with the appearance (RGB) features) and",
        ),
        (
            "scsampler --frames 8",
            "scsampler counts rows by --top-rows (K, rows of a video that are looked at in",
        ),
        (
            "frame-glimpse --looks 8",
            "counts rows by --glimpses (K of FrameGlimpse: how many times it looks).",
        ),
        ("tune scsampler --frames 8", "scsampler counts rows by --top-rows"),
        ("motion-difference --epochs 8", "nothing of motion-difference is trained by gradient descent."),
        ("motion-difference --recipe robust", "it is an option of liteeval, liteeval-rl, random-gating, …."),
        ("lstm --no-sync", "it is an option of liteeval, liteeval-rl, random-gating."),
        ("uniform --like x", "it is an option of random-gating."),
    ],
)
def test_options_of_other_methods(words: str, line: str) -> None:
    result = CliRunner().invoke(train_policy, words.split())
    option = next(word for word in words.split() if word.startswith("--")).partition("=")[0]
    assert told(result).startswith(f"Error: No such option '{option}'; ") and line in told(result)


@pytest.mark.parametrize(
    "words", ["scsampler --top-row 8", "tune scsampler --patience 3", "liteeval --no-such"]
)
def test_options_that_no_other_method_has_either(words: str) -> None:
    line = told(CliRunner().invoke(train_policy, words.split()))
    assert "option of" not in line and " by --" not in line


def test_a_refusal_takes_nothing_of_what_was_there(planted: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    wrong = ("--coarse-hidden", "16")
    assert "must not exceed" in told(liteeval(planted, tmp_path / "run", *wrong))
    assert not list((tmp_path / "run").iterdir())
    assert liteeval(planted, tmp_path / "run").exit_code == 0
    files = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert "holds a run with another value" in told(liteeval(planted, tmp_path / "run", *wrong))
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == files


def test_labels_that_do_not_fit_the_cache(planted: Path, tmp_path: Path) -> None:
    rows = (planted / "labels.csv").read_text()
    labels = tmp_path / "labels.csv"
    labels.write_text(rows + "elsewhere,class 0,train\n")
    line = told(liteeval(planted, tmp_path / "run", labels=labels))
    assert "no features for 1 video of subset 'train': 'elsewhere' (not in coarse_112 nor fine_224)" in line
    skipped = liteeval(planted, tmp_path / "run", "--skip-missing", labels=labels)
    assert skipped.exit_code == 0
    assert "left out" in skipped.stderr

    labels.write_text("\n".join(rows.splitlines()[:-1]))
    assert "no label for 1 cached video: 'video_0023'" in told(
        liteeval(planted, tmp_path / "b", labels=labels)
    )


@pytest.mark.parametrize("how", ["cut", "header", "row", "schema"])
def test_damaged_shards(how: str, planted: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(planted, cache)
    (shard,) = (cache / "fine_224").glob("*.h5")
    content = bytearray(shard.read_bytes())
    if how == "cut":
        content = content[: len(content) // 2]
    elif how == "schema":
        import h5py

        with h5py.File(shard, "r+") as file:
            file.attrs["schema_version"] = 9
        content = bytearray(shard.read_bytes())
    else:
        import h5py

        with h5py.File(shard) as file:
            dataset = file["features" if how == "row" else "videos/offsets"]
            content[dataset.id.get_offset() + 5] ^= 0x10
    shard.write_bytes(content)
    line = told(liteeval(cache, tmp_path / "run"))
    assert shard.name in line
    assert ("schema 9" if how == "schema" else "damaged shard") in line


def test_random_gating_asks_how_often(planted: Path, tmp_path: Path) -> None:
    words = [*STREAMS, *SMALL, *HIDDEN, "--out", tmp_path / "run"]
    assert "either --usage or --like" in told(run(planted, "random-gating", *words))
    assert "either --usage or --like" in told(
        run(planted, "random-gating", *words, "--usage", "0.1", "--like", tmp_path)
    )
    assert "no run folder of train-policy" in told(run(planted, "random-gating", *words, "--like", tmp_path))
