"""The check-up of the daemon: its own status port, and the validators' port from both sides."""

import contextlib
import errno
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf, isfinite
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from detectors.base import RunOptions
from miner.doctor.findings import Finding, ok, problem, warning
from miner.metrics import PREFIX
from miner.settings.addresses import EVERYWHERE
from miner.settings.settings import Settings
from miner.settings.validators import is_loopback

LOCAL_SECONDS = 3.0
PROBE_SECONDS = 8.0
PROBE_BYTES = 64 * 2**10  # of its answer
PROBE_ANSWERS = 'answer 200 if it can connect to us, and 200 with {"reachable": false} if it can\'t'
QUIET_SECONDS = 3600.0  # as long without a request is no cause for worry


@dataclass(frozen=True, slots=True)
class RunningFacts:
    """What the running miner says of itself; `running` False: none answered on its status port."""

    running: bool = False
    reason: str | None = None  # why it is not ready
    hotkeys: frozenset[str] = frozenset()
    last_request: float = 0.0  # seconds since 1970; 0: never
    started: float = 0.0
    outcomes: Mapping[str, float] = field(default_factory=dict)  # requests by outcome
    plan: RunOptions | None = None
    cores: int = 0  # that it may use
    quota: float | None = None
    memory: Mapping[str, float] = field(default_factory=dict)  # bytes by kind, as it and its cgroup have them
    clock_ahead: float | None = None  # seconds, of the callers of the last hour; None: nobody asked
    fault: str = ""  # of what answers there and is no miner
    reload_fault: str = ""  # why the last reload failed


@dataclass(frozen=True, slots=True)
class PortFacts:
    """Whether the validators' port answers here (the miner runs), or could be listened on (it does not)."""

    host: str
    port: int
    fault: str = ""


@dataclass(frozen=True, slots=True)
class ReachFacts:
    """What somebody outside saw; `reached` None: nobody was asked, or the words say what is wrong with the probe."""

    address: str
    reached: bool | None = None
    words: str = ""


def own_facts(facts: RunningFacts, hotkey: str) -> RunningFacts:
    """Return what is known of our own miner: what serves other hotkeys proves nothing for this one."""
    return facts if not hotkey or not facts.hotkeys or hotkey in facts.hotkeys else RunningFacts()


def read_running(settings: Settings) -> RunningFacts:
    """Ask the status port."""
    try:
        with httpx.Client(base_url=settings.status_address, timeout=LOCAL_SECONDS, trust_env=False) as client:
            answer = client.get("/readyz", headers={"accept": "application/json"}).json()
            samples = client.get("/metrics").text
            last = client.get("/status").json().get("reload") or {}
        reason = answer.get("hotkeys", {}).get(settings.wallet_hotkey, answer["reason"])
        return replace(read_samples(samples, reason), reload_fault=last["text"] if last.get("ok") is False else "")
    except (httpx.ConnectError, httpx.ConnectTimeout):
        return RunningFacts()
    except httpx.HTTPError as error:
        return RunningFacts(fault=f"what listens there does not answer ({type(error).__name__})")
    except (ValueError, KeyError, TypeError, AttributeError):
        return RunningFacts(fault="what answers there is no miner")


