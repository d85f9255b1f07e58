"""The check-up of the chain: can it be read, are we on it, and does it pay anybody?"""

import asyncio
import re
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import httpx

from detectors.redact import shown
from miner.axon.caller import Rules, judge
from miner.chain import earnings
from miner.chain.base import Snapshot
from miner.chain.earnings import Income, MachineCost, Metagraph
from miner.chain.market import MarketMemory, changed_words
from miner.chain.publication import SERVICES
from miner.chain.queries import UNPUBLISHED, ChainHead, PublishedEndpoint, PublishedRecord
from miner.chain.sync import register_command
from miner.doctor.daemon import in_words
from miner.doctor.findings import Finding, ok, problem, warning
from miner.errors import Forbidden
from miner.settings.addresses import why_unreachable

AHEAD_LIMIT = 11.0  # seconds; 4 and the validators' 9, less the time a request is on its way
BEHIND_LIMIT = 4.0
NTP_HINT = "timedatectl set-ntp true (or install chrony), then look at timedatectl"


@dataclass(frozen=True, slots=True)
class ChainFacts:
    """What the chain answered; the fault says why a part is missing."""

    address: str
    head: ChainHead | None = None
    subnet: Metagraph | None = None
    published: PublishedRecord = UNPUBLISHED
    memory: MarketMemory | None = None  # what the miner remembers; None: unread
    fault: str = ""
    is_unreadable: bool = False  # the endpoint spoke, and the SDK did not understand what it said of the subnet


@dataclass(frozen=True, slots=True)
class ChainIdentity:
    """Who we are there."""

    netuid: int
    wallet: str
    hotkey: str  # "": it can't be read
    network: str
    others: tuple[str, ...] = ()  # hotkeys that this miner serves too


def judge_chain(facts: ChainFacts) -> Finding:
    """Judge whether the endpoint answers."""
    name = "chain"
    if facts.head is None:
        return problem(
            name,
            f"{shown(facts.address)} can't be read: {facts.fault}",
            "try another endpoint in SUBTENSOR_CHAIN_ENDPOINT; the miner goes on by its last read for a while",
        )
    if facts.subnet is None and not facts.is_unreadable:
        return problem(name, f"{shown(facts.address)}: {facts.fault}", "look at NETUID and SUBTENSOR_NETWORK")
    return ok(name, f"{shown(facts.address)} is at block {facts.head.block}")


def judge_sdk(facts: ChainFacts, version: str) -> Finding:
    """Judge whether this SDK understands the chain's runtime; a runtime may change its types at any upgrade."""
    name = "sdk"
    if not re.match(r"11\.([3-9]|\d\d)\b", version):
        return problem(name, f"bittensor {version} is installed; 11.3 or later, below 12, is needed", "make setup")
    if facts.head is None:
        return _unread(name)
    said = f"bittensor {version}, runtime {facts.head.spec_version}"
    if facts.is_unreadable:
        return problem(
            name, f"{said}: {facts.fault}", "update roadwork-miner and with it bittensor: git pull && make setup"
        )
    return ok(name, said)


def judge_registration(facts: ChainFacts, who: ChainIdentity) -> Finding:
    """Judge whether we have a uid."""
    name = "registration"
    if facts.subnet is None:
        return _unread(name)
    if not who.hotkey:
        return _no_hotkey(name)
    uid = own_uid(facts.subnet, who.hotkey)
    if uid is None:
        return problem(
            name,
            f"hotkey {who.hotkey} is not registered on subnet {who.netuid} of {shown(who.network)}",
            f"where its coldkey is: {register_command(who.netuid, who.wallet, who.hotkey, who.network)}",
        )
    return ok(name, f"uid {uid} of {len(facts.subnet.members)} on subnet {who.netuid}")


