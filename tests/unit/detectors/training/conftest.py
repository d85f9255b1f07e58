"""What the tests of trainings share."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def imports_are_not_garbage() -> Iterator[None]:
    """Every training collects garbage, and what the libraries keep would be gone through each time."""
    gc.freeze()
    yield
    gc.unfreeze()
