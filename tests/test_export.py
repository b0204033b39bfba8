"""Exported networks, run by onnxruntime, decide and answer over whole videos as sessions do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

from cache_schema import FeatureCache, StreamSpec, UserError, VideoRecord, write_shard
from cache_schema.annotations import LabelSet, VideoLabel
from extract.backbones import parse_stream
from extract.backbones.backbone import Backbone
from extract.transform import resize_and_crop
from policy.baselines.config import UniformConfig
from policy.cli.export import export
from policy.data.batches import unit_length
from policy.deploy import export as exporting
from policy.deploy.export import export_onnx
from policy.deploy.session import open_session
from policy.liteeval.config import LiteEvalConfig
from policy.liteeval.session import LiteEvalSession
from policy.localization.session import WTALCSession
from policy.registry import configure
from policy.runs import run_method
from policy.samplers.adaframe import AdaFrameSession
from policy.samplers.ar_net import ARNetSession
from policy.samplers.exits import ExitSession
from policy.selection.config import SelectorConfig
from policy.selection.session import CascadeSession, SelectorSession
from tests.caches import make_record, make_spec
from tests.planted import write_planted
from tests.sessions import drive

onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]

Arrays = dict[str, NDArray[Any]]


class Exported:
    """A network and its JSON, without anything of ours."""

    def __init__(self, folder: Path, name: str) -> None:
        self.facts = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        self._session = onnxruntime.InferenceSession(folder / f"{name}.onnx")

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        names = list(self.facts["outputs"])
        given = {
            name: np.asarray(inputs[name], np.uint8 if name == "pixels" else np.float32)
            for name in self.facts["inputs"]
        }
        outputs = dict(zip(names, self._session.run(names, given), strict=True))
        rows = len(next(iter(given.values())))
        for name, shape in self.facts["outputs"].items():
            assert list(outputs[name].shape) == [rows if size == "rows" else size for size in shape]
        return outputs


# --- LiteEval ---

LITEEVAL = LiteEvalConfig(
    coarse="coarse_112", fine="fine_224", epochs=2, batch=5, lr=1e-2, coarse_hidden=6, fine_hidden=12
)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[FeatureCache, LabelSet]:
    """With a further stream that has class scores, in another order."""
    folder = tmp_path_factory.mktemp("planted")
    cache, labels = write_planted(folder, train=10, test=8, classes=4, dim=10, lengths=(4, 12))
    names = (*(f"class {label}" for label in (2, 0, 3, 1)), "other")
    spec = replace(make_spec("scored_160", dim=7, classes=len(names), macs_per_row=10**9), classes=names)
    records = [
        make_record(video_id, len(record.features), dim=7, classes=len(names))
        for video_id, record in cache["coarse_112"].items()
    ]
    write_shard(folder / spec.name, spec, records, tools={"thriftvid": "test"})
    return FeatureCache(folder), labels


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("liteeval", {"input_norm": "l2", "cell": "lstm", "gate_state": "hidden+cell"}),
        ("liteeval", {"cell": "gru", "coarse_projection": 7, "fine_projection": 8}),
        ("liteeval", {"cell": "sru", "sync": False, "multi_label": True}),
        ("liteeval-rl", {"coarse_projection": 9, "input_norm": "l2"}),
        ("liteeval", {"readout": "mean"}),
        ("liteeval", {"readout": "max", "cell": "gru"}),
        ("liteeval", {"readout": "attention"}),
    ],
)
def test_liteeval(
    method: str, change: dict[str, Any], planted: tuple[FeatureCache, LabelSet], tmp_path: Path
) -> None:
    cache, _ = planted
    config = configure(method, vars(LITEEVAL), **change)
    run = run_method(config, *planted, tmp_path / "run", device="cpu")
    session = open_session(run.folder)
    assert isinstance(session, LiteEvalSession)
    move_threshold(session, planted, run.folder)
    paths = export_onnx(run.folder, tmp_path / "phone")
    assert [path.name for path in paths] == ["step.onnx", "fine.onnx"]
    step, fine = (Exported(tmp_path / "phone", name) for name in ("step", "fine"))
    assert step.facts["classes"] == list(session.classes)
    gates = set()
    for video_id in run.predictions().video_ids:
        session.begin()
        states = {
            name: np.zeros(shape, np.float32)
            for name, shape in step.facts["inputs"].items()
            if name != "coarse"
        }
        rows = zip(cache["coarse_112"][video_id].features, cache["fine_224"][video_id].features, strict=True)
        for coarse, detail in rows:
            outputs = step({"coarse": coarse[None], **states})
            is_open = bool(outputs["log_odds"][0] > step.facts["threshold"])
            assert session.look(coarse) == is_open
            gates.add(is_open)
            if is_open:
                session.fine(detail)
                outputs |= fine({"coarse": coarse[None], "fine": detail[None], **states})
            states = {name: outputs[f"{name}_next"] for name in states}
            assert np.abs(outputs["probabilities"][0] - session.probabilities.numpy()).max() < 1e-5
    assert gates == {True, False}


def move_threshold(session: LiteEvalSession, planted: tuple[FeatureCache, LabelSet], folder: Path) -> None:
    """To the log-odds of a first frame, so that gates do and do not open."""
    from safetensors.torch import load_file, save_file

    cache, labels = planted
    log_odds = []
    for video in labels.videos:
        row = cache["coarse_112"][video.video_id].features[:1]
        scaled = unit_length(row) if session._l2 else row.copy()
        look, _ = session.model.look(torch.from_numpy(scaled), *session.model.initial_state(1))
        log_odds.append(look.item())
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["threshold"].fill_(float(np.median(log_odds)) + 1e-3)
    save_file(tensors, path)
    session.model.threshold.copy_(tensors["threshold"])


PAGE = (Path(__file__).parents[1] / "docs/online.md").read_text(encoding="utf-8")
CODE = dict(re.findall(r"^```python (\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))


def test_the_page(
    planted: tuple[FeatureCache, LabelSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = run_method(LITEEVAL, *planted, tmp_path / "runs/liteeval", device="cpu")
    exec(CODE["export"], {})
    session, (cache, _) = open_session(run.folder), planted
    for video_id in run.predictions().video_ids[:3]:
        videos = {name: cache[name][video_id] for name in session.streams}
        drive(session, cache, video_id)

        def network(stream: str, videos: Mapping[str, Any] = videos) -> Any:
            return lambda row: videos[stream].features[row][None].astype(np.float32)

        loop = {
            "video": range(len(videos["coarse_112"].features)),
            "cheap_network": network("coarse_112"),
            "expensive_network": network("fine_224"),
        }
        exec(CODE["onnx"], loop)
        assert loop["answer"] == next(iter(session.answer))
        assert np.allclose(loop["after"]["probabilities"][0], session.probabilities, atol=1e-5)


# --- selectors ---

SELECTOR = SelectorConfig(
    decisions="perceptron",
    models=("m0", "m1:2", "m2"),
    epochs=20,
    batch=8,
    lr=1e-2,
    selector_hidden=8,
    target="loss",
    budget=4.0,
)
COUNT, DIM = 4, 6
NAMES = tuple("dcba")


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> tuple[FeatureCache, LabelSet]:
    """Models whose classes are in an order of their own, and one further, the better the dearer."""
    folder, random = tmp_path_factory.mktemp("pool"), np.random.default_rng(0)
    labels = random.integers(COUNT, size=40)
    for place, name in enumerate(("m0", "m1", "m2", "other")):
        classes = (*NAMES, "f") if name != "other" else ("x", "y", "z")
        records = []
        for video, label in enumerate(labels.tolist()):
            rows = 3 + (video + place) % 3
            record = make_record(f"v{video:02d}", rows, dim=DIM, classes=len(classes), seed=place)
            assert record.scores is not None
            if name != "other":
                record.scores[:, NAMES.index("abcd"[label])] += place + random.normal()
            record.features[:, label] += 1
            records.append(record)
        spec = make_spec(name, dim=DIM, classes=len(classes), macs_per_row=10**8 * 4 ** (place % 3))
        write_shard(folder / name, replace(spec, classes=classes), records, tools={"thriftvid": "test"})
    videos = (
        VideoLabel(f"v{video:02d}", ("abcd"[label],), "train" if video < 28 else "test")
        for video, label in enumerate(labels.tolist())
    )
    return FeatureCache(folder), LabelSet(folder / "labels.csv", tuple(videos))


def places_of(facts: Mapping[str, Any], length: int) -> list[int]:
    """The rows that a network looks at, of a video of so many."""
    count = facts["rows"]
    if count == "all" or count >= length:
        return list(range(length))
    return [(2 * k + 1) * length // (2 * count) for k in range(count)]


def answer_of(network: Exported, cache: FeatureCache, video_id: str) -> Arrays:
    """From the rows that its model looks at."""
    record = cache[network.facts["stream"]][video_id]
    assert record.scores is not None
    places = places_of(network.facts, len(record.features))
    return network({"features": record.features[places], "scores": record.scores[places]})


def choose(facts: Mapping[str, Any], confidences: NDArray[np.floating[Any]]) -> str:
    """The page's rule, with plain loops."""
    order = sorted(range(len(confidences)), key=lambda n: facts["gflops"][n])
    if facts["rule"] == "price":
        worth = {n: float(confidences[n]) - facts["price"] * facts["gflops"][n] for n in order}
        return str(facts["models"][max(order, key=lambda n: worth[n])])
    for n in order:
        if confidences[n] >= facts["threshold"]:
            return str(facts["models"][n])
    last = order[-1] if facts["when_none"] == "largest" else max(order, key=lambda n: confidences[n])
    return str(facts["models"][last])


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        SELECTOR,
        replace(SELECTOR, heads="linear", folds=2, input_norm="l2", confidence_input=True),
        replace(SELECTOR, heads="linear", folds=2, coarse="other", multi_label=True),
        replace(SELECTOR, selector_input="scores+features", input_norm="l2"),
        replace(SELECTOR, decisions="logistic", answer="chosen", budget=None, threshold=0.05),
        replace(SELECTOR, target="affinity", threshold=0.4, budget=None, coarse="other", rows=2),
        replace(SELECTOR, coarse="other", selector_input="features", when_none="most-confident"),
    ],
)
def test_selector(config: SelectorConfig, pool: tuple[FeatureCache, LabelSet], tmp_path: Path) -> None:
    cache, _ = pool
    run = run_method(config, *pool, tmp_path / "run", device="cpu")
    paths = export_onnx(str(run.folder), str(tmp_path / "phone"))
    assert [path.stem for path in paths] == ["selector", "answer-m0", "answer-m1", "answer-m2"]
    nets = {path.stem: Exported(tmp_path / "phone", path.stem) for path in paths}
    session, facts = open_session(run.folder), nets["selector"].facts
    assert isinstance(session, SelectorSession)
    chosen = set()
    for video_id in run.predictions().video_ids:
        confidences = answer_of(nets["selector"], cache, video_id)["confidences"]
        name = choose(facts, confidences)
        drive(session, cache, video_id)
        assert session.chosen == name
        chosen.add(name)
        probabilities = answer_of(nets[f"answer-{name}"], cache, video_id)["probabilities"]
        assert np.abs(probabilities - session.probabilities.numpy()).max() < 1e-5
    assert len(chosen) > 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"decisions": "logistic", "budget": None, "threshold": 0.005},
        {"answer": "largest", "coarse": "m1"},
        {"answer": "mean", "selector_input": "scores+features", "input_norm": "l2", "multi_label": True},
        {"heads": "linear", "folds": 2, "budget": 6.0, "selector_input": "scores+features"},
    ],
)
def test_cascade(change: dict[str, Any], pool: tuple[FeatureCache, LabelSet], tmp_path: Path) -> None:
    """The page's rule, from one model to the next."""
    cache, _ = pool
    config = configure(
        "selector-cascade", vars(SELECTOR), **{"weight_decay": 0.0, "threshold": None, **change}
    )
    run = run_method(config, *pool, tmp_path / "run", device="cpu")
    paths = export_onnx(run.folder, tmp_path / "phone")
    assert [path.stem for path in paths] == ["cascade", "answer-m0", "answer-m1", "answer-m2"]
    nets = {path.stem: Exported(tmp_path / "phone", path.stem) for path in paths}
    session, cascade = open_session(run.folder), nets["cascade"]
    facts, models = cascade.facts, cascade.facts["models"]
    assert isinstance(session, CascadeSession)
    walks = set()
    for video_id in run.predictions().video_ids:
        inputs: Arrays = {
            "probabilities": np.full((len(models), COUNT), np.nan),
            "ran": np.zeros(len(models)),
        }
        walk, following = [], facts["looks_at"]
        while following is not None:
            walk.append(following)
            place = models.index(following)
            found = answer_of(nets[f"answer-{following}"], cache, video_id)
            inputs["probabilities"][place], inputs["ran"][place] = found["probabilities"], 1
            inputs |= {name: found[name] for name in ("mean_features",) if name in found}
            outputs = cascade(inputs)
            left = [n for n in range(len(models)) if not inputs["ran"][n]]
            worth = {n: outputs["chances"][n] - facts["price"] * facts["gflops"][n] for n in left}
            best = max(left, key=lambda n: worth[n], default=None)
            following = models[best] if best is not None and worth[best] > outputs["sure"] else None
        drive(session, cache, video_id)
        assert list(session.ran) == walk
        assert np.abs(outputs["answer"] - session.probabilities.numpy()).max() < 1e-5
        walks.add(tuple(walk))
    assert len(walks) > 1


