"""What a run is asked to do: every choice that can change its result, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from cache_schema import UserError

InputNorm = Literal["standard", "l2", "none"]
INPUT_NORMS: tuple[InputNorm, ...] = ("standard", "l2", "none")


@dataclass(frozen=True)
class RunConfig:
    """One run of one method. A method reads only some of these; `relevant` picks them.

    Attributes:
        method: a key of `policy.runs.METHODS`.
        coarse, fine: names of streams of the cache.
        train_subset, eval_subset: of the label file; None takes the usual names (`policy.data`).
        multi_label: False trains on each video's first class; None asks the labels.
        skip_missing: leave out videos that have labels but no features, or features but no labels.
        seed: of weights, order of videos and all draws (gates, locations, jumps).
        epochs, batch, lr: of Adam; batch in videos. Sec. 4.1: lr 1e-4, batch 128 on ActivityNet.
        grad_clip: largest norm of the gradient; None does not clip.
        input_norm: "standard" (our addition) brings each feature to zero mean and unit variance over the
            training videos, "l2" each frame's features to length 1 (as the authors' released code), "none"
            neither (as Sec. 3 has it).
        frames: K of the methods that look at K uniformly spaced frames. Sec. 4.2.1: 25.
        coarse_hidden, fine_hidden: units of the LSTMs. Sec. 4.1: 64 and 512 on ActivityNet.
        sync: Eq. 5; False is the ablation of Table 8.
        gamma, lam: γ and λ of Eq. 7, of LiteEval and LiteEval-RL. Sec. 4.1: λ = 2.
        warmup: share of the epochs during which the usage aimed at falls from 1 to γ (of random
            gating, to `usage`); see `policy.liteeval.method`. 0 is Eq. 7 as it stands.
        tau_start, tau_end: the Gumbel-softmax temperature falls exponentially between the two, epoch by epoch.
            Sec. 3.2 anneals it and gives no values; 5 is AR-Net's and AdaMML's start.
        usage: of random gating, the probability that a gate opens.
        gate_draws: of random gating, how many draws of the gates its metrics are averaged over.
        glimpses: K of FrameGlimpse, how many times it looks. Table 1: 29.9 and 32.9 GFLOPs, 4 frames at 7.82.
        location_std: of FrameGlimpse, standard deviation of the Gaussian from which locations are drawn in
            training, as a share of the video.
        strides: of FastForward, how many strides it chooses from: 1, 2, 4, … frames.
        frame_price: of FastForward, what each frame after the first takes off a reward that is at most 1.
    """

    method: str
    coarse: str | None = None
    fine: str | None = None
    train_subset: str | None = None
    eval_subset: str | None = None
    multi_label: bool | None = None
    skip_missing: bool = False
    seed: int = 0
    epochs: int = 100
    batch: int = 128
    lr: float = 1e-4
    grad_clip: float | None = None
    input_norm: InputNorm = "standard"
    frames: int = 25
    coarse_hidden: int = 64
    fine_hidden: int = 512
    sync: bool = True
    gamma: float = 0.05
    lam: float = 2.0
    warmup: float = 0.0
    tau_start: float = 5.0
    tau_end: float = 0.5
    usage: float | None = None
    gate_draws: int = 10
    glimpses: int = 4
    location_std: float = 0.1
    strides: int = 6
    frame_price: float = 0.01

    def check(self) -> None:
        """Raises UserError, one line, where a value makes no sense."""
        for name in ("epochs", "batch", "lr", "frames", "coarse_hidden", "fine_hidden", "gate_draws"):
            _require(getattr(self, name) > 0, name, "must be positive", self)
        for name in ("tau_start", "tau_end", "glimpses", "location_std", "strides"):
            _require(getattr(self, name) > 0, name, "must be positive", self)
        for name in ("gamma", "warmup"):
            _require(0 <= getattr(self, name) <= 1, name, "must be between 0 and 1", self)
        _require(self.usage is None or 0 <= self.usage <= 1, "usage", "must be between 0 and 1", self)
        for name in ("lam", "frame_price"):
            _require(getattr(self, name) >= 0, name, "must not be negative", self)
        _require(self.grad_clip is None or self.grad_clip > 0, "grad_clip", "must be positive", self)
        _require(self.seed >= 0, "seed", "must not be negative", self)
        _require(self.input_norm in INPUT_NORMS, "input_norm", f"must be one of {INPUT_NORMS}", self)

    def relevant(self, names: Iterable[str]) -> dict[str, Any]:
        """The values of the fields that a method reads, by name, ready for JSON."""
        chosen = set(names)
        return {name: value for name, value in asdict(self).items() if name in chosen}


def _require(condition: bool, name: str, what: str, config: RunConfig) -> None:
    if not condition:
        raise UserError(f"{name.replace('_', '-')} {what}, not {getattr(config, name)}")
