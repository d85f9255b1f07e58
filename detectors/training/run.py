"""The training run: photos come in, a model folder that `roadwork-miner run` serves goes out."""

import dataclasses
import itertools
import json
import os
import resource
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from detectors.base import RunOptions
from detectors.console import Steps, counted, duration
from detectors.evaluation import evaluate, plots
from detectors.evaluation.evaluate import Figures, Flags, Floats, ask
from detectors.export.export import prepare
from detectors.files import write_safely
from detectors.load import load_detector
from detectors.models.config import DetectorConfig
from detectors.models.sources import as_model_name
from detectors.models.store import store_spread
from detectors.photos.labelled import Photo, groups
from detectors.registry import DEFAULT
from detectors.training.budget import Machine
from detectors.training.config import TrainConfig
from detectors.training.data import fingerprint, open_dataset, pinned
from detectors.training.dataset import DataSet, repeated
from detectors.training.job import HISTORY_FILE, RESULTS_FILE, Job, StopSignal, TrainingResult
from detectors.training.progress import ProgressFile
from detectors.training.teacher import taught
from detectors.training.verdict import ask_current, weigh

PARTS = {"val": "validation", "test": "test (kept back from everything)"}
CHOSEN = " (the epoch was chosen by it)"  # of validation

SERVED, YAML_FILE, CARD_FILE = "served", "detector.yaml", "README.md"
PARITY_PHOTOS = 32


def model_card(
    config: TrainConfig,
    counts: Mapping[str, Mapping[str, int]],
    figures: Mapping[str, Figures],
    facts: Mapping[str, object],
    machine: Machine,
    verdict: str,
    alike: int = 0,
) -> str:
    """Return it as Markdown with the front matter of a Hugging Face card."""
    start = f"{config.model} ({config.detector}, {'full' if config.is_yolo else config.method})"
    seen = (
        f"\n\nOf each photo its head judges several views together: {config.head_views}."
        if config.head_views is not None
        else ""
    )
    augment = ", ".join(f"{name} {value:g}" for name, value in config.augment.model_dump().items() if value)
    chosen = "" if config.takes_last else CHOSEN
    rows = "\n".join(
        f"| {PARTS[part]}{chosen if part == 'val' else ''} | {row.photos} | {row.accuracy} | {row.mcc:.3f} "
        f"| {row.auc:.3f} | {row.brier:.3f} "
        f"| {row.reward} |"
        for part, row in figures.items()
    )
    left_out = f" ({alike} that were alike to photos kept back were left out)" if alike else ""
    made = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    balance = "\n".join(
        f"| {part} | " + " | ".join(str(count) for count in kinds.values()) + " |" for part, kinds in counts.items()
    )
    return f"""---
pipeline_tag: image-classification
tags:
  - roadwork
metrics:
  - accuracy
---

# Roadwork detector

Says how probable roadwork is on a street photo. Trained by `roadwork-miner train` from `{start}`.{seen}

## Figures

| part | photos | accuracy (95 %) | MCC | AUC | Brier | expected reward (95 %) |
| --- | --- | --- | --- | --- | --- | --- |
{rows}

**Verdict**: {verdict}.

Measured on the exported folder, as it serves. The expected reward is the mean of
`(0.5 · MCC of the last 100 + 0.5 · accuracy of the last 10) ** 3`, as validators pay it, for a miner that is right this
often on each class. A few dozen photos say little: look at the intervals, in which near-identical photos count
as one.

![Summary](plots/summary.png)

## Data

| part | without roadwork | with roadwork |
| --- | --- | --- |
{balance}

Near-identical photos are in one part only{left_out}. It learnt from changed views, with these chances of each change:
{augment or "none"}.

## Training

{made}
- machine: {machine}

`config.yaml` beside this card holds every setting; `roadwork-miner train --config config.yaml --out FOLDER` repeats it.

## Limits

It knows what its photos show. Photos of other countries, seasons, cameras and kinds of roadwork were not measured.
"""


def run(job: Job) -> dict[str, object]:
    """Train, export, judge, draw; return what `results.json` holds, and keep its progress in the run's folder.

    Raises:
        DetectorConfigError: the photos or the configuration are wrong.
        ModelError: the model can't be found, loaded or exported.
        StoppedEarly: time was over, or a signal came, before there was anything to export.
    """
    with ProgressFile(job.run, job.screen):
        return _run(job)


