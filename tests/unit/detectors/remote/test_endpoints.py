"""Who is asked, for how long, and when again: truth tables."""

import pytest

from detectors.remote.endpoints import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    LONGEST_REASON,
    Endpoint,
    State,
    choose,
    is_patient,
    pause,
    time_limit,
)


def endpoint(index: int, state: State = "up", busy: int = 0, turn: int = 0) -> Endpoint:
    return Endpoint(index, f"http://box-{index}:8000", state, busy=busy, turn=turn)


@pytest.mark.parametrize(
    ("endpoints", "tried", "chosen"),
    [
        ([endpoint(0, busy=2), endpoint(1, busy=1)], [], 1),
        ([endpoint(0, turn=5), endpoint(1, turn=4)], [], 1),  # in turn, where both are idle
        ([endpoint(0, "down"), endpoint(1, busy=9)], [], 1),
        ([endpoint(0, "suspect"), endpoint(1, busy=9)], [], 1),
        ([endpoint(0, "suspect"), endpoint(1, "down")], [], 0),
        ([endpoint(0), endpoint(1, busy=9)], [0], 1),
        ([endpoint(0), endpoint(1, "suspect")], [0], 1),
        ([endpoint(0), endpoint(1, "down")], [0], 0),  # behind one address there may be many machines
        ([endpoint(0, "down"), endpoint(1, "down")], [], None),
    ],
)
def test_the_least_busy_healthy_one_is_asked(endpoints: list[Endpoint], tried: list[int], chosen: int | None) -> None:
    found = choose(endpoints, tried)
    assert (found and found.index) == chosen


@pytest.mark.parametrize(
    ("left", "usual", "another", "limit"),
    [
        (8.0, 0.5, False, 8.0),
        (8.0, 1.5, True, 5.0),  # a second try is left twice the usual
        (2.0, 0.01, True, 1.75),
        (1.0, 3.0, True, 0.5),  # never more than half
        (8.0, 0.5, True, 4.0),  # it hangs, and holds a slot
        (8.0, 0.01, True, 2.0),
    ],
)
def test_an_endpoint_that_hangs_leaves_time_for_another(left: float, usual: float, another: bool, limit: float) -> None:
    assert time_limit(left, usual, another) == limit


@pytest.mark.parametrize(
    ("seconds", "usual", "doubts"), [(8.0, 1.0, True), (7.9, 1.0, False), (0.3, 1.0, False), (0.3, 0.0, True)]
)
def test_only_one_that_had_its_time_is_doubted(seconds: float, usual: float, doubts: bool) -> None:
    assert is_patient(seconds, usual) is doubts


def test_the_pause_doubles_up_to_a_limit() -> None:
    assert [pause(misses) for misses in (1, 2, 3, 4)] == [FIRST_PAUSE * factor for factor in (1, 2, 4, 8)]
    assert pause(10_000) == LONGEST_PAUSE


def test_what_a_server_has_us_say_fits_on_a_line() -> None:
    one = endpoint(0)
    one.suspect("its tensor 'a\nb\x1b[31m'", now=10.0)
    assert one.reason == "its tensor 'a b [31m'"
    one.give_up("x" * 60_000, now=10.0)
    assert len(one.reason) == LONGEST_REASON


def test_the_life_of_an_endpoint() -> None:
    one = endpoint(0)
    one.suspect("status 500", now=10.0)
    assert (one.state, one.due, one.reason) == ("suspect", 10.0, "status 500")
    one.give_up("nobody there", now=10.0)
    one.give_up("nobody there", now=11.0)
    assert (one.state, one.due) == ("down", 11.0 + 2 * FIRST_PAUSE)
    one.suspect("of a request that was still under way", now=12.0)
    assert one.state == "down"
    one.trust(next_look=20.0)
    assert (one.state, one.due, one.reason, one.misses) == ("up", 20.0, "", 0)