# --- baselines and localization ---


@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("lstm", {"frames": 5, "input_norm": "l2"}),
        ("lstm-cf", {"frames": 4, "multi_label": True}),
        ("coarse-only", {}),
        ("coarse-only", {"readout": "attention"}),
        ("uniform", {"frames": 3, "input_norm": "l2"}),
        ("uniform-cf", {"frames": 50}),
        ("wtalc", {"appearance": "coarse_112", "input_norm": "none"}),
        ("wtalc", {"appearance": "coarse_112", "motion": "fine_224", "input_norm": "l2"}),
    ],
)
def test_fixed_rows(
    method: str, change: dict[str, Any], planted: tuple[FeatureCache, LabelSet], tmp_path: Path
) -> None:
    cache, _ = planted
    small = {"hidden": 8, "epochs": 2, "epoch_steps": 3, "batch": 4, "pairs": 1, "lr": 1e-2}
    given = {**small, **change} if method == "wtalc" else vars(LITEEVAL) | change
    run = run_method(configure(method, given), *planted, tmp_path / "run", device="cpu")
    (path,) = export_onnx(run.folder, tmp_path / "phone")
    network, session = Exported(path.parent, path.stem), open_session(run.folder)
    facts, judged = network.facts, run.judged()
    for video_id in judged.video_ids:
        drive(session, cache, video_id)
        if method == "wtalc":
            assert isinstance(session, WTALCSession)
            sides = [cache[name][video_id].features for name in facts["streams"]]
            outputs = network({"features": np.concatenate(sides, 1)})
            assert np.abs(outputs["activations"] - session.activations.numpy()).max() < 1e-5
            continue
        videos = {role: cache[name][video_id].features for role, name in facts["streams"].items()}
        length = len(next(iter(videos.values())))
        places = places_of(facts, length)
        if path.stem == "answer":
            found = network({role: rows[places] for role, rows in videos.items()})["probabilities"]
        else:
            state = {name: np.zeros(facts["inputs"][name]) for name in facts["inputs"].keys() - videos.keys()}
            for place in places:
                outputs = network({**{role: rows[[place]] for role, rows in videos.items()}, **state})
                state = {name: outputs[f"{name}_next"] for name in state}
            found = outputs["probabilities"][0]
        assert np.abs(found - session.probabilities.numpy()).max() < 1e-5


