"""The earnings: what the chain says of money, for the page, `top`, `/status` and the metrics."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import get_args

from pydantic import BaseModel, ConfigDict

from miner.chain import earnings as chain
from miner.chain.earnings import Change, MachineCost, Metagraph, Pay
from miner.chain.market import Market, changed_words
from miner.formats import age, number, share
from miner.identities import Identity
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


# -- the card ----------------------------------------------------------------------------------------------------------


def rows(view: EarningsView | None) -> list[tuple[str, str]]:
    """Return names and values of the card."""
    if view is None or view.age_seconds is None:
        return []
    several = len(view.keys) > 1
    found = [("subnet", _subnet(view)), ("pay", PAY_WORDS.get(view.pay or "", UNSAID))]
    for key in view.keys:
        found += [(f"{key.name}: {name}" if several else name, value) for name, value in _of_key(key)]
    return [
        *found,
        *_balance(view),
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
    return "; ".join(filter(None, (changed, view.fault, f"as of {age(view.age_seconds)} ago")))


def _subnet(view: EarningsView) -> str:
    if view.name is None:
        return UNSAID
    return f"{view.name or 'without a name'}{', changed hands' if view.changed else ''}"


def _of_key(key: KeyEarnings) -> list[tuple[str, str]]:
    if key.standing is None:
        return [("standing", "not registered")]
    alpha, tao = key.alpha_per_day, key.tao_per_day
    month = tao * chain.MONTH_DAYS if tao is not None else None
    ranked = key.rank is not None
    found = [
        ("rank" if ranked else "standing", key.standing.removeprefix("rank ")),
        *(
            (f"{name} a {span}", UNSAID if value is None else _digits(value))
            for name, span, value in (
                ("alpha", "day", alpha),
                ("TAO", "day", tao),
                ("TAO", "month", month),
            )
        ),
        ("replaced", _replaced(key)),
    ]
    if key.immunity_seconds:
        found.append(("immune for", age(key.immunity_seconds)))
    if key.collateral_alpha:
        found.append(("collateral", f"{_digits(key.collateral_alpha)} alpha"))
    return found


def _replaced(key: KeyEarnings) -> str:
    if key.replacement is None:
        return UNSAID
    number = key.registrations_to_replacement
    return "not yet" if number is None else "as the next" if number == 1 else f"as number {number}"


def _balance(view: EarningsView) -> list[tuple[str, str]]:
    """Return what the machine costs, against all that our hotkeys earn."""
    cost = view.machine_cost_tao_per_month
    if cost is None:
        return []
    incomes = [key.tao_per_day for key in view.keys if key.tao_per_day is not None]
    if not incomes:
        return [("machine a month", f"{_digits(cost)} TAO")]
    left = sum(incomes) * chain.MONTH_DAYS - cost
    sign = "−" if left < 0 else ""
    return [("machine a month", f"{_digits(cost)} TAO"), ("left a month", f"{sign}{_digits(abs(left))} TAO")]


def _registration(view: EarningsView) -> str:
    rise, locked = view.registration_cost_rise, view.registration_locked
    parts = [_tao(view.registration_cost_tao)]
    if locked:
        parts.append(f"{share(locked)} of it locked")
    if rise is not None and rise >= chain.COST_TRIPLED:
        parts.append(f"{rise:.1f} × of a day ago")
    return ", ".join(parts)


def _tao(value: float | None) -> str:
    return UNSAID if value is None else f"{_digits(value)} TAO"


def _digits(value: float) -> str:
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
