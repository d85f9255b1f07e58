"""The published model's name, out of what operators write."""

import pytest

from miner.errors import ConfigurationError
from miner.natix.repository import repository_in, repository_of


@pytest.mark.parametrize(
    "address",
    [
        "you/roadwork",
        "you/roadwork/",
        "https://huggingface.co/you/roadwork",
        "http://huggingface.co/you/roadwork/",
        "huggingface.co/you/roadwork",
        "https://www.huggingface.co/you/roadwork/tree/main",
        "https://hf.co/you/roadwork/blob/main/README.md",
        " https://huggingface.co/you/roadwork ",
    ],
)
def test_a_repository_is_found(address: str) -> None:
    assert repository_in(address) == "you/roadwork"


@pytest.mark.parametrize(
    "address",
    [
        "", "roadwork", "https://huggingface.co/roadwork", "https://example.org/you/roadwork", "you/road work",
        "https://huggingface.co/datasets/you", "../roadwork", "you/..", "you/roadwork/extra", "-you/roadwork",
    ],
)  # fmt: skip
def test_what_is_none_is_refused_by_name(address: str) -> None:
    assert repository_in(address) is None
    with pytest.raises(ConfigurationError, match=r"^MODEL_URL="):
        repository_of("MODEL_URL", address)


def test_no_password_is_in_the_refusal() -> None:
    with pytest.raises(ConfigurationError) as refused:
        repository_of("MODEL_URL", "https://alice:hunter2pw@example.org/you/roadwork")
    assert "hunter2pw" not in str(refused.value)
