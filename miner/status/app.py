"""The application of the operator's port: `/` (the page), `/status` (as JSON), `/metrics`, `/healthz`, `/readyz`."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from miner.settings.addresses import strange_name
from miner.status.archive import CheckupView
from miner.status.overview import MemoryUse, Overview, memory_view
from miner.status.page import CONTENT_SECURITY_POLICY, render, template

log = logging.getLogger(__name__)

SHOWN_CHARACTERS = 100  # of a name that somebody made up


class NamedHost:
    """Refuses who came by a name that is none of ours, on whatever path; the first is told of in the log."""

    def __init__(self, app: ASGIApp, names: frozenset[str]) -> None:
        self.app = app
        self.names = names
        self._is_told = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        hosts = Headers(scope=scope).getlist("host") if scope["type"] == "http" else []
        name = strange_name(hosts, self.names)
        if name is None:
            await self.app(scope, receive, send)
            return
        message = (
            f"this port is not asked by the name {name[:SHOWN_CHARACTERS]!r}; STATUS_ALLOWED_HOSTS lists those it is"
        )
        log.log(
            logging.DEBUG if self._is_told else logging.WARNING, "refused a request with a strange Host: %s", message
        )
        self._is_told = True
        await JSONResponse({"message": message}, HTTPStatus.MISDIRECTED_REQUEST)(scope, receive, send)


def status_app(
    registry: CollectorRegistry,
    obstacle: Callable[[], str | None],
    overview: Callable[[MemoryUse, CheckupView | None], Overview],
    keys: Callable[[], Mapping[str, str | None]],
    chain: Callable[[], Mapping[str, float | str | None]],
    names: frozenset[str],
    checkup: Path,
    before_scrape: Callable[[], None] = lambda: None,
    read_files: Callable[[], None] = lambda: None,
) -> Starlette:
    """Return the application.

    Args:
        registry: of the metrics.
        obstacle: why no request is answered, or None.
        overview: all that is shown to people, from what the kernel says of memory and doctor said last.
        keys: of several hotkeys, why its validators are not answered, or None; by name.
        chain: how old what is known of it is, and why, and whether we stand there; empty before it is looked at.
        names: that the port may be asked by, besides addresses.
        checkup: where doctor leaves its findings.
        before_scrape: reads what the metrics can't read off the event loop.
        read_files: reads off the event loop what else other commands have left, before all of it is shown or scraped.
    """

    def read() -> tuple[MemoryUse, CheckupView | None]:
        read_files()
        return memory_view(), CheckupView.read(checkup)

    async def look() -> Overview:
        # The kernel's files in a thread: some of them take a lock on our memory for milliseconds.
        return overview(*await asyncio.to_thread(read))

    async def page(request: Request) -> Response:
        headers = {
            "content-security-policy": CONTENT_SECURITY_POLICY,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cache-control": "no-store",
        }
        await asyncio.to_thread(template)  # the first time compiles it, off the loop
        return HTMLResponse(render(await look(), request.query_params.get("last", "hour")), headers=headers)

    async def status(_: Request) -> Response:
        return Response((await look()).model_dump_json(), media_type="application/json")

    async def metrics(_: Request) -> Response:
        await asyncio.to_thread(read_files)
        before_scrape()
        text = await asyncio.to_thread(generate_latest, registry)
        return Response(text, headers={"content-type": CONTENT_TYPE_LATEST})

    async def healthz(_: Request) -> Response:
        return JSONResponse({"alive": True})

    async def readyz(_: Request) -> Response:
        reason = obstacle()
        parts = {"chain": dict(chain()), "hotkeys": dict(keys())}
        there = {name: part for name, part in parts.items() if part}
        return JSONResponse({"ready": reason is None, "reason": reason} | there, 200 if reason is None else 503)

    async def no_route(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return JSONResponse({"message": error.detail.lower()}, error.status_code, error.headers)

    return Starlette(
        routes=[
            Route("/", page),
            Route("/status", status),
            Route("/metrics", metrics),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
        ],
        middleware=[Middleware(NamedHost, names=names)],
        exception_handlers={HTTPException: no_route},
    )
