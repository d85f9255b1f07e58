"""What a subnet pays, and whom, by its metagraph: pure functions, for the page, the metrics and the check-up.

Whatever the chain does not say is None, never a zero.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import Field

from miner.chain import base
from miner.chain.base import ACTIVITY_CUTOFF, Neuron

RAO = 10**9  # of one TAO, and of one alpha
DAY_SECONDS = 86400.0
MONTH_DAYS = 30.0
BURNED_ALL = 0.99  # of the miners' part
BURNED_HALF = 0.5
COST_TRIPLED = 3.0  # times the least of the last day
NEAR_REGISTRATIONS = 3  # whoever goes with the third of them is about to be replaced
HOMES = {"finney": 72, "test": 323}  # netuids of StreetVision, by network
OWN_NAMES = ("streetvision", "natix")  # one of them is in the subnet's name as long as it is ours

Pay = Literal["paid", "half_burned", "burned", "one_paid", "halted", "nothing_emitted", "no_validators", "no_consensus"]


@dataclass(frozen=True, slots=True)
class SubnetMember:
    """One neuron, with its owner and what it gets."""

    neuron: Neuron
    coldkey: str
    emission: int  # rao of alpha per tempo, as a miner and a validator
    registered_at: int | None = None  # block


@dataclass(frozen=True, slots=True)
class Metagraph:
    """A subnet at one block: who is on it, what it pays, what it costs. Of what is None, `unsaid` has the reason."""

    block: int
    members: Sequence[SubnetMember]
    block_seconds: float = 12.0
    cutoff: int = ACTIVITY_CUTOFF  # blocks without an update after which the chain disregards a validator
    name: str | None = None  # "": it has none
    owner_hotkey: str | None = None
    owner_coldkey: str | None = None
    registered_at: int | None = None  # block at which the subnet began
    tempo: int | None = None  # blocks from one payment to the next
    burned: float | None = None  # the chain's own count: share of the miners' part that the owner's keys got
    cost: float | None = None  # TAO, of a registration
    lock_share: float | None = None  # of the cost, which is locked as collateral and not burned
    price: float | None = None  # TAO for one alpha, before slippage
    immunity: int | None = None  # blocks from a registration on
    capacity: int | None = None  # places for neurons
    owner_places: int | None = None  # of the owner's neurons, which are never replaced
    floor: int | None = None  # of neurons that are not immune: with no more, the immune are replaced
    has_consensus: bool | None = None  # False: incentive is not how miners are paid; None: older runtimes all have it
    collateral: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))  # alpha locked, by hotkey
    unsaid: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))  # reasons, by field

    def member(self, hotkey: str) -> SubnetMember | None:
        """Return a hotkey's place; None: not registered."""
        return next((member for member in self.members if member.neuron.hotkey == hotkey), None)


def active_validators(graph: Metagraph) -> list[str]:
    """Return the hotkeys with a permit that set weights lately."""
    neurons = (member.neuron for member in graph.members)
    return [neuron.hotkey for neuron in base.active_validators(neurons, graph.block, graph.cutoff)]


def weights_age(graph: Metagraph) -> float | None:
    """Return the seconds since a validator last set weights; None: none ever did."""
    last = max((member.neuron.last_update for member in graph.members if member.neuron.validator_permit), default=0)
    return max(graph.block - last, 0) * graph.block_seconds if last else None


def is_owners(graph: Metagraph, member: SubnetMember) -> bool:
    """Return whether a neuron is the subnet owner's: what it gets as a miner is burned."""
    return member.neuron.hotkey == graph.owner_hotkey or member.coldkey == graph.owner_coldkey


def burned_share(graph: Metagraph) -> float | None:
    """Return the share of the miners' part that is burned; None: the chain does not say.

    It does not where there is no incentive or no owner is known, and it does not count either.

    The incentives tell what will be burned, the chain's count what was with the last payment: the greater one.
    """
    total = sum(member.neuron.incentive for member in graph.members)
    owners = sum(member.neuron.incentive for member in graph.members if is_owners(graph, member))
    is_owned = graph.owner_hotkey is not None or graph.owner_coldkey is not None
    shares = (owners / total if total and is_owned else None, graph.burned)
    return max((share for share in shares if share is not None), default=None)


