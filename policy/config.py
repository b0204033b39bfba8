"""The configuration of a run: every choice that can change its result, and nothing else.

A field of a configuration is an option: its type, default, limits and help are declared there and nowhere else.
`policy.options` makes the commands' options from it, `check` tests its limits, `decisive` gives what the key of a
run is made from. Each family has its configurations in its `config` module, which needs no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import Field, asdict, dataclass, field, fields
from functools import cache
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin, get_type_hints

import click

from cache_schema import UserError

T = TypeVar("T")

# Here because networks use these types, too, and know no family's configuration.
InputNorm = Literal["standard", "l2", "none"]
Cell = Literal["lstm", "gru", "sru"]
GateState = Literal["hidden", "hidden+cell"]
Precision = Literal["float32", "bfloat16"]
ReadoutKind = Literal["last", "mean", "max", "attention"]


@dataclass(frozen=True)
class Limit:
    """A condition on a number, and its text."""

    text: str
    holds: Callable[[float], bool]


POSITIVE = Limit("must be positive", lambda value: value > 0)
NOT_NEGATIVE = Limit("must not be negative", lambda value: value >= 0)
SHARE = Limit("must be between 0 and 1", lambda value: 0 <= value <= 1)
PART = Limit("must be at least 0 and below 1", lambda value: 0 <= value < 1)


def option(
    default: T,
    help_text: str,
    limit: Limit | None = None,
    *,
    flag: str | None = None,
    metavar: str | None = None,
    required: bool = False,
    type: click.ParamType[Any] | None = None,
    parse: Callable[[Any], Any] | None = None,
    search: tuple[float, float] | None = None,
    sets_cost: bool = False,
    added: bool = False,
    is_run: bool = False,
    beyond: str | None = None,
) -> T:
    """A field of a configuration.

    Args:
        flag: on the command line; by default the field's name, as "--field-name".
        metavar: stands for the value in --help.
        required: on the command line.
        type: of the command line's value, if that is not simply a value of the field's type.
        parse: makes the field's value from the command line's.
        search: from where to where tuning looks for a value, if not around the default (`policy.tuning.space`).
        sets_cost: whether it decides by itself how much a policy computes.
        added: after runs without this option had been trained. They are as with its default, so that the default
            is no part of what a run is.
        is_run: whether it names the folder of another run, which a run keeps by its content and not its place.
        beyond: of a number of rows of a video: what becomes of it where no training video has so many, for a note.
    """
    option_keys = {"help": help_text, "flag": flag, "metavar": metavar, "required": required, "type": type}
    other_keys = {
        "search": search,
        "sets_cost": sets_cost,
        "added": added,
        "is_run": is_run,
        "beyond": beyond,
    }
    return field(default=default, metadata={**option_keys, **other_keys, "limit": limit, "parse": parse})


def flag_of(option: Field[Any]) -> str:
    """The command line's option for a field; both of one that is true or false: "--multi-label/--single-label"."""
    flag: str = option.metadata["flag"] or f"--{option.name.replace('_', '-')}"
    return flag


def names_streams(option: Field[Any]) -> bool:
    """Whether the values of a field are streams."""
    return option.metadata["metavar"] in ("STREAM", "STREAM[:ROWS]")


def counts_rows(option: Field[Any]) -> bool:
    """Whether the value of a field says how many rows of a video a method looks at."""
    return option.metadata["beyond"] is not None


def names_of(*configs: type) -> frozenset[str]:
    """The names of all fields of several configurations."""
    return frozenset(option.name for config in configs for option in fields(config))


