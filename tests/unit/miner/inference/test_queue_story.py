"""What holds for any story of arrivals, bodies, twins, hang-ups, ends and waiting."""

import math
from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from miner.errors import Refused
from miner.inference.queue import Place, Queue, QueuedRequest

CALLERS = [("rich", 900.0), ("middle", 40.0), ("also middle", 40.0), ("poor", 1.0), ("flood", 900.0)]


class Story(RuleBasedStateMachine):
    """Any story: requests come, their bodies come, they hang up, pictures end, time passes, the pace changes."""

    @initialize(
        slots=st.integers(1, 3), depth=st.none() | st.integers(1, 8), share=st.floats(0.1, 1), pace=st.floats(0.01, 3.0)
    )
    def begin(self, slots: int, depth: int | None, share: float, pace: float) -> None:
        self.queue = Queue(slots, pace, depth, share, leeway=0.25)
        self.now = 0.0
        self.members: list[QueuedRequest] = []  # every one ever admitted
        self.ends: Counter[QueuedRequest] = Counter()

    def end(self, *places: Place) -> None:
        for place in places:
            self.ends.update(place.members)

    @property
    def alive(self) -> list[QueuedRequest]:
        return [member for member in self.members if member not in self.ends]

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
            assert refusal != "share" or 0 < own < len(before)
            assert refusal != "queue_full" or len(before) == queue.depth
            return
        assert self.now + queue.pace <= deadline
        assert all(other.rank > place.rank for other in displaced)
        assert all(-other.rank.stake <= stake or other.rank.turn > place.rank.turn for other in displaced)
        assert {*queue.waiting} == {*before, place} - {*displaced}
        self.members += place.members
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

    @precondition(lambda self: [place for place in self.queue.waiting if not place.ready])
    @rule(data=st.data())
    def it_is_a_twin(self, data: st.DataObject) -> None:
        queue = self.queue
        twin = data.draw(st.sampled_from([place for place in queue.waiting if not place.ready]))
        known = [place for place in (*queue.waiting, *queue.running) if place.ready]
        if known:
            queue.join(twin, data.draw(st.sampled_from(known)))
            self.step()

    @precondition(lambda self: self.queue.waiting)
    @rule(data=st.data())
    def one_of_twins_hangs_up(self, data: st.DataObject) -> None:
        place = data.draw(st.sampled_from(self.queue.waiting))
        member = data.draw(st.sampled_from(place.members))
        self.queue.leave(place, member)
        self.ends[member] += 1
        self.step()

    @precondition(lambda self: self.queue.running)
    @rule(data=st.data())
    def a_picture_fails(self, data: st.DataObject) -> None:
        place = data.draw(st.sampled_from(self.queue.running))
        first, *others = place.members
        self.ends[first] += 1
        if others:
            self.queue.put_back(place, others)
        self.queue.release(place)
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
        if (wakes := self.queue.wakes(self.now - seconds)) is not None and wakes < self.now:
            self.step()

    def step(self) -> None:
        pace, better = self.queue.pace, {place: place.order for place in self.queue.waiting if place.ready}
        started, late = self.queue.step(self.now)
        for place in started:
            assert place.ready
            # Never one that can't be in time, but for the leeway.
            assert self.now + pace <= place.deadline + self.queue.leeway
            assert place.started == self.now
        assert [place.order for place in started] == sorted(place.order for place in started)
        left = [place.order for place in self.queue.waiting if place.ready]
        assert not started or not left or better.get(started[-1], started[-1].order) <= min(left)
        assert not left or len(self.queue.running) == self.queue.slots  # nobody waits beside a free slot
        self.ends.update(late)

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "queue"):
            return
        queue = self.queue
        assert len(queue.running) <= queue.slots
        assert len(queue.waiting) <= queue.depth
        assert queue.waiting == sorted(queue.waiting, key=lambda place: place.order)
        # Exactly one end, or none yet: whoever has not ended waits or runs, once.
        assert all(count == 1 for count in self.ends.values())
        there = [member for place in (*queue.waiting, *queue.running) for member in place.members]
        assert Counter(self.alive) == Counter(there)
        for place in queue.waiting:
            assert place.deadline == min(member.deadline for member in place.members)
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
        assert Counter(self.members) == self.ends


TestAnyStory = pytest.mark.slow(Story.TestCase)
