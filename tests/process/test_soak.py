"""A few hundred mixed requests leave nothing behind; `make soak` sends thousands and looks at the memory too."""

from tests.process.conftest import StartDaemon
from tests.soak import soak


def test_mixed_requests_leave_no_descriptor_and_no_task_behind(start_daemon: StartDaemon) -> None:
    figures = soak(start_daemon().ready(), 240, reload_every=100)
    assert figures.unexpected == []
    assert figures.leftovers == ""
    assert figures.reloads == 2
    assert sum(count for end, count in figures.ends.items() if end == "good: 200") > 60
