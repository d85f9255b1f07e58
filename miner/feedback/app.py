"""The application of `label`: a page that only its operator sees, on this machine's own address.

Whoever lacks the token of its address, comes by another name or from another page gets nothing, not even a reason: a
web page that the operator happens to look at can reach this machine's ports through the browser.
"""

import asyncio
import errno
import hmac
import json
import logging
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from http import HTTPStatus
from importlib.resources import files
from math import prod
from pathlib import PurePosixPath
from typing import Any, get_args

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from detectors.errors import ImageError
from detectors.photos import MAX_PIXELS
from detectors.photos.image import size_of
from miner.feedback.labels import Kind
from miner.feedback.sitting import Sitting, Way
from miner.recorder.records import image_name

log = logging.getLogger(__name__)

# This machine by the names it has for itself, at any port: a tunnel may have another one.
OWN_HOST = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\])(?::[0-9]{1,5})?")
MOST_BYTES = 4096  # of what a page sends
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
TYPES = {
    ".jpg": "image/jpeg", ".png": "image/png", ".webp": "image/webp", ".html": "text/html", ".css": "text/css",
    ".js": "text/javascript",
}  # fmt: skip
_MINER = files("miner")
# The page's own files, and the look of the miner's page, which it shares.
FILES = {
    "": _MINER / "feedback" / "page" / "label.html",
    "label.js": _MINER / "feedback" / "page" / "label.js",
    "label.css": _MINER / "feedback" / "page" / "label.css",
    "style.css": _MINER / "status" / "page" / "style.css",
}
FULL = (errno.ENOSPC, errno.EDQUOT)


def why_refused(method: str, path: str, headers: Headers, token: str) -> HTTPStatus | None:
    """Return the status for somebody who gets nothing; None: it is the operator.

    Args:
        method: GET, HEAD or POST.
        path: of the address, which begins with the token.
        headers: of the request.
        token: which only the operator was told.
    """
    hosts = headers.getlist("host")
    if len(hosts) != 1 or OWN_HOST.fullmatch(hosts[0].lower()) is None:
        return HTTPStatus.MISDIRECTED_REQUEST
    origins, sites = headers.getlist("origin"), headers.getlist("sec-fetch-site")
    is_change = method not in ("GET", "HEAD")
    if any(origin.lower() != f"http://{hosts[0].lower()}" for origin in origins) or (is_change and not origins):
        return HTTPStatus.FORBIDDEN
    if any(site != "same-origin" and (site != "none" or is_change) for site in sites):
        return HTTPStatus.FORBIDDEN
    given = path.split("/")[1] if path.startswith("/") else ""
    if not hmac.compare_digest(given.encode(errors="replace"), token.encode()):
        return HTTPStatus.NOT_FOUND
    return None


class Doorkeeper:
    """Lets nobody in but the operator, and gives every answer its headers."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        status = why_refused(scope["method"], scope["path"], Headers(scope=scope), self.token)
        answer = self.app if status is None else Response(status_code=status)
        await answer(scope, receive, send_with_headers)


def label_app(sitting: Sitting, token: str, note: str = "") -> Starlette:
    """Return the application; all of its addresses begin with `/TOKEN/`.

    Args:
        sitting: what is shown and labelled.
        token: of the address.
        note: what the operator should know of the recorder; nothing: all is well.
    """

    content = {name: file.read_bytes() for name, file in FILES.items()}

    def state() -> dict[str, Any]:
        return asdict(sitting.view()) | {"note": note}

    def shown(digest: str | None) -> dict[str, Any] | None:
        found = sitting.shown(digest) if digest is not None else None
        return asdict(found) if found is not None else None

    async def file(request: Request) -> Response:
        name = request.path_params.get("name", "")
        if name not in FILES:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        return Response(content[name], media_type=TYPES[PurePosixPath(FILES[name].name).suffix])

    async def to_page(request: Request) -> Response:
        return RedirectResponse(f"/{token}/")

    async def look(_: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(state))

    async def photo(request: Request) -> Response:
        digest = request.path_params["digest"]
        try:
            data = await asyncio.to_thread(sitting.photo, digest)
        except OSError as error:
            raise HTTPException(HTTPStatus.NOT_FOUND) from error
        if not is_shown(data):
            raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        return Response(data, media_type=TYPES[PurePosixPath(image_name(digest, data)).suffix])

    async def beside(request: Request) -> Response:
        way, of = request.path_params["way"], request.query_params.get("of")
        if way not in get_args(Way):
            raise HTTPException(HTTPStatus.NOT_FOUND)
        found = await asyncio.to_thread(sitting.beside, of, way)
        return JSONResponse({"photo": asdict(found) if found is not None else None})

    async def label(request: Request) -> Response:
        match await read_json(request):
            case {"digest": str(digest), "kind": str(kind), **more} if kind in get_args(Kind):

                def put() -> dict[str, Any]:
                    before = sitting.shown(digest)
                    if "was" in more and more["was"] != (before.label if before is not None else None):
                        raise LabelledMeanwhile
                    sitting.label(digest, kind)  # type: ignore[arg-type]
                    return {"labelled": shown(digest)} | state()

                return await changed(put)
        raise HTTPException(HTTPStatus.BAD_REQUEST)

    async def undo(request: Request) -> Response:
        await read_json(request)

        def take_back() -> dict[str, Any]:
            digest = sitting.undo()
            return {"labelled": shown(digest)} | state()

        return await changed(take_back)

    return Starlette(
        routes=[
            Route("/{token}", to_page),
            Route("/{token}/", file),
            Route("/{token}/state", look),
            Route("/{token}/photo/{digest}", photo),
            Route("/{token}/labelled/{way}", beside),
            Route("/{token}/label", label, methods=["POST"]),
            Route("/{token}/undo", undo, methods=["POST"]),
            Route("/{token}/{name}", file),
        ],
        middleware=[Middleware(Doorkeeper, token=token)],
        exception_handlers={HTTPException: _bare},
    )


class LabelledMeanwhile(Exception):
    """Another tab has said something of the photo that this one does not show."""


def is_shown(data: bytes) -> bool:
    """Return whether a browser may open a photo: it has no limit of its own, and 60 kB can take gigabytes there."""
    with suppress(ImageError):
        return prod(size_of(data)) <= MAX_PIXELS
    return False


async def changed(change: Callable[[], dict[str, Any]]) -> Response:
    """Change something on the disk, and answer what came of it: 507 where the disk is full."""
    try:
        return JSONResponse(await asyncio.to_thread(change))
    except LabelledMeanwhile:
        return _told(HTTPStatus.CONFLICT, "it was labelled in another tab meanwhile; ← leads to it")
    except FileNotFoundError:
        return _told(HTTPStatus.GONE, "the photo is gone: the recorder keeps the latest alone")
    except OSError as error:
        log.warning("a label can't be written: %s", error)
        if error.errno in FULL:
            return _told(HTTPStatus.INSUFFICIENT_STORAGE, "the disk is full: nothing was written, and nothing is lost")
        why = error.strerror or str(error)
        return _told(HTTPStatus.INTERNAL_SERVER_ERROR, f"the label can't be written ({why}); nothing is lost")


async def read_json(request: Request) -> Any:
    """Return what a page sends.

    Raises:
        HTTPException: it is too much, no JSON, or said to be something else, as a form of another page would be.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    with suppress(ValueError, RecursionError):
        return json.loads(body)
    raise HTTPException(HTTPStatus.BAD_REQUEST)


def _told(status: HTTPStatus, message: str) -> Response:
    return JSONResponse({"message": message}, status)


async def _bare(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return Response(status_code=error.status_code)
