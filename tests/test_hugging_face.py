"""Networks of transformers: tiny ones with random weights, saved to a folder, against transformers itself."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.videos import numbered_frames, write_video
from cache_schema import Sampling, UserError
from extract import extract
from extract.backbones import parse_stream
from extract.backbones.backbone import Backbone
from extract.backbones.weights import weights_digest
from policy.deploy.network import Backbones
from policy.deploy.speed import request_of
from tests.test_backbones import picture

transformers = pytest.importorskip("transformers")

CPU = torch.device("cpu")
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
SIZE = 32
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
PATCHES = {**SMALL, "image_size": SIZE, "patch_size": 16}


def videomae(**more: Any) -> Any:
    return transformers.VideoMAEConfig(**PATCHES, num_frames=4, **more)


def make(kind: str) -> Any:
    """A network by its kind."""
    torch.manual_seed(3)
    if kind == "videomae":
        return transformers.VideoMAEForVideoClassification(videomae(num_labels=5))
    if kind == "videomae-first-token":
        return transformers.VideoMAEForVideoClassification(videomae(num_labels=5, use_mean_pooling=False))
    if kind == "videomae-pretrained":
        decoder = {
            "decoder_hidden_size": 16,
            "decoder_num_hidden_layers": 1,
            "decoder_num_attention_heads": 2,
        }
        return transformers.VideoMAEForPreTraining(videomae(**decoder, decoder_intermediate_size=32))
    if kind == "timesformer":
        config = transformers.TimesformerConfig(**PATCHES, num_frames=4, num_labels=5)
        return transformers.TimesformerForVideoClassification(config)
    if kind == "vjepa2":
        config = transformers.VJEPA2Config(
            patch_size=16,
            crop_size=SIZE,
            frames_per_clip=4,
            hidden_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            pred_hidden_size=24,
            pred_num_hidden_layers=1,
            pred_num_attention_heads=2,
            num_pooler_layers=1,
            num_labels=5,
        )
        return transformers.VJEPA2ForVideoClassification(config)
    if kind == "clip":
        text = {**SMALL, "vocab_size": 20, "max_position_embeddings": 8}
        return transformers.CLIPModel(
            transformers.CLIPConfig(
                text_config=text, vision_config={**PATCHES, "projection_dim": 8}, projection_dim=8
            )
        )
    return transformers.SiglipModel(
        transformers.SiglipConfig(
            text_config={**SMALL, "vocab_size": 20, "max_position_embeddings": 8}, vision_config=PATCHES
        )
    )


def saved(kind: str, folder: Path) -> tuple[Any, Path]:
    model = make(kind).eval()
    path = folder / f"tiny-{kind}"
    model.save_pretrained(path)
    size = {"shortest_edge": 40} if kind != "siglip" else {"height": 40, "width": 40}
    name = "video_preprocessor_config.json" if kind == "vjepa2" else "preprocessor_config.json"
    seen = {"size": size, "image_mean": MEAN, "image_std": STD, "resample": 3}
    (path / name).write_text(json.dumps(seen))
    return model, path


def expected_of(kind: str, model: Any, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Features and scores by transformers' own outputs; what the classifier sees by a hook."""
    inputs: list[Tensor] = []
    if hasattr(model, "classifier"):
        model.classifier.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
        scores = model(x).logits
        return inputs[0], scores
    if kind == "videomae-pretrained":
        return model.videomae(x).last_hidden_state.mean(1), None
    return model.get_image_features(x).pooler_output, None


