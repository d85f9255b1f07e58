"""Every PromQL expression of the project, and the names in them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
DASHBOARDS = DEPLOY / "grafana" / "dashboards"
MAIN, REMOTE = "roadwork-miner", "roadwork-miner-remote"
WORDS = {"and", "or", "unless", "offset", "bool", "Inf", "NaN", "by", "on", "without", "ignoring", "group_left"}
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')


class Expression(NamedTuple):
    """Where it stands, and what it says."""

    where: str
    text: str


class Selector(NamedTuple):
    """A metric with its label matchers: label, operator, value."""

    metric: str
    matchers: list[tuple[str, str, str]]


def dashboard(name: str = MAIN) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((DASHBOARDS / f"{name}.json").read_text(encoding="utf-8"))
    return loaded


def panel_expressions(name: str = MAIN) -> list[Expression]:
    return [
        Expression(f"{panel['title']} ({target['refId']})", target["expr"])
        for panel in dashboard(name)["panels"]
        for target in panel.get("targets", [])
    ]


def other_dashboard_expressions(name: str = MAIN) -> Iterator[Expression]:
    """Yield what annotations and variables ask."""
    for annotation in dashboard(name)["annotations"]["list"]:
        yield Expression(annotation["name"], annotation["expr"])
    for variable in dashboard(name)["templating"]["list"]:
        if variable["type"] == "query":
            yield Expression(
                variable["name"], re.sub(r"^label_values\((.*), \w+\)$", r"\1", variable["query"]["query"])
            )


def rules(name: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / name).read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def rule_expressions() -> list[Expression]:
    found = rules("rules.yml") + rules("alerts.yml")
    return [Expression(rule.get("record") or rule["alert"], rule["expr"]) for rule in found]


def recorded() -> set[str]:
    return {rule["record"] for rule in rules("rules.yml")}


def selectors(expression: str) -> Iterator[Selector]:
    """Yield the metrics of an expression: the words that are no function, no keyword and no label."""
    strings: list[str] = []

    def hide(match: re.Match[str]) -> str:
        strings.append(match[0])
        return f'"{len(strings) - 1}"'

    text = re.sub(r'"[^"]*"', hide, expression)
    text = re.sub(r"#.*", "", text)
    text = re.sub(r"\[[^\]]*\]", "", text)
    text = re.sub(r"\b(by|on|without|ignoring|group_left)\s*\([^)]*\)", "", text)
    for match in re.finditer(r"(?<![\w:.$])([a-zA-Z_:][\w:]*)(?!\s*\()(?![\w:])\s*(\{[^}]*\})?", text):
        if match[1] in WORDS or match[0].startswith("$"):
            continue
        inside = re.sub(r'"(\d+)"', lambda found: strings[int(found[1])], match[2] or "")
        yield Selector(match[1], [(label, how, value) for label, how, value in MATCHER.findall(inside)])
