"""Who gets the memory that is left, and who has to let it go."""

import asyncio
import time
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miner.errors import Refused, refused
from miner.inference.memory import (
    MAX_PROVEN_ADDRESSES,
    MIN_CLAIM_BYTES,
    RETRY_SECONDS,
    STALE_SECONDS,
    Budget,
    Claim,
    ProvenAddresses,
)
from miner.inference.queue import Rank

MEGABYTE = 2**20


def rank(stake: float, turn: int = 0) -> Rank:
    return Rank(turn, -stake, 0)


@pytest.fixture
def lost() -> list[Claim]:
    return []


@pytest.fixture
def budget() -> Budget:
    """Of a hundred megabytes, twenty of which are for strangers."""
    return Budget(unproven=20 * MEGABYTE, most=100 * MEGABYTE)


def claim(budget: Budget, lost: list[Claim], megabytes: float, who: Rank | None, address: str = "") -> Claim:
    made = budget.claim(who, address)
    made.lose = lambda why: lost.append(made)
    made.grow(int(megabytes * MEGABYTE))
    return made


def test_what_is_left_goes_to_whoever_comes_first(budget: Budget, lost: list[Claim]) -> None:
    first = claim(budget, lost, 60, rank(1))
    with pytest.raises(Refused) as caught:
        claim(budget, lost, 50, rank(1))
    assert caught.value.reason == "memory"
    assert (budget.held, lost, budget.short) == (60 * MEGABYTE, [], True)
    first.shrink(10 * MEGABYTE)
    claim(budget, lost, 90, rank(1))
    assert budget.free == 0


def test_low_stake_never_shuts_out_high_stake(budget: Budget, lost: list[Claim]) -> None:
    poor = [claim(budget, lost, 16, rank(1, turn)) for turn in range(6)]
    for number in range(6):
        claim(budget, lost, 16, rank(1000 + number))
    assert sorted(lost, key=poor.index) == poor
    assert budget.held == 96 * MEGABYTE


def test_one_caller_never_shuts_another_whatever_the_stakes(budget: Budget, lost: list[Claim]) -> None:
    flood = [claim(budget, lost, 16, rank(1000, turn)) for turn in range(6)]
    claim(budget, lost, 16, rank(1))
    assert lost == [flood[-1]]


def test_nobody_loses_for_what_would_not_be_enough(budget: Budget, lost: list[Claim]) -> None:
    claim(budget, lost, 50, rank(1))
    claim(budget, lost, 40, rank(9))
    with pytest.raises(Refused):
        claim(budget, lost, 61, rank(5))
    assert not lost


def test_what_runs_is_not_taken_away(budget: Budget, lost: list[Claim]) -> None:
    running = claim(budget, lost, 90, rank(1))
    running.lose = None
    with pytest.raises(Refused):
        claim(budget, lost, 20, rank(9))
    assert running.bytes == 90 * MEGABYTE


def test_a_stranger_never_shuts_out_who_has_proved_himself(budget: Budget, lost: list[Claim]) -> None:
    strangers = [claim(budget, lost, 4, None, f"address {number}") for number in range(5)]
    claim(budget, lost, 95, rank(0))
    assert len(lost) == 4
    assert {*lost} < {*strangers}


def test_among_strangers_the_address_that_holds_the_most_makes_room(budget: Budget, lost: list[Claim]) -> None:
    claim(budget, lost, 2, None, "small")
    hogs = [claim(budget, lost, 6, None, "hog") for _ in range(3)]
    claim(budget, lost, 4, None, "new")
    assert len(lost) == 1
    assert lost[0] in hogs
    with pytest.raises(Refused):  # it would hold the most itself
        claim(budget, lost, 19, None, "another")


