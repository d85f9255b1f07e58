"""One hotkey of ours on subtensor: its registration, and its published address."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from detectors.redact import shown
from miner.chain.base import Snapshot
from miner.chain.client import ChainFault
from miner.chain.market import Market
from miner.chain.publication import PublicAddress, Publisher
from miner.chain.queries import Subnet
from miner.chain.sync import OwnRead, SubnetReader, changes, register_command

if TYPE_CHECKING:
    from bittensor import Wallet

log = logging.getLogger(__name__)


class SubtensorChain:
    """What the chain means for one hotkey; several may share a reader."""

    def __init__(
        self,
        reader: SubnetReader,
        wallet: "Wallet",
        axon: PublicAddress | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        market: Market | None = None,
    ) -> None:
        self.reader = reader
        self.market = market
        self.hotkey: str = wallet.hotkey.ss58_address
        self._wallet_name = wallet.name
        self._publisher = Publisher(axon, reader.netuid, wallet, monotonic) if axon is not None else None
        self._publishing = False
        self._sight: OwnRead | None = None
        self._publication_task: asyncio.Task[None] | None = None  # one step, beside the reads
        reader.told.append(self._see)
        if market is not None:
            market.hotkeys.append(self.hotkey)

    @property
    def snapshot(self) -> Snapshot:
        """The last good snapshot."""
        return self.reader.snapshot

    @property
    def uid(self) -> int | None:
        """Ours; None: not registered."""
        return self.snapshot.uid_of(self.hotkey)

    @property
    def age(self) -> float:
        """Seconds since the snapshot was taken; infinite before the first."""
        return self.reader.age

    @property
    def fault(self) -> str | None:
        """Why the snapshot is not fresh, as of the last read; None while all is well."""
        return self.reader.fault

    @property
    def syncs(self) -> int:
        """Good reads."""
        return self.reader.syncs

    @property
    def failures(self) -> int:
        """Reads and publications that failed, of all our hotkeys."""
        return self.reader.failures

    @property
    def publication(self) -> str:
        """Whether validators can find us on chain, in words."""
        return self._publisher.state if self._publisher is not None else "not published: not asked for"

    @property
    def is_published(self) -> bool:
        """Whether our address stands on chain, as of the last read."""
        return self._publisher is not None and self._publisher.is_published

    @property
    def obstacle(self) -> str | None:
        """Why the chain's side is not ready, in words for the operator; None when it is."""
        if self.reader.obstacle is not None:
            return self.reader.obstacle
        if self.uid is None:
            netuid, address = self.reader.netuid, self.reader.address
            command = register_command(netuid, self._wallet_name, self.hotkey, address)
            return (
                f"hotkey {self.hotkey} is not registered on subnet {netuid} of {shown(address)}; "
                f"where its coldkey is: {command}"
            )
        return None

    async def start(self) -> None:
        """Take the first snapshot, or the stored one if the chain does not answer, and go on reading from then on."""
        await self.reader.start()
        if self.market is not None:
            self.market.start()

    async def publish(self) -> None:
        """Keep our address published from now on; returns at once, `publication` tells how it goes."""
        self._publishing = True
        self.reader.read_soon()

    async def stop(self) -> None:
        """Stop publishing, and the reader with it."""
        task, self._publication_task = self._publication_task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        if self.market is not None:
            await self.market.stop()
        await self.reader.stop()

    def _see(self, subnet: Subnet) -> None:
        """Say what became of us, and see to the publication."""
        sight = OwnRead(self.uid, subnet.neurons, subnet.coldkeys)
        for level, message in changes(self._sight, sight, self.hotkey):
            log.log(level, "subnet %d on %s: %s", self.reader.netuid, shown(self.reader.address), message)
        self._sight = sight
        if self._publisher is None or not self._publishing:
            return
        if sight.uid is None:
            self._publisher.prevented("the hotkey is not registered")
        elif self._publication_task is None or self._publication_task.done():
            # Beside the reads: an extrinsic may take minutes. One at a time.
            self._publication_task = asyncio.create_task(self._publish(self._publisher), name="chain publication")

    async def _publish(self, publisher: Publisher) -> None:
        try:
            await publisher.step(self.reader.call)
        except ChainFault as fault:
            # The connection stays: whether it is broken, the next read tells.
            self.reader.failures += 1
            publisher.failed(str(fault))
        except Exception as error:
            # A fault of ours; requests are answered all the same, by who finds us.
            self.reader.failures += 1
            publisher.failed(f"{type(error).__name__}, see the log")
            log.exception("publishing failed; it is tried again")
