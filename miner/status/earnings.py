"""The earnings: what the chain says of money, for the page, `top`, `/status` and the metrics."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import get_args

from pydantic import BaseModel, ConfigDict

from miner.chain import earnings as chain
from miner.chain.earnings import Change, MachineCost, Metagraph, Pay
from miner.chain.identities import Identity
from miner.chain.market import Market, changed_words
from miner.formats import age, number, share
from miner.metrics import Metrics
from miner.settings.settings import Settings

UNSAID = "the chain doesn't say"
PAY_WORDS: dict[str, str] = {
    "paid": "miners are paid",
    "half_burned": "miners are paid, and half or more is burned",
    "burned": "burned: miners get nothing",
    "one_paid": "one single miner gets it all",
    "halted": "halted: no miner has any incentive",
    "nothing_emitted": "the subnet emits nothing",
    "no_validators": "no validator set weights lately",
    "no_consensus": "without consensus: incentive is not how miners are paid",
}


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class KeyEarnings(_Part):
    """What one of our hotkeys earns; None: the chain does not say, or it is not registered."""

    name: str  # in its wallet
    hotkey: str
    standing: str | None = None
    rank: int | None = None  # among those who earn; None: it earns nothing
    shared: int | None = None  # how many others have the same incentive
    alpha_per_day: float | None = None
    tao_per_day: float | None = None
    immunity_seconds: float | None = None
    registrations_to_replacement: int | None = None
    replacement: str | None = None
    collateral_alpha: float | None = None


class EarningsView(_Part):
    """What the subnet pays, costs and risks; None: the chain does not say, and `unsaid` may have the reason."""

    age_seconds: float | None  # None: not read yet
    fault: str | None  # of the last read
    name: str | None = None  # "": the subnet has none
    owner: str | None = None
    registered_at: int | None = None
    changed: Change = ""
    changed_words: str = ""
    is_named_as_ours: bool | None = None  # None: not told, or no network where StreetVision is
    pay: Pay | None = None
    burned: float | None = None
    weights_age_seconds: float | None = None
    earners: int | None = None
    miners: int | None = None
    registration_cost_tao: float | None = None
    registration_cost_rise: float | None = None
    registration_locked: float | None = None
    alpha_price_tao: float | None = None
    machine_cost_tao_per_month: float | None = None
    unsaid: dict[str, str] = {}
    keys: list[KeyEarnings] = []


def earnings_view(identities: Sequence[Identity], settings: Settings) -> EarningsView | None:
    """Return what the chain says of money; None: there is no chain."""
    market = next((identity.market for identity in identities if identity.market is not None), None)
    if market is None:
        return None
    graph, cost = market.graph, MachineCost.of(settings.cost_per_month, settings.tao_price)
    month = cost.tao if cost is not None else None
    if graph is None:
        return EarningsView(age_seconds=None, fault=market.fault, machine_cost_tao_per_month=month)
    own = [identity.hotkey for identity in identities if identity.hotkey]
    earners, miners = chain.miners_of(graph, own)
    return EarningsView(
        age_seconds=market.age,
        fault=market.fault,
        name=graph.name,
        owner=graph.owner_coldkey,
        registered_at=graph.registered_at,
        changed=market.change,
        is_named_as_ours=_is_named_as_ours(settings, graph),
        changed_words=changed_words(market.change, market.memory, graph) if market.change else "",
        pay=chain.pay_of(graph, own),
        burned=chain.burned_share(graph),
        weights_age_seconds=chain.weights_age(graph),
        earners=earners,
        miners=miners,
        registration_cost_tao=graph.cost,
        registration_cost_rise=market.rise,
        registration_locked=graph.lock_share,
        alpha_price_tao=graph.price,
        machine_cost_tao_per_month=month,
        unsaid=dict(graph.unsaid),
        keys=[key_earnings(graph, identity.name, identity.hotkey) for identity in identities if identity.hotkey],
    )


def key_earnings(graph: Metagraph, name: str, hotkey: str) -> KeyEarnings:
    """Return what one hotkey earns."""
    own, standing = graph.member(hotkey), chain.standing_of(graph, hotkey)
    if own is None or standing is None:
        return KeyEarnings(name=name, hotkey=hotkey)
    income, blocks = chain.income_of(graph, own), chain.immune_blocks(graph, own)
    risk = chain.replacement_of(graph, hotkey)
    return KeyEarnings(
        name=name,
        hotkey=hotkey,
        standing=str(standing),
        rank=standing.rank,
        shared=standing.shared,
        alpha_per_day=income.alpha if income is not None else None,
        tao_per_day=income.tao if income is not None else None,
        immunity_seconds=blocks * graph.block_seconds if blocks is not None else None,
        registrations_to_replacement=risk.registrations if risk is not None else None,
        replacement=str(risk) if risk is not None else None,
        collateral_alpha=graph.collateral.get(hotkey),
    )


def earnings_of(view: EarningsView | None, hotkey: str) -> KeyEarnings:
    """Return what is known of one of our hotkeys."""
    known = (key for key in (view.keys if view is not None else ()) if key.hotkey == hotkey)
    return next(known, KeyEarnings(name="", hotkey=hotkey))


# -- the card ----------------------------------------------------------------------------------------------------------


def rows(view: EarningsView | None) -> list[tuple[str, str]]:
    """Return names and values of the card: what is earned, by all hotkeys together, then how we stand and the subnet.

    How each of several hotkeys stands is in their table.
    """
    if view is None or view.age_seconds is None:
        return []
    place = _place(view.keys[0], view.earners) if len(view.keys) == 1 else _places(view.keys)
    return [
        *_income(view),
        *place,
        ("subnet", _subnet(view)),
        ("pay", PAY_WORDS.get(view.pay or "", UNSAID)),
        ("burned", share(view.burned) if view.burned is not None else UNSAID),
        ("weights set", "never" if view.weights_age_seconds is None else f"{age(view.weights_age_seconds)} ago"),
        ("registration", _registration(view)),
        ("price of alpha", _tao(view.alpha_price_tao)),
    ]


def note(view: EarningsView | None, network: str) -> str:
    """Return what stands below the card, or in place of its rows."""
    if network == "standalone":
        return "standalone: no chain is contacted, nothing is earned"
    if view is None or view.age_seconds is None:
        return (view.fault if view is not None else None) or "not read yet"
    changed = f"changed hands: {view.changed_words}" if view.changed else ""
    return "; ".join(filter(None, (changed, _first_lost(view.keys), view.fault, f"as of {age(view.age_seconds)} ago")))


def _subnet(view: EarningsView) -> str:
    if view.name is None:
        return UNSAID
    other = ", not StreetVision's name" if view.is_named_as_ours is False else ""
    return f"{view.name or 'without a name'}{other}{', changed hands' if view.changed else ''}"


def _income(view: EarningsView) -> list[tuple[str, str]]:
    """Return what our hotkeys earn together, and what is left once the machine is paid."""
    registered = [key for key in view.keys if key.standing is not None]
    cost = view.machine_cost_tao_per_month
    machine = [("machine a month", _tao(cost))] if cost is not None else []
    if not registered:
        return machine
    tao, alpha = _sum(key.tao_per_day for key in registered), _sum(key.alpha_per_day for key in registered)
    month = None if tao is None else tao * chain.MONTH_DAYS
    left = [] if cost is None or month is None else [("left a month", _tao(month - cost))]
    found = (("TAO a day", tao), ("TAO a month", month))
    return [
        *((name, UNSAID if value is None else digits(value)) for name, value in found),
        *left,
        *machine,
        ("alpha a day", UNSAID if alpha is None else digits(alpha)),
    ]


def _sum(values: Iterable[float | None]) -> float | None:
    """Return the sum of what is known; None: nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _place(key: KeyEarnings, earners: int | None) -> list[tuple[str, str]]:
    """Return how the only hotkey stands."""
    if key.standing is None:
        return [("standing", "not registered")]
    if key.rank is None:
        found = [("standing", key.standing)]
    else:
        shared = f", shared with {key.shared}" if key.shared else ""
        found = [("rank", f"{key.rank} of {earners} who earn{'s' * (earners == 1)}{shared}")]
    found.append(("uid lost after", _lost_after(key)))
    if key.immunity_seconds:
        found.append(("immune for", age(key.immunity_seconds)))
    if key.collateral_alpha:
        found.append(("collateral", f"{digits(key.collateral_alpha)} alpha"))
    return found


