"""Whether released weights can be downloaded, found out in seconds.

The hub's client tries six times for each of several files, a minute in all, and a firewall that drops packets
makes any client wait for minutes.
"""

from __future__ import annotations

import logging
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import torch

from cache_schema import UserError
from extract.backbones.weights import first_line

PATIENCE_S = 5.0


def require_connection(url: str) -> None:
    """Connect to the host of an address, or to the proxy that stands before it, and hang up.

    Raises:
        OSError: it cannot be reached within PATIENCE_S.
    """
    host = urlsplit(url).hostname or ""
    proxies = {} if urllib.request.proxy_bypass(host) else urllib.request.getproxies()
    place = urlsplit(proxies.get(urlsplit(url).scheme) or proxies.get("all") or url)
    outcome: list[OSError | None] = []

    def connect() -> None:
        try:
            port = place.port or {"http": 80, "socks5": 1080}.get(place.scheme, 443)
            socket.create_connection((place.hostname or "", port), PATIENCE_S).close()
            outcome.append(None)
        except OSError as error:
            outcome.append(error)

    # In a thread, because looking up a name knows no time limit.
    thread = Thread(target=connect, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    error = outcome[0] if outcome else TimeoutError(f"no answer within {PATIENCE_S:g} s")
    if error is not None:
        raise OSError(f"{place.hostname} cannot be reached: {error}") from error


def require_torch_download(url: str) -> None:
    """Whether torch has what it would download from an address, as torchvision does, or can fetch it.

    Raises:
        OSError: it has not, and the address cannot be reached.
    """
    if not (Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name).exists():
        require_connection(url)


@contextmanager
def fetching(what: str, otherwise: str) -> Iterator[None]:
    """For a block that fetches something. Sockets, proxies, disks and clients raise errors of many kinds, and each
    means that it is not there.

    Args:
        what: the beginning of the message.
        otherwise: the end of it: what can be done beside connecting to the network once.

    Raises:
        UserError: for any of them.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{what} cannot be had ({first_line(error)}); connect to the network once{otherwise}"
        ) from error


def otherwise_a_file(url: str) -> str:
    """The same for weights of a stream that are released at an address."""
    return f", or fetch {url} and give it with --weights FILE, or ask for --weights random:SEED"


@contextmanager
def quick_hub() -> Iterator[None]:
    """Within it, where Hugging Face's hub is out of reach its client looks into its folder of downloads alone.

    Raises:
        OSError: what is wanted is not there, and why the hub cannot be reached.
    """
    from huggingface_hub import constants

    # Of every retry it tells; one line at the end is enough.
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
    offline = constants.HF_HUB_OFFLINE
    out_of_reach: OSError | None = None
    if not offline:
        try:
            require_connection(constants.ENDPOINT)
        except OSError as error:
            constants.HF_HUB_OFFLINE, out_of_reach = True, error
    try:
        yield
    except OSError as error:  # of the client, too: a file that is not there
        if out_of_reach is None:
            raise
        raise out_of_reach from error
    finally:
        constants.HF_HUB_OFFLINE = offline
