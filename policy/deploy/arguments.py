"""What run-policy takes from `extract`: how a command is told of videos, weights, decoders and jobs.

Of `policy`, this folder alone may import it.
"""

from extract import options
from extract.backbones import Weights, absolute_weights, names_of, weight_words, weights_by_stream
from extract.sources import Ids, Sources, SourceVideo, find_videos, fingerprint
from extract.video_arguments import VideosCommand, takes_videos

__all__ = [
    "Ids",
    "SourceVideo",
    "Sources",
    "VideosCommand",
    "Weights",
    "absolute_weights",
    "find_videos",
    "fingerprint",
    "names_of",
    "options",
    "takes_videos",
    "weight_words",
    "weights_by_stream",
]
