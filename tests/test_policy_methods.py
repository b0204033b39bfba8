"""Each method end to end on a small cache: what it says, what it looks at, what it is charged for."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file

from cache_schema import FeatureCache, UserError, VideoRecord, write_shard
from cache_schema.annotations import LabelSet, Segment, VideoLabel
from policy.baselines.config import CoarseOnlyConfig, UniformCFConfig, UniformConfig
from policy.baselines.lstm import CoarseOnly
from policy.config import OF_DESCENT, RunConfig, names_of
from policy.data.batches import VideoSet, uniform_rows
from policy.evaluation.ledger import IntArray, Ledger
from policy.evaluation.predictions import Judged, Predictions, read_arrays, write_arrays
from policy.method import class_probabilities, row_offsets
from policy.registry import CONFIGS, METHODS, completed, configure
from policy.runs import Listener, Run, open_data, read_result, run_method
from policy.samplers.shared import FittedAtOnce
from tests.caches import make_spec, write_stream
from tests.planted import write_planted

COARSE_MACS, FINE_MACS = 80_000_000, 7_800_000_000  # of the planted streams
DIM, CLASSES, HIDDEN, FRAMES = 10, 4, 12, 9
CONFIG: dict[str, Any] = {
    "coarse": "coarse_112",
    "fine": "fine_224",
    "epochs": 2,
    "batch": 7,
    "lr": 1e-3,
    "coarse_hidden": 6,
    "fine_hidden": HIDDEN,
    "frames": FRAMES,
    "row_hidden": HIDDEN,
    "saliency_hidden": HIDDEN,
    "top_rows": 5,
    "usage": 0.3,
    "gate_draws": 4,
    "models": ("small", "large"),
    "streams": ("coarse_112", "fine_224"),
    "policy_hidden": 6,
}
LSTM = 4 * HIDDEN * (DIM + HIDDEN)
HEAD = HIDDEN * CLASSES


CLASSIFIERS = [name for name in METHODS if METHODS[name].judged is Predictions]
"""The methods that give class scores; tests/test_wtalc.py has the others."""

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[FeatureCache, LabelSet]:
    """Planted features and, for the selector to choose from, class scores of three clips by two models."""
    folder = tmp_path_factory.mktemp("planted")
    _, labels = write_planted(folder, train=16, test=12, classes=CLASSES, dim=DIM)
    random = np.random.default_rng(0)
    for name, macs in (("small", 1_000_000), ("large", 9_000_000)):
        spec = make_spec(name, dim=2, classes=CLASSES, macs_per_row=macs)
        records = [
            VideoRecord(
                id=video.video_id,
                features=np.zeros((3, 2), np.float16),
                scores=random.normal(0, 2, (3, CLASSES)).astype(np.float16),
                spans=np.zeros((3, 2)),
            )
            for video in labels.videos
        ]
        write_shard(folder / name, spec, records, tools={"thriftvid": "test"})
    return FeatureCache(folder), labels


def config_of(name: str) -> RunConfig:
    """Selectors look at the cheapest of their pool; all others at the planted features."""
    return configure(name, CONFIG, coarse=None if name.startswith("selector") else CONFIG["coarse"])


@pytest.fixture(scope="module")
def runs(planted: tuple[FeatureCache, LabelSet], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("runs")
    return {name: run_method(config_of(name), *planted, folder / name, device="cpu") for name in CLASSIFIERS}


@pytest.mark.slow
def test_methods_are_imported_when_they_are_asked_for() -> None:
    """`policy.runs` itself imports no family, and knows the names."""
    code = "import sys, policy.runs; print(*(name for name in sys.modules if name.startswith('policy.')))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "policy.registry" in loaded
    assert not any(family in loaded for family in ("policy.liteeval", "policy.baselines", "policy.selection"))
    assert "lstm" in METHODS and "nonsense" not in METHODS
    with pytest.raises(KeyError):
        METHODS["nonsense"]


DECISIVE = {
    "liteeval": "64b65b1a49c9",
    "uniform": "920425f1d79f",
    "uniform-cf": "ddb5a3d94829",
    "lstm": "ca89806eac51",
    "lstm-cf": "0d18d5bff757",
    "frame-glimpse": "e7cc2c943f54",
    "fast-forward": "dd7175f7128a",
    "liteeval-rl": "0954dd69dad2",
    "coarse-only": "ca2dfc7c9a37",
    "adaframe": "8f8b7fbb64fe",
    "random-gating": "69ba3141b566",
    "frame-exit": "7f022b2e7b93",
    "scsampler": "a69cdbdfdbda",
    "confidence-exit": "80c3ee51cec7",
    "motion-difference": "e1bac54e872d",
    "selector": "0bbd8ed45530",
    "selector-cascade": "72deaf945853",
    "localization-selector": "1be15565c6d9",
    "ar-net": "973a462568ab",
    "wtalc": "1bdf0a215400",
}
"""Digests of what decides the key of a run with every option at its default. Where one changes, runs that people
have trained are trained again."""


@pytest.mark.parametrize("name", METHODS)
def test_what_decides_a_run_stays_as_it_is(name: str) -> None:
    decisive = json.dumps(configure(name, {}).decisive(), sort_keys=True)
    assert hashlib.sha256(decisive.encode()).hexdigest()[:12] == DECISIVE[name]


@pytest.mark.parametrize("name", METHODS)
def test_who_is_not_trained_by_descent_has_no_options_of_it(name: str) -> None:
    config = CONFIGS[name]
    assert config.by_descent != issubclass(METHODS[name], FittedAtOnce)
    assert config.by_descent == config.read_names().issuperset(OF_DESCENT)
    if not config.by_descent:  # what a table gives to all of its rows is not theirs
        given = configure(name, {"epochs": 60, "lr": 0.5, "patience": 3})
        assert given == config() and given.decisive().keys().isdisjoint(OF_DESCENT)


@pytest.mark.parametrize(
    ("name", "recipe", "there_are"),
    [
        ("scsampler", "released", "paper, robust, none"),
        ("adaframe", "released", "paper, robust, none"),
        ("motion-difference", "robust", "none at all"),
        ("liteeval", "loose", "paper, released, robust, none"),
    ],
)
def test_recipes_that_a_method_does_not_have(name: str, recipe: str, there_are: str) -> None:
    with pytest.raises(UserError, match=f"for {name} there is no such recipe; there are: {there_are}$"):
        completed(name, {}, recipe)


def test_a_configuration_takes_what_its_method_reads() -> None:
    config = configure("lstm", {"frames": 3, "gamma": 0.1}, seed=7)
    assert vars(config)["frames"] == 3 and config.seed == 7 and "gamma" not in vars(config)
    with pytest.raises(TypeError, match="no method reads gama"):
        configure("lstm", {"gama": 0.1})


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_summary_says_what_the_predictions_say(name: str, runs: dict[str, Run]) -> None:
    run = runs[name]
    said, result = run.predictions(), run.result
    assert said.scores.shape == (4 if name == "random-gating" else 1, 12, CLASSES)
    assert np.allclose(said.scores.sum(axis=2), 1, atol=1e-5)
    assert result == read_result(run.folder)
    assert result.metrics["top1"] == pytest.approx(
        np.mean([said.labels[np.arange(12), draw.argmax(axis=1)].mean() for draw in said.scores])
    )
    assert result.gflops_mean == pytest.approx(said.ledger.total.mean() / 1e9)
    assert result.gflops_mean == pytest.approx(sum(result.gflops.values()))
    assert result.gflops == pytest.approx({of: spent.mean() / 1e9 for of, spent in said.ledger.items()})
    fine = [
        [int(draw[a:b].sum()) for a, b in zip(said.offsets[:-1], said.offsets[1:], strict=True)]
        for draw in said.gates
    ]
    assert result.metrics["fine_features_mean"] == pytest.approx(np.mean(fine))
    assert result.metrics["fine_features_std"] == pytest.approx(np.std(fine))
    assert result.metrics["usage"] == pytest.approx(np.mean(np.array(fine) / said.lengths))


@pytest.mark.parametrize(
    ("name", "option", "what"),
    [
        ("uniform", "frames", "all of them are looked at"),
        ("lstm-cf", "frames", "all of them are looked at"),
        ("scsampler", "top_rows", "all of them are looked at"),
        ("motion-difference", "top_rows", "all of them are looked at"),
        ("frame-exit", "frames", "exits after more are left out"),
        ("confidence-exit", "frames", "exits after more are left out"),
        ("frame-glimpse", "glimpses", "it looks at some of them again"),
        ("adaframe", "looks", "it looks at some of them again"),
        ("adaframe", "memory_rows", "the memory has all of them"),
    ],
)
def test_a_note_on_more_rows_than_training_videos_have(
    name: str,
    option: str,
    what: str,
    planted: tuple[FeatureCache, LabelSet],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def enough(*_: object) -> None:
        raise UserError("nothing is trained here")

    monkeypatch.setattr("policy.runs._on_validation", enough)  # which comes next
    data = open_data(config_of("uniform"), *planted)
    longest = max(map(data.train.length, range(len(data.train))))
    few = {"frames": 2, "top_rows": 2, "glimpses": 2, "looks": 2, "memory_rows": 2}
    for rows, about in ((longest, []), (longest + 1, [option])):
        notes: list[str] = []
        config = configure(name, {**CONFIG, **few, option: rows})
        with pytest.raises(UserError, match="nothing is trained here"):
            run_method(config, *planted, tmp_path / "run", device="cpu", listener=Listener(notes.append))
        flags = [f"--{one.replace('_', '-')}" for one in about]
        lines = [f"{flag} {rows}: no training video has more than {longest} rows; {what}" for flag in flags]
        assert [note for note in notes if "no training video" in note] == lines


def spent_on(said: Predictions, video: int) -> dict[str, int]:
    """MACs of a video in the first draw, by name."""
    return {name: int(macs[0, video]) for name, macs in said.ledger.items()}


@pytest.mark.parametrize(
    ("name", "coarse", "network"),
    [
        ("uniform", False, lambda k: k * DIM * CLASSES),
        ("uniform-cf", True, lambda k: k * 2 * DIM * CLASSES),
        ("lstm", False, lambda k: k * LSTM + HEAD),
        ("lstm-cf", True, lambda k: k * (LSTM + 4 * HIDDEN * DIM) + HEAD),
    ],
)
def test_methods_of_k_frames(name: str, coarse: bool, network: object, runs: dict[str, Run]) -> None:
    said = runs[name].predictions()
    for video, length in enumerate(said.lengths):
        rows = uniform_rows(int(length), FRAMES)
        k = len(rows)
        gates = said.gates[0, said.offsets[video] : said.offsets[video + 1]]
        assert np.flatnonzero(gates).tolist() == rows.tolist()
        streams = {**({"coarse_112": k * COARSE_MACS} if coarse else {}), "fine_224": k * FINE_MACS}
        of_network = "frame classifier" if name.startswith("uniform") else "LSTM network"
        expected = {**streams, of_network: network(k)}  # type: ignore[operator]
        assert spent_on(said, video) == expected


@dataclass(frozen=True)
class Spans(Judged):
    """(M, 2) seconds that a method has found; the labels' are the videos' segments."""

    video_ids: tuple[str, ...]
    offsets: IntArray
    ledger: Ledger
    found: npt.NDArray[np.float64]
    shown: npt.NDArray[np.float64]

    def metrics(self) -> dict[str, float]:
        return {"error_s": float(np.abs(self.found - self.shown).mean())}

    def save(self, path: Path) -> None:
        write_arrays(path, self, {"offsets": self.offsets, "found": self.found, "shown": self.shown})

    @classmethod
    def load(cls, path: Path) -> Spans:
        with read_arrays(path) as (video_ids, ledger, arrays):
            return cls(video_ids, ledger=ledger, **arrays)


class SpotterConfig(CoarseOnlyConfig):
    method = "spotter"


class Spotter(CoarseOnly):
    """Says that what is shown is shown from the first second to the third."""

    title = "Spotter"
    judged = Spans

    def evaluate(self, videos: VideoSet, *, device: torch.device) -> Spans:
        ledger = Ledger({"spotter network": np.full((1, len(videos)), 2_000_000_000)})
        shown = np.stack([segments.spans[0] for segments in videos.segments])
        return Spans(videos.ids, row_offsets(videos), ledger, np.tile([1.0, 3.0], (len(videos), 1)), shown)


def test_a_family_judges_itself(
    planted: tuple[FeatureCache, LabelSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but the family knows what is said of a video, and how good that is."""
    cache, labels = planted
    videos = [replace(v, segments=(Segment(v.labels[0], 1.5, 4.5),)) for v in labels.videos]
    monkeypatch.setattr("policy.runs.METHODS", {"spotter": Spotter})
    config = SpotterConfig(coarse="coarse_112", epochs=1, batch=7, lr=1e-3, fine_hidden=HIDDEN)
    labels = LabelSet(labels.source, tuple(videos))
    run = run_method(config, cache, labels, tmp_path / "run", device="cpu")
    assert run.result == read_result(run.folder)
    assert run.result.metrics == {"error_s": 1.0} and run.result.gflops == {"spotter network": 2.0}
    assert (run.result.gflops_mean, run.result.videos, run.result.classes) == (2.0, 12, CLASSES)
    shown = run.result.as_json()
    assert shown["error_s"] == 1.0 and "metrics" not in shown and "top1" not in shown
    judged = run.judged()
    assert isinstance(judged, Spans) and judged.found.tolist() == [[1.0, 3.0]] * 12
    assert judged.ledger.keys() == {"spotter network"} and judged.video_ids[0] == "video_0016"
    assert Spans.summary(run.result.metrics, run.result.rows_mean, {"GFLOPs": "2"}) == {
        "error_s": "1",
        "GFLOPs": "2",
    }
    with pytest.raises(UserError, match="a run of spotter, which says more than class scores"):
        run.predictions()


