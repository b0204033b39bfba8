"""Exported networks, run by onnxruntime, decide and answer over whole videos as sessions do."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from cache_schema import FeatureCache, UserError, write_shard
from cache_schema.annotations import LabelSet, VideoLabel
from policy.cli.export import export
from policy.deploy import export as exporting
from policy.deploy.export import export_onnx
from policy.deploy.session import open_session
from policy.liteeval.config import LiteEvalConfig
from policy.liteeval.session import LiteEvalSession
from policy.registry import configure
from policy.runs import run_method
from policy.selection.config import SelectorConfig
from policy.selection.session import SelectorSession
from tests.caches import make_record, make_spec
from tests.planted import write_planted

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
        given = {name: np.asarray(inputs[name], np.float32) for name in self.facts["inputs"]}
        outputs = dict(zip(names, self._session.run(names, given), strict=True))
        for name, shape in self.facts["outputs"].items():
            assert list(outputs[name].shape) == shape
        return outputs


# --- LiteEval ---

LITEEVAL = LiteEvalConfig(
    coarse="coarse_112", fine="fine_224", epochs=2, batch=5, lr=1e-2, coarse_hidden=6, fine_hidden=12
)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[FeatureCache, LabelSet]:
    folder = tmp_path_factory.mktemp("planted")
    return write_planted(folder, train=10, test=8, classes=4, dim=10, lengths=(4, 12))


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
        row = cache["coarse_112"][video.video_id].features[0]
        checked = session._checked(row, len(row), "coarse")
        look, _ = session.model.look(checked, *session.model.initial_state(1))
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
        session.begin({name: video.spans for name, video in videos.items()})
        while (wanted := session.wanted()) is not None:
            session.take(videos[wanted.stream].features[wanted.rows])

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
    models=("m0", "m1:2", "m2"), epochs=20, batch=8, lr=1e-2, selector_hidden=8, target="loss", budget=4.0
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

        def output(name: str, video_id: str = video_id) -> NDArray[Any]:
            """Of a network, from the rows that its model looks at."""
            network = nets[name]
            record, count = cache[network.facts["stream"]][video_id], network.facts["rows"]
            assert record.scores is not None
            length = len(record.features)
            places = list(range(length))
            if count != "all" and count < length:
                places = [(2 * k + 1) * length // (2 * count) for k in range(count)]
            rows = {"features": record.features[places], "scores": record.scores[places]}
            (values,) = network(rows).values()
            return values

        name = choose(facts, output("selector"))
        session.begin({name: cache[name][video_id].spans for name in session.streams})
        while (wanted := session.wanted()) is not None:
            record = cache[wanted.stream][video_id]
            assert record.scores is not None
            session.take(record.features[wanted.rows], record.scores[wanted.rows])
        assert session.chosen == name
        chosen.add(name)
        assert np.abs(output(f"answer-{name}") - session.probabilities.numpy()).max() < 1e-5
    assert len(chosen) > 1


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
    with pytest.raises(UserError, match="not a finished run"):
        export_onnx(tmp_path, tmp_path / "phone")
    monkeypatch.setattr(LiteEvalSession, "graphs", lambda session: ())
    with pytest.raises(UserError, match="its method cannot be exported; liteeval, liteeval-rl and selector"):
        export_onnx(tmp_path / "run", tmp_path / "phone")
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    done = CliRunner().invoke(export, [str(tmp_path / "run"), "--onnx", str(tmp_path / "phone")])
    assert done.exit_code == 2
    assert "export needs onnx and onnxscript: pip install 'thriftvid[onnx]'" in done.output
    assert not (tmp_path / "phone").exists()
