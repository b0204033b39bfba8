"""Online recognition: predictions before the end of a video, and their cost up to then.

LiteEval paper, Sec. 4.2.1 "Online recognition with varying computational budgets", Fig. 2 and 3, Table 2 bottom.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from policy.baselines.uniform import Uniform
from policy.data.batches import VideoSet, batched, every_row, fed, uniform_rows
from policy.evaluation.operating import Curve, OperatingPoint
from policy.liteeval.method import GatedMethod
from policy.liteeval.model import LiteEvalOutput
from policy.liteeval.random_gating import RandomGating
from policy.method import IntArray, class_probabilities, evaluate, row_offsets, with_costs
from policy.networks.packing import packed_rows


def emissions(method: GatedMethod, videos: VideoSet, ks: Sequence[int], *, device: torch.device) -> Curve:
    """LiteEval's prediction right after its K-th fine feature, for each K ("any time prediction").

    A video whose gate opens fewer than K times is predicted after its last step. Only what ran until then is
    charged: the coarse backbone and networks for the rows watched, the fine ones for those of them that opened,
    and one prediction. `Predictions.row_counts` are the rows watched: the paper's K', for `uniform_k`.

    Args:
        ks: K, each at least 1.

    Raises:
        ValueError: a K is below 1, or the method opens its gates at random.
    """
    if min(ks, default=1) < 1:
        raise ValueError(f"K must be at least 1, not {min(ks)}")

    def watched_rows(gates: npt.NDArray[np.uint8]) -> list[int]:
        opened = np.flatnonzero(gates) + 1
        return [int(opened[k - 1]) if k <= len(opened) else len(gates) for k in ks]

    return _curve(ks, method, videos, watched_rows, device)


def watched(method: GatedMethod, videos: VideoSet, shares: Sequence[float], *, device: torch.device) -> Curve:
    """LiteEval's prediction after the first ⌈share · T⌉ rows of each video (Fig. 3), charged as in `emissions`.

    Args:
        shares: of the video, each above 0 and at most 1.

    Raises:
        ValueError: a share is not, or the method opens its gates at random.
    """
    _check_shares(shares)
    return _curve(
        shares, method, videos, lambda gates: [first_rows(len(gates), share) for share in shares], device
    )


def first_rows(length: int, share: float) -> int:
    """⌈share · T⌉, the number of rows in the first `share` of a video."""
    return math.ceil(share * length - 1e-9)  # 0.1 · 30 is a little above 3


def uniform_k(
    method: Uniform, videos: VideoSet, watched_rows: IntArray, k: int, *, device: torch.device
) -> OperatingPoint:
    """UNIFORM-K: mean of the class probabilities of K frames spread uniformly over the first K' rows.

    K' is the number of rows after which LiteEval has K fine features. As K' must be known beforehand, this is no
    online method, the paper says, but a strong baseline. If K' is below K (in a video of fewer than K rows), it
    looks at all K' rows and pays for those.

    Args:
        method: trained on frames of whole videos.
        watched_rows: (M,), K' of each video: `row_counts` of LiteEval's predictions at this K.

    Raises:
        ValueError: K is below 1, or K' is not between 1 and T.
    """
    if k < 1:
        raise ValueError(f"K must be at least 1, not {k}")
    lengths = np.diff(row_offsets(videos))
    if watched_rows.shape != lengths.shape or (watched_rows < 1).any() or (watched_rows > lengths).any():
        raise ValueError("watched_rows must be, for each video, between 1 and its rows")
    return _pooled(k, method, videos, (uniform_rows(int(count), k) for count in watched_rows), device)


def seq_k(method: Uniform, videos: VideoSet, k: int, *, device: torch.device) -> OperatingPoint:
    """SEQ-K: mean of the class probabilities of the first K frames (of all, where a video has fewer).

    The paper says "K consecutive frames" and "frame-by-frame" and leaves open which ones. An online method with
    this budget has seen the first K when the budget is spent.

    Raises:
        ValueError: K is below 1.
    """
    if k < 1:
        raise ValueError(f"K must be at least 1, not {k}")
    lengths = np.diff(row_offsets(videos)).tolist()
    return _pooled(k, method, videos, (every_row(min(k, length)) for length in lengths), device)


def uniform_watched(
    method: Uniform,
    videos: VideoSet,
    shares: Sequence[float],
    *,
    frames: int | None = None,
    device: torch.device,
) -> Curve:
    """Fig. 3's UNIFORM-K, as we read it: ⌈share · K⌉ frames spread uniformly over the first ⌈share · T⌉ rows.

    Its cost grows with the share, and at 1 it is Uniform with K frames. The paper does not give this K. It cannot
    be the number of LiteEval's fine features: according to the paper UNIFORM-K needs *more* computation, and with
    those it would need less, having no coarse network. Nor does 25 (Table 1) fit: the figure's cost axis ends at
    115 GFLOPs. 13 frames are the fewest that cost more than LiteEval does on either data set.

    Args:
        frames: K; by default as many as the method was trained with.

    Raises:
        ValueError: a share is not above 0 and at most 1, or K is below 1.
    """
    _check_shares(shares)
    count = method.config.frames if frames is None else frames
    if count < 1:
        raise ValueError(f"K must be at least 1, not {count}")
    lengths = np.diff(row_offsets(videos)).tolist()
    points = (
        _pooled(
            share,
            method,
            videos,
            (uniform_rows(first_rows(length, share), first_rows(count, share)) for length in lengths),
            device,
        )
        for share in shares
    )
    return Curve(method.title, tuple(points))


def _check_shares(shares: Sequence[float]) -> None:
    if not all(0 < share <= 1 for share in shares):
        raise ValueError(f"shares must be above 0 and at most 1, not {list(shares)}")


def _pooled(
    value: float, method: Uniform, videos: VideoSet, rows: Iterable[IntArray], device: torch.device
) -> OperatingPoint:
    return OperatingPoint(value, evaluate(method, videos, device=device, rows=list(rows)))


@torch.no_grad()
def _curve(
    values: Sequence[float],
    method: GatedMethod,
    videos: VideoSet,
    watched_rows: Callable[[npt.NDArray[np.uint8]], list[int]],
    device: torch.device,
) -> Curve:
    """A point per value, all from one pass over the videos.

    Args:
        watched_rows: from a video's gates (T,) to the number of rows watched at each of the P values.
    """
    if isinstance(method, RandomGating):
        raise ValueError("gates that are drawn have no K-th opening of their own")
    method.model.to(device).eval()
    offsets = row_offsets(videos)
    scores = np.empty((len(values), *videos.labels.shape), np.float32)
    gates = np.zeros((len(values), int(offsets[-1])), np.uint8)
    row_counts = np.empty((len(values), len(videos)), np.int64)
    start = 0
    for batch in fed(videos, batched(range(len(videos)), method.config.batch), device):
        coarse = batch.inputs["coarse"]
        out: LiteEvalOutput = method.model(coarse, batch.inputs["fine"])
        batch_gates = [(part > 0).numpy().astype(np.uint8) for part in out.split(out.gates.cpu())]
        stop = start + len(batch_gates)
        row_counts[:, start:stop] = np.array([watched_rows(part) for part in batch_gates]).T
        places = torch.arange(len(batch_gates), device=device)
        for point, counts in enumerate(row_counts[:, start:stop]):
            last = torch.from_numpy(counts - 1).to(device)
            logits = method.model.classifier(out.read[packed_rows(coarse, places, last)])
            scores[point, start:stop] = class_probabilities(logits, method.multi_label).float().cpu().numpy()
            for offset, part, count in zip(offsets[start:stop], batch_gates, counts, strict=True):
                gates[point, offset : offset + count] = part[:count]
        start = stop
    points = (
        OperatingPoint(
            value, with_costs(method, videos, scores[p : p + 1], offsets, gates[p : p + 1], row_counts[p])
        )
        for p, value in enumerate(values)
    )
    return Curve(method.title, tuple(points))
