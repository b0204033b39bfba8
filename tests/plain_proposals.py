"""Proposals and soft-NMS as plain loops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from policy.evaluation.detection import Detections, FloatArray
from policy.localization.proposals import THRESHOLDS, clip_edges

Row = tuple[int, int, float, float, float]
"""Video, class, start, end, score."""


def rows_of(detections: Detections) -> list[Row]:
    columns = (detections.videos, detections.classes, *detections.spans.T, detections.scores)
    return sorted(zip(*(column.tolist() for column in columns), strict=True))


def plain_runs(above: Sequence[bool]) -> list[tuple[int, int]]:
    runs, at = [], 0
    for value, members in groupby(above):
        count = len(list(members))
        if value and count >= 2:
            runs.append((at, at + count))
        at += count
    return runs


def plain_wtalc(video: int, logits: FloatArray, spans: FloatArray) -> list[Row]:
    edges = clip_edges(spans)
    found: list[Row] = []
    for c in range(logits.shape[1]):
        sequence = [float(value) for value in logits[:, c]]
        top = sorted(sequence, reverse=True)[: max(1, len(sequence) // 8)]
        score = sum(top) / len(top)
        if score <= 0:
            continue
        threshold = max(sequence) - 0.5 * (max(sequence) - min(sequence))
        for start, end in plain_runs([value > threshold for value in sequence]):
            best = max(sequence[start:end]) + 0.7 * score
            found.append((video, c, float(edges[start]), float(edges[end]), best))
    return found


def plain_contrast(video: int, logits: FloatArray, spans: FloatArray, scores: FloatArray) -> list[Row]:
    edges = clip_edges(spans)
    found: list[Row] = []
    for c in range(logits.shape[1]):
        if scores[c] <= 0:
            continue
        low, high = float(logits[:, c].min()), float(logits[:, c].max())
        values = [float(value) for value in logits[:, c]]
        levels = [low + level * (high - low) for level in THRESHOLDS]
        for start, end in {run for level in levels for run in plain_runs([v > level for v in values])}:
            margin = math.ceil((end - start) / 4)
            inner = values[start:end]
            outer = values[max(0, start - margin) : start] + values[end : end + margin]
            contrast = sum(inner) / len(inner) - (sum(outer) / len(outer) if outer else 0.0)
            score = contrast + 0.2 * scores[c]
            found.append((video, c, float(edges[start]), float(edges[end]), score))
    return found


def plain_iou(one: Row, other: Row) -> float:
    shared = max(0.0, min(one[3], other[3]) - max(one[2], other[2]))
    union = one[3] - one[2] + other[3] - other[2] - shared
    return shared / union if union else 0.0


def plain_soft_nms(rows: Sequence[Row], sigma: float = 0.3, least: float = 1e-3) -> list[Row]:
    left = sorted(row for row in rows if row[4] >= least)
    kept = []
    while left:
        best = max(left, key=lambda row: row[4])
        left.remove(best)
        kept.append(best)
        weighed = []
        for row in left:
            same = row[:2] == best[:2]
            score = row[4] * math.exp(-(plain_iou(row, best) ** 2) / sigma) if same else row[4]
            if score >= least:
                weighed.append((*row[:4], score))
        left = weighed
    return kept
