"""The operator's port: `/metrics`, `/healthz` (alive), `/readyz` (answering, or why not)."""

from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


def status_app(registry: CollectorRegistry, obstacle: Callable[[], str | None]) -> Starlette:
    """Return the application; `obstacle` says why no request is answered, or None."""

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), headers={"content-type": CONTENT_TYPE_LATEST})

    async def healthz(_: Request) -> Response:
        return JSONResponse({"alive": True})

    async def readyz(_: Request) -> Response:
        reason = obstacle()
        return JSONResponse({"ready": reason is None, "reason": reason}, 200 if reason is None else 503)

    async def no_route(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return JSONResponse({"message": error.detail.lower()}, error.status_code, error.headers)

    return Starlette(
        routes=[Route("/metrics", metrics), Route("/healthz", healthz), Route("/readyz", readyz)],
        exception_handlers={HTTPException: no_route},
    )