def test_coarse_only(runs: dict[str, Run]) -> None:
    said = runs["coarse-only"].predictions()
    assert not said.gates.any()
    lengths = said.lengths
    assert set(said.ledger) == {"coarse_112", "LSTM network"}
    assert np.array_equal(said.ledger["coarse_112"][0], lengths * COARSE_MACS)
    assert np.array_equal(said.ledger["LSTM network"][0], lengths * LSTM + HEAD)


@pytest.mark.parametrize("name", ["liteeval", "liteeval-rl", "random-gating"])
def test_gated_methods_pay_for_opened_rows(name: str, runs: dict[str, Run]) -> None:
    said = runs[name].predictions()
    coarse_step = 4 * 6 * (DIM + 6) + 2 * (DIM + HIDDEN)
    fine_step = 4 * HIDDEN * (2 * DIM + HIDDEN)
    for draw in range(len(said.scores)):
        opened = said.fine_rows[draw]
        assert np.array_equal(said.ledger["coarse_112"][draw], said.lengths * COARSE_MACS)
        assert np.array_equal(said.ledger["fine_224"][draw], opened * FINE_MACS)
        networks = said.lengths * coarse_step + opened * fine_step + HEAD
        assert np.array_equal(said.ledger["LiteEval networks"][draw], networks)


