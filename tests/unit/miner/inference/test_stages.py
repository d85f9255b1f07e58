"""Further stages in a model of time: whoever is let in is answered in time, and what is left over goes to accuracy."""

import heapq
import math
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miner.errors import Refused
from miner.inference.pace import DEMAND_SECONDS, Demand, StagePace, stages_in_time
from miner.inference.queue import Place, Queue, QueuedRequest, Rank

MARGIN = 0.5  # seconds that are kept back of the caller's time
LEEWAY = MARGIN / 2
PACES = (0.1, 0.6, 3.0)
JITTER = 0.2  # of a stage's seconds, to both sides: less than what the queue reckons with


@dataclass(frozen=True)
class Request:
    """What comes: when, from whom, and a picture that so many further stages are unsure of, too."""

    at: float
    caller: str
    stake: float
    patience: float = 9.0
    unsure: int = 99
    body: float = 0.0  # seconds until its body is there


@dataclass(frozen=True)
class Ended:
    """What became of a request: the stage that answered, or why there was no answer."""

    request: Request
    at: float
    stage: int | None = None
    why: str = ""

    @property
    def seconds_left(self) -> float:
        return self.request.at + self.request.patience - self.at


@dataclass
class World:
    """A miner in a model of time: the queue decides, and the stages take what they take, but for a jitter.

    With no jitter every decision is checked against what is known to come.
    """

    slots: int
    paces: tuple[float, ...] = PACES
    jitter: float = 0.0
    further: bool = True  # whether further stages are asked for
    ends: list[Ended] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.queue = Queue(self.slots, self.paces[0], None, 0.5, LEEWAY, self.paces[1:])
        self.now = 0.0
        self.luck = random.Random(1)
        self.requests: dict[QueuedRequest, Request] = {}
        self.spent: dict[Place, list[float]] = {}
        self.through: dict[Place, float] = {}  # when what runs will be done with its stage
        self.events: list[tuple[float, int, str, Any]] = []
        self.looks_at = math.inf

    def add(self, at: float, kind: str, what: object = None) -> None:
        heapq.heappush(self.events, (at, len(self.ends) + self.luck.getrandbits(60), kind, what))

    def play(self, requests: list[Request]) -> "World":
        self.bodies = any(request.body for request in requests)
        for request in requests:
            self.add(request.at, "comes", request)
        while self.events:
            self.now, _, kind, what = heapq.heappop(self.events)
            getattr(self, kind)(what)
            self.step()
        assert not self.queue.waiting
        assert not self.queue.running
        assert len(self.ends) == len(requests)
        return self

    def comes(self, request: Request) -> None:
        deadline = request.at + request.patience - MARGIN
        why, in_vain = "", self.jitter > 0 or self.is_in_vain(request, deadline)
        try:
            place, displaced = self.queue.admit(self.now, request.caller, request.stake, deadline)
        except Refused as refusal:
            why = refusal.reason
            self.ends.append(Ended(request, self.now, why=why))
        if why:
            assert why == "share" or in_vain
            return
        self.requests[place.members[0]] = request
        for other in displaced:
            assert other.rank > place.rank
            self.ends.append(Ended(self.requests[other.members[0]], self.now, why="evicted"))
        if request.body:
            self.add(self.now + request.body, "is_there", place)
        else:
            self.is_there(place)

    def is_in_vain(self, request: Request, deadline: float) -> bool:
        """Say whether it would be late, or another by it that need not yield, if all got the first stage alone."""
        there = [*self.queue.waiting, *self.queue.running]
        turn = sum(place.caller == request.caller for place in there)
        number, counts_from = self.queue._refusals.get(request.caller, (0, 0.0))
        rank = Rank(turn, -request.stake, -number if self.now >= counts_from else 0)
        mine = Place([QueuedRequest(request.caller, rank, deadline)], 10**9, self.now)
        slots = sorted([*self.through.values(), *[self.now] * (self.slots - len(self.through))])
        for place in sorted([*self.queue.waiting, mine], key=lambda one: one.order):
            done = slots[0] + self.paces[0]
            if done > place.deadline - 1e-9:
                if place is mine or not place.yields_to(rank, self.now):
                    return True
            else:
                slots = sorted([*slots[1:], done])
        return False

    def is_there(self, place: Place) -> None:
        place.ready = True

    def looks(self, _: None) -> None:
        self.looks_at = math.inf

    def step(self) -> None:
        started, late = self.queue.step(self.now)
        # Who was admitted is kept, or loses the place to a better rank.
        assert self.jitter or self.bodies or not late
        for member in late:
            self.ends.append(Ended(self.requests[member], self.now, why="late"))
        for place in started:
            self.spent[place] = []
            self.begin(place)
        assert len(self.queue.running) == self.slots or not any(place.ready for place in self.queue.waiting)
        wakes = self.queue.wakes(self.now)
        if wakes is not None and max(wakes, self.now) < self.looks_at:
            self.looks_at = max(wakes, self.now) + 0.001
            self.add(self.looks_at, "looks")

    def begin(self, place: Place) -> None:
        seconds = self.paces[len(self.spent[place])] * (1 + self.jitter * self.luck.uniform(-1, 1))
        self.spent[place].append(seconds)
        self.through[place] = self.now + seconds
        self.add(self.through[place], "is_through", place)

    def is_through(self, place: Place) -> None:
        done, request = len(self.spent[place]), self.requests[place.members[0]]
        del self.through[place]
        if self.further and done < len(self.paces) and done <= request.unsure:
            granted = self.queue.grants(self.now, place, done)
            if not self.queue.waiting:  # all that is left over is used
                assert granted == (self.now + self.queue.stages[done].longest <= place.deadline)
            if granted:
                self.begin(place)
                return
        self.queue.release(place)
        self.queue.measured(*self.spent.pop(place))
        self.ends.append(Ended(request, self.now, stage=done - 1))

    @property
    def stages(self) -> Counter[int]:
        return Counter(end.stage for end in self.ends if end.stage is not None)

    @property
    def worst(self) -> float:
        """The seconds that were left to the latest answer."""
        return min(end.seconds_left for end in self.ends if end.stage is not None)


