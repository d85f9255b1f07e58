"""A whole training: photos in, and a model folder out that `roadwork-miner run` serves."""

import json
import os
import resource
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from detectors.config import DetectorConfig
from detectors.export import prepare
from detectors.storing import write_safely
from detectors.training import plots, sources
from detectors.training.card import model_card
from detectors.training.folder import DataSet, Photo
from detectors.training.job import HISTORY_FILE, RESULTS_FILE, Job, Outcome
from detectors.training.measures import in_words, judge
from detectors.training.screen import duration

SERVED, YAML_FILE, CARD_FILE = "served", "detector.yaml", "README.md"
PARITY_PHOTOS = 32


def run(job: Job) -> dict[str, object]:
    """Train, judge, draw, export; return what `results.json` holds.

    Raises:
        DetectorConfigError: the photos or the configuration are wrong.
        ModelError: the model can't be found, loaded or exported.
    """
    began = time.monotonic()
    screen, config = job.screen, job.config
    screen.say(str(job.machine))
    _apply_threads(job)
    data = sources.read(config, job.cache / "photos", screen, job.machine.cores)
    train = _trainer(job)
    outcome = train(job, data, sources.sum_of(data))
    screen.say(f"{outcome.epochs} epochs; {outcome.why}")
    write_safely(job.run / HISTORY_FILE, json.dumps(list(outcome.history), indent=1).encode())
    parts = {"val": (data.val, outcome.val), "test": (data.test, outcome.test)}
    figures = {name: judge(_labels(part), said) for name, (part, said) in parts.items() if part}
    for name, row in figures.items():
        screen.say(f"{name}: {in_words(row)}")
    facts = {
        "time": duration(time.monotonic() - began),
        "peak memory": f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9:.2f} GB",
        "epochs": f"{outcome.epochs} of at most {config.most_epochs}; {outcome.why}",
        "threads": job.threads,
        **outcome.facts,
    }
    last = "test" if data.test else "val"
    _draw(job.run, data, outcome, *_judged(parts[last]), figures[last], facts)
    write_safely(job.run / CARD_FILE, model_card(config, data.counts(), figures, facts, job.machine).encode())
    served = _export(job, outcome, [photo for photo, _ in zip(data.val, range(PARITY_PHOTOS), strict=False)])
    results: dict[str, object] = {
        "figures": figures,
        "seconds": round(time.monotonic() - began, 1),
        "cpu_seconds": round(sum(os.times()[:4]), 1),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "epochs": outcome.epochs,
        "ended": outcome.why,
        "served": str(served),
        "yaml": str(job.run / YAML_FILE),
        "detector": config.detector,
    }
    write_safely(job.run / RESULTS_FILE, json.dumps(results, indent=2).encode())
    return results


def _apply_threads(job: Job) -> None:
    torch.set_num_threads(job.threads)
    if torch.get_num_interop_threads() != 1:
        torch.set_num_interop_threads(1)  # one network after the other: nothing to run beside it
    onednn = "on" if torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled else "not there"
    job.screen.say(f"{torch.get_num_threads()} threads, {torch.get_num_interop_threads()} inter-op; oneDNN {onednn}")


def _trainer(job: Job) -> Callable[[Job, DataSet, str], Outcome]:
    """Return what trains this detector; only that is imported."""
    if job.config.is_yolo:
        from detectors.training.yolo import train

        return train
    from detectors.training.vit import train as train_vit

    return train_vit


def _labels(photos: list[Photo]) -> NDArray[np.int64]:
    return np.array([photo.label for photo in photos], dtype=np.int64)


def _judged(part: tuple[list[Photo], NDArray[np.float64]]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    return _labels(part[0]), part[1]


def _draw(
    folder: Path,
    data: DataSet,
    outcome: Outcome,
    labels: NDArray[np.int64],
    said: NDArray[np.float64],
    figures: Mapping[str, float],
    facts: Mapping[str, object],
) -> None:
    target = folder / "plots"
    plots.class_balance(data.counts(), target / "classes.png")
    plots.training_curves(outcome.history, target / "curves.png")
    plots.confusion_matrix(labels, said, target / "confusion.png")
    plots.reliability_diagram(labels, said, target / "reliability.png")
    rows = [(name, f"{value:.3f}") for name, value in figures.items() if name != "photos"]
    rows += [(name, str(value)) for name, value in facts.items()]
    plots.summary_card("Roadwork detector", rows, data.counts(), outcome.history, labels, said, target / "summary.png")


def _export(job: Job, outcome: Outcome, photos: list[Photo]) -> Path:
    """Make the folder that serves, behind the parity gate, and the YAML file that names it."""
    key = "weights_path" if job.config.is_yolo else "hf_repo"
    original = outcome.original.resolve()
    source = DetectorConfig.model_validate({key: str(original), "path": job.run / YAML_FILE})
    folder = job.run / SERVED
    pictures = [photo.path.read_bytes() for photo in photos]
    prepare(job.config.detector, source, job.run, out=folder, pictures=pictures, progress=job.screen.say)
    shutil.copyfile(job.run / CARD_FILE, folder / CARD_FILE)
    write_safely(job.run / YAML_FILE, f"model_folder: {SERVED}\n".encode())
    return folder