def judge_standing(facts: ChainFacts, who: ChainIdentity) -> Finding:
    """Judge how we stand among those who earn, and whether we are about to be replaced."""
    name = "standing"
    graph = facts.subnet
    if graph is None:
        return _unread(name)
    own, standing = graph.member(who.hotkey), earnings.standing_of(graph, who.hotkey)
    if own is None or standing is None:
        return warning(name, "none: not registered") if who.hotkey else _no_hotkey(name)
    left, risk = earnings.immune_blocks(graph, own), earnings.replacement_of(graph, who.hotkey)
    immune = "no longer immune" if left == 0 else f"immune for {in_words((left or 0) * graph.block_seconds)}"
    parts = [f"incentive {standing.incentive:.4f}, {standing}", immune if left is not None else "", str(risk or "")]
    words = "; ".join(filter(None, parts))
    if risk is not None and risk.is_near:
        return warning(name, words, "answer more and better, soon: whoever earns least goes first")
    return ok(name, words)


def judge_address(
    facts: ChainFacts, who: ChainIdentity, ours: PublishedEndpoint | str, host: str, *, running: bool
) -> Finding:
    """Judge whether validators find us; `ours` is a text where our address could not be found out.

    What nobody could reach is a problem before anything else is: a registration would be paid for in vain.
    """
    name = "address"
    unreachable = why_unreachable(ours.ip, host) if isinstance(ours, PublishedEndpoint) else None
    if unreachable is not None:
        return problem(
            name, f"{ours}: {unreachable}", "set AXON_EXTERNAL_IP to the public address that leads to MINER_AXON_HOST"
        )
    if facts.subnet is None:
        return _unread(name)
    if not who.hotkey:
        return _no_hotkey(name)
    if own_uid(facts.subnet, who.hotkey) is None:
        return warning(name, "none on chain: not registered")
    theirs = facts.published.endpoint
    stands = _on_chain(theirs, host)
    if isinstance(ours, str):
        return problem(name, f"{ours}; the chain has {stands}", "set AXON_EXTERNAL_IP to this machine's address")
    if theirs is None and not running:
        return warning(name, "none on chain yet", "the miner publishes it when it runs")
    if theirs is None or (theirs.ip, theirs.port) != (ours.ip, ours.port):
        return problem(
            name,
            f"the chain has {stands}, this machine is {ours}",
            "the running miner publishes it as soon as the rate limit allows (its log says when); "
            "if ours is wrong, set AXON_EXTERNAL_IP and AXON_EXTERNAL_PORT",
        )
    return ok(name, f"{theirs}, published at block {facts.published.block}")


def judge_validators(facts: ChainFacts) -> Finding:
    """Judge whether anybody is there to ask."""
    name = "validators"
    if facts.subnet is None or facts.head is None:
        return _unread(name)
    permitted = [member for member in facts.subnet.members if member.neuron.validator_permit]
    active = earnings.active_validators(facts.subnet)
    span = f"the last {facts.subnet.cutoff} blocks ({in_words(facts.subnet.cutoff * facts.head.block_seconds)})"
    words = f"{len(active)} of {len(permitted)} with a permit were active in {span}"
    if not active:
        return problem(
            name, words, "nobody can be earned from: ask in the subnet's channel before you pay for anything"
        )
    return ok(name, words)


def judge_rules(facts: ChainFacts, rules: Rules) -> Finding:
    """Judge whether our own rules let the active validators in."""
    name = "rules"
    if facts.subnet is None:
        return _unread(name)
    neurons = {member.neuron.hotkey: member.neuron for member in facts.subnet.members}
    snapshot = Snapshot(facts.subnet.block, 0.0, neurons)
    active = earnings.active_validators(facts.subnet)
    if not active:
        return warning(name, "not tried: no validator is active")
    let_in = sum(_is_let_in(hotkey, snapshot, rules) for hotkey in active)
    words = f"{let_in} of {len(active)} active validators are let in"
    todo = "look at BLACKLIST_MIN_STAKE and BLACKLIST_DENY_HOTKEYS"
    if not let_in:
        return problem(name, words, todo)
    return ok(name, words) if let_in == len(active) else warning(name, words, todo)


