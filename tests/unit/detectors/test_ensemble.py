"""Several branches, one answer: deadlines, failures and what may stand in for them."""

import logging
import re
import time

import pytest
from PIL import Image

from detectors.base import Budget, Detector, Judgement, RunOptions, StageEnd
from detectors.ensemble import Ensemble
from detectors.errors import EngineError, ImageError, InferenceError, ModelError, OutOfTime
from detectors.models.calibration import CrossValidation, Fusion, Stage
from detectors.models.manifest import Manifest, Output, Parity, Source
from detectors.photos.synthetic import known_picture

PICTURE = Image.new("RGB", (32, 24))
MANIFEST = Manifest(
    name="m",
    revision="r",
    detector="Ensemble",
    source=Source(origin="here", revision="r"),
    output=Output(index=1, labels=["None", "Roadwork"], activation="none"),
    files={},
    known_answer=0.5,
    parity=Parity(reference="x", pictures=1, max_difference=0, mean_difference=0),
    made_with={},
)
MEASURED = CrossValidation(photos=100, accuracy=0.85, mcc=0.7, reward=0.5, reward_low=0.4, reward_high=0.6)


class Branch(Detector):
    """Says what it is told to, or raises it."""

    def __init__(self, said: float | Exception, seconds: float = 0.0) -> None:
        super().__init__(MANIFEST, RunOptions(), "onnx")
        self.said, self.seconds, self.asked = said, seconds, 0

    def judge(self, picture: Image.Image, deadline: float | None = None, budget: Budget | None = None) -> Judgement:
        self.asked += 1
        time.sleep(self.seconds)
        if isinstance(self.said, Exception):
            raise self.said
        return Judgement(self.said, 0.25, 0.5)


def ensemble(fallbacks: tuple[Fusion, ...] = (), **branches: Branch) -> Ensemble:
    return Ensemble(MANIFEST, branches, Fusion(branches=list(branches)), fallbacks, RunOptions())


ALONE = Fusion(branches=["a"], threshold=0.4, measured=MEASURED)


def test_every_branch_is_asked_once_and_their_stages_add_up() -> None:
    a, b = Branch(0.9), Branch(0.5)
    judgement = ensemble(a=a, b=b).judge(PICTURE)
    assert (judgement.probability, judgement.preprocess, judgement.infer) == (pytest.approx(0.7), 0.5, 1.0)
    assert (a.asked, b.asked) == (1, 1)


def test_the_picture_is_decoded_once_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    class Watching(Branch):
        def judge(self, picture: Image.Image, deadline: float | None = None, budget: Budget | None = None) -> Judgement:
            seen.append(id(picture))
            return super().judge(picture, deadline, budget)

    prediction = ensemble(a=Watching(0.9), b=Watching(0.5)).predict(known_picture())
    assert prediction.probability == pytest.approx(0.7)
    assert prediction.opinions == {"a": 0.9, "b": 0.5}
    assert len(seen) == 2
    assert len(set(seen)) == 1


@pytest.mark.parametrize("error", [InferenceError("not finite"), EngineError("away")])
def test_a_branch_that_fails_makes_the_answer_fail_at_once(error: Exception) -> None:
    b = Branch(0.5)
    with pytest.raises(type(error), match=f"branch a: {error}"):
        ensemble(a=Branch(error), b=b).judge(PICTURE)
    assert b.asked == 0


def test_a_fallback_answers_for_the_branches_that_are_left() -> None:
    judgement = ensemble((ALONE,), a=Branch(0.4), b=Branch(InferenceError("no"))).judge(PICTURE)
    assert judgement.probability == pytest.approx(0.5)  # its own threshold
    with pytest.raises(InferenceError, match="branch a"):
        ensemble((ALONE,), a=Branch(InferenceError("no")), b=Branch(0.5)).judge(PICTURE)


def test_no_fallback_helps_when_all_fail() -> None:
    failing = Branch(InferenceError("no"))
    with pytest.raises(InferenceError):
        ensemble((ALONE,), a=failing, b=failing).judge(PICTURE)