def _places(keys: Sequence[KeyEarnings]) -> list[tuple[str, str]]:
    return [("hotkeys", f"{sum(key.rank is not None for key in keys)} of {len(keys)} earn")] if keys else []


def _lost_after(key: KeyEarnings) -> str:
    if key.replacement is None:
        return UNSAID
    count = key.registrations_to_replacement
    return "not at risk" if count is None else f"{number(count)} registration{'s' * (count != 1)}"


def _first_lost(keys: Sequence[KeyEarnings]) -> str:
    """Return which of several hotkeys loses its uid first; empty: none does, or there is one."""
    counts = [(key.registrations_to_replacement, key) for key in keys if key.registrations_to_replacement is not None]
    if len(keys) < 2 or not counts:
        return ""
    _, key = min(counts, key=lambda pair: pair[0])
    return f"{key.name} is the first to lose its uid, after {_lost_after(key)}"


def _registration(view: EarningsView) -> str:
    rise, locked = view.registration_cost_rise, view.registration_locked
    parts = [_tao(view.registration_cost_tao)]
    if locked:
        parts.append(f"{share(locked)} of it locked")
    if rise is not None and rise >= chain.COST_TRIPLED:
        parts.append(f"{rise:.1f} × the least of the last day")
    return ", ".join(parts)


