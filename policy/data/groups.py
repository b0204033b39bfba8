"""Parts of videos of which each is held out once; videos of a group are in the same part."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cache_schema import UserError
from cache_schema.annotations.groups import check_several

IntArray = npt.NDArray[np.int64]


def independent(videos: int, groups: Sequence[str]) -> int:
    """How many groups there are; without groups each of M videos is one.

    Args:
        groups: M, equal for videos that belong together; empty where each is on its own.
    """
    return len(set(groups)) if groups else videos


def random_folds(videos: int, folds: int, seed: int, groups: Sequence[str] = ()) -> IntArray:
    """(M,): a fold for each video, drawn at random: folds of as many groups each, or one more.

    Args:
        folds: at most; fewer where there are not as many groups.

    Raises:
        UserError: all videos are of one group.
    """
    check_several(groups)
    group = np.unique(groups, return_inverse=True)[1] if groups else np.arange(videos)
    count = independent(videos, groups)
    return np.asarray((np.random.default_rng(seed).permutation(count) % min(folds, count))[group], np.int64)


def stratified_folds(groups: Sequence[str], classes: IntArray, folds: int, seed: int) -> IntArray:
    """(M,): a fold for each video: whole groups, so that classes and numbers of videos are spread evenly.

    Args:
        classes: (M,), of each video.

    Raises:
        UserError: there are fewer groups than folds.
    """
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    if (count := len(set(groups))) < folds:
        raise UserError(f"{folds} folds need as many groups of videos, and there are {count}: ask for fewer")
    splitters = [GroupKFold(folds)]
    if np.bincount(classes).max() >= folds:  # or there is nothing to spread, which scikit-learn refuses
        splitters.insert(0, StratifiedGroupKFold(folds, shuffle=True, random_state=seed))
    for splitter in splitters:
        fold = np.empty(len(classes), np.int64)
        with warnings.catch_warnings():
            # A rare class is spread as far as it goes.
            warnings.filterwarnings("ignore", message="The least populated class")
            for number, (_, held_out) in enumerate(splitter.split(np.zeros(len(classes)), classes, groups)):
                fold[held_out] = number
        if len(np.unique(fold)) == folds:  # spreading classes may leave a fold without any group
            break
    return fold
