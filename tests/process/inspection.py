"""What every answer of the miner must be, and must not give away."""

import json
import math
import sys
import tempfile
from pathlib import Path

import httpx

FOLDERS = (str(Path(__file__).resolve().parents[2]), str(Path.home()), tempfile.gettempdir(), sys.prefix)
TRACES = ("Traceback", 'File "', ".py", "site-packages", "Error(", *(folder for folder in FOLDERS if len(folder) > 1))


def inspect_answer(response: httpx.Response) -> None:
    """Hold an answer against the rules: JSON; a probability or a message; nothing that is nobody's business."""
    response.read()
    assert response.headers["content-type"] == "application/json", response.text
    answer = json.loads(response.text, parse_constant=_not_finite)
    if response.status_code == 200:
        probability = answer["prediction"]
        assert isinstance(probability, float)
        assert math.isfinite(probability)
        assert 0 <= probability <= 1
        assert "image" not in answer
        secrets = [signature_of(response.request.headers)]
    else:
        assert set(answer) == {"message"}
        assert isinstance(answer["message"], str)
        assert answer["message"]
        secrets = [
            value
            for name, value in response.request.headers.items()
            if name.startswith(("bt_header_", "x-bittensor-", "computed_")) and len(value) >= 16
        ]
    told = response.text + str(response.headers)
    for forbidden in (*TRACES, *filter(None, secrets)):
        assert forbidden not in told, told


def signature_of(headers: httpx.Headers) -> str:
    return headers.get("bt_header_dendrite_signature") or headers.get("x-bittensor-signature") or ""


def message_of(response: httpx.Response, status: int) -> str:
    """Return the message of a refusal, which must have this status."""
    assert response.status_code == status, response.text
    message: str = response.json()["message"]
    return message


def probability_of(response: httpx.Response) -> float:
    """Return the prediction of an answer, which must be one."""
    assert response.status_code == 200, response.text
    probability: float = response.json()["prediction"]
    return probability


def _not_finite(name: str) -> None:
    raise AssertionError(f"{name} in an answer")
