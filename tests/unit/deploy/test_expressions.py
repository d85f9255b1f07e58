"""Dashboard, rules and alerts name only what the process exports."""

import re

import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from miner.cascade import CascadeMetrics
from miner.inference.remote import RemoteMetrics
from miner.metrics import Metrics
from tests.expressions import (
    DEPLOY,
    MAIN,
    REMOTE,
    Expression,
    dashboard,
    other_dashboard_expressions,
    panel_expressions,
    recorded,
    rule_expressions,
    rules,
    selectors,
)

OF_PROMETHEUS = {"up"}
EVERYTHING = [
    *(one for name in (MAIN, REMOTE) for one in (*panel_expressions(name), *other_dashboard_expressions(name))),
    *rule_expressions(),
]
named = pytest.mark.parametrize("expression", EVERYTHING, ids=lambda expression: expression.where)


def exported() -> dict[str, dict[str, set[str]]]:
    """Return name -> label -> values, as far as they are there from the start."""
    found: dict[str, dict[str, set[str]]] = {}
    metrics = Metrics()
    RemoteMetrics(metrics.registry, ["http://box:8000"])
    stages = CascadeMetrics(metrics.registry)
    stages.see(("small", "small + large"), (0.6, 0.8), "adaptive")
    stages.earned((0.6, 0.8), 0.7)
    for family in text_string_to_metric_families(generate_latest(metrics.registry).decode()):
        found.setdefault(family.name + ("_total" if family.type == "counter" else ""), {})
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return found


EXPORTED = exported()


def test_the_reader_of_expressions_finds_the_metrics() -> None:
    text = 'sum by (le) (rate(a_total{x=~"1|2", y="b c"}[5m])) / on (z) (b:c:d > 0) and time() - up offset 3h > 1e3'
    assert [selector.metric for selector in selectors(text)] == ["a_total", "b:c:d", "up"]
    assert next(selectors(text)).matchers == [("x", "=~", "1|2"), ("y", "=", "b c")]


@named
def test_an_expression_names_only_exported_metrics(expression: Expression) -> None:
    names = [selector.metric for selector in selectors(expression.text)]
    assert names
    assert set(names) <= EXPORTED.keys() | recorded() | OF_PROMETHEUS


@named
def test_an_expression_names_only_label_values_that_exist(expression: Expression) -> None:
    for selector in selectors(expression.text):
        for label, _, wanted in selector.matchers:
            known = EXPORTED.get(selector.metric, {}).get(label)
            if known is not None and re.fullmatch(r"[\w.+|-]+", wanted):
                assert set(wanted.split("|")) <= known, f"{selector.metric}: {label}"


def test_the_dashboard_shows_things_in_many_ways() -> None:
    assert {panel["type"] for panel in dashboard()["panels"]} >= {"heatmap", "timeseries", "stat", "table"}


@pytest.mark.parametrize("name", [MAIN, REMOTE])
def test_every_panel_has_a_place_of_its_own_and_the_variables(name: str) -> None:
    content = dashboard(name)
    ids = [panel["id"] for panel in content["panels"]]
    assert len(ids) == len(set(ids))
    assert {variable["name"] for variable in content["templating"]["list"]} == {"datasource", "detector", "instance"}
    for panel in content["panels"]:
        if panel["type"] != "row":
            assert panel["targets"], panel["title"]
            assert all("$instance" in target["expr"] for target in panel["targets"]), panel["title"]
            assert panel["datasource"]["uid"] == "${datasource}"


@pytest.mark.parametrize("name", [MAIN, REMOTE])
def test_no_panels_overlap(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard(name)["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(place["x"] + column, place["y"] + line) for column in range(place["w"]) for line in range(place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_provisioning_files_are_what_grafana_reads() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["type"] == "prometheus"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "roadwork-miner.yml").read_text())["providers"]
    assert provider["options"]["path"].startswith("/")


def test_every_alert_has_a_severity_a_summary_and_a_paragraph_in_the_runbook() -> None:
    runbook = (DEPLOY / "README.md").read_text(encoding="utf-8")
    anchors = {
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in re.findall(r"^#+ (.*)$", runbook, re.M)
    }
    for rule in rules("alerts.yml"):
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"]["summary"]
        file, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert file == "{{ $externalLabels.runbooks }}deploy/README.md"
        assert anchor == rule["alert"].lower()
        assert anchor in anchors
