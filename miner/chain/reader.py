"""The reading of a subnet, again and again: one for all our hotkeys on it."""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from miner.addresses import shown
from miner.chain.base import EMPTY, Snapshot
from miner.chain.client import ChainClient, ChainFault, Operation
from miner.chain.reads import Subnet, read_subnet
from miner.chain.store import SnapshotStore

log = logging.getLogger(__name__)

DAY = 86400.0
RETRY_AFTER_CAP = 900.0  # seconds; what a node may ask for, and get


class SubnetReader:
    """Keeps a snapshot of the subnet fresh; a chain that is away costs freshness and nothing else.

    After `max_age` the snapshot is still there, and `obstacle` says that it is too old to go by.
    """

    def __init__(
        self,
        address: str,
        netuid: int,
        state_dir: Path,
        *,
        sync_seconds: float = 60.0,
        max_age_seconds: float = DAY,
        call_seconds: float = 30.0,
        clock: Callable[[], float] = time.time,
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
        self._fault: ChainFault | None = None
        self._faults_in_a_row = 0
        self._client: ChainClient | None = None
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._stopped = False

    @property
    def age(self) -> float:
        """Seconds since the snapshot was taken; infinite before the first."""
        return self._clock() - self.snapshot.taken_at if self.snapshot is not EMPTY else float("inf")

    @property
    def obstacle(self) -> str | None:
        """Why there is no snapshot to go by, in words for the operator; None when there is one."""
        if self._task is not None and self._task.done():
            return "the chain is no longer read; restart the miner and report the error in its log"
        if self.snapshot is EMPTY:
            return f"no snapshot of subnet {self.netuid} yet: {self._fault or f'connecting to {shown(self.address)}'}"
        if self.age > self._max_age:
            return (
                f"the snapshot of the chain is {self.age / 3600:.1f} h old, the limit is {self._max_age / 3600:g} h: "
                f"{self._fault or 'waiting for an answer'}"
            )
        return None

    async def start(self) -> None:
        """Take the first snapshot, or the stored one if the chain does not answer, and go on reading from then on.

        Without effect where another hotkey has started it.
        """
        if self._task is not None:
            return
        await self._sync()
        if self.snapshot is EMPTY:
            await asyncio.to_thread(self._restore)
        self._task = asyncio.create_task(self._refresh(), name="chain")
        self._task.add_done_callback(_report)

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
            try:
                async with asyncio.timeout(self._pause()):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            await self._sync()

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
                basis = "nothing" if self.snapshot is EMPTY else f"block {self.snapshot.block}"
                log.warning("the chain can't be read: %s; going by %s until it can", fault, basis)
            self._fault = fault
            # The SDK mends a dropped connection by itself; what it could not mend gets a new client.
            await self._close()
            return
        if self._fault is not None:
            log.info("the chain is read again, after %d failures", self._faults_in_a_row)
        self._fault, self._faults_in_a_row = None, 0
        await self._take(subnet)

    async def _take(self, subnet: Subnet) -> None:
        self.snapshot = Snapshot(subnet.block, self._clock(), subnet.neurons)
        self.syncs += 1
        for tell in self.told:
            tell(subnet)
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
            stored = self._store.load()
        except (OSError, ValueError) as error:
            log.warning("the stored snapshot %s can't be read: %s", self._store.path, error)
            return
        if stored is None:
            return
        hours = (self._clock() - stored.taken_at) / 3600
        if hours * 3600 > self._max_age:
            log.warning("the stored snapshot is %.1f h old, the limit is %g h; not used", hours, self._max_age / 3600)
            return
        log.warning("starting with the stored snapshot of block %d, %.1f h old", stored.block, hours)
        self.snapshot = stored


def _report(task: asyncio.Task[None]) -> None:
    """Log what ended the refreshing: a fault of ours, since the chain's are all expected."""
    error = None if task.cancelled() else task.exception()
    if error is not None:
        log.critical("the chain is no longer read", exc_info=error)
