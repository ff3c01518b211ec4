"""Opens the address, loads the network, and answers requests until it is stopped."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import signal
import socket
from pathlib import Path

import numpy as np
import uvicorn

from dfssd.deployment.networks import Network, open_network
from dfssd.errors import UserError, reason
from dfssd.log import LOGGER
from dfssd.serving.app import create_app
from dfssd.serving.settings import Settings
from dfssd.wording import counted

_FIRST = (640, 640, 3)
"""Shape of the gray image that is computed before the first request."""

_GRACE = 10
"""How long requests that are under way may take once the server is stopped [s]."""


def serve(model: str, settings: Settings, *, host: str, port: int, conf: float | None = None) -> None:
    """Answer requests until Ctrl-C or SIGTERM; those that are under way then are still answered.

    Args:
        model: See :func:`~dfssd.deployment.networks.open_network`.
        settings: What is allowed.
        host: Name or number of the address.
        port: Its port; 0: a free one.
        conf: Lowest score [0-1] of all classes; None: the thresholds in the file, 0.25 where it has none.

    Raises:
        UserError: The address cannot be used, there is no such model, or it fails.
    """
    with contextlib.closing(listen(host, port)) as opened:
        network = open_network(Path(model).expanduser(), conf)
        warm_up(network, model)
        app = create_app(network, settings, local=_is_local(opened))
        address = _address(opened)
        if settings.token is None and not _is_local(opened):
            LOGGER.warning(
                f"host={host}: whoever reaches this machine can use the server: set token_file=, or keep host=127.0.0.1"
            )
        LOGGER.info(
            f"{network.file.name}: {counted(len(network.names), 'class')}, {_at_once(app.state.service.worker.most)}"
        )
        LOGGER.info(f"{address}  page, POST /predict, /health, /metrics; Ctrl-C stops it")
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            # an address that a client claims would go round the limit of its rate
            proxy_headers=False,
            timeout_graceful_shutdown=_GRACE,
        )
        # uvicorn raises the signal that has stopped it once more, when everything is closed
        before = signal.signal(signal.SIGTERM, lambda *_: None)
        try:
            uvicorn.Server(config).run(sockets=[opened])
        except KeyboardInterrupt:
            pass
        finally:
            signal.signal(signal.SIGTERM, before)
    LOGGER.info("stopped")


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        UserError: The address is none of this machine, or taken, or needs other rights.
    """
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as e:
        raise UserError(f"host={host}: is no address of this machine ({e.strerror or e})") from e
    opened = socket.socket(family, kind, number)
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows lets two programs share a port otherwise
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:  # elsewhere a port would stay closed for a minute after the server that had it
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen()
    except OSError as e:
        opened.close()
        problems = {
            errno.EADDRINUSE: f"port={port}: is used by another program: stop it, or choose another port",
            errno.EACCES: f"port={port}: needs other rights: choose one from 1024 on",
            errno.EADDRNOTAVAIL: f"host={host}: is no address of this machine",
        }
        raise UserError(problems.get(e.errno or 0, f"host={host} port={port}: {e.strerror or e}")) from e
    return opened


def warm_up(network: Network, model: str) -> None:
    """Compute a gray image, so that the first request does not wait and a network that fails is found before it.

    Raises:
        UserError: The network fails on it.
    """
    image = np.full(_FIRST, 114, np.uint8)
    if network.problem(image) is None:
        try:
            network.find([image])
        # each runtime raises errors of its own
        except Exception as e:
            raise UserError(f"model={model}: fails on an image ({reason(e)}); give another file") from e


def _address(opened: socket.socket) -> str:
    host, port = opened.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _is_local(opened: socket.socket) -> bool:
    return ipaddress.ip_address(opened.getsockname()[0].partition("%")[0]).is_loopback


def _at_once(most: int) -> str:
    return "one image at a time" if most == 1 else f"up to {most} images at once"
