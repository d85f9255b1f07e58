"""The example of Alertmanager, with servers on this machine in place of Telegram, Discord and a mail provider."""

import email
import json
from collections.abc import Iterator
from email.policy import default
from typing import Any

import httpx
import pytest
import yaml

from tests.container.conftest import ALERTMANAGER
from tests.container.engine import Engine
from tests.container.receivers import Message, Receivers
from tests.expressions import PROMETHEUS
from tests.process.daemon import PATIENCE, eventually, free_port

pytestmark = pytest.mark.timeout(1800)
NAME = "alertmanager"
SECRETS = "/etc/alertmanager/secrets"
RUNBOOK = "https://code.example/deploy/README.md#runbook"


class Alerts:
    """An Alertmanager that runs, and whom it tells."""

    def __init__(self, receivers: Receivers, port: int) -> None:
        self.receivers = receivers
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v2", trust_env=False)

    def is_up(self) -> bool:
        try:
            return self.http.get("/status").status_code == 200
        except httpx.TransportError:
            return False

    def fire(self, *alerts: tuple[str, str], instance: str) -> None:
        """Report alerts (name, severity) as Prometheus does."""
        content = [
            {
                "labels": {"alertname": name, "severity": severity, "instance": instance},
                "annotations": {"summary": f"{instance}: {name} <_happens_>", "runbook_url": RUNBOOK},
            }
            for name, severity in alerts
        ]
        assert self.http.post("/alerts", json=content).status_code == 200

    def inhibited(self, instance: str) -> set[str]:
        listed: list[dict[str, Any]] = self.http.get("/alerts").json()
        here = [alert for alert in listed if alert["labels"]["instance"] == instance]
        return {alert["labels"]["alertname"] for alert in here if alert["status"]["inhibitedBy"]}

    def receive(self) -> Message:
        return self.receivers.messages.get(timeout=PATIENCE)


def local(receivers: Receivers) -> str:
    """Return the example with addresses of this machine, and without its waits."""
    content = yaml.safe_load((PROMETHEUS / "alertmanager.yml").read_text(encoding="utf-8"))
    for route in (content["route"], *content["route"]["routes"]):
        route["group_wait"] = "1s"
    now = next(one for one in content["receivers"] if one["name"] == "now")
    now["telegram_configs"][0]["api_url"] = receivers.web_address
    now["email_configs"][0] |= {"smarthost": receivers.mail_address, "require_tls": False}
    return yaml.safe_dump(content)


@pytest.fixture(scope="module")
def alerts(engine: Engine, watchers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alerts]:
    folder = tmp_path_factory.mktemp("alertmanager")
    folder.chmod(0o755)
    with Receivers() as receivers:
        secrets = {
            "telegram-bot-token": "123:token",
            "smtp-password": "secret",
            "discord-webhook-url": f"{receivers.web_address}/api/webhooks/1/hook",
        }
        for name, secret in secrets.items():
            (folder / name).write_text(f"{secret}\n")
        (folder / "alertmanager.yml").write_text(local(receivers))
        port = free_port()
        options = ("--network", "host", "--read-only", "--tmpfs", "/alertmanager", "--user", "0")
        flags = (
            f"--config.file={SECRETS}/alertmanager.yml", "--storage.path=/alertmanager", "--cluster.listen-address=",
            f"--web.listen-address=127.0.0.1:{port}",
        )  # fmt: skip
        engine.podman("run", "-d", "--name", NAME, *options, "-v", f"{folder}:{SECRETS}:ro", ALERTMANAGER, *flags)
        alerts = Alerts(receivers, port)
        try:
            eventually(alerts.is_up)
            yield alerts
        finally:
            print(engine.try_run("podman", "logs", NAME).stderr.decode())
            engine.podman("rm", "-f", "-t", "0", NAME)
            alerts.http.close()


def test_amtool_finds_no_fault_in_the_example(engine: Engine, watchers: None) -> None:
    mount = ("-v", f"{PROMETHEUS}:/etc/alertmanager:ro")
    check = ("check-config", "/etc/alertmanager/alertmanager.yml")
    told = engine.podman("run", "--rm", "--entrypoint", "amtool", *mount, ALERTMANAGER, *check)
    assert "SUCCESS" in told
    assert "2 receivers" in told


def test_what_is_critical_comes_by_telegram_and_by_mail(alerts: Alerts) -> None:
    alerts.fire(("RoadworkMinerDown", "critical"), instance="first")
    found = {message.place: message.content for message in (alerts.receive(), alerts.receive())}
    assert found.keys() == {"/bot123:token/sendMessage", "miner@example.org"}
    text = json.loads(found["/bot123:token/sendMessage"])["text"]
    assert "firing: RoadworkMinerDown, critical" in text
    assert "first: RoadworkMinerDown <_happens_>" in text  # plain, and so no markup of Telegram's
    assert RUNBOOK in text
    mail = email.message_from_string(found["miner@example.org"], policy=default)
    assert mail["To"] == "you@example.org"
    assert "[firing] first: RoadworkMinerDown" in mail["Subject"]


def test_a_warning_comes_to_the_channel(alerts: Alerts) -> None:
    alerts.fire(("RoadworkMinerThrottled", "warning"), instance="second")
    message = alerts.receive()
    assert message.place == "/api/webhooks/1/hook"
    assert "second: RoadworkMinerThrottled" in message.content
    assert RUNBOOK in message.content


def test_what_follows_from_another_alert_is_not_told(alerts: Alerts) -> None:
    down = [("RoadworkMinerDown", "critical"), ("RoadworkMinerNotAsked", "warning")]
    alerts.fire(*down, instance="third")
    eventually(lambda: alerts.inhibited("third") == {"RoadworkMinerNotAsked"})
    gone = [("RoadworkMinerDeregistered", "critical"), ("RoadworkMinerNotReady", "critical")]
    alerts.fire(*gone, ("RoadworkMinerRefusing", "warning"), ("RoadworkMinerMemoryNearLimit", "warning"),
                instance="fourth")  # fmt: skip
    eventually(lambda: alerts.inhibited("fourth") == {"RoadworkMinerNotReady", "RoadworkMinerRefusing"})