def test_a_bad_picture_is_no_fault_of_a_branch() -> None:
    with pytest.raises(ImageError):
        ensemble((ALONE,), a=Branch(0.4), b=Branch(ImageError("too long"))).judge(PICTURE)


def test_a_branch_whose_turn_comes_after_the_deadline_is_not_begun() -> None:
    late = Branch(0.5)
    with pytest.raises(OutOfTime, match="branch b: the deadline"):
        ensemble(a=Branch(0.9, seconds=0.05), b=late).judge(PICTURE, time.monotonic() + 0.01)
    assert late.asked == 0
    assert ensemble((ALONE,), a=Branch(0.9, seconds=0.05), b=late).judge(PICTURE, time.monotonic() + 0.01)


def test_failing_and_recovering_are_logged_once_each(caplog: pytest.LogCaptureFixture) -> None:
    b = Branch(InferenceError("not finite"))
    judge = ensemble((ALONE,), a=Branch(0.4), b=b).judge
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            judge(PICTURE)
        b.said = 0.5
        for _ in range(2):
            judge(PICTURE)
    fails, again = caplog.messages
    assert re.match("branch b fails: .*; .* a, threshold 0.40", fails)
    assert again.startswith("branch b answers")


def test_the_calibration_comes_after_the_fusion() -> None:
    from detectors.models.calibration import Calibration

    manifest = MANIFEST.model_copy(update={"calibration": Calibration(threshold=0.8)})
    branches = {"a": Branch(0.9), "b": Branch(0.7)}
    one = Ensemble(manifest, branches, Fusion(branches=["a", "b"]), (), RunOptions())
    assert one.predict(known_picture()).probability == pytest.approx(0.5)


def test_a_fallback_proves_itself_by_answering_and_all_branches_by_answering_right() -> None:
    a, b = Branch(0.5), Branch(0.5)
    both = ensemble((ALONE,), a=a, b=b)
    both.verify()
    both.prove()
    b.said = InferenceError("not finite")
    both.prove()
    with pytest.raises(ModelError, match="not finite"):  # a start wants them all
        both.verify()
    b.said = 0.9
    with pytest.raises(ModelError, match=r"answers 0\.7000 .* not 0\.5000"):
        both.prove()


def cascade(band: tuple[float, float] = (0.2, 0.9), **branches: Branch) -> Ensemble:
    """Return one that asks its first branch, and all of them where that is unsure."""
    first = Stage(branches=["a"], threshold=0.4, band=band, measured=MEASURED)
    return Ensemble(MANIFEST, branches, Fusion(branches=list(branches)), (), RunOptions(), None, (first,))


@pytest.mark.parametrize(("said", "asked"), [(0.05, 0), (0.95, 0), (0.4, 1), (0.3, 1)])
def test_a_sure_stage_answers_and_an_unsure_one_goes_on(said: float, asked: int) -> None:
    a, b = Branch(said), Branch(0.9)
    judgement = cascade(a=a, b=b).judge(PICTURE)
    assert (a.asked, b.asked, len(judgement.stages)) == (1, asked, 1 + asked)
    assert (judgement.probability > 0.5) is (said > 0.9 or asked == 1)
    if asked:
        assert judgement.probability == pytest.approx((said + 0.9) / 2)


def test_an_unsure_answer_is_given_where_the_budget_ends() -> None:
    a, b = Branch(0.4), Branch(0.9)
    asked: list[int] = []

    def no(stage: int) -> bool:
        asked.append(stage)
        return False

    judgement = cascade(a=a, b=b).judge(PICTURE, budget=no)
    assert (judgement.probability, b.asked, asked) == (pytest.approx(0.5), 0, [1])  # by the stage's own threshold


def test_a_sure_answer_asks_for_no_budget() -> None:
    def never(stage: int) -> bool:
        raise AssertionError(stage)

    assert cascade(a=Branch(0.99), b=Branch(0.9)).predict(known_picture(), budget=never).probability > 0.5


