"""Cross-validation folds of a folder, so that a recipe is judged on photos its network has not seen.

    python -m detectors.training.folds split PHOTOS FOLDER    # FOLDER/1 … FOLDER/5, each with `train` and `test`
    python -m detectors.training.folds pool FOLDER/*.json     # what `evaluate --json` said of each fold, as one

Near-identical photos are on one side together, and both classes are spread evenly.
"""

import argparse
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from detectors.evaluation.estimates import share_estimate
from detectors.photos.labelled import CLASSES, Photo, read_photos
from detectors.training.dataset import split

COUNT, SEED = 5, 0


def folds(photos: Sequence[Photo], count: int, seed: int) -> Iterator[tuple[list[Photo], list[Photo]]]:
    """Yield what to learn from and what to judge by, for each fold; every photo is judged once.

    Raises:
        DetectorConfigError: a fold would be left without a photo of a class.
    """
    parts = split(photos, {str(number): 1 / count for number in range(count)}, seed)
    for held, test in parts.items():
        yield [photo for name, part in parts.items() if name != held for photo in part], test


def write(photos: Path, target: Path, count: int = COUNT, seed: int = SEED) -> None:
    """Write a folder for each fold, from 1, that holds links to the photos in `train` and `test`."""
    for number, parts in enumerate(folds(read_photos(photos).photos, count, seed), 1):
        shutil.rmtree(target / str(number), ignore_errors=True)
        for name, part in zip(("train", "test"), parts, strict=True):
            for photo in part:
                link = target / str(number) / name / CLASSES[photo.label] / f"{photo.digest}{photo.path.suffix.lower()}"
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(photo.path.resolve())


def pooled(files: Sequence[Path]) -> dict[str, str]:
    """Return the accuracy over all folds with its interval, by how the photos were sent; each file has one model."""
    right: dict[str, list[bool]] = {}
    for path in files:
        for view, models in json.loads(path.read_bytes())["views"].items():
            (figures,) = models.values()
            hits = round(figures["accuracy"]["value"] * figures["photos"])
            right.setdefault(view, []).extend(number < hits for number in range(figures["photos"]))
    return {view: f"{sum(flags)} of {len(flags)}, {share_estimate(np.array(flags))}" for view, flags in right.items()}


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m detectors.training.folds", description=__doc__.splitlines()[0])
    actions = parser.add_subparsers(dest="action", required=True)
    splitting = actions.add_parser("split")
    splitting.add_argument("photos", type=Path)
    splitting.add_argument("folder", type=Path)
    splitting.add_argument("--count", type=int, default=COUNT)
    splitting.add_argument("--seed", type=int, default=SEED)
    actions.add_parser("pool").add_argument("files", type=Path, nargs="+")
    options = parser.parse_args()
    if options.action == "pool":
        for view, words in pooled(options.files).items():
            print(f"{view}: {words}")
        return
    write(options.photos, options.folder, options.count, options.seed)


if __name__ == "__main__":
    main()
