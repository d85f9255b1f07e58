"""The selection: who is shown, in what order, and why."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from miner.feedback import is_sampled
from miner.feedback.selection import CYCLE, REPEAT, WIDEST, Features, Novelty, Pick, choose
from miner.feedback.traffic import RecordedPhoto


def digest(number: int, *, sampled: bool = False) -> str:
    """Return a made-up digest that is of the random tenth, or is not; they are in the order of their numbers."""
    return f"{number * 10 + (0 if sampled else 1):08x}" + "0" * 56


def waiting(*photos: RecordedPhoto) -> dict[str, RecordedPhoto]:
    return {photo.digest: photo for photo in photos}


def photo(
    number: int, prediction: float | None = 0.9, opinions: Mapping[str, float] | None = None, *, sampled: bool = False
) -> RecordedPhoto:
    return RecordedPhoto(digest(number, sampled=sampled), Path("x"), 0.0, prediction, opinions or {})


def chosen(photos: dict[str, RecordedPhoto], novelty: Novelty | None = None, turn: int = 0) -> list[Pick]:
    """Return all photos in the order in which they are shown."""
    left, picks = dict(photos), []
    novelty = novelty or Novelty()
    while (pick := choose(left, turn + len(picks), novelty)) is not None:
        picks.append(pick)
        novelty.see(pick.photo.digest)
        del left[pick.photo.digest]
    assert not left
    return picks


def vector(*values: float) -> Features:
    return np.array(values, dtype=np.float32)


def test_the_made_up_digests_are_what_they_are_meant_to_be() -> None:
    assert all(is_sampled(digest(number, sampled=True)) for number in range(50))
    assert not any(is_sampled(digest(number)) for number in range(50))


def test_of_four_photos_one_is_of_the_random_tenth_in_the_order_of_the_hashes() -> None:
    photos = waiting(
        *(photo(number) for number in range(12)), *(photo(number, sampled=True) for number in (7, 3, 5, 1))
    )
    picks = chosen(photos)
    assert [pick.reason == "random" for pick in picks] == [False, False, False, True] * 4
    sampled = [pick.photo.digest for pick in picks if pick.reason == "random"]
    assert sampled == sorted(sampled)


@pytest.mark.parametrize("turn", range(2 * CYCLE))
def test_no_photo_of_the_random_tenth_is_chosen_for_what_models_say_of_it(turn: int) -> None:
    disputed = photo(1, 0.5, {"other": 0.1}, sampled=True)
    novelty = Novelty()
    novelty.add({disputed.digest: vector(0, 1), digest(2): vector(1, 0)})
    novelty.see(digest(2))
    (one, other) = chosen(waiting(disputed, photo(3, 0.99)), novelty, turn)
    assert {one.photo.digest: one.reason, other.photo.digest: other.reason}[disputed.digest] == "random"
    assert one.reason != "random" or turn % CYCLE == CYCLE - 1


def test_the_instructive_take_turns() -> None:
    disputed = [photo(number, 0.8 + number / 100, {"other": 0.2}) for number in range(4)]
    unsure = [photo(10 + number, 0.6 + number / 100) for number in range(4)]
    unlike = [photo(20 + number, 0.95) for number in range(4)]
    novelty = Novelty()
    everything = [*disputed, *unsure, *unlike]
    novelty.add({one.digest: vector(*np.eye(12)[number]) for number, one in enumerate(everything)})
    picks = chosen(waiting(*disputed, *unsure, *unlike), novelty)
    # Where no mistake is known, the disputed stand in.
    assert [pick.reason for pick in picks[:3]] == ["disagreement", "disagreement", "unlike"]
    assert picks[0].photo == disputed[3]  # of which the models say the most different things
    assert next(pick.photo for pick in picks if pick.reason == "unsure") == unsure[0]
    counts = Counter(pick.reason for pick in picks)
    assert set(counts) == {"disagreement", "unsure", "unlike"}
    assert not any(pick.reason == "disagreement" and pick.photo not in disputed for pick in picks)


def test_without_features_and_opinions_the_unsure_come_first() -> None:
    photos = waiting(photo(1, 0.99), photo(2, 0.45), photo(3, 0.1), photo(4, None), photo(5, 0.5))
    assert [pick.photo.prediction for pick in chosen(photos)] == [0.5, 0.45, 0.1, 0.99, None]


def test_what_nothing_is_known_of_is_shown_too_the_latest_first() -> None:
    picks = chosen(waiting(photo(3, None), photo(1, None), photo(2, None)))
    assert [pick.photo.digest for pick in picks] == [digest(3), digest(1), digest(2)]


def test_nothing_waits() -> None:
    assert choose({}, 0) is None


def test_ten_that_nearly_equal_each_other_do_not_follow_each_other() -> None:
    """A jam seen by one camera, and five other streets."""
    random = np.random.default_rng(1)
    jam = [photo(number, 0.5) for number in range(10)]
    streets = [photo(50 + number, 0.9) for number in range(5)]
    novelty = Novelty()
    novelty.add({one.digest: vector(1, *(random.random(6) * 0.02)) for one in jam})
    novelty.add({one.digest: vector(0.1, *np.eye(6)[number]) for number, one in enumerate(streets)})
    picks = [pick.photo for pick in chosen(waiting(*jam, *streets), novelty)]
    assert sum(one in jam for one in picks[:6]) == 1
    assert picks[6:] == [one for one in picks if one in jam][1:]


def test_what_was_labelled_before_is_no_news() -> None:
    novelty = Novelty()
    seen, same, other = digest(1), photo(2, 0.5), photo(3, 0.9)
    novelty.see(seen)  # before its features are there
    novelty.add({seen: vector(1, 0, 0), same.digest: vector(1, 0.01, 0), other.digest: vector(0, 1, 0)})
    assert novelty.distance(same.digest) == pytest.approx(0, abs=REPEAT)
    assert novelty.distance(other.digest) == pytest.approx(1)
    assert next(iter(chosen(waiting(same, other), novelty))).photo == other


@pytest.mark.parametrize("seed", range(5))
def test_distances_do_not_depend_on_when_features_come(seed: int) -> None:
    random = np.random.default_rng(seed)
    vectors = {digest(number): vector(*random.random(5)) for number in range(30)}
    seen = [digest(int(number)) for number in random.choice(30, 8, replace=False)]
    orders = []
    for _ in range(2):
        novelty, left, to_see = Novelty(), list(vectors), list(seen)
        random.shuffle(left)
        random.shuffle(to_see)
        while left or to_see:
            if left and (not to_see or random.random() < 0.5):
                batch, left = left[:7], left[7:]
                novelty.add({one: vectors[one] for one in batch})
            else:
                novelty.see(to_see.pop())
        orders.append([novelty.distance(one) for one in vectors])
    assert orders[0] == pytest.approx(orders[1], abs=1e-6)
    unit = {one: value / np.linalg.norm(value) for one, value in vectors.items()}
    right = [min(1 - float(unit[one] @ unit[other]) for other in seen) for one in vectors]
    assert orders[0] == pytest.approx(right, abs=1e-6)


def test_of_what_has_no_features_nobody_knows_and_where_nothing_was_seen_all_are_news() -> None:
    novelty = Novelty()
    novelty.add({digest(1): vector(1, 0)})
    novelty.add({})
    assert novelty.distance(digest(2)) is None
    assert novelty.distance(digest(1)) == WIDEST
    novelty.add({digest(1): vector(0, 1)})  # known already
    novelty.see(digest(1))
    assert novelty.distance(digest(1)) == pytest.approx(0, abs=1e-6)


def test_most_waiting_photos_are_chosen_from_in_a_moment() -> None:
    """Not by the clock: it looks at each photo a few times, and no more."""
    looked = Counter[str]()

    class Counting(Novelty):
        def distance(self, digest: str) -> float:
            looked[digest] += 1
            return 0.5

    photos = waiting(*(photo(number, number / 5000) for number in range(5000)))
    assert choose(photos, 1, Counting()) is not None
    assert max(looked.values()) <= 3


def mistaken() -> tuple[Novelty, RecordedPhoto, RecordedPhoto, RecordedPhoto]:
    """Return what is known once an answer was wrong and another right; two photos near the one, one near the other."""
    near, nearer, right = photo(1, 0.02), photo(2, 0.03), photo(3, 0.01)
    novelty = Novelty()
    novelty.add({
        digest(10): vector(1, 0, 0), digest(11): vector(0, 1, 0),
        near.digest: vector(1, 0.4, 0), nearer.digest: vector(1, 0.3, 0), right.digest: vector(0.3, 1, 0),
    })  # fmt: skip
    for number, is_right in ((10, False), (11, True)):
        novelty.see(digest(number))
        novelty.judge(digest(number), said=False, is_right=is_right)
    return novelty, near, nearer, right


def test_a_photo_like_one_on_which_the_miner_was_wrong_comes_first() -> None:
    novelty, near, nearer, right = mistaken()
    assert choose(waiting(right, near, nearer), 0, novelty) == Pick(nearer, "error")
    assert choose(waiting(right, near), 0, novelty) == Pick(near, "error")
    assert choose(waiting(right), 0, novelty) == Pick(right, "unsure")


def test_a_mistake_says_nothing_of_photos_that_were_answered_otherwise() -> None:
    novelty, near, _, _ = mistaken()
    assert novelty.error_distance(near) is not None
    assert novelty.error_distance(photo(1, 0.98)) is None
    assert novelty.error_distance(photo(1, None)) is None
    assert novelty.error_distance(photo(99, 0.02)) is None  # without features


def test_a_mistake_that_was_taken_back_or_turned_out_right_is_none() -> None:
    for is_right in (None, True):
        novelty, near, nearer, right = mistaken()
        novelty.judge(digest(10), said=False, is_right=is_right)
        assert [novelty.error_distance(one) for one in (near, nearer, right)] == [None] * 3
        novelty.judge(digest(10), said=False, is_right=False)
        assert novelty.error_distance(nearer) == pytest.approx(mistaken()[0].error_distance(nearer))