@pytest.mark.parametrize("error", [InferenceError("no"), EngineError("away"), ImageError("too long")])
def test_a_stage_has_answered_where_the_next_one_fails(error: Exception) -> None:
    judgement = cascade(a=Branch(0.3), b=Branch(error)).judge(PICTURE)
    assert judgement.probability < 0.5
    assert len(judgement.stages) == 1
    assert judgement.end == StageEnd(1, ("a", "a + b"), "fault")
    with pytest.raises(type(error)):
        cascade(a=Branch(error), b=Branch(0.9)).judge(PICTURE)


def test_a_stage_whose_turn_comes_after_the_deadline_is_not_begun() -> None:
    late = Branch(0.9)
    judgement = cascade(a=Branch(0.4, seconds=0.05), b=late).judge(PICTURE, time.monotonic() + 0.01)
    assert (late.asked, len(judgement.stages)) == (0, 1)
    assert judgement.end == StageEnd(1, ("a", "a + b"), "budget")


def test_the_time_of_a_stage_that_was_cut_short_is_told_with_the_answer_before() -> None:
    judgement = cascade(a=Branch(0.4), b=Branch(OutOfTime("after 3 of 7 views"), seconds=0.05)).judge(PICTURE)
    assert judgement.end == StageEnd(1, ("a", "a + b"), "budget")
    assert judgement.stages[1] >= 0.05


def test_what_stands_in_for_a_stage_is_told_as_what_it_is() -> None:
    first = Stage(branches=["a"], band=(0.2, 0.9), measured=MEASURED)
    instead = Fusion(branches=["b"], measured=MEASURED)
    branches = {"a": Branch(InferenceError("no")), "b": Branch(0.9)}
    detector = Ensemble(MANIFEST, branches, Fusion(branches=["a", "b"]), (instead,), RunOptions(), None, (first,))
    assert detector.judge(PICTURE).end is None
    assert ensemble(a=Branch(0.9), b=Branch(0.5)).judge(PICTURE).end is None


def test_a_cascade_proves_all_its_branches_and_knows_the_pace_of_each_stage() -> None:
    a, b = Branch(0.5, seconds=0.002), Branch(0.5, seconds=0.004)
    both = cascade((0.5, 0.5), a=a, b=b)  # however sure the first is
    assert both.stages == ("a", "a + b")
    assert both.verify() == pytest.approx(sum(both.paces))
    assert len(both.paces) == 2
    assert both.known(PICTURE) == pytest.approx(0.5)
    b.said = 0.2
    with pytest.raises(ModelError, match=r"answers 0\.3500"):
        both.prove()
    plain = ensemble(a=Branch(0.5), b=Branch(0.5))
    assert plain.verify() == plain.paces[0]


def test_a_cascade_whose_stage_fails_while_it_is_timed_does_not_start() -> None:
    class Leaving(Branch):
        def judge(self, picture: Image.Image, deadline: float | None = None, budget: Budget | None = None) -> Judgement:
            if self.asked == 2:  # once alone, once with all
                self.said = EngineError("away")
            return super().judge(picture, deadline, budget)

    with pytest.raises(ModelError, match="stage"):
        cascade(a=Branch(0.5), b=Leaving(0.5)).verify()


def test_a_stage_is_named_by_its_branches_and_their_views() -> None:
    class Viewed(Branch):
        @property
        def view_words(self) -> str:
            return "whole + tiles 2x3, max"

    assert cascade(a=Branch(0.5), b=Viewed(0.5)).stages == ("a", "a + b (whole + tiles 2x3, max)")


def test_the_decoding_counts_into_the_first_stage() -> None:
    prediction = cascade(a=Branch(0.4, seconds=0.002), b=Branch(0.9)).predict(known_picture())
    assert len(prediction.stages) == 2
    assert prediction.stages[0] >= prediction.decode + 0.002
    assert len(ensemble(a=Branch(0.4)).predict(known_picture()).stages) == 1


@pytest.mark.parametrize("band", [(0.6, 0.9), (0.1, 0.4), (-0.1, 0.6), (0.5, 1.1)])
def test_a_band_holds_the_middle(band: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="band"):
        Stage(branches=["a"], band=band)
