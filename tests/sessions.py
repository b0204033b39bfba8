"""Sessions on the rows of a cache."""

from __future__ import annotations

import math

import numpy as np

from cache_schema import FeatureCache
from policy.session import Session, Wanted


def drive(session: Session, cache: FeatureCache, video_id: str, most: int = 10**9) -> list[Wanted]:
    """Give a session what it wants of a video, at most so many rows at a time. Returns what it wanted.

    It has an answer at any time, and what it has cost never falls.
    """
    videos = {name: cache[name][video_id] for name in session.streams}
    session.begin({name: video.spans for name, video in videos.items()}, video_id=video_id)
    trace: list[Wanted] = []
    macs = 0
    while True:
        chances = list(session.answer.values())
        assert session.answer.keys() == set(session.classes)
        assert chances == sorted(chances, reverse=True) and chances[0] <= 1 and chances[-1] >= 0
        assert not any(map(math.isnan, chances)) and session.macs >= macs
        macs = session.macs
        if (wanted := session.wanted()) is None:
            return trace
        trace.append(wanted)
        video, rows = videos[wanted.stream], wanted.rows[:most]
        assert np.array_equal(wanted.spans_s, video.spans[wanted.rows])
        session.take(video.features[rows], None if video.scores is None else video.scores[rows])