def test_random_gates_open_as_often_as_asked(runs: dict[str, Run]) -> None:
    said = runs["random-gating"].predictions()
    opened = said.gates.mean()
    assert abs(opened - 0.3) < 4 * np.sqrt(0.3 * 0.7 / said.gates.size)
    assert not np.array_equal(said.gates[0], said.gates[1])


def test_random_gating_needs_a_usage(planted: tuple[FeatureCache, LabelSet], tmp_path: Path) -> None:
    config = configure("random-gating", CONFIG, usage=None)
    with pytest.raises(UserError, match="needs the usage to match"):
        run_method(config, *planted, tmp_path / "run", device="cpu")
    # Nothing came of it: the folder is free for the run that was meant.
    run_method(configure("random-gating", CONFIG, usage=0.5), *planted, tmp_path / "run", device="cpu")


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_prediction_does_not_depend_on_the_videos_beside_it(
    name: str, planted: tuple[FeatureCache, LabelSet], runs: dict[str, Run], tmp_path: Path
) -> None:
    cache, labels = planted
    test = [video for video in labels.videos if video.subset == "test"][::3]
    few = LabelSet(labels.source, (*labels.subset("train"), *test))
    config = replace(config_of(name), skip_missing=True)
    said = run_method(config, cache, few, tmp_path / "run", device="cpu").predictions()
    full = runs[name].predictions()
    assert said.video_ids == full.video_ids[::3]
    assert np.allclose(said.scores, full.scores[:, ::3], atol=1e-5)


