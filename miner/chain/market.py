"""The market of a subnet, read every few minutes beside the syncs: its metagraph, what was seen of it first, its costs.

An item that this runtime or node does not give is None, with a reason; the others are there all the same.
"""

import asyncio
import json
import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from detectors.files import write_safely
from miner.chain.base import ACTIVITY_CUTOFF
from miner.chain.client import ChainFault
from miner.chain.earnings import DAY_SECONDS, RAO, Change, Metagraph, Ownership, SubnetMember, change_since
from miner.chain.queries import U16_MAX, neuron_of
from miner.chain.sync import STANDS_SECONDS, SnapshotStore, SubnetReader
from miner.formats import one_line

if TYPE_CHECKING:
    import bittensor

log = logging.getLogger(__name__)

AGAIN_SECONDS = 60.0  # until the next read after one that failed, at most
COST_STEP = 900.0  # seconds between two costs that are kept, unless it jumped
MOST_COSTS = 300  # that are kept: of more than a day, however often it jumps
COST_JUMP = 0.05  # of it: less is how it decays with every block
SHOWN_CHARACTERS = 60  # of a name that the owner made up
FRACTION_BITS = 32  # behind the point, of MinerBurned's U96F32


def _address(value: Any) -> str | None:
    return str(value) if value else None


def _fraction(value: Any) -> float:
    """Read a U96F32: the SDK hands out its bits, of which 32 are behind the point."""
    bits = int(value["bits"] if isinstance(value, dict) else value)
    return bits / float(2**FRACTION_BITS)


def _has_consensus(value: Any) -> bool:
    """Read which of `Yuma` and `Null` a subnet runs; the SDK hands out a name, a number, or a name with no content."""
    if isinstance(value, dict):
        value = next(iter(value))
    return value not in (1, "Null")


# Field of the metagraph -> where the runtime keeps it, and how it is read.
ITEMS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "owner_hotkey": ("SubnetOwnerHotkey", _address),
    "owner_coldkey": ("SubnetOwner", _address),
    "registered_at": ("NetworkRegisteredAt", int),
    "tempo": ("Tempo", int),
    "burned": ("MinerBurned", _fraction),
    "cost": ("Burn", lambda value: int(value) / RAO),
    "lock_share": ("CollateralLockShare", lambda value: int(value) / U16_MAX),
    "cutoff": ("ActivityCutoff", int),
    "immunity": ("ImmunityPeriod", int),
    "capacity": ("MaxAllowedUids", int),
    "owner_places": ("ImmuneOwnerUidsLimit", int),
    "floor": ("MinNonImmuneUids", int),
    "has_consensus": ("SubnetEpochConsensus", _has_consensus),
}


async def read_metagraph(client: "bittensor.Client", netuid: int, hotkeys: Sequence[str]) -> Metagraph:
    """Read a subnet as of one block; `hotkeys` are ours, whose collateral is asked for.

    Raises:
        ChainFault: the subnet does not exist there.
    """
    from bittensor import ConnectionNotReady, RpcConnectionError

    view = await client.at()
    unsaid: dict[str, str] = {}

    async def known(name: str, read: Awaitable[Any]) -> Any:
        try:
            return await read
        except (OSError, ConnectionNotReady, RpcConnectionError):  # the connection's fault, not the item's
            raise
        except Exception as error:  # noqa: BLE001 - an unknown item, or type, shows itself as whatever decoding runs into
            unsaid[name] = one_line(str(error) or type(error).__name__)
            return None

    async def item(name: str, convert: Callable[[Any], Any]) -> Any:
        return convert(await view.query(("SubtensorModule", name), [netuid]))

    if not await item("NetworksAdded", bool):
        raise ChainFault(f"subnet {netuid} does not exist there")
    neurons = await view.read("neurons", netuid=netuid)
    places = [[netuid, neuron.uid] for neuron in neurons]
    reads = {name: item(stored, convert) for name, (stored, convert) in ITEMS.items()}
    reads |= {"began": _began(view, places), "name": _name(view, netuid), "price": _price(view, netuid)}
    for neuron in neurons:
        if neuron.hotkey in hotkeys:
            reads[neuron.hotkey] = _locked(view, netuid, neuron.hotkey, neuron.coldkey)
    # All at once: one after the other they would take a second and more from a node that is far away.
    found = dict(zip(reads, await asyncio.gather(*(known(name, read) for name, read in reads.items())), strict=True))
    began = found.pop("began") or [None] * len(neurons)
    locked = {hotkey: found.pop(hotkey) for hotkey in list(found) if hotkey in hotkeys}
    members = [
        SubnetMember(neuron_of(n), n.coldkey, int(n.raw.get("emission", 0)), block)
        for n, block in zip(neurons, began, strict=True)
    ]
    return Metagraph(
        block=view.block,
        members=members,
        block_seconds=await view.block_time(),
        cutoff=found.pop("cutoff") or ACTIVITY_CUTOFF,
        collateral=MappingProxyType({hotkey: alpha for hotkey, alpha in locked.items() if alpha is not None}),
        unsaid=MappingProxyType(unsaid),
        **found,
    )


