"""The gate of a cascade's faster precisions: what each of its stages would send is judged, not the last one alone."""

import pytest

from detectors.base import Way
from detectors.errors import ModelError
from detectors.evaluation.answers import BranchAnswers, EnsembleAnswers
from detectors.models.calibration import Fusion, Stage
from detectors.models.manifest import BranchModel
from tests.unit.detectors.test_ensemble import MANIFEST

FASTER = Way("int8", "onnx")
MODEL = BranchModel(detector="ViT", name="m", revision="r", sums="s", index=1)
KEYS = ("fp32", "int8-onnx")
LARGE = [0.9, 0.9, 0.1, 0.1]
FUSION = Fusion(branches=["small", "large"])


def said(small: list[float], small_int8: list[float]) -> EnsembleAnswers:
    each = {"small": (small, small_int8), "large": (LARGE, LARGE)}
    branches = {
        name: {key: BranchAnswers(model=MODEL, probabilities=one) for key, one in zip(KEYS, both, strict=True)}
        for name, both in each.items()
    }
    return EnsembleAnswers(photos="p", labels=None, made_pictures=False, max_flips=0.005, branches=branches)


def gate_flips(answers: EnsembleAnswers, *stages: Stage) -> float:
    models = {name: dict.fromkeys(KEYS, MODEL) for name in FUSION.branches}
    found = answers.compare(dict.fromkeys(FUSION.branches, FASTER), models, MANIFEST, FUSION, stages)
    if found.flips > answers.max_flips:
        with pytest.raises(ModelError):
            answers.admit(found)
    return found.flips


def test_a_stage_whose_own_answers_change_sides_is_refused_though_all_together_do_not() -> None:
    answers = said([0.55, 0.9, 0.1, 0.1], [0.45, 0.9, 0.1, 0.1])
    assert gate_flips(answers) == 0
    assert gate_flips(answers, Stage(branches=["small"], band=(0.2, 0.8))) == 0.25
    at_a_threshold = said([0.35, 0.9, 0.1, 0.1], [0.25, 0.9, 0.1, 0.1])
    assert gate_flips(at_a_threshold, Stage(branches=["small"], band=(0.5, 0.5), threshold=0.3)) == 0.25


def test_so_is_one_that_is_sure_where_it_was_unsure_and_others_knew_better() -> None:
    answers = said([0.45, 0.9, 0.1, 0.1], [0.35, 0.9, 0.1, 0.1])  # on one side, but the first asks no further
    assert gate_flips(answers, Stage(branches=["small"], band=(0.4, 0.6))) == 0.25


def test_a_cascade_that_says_the_same_passes() -> None:
    answers = said([0.45, 0.9, 0.1, 0.1], [0.44, 0.91, 0.1, 0.1])
    assert gate_flips(answers, Stage(branches=["small"], band=(0.4, 0.6))) == 0