def _tao(value: float | None) -> str:
    return UNSAID if value is None else f"{'−' if value < 0 else ''}{digits(abs(value))} TAO"


def digits(value: float) -> str:
    """Return the four digits that matter: what is earned may be thousands, or a thousandth."""
    if value == 0 or value >= 1000:
        return number(value)
    text = f"{value:.{max(3 - math.floor(math.log10(value)), 0)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


# -- the metrics -------------------------------------------------------------------------------------------------------


def show_earnings(metrics: Metrics, market: Market, identities: Sequence[Identity], settings: Settings) -> None:
    """Export what the chain says of money from now on."""
    own = [identity.hotkey for identity in identities if identity.hotkey]

    def of_graph(read: Callable[[Metagraph], float | None]) -> Callable[[], float | None]:
        return lambda: read(market.graph) if market.graph is not None else None

    add = {name: readings.add for name, readings in metrics.earnings.items()}
    add["registration_cost_tao"](of_graph(lambda graph: graph.cost))
    add["registration_locked_ratio"](of_graph(lambda graph: graph.lock_share))
    add["registration_cost_rise"](lambda: market.rise)
    add["alpha_price_tao"](of_graph(lambda graph: graph.price))
    add["subnet_burned_ratio"](of_graph(chain.burned_share))
    add["subnet_weights_age_seconds"](of_graph(chain.weights_age))
    add["earnings_age_seconds"](lambda: market.age if market.graph is not None else None)
    for state in get_args(Pay):
        add["subnet_pay"](of_graph(partial(_is_state, state, own)), state)
    for what in ("owner", "registration"):
        add["subnet_changed"](of_graph(partial(_is_changed, market, what)), what)
    add["subnet_changed"](of_graph(partial(_is_renamed, settings)), "name")
    for earns, read in (("yes", _earners), ("no", _idle)):
        add["subnet_miners"](of_graph(partial(read, own)), earns)
    cost = MachineCost.of(settings.cost_per_month, settings.tao_price)
    add["machine_cost_tao_per_day"](lambda: cost.tao / chain.MONTH_DAYS if cost is not None else None)
    metrics.subnet.add(partial(_identity, market, settings.netuid))
    for identity in identities:
        if identity.hotkey:
            for name, read_key in OF_A_KEY.items():
                add[name](of_graph(partial(_of_hotkey, read_key, identity.hotkey)), identity.hotkey)


OF_A_KEY: dict[str, Callable[[KeyEarnings], float | None]] = {
    "income_alpha_per_day": lambda key: key.alpha_per_day,
    "income_tao_per_day": lambda key: key.tao_per_day,
    "incentive_rank": lambda key: key.rank,
    "immunity_seconds": lambda key: key.immunity_seconds,
    "registrations_to_replacement": lambda key: key.registrations_to_replacement,
    "collateral_alpha": lambda key: key.collateral_alpha,
}


def _of_hotkey(read: Callable[[KeyEarnings], float | None], hotkey: str, graph: Metagraph) -> float | None:
    return read(key_earnings(graph, "", hotkey))


def _is_state(state: Pay, own: Sequence[str], graph: Metagraph) -> float | None:
    pay = chain.pay_of(graph, own)
    return None if pay is None else float(pay == state)


def _is_changed(market: Market, what: str, _: Metagraph) -> float | None:
    return float(market.change == what) if market.memory.first is not None else None


def _is_named_as_ours(settings: Settings, graph: Metagraph) -> bool | None:
    is_home = chain.HOMES.get(settings.subtensor_network) == settings.netuid
    return chain.is_named_as_ours(graph) if is_home else None


def _is_renamed(settings: Settings, graph: Metagraph) -> float | None:
    is_ours = _is_named_as_ours(settings, graph)
    return None if is_ours is None else float(not is_ours)


def _earners(own: Sequence[str], graph: Metagraph) -> float:
    return chain.miners_of(graph, own)[0]


def _idle(own: Sequence[str], graph: Metagraph) -> float:
    earners, miners = chain.miners_of(graph, own)
    return miners - earners


def _identity(market: Market, netuid: int) -> tuple[str, ...] | None:
    graph = market.graph
    if graph is None:
        return None
    return str(netuid), graph.name or "", graph.owner_coldkey or "", str(graph.registered_at or "")