def pay_of(graph: Metagraph, ours: Collection[str] = ()) -> Pay | None:
    """Return how miners are paid; None: they are, and nobody knows how much of it is burned.

    `ours` are hotkeys that it would be well to find as the only ones paid.
    """
    total = sum(member.neuron.incentive for member in graph.members)
    if graph.has_consensus is False:
        return "no_consensus"
    if not active_validators(graph):
        return "no_validators"
    if not total:
        return "halted"
    if not any(member.emission for member in graph.members):
        return "nothing_emitted"
    burned = burned_share(graph)
    if burned is not None and burned >= BURNED_ALL:
        return "burned"
    top = max(graph.members, key=lambda member: member.neuron.incentive).neuron
    if top.incentive / total >= BURNED_ALL and top.hotkey not in ours:
        return "one_paid"
    if burned is None:
        return None
    return "half_burned" if burned >= BURNED_HALF else "paid"


@dataclass(frozen=True, slots=True)
class Standing:
    """A miner among the others; the owner's keys, and validators without incentive, are none."""

    incentive: float
    rank: int | None  # among those who earn; None: it earns nothing
    shared: int  # how many others have the same incentive
    earners: int
    miners: int

    def __str__(self) -> str:
        if self.rank is None:
            idle = self.miners - self.earners
            return (
                "earns nothing, like all others" if not self.earners else f"earns nothing, like {idle} of {self.miners}"
            )
        words = f"rank {self.rank} of {self.earners} who earn{'s' if self.earners == 1 else ''}"
        return f"{words}, shared with {self.shared}" if self.shared else words


def standing_of(graph: Metagraph, hotkey: str) -> Standing | None:
    """Return how a hotkey stands; None: not registered."""
    own = graph.member(hotkey)
    if own is None:
        return None
    miners = _miners(graph, {hotkey})
    mine = own.neuron.incentive
    rank = 1 + sum(miner.incentive > mine for miner in miners) if mine else None
    shared = sum(miner.incentive == mine for miner in miners) - 1
    return Standing(mine, rank, shared, sum(miner.incentive > 0 for miner in miners), len(miners))


def miners_of(graph: Metagraph, ours: Collection[str] = ()) -> tuple[int, int]:
    """Return how many miners earn, and how many there are; `ours` are hotkeys that mine in any case."""
    miners = _miners(graph, ours)
    return sum(miner.incentive > 0 for miner in miners), len(miners)


def _miners(graph: Metagraph, ours: Collection[str]) -> list[Neuron]:
    return [
        member.neuron
        for member in graph.members
        if member.neuron.hotkey in ours
        or (not is_owners(graph, member) and (member.neuron.incentive or not member.neuron.validator_permit))
    ]


def alpha_per_day(graph: Metagraph, member: SubnetMember) -> float | None:
    """Return what a neuron got with the last payment, times the payments in a day; None: the chain does not say.

    The chain keeps each neuron's emission of the last tempo (`Emission`, written by its `epoch`): that is what was
    paid, after the owner's cut, the validators' half and the split between mechanisms. Incentive times 41 % of the
    emission (`SubnetAlphaOutEmission`) would be right only for a subnet with none of the exceptions.
    """
    if not graph.tempo or graph.block_seconds <= 0 or graph.has_consensus is False:
        return None
    if is_owners(graph, member):
        return 0.0  # burned
    return member.emission / RAO * DAY_SECONDS / (graph.tempo * graph.block_seconds)


@dataclass(frozen=True, slots=True)
class Income:
    """What a neuron earns as of the last payment."""

    alpha: float  # a day
    price: float | None  # TAO for one alpha; None: the chain does not say

    @property
    def tao(self) -> float | None:
        """TAO a day, at today's price and before slippage."""
        return None if self.price is None else self.alpha * self.price

    def __str__(self) -> str:
        if self.tao is None:
            return f"{self.alpha:.4g} alpha a day"
        return f"{self.alpha:.4g} alpha a day = {self.tao:.4g} TAO, {self.tao * MONTH_DAYS:.4g} TAO a month"


def income_of(graph: Metagraph, member: SubnetMember) -> Income | None:
    """Return what a neuron earns; None: the chain does not say."""
    alpha = alpha_per_day(graph, member)
    return None if alpha is None else Income(alpha, graph.price)


@dataclass(frozen=True, slots=True)
class MachineCost:
    """What the machine costs a month, in TAO."""

    tao: float

    @classmethod
    def of(cls, per_month: float, tao_price: float) -> "MachineCost | None":
        """Return it; None: not told. Without a price of TAO in the operator's currency, the cost is in TAO."""
        return cls(per_month / (tao_price or 1.0)) if per_month else None

    def is_covered(self, income: Income) -> bool | None:
        """Return whether an income pays for it; None: its worth is not known."""
        return None if income.tao is None else income.tao * MONTH_DAYS >= self.tao