KINDS = ("videomae", "videomae-first-token", "videomae-pretrained", "timesformer", "vjepa2", "clip", "siglip")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_what_transformers_computes(kind: str, tmp_path: Path) -> None:
    model, folder = saved(kind, tmp_path)
    request = parse_stream(f"transformers:{folder}")
    backbone = Backbone(request, weights="pretrained", device=CPU)
    spec = backbone.spec
    frames = np.stack([picture(SIZE, SIZE, seed) for seed in range(8)]).reshape(2, 4, SIZE, SIZE, 3)
    x = (torch.tensor(frames).permute(0, 1, 4, 2, 3) / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(
        STD
    ).view(3, 1, 1)
    clips = kind not in ("clip", "siglip")
    with torch.inference_mode():
        features, scores = expected_of(kind, model, x if clips else x[:, 0])
    ours = backbone(torch.tensor(frames if clips else frames[:, 0]))
    torch.testing.assert_close(ours[0], features, atol=1e-4, rtol=1e-4)
    assert (ours[1] is None) == (scores is None)
    if scores is not None and ours[1] is not None:
        torch.testing.assert_close(ours[1], scores, atol=1e-4, rtol=1e-4)
        assert spec.classes == tuple(f"LABEL_{number}" for number in range(5))
    assert (spec.name, spec.weights) == (f"tiny-{kind}_{SIZE}", f"pretrained:tiny-{kind}")
    assert (spec.feature_dim, spec.num_classes) == (features.shape[1], 0 if scores is None else 5)
    preprocessing = spec.preprocessing
    assert (preprocessing.resize, preprocessing.crop, preprocessing.interpolation) == (40, SIZE, "bicubic")
    assert (preprocessing.mean, preprocessing.std) == (MEAN, STD)
    assert spec.macs_per_row > 0
    again = Backbone(request_of(spec), weights="pretrained", device=CPU).spec
    assert again.weights_digest == spec.weights_digest == weights_digest(backbone.parameters)


def test_sampling_is_as_released(tmp_path: Path) -> None:
    rates = {"videomae": 7.5, "timesformer": 30 / 64, "vjepa2": 4.0}
    for kind, fps in rates.items():
        sampling = parse_stream(f"transformers:{saved(kind, tmp_path)[1]}").sampling
        assert sampling == Sampling("clips", fps=fps, frames=4, window=4, clips=10)
    assert parse_stream(f"transformers:{saved('clip', tmp_path)[1]}", fps=2).sampling == Sampling(fps=2)


def test_macs_by_hand(tmp_path: Path) -> None:
    """VideoMAE of one layer: 2·2·2 tokens of 16 values."""
    request = parse_stream(f"transformers:{saved('videomae', tmp_path)[1]}")
    spec = Backbone(request, weights="random:0", device=CPU).spec
    tokens, width, inside = 8, 16, 32
    patches = tokens * width * 3 * 2 * 16 * 16
    attention = 4 * tokens * width * width + 2 * tokens * tokens * width
    assert spec.macs_per_row == patches + attention + 2 * tokens * width * inside
    assert (spec.weights, spec.classes) == ("random:0", None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("nothing there", r"its config\.json cannot be had"),
        ("another type", r"a network of type 'bert'; known are videomae, timesformer, vjepa2, clip, siglip"),
        ("not json", r"its config\.json cannot be had"),
        ("no weights", r"the weights of .* cannot be had"),
        ("other weights", r"its weights lack \S+ and \d+ more"),
        ("odd preprocessing", r"its preprocessing is not understood \(KeyError\('image_mean'\)\)"),
        ("not square", r"its pictures are not square \(image_size \[32, 64\]\)"),
        ("no preprocessing", r"its video_preprocessor_config\.json cannot be had"),
    ],
)
def test_folders_that_hold_no_network(change: str, message: str, tmp_path: Path) -> None:
    _, folder = saved("videomae", tmp_path)
    if change == "nothing there":
        folder = tmp_path / "empty"
        folder.mkdir()
    elif change == "another type":
        (folder / "config.json").write_text('{"model_type": "bert"}')
    elif change == "not json":
        (folder / "config.json").write_text("[1,")
    elif change == "odd preprocessing":
        (folder / "preprocessor_config.json").write_text("{}")
    elif change == "not square":
        (folder / "config.json").write_text('{"model_type": "videomae", "image_size": [32, 64]}')
    elif change == "no weights":
        (folder / "model.safetensors").unlink()
    elif change == "other weights":
        _, other = saved("timesformer", tmp_path)
        (other / "model.safetensors").replace(folder / "model.safetensors")
    else:
        (folder / "preprocessor_config.json").unlink()
    with pytest.raises(UserError, match=message) as caught:
        Backbone(parse_stream(f"transformers:{folder}"), weights="pretrained", device=CPU)
    assert "\n" not in str(caught.value)


def test_without_transformers_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = saved("clip", tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"pip install '\.\[transformers\]'"):
        Backbone(parse_stream(f"transformers:{folder}"), weights="random:0", device=CPU)


def test_nothing_is_reported_of_weights_that_are_not_needed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    logging = transformers.utils.logging
    for kind in ("clip", "videomae-pretrained"):
        _, folder = saved(kind, tmp_path)
        before = logging.get_verbosity(), logging.is_progress_bar_enabled()
        capfd.readouterr()
        Backbone(parse_stream(f"transformers:{folder}"), weights="pretrained", device=CPU)
        assert capfd.readouterr() == ("", "")
        assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_a_folder_that_was_moved_is_still_that_stream(tmp_path: Path) -> None:
    _, old = saved("clip", tmp_path / "old")
    write_video(tmp_path / "v.mp4", numbered_frames(50), fps=25)
    how: dict[str, Any] = {"device": "cpu", "workers": 1, "progress": False, "note": lambda line: None}
    done = extract(tmp_path / "v.mp4", tmp_path / "cache", f"transformers:{old}", **how)
    [name] = done.streams
    spec = done.open()[name].spec
    new = tmp_path / "new" / old.name
    new.parent.mkdir()
    old.rename(new)
    write_video(tmp_path / "w.mp4", numbered_frames(50, first=9), fps=25)
    for jobs in (1, 2):  # the second time there is nothing to do
        both = [tmp_path / "v.mp4", tmp_path / "w.mp4"]
        done = extract(both, tmp_path / "cache", f"transformers:{new}", jobs=jobs, **how)
        assert done.outcome is not None and done.outcome.extracted == (1 if jobs == 1 else 0)
    assert done.open()[name].spec == spec and len(done.open()[name]) == 2
    with pytest.raises(UserError, match=r"there is no such folder"):
        parse_stream(f"transformers:{tmp_path / 'nowhere'}")
    with pytest.raises(
        UserError, match=rf"not at {old} any more: say where it is, by --weights {name}=FOLDER"
    ):
        Backbones({name: spec}, weights={}, device=CPU)
    assert Backbones({name: spec}, weights={name: new}, device=CPU).built(name).spec == spec
    renamed = new.rename(tmp_path / "another")
    assert Backbones({name: spec}, weights={name: renamed}, device=CPU).built(name).spec.name == name
    torch.manual_seed(4)
    other = transformers.CLIPModel(make("clip").config)
    torch.nn.init.ones_(other.visual_projection.weight)
    other.save_pretrained(renamed)
    with pytest.raises(UserError, match="are not those that the policy was trained on: their digest is"):
        Backbones({name: spec}, weights={name: renamed}, device=CPU).built(name)
    renamed.rename(new)
    with pytest.raises(UserError, match=r"made otherwise .*weights_digest"):
        extract(tmp_path / "v.mp4", tmp_path / "cache", f"transformers:{new}", retry_failed=True, **how)