def test_an_lstm_is_what_torch_computes_without_packing(
    planted: tuple[FeatureCache, LabelSet], runs: dict[str, Run]
) -> None:
    weights = load_file(runs["lstm-cf"].folder / "model.safetensors")
    cell = torch.nn.LSTMCell(2 * DIM, HIDDEN)
    cell.load_state_dict(
        {k.removeprefix("lstm.").removesuffix("_l0"): v for k, v in weights.items() if "_l0" in k}
    )
    said = runs["lstm-cf"].predictions()
    for video, video_id in enumerate(said.video_ids):
        records = [planted[0][name][video_id].features for name in ("coarse_112", "fine_224")]
        rows = uniform_rows(len(records[0]), FRAMES)
        scaled = [
            (torch.from_numpy(r[rows].astype(np.float32)) - weights[f"scales.{s}.mean"])
            / weights[f"scales.{s}.std"]
            for s, r in enumerate(records)
        ]
        state = (torch.zeros(1, HIDDEN), torch.zeros(1, HIDDEN))
        for step in torch.cat(scaled, 1):
            state = cell(step[None], state)
        logits = weights["classifier.weight"] @ state[0][0] + weights["classifier.bias"]
        assert np.allclose(logits.softmax(0).detach().numpy(), said.scores[0, video], atol=1e-5)


