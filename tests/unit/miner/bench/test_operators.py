"""From onnxruntime's profile to the operators that take the time."""

import pytest

from miner.bench.operators import sum_up


def kernel(operator: str, microseconds: int) -> dict[str, object]:
    return {"name": f"node_{operator}_kernel_time", "dur": microseconds, "args": {"op_name": operator}}


RUN = {"name": "model_run", "dur": 1}


def test_the_last_pictures_count_and_the_longest_operator_is_first() -> None:
    warm = [kernel("Gemm", 10**6), RUN]
    picture = [kernel("Gelu", 100), kernel("Gemm", 500), kernel("Gemm", 400), {"name": "SequentialExecutor", "dur": 9}]
    gemm, gelu = sum_up([*warm, *warm, *picture, RUN, *picture, RUN], 2)
    assert (gemm.name, gemm.calls, gelu.name, gelu.calls) == ("Gemm", 2, "Gelu", 1)
    assert (gemm.seconds, gelu.seconds) == (pytest.approx(9e-4), pytest.approx(1e-4))
    assert (gemm.share, gelu.share) == (pytest.approx(0.9), pytest.approx(0.1))
