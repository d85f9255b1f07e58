"""Who asks what and when, and about which pictures."""

from collections import Counter
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest

from detectors.photos.transforms import ERAS, Era, opened, prepare
from miner.errors import CouldNotStart
from miner.simulate.run import SimulatedPhoto, SimulationPlan, made_photos
from miner.simulate.schedule import (
    MAX_ORGANIC_TASKS,
    ORGANIC_MINERS,
    ROUND_MINERS,
    STAGGER_SECONDS,
    Request,
    SimulatedSubnet,
    bursts,
    own_rounds,
    plan,
)

LABELS = [True] * 3 + [False] * 5


def test_the_same_seed_is_the_same_plan_and_another_is_another() -> None:
    assert plan(SimulatedSubnet(), LABELS, 7) == plan(SimulatedSubnet(), LABELS, 7)
    assert plan(SimulatedSubnet(), LABELS, 7) != plan(SimulatedSubnet(), LABELS, 8)


def test_more_rounds_only_add_to_the_end() -> None:
    short, long = (
        [replace(one, number=0) for one in plan(SimulatedSubnet(1, rounds=rounds, organic=0), LABELS, 1)]
        for rounds in (10, 20)
    )
    assert long[:10] == short


def test_requests_are_numbered_in_the_order_of_their_time() -> None:
    requests = plan(SimulatedSubnet(), LABELS, 1)
    assert [one.number for one in requests] == list(range(len(requests)))
    assert all(first.at <= second.at for first, second in pairwise(requests))


def test_labels_are_drawn_half_and_half_whatever_the_folder_holds() -> None:
    own = [one for one in plan(SimulatedSubnet(rounds=500), LABELS, 1) if not one.is_organic]
    assert np.mean([one.is_roadwork for one in own]) == pytest.approx(0.5, abs=0.03)
    assert all(LABELS[one.picture] is one.is_roadwork for one in own)
    assert {one.picture for one in own} == set(range(len(LABELS)))


@pytest.mark.parametrize("miners", [10, 64, 250])
def test_a_miner_is_asked_once_in_each_deck(miners: int) -> None:
    rounds = list(islice(own_rounds(miners, np.random.default_rng(0)), 400))
    gaps = np.diff(rounds)
    assert (gaps > 0).all()
    assert gaps.mean() == pytest.approx(miners / ROUND_MINERS, rel=0.02)
    assert gaps.max() <= 2 * -(-miners // ROUND_MINERS)


def test_each_validator_asks_at_its_own_time_once_in_an_interval() -> None:
    subnet = SimulatedSubnet(5, rounds=50, organic=0)
    requests = plan(subnet, LABELS, 2)
    assert Counter(one.validator for one in requests) == dict.fromkeys(range(5), 50)
    for validator in range(5):
        gaps = np.diff([one.at for one in requests if one.validator == validator])
        assert gaps.min() >= subnet.interval * 0.8 - 1e-6
        assert gaps.mean() == pytest.approx(subnet.interval, rel=0.02)


def test_organic_tasks_are_a_tenth_come_in_bursts_and_are_staggered() -> None:
    requests = plan(SimulatedSubnet(20, rounds=300), LABELS, 3)
    organic = [one for one in requests if one.is_organic]
    assert len(organic) / len(requests) == pytest.approx(0.1, abs=0.02)
    bursts = Counter((one.validator, one.at) for one in organic)
    assert 1 < max(bursts.values()) <= MAX_ORGANIC_TASKS
    assert max(one.delay for one in organic) <= (ORGANIC_MINERS - 1) * STAGGER_SECONDS[1]
    later = [one.delay for one in organic if one.delay]
    assert len(later) / len(organic) == pytest.approx(
        1 - 1 / ORGANIC_MINERS, abs=0.06
    )  # the first of three waits for nobody
    assert min(later) >= STAGGER_SECONDS[0]
    agreed = np.mean([vote is one.is_roadwork for one in organic for vote in one.votes])
    assert agreed == pytest.approx(SimulatedSubnet().peers, abs=0.03)


def test_a_burst_is_of_all_its_validators_at_once_about_other_photos_each_time() -> None:
    labels = [True] * 70 + [False] * 90
    subnet = SimulatedSubnet(burst=60, every=15)
    found = bursts(subnet, 4, labels, 1)
    assert Counter(one.at for one in found) == dict.fromkeys((0, 15, 30, 45), 60)
    assert all(one.delay == 0 and not one.is_organic for one in found)
    assert all(labels[one.picture] is one.is_roadwork for one in found)
    assert np.mean([one.is_roadwork for one in found]) == pytest.approx(0.5, abs=0.1)
    for burst in range(4):
        some = found[60 * burst :][:60]
        assert [one.validator for one in some] == list(range(60))
        assert len({one.picture for one in some}) > 50  # a deck may end within it
    times = Counter(one.picture for one in found)
    assert set(times) == set(range(len(labels)))  # none again before all of its class have come
    assert found == bursts(subnet, 4, labels, 1) == bursts(subnet, 9, labels, 1)[:240]
    assert found != bursts(subnet, 4, labels, 2)


def test_bursts_come_on_top_of_everything_else_as_long_as_that_lasts() -> None:
    subnet = SimulatedSubnet(rounds=20, burst=30, every=100)
    alone, mixed = (plan(one, LABELS, 1) for one in (replace(subnet, burst=0), subnet))
    assert len(mixed) == len(alone) + 12 * 30
    assert subnet.callers == 30
    assert [one.number for one in mixed] == list(range(len(mixed)))
    asked = {replace(one, number=0) for one in mixed}
    assert {replace(one, number=0) for one in alone} <= asked
    assert max(one.at for one in mixed) <= max(one.at for one in alone) + 100


def test_equal_photos_of_a_burst_are_not_equal_bytes() -> None:
    """The miner would score them once, and a burst of few photos would be none."""
    what = SimulationPlan(SimulatedSubnet(burst=8), made_photos()[:2], "letterbox", seed=1)
    found = bursts(what.subnet, 1, [True, False], 1)
    sent = [what.picture(one) for one in found]
    assert len(set(sent)) == 8
    assert len({opened(data).tobytes() for data in sent}) <= 2


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.slow
def test_a_picture_is_the_same_to_the_byte_for_its_seed_and_number(era: Era) -> None:
    once, again, other = (SimulationPlan(SimulatedSubnet(), made_photos(), era, seed) for seed in (3, 3, 4))
    requests = plan(SimulatedSubnet(2, rounds=3), LABELS, 3)[:3]
    assert [once.picture(one) for one in requests] == [again.picture(one) for one in requests]
    differs = [once.picture(one) != other.picture(one) for one in requests]
    assert any(differs) is (era == "augmented")  # nothing of the others is left to chance


def test_a_photo_that_is_gone_is_named(tmp_path: Path) -> None:
    play = SimulationPlan(
        SimulatedSubnet(),
        [SimulatedPhoto("roadwork/a.jpg", is_roadwork=True, path=tmp_path / "a.jpg")],
        "native",
        seed=0,
    )
    with pytest.raises(CouldNotStart, match=r"roadwork/a\.jpg: .*: No such file"):
        play.picture(Request(0, 0.0, 0.0, 0, 0, is_roadwork=True))


def test_made_photos_have_both_labels_and_every_era_takes_them() -> None:
    photos = made_photos()
    assert {one.is_roadwork for one in photos} == {True, False}
    for era in ERAS:
        assert opened(prepare(photos[1].read(), era, np.random.default_rng(0)))