def _run(job: Job) -> dict[str, object]:
    began = time.monotonic()
    stopping = StopSignal(job.config.hours, job.screen)
    screen = job.screen
    screen.say(str(job.machine))
    _apply_threads(job)
    if not job.resume:
        job = _pinned(job)
    config = job.config
    data = open_dataset(config, job.cache / "photos", screen, job.machine.cores)
    data, lesson = taught(job, data, stopping) if config.teacher is not None else (data, None)
    data = repeated(data, config.repeats)
    if job.compare:
        from detectors.training.throughput import with_best

        job = with_best(job, data)
        config = job.config
        torch.set_num_threads(job.threads)
    train = _trainer(job)
    outcome = train(job, data, fingerprint(data), stopping)
    screen.say(f"{outcome.epochs} epochs; {outcome.why}")
    write_safely(job.run / HISTORY_FILE, json.dumps(list(outcome.history), indent=1).encode())
    served = _export(job, outcome, [photo for photo, _ in zip(data.val, range(PARITY_PHOTOS), strict=False)])
    kept = {name: photos for name, photos in _kept_back(data).items() if photos}
    near = {name: groups([photo.thumbnail for photo in photos]) for name, photos in kept.items()}
    parts = {name: _ask(job, served, name, photos) for name, photos in kept.items()}
    figures = {name: evaluate.judge(*part, groups=near[name]) for name, part in parts.items()}
    for name, row in figures.items():
        screen.say(f"{name}: {row.words}")
        if row.doubt:
            screen.warn(f"{name}: {row.doubt}: do the folders roadwork and no_roadwork hold what they say?")
    last: Literal["test", "val"] = "test" if data.test else "val"
    labels, said, _ = parts[last]
    now, before = ask_current(job, kept[last])
    verdict = weigh(labels, said, before, figures[last], now, near[last], last, chose_epoch=not config.takes_last)
    screen.say(verdict.words)
    store_spread(served, said.tolist(), labels.tolist())
    facts = {
        "time": duration(time.monotonic() - began),
        "peak memory": f"{_peak() / 1e9:.2f} GB",
        "epochs": f"{outcome.epochs} of at most {config.most_epochs}; {outcome.why}",
        "threads": job.threads,
        **outcome.facts,
        **(lesson.facts if lesson is not None else {}),
    }
    _draw(job, data, outcome, labels.astype(np.int64), said, figures[last], facts)
    card = model_card(config, data.counts(), figures, facts, job.machine, verdict.words, len(data.alike))
    for folder in (job.run, served):
        write_safely(folder / CARD_FILE, card.encode())
    results: dict[str, object] = {
        "figures": {name: _without_times(row) for name, row in figures.items()},
        "verdict": verdict.plain(),
        "seconds": round(time.monotonic() - began, 1),
        "cpu_seconds": round(sum(os.times()[:4]), 1),
        "peak_bytes": _peak(),
        "epochs": outcome.epochs,
        "ended": outcome.why,
        "served": str(served),
        "yaml": str(job.run / YAML_FILE),
        "detector": config.detector,
        "teacher": lesson.plain() if lesson is not None else None,
    }
    write_safely(job.run / RESULTS_FILE, json.dumps(results, indent=2).encode())
    return results


def _pinned(job: Job) -> Job:
    """Write down the commits that branches stand for, so that a resumed run, or a repeated one, takes the same."""
    config = pinned(job.config)
    if not config.is_yolo:
        from detectors.training import hf_model

        config = hf_model.pinned(config, job.cache)
    if config != job.config:
        config.write(job.run)
    return dataclasses.replace(job, config=config)


def _kept_back(data: DataSet) -> dict[str, list[Photo]]:
    return {"val": data.val, "test": data.test}


def _ask(job: Job, served: Path, name: str, photos: list[Photo]) -> tuple[Flags, Floats, Floats]:
    """Ask the exported model, as it will serve: labels, probabilities and seconds of each photo."""
    config = DetectorConfig.model_validate({"model_folder": str(served), "path": job.run / YAML_FILE})
    detector = load_detector(job.config.detector, config, job.run, DEFAULT, RunOptions(1, job.threads))
    detector.verify()
    done = itertools.count(1)
    with job.screen.bar(f"judging {name}", len(photos)) as bar:
        said, seconds = ask(detector, photos, tell=lambda: bar(next(done)))
    return np.array([photo.label == 1 for photo in photos]), said, seconds


def _without_times(figures: Figures) -> dict[str, object]:
    return {name: value for name, value in figures.plain().items() if name != "seconds"}


def _peak() -> int:
    """Return the most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _apply_threads(job: Job) -> None:
    torch.set_num_threads(job.threads)
    if torch.get_num_interop_threads() != 1:
        torch.set_num_interop_threads(1)  # one network after the other: nothing to run beside it
    onednn = "on" if torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled else "not there"
    threads = counted(torch.get_num_threads(), "thread")
    job.screen.say(f"{threads}, {torch.get_num_interop_threads()} inter-op; oneDNN {onednn}")


def _trainer(job: Job) -> Callable[[Job, DataSet, str, StopSignal], TrainingResult]:
    """Return what trains this detector; only that is imported."""
    if job.config.is_yolo:
        from detectors.training.yolo import train

        return train
    from detectors.training.hf import train as train_vit

    return train_vit


def _draw(
    job: Job,
    data: DataSet,
    outcome: TrainingResult,
    labels: NDArray[np.int64],
    said: NDArray[np.float64],
    figures: Figures,
    facts: Mapping[str, object],
) -> None:
    target, model = job.run / "plots", f"{job.run.name}: {job.config.words}"
    plots.class_balance(data.counts(), target / "classes.png", model)
    plots.training_curves(outcome.history, target / "curves.png", model)
    plots.confusion_matrix(labels, said, target / "confusion.png", model)
    plots.reliability_diagram(labels, said, target / "reliability.png", model)
    names = {"mcc": "MCC", "precision": "precision", "recall": "recall", "auc": "AUC", "brier": "Brier"}
    rows = [(words, f"{getattr(figures, name):.3f}") for name, words in names.items()]
    rows = [("accuracy", str(figures.accuracy)), ("expected reward", str(figures.reward)), *rows]
    rows += [(name, str(value)) for name, value in facts.items()]
    plots.summary_card(model, rows, data.counts(), outcome.history, labels, said, target / "summary.png")


def _export(job: Job, outcome: TrainingResult, photos: list[Photo]) -> Path:
    """Make the folder that serves, behind the parity gate, and the YAML file that names it."""
    key = "weights_path" if job.config.is_yolo else "hf_repo"
    original = outcome.original.resolve()
    source = DetectorConfig.model_validate({key: str(original), "path": job.run / YAML_FILE})
    folder = job.run / SERVED
    pictures = [photo.path.read_bytes() for photo in photos]
    prepare(
        job.config.detector, source, job.run, out=folder, name=as_model_name(job.run.resolve().name),
        pictures=pictures, progress=Steps(job.screen.say),
    )  # fmt: skip
    write_safely(job.run / YAML_FILE, f"model_folder: {SERVED}\n".encode())
    return folder
