"""Bodies that wait for the memory to be unpacked, and whom they are in the way of."""

import asyncio
import base64
import gc
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.requests import Request

from miner.axon.body import SMALL_BODY_BYTES, UNPACKED_FACTOR, BodyReader
from miner.axon.request import Exchange
from miner.errors import MESSAGES, Refused, refused
from miner.inference.memory import RETRY_SECONDS, Budget
from miner.inference.service import Picture
from tests.unit.miner.axon.wire_in_process import Port


@pytest.fixture
def port(tmp_path: Path) -> Iterator[Port]:
    port = Port(tmp_path)
    yield port
    port.close()


def body_of(size: int) -> bytearray:
    return bytearray(json.dumps({"image": base64.b64encode(b"x" * (size * 3 // 4)).decode()}), "ascii")


def test_a_body_that_waits_for_memory_is_in_nobodys_way_and_hears_at_once_that_it_is_evicted(port: Port) -> None:
    large, small = body_of(4 * SMALL_BODY_BYTES), body_of(2 * SMALL_BODY_BYTES)
    budget = Budget(most=int(UNPACKED_FACTOR * len(small)) + len(small) + 10 * SMALL_BODY_BYTES)
    object.__setattr__(port.axon.limits, "budget", budget)
    scheduler = port.service.scheduler

    def begin(body: bytearray, stake: float) -> "tuple[asyncio.Task[Picture], object]":
        ticket = scheduler.admit(f"of {stake}", stake, time.monotonic() + 3600)
        request = Request({"type": "http", "method": "POST", "headers": []})
        exchange = Exchange(request, "dendrite", time.monotonic())
        unpacking = port.axon._unpack(exchange, ticket, budget.claim(ticket.rank), body)
        return asyncio.ensure_future(unpacking), ticket

    async def act() -> None:
        running = budget.claim(None, "")
        running._rank = scheduler.check("of the running one", 9.0, time.monotonic() + 3600)
        running.grow(10 * SMALL_BODY_BYTES)
        low, ticket = begin(large, 1.0)
        await asyncio.sleep(2 * RETRY_SECONDS)
        high, _ = begin(small, 5.0)
        picture = await high
        assert len(picture.data) == 2 * SMALL_BODY_BYTES * 3 // 4
        assert not low.done()
        scheduler.refuse(ticket, refused("evicted"))  # type: ignore[arg-type]
        (end,) = await asyncio.gather(low, return_exceptions=True)
        assert isinstance(end, Refused)
        assert end.reason == "evicted"

    port.loop.run_until_complete(act())


@pytest.mark.parametrize("wire", ["dendrite", "btauth"])
def test_what_was_read_of_a_refused_body_goes_at_once_and_not_when_python_looks_for_cycles(
    port: Port, wire: str
) -> None:
    """Refused by the hundred, they held 250 MB, and the group of the process had no more."""
    whole = port.request(wire, b"1f40\r\n" + b"x" * 4000, **{"content-length": None, "transfer-encoding": "chunked"})
    budget = port.axon.limits.budget

    def pieces() -> Iterator[bytes]:
        yield whole
        (claim,) = budget._claims
        claim.end(refused("memory"))
        yield b""

    def readers() -> int:
        return sum(type(one) is BodyReader for one in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = readers()
        assert port.feed(pieces()) == [(503, {"message": MESSAGES["memory"]})]
        assert readers() == before
    finally:
        gc.enable()
