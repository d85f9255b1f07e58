"""A candidate is better beyond chance, on enough scenes, and not against the random tenth."""

import json
from pathlib import Path

import pytest

from detectors.models.calibration import Calibration
from detectors.photos.labelled import CLASSES
from miner.errors import CouldNotStart
from miner.feedback.improvement.judgement import ALL, TENTH, TRAFFIC, JudgedAnswer, is_kept, judge, read_answers
from miner.feedback.improvement.partition import PartPhoto, Source


def answers(
    pattern: str, source: Source = "own", *, is_roadwork: bool = True, first: int = 0, scenes: int | None = None
) -> list[JudgedAnswer]:
    """Make answers: `=` both right, `+` the candidate alone, `-` what serves alone, `x` both wrong."""
    right, wrong = (0.9, 0.1) if is_roadwork else (0.1, 0.9)
    before = {"=": right, "-": right, "+": wrong, "x": wrong}
    after = {"=": right, "-": wrong, "+": right, "x": wrong}
    return [
        JudgedAnswer(
            f"{source}{first + number}", "", source, is_roadwork, before[one], after[one],
            first + (number if scenes is None else number % scenes),
        )
        for number, one in enumerate(pattern)
    ]  # fmt: skip


CLEAR = answers("=" * 30, is_roadwork=False, first=1000)


def test_a_clear_gain_is_better_and_a_clear_loss_worse() -> None:
    better = judge([*CLEAR, *answers("+" * 10 + "=" * 20)])
    assert (better.outcome, better.changed) == ("better", 10)
    assert better.gain.low > 0
    assert TENTH not in better.sides
    assert judge([*CLEAR, *answers("-" * 10 + "=" * 20)]).outcome == "worse"
    assert judge([*CLEAR, *answers("+-" * 6 + "=" * 18)]).outcome == "not better"
    assert judge([*CLEAR, *answers("=" * 30)]).outcome == "not better"


def test_five_scenes_are_too_few_whatever_the_bootstrap_says() -> None:
    few = judge([*CLEAR, *answers("+" * 5 + "=" * 3)])
    assert few.gain.low > 0
    assert few.outcome == "not better"
    copies = judge([*CLEAR, *answers("+" * 20 + "=" * 4, scenes=5)])
    assert copies.outcome == "not better"
    assert copies.changed <= 5


def test_the_random_tenth_has_a_veto_and_its_silence_is_none() -> None:
    gain = [*CLEAR, *answers("+" * 12 + "=" * 12)]
    silent = answers("=x-", "random", first=2000)
    assert judge([*gain, *silent]).outcome == "better"
    against = [
        *answers("-" * 8 + "=" * 2, "random", first=2000),
        *answers("====", "random", is_roadwork=False, first=3000),
    ]
    vetoed = judge([*gain, *answers("+" * 30, first=500), *against])
    assert vetoed.gain.low > 0
    assert vetoed.outcome == "not better"
    tenth = vetoed.sides[TENTH].gain
    assert tenth is not None
    assert tenth.high < 0


def test_the_traffic_decides_where_there_is_enough_of_it() -> None:
    own = [*CLEAR, *answers("=" * 40)]
    works = answers("+" * 7 + "==", "labelled", first=5000)
    clear = answers("=" * 9, "labelled", is_roadwork=False, first=6000)
    few = judge([*own, *works, *clear])
    assert (few.by, few.outcome) == (ALL, "better")
    tenth = [*answers("=", "random", first=7000), *answers("=", "random", is_roadwork=False, first=7001)]
    enough = [*works, *clear, *tenth]
    against = answers("-" * 30, first=8000)  # own photos, which what serves has learnt perhaps
    found = judge([*own, *enough, *against])
    assert (found.by, found.outcome, found.changed) == (TRAFFIC, "better", 7)
    assert found.gain == found.sides[TRAFFIC].gain
    with pytest.raises(CouldNotStart):
        judge(answers("+="))


def test_photos_that_were_chosen_by_what_models_said_judge_nothing() -> None:
    even = [*CLEAR, *answers("=" * 30)]
    clear = answers("+" * 30, "chosen", is_roadwork=False, first=5000)
    found = judge([*even, *answers("+" * 30, "chosen", first=4000), *clear])
    assert (found.by, found.outcome, found.changed, found.gain.value) == (ALL, "not better", 0, 0.0)
    with pytest.raises(CouldNotStart):
        judge(clear)


def test_a_side_of_one_class_has_no_reward() -> None:
    found = judge([*CLEAR, *answers("++==")])
    assert found.sides[ALL].reward is not None
    alone = judge([*CLEAR, *answers("++=="), *answers("==", "labelled", first=50)]).sides[
        "traffic labelled as unlike the rest"
    ]
    assert (alone.reward, alone.gain, alone.specificity) == (None, None, (None, None))
    assert alone.recall == (1.0, 1.0)


def test_what_a_teacher_taught_needs_the_random_tenth() -> None:
    assert not is_kept([*CLEAR, *answers("+" * 20)])
    clear = answers("=" * 8, "random", is_roadwork=False, first=3000)
    assert is_kept([*clear, *answers("+" * 8, "random")])
    assert not is_kept([*clear, *answers("+" * 4 + "=", "random")])
    assert not is_kept([*clear, *answers("=" * 8, "random")])


def test_answers_are_read_of_photos_that_neither_model_has_learnt(tmp_path: Path) -> None:
    photos, rows = [], []
    for number in range(6):
        kind = CLASSES[number % 2]
        photos.append(PartPhoto(f"{number:064}", kind, "own", "", number % 4, number // 2, is_known=number == 5))
        said = {"as it is": {"z": 0.2, "a": 0.7}}  # what serves first, whatever it is called
        rows.append({"picture": f"{kind}/{number:064}.jpg", "roadwork": True, "said": said})
    for name, some in (("own-0", rows[:3]), ("own-1", rows[3:])):
        (tmp_path / f"{name}.json").write_text(json.dumps({"answers": some}))
    found = read_answers(tmp_path, photos)
    assert [one.digest for one in found] == [one.digest for one in photos[:5]]
    assert {(one.before, one.after) for one in found} == {(0.2, 0.7)}
    assert [one.scene for one in found] == [0, 0, 1, 1, 2]
    assert [one.change for one in found if one.is_roadwork] == [1, 1]
    lower = Calibration(threshold=0.8, temperature=1.0)
    assert all(one.after < 0.5 for one in read_answers(tmp_path, photos, lower))
    with pytest.raises(KeyError):
        read_answers(tmp_path, photos[1:])
