"""The queue's decisions, by examples."""

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miner.errors import Refused
from miner.inference.queue import REMEMBERED_CALLERS, Place, Queue, QueuedRequest

LATE = 60.0


@pytest.fixture
def queue() -> Queue:
    """One slot, three places, a picture a second."""
    return Queue(slots=1, pace=1.0, depth=3)


def reason(queue: Queue, caller: str = "x", priority: float = 1.0, deadline: float = LATE, now: float = 0.0) -> str:
    """Return why a request is refused."""
    with pytest.raises(Refused) as caught:
        queue.check(now, caller, priority, deadline)
    return caught.value.reason


def admit(queue: Queue, caller: str, priority: float = 1.0, deadline: float = LATE, now: float = 0.0) -> Place:
    """Take a place with the body there already."""
    place, _ = queue.admit(now, caller, priority, deadline)
    place.ready = True
    return place


def served(queue: Queue, now: float = 0.0) -> list[str]:
    """Work everything off, and return the callers in the order in which they were served."""
    order = []
    while queue.waiting or queue.running:
        for place in list(queue.running):
            queue.release(place)
        started, _ = queue.step(now)
        order += [place.caller for place in started]
        now += queue.pace
    return order


def test_what_can_not_be_done_in_time_is_refused_before_any_work(queue: Queue) -> None:
    admit(queue, "a", deadline=1.0)
    assert reason(queue, deadline=1.9) == "deadline"  # a second behind another one
    admit(queue, "b", deadline=2.0)


def test_two_slots_halve_the_wait() -> None:
    queue = Queue(slots=2, pace=1.0)
    waits = []
    for number in range(5):
        waits.append(queue.estimate(0.0))
        admit(queue, str(number))
    assert waits == [1, 1, 2, 2, 3]


def test_what_has_been_worked_on_for_a_while_is_nearly_done(queue: Queue) -> None:
    admit(queue, "a")
    queue.step(0.0)
    assert queue.estimate(0.0) == pytest.approx(2.0)
    assert queue.estimate(0.75) == pytest.approx(1.25)


def test_behind_a_picture_that_hangs_nobody_waits_in_vain(queue: Queue) -> None:
    admit(queue, "a")
    queue.step(0.0)
    assert reason(queue, now=30.0, deadline=38.5) == "deadline"


def test_stake_decides_who_is_next_and_among_equals_the_deadline(queue: Queue) -> None:
    for caller, priority, deadline in (("patient", 1, 50), ("hasty", 1, 40), ("rich", 9, 60)):
        admit(queue, caller, priority, deadline)
    assert served(queue) == ["rich", "hasty", "patient"]


def test_only_the_work_ahead_of_a_request_counts(queue: Queue) -> None:
    for caller in "ab":
        admit(queue, caller)
    assert reason(queue, "poorer", 0.0, 2.5) == "deadline"
    queue.check(0.0, "richer", 9.0, 1.0)


def test_a_full_queue_gives_its_last_place_to_a_higher_stake(queue: Queue) -> None:
    for caller, stake in (("a", 5), ("poor", 1), ("b", 5)):
        admit(queue, caller, stake)
    assert reason(queue, "equal", 1) == "queue_full"
    _, displaced = queue.admit(0.0, "rich", 9.0, LATE)
    assert [place.caller for place in displaced] == ["poor"]
    assert len(queue.waiting) == 3


def test_a_higher_stake_takes_the_time_of_those_it_makes_late_and_of_no_others(queue: Queue) -> None:
    tight, relaxed = admit(queue, "tight", 2, deadline=1.5), admit(queue, "relaxed", 1, deadline=9.0)
    _, displaced = queue.admit(0.0, "rich", 9.0, 1.2)
    assert displaced == [tight]
    assert [place.caller for place in queue.waiting] == ["rich", relaxed.caller]


def test_an_equal_stake_makes_nobody_late(queue: Queue) -> None:
    admit(queue, "a", deadline=1.5)
    assert reason(queue, "b", deadline=1.4) == "deadline"  # it would be the first, by its deadline


