"""Changed views of photos."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageOps

from detectors.network import ViT
from detectors.photos.labelled import read_photos
from detectors.photos.transforms import SIDE
from detectors.training.config import Augment
from detectors.training.dataset import OF_CLEAR_PHOTOS, DataSet, PixelExamples, Views, changed
from tests.photos import fill, patches

ROOT = Path(__file__).resolve().parents[4]
OFF = Augment(**dict.fromkeys(Augment.model_fields, 0.0))


def always(name: str) -> Augment:
    return OFF.model_copy(update={name: 1.0})


def test_a_view_follows_from_seed_photo_and_number_alone(tmp_path: Path) -> None:
    one, other = read_photos(fill(tmp_path, 1)).photos
    views = Views(Augment(), seed=3)
    assert views.view(one, 5).tobytes() == Views(Augment(), seed=3).view(one, 5).tobytes()
    seen = {views.view(one, number).tobytes() for number in range(6)}
    assert len(seen) == 6
    assert Views(Augment(), seed=4).view(one, 5).tobytes() not in seen
    assert views.view(other, 5).tobytes() not in seen


def test_the_view_of_number_0_is_the_photo_itself(tmp_path: Path) -> None:
    photo = read_photos(fill(tmp_path, 1)).photos[0]
    assert Views(Augment(), seed=0).view(photo, 0).tobytes() == Image.open(photo.path).tobytes()


def test_with_every_switch_off_nothing_changes() -> None:
    picture = patches(1, cone=True)
    assert changed(picture, OFF, np.random.default_rng(0)) is picture


@pytest.mark.parametrize("name", Augment.model_fields)
def test_each_switch_changes_the_picture(name: str) -> None:
    picture = patches(1, cone=True)
    view = changed(picture, always(name), np.random.default_rng(0), is_clear=True)
    assert view.size != picture.size or ImageChops.difference(view, picture).getbbox() is not None


def test_letterboxed_it_is_whole_between_black_bars() -> None:
    view = changed(Image.new("RGB", (400, 100), "white"), always("letterbox"), np.random.default_rng(0))
    assert view.size == (SIDE, SIDE)
    assert view.convert("L").point(lambda value: 255 * (value > 127)).getbbox() == (0, 84, 224, 140)


def test_a_flip_is_a_mirror_image() -> None:
    picture = patches(1, cone=True)
    assert changed(picture, always("flip"), np.random.default_rng(0)).tobytes() == ImageOps.mirror(picture).tobytes()


def test_upside_down_is_top_to_bottom() -> None:
    picture = patches(1, cone=True)
    view = changed(picture, always("upside_down"), np.random.default_rng(0))
    assert view.tobytes() == ImageOps.flip(picture).tobytes()


def test_a_crop_leaves_a_fifth_of_the_area_at_least() -> None:
    picture = Image.new("RGB", (400, 300))
    views = [changed(picture, always("crop"), np.random.default_rng(seed)) for seed in range(200)]
    areas = [view.width * view.height / (400 * 300) for view in views]
    assert 0.15 < min(areas) < 0.3
    assert max(areas) > 0.9


@pytest.mark.parametrize("name", ["shrink", "blocks", "noise", "blur"])
def test_a_cameras_picture_is_distorted_at_the_size_of_those_that_are_sent(name: str) -> None:
    picture = patches(1, cone=True, width=1920, height=1080)
    assert changed(picture, always(name), np.random.default_rng(0)).size == (SIDE, 126)


@pytest.mark.parametrize("name", sorted(OF_CLEAR_PHOTOS))
def test_what_would_take_works_away_happens_to_photos_without_roadwork_alone(name: str) -> None:
    picture = patches(1, cone=True)
    assert changed(picture, always(name), np.random.default_rng(0)) is picture


def test_a_view_with_drawn_works_shows_roadwork(tmp_path: Path) -> None:
    photos = read_photos(fill(tmp_path, 4)).photos
    views = Views(OFF.model_copy(update={"works": 0.5, "flip": 0.5}), seed=1)
    data, plain = DataSet(photos, [], [], []), Views(OFF, seed=1)
    wanted = data.wanted_of(views, 9)
    assert wanted.shape == (8, 9)
    assert wanted.dtype == np.int64
    for photo, row in zip(photos, wanted, strict=True):
        assert row[0] == photo.label
        for number in range(1, 9):
            is_drawn = views.has_drawn_works(photo, number)
            assert row[number] == (photo.label or is_drawn)
            same = {picture.tobytes() for picture in (plain.view(photo, number), ImageOps.mirror(plain.view(photo, 1)))}
            assert (views.view(photo, number).tobytes() not in same) == is_drawn
    assert 0.6 < wanted[:, 1:].mean() < 0.9  # half of the photos have works, and half of the views of the others
    preprocessing = ViT.read_preprocessing(ROOT / "detectors/starter")
    examples = PixelExamples(photos, views, preprocessing, plain=False)
    assert [examples[len(photos) * 2 + index]["labels"] for index in range(8)] == wanted[:, 3].tolist()
    unchanged = PixelExamples(photos, views, preprocessing, plain=True)
    assert [unchanged[len(photos) * 2 + index]["labels"] for index in range(8)] == wanted[:, 0].tolist()
