"""Who finds room, and who makes it."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miner.errors import DropReason
from miner.http.connections import Connections, Guard, vouch, who_goes


class Line:
    def __init__(self, address: str = "a", *, is_proven: bool = False, is_idle: bool = False) -> None:
        self.address = address
        self.is_proven = is_proven
        self.is_idle = is_idle
        self.dropped: DropReason | None = None

    def drop(self, reason: DropReason) -> None:
        self.dropped = reason

    def look(self, now: float) -> None: ...


def join(connections: Connections, *lines: Line) -> None:
    for line in lines:
        assert connections.join(line)


def test_the_oldest_stranger_makes_room() -> None:
    connections = Connections(Guard(connections=3))
    validator, old, young = Line("v", is_proven=True), Line("s"), Line("s")
    join(connections, validator, old, young, Line("new"))
    assert (validator.dropped, old.dropped, young.dropped) == (None, "crowded", None)
    assert len(connections) == 3


def test_strangers_of_one_address_make_room_among_themselves() -> None:
    connections = Connections(Guard(connections=100, for_each_address=2))
    other, lines = Line("other"), [Line("crowd") for _ in range(10)]
    join(connections, other, *lines)
    assert [line.dropped for line in lines] == ["crowded"] * 8 + [None, None]
    assert other.dropped is None


def test_among_validators_one_that_asks_nothing_makes_room_and_never_one_that_waits_for_its_answer() -> None:
    connections = Connections(Guard(connections=2))
    busy, idle = Line("b", is_proven=True), Line("i", is_proven=True, is_idle=True)
    join(connections, busy, idle)
    newcomer = Line("n", is_proven=True)
    join(connections, newcomer)
    assert (busy.dropped, idle.dropped) == (None, "crowded")
    assert not connections.join(Line("one too many"))


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans(), st.booleans(), st.booleans()), max_size=60))
def test_the_limits_hold_and_nobody_is_forgotten(story: list[tuple[str, bool, bool, bool]]) -> None:
    guard = Guard(connections=7, for_each_address=3)
    connections, inside = Connections(guard), []
    for address, is_proven, is_idle, leaves in story:
        line = Line(address, is_proven=is_proven, is_idle=is_idle)
        before = list(inside)
        if connections.join(line):
            inside = [one for one in inside if one.dropped is None] + [line]
            assert all(not one.is_proven or one.is_idle for one in before if one not in inside)
        else:
            near = [one for one in inside if one.address == address]
            crowd = near if len(near) >= guard.for_each_address else inside
            assert who_goes(crowd) is None
        if leaves and inside:
            connections.leave(inside.pop())
        assert len(connections) == len(inside) <= guard.connections
        assert max(Counter(one.address for one in inside).values(), default=0) <= guard.for_each_address
    for one in inside:
        connections.leave(one)
    assert len(connections) == len(connections._by_address) == 0


@pytest.mark.parametrize("scope", [{}, {"extensions": {}}])
def test_a_server_that_takes_no_vouching_is_no_fault(scope: dict[str, object]) -> None:
    vouch(scope)
