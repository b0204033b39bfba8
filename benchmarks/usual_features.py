"""The usual script: features of videos, one video after another, an .npy each. Nothing of thriftvid is in it.

    python benchmarks/usual_features.py NETWORK SIZE SEED THREADS OUT VIDEO...

Decodes every frame, keeps one a second, has timm's own transform (PIL) resize, crop and normalise it, computes the
video's features in one batch and saves them. THREADS is how many decode: 1, or 0 for as many as libav likes; the
network has as many as torch likes. Prints the seconds that this took, by the clock and of the processor, without
imports and building the network.
"""

import sys
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import timm
import timm.data
import torch


def main() -> None:
    network, size, seed, threads, out = sys.argv[1:6]
    videos = [Path(name) for name in sys.argv[6:]]
    torch.manual_seed(int(seed))
    model: Any = timm.create_model(network).eval()
    model.reset_classifier(0)
    data: Any = timm.data  # whose functions have no types
    config = data.resolve_model_data_config(model, {"input_size": (3, int(size), int(size))})
    transform = data.create_transform(**config)
    with torch.no_grad():
        model(torch.zeros(1, 3, int(size), int(size)))

    started, used = time.perf_counter(), time.process_time()
    for video in videos:
        pictures: list[torch.Tensor] = []
        with av.open(str(video)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "SLICE" if threads == "1" else "AUTO"
            stream.codec_context.thread_count = int(threads)
            for frame in container.decode(stream):
                if frame.time is not None and frame.time >= len(pictures):
                    pictures.append(transform(frame.to_image()))
        with torch.no_grad():
            features = model(torch.stack(pictures))
        np.save(Path(out) / f"{video.stem}.npy", features.numpy())
    print(time.perf_counter() - started, time.process_time() - used)


if __name__ == "__main__":
    main()
