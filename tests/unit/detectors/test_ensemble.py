"""Several branches, one answer: deadlines, failures and what may stand in for them."""

import logging
import re
import time

import pytest
from PIL import Image

from detectors.base import Detector, Judgement, RunOptions
from detectors.ensemble import Ensemble
from detectors.errors import EngineError, ImageError, InferenceError, ModelError, OutOfTime
from detectors.models.calibration import CrossValidation, Fusion
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

    def judge(self, picture: Image.Image, deadline: float | None = None) -> Judgement:
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
        def judge(self, picture: Image.Image, deadline: float | None = None) -> Judgement:
            seen.append(id(picture))
            return super().judge(picture, deadline)

    prediction = ensemble(a=Watching(0.9), b=Watching(0.5)).predict(known_picture())
    assert prediction.probability == pytest.approx(0.7)
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