def test_uniform_on_the_class_scores_of_its_stream(
    pool: tuple[FeatureCache, LabelSet], tmp_path: Path
) -> None:
    run = run_method(UniformConfig(fine="m1", frames=2), *pool, tmp_path / "run", device="cpu")
    export_onnx(run.folder, tmp_path / "phone")
    network, session = Exported(tmp_path / "phone", "answer"), open_session(run.folder)
    for video_id in run.predictions().video_ids:
        drive(session, pool[0], video_id)
        scores = pool[0]["m1"][video_id].scores
        assert scores is not None
        found = network({"fine_scores": scores[places_of(network.facts, len(scores))]})["probabilities"]
        assert np.abs(found - session.probabilities.numpy()).max() < 1e-5


# --- samplers ---


def exit_steps(
    networks: Sequence[Exported], cache: FeatureCache, video_id: str, threshold: float
) -> Iterator[tuple[Sequence[str], int, Arrays]]:
    """The page's loop: of each step the streams, the row and what the network gives."""
    for network in networks:
        facts = network.facts
        streams = [facts["stream"]] if "stream" in facts else facts["streams"]  # side by side
        videos = [cache[name][video_id] for name in streams]
        rows = np.array(places_of(facts, len(videos[0].features)))
        given = facts["inputs"].keys() & {"features", "scores"}
        state = {name: np.zeros(facts["inputs"][name]) for name in facts["inputs"].keys() - given}
        for row in rows[facts["orders"][len(rows) - 1]].tolist():
            of_row = {
                name: np.concatenate([getattr(video, name)[[row]] for video in videos], 1) for name in given
            }
            outputs = network({**of_row, **state})
            state = {name: outputs[f"{name}_next"] for name in state}
            yield streams, row, outputs
            if outputs["log_odds"][0] < threshold:
                return


