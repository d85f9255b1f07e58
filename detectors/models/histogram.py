"""How a model's probabilities are spread over tenths, and how far one spread is from another."""

import math
from collections.abc import Sequence

TENTHS = 10
LITTLE = 0.5  # of a prediction, added to each tenth, so that an empty one is no division by zero


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
    whole = count + TENTHS * LITTLE
    pairs = [
        ((seen + LITTLE) / whole, (share * count + LITTLE) / whole)
        for seen, share in zip(counts, expected, strict=True)
    ]
    return sum((seen - share) * math.log(seen / share) for seen, share in pairs)
