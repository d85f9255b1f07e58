"""The model card of a training: what it is, what it learnt from, how good it is, and how it was made."""

from collections.abc import Mapping

from detectors.training.config import TrainConfig
from detectors.training.machine import Machine

PARTS = {"val": "validation (the epoch was chosen by it)", "test": "test (kept back from everything)"}


def model_card(
    config: TrainConfig,
    counts: Mapping[str, Mapping[str, int]],
    figures: Mapping[str, Mapping[str, float]],
    facts: Mapping[str, object],
    machine: Machine,
) -> str:
    """Return it as Markdown with the front matter of a Hugging Face card."""
    start = f"{config.model} ({config.detector}, {'full' if config.is_yolo else config.method})"
    augment = ", ".join(f"{name} {value:g}" for name, value in config.augment.model_dump().items() if value)
    rows = "\n".join(
        f"| {PARTS[part]} | {row['photos']:.0f} | {row['accuracy']:.1%} | {row['mcc']:.3f} | {row['auc']:.3f} "
        f"| {row['loss']:.3f} | {row['reward']:.2f} |"
        for part, row in figures.items()
    )
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

| part | photos | accuracy | MCC | AUC | log loss | expected reward |
| --- | --- | --- | --- | --- | --- | --- |
{rows}

The expected reward is the mean of `(0.5 · MCC of the last 100 + 0.5 · accuracy of the last 10) ** 3`, as validators pay
it, for a miner that is right this often on each class. A few dozen photos say little: see how many there were.

![Summary](plots/summary.png)

## Data

| part | without roadwork | with roadwork |
| --- | --- | --- |
{balance}

Near-identical photos are in one part together. It learnt from changed views, with these chances of each change:
{augment or "none"}.

## Making

{made}
- machine: {machine}

`config.yaml` beside this card holds every setting; `roadwork-miner train --config config.yaml --out FOLDER` repeats it.

## Limits

It knows what its photos show. Photos of other countries, seasons, cameras and kinds of roadwork were not measured.
"""
