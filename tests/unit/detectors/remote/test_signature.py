"""What an engine may say of a model, and what ends the start."""

from collections.abc import Sequence
from typing import Any

import pytest

from detectors.errors import ModelError
from detectors.remote.channel import Signature, read_signature
from detectors.remote.endpoints import check_addresses

SHAPE, LABELS = (1, 3, 160, 160), ("None", "Roadwork")


def told(
    shape: Sequence[int] | None = (1, 3, 160, 160), scores: Sequence[int] = (1, 2), kind: str = "FP32", **output: Any
) -> dict[str, Any]:
    return {
        "name": "starter",
        "inputs": [{"name": "pixels", "datatype": kind, "shape": shape and list(shape)}],
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": list(scores)} | output],
    }


@pytest.mark.parametrize(
    "metadata",
    [
        told(),
        told(shape=[-1, 3, 160, 160], scores=[-1, 2]),  # a graph that leaves the batch open
        told(parameters={"labels": ["None", "Roadwork"]}),
        told() | {"outputs": [*told()["outputs"], {"name": "hidden", "datatype": "FP32", "shape": [1, 768]}]},
    ],
)
def test_what_fits(metadata: dict[str, Any]) -> None:
    assert read_signature(metadata, SHAPE, LABELS) == Signature("pixels", "logits")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (told(shape=[1, 3, 224, 224]), r"'pixels' .*\[1, 3, 224, 224\], not \[1, 3, 160, 160\]"),
        (told(shape=[1, 160, 160, 3]), "has the shape"),
        (told(shape=[3, 160, 160]), "has the shape"),
        (told(shape=None), "shape None"),
        (told(scores=[1, 1000]), r"'logits' .*\[1, 1000\], not \[1, 2\]"),
        (told(kind="UINT8"), "'pixels' is UINT8, not FP32"),
        (told(parameters={"labels": ["Roadwork", "None"]}), r"labels are \['Roadwork', 'None'\], not"),
        (told(parameters={"labels": 5}), "labels are 5, not"),
        (told() | {"inputs": told()["inputs"] * 2}, "has 2 inputs, not one"),
        (told() | {"outputs": []}, "model's outputs"),
        ({"name": "starter"}, "model's inputs"),
        ([], "no JSON object"),
    ],
)
def test_what_does_not(metadata: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read_signature(metadata, SHAPE, LABELS)


def test_addresses_are_checked_and_tidied() -> None:
    assert check_addresses(" http://a:8000/ , https://b/path,http://a:8000,") == "http://a:8000,https://b/path"
    assert check_addresses("") == ""


@pytest.mark.parametrize("text", ["a:8000", "grpc://a:8001", "http://", "http://a:port", "http://a:8000?x=1"])
def test_what_is_no_address_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=f"{text.split('?')[0]}.*is none"):
        check_addresses(f"http://b:8000,{text}")
