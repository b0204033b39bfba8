"""Networks of Hugging Face's transformers, from its hub or a folder: the extra `transformers`.

VideoMAE, TimeSformer and V-JEPA 2 see clips, the image towers of CLIP and SigLIP frames.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache_schema import Preprocessing, Sampling, UserError
from cache_schema.extras import need

if TYPE_CHECKING:
    from torch import Tensor, nn

    from extract.backbones import StreamRequest
    from extract.backbones.network import Network

_PREFIX = "transformers:"


@dataclass(frozen=True)
class _Family:
    """How networks of one model_type are made and read.

    tower: transformers' class without a classifier; classifying: that with one.
    features: what the classifier sees, or without one what stands for the input: of a network and its input, clips
        (B, T, 3, S, S) or frames (B, 3, S, S).
    frames, size: keys of the configuration, and what is meant where it has none.
    rate: of frames in a clip of so many, a second, as released.
    """

    tower: str
    features: Callable[[Any, Tensor], Tensor]
    classifying: str = ""
    frames: tuple[str, int] | None = None
    size: tuple[str, int] = ("image_size", 224)
    rate: Callable[[int], float] = lambda frames: 0.0


def _videomae(model: Any, x: Tensor) -> Tensor:
    tokens: Tensor = getattr(model, "videomae", model)(x).last_hidden_state
    if not hasattr(model, "classifier"):
        return tokens.mean(1)
    return tokens[:, 0] if model.fc_norm is None else model.fc_norm(tokens.mean(1))


def _timesformer(model: Any, x: Tensor) -> Tensor:
    tokens: Tensor = getattr(model, "timesformer", model)(x).last_hidden_state
    return tokens[:, 0]


def _vjepa2(model: Any, x: Tensor) -> Tensor:
    tokens: Tensor = getattr(model, "vjepa2", model)(x, skip_predictor=True).last_hidden_state
    return model.pooler(tokens) if hasattr(model, "classifier") else tokens.mean(1)


# Frames × stride at 30 a second: https://github.com/MCG-NJU/VideoMAE 16×4; https://github.com/facebookresearch/TimeSformer
# 8×32, HR 16×16, L 96×4. V-JEPA 2 (https://arxiv.org/abs/2506.09985): 4 frames a second.
_FAMILIES: Mapping[str, _Family] = {
    "videomae": _Family(
        "VideoMAEModel",
        _videomae,
        "VideoMAEForVideoClassification",
        ("num_frames", 16),
        rate=lambda frames: 7.5,
    ),
    "timesformer": _Family(
        "TimesformerModel",
        _timesformer,
        "TimesformerForVideoClassification",
        ("num_frames", 8),
        rate=lambda frames: 30 / {96: 4}.get(frames, max(1, 256 // frames)),
    ),
    "vjepa2": _Family(
        "VJEPA2Model",
        _vjepa2,
        "VJEPA2ForVideoClassification",
        ("frames_per_clip", 64),
        ("crop_size", 256),
        rate=lambda frames: 4.0,
    ),
    "clip": _Family("CLIPVisionModelWithProjection", lambda model, x: model(x).image_embeds),
    "siglip": _Family("SiglipVisionModel", lambda model, x: model(x).pooler_output),
}


def request_for(repository: str) -> StreamRequest:
    """What transformers:REPOSITORY stands for, read from its configuration: transformers is not needed yet.

    Raises:
        UserError: there is no such folder or repository, or its network is of none of the kinds that are known.
    """
    from extract.backbones import StreamRequest

    folder = Path(repository)
    repository = str(folder.resolve()) if folder.is_dir() else repository
    config, family = _config(repository), _family(repository)
    vision = config.get("vision_config") or config
    size, sampling = vision.get(*family.size), Sampling()
    if not isinstance(size, int):
        raise UserError(f"{_PREFIX}{repository}: its pictures are not square ({family.size[0]} {size})")
    if family.frames:
        frames = int(config.get(*family.frames))
        sampling = Sampling("clips", fps=family.rate(frames), frames=frames, window=frames, clips=10)
    return StreamRequest(f"{Path(repository).name}_{size}", f"{_PREFIX}{repository}", size, sampling)


def build(request: StreamRequest, weights: str) -> Network:
    """The network with its weights. Raises UserError: no such network or weights, or weights that do not fit."""
    from extract.backbones.network import Network
    from extract.backbones.weights import load_into, random_seed, read_weights

    repository = _repository(request)
    make, config = _maker(repository)
    classes = None
    if weights == "pretrained":
        from extract.backbones.downloads import fetching, quick_hub

        otherwise = ", or give a folder, or a file with --weights FILE, or ask for --weights random:SEED"
        with fetching(f"the weights of {repository}", otherwise), quick_hub(), _quiet(repository):
            model, report = make.from_pretrained(repository, use_safetensors=True, output_loading_info=True)
        if missing := sorted(report["missing_keys"]):
            raise UserError(f"{repository}: its weights lack {missing[0]} and {len(missing) - 1} more")
        chosen = f"pretrained:{Path(repository).name}"
        names = getattr(config, "id2label", {})
        classes = tuple(names[number] for number in sorted(names))
    elif weights.partition(":")[0] == "random":
        with random_seed(weights):
            model, chosen = make(config), weights
    else:
        model, chosen = make(config), "file"
        state, classes = read_weights(Path(weights))
        load_into(model, state, Path(weights))
    feature_dim, num_classes, _ = _measured(request)
    return Network(
        model=_network(model, repository),
        parameters=model,
        weights=chosen,
        preprocessing=_preprocessing(repository, request.size),
        feature_dim=feature_dim,
        num_classes=num_classes,
        classes=classes if num_classes else None,
    )


def count_macs(request: StreamRequest) -> int:
    """Multiply-accumulates for one row up to the features, counted on a network without memory."""
    return _measured(request)[2]


@cache
def _measured(request: StreamRequest) -> tuple[int, int, int]:
    """(D, C, multiply-accumulates of a row), of a network without memory."""
    import torch

    from extract.backbones.network import count

    repository = _repository(request)
    family = _family(repository)
    make, config = _maker(repository)
    with torch.device("meta"):
        model = make._from_config(config, attn_implementation="eager").eval()
        clip = (request.sampling.frames,) if family.frames else ()
        x = torch.empty(1, *clip, 3, request.size, request.size)
    with torch.inference_mode():
        features = family.features(model, x)
    classifier = getattr(model, "classifier", None)
    classes = 0 if classifier is None else classifier.out_features
    return features.shape[1], classes, count(lambda x: family.features(model, x), x)


def _repository(request: StreamRequest) -> str:
    return request.folder or request.network.removeprefix(_PREFIX)


@contextmanager
def _quiet(repository: str) -> Iterator[None]:
    """Without what transformers reports of weights that it loads: that some are not needed is as it should be."""
    logging: Any = importlib.import_module("transformers.utils.logging")
    verbosity, with_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if Path(repository).is_dir():  # else it shows what is downloaded, too
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if with_bar:
            logging.enable_progress_bar()


def _network(model: Any, repository: str) -> nn.Module:
    from torch import nn

    family = _family(repository)

    class FeaturesAndScores(nn.Module):
        """Frames (B, 3, S, S) or clips (B, 3, T, S, S) to features (B, D) and scores (B, C)."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
            features = family.features(self.model, x.movedim(2, 1) if family.frames else x)
            return features, self.model.classifier(features) if hasattr(self.model, "classifier") else None

    return FeaturesAndScores()