@pytest.mark.parametrize("norm", ["l2", "none"])
def test_other_input_norms(norm: str, planted: tuple[FeatureCache, LabelSet], tmp_path: Path) -> None:
    config = configure("liteeval", CONFIG, input_norm=norm)
    run = run_method(config, *planted, tmp_path / "run", device="cpu")
    weights = load_file(run.folder / "model.safetensors")
    assert not weights["coarse_scale.mean"].any()


NAMES = ("swim", "run", "sit", "jump")


@pytest.fixture(scope="module")
def with_scores(tmp_path_factory: pytest.TempPathFactory) -> tuple[FeatureCache, LabelSet]:
    folder = tmp_path_factory.mktemp("scores")
    spec = replace(make_spec("fine", dim=6, classes=len(NAMES)), classes=NAMES)
    write_stream(folder, spec, {f"v{i}": 3 + 2 * i for i in range(8)})
    write_stream(folder, make_spec("coarse", dim=5), {f"v{i}": 3 + 2 * i for i in range(8)})
    videos = [VideoLabel(f"v{i}", (("run", "jump")[i % 2],), "train" if i < 4 else "val") for i in range(8)]
    return FeatureCache(folder), LabelSet(Path("labels.csv"), tuple(videos))


def test_uniform_averages_the_class_scores_of_the_cache(
    with_scores: tuple[FeatureCache, LabelSet], tmp_path: Path
) -> None:
    cache, labels = with_scores
    config = UniformConfig(fine="fine", frames=5)
    run = run_method(config, cache, labels, tmp_path / "run", device="cpu")
    assert not run.result.trained
    assert run.class_scores == "averages the stream's own (fine)"
    said = run.predictions()
    for video, video_id in enumerate(said.video_ids):
        scores = cache["fine"][video_id].scores
        assert scores is not None
        rows = uniform_rows(len(scores), 5)
        logits = scores[rows][:, [3, 1]].astype(np.float64)  # jump, run: the classes in order
        odds = np.exp(logits)
        assert np.allclose(
            said.scores[0, video], (odds / odds.sum(axis=1, keepdims=True)).mean(axis=0), atol=1e-6
        )
        assert spent_on(said, video) == {"fine": 5 * 1_000_000, "frame classifier": 5 * 6 * len(NAMES)}


def test_uniform_cf_fits_a_classifier_where_there_are_no_scores(
    with_scores: tuple[FeatureCache, LabelSet], tmp_path: Path
) -> None:
    config = UniformCFConfig(coarse="coarse", fine="fine", frames=5, epochs=2)
    both = run_method(config, *with_scores, tmp_path / "both", device="cpu")
    assert both.result.trained
    assert both.class_scores == "fits a linear classifier (coarse), averages the stream's own (fine)"
    fine = run_method(configure("uniform", vars(config)), *with_scores, tmp_path / "fine", device="cpu")
    coarse = 2 * both.predictions().scores - fine.predictions().scores
    assert np.allclose(coarse.sum(axis=2), 1, atol=1e-5)
    classifiers = 5 * (6 * len(NAMES) + 5 * 2)
    expected = {"coarse": 5_000_000, "fine": 5_000_000, "frame classifier": classifiers}
    assert spent_on(both.predictions(), 0) == expected


