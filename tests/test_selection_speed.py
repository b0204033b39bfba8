"""What selecting takes: seconds that add up, models loaded when chosen, networks that can be timed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from policy.deploy.selection_speed import (
    Loading,
    ModelTime,
    SelectionTimes,
    WeightsFile,
    measure_selection,
)
from policy.deploy.speed import build, request_of
from policy.deploy.timing import Machine
from policy.selection.curve import SelectionCurve
from policy.selection.network import SelectorNetwork
from policy.selection.pool import PoolTable
from tests.caches import PREPROCESSING, make_spec

CPU = torch.device("cpu")
MACHINE = Machine("a processor", 1, "0")
SMALL = replace(PREPROCESSING, resize=32, crop=32)
NAMES = ("a", "b", "c")
TIMES = {"a": (0.25, 7.0), "b": (0.5, 11.0), "c": (2.0, 13.0), "own": (0.125, 17.0)}
SELECTOR_S = 1.0


def times(batch: int, *, unknown: str = "") -> SelectionTimes:
    models = {name: ModelTime(name, row, load) for name, (row, load) in TIMES.items()}
    if unknown:
        models[unknown] = ModelTime(unknown, None, None, "nobody knows it")
    return SelectionTimes(models, SELECTOR_S, MACHINE, batch)


def curve(ran: list[list[int]], *, overhead: int = 1) -> SelectionCurve:
    """Of the models NAMES, by sets that ran (P, M)."""
    points, videos = np.shape(ran)
    table = PoolTable(
        models=NAMES,
        video_ids=tuple(f"v{m}" for m in range(videos)),
        labels=np.ones((videos, 1), np.bool_),
        first=np.zeros(videos, np.int64),
        multi_label=False,
        probabilities=np.ones((videos, len(NAMES), 1), np.float32),
        macs=np.ones((videos, len(NAMES)), np.int64),
    )
    masks = np.array(ran, np.uint32)
    return SelectionCurve(
        "one", table, np.arange(points, dtype=float), masks, masks, np.full(videos, overhead, np.int64)
    )


def by_hand(ran: list[list[int]], rows: dict[str, list[int]], loading: Loading, batch: int) -> list[float]:
    """Total seconds at each point, by walking through the videos with a selector that looks at a model "own"."""
    totals = []
    stays = [all(len({mask >> n & 1 for mask in point}) == 1 for point in ran) for n in range(len(NAMES))]
    for point in ran:
        total, loaded = 0.0, set[int]()
        for m, mask in enumerate(point):
            if m % batch == 0:
                loaded.clear()
            total += SELECTOR_S + rows["own"][m] * TIMES["own"][0]
            for n, name in enumerate(NAMES):
                if not mask >> n & 1:
                    continue
                total += rows[name][m] * TIMES[name][0]
                if loading == "never" or stays[n] or (loading == "per batch" and n in loaded):
                    continue
                loaded.add(n)
                total += TIMES[name][1]
        totals.append(total)
    return totals


@given(data=st.data(), batch=st.integers(1, 4), loading=st.sampled_from(["never", "per batch", "per video"]))
def test_seconds_are_those_of_going_through_the_videos(
    data: st.DataObject, batch: int, loading: Loading
) -> None:
    points, videos = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 9))
    stays = data.draw(st.integers(0, 7))  # models that run for every video
    mask = st.integers(0, 7).map(lambda drawn: drawn | stays)
    ran = data.draw(
        st.lists(st.lists(mask, min_size=videos, max_size=videos), min_size=points, max_size=points)
    )
    count = st.lists(st.integers(1, 10), min_size=videos, max_size=videos)
    rows = {name: data.draw(count) for name in TIMES}
    seconds = times(batch).per_video(
        curve(ran), {name: np.array(counts) for name, counts in rows.items()}, loading=loading
    )
    assert seconds is not None and seconds.shape == (points, videos)
    np.testing.assert_allclose(seconds.sum(axis=1), by_hand(ran, rows, loading, batch))


ROWS = {name: np.array([1, 2, 3, 4]) for name in NAMES}
RAN = [[0b001, 0b011, 0b011, 0b101]]
"""The first model always; the second for two videos, the third for the last."""


def test_each_video_pays_for_its_own_models() -> None:
    alone = times(32).per_video(curve(RAN), ROWS)
    every = times(32).per_video(curve(RAN), ROWS, loading="per video")
    shared = times(32).per_video(curve(RAN), ROWS, loading="per batch")
    apart = times(2).per_video(curve(RAN), ROWS, loading="per batch")
    assert alone is not None and every is not None and shared is not None and apart is not None
    np.testing.assert_allclose(alone, [[1.25, 1 + 0.5 + 1.0, 1 + 0.75 + 1.5, 1 + 1.0 + 8.0]])
    np.testing.assert_allclose(every - alone, [[0, 11, 11, 13]])
    np.testing.assert_allclose(shared - alone, [[0, 5.5, 5.5, 13]])
    np.testing.assert_allclose(apart - alone, [[0, 11, 11, 13]])  # the second model in either batch


def test_who_does_not_select_is_not_charged_for_selecting() -> None:
    seconds = times(32).per_video(curve([[1, 1, 1, 1]], overhead=0), ROWS, loading="per video")
    assert seconds is not None
    np.testing.assert_allclose(seconds, [[0.25, 0.5, 0.75, 1.0]])


def test_models_that_all_videos_get_are_not_loaded_for_them() -> None:
    alone = curve([[0b001] * 4, [0b010] * 4, [0b111] * 4], overhead=0)
    never, every = (times(32).per_video(alone, ROWS, loading=loading) for loading in ("never", "per video"))
    assert never is not None and every is not None and (never == every).all()
    # But a selector that at some threshold gives all of them the same one has had to bring it.
    selector = curve([[0b011] * 4, *RAN])
    never, every = (
        times(32).per_video(selector, ROWS, loading=loading) for loading in ("never", "per video")
    )
    assert never is not None and every is not None
    np.testing.assert_allclose(every - never, [[11, 11, 11, 11], [0, 11, 11, 13]])


def test_only_models_that_ran_need_a_time() -> None:
    assert times(32, unknown="c").per_video(curve(RAN), ROWS) is None
    without = [[0b001, 0b011, 0b011, 0b001]]
    assert times(32, unknown="c").per_video(curve(without), ROWS) is not None
    assert times(32, unknown="a").per_video(curve(without), ROWS) is None
    assert times(32, unknown="own").per_video(curve(without), {**ROWS, "own": ROWS["a"]}) is None


def test_networks_are_measured_and_unknown_ones_named() -> None:
    specs = [
        make_spec("small", backbone="timm:resnet10t", preprocessing=SMALL),
        make_spec("theirs", backbone="imported"),
        make_spec("mistaken", backbone="x3d_xs"),  # frames for a network of clips
    ]
    said: list[str] = []
    selector = SelectorNetwork(5, 4, 3)
    measured = measure_selection(specs, selector, 5, device=CPU, batch=2, repeats=1, report=said.append)
    small = measured.models["small"]
    assert small.row_s is not None and small.row_s > 0 and small.load_s is not None and small.load_s > 0
    assert small.reason == "" and measured.selector_s > 0 and measured.batch == 2
    assert measured.machine == Machine.of(CPU)
    for name, why in (("theirs", "no backbone 'imported'"), ("mistaken", "X3D-XS takes clips")):
        unknown = measured.models[name]
        assert unknown.row_s is None and unknown.load_s is None
        assert unknown.reason.startswith(f"{name}: {why}")
    assert said == ["timing small in memory and loaded"]


def test_without_models_or_a_selector_there_is_nothing_to_time() -> None:
    nothing = measure_selection([make_spec("theirs", backbone="imported")], None, 0, device=CPU)
    assert nothing.selector_s == 0 and nothing.models["theirs"].reason


@pytest.mark.parametrize("network", ["backbone", "strange"])
def test_loaded_weights_are_those_saved(network: str, tmp_path: Path) -> None:
    if network == "backbone":  # whose tensors have channels last
        backbone = build(request_of(make_spec(backbone="timm:resnet10t", preprocessing=SMALL)), CPU)
        module = backbone.parameters
        pixels = torch.randint(256, (2, 32, 32, 3), dtype=torch.uint8)
        answer = backbone(pixels)
    else:  # one tensor under two names; one that is no part of the state; strides that say more than the order
        first, last = nn.Linear(3, 3), nn.Linear(3, 3)
        last.weight = first.weight
        last.register_buffer("kept", torch.ones(2), persistent=False)
        conv = nn.Conv3d(4, 4, 1, groups=2).to(memory_format=torch.channels_last_3d)
        module = nn.Sequential(first, nn.BatchNorm1d(3), last, conv)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    strides = {name: tensor.stride() for name, tensor in module.state_dict().items()}

    file = WeightsFile(module, tmp_path / "weights.safetensors")
    for tensor in module.state_dict().values():
        tensor.zero_()  # so that what is there afterwards came from the file
    file.unload()
    assert sum(tensor.untyped_storage().nbytes() for tensor in module.state_dict().values()) == 0
    for load in (file.load, file.reload):
        load()
        after = module.state_dict()
        assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
        assert {name: tensor.stride() for name, tensor in after.items()} == strides
    if network == "backbone":
        assert torch.equal(backbone(pixels)[0], answer[0])
    else:
        assert last.weight is first.weight and torch.equal(last.get_buffer("kept"), torch.ones(2))
