"""How far hypothesis goes, which tests start processes, which come first."""

import gc
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.configuration import set_hypothesis_home_dir

# OpenMP's threads sleep while they wait. They spin on the cores that tests side by side need: a third of all CPU time.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
set_hypothesis_home_dir(Path(__file__).parents[1] / ".cache" / "hypothesis")

# No time limit for a case, since the machine may be busy; no database, which would be a folder in the tree; the same
# cases each time, so that the tests of a commit say the same twice. Fuzzing looks for new ones.
quick = settings(deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", quick, max_examples=100)
settings.register_profile("fuzz", quick, derandomize=False, max_examples=int(os.environ.get("FUZZ_CASES", "15000")))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


# Daemons, nodes, machines: every test there starts processes. Elsewhere those of a module that can.
PROCESS_ROOMS = {"process", "chain", "service", "remote", "container"}
TESTS = Path(__file__).parent


def pytest_configure() -> None:
    """Refuse to test where an operator runs a miner.

    Raises:
        UsageError: miners that tests start here would read the operator's settings, and go to the chain.
    """
    file = TESTS.parent / "miner.env"
    if file.exists():
        raise pytest.UsageError(f"{file}: miners that tests start would read it; move it away, or test a fresh clone")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts processes, put what is slow first, or one of several workers would end alone with it.

    Those on the test chain get time, of which the first downloads a distribution.
    """
    for item in items:
        room, *within = item.path.relative_to(TESTS).parts
        if room in PROCESS_ROOMS or hasattr(getattr(item, "module", None), "subprocess"):
            item.add_marker(pytest.mark.process)
        if room == "chain" or (room, within[0]) == ("process", "chain"):
            item.add_marker(pytest.mark.timeout(900))
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)  # stable: a file's tests stay together


def pytest_collection_finish() -> None:
    """Keep the garbage collector off what the imports made: thousands of tests long it would look through all of it."""
    gc.freeze()