def test_a_tiny_body_of_a_stranger_counts_for_more_than_its_bytes(budget: Budget, lost: list[Claim]) -> None:
    for number in range(20 * MEGABYTE // MIN_CLAIM_BYTES):
        claim(budget, lost, 0, None, f"address {number}")
    with pytest.raises(Refused):
        claim(budget, lost, 0, None, "one more")


def test_who_proves_himself_ranks_as_who_he_is(budget: Budget, lost: list[Claim]) -> None:
    stranger = claim(budget, lost, 16, None, "address")
    assert budget.held_at("address") == 16 * MEGABYTE
    stranger.rank = rank(7)
    assert budget.held_at("address") == 0
    claim(budget, lost, 80, rank(5))
    assert not lost


def test_the_machine_says_how_much_there_is(budget: Budget, lost: list[Claim]) -> None:
    """Bytes of a claim that are filled are missing from what is left already; promised ones are not."""
    body = claim(budget, lost, 30, rank(1))
    body.fill(10 * MEGABYTE)
    budget.see(left=50 * MEGABYTE, used=budget.used)
    assert budget.free == (50 + 10 - 30) * MEGABYTE
    budget.see(left=10**12, used=budget.used)
    assert budget.free == 70 * MEGABYTE
    budget.see(left=-5 * MEGABYTE, used=0)
    with pytest.raises(Refused):
        body.grow(1)


@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.integers(0, 3), st.integers(0, 2), st.booleans(), st.booleans()), max_size=40
    )
)
def test_in_any_story_the_sums_are_right_and_only_the_worse_lose(
    story: list[tuple[int, int, int, bool, bool]],
) -> None:
    budget = Budget(unproven=30, most=100)
    alive: list[Claim] = []
    for count, stake, turn, stranger, ends in story:
        made = budget.claim(None if stranger else rank(stake, turn), f"address {stake}")
        gone: list[Claim] = []
        for one in alive:
            one.lose = partial(lambda gone, one, why: gone.append(one), gone, one)
        standings = {one: one.standing() for one in alive}
        try:
            made.grow(count)
        except Refused:
            assert not gone
            continue
        assert all(standings[one] > made.standing() or made.rank is None for one in gone)
        alive = [one for one in alive if one not in gone] + [made]
        if ends:
            alive.pop(0).shrink()
        assert budget.held == sum(one.bytes for one in alive) <= 100
        for address in {one.address for one in alive}:
            held = sum(one.bytes for one in alive if one.rank is None and one.address == address)
            assert budget.held_at(address) == held


def test_an_address_is_known_with_its_hotkey_alone_and_not_for_ever() -> None:
    proven = ProvenAddresses()
    proven.remember("192.0.2.1", "poor")
    assert ("192.0.2.1", "poor") in proven
    assert ("192.0.2.1", "rich") not in proven
    for number in range(MAX_PROVEN_ADDRESSES):
        proven.remember(str(number), "someone")
    assert ("192.0.2.1", "poor") not in proven


def test_before_anybody_is_refused_the_machine_is_looked_at_again(budget: Budget, lost: list[Claim]) -> None:
    left = [0.0, 40.0 * MEGABYTE]
    budget.reread = lambda: left.pop(0)
    budget.see(left=0, used=0)
    with pytest.raises(Refused):
        claim(budget, lost, 30, rank(1))
    time.sleep(2 * STALE_SECONDS)
    assert claim(budget, lost, 30, rank(1)).bytes == 30 * MEGABYTE
    assert not left


@pytest.mark.parametrize("busy", [True, False])
def test_what_a_running_picture_holds_is_waited_for(budget: Budget, lost: list[Claim], busy: bool) -> None:
    async def act() -> None:
        running = claim(budget, lost, 90, rank(1))
        if busy:
            running.lose = None
        body = budget.claim(rank(1))
        waiting = asyncio.ensure_future(body.obtain(50 * MEGABYTE, time.monotonic() + 60, lambda: None))
        await asyncio.sleep(3 * RETRY_SECONDS)
        assert waiting.done() is not busy
        running.shrink()
        (end,) = await asyncio.gather(waiting, return_exceptions=True)
        assert end is None if busy else isinstance(end, Refused)

    asyncio.run(act())


def test_who_waits_for_memory_hears_at_once_that_its_request_has_ended(budget: Budget, lost: list[Claim]) -> None:
    async def act() -> None:
        claim(budget, lost, 90, rank(1)).lose = None
        ended: list[Refused] = []

        def check() -> None:
            if ended:
                raise ended[0]

        body = budget.claim(rank(1))
        waiting = asyncio.ensure_future(body.obtain(50 * MEGABYTE, time.monotonic() + 3600, check))
        await asyncio.sleep(3 * RETRY_SECONDS)
        assert not waiting.done()
        ended.append(refused("evicted"))
        (end,) = await asyncio.gather(waiting, return_exceptions=True)
        assert end is ended[0]
        with pytest.raises(Refused):  # and one that had ended before takes nothing
            await body.obtain(1, time.monotonic() + 3600, check)
        assert body.bytes == 0

    asyncio.run(act())


def test_a_stranger_is_refused_without_a_wait(budget: Budget, lost: list[Claim]) -> None:
    """Hundreds of them that ask again and again would keep the loop busy."""
    claim(budget, lost, 90, rank(1)).lose = None
    stranger = budget.claim(None, "address")
    with pytest.raises(Refused):
        asyncio.run(stranger.obtain(15 * MEGABYTE, time.monotonic() + 3600, lambda: None))


def test_the_share_of_strangers_says_nothing_of_the_machine(budget: Budget, lost: list[Claim]) -> None:
    claim(budget, lost, 15, None, "one")
    with pytest.raises(Refused):
        claim(budget, lost, 15, None, "one")
    assert not budget.short
