"""compose.yaml, with podman-compose; Grafana is the one whose image no Debian package can stand in for."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.container.engine import COMPOSE, Engine
from tests.expressions import rules
from tests.process.daemon import eventually, free_port

pytestmark = pytest.mark.timeout(1800)
WITHOUT_GRAFANA = ("miner", "owner", "prometheus", "alertmanager")


class Stack:
    """All of it but Grafana, on ports of its own."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.ports = {name: free_port() for name in ("AXON", "STATUS", "PROMETHEUS", "ALERTMANAGER")}
        self.variables = {f"{name}_PORT": str(port) for name, port in self.ports.items()} | {"CPUS": "1.5"}
        # The file's own `ulimits` stand in place of the engine's.
        override = folder / "override.yaml"
        override.write_text(yaml.safe_dump({"services": {"miner": {"ulimits": engine.limits}}}))
        self.files = ("-f", str(COMPOSE), "-f", str(override))

    def call(self, *words: str, given: bytes | None = None) -> str:
        return self.engine.run("podman-compose", *self.files, *words, given=given, **self.variables)

    def get(self, name: str, path: str) -> Any:
        try:
            answer = httpx.get(f"http://127.0.0.1:{self.ports[name]}{path}", trust_env=False)
        except httpx.TransportError:
            return {}
        return answer.json() if answer.status_code == 200 else {}

    def container(self, service: str) -> str:
        """Return the name that this version gives the service's container."""
        names = self.engine.podman("ps", "-a", "--format", "{{.Names}}").split()
        (name,) = [name for name in names if service in name.split("_")]
        return name


@pytest.fixture(scope="module")
def stack(engine: Engine, image: str, watchers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(engine, tmp_path_factory.mktemp("stack"))
    try:
        stack.call("up", "-d", *WITHOUT_GRAFANA)
        yield stack
    finally:
        stack.call("down")


def test_prometheus_scrapes_the_miner_by_its_name(stack: Stack) -> None:
    eventually(lambda: stack.get("STATUS", "/readyz"))

    def healths() -> set[str]:
        data = stack.get("PROMETHEUS", "/api/v1/targets").get("data", {})
        return {target["health"] for target in data.get("activeTargets", ())}

    eventually(lambda: healths() == {"up"})


def test_prometheus_has_the_projects_rules_and_alerts(stack: Stack) -> None:
    groups = stack.get("PROMETHEUS", "/api/v1/rules")["data"]["groups"]
    loaded = {rule["name"] for group in groups for rule in group["rules"]}
    shipped = {rule.get("record") or rule["alert"] for name in ("rules.yml", "alerts.yml") for rule in rules(name)}
    assert loaded == shipped


def test_prometheus_knows_alertmanager_which_has_the_example(stack: Stack) -> None:
    eventually(lambda: stack.get("PROMETHEUS", "/api/v1/alertmanagers")["data"]["activeAlertmanagers"])
    receivers = eventually(lambda: stack.get("ALERTMANAGER", "/api/v2/receivers"))
    assert {one["name"] for one in receivers} == {"now", "later"}


def test_the_miner_is_confined_as_the_file_says(stack: Stack) -> None:
    found = stack.engine.inspect("container", stack.container("miner"))
    host = found["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["Memory"] == 4 * 2**30
    assert found["EffectiveCaps"] in (None, [])
    written = {mount["Destination"] for mount in found["Mounts"] if mount["RW"]}
    assert written <= {"/state", "/models", "/tmp"}


def test_another_user_of_the_miner_gets_the_volumes(stack: Stack) -> None:
    """As whoever tried it without settings, and then says whose hotkey it is."""
    stack.variables["MINER_USER"] = "4321:4321"
    stack.call("down")  # Docker's own sees the change without it; the volumes stay
    stack.call("up", "-d", *WITHOUT_GRAFANA)
    eventually(lambda: stack.get("STATUS", "/readyz"))
    assert stack.engine.podman("exec", stack.container("miner"), "id", "-u") == "4321"
    assert stack.engine.exit_code(stack.container("owner")) == 0
    assert stack.engine.inspect("container", stack.container("owner"))["State"]["Status"] == "exited"


def test_it_is_asked_and_stops_within_its_drain(stack: Stack, street: bytes) -> None:
    answer = stack.call("exec", "-T", "miner", "roadwork-miner", "query", "/dev/stdin", "--json", given=street)
    (line,) = [
        line for line in answer.splitlines() if '"replies"' in line
    ]  # Debian's podman-compose tells much besides
    assert json.loads(line[line.index("{") :])["replies"][0]["status"] == 200
    stack.call("stop", "miner")
    assert stack.engine.exit_code(stack.container("miner")) == 0


def test_a_miner_that_is_down_is_told_of(stack: Stack) -> None:
    """After the rule's two minutes."""

    def told() -> dict[str, Any] | None:
        alerts = stack.get("ALERTMANAGER", "/api/v2/alerts")
        return next((alert for alert in alerts if alert["labels"]["alertname"] == "RoadworkMinerDown"), None)

    alert = eventually(told, 400)
    assert alert["labels"]["instance"] == "miner:9464"
    assert [receiver["name"] for receiver in alert["receivers"]] == ["now"]
    assert alert["annotations"]["runbook_url"].endswith("deploy/README.md#roadworkminerdown")