def rows_of(video: VideoRecord, rows: Sequence[int]) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """As sessions take them."""
    return video.features[rows], None if video.scores is None else video.scores[rows]


EXITS = {"lr": 1e-2, "epochs": 3, "batch": 5, "row_hidden": 16, "fine": "fine_224"}


@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("frame-exit", {"frames": 6, "input_norm": "l2", "further_streams": ("coarse_112",)}),
        ("frame-exit", {"frames": 30, "multi_label": True}),
        ("frame-exit", {"frames": 1}),
        (
            "confidence-exit",
            {"frames": 4, "input_norm": "l2", "further_streams": ("scored_160", "coarse_112")},
        ),
        ("confidence-exit", {"frames": 30, "multi_label": True, "fine": "scored_160"}),
    ],
)
def test_exits(
    method: str, change: dict[str, Any], planted: tuple[FeatureCache, LabelSet], tmp_path: Path
) -> None:
    """At a threshold at which half of the decisions are to go on."""
    run = run_method(configure(method, EXITS | change), *planted, tmp_path / "run", device="cpu")
    paths, session = export_onnx(run.folder, tmp_path / "phone"), open_session(run.folder)
    assert isinstance(session, ExitSession)
    cache, _ = planted
    networks = [Exported(tmp_path / "phone", path.stem) for path in paths]
    assert {network.facts["threshold"] for network in networks} == {float(session.network.threshold)}
    video_ids, counts = run.predictions().video_ids, set()
    every_step = [step for each in video_ids for *_, step in exit_steps(networks, cache, each, -np.inf)]
    threshold = float(np.median([step["log_odds"] for step in every_step])) + 1e-3
    session.network.threshold.fill_(threshold)
    for video_id in video_ids:
        videos = {name: cache[name][video_id] for name in session.streams}
        session.begin({name: video.spans for name, video in videos.items()})
        steps = list(exit_steps(networks, cache, video_id, threshold))
        for streams, row, outputs in steps:
            for name in streams:
                wanted = session.wanted()
                assert wanted is not None and (wanted.stream, wanted.rows.tolist()) == (name, [row])
                session.take(*rows_of(videos[name], [row]))
            assert np.abs(outputs["probabilities"][0] - session.probabilities.numpy()).max() < 1e-5
        assert session.wanted() is None
        counts.add(len(steps))
    assert len(counts) > 1 or change["frames"] == 1