def _maker(repository: str) -> tuple[Any, Any]:
    """The class of transformers, and its configuration."""
    transformers = need("transformers", "transformers", _PREFIX + repository)
    family, raw = _family(repository), _config(repository)
    classifies = family.classifying in raw.get("architectures", ())
    make = getattr(transformers, family.classifying if classifies else family.tower)
    return make, make.config_class.from_dict(raw.get("vision_config") or raw)


def _family(repository: str) -> _Family:
    kind = str(_config(repository).get("model_type")).removesuffix("_vision_model")
    if kind not in _FAMILIES:
        raise UserError(f"{repository}: a network of type {kind!r}; known are {', '.join(_FAMILIES)}")
    return _FAMILIES[kind]


def _config(repository: str) -> dict[str, Any]:
    return _read(repository, "config.json")


def _preprocessing(repository: str, size: int) -> Preprocessing:
    """As its processor has it, but that the short side is resized and the picture keeps its proportions."""
    try:
        seen = _read(repository, "preprocessor_config.json")
    except UserError:
        seen = _read(repository, "video_preprocessor_config.json")
    given: Any = seen.get("size", size)
    resize: Any = given.get("shortest_edge", given.get("height", size)) if isinstance(given, dict) else given
    try:
        return Preprocessing(
            resize=int(resize),
            crop=size,
            interpolation={0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}[seen.get("resample", 2)],
            mean=tuple(seen["image_mean"]),
            std=tuple(seen["image_std"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{_PREFIX}{repository}: its preprocessing is not understood ({error!r})") from error


@cache
def _read(repository: str, name: str) -> dict[str, Any]:
    """A JSON file of a folder, or of a repository of the hub."""
    if Path(repository).is_absolute() and not Path(repository).is_dir():
        raise UserError(f"{_PREFIX}{repository}: there is no such folder")
    try:
        if Path(repository).is_dir():
            path = Path(repository) / name
        else:
            from huggingface_hub import hf_hub_download

            from extract.backbones.downloads import quick_hub

            with quick_hub():
                path = Path(hf_hub_download(repository, name))
        content = json.loads(path.read_text(encoding="utf-8"))
    except Exception as error:  # the hub's client raises many kinds
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{_PREFIX}{repository}: its {name} cannot be had ({reason})") from error
    if not isinstance(content, dict):
        raise UserError(f"{_PREFIX}{repository}: its {name} is no JSON object")
    return content
