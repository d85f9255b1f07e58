"""How a body is read: at a pace that gets it there in time, and no further than there is memory for it."""

import asyncio
import base64
import json
from collections.abc import Sequence

import pytest
from starlette.requests import Request

from detectors.photos.image import memory_of
from miner.axon.body import GROWTH_BYTES, BodyReader, Limits, unpack
from miner.errors import BodyStalled, BodyTooLarge, Refused, RequestError, refused
from miner.inference.memory import RETRY_SECONDS, Budget
from miner.inference.queue import Rank
from tests.models import photo

Step = tuple[float, int]  # a pause, then so many bytes


def read(
    steps: Sequence[Step], *, length: int | None = None, stall: float = 0.2, patience: float = 1.0, most: int = 2**20
) -> tuple[bytes | RequestError, Budget]:
    """Return a body that comes in these steps, or why it was given up, and the budget while it is held."""
    limits = Limits(max_body=200_000, body_stall=stall, deadline_cap=12.0, deadline_margin=0.5)
    budget, pieces = Budget(most=most), list(steps)

    async def receive() -> dict[str, object]:
        pause, count = pieces.pop(0)
        await asyncio.sleep(pause)
        return {"type": "http.request", "body": b"x" * count, "more_body": bool(pieces)}

    async def run() -> bytes | RequestError:
        headers = [] if length is None else [(b"content-length", str(length).encode())]
        request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
        loop = asyncio.get_running_loop()
        try:
            reader = BodyReader(request, limits, loop.time() + patience, budget.claim(Rank(0, 0.0, 0)))
            return bytes(await reader.read())
        except RequestError as error:
            return error

    return asyncio.run(run()), budget


@pytest.mark.parametrize("length", [None, 150_000])
def test_a_body_is_read_whole_and_its_memory_is_claimed(length: int | None) -> None:
    body, budget = read([(0, 70_000), (0, 1), (0, 79_999)], length=length)
    assert body == b"x" * 150_000
    assert 150_000 <= budget.held <= 150_000 + 2 * GROWTH_BYTES
    assert budget.used == 150_000


def test_the_memory_is_asked_for_before_a_byte_is_taken() -> None:
    """Of a body of known length that is all of it, at once; nothing is read then."""
    end, budget = read([(60, 1)], length=150_000, most=100_000)
    assert isinstance(end, Refused)
    assert end.reason == "memory"
    assert budget.held == 0
    end, budget = read([(0, 60_000)] * 3, most=100_000)
    assert isinstance(end, Refused)
    assert budget.held <= 100_000


@pytest.mark.parametrize("length", [None, 190_000])
def test_a_body_that_trickles_is_let_go_though_it_never_stalls(length: int | None) -> None:
    end, _ = read([(0.15, 1)] * 100, length=length, patience=20.0)
    assert isinstance(end, BodyStalled)


def test_a_slow_body_that_will_be_there_in_time_is_waited_for() -> None:
    body, _ = read([(0.1, 1000)] * 8, length=8000, patience=3.0)
    assert body == b"x" * 8000


def test_a_body_over_the_limit_is_refused_wherever_it_says_so() -> None:
    end, budget = read([(0, 150_000), (0, 60_000)])
    assert isinstance(end, BodyTooLarge)
    assert budget.held <= 150_000 + 2 * GROWTH_BYTES


def test_who_loses_its_memory_stops_at_once() -> None:
    async def run() -> RequestError:
        limits = Limits(max_body=200_000, body_stall=60.0, deadline_cap=12.0, deadline_margin=0.5)

        async def receive() -> dict[str, object]:
            await asyncio.sleep(3600)
            raise AssertionError

        request = Request({"type": "http", "method": "POST", "headers": []}, receive)
        claim = limits.budget.claim(Rank(0, 0.0, 0))
        reader = BodyReader(request, limits, asyncio.get_running_loop().time() + 3600, claim)
        reading = asyncio.ensure_future(reader.read())
        await asyncio.sleep(0.01)
        reader.stop(refused("memory"))
        (end,) = await asyncio.gather(reading, return_exceptions=True)
        assert isinstance(end, Refused)
        return end

    assert asyncio.run(run()).args


def test_a_picture_comes_with_what_it_takes_to_decode_it() -> None:
    data = photo(640, 360)
    body = bytearray(json.dumps({"image": base64.b64encode(data).decode()}), "ascii")
    picture = unpack(body, 25_000_000)
    assert picture.data == data
    assert picture.memory == memory_of(data) > 4 * 640 * 360


@pytest.mark.parametrize("length", [None, 150_000])
def test_who_is_stopped_while_it_waits_for_memory_is_refused_and_not_read_as_empty(length: int | None) -> None:
    async def run() -> object:
        limits = Limits(max_body=200_000, body_stall=60.0, deadline_cap=3600.0, deadline_margin=0.5)
        budget = Budget(most=400_000)
        running = budget.claim(Rank(0, 0.0, 0))
        running.grow(budget.free - 220_000 if length is None else budget.free)  # type: ignore[arg-type]
        assert running.lose is None
        pieces = [{"type": "http.request", "body": b"x" * 150_000, "more_body": False}]

        async def receive() -> dict[str, object]:
            return pieces.pop()

        headers = [] if length is None else [(b"content-length", str(length).encode())]
        request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
        claim = budget.claim(Rank(0, 0.0, 0))
        reader = BodyReader(request, limits, asyncio.get_running_loop().time() + 3600, claim)
        reading = asyncio.ensure_future(reader.read())
        await asyncio.sleep(3 * RETRY_SECONDS)
        assert not reading.done()
        reader.stop(refused("evicted"))
        (end,) = await asyncio.gather(reading, return_exceptions=True)
        return end

    end = asyncio.run(run())
    assert isinstance(end, Refused)
    assert end.reason == "evicted"
