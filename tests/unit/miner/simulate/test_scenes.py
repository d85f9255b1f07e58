"""Three miners in two scenes: what each played, what it earns, and whether that is more than chance."""

import random
from dataclasses import replace
from functools import cache

import pytest
from rich.console import Console

from miner.cli.common import load_settings
from miner.errors import ConfigurationError
from miner.settings.validators import StageMode
from miner.simulate.comparison import ModeComparison, stages_of
from miner.simulate.comparison_output import comparison_in_json, comparison_plot, modes_table, sentences
from miner.simulate.run import SimulatedPhoto, SimulationPlan
from miner.simulate.scenes import MODES, Scene, SceneName, SceneResult, result_of, scenes_of
from miner.simulate.schedule import SimulatedSubnet
from miner.simulate.sender import SentAnswer

PHOTOS = [SimulatedPhoto(str(number), is_roadwork=number % 2 == 0) for number in range(200)]
WHAT = SimulationPlan(SimulatedSubnet(8, rounds=25, burst=60, every=10), PHOTOS, "native", seed=3)
STAGES = ("small", "small + a-large-one-of-a-long-name")
RIGHT: dict[StageMode, float] = {"cheapest": 0.8, "all": 0.95, "adaptive": 0.95}  # shares of the photos
LOST: dict[StageMode, float] = {"cheapest": 0.0, "all": 0.5, "adaptive": 0.0}  # of a crowd


def scene(name: SceneName = "quiet") -> Scene:
    return next(one for one in scenes_of(WHAT, 20.0) if one.name == name)


def answers(asked: Scene, mode: StageMode, lost: float = 0.0) -> list[SentAnswer]:
    """Return answers that are right for a share of the photos, the same ones every time."""
    chance, found = random.Random(5), []
    for request in asked.requests:
        is_right = random.Random(request.picture).random() < RIGHT[mode]
        said = 0.8 if is_right is request.is_roadwork else 0.2
        is_late = chance.random() < lost
        found.append(
            SentAnswer(request.number, "late", None, 9.0, 0, "")
            if is_late
            else SentAnswer(request.number, "answered", said, 0.05, 200, "")
        )
    return found


@cache
def played(name: SceneName = "quiet") -> SceneResult:
    asked = scene(name)
    lost = LOST if name == "crowded" else dict.fromkeys(MODES, 0.0)
    said = {mode: answers(asked, mode, lost[mode]) for mode in MODES}
    stages: dict[StageMode, list[int]] = {
        "cheapest": [len(asked.requests), 0],
        "all": [0, len(asked.requests)],
        "adaptive": [130, 70],
    }
    return result_of(asked, said, stages, dict.fromkeys(MODES, 10.0), 60)


def test_the_crowd_asks_as_much_as_the_quiet_subnet_in_whole_bursts() -> None:
    quiet, crowded = scenes_of(WHAT, 20.0)
    assert (quiet.speed, crowded.speed) == (20.0, 1.0)
    assert all(len(part) % 60 == 0 for part in crowded.turns())
    assert 0 <= len(crowded.requests) - len(quiet.requests) < 60
    assert {one.validator for one in quiet.requests} == set(range(8))
    assert {one.validator for one in crowded.requests} == set(range(60))


@pytest.mark.parametrize("name", ["quiet", "crowded"])
def test_the_parts_of_a_scene_are_the_whole_and_cut_no_moment(name: SceneName) -> None:
    asked = scene(name)
    parts = asked.turns()
    assert [one for part in parts for one in part] == list(asked.requests)
    moments = [{one.at for one in part} for part in parts]
    assert not set.intersection(*moments)
    assert len(parts) == len(MODES)
    assert all(moments)


def test_fewer_moments_than_parts_leave_parts_empty() -> None:
    asked = Scene("crowded", [one for one in scene("crowded").requests if one.at == 0], 1.0)
    assert [len(part) for part in asked.turns()] == [60, 0, 0]


def test_the_best_is_told_from_chance_photo_by_photo() -> None:
    quiet = played()
    assert quiet.best == "adaptive"  # of equals the one that needs no choice
    assert (quiet.gains["all"].low, quiet.gains["all"].high) == (0, 0)
    assert 0 < quiet.gains["cheapest"].low < quiet.gains["cheapest"].value < quiet.gains["cheapest"].high
    for mode, one in quiet.modes.items():
        assert one.reward.value == pytest.approx(one.report.expected)
        assert one.reward.low <= one.reward.value <= one.reward.high
        assert one.reward.high - one.reward.low > 0.02, mode


