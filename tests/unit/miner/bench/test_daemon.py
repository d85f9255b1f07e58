"""How many requests a daemon is asked for."""

import pytest

from miner.bench.daemon import LOAD_SECONDS, MOST, fitting


@pytest.mark.parametrize(
    ("latency", "at_once", "requests"),
    [
        (0.001, 10, MOST),
        (LOAD_SECONDS / MOST, 10, MOST),
        (0.2, 10, 150),  # a ViT-base: half a minute at a lone caller's pace
        (6.0, 10, 10),  # each caller has its turn
        (6.0, 1, 5),
    ],
)
def test_a_slow_model_is_asked_less_often(latency: float, at_once: int, requests: int) -> None:
    assert fitting(latency, at_once) == requests
