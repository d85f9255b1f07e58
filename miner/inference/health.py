"""The health of a loaded model: hanging slots, failures in a row, pace, files; and the memory available.

What can mend itself is tried with the known picture while nothing is worked on. What only a new process could mend
ends this one: slots that all hang, a known picture that hangs or gets no right answer for minutes. A model whose files
were changed under it is asked no more, and another one is asked for in its place.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from math import inf

from detectors.base import Detector
from detectors.errors import DetectorError
from detectors.machine import Headroom, read_headroom
from miner.errors import RefusalReason
from miner.inference import memory
from miner.inference.background import BackgroundTimeout, on_a_thread
from miner.inference.memory import Budget
from miner.inference.pace import StagePace, stages_in_time
from miner.inference.plan import planned_paces
from miner.inference.queue import Place
from miner.inference.service import Service

log = logging.getLogger(__name__)

MEBIBYTE = 2**20
FREE_SHARE = 0.05  # of the limit is kept free, within the bounds below
LEAST, MOST = 16 * MEBIBYTE, 128 * MEBIBYTE  # about what the requests of a moment take
RELIEF_FACTOR = 1.25  # of what is kept free must be free again before requests are taken

LOOK_SECONDS = 0.25  # between two looks
TEST_SECONDS = 2.0  # between two tests of a model that is too slow
CHANGED_SECONDS = 5.0  # after a change of the model's files, before the model is loaded anew: writing takes a while
AGAIN_SECONDS = 60.0  # before it is tried once more
STUCK_SECONDS = 10.0  # for which all slots hang before nothing is hoped for any more


class Pressure:
    """Looks at what is left of the tightest limit."""

    def __init__(self, read: Callable[[], Headroom] = read_headroom) -> None:
        self._read = read
        self.obstacle: str | None = None
        self.left = inf  # bytes that requests may take

    def look(self, *, wanted: bool = False) -> None:
        """Look again; `wanted`: a request was refused for want of memory, so what is free is given back first."""
        room = self._read()
        if self.obstacle is None and (wanted or is_short(room, pressed=False)):
            memory.give_back()
            room = self._read()
        self.left = room.left - reserve(room.limit)
        if is_short(room, pressed=self.obstacle is not None):
            self.obstacle = (
                f"memory is short: {room.left / MEBIBYTE:.0f} MiB are left of the {room.whose}'s "
                f"{room.limit / MEBIBYTE:.0f}, and {reserve(room.limit) / MEBIBYTE:.0f} are kept free"
            )
        else:
            self.obstacle = None

    def read_left(self) -> float:
        """Return the bytes that requests may take at this moment."""
        room = self._read()
        return room.left - reserve(room.limit)


def reserve(limit: float) -> float:
    """Return the bytes that are kept free of a limit."""
    return min(MOST, max(LEAST, FREE_SHARE * limit))


def is_short(room: Headroom, *, pressed: bool) -> bool:
    """Return whether too little is left; once it was, some more has to be free again."""
    return room.left < reserve(room.limit) * (RELIEF_FACTOR if pressed else 1)


class Health:
    """Looks at a service again and again.

    Args:
        service: what is looked at.
        hang: seconds after which a picture counts as hanging.
        allowed: seconds that a picture may take, for its answer to be in time.
        stuck: called when all slots hang for good, or the known picture does, or fails again and again.
        budget: told of the memory that is left.
        changed: called when the model's files were changed and it should be loaded anew.
    """

    def __init__(
        self,
        service: Service,
        hang: float,
        allowed: float,
        stuck: Callable[[str], None],
        budget: Budget | None = None,
        pressure: Pressure | None = None,
        clock: Callable[[], float] = time.monotonic,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.service = service
        self.hang = hang
        self.allowed = allowed
        self.budget = budget or Budget()
        self.pressure = pressure or Pressure()
        self.budget.reread = self.pressure.read_left
        self.clock = clock
        self._stuck = stuck
        self._changed = changed
        self._files: str | None = None  # what is wrong with the model's
        self._renew_at = 0.0
        self._lost: set[Place] = set()  # that were told of
        self._all_lost: float | None = None  # since when
        self._test: asyncio.Task[None] | None = None
        self._proving: Detector | None = None  # the one at the known picture, also when nobody waits for it any more
        self._tested = clock()

    @property
    def obstacle(self) -> str | None:
        """Why the model is not asked, or None."""
        return self._models_obstacle or self.pressure.obstacle

    @property
    def refusal(self) -> RefusalReason | None:
        """With which reason requests are refused, or None."""
        if self._models_obstacle is not None:
            return "not_ready"
        return "memory" if self.pressure.obstacle is not None else None

    @property
    def _models_obstacle(self) -> str | None:
        queue = self.service.scheduler.queue
        if self._files is not None:
            return self._files
        if len(self._hanging()) >= queue.slots:
            return f"every slot hangs: no inference ended within {self.hang:g} s"
        if self.service.breaker.obstacle is not None:
            return self.service.breaker.obstacle
        if self._is_slow:
            return f"one picture takes {queue.pace:.1f} s of late, and an answer has to be there after {self.allowed:g}"
        return None

    @property
    def _is_slow(self) -> bool:
        return self.service.scheduler.queue.pace > self.allowed

    @property
    def _is_shut(self) -> bool:
        """Whether a further stage that had the time is begun no more: then no picture will show that it is quick."""
        return self._would_open_more(self.service.detector.paces)

    def _would_open_more(self, paces: Sequence[float]) -> bool:
        """Whether more stages would be in time at these paces than are now."""
        planned = [StagePace(seconds) for seconds in planned_paces(self.service.mode, paces)]
        now = stages_in_time(self.service.scheduler.queue.stages, self.allowed)
        return stages_in_time(planned, self.allowed) > now

    async def watch(self) -> None:
        """Look until cancelled."""
        try:
            while True:
                await self._look_at_memory()
                self.look()
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            if self._test is not None:
                self._test.cancel()

    async def _look_at_memory(self) -> None:
        used = self.budget.used
        # In a thread: the kernel's files of a cgroup can take a while, and so does giving memory back.
        await asyncio.to_thread(self.pressure.look, wanted=self.budget.short)
        self.budget.see(self.pressure.left, min(used, self.budget.used))

    def look(self) -> None:
        """Look once, at all but the memory."""
        self._look_at_files()
        self._look_at_slots()
        is_testing = self._proving is self.service.detector or (self._test is not None and not self._test.done())
        if self._test_is_due() and not is_testing and not self.service.scheduler.running:
            self._tested = self.clock()
            self._test = asyncio.create_task(self._try_out(), name="self-test")

    def _hanging(self) -> set[Place]:
        now = self.clock()
        return {place for place in self.service.scheduler.queue.running if now - place.since > self.hang}

    def _look_at_slots(self) -> None:
        hanging, slots = self._hanging(), self.service.scheduler.queue.slots
        for _ in hanging - self._lost:
            log.error("inference hangs for over %g s: one slot of %d is lost", self.hang, slots)
        for place in self._lost - hanging:
            log.warning("a hanging inference ended after %.0f s; its slot is free again", self.clock() - place.started)
        self._lost = hanging
        if len(hanging) < slots:
            self._all_lost = None
        elif self._all_lost is None:
            self._all_lost = self.clock()
        elif self.clock() - self._all_lost > STUCK_SECONDS:
            self._all_lost = inf  # told once
            self._stuck(f"every slot hangs on a picture, for over {self.hang + STUCK_SECONDS:g} s")

    def _look_at_files(self) -> None:
        fault, now = self.service.detector.look(), self.clock()
        if fault is None:
            if self._files is not None:
                log.warning("the model's files may be read again")
        elif self._files is None:
            log.error("%s: the model is out of use", fault)
            self._renew_at = now + CHANGED_SECONDS
        elif now >= self._renew_at:
            self._renew_at = now + AGAIN_SECONDS
            self._changed()
        self._files = fault

    def _test_is_due(self) -> bool:
        since = self.clock() - self._tested
        slow = (self._is_slow and since >= TEST_SECONDS) or (self._is_shut and since >= AGAIN_SECONDS)
        return self._files is None and (slow or self.service.breaker.due)

    def _prove(self, detector: Detector) -> float:
        self._proving = detector
        try:
            return detector.prove()
        finally:
            if self._proving is detector:
                self._proving = None

    async def _try_out(self) -> None:
        """Have the known picture answered; that counts as the pace if pictures took too long, or a stage did."""
        service, detector, obstacle = self.service, self.service.detector, self._models_obstacle
        fault = None
        try:
            limit = self.hang * max(1, len(detector.paces))  # each stage may take as long as a picture
            seconds = await on_a_thread(partial(self._prove, detector), limit, "the known picture got no answer")
        except BackgroundTimeout as error:
            if obstacle is not None:
                self._stuck(str(error))
            else:  # the first stage still answers in time, and the further ones stay shut
                log.warning("a further stage is no quicker yet: %s", error)
            return
        except DetectorError as error:
            fault = str(error)
        if detector is not service.detector:  # another one serves meanwhile
            return
        if service.breaker.obstacle is not None:
            service.breaker.tested(fault)
        if service.breaker.is_hopeless and detector.elsewhere is None:
            # It passed when this process started: either the process is broken, or a new one will say what is.
            self._stuck(f"the model fails its self-test again and again: {fault}")
        if fault is None and (self._is_slow or (self._is_shut and self._would_open_more(service.shares(seconds)))):
            service.proved(seconds)
