"""Unit tests see no setting of the shell they are run from."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _no_ambient_settings() -> Iterator[None]:
    from miner.settings.settings import setting_names

    with pytest.MonkeyPatch.context() as environment:
        for name in setting_names():
            environment.delenv(name, raising=False)
        yield