def burst(count: int) -> list[Request]:
    return [Request(0.0, f"caller {number}", float(number)) for number in range(count)]


def mixed(seed: int, count: int, load: float) -> list[Request]:
    """Requests one by one, `load` a second, and sixty at once now and then; some trickle, some have no patience."""
    luck, now, requests = random.Random(seed), 0.0, list[Request]()
    while len(requests) < count:
        now += luck.expovariate(load)
        together = 60 if luck.random() < 0.01 else 1
        for _ in range(min(together, count - len(requests))):
            number, at = luck.randrange(64), now + luck.uniform(0, 0.2) * (together > 1)
            patience, unsure = luck.choice((9.0, 9.0, 9.0, 12.0, 4.0, 1.5)), luck.choice((0, 0, 0, 1, 2))
            body = luck.choice((0.0, 0.01, 0.3))
            requests.append(Request(at, f"caller {number}", float(number // 4), patience, unsure, body))
    return requests


@st.composite
def stories(draw: st.DrawFn) -> tuple[int, tuple[float, ...], list[Request]]:
    """Some slots, some stages, and whoever comes."""
    paces = (draw(st.floats(0.02, 1.5)), *draw(st.lists(st.floats(0.02, 5.0), max_size=3)))
    calm = draw(st.sampled_from((0.0, 0.05, 0.5, 3.0)))  # seconds between two requests, about
    bodies = draw(st.sampled_from(((0.0,), (0.0, 0.4))))
    requests, now = list[Request](), 0.0
    for _ in range(draw(st.integers(1, 40))):
        now += calm * draw(st.floats(0, 2))
        number = draw(st.integers(0, 9))
        requests.append(
            Request(
                now, f"caller {number}", float(number // 2), draw(st.floats(0.6, 14.0)), draw(st.integers(0, 3)),
                draw(st.sampled_from(bodies)),
            )
        )  # fmt: skip
    return draw(st.integers(1, 4)), paces, requests


@given(story=stories())
def test_nobody_is_late_and_nobody_refused_who_would_have_been_in_time(
    story: tuple[int, tuple[float, ...], list[Request]],
) -> None:
    """Without jitter each refusal is checked, and nobody who was admitted is lost but to a better rank."""
    slots, paces, requests = story
    world = World(slots, paces).play(requests)
    for end in world.ends:
        if end.stage is not None:  # whose body came late may use the leeway up
            assert end.seconds_left >= MARGIN - LEEWAY * (world.bodies and end.stage == 0) - 1e-6


@given(story=stories())
def test_nobody_is_late_whatever_the_stages_take_within_the_margin(
    story: tuple[int, tuple[float, ...], list[Request]],
) -> None:
    slots, paces, requests = story
    world = World(slots, paces, JITTER).play(requests)
    # The first stage may use the leeway up, and its own jitter on top; a further one ends before the deadline.
    for end in world.ends:
        if end.stage is not None:
            assert end.seconds_left >= (MARGIN if end.stage else MARGIN - LEEWAY - JITTER * paces[0]) - 1e-6


@given(story=stories())
def test_who_is_alone_gets_every_stage(story: tuple[int, tuple[float, ...], list[Request]]) -> None:
    slots, paces, requests = story
    far = [replace(one, at=100.0 * number, patience=100.0, unsure=99) for number, one in enumerate(requests)]
    assert World(slots, paces, JITTER).play(far).stages == {len(paces) - 1: len(far)}


@pytest.mark.parametrize("slots", [1, 2, 4])
@pytest.mark.parametrize("first", [0.1, 0.14, 0.3, 1.0])
def test_in_a_burst_of_sixty_as_many_are_answered_as_by_the_first_stage_alone(first: float, slots: int) -> None:
    paces = (first, 5 * first)
    adaptive, cheap = World(slots, paces).play(burst(60)), World(slots, paces, further=False).play(burst(60))
    assert sum(adaptive.stages.values()) == cheap.stages[0] == min(60, slots * math.floor(8.5 / first + 1e-9))
    if first == 0.1 and slots == 4:
        assert adaptive.stages[1] > 0  # seven seconds are left over


@pytest.mark.parametrize(
    ("slots", "load"),
    [(1, 5.0), *(pytest.param(*one, marks=pytest.mark.slow) for one in ((1, 0.1), (2, 1.0), (4, 20.0)))],
)
def test_of_ten_thousand_requests_of_a_mixed_load_no_answer_is_late(slots: int, load: float) -> None:
    requests = mixed(7, 10_000, load)
    adaptive = World(slots, jitter=JITTER).play(requests)
    cheap = World(slots, jitter=JITTER, further=False).play(requests)
    assert adaptive.worst > 0
    assert adaptive.stages[1] + adaptive.stages[2] > 0
    # What has begun can't be interrupted, so a burst that comes meanwhile loses some.
    assert sum(adaptive.stages.values()) > 0.93 * sum(cheap.stages.values())


@pytest.fixture
def queue() -> Queue:
    """One slot, a second, and four more for a better answer."""
    return Queue(1, 1.0, further=(4.0,))


def running(queue: Queue, stake: float = 1.0, deadline: float = 9.0) -> Place:
    place, _ = queue.admit(0.0, "runs", stake, deadline)
    place.ready = True
    assert queue.step(0.0) == ([place], [])
    return place


def test_a_stage_is_begun_only_with_time_to_spare(queue: Queue) -> None:
    place = running(queue)
    assert not queue.grants(4.5, place, 1)  # 8.5 s, if it is as quick as usual
    assert queue.grants(1.0, place, 1)
    assert not queue.grants(5.0, place, 2)  # there is none


def test_a_slot_counts_as_taken_for_what_runs_in_it(queue: Queue) -> None:
    place = running(queue)
    assert queue.estimate(1.0) == pytest.approx(1.0)
    assert queue.grants(1.0, place, 1)
    assert queue.estimate(1.0) == pytest.approx(5.0)
    assert queue.estimate(3.0) == pytest.approx(3.0)
    assert queue.estimate(6.0) == pytest.approx(2.0)  # late by a second, so perhaps by another one
    queue.check(1.0, "later", 1.0, 6.0)
    with pytest.raises(Refused, match="in time"):
        queue.check(1.0, "hasty", 9.0, 5.9)


@pytest.mark.parametrize(("deadline", "granted"), [(9.0, True), (6.5, False)])
def test_who_waits_is_kept_in_time_though_the_body_is_on_its_way(queue: Queue, deadline: float, granted: bool) -> None:
    place = running(queue)
    queue.admit(0.5, "waits", 1.0, deadline)
    assert queue.grants(1.0, place, 1) is granted


def test_who_has_no_hope_keeps_nobody_from_a_better_answer(queue: Queue) -> None:
    place = running(queue)
    queue.admit(0.0, "trickles", 1.0, 2.0)
    assert queue.grants(1.5, place, 1)


@pytest.mark.parametrize(("stake", "granted"), [(9.0, False), (1.0, True)])
def test_time_for_all_stages_goes_to_the_better_rank(queue: Queue, stake: float, granted: bool) -> None:
    place = running(queue)
    richer, _ = queue.admit(0.5, "waits", stake, 9.0)
    richer.ready = True
    assert queue.grants(1.0, place, 1) is granted
    if not granted:
        queue.release(place)
        assert queue.step(1.0) == ([richer], [])
        assert queue.grants(2.0, richer, 1)


@pytest.mark.parametrize(("stake", "granted"), [(9.0, False), (0.5, True)])
def test_a_better_rank_that_runs_keeps_the_time_for_its_stages(stake: float, granted: bool) -> None:
    """Two slots; who waits needs one of them soon, and both can't go on."""
    queue = Queue(2, 1.0, further=(4.0,))
    for caller, own in (("first", 1.0), ("second", stake)):
        place, _ = queue.admit(0.0, caller, own, 9.0)
        place.ready = True
    queue.step(0.0)
    queue.admit(0.5, "waits", 0.1, 5.0)
    (first,) = (place for place in queue.running if place.caller == "first")
    assert queue.grants(1.0, first, 1) is granted


def test_nobody_works_for_those_who_have_gone(queue: Queue) -> None:
    place = running(queue)
    place.members[0].gone = True
    assert not queue.grants(1.0, place, 1)


def test_of_twins_the_most_urgent_who_is_still_there_says_how_long(queue: Queue) -> None:
    place = running(queue)
    twin, _ = queue.admit(0.0, "twin", 1.0, 5.0)
    queue.join(twin, place)
    assert not queue.grants(1.0, place, 1)
    place.members[1].gone = True
    assert queue.grants(1.0, place, 1)
    assert queue.is_in_time(1.0, place, 5.0)
    assert not queue.is_in_time(1.0, place, 4.9)


def test_with_much_demand_those_who_wait_keep_time_for_those_who_come() -> None:
    queue = Queue(1, 0.1, further=(3.0,))
    for number in range(int(DEMAND_SECONDS) * 9):  # nine a second, of ten that fit
        queue.demand.take(number / 9)
    now = DEMAND_SECONDS
    place, other = (queue.admit(now, caller, 1.0, now + 9.0)[0] for caller in "ab")
    place.ready = other.ready = True
    queue.step(now)
    assert not queue.grants(now + 0.1, place, 1)
    assert queue.grants(now + DEMAND_SECONDS, place, 1) is False  # too late for both
    queue.release(place)
    calm, waits = (queue.admit(now + 10 * DEMAND_SECONDS, caller, 1.0, 1e3)[0] for caller in "ab")
    queue.leave(other)
    calm.ready = waits.ready = True
    queue.step(now + 10 * DEMAND_SECONDS)
    assert queue.grants(now + 10 * DEMAND_SECONDS, calm, 1)


def test_the_demand_is_a_rate() -> None:
    demand = Demand()
    for number in range(3000):
        demand.take(number / 10)
    assert demand.rate(300.0) == pytest.approx(10.0, rel=0.01)
    assert demand.rate(300.0 + 10 * DEMAND_SECONDS) < 0.01


def test_another_model_has_stages_of_its_own(queue: Queue) -> None:
    place = running(queue)
    assert queue.grants(1.0, place, 1)
    queue.begin_anew(0.5)
    assert queue.paces == [0.5]
    assert not queue.grants(5.0, place, 1)
    assert queue.estimate(1.0) == pytest.approx(4.5)  # what runs is still the old one's
    queue.release(place)
    queue.measured(1.0, 4.0)
    assert queue.paces == [pytest.approx(0.55)]


def test_one_slow_picture_shuts_no_stage_out_and_three_in_a_row_do() -> None:
    stages = [StagePace(0.1), StagePace(1.0)]
    for _ in range(20):
        stages[1].take_doubted(1.0)
    stages[1].take_doubted(60.0)
    assert stages[1].seconds < 1.1
    assert stages_in_time(stages, 8.5) == 2
    for _ in range(2):
        stages[1].take_doubted(50.0)
    assert stages[1].seconds == 50.0
    assert stages_in_time(stages, 8.5) == 1
    assert stages_in_time([StagePace(9.0)], 8.5) == 1  # which is no further one


@settings(max_examples=30)
@given(seed=st.integers(0, 1000), share=st.floats(0.0, JITTER))
def test_a_stage_hardly_exceeds_what_it_is_reckoned_with(seed: int, share: float) -> None:
    luck, pace = random.Random(seed), StagePace(1.0)
    for _ in range(300):
        seconds = 2.0 * (1 + luck.uniform(-share, share))  # the machine is slower than at the start
        pace.take_doubted(seconds)
    assert pace.seconds == pytest.approx(2.0, rel=share / 2 + 0.01)
    assert 2.0 * (1 + share) <= pace.longest <= 3.0
