"""The server of `label`: the page, a look for new photos now and then, and the thread that makes features."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from miner.feedback.app import label_app
from miner.feedback.features import FeatureThread
from miner.feedback.sitting import Sitting
from miner.feedback.traffic import read_traffic, state_of
from miner.http.connections import Connections, Guard
from miner.http.server import listening

HOST = "127.0.0.1"
TOKEN_BYTES = 24
LOOK_SECONDS = 3.0  # between two looks for new photos
LOOK_SHARE = 20  # at most one part of the time in so many goes into these looks
WRITE_SECONDS = 600.0  # for a photo to leave through a slow tunnel


@asynccontextmanager
async def serving(sitting: Sitting, recorder: Path, port: int, note: str = "") -> AsyncIterator[str]:
    """Serve the page for as long as the context lasts, and yield its address, which is secret.

    Args:
        sitting: what is shown and labelled.
        recorder: the folder in which new photos are looked for.
        port: on this machine's loopback; 0: any free one.
        note: what keeps new photos away, for the page.

    Raises:
        CouldNotStart: the port is taken or not allowed.
    """
    token = secrets.token_urlsafe(TOKEN_BYTES)
    features = FeatureThread(sitting.labels.folder, sitting.wanted, sitting.know)
    connections = Connections(Guard(write_seconds=WRITE_SECONDS))
    async with listening(label_app(sitting, token, note), "--port", HOST, port, connections) as number:
        looking = asyncio.create_task(_look(sitting, recorder, features))
        features.start()
        try:
            yield f"http://{HOST}:{number}/{token}/"
        finally:
            looking.cancel()
            await asyncio.to_thread(features.close)


async def _look(sitting: Sitting, recorder: Path, features: FeatureThread) -> None:
    """Take in what is recorded meanwhile."""
    state, seconds = await asyncio.to_thread(state_of, recorder), 0.0
    while True:
        await asyncio.sleep(max(LOOK_SECONDS, LOOK_SHARE * seconds))
        before, state = state, await asyncio.to_thread(state_of, recorder)
        if state == before:
            continue
        began = time.monotonic()
        with suppress(OSError):  # the folder may be gone, or come again
            sitting.take_in(await asyncio.to_thread(read_traffic, recorder))
            features.look()
        seconds = time.monotonic() - began
