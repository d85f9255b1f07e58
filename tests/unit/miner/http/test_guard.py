"""How many connections are held."""

import pytest

from miner.http.connections import OTHER_FILES, Guard
from miner.settings.settings import Settings


@pytest.mark.parametrize(
    ("files", "connections"), [(1024, 512), (2 * OTHER_FILES + 44, 172), (228, 114), (64, 32), (2, 1), (-1, 512)]
)
def test_no_more_connections_are_held_than_files_may_be_open(
    files: int, connections: int, caplog: pytest.LogCaptureFixture
) -> None:
    guard = Guard.of(Settings(max_connections=512), files)
    assert guard.connections == connections
    assert files < 64 or connections + guard.outside + 20 < files, "an idle miner has so many open itself"
    said = f"MAX_CONNECTIONS=512: held at {connections}, " in caplog.text
    assert said == (connections < 512)
