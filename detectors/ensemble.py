"""Ensembles: several models judge one picture, and their probabilities become one."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial

from PIL import Image

from detectors.base import (
    Budget,
    Detector,
    Judgement,
    RunOptions,
    StageEnd,
    StopReason,
    Ways,
    is_plain,
    side_by_side,
    ways_in_words,
)
from detectors.errors import DetectorError, EngineError, ImageError, InferenceError, ModelError, OutOfTime
from detectors.models.calibration import Fusion, Stage
from detectors.models.manifest import Manifest
from detectors.photos.image import decode
from detectors.photos.synthetic import known_picture

log = logging.getLogger(__name__)


class Ensemble(Detector):
    """Branches in turn, each with all the threads of its picture, or side by side; and one deadline for all of them.

    With stages it is a cascade: the cheap branches answer where they are sure, and the dearer ones are asked where they
    are not, as long as the budget lasts. Source: Viola and Jones, Robust Real-Time Face Detection, 2001.

    A branch that fails makes the answer fail, unless a stage before has answered, or a fallback was measured to be
    better than no answer.
    """

    def __init__(
        self,
        manifest: Manifest,
        branches: Mapping[str, Detector],
        fusion: Fusion,
        fallbacks: Sequence[Fusion],
        options: RunOptions,
        ways: Ways | None = None,
        cheaper: Sequence[Stage] = (),
    ) -> None:
        kinds = dict.fromkeys(branch.backend_name for branch in branches.values())
        super().__init__(manifest, options, "+".join(kinds))
        self.branches = dict(branches)
        self.fusion = fusion
        self.cheaper = tuple(cheaper)
        self.fallbacks = tuple(fallbacks)
        self.ways = ways or {}
        beside = options.slots * (len(branches) - 1)  # the thread that asks takes a branch itself
        self._pool = ThreadPoolExecutor(beside, "branch") if side_by_side(self.ways) else None
        self._stages = tuple(" + ".join(map(self._in_words, one.branches)) for one in (*cheaper, fusion))
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
    def runs_on(self) -> str:
        """Precision and backend of each branch where they differ, or run side by side."""
        return super().runs_on if is_plain(self.ways) else ways_in_words(self.ways)

    @property
    def stages(self) -> tuple[str, ...]:
        """The branches of each stage, from cheap to dear, and the views in which they judge a picture."""
        return self._stages if self.cheaper else super().stages

    def _in_words(self, name: str) -> str:
        views = self.branches[name].view_words
        return f"{name} ({views})" if views else name

    def judge(self, picture: Image.Image, deadline: float | None = None, budget: Budget | None = None) -> Judgement:
        """Ask the branches of the first stage, and those of the next ones while the answer is unsure; combine them.

        Raises:
            ImageError: a branch can't make anything of the picture.
            InferenceError, EngineError: a branch failed, no stage has answered, and there is no fallback for those
                that did not.
        """
        return self._run((*self.cheaper, self.fusion), picture, deadline, budget)

    def known(self, picture: Image.Image) -> float:
        """Return what all branches say together, however sure a cheap stage is."""
        return self._run((self.fusion,), picture).probability

    def _run(
        self, stages: Sequence[Fusion], picture: Image.Image, deadline: float | None = None,
        budget: Budget | None = None, *, every: bool = False,
    ) -> Judgement:  # fmt: skip
        """Run stages until one is sure, the budget says no, or one fails behind an answer; `every`: to the last."""
        said: dict[str, Judgement] = {}
        answer, seconds = None, list[float]()
        reason: StopReason = "last"
        for number, stage in enumerate(stages):
            if answer is not None and (_is_over(deadline) or (budget is not None and not budget(number))):
                reason = "budget"
                break
            started = time.perf_counter()
            try:
                fusion = self._asked(stage, said, picture, deadline)
            except (ImageError, InferenceError, EngineError) as error:
                if answer is None:
                    raise
                reason = "budget" if isinstance(error, OutOfTime) else "fault"
                if reason == "budget":  # it takes as long at least, or nobody would ever learn that it has become slow
                    seconds.append(time.perf_counter() - started)
                break
            answer = float(fusion({name: said[name].probability for name in fusion.branches}))
            seconds.append(time.perf_counter() - started)
            if fusion is not stage:
                reason = "fault"
                break
            if isinstance(stage, Stage) and not (every or stage.is_unsure(answer)):
                reason = "sure"
                break
        assert answer is not None
        each = list(said.values())
        if self._pool is not None:  # at the same time: what counts is the one that was waited for
            each = [max(each, key=lambda one: one.preprocess + one.infer)]
        preprocess, infer = sum(one.preprocess for one in each), sum(one.infer for one in each)
        opinions = {name: one.probability for name, one in said.items()}
        return Judgement(answer, preprocess, infer, tuple(seconds), self._end(fusion, reason), opinions)

    def _end(self, fusion: Fusion, reason: StopReason) -> StageEnd | None:
        """Return which stage answered; None: there is only one, or what answered is none of them."""
        if not self.cheaper:
            return None
        number = next((at for at, stage in enumerate((*self.cheaper, self.fusion), 1) if stage is fusion), None)
        return StageEnd(number, self._stages, reason) if number is not None else None

    def _asked(self, stage: Fusion, said: dict[str, Judgement], picture: Image.Image, deadline: float | None) -> Fusion:
        """Ask a stage's branches that have not said anything yet; return what combines them: it, or a fallback."""
        has_answered, faults = bool(said), set[str]()
        for names in (stage.branches, self.branches):
            new = [name for name in names if name not in said and name not in faults]
            with self._calls(new, picture, deadline) as calls:
                for name, call in calls.items():
                    try:
                        said[name] = call()
                        self._see(name, None)
                    except (InferenceError, EngineError) as error:
                        faults.add(name)
                        self._see(name, error)
                        if has_answered or self._fallback(set(self.branches) - faults) is None:
                            raise type(error)(f"branch {name}: {error}") from error
            if not faults:
                return stage
        fallback = self._fallback(set(said))
        assert fallback is not None
        return fallback

    @contextmanager
    def _calls(
        self, names: Sequence[str], picture: Image.Image, deadline: float | None
    ) -> Iterator[Mapping[str, Callable[[], Judgement]]]:
        """Yield what returns each branch's answer, or raises what it raised; leave when none is at work any more."""
        calls = {name: partial(_ask, self.branches[name], picture, deadline) for name in names}
        if self._pool is None or not calls:
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
        seconds = super().verify()
        if not self.cheaper:
            return seconds
        started = time.perf_counter()
        picture = decode(known_picture())
        decoded = time.perf_counter() - started
        first, *others = self._run((*self.cheaper, self.fusion), picture, every=True).stages
        if len(others) < len(self.cheaper):  # a branch that has just proved itself, on another machine perhaps
            raise ModelError(f"the model {self.manifest.name} fails on the known picture: a stage has no answer")
        self.paces = (decoded + first, *others)
        return sum(self.paces)

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
        """Return the first fallback, or else the dearest stage, that needs no other branches than these."""
        others = (*self.fallbacks, *reversed(self.cheaper))
        return next((fusion for fusion in others if set(fusion.branches) <= answered), None)

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
    if _is_over(deadline):
        raise OutOfTime("the deadline came before the branch's turn")
    return branch.judge(picture, deadline)


def _is_over(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() >= deadline
