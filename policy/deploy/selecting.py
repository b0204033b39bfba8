"""A trained selector from its run folder, for videos that are in no cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cache_schema import UserError
from cache_schema.run_folder import CONFIG, not_ours, read_json
from policy.runs import DETAILS, WEIGHTS, read_config, read_result
from policy.selection.config import SelectorConfig
from policy.selection.deciding import decide, said_of
from policy.selection.inputs import assembled
from policy.selection.network import SelectorNetwork
from policy.training.checkpoint import read_weights


class OpenSelector:
    """Which model each video is worth, from what one model says of it::

        selector = open_selector(Path("runs/selector"))
        for name in selector.choose(probabilities):
            ...

    It chooses as the run does for videos of its cache.

    Attributes:
        looks_at: the stream of the model that is to run on every video.
        models: names of the pool's streams, the cheapest first.
        classes: C names, in the order of the probabilities.
    """

    def __init__(
        self,
        config: SelectorConfig,
        network: SelectorNetwork,
        *,
        looks_at: str,
        models: tuple[str, ...],
        classes: tuple[str, ...],
        multi_label: bool,
    ) -> None:
        self.looks_at, self.models, self.classes = looks_at, models, classes
        self._config, self._network, self._multi_label = config, network.eval(), multi_label

    def choose(
        self,
        probabilities: npt.NDArray[np.floating[Any]] | None = None,
        features: npt.NDArray[np.floating[Any]] | None = None,
    ) -> list[str]:
        """A model for each of M videos. If it is `looks_at`, its answer is there already.

        Args:
            probabilities: (M, C), the mean over a video's clips or frames. Of a model outside the pool all its
                classes, in its own order.
            features: (M, D), the mean, too; with `--input-norm l2` over rows of length 1.

        Raises:
            ValueError: what it was trained on is missing, or not of this shape.
        """
        wanted = {
            "probabilities": self._config.selector_input != "features" or self._config.confidence_input,
            "features": self._config.selector_input != "scores",
        }
        given = {"probabilities": probabilities, "features": features}
        for name, needed in wanted.items():
            if needed and given[name] is None:
                raise ValueError(f"this selector looks at {name} of {self.looks_at}: give them")
        seen = assembled(
            self._config,
            None if probabilities is None else np.asarray(probabilities, np.float32),
            None if features is None else np.asarray(features, np.float32),
            multi_label=self._multi_label,
        )
        said = said_of(self._config, self._network, torch.from_numpy(seen))
        chosen = decide(self._config, said, self._network.gflops.numpy(), float(self._network.threshold))
        return [self.models[n] for n in chosen]


def open_selector(folder: Path) -> OpenSelector:
    """The selector of a finished run. Neither the cache nor the labels are needed.

    Raises:
        UserError: the folder holds no finished run of `train-policy selector`.
    """
    config = read_config(folder)
    read_result(folder)
    if not isinstance(config, SelectorConfig):
        raise UserError(f"{folder}: a run of {config.method}; give one of selector")
    held, details = read_json(folder / CONFIG), read_json(folder / DETAILS)
    try:
        models = tuple(str(model["name"]) for model in details["models"])
        looks_at, inputs = str(details["own"]["model"]), int(details["own"]["inputs"])
        classes, multi_label = tuple(map(str, held["classes"])), bool(held["multi_label"])
    except (KeyError, TypeError, ValueError) as error:
        raise not_ours(folder / DETAILS) from error
    network = SelectorNetwork(inputs, config.selector_hidden, len(models))
    read_weights(folder / WEIGHTS, network)
    return OpenSelector(
        config, network, looks_at=looks_at, models=models, classes=classes, multi_label=multi_label
    )
