"""What run-policy takes from `extract`: how a command is told of videos, weights, decoders and jobs.

Of `policy`, this folder alone may import it.
"""

from extract.backbones import absolute_weights, weights_by_stream
from extract.names import printable
from extract.options import (
    BATCH,
    DEADLINE,
    DECODER,
    PRECISION,
    RETRY_FAILED,
    THREADS,
    check_scheduler,
    damaged_option,
    jobs_options,
    weights_option,
)
from extract.sources import Ids, Sources, SourceVideo, find_videos, fingerprint
from extract.video_arguments import VideosCommand, takes_videos

__all__ = [
    "BATCH",
    "DEADLINE",
    "DECODER",
    "PRECISION",
    "RETRY_FAILED",
    "THREADS",
    "Ids",
    "SourceVideo",
    "Sources",
    "VideosCommand",
    "absolute_weights",
    "check_scheduler",
    "damaged_option",
    "find_videos",
    "fingerprint",
    "jobs_options",
    "printable",
    "takes_videos",
    "weights_by_stream",
    "weights_option",
]
