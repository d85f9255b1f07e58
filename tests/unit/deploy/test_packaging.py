"""What the files for containers and pm2 say beside each other, the settings and the package."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from miner import __version__
from miner.settings.settings import setting_names
from tests.expressions import DEPLOY
from tests.tools import longest_stop

ROOT = DEPLOY.parent
DOCKER = DEPLOY / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
ECOSYSTEM = DEPLOY / "pm2" / "ecosystem.config.js"
SPARE = 10  # seconds between the longest stop and the end of patience
OF_LIBRARIES = {"PATH", "HOME", "MALLOC_ARENA_MAX", "PYTHONFAULTHANDLER", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}


def read(*path: str) -> Any:
    return yaml.safe_load(DEPLOY.joinpath(*path).read_text(encoding="utf-8"))


def compose() -> dict[str, Any]:
    services: dict[str, Any] = read("docker", "compose.yaml")["services"]
    return services


def test_the_image_names_this_version_and_settings_that_exist() -> None:
    assert f'image.version="{__version__}"' in DOCKERFILE
    (block,) = re.findall(r"^ENV (PATH=.*?[^\\])$", DOCKERFILE, flags=re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"\b([A-Z_]+)=", block)) <= {*setting_names(), *OF_LIBRARIES}
    assert {name.upper() for name in compose()["miner"]["environment"]} <= set(setting_names())


def test_the_image_is_made_of_nothing_but_what_is_pinned_by_hash() -> None:
    for line in re.findall(r"pip\S* .*?install [^\n\\]*", DOCKERFILE):
        assert "--require-hashes" in line or "--no-index" in line, line
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    assert re.findall(r"^[\w-]+", "\n".join(build), flags=re.MULTILINE) == re.findall(  # type: ignore[index]
        r"^([\w-]+)==", (ROOT / "env" / "build.txt").read_text(encoding="utf-8"), flags=re.MULTILINE
    )


def test_what_the_build_copies_is_let_in_and_nothing_else() -> None:
    allowed = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), flags=re.MULTILINE)
    copied = {
        word
        for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, flags=re.MULTILINE)
        for word in line.split()
    }
    assert set(allowed) == copied
    assert all((ROOT / path).exists() for path in allowed)


def test_every_container_is_confined_and_only_validators_reach_one_from_outside() -> None:
    services = compose()
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert re.fullmatch(r"[\w./-]+:v?\d[\w.]*|localhost/roadwork-miner", service["image"]), name
        assert service.get("cap_add", []) == (["CHOWN", "DAC_OVERRIDE"] if name == "owner" else []), name
        outside = [port for port in service.get("ports", ()) if not port.startswith("127.0.0.1:")]
        assert outside == (["${AXON_PORT:-8091}:8091"] if name == "miner" else []), name
    assert services["miner"]["cpus"]


def test_the_miner_has_time_to_drain() -> None:
    grace = compose()["miner"]["stop_grace_period"]
    assert int(re.fullmatch(r"(\d+)s", grace)[1]) >= longest_stop() + SPARE  # type: ignore[index]


def test_nothing_of_the_host_is_mounted_to_be_written() -> None:
    volumes = set(read("docker", "compose.yaml")["volumes"])
    for service in compose().values():
        for volume in service["volumes"]:
            if isinstance(volume, dict):
                assert volume["read_only"] is True
            else:
                source, _, rest = volume.rpartition(":") if volume.endswith(":ro") else (volume, "", "")
                assert rest == "ro" or source.partition(":")[0] in volumes, volume


def test_files_that_are_mounted_are_there() -> None:
    for service in compose().values():
        for volume in service["volumes"]:
            source = volume["source"] if isinstance(volume, dict) else volume.partition(":/")[0]
            source = re.sub(r"\$\{\w+:-(.*)\}", r"\1", source)
            if source.startswith("."):
                assert (DOCKER / source).exists(), source


def test_compose_asks_by_the_names_it_gives() -> None:
    services = compose()
    plain, named = read("prometheus", "prometheus.yml"), read("docker", "prometheus.yml")
    (scrape,), (alerting,) = named["scrape_configs"], named["alerting"]["alertmanagers"]
    assert scrape["static_configs"][0].pop("targets") == ["miner:9464"]
    assert alerting["static_configs"][0].pop("targets") == ["alertmanager:9093"]
    del plain["scrape_configs"][0]["static_configs"][0]["targets"]
    del plain["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    assert named == plain
    assert services["miner"]["environment"]["STATUS_ALLOWED_HOSTS"] == "miner"
    source, elsewhere = (
        read("docker", "datasource.yml"),
        read("grafana", "provisioning", "datasources", "prometheus.yml"),
    )
    assert source["datasources"][0].pop("url") == "http://prometheus:9090"
    del elsewhere["datasources"][0]["url"]
    assert source == elsewhere
    (provider,) = read("grafana", "provisioning", "dashboards", "roadwork-miner.yml")["providers"]
    folder = provider["options"]["path"]
    assert any(f"{folder}/roadwork-miner.json" in str(volume) for volume in services["grafana"]["volumes"])


def test_secrets_of_alertmanager_are_files_that_git_passes_over() -> None:
    text = (DEPLOY / "prometheus" / "alertmanager.yml").read_text(encoding="utf-8")
    assert re.findall(r"^\s*(?:- )?(?:bot_token|webhook_url|auth_password):", text, flags=re.MULTILINE) == []
    named = re.findall(r"_file: /etc/alertmanager/secrets/(\S+)$", text, flags=re.MULTILINE)
    assert len(named) == 3
    command = ["git", "check-ignore", *(f"deploy/docker/secrets/{name}" for name in named)]
    assert len(subprocess.run(command, cwd=ROOT, capture_output=True).stdout.splitlines()) == 3


def test_every_route_of_alertmanager_ends_at_a_receiver_and_no_alert_is_named_that_there_is_not() -> None:
    content = read("prometheus", "alertmanager.yml")
    receivers = {one["name"] for one in content["receivers"]}
    assert {content["route"]["receiver"], *(one["receiver"] for one in content["route"]["routes"])} == receivers
    alerts = {rule["alert"] for group in read("prometheus", "alerts.yml")["groups"] for rule in group["rules"]}
    for rule in content["inhibit_rules"]:
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            pattern = matcher.partition("=")[2].lstrip("~ ").strip('" ')
            assert [alert for alert in alerts if re.fullmatch(pattern, alert)], matcher
            for name in re.findall(r"\w+", re.sub(r"RoadworkMiner\((.*)\)", r"\1", pattern)):
                assert f"RoadworkMiner{name.removeprefix('RoadworkMiner')}" in alerts, name


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_pm2_waits_for_the_drain_and_does_not_try_wrong_settings_again(tmp_path: Path) -> None:
    script = f"console.log(JSON.stringify(require({json.dumps(str(ECOSYSTEM))})))"
    told = subprocess.run(
        ["node", "-e", script], env={"PATH": "/usr/local/bin:/usr/bin:/bin", "ENV_FILE": "a.env"},
        cwd=tmp_path, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    (app,) = json.loads(told)["apps"]
    assert app["interpreter"] == "none"
    assert (app["exec_mode"], app["instances"]) == ("fork", 1)
    assert app["kill_timeout"] / 1000 >= longest_stop() + SPARE
    assert app["stop_exit_codes"] == [2]  # 0 too were every miner that a signal killed
    assert app["args"] == ["run", "--env-file", str(tmp_path / "a.env")]
    assert Path(app["cwd"]) == ROOT
    assert Path(app["script"]) == ROOT / ".venv" / "bin" / "roadwork-miner"