SALIENT = {
    **{"coarse": "coarse_112", "fine": "fine_224", "saliency_hidden": 8, "top_rows": 3},
    **{"lr": 1e-2, "epochs": 3, "batch": 5},
}


@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("scsampler", {"input_norm": "l2", "further_streams": ("scored_160",)}),
        ("scsampler", {"saliency": "classes", "multi_label": True, "fine": "scored_160"}),
        ("motion-difference", {"further_streams": ("scored_160",)}),
        ("motion-difference", {"input_norm": "l2", "fine": "scored_160"}),
    ],
)
def test_salient_rows(
    method: str, change: dict[str, Any], planted: tuple[FeatureCache, LabelSet], tmp_path: Path
) -> None:
    """With features of the fine stream, and with its class scores."""
    cache, _ = planted
    run = run_method(configure(method, SALIENT | change), *planted, tmp_path / "run", device="cpu")
    export_onnx(run.folder, tmp_path / "phone")
    saliency, answer = (Exported(tmp_path / "phone", name) for name in ("saliency", "answer"))
    session = open_session(run.folder)
    for video_id in run.predictions().video_ids:
        cheap = [cache[name][video_id].features for name in saliency.facts["streams"]]
        salient = saliency({"features": np.concatenate(cheap, 1)})["saliency"]
        assert np.isfinite(saliency({"features": np.concatenate(cheap, 1)[:1]})["saliency"]).all()
        rows = sorted(np.argsort(-salient, kind="stable")[: saliency.facts["top_rows"]].tolist())
        *_, wanted = drive(session, cache, video_id)
        assert (wanted.stream, wanted.rows.tolist()) == (answer.facts["stream"], rows)
        read = {name: getattr(cache[wanted.stream][video_id], name)[rows] for name in answer.facts["inputs"]}
        found = answer(read)["probabilities"]
        assert np.abs(found - session.probabilities.numpy()).max() < 1e-5