def test_what_was_lost_costs_its_share() -> None:
    crowded = played("crowded")
    assert crowded.best == "adaptive"
    dear, both = crowded.modes["all"], crowded.modes["adaptive"]
    assert dear.report.outcomes["late"] == pytest.approx(0.5 * len(dear.answers), rel=0.15)
    assert dear.reward.value == pytest.approx(both.reward.value * (1 - dear.report.lost), rel=0.25)
    assert crowded.gains["all"].low > 0.2


def test_where_no_mistake_was_seen_there_may_be_one() -> None:
    asked = scene()
    right = [SentAnswer(one.number, "answered", float(one.is_roadwork), 0.1, 200, "") for one in asked.requests]
    found = result_of(asked, dict.fromkeys(MODES, right), {mode: [1] for mode in MODES}, dict.fromkeys(MODES, 1.0), 8)
    assert found.modes["all"].reward.value == pytest.approx(1)
    assert found.modes["all"].reward.low < 0.99
    assert all(gain.value == gain.low == gain.high == 0 for gain in found.gains.values())


def test_what_one_of_them_was_not_asked_counts_for_none() -> None:
    """Ctrl-C came while the last one played."""
    asked = scene()
    said = {mode: answers(asked, mode) for mode in MODES}
    said["adaptive"] = said["adaptive"][:50]
    stages: dict[StageMode, list[int]] = {"cheapest": [200, 0], "all": [0, 200], "adaptive": [30, 20]}
    found = result_of(asked, said, stages, dict.fromkeys(MODES, 1.0), 8)
    assert [one.report.requests for one in found.modes.values()] == [50, 50, 50]
    assert [one.stage_shares for one in found.modes.values()] == [[1, 0], [0, 1], [0.6, 0.4]]
    nothing = result_of(asked, said | {"adaptive": []}, stages, dict.fromkeys(MODES, 0.0), 8)
    assert [one.report.requests for one in nothing.modes.values()] == [0, 0, 0]
    assert all(one.reward.value == 0 for one in nothing.modes.values())
    assert not any("earns the most" in line for line in sentences(ModeComparison(STAGES, [nothing], [])))


def test_a_few_photos_tell_no_gain_from_chance() -> None:
    """Where each of so few is right with one miner and wrong with another, all resamples say the same."""
    few = scenes_of(replace(WHAT, photos=PHOTOS[:4]), 20.0)[0]
    said = {}
    for mode in MODES:
        sides = {one.number: one.is_roadwork is (mode != "cheapest") for one in few.requests}
        said[mode] = [
            SentAnswer(number, "answered", 0.8 if is_over else 0.2, 0.05, 200, "") for number, is_over in sides.items()
        ]
    found = result_of(few, said, {mode: [1, 1] for mode in MODES}, dict.fromkeys(MODES, 1.0), 8)
    assert found.gains["cheapest"].low > 0
    assert any("too few" in line for line in sentences(ModeComparison(STAGES, [found], [])))


def test_the_table_fits_eighty_columns_and_the_sentences_say_who_is_best() -> None:
    found = ModeComparison(STAGES, [played(), played("crowded")], [])
    console = Console(width=80, force_terminal=False)
    with console.capture() as capture:
        console.print(modes_table(found))
    lines = capture.get().splitlines()
    assert len(lines) == 2 + 2 * (1 + len(MODES))  # none is broken
    assert "…" not in capture.get()
    assert [line.split()[0] for line in lines[2:]] == ["quiet", *MODES, "crowded", *MODES]
    said = sentences(found)
    assert "2 is small + a-large-one-of-a-long-name" in said[0]
    assert sum("adaptive earns the most" in line for line in said) == 2
    assert sum("may be chance" in line for line in said) == 0
    assert "  as much as all" in said
    comparison_in_json(WHAT, found)


@pytest.mark.slow
def test_nothing_of_the_plot_is_cut_or_covered() -> None:
    pytest.importorskip("matplotlib")
    from tests.plots import look_through

    figure = comparison_plot(ModeComparison(STAGES, [played(), played("crowded")], []), 9.0)
    look_through(figure)
    rewards, stages, times = figure.axes
    assert [axes.get_ylim() for axes in (rewards, stages, times)] == [(0, 1)] * 3
    named = [text.get_text() for text in stages.get_legend().get_texts()]
    assert all(any(words in name for name in named) for words in STAGES)


def test_a_detector_without_stages_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"--compare: IMAGE_DETECTOR_CONFIG=starter\.yaml: .*stages"):
        stages_of(load_settings(None, None))