def test_a_share_binds_only_while_others_wait() -> None:
    queue = Queue(slots=1, pace=1.0, share=0.25)  # of the eight that fit into eight seconds
    for _ in range(8):
        admit(queue, "flood", 9, deadline=8.0)  # nobody else wants them
    assert reason(queue, "flood", 9, deadline=8.0) == "deadline"
    _, displaced = queue.admit(0.0, "other", 1, 8.0)
    assert [place.caller for place in displaced] == ["flood"]
    assert reason(queue, "flood", 9, deadline=8.0) == "share"
    admit(queue, "other", 1, deadline=8.0)
    assert reason(queue, "other", 1, deadline=8.0) == "share"
    admit(queue, "third", 1, deadline=8.0)


@pytest.mark.parametrize("callers", [1, 60])
@pytest.mark.parametrize("slots", [1, 2])
def test_a_burst_is_admitted_as_far_as_the_pace_lets_it_be_in_time(callers: int, slots: int) -> None:
    """Sixty at once and pictures of 4 ms: all; of 300 ms: as many as fit, from one caller or from sixty."""
    for pace, fits in ((0.004, 60), (0.3, slots * 28)):
        queue, admitted = Queue(slots=slots, pace=pace, share=0.5), 0
        for number in range(60):
            try:
                admit(queue, str(number % callers), deadline=8.5)
            except Refused:
                assert reason(queue, str(number % callers), deadline=8.5) == "deadline"
                continue
            admitted += 1
        assert admitted == min(60, fits)
        assert queue.places(8.5) == (slots * 2125 if pace == 0.004 else fits)


def test_among_equals_who_was_refused_last_goes_first() -> None:
    """Six validators of equal stake ask in phase, in the same order each time, and there is time for four."""
    queue, answered = Queue(slots=1, pace=1.0), Counter[str]()
    for number in range(30):
        now = 100.0 * number
        places = []
        for caller in "abcdef":
            try:
                places.append(admit(queue, caller, 5.0, now + 4.0, now))
            except Refused:
                continue
        answered.update(served(queue, now))
    assert sum(answered.values()) == 120
    assert min(answered.values()) >= 19
    assert set(answered) == set("abcdef")


@pytest.mark.parametrize(("now", "yields"), [(0.3, True), (2.5, False)])
def test_an_equal_yields_to_who_was_refused_only_while_it_is_fresh(now: float, yields: bool) -> None:
    queue = Queue(slots=1, pace=1.0)
    queue.remember_refusal("owed", -10.0, -100.0)
    waiting = admit(queue, "a", 5, deadline=now + 1.2)
    if yields:
        _, displaced = queue.admit(now, "owed", 5, now + 1.3)
        assert displaced == [waiting]
    else:  # it has been let in, and is kept
        assert reason(queue, "owed", 5, deadline=now + 1.3, now=now) == "deadline"


def test_to_ask_again_at_once_takes_nothing_from_an_equal(queue: Queue) -> None:
    admit(queue, "a", 5, deadline=1.5)
    for _ in range(3):
        assert reason(queue, "b", 5, deadline=1.5) == "deadline"
        with pytest.raises(Refused):
            admit(queue, "b", 5, deadline=1.5)


def test_to_have_been_refused_helps_nobody_past_a_higher_stake_or_with_a_second_request(queue: Queue) -> None:
    for name in ("rich", "other", "poor"):
        queue.remember_refusal("poor", 60.0, -100.0) if name == "poor" else admit(queue, name, 9)
    admit(queue, "poor", 1)
    assert reason(queue, "poor", 1) == "queue_full"
    assert served(queue) == ["rich", "other", "poor"]


def test_of_many_callers_who_were_refused_the_last_ones_are_known(queue: Queue) -> None:
    for number in range(REMEMBERED_CALLERS + 5):
        queue.remember_refusal(str(number), 60.0, 0.0)
    assert len(queue._refusals) == REMEMBERED_CALLERS
    assert "0" not in queue._refusals


def test_twins_take_one_place_and_the_best_rank_of_them_counts(queue: Queue) -> None:
    poor, middle = admit(queue, "poor", 1, deadline=9.0), admit(queue, "middle", 5, deadline=8.0)
    rich, _ = queue.admit(0.0, "rich", 9, 20.0)
    queue.join(rich, poor)
    assert queue.waiting == [poor, middle]
    assert (poor.rank.stake, poor.deadline) == (-9, 9.0)
    admit(queue, "late comer", 0, deadline=9.0)  # there is a place again
    assert queue.step(0.0) == ([poor], [])
    assert [member.caller for member in poor.members] == ["poor", "rich"]