@pytest.mark.parametrize(
    "change",
    [
        {"streams": ("fine_224", "coarse_112", "scored_160"), "input_norm": "l2", "multi_label": True},
        {"streams": ("coarse_112", "scored_160"), "skips": (3,)},
        {"streams": ("coarse_112", "fine_224"), "skips": (50,)},
    ],
)
def test_ar_net(change: dict[str, Any], planted: tuple[FeatureCache, LabelSet], tmp_path: Path) -> None:
    """At prices at which all choices are made, or none but skips: the page's loop."""
    cache, _ = planted
    given = {"policy_hidden": 8, "lr": 1e-2, "epochs": 3, "batch": 5}
    run = run_method(configure("ar-net", given | change), *planted, tmp_path / "run", device="cpu")
    paths, session = export_onnx(run.folder, tmp_path / "phone"), open_session(run.folder)
    assert isinstance(session, ARNetSession)
    step, *others = (Exported(tmp_path / "phone", path.stem) for path in paths)
    facts, choices = step.facts, set()
    assert [path.stem for path in paths[1:]] == [f"classifier-{name}" for name in facts["streams"][1:]]
    prices = (-3.0, -0.1, 0.0, 0.1, 3.0)
    assert facts["price"] == float(session.model.price)
    for video_id, price in product(run.predictions().video_ids, prices):
        session.model.price.fill_(price)
        trace = [(wanted.stream, int(wanted.rows[0])) for wanted in drive(session, cache, video_id)]
        videos = [cache[name][video_id].features for name in facts["streams"]]
        state = {name: np.zeros(facts["inputs"][name]) for name in ("h", "c")}
        walk, looks, classified, row = [], [], [], 0
        while row < len(videos[0]):
            outputs = step({"features": videos[0][[row]], **state})
            state = {name: outputs[f"{name}_next"] for name in state}
            walk.append((facts["streams"][0], row))
            looks.append(outputs["logits"][0])
            worth = outputs["log_probabilities"][0] - price * np.array(facts["gflops"])
            choice = int(worth.argmax())
            choices.add(choice)
            if choice >= len(videos):
                row += facts["skips"][choice - len(videos)]
                continue
            if choice:
                walk.append((facts["streams"][choice], row))
                classified.append(others[choice - 1]({"features": videos[choice][[row]]})["logits"][0])
            else:
                classified.append(looks[-1])
            row += 1
        assert walk == trace
        mean = torch.from_numpy(np.mean(classified or looks, axis=0))
        answer = mean.softmax(0) if facts["probabilities"] == "softmax" else mean.sigmoid()
        assert (answer - session.probabilities).abs().max() < 1e-5
    assert {len(videos) - 1, len(facts["gflops"]) - 1} <= choices  # the dearest stream, the longest skip


