"""Where to put labels so that none covers a point or another label. Arithmetic on boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """From (left, bottom) to (right, top)."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """Area of the intersection."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(0.0, width) * max(0.0, height)

    def outside(self, other: Box) -> float:
        """How far this box reaches out of the other, summed over its sides."""
        over = (
            other.left - self.left,
            other.bottom - self.bottom,
            self.right - other.right,
            self.top - other.top,
        )
        return sum(max(0.0, part) for part in over)

    def nearest(self, point: Point) -> Point:
        """The point of this box that is nearest to another point."""
        return min(max(point[0], self.left), self.right), min(max(point[1], self.bottom), self.top)

    def contains(self, point: Point) -> bool:
        return self.left <= point[0] <= self.right and self.bottom <= point[1] <= self.top


_DIRECTIONS = 16
_RINGS = 16
_OVERLAP, _OUTSIDE, _CROSSING = 1e3, 1e3, 200.0


def place(
    points: Sequence[Point],
    sizes: Sequence[Point],
    gaps: Sequence[float],
    obstacles: Sequence[Box],
    frame: Box,
) -> list[Box]:
    """Boxes for labels, placed in order.

    Each takes the cheapest place on rings around its point: off other labels and obstacles, inside the frame, no
    leader across a label, then as near as possible, and rather beside its point than above or below it.

    Args:
        points, sizes, gaps: for each label the point that it names, its width and height, and the distance of the
            nearest ring.
        obstacles: markers and error bars, which no label may cover.
    """
    placed: list[Box] = []
    leaders: list[list[Point]] = []
    for point, size, gap in zip(points, sizes, gaps, strict=True):
        best = min(
            _candidates(point, size, gap),
            key=lambda box: _cost(point, box, placed, leaders, obstacles, frame),
        )
        placed.append(best)
        leaders.append(_along(point, best.nearest(point)))
    return placed


def _candidates(point: Point, size: Point, gap: float) -> list[Box]:
    boxes = []
    for ring in range(_RINGS):
        for step in range(_DIRECTIONS):
            angle = 2 * math.pi * step / _DIRECTIONS
            x, y = math.cos(angle), math.sin(angle)
            # The nearest edge or corner of the box lies on the ring.
            middle_x = point[0] + x * gap * (1 + ring / 2) + size[0] / 2 * _side(x)
            middle_y = point[1] + y * gap * (1 + ring / 2) + size[1] / 2 * _side(y)
            half = size[0] / 2, size[1] / 2
            boxes.append(Box(middle_x - half[0], middle_y - half[1], middle_x + half[0], middle_y + half[1]))
    return boxes


def _side(part: float) -> float:
    """−1 or 1, and in between near the axes."""
    return max(-1.0, min(1.0, part / 0.7))


def _cost(
    point: Point,
    box: Box,
    placed: Sequence[Box],
    leaders: Sequence[Sequence[Point]],
    obstacles: Sequence[Box],
    frame: Box,
) -> float:
    covered = sum(box.overlap(other) for other in [*placed, *obstacles])
    leader = _along(point, box.nearest(point))
    crossings = sum(other.contains(at) for other in placed for at in leader)
    crossings += sum(box.contains(at) for other in leaders for at in other)
    distance = math.dist(point, box.nearest(point))
    # Text is read most easily beside its marker, at the same height.
    aside = 0.0 if box.left > point[0] or box.right < point[0] else 4.0
    height = 0.3 * abs((box.bottom + box.top) / 2 - point[1])
    return (
        _OVERLAP * covered + _OUTSIDE * box.outside(frame) + _CROSSING * crossings + distance + aside + height
    )


def _along(start: Point, end: Point) -> list[Point]:
    """Nine points at equal distances on the line from `start` to `end`."""
    return [
        (start[0] + (end[0] - start[0]) * i / 8, start[1] + (end[1] - start[1]) * i / 8) for i in range(9)
    ]