async def _began(view: Any, places: list[list[int]]) -> list[int]:
    found = await view.query_batch(("SubtensorModule", "BlockAtRegistration"), places)
    return [int(block or 0) for block in found]


async def _name(view: Any, netuid: int) -> str:
    identity = await view.read("subnet_identity", netuid=netuid)
    return one_line(str((identity or {}).get("subnet_name") or ""), SHOWN_CHARACTERS)


async def _price(view: Any, netuid: int) -> float:
    return float((await view.read("alpha_price", netuid=netuid))["tao_per_alpha"])


async def _locked(view: Any, netuid: int, hotkey: str, coldkey: str) -> float:
    found = await view.read("miner_collateral", netuid=netuid, hotkey_ss58=hotkey, coldkey_ss58=coldkey)
    return float(found["locked_alpha"].amount) if found else 0.0


class StoredMarket(BaseModel):
    """What the file of a memory holds."""

    model_config = ConfigDict(strict=True)

    first: Ownership | None
    costs: list[tuple[Annotated[float, Field(allow_inf_nan=False)], Annotated[float, Field(allow_inf_nan=False)]]]


@dataclass(slots=True)
class MarketMemory:
    """What outlasts a restart: whose subnet it was when we saw it first, and what a registration cost lately."""

    path: Path
    first: Ownership | None = None
    costs: list[tuple[float, float]] = field(default_factory=list)  # seconds since 1970, TAO; the oldest first

    @classmethod
    def beside(cls, store: SnapshotStore) -> "MarketMemory":
        """Return that of a subnet, empty as yet."""
        return cls(store.file("market"))

    def load(self) -> None:
        """Read what was stored, if anything was.

        Raises:
            OSError: the file can't be read.
            ValueError: it is broken.
        """
        if not self.path.exists():
            return
        try:
            stored = StoredMarket.model_validate_json(self.path.read_bytes())
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(map(str, fault["loc"])) or "it"
            raise ValueError(f"{where}: {fault['msg'].lower()}") from error
        self.first, self.costs = stored.first, stored.costs

    def save(self) -> None:
        """Replace the file as a whole.

        Raises:
            OSError: it can't be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        content = {"first": asdict(self.first) if self.first is not None else None, "costs": self.costs}
        write_safely(self.path, json.dumps(content).encode())

    def take(self, graph: Metagraph, now: float) -> bool:
        """Remember what is new of a read; return whether anything is."""
        is_new = False
        if self.first is None:
            self.first = Ownership.of(graph, now)
            is_new = self.first is not None
        if graph.cost is not None and self._is_worth(graph.cost, now):
            # Not by their age: a clock that is wrong until NTP sets it would forget the day.
            self.costs = [*self.costs, (now, graph.cost)][-MOST_COSTS:]
            is_new = True
        return is_new

    def _is_worth(self, cost: float, now: float) -> bool:
        if not self.costs:
            return True
        at, last = self.costs[-1]
        return not 0 <= now - at < COST_STEP or abs(cost - last) > COST_JUMP * last

    def rise(self, cost: float | None, now: float) -> float | None:
        """Return a cost as a multiple of the least one of the last day; None: nothing to compare with."""
        known = [before for at, before in self.costs if 0 <= now - at <= DAY_SECONDS and before > 0]
        return cost / min(known) if cost is not None and known else None


class Market:
    """Reads a subnet again and again through the reader's own client; what goes wrong costs freshness alone.

    Its age is that of the newest block, as the reader's is: a node that stands, or a clock that is set back, makes
    nothing fresh.
    """

    def __init__(
        self,
        reader: SubnetReader,
        memory: MarketMemory,
        seconds: float,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.reader = reader
        self.memory = memory
        self.hotkeys: list[str] = []  # ours
        self.graph: Metagraph | None = None
        self.read_at = 0.0  # seconds since 1970, when the newest block was read
        self.fault: str | None = None  # of the last read
        self.change: Change = ""
        self._seconds = seconds
        self._clock = clock
        self._monotonic = monotonic
        self._fresh_at = 0.0  # `read_at`, on the monotonic clock
        self._block = 0  # the node's, as of the last read
        self._task: asyncio.Task[None] | None = None

    @property
    def age(self) -> float:
        """Seconds since the newest block was read; infinite before the first."""
        if self.graph is None:
            return math.inf
        return max(self._clock() - self.read_at, self._monotonic() - self._fresh_at, 0.0)

    @property
    def rise(self) -> float | None:
        """What a registration costs, as a multiple of the least of the last day."""
        return self.memory.rise(self.graph.cost if self.graph is not None else None, self._clock())

    def start(self) -> None:
        """Read from now on; without effect where another hotkey has started it."""
        if self._task is None:
            self._task = asyncio.create_task(self._refresh(), name="market")
            self._task.add_done_callback(self._report)

    async def stop(self) -> None:
        """Stop reading."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _refresh(self) -> None:
        try:
            await asyncio.to_thread(self.memory.load)
        except (OSError, ValueError) as error:
            log.warning("the memory of the subnet %s can't be read: %s; it begins anew", self.memory.path, error)
        while True:
            await self._read()
            await asyncio.sleep(self._seconds if self.fault is None else min(self._seconds, AGAIN_SECONDS))

    async def _read(self) -> None:
        """Read once; what goes wrong is said, not raised."""
        try:
            graph = await self.reader.call(partial(read_metagraph, netuid=self.reader.netuid, hotkeys=self.hotkeys))
        except ChainFault as fault:
            if self.fault is None:
                log.warning("what the subnet pays can't be read: %s; tried again", fault)
            self.fault = str(fault)
            return
        has_moved, self._block = self._has_moved(graph.block), graph.block
        stands = not has_moved and self.age > STANDS_SECONDS  # which the reader's log says
        if self.fault is not None and not stands:
            log.info("what the subnet pays is read again")
        self.fault = f"the node is stuck at block {graph.block}" if stands else None
        if not has_moved and self.graph is not None and graph.block < self.graph.block:
            return  # of a node that is behind
        now = self._clock()
        if self.memory.take(graph, now):
            await self._store()
        self._tell_change(graph)
        self.graph = graph
        if has_moved:
            self.read_at, self._fresh_at = now, self._monotonic()

    def _has_moved(self, block: int) -> bool:
        if self.graph is None or block > self.graph.block:
            return True
        # A chain that was begun anew never gets to a block that was seen of the one before.
        return self.age > DAY_SECONDS and block > self._block > 0

    def _report(self, task: asyncio.Task[None]) -> None:
        """Say what ended the reading: a fault of ours, since the chain's are all expected."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.critical("what the subnet pays is no longer read", exc_info=error)
            self.fault = "it is no longer read; restart the miner and report the error in its log"

    def _tell_change(self, graph: Metagraph) -> None:
        change = change_since(self.memory.first, graph)
        if change and change != self.change:
            log.warning("subnet %d changed hands: %s", self.reader.netuid, changed_words(change, self.memory, graph))
        self.change = change

    async def _store(self) -> None:
        try:
            await asyncio.to_thread(replace(self.memory).save)
        except OSError as error:
            log.debug("the memory of the subnet can't be stored: %s", error)


def changed_words(change: Change, memory: MarketMemory, graph: Metagraph) -> str:
    """Return what became of a subnet, as a sentence for people."""
    first = memory.first
    assert first is not None
    seen = time.strftime("%Y-%m-%d", time.gmtime(first.seen_at))
    if change == "registration":
        began = f"since block {graph.registered_at}; on {seen} it was of block {first.registered_at}"
        return f"another one stands under its number {began}"
    return f"its owner is {graph.owner_coldkey}; on {seen} it was {first.owner_coldkey}"


def load_memory(store: SnapshotStore) -> MarketMemory:
    """Return what a miner remembers, for somebody else; empty where that can't be read."""
    memory = MarketMemory.beside(store)
    with suppress(OSError, ValueError):
        memory.load()
    return memory
