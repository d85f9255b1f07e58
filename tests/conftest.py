"""How far hypothesis goes: seconds with the tests, further by `make fuzz`; who starts processes, who may take long."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.configuration import set_hypothesis_home_dir

set_hypothesis_home_dir(Path(__file__).parents[1] / ".cache" / "hypothesis")

# No time limit for a case, since the machine may be busy; no database, which would be a folder in the tree; the same
# cases each time, so that the tests of a commit say the same twice. Fuzzing looks for new ones.
quick = settings(deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", quick, max_examples=100)
settings.register_profile("fuzz", quick, derandomize=False, max_examples=int(os.environ.get("FUZZ_CASES", "15000")))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


# Daemons, nodes, machines: every test there starts processes. Elsewhere those of a module that can.
PROCESS_ROOMS = {"process", "chain", "service", "remote"}
TESTS = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts processes; give time to those on the test chain, of which the first downloads a distribution."""
    for item in items:
        room = item.path.relative_to(TESTS).parts[0]
        if room in PROCESS_ROOMS or hasattr(getattr(item, "module", None), "subprocess"):
            item.add_marker(pytest.mark.process)
        if item.path.parent.name == "chain":
            item.add_marker(pytest.mark.timeout(900))