types_of: Callable[[type], Mapping[str, Any]] = cache(get_type_hints)
"""From a configuration's class to its fields' types by name."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The videos for training and evaluation. A run's key depends on the videos themselves, not on these
    options."""

    train_subset: str | None = option(None, "Subset to train on; by default the usual name that has labels.")
    eval_subset: str | None = option(
        None, "Subset to evaluate on; by default the usual name that has labels."
    )
    multi_label: bool | None = option(
        None,
        "Train on all classes of a video, or on its first class in the file (Eq. 6 and 7: a sigmoid for each "
        "class, or a softmax); evaluation keeps all classes of a video either way (mAP, and top-1 as hit@1). By "
        "default multi-label where some video has several classes.",
        flag="--multi-label/--single-label",
    )
    skip_missing: bool = option(False, "Leave out videos without features or without labels.")
    whole_only: bool = option(False, "Leave out videos of which only a part could be decoded.")
    validation_subset: str | None = option(
        None,
        "Subset for operating points, and to judge each epoch; it must be neither trained nor evaluated on.",
        metavar="NAME",
    )
    classes_present: bool = option(
        False,
        "Leave out classes that do not have a video in the cache both for training and for evaluation, as in a "
        "pilot on a part of a benchmark.",
    )


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How every network is trained. Sec. 4.1 of LiteEval: lr 1e-4, batch 128 on ActivityNet."""

    epochs: int = option(100, "Passes over the training videos.", POSITIVE)
    batch: int = option(128, "Videos per step.", POSITIVE)
    lr: float = option(1e-4, "Learning rate of Adam.", POSITIVE, search=(1e-4, 1e-2))
    weight_decay: float = option(0.0, "Of Adam.", NOT_NEGATIVE, search=(1e-6, 1e-2))  # added to the gradient
    lr_drop: tuple[int, ...] = option(
        (), "Epochs after which the learning rate falls to a tenth; repeat it.", POSITIVE
    )
    grad_clip: float | None = option(
        None, "Largest norm of the gradient; by default none.", POSITIVE, search=(0.1, 10)
    )
    input_norm: InputNorm = option(
        "standard",  # l2 as the authors' released code, none as Sec. 3 has it
        "standard: zero mean, unit variance per feature over the training videos (our addition); l2: each "
        "frame to length 1; none: as extracted.",
    )
    seed: int = option(0, "Of weights, order of videos, folds and draws.", NOT_NEGATIVE)
    validation: float = option(
        0.0,
        "Share of the training videos that is held out: for operating points, and to judge each epoch.",
        PART,
        metavar="SHARE",
        added=True,
    )
    keep: Literal["best", "last"] = option(
        "best",
        "With validation videos, of which epoch the weights are kept; the best has the least loss on them.",
        added=True,
    )
    patience: int | None = option(
        None,
        "Stop when the loss on the validation videos has not fallen for so many epochs.",
        POSITIVE,
        metavar="EPOCHS",
        added=True,
    )


OF_DESCENT = ("epochs", "lr", "weight_decay", "lr_drop", "grad_clip", "keep", "patience")
"""Options that methods do not read of which gradient descent trains nothing."""


@dataclass(frozen=True, kw_only=True)
class RunConfig(TrainingConfig, DataConfig):
    """One run of one method: the options that all methods have.

    A method's configuration adds what that method reads, and nothing else. Its bases are in reverse order: a
    dataclass, and so --help, begins with the fields of the last one.

    Attributes:
        method: a key of `policy.registry.METHODS`.
        tuned: what `train-policy tune` searches where it is not told others: fields, or FIELD=VALUE,VALUE,….
        earlier: values of options that runs of earlier versions did not have.
        by_descent: whether gradient descent trains anything of it, so that it reads `OF_DESCENT`. Else these are
            no options of it; as fields they stay, for runs of earlier versions have them.
        published: what the method's own paper and released code have, by the name of the recipe ("paper",
            "released"), where that is not the option's default. None: the recipes are LiteEval's.
    """

    method: ClassVar[str]
    tuned: ClassVar[tuple[str, ...]] = ("lr", "weight_decay")
    earlier: ClassVar[Mapping[str, Any]] = {}
    by_descent: ClassVar[bool] = True
    published: ClassVar[Mapping[str, Mapping[str, Any]] | None] = None

    @classmethod
    def read_names(cls) -> frozenset[str]:
        """The names of the fields that the method reads: its options."""
        return names_of(cls) - (frozenset() if cls.by_descent else frozenset(OF_DESCENT))

    @property
    def searched(self) -> tuple[str, ...]:
        """`tuned`, or what takes its place with these values."""
        return self.tuned

    def check(self) -> None:
        """Raises UserError, one line, where a value is invalid, alone or together with another."""
        self.check_each()
        self.check_validation()
        self.check_together()

    def check_validation(self) -> None:
        """Raises UserError, one line, where options about validation videos contradict each other."""
        if self.validation and self.validation_subset is not None:
            raise UserError("give --validation or --validation-subset, not both")
        if not self.validation and self.validation_subset is None:
            for name, value, default in (("patience", self.patience, None), ("keep", self.keep, "best")):
                if value != default:
                    raise UserError(
                        f"--{name} {value} goes by validation videos: give --validation or --validation-subset"
                    )

    def check_each(self) -> None:
        """Raises UserError, one line, where a value is out of its limits."""
        for option in fields(self):
            name, value = option.name, getattr(self, option.name)
            kind, limit = types_of(type(self))[name], option.metadata["limit"]
            _require(not isinstance(value, float) or math.isfinite(value), name, "must be finite", value)
            if get_origin(kind) is Literal:
                choices = get_args(kind)
                _require(value in choices, name, f"must be one of {', '.join(choices)}", value)
            if limit is not None and value is not None:
                values = value if isinstance(value, tuple) else (value,)
                _require(all(map(limit.holds, values)), name, limit.text, value)

    def check_together(self) -> None:
        """Raises UserError, one line, where values contradict each other."""

    def stream_names(self) -> tuple[str, ...]:
        """The streams that the configuration names."""
        texts: list[str] = []
        for option in fields(self):
            value = getattr(self, option.name)
            if names_streams(option) and value is not None:
                texts += value if isinstance(value, tuple) else [value]
        return tuple(text.partition(":")[0] for text in texts)

    def decisive(self) -> dict[str, Any]:
        """What decides whether two runs are the same, by name, ready for JSON."""
        values = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
        for option in fields(self):
            if option.metadata["added"] and values[option.name] == option.default:
                del values[option.name]
        decisive_names = self.read_names() - names_of(DataConfig)
        return {"method": self.method, **{name: v for name, v in values.items() if name in decisive_names}}


def method_options(config: type[RunConfig]) -> tuple[str, ...]:
    """The names of the fields that a method adds to those of every run."""
    common = names_of(RunConfig)
    return tuple(option.name for option in fields(config) if option.name not in common)


def _require(condition: bool, name: str, text: str, value: Any) -> None:
    if not condition:
        value_text = ", ".join(map(str, value)) if isinstance(value, tuple) else value
        raise UserError(f"{name.replace('_', '-')} {text}, not {value_text}")


@dataclass(frozen=True, kw_only=True)
class CoarseConfig:
    coarse: str | None = option(None, "Stream with the cheap features.", metavar="STREAM", required=True)


@dataclass(frozen=True, kw_only=True)
class FineConfig:
    fine: str | None = option(None, "Stream with the expensive features.", metavar="STREAM", required=True)


@dataclass(frozen=True, kw_only=True)
class FineHiddenConfig:
    fine_hidden: int = option(512, "Units of the fine LSTM.", POSITIVE)  # Sec. 4.1, on ActivityNet


@dataclass(frozen=True, kw_only=True)
class ReadoutConfig:
    readout: ReadoutKind = option(
        "last",
        "What the classifier reads of the states over time: the last one, as in the papers, their mean or "
        "maximum, or a mean with learned weights.",
        added=True,
    )


@dataclass(frozen=True, kw_only=True)
class DropoutConfig:
    dropout: float = option(
        0.0,
        "Share of the features, and of what the classifier reads, left out at random in training.",
        PART,
        search=(0.0, 0.5),
        added=True,
    )


@dataclass(frozen=True, kw_only=True)
class StepTrainingConfig(DropoutConfig, ReadoutConfig):
    """What recurrent classifiers may be trained with, whether they have gates or not: none of it is in the papers.
    Methods that are compared should have the same."""

    step_loss: float = option(
        0.0, "Weight of the classification loss averaged over all steps.", NOT_NEGATIVE, added=True
    )