def test_a_twin_that_is_late_or_leaves_does_not_take_the_others_with_it(queue: Queue) -> None:
    running = admit(queue, "running")
    queue.step(0.0)
    hasty = admit(queue, "hasty", 1, deadline=3.5)
    patient, _ = queue.admit(0.0, "patient", 1, 9.0)
    third, _ = queue.admit(0.0, "third", 9, 9.0)
    queue.join(patient, hasty)
    queue.join(third, hasty)
    first, second, last = hasty.members
    assert queue.step(1.8) == ([], [first])
    assert (queue.waiting, hasty.deadline) == ([hasty], 9.0)
    queue.leave(hasty, last)
    assert hasty.rank.stake == -1
    queue.leave(hasty, last)  # without effect the second time
    assert hasty.members == [second]
    queue.release(running)
    assert queue.step(2.0) == ([hasty], [])


@pytest.mark.parametrize("first_waits", [9.0, 3.2])
def test_a_twin_of_less_patience_costs_nobody_else_the_place(first_waits: float) -> None:
    queue = Queue(slots=1, pace=1.0)
    admit(queue, "running", 1)
    queue.step(0.0)
    shared = admit(queue, "first", 1000, deadline=first_waits)
    twin, _ = queue.admit(0.0, "twin", 1, 9.0 if first_waits < 9 else 3.2)
    queue.join(twin, shared)
    for number in range(3):
        richer, displaced = queue.admit(0.0, f"richer {number}", 2000, 9.0)
        richer.ready = True
        assert not displaced
    _, late = queue.step(0.0)
    assert [member.deadline for member in late] == [3.2]
    assert shared in queue.waiting


def test_a_request_that_nobody_could_answer_buys_nothing(queue: Queue) -> None:
    equal = admit(queue, "equal", 5, deadline=101.5, now=100.0)
    with pytest.raises(Refused):
        queue.admit(100.0, "sly", 5, 100.001)
    assert reason(queue, "sly", 5, deadline=101.9, now=100.1) == "deadline"
    assert queue.waiting == [equal]


def test_a_twin_joins_a_picture_that_runs(queue: Queue) -> None:
    running = admit(queue, "running")
    queue.step(0.0)
    twin, _ = queue.admit(0.0, "twin", 1, LATE)
    queue.join(twin, running)
    assert (queue.waiting, len(running.members)) == ([], 2)
    again = queue.put_back(running, running.members[1:])
    queue.release(running)
    assert queue.step(1.0) == ([again], [])


def test_an_admitted_one_is_kept_or_told_early() -> None:
    """A minute of overload with a pace that jitters by a fifth: nobody hears at his deadline that there is no time."""
    luck, told, answered = random.Random(3), list[float](), 0
    queue, came, now, ends = Queue(slots=1, pace=0.3, leeway=0.25), dict[QueuedRequest, float](), 0.0, math.inf
    arrivals = sorted(luck.uniform(0, 60) for _ in range(360))  # of which 200 fit
    while arrivals or queue.waiting or queue.running:
        now = min(arrivals[0] if arrivals else math.inf, ends)
        if now == ends:
            (place,) = queue.running
            queue.release(place)
            queue.measured(now - place.started)
            answered += 1
            assert now <= place.deadline + 0.5
        else:
            try:
                place = admit(queue, f"{len(arrivals)}", luck.random(), arrivals.pop(0) + 8.5, now)
                came[place.members[0]] = now
            except Refused:
                pass
        started, late = queue.step(now)
        told += [now - came[member] for member in late]
        if not queue.running:
            ends = math.inf
        elif started:
            ends = now + luck.gauss(0.3, 0.06)
    assert answered > 190
    assert len(told) <= answered / 50
    assert max(told, default=0.0) < 8.0


