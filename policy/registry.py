"""The methods by the name they have on the command line; this alone knows every family."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pkgutil import resolve_name

from policy.method import Method

_CLASSES = {
    "liteeval": "policy.liteeval.method:LiteEvalMethod",
    "uniform": "policy.baselines.uniform:Uniform",
    "uniform-cf": "policy.baselines.uniform:UniformCF",
    "lstm": "policy.baselines.lstm:FineLSTM",
    "lstm-cf": "policy.baselines.lstm:CoarseFineLSTM",
    "frame-glimpse": "policy.baselines.frame_glimpse:FrameGlimpse",
    "fast-forward": "policy.baselines.fast_forward:FastForward",
    "liteeval-rl": "policy.liteeval.liteeval_rl:LiteEvalRL",
    "coarse-only": "policy.baselines.lstm:CoarseOnly",
    "random-gating": "policy.liteeval.random_gating:RandomGating",
    "selector": "policy.selection.method:Selector",
    "selector-cascade": "policy.selection.sequential:SelectorCascade",
}


class _Registry(Mapping[str, type[Method]]):
    """Knows the names, and imports a class when it is asked for."""

    def __getitem__(self, name: str) -> type[Method]:
        found: type[Method] = resolve_name(_CLASSES[name])
        return found

    def __contains__(self, name: object) -> bool:
        return name in _CLASSES

    def __iter__(self) -> Iterator[str]:
        return iter(_CLASSES)

    def __len__(self) -> int:
        return len(_CLASSES)


METHODS: Mapping[str, type[Method]] = _Registry()
