"""What an improvement has others do stands back for a miner, says what went wrong, and ends with its parent."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from miner.errors import CouldNotStart
from miner.feedback.improvement.worker import Children, Interrupted
from tests.process.daemon import eventually

WAITS = "import time; from miner.feedback.improvement.worker import Children; Children({}).compute(time.sleep, 600)"


def test_a_function_gets_what_nobody_else_wants() -> None:
    children = Children({})
    assert children.compute(os.sched_getscheduler, 0) == os.SCHED_IDLE
    assert children.compute(os.getpriority, os.PRIO_PROCESS, 0) == 19
    assert children.compute(os.getsid, 0) != os.getsid(0)  # a group of its own, which the kernel weighs first
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
    assert Children({}, "normal").compute(os.sched_getscheduler, 0) == os.SCHED_OTHER


def test_what_it_raises_is_raised_and_a_killed_one_is_told() -> None:
    with pytest.raises(ValueError, match="invalid literal") as raised:
        Children({}).compute(int, "no number")
    assert "worker.py" in raised.value.__notes__[0]  # where in that process it was
    assert Children({}).compute(print, "among what it returns") is None
    with pytest.raises(CouldNotStart, match=r"raise_signal.* -9"):
        Children({}).compute(signal.raise_signal, signal.SIGKILL)


def test_a_signal_does_not_cut_it_short() -> None:
    with Children({}) as children:
        os.kill(os.getpid(), signal.SIGTERM)
        assert children.compute(os.getsid, 0) != os.getsid(0)  # a report is drawn once all is done
        with pytest.raises(Interrupted):
            children.refuse_stopped()


def test_it_ends_with_its_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", WAITS])
    try:
        own = psutil.Process(parent.pid)
        (child,) = eventually(lambda: [one for one in own.children() if one.nice() == 19])
    finally:
        parent.kill()
        parent.wait()
    eventually(lambda: not child.is_running())


def test_it_ends_where_its_parent_has_ended_before() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from miner.feedback.improvement.worker import stand_back; stand_back('idle', 1 << 30)"]
    )
    assert done.returncode == 1
