"""What is looked at: the rows of the status table about pictures and the model, on both wires."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from detectors.photos.synthetic import scene
from tests.models import photo
from tests.process.conftest import StartDaemon, plain
from tests.process.daemon import Daemon
from tests.process.graphs import CUT_FROM_THE_MIDDLE, write_model
from tests.process.inspection import message_of, probability_of
from tests.process.wire import DOORS, Door

both_wires = pytest.mark.parametrize("door", [Door(), Door("btauth", "/predict")], ids=["dendrite", "btauth"])


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def street_scene() -> Image.Image:
    return Image.fromarray(scene(320, 240, seed=3))


def upside_down_exif(kind: int) -> bytes:
    """Return an EXIF block whose orientation has this type of TIFF, which for 3 is the usual short integer."""
    head = b"Exif\0\0MM\0*\0\0\0\x08\0\x01"
    return head + b"\x01\x12" + kind.to_bytes(2, "big") + b"\0\0\0\x01\0\x03\0\0" + b"\0\0\0\0"


UNREADABLE = {
    "rubbish": b"roadwork" * 100,
    "nothing": b"",
    "truncated JPEG": photo(640, 360)[:-5000],
    "head of a JPEG": photo(640, 360)[:300],
    "truncated PNG": photo(64, 64, kind="PNG")[:-100],
    "GIF": photo(64, 64, kind="GIF"),
    "BMP": photo(64, 64, kind="BMP"),
    "TIFF": photo(64, 64, kind="TIFF"),
    "36 megapixels in 100 kB": plain("grey", 6000),
    "1×1 JPEG": photo(1, 1),
    "1×1 PNG": photo(1, 1, kind="PNG"),
    "a line": photo(1, 100),
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
}

READABLE = {
    "full HD": photo(1920, 1080),
    "portrait": photo(360, 640),
    "224": photo(224, 224),
    "grey JPEG": photo(320, 240, mode="L"),
    "CMYK JPEG": photo(320, 240, mode="CMYK"),
    "EXIF-rotated JPEG": photo(320, 240, orientation=6),
    "progressive JPEG": encoded(street_scene(), "JPEG", progressive=True),
    "JPEG with a huge comment": encoded(street_scene(), "JPEG", comment=b"roadwork" * 8000),
    "PNG": photo(320, 240, kind="PNG"),
    "RGBA PNG": photo(320, 240, mode="RGBA", kind="PNG"),
    "palette PNG": photo(320, 240, mode="P", kind="PNG"),
    "black and white PNG": photo(320, 240, mode="1", kind="PNG"),
    "transparent palette PNG": encoded(street_scene().convert("P"), "PNG", transparency=b"\0" * 5),
    "16-bit PNG": encoded(street_scene().convert("I;16"), "PNG"),
    "WebP": photo(320, 240, kind="WEBP"),
    "lossless WebP with alpha": encoded(street_scene().convert("RGBA"), "WEBP", lossless=True),
    "PNG with a cut EXIF": encoded(street_scene(), "PNG", exif=b"Exif\0\0MM\0*\0\0"),
    "WebP with a cut EXIF": encoded(street_scene(), "WEBP", exif=b"Exif\0\0MM\0*\0\0"),
    "2×100": photo(2, 100),
    "24 megapixels": plain("orange", 4900),
}


@pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE)
@both_wires
def test_what_is_no_picture_is_refused(miner: Daemon, door: Door, data: bytes) -> None:
    message_of(miner.ask(data, door), 422)


@pytest.mark.parametrize("image", ["A", "Straße", "=", "\0"])
@both_wires
def test_what_is_not_base64_is_refused(miner: Daemon, door: Door, image: str) -> None:
    message_of(miner.ask(b"", door, body=json.dumps({"image": image}).encode()), 422)


@pytest.mark.parametrize("data", READABLE.values(), ids=READABLE)
def test_an_odd_picture_is_a_picture(miner: Daemon, data: bytes) -> None:
    probability_of(miner.ask(data))


@pytest.mark.parametrize("kind", range(1, 13))
def test_an_orientation_of_any_type_is_no_failure_of_the_miner(miner: Daemon, kind: int) -> None:
    probability_of(miner.ask(encoded(street_scene(), "JPEG", exif=upside_down_exif(kind))))


def test_a_long_thin_picture_costs_little_memory(start_daemon: StartDaemon, tmp_path: Path, street: bytes) -> None:
    """Its shorter side made as long as the model wants, a picture of 300 bytes would take gigabytes."""
    model = write_model(tmp_path / "cutting", shape=CUT_FROM_THE_MIDDLE)
    daemon = start_daemon(IMAGE_DETECTOR_CONFIG=model).ready()
    probability_of(daemon.ask(street))
    before = daemon.peak()
    for size in ((2, 60_000), (60_000, 2), (2, 300_000)):
        thin = daemon.ask(encoded(Image.new("RGB", size, "grey"), "PNG"))
        assert thin.status_code in (200, 422), thin.text
    probability_of(daemon.ask(street))
    assert daemon.peak() - before < 200


def test_line_breaks_in_base64_are_forgiven(miner: Daemon, street: bytes) -> None:
    fields = json.loads(miner.validator.sign(street, Door()).body)
    lines = "\r\n".join(fields["image"][start : start + 76] for start in range(0, len(fields["image"]), 76))
    broken = miner.ask(b"", body=json.dumps(fields | {"image": lines}).encode())
    assert probability_of(broken) == probability_of(miner.ask(street))


@pytest.mark.parametrize("door", DOORS, ids=lambda door: f"{door.wire}{door.path}")
def test_a_model_that_answers_with_nan_is_a_failure(moody: Daemon, door: Door, street: bytes, black: bytes) -> None:
    assert "output is not" in message_of(moody.ask(black, door), 500)
    probability_of(moody.ask(street, door))
