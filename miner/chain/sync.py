"""The sync of the snapshot: read again and again for all our hotkeys, kept on disk, with changes of ours told."""

import asyncio
import hashlib
import json
import logging
import math
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from detectors.files import write_safely
from detectors.redact import shown
from miner.chain.base import EMPTY, Neuron, Snapshot
from miner.chain.client import ChainClient, ChainFault, Operation
from miner.chain.queries import Subnet, read_subnet
from miner.settings.addresses import is_shown_whole
from miner.settings.settings import Settings

log = logging.getLogger(__name__)

AHEAD_SECONDS = 60.0  # by which a clock may have been set back since; more is no time that ever was

DAY_SECONDS = 86400.0
RETRY_AFTER_CAP = 900.0  # seconds; what a node may ask for, and get
FIRST_READ_SECONDS = 2.0  # for which a start that has a stored snapshot waits for a fresh one
STANDS_SECONDS = 180.0  # without a new block, which comes every 12 s, after which that is said


class SnapshotAhead(ValueError):
    """A stored snapshot is of a time that is still to come: this clock is behind, or that one was ahead."""


@dataclass(frozen=True, slots=True)
class SnapshotStore:
    """One file for each network and subnet."""

    state_dir: Path
    network: str
    netuid: int

    @property
    def name(self) -> str:
        """What the network is called here: the hash of an address that holds what nobody else may see."""
        if is_shown_whole(self.network):
            return self.network
        return hashlib.sha256(self.network.encode()).hexdigest()[:16]

    @property
    def path(self) -> Path:
        """Where the file lies; a ws:// address becomes part of its name."""
        return self.file("chain")

    def file(self, kind: str, suffix: str = "json") -> Path:
        """Return where something else of this subnet lies."""
        network = re.sub(r"[^a-zA-Z0-9.]+", "-", self.name).strip("-")
        return self.state_dir / f"{kind}-{network}-{self.netuid}.{suffix}"

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the place of the settings' subnet; a trial without a chain has its own."""
        return cls(settings.state_dir, settings.chain_address, settings.netuid)

    def save(self, snapshot: Snapshot) -> None:
        """Replace the file as a whole.

        Raises:
            OSError: it can't be written.
        """
        neurons = [
            [n.uid, n.hotkey, n.stake, n.validator_permit, n.incentive, n.trust, n.last_update]
            for n in snapshot.neurons.values()
        ]
        content = {
            "network": self.name,
            "netuid": self.netuid,
            "block": snapshot.block,
            "taken_at": snapshot.taken_at,
            "neurons": neurons,
        }
        self.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_safely(self.path, json.dumps(content).encode())

    def load(self, now: float) -> Snapshot | None:
        """Return what was stored by `now`, in seconds since 1970; None where there is nothing.

        Raises:
            SnapshotAhead: it is of a time that is still to come.
            ValueError: the file is broken, or another chain's.
            OSError: it can't be read.
        """
        if not self.path.exists():
            return None
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            if (content["network"], content["netuid"]) != (self.name, self.netuid):
                raise ValueError("it belongs to another network or subnet")
            rows = [_neuron(*row) for row in content["neurons"]]
            neurons = {neuron.hotkey: neuron for neuron in rows}
            taken_at = _finite(content["taken_at"])
            if taken_at > now + AHEAD_SECONDS:
                raise SnapshotAhead(f"taken_at={taken_at:.0f} is {(taken_at - now) / 3600:.1f} h ahead of the clock")
            return Snapshot(block=int(content["block"]), taken_at=taken_at, neurons=MappingProxyType(neurons))
        except (KeyError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError(f"it is not what was stored: {error}") from error


def _neuron(uid: int, hotkey: str, stake: float, permit: bool, *scores: float) -> Neuron:
    incentive, trust, last_update = scores or (math.nan, math.nan, 0)  # older files end before them
    if scores:
        incentive, trust = _finite(incentive), _finite(trust)
    return Neuron(int(uid), str(hotkey), _finite(stake), bool(permit), incentive, trust, int(last_update))


def _finite(value: float) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} is no number that was stored")
    return number