def immune_blocks(graph: Metagraph, member: SubnetMember) -> int | None:
    """Return for how many blocks a neuron can't be replaced yet; 0: it can; None: the chain does not say."""
    if graph.immunity is None or member.registered_at is None:
        return None
    return max(member.registered_at + graph.immunity - graph.block, 0)


@dataclass(frozen=True, slots=True)
class Replacement:
    """How near a neuron is to losing its uid."""

    place: int | None  # 1: the next registration takes its uid; None: it is none of those who may be replaced
    candidates: int  # how many may be replaced
    free: int  # places that nobody has: a registration replaces nobody as long as there are any

    @property
    def registrations(self) -> int | None:
        """How many registrations it takes until ours goes, if nobody's pay changes; None: ours does not go."""
        return None if self.place is None else self.free + self.place

    @property
    def is_near(self) -> bool:
        """Whether few registrations would do."""
        return self.registrations is not None and self.registrations <= NEAR_REGISTRATIONS

    def __str__(self) -> str:
        if self.registrations is None:
            return "not among those who may be replaced"
        if self.registrations == 1:
            return "the next registration takes this uid"
        free = f" and {self.free} free" if self.free else ""
        return f"number {self.place} of {self.candidates} to be replaced{free}"


def replacement_of(graph: Metagraph, hotkey: str) -> Replacement | None:
    """Return how near a hotkey is to losing its uid; None: not registered, or the chain does not say.

    As the runtime chooses (`get_neuron_to_prune`): of those no longer immune the one with the least emission, then the
    oldest, then the lowest uid; the immune in place of them where there are no more than `floor`; never the owner's
    oldest neurons, as many as `owner_places`, its own hotkey first.
    """
    own = graph.member(hotkey)
    if own is None or graph.capacity is None or immune_blocks(graph, own) is None:
        return None
    spared = _spared(graph)
    by_immunity: dict[bool, list[SubnetMember]] = {False: [], True: []}
    for member in graph.members:
        left = immune_blocks(graph, member)
        if left is None:
            return None
        if member.neuron.uid not in spared:
            by_immunity[left > 0].append(member)
    chosen = by_immunity[len(by_immunity[False]) <= (graph.floor or 0)]
    order = sorted(chosen, key=lambda one: (one.emission, one.registered_at or 0, one.neuron.uid))
    place = order.index(own) + 1 if own in order else None
    return Replacement(place, len(order), max(graph.capacity - len(graph.members), 0))


def _spared(graph: Metagraph) -> set[int]:
    """Return the uids of the owner's neurons that are never replaced."""
    limit = 1 if graph.owner_places is None else graph.owner_places
    owned = [member for member in graph.members if member.coldkey == graph.owner_coldkey]
    owned.sort(key=lambda member: (member.registered_at or 0, member.neuron.uid))
    spared = [member.neuron.uid for member in owned[:limit]]
    first = graph.member(graph.owner_hotkey or "")
    if first is not None and first.neuron.uid not in spared:
        spared.insert(0, first.neuron.uid)
    return set(spared[:limit])


@dataclass(frozen=True, slots=True)
class Ownership:
    """Whose subnet it was when we saw it first."""

    name: str
    owner_coldkey: str
    registered_at: int
    seen_at: Annotated[float, Field(ge=0, lt=2**36)]  # seconds since 1970, of years that a date can be written of

    @classmethod
    def of(cls, graph: Metagraph, now: float) -> "Ownership | None":
        """Return it as it is now; None: the chain does not say."""
        if not graph.owner_coldkey or graph.registered_at is None:
            return None
        return cls(graph.name or "", graph.owner_coldkey, graph.registered_at, now)


Change = Literal["", "owner", "registration"]


def change_since(first: Ownership | None, graph: Metagraph) -> Change:
    """Return what became of the subnet: another owner, or another subnet under its number; "": nothing we know of."""
    now = Ownership.of(graph, 0.0)
    if first is None or now is None:
        return ""
    if now.registered_at != first.registered_at:
        return "registration"
    return "owner" if now.owner_coldkey != first.owner_coldkey else ""


def is_named_as_ours(graph: Metagraph) -> bool | None:
    """Return whether the subnet's name is StreetVision's; None: it has none, or the chain does not say."""
    return any(one in graph.name.lower().replace(" ", "") for one in OWN_NAMES) if graph.name else None
