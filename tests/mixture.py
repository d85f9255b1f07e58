"""Requests of every kind that a miner meets, drawn at random: the mixture of `make soak`."""

import io
import random
from collections import Counter
from collections.abc import Callable, Iterator

import httpx
from PIL import Image

from detectors.photos.synthetic import scene
from tests.process.daemon import PATIENCE, Daemon
from tests.process.inspection import inspect_answer
from tests.process.wire import DOORS, Door, Signed

MODES = (("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGBA"), ("PNG", "P"), ("WEBP", "RGB"))
LARGE = 640  # pixels; noise that wide makes a PNG of megabytes
SIZES = ((16, 9), (64, 64), (224, 224), (300, 227), (640, 360), (1280, 720))
FINE = {200, 503}  # 503: no answer in time was possible


class Load:
    """A daemon and those who ask it."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.client = httpx.Client(
            base_url=daemon.address, timeout=PATIENCE, trust_env=False, event_hooks={"response": [inspect_answer]}
        )
        self.pictures = list(made_pictures())
        self.stranger = daemon.signer(daemon.keys.stranger)
        self.ends: Counter[str] = Counter()
        self.unexpected: list[str] = []

    def post(self, signed: Signed) -> int:
        return self.client.post(signed.path, content=signed.body, headers=signed.headers).status_code

    def sign(self, chance: random.Random, image: bytes | None = None, **how: object) -> Signed:
        door = chance.choice(DOORS)
        return self.daemon.validator.sign(chance.choice(self.pictures) if image is None else image, door, **how)  # type: ignore[arg-type]

    def one(self, number: int) -> None:
        """Send a request of some kind, and note how it ended."""
        chance = random.Random(number)
        (name,) = chance.choices(list(KINDS), [weight for _, _, weight in KINDS.values()])
        kind, expected, _ = KINDS[name]
        status = kind(self, chance)
        self.ends[f"{name}: {status or 'hung up'}"] += 1
        if status not in expected:
            self.unexpected.append(f"request {number}, {name}: {status}")


def made_pictures() -> Iterator[bytes]:
    """Yield a picture for each size and mode."""
    for seed, (width, height) in enumerate(SIZES):
        picture = Image.fromarray(scene(width, height, seed))
        for form, mode in MODES if width < LARGE else MODES[:3]:
            buffer = io.BytesIO()
            exif = Image.Exif()
            exif[0x0112] = 1 + seed  # which way is up
            picture.convert(mode).save(buffer, form, exif=exif)
            yield buffer.getvalue()


def good(load: Load, chance: random.Random) -> int:
    return load.post(load.sign(chance))


def cut_off(load: Load, chance: random.Random) -> int:
    picture = chance.choice(load.pictures[6:])
    return load.post(load.sign(chance, picture[: len(picture) // 2]))


def no_picture(load: Load, chance: random.Random) -> int:
    return load.post(load.sign(chance, chance.randbytes(2000)))


def no_json(load: Load, chance: random.Random) -> int:
    return load.post(load.sign(chance, body=b'{"image": ' + chance.randbytes(500).hex().encode()))


def too_large(load: Load, chance: random.Random) -> int:
    with load.daemon.raw(load.sign(chance, b"")) as raw:
        return raw.send_head(length=10**8).answer().status_code


def replayed(load: Load, chance: random.Random) -> int:
    request = load.sign(chance)
    load.post(request)
    return load.post(request)


def forged(load: Load, chance: random.Random) -> int:
    return load.post(load.daemon.validator.sign(b"", Door()).but(bt_header_dendrite_signature="0x" + "00" * 64))


def strange(load: Load, chance: random.Random) -> int:
    return load.post(load.stranger.sign(load.pictures[0], chance.choice(DOORS)))


def elsewhere(load: Load, chance: random.Random) -> int:
    return load.client.post(f"/{chance.randbytes(4).hex()}").status_code


def impatient(load: Load, chance: random.Random) -> int:
    return load.post(load.sign(chance, timeout="0.1"))


def gone_after_the_body(load: Load, chance: random.Random) -> int:
    with load.daemon.raw(load.sign(chance)) as raw:
        raw.send_all()
    return 0


def gone_in_the_body(load: Load, chance: random.Random) -> int:
    with load.daemon.raw(load.sign(chance)) as raw:
        raw.send_head(length=10**5)
        raw.socket.sendall(b"{" * chance.randrange(1, 50_000))
    return 0


# Of 100: what is sent, how it may end, how often.
KINDS: dict[str, tuple[Callable[[Load, random.Random], int], set[int], int]] = {
    "good": (good, FINE, 66),
    "cut off": (cut_off, {422, 503}, 4),
    "no picture": (no_picture, {422, 503}, 3),
    "no JSON": (no_json, {400, 503}, 3),
    "too large": (too_large, {413}, 2),
    "replayed": (replayed, {401}, 4),
    "forged": (forged, {401}, 4),
    "stranger": (strange, {403}, 4),
    "elsewhere": (elsewhere, {404}, 2),
    "impatient": (impatient, {503}, 2),
    "hangs up after its body": (gone_after_the_body, {0}, 3),
    "hangs up in its body": (gone_in_the_body, {0}, 3),
}