class SubnetReader:
    """Keeps a snapshot of the subnet fresh; a chain that is away costs freshness and nothing else.

    Its age is the time since the node was last seen at a new block: one that stands tells nothing new, however often
    it is asked. After `max_age` the snapshot is still there, and `obstacle` says that it is too old to go by. A clock
    that is set back makes nothing younger: what this process has seen is as old as the monotonic clock says at least.
    """

    def __init__(
        self,
        address: str,
        netuid: int,
        state_dir: Path,
        *,
        sync_seconds: float = 60.0,
        max_age_seconds: float = DAY_SECONDS,
        call_seconds: float = 30.0,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.address = address
        self.netuid = netuid
        self.snapshot = EMPTY
        self.syncs = 0  # good reads
        self.failures = 0  # reads that failed, and publications
        self.told: list[Callable[[Subnet], None]] = []  # told of every good read, once its snapshot is taken
        self._store = SnapshotStore(state_dir, address, netuid)
        self._cache_dir = state_dir / "runtime-cache"
        self._sync_seconds = sync_seconds
        self._max_age = max_age_seconds
        self._call_seconds = call_seconds
        self._clock = clock
        self._monotonic = monotonic
        self._fresh_at = 0.0  # on the monotonic clock, at which the snapshot had no age
        self._is_ahead = False  # whether the stored snapshot is, by a clock that may yet be set
        self._fault: ChainFault | None = None
        self._faults_in_a_row = 0
        self._block = 0  # the node's, as of the last read
        self._stands_at: int | None = None  # the block, once that is said
        self._tried = asyncio.Event()  # whether the first read has ended, either way
        self._client: ChainClient | None = None
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._stopped = False

    @property
    def age(self) -> float:
        """Seconds since the snapshot was taken; infinite before the first."""
        if self.snapshot is EMPTY:
            return float("inf")
        return max(self._clock() - self.snapshot.taken_at, self._monotonic() - self._fresh_at, 0.0)

    @property
    def fault(self) -> str | None:
        """Why the snapshot is not fresh, as of the last read; None while all is well."""
        if self._fault is not None:
            return str(self._fault)
        return f"the node is stuck at block {self._stands_at}" if self._stands_at is not None else None

    @property
    def obstacle(self) -> str | None:
        """Why there is no snapshot to go by, in words for the operator; None when there is one."""
        if self._task is not None and self._task.done():
            return "the chain is no longer read; restart the miner and report the error in its log"
        if self.snapshot is EMPTY:
            return f"no snapshot of subnet {self.netuid} yet: {self.fault or f'connecting to {shown(self.address)}'}"
        if self.age > self._max_age:
            return (
                f"the snapshot of the chain is {self.age / 3600:.1f} h old, the limit is {self._max_age / 3600:g} h: "
                f"{self.fault or 'waiting for an answer'}"
            )
        return None

    async def start(self) -> None:
        """Take the first snapshot, or go by the stored one if the chain does not answer soon, and read from then on.

        Without effect where another hotkey has started it.
        """
        if self._task is not None:
            return
        await asyncio.to_thread(self._restore)
        self._task = asyncio.create_task(self._refresh(), name="chain")
        self._task.add_done_callback(_report)
        tried = asyncio.create_task(self._tried.wait())
        patience = None if self.snapshot is EMPTY else FIRST_READ_SECONDS
        await asyncio.wait({self._task, tried}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        tried.cancel()

    def read_soon(self) -> None:
        """Read now rather than at the next turn."""
        self._wake.set()

    async def stop(self) -> None:
        """Stop refreshing and close the connection."""
        self._stopped = True
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        await self._close()

    async def call(self, operation: Operation[Any], patience: float = 1.0) -> Any:
        """Ask the chain something, within the usual time or `patience` times that.

        Raises:
            ChainFault: there was no answer, or none that can be used.
        """
        if self._stopped:
            raise ChainFault("the reading has stopped")  # else another hotkey's publication would connect again
        if self._client is None:
            self._client = ChainClient(self.address, self._cache_dir)
        return await self._client.call(operation, self._call_seconds * patience)

    async def _refresh(self) -> None:
        while True:
            await self._sync()
            self._tried.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause()):
                    await self._wake.wait()
            self._wake.clear()

    def _pause(self) -> float:
        """Seconds to the next read: after failures 1, 2, 4 … up to the usual interval; scattered either way."""
        seconds = self._sync_seconds
        if self._faults_in_a_row:
            seconds = min(seconds, 2.0 ** min(self._faults_in_a_row - 1, 16))
        if self._fault is not None:
            seconds = max(seconds, min(self._fault.retry_after, RETRY_AFTER_CAP))
        return seconds * random.uniform(0.8, 1.2)  # noqa: S311

    async def _sync(self) -> None:
        """Read the subnet; what goes wrong is counted and said, not raised."""
        try:
            subnet = await self.call(partial(read_subnet, netuid=self.netuid))
        except ChainFault as fault:
            self.failures += 1
            self._faults_in_a_row += 1
            if self._fault is None:
                basis = "no snapshot" if self.snapshot is EMPTY else f"block {self.snapshot.block}"
                log.warning("the chain can't be read: %s; %s is used until it can", fault, basis)
            self._fault = fault
            if self._is_ahead and self.snapshot is EMPTY:
                await asyncio.to_thread(self._restore)
            # The SDK mends a dropped connection by itself; what it could not mend gets a new client.
            await self._close()
            return
        if self._fault is not None:
            log.info("the chain is read again, after %d failures", self._faults_in_a_row)
        self._fault, self._faults_in_a_row = None, 0
        await self._take(subnet)

    async def _take(self, subnet: Subnet) -> None:
        self.syncs += 1
        before, has_moved = self.snapshot, self._has_moved(subnet.block)
        self._block = subnet.block
        if has_moved:
            self.snapshot = Snapshot(subnet.block, self._clock(), subnet.neurons)
            self._fresh_at = self._monotonic()
        self._say_whether_it_stands(subnet.block, has_moved=has_moved)
        if not has_moved and subnet.block < before.block:
            return  # a node that fell behind, or another one: what it says is older than what we know
        if not has_moved:
            # A clock that was set meanwhile makes it neither older nor younger.
            taken_at = self._clock() - (self._monotonic() - self._fresh_at)
            self.snapshot = replace(before, neurons=subnet.neurons, taken_at=taken_at)
        for tell in self.told:
            tell(subnet)
        if has_moved:
            await self._store_snapshot()

    def _has_moved(self, block: int) -> bool:
        if self.snapshot is EMPTY or block > self.snapshot.block:
            return True
        # A chain that was begun anew never gets to a block that was seen of the one before.
        return self.age > self._max_age and block > self._block > 0

    def _say_whether_it_stands(self, block: int, *, has_moved: bool) -> None:
        if has_moved:
            if self._stands_at is not None:
                log.info("the node's blocks advance again, at block %d", block)
            self._stands_at = None
        elif self._stands_at is not None or self.age > STANDS_SECONDS:
            if self._stands_at is None:
                log.warning(
                    "the node is stuck at block %d; the snapshot of block %d is used", block, self.snapshot.block
                )
            self._stands_at = block

    async def _store_snapshot(self) -> None:
        try:
            await asyncio.to_thread(self._store.save, self.snapshot)
        except OSError as error:
            log.log(logging.WARNING if self.syncs == 1 else logging.DEBUG, "the snapshot can't be stored: %s", error)

    async def _close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def _restore(self) -> None:
        """Go by the stored snapshot, if there is one that is young enough."""
        try:
            stored, self._is_ahead = self._store.load(self._clock()), False
        except SnapshotAhead as error:
            if not self._is_ahead:
                log.warning("the stored snapshot %s waits for the clock to be set: %s", self._store.path, error)
            self._is_ahead = True
            return
        except (OSError, ValueError) as error:
            log.warning("the stored snapshot %s can't be read: %s", self._store.path, error)
            return
        if stored is None:
            return
        hours = max(self._clock() - stored.taken_at, 0.0) / 3600
        if hours * 3600 > self._max_age:
            log.warning("the stored snapshot is %.1f h old, the limit is %g h; not used", hours, self._max_age / 3600)
            return
        log.info("starting with the stored snapshot of block %d, %.1f h old", stored.block, hours)
        self.snapshot, self._fresh_at = stored, self._monotonic() - hours * 3600


def _report(task: asyncio.Task[None]) -> None:
    """Log what ended the refreshing: a fault of ours, since the chain's are all expected."""
    error = None if task.cancelled() else task.exception()
    if error is not None:
        log.critical("the chain is no longer read", exc_info=error)


@dataclass(frozen=True, slots=True)
class OwnRead:
    """One read, as far as it concerns us."""

    uid: int | None  # ours
    neurons: Mapping[str, Neuron]  # by hotkey
    coldkeys: Mapping[str, str]  # by hotkey


def changes(before: OwnRead | None, now: OwnRead, hotkey: str) -> Iterator[tuple[int, str]]:
    """Yield a logging level and a line for each change of state."""
    if before is None:
        permits = sum(neuron.validator_permit for neuron in now.neurons.values())
        who = f"our uid is {now.uid}" if now.uid is not None else f"hotkey {hotkey} is not registered"
        yield (
            logging.INFO if now.uid is not None else logging.WARNING,
            f"{len(now.neurons)} neurons, {permits} with a permit; {who}",
        )
    elif before.uid is None and now.uid is not None:
        yield logging.INFO, f"registered; our uid is {now.uid}"
    elif before.uid is not None and now.uid is None:
        yield logging.WARNING, _lost(before, now, hotkey)
    elif before.uid != now.uid:
        yield logging.WARNING, f"our uid changed from {before.uid} to {now.uid}"


def _lost(before: OwnRead, now: OwnRead, hotkey: str) -> str:
    heir = next((neuron.hotkey for neuron in now.neurons.values() if neuron.uid == before.uid), None)
    if heir is None:
        return f"deregistered; nobody has our uid {before.uid} yet"
    if now.coldkeys.get(heir) == before.coldkeys.get(hotkey):
        return f"our hotkey was swapped: uid {before.uid} belongs to {heir} now, of the same coldkey; set WALLET_HOTKEY"
    return f"deregistered; our uid {before.uid} belongs to {heir} now"


def register_command(netuid: int, wallet: str, hotkey: str, network: str) -> str:
    """Return the command that registers a hotkey; by its address, since its file need not be where the coldkey is.

    A network whose address holds what nobody else may see is left for the operator to fill in.
    """
    network = network if is_shown_whole(network) else "YOUR_ENDPOINT"
    return f"btcli subnet register --netuid {netuid} --wallet {wallet} --hotkey {hotkey} --network {network}"
