"""Train the starter detector: a small residual network, from scratch, on a few hundred photos with and without cones.

    python -m detectors.training.starter --data DIR --out DIR     # train on all photos and write a Hugging Face folder
    python -m detectors.training.starter --data DIR --folds 3     # measure by cross-validation instead

DIR holds one folder a class, `roadwork` and `no_roadwork`. Needs the extra `export` for torch and transformers.
"""

import argparse
from pathlib import Path

from rich.progress import Progress

from detectors.training.starter_data import load
from detectors.training.starter_measures import cross_validate
from detectors.training.starter_network import save, train

EPOCHS = 40  # each with new views of every photo


def main() -> None:
    """Read the command line and train, or measure."""
    parser = argparse.ArgumentParser(prog="python -m detectors.training.starter", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="holds one folder a class: roadwork, no_roadwork")
    parser.add_argument("--out", type=Path, help="where the Hugging Face folder goes")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folds", type=int, default=0, help="cross-validate in so many folds, and write nothing")
    options = parser.parse_args()
    if not options.folds and options.out is None:
        parser.error("--out is needed, or --folds")
    photos = load(options.data)
    if options.folds:
        cross_validate(photos, options.epochs, options.seed, options.folds)
        return
    with Progress() as progress:
        save(train(photos, options.epochs, options.seed, progress), options.out)


if __name__ == "__main__":
    main()