def judge_pay(facts: ChainFacts, who: ChainIdentity, costs: MachineCost | None = None) -> Finding:
    """Judge whether miners are paid: what goes to the owner's keys is burned, and halted scoring pays nobody."""
    name = "pay"
    graph = facts.subnet
    if graph is None:
        return _unread(name)
    wait = "no registration pays off while this lasts: ask in the subnet's channel"
    ours = (who.hotkey, *who.others)
    pay, burned = earnings.pay_of(graph, ours), earnings.burned_share(graph)
    if pay == "no_consensus":
        return warning(
            name, "not known: this subnet runs without consensus, where incentive is not how miners are paid"
        )
    if pay == "no_validators":
        return warning(name, "not known: no validator is active")
    if pay == "halted":
        return problem(name, "halted: no miner has any incentive", wait)
    if pay == "nothing_emitted":
        return problem(name, "the subnet emits nothing, to miners or validators", wait)
    if pay == "burned":
        return problem(
            name, f"burning: {burned:.0%} of the miners' part goes to the subnet's owner, that is nowhere", wait
        )
    if pay == "one_paid":
        top = max(graph.members, key=lambda member: member.neuron.incentive).neuron
        return problem(name, f"all incentive goes to uid {top.uid}: burned, or nobody else is paid", wait)
    paid = sum(member.neuron.incentive > 0 for member in graph.members)
    said = "how much of it is burned is not known" if burned is None else f"{burned:.0%} of it is burned"
    words = f"{paid} of {len(graph.members)} have incentive, {said}"
    incomes = [income for hotkey in ours if (income := _income(graph, hotkey)) is not None]
    whole = Income(sum(income.alpha for income in incomes), graph.price) if incomes else None
    if whole is not None:
        words += f"; {f'with {len(incomes)} hotkeys ' if len(incomes) > 1 else ''}we earn {whole}"
    if pay == "half_burned" or pay is None:
        return warning(name, words, "reckon with what is left" if pay else "ask in the subnet's channel what is burned")
    if whole is not None and costs is not None and costs.is_covered(whole) is False:
        return warning(
            name, f"{words}, and the machine costs {costs.tao:.4g} TAO a month", "it costs more than it earns"
        )
    return ok(name, words)


def _income(graph: Metagraph, hotkey: str) -> Income | None:
    own = graph.member(hotkey)
    return earnings.income_of(graph, own) if own is not None else None


def judge_subnet(facts: ChainFacts, who: ChainIdentity) -> Finding:
    """Judge whether the subnet is still the one we knew: one may be sold, or replaced under its number."""
    name = "subnet"
    graph, memory = facts.subnet, facts.memory
    if graph is None:
        return _unread(name)
    if graph.owner_coldkey is None or graph.registered_at is None:
        return warning(name, f"the chain does not say whose {who.netuid} is")
    called = "has no name on chain" if not graph.name else f"is {graph.name!r}"
    words = f"{who.netuid} {called}, owned by {graph.owner_coldkey}, since block {graph.registered_at}"
    change = earnings.change_since(memory.first, graph) if memory is not None else ""
    if memory is not None and change:
        told = f"changed hands: {changed_words(change, memory, graph)}; {words}"
        todo = f"ask in the subnet's channel who validates now; to go by the new one from now on, delete {memory.path}"
        return problem(name, told, todo) if change == "registration" else warning(name, told, todo)
    if earnings.is_named_as_ours(graph) is False:
        todo = "StreetVision is expected there: look at NETUID and SUBTENSOR_NETWORK, and at the subnet's channel"
        return warning(name, words, todo)
    return ok(name, words)


def judge_cost(facts: ChainFacts, now: float) -> Finding:
    """Judge what a registration costs, against the last day as far as the miner has seen it."""
    name = "cost"
    graph, memory = facts.subnet, facts.memory
    if graph is None:
        return _unread(name)
    if graph.cost is None:
        return warning(name, f"the chain does not say what a registration costs: {graph.unsaid.get('cost', '')}")
    words = f"{graph.cost:.4g} TAO to register"
    if graph.lock_share:
        words += f", of which {graph.lock_share:.0%} is locked as collateral"
    rise = memory.rise(graph.cost, now) if memory is not None else None
    if rise is not None and rise >= earnings.COST_TRIPLED:
        words += f"; {rise:.1f} times the least of the last day"
        return warning(name, words, "many register: whoever earns least is replaced, and a way back costs as much")
    return ok(name, words)


