"""The calibration: the monotone map from a model's probability to the answer that is sent.

It also says how the branches of an ensemble are combined, and how the answers are distributed.

Validators look at the side of 0.5 alone, and a model trained on other shares of roadwork than theirs decides best
elsewhere. In log-odds the map is a line, `(logit(p) - logit(threshold)) / temperature`: 0, 1 and the order of any two
pictures stay as they are, and the threshold becomes 0.5 exactly, which counts as no roadwork.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from detectors.models.hf_config import allowed

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Inside = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Value = TypeVar("Value", float, NDArray[np.float64])

PROBABILITY_EPSILON = 1e-9  # to 0 and 1, for finite log-odds
JUST_ABOVE = float(np.nextafter(0.5, 1))

TENTHS = 10
PSEUDO_COUNT = 0.5  # of a prediction, added to each tenth, so that an empty one is no division by zero
Floats = NDArray[np.float64]
Kind = Literal["mean", "weighted", "logistic", "mlp"]
BANDS = "two numbers from 0 to 1 around 0.5, where it is least sure, are allowed, such as [0.1, 0.9]"
WORTH_ANSWERING = 0.75  # of answers right: below, validators' windows lose more by an answer than by its absence


class Evidence(BaseModel):
    """What a calibration was measured on: rewards by cross-validation, and the gain's 95 % interval."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    photos: int = Field(ge=1)
    folds: int = Field(ge=2)
    reward_before: Share
    reward: Share
    gain_low: float
    gain_high: float
    accuracy: Share | None = None  # of both classes alike; None: an older version measured it


class Calibration(BaseModel):
    """A monotone map of probabilities, and the measurement that it rests on."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    threshold: Inside = 0.5
    temperature: float = Field(1.0, gt=0, le=100, allow_inf_nan=False)
    evidence: Evidence | None = None

    def without_promise(self) -> Self:
        """Return it without an accuracy: it was fitted to real traffic, which would be held against itself."""
        evidence = self.evidence.model_copy(update={"accuracy": None}) if self.evidence is not None else None
        return self.model_copy(update={"evidence": evidence})

    def __call__(self, probability: Value) -> Value:
        """Map a probability, or an array of them; what is above the threshold ends above 0.5, all else does not."""
        value = np.asarray(probability, dtype=np.float64)
        mapped = logistic((log_odds(value) - log_odds(self.threshold)) / self.temperature)
        above = value > self.threshold  # rounding shall put nobody on the other side
        mapped = np.where(above, np.maximum(mapped, JUST_ABOVE), np.minimum(mapped, 0.5))
        mapped = np.where(value <= 0, 0.0, np.where(value >= 1, 1.0, mapped))
        return float(mapped) if isinstance(probability, float) else mapped


def log_odds(probability: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the logarithm of p / (1 - p), finite at both ends."""
    inside = np.clip(np.asarray(probability, dtype=np.float64), PROBABILITY_EPSILON, 1 - PROBABILITY_EPSILON)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def logistic(value: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 / (1 + exp(-value)), without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * np.asarray(value))))


def tenth_of(probability: float) -> int:
    """Return the tenth from 0 to 9 that a probability falls into; 1 belongs to the last."""
    return min(TENTHS - 1, int(probability * TENTHS))


def spread(probabilities: Sequence[float], labels: Sequence[bool]) -> list[float]:
    """Return the share of predictions in each tenth, with both labels weighed alike, as validators draw them.

    Args:
        probabilities: of labelled photos that the model was not trained on.
        labels: whether there is roadwork; both have to occur.
    """
    counts = {label: sum(bool(one) is label for one in labels) for label in (True, False)}
    shares = [0.0] * TENTHS
    for probability, label in zip(probabilities, labels, strict=True):
        shares[tenth_of(probability)] += 0.5 / counts[bool(label)]
    return shares


def stability_index(counts: Sequence[int], expected: Sequence[float]) -> float:
    """Return the population stability index of counted predictions against expected shares, both by tenths.

    Σ (a − e) · ln(a / e), over the tenths, with a the share seen and e the share expected; half a prediction is added
    to each tenth of both. 0: the same; below 0.1 by convention no change, over 0.25 another population. n predictions
    of the very same population give about 9 / n.
    """
    count = sum(counts)
    whole = count + TENTHS * PSEUDO_COUNT
    pairs = [
        ((seen + PSEUDO_COUNT) / whole, (share * count + PSEUDO_COUNT) / whole)
        for seen, share in zip(counts, expected, strict=True)
    ]
    return sum((seen - share) * math.log(seen / share) for seen, share in pairs)


