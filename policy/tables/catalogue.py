"""Every table and figure of the two papers by its name on the command line."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EXPERIMENTS = Path(__file__).parent / "experiments"
"""The papers' tables, a folder each."""

KNOWN: Mapping[str, str] = {
    "liteeval-1": "offline recognition: LiteEval and what it is compared with, FCVID and ActivityNet",
    "liteeval-2": "LiteEval with DPN-107 and SlowFast features, offline and online",
    "liteeval-3": "LiteEval beside the state of the art on ActivityNet",
    "liteeval-4": "LiteEval with SlowFast features on Kinetics",
    "liteeval-5": "LiteEval with SlowFast features on Breakfast",
    "liteeval-6": "GRU, SRU and LSTM in LiteEval on ActivityNet",
    "liteeval-7": "LiteEval at several target usages γ on FCVID",
    "liteeval-8": "LiteEval without synchronising the two LSTMs on FCVID",
    "liteeval-9": "LiteEval at several sizes of the coarse LSTM on FCVID",
    "liteeval-10": "runtime of LiteEval and others on FCVID",
    "liteeval-fig2": "online recognition: accuracy against computation at several budgets",
    "liteeval-fig3": "online recognition: accuracy and computation against the share of the video seen",
    "liteeval-fig4": "usage of fine features by class on FCVID",
    "liteeval-fig5": "frames for which LiteEval computes fine features",
    "liteeval-budgets": "beyond the paper: LiteEval trained in several ways, each at many budgets",
    "selection-1": "model selection beside the state of the art on HVU and Mini-Kinetics",
    "selection-fig3": "model selection on Kinetics-400: α, number of clips, computation by class",
    "selection-fig4": "model selection on Kinetics-400: selector backbones, latency",
    "selection-budgets": "beyond the paper: ways to choose among the models of a pool, each at many budgets",
    "selection-2": "weakly supervised localization beside the state of the art on Thumos'14 and MultiThumos",
    "selection-fig5": "localization on Thumos'14: disparity, budget factor, pseudo-labels, selector backbones",
    "selection-fig6": "localization on Thumos'14: average mAP against computation",
    "policies": "ours: every policy on one cache at many budgets, a leaderboard",
    "costs": "every cost that both papers print, computed again, and which do not add up",
    "detections": "anybody's detections, judged by three protocols on every set of videos that papers evaluate",
    "timeline": "what a run that localizes found in a video, and which model answered each clip",
    "trace": "which frames of a video a policy looked at, and with what, from a trace of run-policy",
}

TABLES: Mapping[str, str] = {
    "liteeval-1": "activitynet",
    "liteeval-2": "fcvid",
    "liteeval-3": "activitynet",
    "liteeval-4": "kinetics",
    "liteeval-5": "breakfast",
    "liteeval-6": "activitynet",
    "liteeval-7": "fcvid",
    "liteeval-8": "fcvid",
    "liteeval-9": "fcvid",
}
"""Tables made of a folder of experiments (`EXPERIMENTS`), and a data set for which the paper has each."""

EXHIBITS: Mapping[str, str] = {
    "liteeval-10": "fcvid",
    "liteeval-fig2": "activitynet",
    "liteeval-fig3": "activitynet",
    "liteeval-fig4": "fcvid",
    "liteeval-fig5": "fcvid",
    "liteeval-budgets": "activitynet",
}
"""Exhibits of the LiteEval paper (`exhibits.MAKERS`), and a data set for each."""

LEADERBOARD = "policies"
"""The exhibit of all policies that take streams of frames, of no paper."""

RUNTIME = "liteeval-10"
"""The exhibit that times policies on videos."""

SELECTION: Mapping[str, str] = {
    "selection-1": "mini-kinetics",
    "selection-fig3": "kinetics400",
    "selection-fig4": "kinetics400",
    "selection-budgets": "kinetics400",
}
"""Exhibits of the model selection paper on classification, and a data set for each."""

LOCALIZATION: Mapping[str, str] = {
    "selection-2": "thumos14",
    "selection-fig5": "thumos14",
    "selection-fig6": "thumos14",
}
"""Those on localization."""

PAPERS: Mapping[str, tuple[str, ...]] = {
    "liteeval": (*TABLES, *EXHIBITS),
    "selection": (*SELECTION, *LOCALIZATION),
}
"""By paper, everything made of runs."""


def takes_videos(name: str) -> bool:
    """Whether a table takes the videos themselves; unlike `read_table`, quick enough for --help."""
    about = tomllib.loads((EXPERIMENTS / name / "table.toml").read_text(encoding="utf-8"))
    return bool(about.get("videos", False))
