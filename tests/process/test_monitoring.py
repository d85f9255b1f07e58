"""A miner, a real Prometheus and a load: what PromQL says equals what was sent."""

import json
import math
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from miner.metrics import EARNINGS, PREFIX
from tests import tools
from tests.expressions import panel_expressions, recorded
from tests.process.conftest import Settings, StartDaemon, daemons
from tests.process.daemon import PATIENCE, Daemon, eventually
from tests.process.inspection import message_of
from tests.process.prometheus import Prometheus
from tests.process.wire import Door

UNKNOWN_WITHOUT_A_CHAIN = ("roadwork_miner_chain_incentive", "roadwork_miner_chain_trust")
OF_CASCADES = f"{PREFIX}cascade_"
ABSENT_WITHOUT_LABELS = (
    f"{PREFIX}traffic_accuracy",
    f"{PREFIX}traffic_below_promise",
    f"{PREFIX}promised_accuracy",  # the starter promises nothing
    f"{PREFIX}last_improvement",
)
ABSENT_WITHOUT_A_CHAIN = (*(PREFIX + name for name, _, _ in EARNINGS), f"{PREFIX}natix_registered")


def target_of(daemon: Daemon) -> str:
    return f"127.0.0.1:{daemon.status_port}"


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, model: str) -> Iterator[StartDaemon]:
    """Start daemons for this module: nobody else may ask them."""
    with daemons(tmp_path_factory, model) as start:
        yield start


@pytest.fixture(scope="module")
def watched(start: StartDaemon) -> Daemon:
    """A miner as it comes."""
    return start().ready()


@pytest.fixture(scope="module")
def troubled(start: StartDaemon, moods: Settings) -> Daemon:
    """A miner whose model has no number for black, and that can be held up over white."""
    return start(**moods).ready()


