"""NATIX's application server, as its client: a registration is sent, and asked after until it has ended.

`register.sh` of the subnet's repository (2026-05) asks every three seconds, for three minutes; so do we.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from miner.errors import CouldNotStart
from miner.formats import one_line
from miner.natix.registration import Progress, ServerWord

REGISTER_PATH = "/participants/register"
STATUS_PATH = "/participants/registration-status/"
POLL_SECONDS = 3.0
ANSWER_SECONDS = 30.0  # for one answer of the server
MAX_ANSWER_BYTES = 64 * 1024
PLAIN = {"accept-encoding": "identity"}  # so that a short answer can't unfold to a long one
ELSEWHERE = (404, 405)
CONFLICT = 409  # it knows a registration of this uid or hotkey already
LATER = (408, 429)

# In the server's words; others are told as they are, and waited for.
PROGRESS: Mapping[str, Progress] = {
    "pending": "pending",
    "queued": "pending",
    "processing": "pending",
    "success": "succeeded",
    "succeeded": "succeeded",
    "failed": "failed",
    "error": "failed",
}


class NatixFault(CouldNotStart):
    """NATIX's server can't be asked, or what it says can't be read."""


class ServerRefusal(ServerWord):
    """A registration that the server does not take."""

    progress: Progress = "failed"
    is_conflict: bool
    there: ServerWord | None = None  # what it has of the uid all the same, which may be another hotkey's


class NatixServer:
    """NATIX's application server: one registration is sent, and any number of questions how it went."""

    def __init__(self, address: str, seconds: float = ANSWER_SECONDS) -> None:
        self.address = address.rstrip("/")
        self._seconds = seconds
        headers = {"accept": "application/json", **PLAIN}
        self._client = httpx.Client(timeout=seconds, headers=headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def register(self, body: Mapping[str, str]) -> ServerWord:
        """Send a registration; whether it succeeds is asked for later.

        Raises:
            NatixFault: the server is away, or its answer is none. A registration may have arrived all the same.
        """
        status, said = self._ask("POST", REGISTER_PATH, body)
        if status in ELSEWHERE:
            raise NatixFault(f"{self.host} knows no {REGISTER_PATH} (HTTP {status}): look at NATIX_URL")
        if status >= 400:
            return ServerRefusal(words=_detail(said) or f"HTTP {status}", is_conflict=status == CONFLICT)
        return ServerWord(progress="pending", words=_detail(said))

    def status(self, uid: int) -> ServerWord | None:
        """Ask how a uid's registration is; None: the server knows of none.

        Raises:
            NatixFault: the server is away, or its answer is none.
        """
        status, said = self._ask("GET", f"{STATUS_PATH}{uid}")
        if status == 404:
            return None
        if status >= 400:
            raise NatixFault(f"{self.host} refuses to say: {_detail(said) or f'HTTP {status}'}")
        word = one_line(str(said.get("status") or ""))
        if not word:
            raise NatixFault(f"{self.host} answered without a status")
        progress = PROGRESS.get(word.lower(), "pending")
        error = one_line(str(said.get("error_message") or ""))
        is_plain = progress != "pending" or word.lower() == progress
        return ServerWord(progress=progress, words=error or ("" if is_plain else word))

    @property
    def host(self) -> str:
        """The server's name."""
        return urlsplit(self.address).netloc

    def _ask(self, method: str, path: str, body: Mapping[str, str] | None = None) -> tuple[int, dict[str, Any]]:
        until = time.monotonic() + self._seconds
        try:
            with self._client.stream(method, self.address + path, json=body) as response:
                status, kind = response.status_code, response.headers.get("content-type", "")
                content = body_within(response, MAX_ANSWER_BYTES, until)
                if len(content) > MAX_ANSWER_BYTES:
                    raise NatixFault(f"{self.host} sent more than {MAX_ANSWER_BYTES} bytes")
        except httpx.TimeoutException as error:
            raise NatixFault(f"{self.host} did not answer within {self._seconds:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise NatixFault(f"{self.host} can't be reached: {one_line(str(error)) or type(error).__name__}") from error
        if status >= 500 or status in LATER:
            raise NatixFault(f"{self.host} answered with HTTP {status}: try again later")
        if 300 <= status < 400:
            place = one_line(response.headers.get("location", "")) or "nowhere"
            raise NatixFault(f"{self.host} sends us on to {place}: look at NATIX_URL; nothing is sent there")
        with suppress(ValueError, RecursionError):
            said = json.loads(content)
            if isinstance(said, dict):
                return status, said
        raise NatixFault(f"{self.host} answered with no JSON object: HTTP {status}, {one_line(kind) or 'of no type'}")


def body_within(response: httpx.Response, most: int, until: float) -> bytes:
    """Return an answer's body as it comes over the wire; of one that is longer than `most` bytes, the beginning.

    Raises:
        httpx.ReadTimeout: it was still coming at `until`, on the monotonic clock.
    """
    content = b""
    for chunk in response.iter_raw():
        content += chunk
        if len(content) > most:
            break
        if time.monotonic() > until:
            raise httpx.ReadTimeout("the answer came too slowly")
    return content


def _detail(said: Mapping[str, Any]) -> str:
    """Return what happened, in the server's words; of a faulty field its name too."""
    detail = said.get("detail")
    if isinstance(detail, list):  # as FastAPI lists what is wrong with a body
        faults = [one for one in detail if isinstance(one, dict)]
        detail = "; ".join(f"{'.'.join(map(str, _parts(one.get('loc'))))}: {one.get('msg')}" for one in faults)
    return one_line(str(detail or said.get("message") or ""))


def _parts(place: object) -> list[object]:
    return place if isinstance(place, list) else [place]


def wait_for_end(
    server: NatixServer,
    uid: int,
    seconds: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[ServerWord]:
    """Yield what the server says of a registration, until it has ended or `seconds` are over.

    A server that is away meanwhile is asked again.

    Raises:
        NatixFault: time is over, and the last question had no answer.
    """
    until = clock() + seconds
    if seconds >= POLL_SECONDS:  # at once it may still speak of the registration before
        sleep(POLL_SECONDS)
    while True:
        fault = None
        try:
            word = server.status(uid) or ServerWord(progress="pending", words="not known there yet")
            yield word
            if word.progress != "pending":
                return
        except NatixFault as error:
            fault = error
            yield ServerWord(progress="pending", words=str(error))
        if clock() + POLL_SECONDS > until:
            if fault is not None:
                raise fault
            return
        sleep(POLL_SECONDS)