def own_uid(graph: Metagraph, hotkey: str) -> int | None:
    """Return our uid."""
    own = graph.member(hotkey)
    return own.neuron.uid if own is not None else None


def _is_let_in(hotkey: str, snapshot: Snapshot, rules: Rules) -> bool:
    try:
        judge(hotkey, snapshot, rules)
    except Forbidden:
        return False
    return True


def _on_chain(published: PublishedEndpoint | None, host: str) -> str:
    if published is None:
        return "none"
    unreachable = why_unreachable(published.ip, host)
    return f"{published} ({unreachable})" if unreachable is not None else str(published)


def _unread(name: str) -> Finding:
    return warning(name, "not read: look at chain")


def _no_hotkey(name: str) -> Finding:
    return warning(name, "not known without a hotkey")


async def ask_services(services: Sequence[str] = SERVICES, seconds: float = 5.0) -> float | None:
    """Return the seconds by which our clock is ahead of what web services date their answers; None: nobody answered.

    `seconds` limits each service, with the look-up of its name; all are asked at once.
    """
    async with httpx.AsyncClient(timeout=seconds) as client:
        answers = await asyncio.gather(*(_ask(client, service, seconds) for service in services))
    found = [answer for answer in answers if answer is not None]
    return statistics.median(found) if found else None


async def _ask(client: httpx.AsyncClient, service: str, seconds: float) -> float | None:
    asked = time.time()
    try:
        async with asyncio.timeout(seconds):
            response = await client.head(service)
        stamp = parsedate_to_datetime(response.headers["date"]).timestamp()
    except (httpx.HTTPError, OSError, KeyError, ValueError):  # TimeoutError is an OSError
        return None
    return (asked + time.time()) / 2 - (stamp + 0.5)  # whole seconds, cut off


def judge_clock(head: ChainHead | None, services: float | None, callers: float | None = None) -> Finding:
    """Judge our clock: by web services where they were asked, else by the time in the newest block.

    `callers` are the seconds by which it is ahead of those who asked the running miner in the last hour: where they
    would be refused, nothing else matters, but where web services disagree it may be they who are wrong.
    """
    name = "clock"
    if callers is not None and not -BEHIND_LIMIT <= callers <= AHEAD_LIMIT:
        words = f"{_off(callers)} of the callers who asked this miner: their requests are refused for clock skew"
        if services is None or not -BEHIND_LIMIT <= services <= AHEAD_LIMIT:
            return problem(name, words, NTP_HINT)
        return warning(name, f"{words}, though it is {_off(services)} of web services", "perhaps theirs is wrong")
    if services is not None:
        words = f"{_off(services)} of web services"
        if not -BEHIND_LIMIT <= services <= AHEAD_LIMIT:
            return problem(name, f"{words}: validators' requests look stale or from the future", NTP_HINT)
        return ok(name, words) if abs(services) <= BEHIND_LIMIT / 2 else warning(name, words, NTP_HINT)
    if head is None:
        return warning(name, "not compared: neither chain nor web services answered", NTP_HINT)
    low, high = head.ahead - head.slack, head.ahead
    if high < -BEHIND_LIMIT:
        return problem(name, f"{_off(high)} of the chain: validators' requests look as if from the future", NTP_HINT)
    if low > AHEAD_LIMIT:
        return problem(
            name,
            f"{_off(low)} of the chain's newest block: validators' requests look stale",
            f"{NTP_HINT}; if the clock is right, the node of SUBTENSOR_NETWORK is behind: take another",
        )
    words = f"{_off(0.0 if low <= 0 <= high else high if high < 0 else low)} of the chain"
    if high > AHEAD_LIMIT or high < -BEHIND_LIMIT / 2:
        return warning(name, words, NTP_HINT)
    return ok(name, words)


def _off(ahead: float) -> str:
    return f"{abs(ahead):.1f} s {'ahead' if ahead >= 0 else 'behind'}"
