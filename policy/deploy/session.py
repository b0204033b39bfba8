"""Trained policies from their run folders, for videos outside a cache."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from cache_schema import StreamSpec, UserError
from cache_schema.run_folder import CONFIG, not_ours, read_json
from policy.deploy.sharing import SharedSession
from policy.registry import METHODS
from policy.runs import SESSION, WEIGHTS, Run, read_config, read_result, read_sharing
from policy.session import FloatArray, Session, TrainedRun
from policy.training.checkpoint import read_tensors


def open_session(folder: Path | str, *, device: torch.device | None = None) -> Session:
    """The policy of a finished run, which takes a video's rows as the backbones give them.

    Neither the cache nor the labels are needed.

    Args:
        device: of the policy's networks; by default the CPU.

    Raises:
        UserError: the folder holds no finished run, or that of a method without a session.
    """
    run = read_trained(Path(folder))
    session = METHODS[run.config.method].session(run, device or torch.device("cpu"))
    sharing = read_sharing(Path(folder))
    return session if sharing is None else SharedSession(session, sharing)


def read_trained(folder: Path) -> TrainedRun:
    """What a session needs of a run folder. Raises UserError where there is no finished run."""
    config = read_config(folder)
    details = Run(folder, read_result(folder), reused=True).details()
    content = read_json(folder / CONFIG)
    try:
        streams, pool = (
            {name: StreamSpec.from_json(json.dumps(spec)) for name, spec in content.get(part, {}).items()}
            for part in ("streams", "pool")
        )
        return TrainedRun(
            weights=folder / WEIGHTS,
            config=config,
            streams=streams,
            pool={model["name"]: pool[model["name"]] for model in details.get("models", ())},
            tensors=read_tensors(folder / SESSION) if (folder / SESSION).exists() else {},
            classes=tuple(map(str, content["classes"])),
            multi_label=bool(content["multi_label"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise not_ours(folder / CONFIG) from error


def spans_of(spec: StreamSpec, duration_s: float) -> FloatArray:
    """(T, 2): first and last second of a video that each row of a stream covers, for `Session.begin`.

    Raises:
        UserError: the stream was imported, so that the frames of its rows are not known.
        ValueError: the duration is negative or not finite.
    """
    from extract.sampling import clip_times

    sampling = spec.sampling
    if not sampling.frames:
        raise UserError(f"stream {spec.name!r} was imported: which frames its rows saw is not known")
    times_s = clip_times(sampling, duration_s=duration_s, flow=spec.preprocessing.flow is not None)
    return np.repeat(times_s[:, [0, -1]], sampling.crops, axis=0)
