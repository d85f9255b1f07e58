"""Our clock against others': a request is answered from 13 s after the caller's time to 4 s before it."""

import asyncio
import statistics
import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime

import httpx

from miner.chain.checkup import Head
from miner.chain.external_address import SERVICES
from miner.doctor.findings import Finding, ok, problem, warning

AHEAD_LIMIT = 11.0  # seconds; 4 and the validators' 9, less the time a request is on its way
BEHIND_LIMIT = 4.0
NTP = "timedatectl set-ntp true (or install chrony), then look at timedatectl"


async def ask_services(services: Sequence[str] = SERVICES, seconds: float = 5.0) -> float | None:
    """Return the seconds by which our clock is ahead of what web services date their answers; None: nobody answered.

    `seconds` limits each service, with the look-up of its name; all are asked at once.
    """
    async with httpx.AsyncClient(timeout=seconds) as client:
        answers = await asyncio.gather(*(_ask(client, service, seconds) for service in services))
    found = [answer for answer in answers if answer is not None]
    return statistics.median(found) if found else None


async def _ask(client: httpx.AsyncClient, service: str, seconds: float) -> float | None:
    asked = time.time()
    try:
        async with asyncio.timeout(seconds):
            response = await client.head(service)
        stamp = parsedate_to_datetime(response.headers["date"]).timestamp()
    except (httpx.HTTPError, OSError, KeyError, ValueError):  # TimeoutError is an OSError
        return None
    return (asked + time.time()) / 2 - (stamp + 0.5)  # whole seconds, cut off


def judge_clock(head: Head | None, services: float | None, callers: float | None = None) -> Finding:
    """Judge our clock: by web services where they were asked, else by the time in the newest block.

    `callers` are the seconds by which it is ahead of those who asked the running miner in the last hour: where they
    would be refused, nothing else matters, but where web services disagree it may be they who are wrong.
    """
    name = "clock"
    if callers is not None and not -BEHIND_LIMIT <= callers <= AHEAD_LIMIT:
        words = f"{_off(callers)} of the callers who asked this miner: their requests are refused for their time"
        if services is None or not -BEHIND_LIMIT <= services <= AHEAD_LIMIT:
            return problem(name, words, NTP)
        return warning(name, f"{words}, though it is {_off(services)} of web services", "perhaps theirs is wrong")
    if services is not None:
        words = f"{_off(services)} of web services"
        if not -BEHIND_LIMIT <= services <= AHEAD_LIMIT:
            return problem(name, f"{words}: validators' requests look stale or from the future", NTP)
        return ok(name, words) if abs(services) <= BEHIND_LIMIT / 2 else warning(name, words, NTP)
    if head is None:
        return warning(name, "not compared: neither chain nor web services answered", NTP)
    low, high = head.ahead - head.slack, head.ahead
    if high < -BEHIND_LIMIT:
        return problem(name, f"{_off(high)} of the chain: validators' requests look as if from the future", NTP)
    if low > AHEAD_LIMIT:
        return problem(
            name,
            f"{_off(low)} of the chain's newest block: validators' requests look stale",
            f"{NTP}; if the clock is right, the node of SUBTENSOR_NETWORK is behind: take another",
        )
    words = f"{_off(0.0 if low <= 0 <= high else high if high < 0 else low)} of the chain"
    if high > AHEAD_LIMIT or high < -BEHIND_LIMIT / 2:
        return warning(name, words, NTP)
    return ok(name, words)


def _off(ahead: float) -> str:
    return f"{abs(ahead):.1f} s {'ahead' if ahead >= 0 else 'behind'}"
