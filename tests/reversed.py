"""The starter with the wrong class counted, and labelled photos that tell: drawn roads, half of them with cones."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from detectors.models import MANIFEST_FILE
from detectors.models.manifest import Manifest
from detectors.photos.labelled import CLASSES
from detectors.photos.synthetic import drawn_pairs

STARTER = Path(__file__).resolve().parents[1] / "detectors" / "starter"


def copy_starter(folder: Path, *, index: int, labels: Sequence[str]) -> Path:
    """Copy the starter; its class 1 is the one that knows works. Return the folder."""
    shutil.copytree(STARTER, folder)
    manifest = Manifest.read(folder)
    values = manifest.model_dump(exclude={"judged"})  # as an older version wrote it
    values["output"] = {"index": index, "labels": list(labels), "activation": "softmax"}
    values["known_answer"] = manifest.known_answer if index == 1 else 1 - manifest.known_answer
    (folder / MANIFEST_FILE).write_text(json.dumps(values))
    return folder


def labelled_photos(folder: Path, count: int = 6) -> Path:
    """Write drawn roads into a subfolder for each class."""
    for number, pair in enumerate(drawn_pairs(count)):
        for kind, pixels in zip(CLASSES, pair, strict=True):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / kind / f"{number}.png")
    return folder
