"""What Prometheus's own tool says of the metrics, the configuration and the rules."""

import subprocess
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from miner.cascade import CascadeMetrics
from miner.metrics import Metrics
from tests import tools
from tests.expressions import PROMETHEUS, rules

UNIT_TESTS = sorted((PROMETHEUS / "tests").glob("*.test.yml"))


def promtool(*arguments: str | Path, given: bytes | None = None) -> str:
    command = [tools.find("promtool", "prometheus"), *map(str, arguments)]
    done = subprocess.run(command, input=given, capture_output=True, timeout=240)
    told = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, told
    return told


def test_make_dashboards_without_promtool_is_an_error_and_installs_nothing() -> None:
    """Half of the checks would be skipped, and look passed."""
    command, root = [tools.find("make", "make"), "dashboards"], Path(__file__).resolve().parents[3]
    done = subprocess.run(command, cwd=root, env={"PATH": "/nowhere"}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("error: promtool is missing")
    assert "installing" not in done.stderr


def test_the_metrics_before_anything_happened_are_without_complaint() -> None:
    metrics = Metrics()
    CascadeMetrics(metrics.registry).see(("small", "small + large"), (0.6, 0.8), "adaptive")
    assert promtool("check", "metrics", given=generate_latest(metrics.registry)) == ""


def test_the_example_configuration_and_its_rules_are_valid() -> None:
    told = promtool("check", "config", PROMETHEUS / "prometheus.yml")
    assert "2 rule files found" in told


@pytest.mark.parametrize("path", UNIT_TESTS, ids=lambda path: path.stem)
def test_the_rules_pass_their_unit_tests(path: Path) -> None:
    promtool("test", "rules", path)


def test_every_alert_has_a_unit_test() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in UNIT_TESTS)
    for rule in rules("alerts.yml"):
        assert rule["alert"] in text
