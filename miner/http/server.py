"""The uvicorn server as a part of this process: a socket bound first, no signal handlers, stopped with its context."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Generator
from functools import partial
from typing import cast

import uvicorn
from starlette.types import ASGIApp

from miner.errors import ConfigurationError, CouldNotStart
from miner.http.connections import Connections, Guard
from miner.http.protocol import GuardedProtocol

KEEP_ALIVE = 75  # seconds; a dendrite keeps its connection between rounds
CLOSING_SECONDS = 1  # for connections that are open when the port is closed; requests are drained before


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave the signals to the daemon."""
        yield


@contextlib.asynccontextmanager
async def listening(
    app: ASGIApp, key: str, host: str, port: int, connections: Connections | None = None
) -> AsyncIterator[int]:
    """Serve `app` on a port for as long as the context lasts, and yield its number: 0 is any free one.

    Messages name `key`, the setting or flag that chose the port.

    Raises:
        ConfigurationError: the address is not one of this machine.
        CouldNotStart: the port is taken or not allowed.
    """
    listener = _bind(key, host, port)
    connections = connections if connections is not None else Connections(Guard())
    config = uvicorn.Config(
        app,
        http=cast("type[asyncio.Protocol]", partial(GuardedProtocol, connections=connections)),
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=CLOSING_SECONDS,
        ws="none",
    )
    server = _Server(config)
    running = asyncio.ensure_future(server.serve(sockets=[listener]))
    while not server.started and not running.done():  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.005)
    looking = asyncio.create_task(_look(connections))
    try:
        yield int(listener.getsockname()[1])
    finally:
        looking.cancel()
        server.should_exit = True
        await running


async def _look(connections: Connections) -> None:
    while True:
        await asyncio.sleep(1.0)
        connections.look(asyncio.get_running_loop().time())


def _bind(key: str, host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:  # `::` takes IPv4 too, whatever net.ipv6.bindv6only says
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise CouldNotStart(
                f"{key}={port}: the port is taken by another process; `ss -ltnp` shows by which"
            ) from error
        if error.errno == errno.EACCES:
            raise CouldNotStart(f"{key}={port}: the port needs more rights; one from 1024 on does not") from error
        raise ConfigurationError(f"{key}={port}: {host} can't be listened on: {error.strerror or error}") from error
    return listener
