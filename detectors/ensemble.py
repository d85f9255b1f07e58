"""Ensembles: several models judge one picture, and their probabilities become one."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial

from PIL import Image

from detectors.base import Detector, Judgement, RunOptions, Ways, is_plain, side_by_side, ways_in_words
from detectors.errors import DetectorError, EngineError, InferenceError, OutOfTime
from detectors.models.calibration import Fusion
from detectors.models.manifest import Manifest

log = logging.getLogger(__name__)


class Ensemble(Detector):
    """Branches in turn, each with all the threads of its picture, or side by side; and one deadline for all of them.

    A branch that fails makes the answer fail, unless a fallback was measured to be better than no answer.
    """

    def __init__(
        self,
        manifest: Manifest,
        branches: Mapping[str, Detector],
        fusion: Fusion,
        fallbacks: Sequence[Fusion],
        options: RunOptions,
        ways: Ways | None = None,
    ) -> None:
        kinds = dict.fromkeys(branch.backend_name for branch in branches.values())
        super().__init__(manifest, options, "+".join(kinds))
        self.branches = dict(branches)
        self.fusion = fusion
        self.fallbacks = tuple(fallbacks)
        self.ways = ways or {}
        beside = options.slots * (len(branches) - 1)  # the thread that asks takes a branch itself
        self._pool = ThreadPoolExecutor(beside, "branch") if side_by_side(self.ways) else None
        self._failing: set[str] = set()
        self._lock = threading.Lock()

    @property
    def roadwork(self) -> str:
        """Which class of each branch counts as roadwork."""
        return "; ".join(f"{name}: {branch.roadwork}" for name, branch in self.branches.items())

    @property
    def precision_words(self) -> str:
        """The branches' precisions."""
        return "+".join(dict.fromkeys(branch.precision_words for branch in self.branches.values()))

    @property
    def view_words(self) -> str:
        """The views that each branch judges; nothing: all of them the whole picture alone."""
        return "; ".join(f"{name}: {branch.view_words}" for name, branch in self.branches.items() if branch.view_words)

    @property
    def runs_on(self) -> str:
        """Precision and backend of each branch where they differ, or run side by side."""
        return super().runs_on if is_plain(self.ways) else ways_in_words(self.ways)

    def judge(self, picture: Image.Image, deadline: float | None = None) -> Judgement:
        """Ask every branch, and combine what they say.

        Raises:
            ImageError: a branch can't make anything of the picture.
            InferenceError, EngineError: a branch failed, and there is no fallback for those that did not.
        """
        said: dict[str, Judgement] = {}
        faults: dict[str, InferenceError | EngineError] = {}
        with self._asked(picture, deadline) as answers:
            for name, answer in answers.items():
                try:
                    said[name] = answer()
                    self._see(name, None)
                except (InferenceError, EngineError) as error:
                    faults[name] = error
                    self._see(name, error)
                    if self._fallback(set(self.branches) - set(faults)) is None:
                        raise type(error)(f"branch {name}: {error}") from error
        fusion = self._fallback(set(said)) if faults else self.fusion
        assert fusion is not None
        probability = float(fusion({name: said[name].probability for name in fusion.branches}))
        stages = list(said.values())
        if self._pool is not None:  # at the same time: what counts is the one that was waited for
            stages = [max(stages, key=lambda one: one.preprocess + one.infer)]
        return Judgement(probability, sum(one.preprocess for one in stages), sum(one.infer for one in stages))

    @contextmanager
    def _asked(self, picture: Image.Image, deadline: float | None) -> Iterator[Mapping[str, Callable[[], Judgement]]]:
        """Yield what returns each branch's answer, or raises what it raised; leave when none is at work any more."""
        calls = {name: partial(_ask, branch, picture, deadline) for name, branch in self.branches.items()}
        if self._pool is None:
            yield calls
            return
        own, *others = calls
        jobs: dict[str, Future[Judgement]] = {}
        try:
            for name in others:
                jobs[name] = self._pool.submit(calls[name])
            # The first is asked on this thread, and each raises in its turn.
            yield {own: calls[own], **{name: job.result for name, job in jobs.items()}}
        finally:
            wait(jobs.values())  # the picture's slot is free only when nobody works for it

    def verify(self) -> float:
        """Have every branch prove itself, then all together; return the seconds of a warm run."""
        for branch in self.branches.values():
            branch.verify()
        return super().verify()

    def hold(self) -> None:
        """Keep writers of the branches' files waiting."""
        for branch in self.branches.values():
            branch.hold()

    def look(self) -> str | None:
        """Look at every branch's files: one that may not be asked is as good as none."""
        faults = [fault for branch in self.branches.values() if (fault := branch.look()) is not None]
        return faults[0] if faults else None

    def close(self) -> None:
        """Let go of what runs elsewhere, and of the models' folders."""
        super().close()
        if self._pool is not None:
            self._pool.shutdown(wait=False)
        for branch in self.branches.values():
            branch.close()

    def _check(self, answer: float) -> None:
        """Check the answer of all; that of a fallback is another, and better than none."""
        if not self._failing:
            super()._check(answer)

    def _fallback(self, answered: set[str]) -> Fusion | None:
        """Return the first fallback that needs no other branches than these."""
        return next((fusion for fusion in self.fallbacks if set(fusion.branches) <= answered), None)

    def _see(self, name: str, error: DetectorError | None) -> None:
        """Log that a branch begins to fail, or has recovered; not every picture that it happens to."""
        if isinstance(error, OutOfTime):  # of the request, not of the branch
            return
        with self._lock:
            if (error is not None) == (name in self._failing):
                return
            (self._failing.discard if error is None else self._failing.add)(name)
        if error is None:
            log.info("branch %s answers again", name)
        else:
            others = set(self.branches) - {name}
            fallback = self._fallback(others)
            then = f"answering with {fallback.words}" if fallback is not None else "no answers without it"
            log.warning("branch %s fails: %s; %s", name, error, then)


def _ask(branch: Detector, picture: Image.Image, deadline: float | None) -> Judgement:
    if deadline is not None and time.monotonic() >= deadline:
        raise OutOfTime("the deadline came before the branch's turn")
    return branch.judge(picture, deadline)
