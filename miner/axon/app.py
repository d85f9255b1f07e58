"""The application of the validators' port: authentication, rules, admission, body, answer.

It is the only place where errors become statuses.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from miner.axon import BTAUTH_PATH, SYNAPSES, btauth, dendrite
from miner.axon.body import SMALL_BODY_BYTES, UNPACKED_FACTOR, BodyReader, Limits, check_length, declared_length, unpack
from miner.axon.caller import Caller, Rules, StaleNonce, judge, read_timeout
from miner.axon.clock import ClockWatch
from miner.axon.nonces import SeenNonces
from miner.axon.request import Exchange, address_of, neighbourhood
from miner.chain.base import Chain
from miner.errors import (
    Expired,
    Forbidden,
    InferenceCrashed,
    InferenceFailed,
    Refused,
    RequestError,
    Unauthorised,
    refused,
)
from miner.http.connections import vouch
from miner.inference.memory import RETRY_SECONDS, Claim
from miner.inference.scheduler import Ticket
from miner.inference.service import Picture, Service
from miner.recorder.records import RequestListener, RequestRecord, Wire

log = logging.getLogger(__name__)


class Axon:
    """An ASGI endpoint for both wires."""

    def __init__(
        self,
        service: Service,
        chain: Chain,
        rules: Rules,
        limits: Limits,
        listeners: Sequence[RequestListener] = (),
        model_url: str = "",
        clock: ClockWatch | None = None,
    ) -> None:
        self.service = service
        self.chain = chain
        self.hotkey = chain.hotkey
        self.rules = rules
        self.limits = limits
        self.listeners = listeners
        self.model_url = model_url
        self.clock = clock or ClockWatch()
        self._seen: Mapping[Wire, SeenNonces] = {
            "dendrite": SeenNonces(dendrite.RETENTION_NS, self.clock.monotonic),
            "btauth": SeenNonces(btauth.RETENTION_NS, self.clock.monotonic),
        }

    def asgi(self) -> Starlette:
        """Return the application."""
        paths = [f"/{name}" for name in SYNAPSES] + [BTAUTH_PATH]
        app = Starlette(
            routes=[Route(path, self, methods=["POST"]) for path in paths],
            exception_handlers={HTTPException: self._no_route},
        )
        app.router.redirect_slashes = False  # a dendrite follows no redirect
        return app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        is_btauth = btauth.VERSION_HEADER in request.headers or request.url.path == BTAUTH_PATH
        exchange = Exchange(request, "btauth" if is_btauth else "dendrite", time.monotonic())
        prediction, failure = None, None
        try:
            prediction = await self._answer(exchange)
        except RequestError as error:
            failure = error
            if isinstance(error, StaleNonce):
                self._note_stale(error.caller)
            # Its traceback holds the body, and a refused ticket holds it: until Python looks for cycles, otherwise.
            error.with_traceback(None).__context__ = None
        except asyncio.CancelledError:  # the drain has run out of time
            failure = refused("draining")
        except ClientDisconnect:
            self._tell(exchange, exchange.ended(self.chain, "cancelled", "the caller hung up"))
            return
        except Exception:
            log.exception("a request failed")
            failure = InferenceCrashed("the request failed")
        finally:
            if exchange.claim is not None:
                exchange.claim.release()
        if prediction is not None:
            response = self._success(exchange, prediction)
        else:
            assert failure is not None
            response = self._failure(exchange, failure)
        await response(scope, receive, send)
        self._tell(exchange, self._record(exchange, prediction, failure))

    def _record(self, exchange: Exchange, prediction: float | None, failure: RequestError | None) -> RequestRecord:
        """Return the record of a request that is answered.

        Of a refusal that came before the caller proved anything, nobody knows whose request it was: an unproven caller
        who names a validator must set off no alert of ours.
        """
        if failure is None:
            return exchange.ended(self.chain, "ok", prediction=prediction)
        refusal = failure.reason if isinstance(failure, Refused) else None
        outcome = "unproven" if refusal is not None and exchange.caller is None else failure.outcome
        is_invalid = isinstance(failure, InferenceFailed)
        return exchange.ended(self.chain, outcome, str(failure), refusal=refusal, is_invalid=is_invalid)

    def _tell(self, exchange: Exchange, record: RequestRecord) -> None:
        photo = exchange.picture.data if exchange.picture is not None else None
        for listener in self.listeners:
            listener.request_ended(record, photo)

    async def _answer(self, exchange: Exchange) -> float:
        """Return the probability of roadwork for a request that may be answered."""
        if exchange.wire == "dendrite":
            ticket, picture, claim = await self._by_dendrite(exchange)
        else:
            ticket, picture, claim = await self._by_btauth(exchange)
        exchange.claim = None  # it is the service's from here on
        job = asyncio.ensure_future(self.service.answer(ticket, picture, claim))
        # Nothing but a hang-up can come after the body; then queued work is dropped.
        hangup = asyncio.ensure_future(exchange.request.receive())
        try:
            assert exchange.caller is not None
            patience = self.limits.patience(exchange.arrived, exchange.caller.timeout) - time.monotonic()
            await asyncio.wait((job, hangup), timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if not job.done():
                raise ClientDisconnect if hangup.done() else Expired("the answer did not come in time")
            answer = job.result()
            exchange.take(answer)
            return answer.prediction.probability
        finally:
            hangup.cancel()
            job.cancel()
            self.service.scheduler.leave(ticket)

    async def _by_dendrite(self, exchange: Exchange) -> tuple[Ticket, Picture, Claim]:
        """The older wire: the headers prove the caller, so nothing of an unproven caller's body is read."""
        request = exchange.request
        caller = dendrite.authenticate(request.headers, self.hotkey, self.clock.now())
        try:
            stake = self._judge(caller.hotkey)
        except Refused:
            exchange.caller = caller  # else nobody would learn that validators are refused
            raise
        self._remember(request, caller)
        exchange.caller = caller
        check_length(request, self.limits.max_body)
        deadline = self.limits.deadline(exchange.arrived, caller.timeout)
        ticket = self.service.scheduler.admit(self._asker(caller.hotkey), stake, deadline)
        try:
            claim = exchange.claim = self.limits.budget.claim(ticket.rank)
            claim.lose = partial(self.service.scheduler.refuse, ticket)
            reader = BodyReader(request, self.limits, deadline, claim)
            ticket.tell = reader.stop
            body = await self._read(exchange, reader)
            return ticket, await self._unpack(exchange, ticket, claim, body), claim
        except BaseException:
            self.service.scheduler.leave(ticket)
            raise

    async def _by_btauth(self, exchange: Exchange) -> tuple[Ticket, Picture, Claim]:
        """The newer wire: the signature covers the body, so the claimed hotkey is judged first and proven after.

        An unproven body takes no place in the queue, where it could be in the way of proven ones.
        """
        request, scheduler = exchange.request, self.service.scheduler
        claimed = btauth.claimed_hotkey(request.headers)
        stake = self._judge(claimed)
        check_length(request, self.limits.max_body)
        deadline = self.limits.deadline(exchange.arrived, read_timeout(request.headers.get("timeout")))
        rank, address = scheduler.check(self._asker(claimed), stake, deadline), address_of(request)
        known = (address, claimed) in self.limits.proven
        claim = exchange.claim = self.limits.budget.claim(rank if known else None, neighbourhood(address))
        reader = BodyReader(request, self.limits, deadline, claim)
        claim.lose = reader.stop
        body = await self._read(exchange, reader)
        query = request.scope.get("query_string", b"")
        path = request.scope["raw_path"] + (b"?" + query if query else b"")
        exchange.caller = btauth.authenticate(
            request.headers, body, request.method, path.decode("ascii"), self.hotkey, self.clock.now()
        )
        self._remember(request, exchange.caller)
        exchange.lap("verify")
        ticket = scheduler.admit(self._asker(claimed), stake, deadline)
        try:
            claim.rank, claim.lose = ticket.rank, partial(scheduler.refuse, ticket)
            return ticket, await self._unpack(exchange, ticket, claim, body), claim
        except BaseException:
            scheduler.leave(ticket)
            raise

    async def _read(self, exchange: Exchange, reader: BodyReader) -> bytearray:
        exchange.lap("verify")
        body = await reader.read()
        exchange.body_read, exchange.body_bytes = True, len(body)
        exchange.lap("body")
        return body

    async def _unpack(self, exchange: Exchange, ticket: Ticket, claim: Claim, body: bytearray) -> Picture:
        """Return the photo in a body, which is let go; of large ones only one is unpacked at a time, in a thread."""
        lose = claim.lose

        def let_go(why: Refused) -> None:
            body.clear()  # which is wanted now, and not when it is this one's turn
            if lose is not None:
                lose(why)

        claim.lose = let_go
        while True:
            picture = await self._unpack_if_there_is_memory(ticket, claim, body)
            if picture is not None:
                break
            await asyncio.sleep(RETRY_SECONDS)  # without the lock: who ranks better may get the memory
        claim.lose = lose
        claim.shrink(len(picture.data))
        exchange.picture = picture
        exchange.lap("body")
        return picture

    async def _unpack_if_there_is_memory(self, ticket: Ticket, claim: Claim, body: bytearray) -> Picture | None:
        limits, is_small = self.limits, len(body) <= SMALL_BODY_BYTES
        async with nullcontext() if is_small else limits.unpacking:
            ticket.check()
            if not claim.grow_or_wait(int(UNPACKED_FACTOR * len(body)), ticket.deadline - 1.0):
                return None
            if is_small:
                return unpack(body, limits.max_pixels)
            claim.lose = None  # a thread can't be made to let go
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(limits.unpacker, unpack, body, limits.max_pixels)

    def _asker(self, hotkey: str) -> str:
        """Return a caller to the queue: of another hotkey of ours it may ask as much, so no key of ours is favoured."""
        return f"{hotkey} {self.hotkey}"

    def _judge(self, hotkey: str) -> float:
        if self.chain.obstacle is not None:
            raise refused("not_ready")
        priority = judge(hotkey, self.chain.snapshot, self.rules).priority
        if self.service.obstacle is not None:
            raise refused("no_endpoint")
        return priority

    def _remember(self, request: Request, caller: Caller) -> None:
        # After the verdict, so that unproven callers can't fill the memory of nonces.
        known, seen = self._is_known(caller), self._seen[caller.wire]
        if not seen.check_and_store(caller.hotkey, caller.nonce, self.clock.now(), caller.uuid, known=known):
            raise Unauthorised("this request was answered before, or is older than this process")
        if known:
            self.clock.heard(caller)
        self.limits.proven.remember(address_of(request), caller.hotkey)
        vouch(request.scope)

    def _note_stale(self, caller: Caller) -> None:
        """Compare clocks with whoever would be let in if they agreed."""
        with suppress(Forbidden):
            judge(caller.hotkey, self.chain.snapshot, self.rules)
            if self._is_known(caller):
                self.clock.refused(caller)

    def _is_known(self, caller: Caller) -> bool:
        """Return whether its hotkey is one of the chain or the operator, of which there are not many."""
        return caller.hotkey in self.chain.snapshot.neurons or caller.hotkey in self.rules.allow

    def _success(self, exchange: Exchange, prediction: float) -> JSONResponse:
        if exchange.wire == "btauth":
            return JSONResponse({"prediction": prediction, "model_url": self.model_url})
        request = exchange.request
        body = dendrite.answer_body(
            request.url.path.strip("/"), prediction, self.model_url, request.headers, self.hotkey, exchange.arrived
        )
        return JSONResponse(body, headers=dendrite.answer_headers(200, "Success", exchange.arrived))

    def _failure(self, exchange: Exchange, error: RequestError) -> JSONResponse:
        headers = {}
        if exchange.wire == "dendrite":
            headers = dendrite.answer_headers(error.status, str(error), exchange.arrived)
        if not exchange.body_read and not self._rest_is_small(exchange.request):
            headers["connection"] = "close"  # else the rest of an endless body would be read and thrown away
        return JSONResponse({"message": str(error)}, error.status, headers)

    def _rest_is_small(self, request: Request) -> bool:
        try:
            length = declared_length(request)
        except RequestError:
            return False
        return length is not None and length <= self.limits.max_body

    async def _no_route(self, request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        address = address_of(request)
        record = RequestRecord(time.time(), None, "none", "not_found", "", 0.0, hotkey=self.hotkey, address=address)
        for listener in self.listeners:
            listener.request_ended(record, None)
        return JSONResponse({"message": error.detail.lower()}, error.status_code, error.headers)
