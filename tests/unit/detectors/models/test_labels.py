"""Which class means roadwork."""

import pytest

from detectors.errors import DetectorConfigError
from detectors.models.labels import contradiction, is_roadwork, is_without, roadwork_index, words

WORKS = [
    "Roadwork", "roadwork", "ROADWORKS", "road_work", "Road Works", "road-works", "RoadWork", "construction",
    "road_construction", "Construction Zone", "work_zone", "workzone", "WorkZone", "works", "has_roadwork",
    "1_roadwork", "with roadwork", "roadworks ahead",
]  # fmt: skip
CLEAR = [
    "no_roadwork", "not roadwork", "non-roadwork", "without_roadwork", "NoRoadwork", "noroadwork", "nonconstruction",
    "no works", "safe", "normal", "background", "clear", "other", "None", "no", "roadwork absent", "construction_free",
]  # fmt: skip
NEITHER = ["LABEL_0", "0", "1", "", "yes", "construction vehicle", "traffic cone", "end_of_roadwork", "works_canteen"]


@pytest.mark.parametrize("label", WORKS)
def test_names_for_roadwork(label: str) -> None:
    assert is_roadwork(label)
    assert not is_without(label)
    assert roadwork_index({0: label, 1: "anything"}) == 0
    assert roadwork_index({0: "safe", 1: label}) == 1


@pytest.mark.parametrize("label", CLEAR)
def test_names_that_never_count_as_roadwork(label: str) -> None:
    assert is_without(label)
    assert not is_roadwork(label)
    assert roadwork_index({0: "roadwork", 1: label}) == 0


@pytest.mark.parametrize("label", NEITHER)
def test_names_that_say_nothing(label: str) -> None:
    assert not is_roadwork(label)
    assert not is_without(label)


@pytest.mark.parametrize(
    "labels",
    [
        {0: "LABEL_0", 1: "LABEL_1"}, {0: "0", 1: "1"}, {0: "no", 1: "yes"}, {0: "Roadwork", 1: "Roadwork"},
        {0: "construction", 1: "work_zone", 2: "safe"}, {0: "no_roadwork", 1: "safe"}, {0: "no_roadwork"},
    ],
)  # fmt: skip
def test_without_a_key_names_that_do_not_decide_are_refused_with_all_of_them(labels: dict[int, str]) -> None:
    with pytest.raises(DetectorConfigError) as caught:
        roadwork_index(labels)
    assert all(repr(label) in str(caught.value) for label in labels.values())
    assert all(key in str(caught.value) for key in ("roadwork_label", "roadwork_class_index"))


@pytest.mark.parametrize(
    ("labels", "label", "index", "right"),
    [
        ({0: "LABEL_0", 1: "LABEL_1"}, None, 0, 0),
        ({0: "LABEL_0", 1: "LABEL_1"}, "1", None, 1),
        ({0: "LABEL_0", 1: "LABEL_1"}, "label_1", None, 1),
        ({0: "1", 1: "0"}, "1", None, 0),  # a name goes before a number
        ({0: "no", 1: "yes"}, "yes", 1, 1),
        ({0: "construction", 1: "work_zone", 2: "safe"}, "Work Zone", None, 1),
        ({0: "construction", 1: "work_zone", 2: "safe"}, None, 1, 1),
        ({0: "roadwork", 1: "Roadwork"}, "Roadwork", None, 1),  # to the letter goes before as it is read aloud
        ({0: "Roadwork", 1: "Roadwork"}, None, 1, 1),
        ({0: "cones", 1: "street"}, "cones", None, 0),
    ],
)
def test_a_key_is_obeyed(labels: dict[int, str], label: str | None, index: int | None, right: int) -> None:
    assert roadwork_index(labels, label, index) == right


@pytest.mark.parametrize(
    ("label", "index", "named"),
    [
        ("roadwork", 1, ("roadwork_label", "roadwork_class_index")),
        (None, 2, ("roadwork_class_index=2", "0 to 1")),
        ("2", None, ("roadwork_label", "'2'")),
        ("works", None, ("roadwork_label", "'works'")),
        (None, 1, ("roadwork_class_index=1", "roadwork_label: 'safe'")),
        ("1", None, ("roadwork_label=1", "roadwork_label: 'safe'")),
    ],
)
def test_keys_that_contradict_each_other_or_the_names_are_refused(
    label: str | None, index: int | None, named: tuple[str, ...]
) -> None:
    with pytest.raises(DetectorConfigError) as caught:
        roadwork_index({0: "roadwork", 1: "safe"}, label, index)
    assert all(one in str(caught.value) for one in (*named, "'roadwork'", "'safe'"))


def test_wrong_names_can_be_overruled_by_the_wrong_name() -> None:
    assert roadwork_index({0: "roadwork", 1: "safe"}, "safe") == 1
    assert roadwork_index({0: "roadwork", 1: "safe"}, "safe", 1) == 1


@pytest.mark.parametrize(
    ("labels", "index", "contradicts"),
    [
        ({0: "roadwork", 1: "safe"}, 1, True), ({0: "roadwork", 1: "site"}, 1, True),
        ({0: "cones", 1: "safe"}, 1, True), ({0: "roadwork", 1: "safe"}, 0, False),
        ({0: "roadwork", 1: "works"}, 1, False), ({0: "0", 1: "1"}, 1, False),
    ],
)  # fmt: skip
def test_names_speak_against_a_number(labels: dict[int, str], index: int, contradicts: bool) -> None:
    assert bool(contradiction(labels, index)) is contradicts


def test_which_class_counts_in_words() -> None:
    assert words(["no_roadwork", "Roadwork"], 1) == "class 1 'Roadwork' of 'no_roadwork', 'Roadwork'"
    assert words([f"c{number}" for number in range(1000)], 500).endswith("'c9' and 990 more")


def test_a_label_of_any_length_is_told_on_a_short_line() -> None:
    endless = {0: "x" * 100_000, 1: "two\nlines"}
    with pytest.raises(DetectorConfigError) as caught:
        roadwork_index(endless)
    assert len(str(caught.value)) < 500
    assert len(str(caught.value).splitlines()) == 1
    assert len(words(list(endless.values()), 0)) < 300
