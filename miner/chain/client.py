"""The SDK's client on a thread and an event loop of its own, so that it can't delay a request, whatever it does.

Measured with bittensor 11.3 and 256 neurons on two cores: on the miner's loop its import stalls requests for 360 ms,
connecting for 25 ms, a read for 3–7 ms; on a thread of its own 24 ms, 9 ms and 3–7 ms (the interpreter's lock).
A cancelled connect leaves tasks and a socket behind; closing the loop takes them with it.
"""

import asyncio
import logging
import os
import threading
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from miner.errors import MinerError
from miner.formats import one_line

if TYPE_CHECKING:
    import bittensor

log = logging.getLogger(__name__)

T = TypeVar("T")
Operation = Callable[["bittensor.Client"], Awaitable[T]]

GRACE_SECONDS = 2.0  # for the thread to report its own time-out; silent for longer, it is stuck
CLOSE_SECONDS = 2.0
CONNECTION_CLOSED = "the connection was closed"


class ChainFault(MinerError):
    """The chain did not answer, or not with what it should; the message is for the operator.

    Attributes:
        retry_after: seconds for which the node asked not to be asked again.
        is_unreadable: whether it spoke, and the SDK did not understand what it said.
    """

    def __init__(self, message: str, retry_after: float = 0.0, *, is_unreadable: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.is_unreadable = is_unreadable


class _Loop(asyncio.SelectorEventLoop):
    """A loop that knows its connections: the SDK loses the one it was opening when its time ran out."""

    def __init__(self) -> None:
        super().__init__()
        self.set_exception_handler(_whisper)
        self.transports: weakref.WeakSet[asyncio.Transport] = weakref.WeakSet()

    async def create_connection(self, *args: Any, **kwargs: Any) -> Any:
        """Connect as ever, and remember."""
        transport, protocol = await super().create_connection(*args, **kwargs)
        self.transports.add(transport)
        return transport, protocol


def _whisper(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what a task of the SDK's left behind; what concerns us, a call raises."""
    error = context.get("exception")
    log.debug("the SDK: %s", one_line(f"{context.get('message')}: {error!r}" if error else str(context.get("message"))))


class ChainClient:
    """One connection to the chain; used up by `close`, which ends the calls that still wait."""

    def __init__(self, address: str, cache_dir: Path) -> None:
        self.address = address
        self._cache_dir = cache_dir
        self._sdk: bittensor.Client | None = None
        self._loop = _Loop()
        self._connecting = asyncio.Lock()
        self._closing = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="chain", daemon=True)
        self._thread.start()

    async def call(self, operation: Operation[T], seconds: float) -> T:
        """Run one operation of the SDK, connecting first where needed.

        Raises:
            ChainFault: it failed, or took longer than `seconds`.
        """
        if self._loop.is_closed():
            raise ChainFault(CONNECTION_CLOSED)
        future = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._call(operation, seconds), self._loop))
        try:
            # The SDK meets a broken node with whatever its decoding runs into, a panic of its Rust core among them;
            # a future hands over every one of them.
            await asyncio.wait({future}, timeout=seconds + GRACE_SECONDS)
            if not future.done():
                raise ChainFault("the client is stuck")
            error = None if future.cancelled() else future.exception()
            if future.cancelled() or (error is not None and self._closing.is_set()):
                raise ChainFault(CONNECTION_CLOSED) from error
            if isinstance(error, ChainFault):
                raise error
            if error is not None:
                raise _fault(error, seconds) from error
            return future.result()
        finally:
            future.cancel()

    async def close(self) -> None:
        """Close the connection; a thread that does not end in time is left behind."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._closing.set)
        await asyncio.to_thread(self._thread.join, CLOSE_SECONDS + GRACE_SECONDS)
        if self._thread.is_alive():
            log.warning("the chain client hangs; its thread is left behind")

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._live())

    async def _live(self) -> None:
        await self._closing.wait()
        if self._sdk is not None:
            await asyncio.wait({asyncio.gather(self._sdk.close(), return_exceptions=True)}, timeout=CLOSE_SECONDS)
        # Before the connections, or its supervisor takes the loss of one for a reason to connect again; and more than
        # once, since a task that was just woken may swallow its cancellation.
        for _ in range(20):
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            if others:
                await asyncio.wait(others, timeout=CLOSE_SECONDS / 20)
        for transport in self._loop.transports:
            transport.abort()
        await asyncio.sleep(0)  # the loop closes an aborted connection on its next turn

    async def _call(self, operation: Operation[T], seconds: float) -> T:
        async with asyncio.timeout(seconds):
            async with self._connecting:
                if self._sdk is None:
                    self._sdk = await self._connect()
            return await operation(self._sdk)

    async def _connect(self) -> "bittensor.Client":
        # The SDK keeps the runtime's metadata and the names of tokens in the home folder, which a service may not
        # have, and takes another place from the environment alone.
        os.environ.setdefault("BITTENSOR_RUNTIME_CACHE_DIR", str(self._cache_dir))
        os.environ.setdefault("BTCLI_TOKEN_SYMBOLS_CACHE", str(self._cache_dir / "token-symbols.json"))
        import bittensor

        sdk = bittensor.Client(self.address)
        connected = False
        try:
            await sdk.connect()
            connected = True
        finally:
            if not connected:
                await sdk.close()
        return sdk


def _fault(error: BaseException, seconds: float) -> ChainFault:
    from bittensor import BittensorError

    if isinstance(error, TimeoutError):
        return ChainFault(f"no answer within {seconds:g} s")
    text, pause = one_line(str(error) or type(error).__name__), _retry_after(error)
    if isinstance(error, BittensorError | OSError):
        return ChainFault(text, pause)
    return ChainFault(f"an answer that can't be read ({type(error).__name__}: {text})", pause, is_unreadable=True)


def _retry_after(error: BaseException) -> float:
    try:
        return max(float(getattr(error, "retry_after", None) or 0.0), 0.0)
    except ValueError:  # a date; no node was seen to send one
        return 0.0
