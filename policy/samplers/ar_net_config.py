"""Options of AR-Net."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from cache_schema import UserError
from policy.config import NOT_NEGATIVE, PART, POSITIVE, SHARE, RunConfig, option


@dataclass(frozen=True, kw_only=True)
class ARNetConfig(RunConfig):
    """AR-Net: for each row one of several streams, the cheapest first, or a skip of the next rows.

    An LSTM on the cheapest stream decides, row by row; the answer is the mean of the classifiers on the rows that
    are not skipped. It is trained by Gumbel-softmax, with a price on the streams' GFLOPs and a term that keeps all
    choices in use. Networks that give the features are not trained, unlike in the paper.

    \b
    Example:
      train-policy ar-net --cache CACHE --labels labels.csv \\
        --stream mobilenetv2_112 --stream efficientnet_b0_224 --stream resnet101_224 --out runs/ar-net
    """

    method = "ar-net"
    tuned = ("lr", "weight_decay", "dropout", "efficiency", "balance")
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {"input_norm": "none"},
        # --clip-gradient and --lr_steps of opts.py, whose second step is the end of the 100 epochs
        "released": {"input_norm": "none", "grad_clip": 20.0, "lr_drop": (50,)},
    }

    streams: tuple[str, ...] = option(
        (),
        "A stream that it may choose for a row; repeat it, in any order, at least twice. The one of least cost is "
        "looked at in all rows that are not skipped.",
        flag="--stream",
        metavar="STREAM",
    )
    skips: tuple[int, ...] = option(
        (1, 2, 4),  # --skip_list of the released scripts, from which the other flags here are, too
        "A number of rows that it may skip, with the one that it decides at; repeat it.",
        POSITIVE,
        flag="--skip",
        sets_cost=True,
    )
    policy_hidden: int = option(512, "Units of the LSTM that decides.", POSITIVE)  # --hidden_dim
    efficiency: float = option(
        0.05,  # --accuracy_weight 0.95 --efficency_weight 0.05
        "Weight of cost and balance in the loss; the classification has the rest.",
        SHARE,
        search=(0.01, 0.3),
        sets_cost=True,
    )
    balance: float = option(
        3.0,  # --uniform_loss_weight; with EfficientNets 5.0
        "Weight, in the cost beside GFLOPs per row, of how unequally often the choices are taken.",
        NOT_NEGATIVE,
        search=(0.3, 10),
        sets_cost=True,
    )
    pretraining: float = option(
        0.15,  # epochs of each backbone, then of all: 10 and 50 in scripts_train.sh, 15 and 100 in ..._new.sh
        "Share of the epochs, at the beginning, in which the classifier of each stream is trained on all rows and "
        "nothing is decided.",
        PART,
    )
    temperature_start: float = option(
        5.0, "Gumbel-softmax temperature when it begins to decide.", POSITIVE
    )  # --init_tau
    temperature_end: float = option(
        0.5,  # about 5 · exp(−0.045 · 50): --exp_decay_factor, after the 50 epochs of scripts_train.sh
        "Gumbel-softmax temperature at the end.",
        POSITIVE,
    )
    dropout: float = option(
        0.5,  # --dropout
        "Share of the features that is left out at random in training.",
        PART,
        search=(0.0, 0.5),
    )
    lr: float = option(1e-3, "Learning rate of Adam.", POSITIVE, search=(1e-4, 1e-2))  # --lr, there of SGD
    weight_decay: float = option(1e-4, "Of Adam.", NOT_NEGATIVE, search=(1e-6, 1e-2))  # --wd, there of SGD

    def check_together(self) -> None:
        if len(self.streams) < 2:
            given = f"only {self.streams[0]!r}" if self.streams else "none"
            raise UserError(f"ar-net chooses between streams: give --stream twice or more; given: {given}")
        for name, values in (("stream", self.streams), ("skip", self.skips)):
            for value in values:
                if values.count(value) > 1:
                    raise UserError(f"--{name} {value} is given twice")
