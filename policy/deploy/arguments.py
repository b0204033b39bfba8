"""What run-policy takes from `extract`: how a command is told of videos, weights and devices.

Of `policy`, this folder alone may import it.
"""

from extract.backbones import weights_by_stream
from extract.names import printable
from extract.sources import Ids, Sources, SourceVideo, find_videos, fingerprint
from extract.video_arguments import VideosCommand, takes_videos

__all__ = [
    "Ids",
    "SourceVideo",
    "Sources",
    "VideosCommand",
    "find_videos",
    "fingerprint",
    "printable",
    "takes_videos",
    "weights_by_stream",
]