def read_samples(text: str, reason: str | None) -> RunningFacts:
    """Read what matters of a scrape.

    Raises:
        ValueError: it is no miner's.
    """
    values: dict[str, float] = {}
    outcomes: dict[str, float] = {}
    memory: dict[str, float] = {}
    hotkeys = set()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = sample.name.removeprefix(PREFIX)
            values[name] = sample.value
            if name == "requests_total":
                outcome = sample.labels["outcome"]
                outcomes[outcome] = outcomes.get(outcome, 0.0) + sample.value
            elif name == "memory_bytes":
                memory[sample.labels["kind"]] = sample.value
            elif name == "identity_info":
                hotkeys.add(sample.labels["hotkey"])
    if "build_info" not in values:
        raise ValueError("no metrics of a miner")
    last, started = values.get("last_request_timestamp_seconds", 0.0), values.get("start_time_seconds", 0.0)
    slots, cores, quota = int(values.get("slots", 0)), int(values.get("cores", 0)), values.get("cpu_quota_cores", inf)
    ahead = values.get("clock_ahead_seconds", inf)
    return RunningFacts(
        True, reason, frozenset(hotkeys), last, started, outcomes,
        # A miner that loads its model still has no plan.
        plan=RunOptions(slots, int(values["threads_per_slot"])) if slots and cores else None,
        cores=cores,
        quota=quota if isfinite(quota) else None,
        memory=memory,
        clock_ahead=ahead if isfinite(ahead) else None,
    )  # fmt: skip


def judge_running(facts: RunningFacts, hotkey: str, *, registered: bool | None) -> Finding:
    """Judge whether the miner serves; that it waits for its registration is another line's problem."""
    name = "miner"
    if facts.fault:
        return problem(
            name, f"not running, and STATUS_PORT is taken: {facts.fault}", "give the miner a port of its own"
        )
    if not facts.running:
        return warning(name, "not running", "roadwork-miner run, or systemctl start roadwork-miner@NAME")
    if hotkey and facts.hotkeys and hotkey not in facts.hotkeys:
        return problem(
            name,
            f"the one on STATUS_PORT serves another hotkey, {', '.join(sorted(facts.hotkeys))}",
            "stop that one, or give this one a STATUS_PORT and a MINER_AXON_PORT of its own",
        )
    if facts.reason is None and facts.reload_fault:
        return warning(
            name,
            f"running and ready with the model of before: the last reload failed: {facts.reload_fault}",
            "mend that, then roadwork-miner reload",
        )
    if facts.reason is None:
        return ok(name, "running and ready")
    if registered is False:
        return warning(name, f"running, not ready: {facts.reason}")
    return problem(
        name, f"running, not ready: {facts.reason}", "its log says more; it gets ready by itself once that is gone"
    )


def judge_asked(facts: RunningFacts, now: float) -> Finding:
    """Judge when a validator last asked, and whether those who asked were let in."""
    name = "asked"
    if not facts.running:
        return warning(name, "not known: the miner is not running")
    refused = {key: int(facts.outcomes.get(key, 0)) for key in ("unauthorised", "forbidden")}
    counts = ", ".join(f"{count} {key}" for key, count in refused.items() if count)
    if facts.last_request:
        words = f"last {in_words(now - facts.last_request)} ago{f'; {counts}' if counts else ''}"
        if now - facts.last_request > QUIET_SECONDS:
            return warning(name, words, "look at reachable, address and validators")
        return ok(name, words)
    up = now - facts.started
    if refused["unauthorised"]:
        return warning(
            name, f"never with success; {counts}", "look at clock; or somebody asks with another hotkey in mind"
        )
    words = f"never in {in_words(up)} of running{f'; {counts}' if counts else ''}"
    return ok(name, words) if up < QUIET_SECONDS else warning(name, words, "look at reachable, address and validators")


def read_port(settings: Settings, *, running: bool) -> PortFacts:
    """Connect to the port if the miner runs, else listen on it for a moment."""
    host, port = settings.miner_axon_host, settings.miner_axon_port
    try:
        if running:
            socket.create_connection((EVERYWHERE.get(host, host), port), timeout=LOCAL_SECONDS).close()
            return PortFacts(host, port)
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(1)
        return PortFacts(host, port)
    except OSError as error:
        taken = (
            "taken by another process" if error.errno == errno.EADDRINUSE else (error.strerror or str(error)).lower()
        )
        return PortFacts(host, port, taken)


