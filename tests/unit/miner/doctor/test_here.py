"""The check-up's judgements of this machine and of the running miner, as tables: facts in, a line out."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from detectors.base import RunOptions
from detectors.machine import Memory, allowed_cores
from detectors.models.manifest import Manifest
from miner.doctor import daemon, machine, model, settings
from miner.doctor.findings import Finding, Level, ok, problem, verdict, warning
from miner.metrics import Metrics
from miner.settings.settings import Settings

GB = 10**9
SHIPPED = Manifest.read(Path(__file__).resolve().parents[4] / "detectors" / "starter")


def expect(finding: Finding, level: Level, words: str) -> None:
    assert finding.level == level, finding
    assert re.search(words, finding.words), finding
    assert bool(finding.todo) or level != "problem"


@pytest.mark.parametrize(
    ("plan", "cores", "quota", "level"),
    [
        ((1, 2), 2, None, "ok"),
        ((1, 1), 1, 1.5, "ok"),
        ((2, 1), 1, 1.5, "problem"),
        ((1, 4), 2, None, "problem"),
        ((1, 1), 1, 0.5, "warning"),
    ],
)
def test_cpu(plan: tuple[int, int], cores: int, quota: float | None, level: Level) -> None:
    expect(machine.judge_cpu(machine.CpuFacts(RunOptions(*plan), cores, quota)), level, "slot|quota")


def test_a_plan_for_remote_endpoints_takes_no_cores() -> None:
    assert machine.judge_cpu(machine.CpuFacts(RunOptions(8, 1), 2, None, remote=True)).level == "ok"


def scraped(**memory: float) -> daemon.RunningFacts:
    """What a miner with a plan and a cgroup of its own says of itself."""
    metrics = Metrics(memory=lambda: Memory(**memory))
    metrics.planned(2, 3)
    metrics.cores.set_function(lambda: 6)
    metrics.quota.set_function(lambda: 6.5)
    return daemon.read_samples(generate_latest(metrics.registry).decode(), None)


def test_a_running_miners_limits_are_its_own_and_not_those_of_this_shell() -> None:
    miner = scraped(cgroup_limit=4 * GB, cgroup_usage=3 * GB, cgroup_reclaimable=GB, machine_available=9 * GB)
    assert machine.read_cpu(Settings(), miner) == machine.CpuFacts(RunOptions(2, 3), 6, 6.5)
    assert machine.read_memory_facts(GB, miner).available == 2 * GB
    changed = machine.read_cpu(Settings(inference_threads=5), miner)
    assert changed.plan == RunOptions(2, 5), "what a restart would make of the settings"


def test_without_a_miner_this_process_shows_what_is_allowed() -> None:
    nobody = daemon.RunningFacts()
    facts = machine.read_cpu(Settings(inference_threads=1, inference_slots=1), nobody)
    assert (facts.plan, facts.cores) == (RunOptions(1, 1), allowed_cores())
    assert machine.read_memory_facts(GB, nobody).available > 0


@pytest.mark.parametrize(
    ("available", "swap", "size", "is_running", "level"),
    [
        (8 * GB, 0, GB, False, "ok"),
        (GB, 2 * GB, GB, False, "warning"),
        (GB, 0, GB, False, "problem"),
        (GB, 0, GB, True, "ok"),
        (0.1 * GB, 0, GB, True, "problem"),
        (GB, 0, None, False, "ok"),
    ],
)
def test_memory(available: float, swap: float, size: int | None, is_running: bool, level: Level) -> None:
    finding = machine.judge_memory(machine.MemoryFacts(available, swap, size, is_running))
    expect(finding, level, "of swap")
    if level != "ok":
        assert re.search(r"fallocate -l \dG /swapfile .*mkswap /swapfile && swapon /swapfile", finding.todo)


@pytest.mark.parametrize(
    ("free", "writable", "needed", "level"),
    [(GB, True, 50, "ok"), (GB, False, 50, "problem"), (10, True, 50, "problem")],
)
def test_disk(free: int, writable: bool, needed: int, level: Level) -> None:
    expect(machine.judge_disk([machine.DiskFacts("STATE_DIR", Path("s"), free, writable, needed)]), level, "STATE_DIR")
    models = machine.DiskFacts("MODELS_DIR", Path("m"), 10, True, 50)
    assert machine.judge_disk([models]).level == "warning", "it may be made elsewhere"


def test_a_folder_that_this_user_may_not_enter_is_named() -> None:
    disk = machine.DiskFacts("STATE_DIR", Path("/closed/state"), GB, False, 50, Path("/closed"))
    expect(machine.judge_disk([disk]), "problem", "^STATE_DIR=/closed/state: .* /closed$")
    expect(settings.judge_coldkey(settings.WalletFacts(hidden=[Path("/closed")])), "warning", "may not .* /closed")


BY_NUMPY = SHIPPED.model_copy(update={"parity": SHIPPED.parity.model_copy(update={"reference": "numpy"})})
MODEL = model.ModelFacts("own.yaml", "ViT")


@pytest.mark.parametrize(
    ("facts", "level", "words"),
    [
        (replace(MODEL, fault="a damaged file"), "problem", "own.yaml: a damaged file"),
        (MODEL, "problem", "is not prepared"),
        (replace(MODEL, unchecked="no answer within 3 s"), "warning", "not looked at: .* 3 s"),
        (replace(MODEL, manifest=SHIPPED, unchecked="no answer within 8 s"), "warning", "not checked: .* 8 s"),
        (replace(MODEL, manifest=SHIPPED), "ok", "starter@.*all sums match"),
        (replace(MODEL, manifest=SHIPPED, branch="main", pins=["put it into x"]), "warning", "main is"),
        (replace(MODEL, manifest=BY_NUMPY), "warning", "numpy only"),
        (replace(MODEL, manifest=SHIPPED, renewal=("an older exporter", "again")), "warning", "an older exporter"),
    ],
)
def test_model(facts: model.ModelFacts, level: Level, words: str) -> None:
    expect(model.judge_model(facts, "test"), level, words)
    if facts.unchecked:
        assert "correct the configuration" not in model.judge_model(facts, "test").todo


@pytest.mark.parametrize(
    ("seconds", "fault", "level", "words"),
    [
        ([0.1] * 10, "", "ok", r"p95 100 ms over 10 pictures; 8\.5 s"),
        ([1.0] * 9 + [5.0], "", "warning", "two at once"),
        ([9.0], "", "problem", r"p95 9\.0 s over 1 pictures"),
        ([], "no answer within 16 s", "problem", "no answer"),
    ],
)
def test_inference(seconds: list[float], fault: str, level: Level, words: str) -> None:
    expect(model.judge_inference(model.InferenceFacts(seconds, fault), 8.5), level, words)


def test_without_a_model_nothing_is_measured() -> None:
    expect(model.judge_inference(None, 8.5), "warning", "not measured")


@pytest.mark.parametrize(("count", "p95"), [(1, 1), (2, 2), (10, 10), (20, 19), (100, 95)])
def test_percentile(count: int, p95: float) -> None:
    assert model.percentile(list(range(count, 0, -1)), 0.95) == p95


RUNNING = daemon.RunningFacts(True, None, "ours", last_request=9_000.0, started=5_000.0, outcomes={"ok": 3})
NOW = 9_060.0


@pytest.mark.parametrize(
    ("facts", "registered", "level", "words"),
    [
        (RUNNING, True, "ok", "ready"),
        (replace(RUNNING, reload_fault="no repository"), True, "warning", "reload failed: no repository"),
        (daemon.RunningFacts(), True, "warning", "not running"),
        (daemon.RunningFacts(fault="no miner"), True, "problem", "STATUS_PORT is taken: no miner"),
        (replace(RUNNING, reason="loading the model"), True, "problem", "loading the model"),
        (replace(RUNNING, reason="hotkey x is not registered"), False, "warning", "not registered"),
        (replace(RUNNING, hotkeys=frozenset({"theirs"})), True, "problem", "another hotkey, theirs"),
    ],
)
def test_miner(facts: daemon.RunningFacts, registered: bool, level: Level, words: str) -> None:
    expect(daemon.judge_running(facts, "ours", registered=registered), level, words)


@pytest.mark.parametrize(
    ("facts", "level", "words"),
    [
        (RUNNING, "ok", "last 60 s ago"),
        (replace(RUNNING, last_request=1.0), "warning", "last 3 h ago"),
        (replace(RUNNING, last_request=0.0, started=9_000.0), "ok", "never in 60 s of running"),
        (replace(RUNNING, last_request=0.0, started=1.0), "warning", "never in 3 h of running"),
        (replace(RUNNING, last_request=0.0, outcomes={"unauthorised": 4}), "warning", "4 unauthorised"),
        (replace(RUNNING, outcomes={"forbidden": 2}), "ok", "ago; 2 forbidden"),
        (daemon.RunningFacts(), "warning", "not running"),
    ],
)
def test_asked(facts: daemon.RunningFacts, level: Level, words: str) -> None:
    expect(daemon.judge_asked(facts, NOW), level, words)


@pytest.mark.parametrize(
    ("reached", "facts", "level", "words"),
    [
        (True, RUNNING, "ok", "1.2.3.4:8091"),
        (False, RUNNING, "problem", "from outside"),
        (False, daemon.RunningFacts(), "warning", "not running"),
        (None, RUNNING, "ok", "somebody asked 60 s ago"),
        (None, replace(RUNNING, last_request=0.0), "warning", "not tried"),
        (None, daemon.RunningFacts(), "warning", "not tried"),
    ],
)
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", None])
def test_reachable(
    reached: bool | None, facts: daemon.RunningFacts, level: Level, words: str, host: str | None
) -> None:
    finding = daemon.judge_reach(daemon.ReachFacts("1.2.3.4:8091", reached), facts, NOW, "ours", host)
    expect(finding, level, words)
    if "not tried" in finding.words:
        assert "query photo.jpg --host 1.2.3.4 --port 8091 --receiver ours" in finding.todo


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.53", "::1", "localhost"])
@pytest.mark.parametrize("facts", [RUNNING, daemon.RunningFacts()])
def test_a_port_on_the_loopback_is_reached_by_nobody_unless_that_is_proved(
    host: str, facts: daemon.RunningFacts
) -> None:
    untried = daemon.ReachFacts("1.2.3.4:8091")
    finding = daemon.judge_reach(untried, facts, NOW, "ours", host)
    expect(finding, "problem", f"MINER_AXON_HOST={host} ")
    assert daemon.judge_reach(replace(untried, reached=True), facts, NOW, "ours", host).level == "ok", "by a proxy"


@pytest.mark.parametrize("facts", [RUNNING, replace(RUNNING, last_request=0.0), daemon.RunningFacts()])
def test_a_broken_probe_says_nothing_of_the_firewall(facts: daemon.RunningFacts) -> None:
    finding = daemon.judge_reach(daemon.ReachFacts("1.2.3.4:8091", None, "it answered 500"), facts, NOW, "", "::")
    expect(finding, "warning", "^the probe .*: it answered 500")
    assert ("somebody asked" in finding.words) is bool(facts.last_request)
    assert "firewall" not in finding.todo


@pytest.mark.parametrize(
    ("facts", "level", "words"),
    [
        (settings.SettingsFacts(None), "ok", "environment and defaults"),
        (settings.SettingsFacts(Path("miner.env"), notes=["unknown key X"]), "warning", "unknown key X"),
        (settings.SettingsFacts(Path("miner.env"), faults=["A=x: no", "Y=1: no"]), "problem", "A=x: no; Y=1: no"),
    ],
)  # fmt: skip
def test_settings(facts: settings.SettingsFacts, level: Level, words: str) -> None:
    expect(settings.judge_settings(facts), level, words)


@pytest.mark.parametrize(("mode", "level"), [(0o600, "ok"), (0o400, "ok"), (0o640, "warning"), (0o604, "warning")])
def test_hotkey(mode: int, level: Level) -> None:
    finding = settings.judge_hotkey(settings.WalletFacts(hotkey="ours", file=Path("hot"), mode=mode))
    assert finding.level == level
    assert (finding.todo == "chmod 600 hot") is (level == "warning")


def test_keys() -> None:
    expect(settings.judge_hotkey(settings.WalletFacts(fault="WALLET_HOTKEY=x: no")), "problem", "WALLET_HOTKEY=x: no")
    expect(
        settings.judge_coldkey(settings.WalletFacts(coldkeys=[Path("a/cold"), Path("b/cold")])),
        "warning",
        "this machine: a/cold, b/cold;",
    )
    expect(settings.judge_coldkey(settings.WalletFacts()), "ok", "not on this machine")


@pytest.mark.parametrize(
    ("findings", "is_running", "standalone", "sentence"),
    [
        ([ok("a", "x"), warning("b", "y")], True, False, "ready to earn"),
        ([ok("a", "x")], False, False, "ready to earn .*: roadwork-miner run"),
        ([ok("a", "x"), problem("b", "y", "z"), problem("c", "v", "w")], True, False, "not ready .*: b: y"),
        ([problem("b", "y", "z")], False, True, "not ready .*: b: y"),
        ([ok("a", "x")], True, True, "ready, .*: SUBTENSOR_NETWORK=standalone .*"),
    ],
)
def test_the_last_sentence(findings: list[Finding], is_running: bool, standalone: bool, sentence: str) -> None:
    assert re.fullmatch(sentence, verdict(findings, running=is_running, standalone=standalone))


def test_a_miner_of_another_hotkey_proves_nothing_for_ours() -> None:
    theirs = replace(RUNNING, hotkeys=frozenset({"theirs"}))
    assert daemon.own_facts(theirs, "ours") == daemon.RunningFacts()
    for facts, hotkey in ((theirs, "theirs"), (theirs, ""), (replace(RUNNING, hotkeys=frozenset()), "ours")):
        assert daemon.own_facts(facts, hotkey) is facts