@pytest.mark.parametrize(
    "change",
    [
        {"looks": 6, "memory_rows": 5, "input_norm": "l2", "multi_label": True},
        {"looks": 8, "memory_rows": 16, "falls": 1, "points": False},
    ],
)
def test_adaframe(change: dict[str, Any], planted: tuple[FeatureCache, LabelSet], tmp_path: Path) -> None:
    """At margins at which it stops sooner and later, and not at all."""
    cache, _ = planted
    given = {"attention_units": 6, "fine_hidden": 12, "lr": 1e-2, "epochs": 3, "batch": 5}
    config = configure("adaframe", {"coarse": "coarse_112", "fine": "fine_224", **given, **change})
    run = run_method(config, *planted, tmp_path / "run", device="cpu")
    export_onnx(run.folder, tmp_path / "phone")
    step, session = Exported(tmp_path / "phone", "step"), open_session(run.folder)
    assert isinstance(session, AdaFrameSession)
    facts, counts = step.facts, set()
    assert facts["threshold"] == pytest.approx(float(session.agent.threshold))
    for video_id, margin in product(run.predictions().video_ids, (-0.6, 0.0, 1e-3, 1.0)):
        session.agent.threshold.fill_(margin)
        wanted = [int(wanted.rows[0]) for wanted in drive(session, cache, video_id)[1:]]
        coarse, fine = (cache[facts["streams"][role]][video_id].features for role in ("coarse", "fine"))
        places = places_of(facts, len(coarse))
        inputs = {name: np.zeros(shape, np.float32) for name, shape in facts["inputs"].items()}
        inputs["coarse"][: len(places)] = coarse[places]
        inputs["coarse_places"][: len(places)] = (np.array(places) + 0.5) / len(coarse)
        inputs["coarse_rows"][:], inputs["place"][:] = len(places), 0.5
        looks: list[int] = []
        while len(looks) < facts["looks"]:
            looks.append(min(int(inputs["place"][0] * len(fine)), len(fine) - 1))
            outputs = step({**inputs, "fine": fine[[looks[-1]]]})
            inputs |= {name: outputs[f"{name}_next"] for name in inputs if f"{name}_next" in outputs}
            if outputs["score"][0] > margin:
                break
        assert list(dict.fromkeys(looks)) == wanted  # a frame that it knows is not wanted again
        assert np.abs(outputs["probabilities"][0] - session.probabilities.numpy()).max() < 1e-5
        counts.add(len(looks))
    assert len(counts) > 2


# --- backbones ---


@pytest.mark.parametrize("network", ["timm:test_convnext@64", "timm:test_resnet@96"])
def test_backbone(network: str, planted: tuple[FeatureCache, LabelSet], tmp_path: Path) -> None:
    """From frames of any size, by what the JSON says alone."""
    backbone = Backbone(parse_stream(network), weights="random:3", device=torch.device("cpu"))
    folder, name = str(tmp_path / "run"), backbone.spec.name
    cache = FeatureCache(with_stream(planted[0], backbone.spec, tmp_path / "cache"))
    config = replace(LITEEVAL, coarse=name, epochs=1)
    run_method(config, cache, planted[1], Path(folder), device="cpu")
    done = CliRunner().invoke(export, [folder, "--onnx", str(tmp_path / "phone"), "--backbone", name])
    assert done.exit_code == 0, done.output
    assert [Path(line).stem for line in done.stdout.split()] == ["step", "fine", f"backbone-{name}"]
    exported = Exported(tmp_path / "phone", f"backbone-{name}")
    facts, random = exported.facts, np.random.default_rng(0)
    assert facts["weights_digest"] == backbone.spec.weights_digest
    for height, width in ((120, 90), (70, 200), (128, 128)):
        frames = random.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
        crops = [resized(frame, facts) for frame in frames]
        pixels = np.stack([resize_and_crop(frame, backbone.spec.preprocessing) for frame in frames])
        features, scores = backbone(torch.from_numpy(pixels))
        assert scores is not None
        # At the edges of the cut it matters, on noise, whether one cuts while one resizes, or after.
        assert np.abs(np.stack(crops).astype(int) - pixels).mean() < 0.5
        outputs = exported({"pixels": pixels})
        assert np.abs(outputs["features"] - features.numpy()).max() < 1e-4
        assert np.abs(outputs["scores"] - scores.numpy()).max() < 1e-4


