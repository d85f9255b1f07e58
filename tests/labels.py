"""Labels of recorded photos, made for tests: patches of colour, with a cone where there are works."""

import hashlib
import io
from pathlib import Path

from miner.feedback import FOLDER, Reason, is_sampled
from miner.feedback.labels import Kind, Label, editing
from miner.recorder import FOLDER as RECORDER
from miner.recorder.records import IMAGES
from tests.photos import patches

AT = 1_700_000_000.0


def recorded_photo(seed: int, *, cone: bool, sampled: bool) -> tuple[str, bytes]:
    """Return a photo, and its digest, that is of the random tenth or is not: what follows its end nobody reads."""
    content = io.BytesIO()
    patches(seed, cone=cone).save(content, "JPEG", quality=92)
    for tail in range(10**4):
        data = content.getvalue() + str(tail).encode()
        digest = hashlib.sha256(data).hexdigest()
        if is_sampled(digest) == sampled:
            return digest, data
    raise AssertionError


def label(
    state: Path, count: int, *, first: int = 0, sampled: bool = True, reason: Reason = "random",
    kind: Kind | None = None, prediction: float | None = 0.9,
) -> list[str]:  # fmt: skip
    """Label so many photos of each class, or all as `kind`; return their digests, in turn without works and with."""
    digests = []
    with editing(state / FOLDER) as labels:
        for number in range(2 * count):
            cone = number % 2 == 1
            digest, data = recorded_photo(first + number, cone=cone, sampled=sampled)
            said: Kind = kind or ("roadwork" if cone else "no_roadwork")
            labels.put(Label(digest, said, AT + first + number, reason, prediction), data)
            digests.append(digest)
    return digests


def record(state: Path, count: int, *, first: int, sampled: bool = False) -> list[str]:
    """Leave so many photos where the recorder does; nobody has labelled them."""
    images = state / RECORDER / IMAGES
    images.mkdir(parents=True, exist_ok=True)
    found = [recorded_photo(first + number, cone=False, sampled=sampled) for number in range(count)]
    for digest, data in found:
        (images / f"{digest}.jpg").write_bytes(data)
    return [digest for digest, _ in found]
