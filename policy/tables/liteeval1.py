"""Table 1 of the LiteEval paper: offline recognition with a ResNet-101, on FCVID and ActivityNet."""

from __future__ import annotations

from policy.tables.experiment import Experiment, PaperTable, Published


def _published(*, fcvid: tuple[float, float], activitynet: tuple[float, float]) -> dict[str, Published]:
    return {"fcvid": Published(*fcvid), "activitynet": Published(*activitynet)}


EXPERIMENTS = (
    Experiment("Uniform", "uniform", published=_published(fcvid=(80.0, 195.5), activitynet=(70.0, 195.5))),
    Experiment("LSTM", "lstm", published=_published(fcvid=(79.8, 196.0), activitynet=(70.8, 195.8))),
    Experiment(
        "Uniform+CF", "uniform-cf", published=_published(fcvid=(80.1, 197.5), activitynet=(70.1, 197.5))
    ),
    Experiment("LSTM+CF", "lstm-cf", published=_published(fcvid=(80.1, 198.0), activitynet=(71.5, 197.8))),
    Experiment(
        "FrameGlimpse", "frame-glimpse", published=_published(fcvid=(71.2, 29.9), activitynet=(60.2, 32.9))
    ),
    Experiment(
        "FastForward", "fast-forward", published=_published(fcvid=(67.6, 66.2), activitynet=(54.7, 17.2))
    ),
    Experiment(
        "LiteEval-RL", "liteeval-rl", published=_published(fcvid=(74.2, 245.9), activitynet=(65.2, 269.3))
    ),
    Experiment("LiteEval", "liteeval", published=_published(fcvid=(80.0, 94.3), activitynet=(72.7, 95.1))),
    Experiment("Coarse only", "coarse-only", "null controls"),
    Experiment("Random gating", "random-gating", "null controls", usage_of="liteeval"),
)

TABLE = PaperTable(
    name="liteeval-1",
    title="LiteEval, Table 1: offline recognition",
    source="Wu et al., A Coarse-to-Fine Framework for Resource Efficient Video Recognition, Table 1",
    experiments=EXPERIMENTS,
    emphasis="liteeval",
)