@pytest.fixture(scope="module")
def prometheus(watched: Daemon, troubled: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    targets = (target_of(watched), target_of(troubled))
    with Prometheus(tmp_path_factory.mktemp("prometheus"), targets) as server:
        yield server.scrapes(*targets)


@pytest.fixture(scope="module")
def sent(
    prometheus: Prometheus, watched: Daemon, street: bytes, tmp_path_factory: pytest.TempPathFactory
) -> Counter[str]:
    """Send a load of everything with `roadwork-miner query`, and return how many of what; scraped since the zeros."""
    photo, rubbish = (tmp_path_factory.mktemp("pictures") / name for name in ("street.jpg", "rubbish.jpg"))
    photo.write_bytes(street)
    rubbish.write_bytes(b"not a picture")
    counts: Counter[str] = Counter()

    def load(outcome: str, status: int, path: Path, count: int, *options: str) -> None:
        summary = query(watched, path, "--count", str(count), *options)
        assert summary["by_status"] == {str(status): count}
        counts[outcome] += count

    peer, stranger = "standalone/peer", "standalone/stranger"
    someone_else = watched.keys.stranger.hotkey.ss58_address
    load("ok", 200, photo, 300, "--concurrency", "4")
    load("bad_image", 422, rubbish, 4)
    load("refused", 503, photo, 7, "--timeout", "0.3", "--concurrency", "7")
    load("forbidden", 403, photo, 5, "--wallet", peer)
    load("forbidden", 403, photo, 3, "--wallet", stranger, "--wire", "btauth")
    load("unauthorised", 401, photo, 6, "--receiver", someone_else)
    load("ok", 200, photo, 100, "--wire", "btauth", "--concurrency", "2")
    for _ in range(2):
        message_of(watched.post(watched.validator.sign(b"", Door(), body=b"{}")), 400)
    counts["bad_request"] += 2
    assert watched.http.post("/elsewhere").status_code == 404
    counts["not_found"] += 1
    return counts


def query(daemon: Daemon, picture: Path, *options: str) -> dict[str, Any]:
    """Run `roadwork-miner query` and return its summary."""
    wallets = f"WALLET_PATH={daemon.state / 'wallets'}"
    done = subprocess.run(
        [*daemon.command, "query", str(picture), "--json", "--set", wallets, *options],
        env=daemon.environment, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.stdout, done.stderr
    summary: dict[str, Any] = json.loads(done.stdout)["summary"]
    return summary


def test_the_counts_by_outcome_are_what_was_sent(prometheus: Prometheus, watched: Daemon, sent: Counter[str]) -> None:
    own = f'{{instance="{target_of(watched)}"}}'
    expression = f"sum by (outcome) (roadwork_miner_requests_total{own})"
    eventually(lambda: sum(prometheus.counts(expression, "outcome").values()) >= sent.total())
    assert prometheus.counts(expression, "outcome") == dict(sent)
    reasons = prometheus.counts(f"sum by (reason) (roadwork_miner_refusals_total{own})", "reason")
    assert reasons == {"deadline": sent["refused"]}
    # Proven callers: all but those who are turned away before that; the validator's uid is 1.
    proven = sent["ok"] + sent["bad_image"] + sent["refused"] + sent["bad_request"]
    assert prometheus.counts(f"roadwork_miner_validator_requests_total{own}", "uid") == {"1": proven}
    for metric in ("prediction_count", "deadline_remaining_seconds_count"):
        assert prometheus.number(f"roadwork_miner_{metric}{own}") == sent["ok"]


def test_the_stages_add_up_to_the_whole(prometheus: Prometheus, watched: Daemon, sent: Counter[str]) -> None:
    own = f'instance="{target_of(watched)}"'
    whole = f'sum(roadwork_miner_request_duration_seconds_sum{{{own}, outcome=~"ok|expired"}})'
    count = f'sum(roadwork_miner_request_duration_seconds_count{{{own}, outcome=~"ok|expired"}})'
    eventually(lambda: prometheus.number(count) == sent["ok"])
    assert prometheus.number(f"sum(roadwork_miner_stage_duration_seconds_sum{{{own}}}) / {whole}") == pytest.approx(
        1, abs=0.05
    )
    stages = prometheus.counts(f"roadwork_miner_stage_duration_seconds_count{{{own}}}", "stage")
    assert set(stages.values()) == {sent["ok"]}
    assert list(stages) == ["body", "decode", "infer", "preprocess", "queue", "respond", "verify"]


def test_late_and_impossible_answers_are_counted_and_alarm(
    prometheus: Prometheus, troubled: Daemon, black: bytes, white: bytes
) -> None:
    own = f'{{instance="{target_of(troubled)}"}}'
    message_of(troubled.ask(black), 500)
    with troubled.held():
        message_of(troubled.ask(white, timeout="1.5"), 503)  # this caller would have waited all the same
    expression = f"sum by (outcome) (roadwork_miner_requests_total{own})"
    eventually(lambda: sum(prometheus.counts(expression, "outcome").values()) == 2)
    assert prometheus.counts(expression, "outcome") == {"failed": 1, "expired": 1}
    assert prometheus.number(f"roadwork_miner_invalid_outputs_total{own}") == 1
    late = f'roadwork_miner_deadline_remaining_seconds_bucket{{instance="{target_of(troubled)}", le="0.0"}}'
    assert prometheus.number(late) == 1
    alarms = f'ALERTS{{alertname="RoadworkMinerInvalidOutputs", instance="{target_of(troubled)}"}}'
    eventually(lambda: prometheus.counts(alarms, "alertstate") == {"firing": 1})


def test_every_panel_of_the_dashboard_has_something_to_show(prometheus: Prometheus, sent: Counter[str]) -> None:
    assert sent
    for expression in panel_expressions():
        text = expression.text.replace("$__rate_interval", "5m").replace("$__range", "5m").replace("$instance", ".+")
        assert "$" not in text
        if text.startswith((*ABSENT_WITHOUT_A_CHAIN, *ABSENT_WITHOUT_LABELS)) or OF_CASCADES in text:
            assert prometheus.ask(text) == []
            continue
        samples = eventually(lambda text=text: prometheus.ask(text))
        assert any(math.isfinite(value) for _, value in samples) or text.startswith(UNKNOWN_WITHOUT_A_CHAIN), text


def test_the_dashboards_variables_have_values(prometheus: Prometheus) -> None:
    series = prometheus.get("series", **{"match[]": 'roadwork_miner_model_info{detector=~".+"}'})
    assert {labels["detector"] for labels in series} == {"ViT"}
    assert len({labels["instance"] for labels in series}) == 2


def test_every_rule_is_evaluated_and_every_record_has_a_value(prometheus: Prometheus, sent: Counter[str]) -> None:
    assert sent
    for name in sorted(recorded()):
        assert eventually(lambda name=name: prometheus.ask(f'{{__name__="{name}"}}')), name
    groups = prometheus.get("rules")["groups"]
    assert {rule["health"] for group in groups for rule in group["rules"]} == {"ok"}


def test_the_metrics_after_a_load_are_without_complaint(watched: Daemon, sent: Counter[str]) -> None:
    assert sent
    promtool = tools.find("promtool", "prometheus")
    done = subprocess.run([promtool, "check", "metrics"], input=watched.page("/metrics").content, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
