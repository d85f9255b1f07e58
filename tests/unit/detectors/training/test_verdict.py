"""The verdict on a training, from the answers to photos kept back."""

import json

import numpy as np
import pytest

from detectors.evaluation import evaluate
from detectors.training.verdict import RunVerdict, weigh

LABELS = np.array([True, False] * 30)


def answers(wrong: int, first: int = 0) -> evaluate.Floats:
    """Return answers of which so many are wrong."""
    said = np.where(LABELS, 0.9, 0.1)
    said[first : first + wrong] = 1 - said[first : first + wrong]
    return said


def verdict(said: evaluate.Floats, before: evaluate.Floats, near: "np.ndarray | None" = None) -> RunVerdict:
    figures = evaluate.judge(LABELS, said, np.ones(len(LABELS)), groups=near)
    return weigh(LABELS, said, before, figures, "old.yaml", near)


@pytest.mark.parametrize(
    ("said", "before", "judgement"),
    [
        pytest.param(np.full(60, 0.5), answers(20), "no better than chance", id="never learnt"),
        pytest.param(np.full(60, 0.9), answers(20), "no better than chance", id="always yes"),
        pytest.param(answers(60), answers(20), "no better than chance", id="reversed"),
        pytest.param(answers(28), answers(30), "no better than chance", id="a coin"),
        pytest.param(answers(16), answers(2), "worse", id="something, but less"),
        pytest.param(answers(3), answers(3), "not better", id="the same"),
        pytest.param(answers(0), answers(0), "not better", id="no mistake by either"),
        pytest.param(answers(3), answers(5, 20), "not better", id="a bit more, by luck"),
        pytest.param(answers(1), answers(16), "better", id="much more"),
    ],
)
def test_a_model_is_recommended_only_where_it_is_surely_better(
    said: evaluate.Floats, before: evaluate.Floats, judgement: str
) -> None:
    found = verdict(said, before)
    assert found.judgement == judgement
    assert found.is_recommended == (judgement == "better")
    assert ("not recommended" in found.words) == (judgement != "better")
    assert ("old.yaml" in found.words) == ("chance" not in judgement)
    assert json.loads(json.dumps(found.plain()))["judgement"] == judgement


def test_photos_that_chose_the_epoch_are_called_so() -> None:
    figures = verdict(answers(1), answers(16)).figures
    found = weigh(LABELS, answers(1), answers(16), figures, "old.yaml", part="val")
    assert found.is_recommended
    assert "validation" in found.words
    assert found.plain()["part"] == "val"


def test_answers_that_are_turned_round_are_worse_than_chance() -> None:
    assert verdict(answers(60), answers(3)).words.startswith("worse")
    assert verdict(np.full(60, 0.5), answers(3)).words.startswith("no better")
    assert verdict(answers(28), answers(3)).words.startswith("perhaps")


def test_near_duplicates_prove_no_more_than_one_photo() -> None:
    alone, copies = verdict(answers(1), answers(16)), np.arange(60) // 20 * 2 + LABELS
    assert alone.is_recommended
    assert not verdict(answers(1), answers(16), copies).is_recommended