def test_scores_that_lack_a_class_are_not_used(
    with_scores: tuple[FeatureCache, LabelSet], tmp_path: Path
) -> None:
    cache, labels = with_scores
    videos = [
        replace(video, labels=("run", "fly")[i % 2 : i % 2 + 1]) for i, video in enumerate(labels.videos)
    ]
    config = UniformConfig(fine="fine", epochs=1)
    run = run_method(config, cache, LabelSet(labels.source, tuple(videos)), tmp_path / "run", device="cpu")
    assert run.result.trained


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_several_classes_per_video(name: str, planted: tuple[FeatureCache, LabelSet], tmp_path: Path) -> None:
    cache, labels = planted
    videos = tuple(
        replace(video, labels=(*video.labels, "class 0")) if video.labels != ("class 0",) else video
        for video in labels.videos
    )
    config = config_of(name)
    run = run_method(config, cache, LabelSet(labels.source, videos), tmp_path / "run", device="cpu")
    said = run.predictions()
    assert said.labels.sum(axis=1).tolist().count(2) == 9
    assert not np.allclose(said.scores.sum(axis=2), 1)  # a probability for each class by itself
    assert 0 < run.result.metrics["mean_average_precision"] <= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_single_label_on_several_classes_per_video(
    name: str, planted: tuple[FeatureCache, LabelSet], tmp_path: Path
) -> None:
    cache, labels = planted
    videos = tuple(
        replace(video, labels=tuple(dict.fromkeys((*video.labels, "class 0")))) for video in labels.videos
    )
    config = replace(config_of(name), multi_label=False)
    run = run_method(config, cache, LabelSet(labels.source, videos), tmp_path / "run", device="cpu")
    said = run.predictions()
    assert said.labels.sum(axis=1).tolist().count(2) == 9
    assert np.allclose(said.scores.sum(axis=2), 1, atol=1e-5)
    plain = run_method(config_of(name), *planted, tmp_path / "plain", device="cpu").predictions()
    assert np.array_equal(said.scores, plain.scores)  # the second classes have had no part in training


def test_class_probabilities() -> None:
    logits = torch.tensor([[0.0, np.log(3.0)]])
    assert class_probabilities(logits, False).numpy() == pytest.approx(np.array([[0.25, 0.75]]))
    assert class_probabilities(logits, True).numpy() == pytest.approx(np.array([[0.5, 0.75]]))


def test_damaged_predictions(tmp_path: Path) -> None:
    (tmp_path / "predictions.npz").write_bytes(b"PK nothing")
    with pytest.raises(UserError, match="cannot be read as predictions"):
        Predictions.load(tmp_path / "predictions.npz")


def test_schedules_of_liteeval(planted: tuple[FeatureCache, LabelSet], tmp_path: Path) -> None:
    config = configure("liteeval", CONFIG, epochs=5, warmup=0.5, gamma=0.2, tau_start=8.0, tau_end=0.5)
    run = run_method(config, *planted, tmp_path / "run", device="cpu")
    epochs = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [epoch["epoch"] for epoch in epochs] == [1, 2, 3, 4, 5]
    assert [epoch["tau"] for epoch in epochs] == pytest.approx([8, 4, 2, 1, 0.5])
    assert [epoch["target_usage"] for epoch in epochs] == pytest.approx([1, 0.6, 0.2, 0.2, 0.2])
    for epoch in epochs:
        assert 0 <= epoch["usage"] <= 1
        assert epoch["loss"] >= epoch["classification"]


def test_random_gating_warms_up_as_liteeval_does(
    planted: tuple[FeatureCache, LabelSet], tmp_path: Path
) -> None:
    config = configure("random-gating", CONFIG, epochs=5, warmup=0.5, gamma=0.9, usage=0.2)
    run = run_method(config, *planted, tmp_path / "run", device="cpu")
    epochs = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [epoch["target_usage"] for epoch in epochs] == pytest.approx([1, 0.6, 0.2, 0.2, 0.2])
    assert [epoch["usage"] for epoch in epochs] == pytest.approx([1, 0.6, 0.2, 0.2, 0.2], abs=0.1)
    assert run.result.metrics["usage"] == pytest.approx(0.2, abs=0.1)
    assert "warmup" in names_of(CONFIGS["random-gating"])


def test_without_warmup_the_loss_is_eq_7(runs: dict[str, Run]) -> None:
    epochs = [
        json.loads(line) for line in (runs["liteeval"].folder / "metrics.jsonl").read_text().splitlines()
    ]
    assert [epoch["target_usage"] for epoch in epochs] == pytest.approx([0.05, 0.05])
