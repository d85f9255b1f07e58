"""The model card of a training: what it is, what it learnt from, how good it is, and how it was made."""

from collections.abc import Mapping

from detectors.evaluation.evaluate import Figures
from detectors.training.budget import Machine
from detectors.training.config import TrainConfig

PARTS = {"val": "validation (the epoch was chosen by it)", "test": "test (kept back from everything)"}


def model_card(
    config: TrainConfig,
    counts: Mapping[str, Mapping[str, int]],
    figures: Mapping[str, Figures],
    facts: Mapping[str, object],
    machine: Machine,
    alike: int = 0,
) -> str:
    """Return it as Markdown with the front matter of a Hugging Face card."""
    start = f"{config.model} ({config.detector}, {'full' if config.is_yolo else config.method})"
    augment = ", ".join(f"{name} {value:g}" for name, value in config.augment.model_dump().items() if value)
    rows = "\n".join(
        f"| {PARTS[part]} | {row.photos} | {row.accuracy} | {row.mcc:.3f} | {row.auc:.3f} | {row.brier:.3f} "
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

Says how probable roadwork is on a street photo. Trained by `roadwork-miner train` from `{start}`.

## Figures

| part | photos | accuracy (95 %) | MCC | AUC | Brier | expected reward (95 %) |
| --- | --- | --- | --- | --- | --- | --- |
{rows}

Measured on the exported folder, as it serves. The expected reward is the mean of
`(0.5 · MCC of the last 100 + 0.5 · accuracy of the last 10) ** 3`, as validators pay it, for a miner that is right this
often on each class. A few dozen photos say little: look at the intervals, which count photos as independent.

![Summary](plots/summary.png)

## Data

| part | without roadwork | with roadwork |
| --- | --- | --- |
{balance}

Near-identical photos are in one part only{left_out}. It learnt from changed views, with these chances of each change:
{augment or "none"}.

## Making

{made}
- machine: {machine}

`config.yaml` beside this card holds every setting; `roadwork-miner train --config config.yaml --out FOLDER` repeats it.

## Limits

It knows what its photos show. Photos of other countries, seasons, cameras and kinds of roadwork were not measured.
"""