def judge_port(facts: PortFacts, *, running: bool) -> Finding:
    """Judge the validators' port from this side."""
    name = "port"
    if facts.fault:
        return problem(
            name,
            f"MINER_AXON_PORT={facts.port} on {facts.host}: {facts.fault}",
            f"ss -ltnp 'sport = :{facts.port}' names who has it; free it, or set another port",
        )
    return ok(name, f"{facts.host}:{facts.port} {'answers here' if running else 'is free'}")


async def read_reach(address: str, host: str, port: int, probe: str | None) -> ReachFacts:
    """Ask the caller's probe, an URL: host and port replace `{host}` and `{port}` in it, or are added to it as a query.

    It answers 200 if it could connect, and 200 with the JSON `{"reachable": false}` if it could not. Whatever else
    comes says nothing of our port: a proxy's error page is no word of the probe's.
    """
    if probe is None:
        return ReachFacts(address)
    filled = probe.replace("{host}", host).replace("{port}", str(port))
    query = {} if filled != probe else {"host": host, "port": str(port)}
    try:
        url, body = httpx.URL(filled).copy_merge_params(query), b""
        async with httpx.AsyncClient(timeout=PROBE_SECONDS) as client, client.stream("GET", url) as response:
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > PROBE_BYTES:
                    break
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return ReachFacts(address, None, str(error) or type(error).__name__)
    if response.status_code != httpx.codes.OK:
        return ReachFacts(address, None, f"it answered {response.status_code}")
    said: Any = None
    with contextlib.suppress(ValueError, RecursionError):
        said = json.loads(body)
    reachable = said.get("reachable", True) if isinstance(said, dict) else True
    if reachable is False:
        return ReachFacts(address, False, "the probe could not connect")
    if reachable is not True:
        return ReachFacts(address, None, f"it answered reachable={reachable!r}, which is neither true nor false"[:200])
    if response.headers.get("content-type", "").startswith("text/html"):
        return ReachFacts(address, None, "it answered with a web page, as a sign-in page does")
    return ReachFacts(address, True, "the probe could connect")


def judge_reach(facts: ReachFacts, running: RunningFacts, now: float, hotkey: str, host: str | None) -> Finding:
    """Judge the port from outside; a validator that came through lately is a probe as well.

    Args:
        facts: what was seen from outside.
        running: what the miner says of itself.
        now: seconds since 1970.
        hotkey: ours, for what is to be done.
        host: that the validators' port listens on; None: nobody is to come from elsewhere.
    """
    name = "reachable"
    if facts.reached:
        return ok(name, f"{facts.address}: {facts.words}")
    closed = facts.reached is False and running.running
    if host is not None and is_loopback(host) and (closed or facts.reached is None):
        here = f"{facts.address}: MINER_AXON_HOST={host} is reached from this machine only"
        todo = "set MINER_AXON_HOST=0.0.0.0; or have a proxy here hand connections on, and give --probe URL to prove it"
        return problem(name, f"{here}; {facts.words}" if closed else here, todo)
    if closed:
        return problem(
            name,
            f"{facts.address} can't be reached from outside: {facts.words}",
            "open the port in the firewall, the provider's rules and the router's forwarding",
        )
    asked = ""
    if running.last_request and now - running.last_request < QUIET_SECONDS:
        asked = f"{facts.address}: somebody asked {in_words(now - running.last_request)} ago"
    if facts.reached is None and facts.words:
        words = f"the probe is broken: {facts.words}"
        return warning(name, f"{words}; {asked}" if asked else words, f"have it {PROBE_ANSWERS}")
    if asked and facts.reached is None:
        return ok(name, asked)
    there, _, port = facts.address.rpartition(":")
    return warning(
        name,
        "not tried from outside" if facts.reached is None else f"{facts.words}, but the miner is not running",
        f"from another machine: roadwork-miner query photo.jpg --host {there.strip('[]')} --port {port} "
        f"--receiver {hotkey or 'HOTKEY'} (a 403 proves it too); or give --probe URL",
    )


def in_words(seconds: float) -> str:
    """Return a duration as people say it."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
