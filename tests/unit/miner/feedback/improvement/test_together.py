"""Both models together: offered where they are better than the better one of them, as a file that answers so."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from detectors.base import RunOptions
from detectors.export.export import prepare
from detectors.load import load_detector
from detectors.models.calibration import Calibration
from detectors.models.config import read_config
from detectors.models.manifest import Manifest
from miner.feedback.improvement.judgement import JudgedAnswer, judge
from miner.feedback.improvement.promotion import ChosenModel
from miner.feedback.improvement.together import FILE, judge_together, offer_together, together
from tests.models import photo
from tests.process.graphs import write_model
from tests.unit.miner.feedback.improvement.test_judgement import CLEAR, answers


def unsure(found: Sequence[JudgedAnswer]) -> list[JudgedAnswer]:
    """Have whoever is wrong be less sure than whoever is right, as models are on photos that they know little of."""

    def said(one: JudgedAnswer, value: float) -> float:
        return value if one.is_right(value) else 0.5 + (value - 0.5) / 2

    return [replace(one, before=said(one, one.before), after=said(one, one.after)) for one in found]


# Each is wrong on 8 of 40 works, on others.
APART = unsure([*CLEAR, *answers("+" * 8 + "-" * 8 + "=" * 24)])


def test_models_that_are_wrong_on_different_photos_are_better_together() -> None:
    assert judge(APART).outcome == "not better"
    verdict = judge_together(APART)
    assert verdict is not None
    assert verdict.changed == 8
    assert verdict.gain.low > 0


def test_what_adds_nothing_is_not_offered() -> None:
    assert judge_together(unsure([*CLEAR, *answers("=" * 40)])) is None
    assert judge_together(unsure([*CLEAR, *answers("-" * 8 + "=" * 32)])) is None
    alone = unsure([*CLEAR, *answers("+" * 12 + "=" * 28)])
    assert judge(alone).outcome == "better"
    assert judge_together(alone) is None  # both are as right as the candidate is, at twice the time
    both = unsure([*CLEAR, *answers("+" * 20 + "-" * 8 + "=" * 20)])
    assert judge(both).outcome == "better"
    assert judge_together(both) is not None


@pytest.fixture
def models(tmp_path: Path) -> tuple[ChosenModel, ChosenModel]:
    """Return one that is calibrated by its manifest and one by its YAML file."""
    first, second = write_model(tmp_path / "first", bias=1.0), write_model(tmp_path / "second", bias=-2.0)
    manifest = Manifest.read(tmp_path / "first")
    update = {"calibration": Calibration(threshold=0.7, temperature=0.4)}
    manifest.model_copy(update=update).write(tmp_path / "first")
    second.write_text(second.read_text() + "threshold: 0.2\n")
    return ChosenModel("ViT", str(first)), ChosenModel("ViT", str(second))


def test_the_file_answers_as_was_judged(models: tuple[ChosenModel, ChosenModel], tmp_path: Path) -> None:
    run, data = tmp_path / "run", photo(64, 64)
    run.mkdir()
    words = offer_together(run, APART, models, tmp_path)
    assert words is not None
    assert f"IMAGE_DETECTOR_CONFIG={run / FILE}" in words

    def answer(kind: str, path: str) -> float:
        return load_detector(kind, read_config(path), tmp_path, "onnx", RunOptions()).predict(data).probability

    prepare("Ensemble", read_config(str(run / FILE)), tmp_path)
    first, second = (answer(one.detector, one.config) for one in models)
    assert first != second
    (judged,) = together([JudgedAnswer("", "", "own", True, first, second, 0)])
    assert answer("Ensemble", str(run / FILE)) == pytest.approx(judged.after, abs=1e-6)

    # An ensemble is no branch of another one.
    both = ChosenModel("Ensemble", str(run / FILE)), models[1]
    assert offer_together(tmp_path, APART, both, tmp_path) is None


def test_no_file_is_left_where_nothing_is_offered(models: tuple[ChosenModel, ChosenModel], tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("of a try that a kill has ended")
    assert offer_together(tmp_path, [*CLEAR, *answers("=" * 40)], models, tmp_path) is None
    assert not (tmp_path / FILE).exists()
