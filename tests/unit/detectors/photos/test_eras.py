"""The mix of eras: told by the photos, drawn for one's own."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from detectors.errors import DetectorConfigError
from detectors.photos.eras import Mix, drawn, era_of, eras_in, mix_of, subset
from detectors.photos.labelled import Photo
from detectors.photos.synthetic import many_pictures
from detectors.photos.transforms import ERAS, Era, encoded, prepare

LITTLE = np.zeros((24, 24, 3), dtype=np.uint8)


def wide(number: int) -> bytes:
    random = np.random.default_rng(number)
    pixels = random.integers(60, 200, (3, 4, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels).resize((640, 480), Image.Resampling.BICUBIC), 90)


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("number", range(8))
def test_a_photo_tells_how_it_was_sent(era: Era, number: int) -> None:
    assert era_of(prepare(wide(number), era, np.random.default_rng(number))) == era


def test_bars_at_the_sides_are_bars_and_a_dark_lower_edge_is_none() -> None:
    tall = Image.new("RGB", (300, 400), (90, 120, 60))
    assert era_of(prepare(encoded(tall, 90), "letterbox", np.random.default_rng(0))) == "letterbox"
    road = Image.new("RGB", (224, 224), (90, 120, 60))
    road.paste((0, 0, 0), (0, 150, 224, 224))
    assert era_of(encoded(road, 90)) == "augmented"
    assert era_of(encoded(Image.new("RGB", (225, 224)), 90)) == "native"


def test_a_recorders_folder_is_counted_and_what_is_no_photo_is_passed_over(tmp_path: Path) -> None:
    assert eras_in(tmp_path / "none") == []
    for number, era in enumerate(("letterbox", "letterbox", "native")):
        (tmp_path / f"{number}.jpg").write_bytes(prepare(wide(number), era, np.random.default_rng(0)))
    (tmp_path / "hostile.jpg").write_bytes(b"\xff\xd8\xffno")
    (tmp_path / "other.bin").write_bytes(many_pictures(1)[0])
    assert mix_of(eras_in(tmp_path)) == {"letterbox": pytest.approx(2 / 3), "native": pytest.approx(1 / 3)}


MIXES = st.lists(st.floats(0.05, 1), min_size=1, max_size=3).map(
    lambda parts: {era: part / sum(parts) for era, part in zip(ERAS, parts, strict=False)}
)


@given(MIXES, st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_each_photo_has_an_era_of_its_own_in_the_proportions_of_the_mix(mix: Mix, seed: int) -> None:
    photos = [Photo(Path(f"{number}"), "", 1, f"{number * 7919:064x}"[::-1], LITTLE) for number in range(300)]
    eras = drawn(photos, mix, seed)
    for era, share in mix.items():
        assert eras.count(era) / 300 == pytest.approx(share, abs=0.15)
    assert drawn(photos[::-1], mix, seed) == eras[::-1]


@given(MIXES, st.integers(1, 20), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_a_subset_has_the_eras_of_each_class_in_the_proportions_of_the_mix(mix: Mix, least: int, seed: int) -> None:
    labels = np.arange(60 * least) % 5 > 0
    eras = np.array(ERAS)[np.random.default_rng(seed).integers(3, size=len(labels))]
    try:
        rows = subset(labels, eras, mix, seed)
    except DetectorConfigError:
        assert any(not ((eras == era) & (labels == flag)).any() for era in mix for flag in (False, True))
        return
    assert len(set(rows.tolist())) == len(rows)
    for flag in (False, True):
        said = eras[rows][labels[rows] == flag].tolist()
        for era, share in mix.items():
            assert abs(said.count(era) - share * len(said)) <= len(mix)


def test_an_era_that_is_not_there_is_named() -> None:
    labels, eras = np.array([False, True]), np.array(["native", "letterbox"])
    with pytest.raises(DetectorConfigError, match=r"'no_roadwork' was sent as letterbox; .*native"):
        subset(labels, eras, {"letterbox": 1.0}, 0)
