"""The queue's decisions: examples first, then what holds for any story of arrivals, bodies, ends and waiting."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from miner.errors import Refused
from miner.queue import Place, Queue

LATE = 60.0


@pytest.fixture
def queue() -> Queue:
    """One slot, three places, two for each caller, a picture a second."""
    return Queue(slots=1, depth=3, share=2, pace=1.0)


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
    queue = Queue(slots=2, depth=8, share=8, pace=1.0)
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


def test_a_caller_has_its_share_of_the_places(queue: Queue) -> None:
    admit(queue, "flood", 9)
    admit(queue, "flood", 9)
    assert reason(queue, "flood", 9) == "share"
    admit(queue, "other", 1)


def test_a_flood_of_the_richest_is_served_in_turns_with_the_poorest() -> None:
    queue = Queue(slots=1, depth=10, share=5, pace=1.0)
    for _ in range(5):
        admit(queue, "flood", 1000)
    admit(queue, "poor", 1)
    admit(queue, "poorer", 0)
    assert served(queue) == ["flood", "poor", "poorer", "flood", "flood", "flood", "flood"]


def test_one_that_asks_without_pause_leaves_time_for_the_others() -> None:
    queue = Queue(slots=1, depth=10, share=5, pace=1.0)
    for _ in range(3):
        admit(queue, "flood", 1000, deadline=1e9)
    poor, now, answered = admit(queue, "poor", deadline=1e9), 0.0, Counter[str]()
    for _ in range(100):
        queue.step(now)
        (place,) = queue.running
        queue.release(place)
        answered[place.caller] += 1
        admit(queue, place.caller, place.priority, deadline=1e9, now=now)  # the next one, at once
        now += 1.0
    assert answered[poor.caller] > 20


def test_a_surplus_gives_way_to_the_first_of_another_whatever_the_stakes() -> None:
    queue = Queue(slots=1, depth=4, share=4, pace=1.0)
    flood = [admit(queue, "flood", 1000, deadline=4.0) for _ in range(4)]
    _, displaced = queue.admit(0.0, "poor", 1.0, 4.0)
    assert displaced == [flood[-1]]


def test_late_work_is_dropped_not_started(queue: Queue) -> None:
    first = admit(queue, "a")
    queue.step(0.0)
    waiting = admit(queue, "b", deadline=2.5)
    assert queue.wakes() == 1.5
    assert queue.step(1.5) == ([], [])
    assert queue.step(1.6) == ([], [waiting])
    queue.release(first)
    assert queue.step(2.0) == ([], [])
    assert queue.wakes() is None


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


CALLERS = [("rich", 900.0), ("middle", 40.0), ("also middle", 40.0), ("poor", 1.0), ("flood", 900.0)]


class Story(RuleBasedStateMachine):
    """Any story: requests come, their bodies come, they hang up, pictures end, time passes, the pace changes."""

    @initialize(slots=st.integers(1, 3), depth=st.integers(1, 8), share=st.integers(1, 8), pace=st.floats(0.01, 3.0))
    def begin(self, slots: int, depth: int, share: int, pace: float) -> None:
        self.queue = Queue(slots, depth, share, pace)
        self.now = 0.0
        self.places: list[Place] = []  # every one ever admitted
        self.ends: Counter[Place] = Counter()

    def end(self, *places: Place) -> None:
        self.ends.update(places)

    @property
    def alive(self) -> list[Place]:
        return [place for place in self.places if place not in self.ends]

    @rule(caller=st.sampled_from(CALLERS), patience=st.floats(0.0, 15.0), at_once=st.booleans())
    def comes(self, caller: tuple[str, float], patience: float, at_once: bool) -> None:
        name, stake = caller
        queue, deadline = self.queue, self.now + patience
        before = list(queue.waiting)
        own = sum(place.caller == name for place in before)
        refusal = ""
        try:
            place, displaced = queue.admit(self.now, name, stake, deadline)
        except Refused as error:
            refusal = error.reason
        if refusal:
            assert queue.waiting == before  # which costs nobody anything
            assert refusal in ("queue_full", "share", "deadline")
            assert refusal != "share" or own >= queue.share
            assert refusal != "queue_full" or len(before) == queue.depth
            return
        assert self.now + queue.pace <= deadline
        assert all(other.rank > place.rank for other in displaced)
        assert all(other.priority < stake or other.turn > place.turn for other in displaced)
        assert {*queue.waiting} == {*before, place} - {*displaced}
        self.places.append(place)
        self.end(*displaced)
        if at_once:
            place.ready = True
            self.step()

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def its_body_is_there(self, data: st.DataObject) -> None:
        unready = [place for place in self.queue.waiting if not place.ready]
        if unready:
            data.draw(st.sampled_from(unready)).ready = True
            self.step()

    @precondition(lambda self: self.queue.waiting)
    @rule(data=st.data())
    def hangs_up(self, data: st.DataObject) -> None:
        place = data.draw(st.sampled_from(self.queue.waiting))
        self.queue.leave(place)
        self.end(place)
        self.step()

    @precondition(lambda self: self.queue.running)
    @rule(data=st.data())
    def a_picture_ends(self, data: st.DataObject) -> None:
        place = data.draw(st.sampled_from(self.queue.running))
        self.queue.release(place)
        self.queue.measured(self.now - place.started)
        self.end(place)
        self.step()

    @rule(seconds=st.floats(0.0, 5.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        if (wakes := self.queue.wakes()) is not None and wakes < self.now:
            self.step()

    def step(self) -> None:
        pace, better = self.queue.pace, {place: place.order for place in self.queue.waiting if place.ready}
        started, late = self.queue.step(self.now)
        for place in started:
            assert place.ready
            assert self.now + pace <= place.deadline  # never one that can't be in time
            assert place.started == self.now
        assert [place.order for place in started] == sorted(place.order for place in started)
        assert all(self.now + pace > place.deadline for place in late)
        left = [place.order for place in self.queue.waiting if place.ready]
        assert not started or not left or better[started[-1]] < min(left)
        assert not left or len(self.queue.running) == self.queue.slots  # nobody waits beside a free slot
        self.end(*late)

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "queue"):
            return
        queue = self.queue
        assert len(queue.running) <= queue.slots
        assert len(queue.waiting) <= queue.depth
        assert max(Counter(place.caller for place in queue.waiting).values(), default=0) <= queue.share
        assert queue.waiting == sorted(queue.waiting, key=lambda place: place.order)
        # Exactly one end, or none yet: whoever has not ended waits or runs, once.
        assert all(count == 1 for count in self.ends.values())
        assert Counter(self.alive) == Counter(queue.waiting) + Counter(queue.running)
        assert math.isfinite(queue.estimate(self.now))
        assert queue.estimate(self.now) >= 0

    def teardown(self) -> None:
        """However it went: when all bodies come and all pictures end, nobody is left."""
        if not hasattr(self, "queue"):
            return
        for place in self.queue.waiting:
            place.ready = True
        while self.queue.waiting or self.queue.running:
            for place in list(self.queue.running):
                self.queue.release(place)
                self.end(place)
            self.step()
            self.now += self.queue.pace
        assert Counter(self.places) == self.ends


TestAnyStory = Story.TestCase


@given(
    stakes=st.lists(st.integers(0, 5), min_size=1, max_size=20),
    pace=st.floats(0.05, 2.0),
    patience=st.floats(0.1, 12.0),
)
def test_whatever_stakes_a_crowd_has_nearly_as_many_are_served_as_fit(
    stakes: list[int], pace: float, patience: float
) -> None:
    queue = Queue(slots=1, depth=64, share=64, pace=pace)
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
