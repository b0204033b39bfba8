"""A trained selector that is given arrays chooses as its run did for the videos of a cache."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache_schema import UserError
from policy.deploy.session import open_session
from policy.runs import open_data, run_method
from policy.selection.config import SelectorConfig
from policy.selection.opening import Pool
from policy.selection.session import SelectorSession
from tests.pools import PlantedPool, plant_pool

MODELS = ("m0", "m1", "m2", "m3")
CONFIG = SelectorConfig(
    models=MODELS, decisions="perceptron", epochs=4, batch=32, lr=3e-3, selector_hidden=16
)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> PlantedPool:
    return plant_pool(
        tmp_path_factory.mktemp("pool") / "cache", train=200, test=80, classes_per_group=3, rows=2
    )


def open_selector(folder: Path) -> SelectorSession:
    session = open_session(folder)
    assert isinstance(session, SelectorSession)
    return session


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"threshold": 0.3},
        {"rule": "price", "budget": 4.0},
        {"target": "loss", "budget": 4.0, "confidence_input": True},
        {"coarse": "m1", "budget": 4.0},
        {"selector_input": "scores+features", "budget": 4.0},
    ],
)
def test_it_chooses_as_the_run(change: dict[str, Any], pool: PlantedPool, tmp_path: Path) -> None:
    config = SelectorConfig(**{**vars(CONFIG), **change})
    run_method(config, pool.cache, pool.labels, tmp_path / "run", device="cpu")
    with (tmp_path / "run" / "choices.csv").open(newline="") as file:
        expected = [row["answers"] for row in csv.DictReader(file)]
    selector = open_selector(tmp_path / "run")
    data = open_data(config, pool.cache, pool.labels)
    assert selector.looks_at == (config.coarse or "m0")
    assert selector.models == MODELS and selector.classes == data.classes
    table = Pool.of(config, data).table(data.evaluation)
    said = table.probabilities[:, MODELS.index(selector.looks_at)]
    features = np.stack([pool.cache[selector.looks_at][v].features.mean(axis=0) for v in data.evaluation.ids])
    assert selector.choose(said, features) == expected
    if "features" not in config.selector_input:
        assert selector.choose(said) == expected


@pytest.mark.slow
def test_what_is_missing_is_told(pool: PlantedPool, tmp_path: Path) -> None:
    run_method(CONFIG, pool.cache, pool.labels, tmp_path / "run", device="cpu")
    with pytest.raises(ValueError, match="this selector looks at probabilities of m0: give them"):
        open_selector(tmp_path / "run").choose()
    with pytest.raises(UserError, match=r"result\.json"):
        (tmp_path / "run" / "result.json").unlink()
        open_selector(tmp_path / "run")
