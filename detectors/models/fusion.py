"""From the probabilities of several branches to one: the combinations that `roadwork-miner fuse` chooses from."""

from collections.abc import Mapping
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from detectors.models.calibration import Calibration, Inside, Share, log_odds, logistic

Floats = NDArray[np.float64]
Kind = Literal["mean", "weighted", "logistic", "mlp"]

WORTH_ANSWERING = 0.75  # of answers right: below, validators' windows lose more by an answer than by its absence


class Measured(BaseModel):
    """How good a combination was on photos it was not made from, by cross-validation; the reward's 95 % interval."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    photos: int = Field(ge=1)
    accuracy: Share  # of both classes alike, as validators draw them
    mcc: float
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
    measured: Measured | None = None

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