class CrossValidation(BaseModel):
    """How good a combination was on photos it was not made from, by cross-validation; the reward's 95 % interval."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    photos: int = Field(ge=1)
    accuracy: Share  # of both classes alike, as validators draw them
    mcc: float = Field(ge=-1, le=1)
    reward: Share
    reward_low: Share
    reward_high: Share


class Fusion(BaseModel):
    """A combination of branches.

    mean and weighted are of the probabilities; logistic is a line, and mlp one hidden layer of tanh, over their
    log-odds. The threshold becomes 0.5 by a monotone map.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind = "mean"
    branches: list[str] = Field(min_length=1, description="in the order of the weights")
    weights: list[float] = Field(default_factory=list, description="of each branch; mlp: of each hidden unit")
    bias: float = 0.0
    hidden: list[list[float]] = Field(default_factory=list, description="mlp: each unit's weights, then its bias")
    threshold: Inside = 0.5
    measured: CrossValidation | None = None

    @model_validator(mode="after")
    def _shapes_fit(self) -> Self:
        if len(set(self.branches)) != len(self.branches):
            raise ValueError("a branch is named twice")
        expected = {"mean": 0, "mlp": len(self.hidden)}.get(self.kind, len(self.branches))
        if len(self.weights) != expected:
            raise ValueError(f"{self.kind} over {len(self.branches)} branches needs {expected} weights")
        if self.kind == "weighted" and (min(self.weights) < 0 or not np.isclose(sum(self.weights), 1)):
            raise ValueError("weights of a weighted mean are 0 or more and add up to 1")
        if (self.kind == "mlp") != bool(self.hidden):
            raise ValueError("hidden units belong to mlp, and mlp needs some")
        if any(len(unit) != len(self.branches) + 1 for unit in self.hidden):
            raise ValueError(f"a hidden unit has {len(self.branches)} weights and a bias")
        values = [*self.weights, self.bias, *(value for unit in self.hidden for value in unit)]
        if not np.isfinite(values).all():
            raise ValueError("a weight is not finite")
        return self

    def __call__(self, probabilities: Mapping[str, float | Floats]) -> Floats:
        """Return the combined probability: of numbers, or of arrays of one shape."""
        each = [np.asarray(probabilities[name], dtype=np.float64) for name in self.branches]
        return Calibration(threshold=self.threshold, temperature=1.0)(self.combined(np.stack(each, axis=-1)))

    def combined(self, values: Floats) -> Floats:
        """Return the combination before its threshold moves; values of shape (…, branches)."""
        if self.kind == "mean":
            return np.asarray(values.mean(axis=-1))
        weights = np.array(self.weights)
        if self.kind == "weighted":
            return np.asarray(values @ weights)
        if self.kind == "logistic":
            return logistic(log_odds(values) @ weights + self.bias)
        hidden = np.array(self.hidden)
        units = np.tanh(log_odds(values) @ hidden[:, :-1].T + hidden[:, -1])
        return logistic(units @ weights + self.bias)

    @property
    def is_worth_answering(self) -> bool:
        """Whether its answers were measured to be better than none."""
        return self.measured is not None and self.measured.accuracy > WORTH_ANSWERING

    @property
    def words(self) -> str:
        """The combination in a few words."""
        moved = f", threshold {self.threshold:.2f}" if self.threshold != 0.5 else ""
        return (
            f"{self.kind} of {' + '.join(self.branches)}{moved}" if len(self.branches) > 1 else self.branches[0] + moved
        )


def _around_the_middle(band: tuple[float, float]) -> tuple[float, float]:
    low, high = band
    if not low <= 0.5 <= high:
        raise ValueError(BANDS)
    return band


class Stage(Fusion):
    """A cheaper combination of an ensemble's cascade, which answers where it is sure; else the next stage is asked."""

    band: Annotated[tuple[Share, Share], AfterValidator(_around_the_middle), allowed(BANDS)] = Field(
        description="what it says between these two goes on to the next stage"
    )

    def is_unsure(self, probability: float) -> bool:
        """Return whether an answer is worth another look."""
        return bool(are_unsure(probability, self.band))


def are_unsure(probabilities: float | Floats, band: tuple[float, float]) -> NDArray[np.bool_]:
    """Return which answers lie within a band, and are worth another look; an end at 0 or 1 leaves out nothing."""
    low, high = band
    above, below = np.less(low, probabilities) | (low <= 0), np.less(probabilities, high) | (high >= 1)
    return np.logical_and(above, below)