def test_a_flood_of_the_richest_is_served_in_turns_with_the_poorest() -> None:
    queue = Queue(slots=1, pace=1.0)
    for _ in range(5):
        admit(queue, "flood", 1000)
    admit(queue, "poor", 1)
    admit(queue, "poorer", 0)
    assert served(queue) == ["flood", "poor", "poorer", "flood", "flood", "flood", "flood"]


def test_one_that_asks_without_pause_leaves_time_for_the_others() -> None:
    queue = Queue(slots=1, pace=1.0)
    for _ in range(3):
        admit(queue, "flood", 1000, deadline=1e9)
    poor, now, answered = admit(queue, "poor", deadline=1e9), 0.0, Counter[str]()
    for _ in range(100):
        queue.step(now)
        (place,) = queue.running
        queue.release(place)
        answered[place.caller] += 1
        admit(queue, place.caller, -place.rank.stake, deadline=1e9, now=now)  # the next one, at once
        now += 1.0
    assert answered[poor.caller] > 20


def test_a_surplus_gives_way_to_the_first_of_another_whatever_the_stakes() -> None:
    queue = Queue(slots=1, pace=1.0, depth=4)
    flood = [admit(queue, "flood", 1000, deadline=4.0) for _ in range(4)]
    _, displaced = queue.admit(0.0, "poor", 1.0, 4.0)
    assert displaced == [flood[-1]]


def test_late_work_is_dropped_as_soon_as_it_is_clear(queue: Queue) -> None:
    first = admit(queue, "a")
    queue.step(0.0)
    waiting = admit(queue, "b", deadline=2.5)
    assert queue.wakes(0.0) == 1.5
    assert queue.step(1.1) == ([], [])  # the first takes longer than usual, perhaps 1.2 s
    assert queue.wakes(1.1) == 1.5
    assert queue.step(1.3) == ([], [waiting.members[0]])  # 1.6 s, then, and one more
    queue.release(first)
    assert queue.step(2.0) == ([], [])
    assert queue.wakes(2.0) is None


def test_an_admitted_one_is_kept_for_some_leeway_that_nobody_new_has(queue: Queue) -> None:
    queue.leeway = 0.2
    admit(queue, "a", deadline=1.0)
    assert reason(queue, "b", deadline=1.9) == "deadline"
    waiting = admit(queue, "c", deadline=2.0)
    queue.step(0.0)
    queue.release(queue.running[0])
    started, late = queue.step(1.15)
    assert (started, late) == ([waiting], [])


def test_a_body_on_its_way_makes_nobody_late(queue: Queue) -> None:
    queue.admit(0.0, "trickles", 9, LATE)
    waiting = admit(queue, "b", deadline=2.0)
    assert queue.step(0.5) == ([waiting], [])


def test_the_pace_follows_the_measurements(queue: Queue) -> None:
    for _ in range(100):
        queue.measured(0.5)
    assert queue.pace == pytest.approx(0.5, abs=0.01)


def test_some_slow_pictures_in_a_row_are_believed_at_once_and_one_is_not(queue: Queue) -> None:
    queue.begin_anew(1.0)
    for seconds in (1.0, 20.0, 1.0, 20.0, 1.0):
        queue.measured(seconds)
    assert queue.pace < 6
    for seconds in (20.0, 21.0, 22.0):
        queue.measured(seconds)
    assert queue.pace == 20.0
    queue.begin_anew(1.0)
    queue.measured(20.0)
    assert queue.pace < 6


@given(
    stakes=st.lists(st.integers(0, 5), min_size=1, max_size=20),
    pace=st.floats(0.05, 2.0),
    patience=st.floats(0.1, 12.0),
)
def test_whatever_stakes_a_crowd_has_nearly_as_many_are_served_as_fit(
    stakes: list[int], pace: float, patience: float
) -> None:
    queue = Queue(slots=1, pace=pace)
    for number, stake in enumerate(stakes):
        try:
            admit(queue, str(number), stake, deadline=patience)
        except Refused:
            continue
    fit = min(len(stakes), math.floor(patience / pace + 1e-9))
    admitted = {place.caller for place in queue.waiting}
    assert len(admitted) >= fit - 1
    richest = sorted(stakes, reverse=True)[: len(admitted)]
    assert sorted((stakes[int(caller)] for caller in admitted), reverse=True) == richest
    assert len(served(queue)) >= len(admitted) - 1