def resized(frame: NDArray[np.uint8], facts: Mapping[str, Any]) -> NDArray[np.uint8]:
    """The short side resized, then the middle cut out."""
    height, width = frame.shape[:2]
    scale = facts["resize"] / min(height, width)
    filters = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
    size = max(facts["resize"], int(width * scale)), max(facts["resize"], int(height * scale))
    picture = np.asarray(Image.fromarray(frame).resize(size, filters[facts["interpolation"]]))
    top, left = (round((side - facts["crop"]) / 2) for side in picture.shape[:2])
    return picture[top : top + facts["crop"], left : left + facts["crop"]]


def with_stream(cache: FeatureCache, spec: StreamSpec, folder: Path) -> Path:
    """A cache with the fine stream of another, and noise as rows of a stream."""
    fine, random = cache["fine_224"], np.random.default_rng(0)
    records = [fine[video_id] for video_id in fine]
    write_shard(folder / "fine_224", fine.spec, records, tools={"thriftvid": "test"})
    noise = [
        replace(
            record,
            features=random.normal(size=(len(record.features), spec.feature_dim)).astype(np.float16),
            scores=np.zeros((len(record.features), spec.num_classes), np.float16),
        )
        for record in records
    ]
    write_shard(folder / spec.name, spec, noise, tools={"thriftvid": "test"})
    return folder


def test_a_backbone_that_cannot_be_exported(planted: tuple[FeatureCache, LabelSet], tmp_path: Path) -> None:
    run_method(LITEEVAL, *planted, tmp_path / "run", device="cpu")
    out = tmp_path / "phone"
    with pytest.raises(UserError, match="'other' is of none of the streams: coarse_112, fine_224"):
        export_onnx(tmp_path / "run", out, backbones={"other": None})
    with pytest.raises(UserError, match="no network 'tiny'"):
        export_onnx(tmp_path / "run", out, backbones={"coarse_112": "random:0"})
    assert not out.exists()


# --- the command, and what cannot be exported ---


def test_the_command(planted: tuple[FeatureCache, LabelSet], tmp_path: Path) -> None:
    run_method(LITEEVAL, *planted, tmp_path / "run", device="cpu")
    out = tmp_path / "phone"
    done = CliRunner().invoke(export, [str(tmp_path / "run"), "--onnx", str(out)])
    assert done.exit_code == 0, done.output
    assert done.stdout.split() == [str(out / "step.onnx"), str(out / "fine.onnx")]
    assert sorted(path.name for path in out.iterdir()) == ["fine.json", "fine.onnx", "step.json", "step.onnx"]


def test_what_cannot_be_exported(
    planted: tuple[FeatureCache, LabelSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_method(LITEEVAL, *planted, tmp_path / "run", device="cpu")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file: cannot be made: File exists"):
        export_onnx(tmp_path / "run", tmp_path / "file")
    with pytest.raises(UserError, match="no run folder of train-policy"):
        export_onnx(tmp_path, tmp_path / "phone")
    monkeypatch.setattr(LiteEvalSession, "graphs", lambda session: ())
    with pytest.raises(UserError, match="run: a run of liteeval, which is not exported"):
        export_onnx(tmp_path / "run", tmp_path / "phone")
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    done = CliRunner().invoke(export, [str(tmp_path / "run"), "--onnx", str(tmp_path / "phone")])
    assert done.exit_code == 2
    assert "export needs onnx and onnxscript: pip install '.[onnx]'" in done.output
    assert not (tmp_path / "phone").exists()
